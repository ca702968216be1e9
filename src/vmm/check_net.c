// SPDX-License-Identifier: Apache-2.0
/* Checking a machine's networks, published ports and vsock ports.
 *
 * Invariants: as in check.c.
 *
 * Trust: every value may come from a hostile or careless caller; descriptors are our own duplicates of the caller's.
 */
#include "vmm/check.h"

#include "device/vsock/listener.h"
#include "vmm/parse.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

static int check_net_socket(const struct net_config *net, size_t index, struct vial_error *err)
{
    int wanted = net->kind == VIAL_NET_UNIXGRAM ? SOCK_DGRAM : SOCK_STREAM;
    const char *kind = wanted == SOCK_DGRAM ? "datagram" : "stream";
    if ((net->fd >= 0) == (net->path != NULL))
        return refuse(err, net->fd >= 0 ? VIAL_ERROR_CONFLICT : VIAL_ERROR_MISSING,
                      place_of("net[%zu].path", index).text, net->path != NULL ? net->path : "",
                      "give either the path of a socket or a connected descriptor", "the network has %s",
                      net->fd >= 0 ? "both a path and a descriptor" : "neither a path nor a descriptor");
    if (net->path != NULL) {
        struct place field = place_of("net[%zu].path", index);
        struct stat status;
        int result = check_socket_path(net->path, field.text, err);
        if (result == 0)
            result = check_exists(net->path, field.text, &status, err);
        if (result == 0 && !S_ISSOCK(status.st_mode))
            result = refuse(err, VIAL_ERROR_WRONG_KIND, field.text, net->path, "start the network helper first",
                            "%s is not a socket", error_short(net->path).text);
        return result;
    }
    static const char remedy[] = "give a connected socket, such as one end of socketpair(2)";
    int domain = 0, type = 0;
    socklen_t length = sizeof(int);
    if (getsockopt(net->fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) < 0 ||
        getsockopt(net->fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0 || domain != AF_UNIX || type != wanted)
        return refuse(err, VIAL_ERROR_WRONG_KIND, place_of("net[%zu].fd", index).text, "", remedy,
                      "the descriptor is not a Unix %s socket", kind);
    struct sockaddr_un peer;
    socklen_t peer_length = sizeof(peer);
    if (getpeername(net->fd, (struct sockaddr *)&peer, &peer_length) < 0)
        return refuse(err, VIAL_ERROR_WRONG_KIND, place_of("net[%zu].fd", index).text, "", remedy,
                      "the descriptor is not connected");
    return 0;
}

static int check_tap(const struct net_config *net, size_t index, struct vial_error *err)
{
    struct place field = place_of("net[%zu].path", index);
    int result = check_given(net->path, field.text, "give the name of the TAP device, such as tap0", err);
    if (result < 0)
        return result;
    if (strlen(net->path) >= IFNAMSIZ || !text_is_printable_ascii(net->path) || strpbrk(net->path, "/: %") != NULL ||
        strcmp(net->path, ".") == 0 || strcmp(net->path, "..") == 0)
        return refuse(
            err, VIAL_ERROR_INVALID, field.text, net->path, "give the name of the TAP device, such as tap0",
            "the name of a network device has at most %d characters and no slash, colon, percent sign or space",
            IFNAMSIZ - 1);
    if (net->fd >= 0)
        return refuse(err, VIAL_ERROR_CONFLICT, place_of("net[%zu].fd", index).text, "", "leave the descriptor out",
                      "a TAP device is given by its name");
    return 0;
}

static uint32_t known_net_features(void)
{
    uint32_t known = 0;
    for (size_t i = 0; config_net_features[i].name != NULL; i++)
        known |= config_net_features[i].bit;
    return known;
}

static int check_mac(const struct vial_vm_config *config, size_t index, struct vial_error *err)
{
    static const uint8_t zero[6];
    const uint8_t *mac = config->net[index].mac;
    struct place field = place_of("net[%zu].mac", index);
    char text[18];
    snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
    if ((mac[0] & 1) != 0)
        return refuse(err, VIAL_ERROR_INVALID, field.text, text, "clear the lowest bit of its first byte, as in 02:…",
                      "%s is a multicast address, which no device can have", text);
    if (memcmp(mac, zero, sizeof(zero)) == 0)
        return refuse(err, VIAL_ERROR_INVALID, field.text, text, "give an address, or leave it out for a random one",
                      "the address is all zero");
    for (size_t j = 0; j < index; j++)
        if (memcmp(mac, config->net[j].mac, sizeof(zero)) == 0)
            return refuse(err, VIAL_ERROR_DUPLICATE, field.text, text, "give each network an address of its own",
                          "net[%zu] has the same address", j);
    return 0;
}

/* What belongs to another kind of network is refused, not ignored. */
static int check_net_kind(const struct net_config *net, size_t index, struct vial_error *err)
{
    bool is_custom = net->kind == VIAL_NET_CUSTOM;
    if (net->kind < VIAL_NET_UNIXGRAM || net->kind > VIAL_NET_PASST)
        return refuse_number(err, VIAL_ERROR_INVALID, place_of("net[%zu].kind", index).text, net->kind,
                             "use passt, tap, unixstream, unixgram or custom", "it is not a kind of network");
    if (net->has_ops != is_custom)
        return refuse(err, is_custom ? VIAL_ERROR_MISSING : VIAL_ERROR_CONFLICT, place_of("net[%zu].ops", index).text,
                      "", "give ops with the kind custom, and only with it", "the network %s",
                      is_custom ? "has no backend" : "has a custom backend, but another kind");
    if (is_custom && (net->path != NULL || net->fd >= 0 || net->vfkit))
        return refuse(err, VIAL_ERROR_CONFLICT, place_of("net[%zu].kind", index).text, "custom",
                      "leave path, fd and vfkit out", "a custom backend has neither a path nor a descriptor");
    if (is_custom && (net->ops.send == NULL || net->ops.receive == NULL || net->ops.poll_fd == NULL))
        return refuse(err, VIAL_ERROR_MISSING, place_of("net[%zu].ops", index).text, "",
                      "implement send, receive and poll_fd", "the custom backend is not complete");
    if (net->vfkit && (net->kind != VIAL_NET_UNIXGRAM || net->path == NULL))
        return refuse(err, VIAL_ERROR_CONFLICT, place_of("net[%zu].vfkit", index).text, "true",
                      "leave it out, or use unixgram with a path",
                      "the VFKIT greeting exists only for a unixgram socket given by path");
    return 0;
}

static int refuse_net_text(const char *list, size_t index, size_t element, const char *text, int result,
                           const char *why, const char *remedy, struct vial_error *err)
{
    return refuse(err, result == -ERANGE ? VIAL_ERROR_OUT_OF_RANGE : VIAL_ERROR_SYNTAX,
                  place_of("net[%zu].%s[%zu]", index, list, element).text, text, remedy, "\"%s\" cannot be used: %s",
                  error_short(text).text, why);
}

/* One list of addresses: each can be read, and there are at most so many of either kind. */
static int check_addresses(const struct string_list *list, const char *name, size_t index, bool has_prefix,
                           size_t most_of_a_kind, struct vial_error *err)
{
    size_t counts[2] = {0};
    for (size_t i = 0; i < list->count; i++) {
        struct net_address address;
        const char *why = NULL;
        int result = has_prefix ? parse_network(list->items[i], &address, &why)
                                : parse_address(list->items[i], &address, &why);
        if (result < 0)
            return refuse_net_text(name, index, i, list->items[i], result, why,
                                   has_prefix ? "write it as in 10.0.2.15/24" : "write it as in 10.0.2.2", err);
        if (++counts[address.is_ipv6] > most_of_a_kind)
            return refuse_number(err, VIAL_ERROR_TOO_BIG, place_of("net[%zu].%s", index, name).text,
                                 (int64_t)list->count, "leave some out", "there are too many of its kind");
    }
    return 0;
}

static int check_published(const struct net_config *net, size_t index, struct vial_error *err)
{
    struct published_port port, other;
    const char *why = NULL;
    if (net->published.count > LIMIT_PORTS)
        return refuse_number(err, VIAL_ERROR_TOO_BIG, place_of("net[%zu].published", index).text,
                             (int64_t)net->published.count, "publish fewer", "there are too many published ports");
    for (size_t i = 0; i < net->published.count; i++) {
        const char *text = net->published.items[i];
        int result = parse_published(text, &port, &why);
        if (result < 0)
            return refuse_net_text("published", index, i, text, result, why,
                                   "write HOST:GUEST with numbers from 1 to 65535, such as 8080:80 or 5353:53/udp",
                                   err);
        for (size_t j = 0; j < i; j++) {
            parse_published(net->published.items[j], &other, &why); /* which it could be before */
            if (other.host == port.host && other.is_udp == port.is_udp &&
                memcmp(&other.address, &port.address, sizeof(port.address)) == 0)
                return refuse(err, VIAL_ERROR_DUPLICATE, place_of("net[%zu].published[%zu]", index, i).text, text,
                              "publish each port of the host once", "port %u of the host is published already",
                              port.host);
        }
    }
    return 0;
}

/* What the guest's init is told. */
static int check_net_setup(const struct net_config *net, size_t index, struct vial_error *err)
{
    bool has_lists = net->addresses.count + net->gateways.count > 0;
    if (net->dhcp && has_lists)
        return refuse(err, VIAL_ERROR_CONFLICT, place_of("net[%zu].dhcp", index).text, "true",
                      "leave out one of the two", "the guest cannot both ask for addresses and be given some");
    bool has_no_address = !net->dhcp && net->addresses.count == 0 && net->kind != VIAL_NET_PASST;
    if (has_no_address && net->gateways.count > 0) /* dhcp with gateways was refused */
        return refuse(err, VIAL_ERROR_MISSING, place_of("net[%zu].addresses", index).text, "",
                      "give the guest's address, such as 10.0.2.15/24", "there is a gateway, but no address");
    if (has_no_address && net->nameservers.count > 0)
        return refuse(err, VIAL_ERROR_CONFLICT, place_of("net[%zu].nameservers", index).text, net->nameservers.items[0],
                      "give addresses or dhcp, or leave the nameservers out",
                      "there are nameservers, but the network is not set up in the guest");
    int result = check_addresses(&net->addresses, "addresses", index, true,
                                 net->kind == VIAL_NET_PASST ? 1 : LIMIT_NET_ADDRESSES, err);
    if (result == 0)
        result = check_addresses(&net->gateways, "gateways", index, false, 1, err);
    if (result == 0)
        result = check_addresses(&net->nameservers, "nameservers", index, false, LIMIT_NET_NAMESERVERS, err);
    return result;
}

static bool has_ipv6(const struct string_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        if (strchr(list->items[i], ':') != NULL)
            return true;
    return false;
}

static int check_net_numbers(const struct net_config *net, size_t index, struct vial_error *err)
{
    if (net->mtu != 0 && (net->mtu < LIMIT_NET_LEAST_MTU || net->mtu > LIMIT_NET_MTU))
        return refuse_number(err, VIAL_ERROR_OUT_OF_RANGE, place_of("net[%zu].mtu", index).text, net->mtu,
                             "give a number from 68 to 65520, or leave it out", "no network has such an MTU");
    if (!net_takes_ipv6(net) && (has_ipv6(&net->addresses) || has_ipv6(&net->gateways)))
        return refuse_number(err, VIAL_ERROR_CONFLICT, place_of("net[%zu].mtu", index).text, net->mtu,
                             "give at least 1280, or leave out the IPv6 addresses",
                             "an interface with IPv6 addresses needs a larger MTU");
    if (net->queue_pairs > LIMIT_NET_QUEUE_PAIRS)
        return refuse_number(err, VIAL_ERROR_OUT_OF_RANGE, place_of("net[%zu].queue_pairs", index).text,
                             net->queue_pairs, "give a number from 1 to 8", "these are more than a device has");
    if (net->queue_pairs > 1 && net->kind != VIAL_NET_TAP)
        return refuse_number(err, VIAL_ERROR_CONFLICT, place_of("net[%zu].queue_pairs", index).text, net->queue_pairs,
                             "leave it out, or use a TAP device", "only a TAP device can have several pairs of queues");
    return 0;
}

/* As a disk's: what has no effect is refused. */
static int check_rate(const struct vial_net_rate *rate, const char *direction, size_t index, struct vial_error *err)
{
    struct place field = place_of("net[%zu].limits.%s", index, direction);
    if (rate->burst_bytes > 0 && rate->bytes_per_second == 0)
        return refuse_number(err, VIAL_ERROR_MISSING, field.text, (int64_t)rate->burst_bytes,
                             "give bytes_per_second, too", "a burst of bytes means nothing without a limit");
    if (rate->burst_packets > 0 && rate->packets_per_second == 0)
        return refuse_number(err, VIAL_ERROR_MISSING, field.text, (int64_t)rate->burst_packets,
                             "give packets_per_second, too", "a burst of packets means nothing without a limit");
    return 0;
}

static int check_passt(const struct net_config *net, size_t index, struct vial_error *err)
{
    bool is_passt = net->kind == VIAL_NET_PASST;
    if (is_passt && (net->path != NULL || net->fd >= 0))
        return refuse(err, VIAL_ERROR_CONFLICT, place_of("net[%zu].path", index).text, "",
                      "leave path and fd out, or use the kind unixstream with a passt of your own",
                      "passt is started by the machine itself");
    if (!is_passt && net->published.count > 0)
        return refuse(err, VIAL_ERROR_CONFLICT, place_of("net[%zu].published", index).text, "",
                      "publish ports at the network's helper (gvproxy), or use the kind passt",
                      "only passt publishes ports");
    if (!is_passt && net->reaches_host)
        return refuse(err, VIAL_ERROR_CONFLICT, place_of("net[%zu].reaches_host", index).text, "true",
                      "leave it out, or use the kind passt", "only passt leads to the host's loopback");
    return check_published(net, index, err);
}

/* Two guests' ends with the same default address would be one and the same to the guest. */
static int check_passt_is_apart(const struct vial_vm_config *config, size_t index, struct vial_error *err)
{
    for (size_t j = 0; j < index && config->net[index].addresses.count == 0; j++)
        if (config->net[j].kind == VIAL_NET_PASST && config->net[j].addresses.count == 0)
            return refuse(err, VIAL_ERROR_MISSING, place_of("net[%zu].addresses", index).text, "",
                          "give this one an address of another network, such as 10.0.3.15/24",
                          "net[%zu] is passt's, too, and both would have its usual addresses", j);
    return 0;
}

static int check_tap_is_new(const struct vial_vm_config *config, size_t index, struct vial_error *err)
{
    const char *name = config->net[index].path;
    for (size_t j = 0; j < index; j++)
        if (config->net[j].kind == VIAL_NET_TAP && strcmp(config->net[j].path, name) == 0)
            return refuse(err, VIAL_ERROR_DUPLICATE, place_of("net[%zu].path", index).text, name,
                          "give each network a device of its own", "net[%zu] uses the same device", j);
    return 0;
}

static int check_net(const struct vial_vm_config *config, size_t index, struct vial_error *err)
{
    const struct net_config *net = &config->net[index];
    int result = check_net_kind(net, index, err);
    if (result == 0 && (net->kind == VIAL_NET_UNIXGRAM || net->kind == VIAL_NET_UNIXSTREAM))
        result = check_net_socket(net, index, err);
    if (result == 0 && net->kind == VIAL_NET_TAP)
        result = check_tap(net, index, err);
    if (result == 0 && net->kind == VIAL_NET_TAP)
        result = check_tap_is_new(config, index, err);
    if (result == 0 && net->kind == VIAL_NET_PASST)
        result = check_passt_is_apart(config, index, err);
    if (result == 0 && (net->features & ~known_net_features()) != 0)
        result = refuse_number(err, VIAL_ERROR_INVALID, place_of("net[%zu].features", index).text, net->features,
                               "use the VIAL_NET_FEATURE_ bits", "it holds bits that are no offload");
    if (result == 0)
        result = check_passt(net, index, err);
    if (result == 0)
        result = check_net_setup(net, index, err);
    if (result == 0)
        result = check_net_numbers(net, index, err);
    if (result == 0)
        result = check_rate(&net->to_guest, "to_guest", index, err);
    if (result == 0)
        result = check_rate(&net->from_guest, "from_guest", index, err);
    return result == 0 ? check_mac(config, index, err) : result;
}

static int check_port_map(const struct vial_vm_config *config, struct vial_error *err)
{
    for (size_t i = 0; i < config->port_count; i++) {
        const struct port_config *port = &config->port_map[i];
        struct place field = place_of("port_map[%zu]", i);
        if (port->host == 0 || port->guest == 0)
            return refuse_number(err, VIAL_ERROR_OUT_OF_RANGE, field.text, 0, "give ports from 1 to 65535",
                                 "0 is not a port");
        for (size_t j = 0; j < i; j++) {
            bool is_host = port->host == config->port_map[j].host;
            if (is_host || port->guest == config->port_map[j].guest)
                return refuse_number(
                    err, VIAL_ERROR_DUPLICATE, field.text, is_host ? port->host : port->guest, "publish each port once",
                    is_host ? "the host's port is mapped already" : "the guest's port is mapped already");
        }
    }
    if (config->port_count > 0 && config->net_count > 0)
        return refuse(err, VIAL_ERROR_CONFLICT, "port_map", "",
                      "publish them with the network's \"published\" (--publish; passt only), or at its helper",
                      "the port map belongs to TSI, and this machine has a network device");
    return 0;
}

/* A scope that there is, and its group. */
static int check_tsi_group(const struct vial_vm_config *config, struct vial_error *err)
{
    bool is_group = config->tsi_scope == VIAL_TSI_SCOPE_GROUP;
    struct net_address group;
    const char *why = NULL;
    if (config->tsi_scope > VIAL_TSI_SCOPE_NONE)
        return refuse_number(err, VIAL_ERROR_INVALID, "tsi.scope", config->tsi_scope, "use any, public, group or none",
                             "it is not a scope");
    if (is_group != (config->tsi_group != NULL))
        return refuse(err, is_group ? VIAL_ERROR_MISSING : VIAL_ERROR_CONFLICT, "tsi.group",
                      is_group ? "" : config->tsi_group, "give the group with the scope group, and only with it",
                      "the scope %s", is_group ? "has no group" : "is another one");
    if (is_group && parse_network(config->tsi_group, &group, &why) < 0)
        return refuse(err, VIAL_ERROR_SYNTAX, "tsi.group", config->tsi_group, "write it as in 10.1.0.0/16",
                      "\"%s\" is not a network: %s", error_short(config->tsi_group).text, why);
    if (config->tsi_publishes_all && config->port_count > 0)
        return refuse(err, VIAL_ERROR_CONFLICT, "tsi.publish_all", "true", "leave out one of the two",
                      "every listener is published already, and there is a port map");
    return 0;
}

/* The project's own kernel has no such sockets; of user-mode Linux the choice of an engine speaks (choose.c). */
static int check_tsi_kernel(const struct vial_vm_config *config, struct vial_error *err)
{
    bool is_own = config->kernel.path == NULL && config->kernel.krunfw == NULL;
    if (config_has_tsi(config) && is_own && config->machine.engine != VIAL_ENGINE_UML)
        return refuse(err, VIAL_ERROR_MISSING, "kernel.krunfw", "",
                      "give a libkrunfw.so.5 (kernel.krunfw, --krunfw) or a kernel with TSI (kernel.path)",
                      "the guest's sockets reach the host only with a kernel that has TSI, which the project's own has "
                      "not");
    return 0;
}

static int check_tsi(const struct vial_vm_config *config, struct vial_error *err)
{
    int result = check_port_map(config, err);
    if (result < 0)
        return result;
    struct in_addr address;
    if (config->assigned_ip != NULL && inet_pton(AF_INET, config->assigned_ip, &address) != 1)
        return refuse(err, VIAL_ERROR_SYNTAX, "tsi.assigned_ip", config->assigned_ip, "write it as in 127.0.0.2",
                      "\"%s\" is not an IPv4 address", error_short(config->assigned_ip).text);
    if (config->assigned_ip != NULL && (address.s_addr == htonl(INADDR_ANY) || ntohl(address.s_addr) >= 0xe0000000))
        return refuse(err, VIAL_ERROR_INVALID, "tsi.assigned_ip", config->assigned_ip, "write it as in 127.0.0.2",
                      "%s is not the address of one host", config->assigned_ip);
    int group_result = check_tsi_group(config, err);
    if (group_result < 0)
        return group_result;
    if (config->machine.inet_hijack && config->net_count > 0)
        return refuse(err, VIAL_ERROR_CONFLICT, "machine.inet_hijack", "true", "leave out one of the two",
                      "the hijack is for a guest without a network device, and this machine has one");
    const char *unused = config->port_count > 0                    ? "port_map"
                         : config->assigned_ip != NULL             ? "tsi.assigned_ip"
                         : config->local_only                      ? "tsi.local_only"
                         : config->tsi_scope != VIAL_TSI_SCOPE_ANY ? "tsi.scope"
                         : config->tsi_publishes_all               ? "tsi.publish_all"
                                                                   : NULL;
    if (unused != NULL && !config->machine.inet_hijack)
        return refuse(err, VIAL_ERROR_CONFLICT, unused, "", "set machine.inet_hijack, or leave this out",
                      "it has no effect while the guest's sockets do not reach the host");
    return check_tsi_kernel(config, err);
}

int check_networks(const struct vial_vm_config *config, struct vial_error *err)
{
    int result = 0;
    for (size_t i = 0; i < config->net_count && result == 0; i++)
        result = check_net(config, i, err);
    return result == 0 ? check_tsi(config, err) : result;
}

/* Whether two paths at which nothing exists yet would be the same file: the same name in the same folder. */
static bool is_same_new_file(const char *a, const char *b)
{
    struct stat a_folder, b_folder;
    const char *a_slash = strrchr(a, '/'), *b_slash = strrchr(b, '/');
    char path[sizeof(((struct sockaddr_un *)NULL)->sun_path) + 2];
    if (strcmp(a_slash != NULL ? a_slash + 1 : a, b_slash != NULL ? b_slash + 1 : b) != 0)
        return false;
    snprintf(path, sizeof(path), "%.*s.", (int)(a_slash != NULL ? a_slash + 1 - a : 0), a);
    if (stat(path, &a_folder) < 0)
        return false;
    snprintf(path, sizeof(path), "%.*s.", (int)(b_slash != NULL ? b_slash + 1 - b : 0), b);
    return stat(path, &b_folder) == 0 && a_folder.st_dev == b_folder.st_dev && a_folder.st_ino == b_folder.st_ino;
}

static int check_vsock_backend(const struct vsock_port_config *port, size_t index, struct vial_error *err)
{
    if (port->path != NULL || port->listen)
        return refuse(err, VIAL_ERROR_CONFLICT, place_of("vsock_ports[%zu].ops", index).text, "",
                      "leave path and listen out, or the ops", "the port has both a backend and a socket");
    const struct vial_vsock_ops *ops = &port->ops;
    bool has_some = ops->connect != NULL || ops->read != NULL || ops->write != NULL || ops->poll_fd != NULL ||
                    ops->close != NULL || ops->shutdown != NULL;
    bool has_all = ops->connect != NULL && ops->read != NULL && ops->write != NULL && ops->poll_fd != NULL &&
                   ops->close != NULL;
    if (has_some ? !has_all : ops->send == NULL)
        return refuse(err, VIAL_ERROR_MISSING, place_of("vsock_ports[%zu].ops", index).text, "",
                      "implement connect, read, write, poll_fd and close, or send for datagrams, or all of them",
                      "the custom backend is not complete");
    return 0;
}

int check_vsock_ports(const struct vial_vm_config *config, struct vial_error *err)
{
    for (size_t i = 0; i < config->vsock_port_count; i++) {
        const struct vsock_port_config *port = &config->vsock_ports[i];
        struct place field = place_of("vsock_ports[%zu].port", i), path = place_of("vsock_ports[%zu].path", i);
        struct stat status;
        if (port->port == 0 || port->port == UINT32_MAX)
            return refuse_number(err, VIAL_ERROR_OUT_OF_RANGE, field.text, port->port,
                                 "give a port from 1 to 4294967294", "0 and 4294967295 are not ports");
        for (size_t j = 0; j < i; j++)
            if (port->port == config->vsock_ports[j].port)
                return refuse_number(err, VIAL_ERROR_DUPLICATE, field.text, port->port, "use each port once",
                                     "an earlier vsock port has the same number");
        if (port->has_ops) {
            int failure = check_vsock_backend(port, i, err);
            if (failure < 0)
                return failure;
            continue;
        }
        int result = check_socket_path(port->path, path.text, err);
        if (result == 0 && port->listen && lstat(port->path, &status) == 0 && !listener_is_left_behind(port->path))
            result = refuse(err, VIAL_ERROR_DUPLICATE, path.text, port->path,
                            "remove it, if no other machine uses it, or choose another path", "%s exists already",
                            error_short(port->path).text);
        if (result == 0 && port->listen)
            result = check_parent(port->path, path.text, err);
        for (size_t j = 0; j < i && result == 0 && port->listen; j++)
            if (config->vsock_ports[j].listen && is_same_new_file(port->path, config->vsock_ports[j].path))
                result = refuse(err, VIAL_ERROR_DUPLICATE, path.text, port->path, "give each port a socket of its own",
                                "vsock_ports[%zu] listens on the same path", j);
        if (result < 0)
            return result;
    }
    return 0;
}
