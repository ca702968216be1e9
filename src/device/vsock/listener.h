// SPDX-License-Identifier: Apache-2.0
/* What is at the path of a socket that is to be listened on. */
#ifndef DEVICE_VSOCK_LISTENER_H
#define DEVICE_VSOCK_LISTENER_H

#include <stdbool.h>

/* Whether it is a socket of this user's that nobody listens on: what a process leaves behind that was killed. A new
 * listener replaces such a one. */
bool listener_is_left_behind(const char *path);

#endif
