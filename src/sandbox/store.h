// SPDX-License-Identifier: Apache-2.0
/* What is known of the sandboxes of a home: an SQLite database (WAL) that any number of processes use at once.
 *
 *     sandboxes  id, name (unique), created, ephemeral, labels, command, status
 *     runs       sandbox, number, pid, started, ended, engine, isolation, reason, code, detail
 *
 * A sandbox's process writes what happens to it; whoever reads believes a living status only together with the lock of
 * its process (home.h), and repairs what is not true: store_repair.
 *
 * No commit waits for the medium (synchronous=NORMAL, no checkpoint on the way): what a crash of the host may lose is
 * the end of a run that the same crash has ended. What is written is always whole.
 *
 * Invariants: (1) a name belongs to one sandbox. (2) a run has one end. (3) a status only moves along its arrows:
 * Created → Starting → Running ⇄ Paused → Draining → Stopped | Crashed → Starting …
 *
 * A handle belongs to one thread at a time. Errors are -errno with an error that says what failed; a database that is
 * busy is waited for (5 s).
 */
#ifndef SANDBOX_STORE_H
#define SANDBOX_STORE_H

#include "sandbox/home.h"

struct store;

/* What is known of a run that has not told its end. */
#define STORE_NO_WORD "its process has ended without a word"

int store_open(const struct home *home, struct store **ret_store, struct vial_error *err);
struct store *store_free(struct store *store);

/* Adds a sandbox as Created. `info`: name, id, command, ephemeral. `labels`: NULL-terminated KEY=VALUE, or NULL.
 * -EEXIST for a name that is taken. */
int store_add(struct store *store, const struct vial_sandbox_info *info, const char *const *labels,
              struct vial_error *err);

/* By id (first: handles hold one, and no name may hide it), name, or the beginning of an id that no other has. -ENOENT;
 * -ENOTUNIQ for a beginning of several. */
int store_find(struct store *store, const char *name, struct vial_sandbox_info *ret_info, struct vial_error *err);
int store_labels(struct store *store, const char *id, char **ret_json, struct vial_error *err); /* an object */

/* All that have the labels (KEY or KEY=VALUE), the newest first; the caller frees the array. */
int store_list(struct store *store, const char *const *labels, struct vial_sandbox_info **ret_list, size_t *ret_count,
               struct vial_error *err);

int store_rename(struct store *store, const char *id, const char *name, struct vial_error *err);
int store_remove(struct store *store, const char *id, struct vial_error *err); /* with its runs; 0 without it, too */

/* By a sandbox's process, which has the lock. A run begins as Starting. */
int store_begin_run(struct store *store, const char *id, int pid, int64_t *ret_run, struct vial_error *err);
int store_set_engine(struct store *store, int64_t run, int engine, int isolation, struct vial_error *err);
int store_set_status(struct store *store, int64_t run, int status, struct vial_error *err);

/* Its end: Stopped, or Crashed where the reason is VIAL_EXIT_INTERNAL_ERROR or 0. A second end is no error and changes
 * nothing. */
int store_end_run(struct store *store, int64_t run, const struct vial_exit *exit, struct vial_error *err);

/* Looks at every sandbox that should live and whose lock nobody has: it is Crashed, its socket is removed, and it is
 * itself if it was ephemeral. Folders that no row knows go, too, rows whose folder is gone, and ephemeral sandboxes
 * that nobody has started for a day. How many, or -errno. */
int store_repair(struct store *store, const struct home *home, struct vial_error *err);

#endif
