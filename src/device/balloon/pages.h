// SPDX-License-Identifier: Apache-2.0
/* The requests of a balloon's driver that name pages. */
#ifndef DEVICE_BALLOON_PAGES_H
#define DEVICE_BALLOON_PAGES_H

#include "device/balloon/balloon.h"

enum { BALLOON_PAGE_BYTES = 4096 }; /* whatever the guest's pages are (5.5.6, note) */

/* How much time requests took, in what takes it. */
struct pages_work {
    uint64_t pages, bytes;
};

/* Gives the pages of an array of page numbers back to the host. */
void pages_inflate(const struct memory *memory, const struct queue_chain *chain, struct pages_work *work,
                   struct balloon_counters *counters);

/* The guest takes such pages again. They come back by being touched, so that this only counts them. */
void pages_deflate(const struct memory *memory, const struct queue_chain *chain, struct pages_work *work,
                   struct balloon_counters *counters);

/* Gives a request's own writable buffers back to the host: free memory of the guest, to be reused at any time. */
void pages_report(const struct memory *memory, const struct queue_chain *chain, struct pages_work *work,
                  struct balloon_counters *counters);

#endif
