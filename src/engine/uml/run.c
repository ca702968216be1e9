// SPDX-License-Identifier: Apache-2.0
/* A machine on user-mode Linux, running: the child, pause, resume and the end.
 *
 * The engine has one thread. It makes the child, because the kernel ends a child that asked for it with the thread that
 * made it (PR_SET_PDEATHSIG), and then waits in an event loop for what the child says and for its end. What others ask
 * for is done on their own threads, so nobody waits for that loop:
 *
 *     any thread                     engine's thread                        the jail
 *     ──────────                     ───────────────                        ────────
 *     start ───────────────────────> jail_start ──────────────────────────> exec
 *           <── the result ───────── loop: log lines <───────────────────── pipes
 *     pause, resume ──────────────────────────────────────────────────────> stop, continue
 *     end: the reason ─────────────> jail_kill ───────────────────────────> killed
 *                                    pidfd <─────────────────────────────── ended
 *                                    judge, free the jail and the servers, on_end
 *
 * A reason that is asked for before there is a child is kept, and the child is ended as soon as it is there. It is the
 * engine's thread that kills, so that no other needs the right to.
 *
 * When the child has ended, its queues are still in memory that we have mapped, so what the guest sent last is
 * delivered: a server that loses its peer stops its device, and a device that stops serves its queues once more. A
 * console whose reader does not read is not waited for (vhost_user_abandon, console.c).
 *
 * Times from the call of uml_machine_start in milliseconds, least and median of 40 runs on two busy cores, with
 * console, rng, balloon, and an initramfs with one small program:
 *
 *                 start returns   devices connect   first process speaks   on_end, when it powers off at once
 *     1 CPU       1.9    2.4      12                21    29               26    35
 *     2 CPUs      1.9    2.2      12 to 20          29    37               35    45
 *
 * From the child's end to on_end it is 0.1 ms. The child is not killed before it has ended by itself, when it says that
 * it powers off: that would save 3 ms, and the line that says so is not trustworthy.
 *
 * Invariants: (1) on_end is called once for a machine whose start succeeded, without a lock, when no process of it
 * lives and its devices have no transport. (2) the first reason stays. (3) the engine's thread lives longer than the
 * child. (4) the jail is used by one thread at a time, except for jail_kill, which is the engine's thread's.
 *
 * Trust: how the child ends and what it says comes from a hostile guest; ending.c judges it.
 */
#include "engine/uml/private.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/thread.h"
#include "engine/uml/ending.h"
#include "engine/uml/placement.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void set_state(struct uml_machine *machine, enum uml_state state)
{
    pthread_mutex_lock(&machine->lock);
    machine->state = state;
    pthread_cond_broadcast(&machine->changed);
    pthread_mutex_unlock(&machine->lock);
}

/* ---- what the child says ---- */

/* One read at a time: a guest that talks without end does not keep its own end from being seen. */
static void handle_output(struct uml_output *output, struct loop_source **source)
{
    int result = uml_output_read(output);
    if (result < 0)
        *source = loop_source_free(*source);
}

static void handle_stdout(void *user, uint32_t what)
{
    struct uml_machine *machine = user;
    (void)what;
    handle_output(&machine->output, &machine->output_source);
}

static void handle_stderr(void *user, uint32_t what)
{
    struct uml_machine *machine = user;
    (void)what;
    handle_output(&machine->error, &machine->error_source);
}

static void handle_child(void *user, uint32_t what)
{
    struct uml_machine *machine = user;
    (void)what;
    loop_stop(machine->loop);
}

static void handle_end_request(void *user, uint32_t what)
{
    struct uml_machine *machine = user;
    (void)what;
    jail_kill(machine->jail);
}

int uml_machine_watch(struct uml_machine *machine)
{
    struct loop_source *end_source;
    machine->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (machine->end_fd < 0)
        return -errno;
    int result = loop_new(&machine->loop);
    if (result == 0)
        result = loop_add_fd(machine->loop, machine->end_fd, EPOLLIN | EPOLLET, handle_end_request, machine,
                             &end_source);
    if (result == 0)
        result = loop_add_fd(machine->loop, machine->output.fd, EPOLLIN, handle_stdout, machine,
                             &machine->output_source);
    if (result == 0)
        result = loop_add_fd(machine->loop, machine->error.fd, EPOLLIN, handle_stderr, machine, &machine->error_source);
    return result;
}

/* ---- the end ---- */

static void ask_for_end(struct uml_machine *machine)
{
    uint64_t one = 1;
    ssize_t written = write(machine->end_fd, &one, sizeof(one));
    (void)written; /* an eventfd that is written once takes a 1 */
}

void uml_machine_end(struct uml_machine *machine, enum vial_exit_reason reason, const char *format, ...)
{
    va_list arguments;
    pthread_mutex_lock(&machine->lock);
    if (!machine->has_end) {
        machine->has_end = true;
        machine->exit = (struct vial_exit)VIAL_EXIT_INIT;
        machine->exit.reason = reason;
        va_start(arguments, format);
        vsnprintf(machine->exit.detail, sizeof(machine->exit.detail), format, arguments);
        va_end(arguments);
        if (machine->state == UML_RUNNING || machine->state == UML_PAUSED)
            ask_for_end(machine);
    }
    pthread_mutex_unlock(&machine->lock);
}

/* Unless there is a reason already. */
static void judge_end(struct uml_machine *machine, const struct jail_end *end)
{
    const struct uml_output *error = &machine->error, *output = &machine->output;
    const struct uml_ending ending = {
        .was_killed = end->was_killed,
        .status = end->status,
        .has_begun = machine->server_count == 0 || atomic_load(&machine->connected) > 0,
        .has_failed_exec = error->has_failed_exec,
        .panic = output->panic[0] != '\0' ? output->panic : error->panic,
        .last_line = error->last,
    };
    pthread_mutex_lock(&machine->lock);
    if (!machine->has_end)
        uml_ending_judge(&ending, &machine->exit);
    machine->has_end = true;
    pthread_mutex_unlock(&machine->lock);
}

static void close_jail(struct uml_machine *machine)
{
    pthread_mutex_lock(&machine->control_lock);
    set_state(machine, UML_ENDED); /* from here on nobody else uses the jail */
    machine->jail = jail_free(machine->jail);
    pthread_mutex_unlock(&machine->control_lock);
}

static void finish(struct uml_machine *machine)
{
    uint64_t ended_ns = clock_now_ns();
    struct jail_end end;
    if (jail_end(machine->jail, &end) < 0) /* the process that would have told us was killed, and the child with it */
        end = (struct jail_end){.was_killed = true, .status = SIGKILL};
    uml_output_finish(&machine->output);
    uml_output_finish(&machine->error);
    judge_end(machine, &end);
    close_jail(machine);
    uint64_t freed_ns = clock_now_ns();
    uml_machine_free_servers(machine);
    log_debug("uml.ended", LOG_TEXT("by", end.was_killed ? "signal" : "status"), LOG_INT("number", end.status),
              LOG_UINT("elapsed_us", uml_machine_elapsed_us(machine, ended_ns)),
              LOG_UINT("jail_us", (freed_ns - ended_ns) / CLOCK_NS_PER_US),
              LOG_UINT("devices_us", (clock_now_ns() - freed_ns) / CLOCK_NS_PER_US));
    machine->on_end(machine->user, &machine->exit);
}

void uml_machine_join(struct uml_machine *machine)
{
    if (machine == NULL)
        return;
    uml_machine_end(machine, VIAL_EXIT_STOP_REQUESTED, "the machine was freed");
    if (machine->has_thread)
        pthread_join(machine->thread, NULL);
    machine->has_thread = false;
}

/* ---- the start ---- */

static int start_child(struct uml_machine *machine, struct vial_error *err)
{
    const char *const environment[] = {machine->memory_variable, NULL};
    const struct jail_program program = {
        .fd = machine->kernel_fd,
        .arguments = machine->cmdline.words,
        .environment = environment,
        .stdin_fd = machine->child_fds[0],
        .stdout_fd = machine->child_fds[1],
        .stderr_fd = machine->child_fds[2],
    };
    int result = jail_start(machine->jail, &program, err);
    uml_machine_close_child_fds(machine);
    if (result < 0)
        return result;
    result = loop_add_fd(machine->loop, jail_pidfd(machine->jail), EPOLLIN, handle_child, machine,
                         &machine->child_source);
    if (result < 0) {
        error_set_os(err, VIAL_PHASE_START, result, "the kernel's process cannot be watched");
        error_remedy(err, "free memory, or raise this process's memory limits");
    }
    return result;
}

static void handle_look(void *user, uint32_t what)
{
    struct uml_machine *machine = user;
    (void)what;
    loop_set_deadline(machine->look_source, placement_look(machine->placement));
}

/* A machine that cannot be placed is slower, no more. */
static void place_child(struct uml_machine *machine)
{
    if (!machine->is_placed)
        return;
    int result = placement_begin(jail_pid(machine->jail), &machine->placement);
    if (result == 0 && machine->placement != NULL)
        result = loop_add_timer(machine->loop, placement_look(machine->placement), handle_look, machine,
                                &machine->look_source);
    if (result < 0)
        log_debug("uml.not_placed", LOG_ERRNO(result));
}

/* From here on this thread only moves and ends what it has begun. */
static int enter_kind(struct vial_error *err)
{
    int result = thread_enter(THREAD_ENGINE);
    if (result < 0)
        error_set_os(err, VIAL_PHASE_START, result, "the engine's thread cannot confine itself");
    return result;
}

static void note_walls(struct uml_machine *machine)
{
    for (int wall = 0; wall < JAIL_WALLS; wall++)
        machine->walls |= jail_has(machine->jail, wall) ? 1u << wall : 0;
    jail_describe(machine->jail, &machine->walls_text);
    log_info("uml.started", LOG_INT("pid", jail_pid(machine->jail)),
             LOG_UINT("elapsed_us", uml_machine_elapsed_us(machine, clock_now_ns())),
             LOG_BYTES("walls", machine->walls_text.data != NULL ? machine->walls_text.data : "",
                       machine->walls_text.length));
}

/* Tells whoever waits in uml_machine_start; an end that was asked for meanwhile comes now. */
static void tell_started(struct uml_machine *machine)
{
    pthread_mutex_lock(&machine->lock);
    machine->state = UML_RUNNING;
    if (machine->has_end)
        jail_kill(machine->jail);
    pthread_cond_broadcast(&machine->changed);
    pthread_mutex_unlock(&machine->lock);
}

static void *run_thread(void *user)
{
    struct uml_machine *machine = user;
    machine->start_result = start_child(machine, &machine->start_error);
    if (machine->start_result == 0)
        place_child(machine);
    if (machine->start_result == 0)
        machine->start_result = enter_kind(&machine->start_error);
    if (machine->start_result < 0) {
        close_jail(machine);
        return NULL;
    }
    note_walls(machine);
    tell_started(machine);
    int result = loop_run(machine->loop);
    if (result < 0) {
        log_error("uml.loop_failed", LOG_ERRNO(result));
        uml_machine_end(machine, VIAL_EXIT_INTERNAL_ERROR, "the engine's event loop failed: %s",
                        strerrordesc_np(-result));
    }
    finish(machine);
    return NULL;
}

int uml_machine_start(struct uml_machine *machine, struct vial_error *err)
{
    assert(!machine->has_thread);
    atomic_store(&machine->start_ns, clock_now_ns());
    set_state(machine, UML_STARTING);
    int result = thread_start("vial-uml", run_thread, machine, &machine->thread);
    if (result < 0) {
        set_state(machine, UML_ENDED);
        error_set_os(err, VIAL_PHASE_START, result, "the engine's thread cannot be started");
        error_remedy(err, "raise this user's limit of processes (ulimit -u), or free memory");
        return result;
    }
    machine->has_thread = true;
    pthread_mutex_lock(&machine->lock);
    while (machine->state == UML_STARTING)
        pthread_cond_wait(&machine->changed, &machine->lock);
    pthread_mutex_unlock(&machine->lock);
    if (machine->start_result == 0)
        return 0;
    pthread_join(machine->thread, NULL);
    machine->has_thread = false;
    if (err != NULL)
        *err = machine->start_error;
    return machine->start_result;
}

/* ---- pause and resume ---- */

/* With the control lock held: whether the machine may go from one state to the other. */
static int check_change(struct uml_machine *machine, enum uml_state from, enum uml_state to)
{
    pthread_mutex_lock(&machine->lock);
    int result = machine->has_end ? -ESRCH : machine->state == from ? 0 : machine->state == to ? -EALREADY : -ESRCH;
    pthread_mutex_unlock(&machine->lock);
    return result;
}

/* It may have ended meanwhile. */
static int make_change(struct uml_machine *machine, enum uml_state to)
{
    pthread_mutex_lock(&machine->lock);
    int result = machine->has_end ? -ESRCH : 0;
    machine->state = to;
    pthread_mutex_unlock(&machine->lock);
    return result;
}

static int change(struct uml_machine *machine, enum uml_state from, enum uml_state to,
                  int (*function)(struct jail *jail))
{
    pthread_mutex_lock(&machine->control_lock);
    int result = check_change(machine, from, to);
    if (result == 0)
        result = function(machine->jail);
    if (result == 0)
        result = make_change(machine, to);
    pthread_mutex_unlock(&machine->control_lock);
    return result;
}

int uml_machine_pause(struct uml_machine *machine)
{
    return change(machine, UML_RUNNING, UML_PAUSED, jail_pause);
}

int uml_machine_resume(struct uml_machine *machine)
{
    return change(machine, UML_PAUSED, UML_RUNNING, jail_resume);
}
