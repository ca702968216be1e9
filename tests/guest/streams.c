/* SPDX-License-Identifier: Apache-2.0 */
/* guest-streams: many short streams, on both sides of tests/e2e/network, where Python would take most of the time.
 *
 *     guest-streams one-by-one ADDRESS COUNT BYTES    each is opened, echoed and ended before the next one
 *     guest-streams at-once ADDRESS COUNT BYTES       all are open before the first one is echoed
 *     guest-streams serve ADDRESS                     says "ready", and echoes streams until it is killed
 *
 * An address is vsock:CID:PORT (CID "any" to listen) or unix:PATH. A stream is what its client sends up to its end; the
 * server sends all of it back when it has it all, and ends the stream. The client knows each byte that has to come, by
 * the number of the stream.
 *
 * Trust: both sides are ours; what lies between them is what is tested.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { most_bytes = 4096, patience_seconds = 60, backlog = 4096, most_events = 64 };

/* As in linux/vm_sockets.h, which musl's compiler does not find. */
struct sockaddr_vm {
    sa_family_t svm_family;
    uint16_t svm_reserved1;
    uint32_t svm_port, svm_cid;
    uint8_t svm_flags, svm_zero[3];
};
enum { connect_timeout = 6 }; /* SO_VM_SOCKETS_CONNECT_TIMEOUT: 2 s are not enough where all is emulated */
static const uint32_t any_cid = UINT32_MAX;

union address {
    struct sockaddr any;
    struct sockaddr_vm vsock;
    struct sockaddr_un un;
};

static _Noreturn void fail(unsigned long number, const char *what)
{
    fprintf(stderr, "stream %lu: %s: %s\n", number, what, strerror(errno));
    exit(1);
}

static socklen_t read_address(const char *text, union address *ret_address)
{
    unsigned port = 0;
    char cid[16];
    memset(ret_address, 0, sizeof(*ret_address));
    if (strncmp(text, "unix:", 5) == 0 && strlen(text + 5) < sizeof(ret_address->un.sun_path)) {
        ret_address->un.sun_family = AF_UNIX;
        memcpy(ret_address->un.sun_path, text + 5, strlen(text + 5) + 1);
        return sizeof(ret_address->un);
    }
    if (sscanf(text, "vsock:%15[a-z0-9]:%u", cid, &port) != 2) {
        fprintf(stderr, "not an address: %s\n", text);
        exit(2);
    }
    ret_address->vsock.svm_family = AF_VSOCK;
    ret_address->vsock.svm_cid = strcmp(cid, "any") == 0 ? any_cid : (uint32_t)strtoul(cid, NULL, 10);
    ret_address->vsock.svm_port = port;
    return sizeof(ret_address->vsock);
}

/* Another content for each stream. */
static void fill(unsigned long number, uint8_t *bytes, size_t length)
{
    uint32_t state = (uint32_t)number * 2654435761u + 1;
    for (size_t i = 0; i < length; i++) {
        state = state * 1664525u + 1013904223u;
        bytes[i] = (uint8_t)(state >> 24);
    }
}

/* ---- the client ---- */

static int open_stream(unsigned long number, const union address *address, socklen_t length)
{
    const struct timeval patience = {.tv_sec = patience_seconds};
    int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fail(number, "socket");
    if (address->any.sa_family == AF_VSOCK &&
        setsockopt(fd, AF_VSOCK, connect_timeout, &patience, sizeof(patience)) < 0)
        fail(number, "how long to connect");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (connect(fd, &address->any, length) < 0)
        fail(number, "connect");
    return fd;
}

static void say(unsigned long number, int fd, size_t length)
{
    uint8_t bytes[most_bytes];
    fill(number, bytes, length);
    if (send(fd, bytes, length, MSG_NOSIGNAL) != (ssize_t)length || shutdown(fd, SHUT_WR) < 0)
        fail(number, "send");
}

static void hear(unsigned long number, int fd, size_t length)
{
    uint8_t bytes[most_bytes], found[most_bytes + 1];
    size_t have = 0;
    ssize_t got = 1;
    fill(number, bytes, length);
    while (got > 0 && have <= length) {
        got = recv(fd, found + have, length + 1 - have, 0);
        if (got < 0)
            fail(number, "recv");
        have += (size_t)got;
    }
    errno = 0;
    if (have != length || memcmp(found, bytes, length) != 0)
        fail(number, "what came back is not what was sent");
    close(fd);
}

static void call_one_by_one(const union address *address, socklen_t address_length, unsigned long count, size_t length)
{
    for (unsigned long number = 0; number < count; number++) {
        int fd = open_stream(number, address, address_length);
        say(number, fd, length);
        hear(number, fd, length);
    }
}

static void call_at_once(const union address *address, socklen_t address_length, unsigned long count, size_t length)
{
    int *fds = calloc(count, sizeof(*fds));
    if (fds == NULL)
        fail(0, "memory");
    for (unsigned long number = 0; number < count; number++)
        fds[number] = open_stream(number, address, address_length);
    for (unsigned long number = 0; number < count; number++)
        say(number, fds[number], length);
    for (unsigned long number = 0; number < count; number++)
        hear(number, fds[number], length);
    free(fds);
}

/* ---- the server ---- */

struct stream {
    int fd;
    size_t length;
    uint8_t bytes[most_bytes];
};

/* One that its client has left ends without an answer. */
static void serve_stream(struct stream *stream)
{
    ssize_t got = recv(stream->fd, stream->bytes + stream->length, sizeof(stream->bytes) - stream->length, 0);
    if (got > 0) {
        stream->length += (size_t)got;
        return;
    }
    if (got == 0)
        (void)!send(stream->fd, stream->bytes, stream->length, MSG_NOSIGNAL);
    close(stream->fd);
    free(stream);
}

static void take_stream(int poller, int listener)
{
    struct stream *stream = calloc(1, sizeof(*stream));
    if (stream == NULL)
        fail(0, "memory");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = stream};
    stream->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (stream->fd < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, stream->fd, &event) < 0)
        fail(0, "accept");
}

static _Noreturn void serve(const union address *address, socklen_t length)
{
    struct epoll_event events[most_events], event = {.events = EPOLLIN};
    int poller = epoll_create1(EPOLL_CLOEXEC), listener = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, &address->any, length) < 0 || listen(listener, backlog) < 0 ||
        epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event) < 0)
        fail(0, "listen");
    puts("ready");
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(poller, events, most_events, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == NULL)
                take_stream(poller, listener);
            else
                serve_stream(events[i].data.ptr);
        }
    }
}

/* ---- together ---- */

int main(int argc, char *argv[])
{
    struct rlimit files;
    union address address;
    if (argc != 3 && argc != 5) {
        fprintf(stderr, "usage: guest-streams one-by-one|at-once ADDRESS COUNT BYTES | serve ADDRESS\n");
        return 2;
    }
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    socklen_t length = read_address(argv[2], &address);
    if (strcmp(argv[1], "serve") == 0)
        serve(&address, length);
    unsigned long count = strtoul(argv[argc - 2], NULL, 10), bytes = strtoul(argv[argc - 1], NULL, 10);
    if (argc != 5 || bytes > most_bytes)
        return 2;
    (strcmp(argv[1], "at-once") == 0 ? call_at_once : call_one_by_one)(&address, length, count, (size_t)bytes);
    return 0;
}
