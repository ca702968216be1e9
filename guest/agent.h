// SPDX-License-Identifier: Apache-2.0
/* What the files of the guest's agent share. (proto/agent.h says what it speaks, agent.c how it works)
 *
 *     agent.c          the loop, the port, requests that are done at once
 *     agent_queue.c    what is to go out
 *     agent_session.c  sessions and their streams
 *     agent_exec.c     programs; agent_launch.c their begin; agent_user.c who they run as
 *     agent_connect.c  streams to sockets of the guest
 *     agent_files.c    files, read and written; agent_remove.c trees, removed; agent_tree.c trees, copied
 *
 * Functions return 0 or a negative errno, as everywhere in the guest.
 */
#ifndef AGENT_H
#define AGENT_H

#include "base/buffer.h"
#include "proto/agent.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    AGENT_MOST_SESSIONS = 1024,
    AGENT_CHUNK_BYTES = 32 << 10,  /* of a stream at a time; what one write to a port takes */
    AGENT_QUEUE_BYTES = 512 << 10, /* what goes out: room for all that one step of anybody may say */
    AGENT_QUEUE_FULL_BYTES = 128 << 10,
};

#define AGENT_SCRIPTS_FOLDER "/.vial/scripts" /* mounted before the agent serves, or not at all */

struct agent;
struct session;

/* ---- agent_queue.c: frames on their way to the port ---- */

struct queue {
    uint8_t *bytes; /* owned: AGENT_QUEUE_BYTES */
    size_t start, end;
    struct buffer frame; /* where one is encoded; its memory stays */
    bool is_broken;      /* the port has failed, or memory was missing: nothing goes out any more */
};

int queue_init(struct queue *queue);
void queue_release(struct queue *queue);
static inline bool queue_is_empty(const struct queue *queue)
{
    return queue->start == queue->end;
}

/* Whether anybody may make more. One step, of whatever kind, then finds room. */
bool queue_has_room(const struct queue *queue);

/* Appends the frame. */
void queue_send(struct queue *queue, const struct agent_message *message);

/* The same for what a file system says, which may be more than a frame can: -EINVAL or -E2BIG, and nothing is sent. */
int queue_try(struct queue *queue, const struct agent_message *message);

/* Room for `length` bytes of a DATA, at most AGENT_CHUNK_BYTES; queue_data_end makes so many of them a frame of it. */
uint8_t *queue_data_begin(struct queue *queue, size_t length);
void queue_data_end(struct queue *queue, uint32_t id, uint32_t stream, size_t reserved, size_t length);

/* Writes as much as the port takes now. */
void queue_flush(struct queue *queue, int port);

/* ---- agent_session.c ---- */

/* How a session of a kind goes on. Each may be NULL. */
struct session_ops {
    /* Bytes of stream 0 have come: takes all of them. NULL: they go to the input's descriptor. */
    void (*take)(struct session *session, const uint8_t *bytes, size_t length);
    void (*input_done)(struct session *session); /* all of stream 0 is where it belongs; its descriptor is still open */
    void (*output_done)(struct session *session); /* an output is at its end, or has given what was due */
    void (*connected)(struct session *session);   /* the input's descriptor is connected, or not */
    void (*step)(struct session *session);        /* a bounded piece of work; while session_set_busy says so */
    void (*signal)(struct session *session, int number);
    void (*resize)(struct session *session, uint32_t rows, uint32_t columns);
    void (*cancel)(struct session *session); /* end it, now or soon. NULL: now */
    void (*free)(struct session *session);   /* what its struct has beyond ours; NULL: nothing */
};

/* A descriptor that the loop waits for. */
struct watch {
    struct session *session; /* borrowed: whose it is */
    int fd;                  /* owned, or -1 */
    uint32_t events;         /* that are waited for, or 0 */
};

/* From the host into a descriptor. What it does not take at once waits here, up to the window. */
struct input {
    struct watch watch;
    uint8_t *bytes; /* owned: a ring of the window's bytes and some, from the first time that something has to wait */
    uint32_t window, first, length;
    uint32_t granted;  /* bytes that the host may still send */
    uint32_t consumed; /* bytes that it may be granted again */
    bool has_ended;    /* nothing more comes */
    bool is_connecting;
    bool is_terminal; /* whose end of file is a character */
    uint8_t last;     /* byte that came */
};

/* From a descriptor to the host. */
struct output {
    struct watch watch;
    uint32_t credit;
    uint32_t due;    /* is_counted: bytes that are still waited for */
    bool is_counted; /* nobody waits for the end of it any more */
};

enum { SESSION_OUTPUTS = 2 };

struct session {
    struct agent *agent; /* borrowed */
    const struct session_ops *ops;
    uint32_t id;      /* 0: its client is gone, nobody is told anything */
    bool is_detached; /* it goes on then */
    bool is_busy;
    bool is_over;                           /* its last frame is sent; the loop frees it */
    struct input input;                     /* of stream 0 */
    struct output outputs[SESSION_OUTPUTS]; /* of streams 1 and 2 */
};

struct session_table {
    struct session *items[AGENT_MOST_SESSIONS]; /* owned */
    size_t count, busy_count, over_count;
    size_t turn;           /* whose it is among those that are busy */
    uint64_t window_bytes; /* of all their inputs */
    int epoll;             /* owned: all their streams */
};

/* A session of `size` bytes that begins with a struct session, in the table; NULL after saying why not. */
struct session *session_new(struct agent *agent, uint32_t id, const struct session_ops *ops, size_t size);
struct session *session_find(struct agent *agent, uint32_t id);
void session_free_over(struct agent *agent);
void session_free_all(struct agent *agent);

/* The descriptors, which do not block, become the session's; also where it fails. */
int session_add_input(struct session *session, int fd);
int session_add_output(struct session *session, size_t index, int fd, uint32_t credit);
void session_close_input(struct session *session);
void session_close_output(struct session *session, size_t index);

/* What an output holds now is all that is waited for. */
void session_count_output(struct session *session, size_t index);
bool session_outputs_are_closed(const struct session *session);
bool session_outputs_are_done(const struct session *session); /* closed, or what was due has gone */

/* Waits for a socket that is being connected, the input's. */
void session_await_connection(struct session *session);

/* Lets the host send so much in stream 0: less than it asks for when there are many sessions. */
uint32_t session_grant(struct session *session, uint32_t window);

/* Bytes of stream 0 are gone, and as many may come. */
void session_consume(struct session *session, size_t length);

void session_set_busy(struct session *session, bool is_busy);

/* What the host says about it. */
void session_take_data(struct session *session, const struct agent_message *message);
void session_take_credit(struct session *session, uint32_t stream, uint32_t bytes);
void session_cancel(struct session *session);
void session_forget_client(struct agent *agent, uint32_t client);

/* What it says. Each of the second group is the last. */
void session_started(struct session *session, uint32_t pid);
void session_send_end(struct session *session, uint32_t stream);

void session_fail(struct session *session, enum agent_stage stage, int failure, const char *what);
void session_done(struct session *session);
void session_ended(struct session *session, int status);

/* Bytes for stream 1 of a session that makes them itself: room for *length at most, which is 0 when none may be said
 * now; session_send says so many of them. */
uint8_t *session_room(struct session *session, size_t *length);
void session_send(struct session *session, size_t reserved, size_t length);

/* Move what can be moved, for a while. */
void session_run_streams(struct agent *agent);
void session_run_busy(struct agent *agent);

/* ---- agent.c ---- */

/* Both owned, or -1. */
struct pipe_ends {
    int ours; /* which does not block */
    int theirs;
};

struct agent {
    int port;                  /* borrowed */
    int epoll, timer, signals; /* owned */
    int stat_fd, memory_fd;    /* owned: of /proc, or -1 */
    int null_fd;               /* owned: what programs without input read, or -1 */
    struct pipe_ends ready[3]; /* for the next program's streams */
    unsigned ready_in_turns;   /* when those that were taken are to be made anew; 0: all are there, or cannot be */
    uint32_t port_events;      /* that are waited for */
    bool streams_are_on;       /* and whether streams are */
    struct queue queue;
    uint8_t *received; /* owned: what came from the port, from received_start on */
    size_t received_start, received_end;
    bool has_frames;  /* of those some may be whole: the queue had no room for their answers */
    uint8_t *scratch; /* owned: AGENT_CHUNK_BYTES for bytes that nobody wants */
    struct session_table sessions;
    size_t lingering;       /* sessions whose streams may take a moment to end */
    bool wants_scan;        /* sessions were cancelled: what is left of them is to be found */
    uint64_t file_limit[2]; /* soft and hard, as programs are to have it */
    bool is_first;          /* of all processes */
    bool is_at_root;        /* its working folder is "/" */
    bool has_scripts;       /* in AGENT_SCRIPTS_FOLDER, as the machine began */
    uid_t uid;
    gid_t gid;

    bool is_ending, was_lost, is_off_port;
    uint32_t shutdown_id; /* who is to be told, or 0 */
    uint64_t grace_end_ns, delivery_end_ns;
};

/* Serves the port until the host wants the end, or has gone. When it returns, no process but this one is left, if it
 * is the first one. */
int agent_serve(int port);

/* Says that a request that has no session failed. */
void agent_refuse(struct agent *agent, uint32_t id, enum agent_stage stage, int failure, const char *what);

uint64_t agent_now_ns(void);

/* A path or a text of a message, in memory of its own that the caller frees. NULL without memory. */
char *agent_copy_span(const struct agent_span *span);

/* ---- the kinds of sessions ---- */

void exec_begin(struct agent *agent, const struct agent_message *message);
void exec_reap(struct agent *agent);                  /* whatever has ended */
void exec_look_after(struct agent *agent);            /* those that linger, those that were cancelled */
void exec_make_ready(struct agent *agent);            /* what the next program needs; at the end of each turn */
void exec_release(struct agent *agent);               /* what was made ready */
size_t exec_count(const struct agent *agent);         /* sessions */
size_t exec_count_running(const struct agent *agent); /* whose program has not ended */
void exec_signal_all(struct agent *agent, int number);
void exec_hang_up_terminals(struct agent *agent);

void connect_begin(struct agent *agent, const struct agent_message *message);
void file_begin(struct agent *agent, const struct agent_message *message);
void remove_begin(struct agent *agent, const struct agent_message *message, const char *path);
void tree_begin(struct agent *agent, const struct agent_message *message, const char *path);

/* ---- agent_user.c ---- */

struct user {
    uid_t uid;
    gid_t gid;
    gid_t groups[64];
    size_t group_count;
    char name[256], home[1024], shell[1024]; /* empty where the files do not say */
};

/* Looks "USER[:GROUP]" up; "" is whoever has the number 0. -ENOENT when there is no such name. */
int user_find(const char *text, struct user *ret_user);

#endif
