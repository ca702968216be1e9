// SPDX-License-Identifier: Apache-2.0
/* A private folder of the host's, for a jail that can have no root of its own. */
#ifndef ENGINE_UML_JAIL_FOLDER_H
#define ENGINE_UML_JAIL_FOLDER_H

#include "base/error.h"

#include <stdint.h>

struct jail_folder;

/* Makes one, and removes those of this user that a dead process has left. 0, or a negative errno with *err. */
int jail_folder_new(struct jail_folder **ret_folder, struct vial_error *err);

/* "" for NULL. */
const char *jail_folder_path(const struct jail_folder *folder);

/* Makes it that user's. 0 or -errno. */
int jail_folder_give(const struct jail_folder *folder, uint32_t user);

/* Removes it with everything in it. */
struct jail_folder *jail_folder_free(struct jail_folder *folder);

#endif
