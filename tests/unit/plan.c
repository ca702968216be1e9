// SPDX-License-Identifier: Apache-2.0
/* Tests of vmm/plan where it is about networks: what the guest's init is told of each kind, what passt's guest is given
 * where nothing is said, and what a failure means. Mounts are tests/unit/exec.c's. */
#include "test.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "vmm/network.h"
#include "vmm/plan.h"

#include <errno.h>

static struct vial_error err;
static struct vial_vm_config *config;
static struct plan plan;

static void load(const char *json)
{
    config = NULL;
    if (vial_vm_config_load_text(json, strlen(json), &config, &err) < 0 || plan_make(&plan, config, &err) < 0)
        abort();
}

static void end(void)
{
    plan_free(&plan);
    vial_vm_config_free(config);
}

#define NETWORK(index, dhcp, all_addresses, all_gateways, all_nameservers)                                             \
    do {                                                                                                               \
        const struct init_network *network = &plan.networks[index];                                                    \
        CHECK_INT(network->wants_dhcp, dhcp);                                                                          \
        CHECK_TEXT(network->addresses, all_addresses);                                                                 \
        CHECK_TEXT(network->gateways, all_gateways);                                                                   \
        CHECK_TEXT(network->nameservers, all_nameservers);                                                             \
    } while (0)

TEST(a_machine_without_networks_has_none)
{
    load("{}");
    CHECK(plan.network_count == 0 && plan.count == 0);
    end();
}

TEST(each_kind_gets_what_was_said)
{
    load("{\"net\": [{\"kind\": \"tap\", \"path\": \"t0\", \"mac\": \"02:00:00:00:00:01\", \"dhcp\": true,"
         "  \"nameservers\": [\"9.9.9.9\", \"2620:fe::fe\"]},"
         " {\"kind\": \"unixstream\", \"path\": \"s\", \"mac\": \"02:00:00:00:00:02\","
         "  \"addresses\": [\"10.0.2.15/24\", \"fd00::15/64\"], \"gateways\": [\"10.0.2.2\", \"fd00::2\"]},"
         " {\"kind\": \"unixgram\", \"path\": \"g\", \"mac\": \"02:00:00:00:00:03\", \"addresses\": "
         "[\"192.0.2.1/32\"]}]}");
    CHECK_INT(plan.network_count, 3);
    NETWORK(0, true, "", "", "9.9.9.9 2620:fe::fe");
    NETWORK(1, false, "10.0.2.15/24 fd00::15/64", "10.0.2.2 fd00::2", "");
    NETWORK(2, false, "192.0.2.1/32", "", "");
    for (size_t i = 0; i < 3; i++)
        CHECK(memcmp(plan.networks[i].mac, config->net[i].mac, 6) == 0);
    CHECK_INT(plan.networks[1].mac[5], 2);
    end();
}

/* Who sets an interface up by hand, or in a root with an init of its own. */
TEST(a_network_of_which_nothing_is_said_is_left_alone)
{
    load("{\"net\": [{\"kind\": \"tap\", \"path\": \"t0\"}, {\"kind\": \"tap\", \"path\": \"t1\", \"dhcp\": true},"
         " {\"kind\": \"unixgram\", \"path\": \"g\"}]}");
    CHECK_INT(plan.network_count, 1);
    CHECK(memcmp(plan.networks[0].mac, config->net[1].mac, 6) == 0);
    end();
}

/* As network.c leaves it, on a host with both, or with one of them. */
static void settle(const char *json, bool has_ipv4, bool has_ipv6, const char *forwarder)
{
    config = NULL;
    if (vial_vm_config_load_text(json, strlen(json), &config, &err) < 0)
        abort();
    struct net_addresses *settled = &config->net[0].settled;
    *settled = (struct net_addresses){
        .address = {has_ipv4 ? NETWORK_PASST_ADDRESS : "", has_ipv6 ? NETWORK_PASST_ADDRESS_6 : ""},
        .forwarder = forwarder,
    };
    snprintf(settled->gateway[0], sizeof(settled->gateway[0]), "%s", has_ipv4 ? NETWORK_PASST_GATEWAY : "");
    snprintf(settled->gateway[1], sizeof(settled->gateway[1]), "%s", has_ipv6 ? NETWORK_PASST_GATEWAY_6 : "");
    if (plan_make(&plan, config, &err) < 0)
        abort();
}

TEST(a_guest_of_passts_has_what_was_settled)
{
    settle("{\"net\": [{\"kind\": \"passt\"}]}", true, true, NETWORK_PASST_NAMESERVER);
    CHECK_INT(plan.network_count, 1);
    NETWORK(0, false, "10.0.2.15/24 fd00:7669:616c::15/64", "10.0.2.2 fd00:7669:616c::2", "10.0.2.3");
    end();
    settle("{\"net\": [{\"kind\": \"passt\"}]}", true, false, NETWORK_PASST_NAMESERVER);
    NETWORK(0, false, "10.0.2.15/24", "10.0.2.2", "10.0.2.3");
    end();
    settle("{\"net\": [{\"kind\": \"passt\"}]}", false, true, NETWORK_PASST_NAMESERVER_6);
    NETWORK(0, false, "fd00:7669:616c::15/64", "fd00:7669:616c::2", "fd00:7669:616c::3");
    end();
    settle("{\"net\": [{\"kind\": \"passt\"}]}", false, false, NULL);
    NETWORK(0, false, "", "", "");
    end();
    settle("{\"net\": [{\"kind\": \"passt\", \"nameservers\": [\"9.9.9.9\"]}]}", true, false, NULL);
    NETWORK(0, false, "10.0.2.15/24", "10.0.2.2", "9.9.9.9");
    end();
    settle("{\"net\": [{\"kind\": \"passt\", \"dhcp\": true, \"nameservers\": [\"9.9.9.9\"]}]}", true, true, NULL);
    NETWORK(0, true, "", "", "9.9.9.9"); /* passt says the rest */
    end();
}

/* An address without a way out of its network. */
TEST(a_gateway_may_be_missing)
{
    config = NULL;
    CHECK_INT(vial_vm_config_load_text("{\"net\": [{\"kind\": \"passt\"}]}", 28, &config, &err), 0);
    config->net[0].settled = (struct net_addresses){.address = {"192.0.2.7/24", "2001:db8::7/64"}, .gateway = {"", ""}};
    CHECK_INT(plan_make(&plan, config, &err), 0);
    CHECK_INT(plan.network_count, 1);
    struct init_setup setup = {.networks = plan.networks, .network_count = 1};
    auto_buffer struct buffer buffer = BUFFER_INIT(4096);
    CHECK_TEXT(plan.networks[0].addresses, "192.0.2.7/24 2001:db8::7/64");
    CHECK_INT(strspn(plan.networks[0].gateways, " "), strlen(plan.networks[0].gateways)); /* no word */
    CHECK_INT(init_encode_setup(&setup, &buffer), 0);
    end();
}

/* All that a configuration can hold, in the longest words, is something that can be said. */
TEST(the_most_addresses_fit)
{
    static const char longest[] = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255";
    auto_buffer struct buffer json = BUFFER_INIT(1 << 20);
    buffer_format(&json, "{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"addresses\": [");
    for (int i = 0; i < 2 * LIMIT_NET_ADDRESSES; i++)
        buffer_format(&json, "%s\"%s/128\"", i > 0 ? ", " : "", longest);
    buffer_format(&json, "], \"gateways\": [\"255.255.255.255\", \"%s\"], \"nameservers\": [", longest);
    for (int i = 0; i < 2 * LIMIT_NET_NAMESERVERS; i++)
        buffer_format(&json, "%s\"%s\"", i > 0 ? ", " : "", longest);
    buffer_format(&json, "]}]}");
    load(json.data);
    struct init_setup setup = {.networks = plan.networks, .network_count = plan.network_count};
    auto_buffer struct buffer buffer = BUFFER_INIT(INIT_HEADER_BYTES + LIMIT_SETUP_BYTES);
    CHECK_INT(plan.network_count, 1);
    CHECK_INT(strlen(plan.networks[0].addresses), 2 * LIMIT_NET_ADDRESSES * (sizeof(longest) + 4) - 1);
    CHECK_INT(init_encode_setup(&setup, &buffer), 0);
    end();
}

TEST(plans_survive_no_memory)
{
    static const char json[] = "{\"net\": [{\"kind\": \"passt\"}, {\"kind\": \"tap\", \"path\": \"t\","
                               " \"addresses\": [\"10.0.0.1/8\"], \"nameservers\": [\"9.9.9.9\"]}],"
                               " \"tmpfs\": [{\"guest\": \"/t\"}], \"mapped_dirs\": [\"/:/h\"]}";
    config = NULL;
    CHECK_INT(vial_vm_config_load_text(json, sizeof(json) - 1, &config, &err), 0);
    config->net[0].settled = (struct net_addresses){
        .address = {NETWORK_PASST_ADDRESS, NETWORK_PASST_ADDRESS_6},
        .gateway = {NETWORK_PASST_GATEWAY, NETWORK_PASST_GATEWAY_6},
    };
    FOR_EACH_FAULT
    {
        struct plan made = PLAN_EMPTY;
        int result = plan_make(&made, config, &err);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
        CHECK_INT(made.network_count, result == 0 ? 2 : 0);
        plan_free(&made);
    }
    vial_vm_config_free(config);
}

/* ---- what failed ---- */

static const char *explain(enum init_stage stage, uint32_t number, uint32_t os_error)
{
    static char text[512];
    struct init_answer failure = {.kind = INIT_FAILED, .stage = stage, .os_error = os_error, .mount = number};
    if (!plan_is_blamed(&failure))
        return "not the plan's";
    plan_explain(&plan, &failure, text, sizeof(text));
    return text;
}

TEST(a_failure_names_the_network_as_the_configuration_does)
{
    load("{\"net\": [{\"kind\": \"tap\", \"path\": \"t0\"}, {\"kind\": \"tap\", \"path\": \"t1\", \"dhcp\": true},"
         " {\"kind\": \"tap\", \"path\": \"t2\", \"addresses\": [\"10.0.0.1/8\"]}]}");
    CHECK_TEXT(explain(INIT_STAGE_LEASE, 0, ETIMEDOUT),
               "net[1]: nobody gives the guest an address by DHCP: Connection timed out");
    CHECK_TEXT(explain(INIT_STAGE_INTERFACE, 1, ENODEV),
               "net[2]: the guest's interface cannot be set up: No such device");
    CHECK_TEXT(explain(INIT_STAGE_INTERFACE, 2, ENODEV), "interface: No such device"); /* it was told of two */
    CHECK_TEXT(explain(INIT_STAGE_INTERFACE, INIT_NO_MOUNT, 4095),
               "the name servers cannot be shown in /etc/resolv.conf: an unknown error of the guest");
    CHECK_TEXT(explain(INIT_STAGE_EXEC, INIT_NO_MOUNT, ENOENT), "not the plan's");
    end();
}
