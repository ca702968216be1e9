// SPDX-License-Identifier: Apache-2.0
/* Times programs in a sandbox that runs, for bench/sandbox, which builds it.
 *
 *     warm_exec library SANDBOX COUNT PROGRAM          from the call of vial_sandbox_exec to the program's end, its
 *                                                      streams read
 *     warm_exec process SANDBOX COUNT PROGRAM VIAL     `VIAL exec SANDBOX PROGRAM`, from posix_spawn to its end
 *
 * Each line is microseconds; the first round, which fills caches, is not printed. Public headers only, as any program
 * has them; and a program in C, because what starts and reaps a process in Python costs as much as the process.
 */
#include "vial/vial.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

enum { timeout_ms = 10000 };

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

/* ---- through the library ---- */

static void check(int result, const struct vial_error *err)
{
    if (result == 0)
        return;
    fprintf(stderr, "warm_exec: %s: %s; %s\n", err->field, err->message, err->remedy);
    exit(1);
}

static double call_library(struct vial_sandbox *sandbox, const char *path)
{
    const char *const args[] = {path, NULL};
    struct vial_program_options program = VIAL_PROGRAM_OPTIONS_INIT;
    struct vial_process_event event = VIAL_PROCESS_EVENT_INIT;
    struct vial_process *process = NULL;
    struct vial_error err = {0};
    program.args = args;
    double began = now_us();
    check(vial_sandbox_exec(sandbox, &program, &process, &err), &err);
    while (event.kind != VIAL_EVENT_ENDED)
        check(vial_process_next(process, &event, timeout_ms, &err), &err);
    double ended = now_us();
    vial_process_free(process);
    if (event.code != 0) {
        fprintf(stderr, "warm_exec: %s has ended with %d\n", path, event.code);
        exit(1);
    }
    return ended - began;
}

static void time_library(const char *name, long count, const char *path)
{
    struct vial_home *home = NULL;
    struct vial_sandbox *sandbox = NULL;
    struct vial_error err = {0};
    check(vial_home_open(NULL, &home, &err), &err);
    check(vial_sandbox_open(home, name, &sandbox, &err), &err);
    call_library(sandbox, path);
    for (long left = count; left > 0; left--)
        printf("%.1f\n", call_library(sandbox, path));
    vial_sandbox_free(sandbox);
    vial_home_free(home);
}

/* ---- as a process ---- */

static double call_process(char *vial, char *name, char *path)
{
    char exec[] = "exec", *args[] = {vial, exec, name, path, NULL};
    posix_spawn_file_actions_t streams;
    pid_t child = -1;
    int status = -1;
    posix_spawn_file_actions_init(&streams);
    posix_spawn_file_actions_addopen(&streams, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&streams, 1, "/dev/null", O_WRONLY, 0);
    double began = now_us();
    int result = posix_spawn(&child, vial, &streams, NULL, args, environ);
    if (result != 0 || waitpid(child, &status, 0) != child || status != 0) {
        fprintf(stderr, "warm_exec: %s exec: %s, status %#x\n", vial, strerror(result), (unsigned)status);
        exit(1);
    }
    double ended = now_us();
    posix_spawn_file_actions_destroy(&streams);
    return ended - began;
}

static void time_process(char *vial, char *name, long count, char *path)
{
    call_process(vial, name, path);
    for (long left = count; left > 0; left--)
        printf("%.1f\n", call_process(vial, name, path));
}

int main(int argc, char *argv[])
{
    if (argc == 5 && strcmp(argv[1], "library") == 0)
        time_library(argv[2], strtol(argv[3], NULL, 10), argv[4]);
    else if (argc == 6 && strcmp(argv[1], "process") == 0)
        time_process(argv[5], argv[2], strtol(argv[3], NULL, 10), argv[4]);
    else
        return 2;
    return 0;
}
