// SPDX-License-Identifier: Apache-2.0
/* What a guest's own configuration says is to run, and a request completed from it. (krun.c) */
#ifndef GUEST_KRUN_H
#define GUEST_KRUN_H

#include "json.h"
#include "proto/init.h"

struct krun_mount {
    const char *target; /* borrowed */
    char *options;      /* owned: as mount(8) has them */
    size_t place;       /* where the file says so */
};

/* Texts are borrowed from the file's. */
struct krun_config {
    struct json_tree tree; /* owned */
    const char **strings;  /* owned: what the next two point into */
    const char **args;     /* the program, and what stands behind its name */
    const char **env;
    size_t arg_count, env_count;
    const char *workdir;       /* or NULL */
    struct krun_mount *mounts; /* owned: tmpfs */
    size_t mount_count;
};

/* What a file says that is not there. */
#define KRUN_CONFIG_INIT                                                                                               \
    {                                                                                                                  \
        .tree = JSON_TREE_INIT                                                                                         \
    }

/* Reads a file's text, which is changed, into an empty configuration. 0, -EBADMSG for what is no JSON, -EINVAL for JSON
 * that says something else than it may here, -E2BIG for too much of it, -ENOMEM; then *ret_place is where, and nothing
 * is left to free. */
int krun_read(struct krun_config *config, char *text, size_t length, size_t *ret_place);
void krun_free(struct krun_config *config);

/* The request with everything that it leaves open: its texts are those of the two, its arrays are in `ret_table`, which
 * the caller frees, and as init_decode_request has them. 0 or -ENOMEM. */
int krun_complete(const struct init_request *request, const struct krun_config *config,
                  struct init_request *ret_request, void **ret_table);

/* The value of that variable, or NULL. */
const char *krun_variable(const struct init_request *request, const char *name);

#endif
