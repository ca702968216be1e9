// SPDX-License-Identifier: Apache-2.0
/* One program or an agent for the host, from what is mounted for it to its end. (proto/init.h)
 *
 *     port "vial.init" ──> setup: root ──> system ──> places ──┬─> request ──> streams ──> program ──> STARTED …
 *                                                              │   (complete.c, where it leaves something open)
 *                                                              └─> STARTED ──> agent …
 *                      ──> disks unmounted ──> ENDED ──> GOODBYE, or the host switches the machine off
 *
 * What goes wrong before the port is open is told on the kernel's log, and the machine ends without an answer, which
 * the host can tell from any other end. Later everything ends in an answer.
 *
 * Descriptors 0, 1 and 2, which the kernel may have opened on the console, become /dev/null first: this process has
 * nothing to say there, and the numbers are taken, so that no port gets one of them.
 *
 * Invariants: (1) STARTED is followed by ENDED, FAILED by nothing. (2) the function returns only after the host's
 * GOODBYE, or when the port has failed. (3) when ENDED or FAILED is said, nothing is left to be written anywhere.
 *
 * Trust: what is asked comes from the host, which can do with the guest what it likes; it is checked all the same.
 */
#include "agent.h"
#include "complete.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

struct run {
    int port;
    int streams[PROGRAM_STREAMS];
    struct message {
        uint8_t *body; /* owned: what was decoded points into it */
        void *table;   /* owned: its arrays */
    } setup_message, request_message;
    struct init_setup setup;
    struct init_request request;
    struct completion completion; /* owned: of a request that leaves something to the guest */
};

static struct init_answer failed(enum init_stage stage, int failure)
{
    return (struct init_answer){
        .kind = INIT_FAILED,
        .stage = stage,
        .os_error = (uint32_t)-failure,
        .mount = INIT_NO_MOUNT,
    };
}

/* The next message, which has to be of that kind. */
static int read_message(const struct run *run, enum init_kind kind, struct message *message, size_t *ret_length)
{
    uint8_t bytes[INIT_HEADER_BYTES];
    struct init_header header;
    int result = port_read(run->port, bytes, sizeof(bytes));
    if (result == 0)
        result = init_decode_header(bytes, &header);
    if (result == 0 && header.kind != kind)
        result = -EPROTO;
    if (result < 0)
        return result;
    message->body = malloc(header.body_bytes); /* no more than the limit: decoding the header has seen to that */
    if (message->body == NULL)
        return -ENOMEM;
    *ret_length = header.body_bytes;
    return port_read(run->port, message->body, header.body_bytes);
}

static int read_setup(struct run *run)
{
    struct message *message = &run->setup_message;
    size_t length = 0;
    int result = read_message(run, INIT_SETUP, message, &length);
    return result == 0 ? init_decode_setup(message->body, length, &run->setup, &message->table) : result;
}

static int read_request(struct run *run)
{
    struct message *message = &run->request_message;
    size_t length = 0;
    int result = read_message(run, INIT_REQUEST, message, &length);
    return result == 0 ? init_decode_request(message->body, length, &run->request, &message->table) : result;
}

/* They stand before "vial.init" on the console, so that they have their names and are connected by now. */
static int open_streams(struct run *run)
{
    static const char *const names[PROGRAM_STREAMS] = {INIT_STDIN_PORT, INIT_STDOUT_PORT, INIT_STDERR_PORT};
    for (int i = 0; i < PROGRAM_STREAMS && !run->request.has_terminal; i++) {
        run->streams[i] = port_open(names[i]);
        if (run->streams[i] < 0) {
            tell("open", names[i], run->streams[i]);
            return run->streams[i];
        }
    }
    return 0;
}

static void close_streams(struct run *run)
{
    for (int i = 0; i < PROGRAM_STREAMS; i++) {
        if (run->streams[i] >= 0)
            close(run->streams[i]);
        run->streams[i] = -1;
    }
}

static int answer_host(const struct run *run, const struct init_answer *answer)
{
    uint8_t bytes[INIT_MOST_ANSWER_BYTES];
    size_t length = init_encode_answer(answer, bytes);
    int result = port_write(run->port, bytes, length);
    if (result < 0)
        tell("answer on", INIT_PORT, result);
    return result;
}

/* Everything that the program finds when it begins. */
static bool prepare(struct run *run, struct init_answer *ret_failure)
{
    int result = read_setup(run);
    if (result < 0) {
        *ret_failure = failed(INIT_STAGE_REQUEST, result);
        return false;
    }
    if (!storage_make_root(&run->setup, ret_failure))
        return false;
    result = prepare_system(run->setup.hostname);
    if (result < 0) {
        *ret_failure = failed(INIT_STAGE_SYSTEM, result);
        return false;
    }
    return storage_mount_places(&run->setup, ret_failure) && network_set_up(&run->setup, ret_failure);
}

/* Everything between the request and the last answer. */
static struct init_answer run_program(struct run *run)
{
    static const struct init_answer started = {.kind = INIT_STARTED};
    struct init_answer answer;
    pid_t child = -1;
    int result = read_request(run);
    if (result < 0)
        return failed(INIT_STAGE_REQUEST, result);
    const struct init_request *request = &run->request;
    if (request->wants_config) {
        if (!complete_request(request, &run->completion, &answer))
            return answer;
        request = &run->completion.request;
    }
    result = open_streams(run);
    if (result < 0)
        return failed(INIT_STAGE_STREAMS, result);
    if (!program_start(request, run->streams, &child, &answer))
        return answer;
    close_streams(run);
    answer_host(run, &started);
    answer = program_wait(child);
    if (request->has_terminal)
        console_drain();
    return answer;
}

/* Nothing to run: whoever looks at the console sees that the guest is up. */
static struct init_answer run_nothing(const struct run *run, void (*report)(void))
{
    static const struct init_answer started = {.kind = INIT_STARTED}, ended = {.kind = INIT_ENDED};
    answer_host(run, &started);
    for (int i = 0; i < PROGRAM_STREAMS; i++)
        close(i);
    report(); /* opens the console in their place */
    console_drain();
    return ended;
}

/* The agent's port stands before "vial.init", as those of a program's streams do. */
static struct init_answer run_agent(const struct run *run)
{
    static const struct init_answer started = {.kind = INIT_STARTED}, ended = {.kind = INIT_ENDED};
    int port = port_open(AGENT_PORT);
    if (port < 0) {
        tell("open", AGENT_PORT, port);
        return failed(INIT_STAGE_STREAMS, port);
    }
    answer_host(run, &started);
    int result = agent_serve(port);
    close(port);
    if (result < 0)
        tell("serve", AGENT_PORT, result);
    return ended;
}

/* Messages that were not read stand before it. What is no message at all is not waited behind. */
static void wait_for_goodbye(const struct run *run)
{
    uint8_t bytes[INIT_HEADER_BYTES], skipped[256];
    struct init_header header = {.kind = INIT_REQUEST};
    int result = 0;
    while (result == 0 && header.kind != INIT_GOODBYE) {
        result = port_read(run->port, bytes, sizeof(bytes));
        if (result == 0)
            result = init_decode_header(bytes, &header);
        while (result == 0 && header.body_bytes > 0) {
            uint32_t part = header.body_bytes < sizeof(skipped) ? header.body_bytes : (uint32_t)sizeof(skipped);
            result = port_read(run->port, skipped, part);
            header.body_bytes -= part;
        }
    }
    if (result < 0)
        tell("read", INIT_PORT, result);
}

static void free_message(struct message *message)
{
    free(message->table);
    free(message->body);
}

void run_for_host(void (*report)(void))
{
    struct run run = {.streams = {-1, -1, -1}, .completion = COMPLETION_INIT};
    struct init_answer answer;
    int essential = mount_essentials();
    console_close();
    run.port = port_wait(INIT_PORT);
    if (run.port < 0) {
        tell("open", INIT_PORT, run.port);
        return;
    }
    if (essential < 0)
        answer = failed(INIT_STAGE_SYSTEM, essential);
    else if (prepare(&run, &answer))
        answer = run.setup.has_request   ? run_program(&run)
                 : run.setup.wants_agent ? run_agent(&run)
                                         : run_nothing(&run, report);
    close_streams(&run);
    storage_release();
    int result = answer_host(&run, &answer);
    if (result == 0)
        wait_for_goodbye(&run);
    free_completion(&run.completion);
    free_message(&run.setup_message);
    free_message(&run.request_message);
    close(run.port);
}
