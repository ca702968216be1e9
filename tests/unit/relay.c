// SPDX-License-Identifier: Apache-2.0
/* Tests of sandbox/relay: many clients and one agent, all of them played here, some of them badly. */
#include "test.h"

#include "relay_world.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/fd.h"
#include "base/limits.h"

#include <errno.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* Says as much as is taken: how many frames. */
static int fill(int fd, uint32_t id, uint32_t stream)
{
    static char bytes[60000];
    static uint8_t whole[sizeof(bytes) + AGENT_DATA_PREFIX_BYTES];
    size_t length = agent_data_prefix(id, stream, 0, sizeof(bytes), whole) + sizeof(bytes);
    int frames = 0;
    for (; frames < 10000; frames++) {
        for (size_t sent = 0; sent < length;) {
            ssize_t piece = send(fd, whole + sent, length - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (piece < 0 && (errno == EPIPE || errno == ECONNRESET))
                return -frames;
            if (piece < 0 && sent == 0)
                return frames;
            sent += piece > 0 ? (size_t)piece : 0;
            turn(piece < 0 ? 1 : 0);
            static int patience;
            patience = piece < 0 ? patience + 1 : 0;
            if (patience > 1000) { /* it is stuck in the middle of a frame */
                patience = 0;
                return frames;
            }
        }
    }
    return frames;
}

/* ---- passing frames ---- */

TEST(clients_are_greeted_and_kept_apart)
{
    CHECK_INT(begin(), 0);
    int early = join();
    turn(3);
    CHECK_INT(hear(early), 0);
    say(agent, &ready);
    turn(3);
    CHECK_INT(seen.agent_messages, 1);
    relay_serve(relay);
    turn(3);
    CHECK_INT(hear(early), AGENT_READY);
    int late = join_greeted();
    say_kind(early, 7, AGENT_PING, 0);
    say_kind(late, 7, AGENT_PING, 0);
    turn(3);
    uint32_t ids[2];
    for (int i = 0; i < 2; i++) {
        CHECK_INT(hear(agent), AGENT_PING);
        ids[i] = frame.header.id;
        CHECK_INT(ids[i] & 0xffff, 7);
    }
    CHECK(ids[0] != ids[1] && ids[0] >> 16 != 0 && ids[1] >> 16 != 0);
    say_kind(agent, ids[1], AGENT_DONE, AGENT_LAST);
    turn(2);
    CHECK_INT(hear(early) + hear(late), AGENT_DONE);            /* one of them */
    say_kind(agent, 0x7777u << 16 | 1, AGENT_DONE, AGENT_LAST); /* whose client is not there */
    turn(2);
    CHECK_INT(seen.failed, 0);
    close(early);
    close(late);
    end();
}

TEST(a_frame_may_come_in_any_pieces)
{
    CHECK_INT(begin_serving(), 0);
    int client = join_greeted();
    struct buffer bytes = BUFFER_INIT(1 << 20);
    static char text[5000];
    for (uint32_t i = 1; i <= 20; i++) {
        const struct agent_message message = {.id = i, .kind = AGENT_DATA, .data = {AGENT_STDIN, {text, i * 211}}};
        CHECK_INT(agent_encode(&message, &bytes), 0);
    }
    for (size_t at = 0, step = 1; at < bytes.length; at += step, step = step % 97 + 1) {
        size_t piece = bytes.length - at < step ? bytes.length - at : step;
        CHECK_INT(send(client, bytes.data + at, piece, MSG_NOSIGNAL), piece);
        turn(1);
    }
    turn(2);
    for (uint32_t i = 1; i <= 20; i++) {
        CHECK_INT(hear(agent), AGENT_DATA);
        CHECK_INT(frame.header.id & 0xffff, i);
        CHECK_INT(frame.message.data.bytes.length, i * 211);
    }
    buffer_free(&bytes);
    close(client);
    end();
}

/* Acceptance: two clients, one stopped in the middle of a frame, one reading nothing; the third is unaffected. */
TEST(who_stops_or_does_not_read_holds_up_nobody)
{
    CHECK_INT(begin_serving(), 0);
    int stopped = join_greeted(), deaf = join_greeted(), good = join_greeted();
    uint8_t half[AGENT_DATA_PREFIX_BYTES];
    agent_data_prefix(1, AGENT_STDIN, 0, 60000, half);
    CHECK_INT(send(stopped, half, 14, MSG_NOSIGNAL), 14);
    say_kind(deaf, 1, AGENT_PING, 0);
    turn(3);
    CHECK_INT(hear(agent), AGENT_PING);
    uint32_t deaf_id = frame.header.id;
    static char bytes[60000];
    for (int i = 0; i < 40; i++) { /* 2.4 MB, more than a socket takes */
        say_data(agent, deaf_id, AGENT_STDOUT, 0, bytes, sizeof(bytes));
        turn(2);
    }
    for (int i = 0; i < 100; i++) {
        say_kind(good, 5, AGENT_PING, 0);
        turn(2);
        CHECK_INT(hear(agent), AGENT_PING);
        say_kind(agent, frame.header.id, AGENT_DONE, AGENT_LAST);
        turn(2);
        CHECK_INT(hear(good), AGENT_DONE);
    }
    CHECK(!has_ended(stopped) && !has_ended(deaf));
    for (int i = 0; i < 40; i++) { /* and what the deaf one was told is all there */
        CHECK_INT(hear(deaf), AGENT_DATA);
        turn(2);
    }
    close(stopped);
    close(deaf);
    close(good);
    end();
}

TEST(who_lets_too_much_pile_up_is_cut_off)
{
    CHECK_INT(begin_serving(), 0);
    int deaf = join_greeted(), good = join_greeted();
    struct relay_counters counters;
    static char bytes[60000];
    say_kind(deaf, 1, AGENT_PING, 0);
    turn(2);
    CHECK_INT(hear(agent), AGENT_PING);
    for (int i = 0; i < 90; i++) {
        say_data(agent, frame.header.id, AGENT_STDOUT, 0, bytes, sizeof(bytes));
        turn(2);
    }
    relay_count(relay, &counters);
    CHECK_INT(counters.cut_off, 1);
    CHECK_INT(counters.clients, 1);
    CHECK_INT(hear(agent), AGENT_GONE); /* its session was open */
    CHECK_INT(frame.header.id & 0xffff, 0);
    CHECK_INT(seen.failed, 0);
    say_kind(good, 5, AGENT_PING, 0);
    turn(2);
    CHECK_INT(hear(agent), AGENT_PING);
    close(deaf);
    close(good);
    end();
}

/* A guest that does not read: clients wait, memory is bounded, and the sandbox can still be asked to stop. */
TEST(an_agent_that_does_not_read)
{
    CHECK_INT(begin_serving(), 0);
    int flood = join_greeted(), other = join_greeted(), fresh = join_greeted();
    int frames = 0;
    for (int i = 0; i < 50; i++) {
        frames += fill(flood, 1, AGENT_STDIN);
        turn(3);
    }
    CHECK(frames > 10 && frames < 100); /* sockets' buffers, and LIMIT_RELAY_AGENT_BYTES */
    say_kind(other, 1, AGENT_PING, 0);
    turn(3);
    const struct agent_message stop = {.id = 1, .kind = AGENT_STOP};
    say(fresh, &stop);
    turn(3);
    CHECK_INT(seen.client_messages, 1);
    CHECK_INT(seen.kind, AGENT_STOP);
    int data = 0, pings = 0, kind = 0; /* it reads again, and all of it comes */
    for (int idle = 0; idle < 20; idle = kind == 0 ? idle + 1 : 0) {
        kind = hear(agent);
        CHECK(kind >= 0);
        data += kind == AGENT_DATA;
        pings += kind == AGENT_PING;
        turn(2);
    }
    CHECK(data >= frames);
    CHECK_INT(pings, 1);
    close(flood);
    close(other);
    close(fresh);
    end();
}

/* ---- hostile clients ---- */

TEST(what_no_client_may_send_ends_its_connection_only)
{
    static const enum agent_kind never[] = {AGENT_GONE, AGENT_SHUTDOWN, AGENT_READY,  AGENT_HEARTBEAT,
                                            AGENT_DONE, AGENT_ENDED,    AGENT_REPORT, AGENT_STARTED};
    CHECK_INT(begin_serving(), 0);
    int good = join_greeted();
    for (size_t i = 0; i < array_length(never) + 6; i++) {
        int bad = join_greeted();
        uint8_t bytes[32] = {0};
        size_t length = AGENT_HEADER_BYTES;
        bytes[4] = 1;
        bytes[8] = AGENT_PING;
        switch (i) {
        case 0: /* another's number */
            bytes[6] = 1;
            break;
        case 1: /* longer than anything */
            memset(bytes, 0xff, 4);
            break;
        case 2: /* no kind at all */
            bytes[8] = 200;
            break;
        case 3: /* no flags are that */
            bytes[10] = 0x80;
            break;
        case 4: /* an own kind with a body that is none */
            bytes[0] = 3;
            bytes[8] = AGENT_STOP;
            length += 3;
            break;
        case 5: /* for the agent, which would take it for its host's end */
            bytes[0] = 3;
            bytes[8] = AGENT_DATA;
            length += 3;
            break;
        default:
            bytes[8] = (uint8_t)never[i - 6];
            break;
        }
        CHECK_INT(send(bad, bytes, length, MSG_NOSIGNAL), length);
        turn(3);
        CHECK(has_ended(bad));
        close(bad);
    }
    CHECK_INT(hear(agent), 0);
    CHECK_INT(seen.client_messages, 0);
    CHECK_INT(seen.failed, 0);
    say_kind(good, 1, AGENT_PING, 0);
    turn(2);
    CHECK_INT(hear(agent), AGENT_PING);
    close(good);
    end();
}

TEST(no_client_is_the_main_program)
{
    CHECK_INT(begin_serving(), 0);
    int client = join_greeted();
    struct agent_message exec = {
        .id = 1,
        .kind = AGENT_EXEC,
        .exec = {.flags = AGENT_EXEC_NO_INPUT, .path = {"true", 4}, .args = {{"true", 5}, 1}},
    };
    say(client, &exec);
    turn(2);
    CHECK_INT(hear(agent), AGENT_EXEC);
    exec.exec.flags |= AGENT_EXEC_MAIN;
    exec.id = 2;
    say(client, &exec);
    turn(2);
    CHECK(has_ended(client));
    CHECK_INT(hear(agent), AGENT_GONE);
    close(client);
    end();
}

TEST(a_number_is_not_used_again_before_its_sessions_are_over)
{
    CHECK_INT(begin_serving(), 0);
    int client = join_greeted();
    say_kind(client, 1, AGENT_PING, 0);
    turn(2);
    CHECK_INT(hear(agent), AGENT_PING);
    uint32_t id = frame.header.id;
    close(client);
    turn(2);
    CHECK_INT(hear(agent), AGENT_GONE);
    CHECK_INT(frame.header.id, id & 0xffff0000);
    bool was_met = false;
    for (int i = 0; i < 66000; i++) { /* all numbers and some */
        client = join();
        turn(2);
        if (i >= 65000) { /* the end of the round is what counts */
            say_kind(client, 1, AGENT_PING, 0);
            turn(1);
            CHECK_INT(hear(agent), AGENT_PING);
            was_met |= frame.header.id == id;
            say_kind(agent, frame.header.id, AGENT_DONE, AGENT_LAST);
            turn(1);
        }
        close(client);
        turn(1);
    }
    CHECK(!was_met);
    CHECK_INT(seen.failed, 0);
    end();
}

TEST(there_is_room_for_so_many_clients)
{
    enum { many = LIMIT_RELAY_CLIENTS + 8 };
    static int fds[many];
    struct relay_counters counters;
    CHECK_INT(begin_serving(), 0);
    for (int i = 0; i < many; i++) {
        fds[i] = join();
        turn(2);
    }
    relay_count(relay, &counters);
    CHECK_INT(counters.clients, LIMIT_RELAY_CLIENTS);
    CHECK_INT(hear(fds[LIMIT_RELAY_CLIENTS - 1]), AGENT_READY);
    CHECK_INT(hear(fds[LIMIT_RELAY_CLIENTS]), 0); /* waits */
    fds[0] = fd_close(fds[0]);
    turn(4);
    CHECK_INT(hear(fds[LIMIT_RELAY_CLIENTS]), AGENT_READY);
    for (int i = 0; i < many; i++)
        fd_close(fds[i] > 0 ? fds[i] : -1);
    turn(50);
    end();
}

/* Without a client that could go, nobody else would let them in again. */
TEST(clients_come_in_when_descriptors_are_there_again)
{
    enum { most = 128 };
    int fillers[most], count = 0;
    struct rlimit before;
    getrlimit(RLIMIT_NOFILE, &before);
    const struct rlimit few = {most, before.rlim_max};
    CHECK_INT(begin_serving(), 0);
    setrlimit(RLIMIT_NOFILE, &few);
    while (count < most && (fillers[count] = dup(agent)) >= 0)
        count++;
    close(fillers[--count]);
    int client = join();
    turn(2);
    CHECK_INT(hear(client), 0);
    while (count > 0)
        close(fillers[--count]);
    setrlimit(RLIMIT_NOFILE, &before);
    relay_tend(relay);
    turn(3);
    CHECK_INT(hear(client), AGENT_READY);
    close(client);
    end();
}

/* ---- hostile agents ---- */

/* An answer that was not asked of it could only be one in our place: STOP is DONE, it says. */
TEST(an_agent_that_speaks_to_whom_it_is_not_asked)
{
    CHECK_INT(begin_serving(), 0);
    int client = join_greeted();
    say_kind(client, 1, AGENT_STATUS, 0);
    turn(2);
    CHECK_INT(seen.kind, AGENT_STATUS);
    for (uint32_t number = 1; number < 4; number++)
        say_kind(agent, number << 16 | 1, AGENT_DONE, AGENT_LAST);
    turn(2);
    CHECK_INT(hear(client), 0);
    CHECK_INT(seen.failed, 0);
    close(client);
    end();
}

TEST(what_no_agent_may_send_ends_the_relay_once)
{
    for (int i = 0; i < 6; i++) {
        uint8_t bytes[32] = {0};
        size_t length = AGENT_HEADER_BYTES;
        CHECK_INT(begin_serving(), 0);
        bytes[4] = 1;
        switch (i) {
        case 0:
            bytes[8] = AGENT_EXEC;
            break;
        case 1: /* DATA that is too long */
            bytes[2] = 0x20;
            bytes[8] = AGENT_DATA;
            break;
        case 2: /* DONE without LAST */
            bytes[8] = AGENT_DONE;
            break;
        case 3: /* a heartbeat that is none */
            bytes[0] = 1;
            bytes[4] = 0;
            bytes[8] = AGENT_HEARTBEAT;
            length++;
            break;
        case 4: /* an own kind */
            bytes[8] = AGENT_REPORT;
            break;
        default: /* noise */
            memset(bytes, 0xa5, sizeof(bytes));
            length = sizeof(bytes);
            break;
        }
        int client = join_greeted();
        CHECK_INT(send(agent, bytes, length, MSG_NOSIGNAL), length);
        CHECK_INT(send(agent, bytes, length, MSG_NOSIGNAL), length);
        turn(4);
        CHECK_INT(seen.failed, 1);
        CHECK_INT(seen.result, -EPROTO);
        CHECK(!has_ended(client)); /* it may still ask how things are */
        const struct agent_message status = {.id = 1, .kind = AGENT_STATUS};
        say(client, &status);
        say_kind(client, 2, AGENT_PING, 0);
        turn(2);
        CHECK_INT(seen.client_messages, 1);
        close(client);
        turn(2);
        end();
    }
}

TEST(an_agent_that_hangs_up)
{
    CHECK_INT(begin_serving(), 0);
    agent = fd_close(agent);
    turn(3);
    CHECK_INT(seen.failed, 1);
    CHECK_INT(seen.result, 0);
    end();
}

/* Random frames with right headers and wrong everything: nothing but clients' answers and one failure comes of it. */
TEST(an_agent_that_rambles)
{
    unsigned random = 12345;
    for (int round = 0; round < 300; round++) {
        CHECK_INT(begin_serving(), 0);
        int client = join_greeted();
        for (int i = 0; i < 50 && seen.failed == 0; i++) {
            uint8_t bytes[64];
            for (size_t at = 0; at < sizeof(bytes); at++)
                bytes[at] = (uint8_t)((random = random * 1103515245 + 12345) >> 16);
            memset(bytes, 0, AGENT_HEADER_BYTES);
            bytes[0] = (uint8_t)(random >> 8) % 52;
            bytes[4] = (uint8_t)(random >> 20) % 3;
            bytes[6] = (uint8_t)(random >> 24) % 3;
            bytes[8] = (uint8_t)(48 + (random >> 13) % 23);
            bytes[10] = (uint8_t)(random >> 28) % 3;
            ssize_t sent = send(agent, bytes, AGENT_HEADER_BYTES + (size_t)bytes[0], MSG_NOSIGNAL);
            (void)sent;
            turn(2);
        }
        CHECK(seen.failed <= 1);
        close(client);
        turn(2);
        end();
    }
}
