// SPDX-License-Identifier: Apache-2.0
/* Signals: every one of them, queued ones with their values, faults of arithmetic, stopping and going on. */
#include "part.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { queue_count = 32, last_signal = 64 };

static volatile sig_atomic_t seen[last_signal + 1];
static volatile sig_atomic_t values, value_count;

static void count_signal(int number)
{
    seen[number]++;
}

static bool is_usable(int number)
{
    return number != SIGKILL && number != SIGSTOP && !(number >= 32 && number < 35); /* the C library's own */
}

/* Each arrives once, by kill and by raise, and also those that user-mode kernels use for themselves. */
static bool all_arrive(void)
{
    struct sigaction action = {.sa_handler = count_signal};
    for (int number = 1; number <= last_signal; number++) {
        if (!is_usable(number))
            continue;
        if (sigaction(number, &action, NULL) < 0)
            return complain("a handler of signal %d", number);
        kill(getpid(), number);
        raise(number);
        if (seen[number] != 2)
            return complain("signal %d came %d times, not twice", number, seen[number]);
    }
    return true;
}

static char alternate[64 << 10];
static bool was_on_alternate;

static void look_at_stack(int number)
{
    char here;
    (void)number;
    was_on_alternate = &here >= alternate && &here < alternate + sizeof(alternate);
}

static bool alternate_stack(void)
{
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof(alternate)};
    struct sigaction action = {.sa_handler = look_at_stack, .sa_flags = SA_ONSTACK};
    sigaltstack(&stack, NULL);
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    return expect(was_on_alternate);
}

static bool masks_hold(void)
{
    sigset_t set, pending;
    struct sigaction action = {.sa_handler = count_signal};
    sigaction(SIGUSR2, &action, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int before = seen[SIGUSR2];
    kill(getpid(), SIGUSR2);
    sigpending(&pending);
    bool is_good = expect(seen[SIGUSR2] == before) && expect(sigismember(&pending, SIGUSR2) == 1);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    return expect(seen[SIGUSR2] == before + 1) && is_good;
}

/* A timer's signal breaks a read off, or does not, as asked. */
static bool reads_are_interrupted(void)
{
    int ends[2];
    char byte;
    struct sigaction action = {.sa_handler = count_signal};
    struct itimerval timer = {.it_value.tv_usec = 20000};
    if (pipe(ends) < 0)
        return complain("pipe");
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
    return expect(read(ends[0], &byte, 1) < 0 && errno == EINTR);
}

/* A handler while the program computes: it goes on as if nothing had been. */
static bool computing_is_interrupted(void)
{
    struct itimerval timer = {.it_interval.tv_usec = 10000, .it_value.tv_usec = 10000}, none = {0};
    int before = seen[SIGALRM];
    uint64_t a = 1, b = 1;
    setitimer(ITIMER_REAL, &timer, NULL);
    while (seen[SIGALRM] < before + 10) {
        a = a * 6364136223846793005 + 1442695040888963407;
        b = b * 6364136223846793005 + 1442695040888963407;
        if (a != b)
            break;
    }
    setitimer(ITIMER_REAL, &none, NULL);
    errno = 0;
    return expect(a == b);
}

bool part_signals(void)
{
    bool is_good = all_arrive() && alternate_stack() && masks_hold() && reads_are_interrupted() &&
                   computing_is_interrupted();
    return is_good;
}

static void take_value(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    if (info->si_code == SI_QUEUE && info->si_value.sival_int == value_count)
        values++;
    value_count++;
}

/* Real-time signals queue, in their order, with what was sent along. */
bool part_queued(void)
{
    sigset_t set;
    struct sigaction action = {.sa_sigaction = take_value, .sa_flags = SA_SIGINFO};
    sigaction(SIGRTMIN + 1, &action, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    for (int i = 0; i < queue_count; i++)
        if (sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i}) < 0)
            return complain("sigqueue %d", i);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    return expect(value_count == queue_count) && expect(values == queue_count);
}

bool part_stopping(void)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    kill(child, SIGSTOP);
    bool is_good = expect(waitpid(child, &status, WUNTRACED) == child) && expect(WIFSTOPPED(status));
    kill(child, SIGCONT);
    is_good &= expect(waitpid(child, &status, WCONTINUED) == child) && expect(WIFCONTINUED(status));
    kill(child, SIGTERM);
    siginfo_t info = {0};
    is_good &= expect(waitid(P_PID, (id_t)child, &info, WEXITED) == 0) && expect(info.si_code == CLD_KILLED) &&
               expect(info.si_status == SIGTERM);
    return is_good;
}

static sigjmp_buf before;
static volatile int code;

static void catch (int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    code = info->si_code;
    siglongjmp(before, 1);
}

static int code_of_division(void)
{
    volatile int zero = 0, one = 1;
    if (sigsetjmp(before, 1) == 0)
        one = one / zero; // NOLINT: what is tested
    return code;
}

static int code_of_nonsense(void)
{
    code = 0;
    if (sigsetjmp(before, 1) == 0)
        __asm__ volatile("ud2");
    return code;
}

static bool traps(void)
{
    static const int ends[] = {SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGSEGV};
    for (unsigned i = 0; i < length_of(ends); i++) {
        pid_t child = fork();
        if (child == 0) {
            signal(ends[i], SIG_DFL);
            if (ends[i] == SIGILL)
                __asm__ volatile("ud2");
            else if (ends[i] == SIGTRAP)
                __asm__ volatile("int3");
            else if (ends[i] == SIGSEGV)
                __asm__ volatile("hlt"); /* privileged */
            raise(ends[i]);
            _exit(0);
        }
        if (status_of(child) != 128 + ends[i])
            return complain("a child that signal %d was to end", ends[i]);
    }
    return true;
}

bool part_arithmetic(void)
{
    struct sigaction action = {.sa_sigaction = catch, .sa_flags = SA_SIGINFO};
    sigaction(SIGFPE, &action, NULL);
    sigaction(SIGILL, &action, NULL);
    return expect(code_of_division() == FPE_INTDIV) && expect(code_of_nonsense() == ILL_ILLOPN) && traps();
}
