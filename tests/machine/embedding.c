// SPDX-License-Identifier: Apache-2.0
/* A program that has a life of its own: signal dispositions, cancelled threads, crash handlers, and limits. */
#include "test.h"

#include "base/thread.h"
#include "machine.h"

#include <errno.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <unistd.h>

#define NEEDS_KVM                                                                                                      \
    if (!machine_can_run())                                                                                            \
    return

/* ---- signals ---- */

static atomic_bool is_over;

/* Ignoring a signal throws away what is pending of it, in every thread (POSIX 2.4.3). */
static void *ignore_urgent(void *user)
{
    (void)user;
    while (!atomic_load(&is_over))
        signal(SIGURG, SIG_IGN);
    return NULL;
}

static void rest(long microseconds)
{
    struct timespec time = {.tv_nsec = microseconds * 1000};
    ppoll(NULL, 0, &time, NULL);
}

static atomic_bool is_slow;
int __real_ioctl(int fd, unsigned long request, unsigned long argument);
int __wrap_ioctl(int fd, unsigned long request, unsigned long argument);

/* Makes the moment long that lies between a vCPU's look at the command and its guest code. */
int __wrap_ioctl(int fd, unsigned long request, unsigned long argument)
{
    if (request == KVM_RUN && atomic_load(&is_slow))
        rest(300);
    return __real_ioctl(fd, request, argument);
}

TEST(a_pause_survives_a_program_that_discards_signals)
{
    NEEDS_KVM;
    enum { rounds = 200 };
    struct machine machine;
    pthread_t thread;
    CHECK(machine_configure(&machine, "spin"));
    CHECK(machine_start(&machine, NULL, 0));
    CHECK(machine_expect(&machine, "spinning"));
    atomic_store(&is_over, false);
    atomic_store(&is_slow, true);
    CHECK_INT(thread_start("ignore", ignore_urgent, NULL, &thread), 0);
    alarm(20); /* a lost wake-up is for good */
    for (int i = 0; i < rounds; i++) {
        CHECK_INT(vial_vm_pause(machine.vm, NULL), 0);
        CHECK_INT(vial_vm_resume(machine.vm, NULL), 0);
        rest(100);
    }
    alarm(0);
    atomic_store(&is_over, true);
    atomic_store(&is_slow, false);
    pthread_join(thread, NULL);
    signal(SIGURG, SIG_DFL);
    machine_release(&machine);
}

/* ---- cancellation ---- */

static void *wait_forever(void *user)
{
    vial_vm_wait(user, VIAL_WAIT_FOREVER, NULL, NULL);
    return NULL;
}

TEST(a_thread_that_waits_may_be_cancelled)
{
    NEEDS_KVM;
    struct machine machine;
    struct vial_exit end = VIAL_EXIT_INIT;
    pthread_t thread;
    void *result = NULL;
    CHECK(machine_configure(&machine, "spin"));
    CHECK(machine_start(&machine, NULL, 0));
    CHECK(machine_expect(&machine, "spinning"));
    CHECK_INT(thread_start("waiter", wait_forever, machine.vm, &thread), 0);
    rest(20000);
    pthread_cancel(thread);
    CHECK_INT(pthread_join(thread, &result), 0);
    CHECK(result == PTHREAD_CANCELED);
    alarm(20); /* a lock that nobody holds any more */
    vial_vm_stop(machine.vm);
    CHECK_INT(vial_vm_wait(machine.vm, 5000, &end, NULL), 0);
    alarm(0);
    machine_release(&machine);
}

/* Calls with the cancellation pending from the start: each has to let go of its locks all the same. */
static void *control_cancelled(void *user)
{
    struct vial_vm *vm = user;
    pthread_cancel(pthread_self());
    for (int i = 0; i < 50; i++) {
        vial_vm_pause(vm, NULL);
        vial_vm_resume(vm, NULL);
        vial_vm_set_balloon(vm, 1, NULL);
    }
    pthread_testcancel();
    return NULL;
}

TEST(a_thread_that_controls_may_be_cancelled)
{
    NEEDS_KVM;
    struct machine machine;
    struct vial_exit end = VIAL_EXIT_INIT;
    pthread_t thread;
    CHECK(machine_configure(&machine, "spin"));
    machine.config->machine.balloon = true;
    CHECK(machine_start(&machine, NULL, 0));
    CHECK(machine_expect(&machine, "spinning"));
    for (int i = 0; i < 10; i++) {
        CHECK_INT(thread_start("control", control_cancelled, machine.vm, &thread), 0);
        CHECK_INT(pthread_join(thread, NULL), 0);
    }
    alarm(20);
    vial_vm_stop(machine.vm);
    CHECK_INT(vial_vm_wait(machine.vm, 5000, &end, NULL), 0);
    alarm(0);
    machine_release(&machine);
}

/* ---- faults of the program's own code ---- */

static sigjmp_buf back;
static bool has_recovered;

static void recover(int number)
{
    (void)number;
    siglongjmp(back, 1);
}

static void fault_on_purpose(void *user, const struct vial_exit *end)
{
    (void)user;
    (void)end;
    if (sigsetjmp(back, 1) == 0)
        raise(SIGSEGV);
    else
        has_recovered = true;
}

TEST(an_observers_fault_reaches_the_programs_handler)
{
    NEEDS_KVM;
    struct machine machine;
    struct sigaction action = {.sa_handler = recover}, before;
    has_recovered = false;
    sigaction(SIGSEGV, &action, &before);
    CHECK(machine_configure(&machine, "off"));
    CHECK_INT(vial_vm_config_add_exit_observer(machine.config, fault_on_purpose, NULL, NULL), 0);
    CHECK(machine_start(&machine, NULL, 0));
    CHECK_INT(vial_vm_wait(machine.vm, 10000, NULL, NULL), 0);
    CHECK(has_recovered);
    machine_release(&machine);
    sigaction(SIGSEGV, &before, NULL);
}

/* ---- limits ---- */

TEST(a_start_survives_every_limit_of_descriptors)
{
    NEEDS_KVM;
    struct rlimit before, low;
    unsigned failures = 0;
    bool has_started = false;
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
    for (rlim_t limit = 3; limit < 100 && !has_started; limit++) {
        struct machine machine;
        struct vial_error err = {0};
        CHECK(machine_configure(&machine, "off"));
        machine.config->machine.balloon = true;
        machine.config->machine.split_irqchip = limit % 2 == 0;
        unsigned descriptors = machine_count_entries("/proc/self/fd"),
                 threads = machine_count_entries("/proc/self/task");
        low = (struct rlimit){limit, before.rlim_max};
        setrlimit(RLIMIT_NOFILE, &low);
        int result = vial_vm_start(machine.config, &machine.vm, &err);
        setrlimit(RLIMIT_NOFILE, &before);
        has_started = result == 0;
        if (result < 0) {
            failures++;
            CHECK(err.message[0] != '\0' && err.remedy[0] != '\0');
            if (err.os_error != EMFILE)
                printf("# %u: %s (%s): %s -> %s\n", (unsigned)limit, err.field, vial_error_code_name(err.code),
                       err.message, err.remedy);
            CHECK_INT(machine_count_entries("/proc/self/fd"), descriptors);
            CHECK_INT(machine_count_entries("/proc/self/task"), threads);
        }
        machine_release(&machine);
    }
    CHECK(has_started && failures > 10);
}
