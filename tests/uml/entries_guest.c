// SPDX-License-Identifier: Apache-2.0
/* The first process of a guest whose root holds entries, and one of the programs in it (entries.c). It looks at all
 * that an entry is to be, and tells the host how that went by its exit code: SEEN_ALL, or 1; the console says which
 * line was wrong.
 *
 *     /init.krun   looks at the root, moves to another one, and tells its code on the first (ioctl 0x7602)
 *     /bin/tool    ends with 42; with the argument "layer" it looks at a one-shot file through overlayfs
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What the host sees of the first is its lowest byte. */
enum { SEEN_ALL = 0x12344d, TOOL_CODE = 42 };

static int wrong_line;

#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition) && wrong_line == 0) {                                                                         \
            printf("line %d: not %s (%s)\n", __LINE__, #condition, strerror(errno));                                   \
            wrong_line = __LINE__;                                                                                     \
        }                                                                                                              \
    } while (0)

static bool holds(const char *path, const char *text)
{
    char bytes[64] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, bytes, sizeof(bytes) - 1);
    close(fd);
    return length == (ssize_t)strlen(text) && memcmp(bytes, text, (size_t)length) == 0;
}

static bool is_mapped(const char *path, const char *text)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *bytes = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    return bytes != MAP_FAILED && strcmp(bytes, text) == 0; /* zeros follow */
}

static bool lists(const char *folder, const char *name, int *ret_count)
{
    bool is_there = false;
    DIR *stream = opendir(folder);
    struct dirent *entry;
    *ret_count = 0;
    while (stream != NULL && (entry = readdir(stream)) != NULL) {
        is_there |= strcmp(entry->d_name, name) == 0;
        *ret_count += entry->d_name[0] != '.';
    }
    if (stream != NULL)
        closedir(stream);
    return is_there;
}

static int run(const char *path)
{
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        execl(path, path, (char *)NULL);
        _exit(errno == EACCES ? 126 : 127);
    }
    return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* What would change an entry is refused. */
static void look_at_refusals(void)
{
    EXPECT(open("/etc/config", O_RDWR) < 0 && errno == EROFS);
    EXPECT(open("/etc/config", O_WRONLY | O_TRUNC) < 0 && errno == EROFS);
    EXPECT(unlink("/etc/config") < 0 && errno == EROFS);
    EXPECT(rename("/etc/config", "/etc/other") < 0 && errno == EROFS);
    EXPECT(link("/etc/config", "/linked") < 0 && errno == EROFS);
    EXPECT(chmod("/etc/config", 0777) < 0 && errno == EROFS);
    EXPECT(mkdir("/bin/folder", 0755) < 0 && errno == EROFS);
    EXPECT(rmdir("/bin") < 0 && (errno == EROFS || errno == ENOTEMPTY));
    EXPECT(open("/bin/file", O_CREAT | O_WRONLY, 0644) < 0 && errno == EROFS);
}

static void look_at_entries(void)
{
    struct stat status = {0};
    int count = 0;
    EXPECT(holds("/etc/config", "a configuration\n"));
    EXPECT(is_mapped("/etc/config", "a configuration\n"));
    EXPECT(stat("/etc/config", &status) == 0 && status.st_mode == (S_IFREG | 0640) && status.st_size == 16);
    EXPECT(status.st_uid == 0 && status.st_gid == 0 && status.st_nlink == 1);
    EXPECT(stat("/bin", &status) == 0 && status.st_mode == (S_IFDIR | 0711) && status.st_uid == 0);
    EXPECT(lists("/bin", "tool", &count) && count == 1);
    EXPECT(lists("/etc", "config", &count) && count == 1);
    EXPECT(run("/bin/tool") == TOOL_CODE);
    EXPECT(run("/etc/config") == 126);
}

/* `below` is what the root has under the same name, or NULL. */
static void look_once(const char *below)
{
    int count = 0, all = 0;
    EXPECT(lists("/", "once", &count));
    EXPECT(lists("/", "once", &all) && all == count);
    EXPECT(holds("/once", "a secret"));
    EXPECT(below != NULL ? holds("/once", below) : open("/once", O_RDONLY) < 0 && errno == ENOENT);
    EXPECT(lists("/", "once", &all) == (below != NULL));
    EXPECT(all == count - (below == NULL));
}

static void look_at_folder(void)
{
    EXPECT(holds("/shown", "the host's"));
    EXPECT(open("/my-init", O_RDONLY) < 0 && errno == ENOENT); /* the kernel has looked it up */
    look_once("the host's, too");
    EXPECT(unlink("/once") == 0); /* which is a file of the folder's by now */
    int fd = open("/written", O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    EXPECT(fd >= 0 && write(fd, "by the guest", 12) == 12 && close(fd) == 0);
    EXPECT(mkdir("/mnt", 0755) == 0 && mount("mine", "/mnt", "virtiofs", 0, NULL) == 0);
    EXPECT(holds("/mnt/only", "in an empty one"));
    EXPECT(mkdir("/mnt/folder", 0755) < 0 && errno == EROFS);
    EXPECT(umount("/mnt") == 0 && rmdir("/mnt") == 0);
}

/* As an init does whose root is to be a disk. The first root is where its descriptor leads. */
static void leave_root(void)
{
    EXPECT(mount("tmpfs", "/newroot", "tmpfs", 0, NULL) == 0);
    EXPECT(chdir("/newroot") == 0 && mount(".", "/", NULL, MS_MOVE, NULL) == 0 && chroot(".") == 0);
    EXPECT(mkdir("/here", 0755) == 0);
}

static int look_through_a_layer(void)
{
    EXPECT(holds("/etc/config", "a configuration\n"));
    EXPECT(holds("/once", "a secret"));
    EXPECT(open("/once", O_RDONLY) < 0 && errno == ESTALE); /* overlayfs has kept the name */
    EXPECT(chmod("/etc/config", 0600) == 0);                /* in the layer */
    return wrong_line != 0 ? 1 : TOOL_CODE;
}

static void open_console(void)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    int fd = -1;
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    for (int i = 0; i < 2000 && (fd = open("/dev/hvc0", O_RDWR)) < 0; i++)
        ppoll(NULL, 0, &moment, NULL);
    for (int i = 0; i < 3 && fd >= 0; i++)
        dup2(fd, i);
    setvbuf(stdout, NULL, _IOLBF, 0);
}

int main(int argc, char *argv[])
{
    if (getpid() != 1)
        return argc > 1 && strcmp(argv[1], "layer") == 0 ? look_through_a_layer() : TOOL_CODE;
    open_console();
    bool is_folder = holds("/mode", "folder");
    int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    look_at_refusals();
    look_at_entries();
    if (is_folder) {
        look_at_folder();
    } else {
        look_once(NULL);
        leave_root();
    }
    EXPECT(ioctl(root, 0x7601, 1) < 0 && errno == ENOTTY);
    EXPECT(ioctl(root, 0x7602, 3) == 0); /* the last one counts */
    ioctl(root, 0x7602, wrong_line != 0 ? 1 : SEEN_ALL);
    sync();
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}
