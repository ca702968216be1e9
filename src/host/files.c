// SPDX-License-Identifier: Apache-2.0
/* Reading the small files in which the kernel describes itself, below a root that tests can choose.
 *
 * Invariants: (1) no file is read past LIMIT_PROC_FILE_BYTES. (2) a number is only taken from decimal digits.
 *
 * Trust: the kernel writes these files; in a container they may be missing, empty, or somebody's imitation.
 */
#include "host/files.h"

#include "base/fd.h"
#include "base/limits.h"
#include "base/text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct host_path host_path_join(const char *root, const char *path)
{
    struct host_path joined;
    int length = snprintf(joined.text, sizeof(joined.text), "%s%s", root, path);
    if (length < 0 || (size_t)length >= sizeof(joined.text))
        joined.text[0] = '\0';
    return joined;
}

bool host_file_exists(const char *root, const char *path)
{
    return access(host_path_join(root, path).text, F_OK) == 0;
}

int host_file_read(const char *root, const char *path, struct buffer *buffer)
{
    buffer->limit = LIMIT_PROC_FILE_BYTES;
    int result = fd_read_file(host_path_join(root, path).text, buffer);
    if (result == 0 && buffer->data == NULL)
        result = buffer_add(buffer, "", 0); /* an empty file is an empty string */
    return result;
}

int host_file_number(const char *root, const char *path, uint64_t *ret_number)
{
    auto_buffer struct buffer text = BUFFER_INIT(LIMIT_PROC_FILE_BYTES);
    int result = host_file_read(root, path, &text);
    return result < 0 ? result : text_to_u64(text.data, strspn(text.data, "0123456789"), UINT64_MAX, ret_number);
}

bool host_text_number(const char *text, const char *key, uint64_t *ret_number)
{
    size_t key_length = strlen(key);
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += line[0] == '\n';
        if (strncmp(line, key, key_length) != 0 || (line[key_length] != ':' && line[key_length] != ' '))
            continue;
        const char *number = line + key_length + 1;
        number += strspn(number, " \t");
        return text_to_u64(number, strspn(number, "0123456789"), UINT64_MAX, ret_number) == 0;
    }
    return false;
}
