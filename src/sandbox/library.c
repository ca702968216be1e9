// SPDX-License-Identifier: Apache-2.0
/* Homes and sandboxes as handles: what is known of them, made, found, renamed and removed.
 *
 * A handle holds an id and a descriptor of the sandbox's folder, which stay the same whatever is renamed, and even when
 * another program removes the sandbox. Everything else is asked for when it is wanted.
 *
 *     create:  spec ── folder, locked by us ── spec.json, scripts ── claim, if ephemeral ── row ── (unlocked)
 *     start:   (library_run.c) its process runs ── the claim is dropped
 *     remove:  guard: nobody starts it ── row ── folder
 *
 * Whatever crashes in between, the folder without a row or the row without a folder is a leftover that store_repair
 * knows.
 *
 * On a full disk the store can only be read. Then what it says is corrected where it is told and not where it is kept,
 * and removing begins with the folder, which makes room; what needs room fails and says so.
 *
 * Invariants: (1) the store is used by one thread at a time, under the home's lock. (2) a home lives as long as its
 * last sandbox handle. (3) a status is told only when it agrees with the sandbox's lock.
 *
 * Trust: options are the caller's; the home's files are its user's, as home_open has checked.
 */
#include "sandbox/library.h"
#include "sandbox/library_end.h"
#include "sandbox/spawn.h"
#include "sandbox/spec.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/thread.h"
#include "vmm/configure.h"
#include "vmm/vm.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

enum { name_tries = 16, remove_most_ms = 30000 };

int sandbox_refuse(const char *field, const char *why, const char *remedy, struct vial_error *err)
{
    int result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_CONFIGURE, "%s", why);
    error_field(err, "%s", field);
    error_remedy(err, "%s", remedy);
    return result;
}

/* ---- homes ---- */

static struct vial_home *home_release(struct vial_home *home)
{
    if (home == NULL || atomic_fetch_sub(&home->references, 1) > 1)
        return NULL;
    store_free(home->store);
    home_close(&home->home);
    pthread_mutex_destroy(&home->lock);
    free(home->runtime);
    free(home);
    return NULL;
}

int vial_home_open(const char *path, struct vial_home **ret_home, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct vial_home *home = alloc_zero(sizeof(*home));
    if (home == NULL)
        return error_no_memory(err, VIAL_PHASE_HOST);
    int result = home_open(path, &home->home, err);
    if (result < 0) {
        free(home);
        return result;
    }
    atomic_init(&home->references, 1);
    pthread_mutex_init(&home->lock, NULL);
    result = store_open(&home->home, &home->store, err);
    if (result == 0)
        result = store_repair(home->store, &home->home, err);
    if (result < 0 && result != -ENOSPC) { /* on a full disk things can be looked at, stopped and removed */
        home_release(home);
        return result;
    }
    *ret_home = home;
    return 0;
}

struct vial_home *vial_home_free(struct vial_home *home)
{
    THREAD_DEFER_CANCEL();
    return home_release(home);
}

int vial_home_set_runtime(struct vial_home *home, const char *path, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    char *copy = path != NULL ? alloc_string(path) : NULL;
    if (path != NULL && copy == NULL)
        return error_no_memory(err, VIAL_PHASE_CONFIGURE);
    pthread_mutex_lock(&home->lock);
    char *before = home->runtime;
    home->runtime = copy;
    pthread_mutex_unlock(&home->lock);
    free(before);
    return 0;
}

/* ---- handles of sandboxes ---- */

struct sandbox_name sandbox_name(struct vial_sandbox *sandbox)
{
    struct sandbox_name name;
    pthread_mutex_lock(&sandbox->lock);
    memcpy(name.text, sandbox->name, sizeof(name.text));
    pthread_mutex_unlock(&sandbox->lock);
    return name;
}

static void set_name(struct vial_sandbox *sandbox, const char *name)
{
    pthread_mutex_lock(&sandbox->lock);
    snprintf(sandbox->name, sizeof(sandbox->name), "%s", name);
    pthread_mutex_unlock(&sandbox->lock);
}

int sandbox_new(struct vial_home *home, const struct vial_sandbox_info *info, int folder,
                struct vial_sandbox **ret_sandbox, struct vial_error *err)
{
    struct vial_sandbox *sandbox = alloc_zero(sizeof(*sandbox));
    if (sandbox == NULL) {
        fd_close(folder);
        return error_no_memory(err, VIAL_PHASE_RUN);
    }
    sandbox->home = home;
    atomic_fetch_add(&home->references, 1);
    sandbox->folder = folder;
    sandbox->claim = -1;
    pthread_mutex_init(&sandbox->lock, NULL);
    memcpy(sandbox->id, info->id, sizeof(sandbox->id));
    memcpy(sandbox->name, info->name, sizeof(sandbox->name));
    *ret_sandbox = sandbox;
    return 0;
}

void sandbox_drop_claim(struct vial_sandbox *sandbox)
{
    pthread_mutex_lock(&sandbox->lock);
    int claim = steal_fd(&sandbox->claim);
    pthread_mutex_unlock(&sandbox->lock);
    home_sandbox_drop_claim(sandbox->folder, claim);
}

struct vial_sandbox *vial_sandbox_free(struct vial_sandbox *sandbox)
{
    THREAD_DEFER_CANCEL();
    if (sandbox == NULL)
        return NULL;
    sandbox_drop_claim(sandbox);
    fd_close(sandbox->folder);
    pthread_mutex_destroy(&sandbox->lock);
    home_release(sandbox->home);
    free(sandbox);
    return NULL;
}

static int find(struct vial_home *home, const char *name, struct vial_sandbox_info *ret_info, struct vial_error *err)
{
    pthread_mutex_lock(&home->lock);
    int result = store_find(home->store, name, ret_info, err);
    pthread_mutex_unlock(&home->lock);
    return result;
}

int vial_sandbox_open(struct vial_home *home, const char *name, struct vial_sandbox **ret_sandbox,
                      struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    if (name == NULL || name[0] == '\0')
        return sandbox_refuse("name", "no sandbox is named", "give a name or an id", err);
    int result = find(home, name, &info, err);
    if (result < 0)
        return result;
    int folder = home_sandbox_open(&home->home, info.id);
    if (folder < 0)
        return error_set_os(err, VIAL_PHASE_RUN, folder, "cannot open the folder of sandbox \"%s\"", info.name);
    return sandbox_new(home, &info, folder, ret_sandbox, err);
}

/* ---- creating ---- */

static int remove_other(struct vial_home *home, const char *name, uint64_t grace_ms, struct vial_error *err)
{
    struct vial_sandbox *other = NULL;
    struct vial_error why;
    int result = name != NULL ? vial_sandbox_open(home, name, &other, &why) : -ENOENT;
    if (result < 0)
        return 0; /* what keeps us from finding it will keep us from adding one, and is told then */
    if (strcmp(other->name, name) == 0) { /* and not by its id */
        vial_sandbox_stop(other, grace_ms, grace_ms + remove_most_ms, &why);
        result = vial_sandbox_remove(other, true, err);
    }
    vial_sandbox_free(other);
    return result;
}

/* The folder's descriptor is held until the row is there: so long it is locked, and no leftover to anybody. From then
 * on an ephemeral one is kept by its claim. */
static int add(struct vial_home *home, const struct spec *spec, const struct vial_sandbox_options *options,
               struct vial_sandbox_info *info, int *ret_claim, struct vial_error *err)
{
    auto_close int claim = -1;
    auto_close int folder = home_sandbox_make(&home->home, spec->id);
    if (folder < 0)
        return error_set_os(err, VIAL_PHASE_CONFIGURE, folder, "cannot make the folder of sandbox \"%s\"", spec->name);
    memcpy(info->id, spec->id, sizeof(info->id));
    memcpy(info->name, spec->name, sizeof(info->name));
    info->ephemeral = spec->ephemeral;
    spec_command_text(spec, info->command, sizeof(info->command));
    int result = spec_write(spec, options, folder, err);
    if (result == 0 && spec->ephemeral)
        claim = home_sandbox_claim(folder);
    if (result == 0 && spec->ephemeral && claim < 0)
        result = error_set_os(err, VIAL_PHASE_CONFIGURE, claim, "cannot claim sandbox \"%s\"", spec->name);
    if (result == 0) {
        pthread_mutex_lock(&home->lock);
        result = store_add(home->store, info, (const char *const *)spec->labels, err);
        pthread_mutex_unlock(&home->lock);
    }
    if (result < 0)
        home_sandbox_remove(&home->home, spec->id);
    else
        *ret_claim = steal_fd(&claim);
    return result;
}

/* A handle for what was added, or nothing of it stays. */
static int hand_over(struct vial_home *home, const struct vial_sandbox_info *info, int claim,
                     struct vial_sandbox **ret_sandbox, struct vial_error *err)
{
    struct vial_error why;
    int folder = home_sandbox_open(&home->home, info->id);
    int result = folder < 0
                     ? error_set_os(err, VIAL_PHASE_RUN, folder, "cannot open the folder of sandbox \"%s\"", info->name)
                     : sandbox_new(home, info, folder, ret_sandbox, err);
    if (result == 0) {
        (*ret_sandbox)->claim = claim;
        home_event(&home->home, "create", info->id, info->name, "");
        return 0;
    }
    pthread_mutex_lock(&home->lock);
    if (store_remove(home->store, info->id, &why) == 0)
        home_sandbox_remove(&home->home, info->id);
    pthread_mutex_unlock(&home->lock);
    fd_close(claim);
    return result;
}

static int take_options(const struct vial_sandbox_options *options, struct vial_sandbox_options *ours,
                        struct vial_error *err)
{
    int result = config_take_sized(ours, sizeof(*ours), options, err);
    return result < 0 ? result : config_check_reserved(ours->reserved, sizeof(ours->reserved), err);
}

int vial_sandbox_create(struct vial_home *home, const struct vial_sandbox_options *options,
                        struct vial_sandbox **ret_sandbox, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct vial_sandbox_options ours = VIAL_SANDBOX_OPTIONS_INIT;
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    int claim = -1, result = take_options(options, &ours, err);
    if (result == 0 && ours.replace)
        result = remove_other(home, ours.name, ours.stop_grace_ms, err);
    for (int i = 0; result == 0 || (result == -EEXIST && ours.name == NULL); i++) {
        struct spec spec = {0};
        result = spec_from_options(&ours, &spec, err); /* makes up a name where there is none */
        if (result == 0)
            result = add(home, &spec, &ours, &info, &claim, err);
        bool is_over = result != -EEXIST || i >= name_tries;
        spec_free(&spec);
        if (is_over)
            break;
    }
    return result < 0 ? result : hand_over(home, &info, claim, ret_sandbox, err);
}

/* ---- knowing ---- */

bool sandbox_status_lives(int status)
{
    return status == VIAL_SANDBOX_STARTING || status == VIAL_SANDBOX_RUNNING || status == VIAL_SANDBOX_DRAINING ||
           status == VIAL_SANDBOX_PAUSED;
}

static int repair(struct vial_home *home, struct vial_error *err)
{
    pthread_mutex_lock(&home->lock);
    int result = store_repair(home->store, &home->home, err);
    pthread_mutex_unlock(&home->lock);
    return result < 0 ? result : 0;
}

/* What a repair would have written down, on a disk that has no room for it. */
static void amend(struct vial_sandbox_info *info)
{
    info->status = VIAL_SANDBOX_CRASHED;
    info->reason = VIAL_EXIT_INTERNAL_ERROR;
    info->pid = 0;
    snprintf(info->detail, sizeof(info->detail), "%s", STORE_NO_WORD);
}

/* All of them; false for one that is gone. */
static bool amend_listed(struct vial_home *home, struct vial_sandbox_info *info)
{
    auto_close int folder = home_sandbox_open(&home->home, info->id);
    if (folder >= 0 && sandbox_status_lives(info->status) && home_sandbox_lives(folder) == 0)
        amend(info);
    return folder != -ENOENT;
}

int sandbox_read(struct vial_sandbox *sandbox, struct vial_sandbox_info *ret_info, struct vial_error *err)
{
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    int result = find(sandbox->home, sandbox->id, &info, err);
    if (result == 0 && sandbox_status_lives(info.status) && home_sandbox_lives(sandbox->folder) == 0) {
        result = repair(sandbox->home, err);
        if (result == 0)
            result = find(sandbox->home, sandbox->id, &info, err);
        else if (result == -ENOSPC)
            amend(&info);
        result = result == -ENOSPC ? 0 : result;
    }
    if (result < 0)
        return result;
    set_name(sandbox, info.name);
    *ret_info = info;
    return 0;
}

int vial_sandbox_get_info(struct vial_sandbox *sandbox, struct vial_sandbox_info *ret_info, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    int result = vm_check_result(ret_info, "VIAL_SANDBOX_INFO_INIT", err);
    if (result == 0)
        result = sandbox_read(sandbox, &info, err);
    if (result == 0)
        vm_give_result(ret_info, &info, sizeof(info));
    return result;
}

int vial_sandbox_list(struct vial_home *home, const char *const *labels, struct vial_sandbox_info **ret_list,
                      size_t *ret_count, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct vial_sandbox_info *list = NULL;
    size_t count = 0, kept = 0;
    int repaired = repair(home, err);
    if (repaired < 0 && repaired != -ENOSPC)
        return repaired;
    pthread_mutex_lock(&home->lock);
    int result = store_list(home->store, labels, &list, &count, err);
    pthread_mutex_unlock(&home->lock);
    if (result < 0)
        return result;
    for (size_t i = 0; i < count; i++)
        if (repaired == 0 || amend_listed(home, &list[i]))
            list[kept++] = list[i];
    *ret_list = list;
    *ret_count = kept;
    return 0;
}

const char *vial_sandbox_status_name(int status)
{
    static const char *const names[] = {
        [VIAL_SANDBOX_CREATED] = "created",   [VIAL_SANDBOX_STARTING] = "starting", [VIAL_SANDBOX_RUNNING] = "running",
        [VIAL_SANDBOX_DRAINING] = "draining", [VIAL_SANDBOX_PAUSED] = "paused",     [VIAL_SANDBOX_STOPPED] = "stopped",
        [VIAL_SANDBOX_CRASHED] = "crashed",
    };
    bool is_known = status > 0 && (size_t)status < array_length(names);
    return is_known ? names[status] : "unknown";
}

/* ---- changing ---- */

void sandbox_event(struct vial_sandbox *sandbox, const char *kind, const char *members)
{
    home_event(&sandbox->home->home, kind, sandbox->id, sandbox_name(sandbox).text, members);
}

int vial_sandbox_rename(struct vial_sandbox *sandbox, const char *name, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    if (name == NULL || !spec_is_name(name))
        return sandbox_refuse("name", "that is not a name for a sandbox",
                              "use letters, digits and \"_.-\", beginning with a letter or digit, up to 63", err);
    struct vial_error why;
    struct sandbox_name before = sandbox_name(sandbox);
    pthread_mutex_lock(&sandbox->home->lock);
    int result = store_rename(sandbox->home->store, sandbox->id, name, err);
    if (result == 0)
        result = spec_rename(sandbox->folder, name, err);
    if (result < 0 && result != -EEXIST && result != -ENOENT)
        store_rename(sandbox->home->store, sandbox->id, before.text, &why);
    pthread_mutex_unlock(&sandbox->home->lock);
    if (result < 0)
        return result;
    set_name(sandbox, name);
    sandbox_event(sandbox, "rename", "");
    return 0;
}

static int fail_busy(struct vial_sandbox *sandbox, struct vial_error *err)
{
    error_set(err, VIAL_ERROR_CONFLICT, VIAL_PHASE_RUN, "sandbox \"%s\" is running", sandbox_name(sandbox).text);
    error_remedy(err, "stop it first, or have it killed (vial rm --force)");
    return client_errno(err, EBUSY);
}

/* One step towards the guard, when somebody was in the way: its process, or for a moment another start, repair or
 * removal. */
static int clear_way(struct vial_sandbox *sandbox, bool kill, uint64_t deadline_ns, struct vial_error *err)
{
    int result = home_sandbox_lives(sandbox->folder);
    if (result == 1)
        return kill ? vial_sandbox_kill(sandbox, remove_most_ms, err) : fail_busy(sandbox, err);
    if (result == 0)
        result = sandbox_wait_change(sandbox, deadline_ns);
    if (result < 0 && result != -ENOENT)
        error_set_os(err, VIAL_PHASE_RUN, result, "cannot lock sandbox \"%s\"", sandbox_name(sandbox).text);
    return result;
}

/* Keeps it from being started until the descriptor is closed; -ENOENT when its folder is gone. */
static int guard(struct vial_sandbox *sandbox, bool kill, struct vial_error *err)
{
    uint64_t deadline_ns = clock_deadline_ns(remove_most_ms * CLOCK_NS_PER_MS);
    for (;;) {
        int held = home_sandbox_guard(sandbox->folder);
        if (held >= 0 || held == -ENOENT)
            return held;
        if (held != -EWOULDBLOCK)
            return error_set_os(err, VIAL_PHASE_RUN, held, "cannot lock sandbox \"%s\"", sandbox_name(sandbox).text);
        int result = clock_now_ns() < deadline_ns ? clear_way(sandbox, kill, deadline_ns, err)
                                                  : fail_busy(sandbox, err);
        if (result < 0)
            return result;
    }
}

static int fail_remove(struct vial_sandbox *sandbox, int result, struct vial_error *err)
{
    return error_set_os(err, VIAL_PHASE_RUN, result, "cannot remove the folder of sandbox \"%s\"",
                        sandbox_name(sandbox).text);
}

/* The database has no room to forget it, so its folder makes some. A row without a folder is removed by whoever
 * repairs, should that not be enough. */
static int remove_on_full_disk(struct vial_sandbox *sandbox, struct vial_error *err)
{
    struct vial_error why;
    int result = home_sandbox_remove(&sandbox->home->home, sandbox->id);
    if (result < 0)
        return fail_remove(sandbox, result, err);
    pthread_mutex_lock(&sandbox->home->lock);
    store_remove(sandbox->home->store, sandbox->id, &why);
    pthread_mutex_unlock(&sandbox->home->lock);
    sandbox_event(sandbox, "remove", "");
    return 0;
}

int vial_sandbox_remove(struct vial_sandbox *sandbox, bool kill, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    auto_close int held = guard(sandbox, kill, err);
    if (held < 0 && held != -ENOENT)
        return held;
    pthread_mutex_lock(&sandbox->home->lock);
    int result = store_remove(sandbox->home->store, sandbox->id, err);
    pthread_mutex_unlock(&sandbox->home->lock);
    if (result == -ENOSPC && held >= 0)
        return remove_on_full_disk(sandbox, err);
    if (result < 0 && result != -ENOENT) /* an ephemeral one may have removed itself */
        return result;
    if (result == 0 && held >= 0) /* else somebody else has removed it, and told so */
        sandbox_event(sandbox, "remove", "");
    result = home_sandbox_remove(&sandbox->home->home, sandbox->id);
    return result < 0 ? fail_remove(sandbox, result, err) : 0;
}
