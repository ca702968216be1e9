// SPDX-License-Identifier: Apache-2.0
/* The first process of a guest: mounts and runs what the host asks for, or says that the guest is up, and ends the
 * machine.
 *
 * With VIAL_EXEC in its environment (a word on the kernel's command line) it mounts a root and what lies below, runs
 * one program and tells the host how it ended, or becomes the host's agent (agent.c) until that ends; exec.c does it,
 * and proto/init.h is what they agree on. Else, with words of libkrun's on that command line, it does what they say
 * (words.c). Without either it mounts what it needs to know where it is (/proc, /dev), and prints one line on its
 * standard output:
 *
 *     vial-init: up 0.123 s, kernel 7.3.1, 2 CPUs
 *
 * The kernel starts it without descriptors when it found no console; then /dev/console is opened once /dev is there.
 *
 * The end of a machine on KVM is a reset: without ACPI Linux cannot switch a PC off, and only halts instead
 * (kernel/reboot.c: kernel_can_power_off). A user-mode Linux is switched off, which is the end of its process; by a
 * reset it would begin again, unless it was given `noreboot`.
 *
 * Invariants: (1) it never returns: a PID 1 that ends panics the kernel. (2) whatever fails is told, and the machine
 * still ends.
 *
 * Trust: it is trusted by nobody; what it says is a guest's claim.
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/utsname.h>
#include <unistd.h>

static void complain(const char *what, const char *on)
{
    dprintf(STDOUT_FILENO, "vial-init: %s %s: %s\n", what, on, strerror(errno));
}

static void report(void)
{
    char uptime[64] = "";
    struct utsname names;
    int fd = open("/proc/uptime", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, uptime, sizeof(uptime) - 1);
    if (length <= 0)
        complain("read", "/proc/uptime");
    uptime[strcspn(uptime, " \n")] = '\0';
    if (uname(&names) < 0)
        memcpy(names.release, "unknown", sizeof("unknown"));
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    dprintf(STDOUT_FILENO, "vial-init: up %s s, kernel %s, %ld %s\n", uptime, names.release, cpus,
            cpus == 1 ? "CPU" : "CPUs");
}

static void say_up(void)
{
    int result = mount_essentials();
    console_open();
    errno = -result;
    if (result < 0)
        complain("mount", "/dev, /proc or /sys");
    report();
}

static _Noreturn void end_machine(void)
{
    sync();
    reboot(is_user_mode_linux() ? RB_POWER_OFF : RB_AUTOBOOT);
    tell("reboot", "the machine", -errno);
    for (;;)
        pause();
}

int main(int count, char *args[])
{
    if (getpid() != 1) {
        dprintf(STDERR_FILENO, "vial-init: this is a guest's first process; it has no use elsewhere\n");
        return 1;
    }
    if (getenv(INIT_VARIABLE) != NULL)
        run_for_host(say_up);
    else if (has_words(count, args))
        run_by_words(count, args);
    else
        say_up();
    end_machine();
}
