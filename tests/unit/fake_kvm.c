// SPDX-License-Identifier: Apache-2.0
/* A KVM that behaves as badly as a test wants: see fake_kvm.h.
 *
 * KVM_SET_REGS remembers the loop's count; KVM_RUN spends the time that so many turns take, writes the exit reason into
 * the vCPU's page, and returns. A run that never returns waits for what KVM_SET_SIGNAL_MASK lets through, as the kernel
 * does.
 */
#include "fake_kvm.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);

const struct fake_kvm fake_kvm_sound = {
    .api_version = KVM_API_VERSION,
    .missing_capability = -1,
    .exit_reason = KVM_EXIT_HLT,
};

static struct fake_kvm *installed; /* borrowed */
static uint64_t iterations;
static sigset_t mask_inside;

void fake_kvm_install(const char *root, struct fake_kvm *fake)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/dev", root);
    mkdir(path, 0755);
    snprintf(path, sizeof(path), "%s/dev/kvm", root);
    int fd = open(path, O_CREAT | O_RDWR, 0600);
    if (fd < 0)
        abort();
    close(fd);
    installed = fake;
}

static int make_memfd(void)
{
    int fd = memfd_create("fake-kvm", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 4096) < 0)
        abort();
    return fd;
}

/* KVM_RUN as a signal ends it: EINTR, and the signal, blocked again, stays pending. */
static int wait_for_signal(void)
{
    sigset_t awaited;
    sigemptyset(&awaited);
    for (int number = 1; number <= SIGRTMAX; number++)
        if (sigismember(&mask_inside, number) == 0)
            sigaddset(&awaited, number);
    struct pollfd pending = {.fd = signalfd(-1, &awaited, SFD_CLOEXEC), .events = POLLIN};
    poll(&pending, 1, -1);
    close(pending.fd);
    errno = EINTR;
    return -1;
}

static int run(int vcpu_fd)
{
    installed->runs++;
    if (installed->never_returns || (installed->sleeps_from_run > 0 && installed->runs >= installed->sleeps_from_run))
        return wait_for_signal();
    if (installed->ns_per_iteration == 0) {
        uint64_t count = iterations;
        __asm__ volatile("1: dec %0; jnz 1b" : "+r"(count) : : "cc");
    } else {
        uint64_t end_ns = clock_now_ns() + iterations * installed->ns_per_iteration;
        while (clock_now_ns() < end_ns)
            ;
    }
    struct kvm_run *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, 0);
    if (page == MAP_FAILED)
        abort();
    page->exit_reason = installed->exit_reason;
    munmap(page, 4096);
    return 0;
}

static void take_mask(const struct kvm_signal_mask *mask)
{
    sigfillset(&mask_inside);
    memcpy(&mask_inside, (const char *)mask + sizeof(mask->len), mask->len);
}

static int answer(int fd, unsigned long request, void *argument)
{
    if (request == installed->failing_request) {
        errno = installed->failing_errno;
        return -1;
    }
    switch (request) {
    case KVM_GET_API_VERSION:
        return installed->api_version;
    case KVM_CHECK_EXTENSION:
        return (int)(uintptr_t)argument == installed->missing_capability ? 0 : 1;
    case KVM_GET_VCPU_MMAP_SIZE:
        return 4096;
    case KVM_CREATE_VM:
    case KVM_CREATE_VCPU:
        return make_memfd();
    case KVM_SET_REGS:
        iterations = ((const struct kvm_regs *)argument)->rcx;
        return 0;
    case KVM_GET_SREGS:
        memset(argument, 0, sizeof(struct kvm_sregs));
        return 0;
    case KVM_SET_SIGNAL_MASK:
        take_mask(argument);
        return 0;
    case KVM_RUN:
        return run(fd);
    default:
        return 0;
    }
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (installed != NULL && _IOC_TYPE(request) == KVMIO)
        return answer(fd, request, argument);
    return __real_ioctl(fd, request, argument);
}
