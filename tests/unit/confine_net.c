// SPDX-License-Identifier: Apache-2.0
/* Tests of confine where it is about sockets: which kind of thread may make, bind and connect which, what of a machine
 * asks for a network, and where sockets may be made and removed. */
#include "confine_child.h"
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/landlock.h"
#include "base/limits.h"
#include "vmm/config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- which calls ---- */

static long make_unix(void)
{
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static long make_inet(void)
{
    return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static long make_inet6(void)
{
    return socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

static long make_netlink(void)
{
    return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
}

static long make_packet(void)
{
    return socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
}

static long make_vsock(void)
{
    return socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static long make_pair(void)
{
    int ends[2];
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends);
}

static long call_connect(void)
{
    return connect(-1, NULL, 0);
}

static long call_bind(void)
{
    return bind(-1, NULL, 0);
}

static long call_listen(void)
{
    return listen(-1, 1);
}

static long call_accept(void)
{
    return accept(-1, NULL, NULL);
}

static long set_offload(void)
{
    return ioctl(-1, TUNSETOFFLOAD, 0);
}

static long attach_tap(void)
{
    return ioctl(-1, TUNSETIFF, NULL);
}

/* What the kinds are told that are not named. */
static void check_kinds(const char *call, attempt_function *attempt, const char *const told[CONFINE_KINDS])
{
    const struct confine_options options = {.needs_network = true};
    for (enum confine_kind kind = 0; kind < CONFINE_KINDS; kind++) {
        char refused[64];
        snprintf(refused, sizeof(refused), "refused %s %s", call, confine_kind_names[kind]);
        const char *got = try_as(kind, attempt, &options), *expected = told[kind] != NULL ? told[kind] : refused;
        if (strcmp(got, expected) != 0)
            test_fail(__FILE__, __LINE__, "%s as %s is \"%s\", expected \"%s\"", call, confine_kind_names[kind], got,
                      expected);
    }
}

TEST(families_of_sockets)
{
    static const char *const of_unix[CONFINE_KINDS] = {
        [CONFINE_CONTROL] = "done", [CONFINE_NET] = "done", [CONFINE_TSI] = "done"};
    static const char *const of_inet[CONFINE_KINDS] = {[CONFINE_TSI] = "done"};
    static const char *const of_nobody[CONFINE_KINDS] = {NULL};
    static const char *const of_control[CONFINE_KINDS] = {[CONFINE_CONTROL] = "done"};
    check_kinds("socket", make_unix, of_unix);
    check_kinds("socket", make_inet, of_inet);
    check_kinds("socket", make_inet6, of_inet);
    check_kinds("socket", make_netlink, of_nobody);
    check_kinds("socket", make_packet, of_nobody);
    check_kinds("socket", make_vsock, of_nobody);
    check_kinds("socketpair", make_pair, of_control);
}

TEST(what_is_done_with_sockets)
{
    static const char *const of_devices[CONFINE_KINDS] = {[CONFINE_NET] = "EBADF", [CONFINE_TSI] = "EBADF"};
    static const char *const of_servers[CONFINE_KINDS] = {[CONFINE_CONTROL] = "EBADF", [CONFINE_TSI] = "EBADF"};
    static const char *const of_all_three[CONFINE_KINDS] = {
        [CONFINE_CONTROL] = "EBADF", [CONFINE_NET] = "EBADF", [CONFINE_TSI] = "EBADF"};
    static const char *const of_nobody[CONFINE_KINDS] = {NULL};
    static const char *const of_control[CONFINE_KINDS] = {[CONFINE_CONTROL] = "EBADF"};
    check_kinds("connect", call_connect, of_devices);
    check_kinds("bind", call_bind, of_all_three);
    check_kinds("listen", call_listen, of_servers);
    check_kinds("accept", call_accept, of_control); /* devices have accept4 */
    check_kinds("ioctl", set_offload, of_devices);
    check_kinds("ioctl", attach_tap, of_nobody); /* a TAP device is opened before the walls stand */
}

/* ---- where ---- */

static struct sockaddr_un place;

static void choose_place(const char *path)
{
    memset(&place, 0, sizeof(place));
    place.sun_family = AF_UNIX;
    snprintf(place.sun_path, sizeof(place.sun_path), "%s", path);
}

static long bind_there(void)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return fd < 0 ? -1 : bind(fd, (const struct sockaddr *)&place, sizeof(place));
}

static long unlink_there(void)
{
    return unlink(place.sun_path);
}

static long write_there(void)
{
    return open(place.sun_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
}

static const char *try_at(const char *path, enum confine_kind kind, attempt_function *attempt,
                          const struct confine_options *options)
{
    choose_place(path);
    return try_as(kind, attempt, options);
}

/* In the folder of such a path sockets may be made and files removed; nothing is opened, and nothing lies deeper than
 * it did. */
TEST(a_path_of_sockets_is_its_folder)
{
    const struct confine_path paths[] = {{.path = "run/net.sock",
                                          .fd = -1,
                                          .makes_sockets = true,
                                          .removes_sockets = true,
                                          .kinds = 1u << CONFINE_CONTROL | 1u << CONFINE_NET}};
    const struct confine_options options = {.paths = paths, .path_count = 1};
    if (!has_landlock())
        TEST_SKIP("this host has no Landlock");
    CHECK_INT(chdir(test_folder()), 0);
    test_make_folder("run");
    test_text_file("run/old", "x");
    test_text_file("other/old", "x");
    CHECK_TEXT(try_at("run/net.sock", CONFINE_NET, bind_there, &options), "done");
    CHECK_TEXT(try_at("run/beside", CONFINE_NET, bind_there, &options), "done");
    CHECK_TEXT(try_at("run/beside", CONFINE_NET, unlink_there, &options), "done");
    CHECK_TEXT(try_at("run/old", CONFINE_CONTROL, write_there, &options), "EACCES");
    CHECK_TEXT(try_at("run/new", CONFINE_CONTROL, write_there, &options), "EACCES");
    CHECK_TEXT(try_at("other/s", CONFINE_NET, bind_there, &options), "EACCES");
    CHECK_TEXT(try_at("other/old", CONFINE_NET, unlink_there, &options), "EACCES");
    CHECK_TEXT(try_at("s", CONFINE_NET, bind_there, &options), "EACCES");       /* the folder above */
    CHECK_TEXT(try_at("run/tsi", CONFINE_TSI, bind_there, &options), "EACCES"); /* a path of other kinds */
    CHECK_TEXT(try_at("run/net.sock", CONFINE_VCPU, unlink_there, &options), "EACCES");
    CHECK_INT(chdir("/"), 0);
}

TEST(a_path_of_sockets_in_a_folder_that_is_gone)
{
    char name[200];
    memset(name, 'a', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    name[150] = '/';
    struct confine_path paths[] = {{.path = "/nowhere/at/all/s", .fd = -1, .removes_sockets = true}};
    const struct confine_options options = {.paths = paths, .path_count = 1};
    if (!has_landlock())
        TEST_SKIP("this host has no Landlock");
    CHECK(strstr(try_as(CONFINE_NET, make_unix, &options), "failed ENOENT") != NULL);
    paths[0].path = name; /* longer than a socket's path can be */
    CHECK(strstr(try_as(CONFINE_NET, make_unix, &options), "failed ENAMETOOLONG") != NULL);
    paths[0].path = "/s"; /* the root is a folder, too */
    CHECK_TEXT(try_as(CONFINE_NET, make_unix, &options), "done");
}

/* ---- the host's network ---- */

static struct sockaddr_in local;

static long reach_local(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd < 0 ? -1 : connect(fd, (const struct sockaddr *)&local, sizeof(local));
}

TEST(the_hosts_network_is_there_only_for_who_needs_it)
{
    struct confine_options options = {.needs_network = true};
    socklen_t length = sizeof(local);
    local = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    auto_close int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_INT(bind(listener, (const struct sockaddr *)&local, sizeof(local)), 0);
    CHECK_INT(listen(listener, 4), 0);
    CHECK_INT(getsockname(listener, (struct sockaddr *)&local, &length), 0);
    CHECK_TEXT(try_as(CONFINE_TSI, reach_local, &options), "done");
    options.needs_network = false;
    const char *told = try_as(CONFINE_TSI, reach_local, &options);
    bool has_wall = landlock_abi() >= 4 || geteuid() == 0;
    if (!has_wall)
        TEST_SKIP("this host has neither a namespace nor a Landlock that knows TCP");
    CHECK(strcmp(told, "EACCES") == 0 || strcmp(told, "ENETUNREACH") == 0 || strcmp(told, "ECONNREFUSED") == 0);
}

/* ---- what a machine needs ---- */

static struct confine_path paths[CONFINE_MACHINE_PATHS];

static int add_machine(const char *json, struct confine_options *options, size_t *count)
{
    static struct vial_vm_config *config;
    struct vial_error err = {0};
    vial_vm_config_free(config); /* the paths are its own */
    config = NULL;
    if (json == NULL)
        return 0;
    if (vial_vm_config_load_text(json, strlen(json), &config, &err) < 0)
        abort();
    *options = (struct confine_options){0};
    *count = 0;
    return confine_options_add_machine(options, config, paths, count, CONFINE_MACHINE_PATHS);
}

TEST(who_needs_the_hosts_network)
{
    static const struct {
        const char *json;
        bool needs_network;
    } rows[] = {
        {"{}", false},
        {"{\"net\": [{\"kind\": \"passt\"}]}", false}, /* which has it, and is outside */
        {"{\"net\": [{\"kind\": \"unixstream\", \"path\": \"/run/s\"}]}", false},
        {"{\"net\": [{\"kind\": \"unixgram\", \"path\": \"/run/s\"}]}", false},
        {"{\"vsock_ports\": [{\"port\": 1, \"path\": \"/run/s\"}], \"machine\": {\"vsock\": true}}", false},
        {"{\"net\": [{\"kind\": \"passt\"}, {\"kind\": \"tap\", \"path\": \"t\"}]}", true},
        {"{\"machine\": {\"inet_hijack\": true}}", true},
    };
    struct confine_options options;
    size_t count = 0;
    for (size_t i = 0; i < array_length(rows); i++) {
        CHECK_INT(add_machine(rows[i].json, &options, &count), 0);
        if (options.needs_network != rows[i].needs_network)
            test_fail(__FILE__, __LINE__, "%s: %d", rows[i].json, options.needs_network);
    }
    add_machine(NULL, &options, &count);
}

TEST(sockets_that_are_made_have_paths)
{
    struct confine_options options;
    size_t count = 0;
    CHECK_INT(add_machine("{\"net\": [{\"kind\": \"unixgram\", \"path\": \"/run/gram\"},"
                          " {\"kind\": \"unixstream\", \"path\": \"/run/stream\"}, {\"kind\": \"passt\"}],"
                          " \"vsock_ports\": [{\"port\": 1, \"path\": \"/run/there\"},"
                          " {\"port\": 2, \"path\": \"/run/made\", \"listen\": true}]}",
                          &options, &count),
              0);
    CHECK_INT(count, 3);
    CHECK_INT(options.path_count, 3);
    CHECK_TEXT(paths[0].path, "/run/made"); /* which is bound before there are walls */
    CHECK(paths[0].removes_sockets && !paths[0].makes_sockets);
    CHECK_INT(paths[0].kinds, 1u << CONFINE_CONTROL);
    CHECK_TEXT(paths[1].path, "/run/gram"); /* beside which there is one for each connection */
    CHECK(paths[1].removes_sockets && paths[1].makes_sockets);
    CHECK_INT(paths[1].kinds, 1u << CONFINE_NET);
    CHECK_TEXT(paths[2].path, "/run/gram");
    CHECK(paths[2].removes_sockets && !paths[2].makes_sockets);
    CHECK_INT(paths[2].kinds, 1u << CONFINE_VCPU | 1u << CONFINE_ENGINE);
    for (size_t i = 0; i < count; i++)
        CHECK(!paths[i].may_write && paths[i].fd == -1);
    add_machine(NULL, &options, &count);
}
