// SPDX-License-Identifier: Apache-2.0
/* vial boot: a plain front end for people who bring a kernel.
 *
 * Options become calls that configure a machine; they stand above what a file given with --config says. Then the
 * machine starts, and this process waits: for its end, for signals that end it, and for the terminal to change its
 * size. The machine's own threads do the work.
 *
 * A KVM without hardware underneath takes minutes for a kernel and says nothing. So, when a machine still runs after a
 * few seconds, KVM is measured once, beside it, and the user is told. Nothing of that stands in the way of the start.
 *
 *     exit status: N     the command's, when one was given
 *                  0     the guest shut down, or reset the machine
 *                  1     its kernel panicked, or a CPU triple-faulted
 *                  125   vial could not start it, or could not go on
 *                  128+N signal N ended vial, and the machine with it
 *
 * Trust: arguments are the user's own; what the guest writes goes to the terminal as it comes, as on any console.
 */
#include "cli/machine.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/loop.h"
#include "host/kvm_probe.h"

#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

static const uint64_t slow_start_ns = 3 * CLOCK_NS_PER_S;

struct boot {
    struct machine_arguments machine;
    struct vial_vm *vm; /* owned */
    struct loop *loop;  /* owned */
    int signal_number;  /* that ended us, or 0 */
};

/* ---- running ---- */

static void handle_end(void *user, uint32_t what)
{
    struct boot *boot = user;
    (void)what;
    loop_stop(boot->loop);
}

static void handle_signal(void *user, uint32_t what)
{
    struct boot *boot = user;
    boot->signal_number = (int)what;
    vial_vm_stop(boot->vm);
}

/* By now a kernel is up on any KVM that is worth the name. */
static void handle_slow_start(void *user, uint32_t what)
{
    struct kvm_probe probe;
    struct vial_error error = {0};
    (void)user;
    (void)what;
    kvm_probe_run("", &probe);
    if (probe.verdict == KVM_RING0_EMULATED && kvm_probe_explain("", &probe, &error) < 0)
        fprintf(stderr, "vial boot: warning: %s\n  -> %s\n", error.message, error.remedy);
}

static void handle_resize(void *user, uint32_t what)
{
    struct boot *boot = user;
    (void)what;
    vial_vm_window_changed(boot->vm);
}

/* Signals are taken from here on, so that none ends this process while the terminal is in raw mode. */
static bool watch(struct boot *boot)
{
    struct loop_source *source = NULL;
    int result = loop_new(&boot->loop);
    if (result == 0)
        result = command_watch_signals(boot->loop, handle_signal, boot);
    if (result == 0)
        result = loop_add_signal(boot->loop, SIGWINCH, handle_resize, boot, &source);
    if (result == 0) /* a shell had the terminal while we were stopped */
        result = loop_add_signal(boot->loop, SIGCONT, handle_resize, boot, &source);
    if (result < 0)
        fprintf(stderr, "vial boot: cannot wait for signals: %s\n", strerror(-result));
    return result == 0;
}

/* Once, to a person: a guest that no hardware keeps apart. */
static void tell_engine(const struct vial_engine_info *info)
{
    const struct palette *colour = palette_for(stderr);
    if (info->engine == VIAL_ENGINE_KVM || isatty(STDERR_FILENO) != 1)
        return;
    fprintf(stderr, "%svial boot: engine %s (%s); isolation %s: %s%s\n", colour->dim, vial_engine_name(info->engine),
            info->reason, vial_isolation_name(info->isolation), info->details, colour->off);
}

static void report_start(const struct vial_error *error, bool is_json)
{
    if (!is_json) {
        print_error("vial boot", error);
        return;
    }
    auto_json json_t *document = json_pack("{s:o}", "error", error_to_json(error));
    if (document == NULL || json_dumpf(document, stderr, 0) < 0)
        fprintf(stderr, "vial: cannot write the error as JSON");
    fputc('\n', stderr);
}

static int run_machine(struct boot *boot, bool is_json, struct vial_exit *ret_exit)
{
    struct loop_source *source = NULL;
    struct vial_engine_info info = VIAL_ENGINE_INFO_INIT;
    int result = vial_vm_start(boot->machine.config, &boot->vm, &boot->machine.error);
    if (result < 0) {
        report_start(&boot->machine.error, is_json);
        return result;
    }
    vial_vm_get_engine(boot->vm, &info, NULL);
    tell_engine(&info);
    result = loop_add_fd(boot->loop, vial_vm_end_fd(boot->vm), EPOLLIN, handle_end, boot, &source);
    if (result == 0 && info.engine == VIAL_ENGINE_KVM)
        result = loop_add_timer(boot->loop, clock_deadline_ns(slow_start_ns), handle_slow_start, boot, &source);
    if (result == 0)
        result = loop_run(boot->loop);
    if (result < 0) /* nothing but a kernel without memory: then wait without signals */
        vial_vm_stop(boot->vm);
    return vial_vm_wait(boot->vm, VIAL_WAIT_FOREVER, ret_exit, &boot->machine.error);
}

/* What the shell gets to see. A program that has run decides itself. */
static int status_of(const struct boot *boot, const struct vial_exit *end)
{
    if (boot->signal_number != 0)
        return 128 + boot->signal_number;
    switch (end->reason) {
    case VIAL_EXIT_COMPLETED:
    case VIAL_EXIT_GUEST_RESET:
        return EXIT_YES;
    case VIAL_EXIT_FAILED: /* without a code nobody knows what became of the program */
        return end->code != 0 ? end->code & 0xff : EXIT_OURS;
    case VIAL_EXIT_SIGNAL:
        return end->code & 0xff;
    case VIAL_EXIT_INTERNAL_ERROR:
        return EXIT_OURS;
    default:
        return EXIT_NO;
    }
}

/* A program that has run and failed has said itself why. */
static bool needs_words(const struct boot *boot, const struct vial_exit *end)
{
    enum { could_not_set_up = 125, could_not_execute = 126, not_found = 127 };
    if (boot->signal_number != 0 || end->reason == VIAL_EXIT_COMPLETED || end->reason == VIAL_EXIT_GUEST_RESET)
        return false;
    return end->reason != VIAL_EXIT_FAILED || end->code == 0 || end->code == could_not_set_up ||
           end->code == could_not_execute || end->code == not_found;
}

static int print_end(const struct boot *boot, const struct vial_exit *end, bool is_json)
{
    if (is_json) { /* standard output belongs to the guest's console */
        auto_json json_t *document = json_pack("{s:s, s:i, s:s}", "reason", vial_exit_reason_name(end->reason), "code",
                                               (int)end->code, "detail", end->detail);
        if (document == NULL || json_dumpf(document, stderr, 0) < 0)
            fprintf(stderr, "vial: cannot write the result as JSON");
        fputc('\n', stderr);
    } else if (needs_words(boot, end)) {
        const struct palette *colour = palette_for(stderr);
        fprintf(stderr, "vial boot: %s%s:%s %s\n", colour->red, vial_exit_reason_name(end->reason), colour->off,
                end->detail);
    }
    return status_of(boot, end);
}

static void release(struct boot *boot)
{
    loop_free(boot->loop); /* it watches a descriptor of the machine */
    vial_vm_free(boot->vm);
    vial_vm_config_free(boot->machine.config);
}

/* What stands behind the options, or in a configuration file: 0, or -1 when it has said what is wrong. */
static int take_command(struct machine_arguments *machine, char *argv[], int operands)
{
    int result = machine_publish(machine);
    if (result != 0)
        return result;
    argv[1 + operands] = NULL; /* they have moved to the front */
    if (operands > 0)
        result = machine_take_command(machine, argv + 1);
    else if (config_has_program(machine->config))
        result = machine_take_configured(machine);
    else if (machine->env_count > 0 || machine->workdir != NULL)
        return refuse_value("COMMAND", "", "--env and --workdir are for a command", "give one behind --");
    if (result < 0)
        print_error("vial boot", &machine->error);
    return result;
}

static int run_boot(const struct command *command, int argc, char *argv[])
{
    struct boot boot = {0};
    struct vial_exit end = VIAL_EXIT_INIT;
    bool is_json = false;
    if (vial_vm_config_new(&boot.machine.config, &boot.machine.error) < 0) {
        print_error(command->path, &boot.machine.error);
        return EXIT_OURS;
    }
    int operands = command_options(command, &boot.machine, argc, argv, 0, LIMIT_STRINGS + 1, &is_json);
    int status = operands == OPTIONS_DONE ? EXIT_YES : EXIT_OURS;
    if (operands >= 0 && take_command(&boot.machine, argv, operands) < 0)
        operands = OPTIONS_WRONG;
    if (operands >= 0 && watch(&boot) && run_machine(&boot, is_json, &end) == 0)
        status = print_end(&boot, &end, is_json);
    release(&boot);
    return status;
}

const struct command command_boot = {
    .name = "boot",
    .path = "vial boot",
    .arguments = "[OPTIONS] [-- COMMAND [ARGUMENT]...]",
    .summary = "Boot a guest, with this terminal as its console",
    .about =
        "The guest's console is standard input and output; on a terminal it is in raw mode, so ^C goes to the guest. "
        "With a COMMAND, the guest's init runs it (the initramfs must have vial-init as its init): standard input, "
        "output and error are the command's own, and so is the exit status.",
    .statuses =
        "the command's (128+N when signal N killed it, 127 when it was not found, 126 when it could not be executed); "
        "without a command 0 when the guest shut down or reset the machine. 1 when its kernel panicked or a CPU "
        "triple-faulted, 125 when vial could not run it or nobody knows what became of the command, 128+N when signal "
        "N "
        "ended vial",
    .options = {machine_boot_options, machine_options},
    .group = "machines",
    .run = run_boot,
};
