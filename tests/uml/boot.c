// SPDX-License-Identifier: Apache-2.0
/* Guests on user-mode Linux: that they boot with their devices, how they end, and what cannot be started. */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "engine/uml/private.h"
#include "uml.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Static: with what it reads from the console it is large. */
static struct guest guest;

TEST(a_guest_boots_and_powers_the_machine_off)
{
    static const struct {
        unsigned vcpus, memory_mib;
        const char *says;
    } rows[] = {{1, 64, "guest: up, 1 CPUs, "},
                {1, 128, "guest: up, 1 CPUs, 11"},
                {2, 128, "guest: up, 2 CPUs, 11"},
                {4, 512, "guest: up, 4 CPUs, "},
                {2, 2048, "guest: up, 2 CPUs, 19"}};
    for (size_t i = 0; i < array_length(rows); i++) {
        struct guest_options options = {.mode = "off", .vcpus = rows[i].vcpus, .memory_mib = rows[i].memory_mib};
        CHECK(guest_run(&guest, &options));
        CHECK(guest_expect(&guest, rows[i].says));
        CHECK(guest_ends(&guest, VIAL_EXIT_COMPLETED));
        CHECK_TEXT(guest.exit.detail, "the guest powered the machine off");
        guest_free(&guest);
    }
}

TEST(the_console_carries_both_ways)
{
    struct guest_options options = {.mode = "echo"};
    CHECK(guest_run(&guest, &options));
    CHECK(guest_expect(&guest, "guest: up"));
    CHECK_INT(write(guest.input_fd, "hello\n", 6), 6);
    CHECK(guest_expect(&guest, "echo: hello"));
    guest_free(&guest);
    CHECK_INT(guest.ends, 1);
    CHECK_INT(guest.exit.reason, VIAL_EXIT_STOP_REQUESTED);
}

/* What a guest printed last arrives, although its kernel is gone and its reader was slow. */
TEST(nothing_that_was_said_is_lost)
{
    static char bytes[65536];
    struct guest_options options = {.mode = "flood", .vcpus = 2};
    size_t count = 0;
    CHECK(guest_run(&guest, &options));
    CHECK(guest_expect(&guest, "MiB"));
    for (size_t i = 0; i < guest.length; i++)
        count += guest.text[i] == 'x';
    for (ssize_t got; (got = read(guest.output_fd, bytes, sizeof(bytes))) > 0;)
        for (ssize_t i = 0; i < got; i++)
            count += bytes[i] == 'x';
    CHECK_INT(count, (512 << 10) / 64 * 63);
    CHECK(guest_ends(&guest, VIAL_EXIT_COMPLETED));
    guest_free(&guest);
}

TEST(a_console_of_31_ports_works)
{
    struct guest_options options = {.mode = "off", .console_ports = 31};
    CHECK(guest_run(&guest, &options));
    CHECK(guest_expect(&guest, "guest: up"));
    CHECK(guest_ends(&guest, VIAL_EXIT_COMPLETED));
    guest_free(&guest);
}

TEST(a_machine_without_devices_works)
{
    struct guest_options options = {.mode = "tty", .has_no_devices = true};
    CHECK(guest_run(&guest, &options));
    CHECK(guest_ends(&guest, VIAL_EXIT_COMPLETED));
    guest_free(&guest);
}

/* ---- ends ---- */

TEST(a_restart_is_a_reset)
{
    for (unsigned vcpus = 1; vcpus <= 2; vcpus++) {
        struct guest_options options = {.mode = "reset", .vcpus = vcpus};
        CHECK(guest_run(&guest, &options));
        CHECK(guest_ends(&guest, VIAL_EXIT_GUEST_RESET));
        guest_free(&guest);
    }
}

TEST(a_panic_is_told_with_its_reason)
{
    for (unsigned vcpus = 1; vcpus <= 2; vcpus++) {
        struct guest_options options = {.mode = "return", .vcpus = vcpus};
        CHECK(guest_run(&guest, &options));
        CHECK(guest_ends(&guest, VIAL_EXIT_GUEST_PANIC));
        CHECK(strstr(guest.exit.detail, "Attempted to kill init! exitcode=0x00000300") != NULL);
        guest_free(&guest);
    }
}

TEST(a_guest_without_an_init_panics)
{
    struct guest_options options = {.mode = "off", .cmdline = "rdinit=/nothing"};
    CHECK(guest_run(&guest, &options));
    CHECK(guest_ends(&guest, VIAL_EXIT_GUEST_PANIC));
    CHECK(strstr(guest.exit.detail, "root fs") != NULL);
    guest_free(&guest);
}

TEST(a_kill_from_outside_is_told)
{
    struct guest_options options = {.mode = "hold"};
    CHECK(guest_run(&guest, &options));
    CHECK(guest_expect(&guest, "guest: up"));
    CHECK_INT(kill(jail_pid(guest.machine->jail), SIGKILL), 0);
    CHECK(guest_ends(&guest, VIAL_EXIT_SIGNAL));
    CHECK_INT(guest.exit.code, 137);
    CHECK(strstr(guest.exit.detail, "out-of-memory") != NULL);
    guest_free(&guest);
}

/* While a program of the guest runs, a signal like this one is the program's; when nothing does, it is the kernel's. */
TEST(a_fault_of_the_kernel_is_a_panic)
{
    struct guest_options options = {.mode = "hold"};
    CHECK(guest_run(&guest, &options));
    CHECK(guest_expect(&guest, "guest: up"));
    auto_close int pid_fd = (int)syscall(SYS_pidfd_open, jail_pid(guest.machine->jail), 0);
    struct pollfd poller = {.fd = pid_fd, .events = POLLIN};
    CHECK(pid_fd >= 0);
    for (int i = 0; i < 100 && poll(&poller, 1, 50) == 0; i++)
        syscall(SYS_pidfd_send_signal, pid_fd, SIGFPE, NULL, 0);
    CHECK(guest_ends(&guest, VIAL_EXIT_GUEST_PANIC));
    CHECK(strstr(guest.exit.detail, "Kernel mode signal") != NULL);
    guest_free(&guest);
}

/* ---- programs that are no kernels ---- */

TEST(a_program_that_is_no_kernel_is_told_by_its_end)
{
    static const struct {
        const char *mode;
        enum vial_exit_reason reason;
        const char *says;
    } rows[] = {{"refuse", VIAL_EXIT_INTERNAL_ERROR, "status 1 before it found a device: there is no memory for this"},
                {"nothing", VIAL_EXIT_INTERNAL_ERROR, "status 0 before it found a device"},
                {"panic", VIAL_EXIT_GUEST_PANIC, "panicked"}};
    for (size_t i = 0; i < array_length(rows); i++) {
        struct guest_options options = {.mode = rows[i].mode, .kernel = FAKE};
        CHECK(guest_run(&guest, &options));
        CHECK(guest_ends(&guest, rows[i].reason));
        if (strstr(guest.exit.detail, rows[i].says) == NULL)
            CHECK_TEXT(guest.exit.detail, rows[i].says);
        guest_free(&guest);
    }
}

TEST(a_program_that_never_connects_can_be_ended)
{
    struct guest_options options = {.mode = "hold", .kernel = FAKE};
    CHECK(guest_run(&guest, &options));
    uml_machine_end(guest.machine, VIAL_EXIT_MAX_DURATION, "after %d ms", 5);
    CHECK(guest_ends(&guest, VIAL_EXIT_MAX_DURATION));
    CHECK_TEXT(guest.exit.detail, "after 5 ms");
    guest_free(&guest);
}

/* ---- what cannot be started ---- */

static bool is_refused(const struct guest_options *options, const char *says)
{
    bool is_made = guest_new(&guest, options);
    guest_free(&guest);
    if (is_made || strstr(guest_error.message, says) == NULL || guest_error.remedy[0] == '\0')
        printf("# %s; %s\n", guest_error.message, guest_error.remedy);
    return !is_made && strstr(guest_error.message, says) != NULL && guest_error.remedy[0] != '\0' && guest.ends == 0;
}

TEST(what_cannot_run_is_an_error_before_the_start)
{
    static char words[1000];
    memset(words, 'x', sizeof(words) - 1);
    const char *script = test_text_file("script", "#!/bin/sh\n");
    struct guest_options options = {.mode = "off", .kernel = script};
    CHECK(is_refused(&options, "nobody may execute"));
    options.kernel = test_folder();
    CHECK(is_refused(&options, "folder"));
    options = (struct guest_options){.mode = "off", .vcpus = 65};
    CHECK(is_refused(&options, "65 vCPUs"));
    options = (struct guest_options){.mode = "off", .console_ports = 32};
    CHECK(is_refused(&options, "66 queues"));
    options = (struct guest_options){.mode = "off", .cmdline = "a\x01"};
    CHECK(is_refused(&options, "kernel command line"));
}

TEST(few_descriptors_are_an_error)
{
    struct rlimit before, few;
    struct guest_options options = {.mode = "off"};
    int errors = 0;
    bool is_started = false;
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = before;
    for (rlim_t limit = 24; limit < 200 && !is_started; limit += 4) {
        few.rlim_cur = limit;
        setrlimit(RLIMIT_NOFILE, &few);
        bool is_made = guest_new(&guest, &options);
        is_started = is_made && guest_start(&guest);
        setrlimit(RLIMIT_NOFILE, &before);
        errors += !is_started && guest_error.os_error == EMFILE && strstr(guest_error.remedy, "ulimit -n") != NULL;
        guest_free(&guest);
    }
    CHECK(is_started);
    CHECK(errors > 2);
}

TEST(a_machine_survives_no_memory)
{
    FOR_EACH_FAULT
    {
        struct guest_options options = {.mode = "off"};
        bool is_made = guest_new(&guest, &options);
        CHECK(is_made || fault_was_hit()); /* the jail does without a wall */
        CHECK(guest_error.code == VIAL_ERROR_NONE || guest_error.os_error == ENOMEM ||
              guest_error.code == VIAL_ERROR_NO_MEMORY);
        guest_free(&guest);
        CHECK_INT(guest.ends, 0);
    }
}

/* ---- memory ---- */

static int make_file(off_t size)
{
    int fd = memfd_create("memory", MFD_CLOEXEC);
    return fd >= 0 && ftruncate(fd, size) < 0 ? fd_close(fd) : fd;
}

TEST(memory_is_one_file_of_the_right_size)
{
    int pipes[2];
    struct guest_options options = {.mode = "off", .memory_mib = 64};
    CHECK_INT(pipe2(pipes, O_CLOEXEC), 0);
    auto_close int pipe_fd = pipes[0], other_pipe_fd = pipes[1];
    auto_close int large_fd = make_file((64 << 20) + 1), good_fd = make_file(64 << 20), second_fd = make_file(64 << 20);
    auto_close int folder_fd = open(test_folder(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(guest_new(&guest, &options));
    CHECK(!uml_machine_accepts_memory(guest.machine, large_fd));
    CHECK(!uml_machine_accepts_memory(guest.machine, pipe_fd));
    CHECK(!uml_machine_accepts_memory(guest.machine, other_pipe_fd));
    CHECK(!uml_machine_accepts_memory(guest.machine, folder_fd));
    CHECK(uml_machine_accepts_memory(guest.machine, good_fd));
    CHECK(!uml_machine_accepts_memory(guest.machine, second_fd));
    CHECK(uml_machine_accepts_memory(guest.machine, good_fd));
    guest_free(&guest);
}
