// SPDX-License-Identifier: Apache-2.0
/* Threads for requests that may take long. */
#ifndef DEVICE_FS_WORKERS_H
#define DEVICE_FS_WORKERS_H

#include <stdbool.h>

struct request;
struct workers;

/* Nothing is started yet. */
int workers_new(unsigned most_threads, struct workers **ret_workers);

/* When nothing is pending. */
struct workers *workers_free(struct workers *workers);

/* Has request_execute called for it, on some thread: 0, or -errno when there is no thread and none can be started. */
int workers_submit(struct workers *workers, struct request *request);

/* Becomes readable when a request was done. It is to be watched edge-triggered and never read. */
int workers_done_fd(const struct workers *workers);

/* Those that were done, linked by `next`, in the order in which they were; NULL for none. */
struct request *workers_take_done(struct workers *workers);

/* Returns when all that was submitted has been done. */
void workers_drain(struct workers *workers);

#endif
