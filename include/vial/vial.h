/* SPDX-License-Identifier: Apache-2.0 */
/* Sandboxes: machines that programs run in, each in a process of its own, kept by name.
 *
 *     struct vial_home *home = NULL;
 *     struct vial_sandbox *sandbox = NULL;
 *     struct vial_process *process = NULL;
 *     vial_home_open(NULL, &home, &err);
 *     struct vial_sandbox_options options = VIAL_SANDBOX_OPTIONS_INIT;
 *     options.config = config; // vial/vmm.h: machine, root, mounts, disks
 *     vial_sandbox_create(home, &options, &sandbox, &err);
 *     vial_sandbox_start(sandbox, VIAL_WAIT_FOREVER, &err);
 *     struct vial_program_options program = VIAL_PROGRAM_OPTIONS_INIT;
 *     program.args = (const char *const[]){"uname", "-a", NULL};
 *     vial_sandbox_exec(sandbox, &program, &process, &err);
 *     while (vial_process_next(process, &event, VIAL_WAIT_FOREVER, &err) == 0 && event.kind != VIAL_EVENT_ENDED) …
 *     vial_process_free(process);
 *     vial_sandbox_stop(sandbox, 10000, VIAL_WAIT_FOREVER, &err);
 *     vial_sandbox_free(sandbox);
 *
 * A sandbox is a machine of vial/vmm.h with an agent in it, and a process of this host that runs it: `vial` executed
 * anew, so that nothing of the calling program is in it, and it lives on without it. A home is a folder that holds what
 * is known of sandboxes; any number of programs use it at once, and none of them has to keep running.
 *
 * Every call may be made on any thread at any time, but for the one that frees what it is given; calls on one process
 * handle that read wait for each other. Those that wait take a time in milliseconds (VIAL_WAIT_FOREVER: without end)
 * and return -ETIMEDOUT when it is over, having changed nothing. The library has no state but what is in its handles,
 * and sends no SIGPIPE.
 */
#ifndef VIAL_VIAL_H
#define VIAL_VIAL_H

#include "vial/base.h"
#include "vial/vmm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- homes ---- */

struct vial_home;

/* `path` NULL: $VIAL_HOME, else /var/lib/vial for root, else $XDG_DATA_HOME/vial, else ~/.local/share/vial. What is
 * missing is made; what a crash has left behind is repaired. */
VIAL_API int vial_home_open(const char *path, struct vial_home **ret_home, struct vial_error *err);

/* Accepts NULL and returns NULL. Its sandboxes' handles may live on. */
VIAL_API struct vial_home *vial_home_free(struct vial_home *home);

/* The program to execute for a sandbox's process; NULL (the default): $VIAL_RUNTIME, else the `vial` that stands beside
 * the library or the calling program, else that of the installation. */
VIAL_API int vial_home_set_runtime(struct vial_home *home, const char *path, struct vial_error *err);

/* ---- sandboxes ---- */

struct vial_sandbox;
struct vial_process;

enum vial_sandbox_status {
    VIAL_SANDBOX_CREATED = 1,
    VIAL_SANDBOX_STARTING = 2,
    VIAL_SANDBOX_RUNNING = 3,
    VIAL_SANDBOX_DRAINING = 4, /* it was asked to stop */
    VIAL_SANDBOX_PAUSED = 5,
    VIAL_SANDBOX_STOPPED = 6,
    VIAL_SANDBOX_CRASHED = 7, /* its process has ended without a word */
};

/* A program in a sandbox. */
struct vial_program_options {
    size_t size;
    const char *const *args; /* NULL-terminated; the first is its path, or a name for PATH, too */
    const char *const *env;  /* KEY=VALUE, NULL-terminated, or NULL: above what every program gets (PATH, HOME, …) */
    const char *const *rlimits; /* as in vial_vm_config_add_rlimit, NULL-terminated, or NULL */
    const char *workdir;        /* absolute, or NULL: / */
    const char *user;           /* USER[:GROUP], by name or number, as of the guest's files; NULL: root */
    uint16_t rows, columns;     /* of the terminal; 0: 24 × 80 */
    bool terminal;              /* it has a terminal; output and error are one then */
    bool input;                 /* it has an input; else that is at its end at once */
    bool detached;              /* it goes on when the handle is freed; else it is killed then */
    uint8_t reserved[9];        /* 0 */
};
// clang-format off
#define VIAL_PROGRAM_OPTIONS_INIT \
    {sizeof(struct vial_program_options), NULL, NULL, NULL, NULL, NULL, 0, 0, false, false, false, {0}}
// clang-format on

struct vial_sandbox_options {
    size_t size;
    const char *name;              /* letters, digits, "_.-", up to 63; NULL: made up, and the sandbox ephemeral */
    struct vial_vm_config *config; /* copied; its exec is not used. NULL: --root host, and defaults */
    const struct vial_program_options *program; /* what it is for, and ends with; NULL: it serves until it is stopped */
    const char *const *labels;                  /* KEY=VALUE, NULL-terminated, or NULL */
    const char *const *scripts; /* NAME=FILE, NULL-terminated, or NULL: commands that stand first on PATH */
    const char *hostname;       /* NULL: the name */
    uint64_t idle_timeout_ms;   /* 0: none. Idle: no session and no work */
    uint64_t max_duration_ms;   /* 0: none */
    uint64_t stop_grace_ms;     /* between being asked and being forced to end */
    bool ephemeral;             /* removed when it has ended */
    bool replace;               /* one of that name is stopped and removed first */
    uint8_t reserved[14];       /* 0 */
};
// clang-format off
#define VIAL_SANDBOX_OPTIONS_INIT \
    {sizeof(struct vial_sandbox_options), NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, 10000, false, false, {0}}
// clang-format on

/* Checks everything that can be checked now and records the sandbox. -EEXIST: there is one of that name. */
VIAL_API int vial_sandbox_create(struct vial_home *home, const struct vial_sandbox_options *options,
                                 struct vial_sandbox **ret_sandbox, struct vial_error *err);

/* By its name, or its id, or the beginning of one if no other begins so. -ENOENT: there is none. */
VIAL_API int vial_sandbox_open(struct vial_home *home, const char *name, struct vial_sandbox **ret_sandbox,
                               struct vial_error *err);

/* What it stands for goes on. Accepts NULL and returns NULL. */
VIAL_API struct vial_sandbox *vial_sandbox_free(struct vial_sandbox *sandbox);

/* Starts its process and waits until the agent serves; a failure says at which stage (`field`) and why. -EALREADY: it
 * runs. The program, if it has one, runs then; vial_sandbox_attach has its streams. */
VIAL_API int vial_sandbox_start(struct vial_sandbox *sandbox, uint64_t timeout_ms, struct vial_error *err);

/* Starts it and attaches to its program before that has said anything: whatever it says comes, and it waits for this
 * handle to be read. */
VIAL_API int vial_sandbox_start_attached(struct vial_sandbox *sandbox, uint64_t timeout_ms,
                                         struct vial_process **ret_process, struct vial_error *err);

/* Instead of a grace: the stop_grace_ms that the sandbox was created with. */
#define VIAL_GRACE_OWN (UINT64_MAX - 1)

/* Asks the guest to end, forces it when the grace is over, and waits for the end. 0 as well when it does not run. */
VIAL_API int vial_sandbox_stop(struct vial_sandbox *sandbox, uint64_t grace_ms, uint64_t timeout_ms,
                               struct vial_error *err);

/* Ends it at once. */
VIAL_API int vial_sandbox_kill(struct vial_sandbox *sandbox, uint64_t timeout_ms, struct vial_error *err);

VIAL_API int vial_sandbox_pause(struct vial_sandbox *sandbox, struct vial_error *err);
VIAL_API int vial_sandbox_resume(struct vial_sandbox *sandbox, struct vial_error *err);

/* Forgets it and all that it has left, logs too. -EBUSY while it runs, unless it is to be killed. */
VIAL_API int vial_sandbox_remove(struct vial_sandbox *sandbox, bool kill, struct vial_error *err);

VIAL_API int vial_sandbox_rename(struct vial_sandbox *sandbox, const char *name, struct vial_error *err);

#define VIAL_SANDBOX_NAME_SIZE 64
#define VIAL_SANDBOX_ID_SIZE 16

struct vial_sandbox_info {
    size_t size;
    char name[VIAL_SANDBOX_NAME_SIZE];
    char id[VIAL_SANDBOX_ID_SIZE];             /* 12 digits of base 16 */
    int32_t status;                            /* enum vial_sandbox_status */
    int32_t reason;                            /* enum vial_exit_reason of the last run; 0 while there is none */
    int32_t code;                              /* exit code of its program, or 128 + signal */
    int32_t pid;                               /* of its process; 0 while there is none */
    int32_t engine;                            /* enum vial_engine of the last run; 0 before the first */
    int32_t isolation;                         /* enum vial_isolation */
    uint64_t created_ns, started_ns, ended_ns; /* since 1970; 0: not yet */
    char command[256];                         /* its program's, for people; may be shortened */
    char detail[VIAL_EXIT_DETAIL_SIZE];
    bool ephemeral;
    uint8_t reserved[31];
};
// clang-format off
#define VIAL_SANDBOX_INFO_INIT \
    {sizeof(struct vial_sandbox_info), {0}, {0}, 0, 0, 0, 0, 0, 0, 0, 0, 0, {0}, {0}, false, {0}}
// clang-format on

VIAL_API const char *vial_sandbox_status_name(int status);
VIAL_API int vial_sandbox_get_info(struct vial_sandbox *sandbox, struct vial_sandbox_info *ret_info,
                                   struct vial_error *err);

/* Everything that is known of it, as JSON in new memory that the caller frees. */
VIAL_API int vial_sandbox_inspect(struct vial_sandbox *sandbox, char **ret_json, struct vial_error *err);

/* Waits for the end of its run; at once when it does not run. */
VIAL_API int vial_sandbox_wait(struct vial_sandbox *sandbox, uint64_t timeout_ms, struct vial_exit *ret_exit,
                               struct vial_error *err);

/* All of them, the newest first, those that nobody has ended told apart (CRASHED) and repaired. The array is the
 * caller's to free. `labels`: only those that have them all (KEY or KEY=VALUE), or NULL. */
VIAL_API int vial_sandbox_list(struct vial_home *home, const char *const *labels, struct vial_sandbox_info **ret_list,
                               size_t *ret_count, struct vial_error *err);

struct vial_sandbox_stats {
    size_t size;
    uint64_t uptime_ns;
    uint64_t cpu_ns;       /* of all that it is on this host */
    uint64_t memory_bytes; /* of the same: resident, what is shared counted once */
    uint64_t guest_total_bytes, guest_available_bytes, balloon_bytes;
    uint64_t disk_read_bytes, disk_written_bytes; /* by its process */
    uint64_t network_received_bytes, network_sent_bytes;
    uint64_t sessions, processes; /* of the guest */
    uint64_t reserved[8];
};
// clang-format off
#define VIAL_SANDBOX_STATS_INIT {sizeof(struct vial_sandbox_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {0}}
// clang-format on

/* As of the last second. -ESRCH when it does not run. */
VIAL_API int vial_sandbox_get_stats(struct vial_sandbox *sandbox, struct vial_sandbox_stats *ret_stats,
                                    struct vial_error *err);

/* ---- programs ---- */

/* Does not wait for its start, unless it is detached: then it runs when this returns. */
VIAL_API int vial_sandbox_exec(struct vial_sandbox *sandbox, const struct vial_program_options *options,
                               struct vial_process **ret_process, struct vial_error *err);

/* The streams of the sandbox's own program. Input: only one handle at a time has it (-EBUSY). A handle that is not read
 * is cut off when it falls behind. */
VIAL_API int vial_sandbox_attach(struct vial_sandbox *sandbox, bool input, uint16_t rows, uint16_t columns,
                                 struct vial_process **ret_process, struct vial_error *err);

/* A stream to a TCP port of the guest's loopback (port not 0), or to the Unix socket at `path`. Its output is stream
 * 1. */
VIAL_API int vial_sandbox_connect(struct vial_sandbox *sandbox, const char *path, uint16_t port,
                                  struct vial_process **ret_process, struct vial_error *err);

enum vial_event_kind {
    VIAL_EVENT_OUTPUT = 1, /* bytes of stream 1 or 2 */
    VIAL_EVENT_CLOSED = 2, /* nothing more comes in that stream */
    VIAL_EVENT_ENDED = 3,  /* the program has ended; the last event */
};

struct vial_process_event {
    size_t size;
    int32_t kind;      /* enum vial_event_kind */
    int32_t stream;    /* 1: output, 2: error */
    const void *bytes; /* valid until the next call for this process that reads */
    size_t length;
    int32_t code;   /* ENDED: exit code, or 128 + signal */
    int32_t signal; /* ENDED: the signal, or 0 */
    uint64_t reserved[2];
};
// clang-format off
#define VIAL_PROCESS_EVENT_INIT {sizeof(struct vial_process_event), 0, 0, NULL, 0, 0, 0, {0}}
// clang-format on

/* The next event: 0, -ETIMEDOUT, or an error, which is final: a program that could not be started (os_error and `field`
 * say why: "exec" with ENOENT is a shell's 127), -ECONNRESET for a sandbox that has ended. What is last is told again
 * to who asks again. */
VIAL_API int vial_process_next(struct vial_process *process, struct vial_process_event *ret_event, uint64_t timeout_ms,
                               struct vial_error *err);

/* For programs with a loop of their own: a descriptor to poll for what vial_process_poll_events says, before each poll.
 * Readable: vial_process_next may have something, or the program takes input again. Writable: vial_process_write may
 * take something. Calls with a timeout of 0 do not wait. Use no write that waits beside this: it may take in output,
 * which poll does not see then. Neither read nor close the descriptor. */
VIAL_API int vial_process_fd(const struct vial_process *process);
VIAL_API int vial_process_poll_events(struct vial_process *process, bool wants_to_write); /* POLLIN, POLLOUT */

/* Gives the program input: how much was taken (at least 1), or -ETIMEDOUT, -EPIPE when nobody reads it any more. */
VIAL_API long vial_process_write(struct vial_process *process, const void *bytes, size_t length, uint64_t timeout_ms,
                                 struct vial_error *err);
VIAL_API int vial_process_close_input(struct vial_process *process, struct vial_error *err);

VIAL_API int vial_process_signal(struct vial_process *process, int number, struct vial_error *err);
VIAL_API int vial_process_resize(struct vial_process *process, uint16_t rows, uint16_t columns, struct vial_error *err);

/* Waits for its end, throwing output away. */
VIAL_API int vial_process_wait(struct vial_process *process, uint64_t timeout_ms, int *ret_code,
                               struct vial_error *err);

/* Accepts NULL and returns NULL. */
VIAL_API struct vial_process *vial_process_free(struct vial_process *process);

/* ---- files ---- */

struct vial_file_info {
    size_t size;
    uint32_t mode; /* st_mode of Linux */
    uint32_t uid, gid, mtime_ns;
    uint64_t bytes;
    int64_t mtime_s;
    char name[256];
    char link[4096]; /* where a symbolic link leads to */
};
// clang-format off
#define VIAL_FILE_INFO_INIT {sizeof(struct vial_file_info), 0, 0, 0, 0, 0, 0, {0}, {0}}
// clang-format on

VIAL_API int vial_sandbox_stat(struct vial_sandbox *sandbox, const char *path, struct vial_file_info *ret_info,
                               struct vial_error *err);
/* The array is the caller's to free. */
VIAL_API int vial_sandbox_list_folder(struct vial_sandbox *sandbox, const char *path, struct vial_file_info **ret_list,
                                      size_t *ret_count, struct vial_error *err);
/* In new memory, with a NUL behind it that is not counted. -EFBIG for more than `most` bytes. */
VIAL_API int vial_sandbox_read_file(struct vial_sandbox *sandbox, const char *path, size_t most, void **ret_bytes,
                                    size_t *ret_length, struct vial_error *err);
VIAL_API int vial_sandbox_write_file(struct vial_sandbox *sandbox, const char *path, uint32_t mode, const void *bytes,
                                     size_t length, struct vial_error *err);
VIAL_API int vial_sandbox_make_folder(struct vial_sandbox *sandbox, const char *path, uint32_t mode, bool parents,
                                      struct vial_error *err);
VIAL_API int vial_sandbox_remove_file(struct vial_sandbox *sandbox, const char *path, bool recursive,
                                      struct vial_error *err);
VIAL_API int vial_sandbox_rename_file(struct vial_sandbox *sandbox, const char *from, const char *to,
                                      struct vial_error *err);

/* Trees, with modes, times, links and holes: `from` becomes `to`, or goes into it where that is a folder, as cp(1) does
 * it. `progress` may be NULL and is called now and then on the calling thread; when it returns false the copy ends with
 * -ECANCELED. How much comes out of a guest is the guest's word, and so are names, modes and where links lead: who does
 * not trust it copies into a folder of its own, bounds it by `progress`, and follows no links there. */
typedef bool (*vial_copy_progress)(void *user, uint64_t files, uint64_t bytes);
VIAL_API int vial_sandbox_copy_in(struct vial_sandbox *sandbox, const char *from, const char *to,
                                  vial_copy_progress progress, void *user, struct vial_error *err);
VIAL_API int vial_sandbox_copy_out(struct vial_sandbox *sandbox, const char *from, const char *to,
                                   vial_copy_progress progress, void *user, struct vial_error *err);

/* ---- logs and events ---- */

enum vial_log_source {
    VIAL_LOG_EXEC = 1,    /* what its program has said: JSON lines {"t", "stream", "text"} */
    VIAL_LOG_CONSOLE = 2, /* the guest's console */
    VIAL_LOG_RUNTIME = 3, /* its process */
};

/* One line or record; its bytes live until the function returns. False: no more. */
typedef bool (*vial_log_line)(void *user, int stream, uint64_t time_ns, const char *bytes, size_t length);

/* The last `tail` records (UINT64_MAX: all), and, when it is to follow, those that come, until the sandbox ends. */
VIAL_API int vial_sandbox_logs(struct vial_sandbox *sandbox, int source, uint64_t tail, bool follow, vial_log_line line,
                               void *user, struct vial_error *err);

/* Events of all sandboxes of a home, each a JSON object on one line without its newline: those since that time (ns
 * since 1970), and those that come until `timeout_ms` is over. */
VIAL_API int vial_home_events(struct vial_home *home, uint64_t since_ns, uint64_t timeout_ms, vial_log_line line,
                              void *user, struct vial_error *err);

#ifdef __cplusplus
}
#endif

#endif
