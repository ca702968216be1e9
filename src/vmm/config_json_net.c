// SPDX-License-Identifier: Apache-2.0
/* The sections of a configuration file that are about networks. docs/CONFIG.md has their keys.
 *
 * Invariants: as in config_json.c.
 *
 * Trust: as in config_json.c.
 */
#include "vmm/config_json.h"

#include "base/alloc.h"
#include "base/error.h"
#include "vmm/parse.h"

/* "custom" is what a program's own backend is dumped as; a file cannot ask for one. */
const char *const config_net_kinds[] = {"unixgram", "unixstream", "tap", "custom", "passt", NULL};

const char *const config_tsi_scopes[] = {"any", "public", "group", "none", NULL};

const struct config_net_feature config_net_features[] = {
    {"csum", VIAL_NET_FEATURE_CSUM},
    {"guest-csum", VIAL_NET_FEATURE_GUEST_CSUM},
    {"guest-tso4", VIAL_NET_FEATURE_GUEST_TSO4},
    {"guest-tso6", VIAL_NET_FEATURE_GUEST_TSO6},
    {"guest-ufo", VIAL_NET_FEATURE_GUEST_UFO},
    {"host-tso4", VIAL_NET_FEATURE_HOST_TSO4},
    {"host-tso6", VIAL_NET_FEATURE_HOST_TSO6},
    {"host-ufo", VIAL_NET_FEATURE_HOST_UFO},
    {NULL, 0},
};

static int read_net_features(const struct json_cursor *at, uint32_t *features, struct vial_error *err)
{
    const char *names[sizeof(config_net_features) / sizeof(config_net_features[0])];
    size_t count = 0;
    for (size_t i = 0; i < array_length(names); i++)
        names[i] = config_net_features[i].name;
    int result = json_get_count(at, LIMIT_STRINGS, &count, err);
    for (size_t i = 0; i < count && result == 0; i++) {
        struct json_cursor element = json_element(at, i);
        int choice = 0;
        result = json_get_choice(&element, names, &choice, err);
        if (result == 0)
            *features |= config_net_features[choice].bit;
    }
    return result;
}

static int read_mac(const struct json_cursor *at, struct vial_net_options *net, struct vial_error *err)
{
    const char *text = NULL, *why = NULL;
    int result = json_get_text(at, &text, err);
    if (result < 0)
        return result;
    if (parse_mac(text, net->mac, &why) < 0) {
        result = error_set(err, VIAL_ERROR_SYNTAX, VIAL_PHASE_CONFIGURE, "\"%s\" is not a MAC address: %s", text, why);
        json_blame(at, err);
        error_remedy(err, "write it as in 52:54:00:12:34:56, or leave it out for a random one");
        return result;
    }
    net->has_mac = true;
    return 0;
}

static int read_rate(const struct json_cursor *at, const char *key, struct vial_net_rate *rate, struct vial_error *err)
{
    static const struct member members[] = {
        {MEMBER(vial_net_rate, bytes_per_second, MEMBER_U64)},
        {MEMBER(vial_net_rate, burst_bytes, MEMBER_U64)},
        {MEMBER(vial_net_rate, packets_per_second, MEMBER_U64)},
        {MEMBER(vial_net_rate, burst_packets, MEMBER_U64)},
        {.key = NULL},
    };
    struct json_cursor member;
    return json_member(at, key, &member) ? json_read_object(&member, members, rate, err) : 0;
}

static int read_limits(const struct json_cursor *at, struct vial_net_options *net, struct vial_error *err)
{
    static const char *const keys[] = {"to_guest", "from_guest", NULL};
    struct json_cursor member;
    if (!json_member(at, "limits", &member))
        return 0;
    int result = json_check_object(&member, keys, err);
    if (result == 0)
        result = read_rate(&member, keys[0], &net->to_guest, err);
    return result == 0 ? read_rate(&member, keys[1], &net->from_guest, err) : result;
}

static int refuse_custom(const struct json_cursor *at, struct vial_error *err)
{
    struct json_cursor kind = *at;
    int result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_CONFIGURE,
                           "a custom network is functions of a program, which no file can hold");
    json_member(at, "kind", &kind);
    json_blame(&kind, err);
    error_remedy(err, "use passt, tap, unixstream or unixgram, or vial_vm_config_add_net in the program");
    return result;
}

enum { list_count = 4 };

/* The lists that it has; theirs is the memory that options point to. */
static int read_lists(const struct json_cursor *at, struct json_strings lists[list_count], struct vial_net_options *net,
                      struct vial_error *err)
{
    static const char *const keys[list_count] = {"addresses", "gateways", "nameservers", "published"};
    const char *const **places[list_count] = {&net->addresses, &net->gateways, &net->nameservers, &net->published};
    int result = 0;
    for (size_t i = 0; i < list_count && result == 0; i++) {
        struct json_cursor member;
        if (json_member(at, keys[i], &member))
            result = json_read_strings(&member, &lists[i], err);
        *places[i] = lists[i].items;
    }
    return result;
}

int json_read_net(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    static const struct member members[] = {
        {CHOICE(vial_net_options, kind, config_net_kinds, VIAL_NET_UNIXGRAM)},
        {MEMBER(vial_net_options, path, MEMBER_TEXT)},
        {MEMBER(vial_net_options, fd, MEMBER_FD)},
        {MEMBER(vial_net_options, vfkit, MEMBER_BOOL)},
        {OTHER("mac")},
        {OTHER("features")},
        {MEMBER(vial_net_options, mtu, MEMBER_U16)},
        {MEMBER(vial_net_options, queue_pairs, MEMBER_U16)},
        {MEMBER(vial_net_options, dhcp, MEMBER_BOOL)},
        {MEMBER(vial_net_options, reaches_host, MEMBER_BOOL)},
        {OTHER("addresses")},
        {OTHER("gateways")},
        {OTHER("nameservers")},
        {OTHER("published")},
        {OTHER("limits")},
        {.key = NULL},
    };
    struct vial_net_options net = VIAL_NET_OPTIONS_INIT;
    struct json_strings lists[list_count] = {0};
    struct json_cursor member;
    int result = json_read_object(at, members, &net, err);
    if (result == 0 && net.kind == 0)
        return json_refuse_missing(at, "kind", "name the kind of network: passt, tap, unixstream or unixgram", err);
    if (result == 0 && net.kind == VIAL_NET_CUSTOM)
        return refuse_custom(at, err);
    if (result == 0 && json_member(at, "mac", &member))
        result = read_mac(&member, &net, err);
    if (result == 0 && json_member(at, "features", &member))
        result = read_net_features(&member, &net.features, err);
    if (result == 0)
        result = read_limits(at, &net, err);
    if (result == 0)
        result = read_lists(at, lists, &net, err);
    if (result == 0)
        result = vial_vm_config_add_net(config, &net, err);
    for (size_t i = 0; i < list_count; i++)
        json_strings_free(&lists[i]);
    return result;
}

int json_read_port(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    const char *text = NULL;
    int result = json_get_text(at, &text, err);
    return result == 0 ? vial_vm_config_add_port_text(config, text, err) : result;
}

int json_read_tsi(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    static const struct member members[] = {
        {MEMBER(vial_tsi_options, assigned_ip, MEMBER_TEXT)},
        {MEMBER(vial_tsi_options, group, MEMBER_TEXT)},
        {BYTE_CHOICE(vial_tsi_options, scope, config_tsi_scopes, VIAL_TSI_SCOPE_ANY)},
        {MEMBER(vial_tsi_options, local_only, MEMBER_BOOL)},
        {MEMBER(vial_tsi_options, hijack_unix, MEMBER_BOOL)},
        {MEMBER(vial_tsi_options, publish_all, MEMBER_BOOL)},
        {.key = NULL},
    };
    struct vial_tsi_options tsi = VIAL_TSI_OPTIONS_INIT;
    int result = json_read_object(at, members, &tsi, err);
    return result == 0 ? vial_vm_config_set_tsi(config, &tsi, err) : result;
}

int json_read_vsock_port(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    static const struct member members[] = {
        {MEMBER(vial_vsock_port_options, port, MEMBER_U32)},
        {MEMBER(vial_vsock_port_options, path, MEMBER_TEXT)},
        {MEMBER(vial_vsock_port_options, listen, MEMBER_BOOL)},
        {.key = NULL},
    };
    struct vial_vsock_port_options port = VIAL_VSOCK_PORT_OPTIONS_INIT;
    int result = json_read_object(at, members, &port, err);
    return result == 0 ? vial_vm_config_add_vsock_port(config, &port, err) : result;
}
