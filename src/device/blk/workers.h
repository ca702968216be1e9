// SPDX-License-Identifier: Apache-2.0
/* Threads that do for a block device what has to wait. */
#ifndef DEVICE_BLK_WORKERS_H
#define DEVICE_BLK_WORKERS_H

#include "base/loop.h"

#include <stdbool.h>

/* A piece of work, part of something larger; belongs to the workers from blk_workers_give until it was finished. */
struct blk_work {
    struct blk_work *next;
    int result;
};

struct blk_workers_options {
    struct loop *loop; /* borrowed: `finished` is called on its thread */
    unsigned most_threads;
    int (*perform)(struct blk_work *work);               /* on any thread */
    void (*finished)(void *user, struct blk_work *work); /* with what perform returned */
    void (*settled)(void *user);                         /* behind the calls of finished that the loop made */
    void *user;
};

struct blk_workers;

int blk_workers_new(const struct blk_workers_options *options, struct blk_workers **ret_workers);

/* Ends the threads. There is no work left. Accepts NULL and returns NULL. */
struct blk_workers *blk_workers_free(struct blk_workers *workers);

void blk_workers_give(struct blk_workers *workers, struct blk_work *work);

/* How much was given and has not come back. */
unsigned blk_workers_busy(const struct blk_workers *workers);

/* What nobody has begun yet is finished at once, with -ECANCELED. */
void blk_workers_withdraw(struct blk_workers *workers);

/* Waits until some of the work is done, and has it finished. There is some. */
void blk_workers_wait(struct blk_workers *workers);

#endif
