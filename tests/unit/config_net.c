// SPDX-License-Identifier: Apache-2.0
/* Tests of vmm/config_net and config_json_net: networks in a program's words and in a file's, and back again. */
#include "test.h"

#include "base/alloc.h"
#include "base/limits.h"
#include "vmm/config.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

static struct vial_error err;

static struct vial_vm_config *config_new(void)
{
    struct vial_vm_config *config = NULL;
    if (vial_vm_config_new(&config, &err) < 0)
        abort();
    return config;
}

static struct vial_vm_config *load(const char *json)
{
    struct vial_vm_config *config = NULL;
    if (vial_vm_config_load_text(json, strlen(json), &config, &err) < 0)
        abort();
    return config;
}

/* ---- a program's words ---- */

TEST(everything_is_copied)
{
    char address[] = "10.0.2.15/24", gateway[] = "10.0.2.2", path[] = "/run/s";
    const char *addresses[] = {address, "fd00::1/64", NULL}, *gateways[] = {gateway, NULL};
    struct vial_net_options net = VIAL_NET_OPTIONS_INIT;
    struct vial_vm_config *config = config_new();
    int ends[2];
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    net.kind = VIAL_NET_UNIXSTREAM;
    net.path = path;
    net.fd = ends[0];
    net.addresses = addresses;
    net.gateways = gateways;
    net.mtu = 9000;
    net.queue_pairs = 2;
    net.to_guest.bytes_per_second = 1;
    net.to_guest.burst_packets = 2;
    net.from_guest.packets_per_second = 3;
    net.from_guest.burst_bytes = 4;
    net.reaches_host = true;
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    close(ends[0]);
    close(ends[1]);
    memset(address, 'x', sizeof(address) - 1);
    memset(gateway, 'x', sizeof(gateway) - 1);
    memset(path, 'x', sizeof(path) - 1);
    const struct net_config *got = &config->net[0];
    CHECK_TEXT(got->path, "/run/s");
    CHECK(got->fd >= 0 && fcntl(got->fd, F_GETFD) == FD_CLOEXEC && got->helper_fd == -1);
    CHECK_INT(got->addresses.count, 2);
    CHECK_TEXT(got->addresses.items[0], "10.0.2.15/24");
    CHECK_TEXT(got->addresses.items[1], "fd00::1/64");
    CHECK_TEXT(got->gateways.items[0], "10.0.2.2");
    CHECK(got->gateways.count == 1 && got->nameservers.count == 0 && got->published.count == 0);
    CHECK(got->mtu == 9000 && got->queue_pairs == 2 && !got->dhcp && got->reaches_host);
    CHECK(got->to_guest.bytes_per_second == 1 && got->to_guest.burst_packets == 2);
    CHECK(got->from_guest.packets_per_second == 3 && got->from_guest.burst_bytes == 4);
    vial_vm_config_free(config);
}

TEST(options_of_an_older_program_mean_what_they_meant)
{
    struct vial_net_options net = VIAL_NET_OPTIONS_INIT;
    struct vial_vsock_port_options port = VIAL_VSOCK_PORT_OPTIONS_INIT;
    struct vial_vm_config *config = config_new();
    net.kind = VIAL_NET_TAP;
    net.path = "t";
    net.mtu = 9000;
    net.size = offsetof(struct vial_net_options, addresses); /* before there were addresses */
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    CHECK(config->net[0].mtu == 0 && config->net[0].addresses.count == 0 && !config->net[0].dhcp);
    net.size = sizeof(net);
    net.reserved[1] = 1;
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), -E2BIG);
    port.reserved[0] = 1;
    CHECK_INT(vial_vm_config_add_vsock_port(config, &port, &err), -E2BIG);
    CHECK(config->net_count == 1 && config->vsock_port_count == 0);
    vial_vm_config_free(config);
}

static int releases;

static void count_release(void *user)
{
    (void)user;
    releases++;
}

TEST(a_backend_is_released_with_the_configuration_that_has_taken_it)
{
    struct vial_vsock_ops ops = VIAL_VSOCK_OPS_INIT;
    struct vial_vsock_port_options port = VIAL_VSOCK_PORT_OPTIONS_INIT;
    struct vial_vm_config *config = config_new();
    ops.release = count_release;
    port.port = 1;
    port.ops = &ops;
    releases = 0;
    CHECK_INT(vial_vm_config_add_vsock_port(config, &port, &err), 0);
    port.reserved[0] = 1;
    CHECK_INT(vial_vm_config_add_vsock_port(config, &port, &err), -E2BIG); /* still the caller's */
    CHECK(config->vsock_ports[0].has_ops && config->vsock_ports[0].path == NULL);
    CHECK_INT(releases, 0);
    vial_vm_config_free(config);
    CHECK_INT(releases, 1);
}

TEST(lists_have_bounds)
{
    static const char *many[LIMIT_STRINGS + 2];
    struct vial_net_options net = VIAL_NET_OPTIONS_INIT;
    struct vial_vm_config *config = config_new();
    for (size_t i = 0; i < LIMIT_STRINGS + 1; i++)
        many[i] = "80";
    net.kind = VIAL_NET_PASST;
    net.published = many;
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), -E2BIG);
    CHECK(strstr(err.field, "net.published") == err.field);
    many[LIMIT_STRINGS] = NULL;
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    CHECK_INT(config->net_count, 1);
    auto_free char *longest = alloc_zero(LIMIT_EXEC_BYTES + 1);
    const char *one[] = {longest, NULL};
    memset(longest, '1', LIMIT_EXEC_BYTES);
    net.published = NULL;
    net.nameservers = one;
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), -E2BIG);
    CHECK_TEXT(err.field, "net.nameservers[0]");
    CHECK_INT(config->net_count, 1);
    vial_vm_config_free(config);
}

TEST(networks_survive_no_memory)
{
    const char *list[] = {"10.0.2.15/24", "10.0.2.16/24", NULL};
    FOR_EACH_FAULT
    {
        struct vial_net_options net = VIAL_NET_OPTIONS_INIT;
        struct vial_vsock_port_options port = VIAL_VSOCK_PORT_OPTIONS_INIT;
        struct vial_tsi_options tsi = VIAL_TSI_OPTIONS_INIT;
        struct vial_vm_config *config = NULL;
        net.kind = VIAL_NET_PASST;
        net.path = "path";
        net.fd = 0;
        net.addresses = net.gateways = net.nameservers = net.published = list;
        port.port = 1;
        port.path = "path";
        tsi.assigned_ip = "127.0.0.2";
        int result = vial_vm_config_new(&config, &err);
        if (result == 0)
            result = vial_vm_config_add_net(config, &net, &err);
        if (result == 0)
            result = vial_vm_config_add_vsock_port(config, &port, &err);
        if (result == 0)
            result = vial_vm_config_set_tsi(config, &tsi, &err);
        if (result == 0)
            result = vial_vm_config_add_port_text(config, "8080:80", &err);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
        vial_vm_config_free(config);
    }
}

/* ---- a file's ---- */

static const char everything[] =
    "{\"net\": [{\"kind\": \"passt\", \"mac\": \"02:00:00:00:00:01\", \"mtu\": 1400, \"addresses\": [\"10.9.0.2/16\","
    " \"fd00::9/64\"], \"gateways\": [\"10.9.0.1\", \"fd00::1\"], \"nameservers\": [\"9.9.9.9\"],"
    " \"published\": [\"8080:80\", \"[::1]:53/udp\"], \"reaches_host\": true,"
    " \"limits\": {\"to_guest\": {\"bytes_per_second\": 1, \"burst_bytes\": 2, \"packets_per_second\": 3,"
    " \"burst_packets\": 9223372036854775807}, \"from_guest\": {\"bytes_per_second\": 5, \"burst_bytes\": 6,"
    " \"packets_per_second\": 7, \"burst_packets\": 8}}},"
    " {\"kind\": \"tap\", \"path\": \"t\", \"mac\": \"02:00:00:00:00:02\", \"queue_pairs\": 4, \"dhcp\": true,"
    " \"features\": [\"csum\", \"guest-csum\", \"guest-tso4\", \"guest-tso6\", \"guest-ufo\", \"host-tso4\","
    " \"host-tso6\", \"host-ufo\"], \"limits\": {\"from_guest\": {\"packets_per_second\": 9}}},"
    " {\"kind\": \"unixgram\", \"path\": \"g\", \"mac\": \"02:00:00:00:00:03\", \"vfkit\": true},"
    " {\"kind\": \"unixstream\", \"path\": \"s\", \"mac\": \"02:00:00:00:00:04\", \"limits\": {}}],"
    " \"port_map\": [\"8080:80\", \"443\"], \"tsi\": {\"assigned_ip\": \"127.0.0.2\", \"local_only\": true},"
    " \"vsock_ports\": [{\"port\": 4294967295, \"path\": \"v\"}, {\"port\": 2, \"path\": \"w\", \"listen\": true}]}";

TEST(a_file_says_everything)
{
    struct vial_vm_config *config = load(everything);
    CHECK(config->net_count == 4 && config->port_count == 2 && config->vsock_port_count == 2 && config->local_only);
    const struct net_config *passt = &config->net[0], *tap = &config->net[1];
    CHECK(passt->kind == VIAL_NET_PASST && passt->mtu == 1400 && passt->reaches_host && !passt->dhcp);
    CHECK(passt->addresses.count == 2 && passt->gateways.count == 2 && passt->nameservers.count == 1);
    CHECK_TEXT(passt->gateways.items[1], "fd00::1");
    CHECK_TEXT(passt->published.items[1], "[::1]:53/udp");
    CHECK(passt->to_guest.bytes_per_second == 1 && passt->to_guest.burst_bytes == 2);
    CHECK(passt->to_guest.packets_per_second == 3 && passt->to_guest.burst_packets == INT64_MAX);
    CHECK(passt->from_guest.bytes_per_second == 5 && passt->from_guest.burst_bytes == 6);
    CHECK(passt->from_guest.packets_per_second == 7 && passt->from_guest.burst_packets == 8);
    CHECK(tap->kind == VIAL_NET_TAP && tap->queue_pairs == 4 && tap->dhcp && tap->addresses.count == 0);
    CHECK(tap->from_guest.packets_per_second == 9 && tap->to_guest.packets_per_second == 0);
    CHECK_INT(tap->features, 0x5d83);
    CHECK(config->net[2].vfkit && config->net[2].kind == VIAL_NET_UNIXGRAM && config->net[3].mtu == 0);
    CHECK(config->vsock_ports[0].port == UINT32_MAX && config->vsock_ports[1].listen);
    vial_vm_config_free(config);
}

TEST(a_dump_reads_back_as_itself)
{
    auto_free char *first = NULL, *second = NULL;
    struct vial_vm_config *config = load(everything);
    CHECK_INT(vial_vm_config_dump(config, &first, &err), 0);
    struct vial_vm_config *again = load(first);
    CHECK_INT(vial_vm_config_dump(again, &second, &err), 0);
    CHECK_TEXT(second, first);
    CHECK(strstr(first, "9223372036854775807") != NULL && strstr(first, "\"[::1]:53/udp\"") != NULL);
    CHECK_INT(again->net[1].features, config->net[1].features);
    CHECK(memcmp(&again->net[0].to_guest, &config->net[0].to_guest, sizeof(struct vial_net_rate)) == 0);
    vial_vm_config_free(config);
    vial_vm_config_free(again);
}

TEST(files_survive_no_memory)
{
    auto_free char *whole = NULL;
    struct vial_vm_config *sound = load(everything);
    CHECK_INT(vial_vm_config_dump(sound, &whole, &err), 0);
    vial_vm_config_free(sound);
    FOR_EACH_FAULT
    {
        struct vial_vm_config *config = NULL;
        int result = vial_vm_config_load_text(whole, strlen(whole), &config, &err);
        CHECK(fault_was_hit() ? result == -ENOMEM || result == 0 : result == 0);
        vial_vm_config_free(config);
    }
}

TEST(what_a_file_may_not_say)
{
    static const struct {
        const char *json, *field;
    } rows[] = {
        {"{\"net\": {}}", "net"},
        {"{\"net\": [\"passt\"]}", "net[0]"},
        {"{\"net\": [{\"kind\": \"slirp\"}]}", "net[0].kind"},
        {"{\"net\": [{\"kind\": \"passt\", \"adresses\": []}]}", "net[0].adresses"},
        {"{\"net\": [{\"kind\": \"passt\", \"addresses\": \"10.0.2.15/24\"}]}", "net[0].addresses"},
        {"{\"net\": [{\"kind\": \"passt\", \"addresses\": [1]}]}", "net[0].addresses[0]"},
        {"{\"net\": [{\"kind\": \"passt\", \"published\": [\"80\", null]}]}", "net[0].published[1]"},
        {"{\"net\": [{\"kind\": \"passt\", \"published\": [\"8\\u00000\"]}]}", "net[0].published[0]"},
        {"{\"net\": [{\"kind\": \"passt\", \"mtu\": -1}]}", "net[0].mtu"},
        {"{\"net\": [{\"kind\": \"passt\", \"mtu\": \"1500\"}]}", "net[0].mtu"},
        {"{\"net\": [{\"kind\": \"passt\", \"queue_pairs\": 65536}]}", "net[0].queue_pairs"},
        {"{\"net\": [{\"kind\": \"passt\", \"dhcp\": 1}]}", "net[0].dhcp"},
        {"{\"net\": [{\"kind\": \"passt\", \"limits\": []}]}", "net[0].limits"},
        {"{\"net\": [{\"kind\": \"passt\", \"limits\": {\"to_guest\": 1}}]}", "net[0].limits.to_guest"},
        {"{\"net\": [{\"kind\": \"passt\", \"limits\": {\"from_guest\": {\"bytes\": 1}}}]}",
         "net[0].limits.from_guest.bytes"},
        {"{\"vsock_ports\": [{\"port\": 4294967296, \"path\": \"v\"}]}", "vsock_ports[0].port"},
        {"{\"vsock_ports\": [{\"port\": 1, \"ops\": \"v\"}]}", "vsock_ports[0].ops"},
        {"{\"tsi\": {\"assigned_ip\": 1}}", "tsi.assigned_ip"},
    };
    for (size_t i = 0; i < array_length(rows); i++) {
        struct vial_vm_config *config = NULL;
        memset(&err, 0, sizeof(err));
        int result = vial_vm_config_load_text(rows[i].json, strlen(rows[i].json), &config, &err);
        if (result >= 0 || strcmp(err.field, rows[i].field) != 0 || err.remedy[0] == '\0')
            test_fail(__FILE__, __LINE__, "%s: %d %s: %s -> %s", rows[i].json, result, err.field, err.message,
                      err.remedy);
        vial_vm_config_free(config);
    }
}
