// SPDX-License-Identifier: Apache-2.0
/* A program that was written for libkrun: it runs a command in a guest whose root is a folder, and ends as that does.
 *
 *     cc krun_run.c -lkrun -o krun_run
 *     ./krun_run ROOT COMMAND [ARGUMENT]...
 */
#include <libkrun.h>
#include <stdio.h>
#include <string.h>

static int fail(const char *call, int32_t result)
{
    fprintf(stderr, "%s: %s\n", call, strerror(-result));
    return 125;
}

int main(int argc, char *argv[])
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s ROOT COMMAND [ARGUMENT]...\n", argv[0]);
        return 125;
    }
    const char *const env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", NULL};
    int32_t id = krun_create_ctx(), result;
    if (id < 0)
        return fail("krun_create_ctx", id);
    result = krun_set_vm_config((uint32_t)id, 1, 512);
    if (result < 0)
        return fail("krun_set_vm_config", result);
    result = krun_set_root((uint32_t)id, argv[1]);
    if (result < 0)
        return fail("krun_set_root", result);
    result = krun_set_exec((uint32_t)id, argv[2], (const char *const *)(argv + 3), env);
    if (result < 0)
        return fail("krun_set_exec", result);
    result = krun_start_enter((uint32_t)id); /* ends the process with the command's exit code */
    return fail("krun_start_enter", result);
}
