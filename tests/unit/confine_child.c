// SPDX-License-Identifier: Apache-2.0
/* The child: it puts up the walls, one of its threads tries something, and what it tells goes through a pipe. */
#include "confine_child.h"

#include "base/landlock.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { exit_ours = 125, most_text = 4096 };

static const enum thread_kind threads[CONFINE_KINDS] = {
    [CONFINE_CONTROL] = THREAD_CONTROL, [CONFINE_DEVICE] = THREAD_DEVICE, [CONFINE_VCPU] = THREAD_VCPU,
    [CONFINE_FILES] = THREAD_FILES,     [CONFINE_DISK] = THREAD_DISK,     [CONFINE_ENGINE] = THREAD_ENGINE,
    [CONFINE_NET] = THREAD_NET,         [CONFINE_TSI] = THREAD_TSI,
};

static int told_fd; /* what becomes the parent's text */

/* Words with spaces between them; "" is none. */
static void tell(const char *first, const char *second, const char *third)
{
    char text[512];
    int length = snprintf(text, sizeof(text), "%s%s%s%s%s", first, second[0] != '\0' ? " " : "", second,
                          third[0] != '\0' ? " " : "", third);
    ssize_t written = write(told_fd, text, (size_t)length);
    (void)written;
}

static void tell_refusal(const char *call, enum confine_kind kind)
{
    tell("refused", call, confine_kind_names[kind]);
}

static void *try_it(void *user)
{
    attempt_function *const *attempt = user;
    long result = (*attempt)();
    tell(result >= 0 ? "done" : strerrorname_np(errno), "", "");
    return NULL;
}

static void be_confined(const struct confine_options *options, enum confine_kind kind, attempt_function *attempt)
{
    struct vial_error err = {0};
    struct confine_report report;
    pthread_t thread;
    confine_on_refusal(tell_refusal);
    int result = confine_process(options, &report, &err);
    if (result == 0 && kind == CONFINE_CONTROL) {
        result = confine_thread(kind, &err);
        if (result == 0)
            try_it(&attempt);
    } else if (result == 0) {
        result = thread_start_as(threads[kind], "attempt", try_it, &attempt, &thread);
        if (result == 0)
            pthread_join(thread, NULL);
    }
    if (result < 0)
        tell("failed", strerrorname_np(-result), err.message);
    _exit(0);
}

const char *try_as(enum confine_kind kind, attempt_function *attempt, const struct confine_options *options)
{
    static char text[most_text];
    int ends[2], status = 0;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return "pipe2";
    pid_t pid = fork();
    if (pid == 0) {
        told_fd = ends[1];
        be_confined(options, kind, attempt);
    }
    close(ends[1]);
    ssize_t got = 0, length = 0;
    while ((got = read(ends[0], text + length, sizeof(text) - 1 - (size_t)length)) > 0)
        length += got;
    text[length] = '\0';
    close(ends[0]);
    waitpid(pid, &status, 0);
    bool was_refused = strncmp(text, "refused ", 8) == 0;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != (was_refused ? exit_ours : 0))
        snprintf(text + length, sizeof(text) - (size_t)length, " and status %#x", (unsigned)status);
    return text;
}

bool has_landlock(void)
{
    return landlock_abi() >= 0;
}
