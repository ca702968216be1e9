// SPDX-License-Identifier: Apache-2.0
/* A piece of a scatter list: what is read into, or written from. */
#ifndef DISK_PARTS_H
#define DISK_PARTS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct parts {
    const struct iovec *list; /* borrowed */
    int count;
    uint64_t skip;   /* bytes of the list that lie before the piece */
    uint64_t length; /* of the piece; the list goes on at least that far */
};

/* How many bytes the list holds: 0, -EINVAL for a negative count or more than an int64_t. */
int parts_measure(const struct iovec *list, int count, uint64_t *ret_length);

/* Of the piece, `length` bytes from `from` on. */
struct parts parts_cut(const struct parts *parts, uint64_t from, uint64_t length);

/* The beginning of the piece as at most `most` entries of `window`: how many, and in *ret_length how much that is. */
int parts_window(const struct parts *parts, struct iovec *window, int most, uint64_t *ret_length);

void parts_fill(const struct parts *parts, const void *bytes);
void parts_fill_zero(const struct parts *parts);
void parts_gather(const struct parts *parts, void *bytes);

/* Whether every address and length of it is a multiple of the alignment, which is a power of two. */
bool parts_are_aligned(const struct parts *parts, uint64_t alignment);

#endif
