// SPDX-License-Identifier: Apache-2.0
/* Messages of the vhost-user protocol: receiving them in pieces, and their form. (QEMU, docs/interop/vhost-user)
 *
 * A message is a header of 12 bytes, a payload, and descriptors in the ancillary data of any of its bytes. The socket
 * is a stream, so it may come in pieces. We never ask for more than is missing of the message at hand: descriptors come
 * with the first byte of what they were sent with, so none of the next message are taken by mistake.
 *
 *     header  ──> is there such a request, and can it have this size? ──> payload ──> are these its descriptors?
 *
 * All of the form is in one table, and is checked before anybody looks at the content. A request that is not in the
 * table is read, too, as long as it is not larger than those that are, so that it can be answered with an error.
 *
 * Invariants: (1) a receiver never holds more than one message and VHOST_MOST_FDS descriptors. (2) the message that is
 * handed out has the version, the size and the number of descriptors that go with its request. (3) every descriptor is
 * close-on-exec, and closed by vhost_receiver_clear unless it was taken.
 *
 * Trust: the peer is hostile.
 */
#include "virtio/vhost_message.h"

#include "base/alloc.h"
#include "base/fd.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

enum payload {
    PAYLOAD_UNKNOWN,
    PAYLOAD_NONE,
    PAYLOAD_NUMBER,
    PAYLOAD_STATE,
    PAYLOAD_ADDRESSES,
    PAYLOAD_MEMORY,
    PAYLOAD_CONFIG,
    PAYLOAD_INFLIGHT,
};

enum descriptors { FDS_NONE, FDS_ONE, FDS_BY_NUMBER, FDS_BY_MEMORY };

struct form {
    enum payload payload;
    enum descriptors descriptors;
    bool has_reply;
};

static const struct form forms[VHOST_REQUESTS] = {
    [VHOST_GET_FEATURES] = {PAYLOAD_NONE, FDS_NONE, true},
    [VHOST_SET_FEATURES] = {PAYLOAD_NUMBER, FDS_NONE, false},
    [VHOST_SET_OWNER] = {PAYLOAD_NONE, FDS_NONE, false},
    [VHOST_RESET_OWNER] = {PAYLOAD_NONE, FDS_NONE, false},
    [VHOST_SET_MEM_TABLE] = {PAYLOAD_MEMORY, FDS_BY_MEMORY, false},
    [VHOST_SET_VRING_NUM] = {PAYLOAD_STATE, FDS_NONE, false},
    [VHOST_SET_VRING_ADDR] = {PAYLOAD_ADDRESSES, FDS_NONE, false},
    [VHOST_SET_VRING_BASE] = {PAYLOAD_STATE, FDS_NONE, false},
    [VHOST_GET_VRING_BASE] = {PAYLOAD_STATE, FDS_NONE, true},
    [VHOST_SET_VRING_KICK] = {PAYLOAD_NUMBER, FDS_BY_NUMBER, false},
    [VHOST_SET_VRING_CALL] = {PAYLOAD_NUMBER, FDS_BY_NUMBER, false},
    [VHOST_SET_VRING_ERR] = {PAYLOAD_NUMBER, FDS_BY_NUMBER, false},
    [VHOST_GET_PROTOCOL_FEATURES] = {PAYLOAD_NONE, FDS_NONE, true},
    [VHOST_SET_PROTOCOL_FEATURES] = {PAYLOAD_NUMBER, FDS_NONE, false},
    [VHOST_GET_QUEUE_NUM] = {PAYLOAD_NONE, FDS_NONE, true},
    [VHOST_SET_VRING_ENABLE] = {PAYLOAD_STATE, FDS_NONE, false},
    [VHOST_SET_BACKEND_REQ_FD] = {PAYLOAD_NONE, FDS_ONE, false},
    [VHOST_GET_CONFIG] = {PAYLOAD_CONFIG, FDS_NONE, true},
    [VHOST_SET_CONFIG] = {PAYLOAD_CONFIG, FDS_NONE, false},
    [VHOST_GET_INFLIGHT_FD] = {PAYLOAD_INFLIGHT, FDS_NONE, true},
    [VHOST_SET_INFLIGHT_FD] = {PAYLOAD_INFLIGHT, FDS_ONE, false},
    [VHOST_RESET_DEVICE] = {PAYLOAD_NONE, FDS_NONE, false},
    [VHOST_VRING_KICK] = {PAYLOAD_STATE, FDS_NONE, false},
    [VHOST_SET_STATUS] = {PAYLOAD_NUMBER, FDS_NONE, false},
    [VHOST_GET_STATUS] = {PAYLOAD_NONE, FDS_NONE, true},
};

enum { header_bytes = sizeof(struct vhost_header) };
enum { most_payload_bytes = sizeof(struct vhost_message) - offsetof(struct vhost_message, number) };
enum { regions_offset = offsetof(struct vhost_regions, regions) };

static const struct form *form_of(uint32_t request)
{
    return &forms[request < VHOST_REQUESTS ? request : 0];
}

bool vhost_has_reply(uint32_t request)
{
    return form_of(request)->has_reply;
}

/* ---- the form ---- */

static int refuse(const char **ret_why, const char *why)
{
    *ret_why = why;
    return -EPROTO;
}

static int check_header(const struct vhost_header *header, const char **ret_why)
{
    if ((header->flags & ~(uint32_t)VHOST_NEED_REPLY) != VHOST_VERSION)
        return refuse(ret_why, "a header's flags cannot be");
    if (header->size > most_payload_bytes)
        return refuse(ret_why, "a message is larger than any that is known");
    return 0;
}

static bool is_size_right(const struct vhost_message *message)
{
    size_t size = message->header.size;
    switch (form_of(message->header.request)->payload) {
    case PAYLOAD_UNKNOWN:
        return true; /* whoever handles it says no */
    case PAYLOAD_NONE:
        return size == 0;
    case PAYLOAD_NUMBER:
        return size == sizeof(message->number);
    case PAYLOAD_STATE:
        return size == sizeof(message->state);
    case PAYLOAD_ADDRESSES:
        return size == sizeof(message->addresses);
    case PAYLOAD_MEMORY:
        return size >= regions_offset && message->memory.count <= VHOST_MOST_REGIONS &&
               size == regions_offset + message->memory.count * sizeof(message->memory.regions[0]);
    case PAYLOAD_CONFIG:
        return size >= VHOST_CONFIG_HEADER_BYTES && size - VHOST_CONFIG_HEADER_BYTES == message->config.size;
    case PAYLOAD_INFLIGHT:
        return size == VHOST_INFLIGHT_BYTES || size == sizeof(message->inflight);
    }
    return false;
}

static unsigned expected_fds(const struct vhost_message *message)
{
    switch (form_of(message->header.request)->descriptors) {
    case FDS_ONE:
        return 1;
    case FDS_BY_NUMBER:
        return (message->number & VHOST_NO_FD) == 0;
    case FDS_BY_MEMORY:
        return message->memory.count;
    case FDS_NONE:
        break;
    }
    return 0;
}

static int check_message(const struct vhost_receiver *receiver, const char **ret_why)
{
    if (!is_size_right(&receiver->message))
        return refuse(ret_why, "a message has not the size of its request");
    if (receiver->fd_count != expected_fds(&receiver->message))
        return refuse(ret_why, "a message has not the descriptors of its request");
    return 0;
}

/* ---- receiving ---- */

/* Takes over the descriptors that came along: -EPROTO when they are more than any message has, -EMFILE when there was
 * room and this process may not have more of them (Linux drops the rest, and says that it has cut them off). */
static int take_descriptors(struct vhost_receiver *receiver, struct msghdr *message)
{
    bool is_cut = (message->msg_flags & MSG_CTRUNC) != 0, is_too_much = false;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + i * sizeof(fd), sizeof(fd));
            if (receiver->fd_count < VHOST_MOST_FDS) {
                receiver->fds[receiver->fd_count++] = fd;
            } else {
                is_too_much = true;
                fd_close(fd);
            }
        }
    }
    if (is_too_much || (is_cut && receiver->fd_count == VHOST_MOST_FDS))
        return -EPROTO;
    return is_cut ? -EMFILE : 0;
}

/* Where the next bytes go, and how many are missing of the header or the payload. */
static uint8_t *find_room(struct vhost_receiver *receiver, size_t *ret_missing)
{
    struct vhost_message *message = &receiver->message;
    if (receiver->filled < header_bytes) {
        *ret_missing = header_bytes - receiver->filled;
        return (uint8_t *)&message->header + receiver->filled;
    }
    size_t done = receiver->filled - header_bytes;
    *ret_missing = message->header.size - done;
    return (uint8_t *)&message->number + done;
}

/* One read of at most `length` bytes: how many, or -errno. */
static ssize_t read_piece(struct vhost_receiver *receiver, int socket_fd, void *bytes, size_t length,
                          const char **ret_why)
{
    union {
        struct cmsghdr header; /* for its alignment */
        char bytes[CMSG_SPACE(VHOST_MOST_FDS * sizeof(int))];
    } control;
    struct iovec span = {.iov_base = bytes, .iov_len = length};
    struct msghdr message = {
        .msg_iov = &span,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control),
    };
    ssize_t got;
    do
        got = recvmsg(socket_fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    int result = take_descriptors(receiver, &message);
    if (result == -EMFILE) {
        *ret_why = "this process may not have more descriptors";
        return result;
    }
    if (result < 0)
        return refuse(ret_why, "a message has more descriptors than any request");
    return got;
}

int vhost_receive(struct vhost_receiver *receiver, int socket_fd, const char **ret_why)
{
    for (;;) {
        size_t missing = 0;
        uint8_t *room = find_room(receiver, &missing);
        if (missing == 0)
            return check_message(receiver, ret_why) < 0 ? -EPROTO : 1;
        ssize_t got = read_piece(receiver, socket_fd, room, missing, ret_why);
        if (got == -EAGAIN)
            return 0;
        if (got < 0)
            return (int)got;
        if (got == 0)
            return -ECONNRESET;
        receiver->filled += (size_t)got;
        if (receiver->filled == header_bytes && check_header(&receiver->message.header, ret_why) < 0)
            return -EPROTO;
    }
}

int vhost_take_fd(struct vhost_receiver *receiver, unsigned index)
{
    return index < receiver->fd_count ? steal_fd(&receiver->fds[index]) : -1;
}

void vhost_receiver_clear(struct vhost_receiver *receiver)
{
    for (unsigned i = 0; i < receiver->fd_count; i++)
        fd_close(receiver->fds[i]);
    *receiver = VHOST_RECEIVER_NONE;
}

/* ---- sending ---- */

int vhost_send(int socket_fd, uint32_t request, uint32_t flags, const void *payload, uint32_t size)
{
    return vhost_send_fd(socket_fd, request, flags, payload, size, -1);
}

/* Has the descriptor go with the message. */
static void attach(struct msghdr *message, void *control, size_t control_bytes, int fd)
{
    message->msg_control = control;
    message->msg_controllen = control_bytes;
    struct cmsghdr *part = CMSG_FIRSTHDR(message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(fd));
    memcpy(CMSG_DATA(part), &fd, sizeof(fd));
}

int vhost_send_fd(int socket_fd, uint32_t request, uint32_t flags, const void *payload, uint32_t size, int fd)
{
    union {
        struct cmsghdr header; /* for its alignment */
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    uint8_t bytes[header_bytes + most_payload_bytes];
    struct vhost_header header = {.request = request, .flags = flags | VHOST_VERSION, .size = size};
    assert(size <= most_payload_bytes);
    memcpy(bytes, &header, sizeof(header));
    if (size > 0)
        memcpy(bytes + sizeof(header), payload, size);
    struct iovec span = {.iov_base = bytes, .iov_len = sizeof(header) + size};
    struct msghdr message = {.msg_iov = &span, .msg_iovlen = 1};
    if (fd >= 0)
        attach(&message, &control, sizeof(control), fd);
    ssize_t sent;
    do
        sent = sendmsg(socket_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return -errno;
    return (size_t)sent == sizeof(header) + size ? 0 : -EPIPE; /* half a message: the stream is of no use any more */
}
