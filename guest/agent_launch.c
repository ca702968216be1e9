// SPDX-License-Identifier: Apache-2.0
/* A program, from a request to its first instruction.
 *
 *     agent ── vfork ──> child: session, terminal, streams, limits, ids, folder, execve
 *       │ stands still, and shares its memory: where the child fails it writes down the stage and errno
 *
 * A vfork costs the same however much memory the agent has, and nothing is to be sent back: when the agent goes on,
 * the child has executed the program or has ended. The child only makes system calls, and changes nothing of the
 * agent's memory but the failure.
 *
 * The environment is the request's. It begins with a PATH that has the runtime folder's scripts in front, if there are
 * some, and it gets HOME, USER, LOGNAME and SHELL of the user where the request has none.
 *
 * Invariants: (1) between vfork and execve every failure becomes a stage and an errno. (2) the child has no signal
 * blocked, the limits that the agent was started with, and no descriptor but its streams.
 *
 * Trust: the request was decoded; what the program does is its own business, and it may be root.
 */
#include "agent_launch.h"
#include "guest.h"

#include "base/alloc.h"

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
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { extra_variables = 5, variable_bytes = 16 }; /* the name, "=", and the end */

bool launch_fail(struct launch *launch, enum agent_stage stage, int os_error)
{
    launch->stage = stage;
    launch->os_error = os_error;
    return false;
}

/* Field by field: the room for tables need not be cleared. */
void launch_init(struct launch *launch, const struct agent *agent)
{
    launch->agent = agent;
    launch->request = NULL;
    launch->block = NULL;
    launch->path = launch->workdir = NULL;
    launch->args = launch->env = NULL;
    launch->search = NULL;
    launch->streams[0] = launch->streams[1] = launch->streams[2] = -1;
    launch->has_terminal = launch->borrows_input = false;
    launch->stage = 0;
    launch->os_error = 0;
}

void launch_release(struct launch *launch)
{
    for (size_t i = launch->borrows_input ? 1 : 0; i < 3; i++)
        if (launch->streams[i] >= 0)
            close(launch->streams[i]);
    if (launch->block != launch->small)
        free(launch->block);
}

/* ---- what it is given ---- */

static const char *find_variable(const struct agent_strings *env, const char *name)
{
    size_t length = strlen(name);
    for (const char *entry = NULL; (entry = agent_strings_next(env, entry)) != NULL;)
        if (strncmp(entry, name, length) == 0 && entry[length] == '=')
            return entry;
    return NULL;
}

/* Where the environment is put together. */
struct making {
    const char **next; /* place for a pointer */
    char *extra;       /* place for a string of our own */
    size_t left;       /* bytes there */
};

static void add_extra(struct making *making, const char *name, const char *value, const char *rest)
{
    int length = snprintf(making->extra, making->left, "%s=%s%s", name, value, rest);
    if (length < 0 || (size_t)length >= making->left)
        return; /* cannot be: the room was measured */
    *making->next++ = making->extra;
    making->extra += length + 1;
    making->left -= (size_t)length + 1;
}

static void add_missing(struct launch *launch, struct making *making, const char *name, const char *value)
{
    if (value[0] != '\0' && find_variable(&launch->request->env, name) == NULL)
        add_extra(making, name, value, "");
}

static void make_env(struct launch *launch, struct making *making, const char *given_search)
{
    const struct agent_strings *env = &launch->request->env;
    const char *search = given_search != NULL ? given_search + strlen("PATH=") : INIT_DEFAULT_PATH;
    launch->search = making->extra + strlen("PATH=");
    add_extra(making, "PATH",
              launch->agent->has_scripts ? search[0] != '\0' ? AGENT_SCRIPTS_FOLDER ":" : AGENT_SCRIPTS_FOLDER : "",
              search);
    for (const char *entry = NULL; (entry = agent_strings_next(env, entry)) != NULL;)
        if (strncmp(entry, "PATH=", strlen("PATH=")) != 0)
            *making->next++ = entry;
    add_missing(launch, making, "HOME", launch->user.home[0] != '\0' ? launch->user.home : "/");
    add_missing(launch, making, "USER", launch->user.name);
    add_missing(launch, making, "LOGNAME", launch->user.name);
    add_missing(launch, making, "SHELL", launch->user.shell);
    *making->next++ = NULL;
}

static char *copy_span(char *to, const struct agent_span *span)
{
    if (span->length > 0)
        memcpy(to, span->bytes, span->length);
    to[span->length] = '\0';
    return to;
}

static bool make_tables(struct launch *launch)
{
    const struct agent_exec *request = launch->request;
    const char *given_search = find_variable(&request->env, "PATH");
    size_t pointers = request->args.count + 1 + request->env.count + extra_variables + 1;
    const struct user *user = &launch->user;
    size_t table_bytes = pointers * sizeof(launch->args[0]);
    size_t text_bytes = request->path.length + 1 + request->workdir.length + 1;
    size_t bytes = extra_variables * variable_bytes + sizeof(AGENT_SCRIPTS_FOLDER ":" INIT_DEFAULT_PATH) +
                   strlen(user->home) + 2 * strlen(user->name) + strlen(user->shell) +
                   (given_search != NULL ? strlen(given_search) : 0);
    size_t whole = table_bytes + text_bytes + bytes; /* no more than some frames' bytes */
    launch->block = whole <= sizeof(launch->small) ? launch->small : alloc_zero(whole);
    if (launch->block == NULL)
        return false;
    launch->args = (const char **)(void *)launch->block;
    launch->path = copy_span(launch->block + table_bytes, &request->path);
    launch->workdir = copy_span(launch->path + request->path.length + 1, &request->workdir);
    struct making making = {launch->args, launch->block + table_bytes + text_bytes, bytes};
    for (const char *arg = NULL; (arg = agent_strings_next(&request->args, arg)) != NULL;)
        *making.next++ = arg;
    *making.next++ = NULL;
    launch->env = making.next;
    make_env(launch, &making, given_search);
    return true;
}

bool launch_prepare(struct launch *launch, const struct agent_exec *request)
{
    launch->request = request;
    char *user = agent_copy_span(&request->user);
    int result = user != NULL ? user_find(user, &launch->user) : -ENOMEM;
    free(user);
    if (result < 0)
        return launch_fail(launch, AGENT_STAGE_USER, -result);
    return make_tables(launch) || launch_fail(launch, AGENT_STAGE_FORK, ENOMEM);
}

/* ---- the child ---- */

/* The agent's own limit is higher, and the kernel is not to choose the agent when memory runs out. */
static void drop_privileges_of_agent(const struct agent *agent)
{
    struct rlimit limit = {.rlim_cur = agent->file_limit[0], .rlim_max = agent->file_limit[1]};
    setrlimit(RLIMIT_NOFILE, &limit); /* down, which cannot fail */
    if (agent->is_first)
        return;
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    ssize_t written = fd < 0 ? 0 : write(fd, "0", 1);
    (void)written; /* without /proc it is as it is */
    if (fd >= 0)
        close(fd);
}

static int take_streams(const struct launch *launch)
{
    if (launch->has_terminal && ioctl(launch->streams[0], TIOCSCTTY, 0) < 0)
        return -1;
    for (int i = 0; i < 3; i++)
        if (dup2(launch->streams[launch->has_terminal ? 0 : i], i) < 0)
            return -1;
    return 0;
}

static int set_limits(const struct agent_exec *request)
{
    for (size_t i = 0; i < request->rlimit_count; i++) {
        const struct agent_rlimit *limit = &request->rlimits[i];
        struct rlimit values = {.rlim_cur = limit->soft, .rlim_max = limit->hard}; /* all ones: RLIM_INFINITY */
        if (setrlimit((int)limit->resource, &values) < 0)
            return -1;
    }
    return 0;
}

/* By system calls themselves: the C library's functions look after threads, of which the agent has none, in memory
 * that is the agent's. All of its own three ids are the same. */
static int take_user(const struct agent *agent, const struct user *user)
{
    if (syscall(SYS_setgroups, user->group_count, user->groups) < 0)
        return -1;
    if (user->gid != agent->gid && syscall(SYS_setresgid, user->gid, user->gid, user->gid) < 0)
        return -1;
    if (user->uid != agent->uid && syscall(SYS_setresuid, user->uid, user->uid, user->uid) < 0)
        return -1;
    return 0;
}

static int enter_folder(const struct launch *launch)
{
    const char *folder = launch->workdir[0] != '\0' ? launch->workdir : "/";
    return launch->agent->is_at_root && strcmp(folder, "/") == 0 ? 0 : chdir(folder);
}

/* Returns the stage that failed, with errno set, or not at all. */
static enum agent_stage become_program(const struct launch *launch)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid(); /* cannot fail: a child leads no group yet */
    umask(022);
    if (take_streams(launch) < 0)
        return launch->has_terminal ? AGENT_STAGE_TERMINAL : AGENT_STAGE_STREAMS;
    drop_privileges_of_agent(launch->agent);
    if (set_limits(launch->request) < 0)
        return AGENT_STAGE_RLIMIT;
    if (take_user(launch->agent, &launch->user) < 0)
        return AGENT_STAGE_USER;
    if (enter_folder(launch) < 0)
        return AGENT_STAGE_CHDIR;
    /* execve changes neither; its prototype is older than const. */
    program_execute(launch->path, launch->search, (char *const *)(uintptr_t)launch->args,
                    (char *const *)(uintptr_t)launch->env);
    return AGENT_STAGE_EXEC;
}

static _Noreturn void run_child(struct launch *launch)
{
    launch->stage = become_program(launch);
    launch->os_error = errno;
    _exit(126);
}

/* ---- the agent ---- */

/* By itself, so that nothing of a caller's frame is in registers that the child could have changed. */
static __attribute__((noinline)) pid_t fork_child(struct launch *launch)
{
    pid_t child = vfork();
    if (child == 0)
        run_child(launch);
    return child;
}

bool launch_run(struct launch *launch, pid_t *ret_pid)
{
    pid_t child = fork_child(launch);
    if (child < 0)
        return launch_fail(launch, AGENT_STAGE_FORK, errno);
    if (launch->os_error != 0) {
        waitpid(child, NULL, 0);
        return false;
    }
    *ret_pid = child;
    return true;
}
