// SPDX-License-Identifier: Apache-2.0
/* The DAX window: address space of ours that the guest sees, with pieces of files mapped onto it. */
#ifndef DEVICE_FS_WINDOW_H
#define DEVICE_FS_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct window;

/* All of it becomes inaccessible. The space is borrowed, page-aligned, and remains mapped after the end. */
int window_new(void *space, uint64_t size_bytes, struct window **ret_window);
struct window *window_free(struct window *window);

/* Maps `length` bytes of the file from `file_offset` on to `offset` of the window, in the place of what was there.
 * -EINVAL for what is not whole pages, lies outside, or overflows; -EACCES for what is not a regular file; or the
 * -errno of a host that cannot (-ENOMEM: too many mappings). After a failure the old mapping is there, or none. */
int window_map(struct window *window, uint64_t offset, uint64_t length, int fd, uint64_t file_offset, bool for_writing);

/* Nothing is there any more. -EINVAL as above. */
int window_unmap(struct window *window, uint64_t offset, uint64_t length);

/* Nothing is anywhere. */
void window_clear(struct window *window);

#endif
