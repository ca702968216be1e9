// SPDX-License-Identifier: Apache-2.0
/* Building the part of a configuration that is about networks: devices, TSI, vsock ports.
 *
 * Invariants: as in config.c.
 *
 * Trust: as in config.c.
 */
#include "vmm/config_net.h"

#include "base/fd.h"
#include "vmm/configure.h"
#include "vmm/parse.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

static void net_free(struct net_config *net)
{
    fd_close(net->fd);
    fd_close(net->helper_fd);
    fd_close(net->helper_said_fd);
    free(net->path);
    string_list_free(&net->addresses);
    string_list_free(&net->gateways);
    string_list_free(&net->nameservers);
    string_list_free(&net->published);
}

void config_clear_net(struct vial_vm_config *config)
{
    for (size_t i = 0; i < config->net_count; i++) {
        if (config->net[i].has_ops && config->net[i].ops.release != NULL)
            config->net[i].ops.release(config->net[i].ops_user);
        net_free(&config->net[i]);
    }
    config->net_count = 0;
}

void config_free_networks(struct vial_vm_config *config)
{
    config_clear_net(config);
    for (size_t i = 0; i < config->vsock_port_count; i++) {
        if (config->vsock_ports[i].has_ops && config->vsock_ports[i].ops.release != NULL)
            config->vsock_ports[i].ops.release(config->vsock_ports[i].ops_user);
        free(config->vsock_ports[i].path);
    }
    free(config->net);
    free(config->port_map);
    free(config->vsock_ports);
    free(config->assigned_ip);
    free(config->tsi_group);
}

/* A random address with the bits of a locally administered unicast one (IEEE 802, 8.2). */
static int make_mac(uint8_t mac[6], struct vial_error *err)
{
    if (getrandom(mac, 6, 0) != 6)
        return error_set_os(err, VIAL_PHASE_CONFIGURE, errno, "cannot get random bytes for a MAC address");
    mac[0] = (uint8_t)((mac[0] | 0x02) & 0xfe);
    return 0;
}

static int copy_lists(struct net_config *net, const struct vial_net_options *options, struct vial_error *err)
{
    const struct {
        struct string_list *list;
        const char *const *strings;
        const char *field;
    } lists[] = {
        {&net->addresses, options->addresses, "net.addresses"},
        {&net->gateways, options->gateways, "net.gateways"},
        {&net->nameservers, options->nameservers, "net.nameservers"},
        {&net->published, options->published, "net.published"},
    };
    size_t total_bytes = 0;
    int result = 0;
    for (size_t i = 0; i < array_length(lists) && result == 0; i++)
        result = string_list_copy(lists[i].list, lists[i].strings, lists[i].field, &total_bytes, err);
    return result;
}

static int copy_net(struct net_config *net, const struct vial_net_options *options, size_t index,
                    struct vial_error *err)
{
    int result = 0;
    if (options->ops != NULL)
        result = config_take_sized(&net->ops, sizeof(net->ops), options->ops, err);
    if (options->has_mac)
        memcpy(net->mac, options->mac, sizeof(net->mac));
    else if (result == 0)
        result = make_mac(net->mac, err);
    if (result == 0 && !config_copy_text(&net->path, options->path))
        result = config_no_memory(err);
    if (result == 0)
        result = config_copy_fd(&net->fd, options->fd, "net", index, "fd", err);
    return result == 0 ? copy_lists(net, options, err) : result;
}

int vial_vm_config_add_net(struct vial_vm_config *config, const struct vial_net_options *options,
                           struct vial_error *err)
{
    struct vial_net_options ours = VIAL_NET_OPTIONS_INIT;
    int result = TAKE_SIZED(config, ours, options, err);
    if (result == 0)
        result = config_check_reserved(ours.padding, sizeof(ours.padding), err);
    if (result == 0)
        result = GROW(config, net, net_count, net_capacity, LIMIT_DEVICES, "net", err);
    if (result < 0)
        return result;
    struct net_config net = {
        .kind = (enum vial_net_kind)ours.kind,
        .fd = -1,
        .helper_fd = -1,
        .helper_said_fd = -1,
        .features = ours.features,
        .vfkit = ours.vfkit,
        .has_ops = ours.ops != NULL,
        .ops_user = ours.ops_user,
        .dhcp = ours.dhcp,
        .reaches_host = ours.reaches_host,
        .mtu = ours.mtu,
        .queue_pairs = ours.queue_pairs,
        .to_guest = ours.to_guest,
        .from_guest = ours.from_guest,
    };
    result = copy_net(&net, &ours, config->net_count, err);
    if (result < 0)
        net_free(&net);
    else
        config->net[config->net_count++] = net;
    return result;
}

int vial_vm_config_add_port(struct vial_vm_config *config, uint16_t host_port, uint16_t guest_port,
                            struct vial_error *err)
{
    int result = config_check_free(config, err);
    if (result == 0)
        result = GROW(config, port_map, port_count, port_capacity, LIMIT_PORTS, "port_map", err);
    if (result < 0)
        return result;
    config->port_map[config->port_count++] = (struct port_config){.host = host_port, .guest = guest_port};
    return 0;
}

int vial_vm_config_add_port_text(struct vial_vm_config *config, const char *text, struct vial_error *err)
{
    struct port_config pair;
    const char *why = NULL;
    int result = config_check_text(text, "port_map", err);
    if (result < 0)
        return result;
    result = parse_port_pair(text, &pair, &why);
    if (result < 0)
        return config_refuse_text(result, "port_map", config->port_count, "pair of ports", text, why,
                                  "write HOST:GUEST with numbers from 1 to 65535, such as 8080:80", err);
    return vial_vm_config_add_port(config, pair.host, pair.guest, err);
}

int vial_vm_config_set_tsi(struct vial_vm_config *config, const struct vial_tsi_options *options,
                           struct vial_error *err)
{
    struct vial_tsi_options ours = VIAL_TSI_OPTIONS_INIT;
    int result = TAKE_SIZED(config, ours, options, err);
    if (result < 0)
        return result;
    char *assigned_ip = NULL, *group = NULL;
    if (!config_copy_text(&assigned_ip, ours.assigned_ip) || !config_copy_text(&group, ours.group)) {
        free(assigned_ip);
        return config_no_memory(err);
    }
    free(config->assigned_ip);
    free(config->tsi_group);
    config->assigned_ip = assigned_ip;
    config->tsi_group = group;
    config->tsi_scope = ours.scope;
    config->local_only = ours.local_only;
    config->tsi_hijacks_unix = ours.hijack_unix;
    config->tsi_publishes_all = ours.publish_all;
    return 0;
}

int vial_vm_config_add_vsock_port(struct vial_vm_config *config, const struct vial_vsock_port_options *options,
                                  struct vial_error *err)
{
    struct vial_vsock_port_options ours = VIAL_VSOCK_PORT_OPTIONS_INIT;
    int result = TAKE_SIZED(config, ours, options, err);
    if (result == 0)
        result = GROW(config, vsock_ports, vsock_port_count, vsock_port_capacity, LIMIT_PORTS, "vsock_ports", err);
    if (result < 0)
        return result;
    struct vsock_port_config port = {
        .port = ours.port,
        .listen = ours.listen,
        .has_ops = ours.ops != NULL,
        .ops_user = ours.ops_user,
    };
    if (ours.ops != NULL)
        result = config_take_sized(&port.ops, sizeof(port.ops), ours.ops, err);
    if (result < 0)
        return result;
    if (!config_copy_text(&port.path, ours.path))
        return config_no_memory(err);
    config->vsock_ports[config->vsock_port_count++] = port;
    return 0;
}
