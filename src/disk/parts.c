// SPDX-License-Identifier: Apache-2.0
/* A piece of a scatter list.
 *
 * A request of a guest is a list of buffers; what an image stores of it lies in several places. So each place gets its
 * piece of the list, as a view: nothing is copied until the bytes are.
 *
 * Invariants: (1) a piece never reaches beyond its list (parts_measure has told how long that is).
 *
 * Trust: the buffers were checked by whoever made the list; lengths of 0 among them are fine.
 */
#include "disk/parts.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

enum { window_entries = 16 };

int parts_measure(const struct iovec *list, int count, uint64_t *ret_length)
{
    uint64_t length = 0;
    if (count < 0)
        return -EINVAL;
    for (int i = 0; i < count; i++)
        if (__builtin_add_overflow(length, list[i].iov_len, &length) || length > INT64_MAX)
            return -EINVAL;
    *ret_length = length;
    return 0;
}

struct parts parts_cut(const struct parts *parts, uint64_t from, uint64_t length)
{
    assert(from <= parts->length && length <= parts->length - from);
    return (struct parts){parts->list, parts->count, parts->skip + from, length};
}

int parts_window(const struct parts *parts, struct iovec *window, int most, uint64_t *ret_length)
{
    uint64_t skip = parts->skip, left = parts->length;
    int used = 0;
    for (int i = 0; i < parts->count && used < most && left > 0; i++) {
        const struct iovec *entry = &parts->list[i];
        if (skip >= entry->iov_len) {
            skip -= entry->iov_len;
            continue;
        }
        uint64_t length = entry->iov_len - skip;
        if (length > left)
            length = left;
        window[used++] = (struct iovec){(uint8_t *)entry->iov_base + skip, (size_t)length};
        left -= length;
        skip = 0;
    }
    *ret_length = parts->length - left;
    return used;
}

/* Calls for each run of memory in the piece. */
static void for_each_run(struct parts rest, void (*function)(void *memory, uint8_t *bytes, size_t length),
                         uint8_t *bytes)
{
    struct iovec window[window_entries];
    while (rest.length > 0) {
        uint64_t length = 0;
        int used = parts_window(&rest, window, window_entries, &length);
        assert(length > 0);
        for (int i = 0; i < used; i++) {
            function(window[i].iov_base, bytes, window[i].iov_len);
            if (bytes != NULL)
                bytes += window[i].iov_len;
        }
        rest = parts_cut(&rest, length, rest.length - length);
    }
}

static void copy_in(void *memory, uint8_t *bytes, size_t length)
{
    memcpy(memory, bytes, length);
}

static void copy_out(void *memory, uint8_t *bytes, size_t length)
{
    memcpy(bytes, memory, length);
}

static void clear(void *memory, uint8_t *bytes, size_t length)
{
    (void)bytes;
    memset(memory, 0, length);
}

void parts_fill(const struct parts *parts, const void *bytes)
{
    union { /* only read: copy_in is told so by nobody */
        const void *given;
        uint8_t *taken;
    } source = {.given = bytes};
    for_each_run(*parts, copy_in, source.taken);
}

void parts_fill_zero(const struct parts *parts)
{
    for_each_run(*parts, clear, NULL);
}

void parts_gather(const struct parts *parts, void *bytes)
{
    for_each_run(*parts, copy_out, bytes);
}

bool parts_are_aligned(const struct parts *parts, uint64_t alignment)
{
    struct parts rest = *parts;
    struct iovec window[window_entries];
    while (rest.length > 0) {
        uint64_t length = 0;
        int used = parts_window(&rest, window, window_entries, &length);
        for (int i = 0; i < used; i++)
            if ((((uintptr_t)window[i].iov_base | window[i].iov_len) & (alignment - 1)) != 0)
                return false;
        rest = parts_cut(&rest, length, rest.length - length);
    }
    return true;
}
