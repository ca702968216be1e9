// SPDX-License-Identifier: Apache-2.0
/* Disks: found by the id that the host gave them, without a udev, and mounted as what they hold.
 *
 * The kernel shows an id as the serial number of a virtio disk (/sys/block/vda/serial), and asks the device for it
 * each time somebody reads it. Programs look for disks in /dev/disk/by-id, where a udev would put links.
 *
 * A file system type that is not given is told from the first bytes; what they do not tell is tried with every type
 * that the kernel lists for block devices (proc_filesystems(5)), as mount(8) does.
 *
 * Invariants: (1) a type that the bytes name is the only one that is tried: what is wrong with it comes through.
 *
 * Trust: ids are the host's; what a disk holds may be anybody's, and is the kernel's to judge.
 */
#include "guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define DISKS_FOLDER "/sys/block"
#define LINKS_FOLDER "/dev/disk/by-id"

/* ---- names ---- */

/* What a small file of /sys holds, without its newline; empty when it is not there. */
static void read_line(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, size - 1);
    close(fd);
    text[length > 0 ? length : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
}

static void read_id(const char *name, char id[LIMIT_DISK_ID_BYTES + 2])
{
    char path[sizeof(DISKS_FOLDER "//serial") + NAME_MAX];
    snprintf(path, sizeof(path), DISKS_FOLDER "/%s/serial", name);
    read_line(path, id, LIMIT_DISK_ID_BYTES + 2);
}

int disk_find(const char *id, char path[DISK_PATH_BYTES])
{
    int result = -ENOENT;
    if (id[0] == '/') {
        if (snprintf(path, DISK_PATH_BYTES, "%s", id) >= DISK_PATH_BYTES)
            return -E2BIG;
        return access(path, F_OK) < 0 ? -errno : 0;
    }
    DIR *folder = opendir(DISKS_FOLDER);
    if (folder == NULL)
        return -errno;
    for (const struct dirent *entry; result != 0 && (entry = readdir(folder)) != NULL;) {
        char found[LIMIT_DISK_ID_BYTES + 2];
        read_id(entry->d_name, found);
        if (strcmp(found, id) != 0)
            continue;
        snprintf(path, DISK_PATH_BYTES, "/dev/%s", entry->d_name);
        result = 0;
    }
    closedir(folder);
    return result;
}

static void link_device(const char *id, const char *name, const char *part)
{
    char link[sizeof(LINKS_FOLDER "/virtio--part") + LIMIT_DISK_ID_BYTES + 16], target[sizeof("../../") + NAME_MAX];
    snprintf(link, sizeof(link), LINKS_FOLDER "/virtio-%s%s%s", id, part[0] != '\0' ? "-part" : "", part);
    snprintf(target, sizeof(target), "../../%s", name);
    if (symlink(target, link) < 0 && errno != EEXIST)
        tell("link", link, -errno);
}

/* The parts of a disk are folders in its own, with a file that numbers them. */
static void link_parts(const char *disk, const char *id)
{
    char path[sizeof(DISKS_FOLDER "///partition") + 2 * NAME_MAX], number[12];
    snprintf(path, sizeof(path), DISKS_FOLDER "/%s", disk);
    DIR *folder = opendir(path);
    for (const struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        if (strncmp(entry->d_name, disk, strlen(disk)) != 0)
            continue;
        snprintf(path, sizeof(path), DISKS_FOLDER "/%s/%s/partition", disk, entry->d_name);
        read_line(path, number, sizeof(number));
        if (number[0] != '\0')
            link_device(id, entry->d_name, number);
    }
    if (folder != NULL)
        closedir(folder);
}

void disk_link_all(void)
{
    DIR *folder = opendir(DISKS_FOLDER);
    for (const struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        char id[LIMIT_DISK_ID_BYTES + 2];
        read_id(entry->d_name, id);
        if (id[0] == '\0')
            continue;
        mkdir("/dev/disk", 0755);
        mkdir(LINKS_FOLDER, 0755); /* what fails here fails below, and is told there */
        link_device(id, entry->d_name, "");
        link_parts(entry->d_name, id);
    }
    if (folder != NULL)
        closedir(folder);
}

/* ---- what a disk holds ---- */

/* Where each type has its mark; longer than all of it is what is read of a disk. */
static const struct mark {
    const char *type;
    off_t offset;
    unsigned char length, bytes[8];
} marks[] = {
    {"ext4", 1024 + 56, 2, {0x53, 0xef}}, /* ext2 and ext3, too: one driver */
    {"erofs", 1024, 4, {0xe2, 0xe1, 0xf5, 0xe0}},
    {"squashfs", 0, 4, {'h', 's', 'q', 's'}},
    {"xfs", 0, 4, {'X', 'F', 'S', 'B'}},
    {"btrfs", 0x10040, 8, {'_', 'B', 'H', 'R', 'f', 'S', '_', 'M'}},
    {"iso9660", 0x8001, 5, {'C', 'D', '0', '0', '1'}},
};

static const char *recognise(const char *device)
{
    const char *type = NULL;
    int fd = open(device, O_RDONLY | O_CLOEXEC);
    for (size_t i = 0; fd >= 0 && type == NULL && i < sizeof(marks) / sizeof(marks[0]); i++) {
        unsigned char bytes[sizeof(marks[i].bytes)];
        ssize_t length = pread(fd, bytes, marks[i].length, marks[i].offset);
        if (length == marks[i].length && memcmp(bytes, marks[i].bytes, marks[i].length) == 0)
            type = marks[i].type;
    }
    close(fd);
    return type;
}

static int mount_as(const char *device, const char *target, const char *type, unsigned long flags, const char *data)
{
    return mount(device, target, type, flags | MS_SILENT, data) < 0 ? -errno : 0;
}

/* EINVAL is what a driver says of a disk that is not its own; anything else is about this disk. */
static int try_all(const char *device, const char *target, unsigned long flags, const char *data)
{
    char line[256], type[64];
    int result = -EINVAL;
    FILE *list = fopen("/proc/filesystems", "re");
    while (list != NULL && result == -EINVAL && fgets(line, sizeof(line), list) != NULL)
        if (sscanf(line, "%63s", type) == 1 && strcmp(type, "nodev") != 0) /* which stands in front */
            result = mount_as(device, target, type, flags, data);
    if (list != NULL)
        fclose(list);
    return result;
}

int disk_mount(const char *device, const char *target, const char *type, unsigned long flags, const char *data)
{
    const char *recognised = type[0] != '\0' ? type : recognise(device);
    return recognised != NULL ? mount_as(device, target, recognised, flags, data)
                              : try_all(device, target, flags, data);
}
