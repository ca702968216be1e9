// SPDX-License-Identifier: Apache-2.0
/* What an inmate tries, and which wall stops it: with all walls, and with the filter left out, so that those behind it
 * are seen to stand by themselves. */
#include "cell.h"

#include "base/fd.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { killed_by_filter = 1000 + SIGSYS };

/* Runs an attempt that must be stopped by something other than the filter, with the filter and without it. */
#define CHECK_HELD(attempt, argument)                                                                                  \
    do {                                                                                                               \
        CHECK_INT(cell_run(attempt, argument), 0);                                                                     \
        cell_has_no_filter = true;                                                                                     \
        int check_without = cell_run(attempt, argument);                                                               \
        cell_has_no_filter = false;                                                                                    \
        CHECK_INT(check_without, 0);                                                                                   \
    } while (0)

/* The same where the filter is the first to stop it. */
#define CHECK_FILTERED_AND_HELD(attempt, argument)                                                                     \
    do {                                                                                                               \
        CHECK_INT(cell_run(attempt, argument), killed_by_filter);                                                      \
        cell_has_no_filter = true;                                                                                     \
        int check_without = cell_run(attempt, argument);                                                               \
        cell_has_no_filter = false;                                                                                    \
        CHECK_INT(check_without, 0);                                                                                   \
    } while (0)

static const char *own_pid(void)
{
    static char text[16];
    snprintf(text, sizeof(text), "%d", (int)getpid());
    return text;
}

TEST(an_inmate_runs)
{
    CHECK_INT(cell_run("works", ""), 0);
}

TEST(files_of_the_host_have_no_name)
{
    CHECK_HELD("files-of-the-host", test_text_file("secret", "secret"));
    CHECK_HELD("only-three-descriptors", "");
}

TEST(the_root_is_ours_and_read_only)
{
    struct cell cell;
    CHECK_INT(cell_start(&cell, "only-our-files", "", "hello"), 0);
    CHECK_INT(cell_wait(&cell), 0);
    CHECK_TEXT(cell.error_text, "");
    CHECK_INT(cell.end.status, 0);
    cell_free(&cell);
    CHECK_INT(cell_start(&cell, "root-is-read-only", "", "hello"), 0);
    CHECK_INT(cell_wait(&cell), 0);
    CHECK_TEXT(cell.error_text, "");
    CHECK_INT(cell.end.status, 0);
    cell_free(&cell);
    CHECK_INT(cell_start(&cell, "initramfs-is-whole", "hello", "hello"), 0);
    CHECK_INT(cell_wait(&cell), 0);
    CHECK_TEXT(cell.error_text, "");
    CHECK_INT(cell.end.status, 0);
    cell_free(&cell);
    CHECK_INT(cell_run("cpuinfo-is-there", ""), 0);
}

/* Without Landlock, which comes first: the mount itself is read-only. */
TEST(the_root_is_read_only_without_landlock)
{
    struct cell cell;
    cell_has_no_landlock = true;
    int result = cell_start(&cell, "root-is-read-only", "", "hello");
    cell_has_no_landlock = false;
    CHECK_INT(result, 0);
    CHECK_INT(cell_wait(&cell), 0);
    CHECK_TEXT(cell.error_text, "");
    CHECK_INT(cell.end.status, 0);
    cell_free(&cell);
}

TEST(file_systems_are_bounded)
{
    char bytes[32];
    snprintf(bytes, sizeof(bytes), "%d", cell_memory_bytes);
    CHECK_HELD("memory-is-bounded", bytes);
    CHECK_HELD("memory-can-be-executed", "");
    CHECK_HELD("notes-are-bounded", "");
    CHECK_HELD("files-are-bounded", bytes);
}

TEST(processes_of_the_host_have_no_number)
{
    CHECK_HELD("sees-no-processes", own_pid());
    CHECK_HELD("is-nobody", "");
    CHECK_HELD("traces", own_pid());
    CHECK_FILTERED_AND_HELD("reads-memory", own_pid());
    cell_has_no_filter = true;
    int without = cell_run("has-no-capabilities", "");
    cell_has_no_filter = false;
    CHECK_INT(without, 0);
}

TEST(limits_hold)
{
    CHECK_HELD("limits-are-set", "");
    CHECK_INT(cell_run("dumps-stay-off", ""), 0);
    CHECK_HELD("threads-are-bounded", "");
    CHECK_HELD("signals-are-default", "");
}

TEST(the_network_is_not_there)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof(address);
    char port[16];
    auto_close int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_INT(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    CHECK_INT(listen(listener, 1), 0);
    CHECK_INT(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    snprintf(port, sizeof(port), "%u", ntohs(address.sin_port));
    CHECK_FILTERED_AND_HELD("connects-to-loopback", port);
    cell_has_no_landlock = cell_has_no_filter = true;
    int without = cell_run("connects-to-loopback", port);
    cell_has_no_landlock = cell_has_no_filter = false;
    CHECK_INT(without, 0);
}

TEST(sockets_of_the_host_are_not_there)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[64];
    snprintf(name, sizeof(name), "vial-test-%d", (int)getpid());
    memcpy(address.sun_path + 1, name, strlen(name));
    auto_close int hidden = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_INT(bind(hidden, (struct sockaddr *)&address, (socklen_t)(sizeof(sa_family_t) + 1 + strlen(name))), 0);
    CHECK_INT(listen(hidden, 1), 0);
    CHECK_HELD("connects-abstract", name);
    cell_has_no_landlock = true;
    int without = cell_run("connects-abstract", name);
    cell_has_no_landlock = false;
    CHECK_INT(without, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", test_folder());
    auto_close int named = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_INT(bind(named, (struct sockaddr *)&address, sizeof(address)), 0);
    CHECK_INT(listen(named, 1), 0);
    CHECK_HELD("connects-to-path", address.sun_path);
}

TEST(the_devices_can_be_reached)
{
    CHECK_HELD("talks-to-device", "");
}

TEST(other_calls_are_forbidden)
{
    struct cell cell;
    CHECK_INT(cell_start(&cell, "list-calls", "", NULL), 0);
    CHECK_INT(cell_wait(&cell), 0);
    cell_free(&cell);
    int count = 0;
    char *rest = cell.output_text;
    for (const char *name; (name = strsep(&rest, "\n")) != NULL && name[0] != '\0'; count++) {
        int result = cell_run(name, "");
        if (result != killed_by_filter)
            test_fail(__FILE__, __LINE__, "%s: %d, expected %d", name, result, killed_by_filter);
    }
    CHECK(count > 80);
    CHECK_INT(cell_run("thirty-two-bits", ""), killed_by_filter);
    CHECK_INT(cell_run("refused-calls", ""), 0);
}

TEST(many_of_them_would_fail_without_the_filter)
{
    struct cell cell;
    CHECK_INT(cell_start(&cell, "list-calls", "walls", NULL), 0);
    CHECK_INT(cell_wait(&cell), 0);
    cell_free(&cell);
    int count = 0;
    char *rest = cell.output_text;
    for (const char *name; (name = strsep(&rest, "\n")) != NULL && name[0] != '\0'; count++) {
        cell_has_no_filter = true;
        int result = cell_run(name, "");
        cell_has_no_filter = false;
        if (result != 0)
            test_fail(__FILE__, __LINE__, "%s: %d, expected 0", name, result);
    }
    CHECK(count > 20);
}
