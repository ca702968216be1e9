// SPDX-License-Identifier: Apache-2.0
/* Reading the small files in which the kernel describes itself, below a root that tests can choose. */
#ifndef HOST_FILES_H
#define HOST_FILES_H

#include "base/buffer.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

struct host_path {
    char text[PATH_MAX];
};

/* root + path; a result that would not fit is empty and so names no file. */
struct host_path host_path_join(const char *root, const char *path);

bool host_file_exists(const char *root, const char *path);

/* The whole file into an empty buffer: 0 or -errno. */
int host_file_read(const char *root, const char *path, struct buffer *buffer);

/* The decimal number a file holds; 0, -errno, or -EINVAL when it does not begin with one. */
int host_file_number(const char *root, const char *path, uint64_t *ret_number);

/* The number behind "key:" or "key " at the beginning of a line of `text` (/proc/meminfo, cgroup files). */
bool host_text_number(const char *text, const char *key, uint64_t *ret_number);

#endif
