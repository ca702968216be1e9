// SPDX-License-Identifier: Apache-2.0
/* Any messages for the file server, over files in memory. The input is a list of messages, each a few bytes that say
 * how it is to be sent and then its own; numbers in them that stand for nodes or handles are small, so that they often
 * mean something. What must hold: the server asks the backend for nothing that was not handed out (fake_files.c notes
 * that), every reply lies within its room and says its own length, and the end of the session leaves nothing.
 *
 *     flags │ room for the reply / 64 │ length of the message │ opcode, node and arguments …
 *
 * Flags: 1 no INIT before, 2 read-only, 4 and without opens (all handles of files are 0 then), 8 with virtual entries
 * over the files, whose numbers are those from 0xf0 on.
 */
#include "ring.h"

#include "../tests/device/fake_files.h"
#include "device/fs/fs.h"

#include <linux/fuse.h>
#include <sys/mman.h>

enum { ram_bytes = 1 << 20, queues = 2, entries = 16, window_bytes = 1 << 16, most_messages = 64 };
enum { descriptors_at = 0x1000, available_at = 0x2000, used_at = 0x3000, message_at = 0x10000, reply_at = 0x40000 };

static struct memory *memory;
static struct virtio_device *device;
static struct fake_files files;
static struct fuzz_transport transport = {.queue_count = queues};
static uint16_t offered;

static void put(uint64_t address, const void *bytes, size_t length)
{
    FUZZ_CHECK(memory_write(memory, address, bytes, length) == 0);
}

static const struct fs_virtual entries_of_ours[] = {
    {.kind = FS_VIRTUAL_EMPTY, .path = "/bin", .mode = 0755},
    {.kind = FS_VIRTUAL_FILE, .path = "/bin/tool", .bytes = "tool", .length = 4, .mode = 0755},
    {.kind = FS_VIRTUAL_FILE, .path = "/file", .bytes = "once", .length = 4, .mode = 0600, .one_shot = true},
    {.kind = FS_VIRTUAL_FILE, .path = "/link", .bytes = "lid", .length = 3, .mode = 0600, .one_shot = true},
    {.kind = FS_VIRTUAL_HIDDEN, .path = "/link"},
    {.kind = FS_VIRTUAL_FOLDER, .path = "/folder", .mode = 0755},
};

/* Puts them over the files. */
static void put_entries(struct fs_backend *backend)
{
    struct fs_backend whole;
    FUZZ_CHECK(overlay_new(backend, entries_of_ours, sizeof(entries_of_ours) / sizeof(entries_of_ours[0]), &whole) ==
               0);
    *backend = whole;
}

static void begin(bool read_only, bool without_opens, bool has_entries)
{
    static void *window;
    struct fs_options options = {.tag = "fuzz", .read_only = read_only, .queue_count = 1, .worker_count = 1};
    options.without_opens = without_opens;
    if (memory == NULL) {
        FUZZ_CHECK(memory_new(ram_bytes, false, &memory) == 0);
        window = mmap(NULL, window_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        FUZZ_CHECK(window != MAP_FAILED);
    }
    fake_files_init(&files);
    options.backend = fake_files_backend(&files);
    if (has_entries)
        put_entries(&options.backend);
    options.window = window;
    options.window_bytes = window_bytes;
    FUZZ_CHECK(fs_new(&options, &device) == 0);
    virtio_device_attach(device, &fuzz_transport_ops, &transport);
    struct queue_layout layouts[queues] = {
        [1] = {.descriptors = descriptors_at, .available = available_at, .used = used_at, .entries = entries},
    };
    static const uint8_t zeros[0x3000];
    put(descriptors_at, zeros, sizeof(zeros));
    offered = 0;
    transport.is_broken = false;
    FUZZ_CHECK(virtio_device_start(device, memory, VIRTIO_F_VERSION_1, layouts) == 0);
}

/* One message of `length` bytes, and `room` for its reply, which must come. */
static void send(const void *message, uint32_t length, uint32_t room)
{
    struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } descriptors[] = {
        {message_at, length, (uint16_t)(room > 0), 1},
        {reply_at, room, 2, 0},
    };
    struct {
        uint32_t head, written;
    } used;
    uint16_t head = 0, used_index = 0;
    put(message_at, message, length);
    put(descriptors_at, descriptors, sizeof(descriptors));
    put(available_at + 4 + 2 * (uint64_t)(offered % entries), &head, sizeof(head));
    uint16_t slot = offered++ % entries;
    put(available_at + 2, &offered, sizeof(offered));
    virtio_device_serve(device, 1);
    while (memory_read(memory, used_at + 2, &used_index, sizeof(used_index)) == 0 && used_index != offered)
        virtio_device_turn(device); /* a worker has it */
    FUZZ_CHECK(memory_read(memory, used_at + 4 + 8 * (uint64_t)slot, &used, sizeof(used)) == 0);
    FUZZ_CHECK(used.head == 0 && used.written <= room);
    struct fuse_out_header header;
    if (used.written == 0)
        return;
    FUZZ_CHECK(memory_read(memory, reply_at, &header, sizeof(header)) == 0);
    FUZZ_CHECK(header.len == used.written && header.error <= 0 && header.error > -512);
}

static void agree(void)
{
    struct {
        struct fuse_in_header header;
        struct fuse_init_in in;
    } message = {
        .header = {.len = sizeof(message), .opcode = FUSE_INIT},
        .in = {.major = 7, .minor = 38, .flags = ~0u, .flags2 = ~0u},
    };
    send(&message, sizeof(message), 4096);
}

/* The next message of the input: the words that are of no use when they are large are made small, which one each time
 * the input says. */
static size_t send_next(const uint8_t *data, size_t size)
{
    static uint8_t message[4096];
    if (size < 6)
        return size;
    uint32_t room = (uint32_t)data[0] * 64, length = data[1] + (data[2] & 3u) * 256u;
    if (length > size - 6)
        length = (uint32_t)size - 6;
    struct fuse_in_header header = {
        .len = (uint32_t)sizeof(header) + length + (data[2] >= 0xf0 ? data[3] : 0),
        .opcode = data[4] & 63,
        .nodeid = data[5] < 0xf0 ? data[5] : UINT64_C(1) << 63 | (data[5] & 0xf),
        .unique = 1,
    };
    memcpy(message, &header, sizeof(header));
    memcpy(message + sizeof(header), data + 6, length);
    /* A handle's number: its place, and whatever generation. */
    if ((data[2] & 0x80) == 0 && length >= 8) {
        uint64_t number = (uint64_t)(message[sizeof(header)] & 7) | (uint64_t)(message[sizeof(header) + 4] & 3) << 32;
        memcpy(message + sizeof(header), &number, sizeof(number));
    }
    uint32_t sent = data[2] >= 0xf0 && data[3] % 64 < sizeof(header) ? data[3] % 64 : (uint32_t)sizeof(header) + length;
    send(message, sent > 0 ? sent : 1, room);
    return 6 + length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 8)
        return 0;
    begin((data[0] & 2) != 0, (data[0] & 6) == 6, (data[0] & 8) != 0);
    if ((data[0] & 1) == 0)
        agree();
    size_t used = 1;
    for (int i = 0; i < most_messages && used < size; i++)
        used += send_next(data + used, size - used);
    FUZZ_CHECK((data[0] & 2) == 0 || files.changes == 0);
    FUZZ_CHECK(!transport.is_broken);
    virtio_device_free(device);
    FUZZ_CHECK(files.wrong == NULL && files.was_released && fake_files_held(&files) == 0);
    fake_files_end(&files);
    return 0;
}
