// SPDX-License-Identifier: Apache-2.0
/* Any text as a pair of folders. What must hold: both parts are there, the guest's is absolute, and joined again they
 * are the beginning of the text. */
#include "fuzz.h"

#include "vmm/parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_string(data, size);
    char *host = NULL, *guest = NULL;
    bool is_read_only = false;
    const char *why = NULL;
    if (parse_folder_pair(text, &host, &guest, &is_read_only, &why) < 0) {
        FUZZ_CHECK(why != NULL && host == NULL && guest == NULL);
    } else {
        size_t length = strlen(host);
        FUZZ_CHECK(length > 0 && guest[0] == '/');
        FUZZ_CHECK(memcmp(text, host, length) == 0 && text[length] == ':');
        FUZZ_CHECK(memcmp(text + length + 1, guest, strlen(guest)) == 0);
    }
    free(host);
    free(guest);
    free(text);
    return 0;
}
