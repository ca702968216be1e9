// SPDX-License-Identifier: Apache-2.0
/* What a host and the agent of a guest (guest/agent.c) say to each other: frames over one stream of bytes.
 *
 *     clients ══ Unix socket ══ relay (src/sandbox) ══ virtio-console port "vial.agent" ══ agent, PID 1 of the guest
 *
 * A frame is a header of 12 bytes and a body. Numbers of the header are little-endian; the body is one CBOR map (RFC
 * 8949) with small unsigned numbers as keys, or nothing. docs/PROTOCOL.md says what each kind holds and when it is
 * sent.
 *
 *     offset  size
 *     0       4     length of the body, at most AGENT_MOST_BODY_BYTES
 *     4       4     id: the session that it belongs to; 0 belongs to none
 *     8       2     kind
 *     10      2     flags (enum agent_flag)
 *
 * A session begins with a request under an id that is free and ends with the one frame that has AGENT_LAST. What begins
 * one may only come from the host. Between them flow DATA, in both directions, in streams that each have a window: a
 * sender sends at most as many bytes as the other side has granted (the request's `window` to begin with, and CREDIT
 * from then on), so that a side which does not read stops its own session only.
 *
 * The upper 16 bits of an id name the client (0: the sandbox process itself), the lower its session; clients send and
 * see 0 in the upper bits, the relay fills them in. Kinds from AGENT_FIRST_OWN on are between a client and the sandbox
 * process and never reach the guest.
 *
 * Both sides decode with agent_decode, which takes nothing that is not exactly a message: no unknown kinds, keys, flags
 * or key orders, no second encoding of a number, nothing missing, nothing behind the end. Spans of a decoded message
 * point into the body, so it lives as long as that.
 *
 * Trust: neither side trusts the other. What is malformed ends the connection to a client, and the sandbox if the agent
 * sent it.
 */
#ifndef PROTO_AGENT_H
#define PROTO_AGENT_H

#include "base/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer;

#define AGENT_PORT "vial.agent"

enum {
    AGENT_VERSION = 1,
    AGENT_HEADER_BYTES = 12,
    AGENT_MOST_BODY_BYTES = LIMIT_EXEC_REQUEST_BYTES + (64 << 10), /* an EXEC with all that Linux takes */
    AGENT_MOST_DATA_BYTES = 64 << 10,                              /* the bytes of one DATA */
    AGENT_MOST_WINDOW = 1 << 20,                                   /* of one stream */
    AGENT_MOST_PATH_BYTES = LIMIT_EXEC_PATH_BYTES - 1,             /* without a NUL, as all of these */
    AGENT_MOST_NAME_BYTES = 255,                                   /* of a file: Linux's NAME_MAX */
    AGENT_MOST_USER_BYTES = 511,         /* USER[:GROUP], two names of Linux's LOGIN_NAME_MAX */
    AGENT_MOST_KERNEL_BYTES = 64,        /* a release: struct utsname has 65 with the NUL */
    AGENT_MOST_MESSAGE_BYTES = 1024,     /* what is said about a failure: a sentence, and a part of a path */
    AGENT_MOST_REPORT_BYTES = 256 << 10, /* state, metrics and sessions take some KiB */
    AGENT_DEFAULT_WINDOW = 256 << 10,
    AGENT_FIRST_OWN = 96,
};

enum agent_kind {
    /* To the agent: each begins a session. */
    AGENT_EXEC = 1,
    AGENT_CONNECT = 2, /* a stream to a TCP or Unix socket of the guest */
    AGENT_STAT = 3,
    AGENT_LIST = 4,
    AGENT_READ = 5,  /* a file's bytes, as DATA of stream 1 */
    AGENT_WRITE = 6, /* bytes for a file, from DATA of stream 0 */
    AGENT_MAKE = 7,  /* a folder */
    AGENT_REMOVE = 8,
    AGENT_RENAME = 9,
    AGENT_PULL = 10, /* a tree, as a stream of proto/tree.h in DATA of stream 1 */
    AGENT_PUSH = 11, /* the same the other way, in stream 0 */
    AGENT_PING = 12,
    AGENT_CLOCK = 13,    /* set the clock */
    AGENT_SHUTDOWN = 14, /* end everything, unmount, end the machine */
    /* To the agent, within a session. */
    AGENT_SIGNAL = 32, /* for the program and its process group */
    AGENT_RESIZE = 33, /* the terminal */
    AGENT_CANCEL = 34, /* end the session at once: its program is killed */
    AGENT_GONE = 35,   /* the client of these upper 16 bits is gone: its sessions are cancelled, detached ones go on */
    /* Both ways. */
    AGENT_DATA = 48,   /* bytes of a stream; empty with AGENT_END */
    AGENT_CREDIT = 49, /* that many more bytes of a stream may come */
    /* From the agent. */
    AGENT_READY = 64,     /* once, of no session: from now on a session would succeed */
    AGENT_HEARTBEAT = 65, /* every second, of no session */
    AGENT_STARTED = 66,   /* the program runs, the file is open, the peer has accepted */
    AGENT_FAILED = 67,    /* LAST */
    AGENT_ENDED = 68,     /* LAST: the program has ended and its streams are at their end */
    AGENT_DONE = 69,      /* LAST: it is done; PING and CLOCK are answered by it */
    AGENT_ENTRY = 70,     /* one file: the answer to STAT (LAST), an item of LIST */
    /* Between a client and the sandbox process. */
    AGENT_STATUS = 96,  /* to the process: how is it? -> REPORT */
    AGENT_STOP = 97,    /* to the process: shut down, by force after a grace -> DONE, then the connection ends */
    AGENT_PAUSE = 98,   /* -> DONE or FAILED */
    AGENT_RESUME = 99,  /* -> DONE or FAILED */
    AGENT_ATTACH = 100, /* to the main program's streams -> STARTED, DATA …, ENDED */
    AGENT_REPORT = 101, /* LAST: JSON */
    AGENT_EVENTS = 102, /* -> REPORT without LAST: as STATUS, then every change, as it comes */
};

enum agent_flag {
    AGENT_LAST = 1, /* the session is over with this frame */
    AGENT_END = 2,  /* of DATA: nothing more comes in this stream */
    AGENT_ALL_FLAGS = 3,
};

/* Streams of a session, as the program's descriptors are numbered. With a terminal output is 1 and 2 does not exist. */
enum { AGENT_STDIN = 0, AGENT_STDOUT = 1, AGENT_STDERR = 2, AGENT_STREAMS = 3 };

/* What could not be done. A shell's status: 127 for EXEC with ENOENT, else 126. */
enum agent_stage {
    AGENT_STAGE_PROTOCOL = 1, /* the request makes no sense here: a session of that id exists, … */
    AGENT_STAGE_LIMIT = 2,    /* too many sessions, … */
    AGENT_STAGE_FORK = 3,
    AGENT_STAGE_TERMINAL = 4,
    AGENT_STAGE_STREAMS = 5,
    AGENT_STAGE_RLIMIT = 6,
    AGENT_STAGE_USER = 7, /* there is no such user or group, or it cannot be taken */
    AGENT_STAGE_CHDIR = 8,
    AGENT_STAGE_EXEC = 9,
    AGENT_STAGE_OPEN = 10,
    AGENT_STAGE_READ = 11,
    AGENT_STAGE_WRITE = 12,
    AGENT_STAGE_CONNECT = 13,
    AGENT_STAGE_FILE = 14, /* any other operation on a file */
    AGENT_STAGE_CLOCK = 15,
    AGENT_STAGE_STATE = 16, /* the machine is not in a state for it */
};
#define AGENT_LAST_STAGE AGENT_STAGE_STATE

/* Bytes in the body, without a NUL. What holds a path or a name has none inside either. */
struct agent_span {
    const char *bytes;
    size_t length;
};

/* Strings, each with a NUL at its end, one after the other: `count` of them in all of `span`. */
struct agent_strings {
    struct agent_span span;
    size_t count;
};

struct agent_rlimit {
    uint32_t resource;
    uint64_t soft, hard; /* UINT64_MAX: unlimited */
};

enum agent_exec_flag {
    AGENT_EXEC_TERMINAL = 1, /* with a terminal of rows × columns; its output is stream 1 */
    AGENT_EXEC_DETACHED = 2, /* goes on when the client is gone */
    AGENT_EXEC_NO_INPUT = 4, /* stream 0 is at its end from the beginning (/dev/null) */
    AGENT_EXEC_MAIN = 8,     /* only from the sandbox process: its end is the sandbox's end */
    AGENT_EXEC_ALL_FLAGS = 15,
};

struct agent_exec {
    uint32_t flags;  /* enum agent_exec_flag */
    uint32_t window; /* for each output stream; the agent grants the same for the input, in its STARTED */
    uint32_t rows, columns;
    struct agent_span path;    /* with a slash, or a name for PATH */
    struct agent_strings args; /* argv whole, [0] included: at least one */
    struct agent_strings env;  /* KEY=VALUE; nothing else is in the environment but what PATH begins with */
    struct agent_span workdir; /* absolute, or empty: / */
    struct agent_span user;    /* "", or USER[:GROUP], each by name or number, as of the guest's files */
    struct agent_rlimit rlimits[LIMIT_RLIMITS];
    size_t rlimit_count;
};

struct agent_connect {
    uint32_t window;
    uint32_t port;            /* of TCP on the guest's loopback or `target`; 0: a Unix socket */
    struct agent_span target; /* an address, or the path of a Unix socket; empty: 127.0.0.1, then ::1 */
};

enum agent_file_flag {
    AGENT_FILE_FOLLOW = 1,     /* STAT: what a symbolic link leads to */
    AGENT_FILE_PARENTS = 2,    /* MAKE: those that are missing as well; no error if it is there */
    AGENT_FILE_RECURSIVE = 4,  /* REMOVE: with everything below */
    AGENT_FILE_APPEND = 8,     /* WRITE: behind what is there, else in its place */
    AGENT_FILE_EXCLUSIVE = 16, /* WRITE: it must not exist */
    AGENT_FILE_OWNERS = 32,    /* PUSH: take the owners of the tree; else they are who the agent runs as */
    AGENT_FILE_ALL_FLAGS = 63,
};

/* STAT, LIST, READ, WRITE, MAKE, REMOVE, RENAME, PULL, PUSH. */
struct agent_file {
    uint32_t flags;
    uint32_t window;         /* READ and PULL: of stream 1; WRITE and PUSH: 0 */
    uint32_t mode;           /* WRITE and MAKE: permissions of what is made; else 0 */
    uint64_t offset, length; /* READ: the part; a length of all ones: to the end. Else 0 */
    struct agent_span path;  /* absolute */
    struct agent_span to;    /* RENAME; else empty */
};

struct agent_entry {
    uint32_t mode; /* st_mode whole */
    uint32_t uid, gid;
    uint64_t size;
    int64_t mtime_s;
    uint32_t mtime_ns;
    struct agent_span name; /* LIST: the name in its folder. STAT: empty */
    struct agent_span link; /* where a symbolic link leads to, else empty */
};

struct agent_ready {
    uint32_t version; /* AGENT_VERSION */
    uint32_t cpus;
    uint64_t memory_bytes;
    uint64_t uptime_ns;       /* of the guest's kernel */
    struct agent_span kernel; /* its release */
};

struct agent_heartbeat {
    uint64_t uptime_ns;
    uint64_t busy_ns;                      /* CPU time that all processes and the kernel have used */
    uint64_t total_bytes, available_bytes; /* memory */
    uint32_t sessions;
    uint32_t processes;
};

struct agent_message {
    uint32_t id;
    enum agent_kind kind;
    uint32_t flags; /* enum agent_flag */
    union {
        struct agent_exec exec;
        struct agent_connect connect;
        struct agent_file file;
        struct {
            uint64_t unix_ns;
        } clock;
        struct {
            uint32_t grace_ms; /* SHUTDOWN and STOP: between SIGTERM and SIGKILL */
        } stop;
        struct {
            uint32_t number; /* of Linux */
        } signal;
        struct {
            uint32_t rows, columns;
        } resize;
        struct {
            uint32_t stream;
            struct agent_span bytes;
        } data;
        struct {
            uint32_t stream, bytes;
        } credit;
        struct agent_ready ready;
        struct agent_heartbeat heartbeat;
        struct {
            uint32_t pid;    /* EXEC */
            uint32_t window; /* granted for stream 0 */
        } started;
        struct {
            uint32_t stage, os_error;  /* enum agent_stage; an errno of Linux */
            struct agent_span message; /* what, on what; may be empty */
        } failed;
        struct {
            uint32_t code, signal; /* how the program ended: signal is 0 when it exited */
        } ended;
        struct agent_entry entry;
        struct {
            uint32_t flags; /* enum agent_attach_flag */
            uint32_t window;
            uint32_t rows, columns;
        } attach;
        struct {
            struct agent_span json;
        } report;
    };
};

enum agent_attach_flag {
    AGENT_ATTACH_INPUT = 1,   /* stream 0 goes to the program; one client at a time */
    AGENT_ATTACH_PRIMARY = 2, /* the program waits for this client to read; others are dropped when they fall behind */
    AGENT_ATTACH_ALL_FLAGS = 3,
};

struct agent_header {
    uint32_t body_bytes, id;
    enum agent_kind kind;
    uint32_t flags;
};

/* Appends the frame. -EINVAL for what decoding would refuse, -E2BIG for more than the limits, and the buffer's own
 * errors -ENOMEM and -ENOBUFS, which stay with it; it is as long as before then. Members that the kind does not have on
 * the wire are not looked at. */
int agent_encode(const struct agent_message *message, struct buffer *buffer);

/* The header of any frame: 0, or -EPROTO. */
int agent_decode_header(const uint8_t bytes[AGENT_HEADER_BYTES], struct agent_header *ret_header);

/* The same for another id, in place: what the relay does. */
void agent_set_id(uint8_t bytes[AGENT_HEADER_BYTES], uint32_t id);

/* The message of a header and its body, whose bytes it points into: 0 or -EPROTO. */
int agent_decode(const struct agent_header *header, const uint8_t *body, struct agent_message *ret_message);

/* What a frame of DATA begins with, for bytes that are sent from where they lie: the header and all of the body but the
 * bytes themselves. Returns its length. `length` is at most AGENT_MOST_DATA_BYTES. */
enum { AGENT_DATA_PREFIX_BYTES = AGENT_HEADER_BYTES + 16 };
size_t agent_data_prefix(uint32_t id, uint32_t stream, uint32_t flags, size_t length,
                         uint8_t ret_bytes[AGENT_DATA_PREFIX_BYTES]);

/* Whether the host may send that kind to the agent; the agent to the host; a client to the sandbox process. */
bool agent_is_from_host(enum agent_kind kind);
bool agent_is_from_agent(enum agent_kind kind);
bool agent_is_from_client(enum agent_kind kind);

/* Whether it begins a session, under an id that is free. */
bool agent_begins_session(enum agent_kind kind);

/* Walks strings: the first with `at` NULL, then the one behind it; NULL at the end. */
const char *agent_strings_next(const struct agent_strings *strings, const char *at);

/* Stable names, such as "exec" and "chdir"; "unknown" for other numbers. */
const char *agent_kind_name(enum agent_kind kind);
const char *agent_stage_name(enum agent_stage stage);

#endif
