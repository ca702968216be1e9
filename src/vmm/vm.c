// SPDX-License-Identifier: Apache-2.0
/* A machine's life: started, controlled from any thread, ended once, with a reason.
 *
 *     vial_vm_start: validate ──> choose.c ──> on_kvm.c or on_uml.c ──> engine runs
 *                                                  │ the guest resets, panics, faults, shuts down; or somebody stops it
 *                                                  ▼
 *     on a thread of the engine:   no guest code runs
 *                                  devices deliver what the guest has said, and end
 *                                  observers, in their order
 *                                  has_ended: whoever waits goes on
 *     vial_vm_free: stop, wait for that, release the rest
 *
 * The end is prepared on a thread of the machine because nobody has to wait for it: a program may have given an
 * observer and nothing else. Calls that use the devices register themselves while they do, and the end waits for them,
 * so that a call from another thread never meets a device that is gone.
 *
 * Invariants: (1) observers run once, after the last guest instruction and before has_ended. (2) when vial_vm_start
 * fails, nothing is left. (3) `exit` and `last_stats` do not change after has_ended. (4) no lock of a
 * vm is held while code of the embedding program runs.
 *
 * Trust: callers are the embedding program; what the guest does reaches this file as a reason and numbers.
 */
#include "vmm/vm.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/thread.h"
#include "device/balloon/balloon.h"
#include "device/console/console.h"
#include "device/metrics/metrics.h"
#include "device/net/net.h"
#include "vmm/exec.h"
#include "vmm/network.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static const char *const reason_names[] = {
    [VIAL_EXIT_COMPLETED] = "completed",
    [VIAL_EXIT_FAILED] = "failed",
    [VIAL_EXIT_IDLE_TIMEOUT] = "idle-timeout",
    [VIAL_EXIT_MAX_DURATION] = "max-duration",
    [VIAL_EXIT_SIGNAL] = "signal",
    [VIAL_EXIT_STOP_REQUESTED] = "stop-requested",
    [VIAL_EXIT_GUEST_PANIC] = "guest-panic",
    [VIAL_EXIT_GUEST_RESET] = "guest-reset",
    [VIAL_EXIT_TRIPLE_FAULT] = "triple-fault",
    [VIAL_EXIT_AGENT_UNRESPONSIVE] = "agent-unresponsive",
    [VIAL_EXIT_INTERNAL_ERROR] = "internal-error",
};

const char *vial_exit_reason_name(int reason)
{
    bool is_known = reason > 0 && (size_t)reason < array_length(reason_names);
    return is_known ? reason_names[reason] : "unknown";
}

/* ---- calls that use the devices ---- */

/* False when the machine is at its end, and its devices with it. */
static bool begin_use(struct vial_vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    bool is_open = !vm->is_closing;
    vm->users += is_open;
    pthread_mutex_unlock(&vm->lock);
    return is_open;
}

static void end_use(struct vial_vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    vm->users--;
    pthread_cond_broadcast(&vm->changed);
    pthread_mutex_unlock(&vm->lock);
}

static void add_network_stats(const struct virtio_device *device, struct vial_vm_stats *stats)
{
    struct net_stats net;
    net_get_stats(device, &net);
    stats->network_received_bytes += net.received_bytes;
    stats->network_sent_bytes += net.transmitted_bytes;
    stats->network_dropped_frames += net.received_drops + net.transmitted_drops;
}

static void read_stats(struct vial_vm *vm, struct vial_vm_stats *stats)
{
    *stats = (struct vial_vm_stats)VIAL_VM_STATS_INIT;
    if (vm->engine->read_stats != NULL)
        vm->engine->read_stats(vm, stats);
    stats->guest_free_bytes = stats->guest_available_bytes = stats->guest_total_bytes = UINT64_MAX;
    stats->root_used_bytes = stats->root_free_bytes = UINT64_MAX;
    for (size_t i = 0; i < vm->device_count; i++) {
        stats->driver_faults += virtio_device_faults(vm->devices[i].device);
        if (virtio_device_type(vm->devices[i].device) == VIRTIO_TYPE_NET)
            add_network_stats(vm->devices[i].device, stats);
    }
    if (vm->console != NULL)
        stats->console_dropped_bytes = console_dropped_bytes(vm->console);
    for (size_t i = 0; i < array_length(vm->serials) && vm->serials[i] != NULL; i++)
        stats->console_dropped_bytes += serial_dropped_bytes(vm->serials[i]);
    if (vm->balloon != NULL) {
        struct balloon_counters done;
        struct balloon_stats memory;
        balloon_counters(vm->balloon, &done);
        balloon_stats(vm->balloon, &memory);
        stats->balloon_mib = balloon_actual_bytes(vm->balloon) >> 20;
        stats->balloon_reported_bytes = done.reported_bytes;
        if ((memory.valid & 1u << BALLOON_FREE) != 0)
            stats->guest_free_bytes = memory.values[BALLOON_FREE];
        if ((memory.valid & 1u << BALLOON_AVAILABLE) != 0)
            stats->guest_available_bytes = memory.values[BALLOON_AVAILABLE];
        if ((memory.valid & 1u << BALLOON_TOTAL) != 0)
            stats->guest_total_bytes = memory.values[BALLOON_TOTAL];
    }
    struct metrics_sample sample;
    if (vm->metrics != NULL && metrics_last(vm->metrics, &sample)) {
        stats->root_used_bytes = sample.used_bytes;
        stats->root_free_bytes = sample.free_bytes;
    }
}

/* ---- the end ---- */

static void close_machine(struct vial_vm *vm)
{
    struct vial_vm_stats stats;
    vm_stop_devices(vm);
    read_stats(vm, &stats); /* with what was lost in stopping */
    pthread_mutex_lock(&vm->lock);
    vm->is_closing = true;
    vm->last_stats = stats;
    while (vm->users > 0)
        pthread_cond_wait(&vm->changed, &vm->lock);
    pthread_mutex_unlock(&vm->lock);
    vm_close_devices(vm);
}

static void run_observers(struct vial_vm *vm)
{
    const struct vial_vm_config *config = vm->config;
    for (size_t i = 0; i < config->observer_count; i++)
        config->observers[i].function(config->observers[i].user, &vm->exit);
}

/* A guest that nobody asked for anything may have said by itself how it went (vm->told_code). */
static void judge_told_code(struct vial_vm *vm)
{
    int code = atomic_load(&vm->told_code);
    if (code < 0 || (vm->exit.reason != VIAL_EXIT_COMPLETED && vm->exit.reason != VIAL_EXIT_GUEST_RESET))
        return;
    vm->exit.reason = code == 0 ? VIAL_EXIT_COMPLETED : VIAL_EXIT_FAILED;
    vm->exit.code = code;
    snprintf(vm->exit.detail, sizeof(vm->exit.detail), "the guest ended with exit code %d", code);
}

void vm_handle_end(void *user, const struct vial_exit *end)
{
    struct vial_vm *vm = user;
    uint64_t one = 1;
    pthread_mutex_lock(&vm->lock);
    vm->has_ending_thread = true;
    vm->ending_thread = pthread_self();
    pthread_mutex_unlock(&vm->lock);
    vm->exit = *end;
    close_machine(vm);
    if (vm->exec != NULL)
        exec_judge(vm->exec, &vm->exit);
    else
        judge_told_code(vm);
    log_info("vm.ended", LOG_TEXT("reason", vial_exit_reason_name(vm->exit.reason)), LOG_INT("code", vm->exit.code),
             LOG_TEXT("detail", vm->exit.detail));
    run_observers(vm);
    pthread_mutex_lock(&vm->lock);
    vm->has_ended = true;
    ssize_t written = write(vm->end_fd, &one, sizeof(one));
    (void)written; /* an eventfd that nobody else writes takes a 1 */
    pthread_cond_broadcast(&vm->changed);
    pthread_mutex_unlock(&vm->lock);
}

/* ---- life ---- */

static void release(struct vial_vm *vm)
{
    vm->engine->join(vm); /* and with its threads the observers */
    vm_close_devices(vm);
    vm->engine->free(vm);
    vm_close_images(&vm->images);
    exec_free(vm->exec);
    fd_close(vm->output_fd);
    fd_close(vm->end_fd);
    log_drop_wish(vm->config->log_level);
    vial_vm_config_free(vm->config);
    pthread_cond_destroy(&vm->changed);
    pthread_mutex_destroy(&vm->lock);
    free(vm);
}

static int vm_new(struct vial_vm_config *config, const struct vial_engine_info *info, struct vial_vm **ret_vm,
                  struct vial_error *err)
{
    pthread_condattr_t attributes;
    struct vial_vm *vm = alloc_zero(sizeof(*vm));
    if (vm == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    for (int i = 0; i < 3; i++) {
        int fd = config->has_exec_streams ? config->exec_streams[i] : i;
        vm->standard[i] = (i == STDIN_FILENO ? fd_is_readable(fd) : fd_is_writable(fd)) ? fd : -1;
    }
    vm->output_fd = -1;
    atomic_init(&vm->told_code, -1);
    vm->images = (struct vm_images)VM_IMAGES_INIT;
    vm->engine = info->engine == VIAL_ENGINE_UML ? &vm_on_uml : &vm_on_kvm;
    vm->engine_info = *info;
    vm->config = config_share(config);
    log_wish_level(config->log_level);
    pthread_mutex_init(&vm->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&vm->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    vm->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (vm->end_fd < 0) {
        int result = error_set_os(err, VIAL_PHASE_START, errno, "eventfd failed");
        error_remedy(err, "raise the limit of open files (ulimit -n)");
        release(vm);
        return result;
    }
    *ret_vm = vm;
    return 0;
}

static int launch_devices(struct vial_vm *vm, struct vial_error *err)
{
    for (size_t i = 0; i < vm->device_count; i++) {
        int result = virtio_device_launch(vm->devices[i].device);
        if (result < 0) {
            error_set_os(err, VIAL_PHASE_START, result, "the thread of the %s device cannot be started",
                         virtio_device_name(vm->devices[i].device));
            error_remedy(err, "raise this user's limit of processes (ulimit -u), or free memory");
            return result;
        }
    }
    return 0;
}

static int start_machine(struct vial_vm *vm, const struct vm_extra *extras, size_t extra_count, struct vial_error *err)
{
    int result = vm->engine->assemble(vm, extras, extra_count, err);
    if (result < 0)
        return result;
    vm_name_kernel(&vm->config->kernel, &vm->images, &vm->engine_info);
    result = launch_devices(vm, err);
    if (result == 0)
        result = vm->engine->start(vm, err);
    if (result == 0)
        vm->engine->describe(vm, &vm->engine_info);
    if (result == 0)
        log_info("vm.engine", LOG_TEXT("engine", vial_engine_name(vm->engine_info.engine)),
                 LOG_TEXT("reason", vm->engine_info.reason),
                 LOG_TEXT("isolation", vial_isolation_name(vm->engine_info.isolation)),
                 LOG_TEXT("details", vm->engine_info.details));
    return result;
}

int vm_start(struct vial_vm_config *config, const struct vm_extra *extras, size_t extra_count, struct vial_vm **ret_vm,
             struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct vial_vm *vm = NULL;
    struct vial_engine_info info;
    int result = vial_vm_config_validate(config, err);
    if (result == 0)
        result = vm_choose_engine(config, &info, err);
    if (result == 0)
        result = vm_new(config, &info, &vm, err);
    if (result == 0)
        result = start_machine(vm, extras, extra_count, err);
    if (result < 0) {
        for (size_t i = vm != NULL ? vm->extras_taken : 0; i < extra_count; i++)
            virtio_device_free(extras[i].device);
        network_close_helpers(config); /* those that no device has taken */
        if (vm != NULL)
            release(vm);
        return result;
    }
    *ret_vm = vm;
    return 0;
}

int vial_vm_start(struct vial_vm_config *config, struct vial_vm **ret_vm, struct vial_error *err)
{
    return vm_start(config, NULL, 0, ret_vm, err);
}

struct vial_vm *vial_vm_free(struct vial_vm *vm)
{
    THREAD_DEFER_CANCEL();
    if (vm == NULL)
        return NULL;
    release(vm);
    return NULL;
}

/* ---- waiting and control ---- */

static void unlock(void *lock)
{
    pthread_mutex_unlock(lock);
}

/* With the lock held: 0, -EDEADLK or -ETIMEDOUT. */
static int wait_for_end(struct vial_vm *vm, const struct timespec *deadline)
{
    int result = 0;
    if (!vm->has_ended && vm->has_ending_thread && pthread_equal(vm->ending_thread, pthread_self()))
        return -EDEADLK;
    while (result == 0 && !vm->has_ended)
        result = -pthread_cond_timedwait(&vm->changed, &vm->lock, deadline);
    return vm->has_ended ? 0 : result;
}

/* The one place where a thread of the program may be cancelled, for it can take for ever. */
static int wait_with_lock(struct vial_vm *vm, const struct timespec *deadline)
{
    int result;
    pthread_mutex_lock(&vm->lock);
    pthread_cleanup_push(unlock, &vm->lock);
    result = wait_for_end(vm, deadline);
    pthread_cleanup_pop(1);
    return result;
}

int vm_check_result(const void *theirs, const char *macro, struct vial_error *err)
{
    size_t size;
    memcpy(&size, theirs, sizeof(size));
    if (size > sizeof(size))
        return 0;
    int result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_RUN, "a struct for the result has no size");
    error_remedy(err, "initialise it with %s", macro);
    return result;
}

void vm_give_result(void *theirs, const void *ours, size_t our_size)
{
    size_t size;
    memcpy(&size, theirs, sizeof(size));
    if (size > our_size)
        size = our_size;
    memcpy((uint8_t *)theirs + sizeof(size), (const uint8_t *)ours + sizeof(size), size - sizeof(size));
}

int vial_vm_wait(struct vial_vm *vm, uint64_t timeout_ms, struct vial_exit *ret_exit, struct vial_error *err)
{
    uint64_t timeout_ns = 0;
    int result = ret_exit != NULL ? vm_check_result(ret_exit, "VIAL_EXIT_INIT", err) : 0;
    if (result < 0)
        return result;
    if (__builtin_mul_overflow(timeout_ms, CLOCK_NS_PER_MS, &timeout_ns))
        timeout_ns = CLOCK_NEVER;
    uint64_t deadline_ns = clock_deadline_ns(timeout_ns);
    /* What timespec can say on any system; nobody waits longer. */
    deadline_ns = deadline_ns > (uint64_t)INT64_MAX ? (uint64_t)INT64_MAX : deadline_ns;
    struct timespec deadline = clock_to_timespec(deadline_ns);
    result = wait_with_lock(vm, &deadline);
    if (result == -EDEADLK)
        error_set(err, VIAL_ERROR_CONFLICT, VIAL_PHASE_RUN, "an exit observer cannot wait for its own machine's end");
    else if (result < 0)
        error_set_os(err, VIAL_PHASE_RUN, result, "the machine still runs after %llu ms",
                     (unsigned long long)timeout_ms);
    if (result == 0 && ret_exit != NULL)
        vm_give_result(ret_exit, &vm->exit, sizeof(vm->exit));
    return result;
}

int vial_vm_end_fd(const struct vial_vm *vm)
{
    return vm->end_fd;
}

static int control_result(int result, const char *done, struct vial_error *err)
{
    if (result == -ESRCH)
        error_set_os(err, VIAL_PHASE_RUN, result, "the machine has ended");
    else if (result < 0)
        error_set_os(err, VIAL_PHASE_RUN, result, "the machine is %s already", done);
    return result;
}

int vial_vm_pause(struct vial_vm *vm, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    return control_result(vm->engine->pause(vm), "paused", err);
}

int vial_vm_resume(struct vial_vm *vm, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    return control_result(vm->engine->resume(vm), "running", err);
}

void vial_vm_stop(struct vial_vm *vm)
{
    vm->engine->end(vm, VIAL_EXIT_STOP_REQUESTED, "somebody stopped the machine");
}

int vial_vm_set_balloon(struct vial_vm *vm, uint64_t memory_mib, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    if (!begin_use(vm))
        return error_set_os(err, VIAL_PHASE_RUN, ESRCH, "the machine has ended");
    int result = vm->balloon == NULL ? -ENODEV : memory_mib > vm->config->machine.memory_mib ? -ERANGE : 0;
    if (result == 0)
        result = balloon_set_target(vm->balloon, (uint32_t)memory_mib);
    end_use(vm);
    if (result == -ENODEV) {
        error_set_os(err, VIAL_PHASE_RUN, result, "the machine has no balloon");
        error_remedy(err, "set machine.balloon");
    } else if (result < 0) {
        error_set_os(err, VIAL_PHASE_RUN, result, "the balloon cannot have %llu MiB", (unsigned long long)memory_mib);
        error_remedy(err, "give at most the machine's memory, %llu MiB",
                     (unsigned long long)vm->config->machine.memory_mib);
    }
    return result;
}

/* They were added in the configuration's order, before any device of a test. */
static struct virtio_device *find_network(const struct vial_vm *vm, size_t index)
{
    for (size_t i = 0; i < vm->device_count; i++)
        if (virtio_device_type(vm->devices[i].device) == VIRTIO_TYPE_NET && index-- == 0)
            return vm->devices[i].device;
    return NULL;
}

int vial_vm_set_link(struct vial_vm *vm, size_t index, bool is_up, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    if (!begin_use(vm))
        return error_set_os(err, VIAL_PHASE_RUN, ESRCH, "the machine has ended");
    struct virtio_device *device = find_network(vm, index);
    if (device != NULL)
        net_set_link(device, is_up);
    end_use(vm);
    if (device != NULL)
        return 0;
    int result = error_set_os(err, VIAL_PHASE_RUN, ENODEV, "the machine has no network %zu", index);
    error_remedy(err, "it has %zu, and the first is 0", vm->config->net_count);
    return result;
}

void vial_vm_window_changed(struct vial_vm *vm)
{
    THREAD_DEFER_CANCEL();
    if (!begin_use(vm))
        return;
    if (vm->console != NULL)
        console_window_changed(vm->console);
    for (size_t i = 0; i < array_length(vm->serials) && vm->serials[i] != NULL; i++)
        serial_terminal_changed(vm->serials[i]);
    end_use(vm);
}

int vial_vm_get_stats(struct vial_vm *vm, struct vial_vm_stats *ret_stats, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct vial_vm_stats stats;
    int result = vm_check_result(ret_stats, "VIAL_VM_STATS_INIT", err);
    if (result < 0)
        return result;
    if (begin_use(vm)) {
        read_stats(vm, &stats);
        end_use(vm);
    } else {
        pthread_mutex_lock(&vm->lock);
        stats = vm->last_stats;
        pthread_mutex_unlock(&vm->lock);
    }
    vm_give_result(ret_stats, &stats, sizeof(stats));
    return 0;
}

int vial_vm_get_engine(struct vial_vm *vm, struct vial_engine_info *ret_info, struct vial_error *err)
{
    int result = vm_check_result(ret_info, "VIAL_ENGINE_INFO_INIT", err);
    if (result == 0)
        vm_give_result(ret_info, &vm->engine_info, sizeof(vm->engine_info));
    return result;
}
