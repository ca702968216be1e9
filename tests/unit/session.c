// SPDX-License-Identifier: Apache-2.0
/* Tests of sandbox/session: a main program, its agent, and the clients that listen to it or do not. */
#include "test.h"

#include "relay_world.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/fd.h"
#include "base/limits.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

static void note_started(void *user, uint32_t pid)
{
    (void)user;
    seen.started += pid == 5;
}

static void note_program_failed(void *user, const struct agent_message *message)
{
    (void)user;
    seen.program_failed++;
    seen.code = message->failed.os_error;
}

static void note_ended(void *user, uint32_t code, uint32_t signal)
{
    (void)user;
    seen.ended++;
    seen.code = code + signal;
}

static void note_output(void *user, const char *stream, const char *bytes, size_t length)
{
    size_t used = strlen(seen.output);
    (void)user;
    snprintf(seen.output + used, sizeof(seen.output) - used, "%s:%.*s;", stream, (int)(length < 20 ? length : 20),
             bytes);
}

static const struct session_ops session_ops = {
    .started = note_started,
    .failed = note_program_failed,
    .ended = note_ended,
    .output = note_output,
};

static char *args[] = {(char[]){"cat"}, (char[]){"-"}, NULL};
static struct spec_program program = {.args = args, .input = true};

static int begin_program(void)
{
    int result = begin_serving();
    return result < 0 ? result : session_new(relay, &program, &session_ops, NULL, &session);
}

static void attach(int client, uint32_t flags, uint32_t window)
{
    const struct agent_message message = {.id = 1, .kind = AGENT_ATTACH, .attach = {.flags = flags, .window = window}};
    say(client, &message);
    turn(2);
}

static void start_program(void)
{
    session_begin(session);
    turn(1);
    if (hear(agent) != AGENT_EXEC || frame.header.id != SESSION_MAIN_ID || frame.message.exec.args.count != 2)
        test_fail(__FILE__, __LINE__, "no EXEC");
    const struct agent_message started = {
        .id = SESSION_MAIN_ID, .kind = AGENT_STARTED, .started = {.pid = 5, .window = 1000}};
    say(agent, &started);
    turn(2);
}

static void end_program(uint32_t code)
{
    const struct agent_message ended = {
        .id = SESSION_MAIN_ID, .kind = AGENT_ENDED, .flags = AGENT_LAST, .ended = {.code = code}};
    say(agent, &ended);
    turn(2);
}

TEST(a_program_is_run_heard_and_ends)
{
    CHECK_INT(begin_program(), 0);
    int client = join_greeted();
    attach(client, AGENT_ATTACH_INPUT | AGENT_ATTACH_PRIMARY, 1000);
    CHECK_INT(hear(client), 0);
    start_program();
    CHECK_INT(seen.started, 1);
    CHECK_INT(hear(client), AGENT_STARTED);
    CHECK_INT(frame.message.started.window, 1000);
    say_data(agent, SESSION_MAIN_ID, AGENT_STDOUT, 0, "one", 3);
    say_data(agent, SESSION_MAIN_ID, AGENT_STDERR, AGENT_END, "two", 3);
    turn(2);
    CHECK_TEXT(seen.output, "out:one;err:two;");
    CHECK_INT(hear(client), AGENT_DATA);
    CHECK(frame.header.id == 1 && frame.message.data.stream == AGENT_STDOUT);
    CHECK_INT(hear(client), AGENT_DATA);
    CHECK(frame.message.data.stream == AGENT_STDERR && frame.message.data.bytes.length == 3);
    CHECK_INT(hear(client), AGENT_DATA);
    CHECK_INT(frame.header.flags, AGENT_END);
    say_data(client, 1, AGENT_STDIN, AGENT_END, "input", 5);
    turn(2);
    CHECK_INT(hear(agent), AGENT_DATA);
    CHECK(frame.header.id == SESSION_MAIN_ID && (frame.header.flags & AGENT_END) != 0);
    end_program(3);
    CHECK_INT(hear(client), AGENT_ENDED);
    CHECK_INT(frame.message.ended.code, 3);
    CHECK_INT(seen.ended, 1);
    CHECK_INT(seen.result, 0);
    close(client);
    end();
}

/* The primary client reads nothing: the agent gets no more window, and every byte comes when it does. */
TEST(a_program_waits_for_its_primary_client)
{
    static char bytes[60000];
    CHECK_INT(begin_program(), 0);
    int client = join_greeted();
    attach(client, AGENT_ATTACH_PRIMARY, 100);
    start_program();
    CHECK_INT(hear(client), AGENT_STARTED);
    for (int i = 0; i < 4; i++) {
        say_data(agent, SESSION_MAIN_ID, AGENT_STDOUT, 0, bytes, sizeof(bytes));
        turn(2);
    }
    CHECK_INT(hear(agent), 0); /* 240000 of 262144 are used, and none are given back */
    CHECK_INT(hear(client), AGENT_DATA);
    CHECK_INT(frame.message.data.bytes.length, 100);
    CHECK_INT(hear(client), 0);
    end_program(0);
    CHECK_INT(hear(client), 0); /* not before what it said */
    CHECK(!session_is_with_primaries(session));
    size_t got = 100;
    for (int rounds = 0; rounds < 10 && frame.header.kind != AGENT_ENDED; rounds++) {
        const struct agent_message credit = {
            .id = 1, .kind = AGENT_CREDIT, .credit = {.stream = AGENT_STDOUT, .bytes = 50001}};
        say(client, &credit);
        turn(2);
        for (int kind; (kind = hear(client)) == AGENT_DATA;)
            got += frame.message.data.bytes.length;
    }
    CHECK_INT(got, 4 * sizeof(bytes));
    CHECK_INT(frame.header.kind, AGENT_ENDED);
    CHECK(session_is_with_primaries(session));
    close(client);
    end();
}

TEST(others_are_left_behind)
{
    static char bytes[60000];
    CHECK_INT(begin_program(), 0);
    int slow = join_greeted();
    attach(slow, 0, 10);
    start_program();
    CHECK_INT(hear(slow), AGENT_STARTED);
    uint64_t granted = AGENT_DEFAULT_WINDOW, said = 0;
    while (said < LIMIT_SESSION_BEHIND_BYTES + sizeof(bytes)) {
        if (granted - said >= sizeof(bytes)) {
            say_data(agent, SESSION_MAIN_ID, AGENT_STDOUT, 0, bytes, sizeof(bytes));
            said += sizeof(bytes);
        }
        turn(2);
        while (hear(agent) == AGENT_CREDIT)
            granted += frame.message.credit.bytes;
    }
    CHECK_INT(hear(slow), AGENT_DATA);
    CHECK_INT(hear(slow), AGENT_FAILED);
    CHECK_INT(frame.message.failed.stage, AGENT_STAGE_LIMIT);
    CHECK_INT(session_attached_count(session), 0);
    CHECK_INT(seen.result, 0);
    close(slow);
    end();
}

TEST(an_agent_that_says_more_than_it_may)
{
    static char bytes[60000];
    CHECK_INT(begin_program(), 0);
    start_program();
    int client = join_greeted();
    attach(client, AGENT_ATTACH_PRIMARY, 0);
    for (int i = 0; i < 5; i++) {
        say_data(agent, SESSION_MAIN_ID, AGENT_STDOUT, 0, bytes, sizeof(bytes));
        turn(2);
    }
    CHECK_INT(seen.result, -EPROTO);
    close(client);
    end();
}

TEST(what_makes_no_sense_of_a_program_is_a_fault)
{
    for (int i = 0; i < 6; i++) {
        CHECK_INT(begin_program(), 0);
        struct agent_message message = {.id = SESSION_MAIN_ID, .kind = AGENT_STARTED};
        if (i != 0)
            start_program();
        if (i == 2 || i == 5)
            message = (struct agent_message){
                .id = SESSION_MAIN_ID, .kind = AGENT_CREDIT, .credit = {i == 2 ? 1 : 0, AGENT_MOST_WINDOW}};
        if (i == 3)
            message.kind = AGENT_DONE, message.flags = AGENT_LAST;
        if (i == 4)
            message = (struct agent_message){
                .id = SESSION_MAIN_ID, .kind = AGENT_DATA, .data = {AGENT_STDIN, {"x", 1}}};
        say(agent, &message);
        turn(2);
        CHECK_INT(seen.result, -EPROTO);
        end();
    }
}

TEST(a_program_that_cannot_be_started)
{
    CHECK_INT(begin_program(), 0);
    int before = join_greeted();
    attach(before, AGENT_ATTACH_PRIMARY, 1000);
    session_begin(session);
    turn(1);
    CHECK_INT(hear(agent), AGENT_EXEC);
    const struct agent_message failed = {
        .id = SESSION_MAIN_ID,
        .kind = AGENT_FAILED,
        .flags = AGENT_LAST,
        .failed = {.stage = AGENT_STAGE_EXEC, .os_error = ENOENT, .message = {"cat", 3}},
    };
    say(agent, &failed);
    turn(2);
    CHECK_INT(seen.program_failed, 1);
    CHECK_INT(hear(before), AGENT_FAILED);
    CHECK(frame.message.failed.os_error == ENOENT && frame.message.failed.stage == AGENT_STAGE_EXEC);
    int after = join_greeted();
    attach(after, 0, 1000);
    CHECK_INT(hear(after), AGENT_FAILED);
    CHECK_INT(frame.message.failed.os_error, ENOENT);
    close(before);
    close(after);
    end();
}

TEST(one_client_has_the_input)
{
    CHECK_INT(begin_program(), 0);
    start_program();
    int one = join_greeted(), other = join_greeted();
    attach(one, AGENT_ATTACH_INPUT, 1000);
    CHECK_INT(hear(one), AGENT_STARTED);
    CHECK_INT(frame.message.started.window, 1000);
    attach(other, AGENT_ATTACH_INPUT, 1000);
    CHECK_INT(hear(other), AGENT_FAILED);
    CHECK_INT(frame.message.failed.os_error, EBUSY);
    attach(other, 0, 1000);
    CHECK_INT(hear(other), AGENT_STARTED);
    say_data(one, 1, AGENT_STDIN, 0, "abc", 3);
    turn(2);
    CHECK_INT(hear(agent), AGENT_DATA);
    say_kind(one, 1, AGENT_CANCEL, 0); /* it leaves, and the input stays open */
    turn(2);
    CHECK_INT(hear(one), AGENT_DONE);
    CHECK_INT(hear(agent), 0);
    attach(one, AGENT_ATTACH_INPUT, 1000);
    CHECK_INT(hear(one), AGENT_STARTED);
    CHECK_INT(frame.message.started.window, 997);
    const struct agent_message credit = {.id = SESSION_MAIN_ID, .kind = AGENT_CREDIT, .credit = {.bytes = 3}};
    say(agent, &credit);
    turn(2);
    CHECK_INT(hear(one), AGENT_CREDIT);
    static char bytes[1001];
    say_data(one, 1, AGENT_STDIN, 0, bytes, sizeof(bytes)); /* more than it may */
    turn(2);
    CHECK(has_ended(one));
    say_data(other, 1, AGENT_STDIN, 0, "x", 1); /* without the input */
    turn(2);
    CHECK(has_ended(other));
    CHECK_INT(hear(agent), 0);
    close(one);
    close(other);
    end();
}

TEST(an_input_that_nobody_feeds_any_more_ends)
{
    CHECK_INT(begin_program(), 0);
    start_program();
    int client = join_greeted();
    attach(client, AGENT_ATTACH_INPUT | AGENT_ATTACH_PRIMARY, 1000);
    CHECK_INT(hear(client), AGENT_STARTED);
    close(client);
    turn(2);
    CHECK_INT(hear(agent), AGENT_DATA);
    CHECK(frame.header.flags == AGENT_END && frame.message.data.stream == AGENT_STDIN);
    end();
}

TEST(memory_may_be_missing_anywhere)
{
    FOR_EACH_FAULT
    {
        int result = begin();
        if (result == 0)
            result = session_new(relay, &program, &session_ops, NULL, &session);
        if (result == 0) {
            int fds[2];
            CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
            struct relay_client *first = NULL;
            result = relay_add_client(relay, fds[0], &first);
            turn(1);
            close(fds[1]);
            relay_serve(relay);
            turn(2);
            session_begin(session);
        }
        CHECK(result == 0 || fault_was_hit());
        end();
    }
}

/* The machine may be gone by then, but not the process: its queue holds the last words. */
TEST(last_words_that_are_not_taken_yet_are_waited_for)
{
    static char bytes[60000];
    CHECK_INT(begin_program(), 0);
    int client = join_greeted();
    attach(client, AGENT_ATTACH_PRIMARY, AGENT_MOST_WINDOW);
    start_program();
    CHECK_INT(hear(client), AGENT_STARTED);
    int said = 0;
    for (; said < 16; said++) {
        say_data(agent, SESSION_MAIN_ID, AGENT_STDOUT, 0, bytes, sizeof(bytes));
        turn(2);
    }
    end_program(0);
    CHECK_INT(session_attached_count(session), 0);
    CHECK(!session_is_with_primaries(session) && !session_is_with_all(session));
    while (said-- > 0) {
        CHECK_INT(hear(client), AGENT_DATA);
        turn(2);
    }
    CHECK_INT(hear(client), AGENT_ENDED);
    turn(2);
    CHECK(session_is_with_primaries(session) && session_is_with_all(session));
    close(client);
    turn(2);
    end();
}

/* It asks for no session of the agent's; what it says goes there all the same. */
TEST(signals_wait_for_an_agent_that_does_not_read)
{
    enum { most_blocks = 2048 }; /* 8 MiB and more */
    struct buffer block = BUFFER_INIT(64 << 10);
    CHECK_INT(begin_program(), 0);
    int client = join_greeted();
    attach(client, 0, 1000);
    start_program();
    CHECK_INT(hear(client), AGENT_STARTED);
    const struct agent_message message = {.id = 1, .kind = AGENT_SIGNAL, .signal = {.number = 10}};
    while (block.length < 4 << 10)
        CHECK_INT(agent_encode(&message, &block), 0);
    int blocks = 0;
    while (blocks < most_blocks && send(client, block.data, block.length, MSG_NOSIGNAL) > 0) {
        blocks++;
        turn(2);
    }
    CHECK(blocks < most_blocks);
    CHECK_INT(seen.failed, 0);
    CHECK(!has_ended(client));
    buffer_free(&block);
    close(client);
    end();
}

TEST(an_agent_that_speaks_in_the_sandboxs_place)
{
    CHECK_INT(begin_program(), 0);
    int client = join_greeted();
    attach(client, 0, 1000);
    start_program();
    CHECK_INT(hear(client), AGENT_STARTED);
    say_kind(client, 2, AGENT_PING, 0);
    turn(2);
    CHECK_INT(hear(agent), AGENT_PING);
    say_data(agent, (frame.header.id & 0xffff0000) | 1, AGENT_STDOUT, 0, "forged", 6);
    turn(2);
    CHECK_INT(hear(client), 0);
    say_kind(agent, frame.header.id, AGENT_DONE, AGENT_LAST);
    turn(2);
    CHECK_INT(hear(client), AGENT_DONE);
    close(client);
    end();
}
