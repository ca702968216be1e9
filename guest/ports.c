// SPDX-License-Identifier: Apache-2.0
/* The host's ports: found by their names, waited for without looking again and again.
 *
 * A port comes to /dev before the driver knows its name, so a watch on the folder would wake up too early. The kernel
 * announces the name itself, by a "change" of the device (drivers/char/virtio_console.c: VIRTIO_CONSOLE_PORT_NAME), on
 * the netlink socket that udev listens to. The socket is opened before the first look, so no announcement falls between
 * looking and waiting; one that is lost because there were too many is another reason to look.
 *
 * A read of a port before the driver has heard that the host's side is open (VIRTIO_CONSOLE_PORT_OPEN, which comes
 * behind the name) says "end of file". poll(2) says POLLHUP in that state, always and at once; an edge-triggered epoll
 * says it once, and then again what is the case whenever that changes. Only a port that the host does not close by
 * itself can be waited for in this way, for what it waits for may be over.
 *
 * Invariants: (1) a port that appears between the first look and the wait is found. (2) nothing here waits by sleeping.
 *
 * Trust: names and announcements are the kernel's; bytes are the host's.
 */
#include "guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORTS_FOLDER "/sys/class/virtio-ports"

/* ---- by name ---- */

static bool has_name(const char *device, const char *name)
{
    char path[sizeof(PORTS_FOLDER) + NAME_MAX + sizeof("//name")], text[LIMIT_PORT_NAME_BYTES + 2];
    snprintf(path, sizeof(path), PORTS_FOLDER "/%s/name", device);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false; /* it has none, or none yet */
    ssize_t length = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[length > 0 ? length : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return strcmp(text, name) == 0;
}

int port_open(const char *name)
{
    int fd = -ENOENT;
    DIR *folder = opendir(PORTS_FOLDER);
    if (folder == NULL)
        return -errno;
    for (const struct dirent *entry; fd == -ENOENT && (entry = readdir(folder)) != NULL;) {
        char path[sizeof("/dev/") + NAME_MAX];
        if (!has_name(entry->d_name, name))
            continue;
        snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
        fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY);
        if (fd < 0)
            fd = errno == ENOENT ? -ENXIO : -errno;
    }
    closedir(folder);
    return fd;
}

/* ---- waiting ---- */

static int listen_to_kernel(void)
{
    enum { protocol_uevent = 15, group_kernel = 1 };
    /* struct sockaddr_nl of netlink(7), which the C library has no header for. */
    struct {
        sa_family_t family;
        uint16_t zero;
        uint32_t process, groups;
    } address = {.family = AF_NETLINK, .groups = group_kernel};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol_uevent);
    if (fd < 0)
        return -errno;
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        int failure = -errno;
        close(fd);
        return failure;
    }
    return fd;
}

/* Returns when something about ports may have changed. */
static int wait_for_news(int fd)
{
    static const char subject[] = "/virtio-ports/"; /* in the device's path, at the announcement's begin */
    char text[512];
    for (;;) {
        ssize_t length = recv(fd, text, sizeof(text), 0);
        if (length < 0 && errno == ENOBUFS)
            return 0;
        if (length < 0 && errno != EINTR)
            return -errno;
        if (length > 0 && memmem(text, (size_t)length, subject, sizeof(subject) - 1) != NULL)
            return 0;
    }
}

int port_wait_name(const char *name)
{
    int news = listen_to_kernel();
    int fd = port_open(name), result = 0;
    while (fd == -ENOENT && news >= 0 && (result = wait_for_news(news)) == 0)
        fd = port_open(name);
    if (fd == -ENOENT && news < 0)
        fd = news;
    if (fd == -ENOENT && result < 0)
        fd = result;
    close(news);
    return fd;
}

static int wait_for_host(int fd)
{
    struct epoll_event event = {.events = EPOLLOUT | EPOLLET};
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    int result = epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
    bool is_open = false;
    while (result == 0 && !is_open) {
        int count = epoll_wait(epoll, &event, 1, -1);
        if (count < 0 && errno != EINTR)
            result = -errno;
        is_open = count == 1 && (event.events & EPOLLHUP) == 0;
    }
    close(epoll);
    return result;
}

int port_wait(const char *name)
{
    int fd = port_wait_name(name);
    int result = fd < 0 ? fd : wait_for_host(fd);
    if (result == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return result;
}

/* ---- bytes ---- */

int port_read(int fd, void *bytes, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t got = read(fd, (uint8_t *)bytes + done, length - done);
        if (got == 0)
            return -EPIPE;
        if (got < 0 && errno != EINTR)
            return -errno;
        done += got > 0 ? (size_t)got : 0;
    }
    return 0;
}

int port_write(int fd, const void *bytes, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t written = write(fd, (const uint8_t *)bytes + done, length - done);
        if (written < 0 && errno != EINTR)
            return -errno;
        done += written > 0 ? (size_t)written : 0;
    }
    return 0;
}
