// SPDX-License-Identifier: Apache-2.0
/* The one host CPU on which a user-mode Linux machine of one CPU runs. */
#ifndef ENGINE_UML_PLACEMENT_H
#define ENGINE_UML_PLACEMENT_H

#include <sched.h>
#include <stdint.h>
#include <sys/types.h>

struct placement;

/* Holds the program, and with it all the processes that it will make, on the CPU where it runs now. Soon after its
 * exec: processes that it has made before are not held. 0 and *ret_placement, which is NULL when this process has one
 * CPU only; or a negative errno, and the program goes where the host's scheduler wants it. */
int placement_begin(pid_t program, struct placement **ret_placement);

/* Looks whether the program should be moved, and moves it. Returns when to look again (base/clock.h). */
uint64_t placement_look(struct placement *placement);

struct placement *placement_free(struct placement *placement);

/* ---- what a look is made of, for tests ---- */

/* The CPU that /proc/PID/stat says the process ran on last, or -EPROTO. */
int placement_parse_cpu(const char *text);

/* Of /proc/stat: the ticks that each CPU had nothing to do, into idle[CPU_SETSIZE]; UINT64_MAX for one that is not in
 * the text. The text may be cut off anywhere. */
void placement_parse_idle(const char *text, uint64_t *idle);

/* The allowed CPU other than `own` that had most idle ticks between two samples, at least `least` of them; -1: none. */
int placement_choose(const cpu_set_t *allowed, int own, const uint64_t *before, const uint64_t *after, uint64_t least);

#endif
