// SPDX-License-Identifier: Apache-2.0
/* Namespaces for the jail, and ids that are nobody else's. */
#ifndef ENGINE_UML_JAIL_NAMESPACES_H
#define ENGINE_UML_JAIL_NAMESPACES_H

#include "engine/uml/jail_private.h"

/* Which of the walls are namespaces: its CLONE_NEW* flag, or 0. */
unsigned long jail_namespace_flag(enum jail_wall wall);

/* Finds out one by one which namespaces this process may make and use. Positive errnos in `ret_errors` (which has room
 * for every wall) for those that it may not; the flags of the others are returned. */
unsigned long jail_namespaces_probe(int ret_errors[JAIL_WALLS]);

/* What to do about a namespace that cannot be had. */
const char *jail_namespace_remedy(enum jail_wall wall, int os_error);

/* Who the program will be. */
struct jail_identity {
    bool is_unique; /* an id of its own, because we may give it one */
    bool is_root;   /* none could be given, and we are the host's root */
};
/* 0 or -errno. */
int jail_identity_choose(struct jail_identity *ret_identity);

/* Whether we give ids like that one to programs. */
bool jail_identity_is_unique(uint32_t id);

/* Fills in who the child `pid` is to be; in a user namespace of its own its maps are written. 0 or -errno. */
int jail_identity_give(const struct jail_identity *identity, pid_t pid, bool has_user_namespace, struct jail_go *ret_go,
                       uint32_t *ret_host_id);

#endif
