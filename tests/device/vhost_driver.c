// SPDX-License-Identifier: Apache-2.0
/* A vhost-user front end for tests: see vhost_driver.h. */
#include "vhost_driver.h"

#include "base/alloc.h"
#include "base/fd.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { patience_ms = 5000, most_turns = 64, header_bytes = 12, no_ring = 0x100 };

/* ---- the device: it echoes, and notes what it is told ---- */

static void note(struct vhost_driver *front, char letter)
{
    size_t length = strlen(front->order);
    if (length + 1 < sizeof(front->order))
        front->order[length] = letter;
}

static void start(void *state, uint64_t features)
{
    (void)features;
    note(state, 's');
}

static void stop(void *state)
{
    note(state, 'e');
}

static void queue_paused(void *state, unsigned queue)
{
    (void)queue;
    note(state, 'p');
}

static void config_written(void *state, uint32_t offset, uint32_t length)
{
    struct vhost_driver *front = state;
    (void)offset, (void)length;
    front->config_writes++;
}

static void serve(void *state, unsigned queue)
{
    struct vhost_driver *front = state;
    struct queue_chain chain;
    front->served++;
    while (virtio_pop(front->device, queue, &chain)) {
        uint8_t bytes[64];
        size_t length = virtio_read_spans(chain.readable, chain.readable_count, 0, bytes, sizeof(bytes));
        length = virtio_write_spans(chain.writable, chain.writable_count, 0, bytes, length);
        if (!front->holds)
            virtio_push(front->device, queue, chain.head, (uint32_t)length);
        else if (front->held_count < array_length(front->held))
            front->held[front->held_count++] = chain.head;
    }
    virtio_call(front->device, queue);
}

static const struct virtio_device_ops ops = {
    .type = VIRTIO_TYPE_RNG,
    .name = "echo",
    .start = start,
    .serve = serve,
    .queue_paused = queue_paused,
    .stop = stop,
    .config_written = config_written,
};

static void note_connected(void *user)
{
    struct vhost_driver *front = user;
    front->connected++;
}

static void note_disconnected(void *user)
{
    struct vhost_driver *front = user;
    front->disconnected++;
}

/* ---- life ---- */

static void note_out_of_room(void *user, int os_error)
{
    struct vhost_driver *front = user;
    front->out_of_room = os_error;
}

static void make_device(struct vhost_driver *front, bool is_out_of_order)
{
    static const uint16_t sizes[VHOST_DRIVER_RINGS] = {VHOST_DRIVER_ENTRIES, VHOST_DRIVER_ENTRIES};
    struct virtio_device_options options = {
        .ops = &ops,
        .state = front,
        .queue_sizes = sizes,
        .queue_count = VHOST_DRIVER_RINGS,
        .config_bytes = VHOST_DRIVER_CONFIG_BYTES,
        .writable_offset = 4,
        .writable_bytes = 8,
        .is_out_of_order = is_out_of_order,
    };
    if (virtio_device_new(&options, &front->device) < 0)
        abort();
}

void vhost_driver_begin(struct vhost_driver *front, const struct vhost_driver_options *options)
{
    int pair[2];
    *front = (struct vhost_driver){
        .fd = -1, .listen_fd = -1, .channel_fd = -1, .kick_fd = -1, .call_fd = -1, .error_fd = -1};
    driver_init(&front->driver, VHOST_DRIVER_ENTRIES);
    make_device(front, options->is_out_of_order);
    struct vhost_user_options server_options = {
        .listen_fd = -1,
        .connection_fd = -1,
        .protocol_without = options->protocol_without,
        .is_once = options->is_once,
        .signals_sockets_only = options->signals_sockets_only,
        .accepts_memory = options->accepts_memory,
        .out_of_room = note_out_of_room,
        .connected = note_connected,
        .disconnected = note_disconnected,
        .user = front,
    };
    if (options->listens) {
        front->listen_fd = server_options.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    } else if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0) {
        front->fd = pair[0];
        server_options.connection_fd = pair[1];
    }
    if (vhost_user_new(front->device, &server_options, &front->server) < 0)
        abort();
    /* Only now, as in a machine whose child makes the socket listen. An empty address gets a name of the kernel's. */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (options->listens && (bind(front->listen_fd, (struct sockaddr *)&address, sizeof(sa_family_t)) < 0 ||
                             listen(front->listen_fd, 8) < 0))
        abort();
    if (options->is_launched && virtio_device_launch(front->device) < 0)
        abort();
    front->is_launched = options->is_launched;
    if (options->listens)
        vhost_driver_connect(front);
}

static void close_own(struct vhost_driver *front)
{
    front->fd = fd_close(front->fd);
    front->channel_fd = fd_close(front->channel_fd);
    front->kick_fd = fd_close(front->kick_fd);
    front->call_fd = fd_close(front->call_fd);
    front->error_fd = fd_close(front->error_fd);
    front->features = front->protocol = 0;
}

void vhost_driver_end(struct vhost_driver *front)
{
    close_own(front);
    front->server = vhost_user_free(front->server);
    front->device = virtio_device_free(front->device);
    driver_release(&front->driver);
}

void vhost_driver_connect(struct vhost_driver *front)
{
    struct sockaddr_un address;
    socklen_t length = sizeof(address);
    close_own(front);
    front->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (getsockname(front->listen_fd, (struct sockaddr *)&address, &length) < 0 ||
        connect(front->fd, (struct sockaddr *)&address, length) < 0)
        abort();
}

void vhost_driver_disconnect(struct vhost_driver *front)
{
    close_own(front);
    vhost_driver_turn(front);
}

void vhost_driver_turn(struct vhost_driver *front)
{
    for (int i = 0; i < most_turns && !front->is_launched; i++)
        virtio_device_turn(front->device);
}

/* ---- messages ---- */

bool vhost_driver_send(struct vhost_driver *front, uint32_t request, uint32_t flags, const void *payload, uint32_t size,
                       const int *fds, unsigned fd_count)
{
    struct vhost_header header = {request, flags, size};
    struct iovec spans[] = {{&header, header_bytes}, {(void *)(uintptr_t)payload, payload != NULL ? size : 0}};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(16 * sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = spans, .msg_iovlen = 2};
    if (fd_count > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        control.header = (struct cmsghdr){CMSG_LEN(fd_count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.header), fds, fd_count * sizeof(int));
    }
    bool was_sent = sendmsg(front->fd, &message, MSG_NOSIGNAL) > 0;
    vhost_driver_turn(front);
    return was_sent;
}

static bool read_all(int fd, void *bytes, size_t length)
{
    for (size_t done = 0; done < length;) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        ssize_t got = poll(&wait, 1, patience_ms) == 1 ? read(fd, (char *)bytes + done, length - done) : -1;
        if (got <= 0)
            return false;
        done += (size_t)got;
    }
    return true;
}

bool vhost_driver_receive(struct vhost_driver *front, int fd, struct vhost_message *ret_message)
{
    vhost_driver_turn(front);
    return read_all(fd, &ret_message->header, header_bytes) &&
           ret_message->header.size <= sizeof(*ret_message) - offsetof(struct vhost_message, number) &&
           read_all(fd, &ret_message->number, ret_message->header.size);
}

bool vhost_driver_is_closed(struct vhost_driver *front)
{
    char byte;
    struct pollfd wait = {.fd = front->fd, .events = POLLIN};
    vhost_driver_turn(front);
    if (poll(&wait, 1, patience_ms) != 1)
        return false;
    ssize_t got = recv(front->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return got == 0 || (got < 0 && errno == ECONNRESET);
}

uint64_t vhost_driver_ask(struct vhost_driver *front, uint32_t request)
{
    struct vhost_message reply;
    if (!vhost_driver_send(front, request, VHOST_VERSION, NULL, 0, NULL, 0) ||
        !vhost_driver_receive(front, front->fd, &reply) || reply.header.request != request ||
        reply.header.flags != (VHOST_VERSION | VHOST_REPLY) || reply.header.size != sizeof(reply.number))
        return UINT64_MAX;
    return reply.number;
}

long vhost_driver_tell(struct vhost_driver *front, uint32_t request, const void *payload, uint32_t size, int fd)
{
    struct vhost_message reply;
    bool is_acknowledged = (front->protocol & VHOST_USER_F_REPLY_ACK) != 0;
    uint32_t flags = VHOST_VERSION | (is_acknowledged ? VHOST_NEED_REPLY : 0u);
    if (!vhost_driver_send(front, request, flags, payload, size, &fd, fd >= 0))
        return -1;
    if (!is_acknowledged)
        return vhost_driver_ask(front, VHOST_GET_FEATURES) != UINT64_MAX ? 0 : -1;
    if (!vhost_driver_receive(front, front->fd, &reply) || reply.header.request != request ||
        reply.header.flags != (VHOST_VERSION | VHOST_REPLY) || reply.header.size != sizeof(reply.number))
        return -1;
    return (long)reply.number;
}

long vhost_driver_tell_number(struct vhost_driver *front, uint32_t request, uint64_t number, int fd)
{
    return vhost_driver_tell(front, request, &number, sizeof(number), fd);
}

long vhost_driver_tell_state(struct vhost_driver *front, uint32_t request, uint32_t index, uint32_t number)
{
    struct vhost_ring_state state = {index, number};
    return vhost_driver_tell(front, request, &state, sizeof(state), -1);
}

/* ---- a whole front end ---- */

long vhost_driver_set_memory(struct vhost_driver *front, uint64_t region_bytes)
{
    struct vhost_message reply;
    struct vhost_regions table = {0};
    int fds[VHOST_MOST_REGIONS];
    for (uint64_t at = 0; at < VHOST_DRIVER_MEMORY_BYTES && table.count < VHOST_MOST_REGIONS; at += region_bytes) {
        fds[table.count] = memory_region(front->driver.memory, 0)->fd;
        table.regions[table.count++] = (struct vhost_region){at, region_bytes, VHOST_DRIVER_USER + at, at};
    }
    uint32_t size = 8 + table.count * (uint32_t)sizeof(table.regions[0]);
    bool is_acknowledged = (front->protocol & VHOST_USER_F_REPLY_ACK) != 0;
    if (!vhost_driver_send(front, VHOST_SET_MEM_TABLE, VHOST_VERSION | (is_acknowledged ? VHOST_NEED_REPLY : 0u),
                           &table, size, fds, table.count))
        return -1;
    if (!is_acknowledged)
        return vhost_driver_ask(front, VHOST_GET_FEATURES) != UINT64_MAX ? 0 : -1;
    return vhost_driver_receive(front, front->fd, &reply) ? (long)reply.number : -1;
}

static bool set_channel(struct vhost_driver *front)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return false;
    long result = vhost_driver_tell(front, VHOST_SET_BACKEND_REQ_FD, NULL, 0, pair[1]);
    close(pair[1]);
    front->channel_fd = pair[0];
    return result == 0;
}

static uint64_t wanted_protocol(enum vhost_driver_style style)
{
    switch (style) {
    case VHOST_DRIVER_LIKE_UML:
    case VHOST_DRIVER_LIKE_UML_EVENTS:
        return VHOST_USER_F_MQ | VHOST_USER_F_REPLY_ACK | VHOST_USER_F_BACKEND_REQ | VHOST_USER_F_CONFIG |
               VHOST_USER_F_INBAND;
    case VHOST_DRIVER_LIKE_QEMU:
        return VHOST_USER_F_MQ | VHOST_USER_F_REPLY_ACK | VHOST_USER_F_BACKEND_REQ | VHOST_USER_F_CONFIG |
               VHOST_USER_F_RESET_DEVICE | VHOST_USER_F_STATUS;
    case VHOST_DRIVER_OLD:
        break;
    }
    return 0;
}

int vhost_driver_negotiate(struct vhost_driver *front, enum vhost_driver_style style)
{
    uint64_t features = VHOST_DRIVER_FEATURES;
    front->features = style == VHOST_DRIVER_OLD ? VIRTIO_F_VERSION_1 : features;
    if (vhost_driver_tell(front, VHOST_SET_OWNER, NULL, 0, -1) != 0)
        return 1;
    if ((vhost_driver_ask(front, VHOST_GET_FEATURES) & features) != features)
        return 2;
    if (style != VHOST_DRIVER_OLD) {
        uint64_t offered = vhost_driver_ask(front, VHOST_GET_PROTOCOL_FEATURES);
        front->protocol = wanted_protocol(style) & offered; /* the very message that agrees is acknowledged */
        if (vhost_driver_tell_number(front, VHOST_SET_PROTOCOL_FEATURES, front->protocol, -1) != 0)
            return 3;
    }
    if ((front->protocol & VHOST_USER_F_MQ) != 0 && vhost_driver_ask(front, VHOST_GET_QUEUE_NUM) != VHOST_DRIVER_RINGS)
        return 4;
    if ((front->protocol & VHOST_USER_F_BACKEND_REQ) != 0 && !set_channel(front))
        return 5;
    if (vhost_driver_tell_number(front, VHOST_SET_FEATURES, front->features, -1) != 0)
        return 6;
    if (vhost_driver_set_memory(front, VHOST_DRIVER_MEMORY_BYTES) != 0)
        return 7;
    return 0;
}

static bool is_in_band(const struct vhost_driver *front)
{
    return (front->protocol & VHOST_USER_F_INBAND) != 0;
}

/* Ring 0 gets an eventfd for kicks, one for errors, and for calls one end of a pair, as in user-mode Linux. */
static bool set_signals(struct vhost_driver *front)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return false;
    long result = vhost_driver_tell_number(front, VHOST_SET_VRING_CALL, 0, pair[1]);
    close(pair[1]);
    fd_close(front->call_fd);
    front->call_fd = pair[0];
    fd_close(front->error_fd);
    front->error_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return result == 0 && vhost_driver_tell_number(front, VHOST_SET_VRING_ERR, 0, front->error_fd) == 0;
}

long vhost_driver_set_ring(struct vhost_driver *front, uint16_t base)
{
    struct vhost_ring_addresses addresses = {
        .descriptors = VHOST_DRIVER_USER + DRIVER_DESCRIPTORS,
        .used = VHOST_DRIVER_USER + DRIVER_USED,
        .available = VHOST_DRIVER_USER + DRIVER_AVAILABLE,
        .log = UINT64_MAX,
    };
    if (!is_in_band(front) && !set_signals(front))
        return -1;
    long result = vhost_driver_tell_state(front, VHOST_SET_VRING_NUM, 0, front->driver.entries);
    if (result == 0)
        result = vhost_driver_tell_state(front, VHOST_SET_VRING_BASE, 0, base);
    if (result == 0)
        result = vhost_driver_tell(front, VHOST_SET_VRING_ADDR, &addresses, sizeof(addresses), -1);
    if (result == 0 && !is_in_band(front)) {
        fd_close(front->kick_fd);
        front->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        result = vhost_driver_tell_number(front, VHOST_SET_VRING_KICK, 0, front->kick_fd);
    }
    if (result == 0 && (front->features & 1 << 30) != 0)
        result = vhost_driver_tell_state(front, VHOST_SET_VRING_ENABLE, 0, 1);
    return result;
}

int vhost_driver_shake_hands(struct vhost_driver *front, enum vhost_driver_style style)
{
    int step = vhost_driver_negotiate(front, style);
    if (step == 0 && vhost_driver_set_ring(front, 0) != 0)
        return 8;
    if (step == 0 && style == VHOST_DRIVER_LIKE_QEMU) {
        uint64_t status = VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK;
        if (vhost_driver_tell_number(front, VHOST_SET_STATUS, status, -1) != 0 ||
            vhost_driver_ask(front, VHOST_GET_STATUS) != status)
            return 9;
    }
    return step;
}

void vhost_driver_kick(struct vhost_driver *front)
{
    if (is_in_band(front))
        vhost_driver_tell_state(front, VHOST_VRING_KICK, 0, 0);
    else
        eventfd_write(front->kick_fd, 1);
    vhost_driver_turn(front);
}

bool vhost_driver_was_called(struct vhost_driver *front)
{
    struct vhost_message message;
    uint64_t one = 0;
    if (!is_in_band(front))
        return read_all(front->call_fd, &one, sizeof(one)) && one == 1;
    return vhost_driver_receive(front, front->channel_fd, &message) &&
           message.header.request == VHOST_BACKEND_VRING_CALL && message.header.flags == VHOST_VERSION &&
           message.header.size == sizeof(message.state) && message.state.index == 0 && message.state.number == 0;
}

bool vhost_driver_gets(struct vhost_driver *front, const char *text)
{
    while (driver_get_16(&front->driver, DRIVER_USED + 2) == front->driver.last_used)
        if (!vhost_driver_was_called(front))
            return false;
    return driver_takes_text(&front->driver, text);
}

bool vhost_driver_echoes(struct vhost_driver *front, const char *text)
{
    driver_offer_text(&front->driver, text);
    vhost_driver_kick(front);
    return vhost_driver_gets(front, text);
}
