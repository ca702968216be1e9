// SPDX-License-Identifier: Apache-2.0
/* Setting up the interfaces that the host names: addresses, routes, and the two files that resolvers read.
 *
 *     host: its MAC address ──> the interface ── up ── addresses ── default routes ──> resolv.conf, hosts
 *                                             └─ DHCP (dhcp.c) ─┘
 *
 * The kernel is spoken to by rtnetlink, because only there an IPv6 address can be had without waiting for a second to
 * see whether somebody else has it (IFA_F_NODAD). On passt's network there is nobody else. On any other the address is
 * the configuration's, which is to keep it free of others, as it has to for IPv4: nobody looks there either.
 *
 * Of several networks the first is the way out: each one's routes cost more than those of the one before.
 *
 * The root may be read-only, and may be a folder of the host's, which must not change. So the files are made in memory
 * and mounted over those of the root, with what stood in hosts before:
 *
 *     the root has           it is mounted over
 *     a file                 the file
 *     a link to one          the file that it leads to
 *     a link to nothing      an empty file, made where the link leads to (/run of a system that is not running); where
 *                            that cannot be, in the link's place
 *     nothing                an empty file; in a root that is read-only, a second /etc that has it (overlayfs)
 *
 * Invariants: (1) a file of the root that exists is not written to. (2) nothing is made, changed or removed in a folder
 * of the host's (is_shared).
 *
 * Trust: what the host says was decoded by proto/init.c; what a DHCP server says, by proto/dhcp.c. Links of the root
 * belong to whoever made it, who has the guest anyway; how far they are followed is bounded.
 */
#include "network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if_addr.h>
#include <linux/magic.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

/* ---- rtnetlink ---- */

struct request {
    struct nlmsghdr header;
    union {
        struct ifinfomsg link;
        struct ifaddrmsg address;
        struct rtmsg route;
    } body;
    char attributes[128];
};

static void add_attribute(struct request *request, unsigned short type, const void *value, size_t length)
{
    struct rtattr *attribute = (struct rtattr *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));
    attribute->rta_type = type;
    attribute->rta_len = (unsigned short)RTA_LENGTH(length);
    memcpy(RTA_DATA(attribute), value, length);
    request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len) + (unsigned)RTA_ALIGN(attribute->rta_len);
}

static int ask_kernel(struct request *request)
{
    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
        char rest[512];
    } answer;
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return -errno;
    request->header.nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
    ssize_t got = sendto(fd, request, request->header.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof(kernel));
    if (got >= 0)
        got = recv(fd, &answer, sizeof(answer), 0);
    int result = got < 0 ? -errno : 0;
    if (result == 0 && (size_t)got < sizeof(answer.header) + sizeof(answer.error.error))
        result = -EIO;
    else if (result == 0 && answer.header.nlmsg_type == NLMSG_ERROR)
        result = answer.error.error;
    close(fd);
    return result;
}

static struct request begin(unsigned short type, size_t body_bytes, unsigned short flags)
{
    return (struct request){
        .header = {.nlmsg_type = type, .nlmsg_flags = flags, .nlmsg_len = (unsigned)NLMSG_LENGTH(body_bytes)},
    };
}

static int raise(int index)
{
    struct request request = begin(RTM_NEWLINK, sizeof(request.body.link), 0);
    request.body.link = (struct ifinfomsg){.ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    return ask_kernel(&request);
}

static struct request begin_address(unsigned short type, unsigned short flags, int index,
                                    const struct network_address *address)
{
    size_t length = address->is_ipv6 ? 16 : 4;
    struct request request = begin(type, sizeof(request.body.address), flags);
    request.body.address = (struct ifaddrmsg){
        .ifa_family = address->is_ipv6 ? AF_INET6 : AF_INET,
        .ifa_prefixlen = address->prefix,
        .ifa_flags = address->is_ipv6 ? IFA_F_NODAD : 0,
        .ifa_index = (unsigned)index,
    };
    add_attribute(&request, IFA_LOCAL, address->bytes, length);
    add_attribute(&request, IFA_ADDRESS, address->bytes, length);
    return request;
}

int network_add_address(int index, const struct network_address *address)
{
    struct request request = begin_address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, index, address);
    if (!address->is_ipv6 && address->prefix < 31) {
        uint8_t broadcast[4];
        for (unsigned i = 0; i < 4; i++) {
            unsigned bits = address->prefix > 8 * i ? address->prefix - 8 * i : 0;
            broadcast[i] = address->bytes[i] | (uint8_t)(bits >= 8 ? 0 : 0xff >> bits);
        }
        add_attribute(&request, IFA_BROADCAST, broadcast, sizeof(broadcast));
    }
    return ask_kernel(&request);
}

int network_remove_address(int index, const struct network_address *address)
{
    struct request request = begin_address(RTM_DELADDR, 0, index, address);
    return ask_kernel(&request);
}

/* A route to `to`, or to everything (NULL), by a gateway, or by nobody (NULL): then `to` is on the link. */
static int add_route(int index, const struct network_address *to, const struct network_address *gateway, uint32_t cost)
{
    bool is_ipv6 = to != NULL ? to->is_ipv6 : gateway != NULL && gateway->is_ipv6;
    size_t length = is_ipv6 ? 16 : 4;
    struct request request = begin(RTM_NEWROUTE, sizeof(request.body.route), NLM_F_CREATE | NLM_F_REPLACE);
    request.body.route = (struct rtmsg){
        .rtm_family = is_ipv6 ? AF_INET6 : AF_INET,
        .rtm_dst_len = to != NULL ? to->prefix : 0,
        .rtm_table = RT_TABLE_MAIN,
        .rtm_protocol = RTPROT_BOOT,
        .rtm_scope = gateway != NULL ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK,
        .rtm_type = RTN_UNICAST,
    };
    if (to != NULL)
        add_attribute(&request, RTA_DST, to->bytes, length);
    if (gateway != NULL)
        add_attribute(&request, RTA_GATEWAY, gateway->bytes, length);
    add_attribute(&request, RTA_OIF, &index, sizeof(index));
    add_attribute(&request, RTA_PRIORITY, &cost, sizeof(cost));
    return ask_kernel(&request);
}

/* A gateway outside of all networks of the interface is made a neighbour first, as hosting companies have it. */
int network_add_gateway(int index, const struct network_address *gateway, uint32_t cost)
{
    int result = add_route(index, NULL, gateway, cost);
    if (result != -ENETUNREACH && result != -EHOSTUNREACH)
        return result;
    struct network_address neighbour = *gateway;
    neighbour.prefix = gateway->is_ipv6 ? 128 : 32;
    result = add_route(index, &neighbour, NULL, cost);
    return result == 0 ? add_route(index, NULL, gateway, cost) : result;
}

/* ---- what the host says ---- */

/* The next word of a list, as an address; false at its end. */
static bool next_address(const char **words, struct network_address *ret_address, int *result)
{
    char word[INET6_ADDRSTRLEN + 4];
    *words += strspn(*words, " ");
    size_t length = strcspn(*words, " ");
    if (length == 0 || *result < 0)
        return false;
    *result = -EINVAL;
    if (length >= sizeof(word))
        return false;
    memcpy(word, *words, length);
    word[length] = '\0';
    *words += length;
    char *slash = strchr(word, '/'), *end = NULL;
    ret_address->is_ipv6 = strchr(word, ':') != NULL;
    unsigned long most = ret_address->is_ipv6 ? 128 : 32, prefix = most;
    if (slash != NULL) {
        *slash = '\0';
        prefix = strtoul(slash + 1, &end, 10);
        if (end == slash + 1 || *end != '\0' || prefix > most)
            return false;
    }
    if (inet_pton(ret_address->is_ipv6 ? AF_INET6 : AF_INET, word, ret_address->bytes) != 1)
        return false;
    ret_address->prefix = (uint8_t)prefix;
    *result = 0;
    return true;
}

static int set_addresses(int index, const struct init_network *network, uint32_t cost)
{
    struct network_address address;
    const char *addresses = network->addresses, *gateways = network->gateways;
    int result = 0;
    while (next_address(&addresses, &address, &result))
        result = network_add_address(index, &address);
    while (next_address(&gateways, &address, &result))
        result = network_add_gateway(index, &address, cost);
    return result;
}

/* The index of the interface with that address. */
static int find_interface(const uint8_t mac[6])
{
    int found = -ENODEV, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct if_nameindex *all = fd >= 0 ? if_nameindex() : NULL;
    for (const struct if_nameindex *each = all; each != NULL && each->if_index != 0 && found < 0; each++) {
        struct ifreq request = {0};
        snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", each->if_name);
        if (ioctl(fd, SIOCGIFHWADDR, &request) == 0 && memcmp(request.ifr_hwaddr.sa_data, mac, 6) == 0)
            found = (int)each->if_index;
    }
    if (all != NULL)
        if_freenameindex(all);
    if (fd >= 0)
        close(fd);
    return found;
}

/* ---- where a file of the root's is shown ---- */

/* Whether what is made in the folder is made on the host. What cannot be told is taken for that. */
static bool is_shared(const char *folder)
{
    struct statfs status;
    return statfs(folder, &status) < 0 || (unsigned long)status.f_type == FUSE_SUPER_MAGIC;
}

/* The folder of a file, "/" among them. */
static void folder_of(const char *path, char folder[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    size_t length = slash > path ? (size_t)(slash - path) : 1;
    memcpy(folder, path, length);
    folder[length] = '\0';
}

/* The folders that lead to the file, as far as they are missing. */
static int make_folders(const char *path)
{
    char folder[PATH_MAX], above[PATH_MAX];
    for (const char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        size_t length = (size_t)(slash - path);
        memcpy(folder, path, length);
        folder[length] = '\0';
        if (access(folder, F_OK) == 0)
            continue;
        folder_of(folder, above);
        if (is_shared(above))
            return -EXDEV;
        if (mkdir(folder, 0755) < 0)
            return -errno;
    }
    return 0;
}

/* An empty file, to be mounted over. */
static int make_file(const char *path)
{
    char folder[PATH_MAX];
    folder_of(path, folder);
    int result = make_folders(path);
    if (result == 0 && is_shared(folder))
        result = -EXDEV;
    if (result < 0)
        return result;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    close(fd);
    return 0;
}

/* Follows the links at the end of a path; those on the way are the kernel's to follow. */
static int follow(const char *path, char target[PATH_MAX])
{
    enum { most_links = 8 };
    char text[PATH_MAX], folder[PATH_MAX];
    snprintf(target, PATH_MAX, "%s", path);
    for (int i = 0; i < most_links; i++) {
        ssize_t length = readlink(target, text, sizeof(text) - 1);
        if (length < 0)
            return errno == EINVAL || errno == ENOENT ? 0 : -errno; /* it is no link, or there is nothing yet */
        text[length] = '\0';
        folder_of(target, folder);
        int whole = text[0] == '/' ? snprintf(target, PATH_MAX, "%s", text)
                                   : snprintf(target, PATH_MAX, "%s/%s", folder, text);
        if (whole >= PATH_MAX)
            return -ENAMETOOLONG;
    }
    return -ELOOP;
}

/* A file where the link leads to, or in the link's place. */
static int make_target(const char *path)
{
    char target[PATH_MAX], folder[PATH_MAX];
    int result = follow(path, target);
    if (result == 0)
        result = make_file(target);
    if (result == 0 || strcmp(target, path) == 0)
        return result;
    folder_of(path, folder);
    if (is_shared(folder))
        return result;
    return unlink(path) < 0 ? -errno : make_file(path);
}

static const char resolver_path[] = "/etc/resolv.conf", hosts_path[] = "/etc/hosts";

/* /etc again, with those files in it that are missing, for a root that is read-only and so loses nothing by it. Its
 * layer is a file system of its own, of which nothing is left to be seen. Made before anything is mounted in /etc,
 * which that would hide. */
static int make_second_etc(const char *const paths[2], const bool are_missing[2])
{
    static const char layer[] = "/dev/shm/.vial-etc";
    char file[PATH_MAX];
    struct statvfs status;
    int result = 0;
    if (statvfs("/etc", &status) < 0 || (status.f_flag & ST_RDONLY) == 0)
        return -EROFS;
    if (mkdir(layer, 0755) < 0 || mount("tmpfs", layer, "tmpfs", 0, "mode=755") < 0)
        return -errno;
    for (int i = 0; i < 2 && result == 0; i++) {
        snprintf(file, sizeof(file), "%s%s", layer, strrchr(paths[i], '/'));
        result = are_missing[i] ? make_file(file) : 0;
    }
    if (result == 0 && mount("overlay", "/etc", "overlay", MS_RDONLY, "lowerdir=/dev/shm/.vial-etc:/etc") < 0)
        result = -errno;
    if (umount2(layer, MNT_DETACH) < 0 || rmdir(layer) < 0)
        tell("remove", layer, -errno);
    return result;
}

/* Sees to it that there are files to mount over; what fails is told. The result is that of the resolver's. */
static int make_places(bool has_resolver)
{
    const char *const paths[] = {resolver_path, hosts_path};
    int results[] = {0, 0};
    for (int i = has_resolver ? 0 : 1; i < 2; i++)
        if (access(paths[i], F_OK) < 0)
            results[i] = errno == ENOENT ? make_target(paths[i]) : -errno;
    const bool are_missing[] = {results[0] < 0, results[1] < 0};
    if ((are_missing[0] || are_missing[1]) && make_second_etc(paths, are_missing) == 0)
        return 0;
    for (int i = 0; i < 2; i++)
        if (results[i] < 0)
            tell("make", paths[i], results[i]);
    return results[0];
}

/* ---- files ---- */

/* A file of memory's, mounted at `path`. Its first name is gone after that; the descriptor is the caller's. */
static int show_file(const char *path, const char *text, size_t length, int *ret_fd)
{
    static const char made[] = "/dev/shm/.vial-network";
    int fd = open(made, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    int result = write(fd, text, length) == (ssize_t)length ? 0 : -ENOSPC;
    if (result == 0 && mount(made, path, NULL, MS_BIND, NULL) < 0)
        result = -errno;
    unlink(made);
    if (result == 0)
        *ret_fd = fd;
    else
        close(fd);
    return result;
}

/* The name servers of a list as lines, as far as there is room. */
static size_t add_nameservers(char *text, size_t size, size_t length, const char *words)
{
    static const char keyword[] = "nameserver ";
    for (const char *at = words + strspn(words, " "); *at != '\0'; at += strspn(at, " ")) {
        size_t word = strcspn(at, " ");
        if (length + sizeof(keyword) + word + 1 > size)
            break;
        length += (size_t)snprintf(text + length, size - length, "%s%.*s\n", keyword, (int)word, at);
        at += word;
    }
    return length;
}

/* Those that are given stand before those that were learned. */
static size_t write_resolver(const struct network_names *names, char *text, size_t size)
{
    size_t length = add_nameservers(text, size, 0, names->given);
    for (size_t i = 0; i < names->count; i++)
        length = add_nameservers(text, size, length, names->learned[i].words);
    return length;
}

enum { resolver_bytes = 4096 };

/* In the file itself, which everybody has who has seen it. */
void network_show_nameservers(const struct network_names *names)
{
    char text[resolver_bytes];
    size_t length = write_resolver(names, text, sizeof(text));
    if (names->fd < 0)
        return;
    if (pwrite(names->fd, text, length, 0) != (ssize_t)length || ftruncate(names->fd, (off_t)length) < 0)
        tell("write", resolver_path, -errno);
}

/* Both places are made first. A root without /etc has no program that looks there: that is told, and no failure. */
static int show_resolver(struct network_names *names)
{
    char text[resolver_bytes];
    size_t length = write_resolver(names, text, sizeof(text));
    int result = make_places(length > 0);
    if (length > 0 && result == 0) {
        result = show_file(resolver_path, text, length, &names->fd);
        if (result < 0)
            tell("mount", resolver_path, result);
    }
    return result < 0 && access("/etc", F_OK) == 0 ? result : 0;
}

/* The guest finds itself by its name, and what the root's own file says stands behind that. */
static void show_hosts(const char *hostname)
{
    enum { most_bytes = 64 << 10 };
    char *text = malloc(most_bytes);
    if (text == NULL)
        return;
    int own = snprintf(text, most_bytes, "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %s\n", hostname);
    size_t length = (size_t)own;
    int fd = open(hosts_path, O_RDONLY | O_CLOEXEC);
    ssize_t got = 1;
    while (fd >= 0 && got > 0 && length < most_bytes) {
        got = read(fd, text + length, most_bytes - length);
        length += got > 0 ? (size_t)got : 0;
    }
    if (fd >= 0)
        close(fd);
    if (length == most_bytes) { /* half a line may name another host, or give another address */
        length = (size_t)((char *)memrchr(text, '\n', length) + 1 - text);
        tell("cut", hosts_path, -EFBIG);
    }
    fd = -1;
    int result = show_file(hosts_path, text, length, &fd);
    if (result < 0 && result != -ENOENT) /* which was told */
        tell("mount", hosts_path, result);
    if (fd >= 0)
        close(fd);
    free(text);
}

/* ---- together ---- */

static bool fail(struct init_answer *failure, enum init_stage stage, int result, uint32_t number)
{
    *failure = (struct init_answer){
        .kind = INIT_FAILED, .stage = stage, .os_error = (uint32_t)-result, .mount = number};
    return false;
}

/* As many of the words as there is room for: resolvers use the first three. */
static void append_given(char given[LIMIT_NET_WORDS_BYTES], const char *words)
{
    size_t length = strlen(given), more = strlen(words);
    bool has_both = length > 0 && more > 0;
    if (length + has_both + more < LIMIT_NET_WORDS_BYTES)
        snprintf(given + length, LIMIT_NET_WORDS_BYTES - length, "%s%s", has_both ? " " : "", words);
}

static bool set_up_one(const struct init_setup *setup, size_t number, struct dhcp_client *client,
                       struct network_names *names, struct init_answer *ret_failure)
{
    const struct init_network *network = &setup->networks[number];
    uint32_t cost = (uint32_t)number + 1;
    enum init_stage stage = INIT_STAGE_INTERFACE;
    int index = find_interface(network->mac);
    int result = index < 0 ? index : raise(index);
    if (result == 0 && network->wants_dhcp) {
        stage = INIT_STAGE_LEASE;
        *client = (struct dhcp_client){.fd = -1, .index = index, .cost = cost};
        memcpy(client->mac, network->mac, sizeof(client->mac));
        result = dhcp_begin(client, names->learned[number].words);
    } else if (result == 0) {
        result = set_addresses(index, network, cost);
    }
    append_given(names->given, network->nameservers);
    return result == 0 || fail(ret_failure, stage, result, (uint32_t)number);
}

static bool set_up_all(const struct init_setup *setup, struct dhcp_client *clients, struct network_names *names,
                       struct init_answer *ret_failure)
{
    for (size_t i = 0; i < setup->network_count; i++)
        if (!set_up_one(setup, i, &clients[i], names, ret_failure))
            return false;
    int result = show_resolver(names);
    if (result < 0)
        return fail(ret_failure, INIT_STAGE_INTERFACE, result, INIT_NO_MOUNT);
    show_hosts(setup->hostname[0] != '\0' ? setup->hostname : "vial");
    for (size_t i = 0; i < setup->network_count; i++)
        if (setup->networks[i].wants_dhcp)
            dhcp_keep(&clients[i], names, i);
    return true;
}

bool network_set_up(const struct init_setup *setup, struct init_answer *ret_failure)
{
    if (setup->network_count == 0)
        return true;
    struct network_names names = {.fd = -1, .count = setup->network_count};
    struct dhcp_client *clients = calloc(setup->network_count, sizeof(clients[0]));
    names.learned = calloc(setup->network_count, sizeof(names.learned[0]));
    bool is_up = clients != NULL && names.learned != NULL
                     ? set_up_all(setup, clients, &names, ret_failure)
                     : fail(ret_failure, INIT_STAGE_INTERFACE, -ENOMEM, INIT_NO_MOUNT);
    if (names.fd >= 0)
        close(names.fd);
    free(names.learned);
    free(clients);
    return is_up;
}
