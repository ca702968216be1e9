// SPDX-License-Identifier: Apache-2.0
/* Why this user can make no user namespace: the settings by which distributions forbid them, each with its remedy.
 *
 * Trust: the host.
 */
#include "host/namespaces.h"

#include "host/files.h"

#include <errno.h>
#include <stddef.h>

const char *host_user_namespace_remedy(const char *root, int os_error)
{
    uint64_t value = 0;
    if (host_file_number(root, "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", &value) == 0 && value != 0)
        return "AppArmor restricts them: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or a profile for vial";
    if (host_file_number(root, "/proc/sys/kernel/unprivileged_userns_clone", &value) == 0 && value == 0)
        return "sysctl kernel.unprivileged_userns_clone=1";
    if (host_file_number(root, "/proc/sys/user/max_user_namespaces", &value) == 0 && value == 0)
        return "sysctl user.max_user_namespaces=10000";
    if (os_error == EAGAIN)
        return "raise this user's limit of processes (ulimit -u)";
    return "run as root, or let users make namespaces";
}
