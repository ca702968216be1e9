// SPDX-License-Identifier: Apache-2.0
/* Runs a command in a sandbox of its own, captures what it says, and removes the sandbox.
 *
 *     cc capture.c $(pkg-config --cflags --libs vial) -o capture
 *     ./capture uname -a
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vial/vial.h>

static int fail(const struct vial_error *err)
{
    fprintf(stderr, "%s%s%s\n  -> %s\n", err->field, err->field[0] != '\0' ? ": " : "", err->message, err->remedy);
    return 125;
}

/* All that the program writes to its output, as a string that the caller frees. */
static char *capture(struct vial_process *process, int *ret_code, struct vial_error *err)
{
    struct vial_process_event event = VIAL_PROCESS_EVENT_INIT;
    size_t length = 0;
    char *text = calloc(1, 1);
    while (text != NULL && event.kind != VIAL_EVENT_ENDED) {
        if (vial_process_next(process, &event, VIAL_WAIT_FOREVER, err) < 0) {
            free(text);
            return NULL;
        }
        if (event.kind != VIAL_EVENT_OUTPUT || event.stream != 1)
            continue;
        char *longer = realloc(text, length + event.length + 1);
        if (longer == NULL) {
            free(text);
            return NULL;
        }
        text = longer;
        memcpy(text + length, event.bytes, event.length);
        length += event.length;
        text[length] = '\0';
    }
    *ret_code = event.code;
    return text;
}

int main(int argc, char *argv[])
{
    struct vial_program_options program = VIAL_PROGRAM_OPTIONS_INIT;
    struct vial_sandbox_options options = VIAL_SANDBOX_OPTIONS_INIT;
    struct vial_home *home = NULL;
    struct vial_sandbox *sandbox = NULL;
    struct vial_process *process = NULL;
    struct vial_error err = {0}; /* not every failure below is vial's */
    int code = 0;
    if (argc < 2) {
        fprintf(stderr, "usage: %s COMMAND [ARGUMENT]...\n", argv[0]);
        return 125;
    }
    program.args = (const char *const *)argv + 1;
    options.program = &program; /* no name: the sandbox is gone when its program has ended */
    if (vial_home_open(NULL, &home, &err) < 0 || vial_sandbox_create(home, &options, &sandbox, &err) < 0 ||
        vial_sandbox_start_attached(sandbox, 60000, &process, &err) < 0)
        return fail(&err);
    char *text = capture(process, &code, &err);
    if (text == NULL && err.message[0] == '\0')
        snprintf(err.message, sizeof(err.message), "there is no memory for what it says");
    if (text == NULL)
        return fail(&err);
    printf("it has said %zu bytes and ended with %d:\n%s", strlen(text), code, text);
    free(text);
    vial_process_free(process);
    vial_sandbox_free(sandbox);
    vial_home_free(home);
    return code;
}
