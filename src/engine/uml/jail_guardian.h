// SPDX-License-Identifier: Apache-2.0
/* The process between the embedding program and the jail: it makes the jail's first process, and sees its end. */
#ifndef ENGINE_UML_JAIL_GUARDIAN_H
#define ENGINE_UML_JAIL_GUARDIAN_H

#include "engine/uml/jail_private.h"

struct jail_guardian;

/* Makes a guardian, which makes the child with these namespaces, in the group of `cgroup_fd` unless that is -1. 0 when
 * the child waits for its go, -errno when none could be made. */
int jail_guardian_new(const struct jail_plan *plan, unsigned long namespaces, int cgroup_fd,
                      struct jail_guardian **ret_guardian);

/* Of the child. */
pid_t jail_guardian_child(const struct jail_guardian *guardian);
bool jail_guardian_is_in_cgroup(const struct jail_guardian *guardian);
void jail_guardian_kill_child(const struct jail_guardian *guardian);

/* Of the guardian itself: readable when the child has ended and was reaped. */
int jail_guardian_pidfd(const struct jail_guardian *guardian);

/* How the child ended: 0, or -EAGAIN before. */
int jail_guardian_end(const struct jail_guardian *guardian, struct jail_end *ret_end);

/* Kills the child and waits for its end. */
struct jail_guardian *jail_guardian_free(struct jail_guardian *guardian);

#endif
