// SPDX-License-Identifier: Apache-2.0
/* The first process of a guest: says that the guest is up, and ends it.
 *
 * It mounts what it needs to know where it is (/proc, /dev), prints one line on its standard output
 *
 *     vial-init: up 0.123 s, kernel 7.3.1, 2 CPUs
 *
 * and then ends the machine: by reboot(2), which KVM machines turn into a reset and user-mode Linux, when it was given
 * `noreboot`, into its exit. The
 * kernel starts it without descriptors when it found no console; then /dev/console is opened once /dev is there.
 *
 * Invariants: (1) it never returns: a PID 1 that ends panics the kernel. (2) whatever fails is printed, and the machine
 * still ends.
 *
 * Trust: it is trusted by nobody; what it prints is a guest's claim.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

static void complain(const char *what, const char *on)
{
    dprintf(STDOUT_FILENO, "vial-init: %s %s: %s\n", what, on, strerror(errno));
}

static void mount_at(const char *type, const char *folder)
{
    if (mkdir(folder, 0755) < 0 && errno != EEXIST)
        complain("mkdir", folder);
    if (mount(type, folder, type, MS_NOSUID | MS_NOEXEC, NULL) < 0 && errno != EBUSY)
        complain("mount", folder);
}

/* With nothing open, the next three opens become stdin, stdout and stderr. */
static void open_console(void)
{
    if (fcntl(STDOUT_FILENO, F_GETFD) >= 0)
        return;
    for (int i = 0; i < 3; i++)
        if (open("/dev/console", O_RDWR) < 0)
            return; /* there is nobody to tell */
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

int main(void)
{
    if (getpid() != 1) {
        dprintf(STDERR_FILENO, "vial-init: this is a guest's first process; it has no use elsewhere\n");
        return 1;
    }
    mount_at("devtmpfs", "/dev");
    open_console();
    mount_at("proc", "/proc");
    report();
    sync();
    reboot(RB_AUTOBOOT);
    complain("reboot", "the machine");
    for (;;)
        pause();
}
