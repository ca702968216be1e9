// SPDX-License-Identifier: Apache-2.0
/* What threads of devices may do with sockets behind the walls of a sandbox's process (sandbox/confine.c): each attempt
 * is a process of its own. */
#include "test.h"

#include "base/alloc.h"
#include "base/thread.h"
#include "sandbox/confine.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const enum thread_kind threads[CONFINE_KINDS] = {
    [CONFINE_VCPU] = THREAD_VCPU,
    [CONFINE_ENGINE] = THREAD_ENGINE,
    [CONFINE_NET] = THREAD_NET,
    [CONFINE_TSI] = THREAD_TSI,
};

enum { refused = 200 };

static int outcome; /* of the attempt, in the child: 0 or an errno */

static void *attempt(void *user)
{
    int (*function)(void);
    memcpy(&function, user, sizeof(function));
    outcome = function() < 0 ? errno : 0;
    return NULL;
}

static void note_refusal(const char *call, enum confine_kind kind)
{
    (void)call, (void)kind;
    _exit(refused);
}

static int try_as(enum confine_kind kind, int (*function)(void), const struct confine_path *paths, size_t count)
{
    const struct confine_options options = {.paths = paths, .path_count = count, .needs_network = true};
    struct vial_error err = {0};
    struct confine_report report;
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        pthread_t thread;
        confine_on_refusal(note_refusal);
        int result = confine_process(&options, &report, &err);
        if (result == 0 && kind == CONFINE_CONTROL) {
            result = confine_thread(kind, &err);
            attempt(&function);
        } else if (result == 0) {
            result = thread_start_as(threads[kind], "attempt", attempt, &function, &thread);
            if (result == 0)
                pthread_join(thread, NULL);
        }
        _exit(result < 0 ? 201 : outcome);
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int look(void)
{
    struct stat status;
    return lstat("folder/socket", &status);
}

static int remove_it(void)
{
    return unlink("folder/socket");
}

static int make(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "folder/made"};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return fd < 0 ? fd : bind(fd, (struct sockaddr *)&address, sizeof(address));
}

static int open_internet(void)
{
    return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static void prepare(void)
{
    test_make_folder("folder");
    test_text_file("folder/socket", "");
    CHECK(chdir(test_folder()) == 0);
}

static const enum confine_kind removers[] = {CONFINE_VCPU, CONFINE_ENGINE, CONFINE_NET, CONFINE_TSI};

TEST(who_frees_a_device_may_look_at_its_socket)
{
    prepare();
    for (size_t i = 0; i < array_length(removers); i++)
        CHECK_INT(try_as(removers[i], look, NULL, 0), 0);
}

TEST(only_the_main_thread_removes_a_listener)
{
    const struct confine_path path = {
        .path = "folder/socket", .fd = -1, .removes_sockets = true, .kinds = 1u << CONFINE_CONTROL};
    prepare();
    if (try_as(CONFINE_NET, remove_it, NULL, 0) == 0)
        TEST_SKIP("this host has no Landlock");
    test_text_file("folder/socket", "");
    for (size_t i = 0; i < array_length(removers); i++)
        CHECK_INT(try_as(removers[i], remove_it, &path, 1), EACCES);
    CHECK_INT(try_as(CONFINE_CONTROL, make, &path, 1), EACCES);
    CHECK_INT(try_as(CONFINE_CONTROL, remove_it, &path, 1), 0);
    CHECK_INT(try_as(CONFINE_CONTROL, look, &path, 1), ENOENT);
}

TEST(a_datagram_network_makes_its_own)
{
    const struct confine_path path = {
        .path = "folder/peer", .fd = -1, .removes_sockets = true, .makes_sockets = true, .kinds = 1u << CONFINE_NET};
    prepare();
    CHECK_INT(try_as(CONFINE_NET, make, &path, 1), 0);
    CHECK_INT(try_as(CONFINE_NET, remove_it, &path, 1), 0);
    CHECK_INT(try_as(CONFINE_VCPU, make, &path, 1), refused);
}

TEST(only_tsi_has_sockets_of_the_host_s_network)
{
    CHECK_INT(try_as(CONFINE_TSI, open_internet, NULL, 0), 0);
    CHECK_INT(try_as(CONFINE_NET, open_internet, NULL, 0), refused);
    CHECK_INT(try_as(CONFINE_CONTROL, open_internet, NULL, 0), refused);
}
