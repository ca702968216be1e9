// SPDX-License-Identifier: Apache-2.0
/* The folder in which sandboxes are kept.
 *
 *     HOME/vial.db             what is known of them (store.h)
 *     HOME/events/events.jsonl what has happened to them; one rotated file behind it (events.jsonl.1)
 *     HOME/lock                held while folders appear, and while those that nobody knows are looked for
 *     HOME/sandboxes/ID/
 *         spec.json            what it is (spec.h); written once, read by its process
 *         claim                locked by its maker until that has started it (only then there)
 *         lock                 locked by its process for as long as that lives (an OFD lock, see home.c); its pid
 *         relay.sock           where clients reach it (proto/agent.h)
 *         stats.json           metrics, as of the last second; replaced by rename
 *         log/                 runtime.log, console.log, exec.log, each with .1 and .2
 *         scripts/             for the guest's PATH
 *
 * Everything is the user's alone (0700, 0600). Folders are used by descriptor, so that the length of a path matters
 * nowhere: a socket is bound and connected as /proc/self/fd/N/relay.sock.
 */
#ifndef SANDBOX_HOME_H
#define SANDBOX_HOME_H

#include "vial/vial.h"

enum { HOME_PATH_BYTES = 4096, SANDBOX_ID_BYTES = VIAL_SANDBOX_ID_SIZE };

struct home {
    int fd;                     /* O_PATH */
    char path[HOME_PATH_BYTES]; /* absolute */
};

/* The folder of vial_home_open, made where it is missing. */
int home_open(const char *path, struct home *ret_home, struct vial_error *err);
void home_close(struct home *home);

/* The folder of a sandbox: a descriptor or -errno. Who makes one keeps the descriptor open until store_add has
 * returned: it holds a lock (flock) by which a repair knows that the folder is not a leftover. Opened, it is O_PATH. */
int home_sandbox_make(const struct home *home, const char *id); /* with log and scripts in it; -EEXIST */
int home_sandbox_open(const struct home *home, const char *id);

/* Removes it with all that it holds, and what an earlier removal has left of it under the name ID.gone; what is not
 * there is no error. */
#define HOME_GONE ".gone"
int home_sandbox_remove(const struct home *home, const char *id);

/* The bytes of its lock file, for who waits until one is free (library_end.h). */
enum home_byte {
    HOME_BYTE_LIFE = 0,   /* taken by its process for as long as that lives */
    HOME_BYTE_CHANGE = 1, /* taken for a moment by who starts, repairs or removes it */
};

/* Its lock: a descriptor to hold; -EWOULDBLOCK when a process has it, that is, when the sandbox lives; -ENOENT when it
 * has been removed meanwhile. It is made where it is missing, and is the last thing of the folder to be removed. */
int home_sandbox_lock(int folder);

/* The process that has it, as it has written down before byte 1 was free again; 0 where that is not known. */
int home_sandbox_pid(int folder);

/* Whether a process has it: 1, 0 or -errno. Asking takes nothing, so nobody who wants to start it is in the way of
 * somebody who only looks. */
int home_sandbox_lives(int folder);

/* A claim: its maker is about to start it, and if it dies before that, an ephemeral sandbox is a leftover at once
 * (without a claim: after a day). Made before store_add: a descriptor to hold. Dropped once it was started, or is to be
 * kept for later. */
int home_sandbox_claim(int folder);
void home_sandbox_drop_claim(int folder, int claim);

/* For repair: whether it was claimed by somebody who is gone: 1, 0 or -errno. */
int home_sandbox_is_orphan(int folder);

/* For repair: keeps starts waiting while a sandbox that does not live is changed, until the descriptor is closed.
 * -EWOULDBLOCK when it lives, or somebody else is about to start, repair or remove it; -ENOENT when it was removed. */
int home_sandbox_guard(int folder);

/* For repair: whether nobody is making that folder, 1, 0 or -errno. */
int home_sandbox_is_abandoned(const struct home *home, const char *id);

/* The lock of the home itself (LOCK_SH or LOCK_EX of flock(2)): a descriptor that holds it. It is waited for; nobody
 * has it for longer than a moment. */
int home_lock(const struct home *home, int operation);

/* The folder of all sandboxes, to be listed; and that of the events. */
int home_sandboxes_open(const struct home *home);
int home_events_open(const struct home *home);

/* Whether it has the form of an id. */
bool home_is_id(const char *id);

/* Appends one event: `kind` such as "start", a JSON object's further members as text (", \"code\": 0") or "". Never
 * waits, never fails for the caller: events are told as far as there is room. */
void home_event(const struct home *home, const char *kind, const char *id, const char *name, const char *members);

#endif
