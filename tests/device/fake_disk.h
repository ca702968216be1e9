// SPDX-License-Identifier: Apache-2.0
/* A disk for tests of devices: bytes in a memfd, and whatever goes wrong with disks, when the test says so. Its
 * functions take the place of src/disk.
 *
 *     struct disk *disk = fake_disk_new(1 << 20);
 *     disk->maps_nothing = true;
 */
#ifndef FAKE_DISK_H
#define FAKE_DISK_H

#include "disk/disk.h"

#include <pthread.h>
#include <stdatomic.h>

struct disk {
    int fd; /* owned */
    struct disk_properties properties;

    /* What the test sets before it begins, or between requests. */
    atomic_bool maps_nothing;    /* disk_map and disk_sync_fd leave everything to the workers */
    uint64_t zero_from, zero_to; /* no bytes are stored there: zeros */
    uint64_t extent_bytes;       /* no extent is longer; 0: any */
    int map_fd;                  /* where the map says that the bytes are; -1: in the memfd */
    atomic_int read_error, write_error, flush_error, discard_error; /* -errno of the next ones, or 0 */
    bool has_no_discard;                                            /* -EOPNOTSUPP */

    /* What it was asked for. */
    atomic_uint reads, writes, flushes, discards, zeroes, most_at_once, unmaps;
    atomic_uint exclusive_faults; /* something moved while a discard went on */
    atomic_uint at_once;

    pthread_mutex_t lock; /* a gate: what is done here waits while it is closed */
    pthread_cond_t opened;
    bool is_closed;
    unsigned waiting;
};

/* Of so many bytes, each of which says in which sector it is. */
struct disk *fake_disk_new(uint64_t size_bytes);

/* Closes the gate, and opens it again. */
void fake_disk_close_gate(struct disk *disk);
void fake_disk_open_gate(struct disk *disk);

/* Waits until so many stand before the gate: false after five seconds. */
bool fake_disk_await(struct disk *disk, unsigned count);

/* What fake_disk_new wrote there. */
uint8_t fake_disk_byte(uint64_t offset);

#endif
