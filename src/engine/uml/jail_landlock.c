// SPDX-License-Identifier: Apache-2.0
/* A second lock on files, TCP, and what is outside: Landlock (landlock(7)).
 *
 * In a root of its own the program has no name for a file of the host's anyway; where it has to do without that root,
 * this is what keeps it in its folder. Nothing may be executed but the program itself. (The stub program of user-mode
 * Linux is in a memfd, which belongs to no folder, and is not looked at.)
 *
 * The rights grow with the kernel's ABI, and a right that is handled is denied unless a rule grants it: so everything
 * that the running kernel knows of is handled. Numbers are our own where the headers of the build may be older.
 *
 * Invariants: (1) only what is async-signal-safe is called: this runs between clone and exec.
 *
 * Trust: the program under it is hostile.
 */
#include "engine/uml/jail_private.h"

#include "base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* landlock(7): rights to files by the ABI that brought them. */
enum {
    access_execute = 1 << 0,
    access_write = 1 << 1,
    access_read = 1 << 2,
    access_list = 1 << 3,
    access_remove_folder = 1 << 4,
    access_remove_file = 1 << 5,
    access_make_folder = 1 << 7,
    access_make_file = 1 << 8,
    all_of_abi_1 = (1 << 13) - 1,
    access_refer = 1 << 13,        /* ABI 2 */
    access_truncate = 1 << 14,     /* ABI 3 */
    access_device = 1 << 15,       /* ABI 5 */
    access_socket = 1 << 16,       /* later: connecting to a named socket */
    network_tcp = 1 << 0 | 1 << 1, /* ABI 4: bind, connect */
    network_udp = 1 << 2 | 1 << 3, /* later */
    scope_all = 1 << 0 | 1 << 1,   /* ABI 6: abstract sockets, signals */
    ask_version = 1 << 0,
    rule_path_beneath = 1,
};

struct ruleset {
    uint64_t files;
    uint64_t network; /* from ABI 4 */
    uint64_t scopes;  /* from ABI 6 */
};

struct path_rule {
    uint64_t allowed;
    int32_t fd;
} __attribute__((packed));

static int add_rule(int ruleset, int fd, uint64_t allowed)
{
    struct path_rule rule = {.allowed = allowed, .fd = fd};
    return syscall(SYS_landlock_add_rule, ruleset, rule_path_beneath, &rule, 0) < 0 ? -errno : 0;
}

static int add_path(int ruleset, const char *path, uint64_t allowed)
{
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = add_rule(ruleset, fd, allowed);
    close(fd);
    return result;
}

static int add_rules(const struct jail_plan *plan, int ruleset, int program_fd, uint64_t handled)
{
    enum {
        state = access_read | access_list | access_write | access_remove_folder | access_remove_file |
                access_make_folder | access_make_file
    };
    int result = add_rule(ruleset, program_fd, access_execute | access_read);
    if (result == 0)
        result = add_path(ruleset, ".", access_read | access_list);
    if (result == 0)
        result = add_path(ruleset, "run", state);
    if (result == 0)
        result = add_path(ruleset, "memory", access_read | access_list | access_write);
    if (result == 0 && (handled & access_socket) != 0)
        result = add_path(ruleset, "socket", access_socket);
    if (result == 0 && !plan->has_own_root)
        result = add_path(ruleset, "/proc/cpuinfo", access_read);
    return result;
}

static int make_ruleset(long abi, struct ruleset *rules)
{
    *rules = (struct ruleset){.files = all_of_abi_1, .network = network_tcp, .scopes = scope_all};
    rules->files |= (abi >= 2 ? access_refer : 0) | (abi >= 3 ? access_truncate : 0) | (abi >= 5 ? access_device : 0);
    size_t size = abi >= 6 ? sizeof(*rules) : abi >= 4 ? offsetof(struct ruleset, scopes) : sizeof(rules->files);
    struct ruleset most = *rules;
    most.files |= access_socket;
    most.network |= network_udp;
    int made = abi > 6 ? (int)syscall(SYS_landlock_create_ruleset, &most, size, 0) : -1;
    if (made >= 0)
        *rules = most;
    else
        made = (int)syscall(SYS_landlock_create_ruleset, rules, size, 0);
    return made < 0 ? -errno : made;
}

int jail_landlock_restrict(const struct jail_plan *plan, int program_fd)
{
    struct ruleset rules;
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, ask_version);
    if (abi < 0)
        return -errno;
    int ruleset = make_ruleset(abi, &rules);
    if (ruleset < 0)
        return ruleset;
    int result = add_rules(plan, ruleset, program_fd, rules.files);
    if (result == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
        result = -errno;
    close(ruleset);
    return result;
}
