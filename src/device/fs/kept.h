// SPDX-License-Identifier: Apache-2.0
/* Files that the server keeps open for a guest that opens none itself: at most one a node. */
#ifndef DEVICE_FS_KEPT_H
#define DEVICE_FS_KEPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kept;

struct kept_file {
    uint64_t node;
    uint64_t handle; /* of the backend */
    size_t place;    /* in the table, for as long as it is pinned */
};

/* Room for `most` files. */
int kept_new(size_t most, struct kept **ret_kept);
struct kept *kept_free(struct kept *kept);

/* Pins the node's file: false when there is none. */
bool kept_pin(struct kept *kept, uint64_t node, struct kept_file *ret_file);

/* Keeps a file that was just opened. What is pinned is that one, or the node's other one, where somebody was faster.
 * True when *ret_closed has to be closed for it: the one just opened, or the one that was not used for longest. */
bool kept_add(struct kept *kept, uint64_t node, uint64_t handle, struct kept_file *ret_file,
              struct kept_file *ret_closed);

/* True when it has to be closed now: it was dropped meanwhile, or never had a place. */
bool kept_unpin(struct kept *kept, const struct kept_file *file);

/* The node's file is not found any more: true when it has to be closed now, else that is the last unpin's matter. */
bool kept_drop(struct kept *kept, uint64_t node, struct kept_file *ret_closed);

/* Takes out one that is not pinned: false when there is none. It has to be closed. */
bool kept_take(struct kept *kept, struct kept_file *ret_closed);

#endif
