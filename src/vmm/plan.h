// SPDX-License-Identifier: Apache-2.0
/* What the guest's init is to mount and which interfaces it is to set up, from the configuration. (proto/init.h) */
#ifndef VMM_PLAN_H
#define VMM_PLAN_H

#include "base/error.h"
#include "proto/init.h"
#include "vmm/config.h"

struct plan {
    const struct vial_vm_config *config; /* borrowed, as are the texts of most mounts */
    struct init_mount *mounts;           /* owned */
    size_t count;
    struct init_network *networks; /* owned */
    size_t network_count;
    struct string_list texts; /* owned: those that the configuration does not have as they are */
};

#define PLAN_EMPTY                                                                                                     \
    {                                                                                                                  \
        0                                                                                                              \
    }

/* Fills an empty plan, for a configuration that was validated. On failure nothing is left to free. */
int plan_make(struct plan *plan, const struct vial_vm_config *config, struct vial_error *err);
void plan_free(struct plan *plan);

/* What failed, as a person would say it: `mount` is a number of the plan or INIT_NO_MOUNT, everything comes from a
 * guest. */
void plan_explain(const struct plan *plan, const struct init_answer *failure, char *text, size_t size);

/* Whether the failure is one of the plan's, and not of the program's. */
bool plan_is_blamed(const struct init_answer *failure);

#endif
