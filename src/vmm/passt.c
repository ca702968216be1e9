// SPDX-License-Identifier: Apache-2.0
/* passt, the helper that gives a guest the host's network without privileges: each connection of the guest's becomes
 * one of a process of the host's, and the other way round for published ports.
 *
 *     guest ── virtio-net ── socketpair, frames behind their length ── passt ── sockets of the host
 *
 * passt is a program of its own that confines itself (as root it becomes nobody). It gets one end of a socketpair and
 * our other end is all that holds it: it ends when that is closed, a kill -9 of ours included. Nothing listens but the
 * published ports, and the guest does not reach the loopback of the host unless it was asked for.
 *
 * It says nothing when it is ready, so it is asked: an ARP request for the gateway, or on a host without IPv4 a
 * neighbour solicitation, is answered by its main loop and by nothing before that. The answer is left where it is, and
 * is the first frame that the guest gets. When a port cannot be published, or anything else is wrong, the socket is
 * closed instead, and what it has printed says why.
 *
 * That --no-map-gw keeps the guest off the host's loopback is half of the truth: passt connects to 127.0.0.1 where a
 * frame is addressed to it. The device in front of it drops those (device/net/frame.c).
 *
 * Invariants: (1) after a failure passt is gone, or about to go. (2) what it prints is kept and read up to a limit;
 * beyond that its writes fail, which it does not mind.
 *
 * Trust: passt is as trusted as the program that runs us, and talks to the network; its frames are the guest's to
 * doubt. What it prints is shown escaped.
 */
#include "vmm/network.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/program.h"
#include "base/text.h"
#include "host/passt.h"
#include "vmm/parse.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    ready_most_ms = 10000, /* it takes 30 ms */
    most_words = 40,       /* without those of published ports, two each */
    word_bytes = 128,
    said_bytes = 400,
    said_most_bytes = 4096,
    frame_most_bytes = 96,
    helper_fd = 3,
};

/* ---- what it is told ---- */

struct words {
    char **items; /* owned, as is each */
    size_t count;
    bool has_failed;
};

__attribute__((format(printf, 2, 3))) static void add(struct words *words, const char *format, ...)
{
    char text[word_bytes];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    char *copy = alloc_string(text);
    words->has_failed |= copy == NULL;
    if (copy != NULL)
        words->items[words->count++] = copy;
}

static void free_words(struct words *words)
{
    for (size_t i = 0; words->items != NULL && i < words->count; i++)
        free(words->items[i]);
    free(words->items);
}

static void add_published(struct words *words, const struct net_config *net)
{
    for (size_t i = 0; i < net->published.count; i++) {
        struct published_port port;
        const char *why = NULL;
        char address[INET6_ADDRSTRLEN] = "";
        if (parse_published(net->published.items[i], &port, &why) < 0)
            continue; /* it was validated */
        inet_ntop(port.address.is_ipv6 ? AF_INET6 : AF_INET, port.address.bytes, address, sizeof(address));
        add(words, port.is_udp ? "-u" : "-t");
        add(words, "%s/%u:%u", address, port.host, port.guest);
    }
}

static void add_addresses(struct words *words, const struct net_addresses *addresses)
{
    for (int i = 0; i < 2; i++) {
        const char *address = addresses->address[i], *slash = strchr(address, '/');
        if (slash == NULL)
            continue;
        add(words, "-a");
        add(words, "%.*s", (int)(slash - address), address);
        if (i == 0) {
            add(words, "-n");
            add(words, "%s", slash + 1);
        }
        if (addresses->gateway[i][0] != '\0') {
            add(words, "-g");
            add(words, "%s", addresses->gateway[i]);
        }
    }
    if (addresses->address[0][0] == '\0')
        add(words, "-6");
    if (addresses->address[1][0] == '\0')
        add(words, "-4");
}

static int make_words(const struct net_config *net, const struct net_addresses *addresses, struct words *words)
{
    words->items = alloc_zero((most_words + 2 * net->published.count) * sizeof(words->items[0]));
    if (words->items == NULL)
        return -ENOMEM;
    add(words, "passt");
    add(words, "--foreground");
    add(words, "--quiet");
    add(words, "--fd");
    add(words, "%d", helper_fd);
    add(words, "--mtu");
    add(words, "%u", net->mtu != 0 ? net->mtu : NETWORK_PASST_MTU);
    if (!net->reaches_host)
        add(words, "--no-map-gw");
    add_addresses(words, addresses);
    if (addresses->forwarder != NULL) {
        add(words, "--dns-forward");
        add(words, "%s", addresses->forwarder);
    }
    add_published(words, net);
    return words->has_failed ? -ENOMEM : 0;
}

/* ---- is it there ---- */

/* "Who has the gateway?", behind its length: how many bytes. */
static size_t make_arp(const struct net_config *net, const struct net_address *own, const struct net_address *gateway,
                       uint8_t frame[frame_most_bytes])
{
    static const uint8_t arp[] = {0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, 1};
    enum { length = 42 };
    memset(frame, 0, frame_most_bytes);
    frame[3] = length;
    memset(frame + 4, 0xff, 6);
    memcpy(frame + 10, net->mac, 6);
    memcpy(frame + 16, arp, sizeof(arp));
    memcpy(frame + 26, net->mac, 6);
    memcpy(frame + 32, own->bytes, 4);
    memcpy(frame + 42, gateway->bytes, 4);
    return 4 + length;
}

static uint16_t sum_words(uint32_t sum, const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i + 1 < length; i += 2)
        sum += (uint32_t)bytes[i] << 8 | bytes[i + 1];
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* The same question in IPv6: a neighbour solicitation (RFC 4861, 4.3). */
static size_t make_solicitation(const struct net_config *net, const struct net_address *own,
                                const struct net_address *gateway, uint8_t frame[frame_most_bytes])
{
    enum { message = 32, length = 14 + 40 + message, next_header = 58 };
    uint8_t *ip = frame + 4 + 14, *icmp = ip + 40;
    memset(frame, 0, frame_most_bytes);
    frame[3] = length;
    memcpy(frame + 4, (const uint8_t[]){0x33, 0x33, 0xff}, 3);
    memcpy(frame + 7, gateway->bytes + 13, 3);
    memcpy(frame + 10, net->mac, 6);
    memcpy(frame + 16, (const uint8_t[]){0x86, 0xdd, 0x60}, 3);
    ip[5] = message;
    ip[6] = next_header;
    ip[7] = 255;
    memcpy(ip + 8, own->bytes, 16);
    memcpy(ip + 24, (const uint8_t[]){0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff}, 13);
    memcpy(ip + 37, gateway->bytes + 13, 3);
    icmp[0] = 135;
    memcpy(icmp + 8, gateway->bytes, 16);
    icmp[24] = 1;
    icmp[25] = 1;
    memcpy(icmp + 26, net->mac, 6);
    /* Its checksum covers the addresses, the length and the next header. */
    uint16_t addresses = (uint16_t)~sum_words(message + next_header, ip + 8, 32);
    uint16_t sum = sum_words(addresses, icmp, message);
    icmp[2] = (uint8_t)(sum >> 8);
    icmp[3] = (uint8_t)sum;
    return 4 + length;
}

static size_t make_question(const struct net_config *net, const struct net_addresses *addresses,
                            uint8_t frame[frame_most_bytes])
{
    bool is_ipv6 = addresses->address[0][0] == '\0';
    struct net_address own = {0}, gateway = {0};
    const char *why = NULL;
    parse_network(addresses->address[is_ipv6], &own, &why);
    parse_address(addresses->gateway[is_ipv6], &gateway, &why);
    return is_ipv6 ? make_solicitation(net, &own, &gateway, frame) : make_arp(net, &own, &gateway, frame);
}

/* Waits for the answer, which stays in the stream: 0, -ETIMEDOUT, or -EPIPE where passt has ended. */
static int ask(int fd, const uint8_t *question, size_t length)
{
    uint8_t answer[4];
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    if (send(fd, question, length, MSG_NOSIGNAL) != (ssize_t)length)
        return -EPIPE;
    int count = 0;
    while ((count = poll(&ready, 1, ready_most_ms)) < 0 && errno == EINTR)
        ;
    if (count == 0)
        return -ETIMEDOUT;
    return recv(fd, answer, sizeof(answer), MSG_PEEK) <= 0 ? -EPIPE : 0;
}

/* ---- together ---- */

/* passt drops what its socket does not take at once, and then waits for a timer of TCP's: a burst of large frames needs
 * room. Who may not exceed the host's limit (net.core.wmem_max) has that. */
static void make_room(int fd)
{
    int bytes = LIMIT_PASST_SOCKET_BYTES;
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

/* The last line of what it has printed that is about its failure. */
static void read_said(int fd, char said[said_bytes])
{
    char text[said_most_bytes + 1];
    ssize_t length = pread(fd, text, sizeof(text) - 1, 0);
    text[length > 0 ? length : 0] = '\0';
    char *found = text, *end = NULL;
    for (char *line = text; line != NULL && *line != '\0'; line = end != NULL ? end + 1 : NULL) {
        end = strchr(line, '\n');
        if (end != NULL)
            *end = '\0';
        if (*line != '\0' && strstr(line, "to syslog") == NULL && strstr(line, "run as root") == NULL)
            found = line;
    }
    text_escape(said, said_bytes, found, strlen(found), "");
}

/* A file in memory that does not grow: a helper that a guest makes talk takes no more of the host's. */
static int make_said(void)
{
    auto_close int fd = memfd_create("passt", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, said_most_bytes) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
        return -errno;
    return steal_fd(&fd);
}

static int refuse_passt(int result, size_t index, int said_fd, struct vial_error *err)
{
    char said[said_bytes];
    read_said(said_fd, said);
    if (result == -ETIMEDOUT)
        error_set_os(err, VIAL_PHASE_START, ETIMEDOUT, "passt does not answer");
    else if (result == -EPIPE)
        error_set(err, VIAL_ERROR_OS, VIAL_PHASE_START, "passt has ended: %s",
                  said[0] != '\0' ? said : "it does not say why");
    else
        error_set_os(err, VIAL_PHASE_START, result, "passt cannot be started");
    error_field(err, "net[%zu]", index);
    error_remedy(err, result == -EPIPE ? "publish ports that are free, and look whether the host has a network"
                                       : "run passt --foreground by hand and see what it says");
    return result;
}

int passt_check(const struct net_config *net, size_t index, struct vial_error *err)
{
    struct pollfd ready = {.fd = net->helper_fd};
    if (poll(&ready, 1, 0) <= 0)
        return 0;
    return refuse_passt(-EPIPE, index, net->helper_said_fd, err);
}

int passt_start(struct net_config *net, size_t index, struct vial_error *err)
{
    static char *const no_environment[] = {NULL};
    struct words words = {0};
    uint8_t question[frame_most_bytes];
    struct host_path path;
    int ends[2], pidfd = -1;
    if (!host_passt_find("", &path)) {
        int result = error_set(err, VIAL_ERROR_NOT_FOUND, VIAL_PHASE_START, "the program passt is not installed");
        error_field(err, "net[%zu]", index);
        error_remedy(err, "install it (Debian: apt-get install passt)");
        return result;
    }
    int result = make_words(net, &net->settled, &words);
    if (result == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        result = -errno;
    if (result < 0) {
        free_words(&words);
        return refuse_passt(result, index, -1, err);
    }
    auto_close int ours = ends[0], theirs = ends[1];
    make_room(theirs);
    auto_close int said = make_said(), null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct program program = {
        .path = path.text,
        .args = words.items,
        .env = no_environment,
        .fds = {null, said, said, theirs},
        .fd_count = 4,
    };
    result = said < 0 ? said : null < 0 ? -errno : program_start(&program, &pidfd);
    fd_close(pidfd);
    theirs = fd_close(theirs);
    free_words(&words);
    if (result == 0)
        result = ask(ours, question, make_question(net, &net->settled, question));
    if (result < 0)
        return refuse_passt(result, index, said, err);
    net->helper_fd = steal_fd(&ours);
    net->helper_said_fd = steal_fd(&said);
    return 0;
}
