// SPDX-License-Identifier: Apache-2.0
/* What the host and the guest's first process (guest/init.c) say to each other: run this program; how it ended.
 *
 * The channel is a virtio-console port named "vial.init". Everything on it is a message: eight bytes of header, then a
 * body. Numbers are little-endian and not aligned.
 *
 *     offset  size
 *     0       4     length of the body in bytes
 *     4       2     kind
 *     6       2     version: 1
 *
 *     host                                              guest
 *      │ REQUEST ─────────────────────────────────────────> │  once, when the guest opens the port
 *      │ <──────────────────── STARTED, or FAILED ───────── │  the program's first instruction is next, or never
 *      │ <──────────────────── ENDED ────────────────────── │  after a STARTED, when no process is left
 *      │ GOODBYE ─────────────────────────────────────────> │  after ENDED or FAILED: what was said has arrived, and
 *      │                                                    │  the guest may end the machine
 *
 *     kind            body
 *     REQUEST   1     flags (4): 1 there is a terminal, 2 the uid is given, 4 the gid is given; others are 0
 *                     uid (4), gid (4): 0 where not given
 *                     counts (4 each): arguments, variables of the environment, resource limits
 *                     limits, 24 bytes each: resource as Linux numbers it (4), 0 (4), soft (8), hard (8); all ones in
 *                         soft or hard: unlimited
 *                     strings, each with a NUL at its end: path, working directory, arguments (the first is the one
 *                         behind the program's name), environment (KEY=VALUE)
 *     GOODBYE   2     empty
 *     STARTED   16    empty
 *     FAILED    17    stage (4, enum init_stage), errno (4, as Linux numbers it)
 *     ENDED     18    how (4): 0 it exited, 1 a signal killed it; code or number of the signal (4)
 *
 * The path is a path if it has a slash, else a name to be looked up in the PATH of the request's environment (without
 * one: INIT_DEFAULT_PATH). The environment is the request's and nothing else.
 *
 * The program's standard streams, without a terminal, are the ports "vial.stdin", "vial.stdout" and "vial.stderr"
 * themselves. On a console they stand before "vial.init": Linux hears of ports in their order, so once that one has its
 * name, the others are there and connected. With a terminal they are /dev/console, the program's controlling terminal.
 * The end of input is the host's closing of its side (VIRTIO_CONSOLE_PORT_OPEN 0; virtio 1.2, 5.3.6.2).
 *
 * The init does all this when its environment has INIT_VARIABLE, which a word on the kernel's command line becomes.
 * Without it, it only reports and ends the machine.
 *
 * Encoding cannot make what decoding refuses, and either side refuses, with -EPROTO: another version, an unknown kind,
 * a body that is too short, too long or has something behind its end, unknown flags and numbers, and -E2BIG: more than
 * the limits (base/limits.h).
 */
#ifndef PROTO_INIT_H
#define PROTO_INIT_H

#include "base/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer;

#define INIT_PORT "vial.init"
#define INIT_STDIN_PORT "vial.stdin"
#define INIT_STDOUT_PORT "vial.stdout"
#define INIT_STDERR_PORT "vial.stderr"

#define INIT_VARIABLE "VIAL_EXEC"
#define INIT_DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

enum {
    INIT_VERSION = 1,
    INIT_HEADER_BYTES = 8,
    INIT_MOST_ANSWER_BYTES = INIT_HEADER_BYTES + 8,
};

enum init_kind {
    INIT_REQUEST = 1,
    INIT_GOODBYE = 2,
    INIT_STARTED = 16,
    INIT_FAILED = 17,
    INIT_ENDED = 18,
};

/* What could not be done, in the order in which it is done. */
enum init_stage {
    INIT_STAGE_REQUEST = 1, /* reading it, or it made no sense */
    INIT_STAGE_MOUNT = 2,   /* /proc, /sys or /dev, without which nothing can be found */
    INIT_STAGE_STREAMS = 3, /* a port that should be there, or the console */
    INIT_STAGE_FORK = 4,
    INIT_STAGE_TERMINAL = 5,
    INIT_STAGE_RLIMIT = 6,
    INIT_STAGE_SETGROUPS = 7,
    INIT_STAGE_SETGID = 8,
    INIT_STAGE_SETUID = 9,
    INIT_STAGE_CHDIR = 10,
    INIT_STAGE_EXEC = 11,
};
#define INIT_LAST_STAGE INIT_STAGE_EXEC

struct init_rlimit {
    uint32_t resource;
    uint64_t soft, hard; /* UINT64_MAX: unlimited */
};

/* Strings are borrowed: from the caller who encodes, from the message that was decoded. */
struct init_request {
    const char *path, *workdir;
    const char *const *args; /* behind the program's name */
    const char *const *env;  /* KEY=VALUE */
    size_t arg_count, env_count;
    struct init_rlimit rlimits[LIMIT_RLIMITS];
    size_t rlimit_count;
    uint32_t uid, gid;
    bool has_terminal, has_uid, has_gid;
};

struct init_header {
    uint32_t body_bytes;
    enum init_kind kind;
};

/* What the guest says. */
struct init_answer {
    enum init_kind kind;   /* STARTED, FAILED or ENDED */
    enum init_stage stage; /* FAILED */
    uint32_t os_error;     /* FAILED: a positive errno */
    bool was_killed;       /* ENDED */
    uint32_t number;       /* ENDED: the exit code, or the signal */
};

/* The header of any message: 0, or -EPROTO; the length of its body is one that this kind can have. */
int init_decode_header(const uint8_t bytes[INIT_HEADER_BYTES], struct init_header *ret_header);

/* Appends the message. -E2BIG for more than the limits allow, -EINVAL for what no request may hold (an empty path, a
 * workdir that is not absolute, an unknown resource), -ENOMEM; the buffer is to be thrown away then. */
int init_encode_request(const struct init_request *request, struct buffer *buffer);

/* A request from the body of its message. Its strings point into the body, its two arrays into `ret_table`, which the
 * caller frees: args[-1] is the path, and both end in NULL, as execve wants them. 0, -EPROTO, -E2BIG or -ENOMEM. */
int init_decode_request(const uint8_t *body, size_t length, struct init_request *ret_request, void **ret_table);

/* Returns the length of the message. */
size_t init_encode_answer(const struct init_answer *answer, uint8_t ret_bytes[INIT_MOST_ANSWER_BYTES]);

/* An answer from its header and body: 0 or -EPROTO. */
int init_decode_answer(const struct init_header *header, const uint8_t *body, struct init_answer *ret_answer);

/* A message without a body. */
void init_encode_empty(enum init_kind kind, uint8_t ret_bytes[INIT_HEADER_BYTES]);

/* The stage's name, such as "chdir"; "unknown" for unknown numbers. */
const char *init_stage_name(enum init_stage stage);

#endif
