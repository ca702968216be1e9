// SPDX-License-Identifier: Apache-2.0
/* Any text as a pair of ports. What must hold: accepted ports are never 0, and print to a pair that parses the same. */
#include "fuzz.h"

#include "vmm/parse.h"

#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_string(data, size);
    struct port_config pair, again;
    const char *why = NULL;
    if (parse_port_pair(text, &pair, &why) < 0) {
        FUZZ_CHECK(why != NULL);
    } else {
        char printed[16];
        snprintf(printed, sizeof(printed), "%u:%u", pair.host, pair.guest);
        FUZZ_CHECK(pair.host != 0 && pair.guest != 0);
        FUZZ_CHECK(parse_port_pair(printed, &again, &why) == 0);
        FUZZ_CHECK(again.host == pair.host && again.guest == pair.guest);
    }
    free(text);
    return 0;
}
