// SPDX-License-Identifier: Apache-2.0
/* Tests of programs' handles: what comes and goes, who waits for whom, and processes that play badly. */
#include "test.h"

#include "client_fake.h"

#include "base/alloc.h"
#include "base/buffer.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

static struct vial_error err;
static const char *const plain_args[] = {"cat", "-n", NULL};

static struct vial_process *run_plain(struct fake *fake, bool has_input)
{
    struct vial_program_options options = VIAL_PROGRAM_OPTIONS_INIT;
    struct vial_process *process = NULL;
    options.args = plain_args;
    options.input = has_input;
    if (vial_sandbox_exec(fake_sandbox(fake), &options, &process, &err) < 0) {
        printf("# %s\n", err.message);
        abort();
    }
    return process;
}

static struct vial_process_event next(struct vial_process *process)
{
    struct vial_process_event event = VIAL_PROCESS_EVENT_INIT;
    if (vial_process_next(process, &event, 5000, &err) < 0)
        event.kind = -1;
    return event;
}

static bool is_readable(const struct vial_process *process, int timeout_ms)
{
    struct pollfd ready = {.fd = vial_process_fd(process), .events = POLLIN};
    return poll(&ready, 1, timeout_ms) == 1 && (ready.revents & POLLIN) != 0;
}

static bool is_bytes(const struct vial_process_event *event, int stream, const char *text)
{
    return event->kind == VIAL_EVENT_OUTPUT && event->stream == stream && event->length == strlen(text) &&
           memcmp(event->bytes, text, event->length) == 0;
}

/* ---- events ---- */

static void serve_hello(int fd, const struct agent_message *request, void *user)
{
    (void)request;
    (void)user;
    fake_started(fd, 1000);
    fake_data(fd, 1, "hello", 5, 0);
    fake_data(fd, 2, "oh", 2, 0);
    fake_data(fd, 2, "", 0, AGENT_END);
    fake_data(fd, 1, "bye", 3, AGENT_END);
    fake_ended(fd, 3);
}

TEST(events_come_in_order_and_the_last_stays)
{
    struct fake *fake = fake_new(serve_hello, NULL);
    struct vial_process *process = run_plain(fake, false);
    struct vial_process_event event = next(process);
    CHECK(is_bytes(&event, 1, "hello"));
    event = next(process);
    CHECK(is_bytes(&event, 2, "oh"));
    event = next(process);
    CHECK_INT(event.kind, VIAL_EVENT_CLOSED);
    CHECK_INT(event.stream, 2);
    event = next(process);
    CHECK(is_bytes(&event, 1, "bye"));
    event = next(process);
    CHECK_INT(event.kind, VIAL_EVENT_CLOSED);
    CHECK_INT(event.stream, 1);
    for (int i = 0; i < 2; i++) {
        event = next(process);
        CHECK_INT(event.kind, VIAL_EVENT_ENDED);
        CHECK_INT(event.code, 3);
    }
    int code = 0;
    CHECK_INT(vial_process_wait(process, 0, &code, &err), 0);
    CHECK_INT(code, 3);
    vial_process_free(process);
    fake_free(fake);
}

static void serve_closing(int fd, const struct agent_message *request, void *user)
{
    struct agent_message none;
    (void)request;
    (void)user;
    fake_started(fd, 1000);
    fake_data(fd, 1, "all", 3, AGENT_END);
    fake_receive(fd, &none); /* nothing more comes by itself */
}

TEST(one_frame_with_two_events_stays_readable_for_the_second)
{
    struct fake *fake = fake_new(serve_closing, NULL);
    struct vial_process *process = run_plain(fake, true);
    struct vial_process_event event = next(process);
    CHECK(is_bytes(&event, 1, "all"));
    CHECK(is_readable(process, 0));
    CHECK_INT(vial_process_next(process, &event, 0, &err), 0);
    CHECK_INT(event.kind, VIAL_EVENT_CLOSED);
    CHECK(!is_readable(process, 0));
    CHECK_INT(vial_process_next(process, &event, 0, &err), -ETIMEDOUT);
    vial_process_free(process);
    fake_free(fake);
}

static void serve_bytewise(int fd, const struct agent_message *request, void *user)
{
    struct buffer frames = BUFFER_INIT(4096);
    (void)request;
    (void)user;
    agent_encode(&(struct agent_message){.id = 1, .kind = AGENT_STARTED, .started = {.pid = 1}}, &frames);
    agent_encode(
        &(struct agent_message){
            .id = 1, .kind = AGENT_DATA, .flags = AGENT_END, .data = {.stream = 1, .bytes = {"slowly", 6}}},
        &frames);
    agent_encode(&(struct agent_message){.id = 1, .kind = AGENT_ENDED, .flags = AGENT_LAST, .ended = {.signal = 9}},
                 &frames);
    for (size_t i = 0; i < frames.length; i++) {
        fake_send_bytes(fd, frames.data + i, 1);
        struct pollfd never = {.fd = fd, .events = POLLIN};
        poll(&never, 1, 1);
    }
    buffer_free(&frames);
}

TEST(frames_may_come_byte_by_byte_to_a_program_that_polls)
{
    struct fake *fake = fake_new(serve_bytewise, NULL);
    struct vial_process *process = run_plain(fake, false);
    struct vial_process_event event = VIAL_PROCESS_EVENT_INIT;
    int kinds[4] = {0}, count = 0;
    while (count < 3 && is_readable(process, 5000)) {
        int result = vial_process_next(process, &event, 0, &err);
        CHECK(result == 0 || result == -ETIMEDOUT);
        if (result == 0)
            kinds[count++] = event.kind;
    }
    CHECK_INT(kinds[0], VIAL_EVENT_OUTPUT);
    CHECK_INT(kinds[1], VIAL_EVENT_CLOSED);
    CHECK_INT(kinds[2], VIAL_EVENT_ENDED);
    CHECK_INT(event.code, 128 + 9);
    CHECK_INT(event.signal, 9);
    vial_process_free(process);
    fake_free(fake);
}

static void serve_failed(int fd, const struct agent_message *request, void *user)
{
    (void)request;
    fake_failed(fd, AGENT_STAGE_EXEC, *(const uint32_t *)user, "it \x1b[31mfails");
}

TEST(a_program_that_cannot_run_says_why)
{
    uint32_t os_error = ENOENT;
    struct fake *fake = fake_new(serve_failed, &os_error);
    struct vial_process_event event = VIAL_PROCESS_EVENT_INIT;
    struct vial_process *process = run_plain(fake, false);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(vial_process_next(process, &event, 5000, &err), -ENOENT);
        CHECK_TEXT(err.field, "exec");
        CHECK_INT(err.os_error, ENOENT);
        CHECK_TEXT(err.message, "sandbox \"web\": cannot run cat: it \\x1b[31mfails: No such file or directory");
    }
    vial_process_free(process);
    os_error = ETIMEDOUT; /* which would mean: try again */
    process = run_plain(fake, false);
    CHECK_INT(vial_process_next(process, &event, 5000, &err), -EIO);
    CHECK_INT(err.os_error, ETIMEDOUT);
    vial_process_free(process);
    fake_free(fake);
}

/* ---- what is asked for ---- */

static struct agent_message heard;
static char heard_text[4096];

static void add_heard(const struct agent_strings *strings)
{
    const char *at = NULL;
    size_t length = strlen(heard_text);
    while ((at = agent_strings_next(strings, at)) != NULL)
        length += (size_t)snprintf(heard_text + length, sizeof(heard_text) - length, "%s|", at);
}

static void serve_hearing(int fd, const struct agent_message *request, void *user)
{
    (void)user;
    heard = *request;
    heard_text[0] = '\0';
    if (request->kind == AGENT_EXEC) {
        add_heard(&request->exec.args);
        add_heard(&request->exec.env);
    }
    if (request->kind == AGENT_ATTACH)
        fake_failed(fd, AGENT_STAGE_STATE, EBUSY, "another has the input");
    else
        fake_ended(fd, 0);
}

TEST(a_request_says_all_that_was_asked_for)
{
    static const char *const env[] = {"A=1", "HOME=/here", "A=2", NULL}, *const rlimits[] = {"nofile=5:6", NULL};
    struct fake *fake = fake_new(serve_hearing, NULL);
    struct vial_program_options options = VIAL_PROGRAM_OPTIONS_INIT;
    struct vial_process *process = NULL;
    options.args = plain_args;
    options.env = env;
    options.rlimits = rlimits;
    options.workdir = "/w";
    options.user = "u:g";
    options.terminal = options.detached = true;
    CHECK_INT(vial_sandbox_exec(fake_sandbox(fake), &options, &process, &err), 0);
    CHECK_INT(vial_process_wait(process, 5000, NULL, &err), 0);
    vial_process_free(process);
    CHECK_TEXT(heard_text, "cat|-n|PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin|"
                           "TERM=xterm-256color|HOME=/here|A=2|");
    CHECK_INT(heard.exec.flags, AGENT_EXEC_TERMINAL | AGENT_EXEC_DETACHED | AGENT_EXEC_NO_INPUT);
    CHECK_INT(heard.exec.rows, 24);
    CHECK_INT(heard.exec.columns, 80);
    CHECK_INT(heard.exec.rlimit_count, 1);
    CHECK_INT(heard.exec.rlimits[0].hard, 6);
    fake_free(fake);
}

TEST(what_makes_no_sense_is_refused_before_it_is_sent)
{
    static const char *const none[] = {NULL}, *const bad[] = {"nonsense", NULL};
    struct fake *fake = fake_new(serve_hearing, NULL);
    struct vial_program_options options = VIAL_PROGRAM_OPTIONS_INIT;
    struct vial_process *process = NULL;
    CHECK_INT(vial_sandbox_exec(fake_sandbox(fake), &options, &process, &err), -EINVAL);
    options.args = none;
    CHECK_INT(vial_sandbox_exec(fake_sandbox(fake), &options, &process, &err), -EINVAL);
    CHECK_TEXT(err.field, "args");
    options.args = plain_args;
    options.rlimits = bad;
    CHECK_INT(vial_sandbox_exec(fake_sandbox(fake), &options, &process, &err), -EINVAL);
    CHECK_TEXT(err.field, "rlimits[0]");
    options.rlimits = NULL;
    options.workdir = "relative";
    CHECK_INT(vial_sandbox_exec(fake_sandbox(fake), &options, &process, &err), -EINVAL);
    options.workdir = NULL;
    options.reserved[3] = 1;
    CHECK_INT(vial_sandbox_exec(fake_sandbox(fake), &options, &process, &err), -E2BIG);
    CHECK_INT(vial_sandbox_connect(fake_sandbox(fake), NULL, 0, &process, &err), -EINVAL);
    CHECK_INT(vial_sandbox_attach(fake_sandbox(fake), true, 1, 1, &process, &err), -EBUSY);
    CHECK_TEXT(err.message, "sandbox \"web\": cannot attach to its program: another has the input: "
                            "Device or resource busy");
    CHECK(process == NULL);
    fake_free(fake);
}

/* ---- flow ---- */

enum { much = 3 << 20 };

static void serve_much(int fd, const struct agent_message *request, void *user)
{
    static char bytes[16 << 10];
    struct agent_message message;
    size_t window = request->exec.window, sent = 0;
    int *credits = user;
    fake_started(fd, 0);
    while (sent < much) {
        if (window < sizeof(bytes)) {
            if (!fake_receive(fd, &message) || message.kind != AGENT_CREDIT)
                return;
            window += message.credit.bytes;
            *credits += 1;
            continue;
        }
        memset(bytes, (char)(sent >> 14), sizeof(bytes));
        fake_data(fd, 1, bytes, sizeof(bytes), 0);
        sent += sizeof(bytes);
        window -= sizeof(bytes);
    }
    fake_ended(fd, 0);
}

TEST(what_was_consumed_is_granted_again)
{
    int credits = 0;
    struct fake *fake = fake_new(serve_much, &credits);
    struct vial_process *process = run_plain(fake, false);
    struct vial_process_event event = next(process);
    size_t got = 0;
    for (; event.kind == VIAL_EVENT_OUTPUT; event = next(process)) {
        CHECK_INT(((const char *)event.bytes)[event.length - 1], (char)(got >> 14));
        got += event.length;
    }
    CHECK_INT(event.kind, VIAL_EVENT_ENDED);
    CHECK_INT(got, much);
    CHECK(credits >= 10 && credits <= 40);
    vial_process_free(process);
    fake_free(fake);
}

/* Output first, and credit behind it; then says what it has read. */
static void serve_talkative(int fd, const struct agent_message *request, void *user)
{
    struct agent_message message;
    uint32_t window = 4;
    size_t got = 0;
    (void)request;
    (void)user;
    fake_started(fd, window);
    fake_data(fd, 1, "question?", 9, 0);
    while (fake_receive(fd, &message) && message.kind == AGENT_DATA && (message.flags & AGENT_END) == 0) {
        if (message.data.bytes.length > window)
            abort();
        got += message.data.bytes.length;
        fake_data(fd, 1, "!", 1, 0);
        fake_send(fd, &(struct agent_message){
                          .id = 1, .kind = AGENT_CREDIT, .credit = {.bytes = (uint32_t)message.data.bytes.length}});
    }
    fake_data(fd, 1, "", 0, AGENT_END);
    fake_ended(fd, (uint32_t)got);
}

TEST(a_write_that_waits_gets_past_output_and_keeps_it)
{
    struct fake *fake = fake_new(serve_talkative, NULL);
    struct vial_process *process = run_plain(fake, true);
    const char *input = "abcdefghijklmnopqrst";
    size_t sent = 0;
    while (sent < 20) {
        long taken = vial_process_write(process, input + sent, 20 - sent, 5000, &err);
        CHECK(taken > 0 && taken <= 4);
        sent += (size_t)taken;
    }
    CHECK_INT(vial_process_close_input(process, &err), 0);
    CHECK_INT(vial_process_write(process, "x", 1, 5000, &err), -EPIPE);
    struct vial_process_event event = next(process);
    CHECK(is_bytes(&event, 1, "question?"));
    for (int i = 0; i < 5; i++) {
        event = next(process);
        CHECK(is_bytes(&event, 1, "!"));
    }
    CHECK_INT(next(process).kind, VIAL_EVENT_CLOSED);
    event = next(process);
    CHECK_INT(event.kind, VIAL_EVENT_ENDED);
    CHECK_INT(event.code, 20);
    vial_process_free(process);
    fake_free(fake);
}

static const char letters[] = "abcdefghijklmnopqrst";

TEST(a_write_that_does_not_wait_leaves_output_where_poll_sees_it)
{
    struct fake *fake = fake_new(serve_talkative, NULL);
    struct vial_process *process = run_plain(fake, true);
    struct vial_process_event event = VIAL_PROCESS_EVENT_INIT;
    size_t sent = 0, outputs = 0;
    while (sent < 20) {
        struct pollfd ready = {.fd = vial_process_fd(process),
                               .events = (short)vial_process_poll_events(process, true)};
        CHECK_INT(poll(&ready, 1, 5000), 1);
        long taken = vial_process_write(process, letters + sent, 20 - sent, 0, &err);
        CHECK(taken > 0 || taken == -ETIMEDOUT);
        sent += taken > 0 ? (size_t)taken : 0;
        while (vial_process_next(process, &event, 0, &err) == 0)
            outputs += event.kind == VIAL_EVENT_OUTPUT ? 1 : 0;
    }
    while (outputs < 6 && is_readable(process, 5000))
        outputs += vial_process_next(process, &event, 0, &err) == 0 ? 1 : 0;
    CHECK_INT(outputs, 6);
    CHECK_INT(vial_process_poll_events(process, false), POLLIN);
    vial_process_free(process);
    fake_free(fake);
}

/* Output, and no credit ever. */
static void serve_stingy(int fd, const struct agent_message *request, void *user)
{
    struct agent_message none;
    (void)request;
    (void)user;
    fake_started(fd, 1);
    fake_data(fd, 1, "only", 4, 0);
    while (fake_receive(fd, &none))
        ;
}

TEST(output_that_a_write_has_met_is_still_there_for_poll)
{
    struct fake *fake = fake_new(serve_stingy, NULL);
    struct vial_process *process = run_plain(fake, true);
    struct vial_process_event event = VIAL_PROCESS_EVENT_INIT;
    CHECK_INT(vial_process_write(process, "x", 1, 5000, &err), 1);
    for (int i = 0; i < 3; i++) {
        CHECK(is_readable(process, 5000));
        CHECK_INT(vial_process_write(process, "x", 1, 0, &err), -ETIMEDOUT);
    }
    CHECK(is_readable(process, 0));
    CHECK_INT(vial_process_next(process, &event, 0, &err), 0);
    CHECK(is_bytes(&event, 1, "only"));
    vial_process_free(process);
    fake_free(fake);
}

static void serve_silent(int fd, const struct agent_message *request, void *user)
{
    struct agent_message none;
    (void)request;
    (void)user;
    fake_started(fd, 0);
    while (fake_receive(fd, &none))
        ;
}

TEST(who_waits_in_vain_is_told_so)
{
    struct fake *fake = fake_new(serve_silent, NULL);
    struct vial_process *process = run_plain(fake, true);
    struct vial_process_event event = VIAL_PROCESS_EVENT_INIT;
    CHECK_INT(vial_process_next(process, &event, 20, &err), -ETIMEDOUT);
    CHECK_INT(vial_process_write(process, "x", 1, 20, &err), -ETIMEDOUT);
    CHECK_INT(vial_process_write(process, "x", 1, 0, &err), -ETIMEDOUT);
    CHECK_INT(vial_process_poll_events(process, true), POLLIN);
    CHECK_INT(vial_process_wait(process, 20, NULL, &err), -ETIMEDOUT);
    CHECK_INT(vial_process_signal(process, 15, &err), 0);
    CHECK_INT(vial_process_signal(process, 4000, &err), -EINVAL);
    CHECK_INT(vial_process_resize(process, 3, 4, &err), 0);
    vial_process_free(process);
    fake_free(fake);
}

/* ---- threads ---- */

/* Says again what it hears, as the window allows, and grants for what it has said. */
static void serve_echo(int fd, const struct agent_message *request, void *user)
{
    struct buffer heard_bytes = BUFFER_INIT(much);
    struct agent_message message;
    size_t window = request->exec.window, said = 0;
    bool has_ended = false;
    (void)user;
    fake_started(fd, AGENT_DEFAULT_WINDOW);
    while (!has_ended || said < heard_bytes.length) {
        size_t step = heard_bytes.length - said < window ? heard_bytes.length - said : window;
        step = step < AGENT_MOST_DATA_BYTES ? step : AGENT_MOST_DATA_BYTES;
        if (step > 0) {
            fake_data(fd, 1, heard_bytes.data + said, step, 0);
            fake_send(fd, &(struct agent_message){.id = 1, .kind = AGENT_CREDIT, .credit = {.bytes = (uint32_t)step}});
            window -= step;
            said += step;
        } else if (!fake_receive(fd, &message)) {
            break;
        } else if (message.kind == AGENT_CREDIT) {
            window += message.credit.bytes;
        } else {
            buffer_add(&heard_bytes, message.data.bytes.bytes, message.data.bytes.length);
            has_ended = (message.flags & AGENT_END) != 0;
        }
    }
    buffer_free(&heard_bytes);
    fake_ended(fd, 0);
}

static void *write_much(void *user)
{
    struct vial_process *process = user;
    static char bytes[much];
    struct vial_error why;
    for (size_t i = 0; i < much; i++)
        bytes[i] = (char)(i % 251);
    for (size_t at = 0; at < much;) {
        long taken = vial_process_write(process, bytes + at, much - at < 10000 ? much - at : 10000, VIAL_WAIT_FOREVER,
                                        &why);
        if (taken < 0)
            return NULL;
        at += (size_t)taken;
    }
    return vial_process_close_input(process, &why) == 0 ? process : NULL;
}

TEST(one_thread_writes_while_another_reads)
{
    struct fake *fake = fake_new(serve_echo, NULL);
    struct vial_process *process = run_plain(fake, true);
    struct vial_process_event event = VIAL_PROCESS_EVENT_INIT;
    pthread_t writer;
    void *written = NULL;
    size_t got = 0, wrong = 0;
    CHECK_INT(pthread_create(&writer, NULL, write_much, process), 0);
    for (event = next(process); event.kind == VIAL_EVENT_OUTPUT; event = next(process)) {
        for (size_t i = 0; i < event.length; i++)
            wrong += ((const char *)event.bytes)[i] != (char)((got + i) % 251);
        got += event.length;
    }
    pthread_join(writer, &written);
    CHECK_INT(event.kind, VIAL_EVENT_ENDED);
    CHECK(written == process);
    CHECK_INT(wrong, 0);
    CHECK_INT(got, much);
    vial_process_free(process);
    fake_free(fake);
}

/* ---- processes that play badly ---- */

struct bad {
    struct agent_message messages[3];
    uint8_t bytes[16];
    size_t length;
    int expected;
};

static void serve_bad(int fd, const struct agent_message *request, void *user)
{
    static char flood[AGENT_MOST_DATA_BYTES];
    const struct bad *bad = atomic_load((_Atomic(const struct bad *) *)user);
    (void)request;
    for (int i = 0; i < 3 && bad->messages[i].kind != 0; i++)
        fake_send(fd, &bad->messages[i]);
    fake_send_bytes(fd, bad->bytes, bad->length);
    if (bad->length == 0 && bad->messages[0].kind == 0)
        for (int i = 0; i < 5; i++) /* one more than the window */
            fake_data(fd, 1, flood, sizeof(flood), 0);
}

#define STARTED                                                                                                        \
    {                                                                                                                  \
        .id = 1, .kind = AGENT_STARTED, .started = {.pid = 1, .window = AGENT_MOST_WINDOW }                            \
    }

TEST(whoever_breaks_the_rules_is_heard_no_more)
{
    static const struct bad bads[] = {
        {.bytes = {255, 255, 255, 255}, .length = 12, .expected = -EPROTO},
        {.bytes = {0, 0, 0, 0, 1, 0, 0, 0, 200, 0}, .length = 12, .expected = -EPROTO},
        {.bytes = {0, 0, 0, 0, 1, 0, 0, 0, 69, 0, 9}, .length = 12, .expected = -EPROTO},
        {.bytes = {0, 0, 2, 0, 1, 0, 0, 0, 48, 0}, .length = 12, .expected = -EPROTO},
        {.bytes = {1, 0, 0, 0, 1, 0, 0, 0, 66, 0, 0, 0, 0xff}, .length = 13, .expected = -EPROTO},
        {.bytes = {9, 0, 0, 0, 1, 0}, .length = 6, .expected = -ECONNRESET},
        {.messages = {{.id = 2, .kind = AGENT_STARTED}}, .expected = -EPROTO},
        {.messages = {{.id = 1, .kind = AGENT_PING}}, .expected = -EPROTO},
        {.messages = {{.kind = AGENT_READY, .ready = {.version = 2, .cpus = 1}}}, .expected = -EPROTO},
        {.messages = {STARTED, STARTED}, .expected = -EPROTO},
        {.messages = {STARTED, {.id = 1, .kind = AGENT_CREDIT, .credit = {.bytes = 1}}}, .expected = -EPROTO},
        {.messages = {STARTED, {.id = 1, .kind = AGENT_DATA, .data = {.bytes = {"x", 1}}}}, .expected = -EPROTO},
        {.messages = {{.id = 1, .kind = AGENT_DATA, .flags = AGENT_END, .data = {.stream = 1}},
                      {.id = 1, .kind = AGENT_DATA, .data = {.stream = 1, .bytes = {"x", 1}}}},
         .expected = -EPROTO},
        {.messages = {STARTED}, .expected = -ECONNRESET},
        {.expected = -EPROTO},
    };
    _Atomic(const struct bad *) current = NULL;
    struct fake *fake = fake_new(serve_bad, &current);
    for (size_t i = 0; i < array_length(bads); i++) {
        const struct bad *bad = &bads[i];
        atomic_store(&current, bad);
        struct vial_process *process = run_plain(fake, true);
        struct vial_process_event event = VIAL_PROCESS_EVENT_INIT;
        int result = 0;
        if (bad->messages[0].kind == 0 && bad->length == 0) /* nothing is consumed, so nothing is granted again */
            CHECK_INT(vial_process_write(process, "x", 1, 5000, &err), -EPIPE);
        while (result == 0)
            result = vial_process_next(process, &event, 5000, &err);
        if (result != bad->expected)
            printf("# case %zu\n", i);
        CHECK_INT(result, bad->expected);
        CHECK_INT(vial_process_next(process, &event, 5000, &err), bad->expected);
        CHECK(strstr(err.message, "sandbox \"web\": it") == err.message);
        CHECK_INT(vial_process_write(process, "x", 1, 5000, &err), -EPIPE);
        vial_process_free(process);
    }
    fake_free(fake);
}

TEST(a_sandbox_that_does_not_run_is_told_from_others)
{
    struct fake *fake = fake_new(serve_hello, NULL);
    struct vial_program_options options = VIAL_PROGRAM_OPTIONS_INIT;
    struct vial_process *process = NULL;
    char path[4096];
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    options.args = plain_args;
    CHECK_INT(vial_sandbox_get_info(fake_sandbox(fake), &info, &err), 0);
    snprintf(path, sizeof(path), "%s/home/sandboxes/%s/relay.sock", test_folder(), info.id);
    CHECK_INT(unlink(path), 0);
    CHECK_INT(vial_sandbox_exec(fake_sandbox(fake), &options, &process, &err), -ESRCH);
    CHECK_TEXT(err.message, "sandbox \"web\" does not run");
    fake_free(fake);
}

TEST(programs_survive_no_memory)
{
    struct fake *fake = fake_new(serve_hello, NULL);
    struct vial_program_options options = VIAL_PROGRAM_OPTIONS_INIT;
    options.args = plain_args;
    FOR_EACH_FAULT
    {
        struct vial_process *process = NULL;
        int result = vial_sandbox_exec(fake_sandbox(fake), &options, &process, &err);
        if (result == 0)
            result = vial_process_wait(process, 5000, NULL, &err);
        vial_process_free(process);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
    }
    fake_free(fake);
}
