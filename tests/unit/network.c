// SPDX-License-Identifier: Apache-2.0
/* Helpers of networks that were started before their machine, and the addresses that are settled for them. Where passt
 * is installed it is started, too; what is tested comes before that.
 */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "vial/vmm.h"
#include "vmm/config.h"
#include "vmm/network.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static struct vial_error err;

static struct vial_vm_config *make(const char *const *addresses, const char *const *gateways)
{
    struct vial_vm_config *config = NULL;
    struct vial_net_options options = VIAL_NET_OPTIONS_INIT;
    options.kind = VIAL_NET_PASST;
    options.addresses = addresses;
    options.gateways = gateways;
    if (vial_vm_config_new(&config, NULL) < 0 || vial_vm_config_add_net(config, &options, NULL) < 0)
        abort();
    return config;
}

/* The other end of a helper's socket. */
static int add_helper(struct net_config *net, const char *said)
{
    int ends[2];
    net->helper_said_fd = memfd_create("said", MFD_CLOEXEC);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0 ||
        write(net->helper_said_fd, said, strlen(said)) != (ssize_t)strlen(said))
        abort();
    net->helper_fd = ends[0];
    return ends[1];
}

TEST(a_helper_that_has_ended_is_not_used)
{
    struct vial_vm_config *config = make(NULL, NULL);
    int other = add_helper(&config->net[0], "Don't run as root.\nNo room\n");
    CHECK_INT(network_start_helpers(config, &err), 0);
    CHECK_INT(write(other, "answer", 6), 6); /* which is the guest's */
    CHECK_INT(network_start_helpers(config, &err), 0);
    close(other);
    CHECK_INT(network_start_helpers(config, &err), -EPIPE);
    CHECK_TEXT(err.field, "net[0]");
    CHECK_TEXT(err.message, "passt has ended: No room");
    vial_vm_config_free(config);
}

TEST(a_start_that_fails_ends_the_helpers)
{
    struct vial_vm_config *config = make(NULL, NULL);
    struct vial_vm *vm = NULL;
    uint8_t byte;
    int other = add_helper(&config->net[0], "");
    config->net[0].mtu = 1; /* which no network has */
    CHECK(vial_vm_start(config, &vm, &err) < 0);
    CHECK_INT(config->net[0].helper_fd, -1);
    CHECK_INT(config->net[0].helper_said_fd, -1);
    CHECK_INT(recv(other, &byte, 1, MSG_DONTWAIT), 0);
    close(other);
    vial_vm_config_free(config);
}

static const struct derived {
    const char *address, *gateway; /* NULL: there is none */
} derived[] = {
    {"10.1.0.5/24", "10.1.0.1"},     {"10.1.0.1/24", "10.1.0.2"}, {"10.1.255.7/20", "10.1.240.1"},
    {"10.1.0.4/31", "10.1.0.5"},     {"10.1.0.5/31", "10.1.0.4"}, {"10.1.0.5/32", NULL},
    {"172.16.9.9/0", "0.0.0.1"},     {"fd12::5/64", "fd12::1"},   {"fd12::1/64", "fd12::2"},
    {"fd12::1:2:3:4/68", "fd12::1"}, {"fd12::6/127", "fd12::7"},  {"fd12::7/128", NULL},
};

TEST(gateways_are_derived)
{
    for (size_t i = 0; i < array_length(derived); i++) {
        bool is_ipv6 = strchr(derived[i].address, ':') != NULL;
        const char *own[] = {derived[i].address, is_ipv6 ? "10.7.0.5/24" : "fd77::5/64", NULL};
        struct vial_vm_config *config = make(own, NULL);
        const struct net_addresses *settled = &config->net[0].settled;
        int result = network_start_helpers(config, &err);
        if (result < 0 && strstr(err.message, "no route") != NULL) {
            vial_vm_config_free(config);
            TEST_SKIP("this host has no route");
        }
        CHECK_TEXT(settled->gateway[is_ipv6], derived[i].gateway != NULL ? derived[i].gateway : "");
        if (derived[i].gateway == NULL) {
            CHECK(result < 0);
            CHECK_TEXT(err.field, "net[0].gateways");
        } else {
            CHECK_TEXT(settled->forwarder != NULL ? settled->forwarder : "", NETWORK_PASST_NAMESERVER);
        }
        vial_vm_config_free(config);
    }
}

TEST(a_gateway_without_an_address_is_refused)
{
    static const char *const own[] = {"10.1.0.5/24", NULL}, *const gateway[] = {"fd12::2", NULL};
    struct vial_vm_config *config = make(own, gateway);
    int result = network_start_helpers(config, &err);
    vial_vm_config_free(config);
    if (strstr(err.message, "route") != NULL)
        TEST_SKIP("this host has no route of IPv4's");
    CHECK(result < 0);
    CHECK_TEXT(err.field, "net[0].gateways");
    CHECK_TEXT(err.message, "there is an IPv6 gateway, but no IPv6 address");
}
