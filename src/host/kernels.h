// SPDX-License-Identifier: Apache-2.0
/* Where the project's own guest kernels are. */
#ifndef HOST_KERNELS_H
#define HOST_KERNELS_H

#include "host/files.h"

enum host_engine { HOST_ENGINE_KVM, HOST_ENGINE_UML, HOST_ENGINE_COUNT };

extern const char *const host_engine_names[HOST_ENGINE_COUNT];

/* The path of the engine's kernel, looked for in $VIAL_KERNELS, then where it was installed, then in the user's cache,
 * where kernel/build puts it. False, and the path where it was expected last, when there is none. */
bool host_kernel_find(const char *root, enum host_engine engine, struct host_path *ret_path);

#endif
