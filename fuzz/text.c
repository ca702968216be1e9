// SPDX-License-Identifier: Apache-2.0
/* Any bytes through the escaping, into every small size. What must hold: the result is terminated, fits, and holds no
 * control character; guesses never crash. */
#include "fuzz.h"

#include "base/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const words[] = {"vcpus", "memory_mib", "x", "", NULL};
    for (size_t room = 1; room <= 64; room += 1 + room / 4) {
        char *escaped = malloc(room);
        FUZZ_CHECK(escaped != NULL);
        size_t length = text_escape(escaped, room, (const char *)data, size, "\"\\");
        FUZZ_CHECK(length < room && escaped[length] == '\0' && strlen(escaped) == length);
        for (size_t i = 0; i < length; i++)
            FUZZ_CHECK((unsigned char)escaped[i] >= ' ' && escaped[i] != 0x7f);
        free(escaped);
    }
    char *text = fuzz_string(data, size);
    text_nearest(text, words);
    free(text);
    return 0;
}
