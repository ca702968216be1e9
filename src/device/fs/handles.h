// SPDX-License-Identifier: Apache-2.0
/* Open files and folders of the guest: what its handle numbers stand for. */
#ifndef DEVICE_FS_HANDLES_H
#define DEVICE_FS_HANDLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct handles;

enum handle_kind { HANDLE_FILE = 1, HANDLE_FOLDER = 2 };

struct handle {
    enum handle_kind kind;
    uint64_t node;   /* what it was opened on */
    uint64_t handle; /* of the backend */
};

int handles_new(struct handles **ret_handles);
struct handles *handles_free(struct handles *handles);

/* A number for what is going to be opened, so that nothing can fail afterwards: 0, -ENFILE or -ENOMEM. Then one of
 * these two. */
int handles_reserve(struct handles *handles, uint64_t *ret_number);
void handles_fill(struct handles *handles, uint64_t number, const struct handle *handle);
void handles_cancel(struct handles *handles, uint64_t number);

/* Keeps a handle from being closed while somebody works with it: 0, or -EBADF for a number that was never given out,
 * that was released, or that stands for something of another kind or another node. */
int handles_pin(struct handles *handles, uint64_t number, enum handle_kind kind, uint64_t node,
                struct handle *ret_handle);

/* True when that was the last pin of a handle that was released: it has to be closed now, and its number is gone. */
bool handles_unpin(struct handles *handles, uint64_t number);

/* The guest gives up the handle, which the caller has pinned: 0, or -EBADF when somebody was faster. */
int handles_release(struct handles *handles, uint64_t number);

/* For the end of a session, when nobody works with any handle: each, beginning with a *cursor of 0, until false; and
 * then all are gone. Their numbers stay invalid. */
bool handles_next(const struct handles *handles, size_t *cursor, struct handle *ret_handle);
void handles_reset(struct handles *handles);

/* On any thread. */
size_t handles_count(struct handles *handles);

#endif
