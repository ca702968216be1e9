// SPDX-License-Identifier: Apache-2.0
/* The log of a program that speaks libkrun: the library's own, on a descriptor, at a level that $RUST_LOG overrides.
 *
 * $RUST_LOG is a list of words with a comma between them, a level each or module=level. Modules are those of another
 * program; what counts here is the last word that is a level.
 *
 * Invariants: (1) krun_init_log succeeds once.
 *
 * Trust: the environment is believed only where the program is no more than its user (secure_getenv).
 */
#include "libkrun.h"

#include "base/log.h"
#include "vial/base.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    pthread_mutex_t lock;
    bool was_made;
} journal = {.lock = PTHREAD_MUTEX_INITIALIZER};

static enum vial_log_level level_of(uint32_t level, bool asks_environment)
{
    enum { most_name_bytes = 16 };
    enum vial_log_level result = (enum vial_log_level)level, found;
    const char *words = asks_environment ? secure_getenv("RUST_LOG") : NULL;
    while (words != NULL && *words != '\0') {
        char name[most_name_bytes];
        size_t length = strcspn(words, ",");
        snprintf(name, sizeof(name), "%.*s", (int)(length < sizeof(name) ? length : 0), words);
        if (log_level_from_name(name, &found) == 0)
            result = found;
        words += length + (words[length] == ',');
    }
    return result;
}

int32_t krun_set_log_level(uint32_t level)
{
    if (level > KRUN_LOG_LEVEL_TRACE)
        return -EINVAL;
    return vial_log_to_fd(STDERR_FILENO, (int)level_of(level, true), VIAL_LOG_STYLE_AUTO, NULL);
}

int32_t krun_init_log(int target_fd, uint32_t level, uint32_t style, uint32_t options)
{
    bool is_known = style <= KRUN_LOG_STYLE_NEVER && (options & ~(uint32_t)KRUN_LOG_OPTION_NO_ENV) == 0;
    if (!is_known || level > KRUN_LOG_LEVEL_TRACE || target_fd < KRUN_LOG_TARGET_DEFAULT || target_fd == STDIN_FILENO)
        return -EINVAL;
    int fd = target_fd == KRUN_LOG_TARGET_DEFAULT ? STDERR_FILENO : target_fd;
    pthread_mutex_lock(&journal.lock);
    int result = journal.was_made ? -EEXIST : 0;
    if (result == 0)
        result = vial_log_to_fd(fd, (int)level_of(level, (options & KRUN_LOG_OPTION_NO_ENV) == 0), (int)style, NULL);
    journal.was_made |= result == 0;
    pthread_mutex_unlock(&journal.lock);
    return result;
}
