// SPDX-License-Identifier: Apache-2.0
/* Errors as values: what failed, where, and what to do next.
 *
 * An error is a plain struct of fixed size in the caller's hands, so that reporting one cannot fail itself, not even
 * without memory. Texts are formatted, then escaped on their way in: a path or key with control characters in it shows
 * them, whoever prints the error later.
 *
 * Invariants: (1) every text is terminated and free of control characters. (2) every code has a name and an errno.
 *
 * Trust: formats are ours; their arguments may be hostile.
 */
#include "base/error.h"

#include "base/alloc.h"
#include "base/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(struct vial_error) == 1024, "struct vial_error is part of the ABI");

static const struct {
    const char *name;
    int number; /* the errno that stands for the code */
} codes[] = {
    [VIAL_ERROR_NONE] = {"none", 0},
    [VIAL_ERROR_NO_MEMORY] = {"no-memory", ENOMEM},
    [VIAL_ERROR_OS] = {"os", EIO},
    [VIAL_ERROR_SYNTAX] = {"syntax", EINVAL},
    [VIAL_ERROR_TYPE] = {"type", EINVAL},
    [VIAL_ERROR_UNKNOWN_KEY] = {"unknown-key", EINVAL},
    [VIAL_ERROR_MISSING] = {"missing", EINVAL},
    [VIAL_ERROR_INVALID] = {"invalid", EINVAL},
    [VIAL_ERROR_OUT_OF_RANGE] = {"out-of-range", ERANGE},
    [VIAL_ERROR_NOT_FOUND] = {"not-found", ENOENT},
    [VIAL_ERROR_WRONG_KIND] = {"wrong-kind", EINVAL},
    [VIAL_ERROR_DUPLICATE] = {"duplicate", EEXIST},
    [VIAL_ERROR_CONFLICT] = {"conflict", EINVAL},
    [VIAL_ERROR_UNSUPPORTED] = {"unsupported", ENOTSUP},
    [VIAL_ERROR_TOO_BIG] = {"too-big", E2BIG},
    [VIAL_ERROR_PERMISSION] = {"permission", EACCES},
    [VIAL_ERROR_KVM_MISSING] = {"kvm-missing", ENODEV},
    [VIAL_ERROR_KVM_BROKEN] = {"kvm-broken", EIO},
    [VIAL_ERROR_KVM_EMULATED] = {"kvm-emulated", ENOTSUP},
};

static const char *const phases[] = {
    [VIAL_PHASE_NONE] = "none", [VIAL_PHASE_CONFIGURE] = "configure", [VIAL_PHASE_VALIDATE] = "validate",
    [VIAL_PHASE_HOST] = "host", [VIAL_PHASE_LOAD] = "load",           [VIAL_PHASE_START] = "start",
    [VIAL_PHASE_RUN] = "run",
};

const char *vial_error_code_name(int code)
{
    return code >= 0 && (size_t)code < array_length(codes) ? codes[code].name : "unknown";
}

const char *vial_phase_name(int phase)
{
    return phase >= 0 && (size_t)phase < array_length(phases) ? phases[phase] : "unknown";
}

/* Formats, then escapes into a member of the error. */
static void set_text(char *member, size_t size, const char *format, va_list arguments)
    __attribute__((format(printf, 3, 0)));

static void set_text(char *member, size_t size, const char *format, va_list arguments)
{
    char raw[2 * VIAL_ERROR_MESSAGE_SIZE];
    int length = vsnprintf(raw, sizeof(raw), format, arguments);
    if (length < 0)
        length = 0;
    bool is_cut = (size_t)length >= sizeof(raw);
    text_escape(member, size, raw, is_cut ? sizeof(raw) - 1 : (size_t)length, "");
}

static void reset(struct vial_error *err, enum vial_error_code code, enum vial_phase phase, int os_error)
{
    memset(err, 0, sizeof(*err));
    err->code = (int32_t)code;
    err->phase = (int32_t)phase;
    err->os_error = os_error;
}

int error_set(struct vial_error *err, enum vial_error_code code, enum vial_phase phase, const char *format, ...)
{
    int number = codes[code].number;
    if (err == NULL)
        return -number;
    reset(err, code, phase, 0);
    va_list arguments;
    va_start(arguments, format);
    set_text(err->message, sizeof(err->message), format, arguments);
    va_end(arguments);
    return -number;
}

static enum vial_error_code code_of_os_error(int os_error)
{
    switch (os_error) {
    case ENOMEM:
        return VIAL_ERROR_NO_MEMORY;
    case ENOENT:
    case ENOTDIR:
        return VIAL_ERROR_NOT_FOUND;
    case EACCES:
    case EPERM:
        return VIAL_ERROR_PERMISSION;
    default:
        return VIAL_ERROR_OS;
    }
}

int error_set_os(struct vial_error *err, enum vial_phase phase, int os_error, const char *format, ...)
{
    int positive = os_error < 0 ? -os_error : os_error;
    if (err == NULL)
        return -positive;
    reset(err, code_of_os_error(positive), phase, positive);
    char what[VIAL_ERROR_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    set_text(what, sizeof(what), format, arguments);
    va_end(arguments);
    const char *why = strerrordesc_np(positive); /* strerror may allocate and is not thread-safe */
    char whole[2 * VIAL_ERROR_MESSAGE_SIZE];
    int length = snprintf(whole, sizeof(whole), "%s: %s", what, why != NULL ? why : "unknown error");
    text_escape(err->message, sizeof(err->message), whole, length > 0 ? (size_t)length : 0, "");
    return -positive;
}

struct error_text error_short(const char *text)
{
    enum { head = 60, tail = 60 };
    struct error_text result;
    size_t length = strlen(text);
    if (length < sizeof(result.text))
        snprintf(result.text, sizeof(result.text), "%s", text);
    else
        snprintf(result.text, sizeof(result.text), "%.*s...%s", head, text, text + length - tail);
    return result;
}

int error_no_memory(struct vial_error *err, enum vial_phase phase)
{
    error_set(err, VIAL_ERROR_NO_MEMORY, phase, "the process is out of memory");
    error_remedy(err, "free memory, or raise the limit that this process runs under (ulimit -v, cgroup memory.max)");
    return -ENOMEM;
}

#define SET_MEMBER(member)                                                                                             \
    do {                                                                                                               \
        if (err == NULL)                                                                                               \
            return;                                                                                                    \
        va_list arguments;                                                                                             \
        va_start(arguments, format);                                                                                   \
        set_text(err->member, sizeof(err->member), format, arguments);                                                 \
        va_end(arguments);                                                                                             \
    } while (0)

void error_field(struct vial_error *err, const char *format, ...)
{
    SET_MEMBER(field);
}

void error_value(struct vial_error *err, const char *format, ...)
{
    SET_MEMBER(value);
}

void error_remedy(struct vial_error *err, const char *format, ...)
{
    SET_MEMBER(remedy);
}
