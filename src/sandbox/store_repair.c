// SPDX-License-Identifier: Apache-2.0
/* Healing what crashes have left in a home, at any moment, while others create, start, end and repair.
 *
 *     what is found                                 what it means                          what is done
 *     a living status, nobody has its lock          its process has died                   Crashed; its socket goes
 *     the same, or an end, of an ephemeral one      nobody was left to remove it           its folder and row go
 *     an ephemeral one, claimed, never started      its maker has died before the start    the same
 *     an ephemeral one, never started, a day old    it was forgotten                       the same
 *     a row without its folder                      a removal that stopped half-way        the row goes
 *     a folder without its row, its maker gone      a creation that stopped half-way       the folder goes
 *     a folder named ID.gone                        a removal that stopped half-way        the rest of it goes
 *
 * Order makes this safe. A sandbox's folder exists before its row, and is locked by its maker until the row is there;
 * it goes before or after its row. So a row whose folder is not there any more, when it is looked for after the row was
 * read, is being removed. Folders are listed after rows: one without a row is either new, and its maker has its lock or
 * has added the row by the time that lock is free, or a leftover.
 *
 * What is changed about a sandbox is changed under its guard (home_sandbox_guard), which makes starts wait, and its
 * status is looked at anew under it.
 *
 * Invariants: (1) nothing that lives, is being made or is being started is touched. (2) repairing twice, or by two
 * processes at once, does the same as once.
 *
 * Trust: names of folders may be anything; those that are neither ID nor ID.gone are not ours and stay.
 */
#include "sandbox/store_state.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint64_t forgotten_ns = UINT64_C(24) * 3600 * CLOCK_NS_PER_S;

struct repair {
    struct store *store;
    const struct home *home;
    struct vial_sandbox_info *list; /* owned; by id */
    size_t count;
    int repaired;
};

static bool should_live(const struct vial_sandbox_info *info)
{
    return info->status == VIAL_SANDBOX_STARTING || info->status == VIAL_SANDBOX_RUNNING ||
           info->status == VIAL_SANDBOX_DRAINING || info->status == VIAL_SANDBOX_PAUSED;
}

/* Whether an ephemeral one stands for nothing any more. */
static bool is_over(const struct vial_sandbox_info *info, int folder)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (info->status == VIAL_SANDBOX_CREATED)
        return clock_from_timespec(&now) > info->created_ns + forgotten_ns || home_sandbox_is_orphan(folder) == 1;
    return info->status == VIAL_SANDBOX_STOPPED || info->status == VIAL_SANDBOX_CRASHED;
}

static int remove_all(struct repair *repair, const char *id, struct vial_error *err)
{
    int result = home_sandbox_remove(repair->home, id);
    if (result < 0) {
        result = error_set_os(err, VIAL_PHASE_HOST, result, "cannot remove what is left of the sandbox %s", id);
        error_remedy(err, "remove its folder by hand, below %s/sandboxes", error_short(repair->home->path).text);
        return result;
    }
    return store_remove(repair->store, id, err);
}

/* With the reason of an end, which is all that is left of an ephemeral one to who waits for it. */
static void tell_crash(struct repair *repair, const struct vial_sandbox_info *info)
{
    char members[128];
    snprintf(members, sizeof(members), ", \"reason\": \"%s\", \"code\": 0, \"detail\": \"" STORE_NO_WORD "\"",
             vial_exit_reason_name(VIAL_EXIT_INTERNAL_ERROR));
    log_warn("sandbox.crashed", LOG_TEXT("id", info->id), LOG_TEXT("name", info->name), LOG_INT("pid", info->pid));
    home_event(repair->home, "crash", info->id, info->name, members);
}

/* Under the guard: what was read before may have changed. */
static int repair_guarded(struct repair *repair, int folder, const char *id, struct vial_error *err)
{
    struct vial_sandbox_info info;
    int result = store_read(repair->store, id, &info, err);
    if (result <= 0)
        return result;
    result = 0;
    bool has_crashed = should_live(&info);
    if (has_crashed) {
        result = store_crash(repair->store, id, err);
        if (result < 0)
            return result;
        unlinkat(folder, "relay.sock", 0);
        info.status = VIAL_SANDBOX_CRASHED;
        tell_crash(repair, &info);
    }
    bool is_leftover = info.ephemeral && is_over(&info, folder);
    if (is_leftover)
        result = remove_all(repair, id, err);
    if (result == 0 && (has_crashed || is_leftover))
        repair->repaired++;
    return result;
}

static int repair_one(struct repair *repair, const struct vial_sandbox_info *info, struct vial_error *err)
{
    auto_close int folder = home_sandbox_open(repair->home, info->id);
    if (folder == -ENOENT) {
        int result = store_remove(repair->store, info->id, err);
        repair->repaired += result == 0;
        return result;
    }
    if (folder < 0 || !(should_live(info) || (info->ephemeral && is_over(info, folder))))
        return 0;
    auto_close int guard = home_sandbox_guard(folder);
    return guard < 0 ? 0 : repair_guarded(repair, folder, info->id, err);
}

/* ---- folders that no row knows ---- */

static int compare_ids(const void *a, const void *b)
{
    return strcmp(((const struct vial_sandbox_info *)a)->id, ((const struct vial_sandbox_info *)b)->id);
}

static bool is_listed(const struct repair *repair, const char *id)
{
    struct vial_sandbox_info key = {.size = sizeof(key)};
    memcpy(key.id, id, strlen(id) + 1);
    return repair->count > 0 && bsearch(&key, repair->list, repair->count, sizeof(key), compare_ids) != NULL;
}

/* "ID" or "ID.gone": its id; false for anything else. */
static bool read_name(const char *name, char ret_id[SANDBOX_ID_BYTES], bool *ret_is_gone)
{
    size_t length = strcspn(name, ".");
    if (length >= SANDBOX_ID_BYTES)
        return false;
    memcpy(ret_id, name, length);
    ret_id[length] = '\0';
    *ret_is_gone = strcmp(name + length, HOME_GONE) == 0;
    return home_is_id(ret_id) && (*ret_is_gone || name[length] == '\0');
}

static int repair_folder(struct repair *repair, const char *name, struct vial_error *err)
{
    char id[SANDBOX_ID_BYTES];
    bool is_gone = false;
    struct vial_sandbox_info info;
    if (!read_name(name, id, &is_gone) || (!is_gone && is_listed(repair, id)))
        return 0;
    if (!is_gone) {
        if (home_sandbox_is_abandoned(repair->home, id) != 1)
            return 0;
        int found = store_read(repair->store, id, &info, err); /* its maker may just have added it */
        if (found != 0)
            return found < 0 ? found : 0;
    }
    int result = home_sandbox_remove(repair->home, id);
    if (result < 0)
        return error_set_os(err, VIAL_PHASE_HOST, result, "cannot remove what is left of the sandbox %s", id);
    repair->repaired++;
    return 0;
}

static int repair_folders(struct repair *repair, struct vial_error *err)
{
    auto_close int fd = home_sandboxes_open(repair->home);
    DIR *list = fd >= 0 ? fdopendir(fd) : NULL;
    if (list == NULL)
        return error_set_os(err, VIAL_PHASE_HOST, fd < 0 ? fd : errno, "cannot list the sandboxes of %s",
                            error_short(repair->home->path).text);
    (void)steal_fd(&fd); /* which the list has now */
    int result = 0;
    for (const struct dirent *entry = readdir(list); entry != NULL && result == 0; entry = readdir(list))
        result = repair_folder(repair, entry->d_name, err);
    closedir(list);
    return result;
}

int store_repair(struct store *store, const struct home *home, struct vial_error *err)
{
    struct repair repair = {.store = store, .home = home};
    int result = store_list(store, NULL, &repair.list, &repair.count, err);
    if (result < 0)
        return result;
    for (size_t i = 0; i < repair.count && result == 0; i++)
        result = repair_one(&repair, &repair.list[i], err);
    if (repair.count > 0)
        qsort(repair.list, repair.count, sizeof(repair.list[0]), compare_ids);
    if (result == 0)
        result = repair_folders(&repair, err);
    free(repair.list);
    return result < 0 ? result : repair.repaired;
}
