// SPDX-License-Identifier: Apache-2.0
/* Finding the program that a sandbox's process executes: the `vial` that belongs to this library.
 *
 * Invariants: (1) what somebody has named is taken or refused, never replaced by something that was found.
 *
 * Trust: the environment is believed only where the program is no more than its user (secure_getenv); the folders
 * beside the library and the program are as trusted as these.
 */
#include "sandbox/spawn.h"

#include "base/alloc.h"
#include "base/error.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The file of `folder` and what is behind it, if it can be executed. */
static bool try_path(const char *folder, size_t folder_length, const char *rest, char path[PATH_MAX])
{
    int length = snprintf(path, PATH_MAX, "%.*s%s", (int)folder_length, folder, rest);
    return length > 0 && length < PATH_MAX && access(path, X_OK) == 0;
}

/* The calling program is the command itself. */
static bool try_self(char path[PATH_MAX])
{
    char self[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (length <= 0)
        return false;
    self[length] = '\0';
    const char *name = strrchr(self, '/');
    return name != NULL && strcmp(name, "/vial") == 0 && try_path(self, (size_t)length, "", path);
}

/* Beside the library, or beside the program that it is linked into. */
static bool try_beside(char path[PATH_MAX])
{
    static const char *const places[] = {"/vial", "/../bin/vial", "/../../bin/vial"};
    static const char here;
    Dl_info info;
    if (dladdr(&here, &info) == 0 || info.dli_fname == NULL)
        return false;
    const char *slash = strrchr(info.dli_fname, '/');
    for (size_t i = 0; slash != NULL && i < array_length(places); i++)
        if (try_path(info.dli_fname, (size_t)(slash - info.dli_fname), places[i], path))
            return true;
    return false;
}

int spawn_find_runtime(const char *chosen, char **ret_path, struct vial_error *err)
{
    char path[PATH_MAX];
    const char *found = chosen != NULL ? chosen : secure_getenv("VIAL_RUNTIME");
    bool is_said = found != NULL && found[0] != '\0';
    if (is_said && access(found, X_OK) < 0) {
        error_set_os(err, VIAL_PHASE_START, errno, "cannot execute the runtime \"%s\"", error_short(found).text);
        error_field(err, "%s", chosen != NULL ? "runtime" : "VIAL_RUNTIME");
        error_remedy(err, "name the vial command, or nothing, so that it is looked for");
        return -ENOENT;
    }
    if (!is_said) {
        if (!try_self(path) && !try_beside(path) && !try_path(VIAL_RUNTIME_PATH, strlen(VIAL_RUNTIME_PATH), "", path)) {
            int result = error_set(err, VIAL_ERROR_NOT_FOUND, VIAL_PHASE_START,
                                   "the vial command, which runs sandboxes, was not found");
            error_remedy(err, "install it, or name it (VIAL_RUNTIME, vial_home_set_runtime)");
            return result;
        }
        found = path;
    }
    char *copy = alloc_string(found);
    if (copy == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    *ret_path = copy;
    return 0;
}
