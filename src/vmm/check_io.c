// SPDX-License-Identifier: Apache-2.0
/* Checking what a machine talks through: networks, published ports, vsock ports, the console.
 *
 * Invariants: as in check.c.
 *
 * Trust: every value may come from a hostile or careless caller; descriptors are our own duplicates of the caller's.
 */
#include "vmm/check.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- network ---- */

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
    if (net->kind < VIAL_NET_UNIXGRAM || net->kind > VIAL_NET_CUSTOM)
        return refuse_number(err, VIAL_ERROR_INVALID, place_of("net[%zu].kind", index).text, net->kind,
                             "use unixgram, unixstream, tap or custom", "it is not a kind of network");
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
    if (result == 0 && (net->features & ~known_net_features()) != 0)
        result = refuse_number(err, VIAL_ERROR_INVALID, place_of("net[%zu].features", index).text, net->features,
                               "use the VIAL_NET_FEATURE_ bits", "it holds bits that are no offload");
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
                      "publish ports at the network's helper (passt, gvproxy)",
                      "the port map belongs to TSI, and this machine has a network device");
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
    if (config->machine.inet_hijack && config->net_count > 0)
        return refuse(err, VIAL_ERROR_CONFLICT, "machine.inet_hijack", "true", "leave out one of the two",
                      "the hijack is for a guest without a network device, and this machine has one");
    const char *unused = config->port_count > 0        ? "port_map"
                         : config->assigned_ip != NULL ? "tsi.assigned_ip"
                         : config->local_only          ? "tsi.local_only"
                                                       : NULL;
    if (unused != NULL && !config->machine.inet_hijack)
        return refuse(err, VIAL_ERROR_CONFLICT, unused, "", "set machine.inet_hijack, or leave this out",
                      "it has no effect while the guest's sockets do not reach the host");
    return 0;
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
        int result = check_socket_path(port->path, path.text, err);
        if (result == 0 && port->listen && lstat(port->path, &status) == 0)
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

/* ---- console ---- */

static int check_port_backend(const struct console_port_config *port, const char *name, struct vial_error *err)
{
    bool is_custom = port->kind == VIAL_CONSOLE_PORT_CUSTOM;
    bool has_inout = port->input_fd >= 0 || port->output_fd >= 0;
    if (port->kind < VIAL_CONSOLE_PORT_INOUT || port->kind > VIAL_CONSOLE_PORT_CUSTOM)
        return refuse_number(err, VIAL_ERROR_INVALID, place_of("%s.kind", name).text, port->kind,
                             "use inout, tty or custom", "it is not a kind of console port");
    if (port->has_ops != is_custom)
        return refuse(err, is_custom ? VIAL_ERROR_MISSING : VIAL_ERROR_CONFLICT, place_of("%s.ops", name).text, "",
                      "give ops with the kind custom, and only with it", "the port %s",
                      is_custom ? "has no backend" : "has a custom backend, but another kind");
    if (is_custom && (port->ops.poll_fd == NULL || (port->ops.read == NULL && port->ops.write == NULL)))
        return refuse(err, VIAL_ERROR_MISSING, place_of("%s.ops", name).text, "", "implement poll_fd and read or write",
                      "the custom backend is not complete");
    if (port->tty_fd >= 0 && (has_inout || port->kind != VIAL_CONSOLE_PORT_TTY))
        return refuse(err, VIAL_ERROR_CONFLICT, place_of("%s.tty_fd", name).text, "",
                      "give tty_fd alone, or input_fd and output_fd", "the port has a terminal and something else");
    if (has_inout && port->kind != VIAL_CONSOLE_PORT_INOUT)
        return refuse(err, VIAL_ERROR_CONFLICT, place_of("%s.input_fd", name).text, "",
                      "leave the descriptors out, or use the kind inout",
                      "the port has descriptors and something else");
    if (port->kind == VIAL_CONSOLE_PORT_INOUT && !has_inout)
        return refuse(err, VIAL_ERROR_MISSING, place_of("%s.input_fd", name).text, "",
                      "give input_fd, output_fd or both", "the port has no descriptor");
    if (port->kind == VIAL_CONSOLE_PORT_TTY && (port->tty_fd < 0 || isatty(port->tty_fd) != 1))
        return refuse(err, port->tty_fd >= 0 ? VIAL_ERROR_WRONG_KIND : VIAL_ERROR_MISSING,
                      place_of("%s.tty_fd", name).text, "",
                      "give the descriptor of a terminal, or use input_fd and output_fd",
                      port->tty_fd >= 0 ? "the descriptor is not a terminal" : "the port has no descriptor");
    return 0;
}

static int check_port_name(const struct vial_vm_config *config, size_t index, struct vial_error *err)
{
    const char *name = config->console_ports[index].name;
    struct place field = place_of("console.ports[%zu].name", index);
    int result = check_given(name, field.text, "give the port a name", err);
    if (result < 0)
        return result;
    if (strlen(name) > LIMIT_PORT_NAME_BYTES || !text_is_printable_ascii(name) || strpbrk(name, " /\"") != NULL ||
        strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return refuse(
            err, VIAL_ERROR_INVALID, field.text, name, "use letters, digits, dots and dashes, such as agent.0",
            "a port's name has at most %d ASCII characters and no space, slash or quote", LIMIT_PORT_NAME_BYTES);
    if (strncmp(name, "vial.", strlen("vial.")) == 0)
        return refuse(err, VIAL_ERROR_CONFLICT, field.text, name, "choose another name",
                      "names that begin with vial. are for the guest's init");
    for (size_t j = 0; j < index; j++)
        if (strcmp(name, config->console_ports[j].name) == 0)
            return refuse(err, VIAL_ERROR_DUPLICATE, field.text, name, "give each port a name of its own",
                          "console.ports[%zu] has the same name", j);
    return 0;
}

/* A file that is there must be writable and take output at once; one that is not must be possible to create. */
static int check_console_output(const char *path, struct vial_error *err)
{
    static const char field[] = "console.output", remedy[] = "give the path of a file";
    struct stat status;
    int result = check_given(path, field, remedy, err);
    if (result < 0)
        return result;
    if (stat(path, &status) < 0)
        return check_parent(path, field, err);
    if (!S_ISREG(status.st_mode) && !S_ISCHR(status.st_mode) && !S_ISFIFO(status.st_mode))
        return refuse(err, VIAL_ERROR_WRONG_KIND, field, path, remedy, "%s is not a file that output can go to",
                      error_short(path).text);
    return check_access(path, W_OK, field, err);
}

int check_console(const struct vial_vm_config *config, struct vial_error *err)
{
    static const char not_here[] = "leave it out";
    int result = config->console_output != NULL ? check_console_output(config->console_output, err) : 0;
    for (size_t i = 0; i < config->console_port_count && result == 0; i++) {
        result = check_port_name(config, i, err);
        if (result == 0)
            result = check_port_backend(&config->console_ports[i], place_of("console.ports[%zu]", i).text, err);
    }
    if (result == 0 && config_most_console_ports(config) > LIMIT_CONSOLE_PORTS)
        result = refuse_number(err, VIAL_ERROR_TOO_BIG, "console.ports", (int64_t)config_most_console_ports(config),
                               "use fewer (64 ports, with the console itself and the four of a program's streams)",
                               "these are more ports than one console has");
    if (result == 0 && config->has_gpu)
        result = refuse(err, VIAL_ERROR_UNSUPPORTED, "console.gpu", "", not_here, "a GPU is not in this build");
    if (result == 0 && config->has_sound)
        result = refuse(err, VIAL_ERROR_UNSUPPORTED, "console.sound", "true", not_here, "sound is not in this build");
    return result;
}
