// SPDX-License-Identifier: Apache-2.0
/* What a loader reports about the kernel that it put into guest memory. */
#ifndef BOOT_IMAGE_H
#define BOOT_IMAGE_H

#include <asm/bootparam.h>
#include <stdbool.h>
#include <stdint.h>

enum boot_protocol {
    BOOT_PVH,     /* 32-bit entry with a start_info (Xen's PVH, which Linux and others speak) */
    BOOT_LINUX64, /* the 64-bit entry of Linux, with a zero page */
};

struct boot_image {
    enum boot_protocol protocol;
    uint64_t entry;      /* guest-physical */
    uint64_t begin, end; /* what the image takes up, what it zeroes or unpacks into included */
    bool has_setup_header;
    struct setup_header setup_header; /* of a bzImage, to be handed back to it in the zero page */
};

#endif
