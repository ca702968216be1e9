// SPDX-License-Identifier: Apache-2.0
/* Tests of confine: what every kind of thread is refused, and which files each may open. Sockets are in
 * confine_net.c. */
#include "confine_child.h"
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/landlock.h"
#include "base/thread.h"
#include "sandbox/home.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- calls that no list has ---- */

#define CALL(name, ...)                                                                                                \
    static long call_##name(void)                                                                                      \
    {                                                                                                                  \
        return syscall(SYS_##name, ##__VA_ARGS__);                                                                     \
    }

static char *const nothing[] = {NULL};
static char page[4096];

CALL(execve, "/bin/true", nothing, nothing)
CALL(execveat, AT_FDCWD, "/bin/true", nothing, nothing, 0)
CALL(ptrace, PTRACE_TRACEME, 0, 0, 0)
CALL(process_vm_readv, 1, NULL, 0, NULL, 0, 0)
CALL(process_vm_writev, 1, NULL, 0, NULL, 0, 0)
CALL(process_madvise, 0, NULL, 0, 0, 0)
CALL(mount, "none", "/tmp", "tmpfs", 0, NULL)
CALL(umount2, "/tmp", 0)
CALL(fsopen, "tmpfs", 0)
CALL(fsmount, 0, 0, 0)
CALL(open_tree, AT_FDCWD, "/", 0)
CALL(move_mount, 0, "", 0, "", 0)
CALL(mount_setattr, 0, "", 0, NULL, 0)
CALL(pivot_root, ".", ".")
CALL(chroot, "/")
CALL(setns, 0, 0)
CALL(unshare, CLONE_NEWUSER)
CALL(clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL)
CALL(fork)
CALL(vfork)
CALL(bpf, 0, NULL, 0)
CALL(keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0)
CALL(add_key, "user", "x", "x", 1, KEY_SPEC_PROCESS_KEYRING)
CALL(request_key, "user", "x", NULL, 0)
CALL(kexec_load, 0, 0, NULL, 0)
CALL(init_module, NULL, 0, "")
CALL(finit_module, 0, "", 0)
CALL(delete_module, "x", 0)
CALL(perf_event_open, NULL, 0, -1, -1, 0)
CALL(userfaultfd, 0)
CALL(open_by_handle_at, AT_FDCWD, NULL, 0)
CALL(pidfd_getfd, 0, 0, 0)
CALL(tkill, 1, 0)
CALL(rt_sigqueueinfo, 1, SIGUSR1, NULL)
CALL(rt_tgsigqueueinfo, 1, 1, SIGUSR1, NULL)
CALL(setuid, 0)
CALL(setresuid, 0, 0, 0)
CALL(setgroups, 0, NULL)
CALL(seccomp, 0, 0, NULL)
CALL(personality, 0xffffffff)
CALL(modify_ldt, 0, NULL, 0)
CALL(iopl, 3)
CALL(ioperm, 0, 1, 1)
CALL(reboot, 0, 0, 0, NULL)
CALL(swapon, "", 0)
CALL(syslog, 10, NULL, 0)
CALL(acct, NULL)
CALL(sethostname, "x", 1)
CALL(settimeofday, NULL, NULL)
CALL(clock_settime, 0, NULL)
CALL(adjtimex, NULL)
CALL(quotactl, 0, "", 0, NULL)
CALL(shmget, 1, 1, 0)
CALL(msgget, 1, 0)
CALL(mq_open, "/x", 0, 0, NULL)
CALL(vmsplice, 0, NULL, 0, 0)
CALL(memfd_secret, 0)
CALL(pkey_mprotect, page, sizeof(page), PROT_EXEC, -1)
CALL(set_mempolicy, 0, NULL, 0)
CALL(io_setup, 1, NULL)
CALL(fanotify_init, 0, 0)

/* Calls that a list has with other arguments. */
static long call_kill(void)
{
    return syscall(SYS_kill, 1, 0);
}

static long call_tgkill(void)
{
    return syscall(SYS_tgkill, 1, 1, 0);
}

static long call_mprotect(void)
{
    return syscall(SYS_mprotect, page, sizeof(page), PROT_READ | PROT_EXEC);
}

static long call_mmap(void)
{
    return syscall(SYS_mmap, NULL, sizeof(page), PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static long call_prctl(void)
{
    return syscall(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static long call_ioctl(void)
{
    return syscall(SYS_ioctl, 0, TIOCSTI, "x");
}

static long call_fcntl(void)
{
    return syscall(SYS_fcntl, 0, F_SETOWN, 1);
}

static long call_rt_sigaction(void)
{
    return syscall(SYS_rt_sigaction, SIGSYS, NULL, NULL, 8);
}

#define FORBIDDEN(name)                                                                                                \
    {                                                                                                                  \
#name, call_##name                                                                                             \
    }
static const struct {
    const char *name;
    attempt_function *call;
} forbidden[] = {
    FORBIDDEN(execve),
    FORBIDDEN(execveat),
    FORBIDDEN(ptrace),
    FORBIDDEN(process_vm_readv),
    FORBIDDEN(mount),
    FORBIDDEN(process_madvise),
    FORBIDDEN(process_vm_writev),
    FORBIDDEN(umount2),
    FORBIDDEN(fsopen),
    FORBIDDEN(fsmount),
    FORBIDDEN(open_tree),
    FORBIDDEN(move_mount),
    FORBIDDEN(mount_setattr),
    FORBIDDEN(pivot_root),
    FORBIDDEN(chroot),
    FORBIDDEN(setns),
    FORBIDDEN(unshare),
    FORBIDDEN(clone),
    FORBIDDEN(fork),
    FORBIDDEN(vfork),
    FORBIDDEN(bpf),
    FORBIDDEN(keyctl),
    FORBIDDEN(add_key),
    FORBIDDEN(request_key),
    FORBIDDEN(kexec_load),
    FORBIDDEN(init_module),
    FORBIDDEN(finit_module),
    FORBIDDEN(delete_module),
    FORBIDDEN(userfaultfd),
    FORBIDDEN(perf_event_open),
    FORBIDDEN(open_by_handle_at),
    FORBIDDEN(pidfd_getfd),
    FORBIDDEN(tkill),
    FORBIDDEN(rt_sigqueueinfo),
    FORBIDDEN(rt_tgsigqueueinfo),
    FORBIDDEN(setuid),
    FORBIDDEN(setresuid),
    FORBIDDEN(setgroups),
    FORBIDDEN(seccomp),
    FORBIDDEN(personality),
    FORBIDDEN(modify_ldt),
    FORBIDDEN(iopl),
    FORBIDDEN(ioperm),
    FORBIDDEN(reboot),
    FORBIDDEN(swapon),
    FORBIDDEN(syslog),
    FORBIDDEN(acct),
    FORBIDDEN(sethostname),
    FORBIDDEN(settimeofday),
    FORBIDDEN(clock_settime),
    FORBIDDEN(adjtimex),
    FORBIDDEN(quotactl),
    FORBIDDEN(shmget),
    FORBIDDEN(msgget),
    FORBIDDEN(mq_open),
    FORBIDDEN(vmsplice),
    FORBIDDEN(memfd_secret),
    FORBIDDEN(pkey_mprotect),
    FORBIDDEN(set_mempolicy),
    FORBIDDEN(io_setup),
    FORBIDDEN(fanotify_init),
    FORBIDDEN(kill),
    FORBIDDEN(tgkill),
    FORBIDDEN(mprotect),
    FORBIDDEN(mmap),
    FORBIDDEN(prctl),
    FORBIDDEN(ioctl),
    FORBIDDEN(fcntl),
    FORBIDDEN(rt_sigaction),
};

TEST(no_kind_has_a_call_that_leads_out)
{
    const struct confine_options options = {.has_jail = true};
    for (size_t i = 0; i < array_length(forbidden); i++)
        for (enum confine_kind kind = 0; kind < CONFINE_KINDS; kind++) {
            char expected[64];
            snprintf(expected, sizeof(expected), "refused %s %s", forbidden[i].name, confine_kind_names[kind]);
            CHECK_TEXT(try_as(kind, forbidden[i].call, &options), expected);
        }
}

/* int 0x80 is the 32-bit ABI, whose call 20 is getpid. */
static long call_of_32_bit(void)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory");
    return result;
}

static long call_of_x32(void)
{
    return syscall(0x40000000 | SYS_getpid);
}

TEST(other_abis_are_refused)
{
    const struct confine_options options = {.has_jail = true};
    CHECK_TEXT(try_as(CONFINE_DEVICE, call_of_32_bit, &options), "refused of another ABI device");
    CHECK_TEXT(try_as(CONFINE_DEVICE, call_of_x32, &options), "refused of another ABI device");
}

/* ---- what differs between the kinds ---- */

static long open_a_file(void)
{
    return open("/etc/passwd", O_RDONLY | O_CLOEXEC);
}

static long make_a_ring(void)
{
    return syscall(SYS_io_uring_setup, 0, NULL);
}

static long be_somebody(void)
{
    return syscall(SYS_setfsuid, -1);
}

static long signal_by_descriptor(void)
{
    return syscall(SYS_pidfd_send_signal, -1, 0, NULL, 0);
}

static void *do_nothing(void *user)
{
    return user;
}

static long make_a_thread(void)
{
    pthread_t thread;
    int result = thread_start("another", do_nothing, NULL, &thread);
    if (result == 0)
        return pthread_join(thread, NULL);
    errno = -result;
    return -1;
}

/* libc makes threads with all signals blocked, so that the handler, which would tell, is not called. */
#define died_of_sigsys " and status 0x1f"

TEST(kinds_have_what_they_need_and_not_what_others_need)
{
    const struct confine_options options = {.has_jail = true};
    static const struct {
        attempt_function *attempt;
        const char *told[CONFINE_KINDS];
    } rows[] = {
        {open_a_file,
         {[CONFINE_CONTROL] = "EACCES",
          [CONFINE_DEVICE] = "refused openat device",
          [CONFINE_VCPU] = "refused openat vcpu",
          [CONFINE_FILES] = "EACCES",
          [CONFINE_DISK] = "refused openat disk",
          [CONFINE_ENGINE] = "EACCES",
          [CONFINE_NET] = "refused openat net",
          [CONFINE_TSI] = "refused openat tsi"}},
        {make_a_ring,
         {[CONFINE_CONTROL] = "refused io_uring_setup control",
          [CONFINE_DEVICE] = "refused io_uring_setup device",
          [CONFINE_VCPU] = "refused io_uring_setup vcpu",
          [CONFINE_FILES] = "refused io_uring_setup files",
          [CONFINE_ENGINE] = "refused io_uring_setup engine",
          [CONFINE_NET] = "refused io_uring_setup net",
          [CONFINE_TSI] = "refused io_uring_setup tsi"}},
        {be_somebody,
         {[CONFINE_CONTROL] = "refused setfsuid control",
          [CONFINE_DEVICE] = "refused setfsuid device",
          [CONFINE_VCPU] = "refused setfsuid vcpu",
          [CONFINE_FILES] = "done",
          [CONFINE_DISK] = "refused setfsuid disk",
          [CONFINE_ENGINE] = "refused setfsuid engine",
          [CONFINE_NET] = "refused setfsuid net",
          [CONFINE_TSI] = "refused setfsuid tsi"}},
        {signal_by_descriptor,
         {[CONFINE_CONTROL] = "EBADF",
          [CONFINE_DEVICE] = "refused pidfd_send_signal device",
          [CONFINE_VCPU] = "refused pidfd_send_signal vcpu",
          [CONFINE_FILES] = "refused pidfd_send_signal files",
          [CONFINE_DISK] = "refused pidfd_send_signal disk",
          [CONFINE_ENGINE] = "EBADF"}},
        {make_a_thread,
         {[CONFINE_CONTROL] = "done",
          [CONFINE_DEVICE] = died_of_sigsys,
          [CONFINE_VCPU] = died_of_sigsys,
          [CONFINE_FILES] = "done",
          [CONFINE_DISK] = "done",
          [CONFINE_ENGINE] = died_of_sigsys}},
    };
    if (!has_landlock())
        TEST_SKIP("this host has no Landlock");
    for (size_t i = 0; i < array_length(rows); i++)
        for (enum confine_kind kind = 0; kind < CONFINE_KINDS; kind++)
            if (rows[i].told[kind] != NULL)
                CHECK_TEXT(try_as(kind, rows[i].attempt, &options), rows[i].told[kind]);
}

/* ---- files ---- */

static long read_inside(void)
{
    return open("open/file", O_RDONLY | O_CLOEXEC);
}

static long write_inside(void)
{
    return open("open/new", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
}

static long move_inside(void)
{
    return renameat2(AT_FDCWD, "open/moved", AT_FDCWD, "open/below/moved", 0);
}

static long remove_inside(void)
{
    return unlinkat(AT_FDCWD, "open/removed", 0);
}

static long write_read_only(void)
{
    return open("closed/file", O_WRONLY | O_CLOEXEC);
}

static long read_read_only(void)
{
    return open("closed/file", O_RDONLY | O_CLOEXEC);
}

static long leave_by_link(void)
{
    return open("open/link", O_RDONLY | O_CLOEXEC);
}

static long leave_by_dots(void)
{
    return open("open/../other", O_RDONLY | O_CLOEXEC);
}

static long read_memory_of_init(void)
{
    return open("/proc/1/mem", O_RDWR | O_CLOEXEC);
}

static long move_outside(void)
{
    return renameat2(AT_FDCWD, "open/file", AT_FDCWD, "other.new", 0);
}

static long remove_empty_folder(void)
{
    return unlinkat(AT_FDCWD, "swept/empty", AT_REMOVEDIR);
}

static long remove_file_of_swept(void)
{
    return unlinkat(AT_FDCWD, "swept/file", 0);
}

static long reopen_by_descriptor(void)
{
    char path[64];
    int fd = open("open/file", O_PATH | O_CLOEXEC);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, O_RDWR | O_CLOEXEC);
}

static long reopen_outside_by_descriptor(void)
{
    char path[64];
    int fd = open("other", O_PATH | O_CLOEXEC); /* which opens nothing */
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static void make_files(void)
{
    test_text_file("open/file", "x");
    test_text_file("open/moved", "x");
    test_text_file("open/removed", "x");
    test_text_file("closed/file", "x");
    test_text_file("other", "x");
    test_text_file("swept/file", "x");
    test_make_folder("swept/empty");
    test_make_folder("open/below");
    int made = symlink("../other", "open/link");
    (void)made; /* a test that misses it fails */
}

TEST(files_are_those_of_the_sandbox)
{
    static const struct {
        attempt_function *attempt;
        enum confine_kind kind;
        const char *told;
    } rows[] = {
        {read_inside, CONFINE_FILES, "done"},
        {write_inside, CONFINE_FILES, "done"},
        {reopen_by_descriptor, CONFINE_FILES, "done"},
        {read_read_only, CONFINE_FILES, "done"},
        {write_read_only, CONFINE_FILES, "EACCES"},
        {leave_by_link, CONFINE_FILES, "EACCES"},
        {leave_by_dots, CONFINE_FILES, "EACCES"},
        {reopen_outside_by_descriptor, CONFINE_FILES, "EACCES"},
        {read_memory_of_init, CONFINE_FILES, "EACCES"},
        {read_memory_of_init, CONFINE_CONTROL, "EACCES"}, /* which may read /proc to stop a jail */
        {read_inside, CONFINE_CONTROL, "EACCES"},         /* a path of another kind */
        {read_read_only, CONFINE_CONTROL, "done"},        /* a path of all kinds */
        {remove_file_of_swept, CONFINE_ENGINE, "EACCES"},
        {remove_empty_folder, CONFINE_CONTROL, "EACCES"},
        {remove_empty_folder, CONFINE_ENGINE, "done"},
        {move_outside, CONFINE_FILES, "EACCES"},
        {move_inside, CONFINE_FILES, "done"},
        {remove_inside, CONFINE_FILES, "done"},
    };
    const struct confine_path paths[] = {
        {.path = "open", .may_write = true, .kinds = 1u << CONFINE_FILES},
        {.path = "closed"},
        {.path = "swept", .removes_folders = true, .kinds = 1u << CONFINE_ENGINE},
    };
    const struct confine_options options = {.paths = paths, .path_count = array_length(paths), .has_jail = true};
    if (!has_landlock())
        TEST_SKIP("this host has no Landlock");
    CHECK_INT(chdir(test_folder()), 0);
    make_files();
    for (size_t i = 0; i < array_length(rows); i++)
        CHECK_TEXT(try_as(rows[i].kind, rows[i].attempt, &options), rows[i].told);
    CHECK_INT(chdir("/"), 0);
}

/* ---- the home, as process_start.c opens it ---- */

static const char own_id[] = "0123456789ab", neighbour_id[] = "ba9876543210";
static struct home walled_home;

static long remove_sandbox(const char *id)
{
    int result = home_sandbox_remove(&walled_home, id);
    errno = -result;
    return result < 0 ? -1 : 0;
}

static long remove_own(void)
{
    return remove_sandbox(own_id);
}

static long remove_neighbour(void)
{
    return remove_sandbox(neighbour_id);
}

static long read_neighbour(void)
{
    return open("home/sandboxes/ba9876543210/lock", O_RDONLY | O_CLOEXEC);
}

static long list_neighbours(void)
{
    return open("home/sandboxes", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static long open_database(void)
{
    return open("home/vial.db", O_RDWR | O_CLOEXEC);
}

static long tell_event(void)
{
    home_event(&walled_home, "end", own_id, "web", "");
    return access("home/events/events.jsonl", F_OK);
}

TEST(of_the_home_a_process_has_its_folder_and_the_events)
{
    static const struct {
        attempt_function *attempt;
        const char *told;
    } rows[] = {
        {tell_event, "done"},      {read_neighbour, "EACCES"}, {list_neighbours, "EACCES"},
        {open_database, "EACCES"}, {remove_own, "done"},       {remove_neighbour, "EACCES"},
    };
    if (!has_landlock())
        TEST_SKIP("this host has no Landlock");
    CHECK_INT(chdir(test_folder()), 0);
    CHECK_INT(home_open("home", &walled_home, NULL), 0);
    test_text_file("home/vial.db", "x");
    auto_close int own = home_sandbox_make(&walled_home, own_id);
    auto_close int neighbour = home_sandbox_make(&walled_home, neighbour_id);
    auto_close int all = home_sandboxes_open(&walled_home), events = home_events_open(&walled_home);
    fd_close(home_sandbox_lock(own));
    fd_close(home_sandbox_lock(neighbour));
    const struct confine_path paths[] = {
        {.fd = own, .may_write = true, .kinds = 1u << CONFINE_CONTROL},
        {.fd = events, .may_write = true, .kinds = 1u << CONFINE_CONTROL},
        {.fd = all, .renames_folders = true, .kinds = 1u << CONFINE_CONTROL},
    };
    const struct confine_options options = {.paths = paths, .path_count = array_length(paths)};
    for (size_t i = 0; i < array_length(rows); i++)
        CHECK_TEXT(try_as(CONFINE_CONTROL, rows[i].attempt, &options), rows[i].told);
    CHECK_INT(home_sandbox_open(&walled_home, own_id), -ENOENT);
    CHECK_INT(chdir("/"), 0);
    home_close(&walled_home);
}

TEST(a_path_that_is_missing_is_an_error)
{
    const struct confine_path paths[] = {{.path = "/nowhere/at/all"}};
    const struct confine_options options = {.paths = paths, .path_count = 1};
    if (!has_landlock())
        TEST_SKIP("this host has no Landlock");
    const char *told = try_as(CONFINE_DEVICE, read_inside, &options);
    CHECK(strstr(told, "failed ENOENT a path of the sandbox cannot be kept open to it") == told);
}

/* ---- sockets ---- */

static struct sockaddr_un abstract_address;

static long send_to_abstract(void)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return fd < 0 ? -1 : sendto(fd, "x", 1, 0, (const void *)&abstract_address, sizeof(abstract_address));
}

TEST(abstract_sockets_of_the_host_are_out_of_reach)
{
    const struct confine_options options = {.needs_network = true}; /* or the namespace would do it */
    auto_close int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    abstract_address.sun_family = AF_UNIX;
    snprintf(abstract_address.sun_path + 1, sizeof(abstract_address.sun_path) - 1, "vial-test-%d", (int)getpid());
    CHECK_INT(bind(fd, (const void *)&abstract_address, sizeof(abstract_address)), 0);
    if (landlock_abi() < 6)
        TEST_SKIP("this host has no Landlock that knows abstract sockets");
    CHECK_TEXT(try_as(CONFINE_CONTROL, send_to_abstract, &options), "EPERM");
}

/* ---- capabilities ---- */

static uint64_t effective(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};
    syscall(SYS_capget, &header, data);
    return data[0].permitted | (uint64_t)data[1].permitted << 32 | data[0].inheritable;
}

static uint64_t expected_capabilities;

static long compare_capabilities(void)
{
    errno = EPERM;
    return effective() == expected_capabilities ? 0 : -1;
}

TEST(capabilities_are_what_the_configuration_needs)
{
    static const struct {
        uint8_t files;
        uint64_t kept;
    } rows[] = {
        {CONFINE_FILES_NONE, 0},
        {CONFINE_FILES_READ, 1u << CAP_DAC_READ_SEARCH},
        {CONFINE_FILES_WRITE, 1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH | 1u << CAP_FOWNER |
                                  1u << CAP_FSETID | 1u << CAP_SETGID | 1u << CAP_SETUID | 1u << CAP_SETFCAP},
    };
    uint64_t ours = effective(); /* an ordinary user's: none */
    for (size_t i = 0; i < array_length(rows); i++) {
        const struct confine_options options = {.files = rows[i].files};
        expected_capabilities = rows[i].kept & ours;
        CHECK_TEXT(try_as(CONFINE_FILES, compare_capabilities, &options), "done"); /* the one list with capget */
    }
}

/* ---- the process ---- */

static long be_asked(void)
{
    return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? 0 : -1;
}

TEST(what_a_thread_may_not_ask_ends_it_too)
{
    const struct confine_options options = {.has_jail = false};
    CHECK_TEXT(try_as(CONFINE_DEVICE, be_asked, &options), "refused prctl device");
}

/* In a child, as nothing of it can be undone. */
static int child_report(struct confine_report *ret_report, int *ret_status)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid == 0) {
        struct confine_report report = {.standing = "", .missing = ""};
        const struct confine_options options = {.needs_network = true};
        bool is_done = confine_process(&options, &report, NULL) == 0 && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 &&
                       write(ends[1], &report, sizeof(report)) == sizeof(report);
        _exit(is_done ? 0 : 1);
    }
    close(ends[1]);
    ssize_t got = read(ends[0], ret_report, sizeof(*ret_report));
    close(ends[0]);
    waitpid(pid, ret_status, 0);
    return got == sizeof(*ret_report) ? 0 : -EIO;
}

TEST(what_stands_is_told_and_what_is_missing)
{
    struct confine_report report;
    int status = 0;
    CHECK_INT(child_report(&report, &status), 0);
    CHECK_INT(status, 0);
    CHECK(strncmp(report.standing, "no_new_privs, ", 14) == 0 && strstr(report.standing, "seccomp") != NULL);
    CHECK(strstr(report.missing, "network namespace (the sandbox has a network)") != NULL);
    CHECK((strstr(report.standing, "IPC namespace") != NULL) == (geteuid() == 0));
    CHECK((strstr(report.missing, "IPC namespace (") != NULL) == (geteuid() != 0));
    CHECK((strstr(report.standing, "Landlock (ABI ") != NULL) == has_landlock());
}

/* ---- threads that enter a kind ---- */

static int entered[THREAD_KINDS], entering_result;

static int note_entering(enum thread_kind kind)
{
    entered[kind]++;
    return entering_result;
}

static void *enter_more(void *user)
{
    pthread_t thread;
    bool *is_right = user;
    *is_right = thread_own_kind() == THREAD_DISK;
    if (thread_start_as(THREAD_DISK, "same", do_nothing, NULL, &thread) == 0)
        pthread_join(thread, NULL);
    if (thread_start_as(THREAD_FILES, "other", do_nothing, NULL, &thread) == 0)
        pthread_join(thread, NULL);
    return NULL;
}

TEST(a_thread_enters_its_kind_once)
{
    bool is_right = false;
    pthread_t thread;
    memset(entered, 0, sizeof(entered));
    thread_on_enter(note_entering);
    entering_result = 0;
    int result = thread_start_as(THREAD_DISK, "first", enter_more, &is_right, &thread);
    if (result == 0)
        pthread_join(thread, NULL);
    entering_result = -EPERM;
    int refused = thread_start_as(THREAD_VCPU, "refused", do_nothing, NULL, &thread);
    int free_result = thread_start("free", do_nothing, NULL, &thread);
    if (free_result == 0)
        pthread_join(thread, NULL);
    thread_on_enter(NULL);
    CHECK_INT(result, 0);
    CHECK(is_right);
    CHECK_INT(entered[THREAD_DISK], 1);
    CHECK_INT(entered[THREAD_FILES], 1);
    CHECK_INT(refused, -EPERM);
    CHECK_INT(free_result, 0);
    CHECK_INT(thread_own_kind(), THREAD_ANY);
}
