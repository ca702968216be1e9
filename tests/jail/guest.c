// SPDX-License-Identifier: Apache-2.0
/* The first process of a guest that makes its kernel do everything a guest's kernel does with the host: processes that
 * come and go, threads, faults, signals, memory that is mapped, changed and given back, calls that the jail's filter
 * forbids to the kernel but that are the guest's own business.
 *
 * `do=` on the kernel's command line says what comes then: off, reboot, halt, panic, loop.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int failures;

static void check(int is_good, const char *what)
{
    if (is_good)
        return;
    printf("failed: %s, errno %d\n", what, errno);
    failures++;
}

static int end_of(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

static void processes(void)
{
    char *const arguments[] = {(char *)(uintptr_t) "/init", (char *)(uintptr_t) "child", NULL};
    pid_t many[100];
    for (int i = 0; i < 200; i++) {
        pid_t pid = i % 2 == 0 ? fork() : 0;
        if (i % 2 == 1)
            check(posix_spawn(&pid, "/init", NULL, NULL, arguments, arguments + 2) == 0, "posix_spawn");
        else if (pid == 0)
            _exit(execv("/init", arguments));
        check(WEXITSTATUS(end_of(pid)) == 42, "exec");
    }
    for (size_t i = 0; i < sizeof(many) / sizeof(many[0]); i++)
        if ((many[i] = fork()) == 0)
            for (;;)
                pause();
    for (size_t i = 0; i < sizeof(many) / sizeof(many[0]); i++) {
        kill(many[i], i % 2 == 0 ? SIGKILL : SIGTERM);
        check(WIFSIGNALED(end_of(many[i])), "kill");
    }
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static long counter;

static void *count(void *user)
{
    for (int i = 0; i < 2000; i++) {
        pthread_mutex_lock(&mutex);
        counter++;
        if (i % 50 == 0)
            sched_yield();
        pthread_mutex_unlock(&mutex);
    }
    return user;
}

static void threads(void)
{
    pthread_t list[16];
    for (int round = 0; round < 4; round++) {
        for (size_t i = 0; i < 16; i++)
            check(pthread_create(&list[i], NULL, count, NULL) == 0, "pthread_create");
        for (size_t i = 0; i < 16; i++)
            pthread_join(list[i], NULL);
    }
    check(counter == 4 * 16 * 2000, "the threads' sum");
}

static sigjmp_buf after_fault;
static volatile sig_atomic_t signals_seen;

static void leave_fault(int number)
{
    siglongjmp(after_fault, number);
}

static void count_signal(int number)
{
    (void)number;
    signals_seen++;
}

static void faults(void)
{
    static const int kinds[] = {SIGSEGV, SIGFPE, SIGILL, SIGBUS, SIGTRAP, SIGSYS};
    static char stack[65536];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
    struct sigaction action = {.sa_handler = leave_fault, .sa_flags = SA_ONSTACK};
    sigaltstack(&alternate, NULL);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        sigaction(kinds[i], &action, NULL);
    for (int i = 0; i < 50; i++) {
        int got = sigsetjmp(after_fault, 1);
        if (got == 0)
            *(volatile int *)(uintptr_t)(16 + (unsigned)i) = 1;
        check(got == SIGSEGV, "SIGSEGV");
        got = sigsetjmp(after_fault, 1);
        if (got == 0)
            __asm__ volatile("ud2");
        check(got == SIGILL, "SIGILL");
        got = sigsetjmp(after_fault, 1);
        if (got == 0)
            __asm__ volatile("xor %%ecx, %%ecx; xor %%edx, %%edx; mov $1, %%eax; div %%ecx" ::: "eax", "ecx", "edx");
        check(got == SIGFPE, "SIGFPE");
    }
    action.sa_handler = count_signal;
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
    for (int i = 0; i < 1000; i++)
        raise(SIGUSR1);
    check(signals_seen == 1000, "SIGUSR1");
    struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &often, NULL);
    while (signals_seen < 1010)
        ;
    setitimer(ITIMER_REAL, &never, NULL);
}

static void memory(void)
{
    enum { size = 8 << 20 };
    for (int i = 0; i < 20; i++) {
        char *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        check(pages != MAP_FAILED, "mmap");
        for (size_t at = 0; at < size; at += 4096)
            pages[at] = (char)at;
        check(mprotect(pages, size / 2, PROT_READ) == 0, "mprotect");
        check(munmap(pages + size / 4, 4096) == 0, "munmap");
        char *moved = mremap(pages + size / 2, size / 2, size, MREMAP_MAYMOVE);
        check(moved != MAP_FAILED, "mremap");
        check(madvise(moved, size, MADV_DONTNEED) == 0, "madvise");
        pid_t pid = fork(); /* all of it copied on write */
        if (pid == 0) {
            memset(moved, 1, size);
            _exit(moved[size - 1]);
        }
        check(WEXITSTATUS(end_of(pid)) == 1, "copy on write");
        munmap(moved, size);
        munmap(pages, size / 2);
    }
    int fd = open("/tmp/file", O_RDWR | O_CREAT, 0600);
    check(ftruncate(fd, size) == 0, "ftruncate");
    char *shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    memset(shared, 7, size);
    check(ftruncate(fd, 0) == 0, "ftruncate to nothing");
    int got = sigsetjmp(after_fault, 1);
    if (got == 0)
        *(volatile char *)shared = 1;
    check(got == SIGBUS, "SIGBUS");
    munmap(shared, size);
    close(fd);
}

/* Calls that the filter answers in the kernel's own processes: here they are the guest's. */
static void own_business(void)
{
    check(mount("none", "/tmp", "tmpfs", 0, NULL) == 0, "mount");
    check(umount("/tmp") == 0, "umount");
    pid_t pid = fork();
    if (pid == 0)
        _exit(unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET) == 0 && chroot("/tmp") == 0 ? 7 : errno);
    check(WEXITSTATUS(end_of(pid)) == 7, "unshare and chroot");
    check(syscall(SYS_bpf, 0, 0, 0) < 0, "bpf");
    check(syscall(SYS_userfaultfd, 0) >= 0 || errno != EPERM, "userfaultfd");
    check(syscall(SYS_keyctl, 0, -3, 0, 0, 0) > 0, "keyctl");
    check(syscall(SYS_io_uring_setup, 1, NULL) < 0 && errno == EFAULT, "io_uring_setup");
    check(syscall(SYS_memfd_create, "a", 0) >= 0, "memfd_create");
    check(syscall(SYS_mknodat, AT_FDCWD, "/tmp/null", S_IFCHR | 0600, 0x103) == 0, "mknod");
    pid = fork();
    if (pid == 0) {
        check(setresgid(5, 5, 5) == 0 && setresuid(5, 5, 5) == 0 && setuid(0) < 0, "setresuid");
        _exit(failures);
    }
    check(WEXITSTATUS(end_of(pid)) == 0, "other ids");
    pid = fork();
    if (pid == 0) {
        long result = syscall(0x40000000 | SYS_getpid);
        __asm__ volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
        _exit(0);
    }
    end_of(pid); /* whatever becomes of it: the kernel lives */
    pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        _exit(9);
    }
    check(WIFSTOPPED(end_of(pid)), "traced child stops");
    for (int i = 0; i < 20; i++) {
        ptrace(PTRACE_SINGLESTEP, pid, 0, 0);
        check(WIFSTOPPED(end_of(pid)), "single step");
    }
    ptrace(PTRACE_CONT, pid, 0, 0);
    check(WEXITSTATUS(end_of(pid)) == 9, "traced child ends");
}

static void descriptors(void)
{
    int pair[2], epoll = epoll_create1(0), event = eventfd(0, 0), timer = timerfd_create(CLOCK_MONOTONIC, 0);
    struct itimerspec soon = {{0, 1000000}, {0, 1000000}};
    static char bytes[65536];
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
    timerfd_settime(timer, 0, &soon, NULL);
    const int all[] = {pair[1], event, timer};
    for (size_t i = 0; i < 3; i++) {
        struct epoll_event wanted = {.events = EPOLLIN, .data.fd = all[i]};
        check(epoll_ctl(epoll, EPOLL_CTL_ADD, all[i], &wanted) == 0, "epoll_ctl");
    }
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 0; i < 100; i++)
            check(write(pair[0], bytes, sizeof(bytes)) == sizeof(bytes) && write(event, "1234567", 8) == 8, "write");
        _exit(failures);
    }
    long left = 100L * (long)sizeof(bytes);
    while (left > 0) {
        struct epoll_event ready;
        check(epoll_wait(epoll, &ready, 1, 10000) == 1, "epoll_wait");
        ssize_t got = read(ready.data.fd, bytes, ready.data.fd == pair[1] ? sizeof(bytes) : 8);
        left -= ready.data.fd == pair[1] ? got : 0;
    }
    check(WEXITSTATUS(end_of(pid)) == 0, "the writer");
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void measure_calls(void)
{
    enum { calls = 100000, forks = 200 };
    double start = seconds();
    for (int i = 0; i < calls; i++)
        syscall(SYS_getppid);
    printf("time: a system call %.2f us\n", (seconds() - start) / calls * 1e6);
    start = seconds();
    for (int i = 0; i < forks; i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        end_of(pid);
    }
    printf("time: a fork %.0f us\n", (seconds() - start) / forks * 1e6);
}

static void finish(const char *what)
{
    if (strcmp(what, "off") == 0)
        reboot(RB_POWER_OFF);
    else if (strcmp(what, "reboot") == 0)
        reboot(RB_AUTOBOOT);
    else if (strcmp(what, "halt") == 0)
        reboot(RB_HALT_SYSTEM);
    for (long i = 0; strcmp(what, "loop") == 0; i++)
        printf("loop %ld\n", i);
}

int main(int argc, char *argv[])
{
    if (argc > 1 && strcmp(argv[1], "child") == 0)
        return 42;
    const char *what = getenv("do"), *quick = getenv("quick");
    setvbuf(stdout, NULL, _IOLBF, 0);
    mkdir("/tmp", 0777);
    printf("guest: begins\n");
    if (quick == NULL) {
        processes();
        threads();
        faults();
        memory();
        own_business();
        descriptors();
    }
    if (quick == NULL || strcmp(quick, "time") == 0)
        measure_calls();
    printf("guest: %s\n", failures == 0 ? "all is well" : "something failed");
    finish(what != NULL ? what : "off");
    return 1; /* the first process has ended: a panic */
}
