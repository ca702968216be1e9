// SPDX-License-Identifier: Apache-2.0
/* Copying an image into one of another format, or form.
 *
 * A few threads share the work: each takes the next piece of the source that is stored at all, reads it, and writes
 * what of it is not zeros. Pieces are whole clusters of the target, so that no two threads ever write one cluster. The
 * caller's thread only waits, and tells how far it is.
 *
 *     source |####....##........##|   '.': not stored (disk_status), skipped without reading
 *     pieces  1111    22        33
 *     target |##.#    ##        #.|   zeros that were stored are left out, too
 *
 * Invariants: (1) the target is new, so what is not written reads as zeros. (2) it gets its name when all of it is on
 * the medium (target.c). (3) the first error ends all threads; none outlives the call.
 *
 * Trust: the source is hostile in its metadata as well as its data. What it costs is its size, which the user sees.
 */
#include "disk/image.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/thread.h"
#include "disk/image_create.h"
#include "disk/open.h"
#include "disk/qcow2.h"
#include "disk/target.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

enum { most_workers = 4, piece_bytes = 2 << 20, least_granule_bytes = 4096, most_skips = 256 };

struct copy {
    struct disk *source, *target; /* borrowed */
    uint64_t size_bytes;          /* of the source */
    uint64_t granule_bytes;       /* pieces begin and end at multiples of it */
    uint64_t cluster_bytes;       /* of clusters that are compressed; 0: none is */
    pthread_mutex_t lock;         /* of what follows */
    pthread_cond_t changed;
    uint64_t next; /* what nobody has taken yet begins here */
    uint64_t done;
    unsigned running;
    int error;
    bool is_source_error;
};

/* ---- a worker ---- */

static bool is_zero(const uint8_t *bytes, size_t length)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0;
}

static void fail(struct copy *copy, int error, bool is_source_error)
{
    pthread_mutex_lock(&copy->lock);
    if (copy->error == 0) {
        copy->error = error;
        copy->is_source_error = is_source_error;
    }
    pthread_mutex_unlock(&copy->lock);
}

/* Takes the next piece to be read, with the lock held: false when there is none left. A length of 0 is none yet: what
 * is not stored was passed over, and others want the lock. */
static bool take_piece(struct copy *copy, uint64_t *ret_offset, uint64_t *ret_length)
{
    uint64_t mask = copy->granule_bytes - 1;
    *ret_length = 0;
    for (int i = 0; i < most_skips && copy->error == 0 && copy->next < copy->size_bytes; i++) {
        uint64_t begin = copy->next, left = copy->size_bytes - begin, known = 0;
        bool is_absent = false;
        int result = disk_status(copy->source, begin, left, &is_absent, &known);
        if (result < 0) {
            copy->error = result;
            copy->is_source_error = true;
            break;
        }
        uint64_t whole = known == left ? left : known & ~mask;
        if (is_absent && whole > 0) {
            copy->next += whole;
            copy->done += whole;
            continue;
        }
        uint64_t length = (known + mask) & ~mask;
        length = length < piece_bytes ? length : piece_bytes;
        *ret_length = length < left ? length : left;
        *ret_offset = begin;
        copy->next += *ret_length;
        return true;
    }
    return copy->error == 0 && copy->next < copy->size_bytes;
}

static int write_run(struct copy *copy, uint8_t *bytes, uint64_t offset, uint64_t length)
{
    if (copy->cluster_bytes != 0)
        return qcow2_compress_cluster(copy->target->shape.state, bytes, offset);
    struct iovec run = {bytes, (size_t)length};
    return disk_write(copy->target, &run, 1, offset);
}

/* Writes the runs of the piece that are not zeros; clusters to be compressed one by one. */
static int write_piece(struct copy *copy, uint8_t *bytes, uint64_t offset, uint64_t length)
{
    uint64_t unit = copy->cluster_bytes != 0 ? copy->cluster_bytes : copy->granule_bytes, run = 0;
    for (uint64_t at = 0; at < length;) {
        uint64_t step = length - at < unit ? length - at : unit;
        bool is_hole = is_zero(bytes + at, (size_t)step);
        at += step;
        if (!is_hole && at < length && copy->cluster_bytes == 0)
            continue;
        uint64_t end = is_hole ? at - step : at;
        int result = end > run ? write_run(copy, bytes + run, offset + run, end - run) : 0;
        if (result < 0)
            return result;
        run = at;
    }
    return 0;
}

static void copy_piece(struct copy *copy, uint8_t *buffer, uint64_t offset, uint64_t length)
{
    struct iovec whole = {buffer, (size_t)length};
    int result = disk_read(copy->source, &whole, 1, offset);
    if (result < 0)
        return fail(copy, result, true);
    result = write_piece(copy, buffer, offset, length);
    if (result < 0)
        fail(copy, result, false);
}

static void *work(void *user)
{
    struct copy *copy = user;
    uint64_t offset = 0, length = 0;
    auto_free uint8_t *buffer = alloc_zero(piece_bytes);
    if (buffer == NULL)
        fail(copy, -ENOMEM, false);
    pthread_mutex_lock(&copy->lock);
    while (take_piece(copy, &offset, &length)) {
        pthread_mutex_unlock(&copy->lock);
        if (length > 0)
            copy_piece(copy, buffer, offset, length);
        pthread_mutex_lock(&copy->lock);
        copy->done += length;
        pthread_cond_signal(&copy->changed);
    }
    copy->running--;
    pthread_cond_signal(&copy->changed);
    pthread_mutex_unlock(&copy->lock);
    return NULL;
}

/* ---- all of it ---- */

static unsigned count_workers(void)
{
    cpu_set_t cpus;
    int count = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
    return count > most_workers ? most_workers : count < 1 ? 1 : (unsigned)count;
}

/* Waits for the workers, and tells how far they are, at the beginning and at the end at least. */
static void watch(struct copy *copy, image_progress progress, void *user)
{
    pthread_mutex_lock(&copy->lock);
    for (bool is_over = false; !is_over;) {
        uint64_t done = copy->done;
        is_over = copy->running == 0;
        pthread_mutex_unlock(&copy->lock);
        bool goes_on = progress == NULL || progress(user, done, copy->size_bytes);
        pthread_mutex_lock(&copy->lock);
        if (!goes_on && copy->error == 0)
            copy->error = -ECANCELED;
        while (copy->running > 0 && copy->done == done)
            pthread_cond_wait(&copy->changed, &copy->lock);
    }
    pthread_mutex_unlock(&copy->lock);
}

static int run(struct copy *copy, image_progress progress, void *user)
{
    pthread_t threads[most_workers];
    unsigned wanted = count_workers(), started = 0;
    int result = 0;
    pthread_mutex_init(&copy->lock, NULL);
    pthread_cond_init(&copy->changed, NULL);
    pthread_mutex_lock(&copy->lock);
    while (started < wanted && result == 0) {
        result = thread_start("vial-convert", work, copy, &threads[started]);
        started += result == 0;
    }
    copy->running = started;
    if (started == 0)
        copy->error = result;
    pthread_mutex_unlock(&copy->lock);
    watch(copy, progress, user);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    pthread_cond_destroy(&copy->changed);
    pthread_mutex_destroy(&copy->lock);
    return copy->error;
}

static int explain(const struct copy *copy, const struct image_convert_options *options, int result,
                   struct vial_error *err)
{
    if (result == -ENOMEM)
        return error_no_memory(err, VIAL_PHASE_RUN);
    if (result == -ECANCELED)
        return error_set_os(err, VIAL_PHASE_RUN, result, "%s was not made", error_short(options->target.path).text);
    error_set_os(err, VIAL_PHASE_RUN, result, "cannot %s %s", copy->is_source_error ? "read" : "write",
                 error_short(copy->is_source_error ? options->source.path : options->target.path).text);
    if (result == -ENOSPC || result == -EDQUOT)
        error_remedy(err, "make room there, or choose another folder");
    else if (copy->is_source_error)
        error_remedy(err, "the image or its medium is broken there: check it (vial disk check)");
    return result;
}

static int check_target(const struct image_create_options *target, uint64_t source_bytes, bool compresses,
                        struct vial_error *err)
{
    if (target->backing_path != NULL) {
        int result = error_set(err, VIAL_ERROR_CONFLICT, VIAL_PHASE_RUN, "a copy holds all of the disk itself");
        error_remedy(err, "leave the backing file out, or create an image over the source instead");
        return result;
    }
    if (compresses && target->format != VIAL_DISK_QCOW2) {
        int result = error_set(err, VIAL_ERROR_CONFLICT, VIAL_PHASE_RUN, "only a qcow2 image can be compressed");
        error_remedy(err, "convert to qcow2, or leave the compression out");
        return result;
    }
    if (compresses && target->preallocation != IMAGE_SPARSE) {
        int result = error_set(err, VIAL_ERROR_CONFLICT, VIAL_PHASE_RUN, "what is allocated before is not compressed");
        error_remedy(err, "leave the compression or the preallocation out");
        return result;
    }
    if (target->size_bytes < source_bytes) {
        int result = error_set(err, VIAL_ERROR_OUT_OF_RANGE, VIAL_PHASE_RUN, "the source has %llu bytes",
                               (unsigned long long)source_bytes);
        error_remedy(err, "make the copy as large as the source, and shrink it afterwards");
        return result;
    }
    return image_check_options(target, err);
}

/* Fills the new file with all of the source. */
static int fill(struct disk *source, int fd, const struct image_convert_options *options,
                const struct image_create_options *final, image_progress progress, void *user, struct vial_error *err)
{
    struct copy copy = {
        .source = source, .size_bytes = source->shape.properties.size_bytes, .granule_bytes = least_granule_bytes};
    int result = image_fill(fd, final, err);
    if (result == 0)
        result = disk_open_fd(fd, final->path, final->format, &copy.target, err);
    if (result < 0)
        return result;
    if (final->format == VIAL_DISK_QCOW2) {
        struct image_info info = {0};
        qcow2_info(copy.target->shape.state, &info);
        if (info.cluster_bytes > copy.granule_bytes)
            copy.granule_bytes = info.cluster_bytes;
        copy.cluster_bytes = options->compresses ? info.cluster_bytes : 0;
    }
    result = run(&copy, progress, user);
    if (result < 0)
        explain(&copy, options, result, err);
    int closed = disk_close(copy.target, result == 0 ? err : NULL);
    return result == 0 ? closed : result;
}

int image_convert(const struct image_convert_options *options, image_progress progress, void *user,
                  struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct disk_options from = options->source;
    struct image_create_options final = options->target;
    struct image_target target;
    struct disk *source = NULL;
    from.read_only = true;
    int result = disk_open(&from, &source, err);
    if (result < 0)
        return result;
    if (final.size_bytes == 0)
        final.size_bytes = source->shape.properties.size_bytes;
    result = check_target(&final, source->shape.properties.size_bytes, options->compresses, err);
    if (result == 0)
        result = image_target_begin(&target, final.path, final.replaces, err);
    if (result < 0) {
        disk_free(source);
        return result;
    }
    result = fill(source, target.fd, options, &final, progress, user, err);
    disk_free(source);
    if (result == 0)
        return image_target_finish(&target, err);
    image_target_drop(&target);
    return result;
}
