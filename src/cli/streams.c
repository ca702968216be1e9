// SPDX-License-Identifier: Apache-2.0
/* Our streams, terminal and signals as those of a program in a sandbox.
 *
 *     standard input ──read──> input_bytes ──vial_process_write──┐
 *                                                                ├── the program
 *     standard output, error <──write── pending <──process_next──┘
 *
 * One thread, nothing that waits. At most one piece of output and one of input is held; while a piece cannot be passed
 * on, no further one is taken, so whoever does not read stops whoever writes, from end to end.
 *
 * The process's descriptor is asked for readiness once at a time (EPOLLONESHOT): the end of its peer would wake us for
 * ever while a reader of ours keeps us waiting.
 *
 * Without a terminal, signals that ask for the end go to the program; the third is for us. With one, what is typed goes
 * to the program, ^C too, and its terminal makes signals of it. A reader of ours that has gone away makes the program's
 * next write fail in a shell: it gets a SIGPIPE, and what it says to nobody is thrown away.
 *
 * Invariants: (1) the terminal is raw only while streams_run runs, and its guardian restores it should we be killed
 * (base/terminal.c). (2) what was taken from the program is written before anything else is taken from it.
 *
 * Trust: what the program says is the user's own business, on their own terminal.
 */
#include "cli/streams.h"

#include "cli/command.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { CTRL_P = 0x10, CTRL_Q = 0x11, MOST_ASKS = 3, PIECES_AT_ONCE = 64 };

static void end_streams(struct streams *streams, enum stream_end end)
{
    if (!streams->is_over)
        streams->end = end;
    streams->is_over = true;
    loop_stop(streams->loop);
}

static void break_streams(struct streams *streams, int os_error, const char *what)
{
    if (!streams->is_over)
        error_set_os(&streams->error, VIAL_PHASE_RUN, os_error, "cannot %s", what);
    end_streams(streams, STREAMS_BROKEN);
}

/* ---- output ---- */

/* The place of the stream's output in our arrays. */
static int place_of(int stream)
{
    return stream == 2;
}

/* A reader that is gone, or one that never was: 0, or -errno for a real failure. */
static int lose_output(struct streams *streams, int place, int result)
{
    if (result != -EPIPE && result != -ECONNRESET)
        return result;
    streams->is_output_broken[place] = true;
    vial_process_signal(streams->process, SIGPIPE, NULL);
    return 0;
}

/* Passes the pending piece on: 1 when it is, 0 when it has to wait. */
static int flush_pending(struct streams *streams)
{
    int place = streams->pending_stream;
    while (streams->pending_length > 0 && !streams->is_output_broken[place]) {
        const struct iovec span = {.iov_base = (void *)(uintptr_t)streams->pending, .iov_len = streams->pending_length};
        ssize_t written = endpoint_write(&streams->outputs[place], &span, 1, 0);
        if (written == -EAGAIN) {
            loop_set_events(streams->output_sources[place], EPOLLOUT | EPOLLONESHOT);
            return 0;
        }
        if (written < 0) {
            int result = lose_output(streams, place, (int)written);
            if (result < 0) {
                break_streams(streams, result, "write the program's output");
                return 0;
            }
            break;
        }
        streams->pending += written;
        streams->pending_length -= (size_t)written;
    }
    streams->pending_length = 0;
    return 1;
}

static void take_event(struct streams *streams, const struct vial_process_event *event)
{
    switch ((enum vial_event_kind)event->kind) {
    case VIAL_EVENT_OUTPUT:
        streams->pending = event->bytes;
        streams->pending_length = event->length;
        streams->pending_stream = place_of(event->stream);
        break;
    case VIAL_EVENT_ENDED:
        streams->code = event->code;
        end_streams(streams, STREAMS_ENDED);
        break;
    case VIAL_EVENT_CLOSED:
        break;
    }
}

/* Takes and passes on what there is; after a while, signals and the input have their turn. */
static void pull_output(struct streams *streams)
{
    for (int i = 0; i < PIECES_AT_ONCE; i++) {
        if (streams->is_over || flush_pending(streams) == 0)
            return;
        struct vial_process_event event = VIAL_PROCESS_EVENT_INIT;
        int result = vial_process_next(streams->process, &event, 0, &streams->error);
        if (result == -ETIMEDOUT)
            return;
        if (result < 0)
            end_streams(streams, STREAMS_FAILED);
        else
            take_event(streams, &event);
    }
    loop_set_deadline(streams->again, 0);
}

/* ---- input ---- */

/* Looks for ctrl-p ctrl-q, which is taken out: true when it is there. A ctrl-p is held back until it is known what
 * follows, so the piece may become one byte longer at its front; there is room for it. */
static bool find_detach(struct streams *streams)
{
    char *bytes = streams->input_bytes + 1;
    size_t kept = 0;
    for (size_t i = 0; i < streams->input_length; i++) {
        char byte = bytes[i];
        if (streams->was_ctrl_p && byte == CTRL_Q)
            return true;
        if (streams->was_ctrl_p)
            streams->input_bytes[kept++] = CTRL_P;
        streams->was_ctrl_p = byte == CTRL_P;
        if (!streams->was_ctrl_p)
            streams->input_bytes[kept++] = byte;
    }
    streams->input_start = 0;
    streams->input_length = kept;
    return false;
}

static void end_input(struct streams *streams)
{
    streams->is_input_over = true;
    streams->input_length = 0;
    if (streams->has_input)
        vial_process_close_input(streams->process, NULL);
}

/* Reads a piece when there is none: false when there is none to be had now. */
static bool read_input(struct streams *streams)
{
    if (streams->input_length > 0)
        return true;
    const struct iovec span = {.iov_base = streams->input_bytes + 1, .iov_len = STREAM_BYTES - 1};
    ssize_t count = endpoint_read(&streams->input, &span, 1);
    if (count == -EAGAIN) {
        loop_set_events(streams->input_source, EPOLLIN | EPOLLONESHOT);
        return false;
    }
    if (count <= 0) { /* a terminal that has hung up is at its end, too */
        end_input(streams);
        return false;
    }
    streams->input_start = 1;
    streams->input_length = (size_t)count;
    if (streams->can_detach && streams->terminal != NULL && find_detach(streams)) {
        end_streams(streams, STREAMS_DETACHED);
        return false;
    }
    return streams->input_length > 0;
}

/* Whether the process's descriptor has to be asked when it can be written. */
static bool push_input(struct streams *streams)
{
    while (!streams->is_over && streams->has_input && !streams->is_input_over) {
        if (!read_input(streams)) {
            if (streams->is_input_over || streams->is_over || streams->input_length == 0)
                return false;
            continue;
        }
        long taken = vial_process_write(streams->process, streams->input_bytes + streams->input_start,
                                        streams->input_length, 0, NULL);
        if (taken == -ETIMEDOUT)
            return true;
        if (taken < 0) { /* nobody reads it any more; if the program has ended, its output says so */
            streams->is_input_over = true;
            return false;
        }
        streams->input_start += (size_t)taken;
        streams->input_length -= (size_t)taken;
    }
    return false;
}

/* ---- the loop ---- */

/* Passes on what can be, and asks for what is missing. */
static void pump(struct streams *streams)
{
    pull_output(streams);
    bool wants_room = push_input(streams);
    if (streams->is_over)
        return;
    uint32_t events = (uint32_t)vial_process_poll_events(streams->process, wants_room);
    if (streams->pending_length > 0) /* a reader of ours comes first */
        events &= ~(uint32_t)EPOLLIN;
    if (events != 0)
        loop_set_events(streams->process_source, events | EPOLLONESHOT);
}

static void handle_stream(void *user, uint32_t what)
{
    (void)what;
    pump(user);
}

static void handle_timeout(void *user, uint32_t what)
{
    (void)what;
    end_streams(user, STREAMS_TIMED_OUT);
}

/* ---- signals ---- */

static void handle_signal(void *user, uint32_t what)
{
    struct streams *streams = user;
    bool asks_end = what != SIGUSR1 && what != SIGUSR2;
    if (asks_end)
        streams->signal_number = (int)what;
    if (asks_end && ++streams->signal_count >= MOST_ASKS)
        end_streams(streams, STREAMS_FORCED);
    else
        vial_process_signal(streams->process, (int)what, NULL);
}

static void resize(struct streams *streams)
{
    uint16_t columns = 0, rows = 0;
    if (streams->is_terminal && terminal_read_size(STDIN_FILENO, &columns, &rows) == 0 && rows > 0 && columns > 0)
        vial_process_resize(streams->process, rows, columns, NULL);
}

/* In the background the terminal is another's; then this is done when we are continued in the foreground. */
static void make_raw(struct streams *streams)
{
    if (!streams->is_raw_wanted)
        return;
    if (streams->terminal == NULL)
        terminal_new(STDIN_FILENO, &streams->terminal);
    else
        terminal_renew(streams->terminal);
}

static void handle_window(void *user, uint32_t what)
{
    struct streams *streams = user;
    if (what == SIGCONT)
        make_raw(streams);
    resize(streams);
}

static int watch_signals(struct streams *streams)
{
    static const int passed[] = {SIGUSR1, SIGUSR2};
    struct loop_source *source = NULL; /* the loop's */
    int result = command_watch_signals(streams->loop, handle_signal, streams);
    for (size_t i = 0; i < array_length(passed) && result == 0; i++)
        result = loop_add_signal(streams->loop, passed[i], handle_signal, streams, &source);
    if (result == 0)
        result = loop_add_signal(streams->loop, SIGWINCH, handle_window, streams, &source);
    if (result == 0)
        result = loop_add_signal(streams->loop, SIGCONT, handle_window, streams, &source);
    return result;
}

/* ---- its life ---- */

int streams_begin(struct streams *streams)
{
    *streams = (struct streams){.input = ENDPOINT_NONE, .outputs = {ENDPOINT_NONE, ENDPOINT_NONE}};
    streams->input_bytes = alloc_zero(STREAM_BYTES);
    if (streams->input_bytes == NULL)
        return -ENOMEM;
    int result = loop_new(&streams->loop);
    return result < 0 ? result : watch_signals(streams);
}

/* What is closed, or not open for writing, loses what goes there: nobody would read it. */
static int open_outputs(struct streams *streams)
{
    static const int numbers[] = {STDOUT_FILENO, STDERR_FILENO};
    int result = 0;
    for (int i = 0; i < 2 && result == 0; i++) {
        if (endpoint_open(numbers[i], O_WRONLY, &streams->outputs[i]) < 0)
            streams->is_output_broken[i] = true;
        else
            result = endpoint_watch(&streams->outputs[i], streams->loop, handle_stream, streams,
                                    &streams->output_sources[i]);
    }
    return result;
}

static int open_input(struct streams *streams)
{
    if (!streams->has_input)
        return 0;
    int result = endpoint_open(STDIN_FILENO, O_RDONLY, &streams->input);
    if (result == 0)
        return endpoint_watch(&streams->input, streams->loop, handle_stream, streams, &streams->input_source);
    end_input(streams);
    return 0;
}

static int set_up(struct streams *streams, const struct stream_options *options)
{
    struct loop_source *source = NULL;
    int result = loop_add_fd(streams->loop, vial_process_fd(options->process), EPOLLIN | EPOLLONESHOT, handle_stream,
                             streams, &streams->process_source);
    if (result == 0)
        result = loop_add_timer(streams->loop, CLOCK_NEVER, handle_stream, streams, &streams->again);
    if (result == 0 && options->timeout_ms > 0)
        result = loop_add_timer(streams->loop, clock_deadline_ns(options->timeout_ms * CLOCK_NS_PER_MS), handle_timeout,
                                streams, &source);
    if (result == 0)
        result = open_outputs(streams);
    return result == 0 ? open_input(streams) : result;
}

void streams_run(struct streams *streams, const struct stream_options *options)
{
    streams->process = options->process;
    streams->is_terminal = options->is_terminal;
    streams->has_input = options->has_input;
    streams->can_detach = options->can_detach;
    streams->is_raw_wanted = options->is_terminal && options->has_input && isatty(STDIN_FILENO) == 1;
    int result = set_up(streams, options);
    if (result == 0) {
        make_raw(streams);
        resize(streams);
        pump(streams);
    }
    if (result == 0 && !streams->is_over)
        result = loop_run(streams->loop);
    if (result < 0)
        break_streams(streams, result, "wait for the program");
    streams->terminal = terminal_free(streams->terminal);
}

int streams_status(const struct streams *streams, const char *subject)
{
    switch (streams->end) {
    case STREAMS_ENDED:
        return streams->code & 0xff;
    case STREAMS_DETACHED:
        return EXIT_YES;
    case STREAMS_TIMED_OUT:
        fprintf(stderr, "%s: the command took too long, and was killed\n", subject);
        return EXIT_TIMED_OUT;
    case STREAMS_FORCED:
        return EXIT_SIGNAL + streams->signal_number;
    case STREAMS_FAILED:
        print_error(subject, &streams->error);
        return status_of_error(&streams->error);
    case STREAMS_BROKEN:
        print_error(subject, &streams->error);
        return EXIT_OURS;
    }
    return EXIT_OURS;
}

void streams_free(struct streams *streams)
{
    terminal_free(streams->terminal);
    loop_free(streams->loop);
    endpoint_close(&streams->input);
    endpoint_close(&streams->outputs[0]);
    endpoint_close(&streams->outputs[1]);
    free(streams->input_bytes);
}
