// SPDX-License-Identifier: Apache-2.0
/* Why this user can make no user namespace, and what would change that. */
#ifndef HOST_NAMESPACES_H
#define HOST_NAMESPACES_H

/* `os_error` is what the attempt failed with (positive); `root` is "" but in tests. */
const char *host_user_namespace_remedy(const char *root, int os_error);

#endif
