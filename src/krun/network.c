// SPDX-License-Identifier: Apache-2.0
/* Network interfaces, vsock ports, and TSI.
 *
 * A vsock device is there by itself, as long as nobody disables it; after that a program may add its own. TSI goes
 * through it where there is no interface, or where a program's own device has it.
 *
 * Invariants: (1) a call that fails has changed nothing. (2) an interface of the older form excludes those of the newer
 * one. (3) ports of the host, and of the guest, appear in a port map once.
 *
 * Trust: arguments are the embedding program's.
 */
#include "krun/context.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/text.h"
#include "libkrun.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* ---- interfaces ---- */

enum { guest_offloads = NET_FEATURE_GUEST_TSO4 | NET_FEATURE_GUEST_TSO6 | NET_FEATURE_GUEST_UFO };
enum { all_features = COMPAT_NET_FEATURES | NET_FEATURE_GUEST_TSO6 | NET_FEATURE_HOST_TSO6 };

static void free_net(struct krun_net *net)
{
    free(net->path);
    fd_close(net->fd);
    *net = (struct krun_net){.fd = -1};
}

void krun_network_free(struct krun_context *context)
{
    for (size_t i = 0; i < context->net_count; i++)
        free_net(&context->nets[i]);
    for (size_t i = 0; i < context->vsock_port_count; i++)
        free(context->vsock_ports[i].path);
    free_net(&context->legacy_net);
    free(context->nets);
    free(context->vsock_ports);
    free(context->ports);
    free(context->rewrite_ip);
}

static int keep_net(uint32_t ctx_id, const struct krun_net *net)
{
    struct krun_context *context = krun_hold(ctx_id);
    if (context == NULL)
        return -ENOENT;
    int result = context->legacy_net.kind != 0 ? -EINVAL : 0;
    if (result == 0)
        result = alloc_grow((void **)&context->nets, context->net_count, &context->net_capacity,
                            sizeof(context->nets[0]), LIMIT_DEVICES);
    if (result == 0)
        context->nets[context->net_count++] = *net;
    krun_let_go();
    return result;
}

static int add_net(uint32_t ctx_id, struct krun_net net, const char *path, int fd, const uint8_t *mac, uint32_t flags,
                   uint32_t known_flags)
{
    bool has_one = (path != NULL) != (fd >= 0);
    if (!has_one || mac == NULL || (flags & ~known_flags) != 0 || (net.features & ~(uint32_t)all_features) != 0)
        return -EINVAL;
    net.fd = -1;
    net.vfkit = path != NULL && (flags & NET_FLAG_VFKIT) != 0;
    net.dhcp = (flags & NET_FLAG_DHCP_CLIENT) != 0;
    memcpy(net.mac, mac, sizeof(net.mac));
    int result = krun_copy_text(path, true, &net.path);
    if (result == 0)
        result = krun_copy_fd(fd, &net.fd);
    if (result == 0)
        result = keep_net(ctx_id, &net);
    if (result < 0)
        free_net(&net);
    return result;
}

int32_t krun_add_net_unixstream(uint32_t ctx_id, const char *c_path, int fd, uint8_t *const c_mac, uint32_t features,
                                uint32_t flags)
{
    struct krun_net net = {.kind = VIAL_NET_UNIXSTREAM, .features = features};
    return add_net(ctx_id, net, c_path, fd, c_mac, flags, NET_FLAG_DHCP_CLIENT);
}

int32_t krun_add_net_unixgram(uint32_t ctx_id, const char *c_path, int fd, uint8_t *const c_mac, uint32_t features,
                              uint32_t flags)
{
    struct krun_net net = {.kind = VIAL_NET_UNIXGRAM, .features = features};
    return add_net(ctx_id, net, c_path, fd, c_mac, flags, NET_FLAG_VFKIT | NET_FLAG_DHCP_CLIENT);
}

int32_t krun_add_net_tap(uint32_t ctx_id, char *c_tap_name, uint8_t *const c_mac, uint32_t features, uint32_t flags)
{
    struct krun_net net = {.kind = VIAL_NET_TAP, .features = features};
    if ((features & guest_offloads) != 0 && (features & NET_FEATURE_GUEST_CSUM) == 0)
        return -EINVAL;
    return add_net(ctx_id, net, c_tap_name, -1, c_mac, flags, NET_FLAG_DHCP_CLIENT);
}

/* The last call counts. */
static int set_legacy_net(uint32_t ctx_id, struct krun_net *net)
{
    struct krun_context *context = krun_hold(ctx_id);
    int result = context == NULL ? -ENOENT : context->net_count > 0 ? -EINVAL : 0;
    net->features = COMPAT_NET_FEATURES;
    if (result == 0) {
        free_net(&context->legacy_net);
        context->legacy_net = *net;
    } else {
        free_net(net);
    }
    if (context != NULL)
        krun_let_go();
    return result;
}

int32_t krun_set_passt_fd(uint32_t ctx_id, int fd)
{
    struct krun_net net = {.kind = VIAL_NET_UNIXSTREAM, .fd = -1};
    if (fd < 0)
        return -EINVAL;
    int result = krun_copy_fd(fd, &net.fd);
    return result < 0 ? result : set_legacy_net(ctx_id, &net);
}

int32_t krun_set_gvproxy_path(uint32_t ctx_id, char *c_path)
{
    struct krun_net net = {.kind = VIAL_NET_UNIXGRAM, .fd = -1, .vfkit = true};
    int result = krun_copy_text(c_path, false, &net.path);
    return result < 0 ? result : set_legacy_net(ctx_id, &net);
}

int32_t krun_set_net_mac(uint32_t ctx_id, uint8_t *const c_mac)
{
    if (c_mac == NULL)
        return -EINVAL;
    struct krun_context *context = krun_hold(ctx_id);
    if (context == NULL)
        return -ENOENT;
    memcpy(context->legacy_mac, c_mac, sizeof(context->legacy_mac));
    krun_let_go();
    return 0;
}

/* ---- the port map ---- */

/* "host:guest", both numbers in full. */
static int parse_pair(const char *text, struct port_config *ret_pair)
{
    const char *colon = strchr(text, ':');
    uint64_t host = 0, guest = 0;
    if (colon == NULL || text_to_u64(text, (size_t)(colon - text), UINT16_MAX, &host) < 0 ||
        text_to_u64(colon + 1, strlen(colon + 1), UINT16_MAX, &guest) < 0 || host == 0 || guest == 0)
        return -EINVAL;
    *ret_pair = (struct port_config){(uint16_t)host, (uint16_t)guest};
    return 0;
}

static int parse_map(const struct string_list *list, struct port_config *pairs)
{
    for (size_t i = 0; i < list->count; i++) {
        int result = parse_pair(list->items[i], &pairs[i]);
        if (result < 0)
            return result;
        for (size_t j = 0; j < i; j++)
            if (pairs[j].host == pairs[i].host || pairs[j].guest == pairs[i].guest)
                return -EINVAL;
    }
    return 0;
}

static int set_map(uint32_t ctx_id, struct port_config **pairs, size_t count, bool has_map)
{
    struct krun_context *context = krun_hold(ctx_id);
    if (context == NULL)
        return -ENOENT;
    int result = context->vsock == KRUN_VSOCK_DISABLED                     ? -ENODEV
                 : context->net_count > 0 || context->legacy_net.kind != 0 ? -EINVAL
                                                                           : 0;
    if (result == 0) {
        free(context->ports);
        context->ports = steal_ptr(*pairs);
        context->port_count = count;
        context->has_port_map = has_map;
    }
    krun_let_go();
    return result;
}

int32_t krun_set_port_map(uint32_t ctx_id, const char *const port_map[])
{
    struct string_list list = {0};
    int result = krun_copy_strings(port_map, &list);
    if (result < 0)
        return result;
    size_t count = list.count;
    auto_free struct port_config *pairs = alloc_zero((count + 1) * sizeof(pairs[0]));
    result = pairs != NULL ? parse_map(&list, pairs) : -ENOMEM;
    if (result == 0 && count > LIMIT_PORTS)
        result = -E2BIG;
    krun_free_strings(&list);
    return result < 0 ? result : set_map(ctx_id, &pairs, count, port_map != NULL);
}

/* ---- vsock ---- */

/* The last call for a port counts. */
static int keep_port(struct krun_context *context, struct krun_vsock_port *port)
{
    for (size_t i = 0; i < context->vsock_port_count; i++)
        if (context->vsock_ports[i].port == port->port) {
            free(context->vsock_ports[i].path);
            context->vsock_ports[i] = *port;
            return 0;
        }
    int result = alloc_grow((void **)&context->vsock_ports, context->vsock_port_count, &context->vsock_port_capacity,
                            sizeof(context->vsock_ports[0]), LIMIT_PORTS);
    if (result == 0)
        context->vsock_ports[context->vsock_port_count++] = *port;
    return result;
}

int32_t krun_add_vsock_port2(uint32_t ctx_id, uint32_t port, const char *c_filepath, bool listen)
{
    struct stat status;
    struct krun_vsock_port added = {.port = port, .listen = listen};
    int result = krun_copy_text(c_filepath, false, &added.path);
    if (result < 0)
        return result;
    if (listen && lstat(added.path, &status) == 0)
        result = -EEXIST;
    else if (listen && errno != ENOENT)
        result = -EINVAL;
    struct krun_context *context = result == 0 ? krun_hold(ctx_id) : NULL;
    if (result == 0 && context == NULL)
        result = -ENOENT;
    if (result == 0 && context->vsock == KRUN_VSOCK_DISABLED)
        result = -ENODEV;
    if (result == 0)
        result = keep_port(context, &added);
    if (context != NULL)
        krun_let_go();
    if (result < 0)
        free(added.path);
    return result;
}

int32_t krun_add_vsock_port(uint32_t ctx_id, uint32_t port, const char *c_filepath)
{
    return krun_add_vsock_port2(ctx_id, port, c_filepath, false);
}

int32_t krun_disable_implicit_vsock(uint32_t ctx_id)
{
    struct krun_context *context = krun_hold(ctx_id);
    if (context == NULL)
        return -ENOENT;
    context->vsock = KRUN_VSOCK_DISABLED;
    krun_let_go();
    return 0;
}

int32_t krun_add_vsock(uint32_t ctx_id, uint32_t tsi_features)
{
    if ((tsi_features & ~(uint32_t)(KRUN_TSI_HIJACK_INET | KRUN_TSI_HIJACK_UNIX)) != 0)
        return -EINVAL;
    struct krun_context *context = krun_hold(ctx_id);
    if (context == NULL)
        return -ENOENT;
    int result = context->vsock != KRUN_VSOCK_DISABLED ? -EEXIST : 0;
    if (result == 0) {
        context->vsock = KRUN_VSOCK_EXPLICIT;
        context->tsi_features = tsi_features;
    }
    krun_let_go();
    return result;
}

/* ---- two calls of an older fork ---- */

int32_t krun_set_tsi_rewrite_ip(uint32_t ctx_id, const char *ip)
{
    struct in_addr address;
    if (krun_check_text(ip, false) < 0 || inet_pton(AF_INET, ip, &address) != 1)
        return -EINVAL;
    return krun_set_text(ctx_id, KRUN_MEMBER(rewrite_ip), ip);
}

int32_t krun_enable_tsi_local_only(uint32_t ctx_id, bool enable)
{
    return krun_set_flag(ctx_id, KRUN_MEMBER(local_only), enable);
}
