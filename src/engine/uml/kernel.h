// SPDX-License-Identifier: Apache-2.0
/* Is this file a user-mode Linux kernel that can run such a machine? Asked before anything is started. */
#ifndef ENGINE_UML_KERNEL_H
#define ENGINE_UML_KERNEL_H

#include "base/error.h"

/* 0; an error that says what the file is instead, or how many CPUs it was built for; or -errno of a failed read. The
 * file offset stays where it is. */
int uml_kernel_check(int fd, const char *path, unsigned vcpus, struct vial_error *err);

#endif
