// SPDX-License-Identifier: Apache-2.0
/* The jail's system-call filter, which the build makes (filter/generate.c says what is in it, and why).
 *
 * Invariants: (1) it is installed once, after no_new_privs, when nothing is left to do but to report and to execute.
 *
 * Trust: what runs under it is hostile.
 */
#include "engine/uml/jail_private.h"

#include "base/alloc.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct sock_filter instructions[] = {
#include "engine/uml/filter/program.h"
};

int jail_filter_install(void)
{
    struct sock_fprog program = {.len = array_length(instructions), .filter = instructions};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0 ? -errno : 0;
}
