// SPDX-License-Identifier: Apache-2.0
/* A jail's life as the embedding program sees it: that it sees nothing, what an error says, that nothing stays. */
#include "cell.h"

#include "base/clock.h"
#include "base/fd.h"
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- what is seen of a jail ---- */

static volatile sig_atomic_t children_told;

static void count_child(int number)
{
    (void)number;
    children_told++;
}

TEST(the_embedding_program_sees_no_child)
{
    struct cell cell;
    struct sigaction action = {.sa_handler = count_child}, before;
    sigaction(SIGCHLD, &action, &before);
    CHECK_INT(cell_run("works", ""), 0);
    CHECK_INT(cell_start(&cell, "waits", "", NULL), 0);
    CHECK_INT(cell_wait_for_line(&cell), 0);
    CHECK_INT(jail_pause(cell.jail), 0);
    CHECK_INT(jail_resume(cell.jail), 0);
    CHECK_INT(waitpid(-1, NULL, WNOHANG), -1);
    CHECK_INT(errno, ECHILD);
    struct jail_end end;
    CHECK_INT(jail_end(cell.jail, &end), -EAGAIN);
    jail_kill(cell.jail);
    CHECK_INT(cell_wait(&cell), 0);
    CHECK(cell.end.was_killed);
    CHECK_INT(cell.end.status, SIGKILL);
    cell_free(&cell);
    sigaction(SIGCHLD, &before, NULL);
    CHECK_INT(children_told, 0);
}

TEST(a_program_that_ignores_its_children_learns_the_end)
{
    signal(SIGCHLD, SIG_IGN);
    int result = cell_run("is-nobody", ""), other = cell_run("mount", "");
    signal(SIGCHLD, SIG_DFL);
    CHECK_INT(result, 0);
    CHECK_INT(other, 1000 + SIGSYS);
}

TEST(it_is_described)
{
    struct cell cell;
    auto_buffer struct buffer text = BUFFER_INIT(4096);
    CHECK_INT(cell_start(&cell, "waits", "", NULL), 0);
    CHECK_INT(jail_describe(cell.jail, &text), 0);
    CHECK(strncmp(text.data, "user namespace, mount namespace, ", 33) == 0);
    CHECK(strstr(text.data, "seccomp filter") != NULL);
    CHECK(jail_has(cell.jail, JAIL_CGROUP) ==
          (strstr(text.data, "; missing: ") == NULL || strstr(strstr(text.data, "; missing: "), "cgroup (") == NULL));
    cell_free(&cell);
}

static size_t count_lines(const char *path)
{
    auto_buffer struct buffer text = BUFFER_INIT(1 << 20);
    size_t count = 0;
    if (fd_read_file(path, &text) == 0)
        for (size_t i = 0; i < text.length; i++)
            count += text.data[i] == '\n';
    return count;
}

TEST(a_hundred_in_a_row_leave_nothing)
{
    CHECK_INT(cell_run("works", ""), 0);
    size_t before = count_lines("/proc/self/maps"), mounts = count_lines("/proc/self/mounts");
    for (int i = 0; i < 100; i++)
        CHECK_INT(cell_run("works", ""), 0);
    CHECK_INT(count_lines("/proc/self/maps"), before);
    CHECK_INT(count_lines("/proc/self/mounts"), mounts);
    CHECK_INT(waitpid(-1, NULL, WNOHANG | __WALL), -1);
}

TEST(every_allocation_may_fail)
{
    FOR_EACH_FAULT
    {
        struct cell cell;
        int result = cell_start(&cell, "works", "", "hello");
        if (result == 0)
            result = cell_wait(&cell);
        cell_free(&cell);
        /* Without a control group there is a jail all the same. */
        CHECK(result == 0 || (fault_was_hit() && result == -ENOMEM));
    }
}

/* ---- a program that forks ---- */

enum { fork_life_s = 5 };
static atomic_bool has_forked_enough;

static void *fork_all_the_time(void *user)
{
    (void)user;
    while (!atomic_load(&has_forked_enough)) {
        if (fork() == 0) { /* lives on with copies of whatever was open at that moment */
            poll(NULL, 0, fork_life_s * 1000);
            _exit(0);
        }
        poll(NULL, 0, 1);
    }
    return NULL;
}

TEST(a_start_waits_for_no_child_of_the_program)
{
    pthread_t thread;
    struct cell cell;
    uint64_t begin_ns = clock_now_ns();
    CHECK_INT(pthread_create(&thread, NULL, fork_all_the_time, NULL), 0);
    for (int i = 0; i < 20; i++) {
        CHECK_INT(cell_start(&cell, "waits", "", NULL), 0);
        cell_free(&cell);
    }
    atomic_store(&has_forked_enough, true);
    pthread_join(thread, NULL);
    CHECK(clock_now_ns() - begin_ns < (fork_life_s - 1) * CLOCK_NS_PER_S);
    while (waitpid(-1, NULL, 0) > 0)
        ;
}

TEST(a_jail_that_was_never_started_is_freed)
{
    struct jail_options options = {.memory_bytes = 1 << 20, .initramfs_fd = -1};
    struct jail *jail = NULL;
    struct jail_end end;
    CHECK_INT(jail_prepare(&options, &jail, NULL), 0);
    CHECK_INT(jail_pidfd(jail), -1);
    CHECK_INT(jail_pid(jail), -1);
    CHECK_INT(jail_pause(jail), -ESRCH);
    CHECK_INT(jail_resume(jail), -ESRCH);
    CHECK_INT(jail_end(jail, &end), -EAGAIN);
    CHECK(!jail_has(jail, JAIL_SECCOMP));
    CHECK_TEXT(jail_memory_folder(jail).text, "/memory");
    CHECK_TEXT(jail_state_folder(jail).text, "/run");
    CHECK_TEXT(jail_initramfs_path(jail).text, "/initrd");
    CHECK_TEXT(jail_socket_path(jail, 12).text, "/socket/12");
    jail_kill(jail);
    jail_free(jail);
}

/* The path of the child's group below the mount of cgroup v2, from its line "0::/PATH". */
static void read_group(pid_t pid, char *ret_path, size_t size)
{
    char path[64];
    auto_buffer struct buffer text = BUFFER_INIT(1 << 16);
    snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
    if (fd_read_file(path, &text) < 0)
        return;
    const char *line = strstr(text.data, "0::/");
    snprintf(ret_path, size, "%.*s", line != NULL ? (int)strcspn(line + 3, "\n") : 0, line != NULL ? line + 3 : "");
}

/* Where the host has no control groups for us, there is nothing to see here; the description says so. */
TEST(a_control_group_bounds_memory_and_is_removed)
{
    struct cell cell;
    char group[256] = "", own[256] = "";
    CHECK_INT(cell_start(&cell, "eats-memory", "100", NULL), 0); /* a megabyte of guest memory, and 64 of its own */
    bool has_group = jail_has(cell.jail, JAIL_CGROUP);
    read_group(jail_pid(cell.jail), group, sizeof(group));
    CHECK_INT(cell_wait(&cell), 0);
    CHECK_INT(cell.end.was_killed, has_group);
    CHECK_INT(cell.end.status, has_group ? SIGKILL : 0);
    cell_free(&cell);
    read_group(getpid(), own, sizeof(own));
    CHECK(!has_group || strstr(group, "/vial-") != NULL);
    CHECK(has_group || strcmp(group, own) == 0);
    CHECK_INT(cell_start(&cell, "waits", "", NULL), 0);
    CHECK_INT(cell_wait_for_line(&cell), 0);
    CHECK_INT(jail_has(cell.jail, JAIL_CGROUP), has_group);
    cell_free(&cell);
}

/* ---- errors ---- */

static int start_program(int fd, struct vial_error *err)
{
    struct cell cell;
    cell_program_fd = fd;
    int result = cell_start(&cell, "works", "", NULL);
    cell_program_fd = -1;
    *err = cell.error;
    cell_free(&cell);
    return result;
}

TEST(a_kernel_that_is_none_is_refused)
{
    struct vial_error error;
    const char *script = test_text_file("script", "#!/bin/sh\n"), *text = test_text_file("text", "text\n");
    chmod(script, 0755);
    chmod(text, 0755);
    auto_close int script_fd = open(script, O_RDONLY | O_CLOEXEC), text_fd = open(text, O_RDONLY | O_CLOEXEC);
    auto_close int folder_fd = open(test_folder(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(start_program(script_fd, &error) < 0);
    CHECK(strstr(error.message, "could not execute the kernel") != NULL);
    CHECK(strstr(error.remedy, "a static executable") != NULL);
    CHECK(start_program(text_fd, &error) < 0);
    CHECK_INT(error.os_error, ENOEXEC);
    CHECK(start_program(folder_fd, &error) < 0);
    CHECK_INT(error.os_error, EACCES);
    chmod(text, 0600);
    CHECK(start_program(text_fd, &error) < 0);
    CHECK_INT(error.os_error, EACCES);
    CHECK(strstr(error.remedy, "chmod a+rx") != NULL);
}

TEST(an_initramfs_that_is_no_file_is_refused)
{
    struct vial_error error;
    struct jail *jail = NULL;
    auto_close int folder_fd = open(test_folder(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct jail_options options = {.memory_bytes = 1 << 20, .initramfs_fd = folder_fd};
    CHECK(jail_prepare(&options, &jail, &error) < 0);
    CHECK_INT(error.code, VIAL_ERROR_WRONG_KIND);
}

/* ---- pausing ---- */

/* Ticks of CPU time that the process has used. */
static unsigned long used_ticks(pid_t pid)
{
    char path[64];
    unsigned long user = 0, system = 0;
    auto_buffer struct buffer text = BUFFER_INIT(4096);
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (fd_read_file(path, &text) == 0)
        sscanf(strrchr(text.data, ')'), ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
    return user + system;
}

static void let_pass(int milliseconds)
{
    poll(NULL, 0, milliseconds);
}

TEST(what_is_paused_uses_no_time)
{
    struct cell cell;
    CHECK_INT(cell_start(&cell, "spins", "", NULL), 0);
    CHECK_INT(cell_wait_for_line(&cell), 0);
    pid_t pid = jail_pid(cell.jail);
    for (int round = 0; round < 3; round++) {
        CHECK_INT(jail_pause(cell.jail), 0);
        unsigned long stopped = used_ticks(pid);
        let_pass(100);
        CHECK_INT(used_ticks(pid), stopped);
        CHECK_INT(jail_resume(cell.jail), 0);
        for (int i = 0; i < 200 && used_ticks(pid) == stopped; i++)
            let_pass(20);
        CHECK(used_ticks(pid) > stopped);
    }
    CHECK_INT(jail_pause(cell.jail), 0);
    cell_free(&cell); /* the stopped die, too */
}

/* ---- the end of the embedding program ---- */

/* Nothing may be left of a process that was killed: as its reaper we inherit what outlives it. */
static bool everything_ends(void)
{
    alarm(20);
    while (waitpid(-1, NULL, __WALL) > 0 || errno == EINTR)
        ;
    alarm(0);
    return errno == ECHILD;
}

/* In a process of its own: starts jails until it is killed. Tells of each on `fd`. */
static void start_for_ever(const char *attempt, int fd)
{
    for (;;) {
        struct cell cell;
        if (cell_start(&cell, attempt, "", "hello") < 0 || cell_wait_for_line(&cell) < 0 || write(fd, "", 1) != 1)
            _exit(1);
        if (attempt[0] == 'l') /* it has lost its death signal, or will have in a moment */
            for (;;)
                pause();
        cell_free(&cell);
    }
}

static bool dies_with_us(const char *attempt, int milliseconds, bool waits_for_start)
{
    int ends[2];
    char byte;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return false;
    auto_close int read_end = ends[0], write_end = ends[1];
    pid_t pid = fork();
    if (pid == 0)
        start_for_ever(attempt, write_end);
    if (waits_for_start && read(read_end, &byte, 1) != 1)
        return false;
    let_pass(milliseconds);
    kill(pid, SIGKILL);
    return everything_ends();
}

TEST(kill_9_at_any_moment_leaves_nothing)
{
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    for (int i = 0; i < 20; i++)
        CHECK(dies_with_us("waits", i, false));
    for (int i = 0; i < 20; i++)
        CHECK(dies_with_us("waits", i / 2, true));
}

TEST(who_loses_his_death_signal_dies_all_the_same)
{
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    for (int i = 0; i < 5; i++)
        CHECK(dies_with_us("loses-death-signal", 50, true));
}

static void *start_and_return(void *user)
{
    cell_start(user, "waits", "", NULL);
    return NULL;
}

TEST(the_end_of_the_thread_is_the_end_of_the_jail)
{
    struct cell cell;
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, start_and_return, &cell), 0);
    pthread_join(thread, NULL);
    CHECK(cell.jail != NULL);
    CHECK_INT(cell_wait(&cell), 0);
    CHECK(cell.end.was_killed);
    CHECK_INT(cell.end.status, SIGKILL);
    cell_free(&cell);
}

/* The guardian is ours, and somebody kills it. */
TEST(the_end_of_the_guardian_is_the_end_of_the_jail)
{
    struct cell cell;
    CHECK_INT(cell_start(&cell, "waits", "", NULL), 0);
    CHECK_INT(cell_wait_for_line(&cell), 0);
    CHECK_INT(syscall(SYS_pidfd_send_signal, jail_pidfd(cell.jail), SIGKILL, NULL, 0), 0);
    CHECK_INT(cell_wait(&cell), -ESRCH);
    pid_t pid = jail_pid(cell.jail);
    cell_free(&cell);
    waitpid(pid, NULL, __WALL); /* ours if we are a subreaper by now */
    CHECK_INT(kill(pid, 0), -1);
}

/* ---- with less ---- */

static int run_in_child(int (*function)(void))
{
    int status = 0;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        int result = function();
        fflush(stdout);
        _exit(result);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void write_text(const char *path, const char *text)
{
    auto_close int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || fd_write_all(fd, text, strlen(text)) < 0)
        printf("# %s cannot be written\n", path);
}

static int expect(int number, int actual, int expected)
{
    if (actual == expected)
        return 0;
    printf("# step %d: %d, expected %d\n", number, actual, expected);
    return 1;
}

static int attempts_as_user(void)
{
    if (geteuid() == 0 &&
        (setgroups(0, NULL) < 0 || setresgid(1234, 1234, 1234) < 0 || setresuid(1234, 1234, 1234) < 0))
        return 100;
    if (expect(20, cell_run("works", ""), -EACCES) != 0) /* not dumpable, so not ours in /proc */
        return 1;
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    return expect(1, cell_run("files-of-the-host", ""), 0) | expect(2, cell_run("sees-no-processes", "2"), 0) |
           expect(3, cell_run("is-nobody", ""), 0) | expect(4, cell_run("only-three-descriptors", ""), 0) |
           expect(5, cell_run("limits-are-set", ""), 0) | expect(6, cell_run("threads-are-bounded", ""), 0) |
           expect(7, cell_run("talks-to-device", ""), 0) | expect(8, cell_run("mount", ""), 1000 + SIGSYS) |
           expect(9, cell_run("traces", "2"), 0);
}

TEST(an_ordinary_user_has_the_same_walls)
{
    auto_close int program_fd = open(INMATE, O_RDONLY | O_CLOEXEC);
    cell_program_fd = program_fd;
    int result = run_in_child(attempts_as_user);
    cell_program_fd = -1;
    CHECK_INT(result, 0);
}

/* In a user namespace where some kinds of namespaces are not to be had. */
static void forbid_namespaces(const char *const kinds[])
{
    char text[64];
    unsigned user = geteuid(), group = getegid();
    if (unshare(CLONE_NEWUSER) < 0)
        printf("# no user namespace: %s\n", strerrordesc_np(errno));
    write_text("/proc/self/setgroups", "deny");
    snprintf(text, sizeof(text), "1000 %u 1\n", group);
    write_text("/proc/self/gid_map", text);
    snprintf(text, sizeof(text), "1000 %u 1\n", user);
    write_text("/proc/self/uid_map", text);
    for (; *kinds != NULL; kinds++) {
        snprintf(text, sizeof(text), "/proc/sys/user/max_%s_namespaces", *kinds);
        write_text(text, "0");
    }
}

static int without_network_namespaces(void)
{
    static const char *const kinds[] = {"net", NULL};
    struct cell cell;
    forbid_namespaces(kinds);
    int result = cell_start(&cell, "works", "", NULL);
    cell_free(&cell);
    if (expect(1, result, -ENOSPC) != 0 || strstr(cell.error.message, "network namespace") == NULL ||
        strcmp(cell.error.remedy, "sysctl user.max_net_namespaces=10000") != 0) {
        printf("# %s (%s)\n", cell.error.message, cell.error.remedy);
        return 1;
    }
    cell_allows_missing_walls = true;
    result = cell_start(&cell, "files-of-the-host", "", NULL);
    if (result == 0)
        result = cell_wait(&cell);
    bool has_network = jail_has(cell.jail, JAIL_NET_NS), has_root = jail_has(cell.jail, JAIL_ROOT);
    cell_free(&cell);
    return expect(2, result, 0) | expect(3, cell.end.status, 0) | expect(4, has_network, 0) | expect(5, has_root, 1);
}

TEST(a_missing_essential_wall_is_refused_unless_allowed)
{
    CHECK_INT(run_in_child(without_network_namespaces), 0);
}

static int without_ipc_namespaces(void)
{
    static const char *const kinds[] = {"ipc", "uts", NULL};
    struct cell cell;
    forbid_namespaces(kinds);
    int result = cell_start(&cell, "files-of-the-host", "", NULL);
    if (result == 0)
        result = cell_wait(&cell);
    bool has_ipc = jail_has(cell.jail, JAIL_IPC_NS);
    cell_free(&cell);
    return expect(1, result, 0) | expect(2, cell.end.status, 0) | expect(3, has_ipc, 0);
}

TEST(a_missing_wall_that_is_not_essential_is_reported)
{
    CHECK_INT(run_in_child(without_ipc_namespaces), 0);
}

static size_t count_folders(void)
{
    size_t count = 0;
    DIR *folder = opendir("/dev/shm");
    for (const struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        struct stat status;
        if (strncmp(entry->d_name, "vial-uml.", 9) == 0 &&
            fstatat(dirfd(folder), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_uid == geteuid())
            count++;
    }
    if (folder != NULL)
        closedir(folder);
    return count;
}

static int without_namespaces(void)
{
    static const char *const kinds[] = {"user", "mnt", "net", "pid", "ipc", "uts", NULL};
    struct cell cell;
    forbid_namespaces(kinds);
    if (expect(1, cell_start(&cell, "works", "", NULL), -ENOSPC) != 0)
        return 1;
    cell_free(&cell);
    cell_allows_missing_walls = true;
    int result = cell_start(&cell, "talks-to-device", "", "hello");
    if (result < 0)
        printf("# %s\n", cell.error.message);
    if (expect(2, result, 0) != 0 || expect(3, cell_wait(&cell), 0) != 0 || expect(4, cell.end.status, 0) != 0)
        return 1;
    bool has_landlock = jail_has(cell.jail, JAIL_LANDLOCK), has_filter = jail_has(cell.jail, JAIL_SECCOMP);
    size_t folders = count_folders();
    cell_free(&cell);
    if (expect(5, has_filter, 1) != 0 || expect(6, (int)folders, 1) != 0 || expect(7, (int)count_folders(), 0) != 0)
        return 1;
    /* Where Landlock is all that is left before the host's files. */
    if (has_landlock && expect(8, cell_start(&cell, "other-folders", "", NULL), 0) == 0) {
        result = cell_wait(&cell);
        if (cell.error_text[0] != '\0')
            printf("# %s", cell.error_text);
        cell_free(&cell);
        return expect(9, result, 0) | expect(10, cell.end.status, 0);
    }
    return 0;
}

TEST(without_any_namespace_a_folder_stands_for_the_root)
{
    CHECK_INT(run_in_child(without_namespaces), 0);
}

static int killed_without_namespaces(void)
{
    static const char *const kinds[] = {"user", "mnt", "net", "pid", NULL};
    forbid_namespaces(kinds);
    cell_allows_missing_walls = true;
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    for (int i = 0; i < 10; i++)
        if (!dies_with_us("waits", i, i % 2 == 0))
            return 1;
    if (cell_run("works", "") != 0) /* sweeps what those have left */
        return 2;
    return expect(3, (int)count_folders(), 0);
}

TEST(folders_that_were_left_are_swept)
{
    CHECK_INT(run_in_child(killed_without_namespaces), 0);
}
