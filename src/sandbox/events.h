// SPDX-License-Identifier: Apache-2.0
/* Reading what has happened to the sandboxes of a home, and what happens now. (home_event, in home.h, writes it.) */
#ifndef SANDBOX_EVENTS_H
#define SANDBOX_EVENTS_H

#include "sandbox/home.h"

/* Calls `line` for each event since that time (ns since 1970), then for those that come until `timeout_ms` is over (0:
 * none of them, VIAL_WAIT_FOREVER: without end) or the function returns false. Its stream is 0. */
int home_events_follow(const struct home *home, uint64_t since_ns, uint64_t timeout_ms, vial_log_line line, void *user,
                       struct vial_error *err);

#endif
