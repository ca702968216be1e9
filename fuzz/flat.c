// SPDX-License-Identifier: Apache-2.0
/* Any three numbers as what a libkrunfw answers. What must hold: an image that is accepted lies in guest memory with
 * its entry, or a reason is given. */
#include "fuzz.h"

#include "boot/flat.h"
#include "boot/layout.h"

#include <errno.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct memory *memory;
    struct boot_image image = {0};
    struct boot_reason reason = {0};
    struct {
        uint64_t load, entry, size;
    } answer;
    if (memory == NULL)
        FUZZ_CHECK(memory_new(64 << 20, false, &memory) == 0);
    if (size < sizeof(answer))
        return 0;
    memcpy(&answer, data, sizeof(answer));
    if (flat_check(memory, answer.load, answer.entry, answer.size, &image, &reason) < 0) {
        FUZZ_CHECK(reason.text[0] != '\0' && image.end == 0);
    } else {
        FUZZ_CHECK(memory_span(memory, answer.load, answer.size) != NULL && answer.load >= BOOT_HIGH_MEMORY);
        FUZZ_CHECK(image.begin == answer.load && image.end >= answer.load + answer.size && image.end <= 64 << 20);
        FUZZ_CHECK(image.entry - answer.load < answer.size);
    }
    return 0;
}
