// SPDX-License-Identifier: Apache-2.0
/* The program: a child that becomes it, and the reaping of everything until it ends.
 *
 *     init ── fork ──> child: session, terminal, streams, limits, ids, folder, execve
 *       │ <── pipe ─── stage and errno of what failed; or nothing, as execve closes it
 *
 * The child leads a session of its own. So a terminal can be its own, and Ctrl-Z does nothing where no shell is there
 * to bring the program back (POSIX: orphaned process groups).
 *
 * The init holds no descriptor of the terminal or of the streams while the program runs: the last close of a terminal
 * waits until it has said everything, and a port that everybody has closed tells the host so.
 *
 * Invariants: (1) between fork and execve every failure becomes a stage and an errno. (2) when program_wait returns, no
 * process but this one is left.
 *
 * Trust: the request was decoded; what the program does is its own business, and it may be root.
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* What goes through the pipe. */
struct failure {
    enum init_stage stage;
    int os_error;
};

/* ---- the child ---- */

static int take_terminal(const struct init_request *request)
{
    int fd = open("/dev/console", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, TIOCSCTTY, 1) < 0)
        return -1;
    /* As login does it, so that the program can open it again; a terminal that is not to be changed still works. */
    if (request->has_uid && fchown(fd, request->uid, (gid_t)-1) < 0)
        tell("own", "/dev/console", -errno);
    for (int i = 0; i < PROGRAM_STREAMS; i++)
        if (dup2(fd, i) < 0)
            return -1;
    return 0;
}

static int take_streams(const int streams[PROGRAM_STREAMS])
{
    for (int i = 0; i < PROGRAM_STREAMS; i++)
        if (streams[i] >= 0 && dup2(streams[i], i) < 0)
            return -1;
    return 0;
}

static int set_limits(const struct init_request *request)
{
    for (size_t i = 0; i < request->rlimit_count; i++) {
        const struct init_rlimit *limit = &request->rlimits[i];
        struct rlimit values = {.rlim_cur = limit->soft, .rlim_max = limit->hard}; /* all ones: RLIM_INFINITY */
        if (setrlimit((int)limit->resource, &values) < 0)
            return -1;
    }
    return 0;
}

static const char *search_path(const struct init_request *request)
{
    for (size_t i = 0; i < request->env_count; i++)
        if (strncmp(request->env[i], "PATH=", 5) == 0)
            return request->env[i] + 5;
    return INIT_DEFAULT_PATH;
}

/* Each folder of PATH in its order (POSIX XBD 8.3); an empty one is the working directory. What may not be executed is
 * passed over, but remembered. */
static void execute_found(const char *name, const char *search, char *const *args, char *const *env)
{
    int failure = ENOENT;
    for (const char *folder = search; folder != NULL;) {
        char path[LIMIT_EXEC_PATH_BYTES];
        size_t length = strcspn(folder, ":");
        int written = snprintf(path, sizeof(path), "%.*s%s%s", (int)length, folder, length > 0 ? "/" : "", name);
        folder = folder[length] == ':' ? folder + length + 1 : NULL;
        if (written < 0 || (size_t)written >= sizeof(path))
            continue;
        execve(path, args, env);
        if (errno == EACCES)
            failure = EACCES;
        else if (errno != ENOENT && errno != ENOTDIR)
            return;
    }
    errno = failure;
}

void program_execute(const char *path, const char *search, char *const *args, char *const *env)
{
    if (strchr(path, '/') == NULL)
        execute_found(path, search, args, env);
    else
        execve(path, args, env);
}

static void execute(const struct init_request *request)
{
    /* execve changes neither; its prototype is older than const. */
    program_execute(request->path, search_path(request), (char *const *)(uintptr_t)(request->args - 1),
                    (char *const *)(uintptr_t)request->env);
}

enum init_stage program_become(const struct init_request *request, const int streams[PROGRAM_STREAMS])
{
    bool changes_ids = request->has_uid || request->has_gid;
    setsid(); /* cannot fail: a child leads no group yet */
    umask(022);
    if (request->has_terminal && take_terminal(request) < 0)
        return INIT_STAGE_TERMINAL;
    if (take_streams(streams) < 0)
        return INIT_STAGE_STREAMS;
    if (set_limits(request) < 0)
        return INIT_STAGE_RLIMIT;
    if (changes_ids && setgroups(0, NULL) < 0)
        return INIT_STAGE_SETGROUPS;
    if (request->has_gid && setgid(request->gid) < 0)
        return INIT_STAGE_SETGID;
    if (request->has_uid && setuid(request->uid) < 0)
        return INIT_STAGE_SETUID;
    if (chdir(request->workdir) < 0)
        return INIT_STAGE_CHDIR;
    execute(request);
    return INIT_STAGE_EXEC;
}

static _Noreturn void run_child(const struct init_request *request, const int streams[PROGRAM_STREAMS], int pipe_fd)
{
    struct failure failure = {.stage = program_become(request, streams)};
    failure.os_error = errno;
    ssize_t written = write(pipe_fd, &failure, sizeof(failure)); /* fits: the pipe is empty and 8 bytes are atomic */
    _exit(written == sizeof(failure) ? 126 : 125);
}

/* ---- the init ---- */

static bool fail(enum init_stage stage, int os_error, struct init_answer *ret_failure)
{
    *ret_failure = (struct init_answer){
        .kind = INIT_FAILED, .stage = stage, .os_error = (uint32_t)os_error, .mount = INIT_NO_MOUNT};
    return false;
}

bool program_start(const struct init_request *request, const int streams[PROGRAM_STREAMS], pid_t *ret_child,
                   struct init_answer *ret_failure)
{
    int ends[2];
    struct failure failure;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return fail(INIT_STAGE_FORK, errno, ret_failure);
    pid_t child = fork();
    int os_error = errno;
    if (child == 0)
        run_child(request, streams, ends[1]);
    close(ends[1]);
    ssize_t length = child < 0 ? 0 : read(ends[0], &failure, sizeof(failure));
    close(ends[0]);
    if (child < 0)
        return fail(INIT_STAGE_FORK, os_error, ret_failure);
    if (length == sizeof(failure)) {
        waitpid(child, NULL, 0); /* its streams are closed then */
        return fail(failure.stage, failure.os_error, ret_failure);
    }
    *ret_child = child;
    return true;
}

struct init_answer program_wait(pid_t child)
{
    int status = 0, its_status = 0;
    pid_t ended;
    do {
        ended = waitpid(-1, &status, 0);
        if (ended == child)
            its_status = status;
    } while (ended != child && (ended > 0 || errno == EINTR));
    /* All but this process (kill(2)); nobody escapes by a fork, which fails while its parent is being killed. */
    kill(-1, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
    struct init_answer answer = {.kind = INIT_ENDED, .was_killed = WIFSIGNALED(its_status)};
    answer.number = (uint32_t)(answer.was_killed ? WTERMSIG(its_status) : WEXITSTATUS(its_status));
    return answer;
}
