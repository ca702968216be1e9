// SPDX-License-Identifier: Apache-2.0
/* A machine on KVM, running: vCPU threads, pause, resume and the end.
 *
 * A vCPU's thread does nothing but KVM_RUN and hand on what the guest's exit asks for. All of them obey one command:
 *
 *              start              pause
 *     PAUSE ──────────> RUN ──────────────> PAUSE        END, from either: every thread leaves, the last one
 *                        ^─────── resume ──────┘         tells the owner, and nothing follows
 *
 * Whoever changes the command then signals every vCPU's thread. The signal is blocked in these threads and let through
 * only inside KVM_RUN (KVM_SET_SIGNAL_MASK), where it makes the ioctl return EINTR; it is then taken from the queue. No
 * handler is needed, so the embedding program's handlers are not touched, and no wake-up is lost: a signal that comes
 * before KVM_RUN stays pending and ends it at once. The program may ignore the signal at that very moment, which throws
 * away what is pending (POSIX.1, 2.4.3); so a byte in kvm_run says the same (immediate_exit). It is an ordinary signal,
 * not a real-time one, because sending those can fail. A SIGURG that is sent to the process while all threads of the
 * program block it may end here, too.
 *
 * To pause means to wait until no vCPU is inside. A vCPU that is busy with a device for the guest is not inside; it
 * looks at the command before it goes back. So a pause never waits for a device, and may be asked for on any thread.
 *
 *     vCPU:   inside = true;  command == RUN? ── yes ──> KVM_RUN;  inside = false;  command != RUN? ──> wake waiters
 *     pause:  command = PAUSE; signal; wait until no vCPU is inside
 *
 * Both sides write one word and then read the other's, in sequentially consistent order: one of them sees the other.
 *
 * Invariants: (1) guest code runs only while the command is RUN. (2) END is final, and the first reason for it stays.
 * (3) on_end is called once, when the last vCPU thread has left guest code for good.
 *
 * Trust: what an exit says comes from a hostile guest through KVM; sizes are KVM's, places are looked up in a bus.
 */
#include "engine/kvm/private.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

/* Ignored by default, and blocked in these threads in any case. */
enum { wake_signal = SIGURG };

static enum kvm_command command_of(const struct kvm_machine *machine)
{
    return atomic_load(&machine->command);
}

/* Whether KVM_RUN is to return at once (KVM API, immediate_exit): a byte of the page that we share with KVM. */
static void set_immediate_exit(struct vcpu *vcpu, uint8_t value)
{
    atomic_store((_Atomic uint8_t *)&vcpu->run->immediate_exit, value);
}

/* With the lock held. */
static void set_command(struct kvm_machine *machine, enum kvm_command command)
{
    atomic_store(&machine->command, command);
    pthread_cond_broadcast(&machine->changed);
    for (unsigned i = 0; i < machine->threads && command != KVM_COMMAND_RUN; i++) {
        set_immediate_exit(&machine->vcpus[i], 1);
        pthread_kill(machine->vcpus[i].thread, wake_signal);
    }
}

/* ---- the end ---- */

void kvm_machine_end(struct kvm_machine *machine, enum vial_exit_reason reason, const char *format, ...)
{
    va_list arguments;
    pthread_mutex_lock(&machine->lock);
    if (!machine->has_end) {
        machine->has_end = true;
        machine->end = (struct vial_exit)VIAL_EXIT_INIT;
        machine->end.reason = reason;
        va_start(arguments, format);
        vsnprintf(machine->end.detail, sizeof(machine->end.detail), format, arguments);
        va_end(arguments);
        set_command(machine, KVM_COMMAND_END);
    }
    pthread_mutex_unlock(&machine->lock);
}

void kvm_machine_join(struct kvm_machine *machine)
{
    if (machine == NULL)
        return;
    kvm_machine_end(machine, VIAL_EXIT_STOP_REQUESTED, "the machine was freed");
    for (; machine->joined < machine->threads; machine->joined++)
        pthread_join(machine->vcpus[machine->joined].thread, NULL);
}

void kvm_machine_reset(struct kvm_machine *machine)
{
    enum vial_exit_reason reason = machine->options.reset_reason != NULL
                                       ? machine->options.reset_reason(machine->options.user)
                                       : VIAL_EXIT_GUEST_RESET;
    kvm_machine_end(machine, reason,
                    reason == VIAL_EXIT_GUEST_PANIC ? "the guest's kernel panicked" : "the guest reset the machine");
}

/* ---- exits ---- */

static void handle_port(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    struct bus *bus = &vcpu->machine->ports;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
        if (run->io.direction == KVM_EXIT_IO_IN)
            bus_read(bus, run->io.port, data, run->io.size);
        else
            bus_write(bus, run->io.port, data, run->io.size);
    }
}

static void handle_memory(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    if (run->mmio.is_write)
        bus_write(&vcpu->machine->mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
    else
        bus_read(&vcpu->machine->mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
}

/* Where it was and, when KVM says, at which instruction. */
static void end_by_internal_error(struct vcpu *vcpu)
{
    const struct kvm_run *run = vcpu->run;
    struct kvm_regs registers = {0};
    char bytes[3 * 15 + 1] = "";
    uint32_t count = run->internal.ndata < array_length(run->internal.data)
                         ? run->internal.ndata
                         : (uint32_t)array_length(run->internal.data);
    bool is_emulation = run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION;
    if (is_emulation && count >= 4 &&
        (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0)
        for (unsigned i = 0; i < run->emulation_failure.insn_size && i < 15; i++)
            snprintf(bytes + 3 * i, 4, " %02x", run->emulation_failure.insn_bytes[i]);
    ioctl(vcpu->fd, KVM_GET_REGS, &registers); /* what cannot be had stays 0 */
    kvm_machine_end(vcpu->machine, VIAL_EXIT_INTERNAL_ERROR,
                    "KVM_EXIT_INTERNAL_ERROR: suberror %u (%s) on vCPU %u at rip 0x%llx%s%s", run->internal.suberror,
                    is_emulation ? "an instruction that KVM cannot emulate" : "see linux/kvm.h", vcpu->index,
                    (unsigned long long)registers.rip, bytes[0] != '\0' ? ", bytes" : "", bytes);
}

static void end_by_system_event(struct vcpu *vcpu)
{
    switch (vcpu->run->system_event.type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
        kvm_machine_end(vcpu->machine, VIAL_EXIT_COMPLETED, "the guest shut down");
        break;
    case KVM_SYSTEM_EVENT_CRASH:
        kvm_machine_end(vcpu->machine, VIAL_EXIT_GUEST_PANIC, "the guest reported a crash");
        break;
    default:
        kvm_machine_reset(vcpu->machine);
        break;
    }
}

static void handle_exit(struct vcpu *vcpu)
{
    struct kvm_machine *machine = vcpu->machine;
    const struct kvm_run *run = vcpu->run;
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        handle_port(vcpu);
        break;
    case KVM_EXIT_MMIO:
        handle_memory(vcpu);
        break;
    case KVM_EXIT_IOAPIC_EOI:
        if (machine->ioapic != NULL)
            ioapic_end_of_interrupt(machine->ioapic, run->eoi.vector);
        break;
    case KVM_EXIT_INTR:
        break;
    case KVM_EXIT_SHUTDOWN:
        kvm_machine_end(machine, VIAL_EXIT_TRIPLE_FAULT, "vCPU %u triple-faulted", vcpu->index);
        break;
    case KVM_EXIT_SYSTEM_EVENT:
        end_by_system_event(vcpu);
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        end_by_internal_error(vcpu);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        kvm_machine_end(machine, VIAL_EXIT_INTERNAL_ERROR,
                        "KVM_EXIT_FAIL_ENTRY: the CPU refused to enter vCPU %u, hardware reason 0x%llx", vcpu->index,
                        (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
        break;
    default:
        kvm_machine_end(machine, VIAL_EXIT_INTERNAL_ERROR, "KVM exit reason %u on vCPU %u, which means nothing here",
                        run->exit_reason, vcpu->index);
        break;
    }
}

/* ---- the threads ---- */

/* Takes the wake-up back, before the command is looked at again, which says what it was for. */
static void take_wake_up(struct vcpu *vcpu)
{
    static const struct timespec now = {0};
    sigset_t set;
    set_immediate_exit(vcpu, 0);
    sigemptyset(&set);
    sigaddset(&set, wake_signal);
    while (sigtimedwait(&set, NULL, &now) == wake_signal)
        ;
}

static int enter_guest(struct vcpu *vcpu)
{
    int result = ioctl(vcpu->fd, KVM_RUN, 0) < 0 ? -errno : 0;
    atomic_fetch_add_explicit(&vcpu->exits, 1, memory_order_relaxed);
    return result;
}

/* Waits until guest code may run: true, or false at the end. */
static bool wait_for_run(struct vcpu *vcpu)
{
    struct kvm_machine *machine = vcpu->machine;
    bool has_waited = false;
    pthread_mutex_lock(&machine->lock);
    while (command_of(machine) == KVM_COMMAND_PAUSE) {
        has_waited = true;
        pthread_cond_wait(&machine->changed, &machine->lock);
    }
    bool runs = command_of(machine) == KVM_COMMAND_RUN;
    pthread_mutex_unlock(&machine->lock);
    /* Tells the guest's watchdogs that the lost time was not its own. Refused by guests without a kvm-clock. */
    if (runs && has_waited)
        ioctl(vcpu->fd, KVM_KVMCLOCK_CTRL, 0);
    return runs;
}

/* Not inside any more; a pause may be waiting for that. */
static void leave_guest(struct vcpu *vcpu)
{
    struct kvm_machine *machine = vcpu->machine;
    atomic_store(&vcpu->is_inside, false);
    if (command_of(machine) != KVM_COMMAND_RUN) {
        pthread_mutex_lock(&machine->lock);
        pthread_cond_broadcast(&machine->changed);
        pthread_mutex_unlock(&machine->lock);
    }
}

static void end_by_failed_run(struct vcpu *vcpu, int result)
{
    const char *remedy = result == -EFAULT
                             ? "the host has no page for the guest's memory: free memory, and see whether "
                               "the kernel's file, or one in a DAX window, was truncated"
                         : result == -ENOMEM ? "free memory, or raise this process's memory limits"
                                             : "look at the kernel's log (dmesg | grep -i kvm), and at vial doctor";
    kvm_machine_end(vcpu->machine, VIAL_EXIT_INTERNAL_ERROR, "KVM_RUN of vCPU %u failed: %s; %s", vcpu->index,
                    strerrordesc_np(-result), remedy);
}

static void run_vcpu(struct vcpu *vcpu)
{
    struct kvm_machine *machine = vcpu->machine;
    while (command_of(machine) == KVM_COMMAND_RUN || wait_for_run(vcpu)) {
        int result = 0;
        bool has_run = false;
        atomic_store(&vcpu->is_inside, true);
        if (command_of(machine) == KVM_COMMAND_RUN) {
            result = enter_guest(vcpu);
            has_run = true;
        }
        leave_guest(vcpu);
        if (result == -EINTR)
            take_wake_up(vcpu);
        else if (result < 0 && result != -EAGAIN) /* EAGAIN: INIT came to a vCPU that waits for it (KVM_RUN) */
            end_by_failed_run(vcpu, result);
        else if (result == 0 && has_run)
            handle_exit(vcpu);
    }
}

static void *run_thread(void *user)
{
    struct vcpu *vcpu = user;
    struct kvm_machine *machine = vcpu->machine;
    run_vcpu(vcpu);
    pthread_mutex_lock(&machine->lock);
    bool is_last = --machine->living == 0;
    pthread_cond_broadcast(&machine->changed);
    pthread_mutex_unlock(&machine->lock);
    if (is_last)
        machine->options.on_end(machine->options.user, &machine->end);
    return NULL;
}

/* While KVM_RUN is inside, only the wake-up gets through. */
static int set_signal_mask(struct vcpu *vcpu)
{
    enum { kernel_set_bytes = 8 }; /* whatever the size of the library's sets */
    union {
        struct kvm_signal_mask header;
        uint8_t bytes[sizeof(struct kvm_signal_mask) + kernel_set_bytes];
    } mask = {.header.len = kernel_set_bytes};
    sigset_t blocked;
    sigfillset(&blocked);
    sigdelset(&blocked, wake_signal);
    memcpy(mask.bytes + offsetof(struct kvm_signal_mask, sigset), &blocked, kernel_set_bytes);
    return ioctl(vcpu->fd, KVM_SET_SIGNAL_MASK, &mask) < 0 ? -errno : 0;
}

static int start_threads(struct kvm_machine *machine, struct vial_error *err)
{
    for (unsigned i = 0; i < machine->options.vcpus; i++) {
        struct vcpu *vcpu = &machine->vcpus[i];
        char name[24];
        snprintf(name, sizeof(name), "vial-vcpu%u", i);
        int result = set_signal_mask(vcpu);
        if (result < 0)
            return kvm_fail(err, VIAL_PHASE_START, "KVM_SET_SIGNAL_MASK", result);
        result = thread_start_as(THREAD_VCPU, name, run_thread, vcpu, &vcpu->thread);
        if (result < 0)
            return kvm_fail(err, VIAL_PHASE_START, "the start of a vCPU's thread", result);
        machine->threads++;
        machine->living++;
    }
    return 0;
}

int kvm_machine_start(struct kvm_machine *machine, struct vial_error *err)
{
    assert(machine->threads == 0);
    /* The threads wait for the lock, then for the command. */
    pthread_mutex_lock(&machine->lock);
    int result = start_threads(machine, err);
    if (result == 0) {
        set_command(machine, KVM_COMMAND_RUN);
    } else {
        machine->living++; /* nobody is the last: an owner that was told of a failure is not told of an end */
        machine->has_end = true;
        set_command(machine, KVM_COMMAND_END);
    }
    pthread_mutex_unlock(&machine->lock);
    return result;
}

/* ---- pause and resume ---- */

static bool is_any_inside(const struct kvm_machine *machine)
{
    for (unsigned i = 0; i < machine->threads; i++)
        if (atomic_load(&machine->vcpus[i].is_inside))
            return true;
    return false;
}

int kvm_machine_pause(struct kvm_machine *machine)
{
    int result = 0;
    pthread_mutex_lock(&machine->lock);
    if (command_of(machine) == KVM_COMMAND_RUN)
        set_command(machine, KVM_COMMAND_PAUSE);
    else
        result = command_of(machine) == KVM_COMMAND_END ? -ESRCH : -EALREADY;
    while (command_of(machine) != KVM_COMMAND_RUN && is_any_inside(machine))
        pthread_cond_wait(&machine->changed, &machine->lock);
    if (command_of(machine) == KVM_COMMAND_END)
        result = -ESRCH; /* it may have ended meanwhile */
    pthread_mutex_unlock(&machine->lock);
    return result;
}

int kvm_machine_resume(struct kvm_machine *machine)
{
    int result = 0;
    pthread_mutex_lock(&machine->lock);
    if (command_of(machine) == KVM_COMMAND_PAUSE)
        set_command(machine, KVM_COMMAND_RUN);
    else
        result = command_of(machine) == KVM_COMMAND_END ? -ESRCH : -EALREADY;
    pthread_mutex_unlock(&machine->lock);
    return result;
}

void kvm_machine_counters(const struct kvm_machine *machine, struct kvm_counters *ret_counters)
{
    struct kvm_counters counters = {
        .unknown_ports = atomic_load_explicit(&machine->ports.unknown, memory_order_relaxed),
        .unknown_memory = atomic_load_explicit(&machine->mmio.unknown, memory_order_relaxed),
    };
    for (unsigned i = 0; i < machine->options.vcpus; i++)
        counters.exits += atomic_load_explicit(&machine->vcpus[i].exits, memory_order_relaxed);
    *ret_counters = counters;
}
