// SPDX-License-Identifier: Apache-2.0
/* The guest's first process (guest/init.c), as a part of this library: the build makes the array from the program. */
#ifndef VMM_GUEST_INIT_H
#define VMM_GUEST_INIT_H

#include <stddef.h>

extern const unsigned char guest_init_bytes[];
extern const size_t guest_init_length;

#endif
