// SPDX-License-Identifier: Apache-2.0
/* A hostile guest's first process, in the place of the project's: it opens the port "vial.agent" and speaks badly on
 * it. tests/e2e/hostile-agent has it as the /init of an initramfs; what it does is said on the kernel's command line,
 * VIAL_HOSTILE=NAME, with a name of the table at the end.
 *
 * READY and heartbeats are as they should be where a host is to believe in it first. It never ends by itself: nothing
 * of what happens to its sandbox is its own doing. */
#include "guest.h"

#include "base/buffer.h"
#include "proto/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

enum { many = 256, piece_bytes = 4096, own_id = 1, foreign_number = 7 };

static int port;

/* ---- saying ---- */

/* The host need not take it: that it has closed the port is the end of what there is to try. */
static void say(const void *bytes, size_t length)
{
    if (port_write(port, bytes, length) < 0)
        for (;;)
            pause();
}

static void say_header(uint32_t length, uint32_t id, uint16_t kind, uint16_t flags)
{
    uint8_t bytes[AGENT_HEADER_BYTES] = {length & 255, length >> 8 & 255, length >> 16 & 255, length >> 24,
                                         id & 255,     id >> 8 & 255,     id >> 16 & 255,     id >> 24,
                                         kind & 255,   kind >> 8,         flags & 255,        flags >> 8};
    say(bytes, sizeof(bytes));
}

static void add(struct buffer *buffer, const struct agent_message *message)
{
    if (agent_encode(message, buffer) < 0)
        tell("encode", "a frame", -EINVAL);
}

static void say_message(const struct agent_message *message)
{
    struct buffer buffer = BUFFER_INIT(AGENT_HEADER_BYTES + AGENT_MOST_BODY_BYTES);
    add(&buffer, message);
    say(buffer.data, buffer.length);
    buffer_free(&buffer);
}

static struct agent_message ready_of(uint32_t version)
{
    return (struct agent_message){
        .kind = AGENT_READY,
        .ready = {.version = version, .cpus = 1, .memory_bytes = 64 << 20, .uptime_ns = 1, .kernel = {"7.3", 3}}};
}

static void say_ready(void)
{
    const struct agent_message ready = ready_of(AGENT_VERSION);
    say_message(&ready);
}

static struct agent_message heartbeat(void)
{
    return (struct agent_message){
        .kind = AGENT_HEARTBEAT,
        .heartbeat = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT32_MAX, UINT32_MAX}}; /* all are lies */
}

static void stay_alive(void)
{
    for (const struct agent_message beat = heartbeat();; poll(NULL, 0, 500))
        say_message(&beat);
}

static void stay_silent(void)
{
    for (;;)
        pause();
}

/* ---- before it is believed ---- */

static void say_garbage(void)
{
    uint8_t bytes[piece_bytes];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 167 + 13);
    say(bytes, sizeof(bytes));
}

static void say_half(void)
{
    say("\x10\0\0\0\0\0\0\0\x40", 9);
}

static void say_giant(void)
{
    say_header(UINT32_MAX, 0, AGENT_READY, 0);
}

static void say_other_version(void)
{
    const struct agent_message ready = ready_of(AGENT_VERSION + 1);
    say_message(&ready);
}

static void end_without_ready(void)
{
    const struct agent_message ended = {.id = own_id, .kind = AGENT_ENDED, .flags = AGENT_LAST, .ended = {.code = 3}};
    say_message(&ended);
}

/* ---- when it is believed ---- */

static void say_ready_twice(void)
{
    say_ready();
    say_ready();
}

static void say_a_request(void)
{
    say_ready();
    say_header(0, foreign_number << 16 | 1, AGENT_PING, 0); /* what only a host may say */
}

/* Of a session that nobody has begun, of a client that is not there and then of the process. */
static void end_nobody(void)
{
    struct agent_message ended = {.kind = AGENT_ENDED, .flags = AGENT_LAST, .ended = {.code = 3}};
    say_ready();
    ended.id = foreign_number << 16 | 5;
    for (int i = 0; i < many; i++)
        say_message(&ended);
    stay_alive();
}

static void end_own(void)
{
    say_ready();
    end_without_ready();
}

/* As fast as the host takes them. */
static void flood(void)
{
    static const char text[AGENT_MOST_DATA_BYTES];
    struct buffer buffer = BUFFER_INIT(1 << 20);
    const struct agent_message beat = heartbeat();
    struct agent_message data = {.kind = AGENT_DATA, .data = {1, {text, sizeof(text)}}};
    for (uint32_t i = 0; i < 10; i++) {
        data.id = (i * 1000 + 1) << 16 | i;
        add(&buffer, &data);
        add(&buffer, &beat);
    }
    for (say_ready();;)
        say(buffer.data, buffer.length);
}

/* Never reads. */
static void be_deaf(void)
{
    say_ready();
    stay_alive();
}

/* Whatever is asked is answered by what is none: a body that is no message, or more than was granted. */
static void lie(bool with_too_much)
{
    static const char text[AGENT_MOST_DATA_BYTES];
    const struct agent_message beat = heartbeat();
    struct agent_message message = {.flags = 0};
    static uint8_t bytes[1 << 16];
    say_ready();
    for (;;) {
        struct pollfd ready = {port, POLLIN, 0};
        say_message(&beat);
        ssize_t got = poll(&ready, 1, 500) > 0 ? read(port, bytes, sizeof(bytes)) : 0;
        if (got < AGENT_HEADER_BYTES || bytes[8] == AGENT_GONE || bytes[8] == AGENT_SHUTDOWN)
            continue;
        message.id = (uint32_t)bytes[4] | (uint32_t)bytes[5] << 8 | (uint32_t)bytes[6] << 16 | (uint32_t)bytes[7] << 24;
        message.kind = AGENT_STARTED;
        message.started.pid = 9;
        if (with_too_much)
            say_message(&message);
        message.kind = AGENT_DATA;
        message.data.stream = 1;
        message.data.bytes = (struct agent_span){text, sizeof(text)};
        for (int i = 0; with_too_much && i < 4 * many; i++)
            say_message(&message);
        if (with_too_much)
            continue;
        say_header(8, message.id, AGENT_STARTED, 0);
        say("\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    }
}

static void lie_in_form(void)
{
    lie(false);
}

static void send_too_much(void)
{
    lie(true);
}

/* The console's log, with all that a terminal would obey. */
static void flood_console(void)
{
    static char text[1 << 16];
    int console = open("/dev/console", O_WRONLY | O_CLOEXEC | O_NOCTTY);
    const struct agent_message beat = heartbeat();
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)(i % 256);
    say_ready();
    for (time_t said = 0;;) {
        if (write(console, text, sizeof(text)) < 0)
            tell("write to", "/dev/console", -errno);
        if (time(NULL) != said)
            say_message(&beat);
        said = time(NULL);
    }
}

static const struct {
    const char *name;
    void (*act)(void);
} acts[] = {
    {"garbage", say_garbage},
    {"half", say_half},
    {"giant", say_giant},
    {"version", say_other_version},
    {"early", end_without_ready},
    {"twice", say_ready_twice},
    {"request", say_a_request},
    {"nobody", end_nobody},
    {"own", end_own},
    {"flood", flood},
    {"deaf", be_deaf},
    {"mute", say_ready},
    {"form", lie_in_form},
    {"much", send_too_much},
    {"console", flood_console},
};

int main(void)
{
    const char *name = getenv("VIAL_HOSTILE");
    if (getpid() != 1)
        return 1;
    mount_essentials();
    if (port_wait(INIT_PORT) < 0 || (port = port_open(AGENT_PORT)) < 0) /* it stands before that one */
        reboot(RB_POWER_OFF);
    for (size_t i = 0; name != NULL && i < sizeof(acts) / sizeof(acts[0]); i++)
        if (strcmp(acts[i].name, name) == 0)
            acts[i].act();
    stay_silent();
}
