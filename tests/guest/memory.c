// SPDX-License-Identifier: Apache-2.0
/* Memory: mappings of every kind, faults that a program handles, and memory that processes share or only seem to. */
#include "part.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { page = 4096 };

static char *map(size_t length, int protection, int flags)
{
    return mmap(NULL, length, protection, flags | MAP_ANONYMOUS, -1, 0);
}

/* ---- faults ---- */

static sigjmp_buf before_fault;
static volatile siginfo_t fault;

static void catch_fault(int number, siginfo_t *info, void *context)
{
    (void)context;
    (void)number;
    memcpy((void *)(uintptr_t)&fault, info, sizeof(*info));
    siglongjmp(before_fault, 1);
}

static void catch_faults(void)
{
    struct sigaction action = {.sa_sigaction = catch_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
}

/* The signal that a write there brings, or 0. */
static int write_faults(volatile char *address)
{
    if (sigsetjmp(before_fault, 1) != 0)
        return fault.si_signo;
    *address = 1;
    return 0;
}

static int read_faults(const volatile char *address)
{
    if (sigsetjmp(before_fault, 1) != 0)
        return fault.si_signo;
    (void)*address;
    return 0;
}

static char *guarded; /* by catch_and_open */

static void catch_and_open(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    if (info->si_addr == guarded)
        mprotect(guarded, page, PROT_READ | PROT_WRITE);
}

/* Garbage collectors work so: the handler opens the page, and the instruction is tried again. */
static bool handler_may_return(void)
{
    struct sigaction action = {.sa_sigaction = catch_and_open, .sa_flags = SA_SIGINFO};
    guarded = map(page, PROT_NONE, MAP_PRIVATE);
    sigaction(SIGSEGV, &action, NULL);
    for (int i = 0; i < 100; i++) {
        mprotect(guarded, page, PROT_NONE);
        *(volatile char *)guarded = (char)i;
        if (!expect(*guarded == (char)i))
            return false;
    }
    return true;
}

bool part_faults(void)
{
    catch_faults();
    char *memory = map(3 * page, PROT_READ, MAP_PRIVATE);
    bool is_good = expect(write_faults(memory) == SIGSEGV) && expect(fault.si_addr == memory) &&
                   expect(fault.si_code == SEGV_ACCERR);
    mprotect(memory + page, page, PROT_NONE);
    is_good &= expect(read_faults(memory + page + 7) == SIGSEGV) && expect(fault.si_addr == memory + page + 7);
    munmap(memory + 2 * page, page);
    is_good &= expect(read_faults(memory + 2 * page) == SIGSEGV) && expect(fault.si_code == SEGV_MAPERR);
    is_good &= expect(read_faults(NULL) == SIGSEGV) && expect(fault.si_addr == NULL);
    is_good &= expect(read_faults((char *)-page) == SIGSEGV); /* the kernel's half, or nobody's */
    is_good &= expect(read_faults((char *)0x8000000000000000) == SIGSEGV);
    int fd = memfd_create("file", MFD_CLOEXEC);
    is_good &= expect(ftruncate(fd, page) == 0);
    memory = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    is_good &= expect(write_faults(memory) == 0) && expect(write_faults(memory + page) == SIGBUS) &&
               expect(fault.si_addr == memory + page) && expect(fault.si_code == BUS_ADRERR);
    volatile char *volatile nowhere = (char *)16;
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        *nowhere = 0;
        _exit(0);
    }
    return expect(status_of(child) == 128 + SIGSEGV) && handler_may_return() && is_good;
}

/* ---- mappings ---- */

static bool code_can_be_made(void)
{
    static const unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3}; /* mov eax, 42; ret */
    unsigned char *memory = (unsigned char *)map(page, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    for (int i = 1; i < 20; i++) { /* and made anew: no stale instructions */
        mprotect(memory, page, PROT_READ | PROT_WRITE);
        memcpy(memory, code, sizeof(code));
        memory[1] = (unsigned char)i;
        mprotect(memory, page, PROT_READ | PROT_EXEC);
        if (!expect(((int (*)(void))(uintptr_t)memory)() == i))
            return false;
    }
    return true;
}

static bool many_mappings(void)
{
    enum { count = 2000 };
    char *start = map(2 * count * page, PROT_NONE, MAP_PRIVATE | MAP_NORESERVE);
    for (int i = 0; i < count; i++)
        if (mprotect(start + 2 * i * page, page, PROT_READ | PROT_WRITE) < 0)
            return complain("mapping %d", i);
    for (int i = 0; i < count; i++)
        start[2 * i * page] = (char)i;
    bool is_good = true;
    for (int i = 0; i < count; i++)
        is_good &= start[2 * i * page] == (char)i;
    munmap(start, 2 * count * page);
    return expect(is_good);
}

bool part_mappings(void)
{
    char *memory = map(4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    memset(memory, 'a', 4 * page);
    char *moved = mremap(memory, 4 * page, 64 * page, MREMAP_MAYMOVE);
    bool is_good = expect(moved != MAP_FAILED) && expect(moved[0] == 'a' && moved[4 * page - 1] == 'a') &&
                   expect(moved[4 * page] == 0);
    is_good &= expect(madvise(moved, page, MADV_DONTNEED) == 0) && expect(moved[0] == 0 && moved[page] == 'a');
    char *fixed = mmap(moved + page, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    is_good &= expect(fixed == moved + page) && expect(*fixed == 0 && moved[2 * page] == 'a');
    char *large = map((size_t)64 << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE);
    is_good &= large != MAP_FAILED || complain("64 GiB of address space");
    if (large != MAP_FAILED) {
        large[(size_t)63 << 30] = 1;
        munmap(large, (size_t)64 << 30);
    }
    long end = syscall(SYS_brk, 0); /* musl's own sbrk only tells */
    is_good &= expect(syscall(SYS_brk, end + (1 << 20)) == end + (1 << 20));
    memset((void *)end, 1, 1 << 20);
    return code_can_be_made() && many_mappings() && is_good;
}

/* ---- between processes ---- */

static int child_of(char *shared, char *private)
{
    if (shared[0] != 1 || private[0] != 1)
        return 1;
    for (int i = 0; i < 64; i++)
    private[i * page] = 2; /* copied, each of them */
    shared[0] = 3;
    return 0;
}

bool part_sharing(void)
{
    char *shared = map(page, PROT_READ | PROT_WRITE, MAP_SHARED),
         *private = map(64 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    for (int round = 0; round < 20; round++) {
        shared[0] = 1;
        for (int i = 0; i < 64; i++)
        private[i * page] = 1;
        pid_t child = fork();
        if (child == 0)
            _exit(child_of(shared, private));
        if (!expect(status_of(child) == 0) || !expect(shared[0] == 3))
            return false;
        for (int i = 0; i < 64; i++)
            if (!expect(private[i * page] == 1))
                return false;
    }
    return true;
}

/* ---- between processes of different times ---- */

enum { leftover_rounds = 20, leavers = 4, leftover_bytes = 16 * page };
static char *const places[] = {(char *)0x100000000, (char *)0x2000000000}; /* where nothing of a program's own is */

static bool leave_something(void)
{
    for (size_t i = 0; i < length_of(places); i++) {
        char *memory = mmap(places[i], leftover_bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (memory != places[i])
            return complain("memory at %p", (void *)places[i]);
        memset(memory, 'x', leftover_bytes);
    }
    return true;
}

bool finds_nothing(void)
{
    bool is_good = true;
    catch_faults();
    for (size_t i = 0; i < length_of(places); i++)
        for (size_t at = 0; at < leftover_bytes; at += page)
            is_good &= expect(read_faults(places[i] + at) == SIGSEGV) &&
                       expect(write_faults(places[i] + at) == SIGSEGV);
    return is_good;
}

/* What runs a program may have run another before: nothing of that one's memory is there, after fork and after exec. */
bool part_leftovers(void)
{
    static const char *const bare[] = {"/proc/self/exe", "bare", NULL};
    for (int round = 0; round < leftover_rounds; round++) {
        pid_t children[leavers];
        for (int i = 0; i < leavers; i++) { /* all at once, so that there are several to be used again */
            children[i] = fork();
            if (children[i] == 0)
                _exit(!leave_something());
        }
        for (int i = 0; i < leavers; i++)
            if (!expect(status_of(children[i]) == 0))
                return false;
        pid_t same = fork();
        if (same == 0)
            _exit(!finds_nothing());
        pid_t other = fork();
        if (other == 0) {
            execv(bare[0], (char *const *)(uintptr_t)bare);
            _exit(127);
        }
        if (!expect(status_of(same) == 0) || !expect(status_of(other) == 0))
            return false;
    }
    return true;
}
