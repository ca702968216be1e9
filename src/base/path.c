// SPDX-License-Identifier: Apache-2.0
/* Paths as text: normalized component by component, compared by whole components.
 *
 * "/var" contains "/var/log" but not "/variety": comparing prefixes of text gets that wrong, and has been the root of
 * real escapes elsewhere.
 *
 * Invariants: (1) a normalized path begins with '/', ends without one unless it is the root, and has no empty, "." or
 * ".." component. (2) it is never longer than what it was made from.
 *
 * Trust: paths come from users and files.
 */
#include "base/path.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>

int path_normalize(const char *path, char **ret_normal)
{
    if (path[0] != '/')
        return -EINVAL;
    auto_free char *normal = alloc_zero(strlen(path) + 1);
    if (normal == NULL)
        return -ENOMEM;
    size_t length = 0; /* of what is normalized so far, without a slash at its end */
    const char *component = path;
    for (;;) {
        component += strspn(component, "/");
        size_t size = strcspn(component, "/");
        if (size == 0)
            break;
        if (size == 2 && memcmp(component, "..", 2) == 0) {
            if (length == 0)
                return -EXDEV;
            while (normal[--length] != '/')
                ;
        } else if (size != 1 || component[0] != '.') {
            normal[length++] = '/';
            memcpy(normal + length, component, size);
            length += size;
        }
        component += size;
    }
    if (length == 0)
        normal[length++] = '/';
    normal[length] = '\0';
    *ret_normal = steal_ptr(normal);
    return 0;
}

bool path_overlaps(const char *a, const char *b)
{
    size_t a_length = strlen(a), b_length = strlen(b);
    const char *outer = a_length <= b_length ? a : b;
    const char *inner = outer == a ? b : a;
    size_t length = outer == a ? a_length : b_length;
    if (length == 1) /* the root holds everything */
        return true;
    return memcmp(outer, inner, length) == 0 && (inner[length] == '\0' || inner[length] == '/');
}
