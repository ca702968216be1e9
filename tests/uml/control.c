// SPDX-License-Identifier: Apache-2.0
/* Controlling a machine on user-mode Linux: pause, resume, end, at every moment, and what is left afterwards. */
#include "test.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/thread.h"
#include "engine/uml/private.h"
#include "uml.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct guest guest;

static void wait_us(uint64_t us)
{
    struct timespec time = clock_to_timespec(us * CLOCK_NS_PER_US);
    ppoll(NULL, 0, &time, NULL);
}

/* ---- pause and resume ---- */

/* The CPU time of that process and its children, in clock ticks. */
static unsigned long cpu_ticks(pid_t pid)
{
    char path[300], text[1024];
    unsigned long sum = 0, user, kernel;
    DIR *folder = opendir("/proc");
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
        FILE *stream = fopen(path, "re");
        size_t length = stream != NULL ? fread(text, 1, sizeof(text) - 1, stream) : 0;
        text[length] = '\0';
        const char *behind = strrchr(text, ')');
        int parent, fields = behind == NULL ? 0
                                            : sscanf(behind + 2, "%*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                                                     &parent, &user, &kernel);
        if (fields == 3 && (parent == pid || strtol(entry->d_name, NULL, 10) == pid))
            sum += user + kernel;
        if (stream != NULL)
            fclose(stream);
    }
    if (folder != NULL)
        closedir(folder);
    return sum;
}

TEST(a_paused_guest_says_nothing)
{
    struct guest_options options = {.mode = "loop", .vcpus = 2};
    CHECK(guest_run(&guest, &options));
    CHECK(guest_expect(&guest, "line 5"));
    for (int i = 0; i < 3; i++) {
        CHECK_INT(uml_machine_pause(guest.machine), 0);
        CHECK_INT(uml_machine_pause(guest.machine), -EALREADY);
        guest_count_bytes(&guest, 20); /* what was on its way */
        CHECK_INT(guest_count_bytes(&guest, 200), 0);
        CHECK_INT(uml_machine_resume(guest.machine), 0);
        CHECK_INT(uml_machine_resume(guest.machine), -EALREADY);
        CHECK(guest_count_bytes(&guest, 300) > 20);
    }
    guest_free(&guest);
}

/* On a busy host it may take a while until it gets any. */
static bool comes_to_use_cpu(pid_t pid)
{
    enum { most_waits = 100 };
    unsigned long begin = cpu_ticks(pid);
    for (int i = 0; i < most_waits && cpu_ticks(pid) <= begin + 5; i++)
        wait_us(100000);
    return cpu_ticks(pid) > begin + 5;
}

TEST(a_paused_guest_uses_no_cpu)
{
    struct guest_options options = {.mode = "spin", .vcpus = 2};
    CHECK(guest_run(&guest, &options));
    CHECK(guest_expect(&guest, "guest: up"));
    pid_t pid = jail_pid(guest.machine->jail);
    CHECK(comes_to_use_cpu(pid));
    CHECK_INT(uml_machine_pause(guest.machine), 0);
    unsigned long begin = cpu_ticks(pid);
    wait_us(300000);
    CHECK_INT(cpu_ticks(pid), begin);
    CHECK_INT(uml_machine_resume(guest.machine), 0);
    CHECK(comes_to_use_cpu(pid));
    guest_free(&guest);
}

TEST(a_guest_that_makes_processes_can_be_paused)
{
    struct guest_options options = {.mode = "storm", .vcpus = 2};
    CHECK(guest_run(&guest, &options));
    CHECK(guest_expect(&guest, "guest: up"));
    for (int i = 0; i < 20; i++) {
        CHECK_INT(uml_machine_pause(guest.machine), 0);
        unsigned long begin = cpu_ticks(jail_pid(guest.machine->jail));
        wait_us(20000);
        CHECK_INT(cpu_ticks(jail_pid(guest.machine->jail)), begin);
        CHECK_INT(uml_machine_resume(guest.machine), 0);
        wait_us(5000);
    }
    guest_free(&guest);
}

TEST(a_paused_guest_can_be_ended)
{
    struct guest_options options = {.mode = "loop"};
    CHECK(guest_run(&guest, &options));
    CHECK(guest_expect(&guest, "line 2"));
    CHECK_INT(uml_machine_pause(guest.machine), 0);
    uml_machine_end(guest.machine, VIAL_EXIT_STOP_REQUESTED, "enough");
    CHECK(guest_ends(&guest, VIAL_EXIT_STOP_REQUESTED));
    CHECK_INT(uml_machine_pause(guest.machine), -ESRCH);
    CHECK_INT(uml_machine_resume(guest.machine), -ESRCH);
    guest_free(&guest);
}

TEST(a_boot_can_be_paused_anywhere)
{
    for (unsigned step = 0; step < 12; step++) {
        struct guest_options options = {.mode = "off", .vcpus = 1 + step % 2};
        CHECK(guest_run(&guest, &options));
        wait_us(step * 3000);
        int result = uml_machine_pause(guest.machine);
        CHECK(result == 0 || result == -ESRCH);
        CHECK(result == -ESRCH || guest.ends == 0);
        wait_us(5000);
        int resumed = uml_machine_resume(guest.machine);
        CHECK(resumed == result || resumed == -ESRCH); /* it may have been over when it was paused */
        CHECK(guest_expect(&guest, "guest: up"));
        CHECK(guest_ends(&guest, VIAL_EXIT_COMPLETED));
        guest_free(&guest);
    }
}

/* ---- the end ---- */

TEST(a_boot_can_be_ended_anywhere)
{
    for (unsigned step = 0; step < 24; step++) {
        struct guest_options options = {.mode = "hold", .vcpus = 1 + step % 2};
        CHECK(guest_run(&guest, &options));
        wait_us(step * 1500);
        uint64_t begin_ns = clock_now_ns();
        uml_machine_end(guest.machine, VIAL_EXIT_STOP_REQUESTED, "at step %u", step);
        uml_machine_end(guest.machine, VIAL_EXIT_FAILED, "later");
        CHECK(guest_ends(&guest, VIAL_EXIT_STOP_REQUESTED));
        CHECK(clock_now_ns() - begin_ns < 500 * CLOCK_NS_PER_MS);
        CHECK(strstr(guest.exit.detail, "at step") != NULL);
        guest_free(&guest);
    }
}

static void *end_soon(void *user)
{
    const uint64_t *delay_us = user;
    wait_us(*delay_us);
    uml_machine_end(guest.machine, VIAL_EXIT_STOP_REQUESTED, "while it started");
    return NULL;
}

TEST(an_end_may_come_while_the_machine_starts)
{
    for (uint64_t delay_us = 0; delay_us < 4000; delay_us += 200) {
        pthread_t thread;
        struct guest_options options = {.mode = "hold"};
        CHECK(guest_new(&guest, &options));
        CHECK_INT(thread_start("ender", end_soon, &delay_us, &thread), 0);
        CHECK(guest_start(&guest));
        pthread_join(thread, NULL);
        CHECK(guest_ends(&guest, VIAL_EXIT_STOP_REQUESTED));
        guest_free(&guest);
    }
}

TEST(a_machine_that_was_never_started_is_freed)
{
    struct guest_options options = {.mode = "off"};
    CHECK(guest_new(&guest, &options));
    CHECK_INT(uml_machine_pause(guest.machine), -ESRCH);
    CHECK_INT(uml_machine_resume(guest.machine), -ESRCH);
    guest_free(&guest);
    CHECK_INT(guest.ends, 0);
    CHECK(guest_new(&guest, &options));
    uml_machine_end(guest.machine, VIAL_EXIT_FAILED, "before the start");
    guest_free(&guest);
    CHECK_INT(guest.ends, 0);
    CHECK(guest_new(&guest, &options));
    uml_machine_end(guest.machine, VIAL_EXIT_FAILED, "before the start");
    CHECK(guest_start(&guest));
    CHECK(guest_ends(&guest, VIAL_EXIT_FAILED));
    guest_free(&guest);
}

static int in_end_results[3];

static void control_in_end(struct guest *ended)
{
    in_end_results[0] = uml_machine_pause(ended->machine);
    in_end_results[1] = uml_machine_resume(ended->machine);
    uml_machine_end(ended->machine, VIAL_EXIT_FAILED, "too late");
    in_end_results[2] = uml_machine_walls(ended->machine) != 0;
}

TEST(the_end_may_use_the_machine)
{
    struct guest_options options = {.mode = "off"};
    CHECK(guest_new(&guest, &options));
    guest.in_end = control_in_end;
    CHECK(guest_start(&guest));
    CHECK(guest_ends(&guest, VIAL_EXIT_COMPLETED));
    CHECK_INT(in_end_results[0], -ESRCH);
    CHECK_INT(in_end_results[1], -ESRCH);
    CHECK_INT(in_end_results[2], true);
    guest_free(&guest);
}

/* ---- all at once ---- */

static void *pause_and_resume(void *user)
{
    int result = 0;
    (void)user;
    while (result == 0 || result == -EALREADY) {
        result = uml_machine_pause(guest.machine);
        if (result == 0 || result == -EALREADY)
            result = uml_machine_resume(guest.machine);
    }
    return (void *)(intptr_t)result;
}

TEST(several_threads_may_control_it)
{
    pthread_t threads[3];
    void *results[3];
    struct guest_options options = {.mode = "loop", .vcpus = 2};
    CHECK(guest_run(&guest, &options));
    for (size_t i = 0; i < 3; i++)
        CHECK_INT(thread_start("control", pause_and_resume, NULL, &threads[i]), 0);
    CHECK(guest_expect(&guest, "line 10"));
    uml_machine_end(guest.machine, VIAL_EXIT_STOP_REQUESTED, "enough");
    for (size_t i = 0; i < 3; i++) {
        pthread_join(threads[i], &results[i]);
        CHECK_INT((intptr_t)results[i], -ESRCH);
    }
    CHECK(guest_ends(&guest, VIAL_EXIT_STOP_REQUESTED));
    guest_free(&guest);
}

/* ---- what is left ---- */

static unsigned count_entries(const char *path)
{
    unsigned count = 0;
    DIR *folder = opendir(path);
    while (folder != NULL && readdir(folder) != NULL)
        count++;
    if (folder != NULL)
        closedir(folder);
    return count;
}

static unsigned count_lines(const char *path)
{
    auto_buffer struct buffer text = BUFFER_INIT(4 << 20);
    unsigned count = 0;
    fd_read_file(path, &text);
    for (size_t i = 0; i < text.length; i++)
        count += text.data[i] == '\n';
    return count;
}

TEST(a_hundred_machines_leave_nothing)
{
    unsigned before[5] = {0}, after[5] = {0};
    for (unsigned i = 0; i < 101; i++) {
        struct guest_options options = {.mode = i % 3 == 0 ? "reset" : "off", .memory_mib = 64};
        CHECK(guest_run(&guest, &options));
        if (i % 2 == 0)
            CHECK(guest_ends(&guest, i % 3 == 0 ? VIAL_EXIT_GUEST_RESET : VIAL_EXIT_COMPLETED));
        guest_free(&guest);
        unsigned *counts = i == 0 ? before : after; /* the first makes what is made once */
        counts[0] = count_entries("/proc/self/fd");
        counts[1] = count_entries("/proc/self/task");
        counts[2] = count_entries("/dev/shm");
        counts[3] = count_lines("/proc/self/maps");
        counts[4] = count_lines("/proc/self/mounts");
    }
    for (size_t i = 0; i < array_length(before); i++)
        CHECK(i == 3 ? after[i] <= before[i] + 4 : after[i] == before[i]);
    CHECK_INT(waitpid(-1, NULL, WNOHANG | __WALL), -1);
    CHECK_INT(errno, ECHILD);
}

/* The process that has the machine is killed; what it ran must be gone. */
TEST(a_killed_owner_takes_its_guest_along)
{
    for (unsigned step = 0; step < 8; step++) {
        int ends[2];
        pid_t pid = 0;
        struct guest_options options = {.mode = "spin", .vcpus = 2};
        CHECK_INT(pipe(ends), 0);
        pid_t owner = fork();
        if (owner == 0) {
            pid = guest_run(&guest, &options) ? jail_pid(guest.machine->jail) : -1;
            ssize_t put = write(ends[1], &pid, sizeof(pid));
            for (;;)
                wait_us(put > 0 ? 1000000 : 1);
        }
        auto_close int mine = ends[0];
        close(ends[1]);
        CHECK_INT(read(mine, &pid, sizeof(pid)), sizeof(pid));
        CHECK(pid > 0);
        auto_close int pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);
        CHECK(pid_fd >= 0);
        wait_us(step * 6000);
        kill(owner, SIGKILL);
        CHECK_INT(waitpid(owner, NULL, 0), owner);
        struct pollfd poller = {.fd = pid_fd, .events = POLLIN};
        CHECK_INT(poll(&poller, 1, 5000), 1);
    }
}
