// SPDX-License-Identifier: Apache-2.0
/* Trees copied between a host and a guest: `from` becomes `to`, or goes into it where that is a folder, as cp(1) does.
 *
 *     in:   folder of the host ── tree_reader ── DATA of stream 0, as the guest's window allows ──> PUSH
 *     out:  PULL ── DATA of stream 1 ── tree_writer ──> folder of the host
 *
 * What is named is settled first, by looking at both ends; a path that ends in "/." means what the folder holds. A
 * symbolic link that is named is copied as one.
 *
 * Invariants: (1) bytes of a guest become files of the host only by tree_writer, beneath the descriptor of a folder
 * that the caller has named. (2) a copy that fails or is cancelled ends the session at once; what was made
 * stays, as with cp. (3) no more than a frame is held.
 *
 * Trust: paths are the caller's. What comes out is the guest's in every byte, and its word on what is a folder decides
 * only over names below the caller's own target. How much comes is its word, too, whatever is in the tree that was
 * asked for: the caller's `progress`, a quota or the disk's end is the bound.
 */
#include "sandbox/library.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/thread.h"
#include "proto/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* How often the caller is told: whichever comes first. A guest that sends files without bytes, or next to nothing, must
 * not keep the caller from cancelling. */
enum { progress_bytes = 1 << 20, progress_ms = 200 };

struct copy {
    struct vial_sandbox *sandbox; /* borrowed */
    const char *from, *to;        /* as the caller has them */
    vial_copy_progress progress;
    void *user;
    uint64_t told_bytes, told_ns;
    char guest[PATH_MAX]; /* the path there */
    char action[256];
    uint8_t bytes[AGENT_MOST_DATA_BYTES];
};

/* ---- paths ---- */

struct place {
    char parent[PATH_MAX]; /* of what is named, or the folder itself */
    char name[NAME_MAX + 1];
    bool is_inside;      /* "/." or nothing else: what the folder holds */
    bool must_be_folder; /* a slash at its end */
};

/* The last name of a path, and what is before it. -ENAMETOOLONG. */
static int split(const char *path, struct place *place)
{
    size_t length = strlen(path), end = length;
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    size_t name_length = end - begin;
    if (end >= PATH_MAX || name_length > NAME_MAX)
        return -ENAMETOOLONG;
    memcpy(place->name, path + begin, name_length);
    place->name[name_length] = '\0';
    place->must_be_folder = end < length;
    place->is_inside = name_length == 0 || strcmp(place->name, ".") == 0 || strcmp(place->name, "..") == 0;
    if (strcmp(place->name, "..") == 0)
        begin = end;
    if (begin > 0)
        snprintf(place->parent, sizeof(place->parent), "%.*s", (int)begin, path);
    else
        snprintf(place->parent, sizeof(place->parent), ".");
    if (place->is_inside)
        place->name[0] = '\0';
    return 0;
}

/* Without a slash at the end, which has said what it had to. */
static int join(char path[PATH_MAX], const char *folder, const char *name)
{
    size_t length = strlen(folder);
    bool has_slash = length > 0 && folder[length - 1] == '/';
    int written = snprintf(path, PATH_MAX, "%s%s%s", folder, has_slash || name[0] == '\0' ? "" : "/", name);
    if (written >= PATH_MAX)
        return -ENAMETOOLONG;
    while (written > 1 && path[written - 1] == '/')
        path[--written] = '\0';
    return 0;
}

static int fail_host(const char *path, int result, struct vial_error *err)
{
    return error_set_os(err, VIAL_PHASE_RUN, result, "cannot use \"%s\"", error_short(path).text);
}

static int fail_tree(const char *path, const struct tree_failure *failure, int result, struct vial_error *err)
{
    int os_error = failure->os_error > 0 ? failure->os_error : -result;
    const char *separator = failure->path[0] != '\0' ? ": " : "";
    error_set_os(err, VIAL_PHASE_RUN, os_error, "cannot copy \"%s\"%s%s", error_short(path).text, separator,
                 error_short(failure->path).text);
    return result;
}

static int begin(struct copy *copy, const char *in_guest, struct vial_error *err)
{
    if (copy->from == NULL || copy->to == NULL || copy->from[0] == '\0' || copy->to[0] == '\0')
        return sandbox_refuse("path", "a path is missing", "say what is to be copied, and where to", err);
    snprintf(copy->action, sizeof(copy->action), "cannot copy %s", copy->from);
    if (in_guest[0] != '/')
        return sandbox_refuse("path", "a path of a guest must be absolute", "begin it with a slash", err);
    return 0;
}

/* Now and then, or at the end. */
static int tell_progress(struct copy *copy, const struct tree_counts *counts, bool is_end, struct vial_error *err)
{
    uint64_t now_ns = copy->progress != NULL ? clock_now_ns() : 0;
    bool is_time = counts->bytes - copy->told_bytes >= progress_bytes ||
                   now_ns - copy->told_ns >= progress_ms * CLOCK_NS_PER_MS;
    if (copy->progress == NULL || (!is_end && !is_time))
        return 0;
    copy->told_bytes = counts->bytes;
    copy->told_ns = now_ns;
    if (copy->progress(copy->user, counts->files, counts->bytes))
        return 0;
    error_set(err, VIAL_ERROR_OS, VIAL_PHASE_RUN, "the copy of \"%s\" was cancelled", error_short(copy->from).text);
    return client_errno(err, ECANCELED);
}

static uint64_t soon(void)
{
    return client_deadline_ns(CLIENT_FRAME_MOST_MS);
}

static int open_session(struct copy *copy, struct client *client, enum agent_kind kind, struct vial_error *err)
{
    struct agent_message request = {.kind = kind,
                                    .file = {.window = kind == AGENT_PULL ? AGENT_MOST_WINDOW : 0,
                                             .path = {.bytes = copy->guest, .length = strlen(copy->guest)}}};
    int result = sandbox_connect(copy->sandbox, client, err);
    return result < 0 ? result : client_send(client, &request, soon(), err);
}

/* ---- in ---- */

/* Where it goes in the guest: the guest says what is there. */
static int choose_guest_target(struct copy *copy, const struct place *from, bool is_folder, struct vial_error *err)
{
    struct vial_file_info there;
    struct vial_error why;
    int result = sandbox_stat(copy->sandbox, copy->to, true, &there, &why);
    bool exists = result == 0, is_into = exists && S_ISDIR(there.mode);
    size_t length = strlen(copy->to);
    bool has_slash = copy->to[length - 1] == '/';
    if (result < 0 && result != -ENOENT) {
        if (err != NULL)
            *err = why;
        return result;
    }
    if ((exists && !is_into && (is_folder || has_slash)) || (!exists && has_slash && !is_folder)) {
        error_set_os(err, VIAL_PHASE_RUN, ENOTDIR, "\"%s\" is no folder in sandbox \"%s\"", error_short(copy->to).text,
                     sandbox_name(copy->sandbox).text);
        return -ENOTDIR;
    }
    result = join(copy->guest, copy->to, is_into ? from->name : "");
    return result < 0 ? fail_host(copy->to, result, err) : 0;
}

/* One frame of the tree, if the window allows: 1, 0 when there is nothing more to send now, or an error. */
static int push_piece(struct copy *copy, struct client *client, struct tree_reader *reader, bool *has_ended,
                      struct vial_error *err)
{
    struct tree_failure failure = {0};
    struct tree_counts counts;
    size_t most = client->flow.send < sizeof(copy->bytes) ? client->flow.send : sizeof(copy->bytes);
    if (!client->flow.is_started || *has_ended || most == 0)
        return 0;
    long got = tree_reader_next(reader, copy->bytes, most, &failure);
    if (got < 0)
        return fail_tree(copy->from, &failure, (int)got, err);
    *has_ended = got == 0;
    client->flow.send -= (uint32_t)got;
    int result = client_send_data(client, copy->bytes, (size_t)got, got == 0, soon(), err);
    if (result == -EPIPE) /* why it takes no more has been said */
        return 0;
    tree_reader_counts(reader, &counts);
    if (result == 0)
        result = tell_progress(copy, &counts, false, err);
    return result < 0 ? result : 1;
}

static int push(struct copy *copy, struct tree_reader *reader, struct vial_error *err)
{
    struct client client = CLIENT_INIT;
    struct agent_message answer = {0};
    struct tree_counts counts;
    bool has_ended = false;
    int result = open_session(copy, &client, AGENT_PUSH, err);
    while (result >= 0 && !client.flow.is_over) {
        result = push_piece(copy, &client, reader, &has_ended, err);
        if (result == 0)
            result = client_next(&client, copy->action, soon(), &answer, err);
    }
    if (result >= 0 && !has_ended)
        result = error_set_os(err, VIAL_PHASE_RUN, EPROTO, "sandbox \"%s\": its agent has taken only a part of %s",
                              client.name, error_short(copy->from).text);
    client_close(&client);
    tree_reader_counts(reader, &counts);
    return result < 0 ? result : tell_progress(copy, &counts, true, err);
}

static int copy_in(struct copy *copy, struct vial_error *err)
{
    struct place from = {0};
    struct stat about;
    struct tree_reader *reader = NULL;
    int result = begin(copy, copy->to, err);
    if (result < 0)
        return result;
    result = split(copy->from, &from);
    if (result < 0)
        return fail_host(copy->from, result, err);
    auto_close int folder = open(from.parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return fail_host(copy->from, errno, err);
    if (fstatat(folder, from.name, &about, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0)
        return fail_host(copy->from, errno, err);
    if (from.must_be_folder && !S_ISDIR(about.st_mode))
        return fail_host(copy->from, ENOTDIR, err);
    result = choose_guest_target(copy, &from, S_ISDIR(about.st_mode), err);
    if (result < 0)
        return result;
    result = tree_reader_new(folder, from.name, &reader);
    if (result < 0)
        return fail_host(copy->from, result, err);
    result = push(copy, reader, err);
    tree_reader_free(reader);
    return result;
}

/* ---- out ---- */

struct target {
    int folder; /* owned */
    char name[NAME_MAX + 1];
    uint32_t flags;
};

/* Where it goes on the host. Links in the caller's own path are the caller's, and followed. */
static int choose_host_target(const struct copy *copy, const struct place *from, bool is_folder, struct target *target,
                              struct vial_error *err)
{
    struct place to = {0};
    struct stat about;
    bool exists = stat(copy->to, &about) == 0, is_into = exists && S_ISDIR(about.st_mode);
    int result = split(copy->to, &to);
    if (result < 0)
        return fail_host(copy->to, result, err);
    if ((exists && !is_into && (is_folder || to.must_be_folder)) || (!exists && to.must_be_folder && !is_folder))
        return fail_host(copy->to, ENOTDIR, err);
    target->folder = open(is_into ? copy->to : to.parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (target->folder < 0)
        return fail_host(copy->to, errno, err);
    target->flags = is_into && from->is_inside ? TREE_NO_TOP : 0;
    memcpy(target->name, is_into ? from->name : to.name, sizeof(target->name));
    return 0;
}

static int take_piece(const struct copy *copy, struct client *client, struct tree_writer *writer,
                      const struct agent_message *message, struct vial_error *err)
{
    struct tree_failure failure = {0};
    const struct agent_span *bytes = &message->data.bytes;
    if (message->kind != AGENT_DATA)
        return 0;
    int result = tree_writer_add(writer, (const uint8_t *)bytes->bytes, bytes->length, &failure);
    if (result < 0)
        return fail_tree(copy->to, &failure, result, err);
    return client_consume(client, message->data.stream, bytes->length, err);
}

static int pull(struct copy *copy, struct tree_writer *writer, struct vial_error *err)
{
    struct client client = CLIENT_INIT;
    struct agent_message answer = {0};
    struct tree_failure failure = {0};
    struct tree_counts counts;
    int result = open_session(copy, &client, AGENT_PULL, err);
    while (result == 0 && !client.flow.is_over) {
        result = client_next(&client, copy->action, soon(), &answer, err);
        if (result == 0)
            result = take_piece(copy, &client, writer, &answer, err);
        tree_writer_counts(writer, &counts);
        if (result == 0)
            result = tell_progress(copy, &counts, false, err);
    }
    client_close(&client);
    if (result < 0)
        return result;
    result = tree_writer_end(writer, &failure);
    if (result < 0)
        return fail_tree(copy->to, &failure, result, err);
    tree_writer_counts(writer, &counts);
    return tell_progress(copy, &counts, true, err);
}

static int copy_out(struct copy *copy, struct vial_error *err)
{
    struct place from = {0};
    struct vial_file_info about;
    struct target target = {.folder = -1};
    struct tree_writer *writer = NULL;
    int result = begin(copy, copy->from, err);
    if (result < 0)
        return result;
    result = split(copy->from, &from);
    if (result == 0)
        result = join(copy->guest, from.parent, from.name);
    if (result < 0)
        return fail_host(copy->from, result, err);
    result = sandbox_stat(copy->sandbox, copy->guest, from.must_be_folder || from.is_inside, &about, err);
    if (result < 0)
        return result;
    if (from.must_be_folder && !S_ISDIR(about.mode))
        return fail_host(copy->from, ENOTDIR, err);
    result = choose_host_target(copy, &from, S_ISDIR(about.mode), &target, err);
    if (result < 0)
        return result;
    auto_close int folder = target.folder;
    result = tree_writer_new(folder, target.name, target.flags, &writer);
    if (result < 0)
        return fail_host(copy->to, result, err);
    result = pull(copy, writer, err);
    tree_writer_free(writer);
    return result;
}

/* ---- the public calls ---- */

static int run(struct vial_sandbox *sandbox, const char *from, const char *to, vial_copy_progress progress, void *user,
               int (*copy_tree)(struct copy *copy, struct vial_error *err), struct vial_error *err)
{
    auto_free struct copy *copy = alloc_zero(sizeof(*copy));
    if (copy == NULL)
        return error_no_memory(err, VIAL_PHASE_RUN);
    copy->sandbox = sandbox;
    copy->from = from;
    copy->to = to;
    copy->progress = progress;
    copy->user = user;
    return copy_tree(copy, err);
}

int vial_sandbox_copy_in(struct vial_sandbox *sandbox, const char *from, const char *to, vial_copy_progress progress,
                         void *user, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    return run(sandbox, from, to, progress, user, copy_in, err);
}

int vial_sandbox_copy_out(struct vial_sandbox *sandbox, const char *from, const char *to, vial_copy_progress progress,
                          void *user, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    return run(sandbox, from, to, progress, user, copy_out, err);
}
