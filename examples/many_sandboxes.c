// SPDX-License-Identifier: Apache-2.0
/* Many sandboxes from one process: each is started, asked to work something out, and removed, by a thread of its own.
 *
 *     cc many_sandboxes.c $(pkg-config --cflags --libs vial) -pthread -o many_sandboxes
 *     ./many_sandboxes 10
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <vial/vial.h>

enum { most = 1000, start_ms = 60000, stop_ms = 10000 };

static struct vial_home *home; /* one for all: its calls may be made on any thread */

/* The exit code of a program of the sandbox, or a negative errno. */
static int run(struct vial_sandbox *sandbox, int number, struct vial_error *err)
{
    struct vial_program_options program = VIAL_PROGRAM_OPTIONS_INIT;
    struct vial_process *process = NULL;
    char script[64];
    int code = 0;
    snprintf(script, sizeof(script), "exit $((%d %% 7))", number);
    program.args = (const char *const[]){"sh", "-c", script, NULL};
    int result = vial_sandbox_exec(sandbox, &program, &process, err);
    if (result == 0)
        result = vial_process_wait(process, VIAL_WAIT_FOREVER, &code, err);
    vial_process_free(process);
    return result < 0 ? result : code;
}

static void *serve(void *user)
{
    int number = *(const int *)user;
    struct vial_sandbox_options options = VIAL_SANDBOX_OPTIONS_INIT;
    struct vial_sandbox *sandbox = NULL;
    struct vial_error err;
    int code = -1;
    options.ephemeral = true; /* no program: it serves until it is stopped */
    if (vial_sandbox_create(home, &options, &sandbox, &err) < 0 || vial_sandbox_start(sandbox, start_ms, &err) < 0 ||
        (code = run(sandbox, number, &err)) < 0 || vial_sandbox_stop(sandbox, 0, stop_ms, &err) < 0)
        fprintf(stderr, "sandbox %d: %s\n", number, err.message);
    else
        printf("sandbox %d says %d\n", number, code);
    if (code < 0 && sandbox != NULL)
        vial_sandbox_remove(sandbox, true, NULL); /* one that never ran does not go by itself */
    vial_sandbox_free(sandbox);
    return code == number % 7 ? user : NULL;
}

int main(int argc, char *argv[])
{
    static pthread_t threads[most];
    static int numbers[most];
    struct vial_error err;
    long count = argc == 2 ? strtol(argv[1], NULL, 10) : 0;
    int failed = 0;
    if (count < 1 || count > most) {
        fprintf(stderr, "usage: %s COUNT (up to %d)\n", argv[0], most);
        return 125;
    }
    if (vial_home_open(NULL, &home, &err) < 0) {
        fprintf(stderr, "%s\n  -> %s\n", err.message, err.remedy);
        return 125;
    }
    for (int i = 0; i < count; i++) {
        numbers[i] = i;
        if (pthread_create(&threads[i], NULL, serve, &numbers[i]) != 0)
            abort();
    }
    for (int i = 0; i < count; i++) {
        void *result = NULL;
        pthread_join(threads[i], &result);
        failed += result == NULL;
    }
    vial_home_free(home);
    return failed == 0 ? 0 : 1;
}
