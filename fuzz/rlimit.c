// SPDX-License-Identifier: Apache-2.0
/* Any text as a resource limit. What must hold: an accepted one has a known resource and its soft limit is not above
 * its hard one. */
#include "fuzz.h"

#include "vmm/parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_string(data, size);
    struct rlimit_config limit;
    const char *why = NULL;
    if (parse_rlimit(text, &limit, &why) < 0)
        FUZZ_CHECK(why != NULL);
    else
        FUZZ_CHECK(limit.resource < LIMIT_RLIMITS && limit.soft <= limit.hard);
    free(text);
    return 0;
}
