// SPDX-License-Identifier: Apache-2.0
/* Configuration files and what must come of each: a JSON text, and the field, code, value, message and remedy that it
 * must be refused with, or nothing, when it must be accepted. They are read with the scratch folder as the current one,
 * in which prepare() has made what the texts name. */
#ifndef REFUSALS_H
#define REFUSALS_H

#include "host/capacity.h"
#include "vmm/config.h"

extern const struct host_capacity host; /* what files are checked against */
extern struct vial_error err;           /* of the last check */

struct refusal {
    const char *json;
    enum vial_error_code code;
    const char *field, *value, *message, *remedy;
};

void prepare(void);
int check_json(const char *json);
void check_refusals(const struct refusal *refusals, size_t count);
void check_accepted(const char *const texts[], size_t count);

/* The same for what a file cannot say: a configuration, made by calls, that must be refused; it is freed. */
struct vial_vm_config *new_config(void);
void check_refused(struct vial_vm_config *config, const char *field, const char *message);

#endif
