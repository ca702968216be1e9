// SPDX-License-Identifier: Apache-2.0
/* Any sequence of messages from a vhost-user front end, with any descriptors, to an echo device; then kicks. The input
 * is a list of records: what to send, and with which descriptors. Numbers that matter (guest and front end addresses,
 * sizes) are built from single bytes, so that useful values are frequent; one kind of record sends bytes as they are.
 *
 * What must hold: the server never fails by its own assertions, serves the next front end whatever happened, and no
 * descriptor is left at the end of a run.
 */
#include "ring.h"

#include "virtio/vhost_message.h"
#include "virtio/vhost_user.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { page_bytes = 4096, ram_bytes = 16 * page_bytes, rings = 3, most_records = 64, most_turns = 4 };
#define USER_BASE UINT64_C(0x10000000)

static struct virtio_device *device;
static struct vhost_user *server;
static int ram_fd = -1, file_fd = -1, peer_fd = -1;

/* ---- an echo device that sometimes holds a chain ---- */

static struct queue_chain held[rings];
static bool has_held[rings];

static void serve(void *state, unsigned queue)
{
    struct queue_chain chain;
    uint8_t bytes[256];
    (void)state;
    while (virtio_pop(device, queue, &chain)) {
        size_t length = virtio_read_spans(chain.readable, chain.readable_count, 0, bytes, sizeof(bytes));
        if (queue == 1 && !has_held[queue]) {
            held[queue] = chain;
            has_held[queue] = true;
            break; /* its spans hold until the next one is taken */
        }
        length = virtio_write_spans(chain.writable, chain.writable_count, 0, bytes, length);
        virtio_push(device, queue, chain.head, (uint32_t)length);
    }
    virtio_call(device, queue);
}

static void queue_paused(void *state, unsigned queue)
{
    (void)state;
    has_held[queue] = false;
}

static void stop(void *state)
{
    (void)state;
    for (unsigned i = 0; i < rings; i++) {
        if (has_held[i])
            virtio_push(device, i, held[i].head, 0);
        has_held[i] = false;
    }
}

static const struct virtio_device_ops ops = {
    .type = VIRTIO_TYPE_RNG, .name = "fuzz", .serve = serve, .queue_paused = queue_paused, .stop = stop};

/* ---- the input ---- */

struct input {
    const uint8_t *data;
    size_t size, at;
};

static uint8_t take(struct input *input)
{
    return input->at < input->size ? input->data[input->at++] : 0;
}

/* A number: mostly a small one, or one at an edge. */
static uint64_t take_number(struct input *input)
{
    uint8_t what = take(input), more = take(input);
    switch (what & 7) {
    case 0:
        return UINT64_MAX - more;
    case 1:
        return (uint64_t)more << (what >> 3);
    case 2:
        return UINT64_C(1) << (more & 63);
    default:
        return more;
    }
}

static uint64_t take_address(struct input *input, uint64_t base)
{
    uint8_t what = take(input);
    return what == 0xff ? take_number(input) : base + (uint64_t)what * 256;
}

static size_t fill_payload(struct input *input, uint32_t request, struct vhost_message *message)
{
    static const uint64_t protocol[] = {0x16229 | 1 << 14, 0x16229, 0x8, 0};
    switch (request) {
    case VHOST_SET_FEATURES:
        message->number = VIRTIO_F_VERSION_1 | (uint64_t)take(input) << 26;
        return 8;
    case VHOST_SET_PROTOCOL_FEATURES:
        message->number = protocol[take(input) & 3];
        return 8;
    case VHOST_SET_MEM_TABLE:
        message->memory.count = take(input) & 3;
        for (unsigned i = 0; i < message->memory.count; i++)
            message->memory.regions[i] = (struct vhost_region){
                (uint64_t)(take(input) & 31) * page_bytes, (uint64_t)(take(input) & 31) * page_bytes,
                USER_BASE + (uint64_t)(take(input) & 31) * page_bytes, (uint64_t)(take(input) & 15) * page_bytes};
        return 8 + message->memory.count * sizeof(message->memory.regions[0]);
    case VHOST_SET_VRING_ADDR:
        message->addresses = (struct vhost_ring_addresses){.index = take(input) & 3};
        message->addresses.descriptors = take_address(input, USER_BASE);
        message->addresses.available = take_address(input, USER_BASE);
        message->addresses.used = take_address(input, USER_BASE);
        return sizeof(message->addresses);
    case VHOST_SET_VRING_NUM:
        message->state = (struct vhost_ring_state){take(input) & 3, 1u << (take(input) & 15)};
        return sizeof(message->state);
    case VHOST_SET_VRING_BASE:
    case VHOST_GET_VRING_BASE:
    case VHOST_SET_VRING_ENABLE:
    case VHOST_VRING_KICK:
        message->state = (struct vhost_ring_state){take(input) & 3, (uint32_t)take_number(input)};
        return sizeof(message->state);
    case VHOST_SET_VRING_KICK:
    case VHOST_SET_VRING_CALL:
    case VHOST_SET_VRING_ERR:
    case VHOST_SET_STATUS:
        message->number = take(input) & 3;
        message->number |= take(input) > 240 ? take_number(input) : 0;
        return 8;
    case VHOST_GET_CONFIG:
    case VHOST_SET_CONFIG:
        message->config = (struct vhost_config){(uint32_t)take_number(input), take(input), take(input) & 1, {0}};
        return VHOST_CONFIG_HEADER_BYTES + message->config.size;
    default:
        return 0;
    }
}

/* Descriptors by a byte: what kind, all the same. Closed by the caller, but for those that live on. */
static int open_fd(uint8_t kind)
{
    int pair[2];
    switch (kind & 7) {
    case 0:
    case 1:
        return eventfd(0, EFD_CLOEXEC);
    case 2:
        return dup(file_fd);
    case 3:
        FUZZ_CHECK(pipe(pair) == 0);
        close(pair[0]);
        return pair[1];
    case 4:
        FUZZ_CHECK(pipe(pair) == 0);
        close(pair[1]);
        return pair[0];
    case 5:
        FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        close(pair[0]);
        return pair[1];
    default:
        return dup(ram_fd);
    }
}

static unsigned right_fds(uint32_t request, const struct vhost_message *message)
{
    if (request == VHOST_SET_MEM_TABLE)
        return message->memory.count;
    if (request >= VHOST_SET_VRING_KICK && request <= VHOST_SET_VRING_ERR)
        return (message->number & VHOST_NO_FD) == 0;
    return request == VHOST_SET_BACKEND_REQ_FD;
}

static void send_bytes(const void *bytes, size_t length, const int *fds, unsigned fd_count)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(16 * sizeof(int))];
    } control = {0};
    struct iovec span = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
    struct msghdr message = {.msg_iov = &span, .msg_iovlen = 1};
    if (fd_count > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        control.header = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(fd_count * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.header), fds, fd_count * sizeof(int));
    }
    ssize_t sent = sendmsg(peer_fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)sent;
}

/* ---- a run ---- */

static void turn(void)
{
    static uint8_t replies[65536];
    for (int i = 0; i < most_turns; i++)
        virtio_device_turn(device);
    while (recv(peer_fd, replies, sizeof(replies), MSG_DONTWAIT) > 0)
        continue;
}

static void send_message(struct input *input)
{
    struct vhost_message message = {0};
    uint8_t bytes[sizeof(message)], how = take(input), fd_kind = take(input);
    uint32_t request = take(input) % (VHOST_REQUESTS + 2u);
    size_t size = fill_payload(input, request, &message);
    struct vhost_header header = {request, VHOST_VERSION | (how & VHOST_NEED_REPLY), (uint32_t)size};
    unsigned fd_count = right_fds(request, &message);
    int fds[16];
    if ((how & 0xc0) == 0xc0)
        fd_count = how & 15;
    for (unsigned i = 0; i < fd_count; i++)
        FUZZ_CHECK((fds[i] = open_fd(request == VHOST_SET_MEM_TABLE ? fd_kind | 6 : fd_kind)) >= 0);
    memcpy(bytes, &header, sizeof(header));
    memcpy(bytes + sizeof(header), &message.number, size);
    size_t first = (how & 0x30) == 0x30 ? 1 + how % 16 : sizeof(header) + size;
    if (first > sizeof(header) + size)
        first = sizeof(header) + size;
    send_bytes(bytes, first, fds, fd_count);
    if (first < sizeof(header) + size) {
        virtio_device_turn(device);
        send_bytes(bytes + first, sizeof(header) + size - first, NULL, 0);
    }
    for (unsigned i = 0; i < fd_count; i++) {
        uint64_t one = 1;
        if ((fd_kind & 7) < 2) {
            ssize_t written = write(fds[i], &one, sizeof(one)); /* a kick that has come already */
            (void)written;
        }
        close(fds[i]);
    }
}

static void send_raw(struct input *input)
{
    uint8_t bytes[64];
    size_t length = take(input) % sizeof(bytes);
    for (size_t i = 0; i < length; i++)
        bytes[i] = take(input);
    send_bytes(bytes, length, NULL, 0);
}

static void connect_again(void)
{
    int pair[2];
    vhost_user_free(server);
    if (peer_fd >= 0)
        close(peer_fd);
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    struct vhost_user_options options = {.listen_fd = -1, .connection_fd = pair[1]};
    FUZZ_CHECK(vhost_user_new(device, &options, &server) == 0);
    peer_fd = pair[0];
}

static unsigned count_descriptors(void)
{
    unsigned count = 0;
    DIR *list = opendir("/proc/self/fd");
    FUZZ_CHECK(list != NULL);
    while (readdir(list) != NULL)
        count++;
    closedir(list);
    return count;
}

static void begin(void)
{
    static const uint16_t sizes[rings] = {8, 8, 8};
    struct virtio_device_options options = {.ops = &ops,
                                            .queue_sizes = sizes,
                                            .queue_count = rings,
                                            .config_bytes = 16,
                                            .writable_offset = 4,
                                            .writable_bytes = 8};
    ram_fd = memfd_create("ram", MFD_CLOEXEC);
    file_fd = memfd_create("file", MFD_CLOEXEC);
    FUZZ_CHECK(ram_fd >= 0 && file_fd >= 0 && ftruncate(ram_fd, ram_bytes) == 0);
    FUZZ_CHECK(virtio_device_new(&options, &device) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t ram[ram_bytes];
    if (device == NULL)
        begin();
    if (size < 16)
        return 0;
    fuzz_fill(ram, sizeof(ram), data, size);
    FUZZ_CHECK(pwrite(ram_fd, ram, sizeof(ram), 0) == ram_bytes);
    connect_again();
    unsigned before = count_descriptors();
    struct input input = {data, size, 0};
    for (unsigned i = 0; i < most_records && input.at < input.size; i++) {
        if (take(&input) > 250)
            send_raw(&input);
        else
            send_message(&input);
        turn();
        for (unsigned ring = 0; ring < rings; ring++)
            virtio_kick(device, ring);
        turn();
    }
    connect_again();
    FUZZ_CHECK(!virtio_device_is_started(device));
    FUZZ_CHECK(count_descriptors() == before);
    return 0;
}
