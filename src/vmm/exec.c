// SPDX-License-Identifier: Apache-2.0
/* What a guest is to mount and to run: the host's end of the port "vial.init". (proto/init.h)
 *
 * The port is a custom one of the console: two functions, called on the console's thread, and an eventfd that is
 * readable while there is something to say. What is asked is made before the machine begins and given away once, in
 * pieces of whatever size the guest reads; the memory goes with its last byte. Answers are collected byte by byte and
 * judged as soon as they are whole:
 *
 *     asked ──STARTED──> running ──ENDED──> ended ──┐
 *       └─────FAILED───> failed ────────────────────┴──> the machine may be ended (exec_on_end), or GOODBYE is said
 *       any wrong byte before that ──> confused, or foreign where it is a header of another version: whatever comes is
 *                                      taken and forgotten
 *
 * That waits until the guest has closed the program's outputs and the console has delivered what they held: the end
 * of a machine gives a slow reader a tenth of a second, and the guest's last 2 MiB may still be in the queue.
 *
 * Invariants: (1) everything but started_ns is touched on the console's thread only, until the console has stopped.
 * (2) the guest has us hold one message of INIT_MOST_ANSWER_BYTES, however much it writes. (3) after the program's end
 * or failure nothing changes any more, whatever the guest says. (4) event_fd is readable exactly while there is
 * something to read.
 *
 * Trust: what is written here comes from a hostile guest. What is asked is our own, of a validated configuration.
 */
#include "vmm/exec.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/text.h"
#include "proto/agent.h"
#include "vmm/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum exec_state {
    EXEC_ASKED,
    EXEC_RUNNING,
    EXEC_FAILED,
    EXEC_ENDED,
    EXEC_CONFUSED, /* the guest has broken the contract */
    EXEC_FOREIGN,  /* it knows another one */
};

struct exec {
    const struct vial_vm_config *config; /* borrowed */
    struct plan plan;                    /* owned: what is mounted first */
    bool has_program, has_terminal;
    int streams[3]; /* borrowed, or -1 */
    int null_fd;    /* owned: an empty input, or -1 where none is needed */
    int event_fd;   /* owned */
    void (*started)(void *user);
    void *started_user; /* borrowed */
    atomic_uint_fast64_t started_ns;

    struct exec_output {
        struct exec *exec; /* borrowed: whose it is */
        bool is_open;      /* the guest may write, or what it wrote is not all delivered */
    } outputs[2];
    bool owes_goodbye;
    void (*ended)(void *user);
    void *ended_user;

    struct buffer speech; /* what the guest is still to be told, from told_bytes on */
    size_t told_bytes;
    bool was_asked; /* the guest has taken something of it */
    enum exec_state state;
    uint8_t message[INIT_MOST_ANSWER_BYTES]; /* an answer, as much of it as there is */
    size_t message_bytes;
    struct init_answer end; /* FAILED or ENDED */
};

/* ---- to the guest ---- */

static void set_readable(struct exec *exec, bool is_readable)
{
    uint64_t value = 1;
    ssize_t done = is_readable ? write(exec->event_fd, &value, sizeof(value))
                               : read(exec->event_fd, &value, sizeof(value));
    (void)done; /* fails only where it is so already */
}

static void say_goodbye(struct exec *exec)
{
    uint8_t message[INIT_HEADER_BYTES];
    init_encode_empty(INIT_GOODBYE, message);
    if (buffer_add(&exec->speech, message, sizeof(message)) == 0)
        set_readable(exec, true);
    else
        log_warn("exec.no_goodbye", LOG_ERRNO(exec->speech.error)); /* the guest waits for it until it is stopped */
}

static ssize_t read_speech(void *user, void *bytes, size_t size)
{
    struct exec *exec = user;
    size_t left = exec->speech.length - exec->told_bytes;
    if (left == 0)
        return -EAGAIN; /* never the end: a guest would take it for a host that has gone */
    size_t length = left < size ? left : size;
    memcpy(bytes, exec->speech.data + exec->told_bytes, length);
    exec->told_bytes += length;
    exec->was_asked = true;
    if (length == left) {
        buffer_free(&exec->speech);
        exec->told_bytes = 0;
        set_readable(exec, false);
    }
    return (ssize_t)length;
}

/* The machine may end when its reader has everything: a machine's end waits for no slow reader. */
static void try_goodbye(struct exec *exec)
{
    for (size_t i = 0; i < array_length(exec->outputs); i++)
        if (exec->outputs[i].is_open)
            return;
    if (!exec->owes_goodbye)
        return;
    exec->owes_goodbye = false;
    if (exec->ended != NULL)
        exec->ended(exec->ended_user);
    else
        say_goodbye(exec);
}

static void note_output(void *user, bool is_open)
{
    struct exec_output *output = user;
    output->is_open = is_open;
    try_goodbye(output->exec);
}

/* ---- from the guest ---- */

static void note_start(struct exec *exec)
{
    exec->state = EXEC_RUNNING;
    atomic_store_explicit(&exec->started_ns, clock_now_ns(), memory_order_relaxed);
    log_info("exec.started", LOG_TEXT("path", exec->config->exec_path != NULL ? exec->config->exec_path
                                              : exec->has_program             ? "(the guest's)"
                                                                              : "(none)"));
    if (exec->started != NULL)
        exec->started(exec->started_user);
}

static void note_end(struct exec *exec, const struct init_answer *answer)
{
    exec->state = answer->kind == INIT_FAILED ? EXEC_FAILED : EXEC_ENDED;
    exec->end = *answer;
    if (answer->kind == INIT_FAILED)
        log_info("exec.failed", LOG_TEXT("stage", init_stage_name(answer->stage)), LOG_ERRNO((int)answer->os_error),
                 LOG_INT("mount", answer->mount != INIT_NO_MOUNT ? (int64_t)answer->mount : -1));
    else
        log_info("exec.ended", LOG_UINT(answer->was_killed ? "signal" : "code", answer->number));
    exec->owes_goodbye = true;
    try_goodbye(exec);
}

/* Whether the answer may come now. */
static bool handle_answer(struct exec *exec, const struct init_answer *answer)
{
    bool is_start = exec->state == EXEC_ASKED && answer->kind == INIT_STARTED;
    bool is_end = (exec->state == EXEC_ASKED && answer->kind == INIT_FAILED) ||
                  (exec->state == EXEC_RUNNING && answer->kind == INIT_ENDED);
    if (is_start)
        note_start(exec);
    if (is_end)
        note_end(exec, answer);
    return is_start || is_end;
}

/* Looks at what has come so far: whether it can be, or become, a message. */
static bool handle_message(struct exec *exec)
{
    struct init_header header;
    struct init_answer answer;
    if (exec->message_bytes < INIT_HEADER_BYTES)
        return true;
    if (init_decode_header(exec->message, &header) < 0 || header.body_bytes > sizeof(exec->message) - INIT_HEADER_BYTES)
        return false;
    if (exec->message_bytes < INIT_HEADER_BYTES + header.body_bytes)
        return true;
    exec->message_bytes = 0;
    return init_decode_answer(&header, exec->message + INIT_HEADER_BYTES, &answer) == 0 && handle_answer(exec, &answer);
}

static bool is_listening(const struct exec *exec)
{
    return exec->state == EXEC_ASKED || exec->state == EXEC_RUNNING;
}

/* Takes everything, so that no guest has to wait. */
static ssize_t write_answer(void *user, const void *bytes, size_t length)
{
    struct exec *exec = user;
    for (size_t i = 0; i < length && is_listening(exec); i++) {
        exec->message[exec->message_bytes++] = ((const uint8_t *)bytes)[i];
        if (!handle_message(exec)) {
            bool is_foreign = exec->message_bytes == INIT_HEADER_BYTES && init_is_other_version(exec->message);
            exec->state = is_foreign ? EXEC_FOREIGN : EXEC_CONFUSED;
            log_warn("exec.confused", LOG_BYTES("message", (const char *)exec->message, exec->message_bytes));
        }
    }
    return (ssize_t)length;
}

static int get_event_fd(void *user)
{
    const struct exec *exec = user;
    return exec->event_fd;
}

static const struct vial_console_ops init_port_ops = {
    .size = sizeof(struct vial_console_ops),
    .read = read_speech,
    .write = write_answer,
    .poll_fd = get_event_fd,
};

/* ---- life ---- */

static int fail_os(struct vial_error *err, int os_error, const char *what)
{
    int result = error_set_os(err, VIAL_PHASE_START, os_error, "%s", what);
    error_remedy(err, "raise the limit of open files (ulimit -n)");
    return result;
}

static int refuse_messages(int result, const char *field, struct vial_error *err)
{
    if (result == -ENOMEM)
        return error_no_memory(err, VIAL_PHASE_START);
    if (result < 0) { /* validate.c has let something through, or it is too much altogether */
        error_set(err, result == -E2BIG ? VIAL_ERROR_TOO_BIG : VIAL_ERROR_INVALID, VIAL_PHASE_START,
                  "the guest's init cannot be asked to do this");
        error_field(err, "%s", field);
        error_remedy(err, "use fewer mounts, and shorter paths, options, arguments and variables");
    }
    return result;
}

static int encode_setup(struct exec *exec, struct vial_error *err)
{
    int result = plan_make(&exec->plan, exec->config, err);
    if (result < 0)
        return result;
    struct init_setup setup = {
        .mounts = exec->plan.mounts,
        .mount_count = exec->plan.count,
        .networks = exec->plan.networks,
        .network_count = exec->plan.network_count,
        .has_request = exec->has_program,
        .wants_agent = !exec->has_program && exec->config->agent_fd >= 0,
        .hostname = exec->config->agent_hostname,
    };
    return refuse_messages(init_encode_setup(&setup, &exec->speech), "mounts", err);
}

static int encode_request(struct exec *exec, struct vial_error *err)
{
    const struct vial_vm_config *config = exec->config;
    struct init_request request = {
        .path = config->exec_path != NULL ? config->exec_path : "",
        .workdir = config->exec_workdir != NULL ? config->exec_workdir
                   : config->exec_from_guest    ? ""
                                                : "/",
        .args = (const char *const *)config->exec_args.items,
        .env = (const char *const *)config->exec_env.items,
        .arg_count = config->exec_args.count,
        .env_count = config->exec_env.count,
        .rlimit_count = config->rlimit_count,
        .uid = config->has_exec_uid ? config->exec_uid : 0,
        .gid = config->has_exec_gid ? config->exec_gid : 0,
        .has_terminal = exec->has_terminal,
        .has_uid = config->has_exec_uid,
        .has_gid = config->has_exec_gid,
        .wants_config = config->exec_from_guest,
    };
    for (size_t i = 0; i < config->rlimit_count && i < LIMIT_RLIMITS; i++) /* more of them are refused below */
        request.rlimits[i] = (struct init_rlimit){
            .resource = config->rlimits[i].resource,
            .soft = config->rlimits[i].soft,
            .hard = config->rlimits[i].hard,
        };
    return refuse_messages(init_encode_request(&request, &exec->speech), "exec", err);
}

static int make_parts(struct exec *exec, struct vial_error *err)
{
    bool has_streams = exec->has_program && !exec->has_terminal;
    int result = encode_setup(exec, err);
    if (result == 0 && exec->has_program)
        result = encode_request(exec, err);
    if (result < 0)
        return result;
    exec->event_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    if (exec->event_fd < 0)
        return fail_os(err, errno, "eventfd failed");
    exec->null_fd = has_streams ? open("/dev/null", O_RDWR | O_CLOEXEC) : -1;
    if (exec->null_fd < 0 && has_streams)
        return fail_os(err, errno, "cannot open /dev/null");
    return 0;
}

int exec_new(const struct vial_vm_config *config, bool has_terminal, struct exec **ret_exec, struct vial_error *err)
{
    struct exec *exec = alloc_zero(sizeof(*exec));
    if (exec == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    *exec = (struct exec){
        .config = config,
        .has_program = config_has_program(config),
        .has_terminal = has_terminal,
        .streams = {-1, -1, -1},
        .null_fd = -1,
        .event_fd = -1,
        .speech = BUFFER_INIT(2 * INIT_HEADER_BYTES + LIMIT_SETUP_BYTES + LIMIT_EXEC_REQUEST_BYTES),
        .state = EXEC_ASKED,
    };
    int result = make_parts(exec, err);
    if (result < 0) {
        exec_free(exec);
        return result;
    }
    *ret_exec = exec;
    return 0;
}

struct exec *exec_free(struct exec *exec)
{
    if (exec == NULL)
        return NULL;
    plan_free(&exec->plan);
    buffer_free(&exec->speech);
    fd_close(exec->null_fd);
    fd_close(exec->event_fd);
    free(exec);
    return NULL;
}

void exec_set_streams(struct exec *exec, const int fds[3])
{
    for (size_t i = 0; i < array_length(exec->streams); i++)
        exec->streams[i] = fds[i];
}

void exec_on_end(struct exec *exec, void (*function)(void *user), void *user)
{
    exec->ended = function;
    exec->ended_user = user;
}

void exec_on_start(struct exec *exec, void (*function)(void *user), void *user)
{
    exec->started = function;
    exec->started_user = user;
}

/* What the agent has written before it closes its port is delivered before the machine's end, as a program's is. */
static struct console_port_options agent_port(struct exec *exec)
{
    exec->outputs[0].exec = exec;
    return (struct console_port_options){
        .name = AGENT_PORT,
        .kind = CONSOLE_PORT_INOUT,
        .input_fd = exec->config->agent_fd,
        .output_fd = exec->config->agent_fd,
        .tty_fd = -1,
        .guest_changed = note_output,
        .guest_user = &exec->outputs[0],
    };
}

size_t exec_ports(struct exec *exec, struct console_port_options ports[EXEC_MOST_PORTS])
{
    static const char *const names[] = {INIT_STDIN_PORT, INIT_STDOUT_PORT, INIT_STDERR_PORT};
    size_t count = 0;
    for (size_t i = 0; i < array_length(names) && exec->has_program && !exec->has_terminal; i++) {
        struct console_port_options *port = &ports[count++];
        *port = (struct console_port_options){
            .name = names[i],
            .kind = CONSOLE_PORT_INOUT,
            .input_fd = i == 0 ? exec->streams[i] : -1,
            .output_fd = i == 0 ? -1 : exec->streams[i],
            .tty_fd = -1,
        };
        if (i > 0) {
            exec->outputs[i - 1].exec = exec;
            port->guest_changed = note_output;
            port->guest_user = &exec->outputs[i - 1];
        }
        if (i == 0 && port->input_fd < 0)
            port->input_fd = exec->null_fd; /* a port without an input would never say that it has ended */
    }
    if (!exec->has_program && exec->config->agent_fd >= 0)
        ports[count++] = agent_port(exec);
    ports[count++] = (struct console_port_options){
        .name = INIT_PORT,
        .kind = CONSOLE_PORT_CUSTOM,
        .input_fd = -1,
        .output_fd = -1,
        .tty_fd = -1,
        .ops = &init_port_ops,
        .ops_user = exec,
    };
    return count;
}

uint64_t exec_started_ns(const struct exec *exec)
{
    return atomic_load_explicit(&exec->started_ns, memory_order_relaxed);
}

/* ---- the end ---- */

/* As shells have it (POSIX XCU 2.8.2), and libkrun the first. */
enum { code_not_set_up = 125, code_cannot_execute = 126, code_not_found = 127, code_signal = 128 };

/* A path of the user's in a sentence: short enough to leave room for the reason. */
static struct error_text quote(const char *text)
{
    struct error_text shortened = error_short(text), quoted;
    quoted.text[0] = '"';
    size_t length = text_escape(quoted.text + 1, sizeof(quoted.text) - 2, shortened.text, strlen(shortened.text), "\"");
    memcpy(quoted.text + 1 + length, "\"", 2);
    return quoted;
}

/* What the stage was about; empty where there is nothing to name. */
static struct error_text subject_of(const struct exec *exec)
{
    static const struct error_text the_guests = {"what the guest names"};
    const struct vial_vm_config *config = exec->config;
    struct error_text subject = {""};
    if (!exec->has_program) /* the guest blames what nobody asked for */
        return subject;
    switch (exec->end.stage) {
    case INIT_STAGE_EXEC:
        return config->exec_path != NULL ? quote(config->exec_path) : the_guests;
    case INIT_STAGE_CHDIR:
        return config->exec_workdir != NULL ? quote(config->exec_workdir)
               : config->exec_from_guest    ? the_guests
                                            : quote("/");
    case INIT_STAGE_SETUID:
        snprintf(subject.text, sizeof(subject.text), "%u", config->exec_uid);
        return subject;
    case INIT_STAGE_SETGID:
        snprintf(subject.text, sizeof(subject.text), "%u", config->exec_gid);
        return subject;
    case INIT_STAGE_REQUEST:
    case INIT_STAGE_SYSTEM:
    case INIT_STAGE_SOURCE:
    case INIT_STAGE_TARGET:
    case INIT_STAGE_MOUNT:
    case INIT_STAGE_LAYERS:
    case INIT_STAGE_ROOT:
    case INIT_STAGE_STREAMS:
    case INIT_STAGE_FORK:
    case INIT_STAGE_TERMINAL:
    case INIT_STAGE_RLIMIT:
    case INIT_STAGE_INTERFACE:
    case INIT_STAGE_LEASE:
    case INIT_STAGE_SETGROUPS:
    case INIT_STAGE_CONFIG:
        break;
    }
    return subject;
}

/* The guest's file, whose name is what the request says, and the place in it. */
static void explain_config(const struct exec *exec, char *text, size_t size)
{
    static const char key[] = INIT_CONFIG_VARIABLE "=";
    const struct string_list *env = &exec->config->exec_env;
    const char *name = INIT_CONFIG_FILE;
    const char *why = exec->end.os_error == EBADMSG  ? "this is no JSON"
                      : exec->end.os_error == EINVAL ? "what stands here makes no sense there"
                      : exec->end.os_error == E2BIG  ? "this is too much"
                                                     : strerrordesc_np((int)exec->end.os_error);
    char place[32] = "";
    for (size_t i = env->count; i-- > 0;)
        if (strncmp(env->items[i], key, sizeof(key) - 1) == 0)
            name = env->items[i] + sizeof(key) - 1;
    if (exec->end.mount != INIT_NO_MOUNT)
        snprintf(place, sizeof(place), " at byte %u", exec->end.mount);
    snprintf(text, size, "config %s%s: %s", quote(name).text, place,
             why != NULL ? why : "an unknown error of the guest");
}

static void judge_failure(const struct exec *exec, struct vial_exit *exit)
{
    bool is_libkruns = exec->config->exec_from_guest; /* and so are the codes */
    if (is_libkruns && exec->end.stage != INIT_STAGE_EXEC)
        exit->code = code_not_set_up;
    if (is_libkruns && exec->end.stage == INIT_STAGE_CONFIG) {
        explain_config(exec, exit->detail, sizeof(exit->detail));
        return;
    }
    if (plan_is_blamed(&exec->end)) {
        plan_explain(&exec->plan, &exec->end, exit->detail, sizeof(exit->detail));
        return; /* else with code 0: nothing has run that could have one */
    }
    struct error_text subject = subject_of(exec);
    int os_error = (int)exec->end.os_error;
    const char *why = strerrordesc_np(os_error);
    bool is_missing = exec->end.stage == INIT_STAGE_EXEC && os_error == ENOENT;
    if (exit->code == 0)
        exit->code = is_missing ? code_not_found : code_cannot_execute;
    snprintf(exit->detail, sizeof(exit->detail), "%s%s%s: %s", init_stage_name(exec->end.stage),
             subject.text[0] != '\0' ? " " : "", subject.text, why != NULL ? why : "an unknown error of the guest");
}

static void judge_end(const struct exec *exec, struct vial_exit *exit)
{
    int number = (int)exec->end.number;
    const char *name = exec->end.was_killed ? sigabbrev_np(number) : NULL;
    const char *who = exec->has_program ? "the program" : "the guest's init";
    exit->code = exec->end.was_killed ? code_signal + number : number;
    if (!exec->end.was_killed && number == 0)
        exit->reason = VIAL_EXIT_COMPLETED;
    if (exec->end.was_killed)
        snprintf(exit->detail, sizeof(exit->detail), "%s was killed by signal %d%s%s%s", who, number,
                 name != NULL ? " (SIG" : "", name != NULL ? name : "", name != NULL ? ")" : "");
    else
        snprintf(exit->detail, sizeof(exit->detail), "%s ended with exit code %d", who, number);
}

void exec_judge(const struct exec *exec, struct vial_exit *exit)
{
    static const char nobody_asked[] = "the guest ended, and nothing in it asked what to do: its init is not vial-init";
    static const char *const without_end[] = {
        /* What it said last may still have been on its way. */
        [EXEC_ASKED] = "the guest ended before its init had said how the program ended",
        [EXEC_RUNNING] = "the guest ended before its init had said how the program ended",
        [EXEC_CONFUSED] = "the guest's init said something that makes no sense",
        [EXEC_FOREIGN] = "the guest's init is of another version; build the initramfs anew",
    };
    if (exit->reason != VIAL_EXIT_COMPLETED && exit->reason != VIAL_EXIT_GUEST_RESET)
        return;
    exit->reason = VIAL_EXIT_FAILED;
    exit->code = 0;
    if (exec->state == EXEC_FAILED)
        judge_failure(exec, exit);
    else if (exec->state == EXEC_ENDED)
        judge_end(exec, exit);
    else
        snprintf(exit->detail, sizeof(exit->detail), "%s",
                 exec->state == EXEC_ASKED && !exec->was_asked ? nobody_asked : without_end[exec->state]);
}
