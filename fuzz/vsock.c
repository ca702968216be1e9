// SPDX-License-Identifier: Apache-2.0
/* Virtio sockets whose guest says anything, in any order, while the host's side of its streams does anything, too.
 *
 * The input is a list of commands. Most packets are nearly right, so that streams get far: ports and operations are
 * few, and single bytes are bent. Ports 1 and 2 lead to functions that move little, say "not now", and have socket
 * pairs behind them, whose other ends the commands write to, read from, and close; connections of the host's come as
 * those of TSI do.
 *
 * What must hold: nothing crashes or hangs; no descriptor and no stream is left behind; functions are asked for nothing
 * that makes no sense; and between stop and start no byte of guest memory changes.
 */
#include "fuzz.h"

#include "device/vsock/packet.h"
#include "device/vsock/private.h"
#include "device/vsock/vsock.h"
#include "virtio/mmio.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ram_bytes = 1 << 17, ring_bytes = 4096, queue_count = 3, entries = 64, most_commands = 400, most_peers = 8 };
enum { RECEIVE_BUFFERS = 0x4000, TRANSMIT_BUFFERS = 0x10000, RECEIVE_STEP = 512, TRANSMIT_STEP = 1024 };

static struct memory *memory;
static uint8_t *ram;
static int event_fd, interrupt_fd, null_fd;

struct host_end { /* of a stream */
    int fd;       /* owned; -1 when it is closed */
};

struct machine {
    struct virtio_device *device;
    struct mmio *mmio;
    struct host_end ends[most_peers];
    unsigned next_end;
    unsigned connected, closed; /* streams of the functions */
    const uint8_t *data;
    size_t left;
};

static uint8_t next_byte(struct machine *machine)
{
    if (machine->left == 0)
        return 0;
    machine->left--;
    return *machine->data++;
}

/* ---- the host ---- */

/* One end for the device, the other among ours, in the place of the oldest. */
static int make_pair(struct machine *machine)
{
    int pair[2], small = 4096;
    struct host_end *end = &machine->ends[machine->next_end++ % most_peers];
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)); /* so that bytes have to be held */
    if (end->fd >= 0)
        close(end->fd);
    end->fd = pair[1];
    return pair[0];
}

struct pipe_stream {
    struct machine *machine;
    int fd; /* owned */
    unsigned calls;
};

static int pipe_connect(void *user, uint32_t guest_port, void **ret_stream)
{
    struct machine *machine = user;
    if (guest_port == 13)
        return -EACCES;
    struct pipe_stream *stream = malloc(sizeof(*stream));
    FUZZ_CHECK(stream != NULL);
    *stream = (struct pipe_stream){.machine = machine, .fd = make_pair(machine)};
    machine->connected++;
    *ret_stream = stream;
    return 0;
}

static ssize_t pipe_read(void *user, void *opaque, void *bytes, size_t size)
{
    struct pipe_stream *stream = opaque;
    FUZZ_CHECK(user == stream->machine && size > 0 && size <= 65536);
    if (++stream->calls % 3 == 0)
        return -EAGAIN;
    ssize_t got = recv(stream->fd, bytes, size < 100 ? size : 100, MSG_DONTWAIT);
    return got < 0 ? -errno : got;
}

static ssize_t pipe_write(void *user, void *opaque, const void *bytes, size_t length)
{
    struct pipe_stream *stream = opaque;
    FUZZ_CHECK(user == stream->machine && length > 0 && length <= 65536);
    if (++stream->calls % 5 == 0)
        return 0;
    ssize_t taken = send(stream->fd, bytes, (length + 1) / 2, MSG_DONTWAIT | MSG_NOSIGNAL);
    return taken < 0 ? -errno : taken;
}

static int pipe_shutdown(void *user, void *opaque)
{
    (void)user;
    return shutdown(((struct pipe_stream *)opaque)->fd, SHUT_WR);
}

static int pipe_poll_fd(void *user, void *opaque)
{
    const struct pipe_stream *stream = opaque;
    (void)user;
    return stream->calls % 2 == 0 ? stream->fd : event_fd;
}

static void pipe_close(void *user, void *opaque)
{
    struct machine *machine = user;
    struct pipe_stream *stream = opaque;
    machine->closed++;
    close(stream->fd);
    free(stream);
}

static int take_datagram(void *user, uint32_t guest_port, const void *bytes, size_t length)
{
    static volatile uint8_t sum;
    (void)user;
    (void)guest_port;
    FUZZ_CHECK(length <= 65536);
    for (size_t i = 0; i < length; i++)
        sum = (uint8_t)(sum + ((const uint8_t *)bytes)[i]);
    return 0;
}

static void touch_host(struct machine *machine)
{
    static uint8_t bytes[8192];
    struct host_end *end = &machine->ends[next_byte(machine) % most_peers];
    uint8_t what = next_byte(machine);
    ssize_t moved = 0;
    if (end->fd < 0)
        return;
    switch (what % 6) {
    case 0:
    case 1:
        moved = send(end->fd, bytes, (size_t)next_byte(machine) * 8 + 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        break;
    case 2:
    case 3:
        moved = recv(end->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
        break;
    case 4:
        moved = shutdown(end->fd, next_byte(machine) % 3);
        break;
    default:
        close(end->fd);
        end->fd = -1;
        break;
    }
    (void)moved;
}

/* As TSI does. */
static void connect_guest(struct machine *machine)
{
    uint8_t ports = next_byte(machine);
    struct vsock *vsock = virtio_device_state(machine->device);
    vsock_connect_guest(vsock, make_pair(machine), 1 + (ports & 3u), 4 + (ports >> 6));
}

static void send_datagram(struct machine *machine)
{
    static const uint8_t bytes[1024];
    struct vsock *vsock = virtio_device_state(machine->device);
    vsock_send_datagram(vsock, 1, next_byte(machine), bytes, (size_t)next_byte(machine) * 4);
}

/* ---- the driver ---- */

static void set_register(struct machine *machine, uint64_t offset, uint32_t value)
{
    mmio_write(machine->mmio, offset, &value, sizeof(value));
}

static void put_16(uint64_t address, uint16_t value)
{
    memory_write(memory, address, &value, sizeof(value));
}

/* The whole ladder with queues where the commands write, or, now and then, elsewhere. */
static void climb(struct machine *machine)
{
    uint8_t how = next_byte(machine);
    set_register(machine, 0x70, 0);
    if ((how & 8) == 0)
        memset(ram, 0, (size_t)queue_count * ring_bytes);
    set_register(machine, 0x70, 3);
    set_register(machine, 0x24, 0);
    set_register(machine, 0x20, ((how & 1) != 0 ? 1 : 9) | ((how & 2) != 0 ? 3u << 28 : 0));
    set_register(machine, 0x24, 1);
    set_register(machine, 0x20, 1);
    set_register(machine, 0x70, 11);
    for (unsigned i = 0; i < queue_count; i++) {
        uint32_t ring = (how & 4) != 0 ? (uint32_t)next_byte(machine) << 9 : i * ring_bytes;
        set_register(machine, 0x30, i);
        set_register(machine, 0x38, entries);
        set_register(machine, 0x80, ring);
        set_register(machine, 0x90, ring + 0x800);
        set_register(machine, 0xa0, ring + 0xc00);
        set_register(machine, 0x44, 1);
    }
    set_register(machine, 0x70, 15);
}

/* One descriptor into the next place of a queue's ring: where its buffer may lie. */
static uint16_t offer(struct machine *machine, unsigned queue, uint64_t buffers, uint64_t step, uint32_t length,
                      uint16_t flags)
{
    uint64_t ring = (uint64_t)queue * ring_bytes;
    uint16_t index;
    memory_read(memory, ring + 0x802, &index, sizeof(index));
    struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } descriptor = {.address = buffers + index % entries * step, .length = length, .flags = flags};
    memory_write(memory, ring + 16 * (uint64_t)(index % entries), &descriptor, sizeof(descriptor));
    put_16(ring + 0x804 + 2 * (uint64_t)(index % entries), index % entries);
    put_16(ring + 0x802, (uint16_t)(index + 1));
    virtio_kick(machine->device, queue);
    return index % entries;
}

static void offer_buffers(struct machine *machine)
{
    uint8_t how = next_byte(machine);
    for (unsigned i = 0; i < how % 32u; i++)
        offer(machine, 0, RECEIVE_BUFFERS, RECEIVE_STEP, how < 224 ? RECEIVE_STEP : how - 200u, 2);
}

/* A packet of few ports, most often right; then one byte of it is anything. */
static void say(struct machine *machine)
{
    uint8_t what = next_byte(machine), ports = next_byte(machine), much = next_byte(machine);
    struct packet_header header = {
        .source_cid = PACKET_GUEST_CID,
        .target_cid = PACKET_HOST_CID,
        .source_port = 4 + (ports >> 6) + ((ports & 32) != 0 ? 9 : 0),
        .target_port = 1 + (ports & 3u),
        .type = (what & 8) != 0 && (what & 16) != 0 ? PACKET_DATAGRAM : PACKET_STREAM,
        .operation = what & 7,
        .flags = (what & 7) == PACKET_SHUTDOWN ? much : 0,
        .buffer_bytes = (ports & 4) != 0 ? 300 : 1 << 20,
        .forwarded = (ports & 8) != 0 ? much : 0,
    };
    if (header.operation == PACKET_RW)
        header.length = much * 3u;
    uint32_t length = (uint32_t)sizeof(header) + header.length;
    uint8_t bytes[sizeof(header)];
    memcpy(bytes, &header, sizeof(header));
    if ((what & 32) != 0) {
        uint8_t place = next_byte(machine) % sizeof(bytes);
        bytes[place] = next_byte(machine);
    }
    uint16_t index;
    memory_read(memory, ring_bytes + 0x802, &index, sizeof(index));
    memory_write(memory, TRANSMIT_BUFFERS + (uint64_t)(index % entries) * TRANSMIT_STEP, bytes, sizeof(bytes));
    offer(machine, 1, TRANSMIT_BUFFERS, TRANSMIT_STEP, length, 0);
}

/* A descriptor that is anything, on any queue. */
static void offer_anything(struct machine *machine)
{
    unsigned queue = next_byte(machine) % queue_count;
    uint16_t place = offer(machine, queue, 0, 0, 1, 0);
    struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } descriptor = {
        .address = (uint64_t)next_byte(machine) << 9,
        .length = (uint32_t)next_byte(machine) * 8,
        .flags = next_byte(machine) & 7,
        .next = next_byte(machine) % 80,
    };
    memory_write(memory, (uint64_t)queue * ring_bytes + 16 * (uint64_t)place, &descriptor, sizeof(descriptor));
}

static void do_command(struct machine *machine)
{
    uint8_t raw[2];
    switch (next_byte(machine) % 16) {
    case 0:
        climb(machine);
        break;
    case 1:
    case 2:
        offer_buffers(machine);
        break;
    case 3:
    case 4:
    case 5:
    case 6:
    case 7:
        say(machine);
        break;
    case 8:
    case 9:
        touch_host(machine);
        break;
    case 10:
        connect_guest(machine);
        break;
    case 11:
        send_datagram(machine);
        break;
    case 12:
        offer_anything(machine);
        break;
    case 13: /* any word of the rings */
        raw[0] = next_byte(machine);
        raw[1] = next_byte(machine);
        put_16(((uint64_t)raw[0] << 8 | raw[1]) & 0x3fff, next_byte(machine));
        break;
    default:
        virtio_device_turn(machine->device);
        break;
    }
}

/* ---- a run ---- */

static void set_up(void)
{
    signal(SIGPIPE, SIG_IGN);
    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    event_fd = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
    interrupt_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    FUZZ_CHECK(memory_new(ram_bytes, false, &memory) == 0 && null_fd >= 0 && event_fd >= 0 && interrupt_fd >= 0);
    ram = memory_span(memory, 0, ram_bytes);
}

/* After a reset: every stream was closed, and guest memory stays as it is. */
static void check_silence(struct machine *machine)
{
    static uint8_t before[ram_bytes];
    set_register(machine, 0x70, 0);
    FUZZ_CHECK(machine->connected == machine->closed);
    memcpy(before, ram, ram_bytes);
    for (unsigned i = 0; i < most_peers; i++) {
        if (machine->ends[i].fd < 0)
            continue;
        FUZZ_CHECK(send(machine->ends[i].fd, "late", 4, MSG_DONTWAIT | MSG_NOSIGNAL) < 0);
        close(machine->ends[i].fd);
    }
    for (unsigned i = 0; i < queue_count; i++)
        virtio_kick(machine->device, i);
    for (int i = 0; i < 4; i++)
        virtio_device_turn(machine->device);
    FUZZ_CHECK(memcmp(before, ram, ram_bytes) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct vial_vsock_ops ops = {
        .size = sizeof(ops),
        .connect = pipe_connect,
        .read = pipe_read,
        .write = pipe_write,
        .shutdown = pipe_shutdown,
        .poll_fd = pipe_poll_fd,
        .close = pipe_close,
        .send = take_datagram,
    };
    struct machine machine = {.data = data, .left = size};
    if (memory == NULL)
        set_up();
    memset(ram, 0, ram_bytes);
    for (unsigned i = 0; i < most_peers; i++)
        machine.ends[i].fd = -1;
    int first_free = dup(null_fd);
    close(first_free);
    struct vsock_port nowhere = {.port = 3, .path = "/dev/null/nothing"};
    struct vsock_custom_port customs[] = {{.port = 1, .ops = &ops, .user = &machine},
                                          {.port = 2, .ops = &ops, .user = &machine}};
    struct vsock_options options = {
        .ports = &nowhere, .port_count = 1, .custom_ports = customs, .custom_port_count = 2};
    FUZZ_CHECK(vsock_new(&options, &machine.device) == 0);
    FUZZ_CHECK(mmio_new(machine.device, memory, interrupt_fd, &machine.mmio) == 0);
    climb(&machine);
    for (int i = 0; i < most_commands && machine.left > 0; i++)
        do_command(&machine);
    check_silence(&machine);
    mmio_free(machine.mmio);
    virtio_device_free(machine.device);
    int still_free = dup(null_fd);
    FUZZ_CHECK(still_free == first_free);
    close(still_free);
    return 0;
}
