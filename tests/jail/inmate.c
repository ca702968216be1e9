// SPDX-License-Identifier: Apache-2.0
/* Runs in a jail in the kernel's place and tries to get out: one attempt a run, named by the first argument.
 *
 * Exit status 0: the wall held, and errno said so. 1: it got through, or something else happened, which standard error
 * tells. A call that the filter forbids ends the process by SIGSYS instead, which the driver knows. System calls are
 * made raw where libc would make another one.
 *
 * Static and against musl, as there is nothing in the jail to load.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

static const char *argument; /* the second: what the driver wants to tell */

static long number(void)
{
    return strtol(argument, NULL, 10);
}

static int failed(const char *what, long got)
{
    fprintf(stderr, "%s: returned %ld, errno %d (%s)\n", what, got, errno, strerror(errno));
    return 1;
}

/* Held if the call failed with one of these. */
static int must_fail(const char *what, long got, int one, int other)
{
    return got < 0 && (errno == one || errno == other) ? 0 : failed(what, got);
}

static int try_open(const char *path, int flags, int one, int other)
{
    return must_fail(path, syscall(SYS_openat, AT_FDCWD, path, flags, 0600), one, other);
}

/* ---- files ---- */

static int files_of_the_host(void)
{
    static const char *const paths[] = {
        "/etc/passwd",
        "../../../../etc/passwd",
        "/proc/1/root/etc/passwd",
        "/proc/self/exe",
        "/proc/self/maps",
        "/proc/kallsyms",
        "/sys/kernel",
        "/dev/null",
        "/dev/kvm",
        "/tmp",
        "/run/dbus",
        "/proc/1/root",
        "/../usr",
        "/dev/shm",
        "/root",
    };
    int result = 0;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
        result |= try_open(paths[i], O_RDONLY, ENOENT, ENOENT);
    if (argument[0] != '\0')
        result |= try_open(argument, O_RDONLY, ENOENT, ENOENT);
    return result;
}

/* Of a jail without a root of its own: what Landlock leaves. */
static int other_folders(void)
{
    static const char *const paths[] = {"/etc", "/proc/self/maps", "/dev/null", "/dev/shm", "/", "/proc/1/root"};
    int result = 0;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
        result |= try_open(paths[i], O_RDONLY, EACCES, EACCES);
    return result;
}

static int list(const char *path, const char *expected)
{
    char names[256] = "";
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    if (folder == NULL)
        return failed(path, fd);
    size_t length = 0, count = 0;
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;)
        if (entry->d_name[0] != '.') {
            count++;
            if (strstr(expected, entry->d_name) == NULL)
                length += (size_t)snprintf(names + length, sizeof(names) - length, "%s ", entry->d_name);
        }
    size_t wanted = 0;
    for (const char *next = expected; (next = strchr(next, ' ')) != NULL; next++)
        wanted++;
    if (length == 0 && count == wanted)
        return 0;
    fprintf(stderr, "%s has %zu entries, among them: %s\n", path, count, names);
    return 1;
}

static int only_our_files(void)
{
    return list("/", "proc initrd socket run memory ") | list("/proc", "cpuinfo ") | list("/memory", "") |
           list("/run", "") | list("/socket", "0 ");
}

static int root_is_read_only(void)
{
    int result = try_open("/new", O_RDWR | O_CREAT | O_EXCL, EROFS, EACCES);
    result |= try_open("/initrd", O_RDWR, EROFS, EACCES);
    result |= try_open("/proc/cpuinfo", O_WRONLY, EROFS, EACCES);
    result |= must_fail("mkdir", mkdir("/new", 0700), EROFS, EACCES);
    result |= must_fail("unlink", unlink("/initrd"), EROFS, EACCES);
    result |= must_fail("unlink", unlink("/socket/0"), EROFS, EACCES);
    result |= must_fail("rmdir", rmdir("/run"), EROFS, EBUSY) != 0 &&
              must_fail("rmdir", rmdir("/run"), EACCES, EPERM) != 0;
    return result;
}

static int initramfs_is_whole(void)
{
    char bytes[64] = "";
    int fd = (int)syscall(SYS_openat, AT_FDCWD, "/initrd", O_RDONLY, 0);
    ssize_t got = read(fd, bytes, sizeof(bytes) - 1);
    return got == (ssize_t)strlen(argument) && strcmp(bytes, argument) == 0 ? 0 : failed("initrd", got);
}

static int cpuinfo_is_there(void)
{
    static char bytes[20000];
    int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/cpuinfo", O_RDONLY, 0);
    ssize_t got = read(fd, bytes, sizeof(bytes) - 1);
    const char *second = got > 0 ? strstr(bytes + 1, "processor\t") : NULL;
    return got > 0 && strstr(bytes, "flags") != NULL && second == NULL ? 0 : failed("cpuinfo", got);
}

static int only_three_descriptors(void)
{
    for (int fd = 0; fd < 8192; fd++)
        if ((fcntl(fd, F_GETFD) >= 0) != (fd < 3))
            return failed("descriptor", fd);
    return 0;
}

/* Writes until it fails; what has been written, or -1 if it did not end as it should. */
static long fill(int fd)
{
    static const char zeros[4096];
    long total = 0;
    for (;;) {
        ssize_t written = write(fd, zeros, sizeof(zeros));
        if (written < 0)
            return errno == ENOSPC || errno == EFBIG ? total : -1;
        total += written;
    }
}

static int memory_is_bounded(void)
{
    long most = number(); /* and no page more: it would be missing inside */
    int fd = (int)syscall(SYS_openat, AT_FDCWD, "/memory", O_RDWR | O_EXCL | O_CLOEXEC | O_TMPFILE, 0700);
    if (fd < 0)
        return failed("memory file", fd);
    long written = fill(fd);
    if (written != most)
        return failed("filling the memory", written);
    return must_fail("second file",
                     syscall(SYS_openat, AT_FDCWD, "/memory", O_RDWR | O_EXCL | O_CLOEXEC | O_TMPFILE, 0700), ENOSPC,
                     ENOSPC) |
           must_fail("second file", syscall(SYS_openat, AT_FDCWD, "/memory/a", O_RDWR | O_EXCL | O_CREAT, 0700), ENOSPC,
                     EACCES);
}

static int memory_can_be_executed(void)
{
    int fd = (int)syscall(SYS_openat, AT_FDCWD, "/memory", O_RDWR | O_EXCL | O_CLOEXEC | O_TMPFILE, 0700);
    void *page = write(fd, "", 1) == 1 ? mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED, fd, 0) : NULL;
    return page != NULL && page != MAP_FAILED ? 0 : failed("mmap", fd);
}

static int notes_are_bounded(void)
{
    int fd = (int)syscall(SYS_openat, AT_FDCWD, "/run/a", O_RDWR | O_CREAT | O_EXCL, 0600);
    long written = fd < 0 ? -1 : fill(fd);
    return written > 0 && written <= 16 << 10 ? 0 : failed("filling /run", written);
}

static int files_are_bounded(void)
{
    long most = number() + (1 << 20);
    int fd = (int)syscall(SYS_memfd_create, "big", 0x13);
    signal(SIGXFSZ, SIG_IGN);
    if (fd < 0 || lseek(fd, most, SEEK_SET) < 0)
        return failed("memfd", fd);
    return must_fail("write", write(fd, "", 1), EFBIG, EFBIG);
}

/* ---- processes ---- */

static int sees_no_processes(void)
{
    int stranger = (int)number();
    int result = must_fail("kill", kill(stranger, 0), ESRCH, ESRCH);
    result |= must_fail("kill everybody", kill(-1, SIGKILL), ESRCH, EPERM);
    if (getpid() != 1 || getppid() != 0)
        result |= failed("getpid", getpid());
    return result;
}

static int is_nobody(void)
{
    int result = 0;
    uid_t ids[] = {getuid(), geteuid(), getgid(), getegid()};
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
        if (ids[i] != 65534)
            result = failed("id", ids[i]);
    return result;
}

static int traces(void)
{
    return must_fail("ptrace", ptrace(PTRACE_ATTACH, (int)number(), 0, 0), EPERM, ESRCH);
}

static int reads_memory(void)
{
    char byte;
    struct iovec local = {&byte, 1}, remote = {&byte, 1};
    return must_fail("process_vm_readv", syscall(SYS_process_vm_readv, (int)number(), &local, 1, &remote, 1, 0), ESRCH,
                     EPERM);
}

static void *wait_for_ever(void *user)
{
    while (user == NULL)
        syscall(SYS_pause);
    return NULL;
}

static int threads_are_bounded(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 16384);
    long count = 0;
    int result;
    while ((result = pthread_create(&thread, &attributes, wait_for_ever, NULL)) == 0)
        count++;
    errno = result;
    if (result == EAGAIN && count > 1000 && count < 4096)
        return 0;
    return failed("threads", count);
}

static int limits_are_set(void)
{
    static const struct {
        int resource;
        rlim_t most;
    } limits[] = {{RLIMIT_CORE, 1}, {RLIMIT_NOFILE, 4096}, {RLIMIT_MEMLOCK, 0}, {RLIMIT_MSGQUEUE, 0},
                  {RLIMIT_NICE, 0}, {RLIMIT_RTPRIO, 0},    {RLIMIT_NPROC, 4096}};
    int result = 0;
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        struct rlimit limit;
        getrlimit(limits[i].resource, &limit);
        if (limit.rlim_cur > limits[i].most || limit.rlim_max > limits[i].most)
            result = failed("limit", limits[i].resource);
        limit.rlim_cur = limit.rlim_max = limits[i].most + 1;
        result |= must_fail("setrlimit", setrlimit(limits[i].resource, &limit), EPERM, EPERM);
    }
    return result;
}

/* 0 would hand dumps to the host's handler, which 1 keeps away from them (core(5)). */
static int dumps_stay_off(void)
{
    struct rlimit none = {0, 0};
    return must_fail("a lower limit", setrlimit(RLIMIT_CORE, &none), EPERM, EPERM);
}

static int signals_are_default(void)
{
    sigset_t blocked;
    sigprocmask(SIG_SETMASK, NULL, &blocked);
    for (int number = 1; number < 32; number++) {
        struct sigaction action;
        if (number == SIGKILL || number == SIGSTOP)
            continue;
        sigaction(number, NULL, &action);
        if (action.sa_handler != SIG_DFL || sigismember(&blocked, number))
            return failed("signal", number);
    }
    return 0;
}

/* A program of a few bytes that waits for ever: pause(2) in a loop. */
static const unsigned char pauser[] = {
    0x7f, 'E',  'L',  'F', 2,  1, 1,  0, 0,    0,  0,  0, 0, 0,    0,    0,    2,
    0,    62,   0,    1,   0,  0, 0, /* x86-64 executable */
    0x78, 0,    0x40, 0,   0,  0, 0,  0, 64,   0,  0,  0, 0, 0,    0,    0,    0,
    0,    0,    0,    0,   0,  0, 0,                                        /* entry, headers at 64 */
    0,    0,    0,    0,   64, 0, 56, 0, 1,    0,  64, 0, 0, 0,    0,    0, /* one of 56 bytes */
    1,    0,    0,    0,   5,  0, 0,  0, 0,    0,  0,  0, 0, 0,    0,    0,    0,
    0,    0x40, 0,    0,   0,  0, 0, /* loaded at 0x400000 */
    0,    0,    0x40, 0,   0,  0, 0,  0, 0x81, 0,  0,  0, 0, 0,    0,    0,    0x81,
    0,    0,    0,    0,   0,  0, 0,                                                 /* its length */
    0,    0x10, 0,    0,   0,  0, 0,  0, 0xb8, 34, 0,  0, 0, 0x0f, 0x05, 0xeb, 0xf7, /* the code */
};

static void *become_pauser(void *user)
{
    (void)user;
    int fd = (int)syscall(SYS_memfd_create, "pauser", 0x13);
    char *const none[] = {(char *)(uintptr_t) "pauser", NULL};
    if (write(fd, pauser, sizeof(pauser)) == sizeof(pauser)) {
        printf("waiting\n");
        fflush(stdout);
        syscall(SYS_execveat, fd, "", none, none + 1, AT_EMPTY_PATH);
    }
    return NULL;
}

/* Loses its death signal: exec by a thread that has none (see jail_guardian.c). */
static int loses_death_signal(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, become_pauser, NULL);
    wait_for_ever(NULL);
    return failed("exec", -1);
}

static int waits(void)
{
    printf("waiting\n");
    fflush(stdout);
    wait_for_ever(NULL);
    return 1;
}

/* Ends by the control group, or when there is no more of what it wants. */
static int eats_memory(void)
{
    enum { bite = 1 << 20 };
    for (long most = number(); most > 0; most--) {
        char *memory = mmap(NULL, bite, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            return 2;
        memset(memory, 1, bite);
    }
    return 0;
}

/* Uses its CPU in one thread and waits in another; for pausing. */
static int spins(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, wait_for_ever, NULL);
    printf("waiting\n");
    fflush(stdout);
    for (volatile unsigned long count = 1; count != 0; count++)
        ;
    return 1;
}

/* ---- network ---- */

static int connects_to_loopback(void)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)number()), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return must_fail("connect", connect(fd, (struct sockaddr *)&address, sizeof(address)), ENETUNREACH, EACCES);
}

static int unix_connect(const char *path, bool is_abstract, int *ret_fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path + is_abstract, sizeof(address.sun_path) - is_abstract, "%s", path);
    *ret_fd = socket(AF_UNIX, SOCK_STREAM, 0);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + is_abstract + strlen(path));
    return connect(*ret_fd, (struct sockaddr *)&address, length);
}

static int connects_abstract(void)
{
    int fd;
    return must_fail("connect", unix_connect(argument, true, &fd), ECONNREFUSED, EPERM);
}

static int connects_to_path(void)
{
    int fd;
    return must_fail("connect", unix_connect(argument, false, &fd), ENOENT, ENOENT);
}

/* The one thing that must work. */
static int talks_to_device(void)
{
    int fd;
    char answer = 0;
    if (unix_connect(getenv("DEVICE"), false, &fd) < 0 || write(fd, "?", 1) != 1 || read(fd, &answer, 1) != 1)
        return failed("connect", fd);
    return answer == '!' ? 0 : failed("answer", answer);
}

/* ---- calls ---- */

/* System calls with harmless arguments; the filter ends the process before it looks at them. */
static const struct {
    const char *name;
    long number, arguments[5];
    int without_filter; /* an errno that another wall gives, or 0: the filter is the only one */
} calls[] = {
    {"mount", SYS_mount, {0, 0, 0, 0, 0}, 0},
    {"move_mount", SYS_move_mount, {-1, 0, -1, 0, 0}, EPERM},
    {"open_tree", SYS_open_tree, {AT_FDCWD, 0, 1, 0, 0}, EPERM},
    {"fsopen", SYS_fsopen, {0, 0, 0, 0, 0}, EPERM},
    {"umount2", SYS_umount2, {0, 0, 0, 0, 0}, 0},
    {"pivot_root", SYS_pivot_root, {0, 0, 0, 0, 0}, 0},
    {"chroot", SYS_chroot, {(long)"/run", 0, 0, 0, 0}, EPERM},
    {"unshare", SYS_unshare, {CLONE_NEWNS, 0, 0, 0, 0}, EPERM},
    {"unshare-user", SYS_unshare, {CLONE_NEWUSER, 0, 0, 0, 0}, 0},
    {"setns", SYS_setns, {0, 0, 0, 0, 0}, EINVAL},
    {"clone-user", SYS_clone, {CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0}, 0},
    {"clone-fork", SYS_clone, {SIGCHLD, 0, 0, 0, 0}, 0},
    {"fork", SYS_fork, {0}, 0},
    {"mknodat", SYS_mknodat, {AT_FDCWD, (long)"/run/n", S_IFBLK | 0600, 1 << 8, 0}, EACCES},
    {"setuid", SYS_setuid, {0}, EINVAL},
    {"setresuid", SYS_setresuid, {0}, EINVAL},
    {"setresgid", SYS_setresgid, {0}, EINVAL},
    {"setgroups", SYS_setgroups, {0}, EPERM},
    {"capset", SYS_capset, {0}, 0},
    {"bpf", SYS_bpf, {0}, 0},
    {"perf_event_open", SYS_perf_event_open, {0}, 0},
    {"io_uring_setup", SYS_io_uring_setup, {0}, 0},
    {"userfaultfd", SYS_userfaultfd, {0}, 0},
    {"keyctl", SYS_keyctl, {0}, 0},
    {"add_key", SYS_add_key, {0}, 0},
    {"request_key", SYS_request_key, {0}, 0},
    {"open_by_handle_at", SYS_open_by_handle_at, {AT_FDCWD, 0, 0, 0, 0}, 0},
    {"name_to_handle_at", SYS_name_to_handle_at, {AT_FDCWD, 0, 0, 0, 0}, 0},
    {"ftruncate", SYS_ftruncate, {1, 0, 0, 0, 0}, 0},
    {"truncate", SYS_truncate, {(long)"/proc/cpuinfo", 0, 0, 0, 0}, EACCES},
    {"fallocate", SYS_fallocate, {1, 0, 0, 1, 0}, 0},
    {"memfd-huge", SYS_memfd_create, {(long)"a", 4, 0, 0, 0}, 0},
    {"memfd-plain", SYS_memfd_create, {(long)"a", 0, 0, 0, 0}, 0},
    {"memfd_secret", 447, {0}, 0},
    {"mmap-huge", SYS_mmap, {0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1}, 0},
    {"open-create", SYS_openat, {AT_FDCWD, (long)"/run/x", O_CREAT | O_RDWR, 0600, 0}, 0},
    {"open-truncate", SYS_openat, {AT_FDCWD, (long)"/proc/cpuinfo", O_RDWR | O_TRUNC, 0, 0}, EROFS},
    {"open-old", SYS_open, {(long)"/proc/cpuinfo", O_RDONLY, 0, 0, 0}, 0},
    {"openat2", SYS_openat2, {0}, 0},
    {"netlink", SYS_socket, {AF_NETLINK, SOCK_RAW, 0, 0, 0}, 0},
    {"vsock", SYS_socket, {AF_VSOCK, SOCK_STREAM, 0, 0, 0}, 0},
    {"packet", SYS_socket, {AF_PACKET, SOCK_RAW, 0, 0, 0}, EPERM},
    {"unix-datagram", SYS_socket, {AF_UNIX, SOCK_DGRAM, 0, 0, 0}, 0},
    {"inet-pair", SYS_socketpair, {AF_INET, SOCK_STREAM, 0, 0, 0}, 0},
    {"bind", SYS_bind, {0}, 0},
    {"listen", SYS_listen, {0}, 0},
    {"accept4", SYS_accept4, {0}, 0},
    {"setsockopt", SYS_setsockopt, {0}, 0},
    {"sendto", SYS_sendto, {0}, 0},
    {"process_madvise", SYS_process_madvise, {0}, 0},
    {"pidfd_open", SYS_pidfd_open, {1, 0, 0, 0, 0}, 0},
    {"pidfd_getfd", SYS_pidfd_getfd, {0}, 0},
    {"kcmp", SYS_kcmp, {1, 1, 0, 0, 0}, 0},
    {"inject", SYS_ioctl, {0, TIOCSTI, (long)"x", 0, 0}, 0},
    {"own-terminal", SYS_ioctl, {0, TIOCSCTTY, 0, 0, 0}, 0},
    {"async", SYS_ioctl, {0, FIOASYNC, 0, 0, 0}, 0},
    {"pipe-size", SYS_fcntl, {1, F_SETPIPE_SZ, 1 << 20, 0, 0}, 0},
    {"lease", SYS_fcntl, {0, F_SETLEASE, 0, 0, 0}, 0},
    {"no-death-signal", SYS_prctl, {PR_SET_PDEATHSIG, 0, 0, 0, 0}, 0},
    {"subreaper", SYS_prctl, {PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0}, 0},
    {"dumpable", SYS_prctl, {PR_SET_DUMPABLE, 1, 0, 0, 0}, 0},
    {"personality", SYS_personality, {0}, 0},
    {"listener", SYS_seccomp, {1, 8, 0, 0, 0}, 0},
    {"strict", SYS_seccomp, {0}, 0},
    {"sethostname", SYS_sethostname, {(long)"a", 1, 0, 0, 0}, EPERM},
    {"setpgid", SYS_setpgid, {0}, 0},
    {"reboot", SYS_reboot, {0}, EPERM},
    {"init_module", SYS_init_module, {0}, 0},
    {"finit_module", SYS_finit_module, {0}, 0},
    {"kexec_load", SYS_kexec_load, {0}, 0},
    {"swapon", SYS_swapon, {0}, 0},
    {"syslog", SYS_syslog, {2, 0, 0, 0, 0}, EPERM},
    {"acct", SYS_acct, {0}, 0},
    {"settimeofday", SYS_settimeofday, {0}, EPERM},
    {"clock_settime", SYS_clock_settime, {0}, 0},
    {"iopl", SYS_iopl, {3, 0, 0, 0, 0}, 0},
    {"modify_ldt", SYS_modify_ldt, {0}, 0},
    {"shmget", SYS_shmget, {0, 4096, 01600, 0, 0}, 0},
    {"msgget", SYS_msgget, {0}, 0},
    {"mq_open", SYS_mq_open, {0}, 0},
    {"inotify_init1", SYS_inotify_init1, {0}, 0},
    {"fanotify_init", SYS_fanotify_init, {0}, 0},
    {"futex-pi", SYS_futex, {0, 6, 0, 0, 0}, 0},
    {"futex-requeue", SYS_futex, {0, 3, 0, 0, 0}, 0},
    {"mlock", SYS_mlock, {0}, 0},
    {"splice", SYS_splice, {0}, 0},
    {"vmsplice", SYS_vmsplice, {0}, 0},
    {"chmod", SYS_chmod, {(long)"/proc/cpuinfo", 0777, 0, 0, 0}, EROFS},
    {"rename", SYS_rename, {(long)"/proc/cpuinfo", (long)"/i", 0, 0, 0}, EROFS},
    {"link", SYS_link, {(long)"/proc/cpuinfo", (long)"/i", 0, 0, 0}, EROFS},
    {"symlink", SYS_symlink, {(long)"a", (long)"/run/i", 0, 0, 0}, EACCES},
    {"landlock", SYS_landlock_create_ruleset, {0}, 0},
    {"x32", 0x40000000 | SYS_getpid, {0}, ENOSYS},
};

static int make_call(const char *name)
{
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        if (strcmp(calls[i].name, name) != 0)
            continue;
        const long *a = calls[i].arguments;
        long got = syscall(calls[i].number, a[0], a[1], a[2], a[3], a[4]);
        if (got == 0 && calls[i].number == SYS_clone)
            _exit(0);
        return must_fail(name, got, calls[i].without_filter, calls[i].without_filter);
    }
    fprintf(stderr, "there is no attempt %s\n", name);
    return 2;
}

/* Names of calls, one a line; with "walls", only those that something behind the filter forbids as well. */
static int list_calls(void)
{
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
        if (argument[0] == '\0' || calls[i].without_filter != 0)
            printf("%s\n", calls[i].name);
    return 0;
}

static int thirty_two_bits(void)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
    return failed("a 32-bit call", result);
}

static int refused_calls(void)
{
    char *const none[] = {NULL};
    int result = must_fail("execve", syscall(SYS_execve, "/initrd", none, none), EPERM, EPERM);
    result |= must_fail("clone3", syscall(SYS_clone3, NULL, 0), ENOSYS, ENOSYS);
    result |= must_fail("setsid", syscall(SYS_setsid), EPERM, EPERM);
    result |= must_fail("kill", syscall(SYS_kill, 1, SIGABRT), EPERM, EPERM);
    return result;
}

static int has_no_capabilities(void)
{
    struct {
        uint32_t version;
        int pid;
    } header = {0x20080522, 0}; /* capget(2), version 3 */
    struct {
        uint32_t effective, permitted, inheritable;
    } sets[2] = {{0, 0, 0}};
    if (syscall(SYS_capget, &header, sets) < 0)
        return failed("capget", -1);
    for (int i = 0; i < 2; i++)
        if ((sets[i].effective | sets[i].permitted | sets[i].inheritable) != 0)
            return failed("capabilities", i);
    for (long capability = 0; capability < 41; capability++)
        if (prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1)
            return failed("bounding set", capability);
    int securebits = prctl(PR_GET_SECUREBITS, 0, 0, 0, 0);
    return (securebits & 3) == 3 && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? 0 : failed("securebits", securebits);
}

/* ---- */

static int works(void)
{
    return 0;
}

static const struct {
    const char *name;
    int (*run)(void);
} attempts[] = {
    {"works", works},
    {"list-calls", list_calls},
    {"files-of-the-host", files_of_the_host},
    {"other-folders", other_folders},
    {"only-our-files", only_our_files},
    {"root-is-read-only", root_is_read_only},
    {"initramfs-is-whole", initramfs_is_whole},
    {"cpuinfo-is-there", cpuinfo_is_there},
    {"only-three-descriptors", only_three_descriptors},
    {"memory-is-bounded", memory_is_bounded},
    {"memory-can-be-executed", memory_can_be_executed},
    {"notes-are-bounded", notes_are_bounded},
    {"files-are-bounded", files_are_bounded},
    {"sees-no-processes", sees_no_processes},
    {"is-nobody", is_nobody},
    {"traces", traces},
    {"reads-memory", reads_memory},
    {"threads-are-bounded", threads_are_bounded},
    {"limits-are-set", limits_are_set},
    {"dumps-stay-off", dumps_stay_off},
    {"signals-are-default", signals_are_default},
    {"loses-death-signal", loses_death_signal},
    {"waits", waits},
    {"eats-memory", eats_memory},
    {"spins", spins},
    {"connects-to-loopback", connects_to_loopback},
    {"connects-abstract", connects_abstract},
    {"connects-to-path", connects_to_path},
    {"talks-to-device", talks_to_device},
    {"thirty-two-bits", thirty_two_bits},
    {"refused-calls", refused_calls},
    {"has-no-capabilities", has_no_capabilities},
};

int main(int argc, char *argv[])
{
    argument = argc > 2 ? argv[2] : "";
    for (size_t i = 0; argc > 1 && i < sizeof(attempts) / sizeof(attempts[0]); i++)
        if (strcmp(attempts[i].name, argv[1]) == 0)
            return attempts[i].run();
    return make_call(argc > 1 ? argv[1] : "");
}
