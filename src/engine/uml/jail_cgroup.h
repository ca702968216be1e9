// SPDX-License-Identifier: Apache-2.0
/* A control group around a jail: bounds on memory and processes together. */
#ifndef ENGINE_UML_JAIL_CGROUP_H
#define ENGINE_UML_JAIL_CGROUP_H

#include <stdint.h>
#include <sys/types.h>

struct jail_cgroup;

/* A new group in which `memory_bytes` may be used, below our own or beside it. Groups that dead processes have left
 * there are removed. 0, or a negative errno where none can be had. */
int jail_cgroup_new(uint64_t memory_bytes, struct jail_cgroup **ret_cgroup);

/* Its folder, for CLONE_INTO_CGROUP. */
int jail_cgroup_fd(const struct jail_cgroup *cgroup);

int jail_cgroup_add(const struct jail_cgroup *cgroup, pid_t pid);

/* Kills what is left in the group, waits for its end, and removes it. */
struct jail_cgroup *jail_cgroup_free(struct jail_cgroup *cgroup);

#endif
