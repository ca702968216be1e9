// SPDX-License-Identifier: Apache-2.0
/* passt, the helper that gives guests the host's network: where it is, and what it can.
 *
 * Its version says nothing: distributions build it without one. So it prints its help, which names its options, and the
 * ones that we start it with (vmm/passt.c) are looked for there.
 *
 * Invariants: (1) it is gone, or killed, when the answer is given, and that takes LIMIT_PASST_HELP_MS at most. (2) of
 * what it prints no more is kept than there is room for.
 *
 * Trust: the program is the host's, in a folder of the system's. Its output is searched and never shown.
 */
#include "host/passt.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/program.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { help_bytes = 64 << 10 };

/* Of those that we need the newest; what is older than these is in every passt. */
static const char *const needed[] = {"--fd", "--dns-forward", "--no-map-gw"};

bool host_passt_find(const char *root, struct host_path *ret_path)
{
    static const char *const paths[] = {"/usr/local/bin/passt", "/usr/bin/passt", "/bin/passt"};
    for (size_t i = 0; i < array_length(paths); i++) {
        *ret_path = host_path_join(root, paths[i]);
        if (access(ret_path->text, X_OK) == 0)
            return true;
    }
    return false;
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
}

static bool names_option(const char *text, const char *option)
{
    size_t length = strlen(option);
    for (const char *next = text; (next = strstr(next, option)) != NULL; next += length)
        if ((next == text || !is_letter(next[-1])) && !is_letter(next[length]))
            return true;
    return false;
}

/* Until its end: 0, or -ETIMEDOUT. */
static int read_all(int fd, char text[help_bytes])
{
    size_t length = 0;
    uint64_t end_ns = clock_deadline_ns(LIMIT_PASST_HELP_MS * CLOCK_NS_PER_MS);
    for (;;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        uint64_t now_ns = clock_now_ns();
        int left_ms = now_ns < end_ns ? (int)((end_ns - now_ns) / CLOCK_NS_PER_MS) + 1 : 0;
        int count = poll(&ready, 1, left_ms);
        if (count < 0 && errno == EINTR)
            continue;
        ssize_t more = count > 0 ? read(fd, text + length, help_bytes - 1 - length) : 0;
        if (count == 0)
            return -ETIMEDOUT;
        if (count < 0 || more < 0)
            return -errno;
        length += (size_t)more;
        text[length] = '\0';
        if (more == 0) /* its end, or there is no more room */
            return 0;
    }
}

int host_passt_ask(const char *path, const char **ret_option)
{
    char name[] = "passt", option[] = "--help", *const args[] = {name, option, NULL}, *const env[] = {NULL};
    auto_free char *text = alloc_zero(help_bytes);
    int ends[2], pidfd = -1;
    if (text == NULL)
        return -ENOMEM;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    auto_close int ours = ends[0], theirs = ends[1];
    auto_close int nothing = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* /dev/null need not be there */
    if (nothing < 0)
        return -errno;
    struct program program = {
        .path = path,
        .args = args,
        .env = env,
        .fds = {nothing, theirs, theirs},
        .fd_count = 3,
    };
    int result = program_start(&program, &pidfd);
    if (result < 0)
        return result;
    auto_close int process = pidfd;
    theirs = fd_close(theirs);
    result = read_all(ours, text);
    syscall(SYS_pidfd_send_signal, process, SIGKILL, NULL, 0);
    if (result < 0)
        return result;
    *ret_option = NULL;
    for (size_t i = 0; *ret_option == NULL && i < array_length(needed); i++)
        if (!names_option(text, needed[i]))
            *ret_option = needed[i];
    return 0;
}
