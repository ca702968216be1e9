// SPDX-License-Identifier: Apache-2.0
/* Why a user-mode Linux ended.
 *
 *     exit status 0      the guest powered the machine off, or halted it; or restarted it, when the program has said
 *                        that it could not execute itself again
 *     exit status 127    it panicked: user-mode Linux then sends itself SIGABRT, and leaves in this way when that
 *                        fails, as in the jail, whose filter refuses it (a first process would survive it anyway)
 *     SIGABRT            the same, outside a PID namespace
 *     SIGSYS             it used a system call that the jail's filter ends it for
 *     SIGKILL            nobody here sent it: what is killed by us has its reason before it has ended
 *     another fault      the kernel could not handle a fault of its own
 *     another status     the program gave up, mostly before it was a kernel
 *
 * A kernel that ends in good order before a single device was connected has not run as a guest of ours: the program is
 * another, or the kernel lacks the driver.
 *
 * Invariants: (1) every end has a reason and a detail. (2) the detail is escaped and fits.
 *
 * Trust: status and lines come from a hostile guest; they are told, not believed.
 */
#include "engine/uml/ending.h"

#include "base/alloc.h"
#include "base/text.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { panic_status = 127, signal_code = 128 };

__attribute__((format(printf, 3, 4))) static void tell(struct vial_exit *exit, enum vial_exit_reason reason,
                                                       const char *format, ...);

static void tell(struct vial_exit *exit, enum vial_exit_reason reason, const char *format, ...)
{
    char raw[2 * VIAL_EXIT_DETAIL_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(raw, sizeof(raw), format, arguments);
    va_end(arguments);
    exit->reason = reason;
    text_escape(exit->detail, sizeof(exit->detail), raw, strlen(raw), "");
}

static void tell_panic(const struct uml_ending *ending, struct vial_exit *exit)
{
    if (ending->panic[0] != '\0')
        tell(exit, VIAL_EXIT_GUEST_PANIC, "the guest's kernel panicked: %s", ending->panic);
    else
        tell(exit, VIAL_EXIT_GUEST_PANIC, "the guest's kernel panicked");
}

static void tell_early_end(const struct uml_ending *ending, struct vial_exit *exit)
{
    tell(exit, VIAL_EXIT_INTERNAL_ERROR,
         "the kernel ended with status %d before it found a device: %s; see vial doctor, and whether it was built with "
         "virtio_uml",
         ending->status, ending->last_line[0] != '\0' ? ending->last_line : "it did not say why");
}

static void judge_status(const struct uml_ending *ending, struct vial_exit *exit)
{
    if (ending->status == panic_status)
        tell_panic(ending, exit);
    else if (!ending->has_begun)
        tell_early_end(ending, exit);
    else if (ending->status != 0)
        tell(exit, VIAL_EXIT_INTERNAL_ERROR, "the kernel ended with status %d: %s", ending->status,
             ending->last_line[0] != '\0' ? ending->last_line : "it did not say why");
    else if (ending->has_failed_exec)
        tell(exit, VIAL_EXIT_GUEST_RESET, "the guest reset the machine");
    else
        tell(exit, VIAL_EXIT_COMPLETED, "the guest powered the machine off");
}

static void judge_signal(const struct uml_ending *ending, struct vial_exit *exit)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    const char *name = sigabbrev_np(ending->status);
    name = name != NULL ? name : "?";
    if (ending->status == SIGABRT) {
        tell_panic(ending, exit);
        return;
    }
    if (ending->status == SIGSYS) {
        tell(exit, VIAL_EXIT_INTERNAL_ERROR, "the guest's kernel was ended for a system call that the jail forbids");
        return;
    }
    for (size_t i = 0; i < array_length(faults); i++) {
        if (ending->status == faults[i]) {
            tell(exit, VIAL_EXIT_GUEST_PANIC, "the guest's kernel died of signal %d (SIG%s)", ending->status, name);
            return;
        }
    }
    exit->code = signal_code + ending->status;
    tell(exit, VIAL_EXIT_SIGNAL, "the guest's kernel was killed by signal %d (SIG%s)%s", ending->status, name,
         ending->status == SIGKILL ? ": the host's out-of-memory killer, or somebody's kill -9" : "");
}

void uml_ending_judge(const struct uml_ending *ending, struct vial_exit *ret_exit)
{
    *ret_exit = (struct vial_exit)VIAL_EXIT_INIT;
    if (ending->was_killed)
        judge_signal(ending, ret_exit);
    else
        judge_status(ending, ret_exit);
}
