// SPDX-License-Identifier: Apache-2.0
/* A libkrunfw of our own: a few pages of kernel, and answers that the build chooses. */
#include <stddef.h>

char *GET_KERNEL(size_t *load, size_t *entry, size_t *size);
int krunfw_get_version(void);

/* Two pages and a bit; SECTION says whether they come from the file. */
static char bundle[8192 + 100] __attribute__((aligned(4096), section(SECTION))) = BYTES;

/* What is different from the file is only there in memory. */
__attribute__((constructor)) static void prepare(void)
{
    *(volatile char *)bundle = FIRST;
}

char *GET_KERNEL(size_t *load, size_t *entry, size_t *size)
{
    *load = LOAD;
    *entry = ENTRY;
    *size = SIZE;
    return HAS_BYTES ? bundle : NULL;
}

int krunfw_get_version(void)
{
    return 5;
}
