// SPDX-License-Identifier: Apache-2.0
/* Tests of what is known of sandboxes: names, lists, runs along their arrows, damage, and repair while others create,
 * start, end and are killed. */
#include "test.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/limits.h"
#include "sandbox/store_state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct vial_error err;

static struct home open_home(void)
{
    char path[HOME_PATH_BYTES];
    struct home home = {.fd = -1};
    snprintf(path, sizeof(path), "%s/home", test_folder());
    if (home_open(path, &home, &err) < 0)
        abort();
    return home;
}

static struct store *open_store(const struct home *home)
{
    struct store *store = NULL;
    if (store_open(home, &store, &err) < 0) {
        printf("# %s\n", err.message);
        abort();
    }
    return store;
}

static struct vial_sandbox_info info_of(const char *id, const char *name, bool ephemeral)
{
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    snprintf(info.id, sizeof(info.id), "%s", id);
    snprintf(info.name, sizeof(info.name), "%s", name);
    snprintf(info.command, sizeof(info.command), "sleep 1");
    info.ephemeral = ephemeral;
    return info;
}

static int add(struct store *store, const char *id, const char *name, bool ephemeral)
{
    struct vial_sandbox_info info = info_of(id, name, ephemeral);
    return store_add(store, &info, NULL, &err);
}

/* As the library does it. */
static int create(const struct home *home, struct store *store, const char *id, const char *name, bool ephemeral)
{
    auto_close int folder = home_sandbox_make(home, id);
    return folder < 0 ? folder : add(store, id, name, ephemeral);
}

static int status_of(struct store *store, const char *name)
{
    struct vial_sandbox_info info;
    int result = store_find(store, name, &info, &err);
    return result < 0 ? result : info.status;
}

static size_t count_of(struct store *store, const char *const *labels)
{
    struct vial_sandbox_info *list = NULL;
    size_t count = SIZE_MAX;
    if (store_list(store, labels, &list, &count, &err) < 0)
        abort();
    free(list);
    return count;
}

static size_t folders_of(const struct home *home)
{
    size_t count = 0;
    DIR *list = fdopendir(home_sandboxes_open(home));
    for (const struct dirent *entry = readdir(list); entry != NULL; entry = readdir(list))
        count += entry->d_name[0] != '.';
    closedir(list);
    return count;
}

static const char id[] = "00aa00000001", second[] = "00ab00000002", third[] = "ffff00000003";

/* ---- sandboxes ---- */

TEST(what_is_added_is_found)
{
    struct home home = open_home();
    struct store *store = open_store(&home);
    struct vial_sandbox_info info;
    CHECK_INT(add(store, id, "web", true), 0);
    CHECK_INT(add(store, second, "db", false), 0);
    CHECK_INT(store_find(store, "web", &info, &err), 0);
    CHECK_TEXT(info.id, id);
    CHECK_TEXT(info.command, "sleep 1");
    CHECK(info.ephemeral && info.status == VIAL_SANDBOX_CREATED && info.created_ns > 0);
    CHECK(info.size == sizeof(info) && info.pid == 0 && info.started_ns == 0 && info.reason == 0);
    CHECK_INT(store_find(store, second, &info, &err), 0);
    CHECK_TEXT(info.name, "db");
    CHECK_INT(store_find(store, "00aa", &info, &err), 0);
    CHECK_TEXT(info.id, id);
    CHECK_INT(store_find(store, "00a", &info, &err), -ENOTUNIQ);
    CHECK_INT(store_find(store, "", &info, &err), -ENOENT);
    CHECK_INT(store_find(store, "we", &info, &err), -ENOENT);
    CHECK_INT(store_find(store, "x' OR '1'='1", &info, &err), -ENOENT);
    CHECK(err.message[0] != '\0' && err.remedy[0] != '\0');
    store_free(store);
    home_close(&home);
}

TEST(a_name_belongs_to_one)
{
    struct home home = open_home();
    struct store *store = open_store(&home), *other = open_store(&home);
    CHECK_INT(add(store, id, "web", false), 0);
    CHECK_INT(add(other, second, "web", false), -EEXIST);
    CHECK_TEXT(err.field, "name");
    CHECK_INT(add(other, second, "db", false), 0);
    CHECK_INT(store_rename(store, second, "web", &err), -EEXIST);
    CHECK_INT(store_rename(store, second, "cache", &err), 0);
    CHECK_INT(store_rename(store, third, "cache2", &err), -ENOENT);
    CHECK_INT(status_of(other, "db"), -ENOENT);
    CHECK_INT(status_of(other, "cache"), VIAL_SANDBOX_CREATED);
    CHECK_INT(store_remove(store, id, &err), 0);
    CHECK_INT(store_remove(store, id, &err), 0); /* nothing there is what was asked for */
    CHECK_INT(status_of(other, "web"), -ENOENT);
    store_free(store);
    store_free(other);
    home_close(&home);
}

TEST(lists_are_by_age_and_labels)
{
    static const char *const web[] = {"tier=web", "empty=", "q=a\"b=c", NULL}, *const db[] = {"tier=db", NULL};
    static const char *const any[] = {"tier", NULL}, *const one[] = {"tier=web", NULL}, *const none[] = {"tie", NULL};
    static const char *const both[] = {"q=a\"b=c", "empty=", NULL}, *const wrong[] = {"tier=web", "tier=db", NULL};
    struct home home = open_home();
    struct store *store = open_store(&home);
    struct vial_sandbox_info first = info_of(id, "web", false), next = info_of(second, "db", false), *list = NULL;
    size_t count = 0;
    auto_free char *json = NULL;
    CHECK_INT(count_of(store, NULL), 0);
    CHECK_INT(store_add(store, &first, web, &err), 0);
    CHECK_INT(store_add(store, &next, db, &err), 0);
    CHECK_INT(store_list(store, NULL, &list, &count, &err), 0);
    CHECK(count == 2 && strcmp(list[0].name, "db") == 0 && strcmp(list[1].name, "web") == 0);
    free(list);
    CHECK_INT(count_of(store, any), 2);
    CHECK_INT(count_of(store, one), 1);
    CHECK_INT(count_of(store, none), 0);
    CHECK_INT(count_of(store, both), 1);
    CHECK_INT(count_of(store, wrong), 0);
    CHECK_INT(store_labels(store, id, &json, &err), 0);
    CHECK_TEXT(json, "{\"empty\":\"\",\"q\":\"a\\\"b=c\",\"tier\":\"web\"}");
    CHECK_INT(store_labels(store, third, &json, &err), -ENOENT);
    store_free(store);
    home_close(&home);
}

/* ---- runs ---- */

TEST(a_run_is_recorded)
{
    struct home home = open_home();
    struct store *store = open_store(&home);
    struct vial_exit end = VIAL_EXIT_INIT;
    struct vial_sandbox_info info;
    int64_t run = 0, again = 0;
    end.reason = VIAL_EXIT_FAILED;
    end.code = 3;
    snprintf(end.detail, sizeof(end.detail), "the program has ended with 3");
    CHECK_INT(store_begin_run(store, id, 42, &run, &err), -ENOENT);
    CHECK_INT(add(store, id, "web", false), 0);
    CHECK_INT(store_begin_run(store, id, 42, &run, &err), 0);
    CHECK_INT(status_of(store, "web"), VIAL_SANDBOX_STARTING);
    CHECK_INT(store_set_engine(store, run, VIAL_ENGINE_UML, VIAL_ISOLATION_JAIL, &err), 0);
    CHECK_INT(store_set_status(store, run, VIAL_SANDBOX_RUNNING, &err), 0);
    CHECK_INT(store_find(store, "web", &info, &err), 0);
    CHECK(info.pid == 42 && info.engine == VIAL_ENGINE_UML && info.isolation == VIAL_ISOLATION_JAIL);
    CHECK(info.started_ns >= info.created_ns && info.ended_ns == 0 && info.status == VIAL_SANDBOX_RUNNING);
    CHECK_INT(store_end_run(store, run, &end, &err), 0);
    end.code = 4;
    CHECK_INT(store_end_run(store, run, &end, &err), 0); /* a second end changes nothing */
    CHECK_INT(store_find(store, "web", &info, &err), 0);
    CHECK(info.pid == 0 && info.code == 3 && info.reason == VIAL_EXIT_FAILED && info.ended_ns >= info.started_ns);
    CHECK_TEXT(info.detail, "the program has ended with 3");
    CHECK_INT(info.status, VIAL_SANDBOX_STOPPED);
    CHECK_INT(store_begin_run(store, id, 43, &again, &err), 0);
    CHECK(again != run);
    CHECK_INT(store_find(store, "web", &info, &err), 0);
    CHECK(info.pid == 43 && info.code == 0 && info.reason == 0 && info.ended_ns == 0 && info.detail[0] == '\0');
    store_free(store);
    home_close(&home);
}

TEST(a_status_moves_along_its_arrows_only)
{
    enum { C = VIAL_SANDBOX_CREATED, S = VIAL_SANDBOX_STARTING, R = VIAL_SANDBOX_RUNNING, P = VIAL_SANDBOX_PAUSED };
    enum { D = VIAL_SANDBOX_DRAINING, E = VIAL_SANDBOX_STOPPED, X = VIAL_SANDBOX_CRASHED };
    static const struct {
        int from, to;
    } arrows[] = {{S, R}, {S, D}, {R, P}, {R, D}, {P, R}, {P, D}};
    struct home home = open_home();
    struct store *store = open_store(&home);
    CHECK_INT(add(store, id, "web", false), 0);
    for (int from = S; from <= P; from++)
        for (int to = C; to <= X; to++) {
            int64_t run = 0;
            bool is_legal = from == to;
            for (size_t i = 0; i < array_length(arrows); i++)
                is_legal |= arrows[i].from == from && arrows[i].to == to;
            CHECK_INT(store_begin_run(store, id, 1, &run, &err), 0);
            if (from == R || from == P)
                CHECK_INT(store_set_status(store, run, R, &err), 0);
            if (from != S && from != R)
                CHECK_INT(store_set_status(store, run, from, &err), 0);
            CHECK_INT(store_set_status(store, run, to, &err), is_legal ? 0 : -EINVAL);
            CHECK_INT(status_of(store, "web"), is_legal ? to : from);
        }
    (void)E;
    store_free(store);
    home_close(&home);
}

static int count_rows(struct store *store, const char *text)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(store->database, text, -1, &statement, NULL) != SQLITE_OK ||
        sqlite3_step(statement) != SQLITE_ROW)
        abort();
    int count = sqlite3_column_int(statement, 0);
    sqlite3_finalize(statement);
    return count;
}

TEST(a_run_that_is_over_changes_nothing)
{
    struct home home = open_home();
    struct store *store = open_store(&home);
    struct vial_exit end = VIAL_EXIT_INIT;
    int64_t old = 0, run = 0;
    end.reason = VIAL_EXIT_COMPLETED;
    CHECK_INT(add(store, id, "web", false), 0);
    CHECK_INT(store_begin_run(store, id, 1, &old, &err), 0);
    CHECK_INT(store_begin_run(store, id, 2, &run, &err), 0); /* the first has died */
    CHECK_INT(count_rows(store, "SELECT count(*) FROM runs WHERE ended > 0"), 1);
    CHECK_INT(store_set_status(store, old, VIAL_SANDBOX_RUNNING, &err), -ENOENT);
    CHECK_INT(store_end_run(store, old, &end, &err), 0);
    CHECK_INT(status_of(store, "web"), VIAL_SANDBOX_STARTING);
    CHECK_INT(store_end_run(store, run, &end, &err), 0);
    CHECK_INT(store_set_status(store, run, VIAL_SANDBOX_RUNNING, &err), -EINVAL);
    CHECK_INT(store_remove(store, id, &err), 0);
    CHECK_INT(count_rows(store, "SELECT count(*) FROM runs"), 0);
    CHECK_INT(add(store, second, "web", false), 0);
    CHECK_INT(store_begin_run(store, second, 3, &old, &err), 0);
    CHECK(old != run); /* the number of a run that was removed is nobody else's */
    CHECK_INT(store_set_engine(store, run, 1, 1, &err), -ENOENT);
    store_free(store);
    home_close(&home);
}

TEST(a_reason_of_ours_is_a_crash)
{
    static const struct {
        int reason, status;
    } ends[] = {{0, VIAL_SANDBOX_CRASHED},
                {VIAL_EXIT_INTERNAL_ERROR, VIAL_SANDBOX_CRASHED},
                {VIAL_EXIT_GUEST_PANIC, VIAL_SANDBOX_STOPPED},
                {VIAL_EXIT_STOP_REQUESTED, VIAL_SANDBOX_STOPPED}};
    struct home home = open_home();
    struct store *store = open_store(&home);
    CHECK_INT(add(store, id, "web", false), 0);
    for (size_t i = 0; i < array_length(ends); i++) {
        struct vial_exit end = VIAL_EXIT_INIT;
        int64_t run = 0;
        end.reason = ends[i].reason;
        CHECK_INT(store_begin_run(store, id, 1, &run, &err), 0);
        CHECK_INT(store_end_run(store, run, &end, &err), 0);
        CHECK_INT(status_of(store, "web"), ends[i].status);
    }
    store_free(store);
    home_close(&home);
}

/* ---- the file ---- */

TEST(files_are_the_users_alone)
{
    static const char *const names[] = {"vial.db", "vial.db-wal", "vial.db-shm", "lock"};
    struct home home = open_home();
    mode_t before = umask(0);
    struct store *store = open_store(&home);
    umask(before);
    struct stat status;
    for (size_t i = 0; i < array_length(names); i++) {
        CHECK_INT(fstatat(home.fd, names[i], &status, 0), 0);
        CHECK_INT(status.st_mode & 07777, 0600);
    }
    store_free(store);
    CHECK_INT(fstatat(home.fd, "vial.db-wal", &status, 0), 0); /* closing moves nothing into the database */
    CHECK(status.st_size > 0);
    home_close(&home);
}

TEST(a_newer_schema_is_refused)
{
    struct home home = open_home();
    struct store *store = open_store(&home);
    CHECK_INT(sqlite3_exec(store->database, "PRAGMA user_version = 7", NULL, NULL, NULL), SQLITE_OK);
    store_free(store);
    store = NULL;
    CHECK_INT(store_open(&home, &store, &err), -ENOTSUP);
    CHECK(store == NULL && strstr(err.message, "has the schema 7, and this Vial knows 1") != NULL);
    home_close(&home);
}

TEST(damage_is_told_and_nothing_replaced)
{
    static const char junk[] = "this was a database once, but now it is a text of some length, and no more than that. "
                               "It goes on for longer than the header of a database, which has a hundred bytes.";
    struct home home = open_home();
    struct store *store = NULL;
    auto_close int fd = openat(home.fd, "vial.db", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK_INT(fd_write_all(fd, junk, sizeof(junk)), 0);
    CHECK_INT(store_open(&home, &store, &err), -EINVAL);
    CHECK(strstr(err.message, "home/vial.db is damaged: ") != NULL && strstr(err.remedy, "put a copy back") != NULL);
    struct stat status;
    CHECK_INT(fstat(fd, &status), 0);
    CHECK_INT(status.st_size, sizeof(junk));
    home_close(&home);
}

TEST(torn_pages_are_errors)
{
    struct home home = open_home();
    struct store *store = open_store(&home);
    for (int i = 0; i < 200; i++) {
        char number[16];
        snprintf(number, sizeof(number), "%012x", i);
        CHECK_INT(add(store, number, number, false), 0);
    }
    CHECK_INT(sqlite3_wal_checkpoint_v2(store->database, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL), SQLITE_OK);
    store_free(store);
    auto_close int fd = openat(home.fd, "vial.db", O_RDWR | O_CLOEXEC);
    static char noise[1024];
    enum { keeps_schema = 2048 };
    memset(noise, 0xa5, sizeof(noise));
    struct stat status;
    CHECK_INT(fstat(fd, &status), 0);
    for (off_t at = keeps_schema; at < status.st_size; at += 1024)
        CHECK_INT(pwrite(fd, noise, sizeof(noise), at), sizeof(noise));
    struct vial_sandbox_info *list = NULL;
    size_t count = 0;
    int result = store_open(&home, &store, &err);
    if (result == 0) {
        result = store_list(store, NULL, &list, &count, &err);
        CHECK_INT(store_repair(store, &home, NULL), -EINVAL);
        store_free(store);
    }
    CHECK_INT(result, -EINVAL);
    CHECK(strstr(err.message, "is damaged") != NULL && list == NULL);
    home_close(&home);
}

TEST(a_long_log_is_shortened_by_who_lists)
{
    struct home home = open_home();
    struct store *store = open_store(&home);
    struct stat status;
    for (int i = 0; i < 600; i++) {
        int64_t run = 0;
        if (i == 0)
            CHECK_INT(add(store, id, "web", false), 0);
        CHECK_INT(store_begin_run(store, id, 1, &run, &err), 0);
    }
    CHECK_INT(fstatat(home.fd, "vial.db-wal", &status, 0), 0);
    CHECK(status.st_size > LIMIT_STORE_LOG_BYTES);
    CHECK_INT(count_of(store, NULL), 1);
    CHECK_INT(fstatat(home.fd, "vial.db-wal", &status, 0), 0);
    CHECK_INT(status.st_size, 0);
    store_free(store);
    home_close(&home);
}

TEST(many_make_one_database)
{
    struct home home = open_home();
    enum { processes = 8 };
    for (int i = 0; i < processes; i++) {
        if (fork() != 0)
            continue;
        char name[16];
        snprintf(name, sizeof(name), "%012x", i);
        struct store *store = open_store(&home);
        _exit(add(store, name, name, false) < 0);
    }
    for (int i = 0; i < processes; i++) {
        int status = 0;
        CHECK(wait(&status) > 0 && status == 0);
    }
    struct store *store = open_store(&home);
    CHECK_INT(count_of(store, NULL), processes);
    store_free(store);
    home_close(&home);
}

TEST(the_store_survives_no_memory)
{
    struct home home = open_home();
    static const char *const labels[] = {"a=b", NULL};
    FOR_EACH_FAULT
    {
        struct store *store = NULL;
        struct vial_sandbox_info info = info_of(id, "web", false), *list = NULL;
        size_t count = 0;
        auto_free char *json = NULL;
        int result = store_open(&home, &store, &err);
        if (result == 0)
            result = store_add(store, &info, labels, &err);
        if (result == 0)
            result = store_list(store, NULL, &list, &count, &err);
        free(list);
        if (result == 0)
            result = store_labels(store, id, &json, &err);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
        if (store != NULL)
            CHECK_INT(store_remove(store, id, &err), 0);
        store_free(store);
    }
    home_close(&home);
}

/* ---- repair ---- */

static int begin(struct store *store, const char *sandbox)
{
    int64_t run = 0;
    int result = store_begin_run(store, sandbox, 1, &run, &err);
    return result < 0 ? result : store_set_status(store, run, VIAL_SANDBOX_RUNNING, &err);
}

TEST(what_died_has_crashed)
{
    struct home home = open_home();
    struct store *store = open_store(&home);
    struct vial_sandbox_info info;
    CHECK_INT(create(&home, store, id, "web", false), 0);
    CHECK_INT(create(&home, store, second, "passing", true), 0);
    CHECK_INT(create(&home, store, third, "alive", true), 0);
    auto_close int folder = home_sandbox_open(&home, id), living = home_sandbox_open(&home, third);
    auto_close int lock = home_sandbox_lock(living);
    CHECK(lock >= 0);
    CHECK_INT(mknodat(folder, "relay.sock", S_IFREG | 0600, 0), 0);
    CHECK_INT(mknodat(living, "relay.sock", S_IFREG | 0600, 0), 0);
    CHECK_INT(store_repair(store, &home, &err), 0); /* created ones are no leftovers */
    CHECK_INT(begin(store, id), 0);
    CHECK_INT(begin(store, second), 0);
    CHECK_INT(begin(store, third), 0);
    CHECK_INT(store_repair(store, &home, &err), 2);
    CHECK_INT(store_find(store, "web", &info, &err), 0);
    CHECK(info.status == VIAL_SANDBOX_CRASHED && info.reason == VIAL_EXIT_INTERNAL_ERROR && info.ended_ns > 0);
    CHECK_INT(info.pid, 0);
    CHECK_INT(faccessat(folder, "relay.sock", F_OK, 0), -1);
    CHECK_INT(faccessat(living, "relay.sock", F_OK, 0), 0);
    CHECK_INT(status_of(store, "alive"), VIAL_SANDBOX_RUNNING);
    CHECK_INT(status_of(store, "passing"), -ENOENT);
    CHECK_INT(home_sandbox_open(&home, second), -ENOENT);
    CHECK_INT(store_repair(store, &home, &err), 0);
    store_free(store);
    home_close(&home);
}

TEST(halves_are_removed)
{
    struct home home = open_home();
    struct store *store = open_store(&home);
    CHECK_INT(create(&home, store, id, "web", false), 0);
    CHECK_INT(add(store, second, "folderless", false), 0);
    fd_close(home_sandbox_make(&home, third)); /* whoever made it is gone */
    auto_close int being_made = home_sandbox_make(&home, "ffff00000004"), all = home_sandboxes_open(&home);
    CHECK(being_made >= 0);
    CHECK_INT(mkdirat(all, "ffff00000005.gone", 0700), 0);
    CHECK_INT(mkdirat(all, "not-ours", 0700), 0);
    CHECK_INT(store_repair(store, &home, &err), 3);
    CHECK_INT(status_of(store, "web"), VIAL_SANDBOX_CREATED);
    CHECK_INT(status_of(store, "folderless"), -ENOENT);
    CHECK_INT(home_sandbox_open(&home, third), -ENOENT);
    CHECK_INT(faccessat(all, id, F_OK, 0), 0);
    CHECK_INT(faccessat(all, "ffff00000004", F_OK, 0), 0);
    CHECK_INT(faccessat(all, "ffff00000005.gone", F_OK, 0), -1);
    CHECK_INT(faccessat(all, "not-ours", F_OK, 0), 0);
    store_free(store);
    home_close(&home);
}

TEST(ephemeral_leftovers_go)
{
    struct home home = open_home();
    struct store *store = open_store(&home);
    struct vial_exit end = VIAL_EXIT_INIT;
    int64_t run = 0;
    end.reason = VIAL_EXIT_COMPLETED;
    CHECK_INT(create(&home, store, id, "ended", true), 0);
    CHECK_INT(create(&home, store, second, "forgotten", true), 0);
    CHECK_INT(create(&home, store, third, "kept", false), 0);
    CHECK_INT(store_begin_run(store, id, 1, &run, &err), 0);
    CHECK_INT(store_end_run(store, run, &end, &err), 0);
    CHECK_INT(
        sqlite3_exec(store->database, "UPDATE sandboxes SET created = created - 86500000000000", NULL, NULL, NULL),
        SQLITE_OK);
    CHECK_INT(store_repair(store, &home, &err), 2);
    CHECK_INT(count_of(store, NULL), 1);
    CHECK_INT(folders_of(&home), 1);
    CHECK_INT(status_of(store, "kept"), VIAL_SANDBOX_CREATED);
    store_free(store);
    home_close(&home);
}

TEST(what_its_maker_could_not_start_goes)
{
    struct home home = open_home();
    struct store *store = open_store(&home);
    auto_close int folder = home_sandbox_make(&home, id), kept = home_sandbox_make(&home, second);
    int claim = home_sandbox_claim(folder);
    CHECK(claim >= 0);
    CHECK_INT(add(store, id, "run", true), 0);
    CHECK_INT(add(store, second, "kept", true), 0);
    home_sandbox_drop_claim(kept, home_sandbox_claim(kept)); /* for later */
    CHECK_INT(store_repair(store, &home, &err), 0);
    fd_close(claim); /* as the end of its process does it */
    CHECK_INT(store_repair(store, &home, &err), 1);
    CHECK_INT(status_of(store, "run"), -ENOENT);
    CHECK_INT(status_of(store, "kept"), VIAL_SANDBOX_CREATED);
    store_free(store);
    home_close(&home);
}

/* What a process of the library and of a sandbox do, over and over, until it is killed. */
static void live(const struct home *home, unsigned seed)
{
    struct store *store = open_store(home);
    for (;;) {
        char number[SANDBOX_ID_BYTES];
        struct vial_exit end = VIAL_EXIT_INIT;
        int64_t run = 0;
        snprintf(number, sizeof(number), "%06x%06x", seed & 0xffffff, (unsigned)rand_r(&seed) & 0xffffff);
        bool is_ephemeral = rand_r(&seed) % 2 == 0;
        end.reason = VIAL_EXIT_COMPLETED;
        auto_close int folder = home_sandbox_make(home, number), claim = home_sandbox_claim(folder);
        if (folder < 0 || claim < 0 || add(store, number, number, is_ephemeral) < 0)
            _exit(1);
        auto_close int lock = home_sandbox_lock(folder);
        if (folder < 0 || lock < 0)
            _exit(2); /* a repair was in the way */
        if (store_begin_run(store, number, getpid(), &run, &err) < 0)
            _exit(3);
        if (mknodat(folder, "relay.sock", S_IFREG | 0600, 0) < 0)
            _exit(4);
        if (store_set_status(store, run, VIAL_SANDBOX_RUNNING, &err) < 0)
            _exit(5);
        if (faccessat(folder, "relay.sock", F_OK, 0) < 0)
            _exit(6); /* a repair has taken what lives */
        if (store_end_run(store, run, &end, &err) < 0 || unlinkat(folder, "relay.sock", 0) < 0)
            _exit(7);
        if (is_ephemeral && (home_sandbox_remove(home, number) < 0 || store_remove(store, number, &err) < 0))
            _exit(8);
    }
}

static void repair_forever(const struct home *home)
{
    struct store *store = open_store(home);
    for (;;)
        if (store_repair(store, home, &err) < 0)
            _exit(9);
}

/* Whether every folder has a row, every row a folder, nothing lives, and nothing ephemeral is left. */
static const char *find_lie(const struct home *home, struct store *store)
{
    struct vial_sandbox_info *list = NULL;
    size_t count = 0;
    const char *lie = NULL;
    if (store_list(store, NULL, &list, &count, &err) < 0)
        return "the list cannot be read";
    for (size_t i = 0; i < count; i++) {
        auto_close int folder = home_sandbox_open(home, list[i].id);
        if (folder < 0)
            lie = "a row has no folder";
        else if (list[i].status >= VIAL_SANDBOX_STARTING && list[i].status <= VIAL_SANDBOX_PAUSED)
            lie = "the dead live";
        else if (list[i].ephemeral)
            lie = "an ephemeral one is left";
        else if (list[i].status == VIAL_SANDBOX_CRASHED && faccessat(folder, "relay.sock", F_OK, 0) == 0)
            lie = "a socket is left";
    }
    free(list);
    return lie != NULL ? lie : folders_of(home) != count ? "a folder has no row" : NULL;
}

/* Called when a statement of the repair's handle has ended: the first is its list, and then somebody creates. */
struct creator {
    const struct home *home;
    struct store *store;
    int calls, result;
};

static int create_now(unsigned what, void *user, void *statement, void *time_ns)
{
    struct creator *creator = user;
    (void)what;
    (void)statement;
    (void)time_ns;
    if (creator->calls++ == 0)
        creator->result = create(creator->home, creator->store, id, "web", false);
    return 0;
}

TEST(what_appears_behind_a_list_is_no_leftover)
{
    struct home home = open_home();
    struct store *store = open_store(&home), *other = open_store(&home);
    struct creator creator = {.home = &home, .store = other, .result = -1};
    CHECK_INT(sqlite3_trace_v2(store->database, SQLITE_TRACE_PROFILE, create_now, &creator), SQLITE_OK);
    CHECK_INT(store_repair(store, &home, &err), 0);
    CHECK(creator.calls > 1 && creator.result == 0);
    CHECK_INT(status_of(store, "web"), VIAL_SANDBOX_CREATED);
    CHECK_INT(folders_of(&home), 1);
    store_free(store);
    store_free(other);
    home_close(&home);
}

TEST(a_repair_is_in_nobodys_way)
{
    enum { creations = 200 };
    struct home home = open_home();
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        struct store *store = open_store(&home);
        for (int i = 0; i < creations; i++) {
            char number[SANDBOX_ID_BYTES];
            snprintf(number, sizeof(number), "%012x", i);
            if (create(&home, store, number, number, false) < 0)
                _exit(1);
            auto_close int folder = home_sandbox_open(&home, number);
            if (folder < 0)
                _exit(2); /* somebody took it for a leftover */
            if (home_sandbox_remove(&home, number) < 0 || store_remove(store, number, &err) < 0)
                _exit(3);
        }
        _exit(0);
    }
    struct store *store = open_store(&home);
    while (waitpid(child, &status, WNOHANG) == 0)
        if (store_repair(store, &home, &err) < 0)
            kill(child, SIGKILL);
    CHECK_INT(status, 0);
    CHECK_INT(count_of(store, NULL), 0);
    store_free(store);
    home_close(&home);
}

static void wait_ns(long time_ns)
{
    ppoll(NULL, 0, &(struct timespec){.tv_nsec = time_ns}, NULL);
}

TEST(the_truth_survives_kills_at_any_moment)
{
    enum { rounds = 12, lives = 3, repairs = 2, processes = lives + repairs };
    struct home home = open_home();
    unsigned seed = (unsigned)getpid();
    pid_t children[processes];
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < processes; i++) {
            children[i] = fork();
            if (children[i] == 0 && i < lives)
                live(&home, seed * 31 + (unsigned)(round * processes + i) * 7919);
            if (children[i] == 0)
                repair_forever(&home);
        }
        for (int i = 0; i < processes; i++) {
            int status = 0;
            wait_ns(1000000 + rand_r(&seed) % 20000000);
            kill(children[i], SIGKILL);
            CHECK_INT(waitpid(children[i], &status, 0), children[i]);
            CHECK_INT(WIFEXITED(status) ? WEXITSTATUS(status) : 0, 0);
        }
        struct store *store = open_store(&home);
        CHECK(store_repair(store, &home, &err) >= 0);
        const char *lie = find_lie(&home, store);
        CHECK_TEXT(lie != NULL ? lie : "", "");
        CHECK_INT(store_repair(store, &home, &err), 0);
        store_free(store);
    }
    struct store *store = open_store(&home);
    CHECK(count_of(store, NULL) > 0); /* they have done something */
    store_free(store);
    home_close(&home);
}
