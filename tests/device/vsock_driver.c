// SPDX-License-Identifier: Apache-2.0
/* A guest's side of virtio sockets for tests: see vsock_driver.h. */
#include "vsock_driver.h"

#include "base/fd.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct virtio_driver driver;

#define RECEIVE_BUFFERS VIRTIO_DRIVER_BUFFERS
#define TRANSMIT_BUFFERS (VIRTIO_DRIVER_BUFFERS + UINT64_C(0x100000))
enum { TRANSMIT_STEP = 0x11000, MEMORY_BYTES = 16 << 20, turns = 6 };

static unsigned offered;

/* ---- the device ---- */

void vsock_turn(void)
{
    for (int i = 0; i < turns && !driver.is_launched; i++)
        virtio_device_turn(driver.device);
}

static void notify(unsigned queue)
{
    virtio_driver_write(&driver, MMIO_QUEUE_NOTIFY, queue);
    vsock_turn();
}

static void offer_buffers(unsigned count)
{
    for (uint16_t i = 0; i < count; i++) {
        virtio_driver_describe(&driver, VSOCK_RECEIVE, i, RECEIVE_BUFFERS + (uint64_t)i * VSOCK_RECEIVE_BYTES,
                               VSOCK_RECEIVE_BYTES, VIRTIO_DRIVER_WRITE, 0);
        virtio_driver_offer(&driver, VSOCK_RECEIVE, i);
    }
    offered = count;
    notify(VSOCK_RECEIVE);
}

void vsock_begin(const struct vsock_options *options, uint64_t features, unsigned receive_buffers)
{
    struct virtio_device *device = NULL;
    virtio_driver_init(&driver, MEMORY_BYTES);
    if (vsock_new(options, &device) < 0)
        abort();
    virtio_driver_attach(&driver, device);
    driver.queues[0] = driver.queues[1] = driver.queues[2] = (struct virtio_driver_queue){0};
    if (!virtio_driver_start(&driver, features, VSOCK_QUEUES, VSOCK_ENTRIES))
        abort();
    offer_buffers(receive_buffers);
}

void vsock_restart(uint64_t features, unsigned receive_buffers)
{
    if (!virtio_driver_restart(&driver, features, VSOCK_QUEUES, VSOCK_ENTRIES))
        abort();
    offer_buffers(receive_buffers);
}

void vsock_end(void)
{
    virtio_driver_release(&driver);
}

/* ---- packets ---- */

struct packet_header vsock_header(enum packet_operation operation, uint32_t guest_port, uint32_t host_port)
{
    return (struct packet_header){
        .source_cid = PACKET_GUEST_CID,
        .target_cid = PACKET_HOST_CID,
        .source_port = guest_port,
        .target_port = host_port,
        .type = PACKET_STREAM,
        .operation = (uint16_t)operation,
        .buffer_bytes = 1u << 30,
    };
}

bool vsock_send_raw(const struct packet_header *header, const void *bytes, size_t length)
{
    uint16_t head = (uint16_t)(driver.queues[VSOCK_TRANSMIT].next_available % VSOCK_ENTRIES);
    uint64_t address = TRANSMIT_BUFFERS + (uint64_t)head * TRANSMIT_STEP;
    uint32_t used_head, written;
    virtio_driver_put(&driver, address, header, sizeof(*header));
    if (length > 0)
        virtio_driver_put(&driver, address + sizeof(*header), bytes, length);
    virtio_driver_describe(&driver, VSOCK_TRANSMIT, head, address, (uint32_t)(sizeof(*header) + length), 0, 0);
    virtio_driver_offer(&driver, VSOCK_TRANSMIT, head);
    notify(VSOCK_TRANSMIT);
    return virtio_driver_take(&driver, VSOCK_TRANSMIT, &used_head, &written);
}

bool vsock_say(enum packet_operation operation, uint32_t guest_port, uint32_t host_port)
{
    struct packet_header header = vsock_header(operation, guest_port, host_port);
    return vsock_send_raw(&header, NULL, 0);
}

bool vsock_say_bytes(uint32_t guest_port, uint32_t host_port, const void *bytes, size_t length)
{
    struct packet_header header = vsock_header(PACKET_RW, guest_port, host_port);
    header.length = (uint32_t)length;
    return vsock_send_raw(&header, bytes, length);
}

bool vsock_say_shutdown(uint32_t guest_port, uint32_t host_port, uint32_t flags)
{
    struct packet_header header = vsock_header(PACKET_SHUTDOWN, guest_port, host_port);
    header.flags = flags;
    return vsock_send_raw(&header, NULL, 0);
}

bool vsock_hear(struct packet_header *ret_header, uint8_t *bytes)
{
    uint32_t head, written;
    if (!virtio_driver_take(&driver, VSOCK_RECEIVE, &head, &written))
        return false;
    uint64_t address = RECEIVE_BUFFERS + (uint64_t)head * VSOCK_RECEIVE_BYTES;
    memset(ret_header, 0, sizeof(*ret_header));
    if (written >= sizeof(*ret_header)) {
        memory_read(driver.memory, address, ret_header, sizeof(*ret_header));
        memory_read(driver.memory, address + sizeof(*ret_header), bytes, written - sizeof(*ret_header));
        if (ret_header->length != written - sizeof(*ret_header))
            abort();
    }
    virtio_driver_offer(&driver, VSOCK_RECEIVE, (uint16_t)head);
    notify(VSOCK_RECEIVE);
    return true;
}

const char *vsock_hear_text(void)
{
    static const char *const names[] = {"none", "REQUEST", "RESPONSE", "RST", "SHUTDOWN", "RW", "UPDATE", "ASK"};
    static char text[128];
    uint8_t bytes[VSOCK_RECEIVE_BYTES];
    struct packet_header header;
    if (!vsock_hear(&header, bytes))
        return "none";
    if (header.source_cid != PACKET_HOST_CID || header.target_cid != PACKET_GUEST_CID)
        return "a wrong address";
    snprintf(text, sizeof(text), "%s %u<%u %u %u", header.operation < 8 ? names[header.operation] : "?",
             header.target_port, header.source_port, header.flags, header.length);
    return text;
}

/* ---- streams ---- */

static struct packet_header header_of(const struct guest_stream *stream, enum packet_operation operation)
{
    struct packet_header header = vsock_header(operation, stream->guest_port, stream->host_port);
    header.buffer_bytes = stream->room;
    header.forwarded = stream->taken;
    return header;
}

size_t guest_send(struct guest_stream *stream, size_t most)
{
    uint8_t bytes[VSOCK_PACKET_BYTES];
    size_t credit = stream->host_room - (stream->sent - stream->host_taken), done = 0;
    while (done < most && done < credit) {
        size_t length = most - done < sizeof(bytes) ? most - done : sizeof(bytes);
        if (length > credit - done)
            length = credit - done;
        for (size_t i = 0; i < length; i++)
            bytes[i] = vsock_pattern(stream->guest_port, stream->sent + i);
        struct packet_header header = header_of(stream, PACKET_RW);
        header.length = (uint32_t)length;
        if (!vsock_send_raw(&header, bytes, length))
            abort();
        stream->sent += (uint32_t)length;
        done += length;
    }
    return done;
}

void guest_take(struct guest_stream *stream, const struct packet_header *header, const uint8_t *bytes)
{
    stream->host_room = header->buffer_bytes;
    stream->host_taken = header->forwarded;
    struct packet_header answer = header_of(stream, PACKET_CREDIT_UPDATE);
    switch ((enum packet_operation)header->operation) {
    case PACKET_REQUEST:
        answer = header_of(stream, PACKET_RESPONSE);
        vsock_send_raw(&answer, NULL, 0);
        stream->is_open = true;
        break;
    case PACKET_RESPONSE:
        stream->is_open = true;
        break;
    case PACKET_RST:
        stream->is_refused = true;
        break;
    case PACKET_SHUTDOWN:
        stream->has_ended |= (header->flags & PACKET_SENDS_NO_MORE) != 0;
        break;
    case PACKET_RW:
        for (uint32_t i = 0; i < header->length; i++)
            stream->bad_bytes += bytes[i] != vsock_pattern(stream->guest_port, stream->received + i);
        stream->received += header->length;
        stream->bad_bytes += stream->received - stream->taken > stream->room; /* beyond its credit */
        break;
    case PACKET_CREDIT_REQUEST:
        vsock_send_raw(&answer, NULL, 0);
        break;
    case PACKET_CREDIT_UPDATE:
        break;
    }
}

void guest_hear_all(struct guest_stream *streams, size_t count)
{
    struct packet_header header;
    uint8_t bytes[VSOCK_RECEIVE_BYTES];
    while (vsock_hear(&header, bytes))
        for (size_t i = 0; i < count; i++)
            if (streams[i].guest_port == header.target_port && streams[i].host_port == header.source_port)
                guest_take(&streams[i], &header, bytes);
}

void guest_read(struct guest_stream *stream, uint32_t most)
{
    uint32_t waiting = stream->received - stream->taken;
    if (waiting == 0)
        return;
    stream->taken += waiting < most ? waiting : most;
    struct packet_header header = header_of(stream, PACKET_CREDIT_UPDATE);
    vsock_send_raw(&header, NULL, 0);
}

/* ---- the host ---- */

const char *host_path(const char *name)
{
    static char paths[4][200];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", test_folder(), name);
    return path;
}

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        abort();
    memcpy(address.sun_path, path, strlen(path) + 1);
    return address;
}

int host_listen(const char *path, int backlog)
{
    struct sockaddr_un address = address_of(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, backlog) < 0)
        abort();
    return fd;
}

int host_accept(int listener)
{
    return accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

int host_connect(const char *path)
{
    struct sockaddr_un address = address_of(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return fd_close(fd);
    return fd;
}
