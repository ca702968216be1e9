// SPDX-License-Identifier: Apache-2.0
/* Everything that is known of a sandbox, as JSON; and what it uses, as numbers.
 *
 *     {"id", "name", "status", "reason", "code", "detail", "pid", "engine", "isolation", "created_ns", "started_ns",
 *      "ended_ns", "command", "ephemeral", "labels": {…}, "folder", "spec": spec.json, "stats": stats.json or null}
 *
 * Both come from files and the store, so a process that is stopped cannot hold us.
 *
 * Invariants: (1) without memory nothing is returned. (2) numbers that are missing are 0.
 *
 * Trust: files of the home are our own processes' word; what of it comes from a guest (its memory, its detail) is as
 * true as the guest.
 */
#include "sandbox/library.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/text.h"
#include "base/thread.h"
#include "vmm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* A JSON file of the sandbox's folder, or NULL. */
static json_t *read_json(const struct vial_sandbox *sandbox, const char *name)
{
    auto_buffer struct buffer text = BUFFER_INIT(LIMIT_CONFIG_FILE_BYTES);
    json_t *document = NULL;
    struct vial_error why;
    auto_close int fd = openat(sandbox->folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fd_read_all(fd, &text) < 0 || text.length == 0)
        return NULL;
    return json_parse(text.data, text.length, &document, &why) < 0 ? NULL : document;
}

/* What cannot be read has the grace of one that was created without saying any. */
uint64_t sandbox_own_grace_ms(const struct vial_sandbox *sandbox)
{
    const struct vial_sandbox_options usual = VIAL_SANDBOX_OPTIONS_INIT;
    auto_json json_t *spec = read_json(sandbox, "spec.json");
    const json_t *grace = json_object_get(spec, "stop_grace_ms");
    return json_is_integer(grace) && json_integer_value(grace) >= 0 ? (uint64_t)json_integer_value(grace)
                                                                    : usual.stop_grace_ms;
}

/* ---- inspect ---- */

struct dump {
    json_t *object;
    bool has_failed;
};

static void put(struct dump *dump, const char *key, json_t *value)
{
    if (json_object_set_new(dump->object, key, value != NULL ? value : json_null()) < 0)
        dump->has_failed = true;
}

/* Bytes that are not UTF-8 as \xNN. */
static void put_text(struct dump *dump, const char *key, const char *text)
{
    char escaped[4 * VIAL_EXIT_DETAIL_SIZE + 1];
    json_t *value = json_string(text);
    if (value == NULL) {
        text_escape(escaped, sizeof(escaped), text, strlen(text), "");
        value = json_string(escaped);
    }
    dump->has_failed = dump->has_failed || value == NULL;
    put(dump, key, value);
}

static void put_number(struct dump *dump, const char *key, uint64_t number)
{
    put(dump, key, json_integer((json_int_t)number));
}

static void put_info(struct dump *dump, const struct vial_sandbox_info *info)
{
    put_text(dump, "id", info->id);
    put_text(dump, "name", info->name);
    put_text(dump, "status", vial_sandbox_status_name(info->status));
    put(dump, "reason", info->reason != 0 ? json_string(vial_exit_reason_name(info->reason)) : NULL);
    put_number(dump, "code", (uint64_t)info->code);
    put_text(dump, "detail", info->detail);
    put_number(dump, "pid", (uint64_t)info->pid);
    put(dump, "engine", info->engine != 0 ? json_string(vial_engine_name(info->engine)) : NULL);
    put(dump, "isolation", info->isolation != 0 ? json_string(vial_isolation_name(info->isolation)) : NULL);
    put_number(dump, "created_ns", info->created_ns);
    put_number(dump, "started_ns", info->started_ns);
    put_number(dump, "ended_ns", info->ended_ns);
    put_text(dump, "command", info->command);
    put(dump, "ephemeral", json_boolean(info->ephemeral));
}

static void put_labels(struct dump *dump, const char *text)
{
    json_t *labels = NULL;
    struct vial_error why;
    if (json_parse(text, strlen(text), &labels, &why) < 0)
        labels = json_object();
    put(dump, "labels", labels);
}

int vial_sandbox_inspect(struct vial_sandbox *sandbox, char **ret_json, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    auto_free char *labels = NULL;
    char folder[HOME_PATH_BYTES + 64];
    int result = sandbox_read(sandbox, &info, err);
    if (result < 0)
        return result;
    pthread_mutex_lock(&sandbox->home->lock);
    result = store_labels(sandbox->home->store, sandbox->id, &labels, err);
    pthread_mutex_unlock(&sandbox->home->lock);
    if (result < 0)
        return result;
    auto_json json_t *object = json_object();
    struct dump dump = {.object = object};
    snprintf(folder, sizeof(folder), "%s/sandboxes/%s", sandbox->home->home.path, sandbox->id);
    put_info(&dump, &info);
    put_labels(&dump, labels);
    put_text(&dump, "folder", folder);
    put(&dump, "spec", read_json(sandbox, "spec.json"));
    put(&dump, "stats", sandbox_status_lives(info.status) ? read_json(sandbox, "stats.json") : NULL);
    char *text = dump.has_failed ? NULL : json_dumps(object, JSON_INDENT(2));
    if (text == NULL)
        return error_no_memory(err, VIAL_PHASE_RUN);
    *ret_json = text;
    return 0;
}

/* ---- stats ---- */

static const struct {
    const char *key;
    size_t offset;
} numbers[] = {
    {"uptime_ns", offsetof(struct vial_sandbox_stats, uptime_ns)},
    {"cpu_ns", offsetof(struct vial_sandbox_stats, cpu_ns)},
    {"memory_bytes", offsetof(struct vial_sandbox_stats, memory_bytes)},
    {"guest_total_bytes", offsetof(struct vial_sandbox_stats, guest_total_bytes)},
    {"guest_available_bytes", offsetof(struct vial_sandbox_stats, guest_available_bytes)},
    {"balloon_bytes", offsetof(struct vial_sandbox_stats, balloon_bytes)},
    {"disk_read_bytes", offsetof(struct vial_sandbox_stats, disk_read_bytes)},
    {"disk_written_bytes", offsetof(struct vial_sandbox_stats, disk_written_bytes)},
    {"network_received_bytes", offsetof(struct vial_sandbox_stats, network_received_bytes)},
    {"network_sent_bytes", offsetof(struct vial_sandbox_stats, network_sent_bytes)},
    {"sessions", offsetof(struct vial_sandbox_stats, sessions)},
    {"processes", offsetof(struct vial_sandbox_stats, processes)},
};

int vial_sandbox_get_stats(struct vial_sandbox *sandbox, struct vial_sandbox_stats *ret_stats, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct vial_sandbox_stats stats = VIAL_SANDBOX_STATS_INIT;
    int result = vm_check_result(ret_stats, "VIAL_SANDBOX_STATS_INIT", err);
    if (result < 0)
        return result;
    if (home_sandbox_lives(sandbox->folder) != 1) {
        error_set(err, VIAL_ERROR_OS, VIAL_PHASE_RUN, "sandbox \"%s\" does not run", sandbox_name(sandbox).text);
        error_remedy(err, "start it first (vial start)");
        return client_errno(err, ESRCH);
    }
    auto_json json_t *object = read_json(sandbox, "stats.json"); /* none in its first second: all are 0 */
    for (size_t i = 0; i < array_length(numbers); i++) {
        json_int_t number = json_integer_value(json_object_get(object, numbers[i].key));
        memcpy((char *)&stats + numbers[i].offset, &number, sizeof(number));
    }
    vm_give_result(ret_stats, &stats, sizeof(stats));
    return 0;
}
