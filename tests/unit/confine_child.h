// SPDX-License-Identifier: Apache-2.0
/* A child puts up the walls, one of its threads tries something, and says what came of it: nothing ("done"), an errno
 * ("EACCES"), or the refusal that its process died of ("refused openat device"). */
#ifndef CONFINE_CHILD_H
#define CONFINE_CHILD_H

#include "sandbox/confine.h"

#include <stdbool.h>

typedef long attempt_function(void); /* 0 or more, or -1 and errno */

/* What was told, as a string that stays until the next call. */
const char *try_as(enum confine_kind kind, attempt_function *attempt, const struct confine_options *options);

bool has_landlock(void);

#endif
