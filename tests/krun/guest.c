// SPDX-License-Identifier: Apache-2.0
/* What guests of tests/krun run beside busybox: streams by vsock and TCP, and output whose content is known.
 *
 *     probe ask vsock PORT TEXT      calls the host there, sends the text as a line, prints the line that comes back
 *     probe ask IP PORT TEXT         the same by TCP
 *     probe answer vsock PORT        waits for one caller, sends its line back in capitals, and prints it
 *     probe answer tcp PORT
 *     probe much BYTES               that many bytes on standard output and as many on standard error, in turns
 *     probe code N                   says by the root's ioctl that this is the machine's exit code
 *     probe reset                    resets the machine, as a first process does when it is done
 *
 * It ends with 0, or says what failed and ends with 1. Static, against musl, so that it fits any root.
 *
 * Trust: it is run by tests/krun_suite.py only.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { most_bytes = 4096, patience_seconds = 30, request_set_exit_code = 0x7602 };

union address {
    struct sockaddr any;
    struct sockaddr_vm vsock;
    struct sockaddr_in inet;
};

static int fail(const char *what)
{
    perror(what);
    return 1;
}

/* "vsock" is the host's CID or, to listen, any; "tcp" any address. */
static socklen_t fill(union address *address, const char *where, const char *port, unsigned cid)
{
    memset(address, 0, sizeof(*address));
    if (strcmp(where, "vsock") == 0) {
        address->vsock.svm_family = AF_VSOCK;
        address->vsock.svm_cid = cid;
        address->vsock.svm_port = (unsigned)strtoul(port, NULL, 10);
        return sizeof(address->vsock);
    }
    address->inet.sin_family = AF_INET;
    address->inet.sin_port = htons((unsigned short)strtoul(port, NULL, 10));
    if (strcmp(where, "tcp") != 0)
        inet_pton(AF_INET, where, &address->inet.sin_addr);
    return sizeof(address->inet);
}

static int write_all(int fd, const char *data, size_t length)
{
    while (length > 0) {
        ssize_t count = write(fd, data, length);
        if (count <= 0)
            return -1;
        data += count;
        length -= (size_t)count;
    }
    return 0;
}

/* One line, with its end and a NUL behind it: 0, or -1 where none comes. */
static int read_line(int fd, char line[most_bytes])
{
    size_t length = 0;
    while (length < most_bytes - 1 && (length == 0 || line[length - 1] != '\n')) {
        ssize_t count = read(fd, line + length, 1);
        if (count <= 0)
            return -1;
        length++;
    }
    line[length] = '\0';
    return 0;
}

static int ask(const char *where, const char *port, const char *text)
{
    struct timeval patience = {.tv_sec = patience_seconds};
    char line[most_bytes];
    union address address;
    socklen_t length = fill(&address, where, port, VMADDR_CID_HOST);
    int fd = socket(address.any.sa_family, SOCK_STREAM, 0);
    if (fd < 0)
        return fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (connect(fd, &address.any, length) < 0)
        return fail("connect");
    snprintf(line, sizeof(line), "%s\n", text);
    if (write_all(fd, line, strlen(line)) < 0)
        return fail("write");
    if (read_line(fd, line) < 0)
        return fail("read");
    printf("answer: %s", line);
    return 0;
}

static int answer(const char *where, const char *port)
{
    char line[most_bytes];
    union address address;
    socklen_t length = fill(&address, where, port, VMADDR_CID_ANY);
    int listener = socket(address.any.sa_family, SOCK_STREAM, 0), one = 1;
    if (listener < 0)
        return fail("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(listener, &address.any, length) < 0)
        return fail("bind");
    if (listen(listener, 1) < 0)
        return fail("listen");
    puts("listening");
    fflush(stdout);
    int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        return fail("accept");
    if (read_line(fd, line) < 0)
        return fail("read");
    printf("asked: %s", line);
    for (char *letter = line; *letter != '\0'; letter++)
        *letter = (char)toupper((unsigned char)*letter);
    if (write_all(fd, line, strlen(line)) < 0)
        return fail("write");
    return close(fd) < 0 ? fail("close") : 0;
}

/* Numbered lines of 16 bytes, so that what is lost or comes twice shows. */
static int say_much(const char *bytes)
{
    unsigned long count = strtoul(bytes, NULL, 10) / 16;
    for (unsigned long i = 0; i < count; i++) {
        char line[32];
        snprintf(line, sizeof(line), "%07lx of many\n", i & 0xfffffff);
        line[15] = '\n';
        if (write_all(STDOUT_FILENO, line, 16) < 0 || write_all(STDERR_FILENO, line, 16) < 0)
            return fail("write");
    }
    return 0;
}

static int set_code(const char *code)
{
    int root = open("/", O_RDONLY | O_DIRECTORY);
    if (root < 0 || ioctl(root, request_set_exit_code, strtol(code, NULL, 10)) < 0)
        return fail("/");
    return 0;
}

int main(int count, char **words)
{
    const char *verb = count > 1 ? words[1] : "";
    if (strcmp(verb, "ask") == 0 && count == 5)
        return ask(words[2], words[3], words[4]);
    if (strcmp(verb, "answer") == 0 && count == 4)
        return answer(words[2], words[3]);
    if (strcmp(verb, "much") == 0 && count == 3)
        return say_much(words[2]);
    if (strcmp(verb, "code") == 0 && count == 3)
        return set_code(words[2]);
    if (strcmp(verb, "reset") == 0) {
        sync();
        return reboot(RB_AUTOBOOT) < 0 ? fail("reboot") : 0;
    }
    fprintf(stderr, "usage: probe ask|answer|much|code|reset …\n");
    return 1;
}
