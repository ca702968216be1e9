/* SPDX-License-Identifier: Apache-2.0 */
/* What every public header of Vial shares: errors, logging, the version.
 *
 * A call that can fail returns 0 or a negative errno, and takes a `struct vial_error *` as its last argument where
 * there is more to say than the errno. The struct
 * belongs to the caller (the stack is a good place), may be NULL, is written only on failure, and owns no memory: it
 * can be copied, kept and thrown away. Its strings hold no control characters, whatever the input that caused the
 * error.
 *
 * Option structs start with their own size. Initialise them with their macro, then set what differs from the defaults:
 *
 *     struct vial_disk_options disk = VIAL_DISK_OPTIONS_INIT;
 *     disk.path = "root.qcow2";
 *     disk.format = VIAL_DISK_QCOW2;
 *
 * A program built against an older header keeps the defaults for members it does not know. One built against a newer
 * header gets -E2BIG when it sets a member that this library does not know, never silence.
 */
#ifndef VIAL_BASE_H
#define VIAL_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define VIAL_API __attribute__((visibility("default")))
#else
#define VIAL_API
#endif

#define VIAL_VERSION_MAJOR 0
#define VIAL_VERSION_MINOR 1
#define VIAL_VERSION_PATCH 0
#define VIAL_VERSION_NUMBER (VIAL_VERSION_MAJOR * 1000000 + VIAL_VERSION_MINOR * 1000 + VIAL_VERSION_PATCH)

/* The version of the library that is loaded, as "major.minor.patch". */
VIAL_API const char *vial_version(void);

/* ---- errors ---- */

/* What kind of thing went wrong. Values never change meaning; new ones are added at the end. */
enum vial_error_code {
    VIAL_ERROR_NONE = 0,
    VIAL_ERROR_NO_MEMORY = 1,     /* an allocation failed */
    VIAL_ERROR_OS = 2,            /* a system call failed; os_error says how */
    VIAL_ERROR_SYNTAX = 3,        /* text that does not follow its grammar (JSON, MAC, rlimit, port pair) */
    VIAL_ERROR_TYPE = 4,          /* a JSON value of the wrong type */
    VIAL_ERROR_UNKNOWN_KEY = 5,   /* a JSON key that means nothing here */
    VIAL_ERROR_MISSING = 6,       /* something required was not given */
    VIAL_ERROR_INVALID = 7,       /* a value outside its set of legal values */
    VIAL_ERROR_OUT_OF_RANGE = 8,  /* a number below or above its limits */
    VIAL_ERROR_NOT_FOUND = 9,     /* a host path that does not exist */
    VIAL_ERROR_WRONG_KIND = 10,   /* a host path or descriptor that is not the kind of thing it must be */
    VIAL_ERROR_DUPLICATE = 11,    /* the same name, id, port or address twice */
    VIAL_ERROR_CONFLICT = 12,     /* two settings that exclude each other */
    VIAL_ERROR_UNSUPPORTED = 13,  /* known, but not in this build */
    VIAL_ERROR_TOO_BIG = 14,      /* a limit of the library on size or count */
    VIAL_ERROR_PERMISSION = 15,   /* the host refuses access */
    VIAL_ERROR_KVM_MISSING = 16,  /* no /dev/kvm */
    VIAL_ERROR_KVM_BROKEN = 17,   /* /dev/kvm is there, but it lacks something or cannot execute guest code */
    VIAL_ERROR_KVM_EMULATED = 18, /* KVM executes ring-0 code by emulation, too slowly for a guest */
};

/* Where it went wrong. */
enum vial_phase {
    VIAL_PHASE_NONE = 0,
    VIAL_PHASE_CONFIGURE = 1, /* reading a setting into a configuration */
    VIAL_PHASE_VALIDATE = 2,  /* checking a configuration as a whole, before anything is touched */
    VIAL_PHASE_HOST = 3,      /* asking the host what it can do */
    VIAL_PHASE_LOAD = 4,      /* putting a kernel and what belongs to it into guest memory */
    VIAL_PHASE_START = 5,     /* building a machine, up to its first instruction */
    VIAL_PHASE_RUN = 6,       /* controlling a machine that runs */
};

#define VIAL_ERROR_FIELD_SIZE 128
#define VIAL_ERROR_VALUE_SIZE 128
#define VIAL_ERROR_MESSAGE_SIZE 376
#define VIAL_ERROR_REMEDY_SIZE 376

struct vial_error {
    int32_t code;     /* enum vial_error_code */
    int32_t phase;    /* enum vial_phase */
    int32_t os_error; /* the positive errno behind it, or 0 */
    uint32_t reserved;
    char field[VIAL_ERROR_FIELD_SIZE];     /* the setting at fault, such as "disks[1].format"; may be empty */
    char value[VIAL_ERROR_VALUE_SIZE];     /* its value as text, shortened when long; may be empty */
    char message[VIAL_ERROR_MESSAGE_SIZE]; /* what failed, on what; one sentence without a full stop */
    char remedy[VIAL_ERROR_REMEDY_SIZE];   /* what to do about it; one sentence without a full stop; may be empty */
};

/* The code's and the phase's stable names in lower case, such as "out-of-range"; "unknown" for unknown numbers. */
VIAL_API const char *vial_error_code_name(int code);
VIAL_API const char *vial_phase_name(int phase);

/* ---- logging ---- */

/* The library never prints. It reports events to one hook, which is off until the program sets it. */

enum vial_log_level {
    VIAL_LOG_OFF = 0,
    VIAL_LOG_ERROR = 1,
    VIAL_LOG_WARN = 2,
    VIAL_LOG_INFO = 3,
    VIAL_LOG_DEBUG = 4,
    VIAL_LOG_TRACE = 5,
};

enum vial_log_style {
    VIAL_LOG_STYLE_AUTO = 0, /* colours on a terminal, unless NO_COLOR is set */
    VIAL_LOG_STYLE_ALWAYS = 1,
    VIAL_LOG_STYLE_NEVER = 2,
};

struct vial_log_record {
    size_t size;
    int32_t level;       /* enum vial_log_level, never OFF */
    int32_t thread;      /* the kernel's id of the thread that logs */
    uint64_t time_ns;    /* nanoseconds since 1970 */
    const char *event;   /* a stable dotted name, such as "kvm.open" */
    const char *details; /* key=value pairs, strings quoted, control characters escaped; may be "" */
};

/* Called on whichever thread logs, by several threads at once. The record lives until the hook returns. Events logged
 * from inside the hook are dropped. */
typedef void (*vial_log_hook)(void *user, const struct vial_log_record *record);

/* Sets the hook (NULL: none) and the most verbose level it is called for. When it returns, the old hook is not running
 * on any thread and will not be called again; so a hook must not wait for a thread that sets one. 0, -EINVAL for a
 * level that does not exist, -EDEADLK inside a hook. */
VIAL_API int vial_log_set_hook(vial_log_hook hook, void *user, int level);

/* A ready-made hook: one line an event to a descriptor that must stay open, and block, as long as it logs. A reader
 * that goes away costs lines, never a SIGPIPE. -EINVAL for a level or style that does not exist or a descriptor that
 * is not open for writing. */
VIAL_API int vial_log_to_fd(int fd, int level, int style, struct vial_error *err);

#ifdef __cplusplus
}
#endif

#endif
