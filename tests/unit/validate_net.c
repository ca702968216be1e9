// SPDX-License-Identifier: Apache-2.0
/* Tests of vmm/check_net: every rule about networks, TSI and vsock ports, with its exact error. */
#include "refusals.h"
#include "test.h"

#include "base/alloc.h"
#include "base/limits.h"

#include <errno.h>

TEST(net)
{
    static const struct refusal refusals[] = {
        {"{\"net\": [{\"path\": \"socket\"}]}", VIAL_ERROR_MISSING, "net[0].kind", "", "it is not given",
         "name the kind of network: passt, tap, unixstream or unixgram"},
        {"{\"net\": [{\"kind\": \"unixgram\"}]}", VIAL_ERROR_MISSING, "net[0].path", "",
         "the network has neither a path nor a descriptor",
         "give either the path of a socket or a connected descriptor"},
        {"{\"net\": [{\"kind\": \"unixgram\", \"path\": \"gone\"}]}", VIAL_ERROR_NOT_FOUND, "net[0].path", "gone",
         "gone does not exist", "create it, or correct the path"},
        {"{\"net\": [{\"kind\": \"unixstream\", \"path\": \"file\"}]}", VIAL_ERROR_WRONG_KIND, "net[0].path", "file",
         "file is not a socket", "start the network helper first"},
        {"{\"net\": [{\"kind\": \"unixstream\", \"path\": \"socket\", \"vfkit\": true}]}", VIAL_ERROR_CONFLICT,
         "net[0].vfkit", "true", "the VFKIT greeting exists only for a unixgram socket given by path",
         "leave it out, or use unixgram with a path"},
        {"{\"net\": [{\"kind\": \"unixgram\", \"fd\": 9999}]}", VIAL_ERROR_WRONG_KIND, "net[0].fd", "9999",
         "descriptor 9999 is not open", "open it first and keep it open until it was added"},
        {"{\"net\": [{\"kind\": \"tap\"}]}", VIAL_ERROR_MISSING, "net[0].path", "", "it is not given",
         "give the name of the TAP device, such as tap0"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"sixteen-letters-\"}]}", VIAL_ERROR_INVALID, "net[0].path",
         "sixteen-letters-",
         "the name of a network device has at most 15 characters and no slash, colon, percent sign or space",
         "give the name of the TAP device, such as tap0"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"../x\"}]}", VIAL_ERROR_INVALID, "net[0].path", "../x",
         "the name of a network device has at most 15 characters and no slash, colon, percent sign or space",
         "give the name of the TAP device, such as tap0"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"tap0\", \"mac\": \"52:54:00\"}]}", VIAL_ERROR_SYNTAX, "net[0].mac",
         "52:54:00", "\"52:54:00\" is not a MAC address: it is not six pairs of hex digits with colons between them",
         "write it as in 52:54:00:12:34:56, or leave it out for a random one"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"tap0\", \"mac\": \"01:00:00:00:00:00\"}]}", VIAL_ERROR_INVALID,
         "net[0].mac", "01:00:00:00:00:00", "01:00:00:00:00:00 is a multicast address, which no device can have",
         "clear the lowest bit of its first byte, as in 02:\xe2\x80\xa6"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"tap0\", \"mac\": \"00:00:00:00:00:00\"}]}", VIAL_ERROR_INVALID,
         "net[0].mac", "00:00:00:00:00:00", "the address is all zero",
         "give an address, or leave it out for a random one"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"tap0\", \"mac\": \"02:00:00:00:00:01\"},"
         " {\"kind\": \"tap\", \"path\": \"tap1\", \"mac\": \"02:00:00:00:00:01\"}]}",
         VIAL_ERROR_DUPLICATE, "net[1].mac", "02:00:00:00:00:01", "net[0] has the same address",
         "give each network an address of its own"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"tap0\"}, {\"kind\": \"tap\", \"path\": \"tap0\"}]}",
         VIAL_ERROR_DUPLICATE, "net[1].path", "tap0", "net[0] uses the same device",
         "give each network a device of its own"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"tap0\", \"fd\": 0}]}", VIAL_ERROR_CONFLICT, "net[0].fd", "",
         "a TAP device is given by its name", "leave the descriptor out"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"tap0\", \"features\": [\"tso4\"]}]}", VIAL_ERROR_INVALID,
         "net[0].features[0]", "tso4",
         "\"tso4\" is not one of csum, guest-csum, guest-tso4, guest-tso6, guest-ufo, host-tso4, host-tso6 or host-ufo",
         "did you mean \"guest-tso4\"?"},
    };
    check_refusals(refusals, array_length(refusals));
}

TEST(addresses_and_names)
{
    static const struct refusal refusals[] = {
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"dhcp\": true, \"addresses\": [\"10.0.2.15/24\"]}]}",
         VIAL_ERROR_CONFLICT, "net[0].dhcp", "true", "the guest cannot both ask for addresses and be given some",
         "leave out one of the two"},
        {"{\"net\": [{\"kind\": \"passt\", \"dhcp\": true, \"gateways\": [\"10.0.2.2\"]}]}", VIAL_ERROR_CONFLICT,
         "net[0].dhcp", "true", "the guest cannot both ask for addresses and be given some",
         "leave out one of the two"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"gateways\": [\"10.0.2.2\"]}]}", VIAL_ERROR_MISSING,
         "net[0].addresses", "", "there is a gateway, but no address",
         "give the guest's address, such as 10.0.2.15/24"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"addresses\": [\"10.0.2.15\"]}]}", VIAL_ERROR_SYNTAX,
         "net[0].addresses[0]", "10.0.2.15",
         "\"10.0.2.15\" cannot be used: the length of its network's prefix is missing", "write it as in 10.0.2.15/24"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"addresses\": [\"10.0.2.15/24\", \"10.0.2.16/33\"]}]}",
         VIAL_ERROR_OUT_OF_RANGE, "net[0].addresses[1]", "10.0.2.16/33",
         "\"10.0.2.16/33\" cannot be used: the length of its network's prefix is not a number that such an address has",
         "write it as in 10.0.2.15/24"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"addresses\": [\"10.0.2.15/24\"], \"gateways\": "
         "[\"10.0.2.2/24\"]}]}",
         VIAL_ERROR_SYNTAX, "net[0].gateways[0]", "10.0.2.2/24",
         "\"10.0.2.2/24\" cannot be used: it is no IPv4 or IPv6 address", "write it as in 10.0.2.2"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"addresses\": [\"10.0.2.15/24\"], \"gateways\": "
         "[\"10.0.2.2\", \"fd00::2\", \"10.0.2.3\"]}]}",
         VIAL_ERROR_TOO_BIG, "net[0].gateways", "3", "there are too many of its kind", "leave some out"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"dhcp\": true, \"nameservers\": [\"one.one.one.one\"]}]}",
         VIAL_ERROR_SYNTAX, "net[0].nameservers[0]", "one.one.one.one",
         "\"one.one.one.one\" cannot be used: it is no IPv4 or IPv6 address", "write it as in 10.0.2.2"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"dhcp\": true, \"nameservers\": [\"1.1.1.1\", \"1.1.1.2\", "
         "\"1.1.1.3\", \"1.1.1.4\"]}]}",
         VIAL_ERROR_TOO_BIG, "net[0].nameservers", "4", "there are too many of its kind", "leave some out"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"addresses\": [\"10.0.2.1/24\", \"10.0.2.2/24\", "
         "\"10.0.2.3/24\", \"10.0.2.4/24\", \"10.0.2.5/24\", \"10.0.2.6/24\", \"10.0.2.7/24\", \"10.0.2.8/24\", "
         "\"10.0.2.9/24\"]}]}",
         VIAL_ERROR_TOO_BIG, "net[0].addresses", "9", "there are too many of its kind", "leave some out"},
        {"{\"net\": [{\"kind\": \"passt\", \"addresses\": [\"10.0.2.15/24\", \"10.0.2.16/24\"]}]}", VIAL_ERROR_TOO_BIG,
         "net[0].addresses", "2", "there are too many of its kind", "leave some out"},
    };
    check_refusals(refusals, array_length(refusals));
}

TEST(numbers_of_a_network)
{
    static const struct refusal refusals[] = {
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"mtu\": 67}]}", VIAL_ERROR_OUT_OF_RANGE, "net[0].mtu", "67",
         "no network has such an MTU", "give a number from 68 to 65520, or leave it out"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"mtu\": 65521}]}", VIAL_ERROR_OUT_OF_RANGE, "net[0].mtu",
         "65521", "no network has such an MTU", "give a number from 68 to 65520, or leave it out"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"mtu\": 65536}]}", VIAL_ERROR_OUT_OF_RANGE, "net[0].mtu",
         "65536", "65536 is not between 0 and 65535", "give a whole number from 0 to 65535"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"queue_pairs\": 9}]}", VIAL_ERROR_OUT_OF_RANGE,
         "net[0].queue_pairs", "9", "these are more than a device has", "give a number from 1 to 8"},
        {"{\"net\": [{\"kind\": \"passt\", \"queue_pairs\": 2}]}", VIAL_ERROR_CONFLICT, "net[0].queue_pairs", "2",
         "only a TAP device can have several pairs of queues", "leave it out, or use a TAP device"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"limits\": {\"to_host\": {}}}]}", VIAL_ERROR_UNKNOWN_KEY,
         "net[0].limits.to_host", "", "\"to_host\" is not a known key", "did you mean \"to_guest\"?"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"limits\": {\"to_guest\": {\"burst_bytes\": 1}}}]}",
         VIAL_ERROR_MISSING, "net[0].limits.to_guest", "1", "a burst of bytes means nothing without a limit",
         "give bytes_per_second, too"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"limits\": {\"from_guest\": {\"bytes_per_second\": 1,"
         " \"burst_packets\": 2}}}]}",
         VIAL_ERROR_MISSING, "net[0].limits.from_guest", "2", "a burst of packets means nothing without a limit",
         "give packets_per_second, too"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"limits\": {\"to_guest\": {\"bytes_per_second\": -1}}}]}",
         VIAL_ERROR_OUT_OF_RANGE, "net[0].limits.to_guest.bytes_per_second", "-1",
         "-1 is not between 0 and 18446744073709551615", "give a whole number from 0 to 18446744073709551615"},
    };
    check_refusals(refusals, array_length(refusals));
}

TEST(what_only_passt_has)
{
    static const struct refusal refusals[] = {
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"published\": [\"80\"]}]}", VIAL_ERROR_CONFLICT,
         "net[0].published", "", "only passt publishes ports",
         "publish ports at the network's helper (gvproxy), or use the kind passt"},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"reaches_host\": true}]}", VIAL_ERROR_CONFLICT,
         "net[0].reaches_host", "true", "only passt leads to the host's loopback",
         "leave it out, or use the kind passt"},
        {"{\"net\": [{\"kind\": \"passt\", \"path\": \"socket\"}]}", VIAL_ERROR_CONFLICT, "net[0].path", "",
         "passt is started by the machine itself",
         "leave path and fd out, or use the kind unixstream with a passt of your own"},
        {"{\"net\": [{\"kind\": \"passt\", \"fd\": 0}]}", VIAL_ERROR_CONFLICT, "net[0].path", "",
         "passt is started by the machine itself",
         "leave path and fd out, or use the kind unixstream with a passt of your own"},
        {"{\"net\": [{\"kind\": \"passt\", \"vfkit\": true}]}", VIAL_ERROR_CONFLICT, "net[0].vfkit", "true",
         "the VFKIT greeting exists only for a unixgram socket given by path",
         "leave it out, or use unixgram with a path"},
        {"{\"net\": [{\"kind\": \"passt\", \"published\": [\"8080:80\", \"80/sctp\"]}]}", VIAL_ERROR_SYNTAX,
         "net[0].published[1]", "80/sctp", "\"80/sctp\" cannot be used: behind its slash stands neither tcp nor udp",
         "write HOST:GUEST with numbers from 1 to 65535, such as 8080:80 or 5353:53/udp"},
        {"{\"net\": [{\"kind\": \"passt\", \"published\": [\"0:80\"]}]}", VIAL_ERROR_OUT_OF_RANGE,
         "net[0].published[0]", "0:80", "\"0:80\" cannot be used: a port is not between 1 and 65535",
         "write HOST:GUEST with numbers from 1 to 65535, such as 8080:80 or 5353:53/udp"},
        {"{\"net\": [{\"kind\": \"passt\", \"published\": [\"8080:80\", \"127.0.0.1:8080:81\"]}]}",
         VIAL_ERROR_DUPLICATE, "net[0].published[1]", "127.0.0.1:8080:81", "port 8080 of the host is published already",
         "publish each port of the host once"},
        {"{\"net\": [{\"kind\": \"passt\"}, {\"kind\": \"tap\", \"path\": \"t\"}, {\"kind\": \"passt\", \"dhcp\": "
         "true}]}",
         VIAL_ERROR_MISSING, "net[2].addresses", "", "net[0] is passt's, too, and both would have its usual addresses",
         "give this one an address of another network, such as 10.0.3.15/24"},
        {"{\"net\": [{\"kind\": \"custom\"}]}", VIAL_ERROR_INVALID, "net[0].kind", "custom",
         "a custom network is functions of a program, which no file can hold",
         "use passt, tap, unixstream or unixgram, or vial_vm_config_add_net in the program"},
    };
    check_refusals(refusals, array_length(refusals));
}

TEST(tsi_and_ports)
{
    static const struct refusal refusals[] = {
        {"{\"machine\": {\"inet_hijack\": true}, \"port_map\": [\"80\", \"80:81\"]}", VIAL_ERROR_DUPLICATE,
         "port_map[1]", "80", "the host's port is mapped already", "publish each port once"},
        {"{\"machine\": {\"inet_hijack\": true}, \"port_map\": [\"80\", \"81:80\"]}", VIAL_ERROR_DUPLICATE,
         "port_map[1]", "80", "the guest's port is mapped already", "publish each port once"},
        {"{\"port_map\": [\"80:0\"]}", VIAL_ERROR_OUT_OF_RANGE, "port_map[0]", "80:0",
         "\"80:0\" is not a pair of ports: a port is not between 1 and 65535",
         "write HOST:GUEST with numbers from 1 to 65535, such as 8080:80"},
        {"{\"port_map\": [\"80\"]}", VIAL_ERROR_CONFLICT, "port_map", "",
         "it has no effect while the guest's sockets do not reach the host",
         "set machine.inet_hijack, or leave this out"},
        {"{\"machine\": {\"inet_hijack\": true}, \"port_map\": [\"80\"], \"net\": [{\"kind\": \"tap\", \"path\": "
         "\"t\"}]}",
         VIAL_ERROR_CONFLICT, "port_map", "", "the port map belongs to TSI, and this machine has a network device",
         "publish them with the network's \"published\" (--publish; passt only), or at its helper"},
        {"{\"machine\": {\"inet_hijack\": true}, \"tsi\": {\"assigned_ip\": \"127.0.0\"}}", VIAL_ERROR_SYNTAX,
         "tsi.assigned_ip", "127.0.0", "\"127.0.0\" is not an IPv4 address", "write it as in 127.0.0.2"},
        {"{\"machine\": {\"inet_hijack\": true}, \"tsi\": {\"assigned_ip\": \"224.0.0.1\"}}", VIAL_ERROR_INVALID,
         "tsi.assigned_ip", "224.0.0.1", "224.0.0.1 is not the address of one host", "write it as in 127.0.0.2"},
        {"{\"machine\": {\"inet_hijack\": true}, \"net\": [{\"kind\": \"tap\", \"path\": \"t\"}]}", VIAL_ERROR_CONFLICT,
         "machine.inet_hijack", "true", "the hijack is for a guest without a network device, and this machine has one",
         "leave out one of the two"},
        {"{\"vsock_ports\": [{\"port\": 1, \"path\": \"v\", \"listen\": true},"
         " {\"port\": 2, \"path\": \"root/../v\", \"listen\": true}]}",
         VIAL_ERROR_DUPLICATE, "vsock_ports[1].path", "root/../v", "vsock_ports[0] listens on the same path",
         "give each port a socket of its own"},
        {"{\"tsi\": {\"local_only\": true}}", VIAL_ERROR_CONFLICT, "tsi.local_only", "",
         "it has no effect while the guest's sockets do not reach the host",
         "set machine.inet_hijack, or leave this out"},
        {"{\"tsi\": {\"assigned_ip\": \"127.0.0.2\"}}", VIAL_ERROR_CONFLICT, "tsi.assigned_ip", "",
         "it has no effect while the guest's sockets do not reach the host",
         "set machine.inet_hijack, or leave this out"},
        {"{\"vsock_ports\": [{\"path\": \"v\"}]}", VIAL_ERROR_OUT_OF_RANGE, "vsock_ports[0].port", "0",
         "0 and 4294967295 are not ports", "give a port from 1 to 4294967294"},
        {"{\"vsock_ports\": [{\"port\": 1}]}", VIAL_ERROR_MISSING, "vsock_ports[0].path", "", "it is not given",
         "give the path of a Unix socket"},
        {"{\"vsock_ports\": [{\"port\": 1, \"path\": \"v\"}, {\"port\": 1, \"path\": \"w\"}]}", VIAL_ERROR_DUPLICATE,
         "vsock_ports[1].port", "1", "an earlier vsock port has the same number", "use each port once"},
        {"{\"vsock_ports\": [{\"port\": 1, \"path\": \"file\", \"listen\": true}]}", VIAL_ERROR_DUPLICATE,
         "vsock_ports[0].path", "file", "file exists already",
         "remove it, if no other machine uses it, or choose another path"},
        {"{\"vsock_ports\": [{\"port\": 1, \"path\": \"gone/v\", \"listen\": true}]}", VIAL_ERROR_NOT_FOUND,
         "vsock_ports[0].path", "gone/v", "the folder gone does not exist",
         "create the folder first, or correct the path"},
        {"{\"vsock_ports\": [{\"port\": 1, \"path\": "
         "\"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
         "01234567\"}]}",
         VIAL_ERROR_TOO_BIG, "vsock_ports[0].path",
         "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
         "01234567",
         "the path of a Unix socket is longer than 107 bytes", "use a shorter path, or a relative one"},
    };
    check_refusals(refusals, array_length(refusals));
}

TEST(sound_networks)
{
    static const char *const texts[] = {
        "{\"net\": [{\"kind\": \"passt\"}]}",
        "{\"net\": [{\"kind\": \"passt\", \"addresses\": [\"10.9.0.2/16\", \"fd00::9/64\"], \"gateways\": "
        "[\"10.9.0.1\"],"
        " \"nameservers\": [\"9.9.9.9\"], \"mtu\": 1280, \"reaches_host\": true}]}",
        "{\"net\": [{\"kind\": \"passt\", \"dhcp\": true, \"mtu\": 65520, \"published\": [\"80\", \"80/udp\","
        " \"127.0.0.2:80\", \"[::1]:80\", \"81:80\"]}]}",
        "{\"net\": [{\"kind\": \"passt\", \"gateways\": [\"10.0.2.9\"]}]}",
        "{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"queue_pairs\": 8, \"mtu\": 1500, \"dhcp\": true,"
        " \"nameservers\": [\"1.1.1.1\", \"1.1.1.2\", \"1.1.1.3\", \"::1\", \"::2\", \"::3\"]}]}",
        "{\"net\": [{\"kind\": \"tap\", \"path\": \"t\", \"addresses\": [\"10.0.0.1/32\", \"::1/128\"],"
        " \"limits\": {\"to_guest\": {\"bytes_per_second\": 1}, \"from_guest\": {}}}]}",
        "{\"net\": [{\"kind\": \"tap\", \"path\": \"t\"}], \"machine\": {\"vsock\": true}}",
        "{\"net\": [{\"kind\": \"passt\"}, {\"kind\": \"passt\", \"addresses\": [\"10.0.3.15/24\"]}]}",
    };
    check_accepted(texts, array_length(texts));
}

/* ---- what a file cannot say ---- */

static int take_datagram(void *user, uint32_t guest_port, const void *bytes, size_t length)
{
    (void)user;
    (void)guest_port;
    (void)bytes;
    (void)length;
    return 0;
}

static int refuse_stream(void *user, uint32_t guest_port, void **ret_stream)
{
    (void)user;
    (void)guest_port;
    (void)ret_stream;
    return -ECONNREFUSED;
}

TEST(a_vsock_backend_is_complete)
{
    struct vial_vsock_ops ops = VIAL_VSOCK_OPS_INIT;
    struct vial_vsock_port_options port = VIAL_VSOCK_PORT_OPTIONS_INIT;
    port.port = 1;
    port.ops = &ops;
    for (int i = 0; i < 3; i++) {
        struct vial_vm_config *config = new_config();
        ops.send = i == 2 ? take_datagram : NULL; /* nothing; a part of streams; that, and datagrams */
        ops.connect = i > 0 ? refuse_stream : NULL;
        CHECK_INT(vial_vm_config_add_vsock_port(config, &port, &err), 0);
        check_refused(config, "vsock_ports[0].ops", "the custom backend is not complete");
    }
}

TEST(a_vsock_port_has_one_thing_behind_it)
{
    struct vial_vsock_ops ops = VIAL_VSOCK_OPS_INIT;
    struct vial_vsock_port_options port = VIAL_VSOCK_PORT_OPTIONS_INIT;
    struct vial_vm_config *config = new_config();
    ops.send = take_datagram;
    port.port = 1;
    port.ops = &ops;
    CHECK_INT(vial_vm_config_add_vsock_port(config, &port, &err), 0);
    CHECK_INT(config_validate(config, &host, &err), 0);
    port.port = UINT32_MAX;
    CHECK_INT(vial_vm_config_add_vsock_port(config, &port, &err), 0);
    check_refused(config, "vsock_ports[1].port", "0 and 4294967295 are not ports");
    config = new_config();
    port.port = 2;
    port.path = "socket";
    CHECK_INT(vial_vm_config_add_vsock_port(config, &port, &err), 0);
    check_refused(config, "vsock_ports[0].ops", "the port has both a backend and a socket");
    config = new_config();
    port.path = NULL;
    port.listen = true;
    CHECK_INT(vial_vm_config_add_vsock_port(config, &port, &err), 0);
    check_refused(config, "vsock_ports[0].ops", "the port has both a backend and a socket");
}

TEST(published_ports_have_a_bound)
{
    static char texts[LIMIT_PORTS + 1][8];
    static const char *list[LIMIT_PORTS + 2];
    struct vial_net_options net = VIAL_NET_OPTIONS_INIT;
    for (int i = 0; i <= LIMIT_PORTS; i++) {
        snprintf(texts[i], sizeof(texts[i]), "%d", i + 1);
        list[i] = texts[i];
    }
    net.kind = VIAL_NET_PASST;
    net.published = list;
    struct vial_vm_config *config = new_config();
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    check_refused(config, "net[0].published", "there are too many published ports");
    list[LIMIT_PORTS] = NULL;
    config = new_config();
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    CHECK_INT(config_validate(config, &host, &err), 0);
    vial_vm_config_free(config);
}
