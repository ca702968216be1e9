// SPDX-License-Identifier: Apache-2.0
/* The kernel's console, which the program may have as its terminal.
 *
 * Invariants: (1) nothing here makes it the terminal of this process.
 *
 * Trust: what is written there is for people.
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <termios.h>
#include <unistd.h>

void console_open(void)
{
    if (fcntl(STDOUT_FILENO, F_GETFD) >= 0)
        return;
    for (int i = 0; i < 3; i++)
        if (open("/dev/console", O_RDWR) < 0)
            return; /* there is nobody to tell */
}

void console_close(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int i = 0; i < 3; i++)
        dup2(fd, i);
    if (fd > 2)
        close(fd);
}

bool console_is_terminal(void)
{
    int fd = open("/dev/console", O_RDWR | O_NOCTTY | O_CLOEXEC);
    bool is_terminal = fd >= 0 && isatty(fd) == 1;
    if (fd >= 0)
        close(fd);
    return is_terminal;
}

void console_drain(void)
{
    int fd = open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || tcdrain(fd) < 0)
        tell("drain", "/dev/console", -errno);
    if (fd >= 0)
        close(fd);
}
