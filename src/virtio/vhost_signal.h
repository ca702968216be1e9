// SPDX-License-Identifier: Apache-2.0
/* Descriptors that a front end gave us to be signalled by: a call, or an error. */
#ifndef VIRTIO_VHOST_SIGNAL_H
#define VIRTIO_VHOST_SIGNAL_H

struct vhost_signal {
    int fd; /* owned, or -1 */
    enum { VHOST_SIGNAL_EVENT, VHOST_SIGNAL_PIPE, VHOST_SIGNAL_SOCKET } kind;
};
#define VHOST_SIGNAL_NONE ((struct vhost_signal){.fd = -1})

/* Takes the descriptor, also on failure: 0, -EINVAL for what is neither an eventfd, nor a pipe's end for writing, nor a
 * socket, or -errno. */
int vhost_signal_open(int fd, struct vhost_signal *ret_signal);
void vhost_signal_close(struct vhost_signal *signal);

/* Signals, unless as many signals are pending as fit. Nobody learns of a failure: it is the front end's own. */
void vhost_signal_send(const struct vhost_signal *signal);

/* From another thread: has a send that waits go on. Never waits itself. */
void vhost_signal_unblock(const struct vhost_signal *signal);

#endif
