// SPDX-License-Identifier: Apache-2.0
/* The nodes that the guest knows: how often it looked each of them up, and which are in use.
 *
 * Whatever has to be forgotten in the backend is told to the caller, who does it without our lock: the backend counts
 * for itself, and its count is never less than ours.
 */
#ifndef DEVICE_FS_KNOWN_H
#define DEVICE_FS_KNOWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct known;

/* The root is known from the beginning, and for ever. */
int known_new(struct known **ret_known);
struct known *known_free(struct known *known);

/* One more lookup of a node that the backend has just counted; `pins` it, too, if that is wanted. *ret_forget is how
 * many lookups the backend has to forget now (an older life of the node that had to wait). -ENFILE at the limit,
 * -ENOMEM: nothing has changed. */
int known_add(struct known *known, uint64_t node, bool pins, uint64_t *ret_forget);

/* Keeps the node from being forgotten while somebody works with it: false for one that the guest does not know. The
 * second accepts a node that is pinned already, whether it is still known or not. */
bool known_pin(struct known *known, uint64_t node);
void known_pin_again(struct known *known, uint64_t node);

/* Returns how many lookups the backend has to forget now: those that had to wait for the last pin. */
uint64_t known_unpin(struct known *known, uint64_t node);

/* The guest takes lookups back, at most as many as it has. Returns how many the backend has to forget now. */
uint64_t known_forget(struct known *known, uint64_t node, uint64_t lookups);

/* Notes what the node's contents look like, as a number; whether that is what was noted before. */
bool known_restamp(struct known *known, uint64_t node, uint32_t stamp);

/* For the end of a session, when nobody works with any node: each that has lookups, beginning with a *cursor of 0,
 * until false; and then everything but the root is gone. */
bool known_next(const struct known *known, size_t *cursor, uint64_t *ret_node, uint64_t *ret_lookups);
void known_reset(struct known *known);

/* How many there are, the root not counted. On any thread. */
size_t known_count(struct known *known);

#endif
