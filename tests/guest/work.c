// SPDX-License-Identifier: Apache-2.0
/* guest-work: does one kind of work and says how long that took, by the clock of where it runs.
 *
 *     guest-work loop        200 million steps of a generator: what a CPU does without a kernel
 *     guest-work calls       100,000 times getppid
 *     guest-work processes   300 times fork, exec of itself, wait
 *     guest-work python      five times python3 -c pass, start to end
 *     guest-work nothing
 *
 * One line, "KIND MICROSECONDS". bench/run compares engines and the host with it.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { steps = 200000000, calls = 100000, processes = 300, pythons = 5 };

static int loop(void)
{
    uint64_t state = 1;
    for (unsigned i = 0; i < steps; i++)
        state = state * 6364136223846793005 + 1442695040888963407;
    return state == 0; /* it never is */
}

static int call(void)
{
    for (unsigned i = 0; i < calls; i++)
        syscall(SYS_getppid);
    return 0;
}

static int repeat(unsigned times, const char *const command[])
{
    for (unsigned i = 0; i < times; i++) {
        int status = 0;
        pid_t child = fork();
        if (child == 0) {
            execv(command[0], (char *const *)(uintptr_t)command);
            _exit(127);
        }
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
            return 1;
    }
    return 0;
}

static int make_processes(void)
{
    static const char *const nothing[] = {"/proc/self/exe", "nothing", NULL};
    return repeat(processes, nothing);
}

static int start_python(void)
{
    static const char *const python[] = {"/usr/bin/python3", "-c", "pass", NULL};
    return repeat(pythons, python);
}

static const struct kind {
    const char *name;
    int (*run)(void);
} kinds[] = {{"loop", loop}, {"calls", call}, {"processes", make_processes}, {"python", start_python}};

int main(int argc, char *argv[])
{
    if (argc == 2 && strcmp(argv[1], "nothing") == 0)
        return 0;
    for (int i = 1; i < argc; i++) {
        for (size_t j = 0; j < sizeof(kinds) / sizeof(*kinds); j++) {
            struct timespec start, end;
            if (strcmp(argv[i], kinds[j].name) != 0)
                continue;
            clock_gettime(CLOCK_MONOTONIC, &start);
            if (kinds[j].run() != 0)
                return 1;
            clock_gettime(CLOCK_MONOTONIC, &end);
            printf("%s %lld\n", kinds[j].name,
                   (long long)(end.tv_sec - start.tv_sec) * 1000000 + (end.tv_nsec - start.tv_nsec) / 1000);
            fflush(stdout);
        }
    }
    return argc < 2;
}
