// SPDX-License-Identifier: Apache-2.0
/* passt, the helper that gives guests the host's network: where it is, and what it can. */
#ifndef HOST_PASST_H
#define HOST_PASST_H

#include "host/files.h"

/* False when it is not installed. */
bool host_passt_find(const char *root, struct host_path *ret_path);

/* Asks the program for its options. 0, and in *ret_option the one that it lacks of those that we need, or NULL; or
 * -errno: -ETIMEDOUT when it does not come to an end. */
int host_passt_ask(const char *path, const char **ret_option);

#endif
