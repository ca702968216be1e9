// SPDX-License-Identifier: Apache-2.0
/* What the files of the store share: its statements, each prepared when it is first needed. (store.c, store_open.c) */
#ifndef SANDBOX_STORE_STATE_H
#define SANDBOX_STORE_STATE_H

#include "sandbox/store.h"

#include <sqlite3.h>

enum { STORE_SCHEMA = 1 }; /* user_version of the database */

enum store_statement {
    STORE_BEGIN,
    STORE_COMMIT,
    STORE_ROLLBACK,
    STORE_ADD,
    STORE_BY_NAME,
    STORE_BY_ID,
    STORE_BY_BEGINNING,
    STORE_ALL,
    STORE_LABELS,
    STORE_RENAME,
    STORE_REMOVE,
    STORE_REMOVE_RUNS,
    STORE_NEW_RUN,
    STORE_TAKE_RUN,
    STORE_SET_ENGINE,
    STORE_STATUS_OF,
    STORE_SET_STATUS,
    STORE_END_RUN,
    STORE_LAST_RUN,
    STORE_STATEMENTS,
};

struct store {
    sqlite3 *database;                          /* owned */
    sqlite3_stmt *statements[STORE_STATEMENTS]; /* owned; NULL until they are needed */
    char path[HOME_PATH_BYTES];
};

/* Binds what the letters of `types` say (t: const char *, n: int64_t as long long) and runs the statement up to its
 * first row: 1, the columns in *ret_row until store_done; 0 when there is none, -errno. */
int store_query(struct store *store, enum store_statement which, sqlite3_stmt **ret_row, struct vial_error *err,
                const char *types, ...);

/* The next row of the same: 1, 0 or -errno. */
int store_next(struct store *store, sqlite3_stmt *row, struct vial_error *err);
void store_done(sqlite3_stmt *row);

/* A statement without rows: how many rows it has changed, or -errno. */
int store_change(struct store *store, enum store_statement which, struct vial_error *err, const char *types, ...);

/* Around what must be done whole or not at all. The end takes what has come out of it and returns that. */
int store_begin(struct store *store, struct vial_error *err);
int store_finish(struct store *store, int result, struct vial_error *err);

/* Why SQLite has failed, as an error: -errno. */
int store_fail(struct store *store, int code, struct vial_error *err);

/* Puts a long log into the database, unless somebody is in the way. */
void store_shorten_log(struct store *store);

/* The one with exactly that id: 1, 0 when there is none, -errno. */
int store_read(struct store *store, const char *id, struct vial_sandbox_info *ret_info, struct vial_error *err);

/* For repair: the last run of a sandbox has ended without a word, unless it has ended by now. */
int store_crash(struct store *store, const char *id, struct vial_error *err);

#endif
