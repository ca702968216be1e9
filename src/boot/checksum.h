// SPDX-License-Identifier: Apache-2.0
/* The checksum of firmware tables, those of ACPI and the MP table alike: their bytes add up to 0. */
#ifndef BOOT_CHECKSUM_H
#define BOOT_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* What makes them do so, where the checksum's own byte is still 0. */
static inline uint8_t checksum_find(const void *bytes, size_t length)
{
    const uint8_t *next = bytes;
    uint8_t sum = 0;
    for (size_t i = 0; i < length; i++)
        sum = (uint8_t)(sum + next[i]);
    return (uint8_t)-sum;
}

#endif
