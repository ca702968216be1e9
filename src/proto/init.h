// SPDX-License-Identifier: Apache-2.0
/* What the host and the guest's first process (guest/init.c) say to each other: mount this, run this, or be an agent;
 * how it ended.
 *
 * The channel is a virtio-console port named "vial.init". Everything on it is a message: eight bytes of header, then a
 * body. Numbers are little-endian and not aligned.
 *
 *     offset  size
 *     0       4     length of the body in bytes
 *     4       2     kind
 *     6       2     version: 5
 *
 *     host                                              guest
 *      │ SETUP ───────────────────────────────────────────> │  once, when the guest opens the port
 *      │ REQUEST ─────────────────────────────────────────> │  once, if there is a program to be run
 *      │ <──────────────────── STARTED, or FAILED ───────── │  the program's first instruction is next, or never;
 *      │                                                    │  without a program: everything is mounted, or not,
 *      │                                                    │  and the agent, if one is wanted, is next
 *      │ <──────────────────── ENDED ────────────────────── │  after a STARTED, when the program has ended and
 *      │                                                    │  everything that lies on a disk is unmounted
 *      │ GOODBYE ─────────────────────────────────────────> │  after ENDED or FAILED: what was said has arrived, and
 *      │                                                    │  the guest may end the machine. Or the host does that
 *      │                                                    │  itself, without a word: nothing is left to be lost
 *
 *     kind            body
 *     REQUEST   1     flags (4): 1 there is a terminal, 2 the uid is given, 4 the gid is given, 8 what is missing is
 *                         the guest's own to say; others are 0
 *                     uid (4), gid (4): 0 where not given
 *                     counts (4 each): arguments, variables of the environment, resource limits
 *                     limits, 24 bytes each: resource as Linux numbers it (4), 0 (4), soft (8), hard (8); all ones in
 *                         soft or hard: unlimited
 *                     strings, each with a NUL at its end: path, working directory, arguments (the first is the one
 *                         behind the program's name), environment (KEY=VALUE); with the flag 8 the first two may be
 *                         empty
 *     GOODBYE   2     empty
 *     SETUP     3     flags (4): 1 a REQUEST follows, 2 an agent is wanted; not both, and others are 0
 *                     counts (4 each): mounts, networks
 *                     hostname, with a NUL at its end; empty: "vial"
 *                     mounts: role (4), kind (4), flags (4, enum init_mount_flag); and strings, each with a NUL at
 *                         its end: source, target, file system type, options
 *                     networks: the interface's MAC address (6), flags (2): 1 it asks for its addresses by DHCP,
 *                         others are 0; and strings, each with a NUL at its end, of words with a space between them:
 *                         addresses with their prefix ("10.0.2.15/24"), gateways, name servers
 *     STARTED   16    empty
 *     FAILED    17    stage (4, enum init_stage), errno (4, as Linux numbers it), the number of the mount, or of the
 *                         network, that it is about, from 0, or all ones (4): with the stage INTERFACE, the name
 *                         servers cannot be shown. With the stage CONFIG the place in the file, from 0, or all ones
 *     ENDED     18    how (4): 0 it exited, 1 a signal killed it; code or number of the signal (4)
 *
 * The mounts of a SETUP stand in the order of their roles. Either one is the root, or some are layers of it, the
 * topmost first, under an upper one; without an upper layer that is a tmpfs. Without either the root stays what it is.
 * The rest is mounted below the root in its order, at targets that are made where they are missing.
 *
 *     kind            source                          file system type
 *     DISK      1     the id of a disk, or /dev/…     "": as the disk's content says
 *     VIRTIOFS  2     the tag                         ""
 *     TMPFS     3     ""                              ""
 *     PRESENT   4     "" (what is the root now)       ""; only as a layer
 *
 * A network is one of the guest's interfaces, told by its address. With DHCP it has no addresses and no gateways here.
 * Of several gateways the first network's is the way out. The name servers of all networks that are given stand before
 * those that are learned.
 *
 * Options are those of mount(8), without the flags that have a bit here.
 *
 * The path is a path if it has a slash, else a name to be looked up in the PATH of the request's environment (without
 * one: INIT_DEFAULT_PATH). The environment is the request's and nothing else.
 *
 * With the flag 8, after everything is mounted, the guest looks into a file of its own: the one that the variable
 * INIT_CONFIG_VARIABLE of the request's environment names, else INIT_CONFIG_FILE; without the file only the request
 * counts. What is given goes before what the file says; guest/krun.c has how it is read, and the rules. It is never
 * read on the host. A request without a path and arguments, in a guest without a word about it, is for /bin/sh; without
 * a path the first argument is the program. The guest's name is then the variable HOSTNAME, or "localhost".
 *
 * The program's standard streams, without a terminal, are the ports "vial.stdin", "vial.stdout" and "vial.stderr"
 * themselves. On a console they stand before "vial.init": Linux hears of ports in their order, so once that one has its
 * name, the others are there and connected. With a terminal they are /dev/console, the program's controlling terminal.
 * The end of input is the host's closing of its side (VIRTIO_CONSOLE_PORT_OPEN 0; virtio 1.2, 5.3.6.2).
 *
 * With an agent the guest then serves another port, "vial.agent" (proto/agent.h), which stands before "vial.init", too,
 * until the host wants the end there; ENDED says that everything is unmounted.
 *
 * The init does all this when its environment has INIT_VARIABLE, which a word on the kernel's command line becomes.
 * Without it, it only reports and ends the machine. With a SETUP and no program it does both, one after the other.
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
#define INIT_CONFIG_VARIABLE "KRUN_CONFIG"
#define INIT_CONFIG_FILE "/.krun_config.json"
#define INIT_DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

enum {
    INIT_VERSION = 5,
    INIT_HEADER_BYTES = 8,
    INIT_MOST_ANSWER_BYTES = INIT_HEADER_BYTES + 12,
};

enum init_kind {
    INIT_REQUEST = 1,
    INIT_GOODBYE = 2,
    INIT_SETUP = 3,
    INIT_STARTED = 16,
    INIT_FAILED = 17,
    INIT_ENDED = 18,
};

/* What could not be done, nearly in the order in which it is done. */
enum init_stage {
    INIT_STAGE_REQUEST = 1, /* reading a message, or it made no sense */
    INIT_STAGE_SYSTEM = 2,  /* /proc, /sys or /dev, without which nothing can be found */
    INIT_STAGE_SOURCE = 3,  /* there is no such disk */
    INIT_STAGE_TARGET = 4,  /* its mount point is not there and cannot be made */
    INIT_STAGE_MOUNT = 5,
    INIT_STAGE_LAYERS = 6,  /* merging them */
    INIT_STAGE_ROOT = 7,    /* making it the root */
    INIT_STAGE_STREAMS = 8, /* a port that should be there, or the console */
    INIT_STAGE_FORK = 9,
    INIT_STAGE_TERMINAL = 10,
    INIT_STAGE_RLIMIT = 11,
    INIT_STAGE_SETGROUPS = 12,
    INIT_STAGE_SETGID = 13,
    INIT_STAGE_SETUID = 14,
    INIT_STAGE_CHDIR = 15,
    INIT_STAGE_EXEC = 16,
    INIT_STAGE_INTERFACE = 17, /* after the mounts: there is none, it takes no address, or see FAILED */
    INIT_STAGE_LEASE = 18,     /* nobody has given it one by DHCP */
    INIT_STAGE_CONFIG = 19,    /* the guest's own configuration: EBADMSG where it is no JSON, EINVAL where it makes no
                                  sense, or it cannot be read, or something that it wants be mounted */
};
#define INIT_LAST_STAGE INIT_STAGE_CONFIG

/* What a mount is for. */
enum init_mount_role {
    INIT_ROLE_ROOT = 1,
    INIT_ROLE_LOWER = 2,
    INIT_ROLE_UPPER = 3,
    INIT_ROLE_PLACE = 4, /* it has a target */
};

enum init_mount_kind {
    INIT_MOUNT_DISK = 1,
    INIT_MOUNT_VIRTIOFS = 2,
    INIT_MOUNT_TMPFS = 3,
    INIT_MOUNT_PRESENT = 4,
};

enum init_mount_flag {
    INIT_MOUNT_READ_ONLY = 1,
    INIT_MOUNT_NOSUID = 2,
    INIT_MOUNT_NODEV = 4,
    INIT_MOUNT_ALL_FLAGS = 7,
};

#define INIT_NO_MOUNT UINT32_MAX

/* Strings are borrowed, as those of a request; none is NULL. */
struct init_mount {
    enum init_mount_role role;
    enum init_mount_kind kind;
    uint32_t flags;
    const char *source, *target, *fstype, *options;
};

struct init_network {
    uint8_t mac[6];
    bool wants_dhcp;
    const char *addresses, *gateways, *nameservers; /* borrowed, as above */
};

struct init_setup {
    const struct init_mount *mounts; /* borrowed */
    size_t mount_count;
    const struct init_network *networks; /* borrowed */
    size_t network_count;
    bool has_request, wants_agent; /* at most one of them */
    const char *hostname;          /* borrowed; "" for the usual one. To encode NULL means the same */
};

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
    bool wants_config; /* path and workdir may be empty: what is missing is the guest's own to say */
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
    uint32_t mount;        /* FAILED: its number, or the network's, or a place in the guest's file, or INIT_NO_MOUNT */
    bool was_killed;       /* ENDED */
    uint32_t number;       /* ENDED: the exit code, or the signal */
};

/* The header of any message: 0, or -EPROTO; the length of its body is one that this kind can have. */
int init_decode_header(const uint8_t bytes[INIT_HEADER_BYTES], struct init_header *ret_header);

/* Whether a header that was refused may be that of an answer in another version: only this can be known of it. */
bool init_is_other_version(const uint8_t bytes[INIT_HEADER_BYTES]);

/* Appends the message. -E2BIG for more than the limits allow, -EINVAL for what no request may hold (an empty path, a
 * workdir that is not absolute, an unknown resource), -ENOMEM; the buffer is to be thrown away then. */
int init_encode_request(const struct init_request *request, struct buffer *buffer);

/* A request from the body of its message. Its strings point into the body, its two arrays into `ret_table`, which the
 * caller frees: args[-1] is the path, and both end in NULL, as execve wants them. 0, -EPROTO, -E2BIG or -ENOMEM. */
int init_decode_request(const uint8_t *body, size_t length, struct init_request *ret_request, void **ret_table);

/* The same for a setup. The arrays that it points to are in `ret_table`. */
int init_encode_setup(const struct init_setup *setup, struct buffer *buffer);
int init_decode_setup(const uint8_t *body, size_t length, struct init_setup *ret_setup, void **ret_table);

/* Returns the length of the message. */
size_t init_encode_answer(const struct init_answer *answer, uint8_t ret_bytes[INIT_MOST_ANSWER_BYTES]);

/* An answer from its header and body: 0 or -EPROTO. */
int init_decode_answer(const struct init_header *header, const uint8_t *body, struct init_answer *ret_answer);

/* A message without a body. */
void init_encode_empty(enum init_kind kind, uint8_t ret_bytes[INIT_HEADER_BYTES]);

/* The stage's name, such as "chdir"; "unknown" for unknown numbers. */
const char *init_stage_name(enum init_stage stage);

#endif
