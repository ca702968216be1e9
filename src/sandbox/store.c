// SPDX-License-Identifier: Apache-2.0
/* What is known of the sandboxes of a home: adding, finding, listing, and the runs that their processes record.
 *
 *              ┌────────────────────────────── start ◄───────────────────────────┐
 *              ▼                                                                 │
 *     Created ─► Starting ──► Running ──► Draining ──► Stopped ──────────────────┤
 *                   │          ▲   │         ▲                                   │
 *                   │          │   ▼         │            any of them but Created│
 *                   │          Paused ───────┤            ──► Crashed ───────────┘
 *                   └────────────────────────┘
 *
 * A sandbox knows the number of its last run; a status is changed by run, not by sandbox, so that a process which was
 * taken for dead, or whose sandbox is gone, changes nothing any more.
 *
 * Invariants: those of store.h; and (4) each function is one transaction.
 *
 * Trust: names and ids are anybody's words and are bound as values. Rows are believed to have been written by Vial; a
 * value that cannot be is an empty one.
 */
#include "sandbox/store_state.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/limits.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now); /* cannot fail: the clock exists and the pointer is ours */
    return clock_from_timespec(&now);
}

/* ---- labels ---- */

/* KEY=VALUE as a member, and nothing but that: the spec has checked them. */
static bool put_label(json_t *object, const char *label)
{
    const char *equals = strchr(label, '=');
    if (equals == NULL)
        return false;
    auto_free char *key = strndup(label, (size_t)(equals - label));
    return key != NULL && json_object_set_new(object, key, json_string(equals + 1)) == 0;
}

static int take_text(const char *bytes, size_t length, void *buffer)
{
    return buffer_add(buffer, bytes, length);
}

static int labels_to_json(const char *const *labels, char **ret_json, struct vial_error *err)
{
    json_t *object = json_object();
    bool is_whole = object != NULL;
    for (size_t i = 0; labels != NULL && labels[i] != NULL && is_whole; i++)
        is_whole = put_label(object, labels[i]);
    auto_buffer struct buffer text = BUFFER_INIT(LIMIT_DUMP_BYTES);
    if (is_whole)
        json_dump_callback(object, take_text, &text, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(object);
    char *json = is_whole ? buffer_steal(&text) : NULL;
    if (json == NULL)
        return error_no_memory(err, VIAL_PHASE_HOST);
    *ret_json = json;
    return 0;
}

/* Whether the object has the label, KEY or KEY=VALUE. */
static bool has_label(const json_t *object, const char *label)
{
    const char *equals = strchr(label, '='), *key = NULL;
    size_t key_length = equals != NULL ? (size_t)(equals - label) : strlen(label);
    json_t *value = NULL;
    json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
        const char *text = json_string_value(value);
        if (strlen(key) == key_length && memcmp(key, label, key_length) == 0)
            return equals == NULL || (text != NULL && strcmp(text, equals + 1) == 0);
    }
    return false;
}

static bool has_labels(const char *json, const char *const *labels)
{
    if (labels == NULL || labels[0] == NULL)
        return true;
    json_t *object = json_loads(json, 0, NULL);
    bool has_all = json_is_object(object);
    for (size_t i = 0; labels[i] != NULL && has_all; i++)
        has_all = has_label(object, labels[i]);
    json_decref(object);
    return has_all;
}

/* ---- rows ---- */

/* The columns of the statements that read sandboxes (store_open.c). */
enum column {
    COLUMN_ID,
    COLUMN_NAME,
    COLUMN_STATUS,
    COLUMN_CREATED,
    COLUMN_EPHEMERAL,
    COLUMN_COMMAND,
    COLUMN_PID,
    COLUMN_STARTED,
    COLUMN_ENDED,
    COLUMN_ENGINE,
    COLUMN_ISOLATION,
    COLUMN_REASON,
    COLUMN_CODE,
    COLUMN_DETAIL,
    COLUMN_LABELS,
};

static const char *text_of(sqlite3_stmt *row, int column)
{
    const unsigned char *text = sqlite3_column_text(row, column);
    return text != NULL ? (const char *)text : "";
}

static void read_info(sqlite3_stmt *row, struct vial_sandbox_info *ret_info)
{
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    snprintf(info.id, sizeof(info.id), "%s", text_of(row, COLUMN_ID));
    snprintf(info.name, sizeof(info.name), "%s", text_of(row, COLUMN_NAME));
    snprintf(info.command, sizeof(info.command), "%s", text_of(row, COLUMN_COMMAND));
    snprintf(info.detail, sizeof(info.detail), "%s", text_of(row, COLUMN_DETAIL));
    info.status = sqlite3_column_int(row, COLUMN_STATUS);
    info.ephemeral = sqlite3_column_int(row, COLUMN_EPHEMERAL) != 0;
    info.created_ns = (uint64_t)sqlite3_column_int64(row, COLUMN_CREATED);
    info.started_ns = (uint64_t)sqlite3_column_int64(row, COLUMN_STARTED);
    info.ended_ns = (uint64_t)sqlite3_column_int64(row, COLUMN_ENDED);
    info.pid = info.ended_ns == 0 ? sqlite3_column_int(row, COLUMN_PID) : 0;
    info.engine = sqlite3_column_int(row, COLUMN_ENGINE);
    info.isolation = sqlite3_column_int(row, COLUMN_ISOLATION);
    info.reason = sqlite3_column_int(row, COLUMN_REASON);
    info.code = sqlite3_column_int(row, COLUMN_CODE);
    *ret_info = info;
}

/* ---- sandboxes ---- */

static int refuse_name_taken(const char *name, struct vial_error *err)
{
    int result = error_set(err, VIAL_ERROR_DUPLICATE, VIAL_PHASE_CONFIGURE, "there is a sandbox of the name %s",
                           error_short(name).text);
    error_field(err, "name");
    error_value(err, "%s", name);
    error_remedy(err, "choose another name, or remove that one first");
    return result;
}

int store_add(struct store *store, const struct vial_sandbox_info *info, const char *const *labels,
              struct vial_error *err)
{
    auto_free char *json = NULL;
    int result = labels_to_json(labels, &json, err);
    if (result < 0)
        return result;
    result = store_change(store, STORE_ADD, err, "ttnnttn", info->id, info->name, (long long)now_ns(),
                          (long long)info->ephemeral, json, info->command, (long long)VIAL_SANDBOX_CREATED);
    if (result == -EEXIST)
        return refuse_name_taken(info->name, err);
    return result < 0 ? result : 0;
}

static int refuse_unknown(const char *name, struct vial_error *err)
{
    int result = error_set(err, VIAL_ERROR_NOT_FOUND, VIAL_PHASE_CONFIGURE, "there is no sandbox %s",
                           error_short(name).text);
    error_value(err, "%s", name);
    error_remedy(err, "name one of those that there are (vial ls), by its name or its id");
    return result;
}

static int find_beginning(struct store *store, const char *name, struct vial_sandbox_info *ret_info,
                          struct vial_error *err)
{
    struct vial_sandbox_info info;
    sqlite3_stmt *row = NULL;
    size_t length = strlen(name);
    if (length == 0 || length >= SANDBOX_ID_BYTES || strspn(name, "0123456789abcdef") != length)
        return 0;
    int result = store_query(store, STORE_BY_BEGINNING, &row, err, "nt", (long long)length, name);
    if (result <= 0)
        return result;
    read_info(row, &info);
    result = store_next(store, row, err);
    if (result < 0)
        return result;
    if (result == 0) {
        *ret_info = info;
        return 1;
    }
    store_done(row);
    error_set_os(err, VIAL_PHASE_CONFIGURE, ENOTUNIQ, "several ids begin with %s", name);
    error_remedy(err, "give more of its digits, or its name");
    return -ENOTUNIQ;
}

static int find_one(struct store *store, enum store_statement way, const char *name, struct vial_sandbox_info *ret_info,
                    struct vial_error *err)
{
    sqlite3_stmt *row = NULL;
    int result = store_query(store, way, &row, err, "t", name);
    if (result == 1) {
        read_info(row, ret_info);
        store_done(row);
    }
    return result;
}

int store_read(struct store *store, const char *id, struct vial_sandbox_info *ret_info, struct vial_error *err)
{
    return find_one(store, STORE_BY_ID, id, ret_info, err);
}

int store_find(struct store *store, const char *name, struct vial_sandbox_info *ret_info, struct vial_error *err)
{
    int result = find_one(store, STORE_BY_ID, name, ret_info, err);
    if (result == 0)
        result = find_one(store, STORE_BY_NAME, name, ret_info, err);
    if (result == 0)
        result = find_beginning(store, name, ret_info, err);
    if (result == 0)
        return refuse_unknown(name, err);
    return result < 0 ? result : 0;
}

int store_labels(struct store *store, const char *id, char **ret_json, struct vial_error *err)
{
    sqlite3_stmt *row = NULL;
    int result = store_query(store, STORE_LABELS, &row, err, "t", id);
    if (result <= 0)
        return result < 0 ? result : refuse_unknown(id, err);
    char *json = alloc_string(text_of(row, 0));
    store_done(row);
    if (json == NULL)
        return error_no_memory(err, VIAL_PHASE_HOST);
    *ret_json = json;
    return 0;
}

int store_list(struct store *store, const char *const *labels, struct vial_sandbox_info **ret_list, size_t *ret_count,
               struct vial_error *err)
{
    struct vial_sandbox_info *list = NULL;
    size_t count = 0, capacity = 0;
    sqlite3_stmt *row = NULL;
    int result = store_query(store, STORE_ALL, &row, err, "");
    for (; result == 1; result = store_next(store, row, err)) {
        if (!has_labels(text_of(row, COLUMN_LABELS), labels))
            continue;
        result = alloc_grow((void **)&list, count, &capacity, sizeof(list[0]), LIMIT_SANDBOXES);
        if (result < 0) {
            store_done(row);
            error_set_os(err, VIAL_PHASE_HOST, result, "cannot list the sandboxes of %s",
                         error_short(store->path).text);
            break;
        }
        read_info(row, &list[count++]);
    }
    if (result < 0) {
        free(list);
        return result;
    }
    store_shorten_log(store);
    *ret_list = list;
    *ret_count = count;
    return 0;
}

int store_rename(struct store *store, const char *id, const char *name, struct vial_error *err)
{
    int result = store_change(store, STORE_RENAME, err, "tt", name, id);
    if (result == -EEXIST)
        return refuse_name_taken(name, err);
    return result == 0 ? refuse_unknown(id, err) : result < 0 ? result : 0;
}

int store_remove(struct store *store, const char *id, struct vial_error *err)
{
    int result = store_begin(store, err);
    if (result < 0)
        return result;
    result = store_change(store, STORE_REMOVE_RUNS, err, "t", id);
    if (result >= 0)
        result = store_change(store, STORE_REMOVE, err, "t", id);
    result = store_finish(store, result < 0 ? result : 0, err);
    if (result == 0)
        store_shorten_log(store);
    return result;
}

/* ---- runs ---- */

static bool is_living(int status)
{
    return status == VIAL_SANDBOX_STARTING || status == VIAL_SANDBOX_RUNNING || status == VIAL_SANDBOX_DRAINING ||
           status == VIAL_SANDBOX_PAUSED;
}

static int end_run(struct store *store, int64_t run, const struct vial_exit *exit, struct vial_error *err)
{
    bool is_crash = exit->reason == VIAL_EXIT_INTERNAL_ERROR || exit->reason == 0;
    int result = store_change(store, STORE_END_RUN, err, "nnntn", (long long)now_ns(), (long long)exit->reason,
                              (long long)exit->code, exit->detail, (long long)run);
    if (result <= 0)
        return result; /* it had ended already, or is gone with its sandbox */
    long long status = is_crash ? VIAL_SANDBOX_CRASHED : VIAL_SANDBOX_STOPPED;
    result = store_change(store, STORE_SET_STATUS, err, "nn", status, (long long)run);
    return result < 0 ? result : 0;
}

/* Inside a transaction. */
static int end_without_word(struct store *store, int64_t run, struct vial_error *err)
{
    struct vial_exit crash = VIAL_EXIT_INIT;
    crash.reason = VIAL_EXIT_INTERNAL_ERROR;
    snprintf(crash.detail, sizeof(crash.detail), "%s", STORE_NO_WORD);
    return end_run(store, run, &crash, err);
}

/* The last run of the sandbox and its status: 0, -ENOENT. */
static int read_last_run(struct store *store, const char *id, int64_t *ret_run, int *ret_status, struct vial_error *err)
{
    sqlite3_stmt *row = NULL;
    int result = store_query(store, STORE_LAST_RUN, &row, err, "t", id);
    if (result <= 0)
        return result < 0 ? result : refuse_unknown(id, err);
    *ret_run = sqlite3_column_int64(row, 0);
    *ret_status = sqlite3_column_int(row, 1);
    store_done(row);
    return 0;
}

/* Whoever begins a run has the sandbox's lock, so an earlier run that has no end has died. */
static int begin_run(struct store *store, const char *id, int pid, int64_t *ret_run, struct vial_error *err)
{
    int64_t last = 0, run = 0;
    int status = 0;
    int result = read_last_run(store, id, &last, &status, err);
    if (result == 0 && is_living(status))
        result = end_without_word(store, last, err);
    if (result >= 0)
        result = store_change(store, STORE_NEW_RUN, err, "tnn", id, (long long)pid, (long long)now_ns());
    if (result < 0)
        return result;
    run = sqlite3_last_insert_rowid(store->database);
    result = store_change(store, STORE_TAKE_RUN, err, "nnt", (long long)run, (long long)VIAL_SANDBOX_STARTING, id);
    if (result < 0)
        return result;
    *ret_run = run;
    return 0;
}

int store_begin_run(struct store *store, const char *id, int pid, int64_t *ret_run, struct vial_error *err)
{
    int64_t run = 0;
    int result = store_begin(store, err);
    if (result < 0)
        return result;
    result = store_finish(store, begin_run(store, id, pid, &run, err), err);
    if (result == 0)
        *ret_run = run;
    return result;
}

static int refuse_run(int64_t run, struct vial_error *err)
{
    int result = error_set(err, VIAL_ERROR_NOT_FOUND, VIAL_PHASE_RUN, "there is no run %lld of a sandbox",
                           (long long)run);
    error_remedy(err, "end: the sandbox was removed, or somebody else runs it now");
    return result;
}

int store_set_engine(struct store *store, int64_t run, int engine, int isolation, struct vial_error *err)
{
    int result = store_change(store, STORE_SET_ENGINE, err, "nnn", (long long)engine, (long long)isolation,
                              (long long)run);
    return result == 0 ? refuse_run(run, err) : result < 0 ? result : 0;
}

/* The arrows between living states. A run that has ended has none. */
static bool may_become(int from, int to)
{
    switch (to) {
    case VIAL_SANDBOX_RUNNING:
        return from == VIAL_SANDBOX_STARTING || from == VIAL_SANDBOX_PAUSED;
    case VIAL_SANDBOX_PAUSED:
        return from == VIAL_SANDBOX_RUNNING;
    case VIAL_SANDBOX_DRAINING:
        return from == VIAL_SANDBOX_STARTING || from == VIAL_SANDBOX_RUNNING || from == VIAL_SANDBOX_PAUSED;
    default:
        return false;
    }
}

static int set_status(struct store *store, int64_t run, int status, struct vial_error *err)
{
    sqlite3_stmt *row = NULL;
    int result = store_query(store, STORE_STATUS_OF, &row, err, "n", (long long)run);
    if (result <= 0)
        return result < 0 ? result : refuse_run(run, err);
    int from = sqlite3_column_int(row, 0);
    store_done(row);
    if (from == status)
        return 0;
    if (!may_become(from, status)) {
        result = error_set(err, VIAL_ERROR_CONFLICT, VIAL_PHASE_RUN, "a sandbox does not go from status %d to %d", from,
                           status);
        error_remedy(err, "see enum vial_sandbox_status for what may follow on what");
        return result;
    }
    result = store_change(store, STORE_SET_STATUS, err, "nn", (long long)status, (long long)run);
    return result < 0 ? result : 0;
}

int store_set_status(struct store *store, int64_t run, int status, struct vial_error *err)
{
    int result = store_begin(store, err);
    return result < 0 ? result : store_finish(store, set_status(store, run, status, err), err);
}

int store_end_run(struct store *store, int64_t run, const struct vial_exit *exit, struct vial_error *err)
{
    int result = store_begin(store, err);
    return result < 0 ? result : store_finish(store, end_run(store, run, exit, err), err);
}

static int crash(struct store *store, const char *id, struct vial_error *err)
{
    int64_t run = 0;
    int status = 0;
    int result = read_last_run(store, id, &run, &status, NULL);
    if (result == -ENOENT)
        return 0;
    return result == 0 && is_living(status) ? end_without_word(store, run, err) : result;
}

int store_crash(struct store *store, const char *id, struct vial_error *err)
{
    int result = store_begin(store, err);
    return result < 0 ? result : store_finish(store, crash(store, id, err), err);
}
