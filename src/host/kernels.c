// SPDX-License-Identifier: Apache-2.0
/* Where the project's own guest kernels are.
 *
 * A folder of kernels holds kvm-x86_64/vmlinux and uml/linux. The first folder that has the file wins.
 *
 * Invariants: (1) a path is only reported when the file could be read by this user.
 *
 * Trust: environment variables are the caller's own, and not read where the program has more rights than its user
 * (secure_getenv): a kernel of user-mode Linux is a program that we execute.
 */
#include "host/kernels.h"

#include "base/fd.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *const host_engine_names[HOST_ENGINE_COUNT] = {"kvm", "uml"};

static const char *const files[HOST_ENGINE_COUNT] = {"/kvm-x86_64/vmlinux", "/uml/linux"};

/* Both kernels are ELF files, and UML's is a program; whatever else has that name is not a kernel. */
static bool is_image(const char *path, enum host_engine engine)
{
    char magic[4];
    struct stat status;
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
        return false;
    if (pread(fd, magic, sizeof(magic), 0) != (ssize_t)sizeof(magic) || memcmp(magic,
                                                                               "\x7f"
                                                                               "ELF",
                                                                               4) != 0)
        return false;
    return engine != HOST_ENGINE_UML || faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0;
}

static bool try_folder(const char *root, const char *folder, const char *rest, enum host_engine engine,
                       struct host_path *ret_path)
{
    if (folder == NULL || folder[0] != '/') /* unset, or relative, which means nothing here (XDG base directories) */
        return false;
    struct host_path whole = host_path_join(folder, rest);
    whole = host_path_join(whole.text, files[engine]);
    *ret_path = host_path_join(root, whole.text);
    return is_image(ret_path->text, engine);
}

bool host_kernel_find(const char *root, enum host_engine engine, struct host_path *ret_path)
{
    ret_path->text[0] = '\0';
    if (try_folder(root, secure_getenv("VIAL_KERNELS"), "", engine, ret_path) ||
        try_folder(root, VIAL_KERNEL_FOLDER, "", engine, ret_path))
        return true;
    const char *cache = secure_getenv("XDG_CACHE_HOME");
    if (cache != NULL && cache[0] == '/')
        return try_folder(root, cache, "/vial/kernel", engine, ret_path);
    return try_folder(root, secure_getenv("HOME"), "/.cache/vial/kernel", engine, ret_path);
}
