// SPDX-License-Identifier: Apache-2.0
/* Any text as a guest's path. What must hold: a normalized path is absolute, has no empty, "." or ".." component, is
 * not longer than the text, and normalizes to itself. */
#include "fuzz.h"

#include "base/path.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_string(data, size);
    char *normal = NULL, *again = NULL;
    if (path_normalize(text, &normal) == 0) {
        FUZZ_CHECK(normal[0] == '/' && strlen(normal) <= strlen(text));
        FUZZ_CHECK(strstr(normal, "//") == NULL && strstr(normal, "/./") == NULL && strstr(normal, "/../") == NULL);
        FUZZ_CHECK(path_normalize(normal, &again) == 0 && strcmp(normal, again) == 0);
        FUZZ_CHECK(path_overlaps(normal, again) && path_overlaps("/", normal));
    }
    free(again);
    free(normal);
    free(text);
    return 0;
}
