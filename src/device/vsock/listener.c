// SPDX-License-Identifier: Apache-2.0
/* Unix sockets that lead into the guest.
 *
 * A socket is made with the device and has the mode 0600 from its first moment: bind(2) takes it from the descriptor,
 * whose own mode is set before, less what the umask forbids. It is put over nothing but a socket of our own user's that
 * nobody listens on any more, as a killed machine leaves it, and removed at the end only if it is still the file that
 * we made. In a sandbox the thread that frees the device may not remove it (Landlock); its main thread does.
 *
 * Connections are accepted while the guest's driver runs and can be expected to answer. At other times (no driver yet,
 * too many that were not answered, no descriptor left on the host) they wait where listen(2) has them. When the host
 * had no descriptor left, the end of a stream may have brought one; as others may have taken them, too, a look is taken
 * now and then, in that state only.
 *
 * Invariants: (1) a path is removed by whoever made it, or when nobody listens on it. (2) one turn accepts a bounded
 * number.
 *
 * Trust: paths are the configuration's; whoever may open the socket may speak to the guest's port.
 */
#include "device/vsock/listener.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "device/vsock/state.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { most_accepts = 16 };
#define SHORTAGE_LOOK_NS (100 * CLOCK_NS_PER_MS)
#define FIRST_HOST_PORT (UINT32_C(1) << 31) /* far from what anybody gives a name to */

/* ---- connections ---- */

static uint32_t choose_port(struct vsock *vsock, uint32_t guest_port)
{
    /* Ends: there are far fewer streams than ports. */
    do
        vsock->next_host_port = (vsock->next_host_port + 1) | FIRST_HOST_PORT;
    while (vsock->next_host_port == UINT32_MAX || table_find(&vsock->table, guest_port, vsock->next_host_port) != NULL);
    return vsock->next_host_port;
}

static void handle_connections(void *user, uint32_t what)
{
    struct listener *listener = user;
    struct vsock *vsock = listener->vsock;
    (void)what;
    for (unsigned i = 0; i < most_accepts && vsock->are_listeners_on; i++) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0 && errno != EAGAIN)
            listeners_rest(vsock, -errno);
        if (fd < 0)
            return;
        int result = vsock_connect_guest(vsock, fd, choose_port(vsock, listener->port), listener->port);
        if (result < 0)
            log_debug("vsock.connection_dropped", LOG_UINT("port", listener->port), LOG_ERRNO(result));
        listeners_update(vsock);
    }
}

void listeners_update(struct vsock *vsock)
{
    bool are_on = virtio_device_is_started(vsock->device) && !vsock->is_short &&
                  vsock->connection_count < LIMIT_VSOCK_STREAMS && vsock->unanswered_count < LIMIT_VSOCK_UNANSWERED;
    if (vsock->are_listeners_on == are_on)
        return;
    vsock->are_listeners_on = are_on;
    for (size_t i = 0; i < vsock->listener_count; i++)
        loop_set_events(vsock->listeners[i].source, are_on ? EPOLLIN : 0);
}

void listeners_rest(struct vsock *vsock, int failure)
{
    vsock->shortages++;
    if ((vsock->shortages & (vsock->shortages - 1)) == 0)
        log_warn("vsock.accept_failed", LOG_ERRNO(failure), LOG_UINT("count", vsock->shortages));
    vsock->is_short = true;
    loop_set_deadline(vsock->shortage_timer, clock_deadline_ns(SHORTAGE_LOOK_NS));
    listeners_update(vsock);
}

void listeners_handle_timer(void *user, uint32_t what)
{
    struct vsock *vsock = user;
    (void)what;
    vsock->is_short = false;
    listeners_update(vsock);
}

/* ---- life ---- */

static int fill_address(struct sockaddr_un *address, const char *path)
{
    size_t length = strlen(path);
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (length >= sizeof(address->sun_path))
        return -ENAMETOOLONG;
    memcpy(address->sun_path, path, length + 1);
    return 0;
}

/* Whoever listens sees a connection that ends at once. */
static bool is_refused(const struct sockaddr_un *address)
{
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 && errno == ECONNREFUSED;
}

bool listener_is_left_behind(const char *path)
{
    struct sockaddr_un address;
    struct stat before, now;
    if (fill_address(&address, path) < 0 || lstat(path, &before) < 0 || !S_ISSOCK(before.st_mode) ||
        before.st_uid != geteuid() || !is_refused(&address))
        return false;
    return lstat(path, &now) == 0 && now.st_dev == before.st_dev && now.st_ino == before.st_ino;
}

static int bind_or_replace(const struct listener *listener, const struct sockaddr_un *address)
{
    const struct sockaddr *any = (const struct sockaddr *)address;
    if (bind(listener->fd, any, sizeof(*address)) == 0)
        return 0;
    if (errno != EADDRINUSE)
        return -errno;
    if (!listener_is_left_behind(listener->path))
        return -EADDRINUSE;
    log_info("vsock.socket_replaced", LOG_TEXT("path", listener->path));
    if (unlink(listener->path) < 0 && errno != ENOENT)
        return -errno;
    return bind(listener->fd, any, sizeof(*address)) < 0 ? -errno : 0;
}

static int bind_path(struct listener *listener)
{
    struct sockaddr_un address;
    struct stat made;
    int result = fill_address(&address, listener->path);
    if (result < 0)
        return result;
    listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener->fd < 0 || fchmod(listener->fd, S_IRUSR | S_IWUSR) < 0)
        return -errno;
    result = bind_or_replace(listener, &address);
    if (result < 0)
        return result;
    if (lstat(listener->path, &made) < 0)
        return -errno; /* somebody has removed it already */
    listener->is_made = true;
    listener->device = made.st_dev;
    listener->inode = made.st_ino;
    return listen(listener->fd, SOMAXCONN) < 0 ? -errno : 0;
}

int listener_open(struct listener *listener, struct vsock *vsock, const struct vsock_port *port)
{
    *listener = (struct listener){.vsock = vsock, .port = port->port, .fd = -1};
    listener->path = alloc_string(port->path);
    if (listener->path == NULL)
        return -ENOMEM;
    int result = bind_path(listener);
    return result < 0 ? result
                      : loop_add_fd(virtio_device_loop(vsock->device), listener->fd, 0, handle_connections, listener,
                                    &listener->source);
}

void listener_close(struct listener *listener)
{
    struct stat now;
    loop_source_free(listener->source);
    if (listener->is_made && lstat(listener->path, &now) == 0 && now.st_dev == listener->device &&
        now.st_ino == listener->inode)
        unlink(listener->path);
    fd_close(listener->fd);
    free(listener->path);
}
