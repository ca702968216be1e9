// SPDX-License-Identifier: Apache-2.0
/* A program that passes for a user-mode Linux, and is none: it ends, or waits, without ever being a kernel. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((section(".uml.setup.init"), used)) static const long setup[] = {1};

int main(int argc, char **argv)
{
    const char *last = argc > 0 ? argv[argc - 1] : "";
    if (strstr(last, "test=hold") != NULL)
        pause();
    if (strstr(last, "test=refuse") != NULL) {
        fprintf(stderr, "first\nthere is no memory for this\n\n");
        return 1;
    }
    if (strstr(last, "test=abort") != NULL)
        abort();
    return strstr(last, "test=panic") != NULL ? 127 : 0;
}
