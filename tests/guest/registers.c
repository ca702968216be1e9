// SPDX-License-Identifier: Apache-2.0
/* Registers of floating point and vectors: they are a thread's own, through switches between threads, processes and
 * CPUs, and through signal handlers that use them too.
 *
 * Each thread fills all sixteen with a pattern of its own, lets others run, and compares. 256 bits where the CPU has
 * AVX and the kernel saves it (Intel SDM 1, 14.3), else 128.
 */
#include "part.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

enum { rounds = 300, registers = 16, width = 32, most_threads = 8 };

static bool has_avx;
static volatile sig_atomic_t interruptions;

struct vectors {
    _Alignas(width) unsigned char bytes[registers][width];
};

#define EACH(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) op(14) op(15)
#define LOAD_AVX(n) "vmovdqu " #n "*32(%0), %%ymm" #n "\n"
#define SAVE_AVX(n) "vmovdqu %%ymm" #n ", " #n "*32(%1)\n"
#define LOAD_SSE(n) "movdqu " #n "*32(%0), %%xmm" #n "\n"
#define SAVE_SSE(n) "movdqu %%xmm" #n ", " #n "*32(%1)\n"
#define CLOBBERS                                                                                                       \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",         \
        "xmm13", "xmm14", "xmm15", "rax", "rcx", "rdi", "r8", "r9", "r11", "cc", "memory"

/* Nothing may come between loading and saving but the system call and a computation, so they are one statement. */
#define YIELD                                                                                                          \
    "mov $24, %%eax\n" /* sched_yield */                                                                               \
    "syscall\n"                                                                                                        \
    "mov $20000, %%edi\n"                                                                                              \
    "1: dec %%edi\n"                                                                                                   \
    "jnz 1b\n"

static void through_avx(const struct vectors *in, struct vectors *out)
{
    __asm__ volatile(EACH(LOAD_AVX) YIELD EACH(SAVE_AVX) "vzeroupper\n" ::"r"(in), "r"(out) : CLOBBERS);
}

static void through_sse(const struct vectors *in, struct vectors *out)
{
    __asm__ volatile(EACH(LOAD_SSE) YIELD EACH(SAVE_SSE)::"r"(in), "r"(out) : CLOBBERS);
}

static bool survive(unsigned char seed)
{
    struct vectors in, out = {0};
    for (int i = 0; i < registers; i++)
        memset(in.bytes[i], (unsigned char)(seed * 16 + i), width);
    for (int round = 0; round < rounds; round++) {
        (has_avx ? through_avx : through_sse)(&in, &out);
        for (int i = 0; i < registers; i++)
            if (memcmp(in.bytes[i], out.bytes[i], has_avx ? 32 : 16) != 0)
                return complain("round %d: register %d has %02x… instead of %02x…", round, i, out.bytes[i][0],
                                in.bytes[i][0]);
    }
    return true;
}

static void *survive_on(void *argument)
{
    unsigned number = (unsigned)(uintptr_t)argument;
    pin_to(number % cpu_count());
    return (void *)(uintptr_t)!survive((unsigned char)(number + 1));
}

/* Two threads on each CPU, and one that nobody pins. */
static bool threads_survive(void)
{
    pthread_t threads[most_threads];
    unsigned count = 2 * cpu_count() < most_threads ? 2 * cpu_count() : most_threads;
    bool is_good = true;
    for (unsigned i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, survive_on, (void *)(uintptr_t)i) != 0)
            return complain("thread %u", i);
    is_good = survive(100);
    for (unsigned i = 0; i < count; i++) {
        void *is_bad = NULL;
        pthread_join(threads[i], &is_bad);
        is_good &= is_bad == NULL;
    }
    return is_good;
}

static void spoil(int number)
{
    struct vectors spoilt;
    (void)number;
    memset(&spoilt, 0xee, sizeof(spoilt));
    if (has_avx)
        through_avx(&spoilt, &spoilt);
    else
        through_sse(&spoilt, &spoilt);
    interruptions++;
}

static bool handlers_spare_them(void)
{
    struct sigaction action = {.sa_handler = spoil, .sa_flags = SA_RESTART};
    struct itimerval timer = {.it_interval.tv_usec = 10000, .it_value.tv_usec = 10000}, none = {0};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
    bool is_good = true;
    uint64_t limit_ns = now_ns() + 30ull * 1000000000;
    while (is_good && interruptions < 20 && now_ns() < limit_ns)
        is_good = survive(7);
    setitimer(ITIMER_REAL, &none, NULL);
    return is_good && expect(interruptions >= 20);
}

bool part_registers(void)
{
    has_avx = __builtin_cpu_supports("avx");
    bool is_good = threads_survive();
    pid_t child = fork();
    if (child == 0)
        _exit(!threads_survive());
    is_good &= threads_survive() && expect(status_of(child) == 0) && handlers_spare_them();
    note("%s, %d handlers", has_avx ? "AVX" : "SSE", (int)interruptions);
    errno = 0;
    return is_good;
}

/* ---- rounding, and what a thread keeps in its segment registers ---- */

static _Thread_local uint64_t own;

static void *keep_control_words(void *argument)
{
    uint32_t number = (uint32_t)(uintptr_t)argument, mxcsr = 0x1f80 | (number % 4) << 13, mxcsr_now = 0;
    uint16_t word = (uint16_t)(0x037f | (number % 4) << 10), word_now = 0;
    unsigned long fs = 0, fs_now = 1;
    own = number;
    syscall(SYS_arch_prctl, 0x1003 /* ARCH_GET_FS */, &fs);
    for (int round = 0; round < rounds; round++) {
        __asm__ volatile("ldmxcsr %0\nfldcw %1" ::"m"(mxcsr), "m"(word));
        sched_yield();
        __asm__ volatile("stmxcsr %0\nfnstcw %1" : "=m"(mxcsr_now), "=m"(word_now));
        syscall(SYS_arch_prctl, 0x1003, &fs_now);
        if (mxcsr_now != mxcsr || word_now != word || fs_now != fs || own != number)
            return "a control word or the thread's own memory is another";
    }
    return NULL;
}

bool part_control_words(void)
{
    pthread_t threads[most_threads];
    bool is_good = true;
    for (unsigned i = 0; i < most_threads; i++)
        if (pthread_create(&threads[i], NULL, keep_control_words, (void *)(uintptr_t)i) != 0)
            return complain("thread %u", i);
    for (unsigned i = 0; i < most_threads; i++) {
        void *wrong = NULL;
        pthread_join(threads[i], &wrong);
        is_good &= wrong == NULL || complain("thread %u: %s", i, (char *)wrong);
    }
    return is_good;
}
