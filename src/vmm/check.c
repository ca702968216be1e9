// SPDX-License-Identifier: Apache-2.0
/* What the checks of a configuration share: naming a field, refusing it, asking the host about a path.
 *
 * Nothing is opened, created, bound or connected here: the host is only asked. A path can change between the check and
 * its use, so whoever opens it later reports that on its own; the check is there for good errors, not for safety.
 *
 * Invariants: (1) a refusal names field, value and remedy. (2) nothing on the host is changed.
 *
 * Trust: every value may come from a hostile or careless caller.
 */
#include "vmm/check.h"

#include "base/path.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

struct place place_of(const char *format, ...)
{
    struct place place;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(place.text, sizeof(place.text), format, arguments);
    va_end(arguments);
    return place;
}

int refuse(struct vial_error *err, enum vial_error_code code, const char *field, const char *value, const char *remedy,
           const char *format, ...)
{
    char message[VIAL_ERROR_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    int result = error_set(err, code, VIAL_PHASE_VALIDATE, "%s", message);
    error_field(err, "%s", field);
    error_value(err, "%s", value);
    error_remedy(err, "%s", remedy);
    return result;
}

int refuse_number(struct vial_error *err, enum vial_error_code code, const char *field, int64_t value,
                  const char *remedy, const char *message)
{
    char text[24];
    snprintf(text, sizeof(text), "%" PRId64, value);
    return refuse(err, code, field, text, remedy, "%s", message);
}

/* ---- paths of the host ---- */

int check_given(const char *path, const char *field, const char *remedy, struct vial_error *err)
{
    if (path != NULL && path[0] != '\0')
        return 0;
    return refuse(err, VIAL_ERROR_MISSING, field, "", remedy, "%s", path == NULL ? "it is not given" : "it is empty");
}

int check_exists(const char *path, const char *field, struct stat *ret_status, struct vial_error *err)
{
    if (stat(path, ret_status) == 0)
        return 0;
    int failure = errno;
    if (failure == ENOENT || failure == ENOTDIR)
        return refuse(err, VIAL_ERROR_NOT_FOUND, field, path, "create it, or correct the path", "%s does not exist",
                      error_short(path).text);
    error_set_os(err, VIAL_PHASE_VALIDATE, failure, "cannot look at %s", error_short(path).text);
    error_field(err, "%s", field);
    error_value(err, "%s", path);
    error_remedy(err, "give this user access to every folder on the way to it");
    return -failure;
}

int check_access(const char *path, int wanted, const char *field, struct vial_error *err)
{
    if (faccessat(AT_FDCWD, path, wanted, AT_EACCESS) == 0)
        return 0;
    bool is_read_only_fs = errno == EROFS;
    return refuse(err, VIAL_ERROR_PERMISSION, field, path,
                  (wanted & W_OK) != 0 ? "change its owner or permissions, or make it read_only"
                                       : "change its owner or permissions",
                  "%s cannot be %s%s", error_short(path).text, (wanted & W_OK) != 0 ? "written" : "read",
                  is_read_only_fs ? ": its file system is read-only" : " by this user");
}

int check_folder(const char *path, const char *field, struct vial_error *err)
{
    struct stat status;
    int result = check_given(path, field, "give the path of a folder", err);
    if (result == 0)
        result = check_exists(path, field, &status, err);
    if (result < 0)
        return result;
    if (!S_ISDIR(status.st_mode))
        return refuse(err, VIAL_ERROR_WRONG_KIND, field, path, "give the path of a folder", "%s is not a folder",
                      error_short(path).text);
    /* Files inside may be writable where the folder is not, so writing is not asked for here. */
    return check_access(path, R_OK | X_OK, field, err);
}

int check_file(const char *path, const char *field, struct vial_error *err)
{
    struct stat status;
    int result = check_exists(path, field, &status, err);
    if (result < 0)
        return result;
    if (!S_ISREG(status.st_mode))
        return refuse(err, VIAL_ERROR_WRONG_KIND, field, path, "give the path of a regular file",
                      "%s is not a regular file", error_short(path).text);
    return check_access(path, R_OK, field, err);
}

/* The folder that holds `path`, where something is to be created. */
int check_parent(const char *path, const char *field, struct vial_error *err)
{
    auto_free char *parent = alloc_string(path);
    if (parent == NULL)
        return error_no_memory(err, VIAL_PHASE_VALIDATE);
    char *slash = strrchr(parent, '/');
    const char *folder = ".";
    if (slash != NULL) {
        slash[slash == parent ? 1 : 0] = '\0'; /* the root keeps its slash */
        folder = parent;
    }
    struct stat status;
    if (stat(folder, &status) < 0 || !S_ISDIR(status.st_mode))
        return refuse(err, VIAL_ERROR_NOT_FOUND, field, path, "create the folder first, or correct the path",
                      "the folder %s does not exist", error_short(folder).text);
    return check_access(folder, W_OK | X_OK, field, err);
}

int check_socket_path(const char *path, const char *field, struct vial_error *err)
{
    int result = check_given(path, field, "give the path of a Unix socket", err);
    if (result < 0)
        return result;
    size_t longest = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;
    if (strlen(path) > longest)
        return refuse(err, VIAL_ERROR_TOO_BIG, field, path, "use a shorter path, or a relative one",
                      "the path of a Unix socket is longer than %zu bytes", longest);
    return 0;
}

/* ---- texts of the guest ---- */

int check_guest_path(const char *path, const char *field, char **ret_normal, struct vial_error *err)
{
    int result = check_given(path, field, "give an absolute path of the guest", err);
    if (result < 0)
        return result;
    result = path_normalize(path, ret_normal);
    if (result == -EINVAL)
        return refuse(err, VIAL_ERROR_INVALID, field, path, "begin the path with /",
                      "a path of the guest must be absolute");
    if (result == -EXDEV)
        return refuse(err, VIAL_ERROR_INVALID, field, path, "remove the .. that climbs above /",
                      "the path leaves the guest's root");
    return result < 0 ? error_no_memory(err, VIAL_PHASE_VALIDATE) : 0;
}

int check_cmdline_text(const char *text, const char *field, struct vial_error *err)
{
    if (text_is_printable_ascii(text))
        return 0;
    return refuse(err, VIAL_ERROR_INVALID, field, text,
                  "use only characters from space to tilde here; arguments and environment in exec may hold any text",
                  "it travels on the kernel command line, which cannot carry control or non-ASCII characters");
}
