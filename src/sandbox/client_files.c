// SPDX-License-Identifier: Apache-2.0
/* One file or folder of a guest at a time: asked about, read, written, made, removed, renamed.
 *
 * Each is a session of its own. There is no deadline of the caller's; instead every answer, every piece of data must
 * come within CLIENT_FRAME_MOST_MS of the one before, so a guest that has stopped is an error and no hang.
 *
 * Invariants: (1) what a guest can make us hold is what the caller has allowed (`most`), or LIMIT_FOLDER_ENTRIES.
 * (2) results are written only on success.
 *
 * Trust: names, links and numbers are the guest's word. Names hold no slash and are not "." or ".." (agent_decode).
 */
#include "sandbox/library.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/thread.h"
#include "vmm/vm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct action {
    char text[256];
};

static struct action action_of(const char *verb, const char *path)
{
    struct action action;
    snprintf(action.text, sizeof(action.text), "cannot %s %s", verb, path);
    return action;
}

static struct agent_span span_of(const char *text)
{
    return (struct agent_span){.bytes = text, .length = strlen(text)};
}

static int check_path(const char *path, const char *field, struct vial_error *err)
{
    if (path != NULL && path[0] == '/')
        return 0;
    return sandbox_refuse(field, "a path of a guest must be absolute", "begin it with a slash", err);
}

static uint64_t soon(void)
{
    return client_deadline_ns(CLIENT_FRAME_MOST_MS);
}

static int begin(struct vial_sandbox *sandbox, struct client *client, struct agent_message *request,
                 struct vial_error *err)
{
    int result = check_path(request->file.path.bytes, "path", err);
    if (result == 0)
        result = sandbox_connect(sandbox, client, err);
    return result < 0 ? result : client_send(client, request, soon(), err);
}

/* ---- entries ---- */

static void take_entry(const struct agent_entry *entry, struct vial_file_info *info)
{
    *info = (struct vial_file_info){
        .size = sizeof(*info),
        .mode = entry->mode,
        .uid = entry->uid,
        .gid = entry->gid,
        .bytes = entry->size,
        .mtime_s = entry->mtime_s,
        .mtime_ns = entry->mtime_ns,
    };
    snprintf(info->name, sizeof(info->name), "%.*s", (int)entry->name.length, entry->name.bytes);
    snprintf(info->link, sizeof(info->link), "%.*s", (int)entry->link.length, entry->link.bytes);
}

int sandbox_stat(struct vial_sandbox *sandbox, const char *path, bool follows, struct vial_file_info *ret_info,
                 struct vial_error *err)
{
    struct client client = CLIENT_INIT;
    struct agent_message answer = {0};
    struct agent_message request = {.kind = AGENT_STAT,
                                    .file = {.flags = follows ? AGENT_FILE_FOLLOW : 0, .path = span_of(path)}};
    int result = begin(sandbox, &client, &request, err);
    while (result == 0 && !client.flow.is_over)
        result = client_next(&client, action_of("look at", path).text, soon(), &answer, err);
    if (result == 0 && answer.kind != AGENT_ENTRY)
        result = error_set_os(err, VIAL_PHASE_RUN, EPROTO, "sandbox \"%s\": its agent has not answered", client.name);
    if (result == 0)
        take_entry(&answer.entry, ret_info);
    client_close(&client);
    return result;
}

int vial_sandbox_stat(struct vial_sandbox *sandbox, const char *path, struct vial_file_info *ret_info,
                      struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct vial_file_info info;
    int result = check_path(path, "path", err);
    if (result == 0)
        result = vm_check_result(ret_info, "VIAL_FILE_INFO_INIT", err);
    if (result == 0)
        result = sandbox_stat(sandbox, path, false, &info, err);
    if (result == 0)
        vm_give_result(ret_info, &info, sizeof(info));
    return result;
}

struct entries {
    struct vial_file_info *items; /* owned */
    size_t count, capacity;
};

static int add_entry(struct entries *entries, const struct agent_message *message, struct vial_error *err)
{
    if (message->kind != AGENT_ENTRY)
        return 0;
    int result = alloc_grow((void **)&entries->items, entries->count, &entries->capacity, sizeof(*entries->items),
                            LIMIT_FOLDER_ENTRIES);
    if (result == -E2BIG)
        return error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_RUN, "the folder has more than %d entries",
                         LIMIT_FOLDER_ENTRIES);
    if (result < 0)
        return error_no_memory(err, VIAL_PHASE_RUN);
    take_entry(&message->entry, &entries->items[entries->count++]);
    return 0;
}

int vial_sandbox_list_folder(struct vial_sandbox *sandbox, const char *path, struct vial_file_info **ret_list,
                             size_t *ret_count, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct client client = CLIENT_INIT;
    struct entries entries = {0};
    struct agent_message answer = {0};
    int result = check_path(path, "path", err);
    if (result < 0)
        return result;
    struct agent_message request = {.kind = AGENT_LIST, .file = {.path = span_of(path)}};
    result = begin(sandbox, &client, &request, err);
    while (result == 0 && !client.flow.is_over) {
        result = client_next(&client, action_of("list", path).text, soon(), &answer, err);
        if (result == 0)
            result = add_entry(&entries, &answer, err);
    }
    client_close(&client);
    if (result < 0) {
        free(entries.items);
        return result;
    }
    *ret_list = entries.items;
    *ret_count = entries.count;
    return 0;
}

/* ---- contents ---- */

static int take_bytes(struct client *client, const struct agent_message *message, struct buffer *bytes,
                      struct vial_error *err)
{
    if (message->kind != AGENT_DATA)
        return 0;
    buffer_add(bytes, message->data.bytes.bytes, message->data.bytes.length);
    if (bytes->error == -ENOBUFS) {
        error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_RUN, "the file has more than %zu bytes", bytes->limit);
        error_remedy(err, "allow more, or copy it out");
        return client_errno(err, EFBIG);
    }
    if (bytes->error < 0)
        return error_no_memory(err, VIAL_PHASE_RUN);
    return client_consume(client, message->data.stream, message->data.bytes.length, err);
}

int vial_sandbox_read_file(struct vial_sandbox *sandbox, const char *path, size_t most, void **ret_bytes,
                           size_t *ret_length, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    auto_buffer struct buffer bytes = BUFFER_INIT(most < SIZE_MAX / 2 ? most : SIZE_MAX / 2);
    struct client client = CLIENT_INIT;
    struct agent_message answer = {0};
    int result = check_path(path, "path", err);
    if (result < 0)
        return result;
    struct agent_message request = {.kind = AGENT_READ,
                                    .file = {.window = AGENT_MOST_WINDOW,
                                             .length = most < SIZE_MAX / 2 ? most + 1 : UINT64_MAX,
                                             .path = span_of(path)}};
    result = begin(sandbox, &client, &request, err);
    while (result == 0 && !client.flow.is_over) {
        result = client_next(&client, action_of("read", path).text, soon(), &answer, err);
        if (result == 0)
            result = take_bytes(&client, &answer, &bytes, err);
    }
    client_close(&client);
    if (result < 0)
        return result;
    size_t length = bytes.length;
    char *stolen = buffer_steal(&bytes);
    if (stolen == NULL)
        return error_no_memory(err, VIAL_PHASE_RUN);
    *ret_bytes = stolen;
    *ret_length = length;
    return 0;
}

int vial_sandbox_write_file(struct vial_sandbox *sandbox, const char *path, uint32_t mode, const void *bytes,
                            size_t length, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct client client = CLIENT_INIT;
    struct agent_message answer = {0};
    size_t at = 0;
    bool has_ended = false;
    int result = check_path(path, "path", err);
    if (result < 0)
        return result;
    struct agent_message request = {.kind = AGENT_WRITE, .file = {.mode = mode & 07777, .path = span_of(path)}};
    result = begin(sandbox, &client, &request, err);
    while (result == 0 && !client.flow.is_over) {
        size_t step = length - at < AGENT_MOST_DATA_BYTES ? length - at : AGENT_MOST_DATA_BYTES;
        step = step < client.flow.send ? step : client.flow.send;
        bool may_send = client.flow.is_started && !has_ended && (step > 0 || at == length);
        if (may_send) {
            has_ended = at + step == length;
            client.flow.send -= (uint32_t)step;
            result = client_send_data(&client, (const char *)bytes + at, step, has_ended, soon(), err);
            at += step;
        }
        if (!may_send || result == -EPIPE) /* why it takes no more has been said */
            result = client_next(&client, action_of("write", path).text, soon(), &answer, err);
    }
    if (result == 0 && !has_ended)
        result = error_set_os(err, VIAL_PHASE_RUN, EPROTO, "sandbox \"%s\": its agent has taken only a part of %s",
                              client.name, error_short(path).text);
    client_close(&client);
    return result;
}

/* ---- names ---- */

int vial_sandbox_make_folder(struct vial_sandbox *sandbox, const char *path, uint32_t mode, bool parents,
                             struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    int result = check_path(path, "path", err);
    if (result < 0)
        return result;
    struct agent_message request = {
        .kind = AGENT_MAKE,
        .file = {.flags = parents ? AGENT_FILE_PARENTS : 0, .mode = mode & 07777, .path = span_of(path)}};
    return sandbox_request(sandbox, &request, action_of("make the folder", path).text, err);
}

int vial_sandbox_remove_file(struct vial_sandbox *sandbox, const char *path, bool recursive, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    int result = check_path(path, "path", err);
    if (result < 0)
        return result;
    struct agent_message request = {.kind = AGENT_REMOVE,
                                    .file = {.flags = recursive ? AGENT_FILE_RECURSIVE : 0, .path = span_of(path)}};
    return sandbox_request(sandbox, &request, action_of("remove", path).text, err);
}

int vial_sandbox_rename_file(struct vial_sandbox *sandbox, const char *from, const char *to, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    int result = check_path(from, "from", err);
    if (result == 0)
        result = check_path(to, "to", err);
    if (result < 0)
        return result;
    struct agent_message request = {.kind = AGENT_RENAME, .file = {.path = span_of(from), .to = span_of(to)}};
    return sandbox_request(sandbox, &request, action_of("rename", from).text, err);
}
