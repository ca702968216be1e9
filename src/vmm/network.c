// SPDX-License-Identifier: Apache-2.0
/* The devices of a machine that talk to others: networks, and vsock.
 *
 * A network is a device behind which stands what the configuration names. The helper of one that needs a helper (passt)
 * is started with the machine, before anything of the guest has run, and is there when the guest is.
 *
 * There is one vsock device, where a port, TSI or the configuration itself asks for it.
 *
 * Invariants: as in devices.c, and (1) addresses are settled before anybody is told them: passt, and the guest's init.
 *
 * Trust: as in devices.c.
 */
#include "vmm/network.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/fd.h"
#include "device/net/net.h"
#include "device/vsock/tsi.h"
#include "device/vsock/vsock.h"
#include "vmm/check.h"
#include "vmm/parse.h"
#include "vmm/vm.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- addresses ---- */

/* Whether the host itself has a way out: a look-up of a route, no packet. */
static bool has_route(bool is_ipv6)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
    struct sockaddr_in6 to_6 = {.sin6_family = AF_INET6, .sin6_port = htons(9)};
    inet_pton(AF_INET, "192.0.2.1", &to.sin_addr); /* kept for documentation: nobody's, and so the default route's */
    inet_pton(AF_INET6, "2001:db8::1", &to_6.sin6_addr);
    auto_close int fd = socket(is_ipv6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return fd >= 0 && connect(fd, is_ipv6 ? (const struct sockaddr *)&to_6 : (const struct sockaddr *)&to,
                              is_ipv6 ? sizeof(to_6) : sizeof(to)) == 0;
}

/* Each list has at most one of a kind: it was validated. */
static void take_given(const struct string_list *list, const char *places[2])
{
    for (size_t i = 0; i < list->count; i++)
        places[strchr(list->items[i], ':') != NULL] = list->items[i];
}

static const char *name_of_kind(bool is_ipv6)
{
    return is_ipv6 ? "IPv6" : "IPv4";
}

/* The first address of a host in the network that is not the guest's own: false where there is no other. */
static bool derive_gateway(const char *own, char gateway[INET6_ADDRSTRLEN])
{
    struct net_address address = {0};
    const char *why = NULL;
    if (parse_network(own, &address, &why) < 0)
        return false;
    unsigned size = address.is_ipv6 ? 16 : 4, host_bits = 8 * size - address.prefix;
    struct net_address first = address;
    if (host_bits == 0)
        return false;
    for (unsigned bit = 0; bit < host_bits; bit++)
        first.bytes[size - 1 - bit / 8] &= (uint8_t) ~(1u << bit % 8);
    uint8_t *last = &first.bytes[size - 1];
    if (host_bits > 1) /* of two addresses both are hosts' (RFC 3021, RFC 6164) */
        *last |= 1;
    if (memcmp(first.bytes, address.bytes, size) == 0)
        *last = (uint8_t)(host_bits > 1 ? *last + 1 : *last ^ 1);
    return inet_ntop(address.is_ipv6 ? AF_INET6 : AF_INET, first.bytes, gateway, INET6_ADDRSTRLEN) != NULL;
}

static int settle_gateway(const struct net_config *net, size_t index, bool is_ipv6, const char *given,
                          struct net_addresses *settled, struct vial_error *err)
{
    const char *address = settled->address[is_ipv6];
    char *gateway = settled->gateway[is_ipv6];
    if (address[0] == '\0' && given[0] != '\0')
        return refuse(err, VIAL_ERROR_CONFLICT, place_of("net[%zu].gateways", index).text, given,
                      "give the guest an address of that kind, or leave the gateway out",
                      "there is an %s gateway, but no %s address%s", name_of_kind(is_ipv6), name_of_kind(is_ipv6),
                      net->addresses.count == 0 ? ", as this host has no route of that kind" : "");
    if (given[0] != '\0')
        snprintf(gateway, sizeof(settled->gateway[0]), "%s", given);
    else if (address[0] != '\0' && !derive_gateway(address, gateway))
        return refuse(err, VIAL_ERROR_MISSING, place_of("net[%zu].gateways", index).text, "",
                      "give the gateway, or a shorter prefix, such as /24",
                      "the network of %s has no room for a gateway", address);
    return 0;
}

static int settle(struct net_config *net, size_t index, struct vial_error *err)
{
    struct net_addresses *settled = &net->settled;
    static const char *const addresses[] = {NETWORK_PASST_ADDRESS, NETWORK_PASST_ADDRESS_6};
    const char *gateways[] = {"", ""};
    bool has_routes[] = {has_route(false), has_route(true)};
    *settled = (struct net_addresses){.address = {"", ""}};
    for (int i = 0; i < 2; i++)
        if (net->addresses.count == 0 && has_routes[i]) {
            settled->address[i] = addresses[i];
            gateways[i] = i == 0 ? NETWORK_PASST_GATEWAY : NETWORK_PASST_GATEWAY_6;
        }
    take_given(&net->addresses, settled->address);
    take_given(&net->gateways, gateways);
    bool has_ipv4 = settled->address[0][0] != '\0', has_ipv6 = settled->address[1][0] != '\0';
    if (!(has_ipv4 && has_routes[0]) && !(has_ipv6 && has_routes[1]))
        return refuse(err, VIAL_ERROR_NOT_FOUND, place_of("net[%zu]", index).text, "",
                      "connect the host, or leave the network out", "this host has no %s%sroute that passt could use",
                      has_ipv4 != has_ipv6 ? name_of_kind(has_ipv6) : "", has_ipv4 != has_ipv6 ? " " : "");
    int result = 0;
    for (int i = 0; i < 2 && result == 0; i++)
        result = settle_gateway(net, index, i == 1, gateways[i], settled, err);
    if (net->nameservers.count == 0)
        settled->forwarder = has_ipv4 ? NETWORK_PASST_NAMESERVER : NETWORK_PASST_NAMESERVER_6;
    return result;
}

/* ---- networks ---- */

static struct rate_limits limits_of(const struct vial_net_rate *rate)
{
    return (struct rate_limits){
        .bytes_per_second = rate->bytes_per_second,
        .burst_bytes = rate->burst_bytes,
        .operations_per_second = rate->packets_per_second,
        .burst_operations = rate->burst_packets,
    };
}

static const struct tap_refusal {
    int os_error;
    const char *remedy;
} tap_refusals[] = {
    {EBUSY, "end the machine or program that uses it, or give each a device of its own"},
    {EPERM, "make it for this user (ip tuntap add dev NAME mode tap user USER)"},
    {EACCES, "let this user open /dev/net/tun"},
    {EINVAL,
     "it is to be a TAP device, with multi_queue for several pairs of queues and without for one (ip tuntap add "
     "dev NAME mode tap [multi_queue] user USER)"},
    {ENODEV, "make it first, for this user (ip tuntap add dev NAME mode tap user USER)"},
    {ENXIO, "load the host's module (modprobe tun)"},
    {ENOENT, "load the host's module (modprobe tun), or make /dev/net/tun known here"},
    {0, NULL},
};

static int refuse_tap(const struct net_config *net, size_t index, int result, struct vial_error *err)
{
    const struct tap_refusal *row = tap_refusals;
    while (row->remedy != NULL && row->os_error != -result)
        row++;
    if (result == -ENODEV)
        error_set(err, VIAL_ERROR_NOT_FOUND, VIAL_PHASE_START, "there is no network device %s", net->path);
    else
        error_set_os(err, VIAL_PHASE_START, result, "the TAP device %s cannot be used", net->path);
    error_field(err, "net[%zu].path", index);
    error_value(err, "%s", net->path);
    error_remedy(err, "%s", row->remedy != NULL ? row->remedy : "look at the log");
    return result;
}

static int refuse_net(const struct net_config *net, size_t index, int result, struct vial_error *err)
{
    bool has_path = net->path != NULL;
    if (result == -ENOMEM)
        return error_no_memory(err, VIAL_PHASE_START);
    if (net->kind == VIAL_NET_TAP)
        return refuse_tap(net, index, result, err);
    error_set_os(err, VIAL_PHASE_START, result, "the network's device cannot be made%s%s", has_path ? ": " : "",
                 has_path ? error_short(net->path).text : "");
    error_field(err, "net[%zu]", index);
    error_remedy(err, has_path ? "start the network's helper first" : "look at the log");
    return result;
}

int network_start_helpers(struct vial_vm_config *config, struct vial_error *err)
{
    int result = 0;
    for (size_t i = 0; i < config->net_count && result == 0; i++) {
        struct net_config *net = &config->net[i];
        if (net->kind != VIAL_NET_PASST)
            continue;
        if (net->helper_fd >= 0) {
            result = passt_check(net, i, err);
            continue;
        }
        result = settle(net, i, err);
        if (result == 0)
            result = passt_start(net, i, err);
    }
    return result;
}

void network_close_helpers(struct vial_vm_config *config)
{
    for (size_t i = 0; i < config->net_count; i++) {
        config->net[i].helper_fd = fd_close(config->net[i].helper_fd);
        config->net[i].helper_said_fd = fd_close(config->net[i].helper_said_fd);
    }
}

/* The kernel makes a TAP device that there is not, for whoever may; it would lead nowhere, and end with the machine. */
static bool is_missing(const struct net_config *net)
{
    return net->kind == VIAL_NET_TAP && if_nametoindex(net->path) == 0 && errno == ENODEV;
}

static int add_net(struct vial_vm *vm, size_t index, struct vial_error *err)
{
    struct net_config *net = &vm->config->net[index];
    bool is_passt = net->kind == VIAL_NET_PASST;
    struct virtio_device *device = NULL;
    if (is_missing(net))
        return refuse_tap(net, index, -ENODEV, err);
    auto_close int helper = steal_fd(&net->helper_fd);
    net->helper_said_fd = fd_close(net->helper_said_fd);
    struct net_options options = {
        .kind = is_passt ? VIAL_NET_UNIXSTREAM : net->kind,
        .fd = is_passt ? helper : net->fd,
        .path = net->path,
        .ops = net->has_ops ? &net->ops : NULL,
        .ops_user = net->ops_user,
        .features = net->features,
        .keeps_off_loopback = is_passt,
        .vfkit = net->vfkit,
        .mtu = is_passt && net->mtu == 0 ? NETWORK_PASST_MTU : net->mtu,
        .queue_pairs = net->queue_pairs != 0 ? net->queue_pairs : 1,
        .receive = limits_of(&net->to_guest),
        .transmit = limits_of(&net->from_guest),
    };
    memcpy(options.mac, net->mac, sizeof(options.mac));
    int result = net_new(&options, &device);
    return result < 0 ? refuse_net(net, index, result, err) : vm_add_device(vm, device, err);
}

/* ---- vsock ---- */

/* Whether this failure is that of the port's path, by what is there now. */
static bool is_to_blame(const struct vsock_port_config *port, int result)
{
    if (!port->listen || port->path == NULL)
        return false;
    if (result == -EADDRINUSE)
        return access(port->path, F_OK) == 0;
    char folder[sizeof(((struct sockaddr_un *)NULL)->sun_path) + 2];
    const char *slash = strrchr(port->path, '/');
    snprintf(folder, sizeof(folder), "%.*s.", (int)(slash != NULL ? slash + 1 - port->path : 0), port->path);
    return faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) < 0 && errno == -result;
}

static int refuse_vsock(const struct vial_vm_config *config, int result, struct vial_error *err)
{
    if (result != -EADDRINUSE && result != -EACCES && result != -ENOENT && result != -EROFS)
        return vm_fail_device(err, result, "vsock");
    size_t index = 0;
    while (index < config->vsock_port_count && !is_to_blame(&config->vsock_ports[index], result))
        index++;
    if (index < config->vsock_port_count) {
        const struct vsock_port_config *port = &config->vsock_ports[index];
        error_set_os(err, VIAL_PHASE_START, result, "the socket of vsock port %u cannot be made", port->port);
        error_field(err, "vsock_ports[%zu].path", index);
        error_value(err, "%s", port->path);
    } else {
        error_set_os(err, VIAL_PHASE_START, result, "a vsock port's socket cannot be made");
        error_field(err, "vsock_ports");
    }
    error_remedy(err, "choose a path at which there is nothing, in a folder that can be written to");
    return result;
}

static int make_vsock(const struct vial_vm_config *config, const struct tsi_options *tsi, struct vsock_port *ports,
                      struct vsock_custom_port *custom, struct virtio_device **ret_device)
{
    struct vsock_options options = {.ports = ports, .custom_ports = custom, .tsi = tsi};
    for (size_t i = 0; i < config->vsock_port_count; i++) {
        const struct vsock_port_config *port = &config->vsock_ports[i];
        if (port->has_ops)
            custom[options.custom_port_count++] = (struct vsock_custom_port){
                .port = port->port, .ops = &port->ops, .user = port->ops_user};
        else
            ports[options.port_count++] = (struct vsock_port){
                .port = port->port, .path = port->path, .listens = port->listen};
    }
    return vsock_new(&options, ret_device);
}

static enum tsi_scope scope_of(const struct vial_vm_config *config)
{
    static const enum tsi_scope scopes[] = {
        [VIAL_TSI_SCOPE_ANY] = TSI_SCOPE_ANY,
        [VIAL_TSI_SCOPE_PUBLIC] = TSI_SCOPE_PUBLIC,
        [VIAL_TSI_SCOPE_GROUP] = TSI_SCOPE_GROUP,
        [VIAL_TSI_SCOPE_NONE] = TSI_SCOPE_NONE,
    };
    return config->tsi_scope < array_length(scopes) ? scopes[config->tsi_scope] : TSI_SCOPE_NONE;
}

/* The group's address as text, and the length of its prefix. */
static unsigned take_group(const struct vial_vm_config *config, char text[INET6_ADDRSTRLEN])
{
    struct net_address group = {0};
    const char *why = NULL;
    if (config->tsi_group == NULL || parse_network(config->tsi_group, &group, &why) < 0)
        return 0;
    inet_ntop(group.is_ipv6 ? AF_INET6 : AF_INET, group.bytes, text, INET6_ADDRSTRLEN);
    return group.prefix;
}

static int add_vsock(struct vial_vm *vm, struct vial_error *err)
{
    const struct vial_vm_config *config = vm->config;
    struct virtio_device *device = NULL;
    auto_free struct vsock_port *ports = alloc_zero((config->vsock_port_count + 1) * sizeof(ports[0]));
    auto_free struct vsock_custom_port *custom = alloc_zero((config->vsock_port_count + 1) * sizeof(custom[0]));
    auto_free struct tsi_port *published = alloc_zero((config->port_count + 1) * sizeof(published[0]));
    if (ports == NULL || custom == NULL || published == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    for (size_t i = 0; i < config->port_count; i++)
        published[i] = (struct tsi_port){.host = config->port_map[i].host, .guest = config->port_map[i].guest};
    char group[INET6_ADDRSTRLEN] = "";
    struct tsi_options tsi = {
        .hijacks_inet = config->machine.inet_hijack,
        .hijacks_unix = config->tsi_hijacks_unix,
        .ports = published,
        .port_count = config->port_count,
        .has_port_map = !config->tsi_publishes_all,
        .assigned_ip = config->assigned_ip,
        .local_only = config->local_only,
        .scope = scope_of(config),
        .group_ip = group,
        .group_prefix = take_group(config, group),
    };
    int result = make_vsock(config, config_has_tsi(config) ? &tsi : NULL, ports, custom, &device);
    return result < 0 ? refuse_vsock(config, result, err) : vm_add_device(vm, device, err);
}

int vm_add_networks(struct vial_vm *vm, struct vial_error *err)
{
    const struct vial_vm_config *config = vm->config;
    int result = config_has_vsock(config) ? add_vsock(vm, err) : 0;
    for (size_t i = 0; i < config->net_count && result == 0; i++)
        result = add_net(vm, i, err);
    return result;
}
