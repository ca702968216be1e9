// SPDX-License-Identifier: Apache-2.0
/* What the files of the spec share. (spec.c, spec_checks.c, spec_machine.c, spec_json.c) */
#ifndef SANDBOX_SPEC_PARTS_H
#define SANDBOX_SPEC_PARTS_H

#include "sandbox/spec.h"

#include <jansson.h>

struct buffer;

/* Checks of the options, one each. */
int spec_check_name(const char *name, struct vial_error *err);
int spec_check_hostname(const char *hostname, struct vial_error *err);
int spec_check_labels(const char *const *labels, struct vial_error *err);
int spec_check_scripts(const char *const *scripts, struct vial_error *err);

/* The file of "NAME=FILE", open for reading and a regular one of at most LIMIT_SCRIPT_BYTES, or -errno. */
int spec_open_script(const char *script, size_t index, struct vial_error *err);

/* A copy that another process can use, as spec_from_options says; `config` may be NULL. Not validated. */
int spec_copy_machine(const struct vial_vm_config *config, struct vial_vm_config **ret_copy, struct vial_error *err);

/* A copy that ends in NULL, and NULL for NULL or without strings; false without memory. */
bool spec_copy_strings(const char *const *strings, char ***ret_strings);
void spec_free_strings(char **strings);

/* The value as text, behind what the buffer holds: 0 or -errno. */
int spec_dump(const json_t *value, size_t flags, struct buffer *text);

/* KEY of "KEY=VALUE": its length, or 0 where there is no key or no value. */
size_t spec_key_length(const char *text);

#endif
