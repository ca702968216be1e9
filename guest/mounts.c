// SPDX-License-Identifier: Apache-2.0
/* What a Linux program expects to find around it: file systems, a host name, a network of one's own.
 *
 * A root may be read-only and may have none of the folders. What cannot be mounted then is told on the kernel's log,
 * and the program finds out by itself whether it needed it; without /dev, /proc and /sys there is no way to the host.
 *
 * Invariants: (1) nothing of it is told on the program's streams. (2) a mount that fails leaves what was there.
 *
 * Trust: the root belongs to the user; nothing here follows what is in it.
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

void tell(const char *what, const char *on, int failure)
{
    int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return;                                                             /* there is nobody to tell */
    dprintf(fd, "<4>vial-init: %s %s: %s\n", what, on, strerror(-failure)); /* 4: a warning */
    close(fd);
}

int mount_at(const char *type, const char *folder, unsigned long flags, const char *data)
{
    if (mkdir(folder, 0755) < 0 && errno != EEXIST && errno != EROFS)
        return -errno;
    if (mount(type, folder, type, flags, data) < 0 && errno != EBUSY) /* busy: it is there already */
        return -errno;
    return 0;
}

bool is_mounted(const char *folder)
{
    struct stat inside, above;
    char parent[LIMIT_EXEC_PATH_BYTES + 4];
    snprintf(parent, sizeof(parent), "%s/..", folder);
    if (stat(folder, &inside) < 0 || stat(parent, &above) < 0)
        return false;
    return inside.st_dev != above.st_dev || inside.st_ino == above.st_ino; /* only the root is its own parent */
}

static const struct place {
    const char *type, *folder, *data;
    unsigned long flags;
    bool is_essential;
} places[] = {
    {"devtmpfs", "/dev", NULL, MS_NOSUID | MS_NOEXEC, true}, /* first: /dev/kmsg is there to tell of the others */
    {"proc", "/proc", NULL, MS_NOSUID | MS_NOEXEC | MS_NODEV, true},
    {"sysfs", "/sys", NULL, MS_NOSUID | MS_NOEXEC | MS_NODEV, true},
    {"devpts", "/dev/pts", "gid=5,mode=620,ptmxmode=666", MS_NOSUID | MS_NOEXEC, false},
    {"tmpfs", "/dev/shm", "mode=1777", MS_NOSUID | MS_NODEV, false},
    {"cgroup2", "/sys/fs/cgroup", NULL, MS_NOSUID | MS_NOEXEC | MS_NODEV, false},
};

static int mount_all(bool only_essential)
{
    int failure = 0;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        if ((only_essential && !places[i].is_essential) || is_mounted(places[i].folder))
            continue;
        int result = mount_at(places[i].type, places[i].folder, places[i].flags, places[i].data);
        if (result < 0)
            tell("mount", places[i].folder, result);
        if (result < 0 && places[i].is_essential && failure == 0)
            failure = result;
    }
    return failure;
}

int mount_essentials(void)
{
    return mount_all(true);
}

/* Where the root is read-only, what programs write to is memory. A root that can be written to is left as it is. */
static void mount_scratch(const char *folder, const char *data)
{
    if (access(folder, W_OK) == 0 || errno != EROFS)
        return;
    int result = mount_at("tmpfs", folder, MS_NOSUID | MS_NODEV, data);
    if (result < 0)
        tell("mount", folder, result);
}

/* The names that shells and scripts use for descriptors. */
static void link_descriptors(void)
{
    static const struct {
        const char *target, *name;
    } links[] = {
        {"/proc/self/fd", "/dev/fd"},
        {"/proc/self/fd/0", "/dev/stdin"},
        {"/proc/self/fd/1", "/dev/stdout"},
        {"/proc/self/fd/2", "/dev/stderr"},
    };
    for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++)
        if (symlink(links[i].target, links[i].name) < 0 && errno != EEXIST)
            tell("link", links[i].name, -errno);
}

static void raise_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        tell("raise", "lo", -errno);
    close(fd);
}

int prepare_system(const char *hostname)
{
    const char *name = hostname[0] != '\0' ? hostname : "vial";
    int result = mount_all(false);
    mount_scratch("/tmp", "mode=1777");
    mount_scratch("/run", "mode=755");
    link_descriptors();
    disk_link_all();
    raise_loopback();
    if (sethostname(name, strlen(name)) < 0)
        tell("name", name, -errno);
    return result;
}

/* Its processors say so (arch/um: show_cpuinfo). */
bool is_user_mode_linux(void)
{
    char text[256];
    int fd = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    text[length > 0 ? length : 0] = '\0';
    close(fd);
    return strstr(text, "User Mode Linux") != NULL;
}
