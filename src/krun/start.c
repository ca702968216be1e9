// SPDX-License-Identifier: Apache-2.0
/* krun_start_enter: the machine takes over the process.
 *
 *     context ──> configuration ──> disks are open ──> gid, uid ──> the machine runs ──> exit code, by _exit
 *        │               └──── an error: one line on the log, a fitting errno ────┘
 *        └ gone from here on, whatever happens
 *
 * The code is the program's own; 128 and the signal's number where one killed it; 126, 127 where it could not be
 * executed; 125 where the guest did not get as far, or its kernel came to an end. A guest that switches itself off
 * without telling a code has ended with 0, as with libkrun, once its program had begun.
 *
 * While the machine runs this thread waits for three things: its end; the terminal's size, and a terminal that a shell
 * has handed back (SIGWINCH and SIGCONT, whose handlers it takes, as this call owns the process; the program's own are
 * called after ours); and the loss of who reads the program's output. What is written after that would end any other
 * program: so it does this process, by the same signal.
 *
 * Who the process is changes between the disks and the file systems, so that what is shared with the guest is shared
 * with the rights of the machine's user. Groups that the process had beside are given up: they would be the guest's.
 *
 * Invariants: (1) it returns only where no code of the guest has run. (2) the one line is there even when nobody has
 * asked for a log.
 *
 * Trust: the context is the embedding program's. What the guest says about its end is an exit code, 8 bits of it.
 */
#include "krun/translate.h"

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "libkrun.h"
#include "vmm/exec.h"
#include "vmm/vm.h"

#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { code_not_set_up = 125, code_signal = 128 };

/* ---- who the process is ---- */

static bool changes_ids(const struct krun_context *context)
{
    return context->has_gid || context->has_uid;
}

struct identity {
    const struct krun_context *context; /* borrowed */
    bool is_shown;                      /* this process was made one that others of its user may look at */
};

/* User-mode Linux is started by a process that others of its user may look at in /proc, which one that has changed its
 * ids is not (prctl(2), PR_SET_DUMPABLE): while it is started, they may. */
static int show(struct identity *identity, struct vial_error *err)
{
    bool is_uml = identity->context->config->machine.engine == VIAL_ENGINE_UML;
    if (!is_uml || prctl(PR_GET_DUMPABLE) == 1)
        return 0;
    if (prctl(PR_SET_DUMPABLE, 1) < 0)
        return error_set_os(err, VIAL_PHASE_START, errno, "prctl(PR_SET_DUMPABLE) failed");
    identity->is_shown = true;
    return 0;
}

static void hide(struct identity *identity)
{
    if (identity->is_shown)
        prctl(PR_SET_DUMPABLE, 0);
    identity->is_shown = false;
}

/* Groups first: without the right to change them a user cannot. */
static int become(void *user, struct vial_error *err)
{
    struct identity *identity = user;
    const struct krun_context *context = identity->context;
    if (!changes_ids(context))
        return 0;
    if (setgroups(0, NULL) < 0 && errno != EPERM)
        return error_set_os(err, VIAL_PHASE_START, errno, "setgroups failed");
    if (context->has_gid && setgid(context->gid) < 0)
        return error_set_os(err, VIAL_PHASE_START, errno, "setgid(%u) failed", (unsigned)context->gid);
    if (context->has_uid && setuid(context->uid) < 0)
        return error_set_os(err, VIAL_PHASE_START, errno, "setuid(%u) failed", (unsigned)context->uid);
    return show(identity, err);
}

/* ---- signals of the terminal ---- */

static const int window_signals[] = {SIGWINCH, SIGCONT};
enum { window_signal_count = sizeof(window_signals) / sizeof(window_signals[0]) };

/* Set before the handlers are, and never again: a process has one machine here. */
static struct {
    int event_fd;
    struct sigaction before[window_signal_count];
} window = {.event_fd = -1};

static void handle_window(int signal, siginfo_t *info, void *user)
{
    int kept = errno;
    const struct sigaction *before = &window.before[signal == window_signals[1]];
    uint64_t one = 1;
    ssize_t written = write(window.event_fd, &one, sizeof(one));
    (void)written; /* an eventfd takes it, unless it holds more than anybody has signals */
    if ((before->sa_flags & SA_SIGINFO) != 0)
        before->sa_sigaction(signal, info, user);
    else if (before->sa_handler != SIG_DFL && before->sa_handler != SIG_IGN)
        before->sa_handler(signal);
    errno = kept;
}

static void take_window_signals(void)
{
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK, .sa_sigaction = handle_window};
    window.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    for (int i = 0; i < window_signal_count && window.event_fd >= 0; i++) {
        sigaction(window_signals[i], NULL, &window.before[i]);
        sigaction(window_signals[i], &action, NULL);
    }
}

/* ---- the end ---- */

/* Whether the program had its chance, or the machine has none to run. */
static bool has_program_run(const struct vial_vm *vm)
{
    return vm->exec == NULL || exec_started_ns(vm->exec) != 0;
}

static int code_of(const struct vial_vm *vm, const struct vial_exit *end)
{
    bool is_ours = end->reason == VIAL_EXIT_COMPLETED || end->reason == VIAL_EXIT_GUEST_RESET ||
                   (end->reason == VIAL_EXIT_FAILED && (end->code != 0 || has_program_run(vm)));
    return is_ours ? end->code & 0xff : code_not_set_up;
}

/* Whether there is nothing to tell: a program has ended, with whatever code. */
static bool is_usual(const struct vial_vm *vm, const struct vial_exit *end)
{
    return end->reason == VIAL_EXIT_COMPLETED || end->reason == VIAL_EXIT_GUEST_RESET ||
           (end->reason == VIAL_EXIT_FAILED && end->code != 0 && has_program_run(vm));
}

static void tell_end(const struct vial_exit *end, int code)
{
    const char *reason = vial_exit_reason_name(end->reason);
    if (log_is_enabled(VIAL_LOG_ERROR))
        log_error("krun.ended", LOG_INT("code", code), LOG_TEXT("reason", reason), LOG_TEXT("detail", end->detail));
    else
        dprintf(STDERR_FILENO, "libkrun: the guest's end: %s: %s\n", reason, end->detail);
}

static bool has_lost_output(struct vial_vm *vm)
{
    struct vial_vm_stats stats = VIAL_VM_STATS_INIT;
    return vial_vm_get_stats(vm, &stats, NULL) == 0 && stats.console_dropped_bytes > 0;
}

/* Waits for the machine's end: true, or false when it writes to nobody. That a reader has gone is an event; that
 * something was to be read after it is not. */
static bool watch(struct vial_vm *vm)
{
    enum { look_ms = 50 };
    struct pollfd fds[] = {
        {.fd = vial_vm_end_fd(vm), .events = POLLIN},
        {.fd = window.event_fd, .events = POLLIN},
        {.fd = vm->standard[STDOUT_FILENO]},
    };
    bool has_reader = true;
    uint64_t count;
    for (;;) {
        int ready = poll(fds, sizeof(fds) / sizeof(fds[0]), has_reader ? -1 : look_ms);
        if (ready > 0 && fds[0].revents != 0)
            return true;
        if (ready > 0 && fds[1].revents != 0 && read(fds[1].fd, &count, sizeof(count)) > 0)
            vial_vm_window_changed(vm);
        if (ready > 0 && (fds[2].revents & (POLLERR | POLLHUP)) != 0) {
            has_reader = false;
            fds[2].fd = -1;
        }
        if (!has_reader && has_lost_output(vm))
            return false;
    }
}

static _Noreturn void end_by_signal(void)
{
    sigset_t signals;
    signal(SIGPIPE, SIG_DFL);
    sigemptyset(&signals);
    sigaddset(&signals, SIGPIPE);
    sigprocmask(SIG_UNBLOCK, &signals, NULL);
    raise(SIGPIPE);
    _exit(code_signal + SIGPIPE);
}

static _Noreturn void leave(struct vial_vm *vm)
{
    struct vial_exit end = VIAL_EXIT_INIT;
    take_window_signals();
    bool has_ended = watch(vm);
    vial_vm_stop(vm);
    int result = vial_vm_wait(vm, VIAL_WAIT_FOREVER, &end, NULL);
    int code = result < 0 ? code_not_set_up : code_of(vm, &end);
    bool is_well = result == 0 && is_usual(vm, &end);
    vial_vm_free(vm); /* which gives terminals back, and writes what disks still hold */
    if (!has_ended)
        end_by_signal();
    if (!is_well)
        tell_end(&end, code);
    _exit(code);
}

/* ---- the beginning ---- */

static void tell(const struct vial_error *err)
{
    if (log_is_enabled(VIAL_LOG_ERROR))
        log_error("krun.start_failed", LOG_TEXT("message", err->message), LOG_TEXT("field", err->field),
                  LOG_TEXT("value", err->value), LOG_TEXT("remedy", err->remedy));
    else
        dprintf(STDERR_FILENO, "libkrun: %s%s%s\n", err->message, err->remedy[0] != '\0' ? "; " : "", err->remedy);
}

static int start(struct krun_context *context, struct vial_vm **ret_vm, struct vial_error *err)
{
    struct vial_vm_config *config = context->config;
    struct identity identity = {.context = context};
    int result = krun_translate(context, err);
    if (result < 0)
        return result;
    config->on_disks_open = become;
    config->on_disks_open_user = &identity; /* called before vial_vm_start returns */
    result = vial_vm_start(config, ret_vm, err);
    hide(&identity);
    return result;
}

int32_t krun_start_enter(uint32_t ctx_id)
{
    struct vial_error err = {0};
    struct vial_vm *vm = NULL;
    struct krun_context *context = krun_take(ctx_id);
    if (context == NULL)
        return -ENOENT;
    int result = start(context, &vm, &err);
    krun_context_free(context);
    if (result < 0) {
        tell(&err);
        return result;
    }
    leave(vm);
}
