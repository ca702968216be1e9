// SPDX-License-Identifier: Apache-2.0
/* Functions of the embedding program's as a network.
 *
 * They get each frame as a copy: what reads a header twice must not see two. They are waited for by a duplicate of
 * their descriptor, as a program may close its own meanwhile.
 *
 * Invariants: (1) the functions are called on the device's thread only, and no more after the network's death. (2) no
 * pointer into guest memory reaches them.
 *
 * Trust: the program is trusted, but what its functions return is checked.
 */
#include "base/alloc.h"
#include "base/fd.h"
#include "device/net/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

struct custom {
    struct net_backend backend;
    struct vial_net_ops ops;
    void *user; /* borrowed */
    uint8_t frame[LIMIT_NET_FRAME_BYTES + 1];
};

static struct custom *custom_of(struct net_backend *backend)
{
    return (struct custom *)backend;
}

static int send_frame(struct net_backend *backend, const struct net_header *header, const struct iovec *parts,
                      size_t count, size_t length)
{
    struct custom *custom = custom_of(backend);
    (void)header;
    struct iovec whole = {.iov_base = custom->frame};
    whole.iov_len = virtio_read_spans(parts, count, 0, custom->frame, length);
    int result = custom->ops.send(custom->user, &whole, 1);
    if (result == -ENOBUFS || result == -ENOMEM)
        return -EMSGSIZE;
    return result > 0 ? 0 : result;
}

static ssize_t receive_frame(struct net_backend *backend, struct net_header *header, const struct iovec *parts,
                             size_t count)
{
    struct custom *custom = custom_of(backend);
    (void)header;
    ssize_t got = custom->ops.receive(custom->user, custom->frame, sizeof(custom->frame));
    if (got > (ssize_t)sizeof(custom->frame))
        return -EIO;
    if (got > 0)
        virtio_write_spans(parts, count, 0, custom->frame, (size_t)got);
    return got;
}

static void disconnect_custom(struct net_backend *backend)
{
    backend->fd = fd_close(backend->fd);
}

static void free_custom(struct net_backend *backend)
{
    fd_close(backend->fd);
    free(custom_of(backend));
}

static const struct net_backend_ops custom_ops = {
    .name = "custom",
    .send = send_frame,
    .receive = receive_frame,
    .disconnect = disconnect_custom,
    .free = free_custom,
};

int net_custom_new(const struct net_options *options, struct net_backend **ret_backend)
{
    const struct vial_net_ops *ops = options->ops;
    if (ops == NULL || ops->send == NULL || ops->receive == NULL || ops->poll_fd == NULL)
        return -EINVAL;
    auto_free struct custom *custom = alloc_zero(sizeof(*custom));
    if (custom == NULL)
        return -ENOMEM;
    int fd = ops->poll_fd(options->ops_user);
    if (fd < 0)
        return -EBADF;
    fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return -errno;
    custom->backend = (struct net_backend){.ops = &custom_ops, .fd = fd};
    custom->ops = *ops;
    custom->user = options->ops_user;
    *ret_backend = &steal_ptr(custom)->backend;
    return 0;
}
