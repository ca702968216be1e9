// SPDX-License-Identifier: Apache-2.0
/* What the files of the sandbox's process share. (process.c) */
#ifndef SANDBOX_PROCESS_PRIVATE_H
#define SANDBOX_PROCESS_PRIVATE_H

#include "base/loop.h"
#include "sandbox/confine.h"
#include "sandbox/journal.h"
#include "sandbox/metrics.h"
#include "sandbox/process.h"
#include "sandbox/relay.h"
#include "sandbox/session.h"
#include "sandbox/spec.h"
#include "sandbox/store.h"
#include "sandbox/watch.h"
#include "vial/vmm.h"

/* A session of client 0 on the agent, beside SESSION_MAIN_ID. */
#define PROCESS_SHUTDOWN_ID 2u

/* A socket that a vsock port of the machine listens on: removed at the end, if it is still that one. */
struct process_socket {
    const char *path; /* borrowed from the configuration */
    dev_t device;
    ino_t inode;
};

enum process_state {
    PROCESS_STARTING, /* the agent is not ready */
    PROCESS_RUNNING,
    PROCESS_PAUSED,
    PROCESS_DRAINING,  /* the guest is to end, or is ending */
    PROCESS_LINGERING, /* the machine has ended; clients still read what the program has said */
};

struct process {
    struct process_options options;
    struct home home;
    int folder, log_folder, lock_fd; /* owned, as are the next */
    struct spec spec;
    struct store *store;
    int64_t run; /* in the store; -1: none */
    struct loop *loop;
    struct journal *exec_log, *console_log, *runtime_log;
    struct relay *relay;
    struct relay_client *first; /* borrowed: until it has attached, or is gone */
    struct session *session;
    struct vial_vm *vm;
    struct vial_engine_info engine;
    struct confine_report walls;
    int console_fd,
        agent_fd; /* our end of the console's pipe; the machine's end of the agent's port, until it has it */
    struct process_socket *sockets; /* owned */
    size_t socket_count;
    struct metrics metrics;
    struct watch watch;
    struct loop_source *console_source, *machine_source, *look_timer, *force_timer; /* the loop's */
    enum process_state state;
    struct vial_exit exit; /* its reason is 0 while nothing has decided it */
    const char *stage;     /* of the start, for the report */
    struct vial_error error;
    uint64_t begun_ns, force_ns, seen_frames, seen_agent_bytes;
    bool is_reported, is_running_reported, is_linger_over, was_forced;
};

/* ---- process_start.c ---- */

/* Everything up to a machine that runs: 0, or -errno with stage and error set. */
int process_start(struct process *process);

/* ---- process_report.c ---- */

/* The one line about the start; whichever comes first. */
void process_report_running(struct process *process);
void process_report_failed(struct process *process);

/* The state as it is shown: enum vial_sandbox_status. */
int process_status(const struct process *process);

/* REPORT, with the answer to STATUS in it; and an event for all who listen. `members` as in home_event. */
void process_tell_status(struct process *process, struct relay_client *client, uint32_t id, uint32_t flags);
enum { PROCESS_EVENT_BYTES = 3072 }; /* less than LIMIT_EVENT_BYTES by id, name and time */
void process_tell_event(struct process *process, const char *kind, const char *members);

/* ---- process_serve.c ---- */

extern const struct relay_ops process_relay_ops;
extern const struct session_ops process_session_ops;

void process_handle_console(void *user, uint32_t what);
void process_read_console(struct process *process); /* what is left of it */
void process_handle_look(void *user, uint32_t what);

/* ---- process.c ---- */

/* The signals that ask for the end. */
#define PROCESS_END_SIGNALS 4
extern const int process_end_signals[PROCESS_END_SIGNALS];

/* Why the sandbox ends, unless something has decided that before. */
void process_decide(struct process *process, enum vial_exit_reason reason, int code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Asks the guest to end; when the grace is over, the machine is stopped. Again: the shorter grace counts. */
void process_drain(struct process *process, uint64_t grace_ms);

/* In LINGERING, when somebody wants the end: nobody is waited for any longer than that. */
void process_end_linger(struct process *process, uint64_t grace_ms);

/* Stops the machine at once. */
void process_force(struct process *process);

void process_handle_force(void *user, uint32_t what);
void process_handle_signal(void *user, uint32_t what);
void process_handle_machine_end(void *user, uint32_t what);

/* Ends the loop when there is nothing left to wait for. */
void process_try_end(struct process *process);

#endif
