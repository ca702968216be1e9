// SPDX-License-Identifier: Apache-2.0
/* Numbers in a filter that stand for what is known only when it is installed. */
#ifndef SANDBOX_FILTER_PLACEHOLDER_H
#define SANDBOX_FILTER_PLACEHOLDER_H

/* The process's own pid. Above all pids (2^22), and no argument of a call that a list has. */
#define FILTER_OWN_PID 0x7ee1f01du

#endif
