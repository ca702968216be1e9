// SPDX-License-Identifier: Apache-2.0
/* A disk image beside what it should hold: random changes to both. */
#ifndef QCOW2_MODEL_H
#define QCOW2_MODEL_H

#include "disk/disk.h"

#include <stdint.h>

/* Says why and ends the program with 1. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A number from a seed, the same every time. */
uint64_t next_random(uint64_t *seed);

/* Fills sectors so that each tells where it belongs and which write it comes from. */
void stamp(uint8_t *bytes, uint64_t offset, uint64_t length, uint64_t version);
/* Which write a sector comes from: 0 for zeros, UINT64_MAX for what no stamp of that place is. */
uint64_t stamp_of(const uint8_t *sector, uint64_t offset);

/* Reads all of the disk, by its map where it tells and by disk_read where not. */
void read_whole(struct disk *disk, uint8_t *bytes, uint64_t size_bytes);

/* Writes by the map where it tells, else by disk_write. */
int write_somehow(struct disk *disk, const uint8_t *bytes, uint64_t offset, uint64_t length, uint64_t *seed);

/* Random changes of the disk, done to the model in memory, too; compared now and then. */
void change_both(struct disk *disk, uint8_t *model, uint64_t size_bytes, uint64_t seed, uint64_t count);

/* Children that change the image until they are killed: see qcow2_torture.c. */
int torture(const struct disk_options *options, uint64_t seed, uint64_t cycles);

#endif
