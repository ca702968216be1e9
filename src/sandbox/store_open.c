// SPDX-License-Identifier: Apache-2.0
/* The database of a home: opening it, its schema, and running statements.
 *
 * An existing database is opened without a lock and without a write: its version is read, which is all that a start
 * waits for. What is new, or has only half begun to exist, is made under the home's lock, so that two processes never
 * change the journal's mode at once (which SQLite answers with SQLITE_BUSY whatever the time-out).
 *
 * Pages are of 1 KiB: a change of a row writes whole pages to the log, and rows are short. The log stays when the last
 * process closes the database, and reaches it when somebody lists or removes (store_shorten_log), off the way to a
 * start.
 *
 * Invariants: (1) the schema appears in one transaction. (2) a database that is newer, damaged or no database is told,
 * never changed. (3) on an existing home, opening and writing wait for no medium.
 *
 * Trust: the file is the user's own; whatever it holds is an error at worst. Texts are bound, never part of a
 * statement.
 */
#include "sandbox/store_state.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/limits.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { busy_ms = 5000 };

static const char schema[] =
    "CREATE TABLE sandboxes(number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE,"
    " created INTEGER NOT NULL, ephemeral INTEGER NOT NULL, labels TEXT NOT NULL, command TEXT NOT NULL,"
    " status INTEGER NOT NULL, run INTEGER NOT NULL DEFAULT 0);"
    /* AUTOINCREMENT: the number of a run that was removed never becomes another's, to which a late process would
     * write. */
    "CREATE TABLE runs(number INTEGER PRIMARY KEY AUTOINCREMENT, sandbox TEXT NOT NULL, pid INTEGER NOT NULL,"
    " started INTEGER NOT NULL, ended INTEGER NOT NULL DEFAULT 0, engine INTEGER NOT NULL DEFAULT 0,"
    " isolation INTEGER NOT NULL DEFAULT 0, reason INTEGER NOT NULL DEFAULT 0, code INTEGER NOT NULL DEFAULT 0,"
    " detail TEXT NOT NULL DEFAULT '');"
    "CREATE INDEX runs_of_sandboxes ON runs(sandbox);"
    "PRAGMA user_version = 1;";
static_assert(STORE_SCHEMA == 1, "the schema sets its version");

#define ROW                                                                                                            \
    "SELECT s.id, s.name, s.status, s.created, s.ephemeral, s.command, r.pid, r.started, r.ended, r.engine,"           \
    " r.isolation, r.reason, r.code, r.detail, s.labels FROM sandboxes s LEFT JOIN runs r ON r.number = s.run "

static const char *const texts[STORE_STATEMENTS] = {
    [STORE_BEGIN] = "BEGIN IMMEDIATE",
    [STORE_COMMIT] = "COMMIT",
    [STORE_ROLLBACK] = "ROLLBACK",
    [STORE_ADD] = "INSERT INTO sandboxes(id, name, created, ephemeral, labels, command, status)"
                  " VALUES(?, ?, ?, ?, ?, ?, ?)",
    [STORE_BY_NAME] = ROW "WHERE s.name = ?",
    [STORE_BY_ID] = ROW "WHERE s.id = ?",
    [STORE_BY_BEGINNING] = ROW "WHERE substr(s.id, 1, ?) = ? LIMIT 2",
    [STORE_ALL] = ROW "ORDER BY s.number DESC",
    [STORE_LABELS] = "SELECT labels FROM sandboxes WHERE id = ?",
    [STORE_RENAME] = "UPDATE sandboxes SET name = ? WHERE id = ?",
    [STORE_REMOVE] = "DELETE FROM sandboxes WHERE id = ?",
    [STORE_REMOVE_RUNS] = "DELETE FROM runs WHERE sandbox = ?",
    [STORE_NEW_RUN] = "INSERT INTO runs(sandbox, pid, started) VALUES(?, ?, ?)",
    [STORE_TAKE_RUN] = "UPDATE sandboxes SET run = ?, status = ? WHERE id = ?",
    [STORE_SET_ENGINE] = "UPDATE runs SET engine = ?, isolation = ? WHERE number = ?",
    [STORE_STATUS_OF] = "SELECT status FROM sandboxes WHERE run = ?",
    [STORE_SET_STATUS] = "UPDATE sandboxes SET status = ? WHERE run = ?",
    [STORE_END_RUN] = "UPDATE runs SET ended = ?, reason = ?, code = ?, detail = ? WHERE number = ? AND ended = 0",
    [STORE_LAST_RUN] = "SELECT run, status FROM sandboxes WHERE id = ?",
};

/* ---- errors ---- */

static int fail_damaged(struct store *store, struct vial_error *err)
{
    int result = error_set(err, VIAL_ERROR_WRONG_KIND, VIAL_PHASE_HOST, "the database %s is damaged: %s",
                           error_short(store->path).text, sqlite3_errmsg(store->database));
    error_remedy(err, "put a copy back (with its -wal file), or move it away and begin anew: what it knows of "
                      "sandboxes is lost then, and what they have left is removed");
    return result;
}

int store_fail(struct store *store, int code, struct vial_error *err)
{
    int os_error = sqlite3_system_errno(store->database), result = -EIO;
    switch (code & 0xff) {
    case SQLITE_NOMEM:
        return error_no_memory(err, VIAL_PHASE_HOST);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return fail_damaged(store, err);
    case SQLITE_BUSY:
        result = error_set_os(err, VIAL_PHASE_HOST, EBUSY, "the database %s was busy for %d seconds",
                              error_short(store->path).text, busy_ms / 1000);
        error_remedy(err, "try again, and look for a process that holds it (lsof)");
        return result;
    case SQLITE_FULL:
        result = error_set_os(err, VIAL_PHASE_HOST, ENOSPC, "cannot write the database %s",
                              error_short(store->path).text);
        error_remedy(err, "make room on its disk");
        return result;
    case SQLITE_READONLY:
        result = error_set_os(err, VIAL_PHASE_HOST, EROFS, "cannot write the database %s",
                              error_short(store->path).text);
        break;
    default:
        result = error_set_os(err, VIAL_PHASE_HOST, os_error != 0 ? os_error : EIO, "cannot use the database %s (%s)",
                              error_short(store->path).text, sqlite3_errmsg(store->database));
        break;
    }
    error_remedy(err, "see that its folder is on a local disk with room, and yours to write");
    return result;
}

/* ---- statements ---- */

static int prepare(struct store *store, enum store_statement which, struct vial_error *err)
{
    if (store->statements[which] != NULL)
        return 0;
    int code = sqlite3_prepare_v3(store->database, texts[which], -1, SQLITE_PREPARE_PERSISTENT,
                                  &store->statements[which], NULL);
    return code == SQLITE_OK ? 0 : store_fail(store, code, err);
}

/* The texts live until the statement is reset, which is before its caller returns. */
static int bind_values(struct store *store, sqlite3_stmt *statement, const char *types, va_list values,
                       struct vial_error *err)
{
    int code = SQLITE_OK;
    for (int i = 0; types[i] != '\0' && code == SQLITE_OK; i++) {
        if (types[i] == 't')
            code = sqlite3_bind_text(statement, i + 1, va_arg(values, const char *), -1, SQLITE_STATIC);
        else
            code = sqlite3_bind_int64(statement, i + 1, va_arg(values, long long));
    }
    return code == SQLITE_OK ? 0 : store_fail(store, code, err);
}

int store_next(struct store *store, sqlite3_stmt *row, struct vial_error *err)
{
    int code = sqlite3_step(row);
    if (code == SQLITE_ROW)
        return 1;
    int result = code == SQLITE_DONE ? 0 : store_fail(store, code, err);
    if (code == SQLITE_CONSTRAINT_UNIQUE)
        result = -EEXIST; /* what that means is for the caller to say */
    store_done(row);
    return result;
}

void store_done(sqlite3_stmt *row)
{
    sqlite3_reset(row);
    sqlite3_clear_bindings(row);
}

static int start_statement(struct store *store, enum store_statement which, sqlite3_stmt **ret_row,
                           struct vial_error *err, const char *types, va_list values)
{
    int result = prepare(store, which, err);
    if (result < 0)
        return result;
    sqlite3_stmt *statement = store->statements[which];
    result = bind_values(store, statement, types, values, err);
    if (result < 0) {
        store_done(statement);
        return result;
    }
    *ret_row = statement;
    return store_next(store, statement, err);
}

int store_query(struct store *store, enum store_statement which, sqlite3_stmt **ret_row, struct vial_error *err,
                const char *types, ...)
{
    va_list values;
    va_start(values, types);
    int result = start_statement(store, which, ret_row, err, types, values);
    va_end(values);
    return result;
}

int store_change(struct store *store, enum store_statement which, struct vial_error *err, const char *types, ...)
{
    sqlite3_stmt *row = NULL;
    va_list values;
    va_start(values, types);
    int result = start_statement(store, which, &row, err, types, values);
    va_end(values);
    if (result == 1)
        store_done(row);
    return result < 0 ? result : sqlite3_changes(store->database);
}

int store_begin(struct store *store, struct vial_error *err)
{
    int result = store_change(store, STORE_BEGIN, err, "");
    return result < 0 ? result : 0;
}

int store_finish(struct store *store, int result, struct vial_error *err)
{
    int ended = result < 0 ? 0 : store_change(store, STORE_COMMIT, err, "");
    if (result < 0 || ended < 0)
        store_change(store, STORE_ROLLBACK, NULL, "");
    return ended < 0 ? ended : result;
}

/* ---- opening ---- */

static int execute(struct store *store, const char *text, struct vial_error *err)
{
    int code = sqlite3_exec(store->database, text, NULL, NULL, NULL);
    return code == SQLITE_OK ? 0 : store_fail(store, code, err);
}

static int read_version(struct store *store, int *ret_version, struct vial_error *err)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(store->database, "PRAGMA user_version", -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    if (code == SQLITE_ROW)
        *ret_version = sqlite3_column_int(statement, 0);
    int result = code == SQLITE_ROW ? 0 : store_fail(store, code, err);
    sqlite3_finalize(statement);
    return result;
}

static int check_version(const struct store *store, int version, struct vial_error *err)
{
    if (version == STORE_SCHEMA)
        return 0;
    int result = error_set(err, VIAL_ERROR_UNSUPPORTED, VIAL_PHASE_HOST,
                           "the database %s has the schema %d, and this Vial knows %d", error_short(store->path).text,
                           version, STORE_SCHEMA);
    error_remedy(err, "use the newer Vial that has made it, or another home (VIAL_HOME)");
    return result;
}

/* The page size counts only before the first page is written, and the journal's mode stays in the file. */
static int make_schema(struct store *store, struct vial_error *err)
{
    int result = execute(store, "PRAGMA page_size = 1024; PRAGMA journal_mode = WAL;", err);
    if (result == 0)
        result = store_begin(store, err);
    if (result < 0)
        return result;
    return store_finish(store, execute(store, schema, err), err);
}

static int make_database(struct store *store, const struct home *home, struct vial_error *err)
{
    int version = 0;
    auto_close int lock = home_lock(home, LOCK_EX);
    if (lock < 0)
        return error_set_os(err, VIAL_PHASE_HOST, lock, "cannot lock the home %s", error_short(home->path).text);
    int result = read_version(store, &version, err); /* somebody else may have been faster */
    if (result == 0 && version == 0)
        return make_schema(store, err);
    return result < 0 ? result : check_version(store, version, err);
}

/* A file that is there from the beginning gets our mode, and SQLite gives it to those beside it. It must not be made by
 * opening: closing a descriptor of ours would drop the locks of other threads' handles (fcntl(2)). */
static int open_database(struct store *store, const struct home *home, struct vial_error *err)
{
    if (faccessat(home->fd, "vial.db", F_OK, 0) < 0)
        (void)mknodat(home->fd, "vial.db", S_IFREG | S_IRUSR | S_IWUSR, 0); /* SQLite says what is wrong */
    int code = sqlite3_open_v2(store->path, &store->database,
                               SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
                               NULL);
    if (code != SQLITE_OK)
        return store->database == NULL ? error_no_memory(err, VIAL_PHASE_HOST) : store_fail(store, code, err);
    sqlite3_busy_timeout(store->database, busy_ms);
    sqlite3_wal_autocheckpoint(store->database, 0);
    sqlite3_db_config(store->database, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    return execute(store, "PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY;", err);
}

int store_open(const struct home *home, struct store **ret_store, struct vial_error *err)
{
    struct store *store = alloc_zero(sizeof(*store));
    int version = 0;
    if (store == NULL)
        return error_no_memory(err, VIAL_PHASE_HOST);
    int result = -ENAMETOOLONG;
    if (snprintf(store->path, sizeof(store->path), "%s/vial.db", home->path) < (int)sizeof(store->path))
        result = open_database(store, home, err);
    else
        error_set_os(err, VIAL_PHASE_HOST, result, "cannot use the home %s", error_short(home->path).text);
    if (result == 0)
        result = read_version(store, &version, err);
    if (result == 0 && version != STORE_SCHEMA)
        result = version == 0 ? make_database(store, home, err) : check_version(store, version, err);
    if (result < 0)
        store_free(store);
    else
        *ret_store = store;
    return result;
}

struct store *store_free(struct store *store)
{
    if (store == NULL)
        return NULL;
    for (size_t i = 0; i < STORE_STATEMENTS; i++)
        sqlite3_finalize(store->statements[i]);
    sqlite3_close(store->database);
    free(store);
    return NULL;
}

void store_shorten_log(struct store *store)
{
    char path[HOME_PATH_BYTES + 8];
    struct stat status;
    snprintf(path, sizeof(path), "%s-wal", store->path);
    if (stat(path, &status) < 0 || status.st_size <= LIMIT_STORE_LOG_BYTES)
        return;
    sqlite3_busy_timeout(store->database, 0); /* somebody who reads or writes is not waited for: there will be others */
    sqlite3_wal_checkpoint_v2(store->database, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    sqlite3_busy_timeout(store->database, busy_ms);
}
