// SPDX-License-Identifier: Apache-2.0
/* The options that say what a machine talks through. Short forms of what a configuration file can say (docs/CONFIG.md),
 * which knows more.
 *
 *     --net      none | passt[,WORD]… | tap:NAME[,WORD]… | unix:SOCKET[,WORD]… | unixgram:SOCKET[,WORD]…
 *     --publish  [ADDRESS:]PORT[:PORT][/tcp|/udp]
 *     --vsock    PORT=SOCKET[:listen]
 *
 * Published ports belong to a network of passt's, which may stand behind them; so they are put there when all options
 * were read.
 *
 * Invariants: as in machine.c.
 *
 * Trust: arguments are the user's own.
 */
#include "cli/machine.h"

#include "base/alloc.h"
#include "base/text.h"
#include "vmm/config_net.h"
#include "vmm/parse.h"

#include <string.h>

enum { most_of_a_list = 16 };

/* A network, and its lists while they are read. */
struct net_words {
    struct vial_net_options options;
    const char *addresses[most_of_a_list + 1], *gateways[most_of_a_list + 1], *nameservers[most_of_a_list + 1];
    bool is_manual;
};

static bool add(const char *list[most_of_a_list + 1], const char *value)
{
    size_t count = 0;
    while (list[count] != NULL)
        count++;
    if (count < most_of_a_list)
        list[count] = value;
    return count < most_of_a_list;
}

static bool take_u16(const char *value, uint16_t *number)
{
    uint64_t given = 0;
    if (text_to_u64(value, strlen(value), UINT16_MAX, &given) < 0)
        return false;
    *number = (uint16_t)given;
    return true;
}

static bool take_net_word(struct net_words *net, const char *word, const char *value)
{
    const char *why = NULL;
    if (machine_is_key(word, value, "address"))
        return add(net->addresses, value);
    if (machine_is_key(word, value, "gateway"))
        return add(net->gateways, value);
    if (machine_is_key(word, value, "dns"))
        return add(net->nameservers, value);
    if (machine_is_key(word, value, "mac"))
        return net->options.has_mac = parse_mac(value, net->options.mac, &why) == 0;
    if (machine_is_key(word, value, "mtu"))
        return take_u16(value, &net->options.mtu);
    if (machine_is_key(word, value, "queues"))
        return take_u16(value, &net->options.queue_pairs);
    bool *flags[] = {&net->options.dhcp, &net->options.reaches_host, &net->options.vfkit, &net->is_manual};
    static const char *const names[] = {"dhcp", "host", "vfkit", "manual"};
    for (size_t i = 0; i < array_length(names); i++)
        if (machine_is_flag(word, value, names[i]))
            return *flags[i] = true;
    return false;
}

/* "tap:NAME" and its kin; "passt" has nothing behind it. */
static bool take_net_kind(struct vial_net_options *options, const char *word)
{
    static const struct {
        const char *prefix;
        enum vial_net_kind kind;
    } kinds[] = {
        {"tap:", VIAL_NET_TAP},
        {"unix:", VIAL_NET_UNIXSTREAM},
        {"unixgram:", VIAL_NET_UNIXGRAM},
    };
    if (strcmp(word, "passt") == 0)
        options->kind = VIAL_NET_PASST;
    for (size_t i = 0; i < array_length(kinds); i++) {
        size_t length = strlen(kinds[i].prefix);
        if (strncmp(word, kinds[i].prefix, length) == 0 && word[length] != '\0') {
            options->kind = kinds[i].kind;
            options->path = word + length;
        }
    }
    return options->kind != 0;
}

int machine_take_net(void *user, const struct command_option *option, const char *value)
{
    struct machine_arguments *arguments = user;
    struct net_words net = {.options = VIAL_NET_OPTIONS_INIT};
    auto_free char *text = alloc_string(value);
    char *rest = text;
    const char *word_value;
    if (text == NULL)
        return machine_fail_memory(option, value);
    if (strcmp(value, "none") == 0) { /* and none of a configuration file's */
        config_clear_net(arguments->config);
        return machine_finish(arguments, option, 0);
    }
    const char *kind = strsep(&rest, ",");
    if (!take_net_kind(&net.options, kind))
        return refuse_value(option->name, value, "there is no such network",
                            "use none, passt, tap:NAME, unix:SOCKET or unixgram:SOCKET");
    for (const char *word; (word = machine_next_word(&rest, &word_value)) != NULL;)
        if (!take_net_word(&net, word, word_value))
            return refuse_value(option->name, word, "it is not something that a network can have",
                                "use address=10.0.2.15/24, gateway=…, dns=…, dhcp, manual, mac=…, mtu=N, queues=N, "
                                "host or vfkit");
    if (net.is_manual && net.options.kind == VIAL_NET_PASST)
        return refuse_value(option->name, value, "passt's network is set up in the guest by itself",
                            "leave manual out, or run passt yourself and use unix:SOCKET,manual");
    bool has_addresses = net.addresses[0] != NULL || net.gateways[0] != NULL;
    if (net.is_manual && (has_addresses || net.options.dhcp))
        return refuse_value(option->name, value, "what is set up by hand gets no addresses", "leave manual out");
    if (net.is_manual && net.options.kind == VIAL_NET_PASST)
        return refuse_value(option->name, value, "a guest of passt's is always set up", "leave manual out");
    if (net.options.kind != VIAL_NET_PASST && !has_addresses && !net.is_manual)
        net.options.dhcp = true;
    net.options.addresses = net.addresses;
    net.options.gateways = net.gateways;
    net.options.nameservers = net.nameservers;
    return machine_finish(arguments, option,
                          vial_vm_config_add_net(arguments->config, &net.options, &arguments->error));
}

int machine_take_publish(void *user, const struct command_option *option, const char *value)
{
    struct machine_arguments *arguments = user;
    struct published_port port;
    const char *why = NULL;
    if (parse_published(value, &port, &why) < 0)
        return refuse_value(option->name, value, why,
                            "write PORT:PORT, the host's first, such as 8080:80, 127.0.0.2:8080:80 or 5353:53/udp");
    if (arguments->published_count == array_length(arguments->published))
        return refuse_value(option->name, value, "there are too many", "put them into a configuration file");
    arguments->published[arguments->published_count++] = value;
    return 0;
}

int machine_publish(struct machine_arguments *arguments)
{
    struct vial_vm_config *config = arguments->config;
    struct net_config *net = NULL;
    for (size_t i = 0; i < config->net_count && net == NULL; i++)
        net = config->net[i].kind == VIAL_NET_PASST ? &config->net[i] : NULL;
    if (arguments->published_count == 0)
        return 0;
    if (net == NULL)
        return refuse_value("--publish", arguments->published[0], "the guest has no network that could be reached",
                            "add --net passt");
    for (size_t i = 0; i < arguments->published_count; i++) {
        char *copy = alloc_string(arguments->published[i]);
        if (copy == NULL || alloc_grow((void **)&net->published.items, net->published.count, &net->published.capacity,
                                       sizeof(net->published.items[0]), LIMIT_PORTS) < 0) {
            free(copy);
            return refuse_value("--publish", arguments->published[i], "there is no memory for it", "free some");
        }
        net->published.items[net->published.count++] = copy;
    }
    return 0;
}

int machine_take_vsock(void *user, const struct command_option *option, const char *value)
{
    static const char suffix[] = ":listen";
    struct machine_arguments *arguments = user;
    struct vial_vsock_port_options port = VIAL_VSOCK_PORT_OPTIONS_INIT;
    auto_free char *text = alloc_string(value);
    uint64_t number = 0;
    if (text == NULL)
        return machine_fail_memory(option, value);
    char *equals = strchr(text, '=');
    size_t length = strlen(text);
    bool is_pair = equals != NULL && text_to_u64(text, (size_t)(equals - text), UINT32_MAX, &number) == 0 &&
                   equals[1] != '\0' && strcmp(equals + 1, suffix) != 0;
    if (!is_pair)
        return refuse_value(option->name, value, "it is no vsock port and its socket",
                            "write PORT=SOCKET, such as 1024=/run/my.sock");
    if (length >= sizeof(suffix) && strcmp(text + length - (sizeof(suffix) - 1), suffix) == 0) {
        text[length - (sizeof(suffix) - 1)] = '\0';
        port.listen = true;
    }
    port.port = (uint32_t)number;
    port.path = equals + 1;
    return machine_finish(arguments, option,
                          vial_vm_config_add_vsock_port(arguments->config, &port, &arguments->error));
}
