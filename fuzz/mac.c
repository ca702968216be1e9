// SPDX-License-Identifier: Apache-2.0
/* Any text as a MAC address. What must hold: an accepted one prints back to itself but for case and separators. */
#include "fuzz.h"

#include "vmm/parse.h"

#include <stdio.h>
#include <strings.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_string(data, size);
    uint8_t mac[6];
    const char *why = NULL;
    if (parse_mac(text, mac, &why) < 0) {
        FUZZ_CHECK(why != NULL);
    } else {
        char again[18];
        snprintf(again, sizeof(again), "%02x%c%02x%c%02x%c%02x%c%02x%c%02x", mac[0], text[2], mac[1], text[2], mac[2],
                 text[2], mac[3], text[2], mac[4], text[2], mac[5]);
        FUZZ_CHECK(strcasecmp(again, text) == 0);
    }
    free(text);
    return 0;
}
