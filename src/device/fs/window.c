// SPDX-License-Identifier: Apache-2.0
/* The DAX window. (virtio 1.2, 5.11.6.4)
 *
 * The machine reserves the space and shows all of it to the guest as one memory slot; where no file is mapped there is
 * memory without any access, so that the guest's touch fails in KVM and nothing of the host is ever behind it.
 *
 *     ├── no access ──┼── file A, 2 MiB ──┼── no access ──┼── file B ──┤
 *
 * There must never be a hole in it, not for a moment: the next mmap of any thread could fill one with memory of ours,
 * and the guest would see that. So a file is mapped elsewhere first, where a file system may refuse, and then moved
 * over the window by one mremap(2), which replaces under the kernel's lock.
 *
 * What a guest touches beyond the end of a mapped file raises SIGBUS in who touches: for KVM that is EFAULT from
 * KVM_RUN, which is the machine's matter. We never touch the window. It is no part of guest memory as devices see it,
 * so a buffer in it is refused when a chain is popped.
 *
 * The number of mappings is bounded by the window's pages, and before that by the host's vm.max_map_count: -ENOMEM,
 * upon which Linux gives back others and tries again.
 *
 * Invariants: (1) every page of the window is mapped at any time. (2) a mapping that cannot be written is mapped from a
 * descriptor for reading: mprotect(2) is not ours to call, and the guest has no way to it. (3) no sum of a guest's
 * numbers is used before it was checked.
 *
 * Trust: offsets and lengths come from a hostile guest, descriptors from the backend.
 */
#include "device/fs/window.h"

#include "base/alloc.h"
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { page_bytes = 4096 };

struct window {
    pthread_mutex_t lock; /* one change at a time */
    uint8_t *space;       /* borrowed */
    uint64_t size_bytes;
    bool is_used;   /* something may be mapped */
    bool is_broken; /* the host could not take a mapping away: nothing is mapped any more */
};

/* No access at all, in the place of whatever was there. */
static int cover(void *start, uint64_t length)
{
    void *result = mmap(start, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return result == MAP_FAILED ? -errno : 0;
}

/* Takes everything away, by one mapping that replaces all others and so cannot be one too many. */
static void cover_all(struct window *window)
{
    int result = cover(window->space, window->size_bytes);
    window->is_used = result < 0;
    window->is_broken |= result < 0;
    if (result < 0)
        log_error("fs.window_not_cleared", LOG_ERRNO(result));
}

int window_new(void *space, uint64_t size_bytes, struct window **ret_window)
{
    if (size_bytes == 0 || ((uintptr_t)space | size_bytes) % page_bytes != 0)
        return -EINVAL;
    int result = cover(space, size_bytes);
    if (result < 0)
        return result;
    struct window *window = alloc_zero(sizeof(*window));
    if (window == NULL)
        return -ENOMEM;
    pthread_mutex_init(&window->lock, NULL);
    window->space = space;
    window->size_bytes = size_bytes;
    *ret_window = window;
    return 0;
}

struct window *window_free(struct window *window)
{
    if (window == NULL)
        return NULL;
    window_clear(window);
    pthread_mutex_destroy(&window->lock);
    free(window);
    return NULL;
}

static int check_place(const struct window *window, uint64_t offset, uint64_t length)
{
    if (length == 0 || (offset | length) % page_bytes != 0)
        return -EINVAL;
    return offset < window->size_bytes && length <= window->size_bytes - offset ? 0 : -EINVAL;
}

static int check_file(int fd, uint64_t file_offset, uint64_t length)
{
    struct stat status;
    if (file_offset % page_bytes != 0 || file_offset > INT64_MAX - length)
        return -EINVAL;
    if (fstat(fd, &status) < 0)
        return -errno;
    return S_ISREG(status.st_mode) ? 0 : -EACCES;
}

/* Puts the view over the window. If that fails, the old mapping may be gone, but no hole stays. */
static int move_over(struct window *window, void *view, uint64_t offset, uint64_t length)
{
    if (mremap(view, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, window->space + offset) != MAP_FAILED) {
        window->is_used = true;
        return 0;
    }
    int failure = -errno;
    munmap(view, length);
    if (cover(window->space + offset, length) < 0)
        cover_all(window);
    return failure;
}

int window_map(struct window *window, uint64_t offset, uint64_t length, int fd, uint64_t file_offset, bool for_writing)
{
    int result = check_place(window, offset, length);
    if (result == 0)
        result = check_file(fd, file_offset, length);
    if (result < 0)
        return result;
    pthread_mutex_lock(&window->lock);
    void *view = MAP_FAILED;
    result = window->is_broken ? -ENOMEM : 0;
    if (result == 0) {
        view = mmap(NULL, length, PROT_READ | (for_writing ? PROT_WRITE : 0), MAP_SHARED, fd, (off_t)file_offset);
        result = view == MAP_FAILED ? -errno : 0;
    }
    if (result == 0) {
        madvise(view, length, MADV_DONTFORK); /* as guest memory; both are advice */
        madvise(view, length, MADV_DONTDUMP);
        result = move_over(window, view, offset, length);
    }
    pthread_mutex_unlock(&window->lock);
    return result;
}

int window_unmap(struct window *window, uint64_t offset, uint64_t length)
{
    int result = check_place(window, offset, length);
    if (result < 0)
        return result;
    pthread_mutex_lock(&window->lock);
    result = cover(window->space + offset, length); /* one mapping too many is refused before anything is unmapped */
    pthread_mutex_unlock(&window->lock);
    return result;
}

void window_clear(struct window *window)
{
    pthread_mutex_lock(&window->lock);
    if (window->is_used)
        cover_all(window);
    pthread_mutex_unlock(&window->lock);
}
