// SPDX-License-Identifier: Apache-2.0
/* A TAP device of the host's as a network: its kernel takes and gives frames together with a virtio header.
 *
 * So what the guest leaves undone (checksums, segments) goes to the host's kernel as it is, which finishes it, passes
 * it on as it is to another guest, or has a network card do it. In the other direction the kernel is told what the
 * driver understands (TUNSETOFFLOAD), and does the rest before we see the frame.
 *
 * One descriptor is one queue. A device of several has as many descriptors; the kernel spreads what it receives over
 * those that are attached.
 *
 * Invariants: (1) the kernel sees only headers that were checked, as copies. (2) it is never told of more offloads than
 * the driver has agreed on. (3) a queue that is not enabled is detached: it gets no frames that nobody would take.
 *
 * Trust: the name is the user's. The kernel checks headers again.
 */
#include "base/alloc.h"
#include "base/fd.h"
#include "device/net/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct tap {
    struct net_backend backend;
    struct iovec parts[LIMIT_NET_PIECES + 1]; /* the header and the frame's, during a call */
};

static struct tap *tap_of(struct net_backend *backend)
{
    return (struct tap *)backend;
}

/* ---- frames ---- */

static size_t put_header_before(struct tap *tap, struct net_header *header, const struct iovec *parts, size_t count)
{
    tap->parts[0] = (struct iovec){.iov_base = header, .iov_len = sizeof(*header)};
    memcpy(tap->parts + 1, parts, count * sizeof(parts[0]));
    return count + 1;
}

/* The device was removed. Everything else that the kernel refuses is this frame: what it says of itself is wrong
 * (-EINVAL), the device is down (-EIO), there is no memory. */
static bool is_death(int error)
{
    return error == EBADFD || error == EBADF || error == ENODEV;
}

static int send_frame(struct net_backend *backend, const struct net_header *header, const struct iovec *parts,
                      size_t count, size_t length)
{
    struct tap *tap = tap_of(backend);
    struct net_header copy = *header;
    ssize_t written;
    (void)length;
    size_t part_count = put_header_before(tap, &copy, parts, count);
    do
        written = writev(backend->fd, tap->parts, (int)part_count);
    while (written < 0 && errno == EINTR);
    if (written >= 0)
        return 0;
    return errno == EAGAIN || is_death(errno) ? -errno : -EMSGSIZE;
}

static ssize_t receive_frame(struct net_backend *backend, struct net_header *header, const struct iovec *parts,
                             size_t count)
{
    struct tap *tap = tap_of(backend);
    ssize_t got;
    size_t part_count = put_header_before(tap, header, parts, count);
    do
        got = readv(backend->fd, tap->parts, (int)part_count);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno == EAGAIN || is_death(errno) ? -errno : -EMSGSIZE;
    return got < (ssize_t)sizeof(*header) ? 0 : got - (ssize_t)sizeof(*header);
}

/* ---- what it carries ---- */

static unsigned offloads_of(uint64_t features)
{
    unsigned offloads = 0;
    if ((features & NET_F_GUEST_CSUM) == 0)
        return 0; /* the others stand on it */
    offloads |= TUN_F_CSUM;
    offloads |= (features & NET_F_GUEST_TSO4) != 0 ? TUN_F_TSO4 : 0;
    offloads |= (features & NET_F_GUEST_TSO6) != 0 ? TUN_F_TSO6 : 0;
    offloads |= (features & NET_F_GUEST_UFO) != 0 ? TUN_F_UFO : 0;
    return offloads;
}

static int set_features(struct net_backend *backend, uint64_t features)
{
    return ioctl(backend->fd, TUNSETOFFLOAD, (unsigned long)offloads_of(features)) < 0 ? -errno : 0;
}

uint64_t net_tap_features(const struct net_backend *backend, uint64_t wanted)
{
    /* To the host, the kernel takes what its header can say. To the guest, it is asked feature by feature. */
    static const uint64_t to_guest[] = {NET_F_GUEST_TSO4, NET_F_GUEST_TSO6, NET_F_GUEST_UFO};
    uint64_t features = wanted & (NET_F_CSUM | NET_F_HOST_TSO4 | NET_F_HOST_TSO6 | NET_F_HOST_UFO);
    if ((wanted & NET_F_GUEST_CSUM) == 0 || ioctl(backend->fd, TUNSETOFFLOAD, (unsigned long)TUN_F_CSUM) < 0)
        return features;
    features |= NET_F_GUEST_CSUM;
    for (size_t i = 0; i < array_length(to_guest); i++) {
        unsigned long offloads = offloads_of(NET_F_GUEST_CSUM | to_guest[i]);
        if ((wanted & to_guest[i]) != 0 && ioctl(backend->fd, TUNSETOFFLOAD, offloads) == 0)
            features |= to_guest[i];
    }
    return features;
}

static int set_enabled(struct net_backend *backend, bool is_enabled)
{
    struct ifreq request = {.ifr_flags = is_enabled ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};
    return ioctl(backend->fd, TUNSETQUEUE, &request) < 0 ? -errno : 0;
}

/* ---- life ---- */

static void disconnect_tap(struct net_backend *backend)
{
    backend->fd = fd_close(backend->fd);
}

static void free_tap(struct net_backend *backend)
{
    fd_close(backend->fd);
    free(tap_of(backend));
}

static const struct net_backend_ops tap_ops = {
    .name = "tap",
    .takes_headers = true,
    .send = send_frame,
    .receive = receive_frame,
    .disconnect = disconnect_tap,
    .set_features = set_features,
    .set_enabled = set_enabled,
    .free = free_tap,
};

static int open_queue(const char *name, bool is_one_of_several)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int header_bytes = sizeof(struct net_header);
    size_t length = strlen(name);
    if (length == 0 || length >= sizeof(request.ifr_name))
        return -EINVAL;
    memcpy(request.ifr_name, name, length);
    if (is_one_of_several)
        request.ifr_flags = (short)(request.ifr_flags | IFF_MULTI_QUEUE);
    auto_close int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &header_bytes) < 0 ||
        ioctl(fd, TUNSETOFFLOAD, 0UL) < 0)
        return -errno;
    return steal_fd(&fd);
}

int net_tap_new(const struct net_options *options, struct net_backend **ret_backend)
{
    if (options->path == NULL || options->fd >= 0)
        return -EINVAL;
    auto_free struct tap *tap = alloc_zero(sizeof(*tap));
    if (tap == NULL)
        return -ENOMEM;
    int fd = open_queue(options->path, options->queue_pairs > 1);
    if (fd < 0)
        return fd;
    tap->backend = (struct net_backend){.ops = &tap_ops, .fd = fd};
    *ret_backend = &steal_ptr(tap)->backend;
    return 0;
}
