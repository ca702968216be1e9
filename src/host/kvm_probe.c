// SPDX-License-Identifier: Apache-2.0
/* Can KVM run a guest here? Asked of the device itself, in a throwaway machine.
 *
 * Three questions, each of which some host answers wrongly while all before it look fine:
 *
 *   1. Does the device open, speak API version 12, and have what the engine needs?
 *   2. Does a vCPU execute HLT and come back with KVM_EXIT_HLT? (Broken nested virtualization does not.)
 *   3. Does ring-0 code run on the CPU, or is it emulated? A KVM without hardware underneath (a paravirtual one that
 *      virtualizes through page tables) passes 1 and 2, and then takes minutes to boot a kernel.
 *
 * For 3 the guest runs `dec rcx; jnz` in long mode, and this process runs the same loop. The loop is lengthened until
 * the guest needs a measurable time, the cost of entering and leaving (measured with one iteration) is taken off, and
 * the two times are compared as a ratio: around 1 where the CPU executes ring 0, be it a slow CPU or an emulated host
 * in which everything is slow, and thousands where each instruction is emulated. Absolute times would judge a slow
 * but sound host wrongly; even the budget is counted in what this host's own loop needs.
 *
 * The guest's time is the CPU time of this thread, which includes it: on a busy host the thread may have to wait for a
 * CPU, and that must not look like emulation.
 *
 * The guest may never come back, so two timers watch it, one for CPU time (a guest that runs) and one for the time of
 * day (a vCPU that sleeps). They signal this thread; the signal is blocked everywhere but inside KVM_RUN
 * (KVM_SET_SIGNAL_MASK), where it ends the ioctl with EINTR, and is then taken from the queue, so no handler of the
 * embedding program ever sees it.
 *
 * Invariants: (1) the machine, its memory, the timers and the signal mask are undone on every way out. (2) running ends
 * within the two budgets, whatever the device does.
 *
 * Trust: the device is the host kernel's. The payload is ours.
 */
#include "host/kvm_probe.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "host/files.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Guest-physical layout of the throwaway machine: 64 KiB at 0, identity-mapped by one 2 MiB page. */
enum {
    memory_bytes = 0x10000,
    pml4_address = 0x1000,
    pdpt_address = 0x2000,
    directory_address = 0x3000,
    code_address = 0x8000,
};

/* A ratio far from both what sound hosts were seen to have (0.7 to 3) and emulating ones (480 to 4400). */
enum { emulated_ratio = 30 };

/* The budget on a fast host, and the iterations whose time here, times budget_factor, is the budget on a slow one. */
static const uint64_t least_budget_ns = 12 * CLOCK_NS_PER_MS;
static const uint64_t most_budget_ns = 500 * CLOCK_NS_PER_MS;
enum { calibration_iterations = 100000, budget_factor = 400 };

/* The time of day may pass several times as fast as the CPU time: others want the CPU, too. Where they want it badly, a
 * thread that is waiting for it (and not sleeping) gets more of the day, within reason. */
enum { wall_factor = 5, last_factor = 30 };

/* The guest has run long enough for its time to mean something: a thousand times the clock's own cost, and several
 * times the cost of an entry, which varies and is subtracted. */
static const uint64_t enough_ns = CLOCK_NS_PER_MS / 4;
enum { enough_entries = 4 };
enum { first_iterations = 1000, iterations_growth = 8 };
static const uint64_t most_iterations = 1 << 26;

/* dec rcx; jnz back; hlt; jmp back to the hlt */
static const uint8_t loop_code[] = {0x48, 0xff, 0xc9, 0x75, 0xfb, 0xf4, 0xeb, 0xfd};
enum { loop_instructions = 2 };

struct machine {
    int kvm_fd, vm_fd, vcpu_fd; /* owned, or -1 */
    uint8_t *memory;            /* owned mapping, or NULL */
    struct kvm_run *run;        /* owned mapping, or NULL */
    size_t run_bytes;
    timer_t timers[2]; /* for CPU time, and for the time of day */
    size_t timer_count;
    bool has_slept; /* in the run that was cut short */
    int signal_number;
    sigset_t signal_set, old_mask;
    uint64_t cpu_deadline_ns, wall_deadline_ns, wall_step_ns, last_deadline_ns;
};

static const struct {
    int number;
    const char *name;
} needed_capabilities[] = {
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},
    {KVM_CAP_IRQFD, "KVM_CAP_IRQFD"},
    {KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
    {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
};

static const char *const verdict_names[] = {
    [KVM_NATIVE] = "native",
    [KVM_NO_DEVICE] = "no-device",
    [KVM_NO_ACCESS] = "no-access",
    [KVM_NOT_KVM] = "not-kvm",
    [KVM_LACKS_CAPABILITY] = "lacks-capability",
    [KVM_SETUP_FAILED] = "setup-failed",
    [KVM_SMOKE_FAILED] = "smoke-failed",
    [KVM_RING0_EMULATED] = "ring0-emulated",
};

const char *kvm_verdict_name(enum kvm_verdict verdict)
{
    return verdict_names[verdict];
}

static bool fail(struct kvm_probe *probe, enum kvm_verdict verdict, const char *step, int os_error)
{
    probe->verdict = verdict;
    probe->step = step;
    probe->os_error = os_error;
    return false;
}

/* ---- the deadlines ---- */

static uint64_t cpu_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now); /* cannot fail: the clock is our own thread's */
    return clock_from_timespec(&now);
}

static uint64_t time_host_loop(uint64_t iterations)
{
    uint64_t best_ns = UINT64_MAX;
    for (int i = 0; i < 3; i++) {
        uint64_t count = iterations, start_ns = clock_now_ns();
        __asm__ volatile("1: dec %0; jnz 1b" : "+r"(count) : : "cc");
        uint64_t elapsed_ns = clock_now_ns() - start_ns;
        best_ns = elapsed_ns < best_ns ? elapsed_ns : best_ns;
    }
    return best_ns > 0 ? best_ns : 1;
}

enum { cpu_timer, wall_timer };

static bool start_timer(struct machine *machine, clockid_t clock, uint64_t deadline_ns, struct kvm_probe *probe)
{
    struct sigevent event = {
        .sigev_notify = SIGEV_THREAD_ID,
        .sigev_signo = machine->signal_number,
        ._sigev_un._tid = (pid_t)syscall(SYS_gettid),
    };
    struct itimerspec when = {.it_value = clock_to_timespec(deadline_ns)};
    timer_t *timer = &machine->timers[machine->timer_count];
    if (timer_create(clock, &event, timer) < 0)
        return fail(probe, KVM_SETUP_FAILED, "timer_create", errno);
    machine->timer_count++;
    if (timer_settime(*timer, TIMER_ABSTIME, &when, NULL) < 0)
        return fail(probe, KVM_SETUP_FAILED, "timer_settime", errno);
    return true;
}

/* A real-time signal to interrupt KVM_RUN with. It is sent to this thread alone and taken back, so any will do that is
 * not waiting to be delivered; one that the program does not use at all is better, in case it is sent meanwhile. */
static int choose_signal(void)
{
    sigset_t blocked, pending;
    int second_best = 0;
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    sigpending(&pending);
    for (int number = SIGRTMAX; number >= SIGRTMIN; number--) {
        struct sigaction action;
        if (sigismember(&pending, number) != 0 || sigaction(number, NULL, &action) < 0)
            continue;
        if (action.sa_handler == SIG_DFL && sigismember(&blocked, number) == 0)
            return number;
        if (second_best == 0)
            second_best = number;
    }
    return second_best;
}

static bool guard_start(struct machine *machine, struct kvm_probe *probe)
{
    machine->signal_number = choose_signal();
    if (machine->signal_number == 0)
        return fail(probe, KVM_SETUP_FAILED, "the choice of a real-time signal that is not pending", 0);
    sigemptyset(&machine->signal_set);
    sigaddset(&machine->signal_set, machine->signal_number);
    pthread_sigmask(SIG_BLOCK, &machine->signal_set, &machine->old_mask);
    uint64_t budget_ns = time_host_loop(calibration_iterations) * budget_factor;
    budget_ns = budget_ns < least_budget_ns ? least_budget_ns : budget_ns;
    budget_ns = budget_ns > most_budget_ns ? most_budget_ns : budget_ns;
    machine->cpu_deadline_ns = cpu_now_ns() + budget_ns;
    machine->wall_step_ns = wall_factor * budget_ns;
    machine->wall_deadline_ns = clock_deadline_ns(machine->wall_step_ns);
    machine->last_deadline_ns = clock_deadline_ns(last_factor * machine->wall_step_ns);
    _Static_assert(cpu_timer == 0 && wall_timer == 1, "started in this order");
    if (!start_timer(machine, CLOCK_THREAD_CPUTIME_ID, machine->cpu_deadline_ns, probe) ||
        !start_timer(machine, CLOCK_MONOTONIC, machine->wall_deadline_ns, probe))
        return false;

    /* The kernel's own signal set is 8 bytes, whatever the size of the library's. */
    enum { kernel_set_bytes = 8 };
    union {
        struct kvm_signal_mask header;
        uint8_t bytes[sizeof(struct kvm_signal_mask) + kernel_set_bytes];
    } mask = {.header.len = kernel_set_bytes};
    sigset_t inside = machine->old_mask;
    sigdelset(&inside, machine->signal_number);
    memcpy(mask.bytes + offsetof(struct kvm_signal_mask, sigset), &inside, kernel_set_bytes);
    if (ioctl(machine->vcpu_fd, KVM_SET_SIGNAL_MASK, &mask) < 0)
        return fail(probe, KVM_SETUP_FAILED, "KVM_SET_SIGNAL_MASK", errno);
    return true;
}

/* Takes the guard's signals from the queue. */
static void guard_take(struct machine *machine)
{
    static const struct timespec now = {0};
    while (sigtimedwait(&machine->signal_set, NULL, &now) == machine->signal_number)
        ;
}

/* How often this thread gave up the CPU of its own accord: a vCPU that sleeps does, one that waits for a CPU does
 * not. */
static long count_sleeps(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nvcsw : 0;
}

/* Whether a budget is spent. The signal only interrupts; the clocks decide. */
static bool is_out_of_time(struct machine *machine, long sleeps_before)
{
    uint64_t now_ns = clock_now_ns();
    if (cpu_now_ns() >= machine->cpu_deadline_ns)
        return true;
    if (now_ns < machine->wall_deadline_ns)
        return false;
    if (count_sleeps() != sleeps_before || now_ns >= machine->last_deadline_ns)
        return true;
    machine->wall_deadline_ns = now_ns + machine->wall_step_ns;
    struct itimerspec when = {.it_value = clock_to_timespec(machine->wall_deadline_ns)};
    return timer_settime(machine->timers[wall_timer], TIMER_ABSTIME, &when, NULL) < 0;
}

/* ---- the machine ---- */

static void write_entry(struct machine *machine, size_t address, uint64_t entry)
{
    memcpy(machine->memory + address, &entry, sizeof(entry));
}

static bool make_memory(struct machine *machine, struct kvm_probe *probe)
{
    enum { present = 1, writable = 2, large = 0x80 };
    void *memory = mmap(NULL, memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return fail(probe, KVM_SETUP_FAILED, "mmap", errno);
    machine->memory = memory;
    write_entry(machine, pml4_address, pdpt_address | present | writable);
    write_entry(machine, pdpt_address, directory_address | present | writable);
    write_entry(machine, directory_address, present | writable | large);
    memcpy(machine->memory + code_address, loop_code, sizeof(loop_code));
    struct kvm_userspace_memory_region region = {
        .memory_size = memory_bytes,
        .userspace_addr = (uintptr_t)machine->memory,
    };
    if (ioctl(machine->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return fail(probe, KVM_SETUP_FAILED, "KVM_SET_USER_MEMORY_REGION", errno);
    return true;
}

static bool set_cpuid(struct machine *machine, struct kvm_probe *probe)
{
    enum { most_entries = 256 };
    size_t size = sizeof(struct kvm_cpuid2) + most_entries * sizeof(struct kvm_cpuid_entry2);
    auto_free struct kvm_cpuid2 *cpuid = alloc_zero(size);
    if (cpuid == NULL)
        return fail(probe, KVM_SETUP_FAILED, "calloc", ENOMEM);
    cpuid->nent = most_entries;
    if (ioctl(machine->kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0)
        return fail(probe, KVM_SETUP_FAILED, "KVM_GET_SUPPORTED_CPUID", errno);
    if (ioctl(machine->vcpu_fd, KVM_SET_CPUID2, cpuid) < 0)
        return fail(probe, KVM_SETUP_FAILED, "KVM_SET_CPUID2", errno);
    return true;
}

/* Long mode, flat segments, ring 0 (Intel SDM 3A 10.8.5, 5.2.1). */
static bool set_long_mode(struct machine *machine, struct kvm_probe *probe)
{
    enum { cr0_pe = 1, cr0_et = 1 << 4, cr0_ne = 1 << 5, cr4_pae = 1 << 5, efer_lme = 1 << 8, efer_lma = 1 << 10 };
    struct kvm_sregs registers;
    if (ioctl(machine->vcpu_fd, KVM_GET_SREGS, &registers) < 0)
        return fail(probe, KVM_SETUP_FAILED, "KVM_GET_SREGS", errno);
    struct kvm_segment segment = {.limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
    registers.cs = segment;
    segment.selector = 16;
    segment.type = 3;
    segment.l = 0;
    segment.db = 1;
    registers.ds = registers.es = registers.fs = registers.gs = registers.ss = segment;
    registers.cr3 = pml4_address;
    registers.cr4 |= cr4_pae;
    registers.cr0 = cr0_pe | cr0_et | cr0_ne | UINT64_C(1) << 31;
    registers.efer |= efer_lme | efer_lma;
    if (ioctl(machine->vcpu_fd, KVM_SET_SREGS, &registers) < 0)
        return fail(probe, KVM_SETUP_FAILED, "KVM_SET_SREGS", errno);
    return true;
}

static bool make_vcpu(struct machine *machine, struct kvm_probe *probe)
{
    int run_bytes = ioctl(machine->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_bytes < (int)sizeof(struct kvm_run))
        return fail(probe, KVM_SETUP_FAILED, "KVM_GET_VCPU_MMAP_SIZE", run_bytes < 0 ? errno : 0);
    machine->vcpu_fd = ioctl(machine->vm_fd, KVM_CREATE_VCPU, 0);
    if (machine->vcpu_fd < 0)
        return fail(probe, KVM_SETUP_FAILED, "KVM_CREATE_VCPU", errno);
    void *run = mmap(NULL, (size_t)run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, machine->vcpu_fd, 0);
    if (run == MAP_FAILED)
        return fail(probe, KVM_SETUP_FAILED, "mmap", errno);
    machine->run = run;
    machine->run_bytes = (size_t)run_bytes;
    return set_cpuid(machine, probe) && set_long_mode(machine, probe);
}

static bool make_machine(struct machine *machine, struct kvm_probe *probe)
{
    machine->vm_fd = ioctl(machine->kvm_fd, KVM_CREATE_VM, 0);
    if (machine->vm_fd < 0)
        return fail(probe, KVM_SETUP_FAILED, "KVM_CREATE_VM", errno);
    return make_memory(machine, probe) && make_vcpu(machine, probe) && guard_start(machine, probe);
}

static void free_machine(struct machine *machine)
{
    if (machine->signal_number != 0) {
        while (machine->timer_count > 0)
            timer_delete(machine->timers[--machine->timer_count]);
        guard_take(machine); /* they may have fired on the way here */
        pthread_sigmask(SIG_SETMASK, &machine->old_mask, NULL);
    }
    if (machine->run != NULL)
        munmap(machine->run, machine->run_bytes);
    fd_close(machine->vcpu_fd);
    fd_close(machine->vm_fd);
    fd_close(machine->kvm_fd);
    if (machine->memory != NULL)
        munmap(machine->memory, memory_bytes);
}

/* ---- running ---- */

enum outcome { RAN_TO_HLT, RAN_ELSEWHERE, RAN_OUT_OF_TIME };

/* Runs that many iterations of the loop; *ret_ns is the CPU time that it took. */
static enum outcome run_loop(struct machine *machine, struct kvm_probe *probe, uint64_t iterations, uint64_t *ret_ns)
{
    struct kvm_regs registers = {.rip = code_address, .rcx = iterations, .rflags = 2};
    if (ioctl(machine->vcpu_fd, KVM_SET_REGS, &registers) < 0) {
        fail(probe, KVM_SETUP_FAILED, "KVM_SET_REGS", errno);
        return RAN_ELSEWHERE;
    }
    uint64_t start_ns = cpu_now_ns();
    long sleeps_before = count_sleeps();
    int result;
    while ((result = ioctl(machine->vcpu_fd, KVM_RUN, 0)) < 0 && (errno == EINTR || errno == EAGAIN)) {
        guard_take(machine);
        if (is_out_of_time(machine, sleeps_before)) {
            *ret_ns = cpu_now_ns() - start_ns;
            machine->has_slept = count_sleeps() != sleeps_before;
            return RAN_OUT_OF_TIME;
        }
    }
    *ret_ns = cpu_now_ns() - start_ns;
    if (result < 0) {
        fail(probe, KVM_SMOKE_FAILED, "KVM_RUN", errno);
        return RAN_ELSEWHERE;
    }
    probe->exit_reason = machine->run->exit_reason;
    if (probe->exit_reason != KVM_EXIT_HLT) {
        fail(probe, KVM_SMOKE_FAILED, "KVM_RUN", 0);
        return RAN_ELSEWHERE;
    }
    return RAN_TO_HLT;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* Lengthens the loop until the guest needs enough time for it to mean something, then compares. */
static void measure(struct machine *machine, struct kvm_probe *probe, uint64_t entry_ns)
{
    uint64_t iterations = first_iterations, guest_ns = 0;
    uint64_t wanted_ns = entry_ns * enough_entries > enough_ns ? entry_ns * enough_entries : enough_ns;
    enum outcome outcome;
    for (;; iterations *= iterations_growth) {
        outcome = run_loop(machine, probe, iterations, &guest_ns);
        if (outcome == RAN_ELSEWHERE)
            return;
        guest_ns = less(guest_ns, entry_ns);
        if (outcome == RAN_OUT_OF_TIME || guest_ns >= wanted_ns || iterations >= most_iterations)
            break;
    }
    probe->is_measured = true;
    probe->was_cut_short = outcome == RAN_OUT_OF_TIME;
    probe->instructions = iterations * loop_instructions;
    probe->host_ns = time_host_loop(iterations);
    probe->guest_ns = guest_ns;
    /* A bad result may be a host that was busy elsewhere: the best of three counts. */
    for (int i = 0; i < 2 && outcome == RAN_TO_HLT && kvm_probe_ratio(probe) > emulated_ratio; i++) {
        outcome = run_loop(machine, probe, iterations, &guest_ns);
        guest_ns = less(guest_ns, entry_ns);
        if (outcome == RAN_TO_HLT && guest_ns < probe->guest_ns)
            probe->guest_ns = guest_ns;
    }
    log_debug("kvm.measured", LOG_UINT("instructions", probe->instructions), LOG_UINT("guest_ns", probe->guest_ns),
              LOG_UINT("host_ns", probe->host_ns), LOG_UINT("entry_ns", entry_ns));
    if (outcome == RAN_ELSEWHERE)
        return;
    /* Cut short with CPU time to spare, and asleep: this loop never sleeps. */
    if (outcome == RAN_OUT_OF_TIME && cpu_now_ns() < machine->cpu_deadline_ns && machine->has_slept)
        fail(probe, KVM_SMOKE_FAILED, "KVM_RUN", ETIMEDOUT);
    else if (kvm_probe_ratio(probe) > emulated_ratio)
        fail(probe, KVM_RING0_EMULATED, NULL, 0);
    else
        probe->verdict = KVM_NATIVE;
}

static void run_tests(struct machine *machine, struct kvm_probe *probe)
{
    uint64_t entry_ns = 0;
    for (int i = 0; i < 3; i++) { /* the first one faults the memory in; the last one's time is the cost of an entry */
        enum outcome outcome = run_loop(machine, probe, 1, &entry_ns);
        if (outcome == RAN_OUT_OF_TIME)
            fail(probe, KVM_SMOKE_FAILED, "KVM_RUN", ETIMEDOUT);
        if (outcome != RAN_TO_HLT)
            return;
    }
    measure(machine, probe, entry_ns);
}

/* ---- the probe ---- */

double kvm_probe_ratio(const struct kvm_probe *probe)
{
    return probe->is_measured && probe->host_ns > 0 ? (double)probe->guest_ns / (double)probe->host_ns : 0;
}

static bool open_device(const char *root, struct machine *machine, struct kvm_probe *probe)
{
    struct host_path path = host_path_join(root, "/dev/kvm");
    struct stat status;
    if (stat(path.text, &status) == 0) {
        probe->device_mode = status.st_mode & 0777;
        probe->device_group = status.st_gid;
    }
    machine->kvm_fd = open(path.text, O_RDWR | O_CLOEXEC);
    if (machine->kvm_fd >= 0)
        return true;
    switch (errno) {
    case ENOENT:
    case ENOTDIR:
        return fail(probe, KVM_NO_DEVICE, NULL, errno);
    case ENXIO: /* a device node without a driver behind it */
    case ENODEV:
        return fail(probe, KVM_NO_DEVICE, "open", errno);
    case EACCES:
    case EPERM:
        return fail(probe, KVM_NO_ACCESS, NULL, errno);
    case EMFILE:
    case ENFILE:
    case ENOMEM:
        return fail(probe, KVM_SETUP_FAILED, "open", errno);
    default:
        return fail(probe, KVM_NOT_KVM, "open", errno);
    }
}

static bool check_capabilities(struct machine *machine, struct kvm_probe *probe)
{
    probe->api_version = ioctl(machine->kvm_fd, KVM_GET_API_VERSION, 0);
    if (probe->api_version != KVM_API_VERSION)
        return fail(probe, KVM_NOT_KVM, "KVM_GET_API_VERSION", probe->api_version < 0 ? errno : 0);
    for (size_t i = 0; i < array_length(needed_capabilities); i++)
        if (ioctl(machine->kvm_fd, KVM_CHECK_EXTENSION, needed_capabilities[i].number) <= 0)
            return fail(probe, KVM_LACKS_CAPABILITY, needed_capabilities[i].name, 0);
    int most = ioctl(machine->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    probe->max_vcpus = most > 0 ? (uint32_t)most : 1;
    probe->has_split_irqchip = ioctl(machine->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SPLIT_IRQCHIP) > 0;
    return true;
}

void kvm_probe_run(const char *root, struct kvm_probe *ret_probe)
{
    struct machine machine = {
        .kvm_fd = -1,
        .vm_fd = -1,
        .vcpu_fd = -1,
    };
    *ret_probe = (struct kvm_probe){.verdict = KVM_SETUP_FAILED};
    if (open_device(root, &machine, ret_probe) && check_capabilities(&machine, ret_probe) &&
        make_machine(&machine, ret_probe))
        run_tests(&machine, ret_probe);
    free_machine(&machine);
}
