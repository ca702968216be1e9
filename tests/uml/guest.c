// SPDX-License-Identifier: Apache-2.0
/* The first process of the guests of these tests: does one thing, which the kernel's command line names (test=NAME).
 *
 *     test=off      powers the machine off              test=loop     prints a line every 10 ms
 *     test=reset    restarts it                         test=spin     uses all CPUs, without a word
 *     test=return   ends, at which a kernel panics      test=echo     prints back what it reads
 *     test=hold     waits for ever                      test=flood    prints 512 KiB, then powers the machine off
 *     test=storm    starts processes, one after another test=forks    says what 1000 forks take, then powers it off
 *     test=tty      stays on the console that the kernel gave it, and powers the machine off
 *
 * It says "guest: up" first, with the number of CPUs and the memory that it sees.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char mode[32] = "off";

static void read_mode(void)
{
    char line[4096] = "";
    int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);
    if (length > 0)
        line[length] = '\0';
    const char *found = strstr(line, " test=");
    if (found != NULL)
        snprintf(mode, sizeof(mode), "%.*s", (int)strcspn(found + 6, " \n"), found + 6);
}

static void wait_ms(long ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    ppoll(NULL, 0, &time, NULL);
}

/* The virtio console has several ports, which its driver hears of by messages, while the kernel goes on to start us: it
 * may have given us its other console, which is no console of the test's. */
static void open_console(void)
{
    int fd = -1;
    mkdir("/dev", 0755);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    for (int i = 0; i < 2000 && (fd = open("/dev/hvc0", O_RDWR)) < 0; i++)
        wait_ms(1);
    for (int i = 0; i < 3 && fd >= 0; i++)
        dup2(fd, i);
}

static void print_loop(void)
{
    for (unsigned long i = 0;; i++) {
        printf("line %lu\n", i);
        wait_ms(10);
    }
}

static void spin(void)
{
    for (long i = sysconf(_SC_NPROCESSORS_ONLN); i > 1; i--)
        if (fork() == 0)
            break;
    for (volatile unsigned long i = 0;; i++)
        ;
}

static void echo(void)
{
    char bytes[512];
    for (ssize_t got; (got = read(STDIN_FILENO, bytes, sizeof(bytes))) > 0;)
        printf("echo: %.*s", (int)got, bytes);
}

static void flood(void)
{
    static char bytes[65536];
    struct timespec begin, end;
    memset(bytes, 'x', sizeof(bytes));
    for (size_t i = 63; i < sizeof(bytes); i += 64)
        bytes[i] = '\n';
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 0; i < 8; i++)
        for (size_t done = 0; done < sizeof(bytes);) {
            ssize_t put = write(STDOUT_FILENO, bytes + done, sizeof(bytes) - done);
            done += put > 0 ? (size_t)put : 0;
        }
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("\nflood: %ld us\n", (end.tv_sec - begin.tv_sec) * 1000000 + (end.tv_nsec - begin.tv_nsec) / 1000);
}

static void start_processes(int count)
{
    for (int i = 0; count < 0 || i < count; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        waitpid(child, NULL, 0);
    }
}

static void measure_forks(void)
{
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    start_processes(1000);
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("forks: %ld us\n", (end.tv_sec - begin.tv_sec) * 1000000 + (end.tv_nsec - begin.tv_nsec) / 1000);
}

static void hold(void)
{
    for (;;)
        pause();
}

int main(void)
{
    static const struct {
        const char *name;
        void (*function)(void);
    } modes[] = {{"loop", print_loop}, {"spin", spin}, {"echo", echo},
                 {"flood", flood},     {"hold", hold}, {"forks", measure_forks}};
    struct sysinfo info = {0};
    mkdir("/proc", 0755);
    mount("proc", "/proc", "proc", 0, NULL);
    read_mode();
    if (strcmp(mode, "tty") != 0)
        open_console();
    setvbuf(stdout, NULL, _IOLBF, 0);
    sysinfo(&info);
    printf("guest: up, %ld CPUs, %lu MiB\n", sysconf(_SC_NPROCESSORS_ONLN), info.totalram * info.mem_unit >> 20);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
        if (strcmp(modes[i].name, mode) == 0)
            modes[i].function();
    if (strcmp(mode, "storm") == 0)
        start_processes(-1);
    if (strcmp(mode, "return") == 0)
        return 3;
    fflush(stdout);
    sync();
    reboot(strcmp(mode, "reset") == 0 ? RB_AUTOBOOT : RB_POWER_OFF);
    hold();
}
