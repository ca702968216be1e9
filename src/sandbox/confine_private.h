// SPDX-License-Identifier: Apache-2.0
/* What the parts of confine share. */
#ifndef SANDBOX_CONFINE_PRIVATE_H
#define SANDBOX_CONFINE_PRIVATE_H

#include "base/landlock.h"
#include "sandbox/confine.h"

/* A domain for each kind of thread; the descriptors are owned, -1 at first. 0, or -errno with an error. */
int confine_make_domains(const struct confine_options *options, struct landlock ret_domains[CONFINE_KINDS],
                         struct vial_error *err);
void confine_free_domains(struct landlock domains[CONFINE_KINDS]);

#endif
