// SPDX-License-Identifier: Apache-2.0
/* A guest's kernel that asks TSI for anything: the input is an option byte and a list of requests.
 *
 * Streams and datagrams may lead to the loopback addresses only, to two ports that nobody else has, listeners to one of
 * them (the map names it), and there is no AF_UNIX, so that no input reaches anything but the run itself. What must
 * hold: nothing crashes or hangs, whatever is waited for is answered at most once, names fit what the guest's kernel
 * makes of them, an address that was read can be read again, and no descriptor is left behind.
 */
#include "fuzz.h"

#include "base/loop.h"
#include "device/vsock/private.h"
#include "device/vsock/tsi.h"
#include "device/vsock/tsi_address.h"
#include "device/vsock/tsi_message.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum { control_port = 5000, most_offers = 16, most_requests = 200 };

struct vsock {
    int offers[most_offers];
    uint32_t host_ports[most_offers], guest_ports[most_offers];
    size_t offer_count;
    size_t answers; /* since the last request */
    bool is_full, refuses;
};

static struct vsock fake;
/* Nobody else has them, so that nothing of the machine's is ever asked. The first one has a datagram server of ours. */
static uint16_t host_port_free, guest_port_free;
static int server;

int vsock_connect_guest(struct vsock *vsock, int fd, uint32_t host_port, uint32_t port)
{
    FUZZ_CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
    FUZZ_CHECK(host_port != TSI_STREAM_PORT);
    if (vsock->offer_count == most_offers || vsock->refuses) {
        close(fd);
        return -EMFILE;
    }
    vsock->offers[vsock->offer_count] = fd;
    vsock->host_ports[vsock->offer_count] = host_port;
    vsock->guest_ports[vsock->offer_count++] = port;
    return 0;
}

static void check_name(const uint8_t *bytes)
{
    int32_t result;
    uint32_t length;
    memcpy(&result, bytes, 4);
    memcpy(&length, bytes + 4, 4);
    FUZZ_CHECK(result <= 0 && (result < 0 ? length == 0 : length == 16 || length == 28));
}

bool vsock_send_datagram(struct vsock *vsock, uint32_t host_port, uint32_t port, const void *bytes, size_t length)
{
    FUZZ_CHECK(length <= 65536);
    if (port == control_port && tsi_kind_is_known(host_port)) {
        FUZZ_CHECK(tsi_kind_wants_reply((enum tsi_kind)host_port));
        FUZZ_CHECK(length == (host_port == TSI_GETNAME ? (size_t)TSI_NAME_BYTES : (size_t)TSI_RESULT_BYTES));
        if (host_port == TSI_GETNAME)
            check_name(bytes);
        vsock->answers++;
    } else {
        FUZZ_CHECK(host_port == port);
    }
    return !vsock->is_full;
}

/* ---- pure parts ---- */

static void check_address(const uint8_t *data, size_t size)
{
    static const uint32_t families[] = {AF_INET, AF_INET6, AF_UNIX};
    const struct tsi_policy local = {.is_local_only = true, .has_assigned = true, .assigned.s_addr = 0x4d00007f};
    const struct tsi_policy nowhere = {.scope = TSI_SCOPE_NONE}, far = {.scope = TSI_SCOPE_PUBLIC};
    for (size_t i = 0; i < 3; i++) {
        struct tsi_address address, again, host;
        if (tsi_address_read(data, size, families[i], &address) < 0)
            continue;
        FUZZ_CHECK(address.length >= 2 && address.length <= sizeof(address.un));
        FUZZ_CHECK(tsi_address_read((const uint8_t *)&address.any, address.length, families[i], &again) == 0);
        FUZZ_CHECK(tsi_address_is_same(&address, &again));
        tsi_address_name_loopback(&address);
        host = address;
        tsi_address_to_host(&local, &host);
        bool is_near = tsi_policy_allows(&local, &address, &host), is_far = tsi_policy_allows(&far, &address, &address);
        FUZZ_CHECK(families[i] == AF_UNIX || !(is_near && is_far));
        FUZZ_CHECK(families[i] == AF_UNIX || !tsi_policy_allows(&nowhere, &address, &host));
        again = host;
        tsi_address_to_guest(&local, &again);
        FUZZ_CHECK(tsi_address_is_same(&host, &address) || tsi_address_is_same(&again, &address));
    }
}

static void check_message(const uint8_t *data, size_t size)
{
    for (uint32_t kind = TSI_FIRST_KIND; kind <= TSI_LAST_KIND; kind++) {
        struct tsi_request request;
        if (tsi_request_decode((enum tsi_kind)kind, data, size, &request) == 0)
            FUZZ_CHECK(request.address == NULL || (request.address >= data && request.address_length <= 128 &&
                                                   request.address + request.address_length <= data + size));
        else
            FUZZ_CHECK(request.address_length == 0);
    }
}

/* ---- requests ---- */

struct input {
    const uint8_t *data;
    size_t left;
};

static uint8_t next_byte(struct input *input)
{
    if (input->left == 0)
        return 0;
    input->left--;
    return *input->data++;
}

/* An address that leads somewhere within the run, written behind `at`; sometimes a byte of it is any byte. */
static size_t write_address(struct input *input, uint8_t *at)
{
    uint8_t shape = next_byte(input);
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = htons(shape & 1 ? host_port_free : guest_port_free)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = in4.sin_port, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    size_t length = shape & 2 ? sizeof(in6) : sizeof(in4);
    in4.sin_addr.s_addr = htonl(shape & 4 ? INADDR_ANY : INADDR_LOOPBACK);
    if (shape & 2)
        memcpy(at, &in6, length);
    else
        memcpy(at, &in4, length);
    if (shape & 8)
        at[next_byte(input) % length] = next_byte(input);
    memcpy(at + 2, &in4.sin_port, 2); /* where both have it */
    return shape & 16 ? next_byte(input) : length;
}

static size_t write_request(struct input *input, uint32_t kind, uint8_t bytes[300])
{
    uint32_t port = next_byte(input) % 8, peer = TSI_STREAM_PORT, option = next_byte(input);
    uint16_t family_and_type[2] = {option & 1 ? AF_INET6 : AF_INET, option & 2 ? SOCK_DGRAM : SOCK_STREAM};
    size_t at = kind == TSI_LISTEN ? 16 : 8, length = 0;
    if (option & 128 && fake.offer_count > 0) {
        peer = fake.host_ports[option % fake.offer_count];
        port = fake.guest_ports[option % fake.offer_count];
    }
    memcpy(bytes, &port, 4);
    switch (kind) {
    case TSI_CREATE:
        memcpy(bytes + 4, family_and_type, 4);
        return 8;
    case TSI_GETNAME:
    case TSI_RELEASE:
        memcpy(bytes + 4, &peer, 4);
        memcpy(bytes + 8, &option, 4);
        return 12;
    case TSI_ACCEPT:
        option <<= 8;
        memcpy(bytes + 4, &option, 4);
        return 8;
    default:
        length = write_address(input, bytes + at);
        option %= 8;
        if (at == 16) {
            memcpy(bytes + 4, &port, 4);
            memcpy(bytes + 8, &option, 4);
        }
        memcpy(bytes + at - 4, &(uint32_t){(uint32_t)length}, 4);
        return at + 128;
    }
}

static void ask(struct tsi *tsi, struct input *input, uint32_t kind)
{
    uint8_t bytes[300] = {0};
    size_t length = write_request(input, kind, bytes);
    if (next_byte(input) % 8 == 0)
        length = next_byte(input);
    uint8_t *copy = malloc(length + 1);
    FUZZ_CHECK(copy != NULL);
    memcpy(copy + 1, bytes, length);
    fake.answers = 0;
    FUZZ_CHECK(tsi_take_datagram(tsi, control_port, kind, copy + 1, length));
    FUZZ_CHECK(fake.answers <= 1);
    free(copy);
}

static void close_offers(void)
{
    while (fake.offer_count > 0)
        close(fake.offers[--fake.offer_count]);
}

/* Sends everything back. */
static void serve(void)
{
    uint8_t bytes[256];
    struct sockaddr_in6 sender;
    socklen_t length = sizeof(sender);
    ssize_t got;
    while ((got = recvfrom(server, bytes, sizeof(bytes), 0, (struct sockaddr *)&sender, &length)) >= 0) {
        sendto(server, bytes, (size_t)got, 0, (struct sockaddr *)&sender, length);
        length = sizeof(sender);
    }
}

static void act(struct tsi *tsi, struct loop *loop, struct input *input)
{
    uint8_t what = next_byte(input);
    uint32_t port = next_byte(input) % 8;
    if (what % 16 < 8 && what % 16 != TSI_SENDTO_DATA - TSI_FIRST_KIND) {
        ask(tsi, input, TSI_FIRST_KIND + what % 8u);
        return;
    }
    switch (what % 16) {
    case 9: {
        int fd = tsi_take_stream(tsi, port, TSI_STREAM_PORT);
        FUZZ_CHECK(fd < 0 || (fcntl(fd, F_GETFL) & O_NONBLOCK));
        if (fd >= 0)
            close(fd);
        break;
    }
    case 10:
        fake.is_full = what & 16;
        fake.refuses = what & 32;
        break;
    case 11:
        if (fake.offer_count > 0)
            tsi_stream_refused(tsi, fake.guest_ports[0], fake.host_ports[0]);
        break;
    case 12:
        close_offers();
        break;
    case 13:
        tsi_stop(tsi);
        tsi_start(tsi, loop);
        break;
    case 14:
        tsi_take_datagram(tsi, port, what & 16 ? port : TSI_SENDTO_DATA, input->data, input->left);
        break;
    default:
        serve();
        FUZZ_CHECK(loop_turn(loop) == 0);
        break;
    }
}

static int bind_to_free_port(int type, uint16_t *port)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(*port)};
    socklen_t length = sizeof(address);
    int fd = socket(AF_INET6, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    FUZZ_CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, length) == 0);
    FUZZ_CHECK(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    *port = ntohs(address.sin6_port);
    return fd;
}

static void choose_free_ports(void)
{
    int first = bind_to_free_port(SOCK_STREAM, &host_port_free);
    int second = bind_to_free_port(SOCK_STREAM, &guest_port_free);
    server = bind_to_free_port(SOCK_DGRAM, &host_port_free);
    bind_to_free_port(SOCK_DGRAM, &guest_port_free); /* stays until the end */
    close(first);
    close(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct loop *loop = NULL;
    struct tsi *tsi = NULL;
    if (host_port_free == 0)
        choose_free_ports();
    check_address(data, size < 128 ? size : 128);
    check_message(data, size);
    struct input input = {data, size};
    struct tsi_port map = {.host = host_port_free, .guest = guest_port_free};
    uint8_t shape = next_byte(&input);
    const struct tsi_options options = {
        .hijacks_inet = true,
        .has_port_map = true,
        .ports = &map,
        .port_count = 1,
        .local_only = true,
        .assigned_ip = shape & 1 ? "127.0.0.77" : NULL,
        .scope = shape & 2   ? TSI_SCOPE_GROUP
                 : shape & 4 ? TSI_SCOPE_NONE
                             : TSI_SCOPE_ANY,
        .group_ip = "127.0.0.0",
        .group_prefix = 8,
    };
    memset(&fake, 0, sizeof(fake));
    int lowest = dup(0);
    close(lowest);
    FUZZ_CHECK(loop_new(&loop) == 0 && tsi_new(&fake, &options, &tsi) == 0);
    tsi_start(tsi, loop);
    for (size_t i = 0; i < most_requests && input.left > 0; i++)
        act(tsi, loop, &input);
    tsi_free(tsi);
    loop_free(loop);
    close_offers();
    int after = dup(0);
    close(after);
    FUZZ_CHECK(after == lowest);
    return 0;
}
