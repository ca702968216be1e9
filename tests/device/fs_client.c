// SPDX-License-Identifier: Apache-2.0
/* A FUSE client for tests: see fs_client.h. */
#include "fs_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { entries = 128, all_queues = 0xf, place_bytes = 0x10000, places_bytes = 0x200000 };

static void note_exit(void *user, int32_t code)
{
    struct fs_client *client = user;
    client->exit_code = code;
    client->has_exited = true;
}

void fs_client_start(struct fs_client *client)
{
    if (!virtio_driver_restart(&client->driver, 0, all_queues >> (3 - FS_CLIENT_QUEUES), entries))
        abort();
}

void fs_client_begin(struct fs_client *client, struct fs_options options)
{
    struct virtio_device *device = NULL;
    *client = (struct fs_client){.queue = 1, .room = FS_CLIENT_ROOM};
    virtio_driver_init(&client->driver, 16 << 20);
    fake_files_init(&client->files);
    options.tag = "shared";
    if (options.backend.ops.lookup == NULL)
        options.backend = fake_files_backend(&client->files);
    options.queue_count = FS_CLIENT_QUEUES;
    if (options.worker_count == 0)
        options.worker_count = 2;
    if (options.window_bytes > 0) {
        client->window = mmap(NULL, FS_CLIENT_WINDOW, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (client->window == MAP_FAILED)
            abort();
        options.window = client->window;
    }
    options.exited = note_exit;
    options.exited_user = client;
    if (fs_new(&options, &device) < 0)
        abort();
    virtio_driver_attach(&client->driver, device);
    if (virtio_device_launch(device) < 0)
        abort();
    client->driver.is_launched = true;
    fs_client_start(client);
}

const char *fs_client_end(struct fs_client *client)
{
    static char text[128];
    virtio_driver_release(&client->driver);
    if (client->window != NULL)
        munmap(client->window, FS_CLIENT_WINDOW);
    const char *wrong = client->files.wrong;
    if (wrong == NULL && fake_files_held(&client->files) > 0)
        wrong = "something is still looked up or open";
    if (wrong == NULL && !client->files.was_released)
        wrong = "the backend was not released";
    snprintf(text, sizeof(text), "%s", wrong != NULL ? wrong : "");
    fake_files_end(&client->files);
    return text;
}

/* ---- messages ---- */

/* The second queue of requests has places of its own. */
static uint64_t offset_of(const struct fs_client *client, uint64_t place)
{
    return place * place_bytes + (client->queue == 2 ? places_bytes : 0);
}

static void send_message(struct fs_client *client, uint16_t place, const void *arguments, size_t argument_bytes,
                         const void *tail, size_t tail_bytes)
{
    struct virtio_driver *driver = &client->driver;
    uint64_t out = FS_CLIENT_OUT + offset_of(client, place), in = FS_CLIENT_IN + offset_of(client, place);
    size_t header_bytes = sizeof(client->header);
    uint16_t first = (uint16_t)(4 * place);
    virtio_driver_put(driver, out, &client->header, header_bytes);
    if (argument_bytes > 0)
        virtio_driver_put(driver, out + header_bytes, arguments, argument_bytes);
    if (tail_bytes > 0)
        virtio_driver_put(driver, out + header_bytes + argument_bytes, tail, tail_bytes);
    uint32_t length = (uint32_t)(header_bytes + argument_bytes + tail_bytes);
    bool has_room = client->room > 0;
    /* In odd pieces, as nobody promises that a header lies in one. */
    virtio_driver_describe(driver, client->queue, first, out, 7, VIRTIO_DRIVER_NEXT, (uint16_t)(first + 1));
    virtio_driver_describe(driver, client->queue, (uint16_t)(first + 1), out + 7, length - 7,
                           has_room ? VIRTIO_DRIVER_NEXT : 0, (uint16_t)(first + 2));
    uint32_t piece = client->room > 12 ? 12 : client->room;
    virtio_driver_describe(driver, client->queue, (uint16_t)(first + 2), in, piece,
                           (uint16_t)(VIRTIO_DRIVER_WRITE | (client->room > piece ? VIRTIO_DRIVER_NEXT : 0)),
                           (uint16_t)(first + 3));
    virtio_driver_describe(driver, client->queue, (uint16_t)(first + 3), in + piece, client->room - piece,
                           VIRTIO_DRIVER_WRITE, 0);
    virtio_driver_offer(driver, client->queue, first);
}

static void fill_header(struct fs_client *client, uint32_t opcode, uint64_t node, size_t body_bytes)
{
    client->header.opcode = opcode;
    client->header.nodeid = node;
    client->header.unique = ++client->unique;
    if (!client->lies)
        client->header.len = (uint32_t)(sizeof(client->header) + body_bytes);
}

int fs_client_take(struct fs_client *client, unsigned *ret_place)
{
    uint32_t head = 0;
    struct fuse_out_header header;
    while (!virtio_driver_take(&client->driver, client->queue, &head, &client->written))
        if (!virtio_driver_wait(&client->driver))
            abort();
    uint64_t in = FS_CLIENT_IN + offset_of(client, head / 4);
    if (ret_place != NULL)
        *ret_place = head / 4;
    client->reply_bytes = 0;
    client->reply = NULL;
    if (client->written == 0)
        return FS_CLIENT_NO_REPLY;
    if (memory_read(client->driver.memory, in, &header, sizeof(header)) < 0 || header.len != client->written)
        abort();
    client->reply = memory_span(client->driver.memory, in + sizeof(header), 1);
    client->reply_bytes = header.len - (uint32_t)sizeof(header);
    return header.error;
}

int fs_client_call(struct fs_client *client, uint32_t opcode, uint64_t node, const void *arguments,
                   size_t argument_bytes, const void *tail, size_t tail_bytes)
{
    fill_header(client, opcode, node, argument_bytes + tail_bytes);
    send_message(client, 0, arguments, argument_bytes, tail, tail_bytes);
    virtio_driver_kick(&client->driver, client->queue);
    return fs_client_take(client, NULL);
}

void fs_client_post(struct fs_client *client, unsigned place, uint32_t opcode, uint64_t node, const void *arguments,
                    size_t argument_bytes, uint32_t room)
{
    fill_header(client, opcode, node, argument_bytes);
    client->room = room;
    send_message(client, (uint16_t)place, arguments, argument_bytes, NULL, 0);
    client->room = FS_CLIENT_ROOM;
}

int fs_client_name(struct fs_client *client, uint32_t opcode, uint64_t node, const char *name)
{
    return fs_client_call(client, opcode, node, NULL, 0, name, strlen(name) + 1);
}

/* ---- shorter ways ---- */

const struct fuse_init_out *fs_client_init_as(struct fs_client *client, uint32_t minor, uint64_t features)
{
    struct fuse_init_in in = {
        .major = 7,
        .minor = minor,
        .max_readahead = 128 << 10,
        .flags = (uint32_t)features,
        .flags2 = (uint32_t)(features >> 32),
    };
    return fs_client_call(client, FUSE_INIT, 0, &in, sizeof(in), NULL, 0) == 0 ? (const void *)client->reply : NULL;
}

int fs_client_init(struct fs_client *client)
{
    return fs_client_init_as(client, 46, ~UINT64_C(0)) != NULL ? 0 : -1;
}

uint64_t fs_client_node(struct fs_client *client, uint64_t parent, const char *name)
{
    struct fuse_entry_out entry;
    if (fs_client_name(client, FUSE_LOOKUP, parent, name) != 0)
        return 0;
    memcpy(&entry, client->reply, sizeof(entry));
    return entry.nodeid;
}

uint64_t fs_client_open(struct fs_client *client, uint32_t opcode, uint64_t node, uint32_t flags)
{
    struct fuse_open_in in = {.flags = flags};
    struct fuse_open_out out;
    if (fs_client_call(client, opcode, node, &in, sizeof(in), NULL, 0) != 0)
        return UINT64_MAX;
    memcpy(&out, client->reply, sizeof(out));
    return out.fh;
}

int fs_client_release(struct fs_client *client, uint32_t opcode, uint64_t node, uint64_t handle)
{
    struct fuse_release_in in = {.fh = handle};
    return fs_client_call(client, opcode, node, &in, sizeof(in), NULL, 0);
}

int fs_client_read(struct fs_client *client, uint64_t node, uint64_t handle, uint64_t offset, uint32_t size)
{
    struct fuse_read_in in = {.fh = handle, .offset = offset, .size = size};
    return fs_client_call(client, FUSE_READ, node, &in, sizeof(in), NULL, 0);
}

int fs_client_write(struct fs_client *client, uint64_t node, uint64_t handle, uint64_t offset, const char *text)
{
    struct fuse_write_in in = {.fh = handle, .offset = offset, .size = (uint32_t)strlen(text)};
    return fs_client_call(client, FUSE_WRITE, node, &in, sizeof(in), text, strlen(text));
}

void fs_client_forget(struct fs_client *client, uint64_t node, uint64_t lookups)
{
    struct fuse_forget_in in = {.nlookup = lookups};
    uint32_t room = client->room;
    unsigned queue = client->queue;
    client->room = 0;
    client->queue = 0;
    if (fs_client_call(client, FUSE_FORGET, node, &in, sizeof(in), NULL, 0) != FS_CLIENT_NO_REPLY)
        abort();
    client->room = room;
    client->queue = queue;
}
