// SPDX-License-Identifier: Apache-2.0
/* Checks of what a caller says about a sandbox, so that a mistake is told where it was made and not by a machine that
 * does not start.
 *
 * Invariants: (1) a check that fails has named the field, its value where it is short, and a remedy. (2) checks change
 * nothing.
 *
 * Trust: the embedding program is trusted with its own memory; texts may come from its users.
 */
#include "sandbox/spec_parts.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/text.h"
#include "vmm/configure.h"
#include "vmm/parse.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static const char letters_and_digits[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/* ---- names ---- */

static bool is_word(const char *text, size_t most_bytes)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
    size_t length = strlen(text);
    return length > 0 && length <= most_bytes && strspn(text, allowed) == length &&
           strchr(letters_and_digits, text[0]) != NULL;
}

bool spec_is_name(const char *name)
{
    return is_word(name, VIAL_SANDBOX_NAME_SIZE - 1);
}

static int refuse_word(const char *field, const char *what, const char *text, int most_bytes, struct vial_error *err)
{
    int result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_CONFIGURE, "\"%s\" is no %s", error_short(text).text,
                           what);
    error_field(err, "%s", field);
    error_value(err, "%s", text);
    error_remedy(err, "use 1 to %d letters, digits, and _ . - (but not as the first)", most_bytes);
    return result;
}

int spec_check_name(const char *name, struct vial_error *err)
{
    return spec_is_name(name) ? 0 : refuse_word("name", "name of a sandbox", name, VIAL_SANDBOX_NAME_SIZE - 1, err);
}

int spec_check_hostname(const char *hostname, struct vial_error *err)
{
    if (is_word(hostname, LIMIT_HOSTNAME_BYTES))
        return 0;
    return refuse_word("hostname", "hostname", hostname, LIMIT_HOSTNAME_BYTES, err);
}

/* ---- lists of KEY=VALUE ---- */

size_t spec_key_length(const char *text)
{
    const char *equals = strchr(text, '=');
    return equals != NULL ? (size_t)(equals - text) : 0;
}

static int refuse_item(enum vial_error_code code, const char *field, size_t index, const char *text, const char *why,
                       const char *remedy, struct vial_error *err)
{
    int result = error_set(err, code, VIAL_PHASE_CONFIGURE, "\"%s\" %s", error_short(text).text, why);
    error_field(err, "%s[%zu]", field, index);
    error_value(err, "%s", text);
    error_remedy(err, "%s", remedy);
    return result;
}

static int refuse_count(const char *field, int most, struct vial_error *err)
{
    int result = error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_CONFIGURE, "there are more than %d of them", most);
    error_field(err, "%s", field);
    error_remedy(err, "give at most %d", most);
    return result;
}

/* Whether one before it has the same key. */
static bool is_repeated(const char *const *texts, size_t index)
{
    size_t length = spec_key_length(texts[index]);
    for (size_t i = 0; i < index; i++)
        if (spec_key_length(texts[i]) == length && memcmp(texts[i], texts[index], length) == 0)
            return true;
    return false;
}

int spec_check_labels(const char *const *labels, struct vial_error *err)
{
    static const char remedy[] = "write KEY=VALUE, every key once, in UTF-8";
    for (size_t i = 0; labels != NULL && labels[i] != NULL; i++) {
        const char *why = NULL;
        if (i == LIMIT_LABELS)
            return refuse_count("labels", LIMIT_LABELS, err);
        if (spec_key_length(labels[i]) == 0)
            why = "is no label: it has no key, or no =";
        else if (strlen(labels[i]) > LIMIT_LABEL_BYTES)
            why = "is longer than 4 KiB";
        else if (!text_is_utf8(labels[i]))
            why = "is not UTF-8";
        else if (is_repeated(labels, i))
            why = "is a second label of its key";
        if (why != NULL)
            return refuse_item(VIAL_ERROR_INVALID, "labels", i, labels[i], why, remedy, err);
    }
    return 0;
}

/* ---- scripts ---- */

int spec_open_script(const char *script, size_t index, struct vial_error *err)
{
    static const char remedy[] = "give NAME=FILE with a regular file of at most 1 MiB";
    const char *path = script + spec_key_length(script) + 1;
    struct stat status;
    /* A FIFO without a writer must not keep anybody waiting. */
    auto_close int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0) {
        int result = error_set_os(err, VIAL_PHASE_CONFIGURE, errno, "cannot open the script %s",
                                  error_short(path).text);
        error_field(err, "scripts[%zu]", index);
        error_remedy(err, "%s", remedy);
        return result;
    }
    if (!S_ISREG(status.st_mode))
        return refuse_item(VIAL_ERROR_WRONG_KIND, "scripts", index, path, "is no regular file", remedy, err);
    if (status.st_size > LIMIT_SCRIPT_BYTES)
        return refuse_item(VIAL_ERROR_TOO_BIG, "scripts", index, path, "is larger than 1 MiB", remedy, err);
    return steal_fd(&fd);
}

static int check_script(const char *const *scripts, size_t index, struct vial_error *err)
{
    static const char remedy[] = "write NAME=FILE, each NAME once, of letters, digits and _ . -";
    char name[VIAL_SANDBOX_NAME_SIZE] = "";
    const char *script = scripts[index];
    size_t length = spec_key_length(script);
    if (length < sizeof(name))
        memcpy(name, script, length);
    if (!spec_is_name(name))
        return refuse_item(VIAL_ERROR_INVALID, "scripts", index, script, "does not begin with a name and =", remedy,
                           err);
    if (is_repeated(scripts, index))
        return refuse_item(VIAL_ERROR_DUPLICATE, "scripts", index, script, "is a second script of its name", remedy,
                           err);
    int fd = spec_open_script(script, index, err);
    fd_close(fd);
    return fd < 0 ? fd : 0;
}

int spec_check_scripts(const char *const *scripts, struct vial_error *err)
{
    for (size_t i = 0; scripts != NULL && scripts[i] != NULL; i++) {
        int result = i == LIMIT_SCRIPTS ? refuse_count("scripts", LIMIT_SCRIPTS, err) : check_script(scripts, i, err);
        if (result < 0)
            return result;
    }
    return 0;
}

/* ---- programs ---- */

/* Adds up the bytes of a list, each string of which is as long as Linux takes it. */
static int check_strings(const char *const *strings, const char *field, size_t *total_bytes, struct vial_error *err)
{
    for (size_t i = 0; strings != NULL && strings[i] != NULL; i++) {
        size_t bytes = strlen(strings[i]) + 1;
        *total_bytes += bytes; /* cannot overflow: the strings are in memory */
        if (i == LIMIT_STRINGS)
            return refuse_count(field, LIMIT_STRINGS, err);
        if (bytes > LIMIT_EXEC_STRING_BYTES || *total_bytes > LIMIT_EXEC_BYTES)
            return refuse_item(VIAL_ERROR_TOO_BIG, field, i, strings[i],
                               bytes > LIMIT_EXEC_STRING_BYTES ? "is longer than Linux takes (128 KiB)"
                                                               : "and what stands before it take more than 2 MiB",
                               "put long data into a file or standard input", err);
    }
    return 0;
}

static int check_env(const char *const *env, struct vial_error *err)
{
    for (size_t i = 0; env != NULL && env[i] != NULL; i++)
        if (spec_key_length(env[i]) == 0)
            return refuse_item(VIAL_ERROR_SYNTAX, "program.env", i, env[i],
                               "is no variable: it has no name, or no =", "write NAME=VALUE", err);
    return 0;
}

static int check_rlimits(const char *const *rlimits, struct vial_error *err)
{
    for (size_t i = 0; rlimits != NULL && rlimits[i] != NULL; i++) {
        struct rlimit_config limit;
        const char *why = NULL;
        if (i == LIMIT_RLIMITS)
            return refuse_count("program.rlimits", LIMIT_RLIMITS, err);
        int result = parse_rlimit(rlimits[i], &limit, &why);
        if (result < 0)
            return config_refuse_text(result, "program.rlimits", i, "resource limit", rlimits[i], why,
                                      "write NAME=SOFT:HARD, such as NOFILE=1024:4096 or 7=1024:unlimited", err);
    }
    return 0;
}

static int check_workdir(const char *workdir, struct vial_error *err)
{
    if (workdir == NULL || (workdir[0] == '/' && strlen(workdir) < LIMIT_EXEC_PATH_BYTES))
        return 0;
    int result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_CONFIGURE, "the working directory \"%s\" is %s",
                           error_short(workdir).text, workdir[0] == '/' ? "too long" : "not absolute");
    error_field(err, "program.workdir");
    error_value(err, "%s", workdir);
    error_remedy(err, "give a path of the guest that begins with /");
    return result;
}

/* USER or USER:GROUP; what they stand for, the guest knows. */
static int check_user(const char *user, struct vial_error *err)
{
    enum { most_bytes = 255 };
    if (user == NULL)
        return 0;
    const char *colon = strchr(user, ':');
    bool is_whole = user[0] != '\0' && user[0] != ':' && strlen(user) <= most_bytes;
    if (is_whole && (colon == NULL || (colon[1] != '\0' && strchr(colon + 1, ':') == NULL)))
        return 0;
    int result = error_set(err, VIAL_ERROR_SYNTAX, VIAL_PHASE_CONFIGURE, "\"%s\" is no user", error_short(user).text);
    error_field(err, "program.user");
    error_value(err, "%s", user);
    error_remedy(err, "write USER or USER:GROUP, by name or number");
    return result;
}

int spec_check_program(const struct vial_program_options *program, struct vial_error *err)
{
    size_t total_bytes = 0;
    int result = config_check_reserved(program->reserved, sizeof(program->reserved), err);
    if (result < 0)
        return result;
    if (program->args == NULL || program->args[0] == NULL || program->args[0][0] == '\0') {
        result = error_set(err, VIAL_ERROR_MISSING, VIAL_PHASE_CONFIGURE, "the program has no name");
        error_field(err, "program.args[0]");
        error_remedy(err, "give its path in the guest, or a name that PATH leads to");
        return result;
    }
    result = check_strings(program->args, "program.args", &total_bytes, err);
    if (result == 0)
        result = check_strings(program->env, "program.env", &total_bytes, err);
    if (result == 0)
        result = check_env(program->env, err);
    if (result == 0)
        result = check_rlimits(program->rlimits, err);
    if (result == 0)
        result = check_workdir(program->workdir, err);
    return result == 0 ? check_user(program->user, err) : result;
}
