// SPDX-License-Identifier: Apache-2.0
/* Sockets and waiting for them: Unix sockets that carry descriptors, TCP on the loopback, epoll on every kind. */
#include "part.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

enum { transfer_bytes = 1 << 20 };

static bool send_descriptor(int socket, int fd)
{
    char byte = 'x', control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    return sendmsg(socket, &message, 0) == 1;
}

static int receive_descriptor(int socket)
{
    int fd = -1;
    char byte, control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&message) != NULL)
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
    return fd;
}

static _Noreturn void send_bytes(int fd)
{
    char block[3000];
    memset(block, 'v', sizeof(block));
    for (int left = transfer_bytes; left > 0;) {
        ssize_t sent = write(fd, block, left < (int)sizeof(block) ? (size_t)left : sizeof(block));
        if (sent <= 0)
            _exit(1);
        left -= (int)sent;
    }
    _exit(0);
}

static int count_bytes(int fd)
{
    char block[8192];
    int total = 0;
    ssize_t got;
    while ((got = read(fd, block, sizeof(block))) > 0)
        total += (int)got;
    return total;
}

/* A server with a name, a client that sends a MiB and its end, and a pipe's end that travels. */
bool part_unix(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/tmp/guest-tests.socket"};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), ends[2], pair[2];
    unlink(address.sun_path);
    errno = 0;
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 1) < 0)
        return complain("a listening socket");
    pid_t child = fork();
    if (child == 0) {
        int client = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(client, (struct sockaddr *)&address, sizeof(address)) < 0)
            _exit(2);
        send_bytes(client);
    }
    int server = accept(listener, NULL, NULL);
    bool is_good = expect(count_bytes(server) == transfer_bytes) && expect(status_of(child) == 0);
    unlink(address.sun_path);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0 || pipe(ends) < 0)
        return complain("a pair of sockets and a pipe");
    is_good &= expect(send_descriptor(pair[0], ends[1]));
    int travelled = receive_descriptor(pair[1]);
    char byte = 0;
    is_good &= expect(travelled >= 0) && expect(write(travelled, "!", 1) == 1) &&
               expect(read(ends[0], &byte, 1) == 1) && expect(byte == '!');
    return is_good;
}

bool part_loopback(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 1) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        return complain("a TCP server on the loopback");
    pid_t child = fork();
    if (child == 0) {
        int client = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(client, (struct sockaddr *)&address, sizeof(address)) < 0)
            _exit(2);
        send_bytes(client);
    }
    int server = accept(listener, NULL, NULL);
    return expect(count_bytes(server) == transfer_bytes) && expect(status_of(child) == 0);
}

/* An eventfd, a timer, a signal, a pipe and a socket, each by itself, in one epoll. */
bool part_epoll(void)
{
    sigset_t set;
    int ends[2], pair[2], epoll = epoll_create1(EPOLL_CLOEXEC);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    if (pipe(ends) < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
        return complain("a pipe and a pair of sockets");
    int fds[] = {eventfd(0, 0), timerfd_create(CLOCK_MONOTONIC, 0), signalfd(-1, &set, 0), ends[0], pair[0]};
    struct itimerspec soon = {.it_value.tv_nsec = 10000000};
    bool is_good = true;
    for (unsigned i = 0; i < length_of(fds); i++) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.u32 = i};
        is_good &= expect(fds[i] >= 0) && expect(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event) == 0);
    }
    struct epoll_event event = {0};
    is_good &= expect(epoll_wait(epoll, &event, 1, 0) == 0);
    for (unsigned i = 0; i < length_of(fds); i++) {
        if (i == 0)
            eventfd_write(fds[0], 1);
        else if (i == 1)
            timerfd_settime(fds[1], 0, &soon, NULL);
        else if (i == 2)
            kill(getpid(), SIGUSR1);
        else
            is_good &= expect(write(i == 3 ? ends[1] : pair[1], "x", 1) == 1);
        is_good &= expect(epoll_wait(epoll, &event, 1, 10000) == 1) && expect(event.data.u32 == i);
    }
    return expect(epoll_wait(epoll, &event, 1, 20) == 0) && is_good;
}
