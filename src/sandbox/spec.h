// SPDX-License-Identifier: Apache-2.0
/* What a sandbox is, as its process reads it: spec.json, an object with the keys below. A machine's configuration is
 * that of docs/CONFIG.md, whole.
 *
 *     {"id", "name", "hostname", "ephemeral", "idle_timeout_ms", "max_duration_ms", "stop_grace_ms", "machine": {…},
 *      "program": {"args", "env", "rlimits", "workdir", "user", "terminal", "input", "rows", "columns"} or null,
 *      "labels": ["KEY=VALUE", …], "scripts": ["NAME", …]}
 *
 * Arguments, environment, workdir and user may be any bytes but NUL: what is UTF-8 is a string, anything else an object
 * with its bytes in digits of base 16, {"hex": "2f746d702fff"}. Paths of the machine have to be UTF-8 and are absolute,
 * as the process that reads them is somewhere else. The store has the last word on the name, which can change; the
 * file follows it. Scripts are copied into the sandbox's folder when it is created.
 */
#ifndef SANDBOX_SPEC_H
#define SANDBOX_SPEC_H

#include "sandbox/home.h"

/* Arrays end in NULL; what is not given is NULL. */
struct spec_program {
    char **args, **env, **rlimits;
    char *workdir, *user;
    uint16_t rows, columns;
    bool terminal, input;
};

struct spec {
    char id[VIAL_SANDBOX_ID_SIZE], name[VIAL_SANDBOX_NAME_SIZE];
    char *hostname;
    struct vial_vm_config *config;
    struct spec_program program; /* args is NULL: there is none */
    char **labels, **scripts;    /* scripts: their names */
    uint64_t idle_timeout_ms, max_duration_ms, stop_grace_ms;
    bool ephemeral;
};

/* Everything owned, a zeroed struct too. */
void spec_free(struct spec *spec);

/* A spec from the options of vial_sandbox_create, checked (names, labels, scripts, rlimits, user, paths, limits), with
 * a new id, and a name made of it where there is none. The configuration is copied without its exec, gets the host's
 * root where it has none at all, and is validated. What another process cannot have (custom backends, descriptors,
 * observers) is refused. */
int spec_from_options(const struct vial_sandbox_options *options, struct spec *ret_spec, struct vial_error *err);

/* Into and from the folder of the sandbox. Writing copies the scripts of `options` there as well. */
int spec_write(const struct spec *spec, const struct vial_sandbox_options *options, int folder, struct vial_error *err);
int spec_read(int folder, struct spec *ret_spec, struct vial_error *err);

/* Gives what is written there another name, and leaves everything else as it is. */
int spec_rename(int folder, const char *name, struct vial_error *err);

/* What can be checked of a program without the guest, for exec as well. Fields are named as those of the spec. */
int spec_check_program(const struct vial_program_options *program, struct vial_error *err);

/* Letters, digits, "_.-", not beginning with one of the latter, at most 63. */
bool spec_is_name(const char *name);

/* The command as one line for people, shortened: as a shell would want it. */
void spec_command_text(const struct spec *spec, char *text, size_t size);

#endif
