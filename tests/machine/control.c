// SPDX-License-Identifier: Apache-2.0
/* Controlling a machine: pause, resume, stop, wait, observers, and calls at the wrong time. */
#include "test.h"

#include "base/clock.h"
#include "base/thread.h"
#include "machine.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#define NEEDS_KVM                                                                                                      \
    if (!machine_can_run())                                                                                            \
    return

enum { stop_limit_ms = 100 };

/* Stops it and says how long that took, in milliseconds. */
static uint64_t stop_time(struct machine *machine, struct vial_exit *end)
{
    uint64_t start_ns = clock_now_ns();
    vial_vm_stop(machine->vm);
    if (vial_vm_wait(machine->vm, 10000, end, NULL) < 0)
        return UINT64_MAX;
    return (clock_now_ns() - start_ns) / CLOCK_NS_PER_MS;
}

TEST(a_guest_that_never_comes_back_is_stopped)
{
    NEEDS_KVM;
    static const char *const payloads[] = {"halt", "spin", "talk"};
    static const char *const signs[] = {"halted", "spinning", "..."};
    for (size_t i = 0; i < 3; i++) {
        struct machine machine;
        struct vial_exit end = VIAL_EXIT_INIT;
        CHECK(machine_configure(&machine, payloads[i]));
        CHECK(machine_start(&machine, NULL, 0));
        CHECK(machine_expect(&machine, signs[i]));
        CHECK(stop_time(&machine, &end) < stop_limit_ms);
        CHECK_INT(end.reason, VIAL_EXIT_STOP_REQUESTED);
        machine_release(&machine);
    }
}

TEST(a_stop_comes_at_any_moment_after_the_start)
{
    NEEDS_KVM;
    for (unsigned step = 0; step < 40; step++) {
        struct machine machine;
        struct vial_exit end = VIAL_EXIT_INIT;
        CHECK(machine_configure(&machine, "spin"));
        machine.config->machine.vcpus = 1 + step % 3;
        CHECK(machine_start(&machine, NULL, 0));
        for (uint64_t until_ns = clock_now_ns() + step * 100000; clock_now_ns() < until_ns;)
            ;
        CHECK(stop_time(&machine, &end) < stop_limit_ms);
        CHECK_INT(end.reason, VIAL_EXIT_STOP_REQUESTED);
        machine_release(&machine);
    }
}

/* How much comes from the guest within so many milliseconds. */
static size_t count_bytes(struct machine *machine, int milliseconds)
{
    char bytes[65536];
    size_t count = 0;
    for (uint64_t end_ns = clock_deadline_ns((uint64_t)milliseconds * CLOCK_NS_PER_MS); clock_now_ns() < end_ns;) {
        struct pollfd poller = {.fd = machine->serial_fd, .events = POLLIN};
        ssize_t got = poll(&poller, 1, 5) > 0 ? read(machine->serial_fd, bytes, sizeof(bytes)) : 0;
        count += got > 0 ? (size_t)got : 0;
    }
    return count;
}

TEST(a_paused_guest_does_nothing)
{
    NEEDS_KVM;
    struct machine machine;
    struct vial_exit end = VIAL_EXIT_INIT;
    struct vial_vm_stats before = VIAL_VM_STATS_INIT, after = VIAL_VM_STATS_INIT;
    CHECK(machine_configure(&machine, "talk"));
    CHECK(machine_start(&machine, NULL, 0));
    CHECK(machine_expect(&machine, "..."));
    for (int round = 0; round < 3; round++) {
        CHECK_INT(vial_vm_pause(machine.vm, NULL), 0);
        CHECK_INT(vial_vm_pause(machine.vm, NULL), -EALREADY);
        vial_vm_get_stats(machine.vm, &before, NULL);
        count_bytes(&machine, 50);
        CHECK_INT(count_bytes(&machine, 50), 0);
        vial_vm_get_stats(machine.vm, &after, NULL);
        CHECK_INT(after.vcpu_exits, before.vcpu_exits);
        CHECK_INT(vial_vm_resume(machine.vm, NULL), 0);
        CHECK_INT(vial_vm_resume(machine.vm, NULL), -EALREADY);
        CHECK(machine_expect(&machine, "..."));
    }
    CHECK_INT(vial_vm_pause(machine.vm, NULL), 0);
    CHECK(stop_time(&machine, &end) < stop_limit_ms);
    CHECK_INT(vial_vm_pause(machine.vm, NULL), -ESRCH);
    CHECK_INT(vial_vm_resume(machine.vm, NULL), -ESRCH);
    machine_release(&machine);
}

static void *pause_often(void *user)
{
    struct vial_vm *vm = user;
    for (int i = 0; i < 300; i++) {
        vial_vm_pause(vm, NULL);
        vial_vm_resume(vm, NULL);
    }
    return NULL;
}

TEST(many_threads_pause_and_resume)
{
    NEEDS_KVM;
    struct machine machine;
    struct vial_exit end = VIAL_EXIT_INIT;
    pthread_t threads[3];
    CHECK(machine_configure(&machine, "spin"));
    machine.config->machine.vcpus = 2;
    CHECK(machine_start(&machine, NULL, 0));
    for (int i = 0; i < 3; i++)
        CHECK_INT(thread_start("pauser", pause_often, machine.vm, &threads[i]), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    vial_vm_resume(machine.vm, NULL);
    CHECK(stop_time(&machine, &end) < stop_limit_ms);
    machine_release(&machine);
}

struct watcher {
    struct vial_vm **vm;
    unsigned place, *calls;
    int wait_result, reason;
    bool was_first_of_all;
};

static void observe(void *user, const struct vial_exit *end)
{
    struct watcher *watcher = user;
    struct pollfd poller = {.fd = vial_vm_end_fd(*watcher->vm), .events = POLLIN};
    watcher->place = ++*watcher->calls;
    watcher->reason = end->reason;
    watcher->wait_result = vial_vm_wait(*watcher->vm, 1000, NULL, NULL);
    watcher->was_first_of_all = poll(&poller, 1, 0) == 0;
}

TEST(observers_run_once_in_order_and_first)
{
    NEEDS_KVM;
    struct machine machine;
    unsigned calls = 0;
    struct watcher watchers[3];
    CHECK(machine_configure(&machine, "spin"));
    for (size_t i = 0; i < 3; i++) {
        watchers[i] = (struct watcher){.vm = &machine.vm, .calls = &calls};
        CHECK_INT(vial_vm_config_add_exit_observer(machine.config, observe, &watchers[i], NULL), 0);
    }
    CHECK(machine_start(&machine, NULL, 0));
    CHECK(machine_expect(&machine, "spinning"));
    struct pollfd poller = {.fd = vial_vm_end_fd(machine.vm), .events = POLLIN};
    CHECK_INT(poll(&poller, 1, 0), 0);
    CHECK_INT(vial_vm_wait(machine.vm, 10, NULL, NULL), -ETIMEDOUT);
    vial_vm_stop(machine.vm);
    vial_vm_stop(machine.vm);
    CHECK_INT(vial_vm_wait(machine.vm, VIAL_WAIT_FOREVER, NULL, NULL), 0);
    CHECK_INT(poll(&poller, 1, 0), 1);
    CHECK_INT(calls, 3);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_INT(watchers[i].place, i + 1);
        CHECK_INT(watchers[i].wait_result, -EDEADLK);
        CHECK_INT(watchers[i].reason, VIAL_EXIT_STOP_REQUESTED);
        CHECK(watchers[i].was_first_of_all);
    }
    machine_release(&machine);
    CHECK_INT(calls, 3);
}

TEST(a_configuration_in_use_does_not_change)
{
    NEEDS_KVM;
    struct machine machine;
    struct vial_error err = {0};
    struct vial_machine_options options = VIAL_MACHINE_OPTIONS_INIT;
    struct vial_console_port_options port = VIAL_CONSOLE_PORT_OPTIONS_INIT;
    CHECK(machine_configure(&machine, "halt"));
    CHECK(machine_start(&machine, NULL, 0));
    CHECK_INT(vial_vm_config_set_machine(machine.config, &options, &err), -EINVAL);
    CHECK_INT(err.code, VIAL_ERROR_CONFLICT);
    CHECK_TEXT(err.message, "the configuration cannot be changed as long as a machine has it");
    CHECK_INT(vial_vm_config_append_cmdline(machine.config, "x", &err), -EINVAL);
    CHECK_INT(vial_vm_config_add_port(machine.config, 1, 2, &err), -EINVAL);
    CHECK_INT(vial_vm_config_add_console_port(machine.config, &port, &err), -EINVAL);
    /* Two machines share it, and it may go first. */
    struct vial_vm *second = NULL;
    CHECK_INT(vial_vm_start(machine.config, &second, &err), 0);
    machine.config = vial_vm_config_free(machine.config);
    CHECK(vial_vm_free(second) == NULL);
    machine_release(&machine);
}

TEST(what_is_not_here_is_refused)
{
    NEEDS_KVM;
    struct machine machine;
    struct vial_error err = {0};
    CHECK(machine_configure(&machine, "end"));
    machine.config->has_gpu = true;
    CHECK_INT(vial_vm_start(machine.config, &machine.vm, &err), -ENOTSUP);
    CHECK_TEXT(err.field, "console.gpu");
    CHECK_TEXT(err.message, "a GPU is not in this build");
    CHECK(machine.vm == NULL);
    machine_release(&machine);
}

TEST(a_start_survives_no_memory)
{
    NEEDS_KVM;
    FOR_EACH_FAULT
    {
        struct machine machine;
        if (!machine_configure(&machine, "halt")) {
            machine_release(&machine);
            continue;
        }
        struct vial_error err = {0};
        int result = vial_vm_start(machine.config, &machine.vm, &err);
        CHECK(result == 0 || fault_was_hit());
        machine_release(&machine);
    }
}
