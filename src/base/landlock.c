// SPDX-License-Identifier: Apache-2.0
/* Landlock (landlock(7)), by its system calls.
 *
 * Invariants: (1) only what is async-signal-safe is called: a jail's child uses this between clone and exec. (2) what
 * the running kernel can deny and its caller did not leave out is denied.
 *
 * Trust: the caller's; what runs under it afterwards is hostile.
 */
#include "base/landlock.h"

#include <errno.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    all_of_abi_1 = (1 << 13) - 1,
    network_tcp = 1 << 0 | 1 << 1, /* bind, connect */
    network_udp = 1 << 2 | 1 << 3, /* later */
    scope_abstract_sockets = 1 << 0,
    scope_signals = 1 << 1,
    ask_version = 1 << 0,
    rule_path_beneath = 1,
};

/* struct landlock_ruleset_attr and struct landlock_path_beneath_attr. */
struct ruleset {
    uint64_t files;
    uint64_t network; /* from ABI 4 */
    uint64_t scopes;  /* from ABI 6 */
};

struct path_rule {
    uint64_t allowed;
    int32_t fd;
} __attribute__((packed));

int landlock_abi(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, ask_version);
    return abi < 0 ? -errno : (int)abi;
}

static int make(const struct ruleset *rules, size_t size)
{
    return (int)syscall(SYS_landlock_create_ruleset, rules, size, 0);
}

int landlock_make(unsigned beyond, struct landlock *ret_landlock)
{
    int abi = landlock_abi();
    if (abi < 0)
        return abi;
    struct ruleset rules = {.files = all_of_abi_1};
    rules.files |= (abi >= 2 ? LANDLOCK_REFER : 0) | (abi >= 3 ? LANDLOCK_TRUNCATE : 0) |
                   (abi >= 5 ? LANDLOCK_DEVICE : 0);
    rules.network = (beyond & LANDLOCK_NETWORK) != 0 ? network_tcp : 0;
    rules.scopes = ((beyond & LANDLOCK_ABSTRACT_SOCKETS) != 0 ? scope_abstract_sockets : 0) |
                   ((beyond & LANDLOCK_SIGNALS) != 0 ? scope_signals : 0);
    size_t size = abi >= 6 ? sizeof(rules) : abi >= 4 ? offsetof(struct ruleset, scopes) : sizeof(rules.files);
    struct ruleset most = rules; /* with what only kernels of tomorrow have */
    most.files |= LANDLOCK_SOCKET;
    most.network |= rules.network != 0 ? network_udp : 0;
    int fd = abi > 6 ? make(&most, size) : -1;
    if (fd >= 0)
        rules = most;
    else
        fd = make(&rules, size);
    if (fd < 0)
        return -errno;
    *ret_landlock = (struct landlock){.fd = fd, .files = rules.files};
    return 0;
}

int landlock_grant(const struct landlock *landlock, int fd, uint64_t rights)
{
    struct path_rule rule = {.allowed = rights & landlock->files, .fd = fd};
    if (rule.allowed == 0) /* an empty rule is an error, and says nothing */
        return 0;
    return syscall(SYS_landlock_add_rule, landlock->fd, rule_path_beneath, &rule, 0) < 0 ? -errno : 0;
}

int landlock_restrict(const struct landlock *landlock)
{
    return syscall(SYS_landlock_restrict_self, landlock->fd, 0) < 0 ? -errno : 0;
}
