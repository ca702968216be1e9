// SPDX-License-Identifier: Apache-2.0
/* A network device whose driver and whose peer do anything. The first byte of the input chooses a stream or datagrams,
 * the features, and whether the rest is one frame for offload.c alone; otherwise the rest is a list of commands that
 * write rings and frames, kick, let the peer send and read, pull the cable, and reset.
 *
 * What must hold: nothing crashes or hangs, the peer gets whole frames of possible lengths, all segments of a frame
 * carry its payload once, no descriptor is left behind, and between stop and start no byte of guest memory changes.
 */
#include "fuzz.h"

#include "device/net/net.h"
#include "device/net/offload.h"
#include "virtio/mmio.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ram_bytes = 1 << 18, ring_bytes = 4096, queue_count = 2, most_commands = 300, entries = 64 };
enum { frames_at = 0x4000, receive_at = 0x20000 };
enum { IS_DATAGRAM = 1, WANTS_OFFLOADS = 2, IS_MERGING = 4, HAS_MTU = 8, IS_ONE_FRAME = 16 };

static struct memory *memory;
static uint8_t *ram;
static int interrupt_fd, null_fd;

struct machine {
    struct virtio_device *device;
    struct mmio *mmio;
    int pair[2];
    uint8_t how;
    const uint8_t *data;
    size_t left;
    uint8_t stream[4 + LIMIT_NET_FRAME_BYTES]; /* what the peer has of a frame */
    size_t stream_bytes;
};

static uint8_t next_byte(struct machine *machine)
{
    if (machine->left == 0)
        return 0;
    machine->left--;
    return *machine->data++;
}

static uint16_t next_word(struct machine *machine)
{
    return (uint16_t)(next_byte(machine) | next_byte(machine) << 8);
}

static void put_16(uint64_t address, uint16_t value)
{
    memory_write(memory, address, &value, sizeof(value));
}

/* ---- the driver ---- */

static void set_register(struct machine *machine, uint64_t offset, uint32_t value)
{
    mmio_write(machine->mmio, offset, &value, sizeof(value));
}

static void climb(struct machine *machine)
{
    uint32_t features = (machine->how & WANTS_OFFLOADS) != 0 ? 1u << 0 | 1u << 11 | 1u << 12 : 0;
    features |= (machine->how & IS_MERGING) != 0 ? 1u << 15 : 0;
    features |= (machine->how & HAS_MTU) != 0 ? 1u << 3 : 0;
    set_register(machine, 0x70, 0);
    memset(ram, 0, (size_t)queue_count * ring_bytes);
    set_register(machine, 0x70, 3);
    set_register(machine, 0x24, 0);
    set_register(machine, 0x20, features | 3u << 28);
    set_register(machine, 0x24, 1);
    set_register(machine, 0x20, 1);
    set_register(machine, 0x70, 11);
    for (unsigned i = 0; i < queue_count; i++) {
        set_register(machine, 0x30, i);
        set_register(machine, 0x38, entries);
        set_register(machine, 0x80, i * ring_bytes);
        set_register(machine, 0x90, i * ring_bytes + 0x800);
        set_register(machine, 0xa0, i * ring_bytes + 0xc00);
        set_register(machine, 0x44, 1);
    }
    set_register(machine, 0x70, 15);
}

static void describe(unsigned queue, uint16_t index, uint64_t address, uint32_t length, uint16_t flags, uint16_t next)
{
    struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } descriptor = {address, length, flags, next};
    memory_write(memory, (uint64_t)queue * ring_bytes + 16 * (uint64_t)(index % entries), &descriptor,
                 sizeof(descriptor));
}

static void offer(struct machine *machine, unsigned queue, uint16_t head)
{
    uint64_t ring = (uint64_t)queue * ring_bytes;
    uint16_t index;
    memory_read(memory, ring + 0x802, &index, sizeof(index));
    put_16(ring + 0x804 + 2 * (uint64_t)(index % entries), head);
    put_16(ring + 0x802, (uint16_t)(index + 1));
    virtio_kick(machine->device, queue);
}

/* A frame that is nearly right: TCP over IP, or zeros, with some bytes of the input's. */
static void send_frame(struct machine *machine)
{
    static const uint8_t head_4[] = {8, 0, 0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, [34] = 0, 0x50, 0x19};
    static const uint8_t head_6[] = {0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 6, 64, [54] = 0, 0x50, 0x19};
    uint8_t kind = next_byte(machine), slot = next_byte(machine) % 8, changes = next_byte(machine) % 8;
    uint64_t address = frames_at + (uint64_t)slot * 0x1000;
    struct net_header header = {
        .flags = next_byte(machine),
        .gso_type = next_byte(machine),
        .gso_size = next_word(machine),
        .csum_start = (kind & 1) != 0   ? 34
                      : (kind & 2) != 0 ? 54
                                        : next_word(machine),
        .csum_offset = (kind & 3) != 0 ? 16 : next_word(machine),
    };
    uint32_t length = next_word(machine) + (uint32_t)sizeof(header) + ((kind & 128) != 0 ? next_byte(machine) : 0);
    memory_write(memory, address, &header, sizeof(header));
    memory_write(memory, address + 12 + 12, (kind & 1) != 0 ? head_4 : head_6,
                 (kind & 1) != 0 ? sizeof(head_4) : sizeof(head_6));
    for (unsigned i = 0; i < changes; i++) {
        uint8_t offset = next_byte(machine), value = next_byte(machine);
        memory_write(memory, address + offset, &value, 1);
    }
    uint16_t head = (uint16_t)(slot * 4);
    uint32_t first = (kind & 4) != 0 ? next_byte(machine) % 64 + 1u : 12;
    if (first >= length || (kind & 8) != 0) {
        describe(1, head, address, length, 0, 0);
    } else {
        describe(1, head, address, first, 1, (uint16_t)(head + 1));
        describe(1, (uint16_t)(head + 1), address + first, length - first, 0, 0);
    }
    offer(machine, 1, head);
}

static void offer_room(struct machine *machine)
{
    uint8_t slot = next_byte(machine) % entries;
    uint32_t length = (uint32_t)next_byte(machine) * 16 + next_byte(machine) % 16 + 1;
    if (length > 4000)
        length = 66000;
    describe(0, slot, receive_at + (uint64_t)slot * 1024, length, 2, 0);
    offer(machine, 0, slot);
}

/* ---- the peer ---- */

static void check_stream(struct machine *machine)
{
    for (;;) {
        uint32_t prefix;
        memcpy(&prefix, machine->stream, sizeof(prefix));
        size_t whole = sizeof(prefix) + ntohl(prefix);
        if (machine->stream_bytes < sizeof(prefix))
            return;
        FUZZ_CHECK(whole >= 18 && whole <= sizeof(machine->stream));
        if (machine->stream_bytes < whole)
            return;
        machine->stream_bytes -= whole;
        memmove(machine->stream, machine->stream + whole, machine->stream_bytes);
    }
}

static void peer_reads(struct machine *machine)
{
    for (unsigned i = next_byte(machine); i > 0 && machine->pair[0] >= 0; i--) {
        size_t room = sizeof(machine->stream) - machine->stream_bytes;
        ssize_t got = recv(machine->pair[0], machine->stream + machine->stream_bytes, room, MSG_DONTWAIT);
        if (got <= 0)
            return;
        if ((machine->how & IS_DATAGRAM) != 0) {
            FUZZ_CHECK(got >= 14 && got <= (ssize_t)LIMIT_NET_FRAME_BYTES);
            continue;
        }
        machine->stream_bytes += (size_t)got;
        check_stream(machine);
    }
}

static void peer_writes(struct machine *machine)
{
    static uint8_t bytes[4 + 65536];
    uint8_t kind = next_byte(machine);
    size_t length = (kind & 1) != 0 ? next_byte(machine) : next_word(machine);
    uint32_t prefix = htonl((uint32_t)length);
    if ((kind & 0xf0) == 0xf0)
        prefix = next_word(machine); /* any */
    memcpy(bytes, &prefix, sizeof(prefix));
    bool has_prefix = (machine->how & IS_DATAGRAM) == 0 && (kind & 2) == 0;
    if (machine->pair[0] < 0)
        return;
    ssize_t sent = send(machine->pair[0], has_prefix ? bytes : bytes + 4, has_prefix ? length + 4 : length,
                        MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)sent;
    if (kind == 0xff) {
        close(machine->pair[0]);
        machine->pair[0] = -1;
    }
}

static void do_command(struct machine *machine)
{
    uint8_t command = next_byte(machine) % 16;
    uint16_t where;
    switch (command) {
    case 0:
        climb(machine);
        break;
    case 1: /* any word of the rings and headers */
        where = next_word(machine);
        put_16(where % 0x4100, next_word(machine));
        break;
    case 2:
        net_set_link(machine->device, (next_byte(machine) & 3) != 0);
        break;
    case 3:
    case 4:
        offer_room(machine);
        break;
    case 5:
    case 6:
        peer_writes(machine);
        break;
    case 7:
        peer_reads(machine);
        break;
    case 8:
    case 9:
        virtio_device_turn(machine->device);
        break;
    default:
        send_frame(machine);
        break;
    }
}

static void check_silence(struct machine *machine)
{
    static uint8_t before[ram_bytes];
    set_register(machine, 0x70, 0);
    memcpy(before, ram, ram_bytes);
    peer_writes(machine);
    for (int i = 0; i < 4; i++) {
        virtio_kick(machine->device, (unsigned)i % 2);
        virtio_device_turn(machine->device);
    }
    FUZZ_CHECK(memcmp(before, ram, ram_bytes) == 0);
}

/* ---- one frame ---- */

static void cut_one(const uint8_t *data, size_t size)
{
    static struct net_offload offload;
    struct net_header header;
    if (size < sizeof(header) + 1)
        return;
    memcpy(&header, data, sizeof(header));
    size_t own = size - sizeof(header), length = own << (data[11] & 7);
    for (size_t i = 0; i < length && i < LIMIT_NET_FRAME_BYTES; i++)
        offload.frame[i] = data[sizeof(header) + i % own];
    if (net_header_check(&header, length, UINT64_MAX) != NULL || net_offload_begin(&offload, &header, length) != NULL)
        return;
    size_t count = 0, expected = net_offload_count(&offload), total = 0;
    size_t headers = offload.is_cut ? offload.payload : 0;
    for (; net_offload_is_pending(&offload); count++) {
        struct iovec parts[2];
        size_t bytes = 0, part_count = net_offload_peek(&offload, parts, &bytes), sum = 0;
        for (size_t i = 0; i < part_count; i++)
            sum += parts[i].iov_len;
        FUZZ_CHECK(sum == bytes && bytes > headers && bytes <= LIMIT_NET_FRAME_BYTES);
        total += bytes - headers;
        net_offload_advance(&offload);
    }
    FUZZ_CHECK(count == expected && total == length - headers);
}

static void set_up(void)
{
    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    interrupt_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    FUZZ_CHECK(memory_new(ram_bytes, false, &memory) == 0 && null_fd >= 0 && interrupt_fd >= 0);
    ram = memory_span(memory, 0, ram_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct machine machine;
    if (memory == NULL)
        set_up();
    if (size < 2)
        return 0;
    if ((data[0] & IS_ONE_FRAME) != 0) {
        cut_one(data + 1, size - 1);
        return 0;
    }
    machine = (struct machine){.how = data[0], .data = data + 1, .left = size - 1};
    memset(ram, 0, ram_bytes);
    bool is_datagram = (machine.how & IS_DATAGRAM) != 0;
    FUZZ_CHECK(socketpair(AF_UNIX, (is_datagram ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0, machine.pair) == 0);
    int first_free = dup(null_fd);
    close(first_free);
    struct net_options options = {
        .kind = is_datagram ? VIAL_NET_UNIXGRAM : VIAL_NET_UNIXSTREAM,
        .fd = machine.pair[1],
        .features = UINT32_MAX,
        .mtu = (machine.how & HAS_MTU) != 0 ? 1500 : 0,
        .queue_pairs = 1,
    };
    FUZZ_CHECK(net_new(&options, &machine.device) == 0);
    FUZZ_CHECK(mmio_new(machine.device, memory, interrupt_fd, &machine.mmio) == 0);
    climb(&machine);
    for (int i = 0; i < most_commands && machine.left > 0; i++)
        do_command(&machine);
    for (int i = 0; i < 4; i++)
        virtio_device_turn(machine.device);
    check_silence(&machine);
    mmio_free(machine.mmio);
    virtio_device_free(machine.device);
    int still_free = dup(null_fd);
    FUZZ_CHECK(still_free == first_free || machine.pair[0] < 0);
    close(still_free);
    if (machine.pair[0] >= 0)
        close(machine.pair[0]);
    close(machine.pair[1]);
    return 0;
}
