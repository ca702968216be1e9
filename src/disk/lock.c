// SPDX-License-Identifier: Apache-2.0
/* Locks of image files, in the way QEMU locks them, so that each refuses what the other is using.
 *
 * Byte 100 + n of the file stands for "I do n to this file", byte 200 + n for "nobody else may do n while I am here".
 * Whoever opens the file first takes a read lock on the bytes that tell of itself, then looks whether anybody else
 * holds a lock on the byte against each of its own; if so, it lets go. The bytes need not exist, nothing is written.
 *
 *     n               reader does  reader forbids   writer does  writer forbids
 *     0  read it           x                             x
 *     1  write it                        x               x              x
 *     3  resize it                       x               x              x
 *
 * So: any number of readers, or one writer.
 *
 * Invariants: (1) both sides announce themselves before they look, so of two that come together at most one gets in.
 * (2) locks belong to the open file (F_OFD_SETLK in fcntl(2)): they go with it, on any thread, killed or not, and two
 * opens in one process are two users.
 *
 * Trust: locks bind only those who ask. They keep honest programs from destroying an image together.
 */
#include "disk/file.h"

#include "base/alloc.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>

enum {
    does_byte = 100,
    forbids_byte = 200,
    may_read = 1u << 0,
    may_write = 1u << 1,
    may_resize = 1u << 3,
    every_use = may_read | may_write | may_resize,
    uses = 4,
};

static int lock_byte(int fd, off_t byte)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    int result = 0;
    do
        result = fcntl(fd, F_OFD_SETLK, &lock);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}

/* Whether somebody else holds a lock on the byte: 0, -EBUSY or -errno. */
static int probe_byte(int fd, off_t byte)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
        return -errno;
    return lock.l_type == F_UNLCK ? 0 : -EBUSY;
}

static int take(int fd, unsigned does, unsigned forbids)
{
    int result = 0;
    for (unsigned i = 0; i < uses && result == 0; i++) {
        if ((does & 1u << i) != 0)
            result = lock_byte(fd, does_byte + i);
        if ((forbids & 1u << i) != 0 && result == 0)
            result = lock_byte(fd, forbids_byte + i);
    }
    for (unsigned i = 0; i < uses && result == 0; i++) {
        if ((does & 1u << i) != 0)
            result = probe_byte(fd, forbids_byte + i);
        if ((forbids & 1u << i) != 0 && result == 0)
            result = probe_byte(fd, does_byte + i);
    }
    return result == -EACCES || result == -EAGAIN ? -EBUSY : result; /* fcntl(2) has both for a lock of another */
}

int disk_file_lock(int fd, bool for_writing)
{
    return take(fd, for_writing ? every_use : may_read, may_write | may_resize);
}

int disk_file_in_use(const char *path, bool for_writing, struct vial_error *err)
{
    error_set_os(err, VIAL_PHASE_START, EBUSY, "%s is in use by another %s", error_short(path).text,
                 for_writing ? "process or disk" : "process or disk that writes to it");
    error_remedy(err, "end that use of it first (lslocks names the process); several may use one image only if all "
                      "of them open it read only");
    return -EBUSY;
}
