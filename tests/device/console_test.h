// SPDX-License-Identifier: Apache-2.0
/* What the programs that test the console share: one console with a driver, its ports, and what is said on them. */
#ifndef TESTS_CONSOLE_H
#define TESTS_CONSOLE_H

#include "test.h"

#include "base/fd.h"
#include "console_driver.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

static struct console_driver driver;

static inline struct console_port_options inout(const char *name, int input_fd, int output_fd)
{
    return (struct console_port_options){
        .name = name, .kind = CONSOLE_PORT_INOUT, .input_fd = input_fd, .output_fd = output_fd, .tty_fd = -1};
}

static inline void begin(const struct console_port_options *ports, unsigned count, bool is_multiport)
{
    struct console_options options = {.ports = ports, .port_count = count};
    signal(SIGPIPE, SIG_IGN); /* the device runs on our thread here */
    console_driver_init(&driver, &options);
    console_driver_start(&driver, is_multiport);
}

static inline void end(void)
{
    console_driver_release(&driver);
}

static inline void say(unsigned port, const char *text)
{
    if (!console_write(&driver, port, text, strlen(text)))
        abort();
    console_driver_turn(&driver);
}

static inline const char *read_text(int fd)
{
    static char text[8192];
    ssize_t got = read(fd, text, sizeof(text) - 1);
    text[got > 0 ? got : 0] = '\0';
    return text;
}

static inline const char *hear_text(unsigned port)
{
    static char text[2 * DRIVER_BUFFER_BYTES + 1];
    text[console_read(&driver, port, text, sizeof(text) - 1)] = '\0';
    return text;
}

/* Whether the condition holds within five seconds. */
#define COMES_TRUE(condition)                                                                                          \
    __extension__({                                                                                                    \
        uint64_t give_up_ns = clock_deadline_ns(5 * CLOCK_NS_PER_S);                                                   \
        bool is_true;                                                                                                  \
        while (!(is_true = (condition)) && clock_now_ns() < give_up_ns)                                                \
            poll(NULL, 0, 2);                                                                                          \
        is_true;                                                                                                       \
    })

/* The next message, as port:event:value[:body]. */
static inline const char *next_message(void)
{
    static char text[256];
    struct control_message message;
    if (!console_hear(&driver, &message))
        return "none";
    snprintf(text, sizeof(text), "%u:%u:%u%s%.*s", message.port, message.event, message.value,
             message.body_bytes > 0 ? ":" : "", (int)message.body_bytes, message.body);
    return text;
}

static inline int open_pty(int *ret_slave)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct winsize size = {.ws_row = 24, .ws_col = 80};
    if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0)
        abort();
    *ret_slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*ret_slave < 0 || ioctl(master, TIOCSWINSZ, &size) < 0)
        abort();
    return master;
}

static inline struct console_port_options terminal_port(int slave)
{
    return (struct console_port_options){
        .is_console = true, .kind = CONSOLE_PORT_TTY, .tty_fd = slave, .input_fd = -1, .output_fd = -1};
}

#endif
