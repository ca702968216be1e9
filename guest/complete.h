// SPDX-License-Identifier: Apache-2.0
/* A request completed from the guest's own configuration. (complete.c) */
#ifndef GUEST_COMPLETE_H
#define GUEST_COMPLETE_H

#include "guest.h"
#include "krun.h"

struct completion {
    struct init_request request; /* what is to run; borrowed from what is here, and from the request that was given */
    void *table;                 /* owned: its arrays */
    struct krun_config config;   /* owned */
    char *text;                  /* owned: the file's */
};

#define COMPLETION_INIT                                                                                                \
    {                                                                                                                  \
        .config = KRUN_CONFIG_INIT                                                                                     \
    }

/* Reads the file, mounts what it wants, names the guest, and makes the whole request. When it is false, the answer says
 * what failed. In either case the completion is to be freed, not before the request was used. */
bool complete_request(const struct init_request *given, struct completion *completion, struct init_answer *ret_failure);
void free_completion(struct completion *completion);

#endif
