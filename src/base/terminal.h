// SPDX-License-Identifier: Apache-2.0
/* The user's terminal: raw as long as somebody holds it, and restored whatever becomes of us. */
#ifndef BASE_TERMINAL_H
#define BASE_TERMINAL_H

#include <stdbool.h>
#include <stdint.h>

struct terminal;

/* Makes the terminal raw, unless another holder has already. The descriptor is duplicated. -EAGAIN while our process
 * group is in the background there: the terminal is another's, try again later. -ENOTTY for anything else. */
int terminal_new(int fd, struct terminal **ret_terminal);

/* The last holder restores what the first one found. Accepts NULL and returns NULL. */
struct terminal *terminal_free(struct terminal *terminal);

/* Makes it raw again after we were in the background, where a shell may have changed it. -EAGAIN while we still are. */
int terminal_renew(struct terminal *terminal);

/* Whether another process group has this terminal. False for a terminal that does not control us: it has no say. */
bool terminal_is_in_background(int fd);

int terminal_read_size(int fd, uint16_t *ret_columns, uint16_t *ret_rows);

#endif
