// SPDX-License-Identifier: Apache-2.0
/* Tests of host: the KVM probe against every kind of bad KVM, its explanations, capacity, kernels, the doctor's
 * report. */
#include "test.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/limits.h"
#include "fake_kvm.h"
#include "host/doctor.h"
#include "host/engine.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

static struct fake_kvm fake;
static struct kvm_probe probe;
static struct vial_error err;

/* Probes a KVM in the scratch folder, and explains. */
static int probe_fake(void)
{
    fake_kvm_install(test_folder(), &fake);
    kvm_probe_run(test_folder(), &probe);
    memset(&err, 0, sizeof(err));
    int result = kvm_probe_explain(test_folder(), &probe, &err);
    fake_kvm_install(test_folder(), NULL);
    return result;
}

TEST(a_sound_kvm_is_native)
{
    fake = fake_kvm_sound;
    CHECK_INT(probe_fake(), 0);
    CHECK_INT(probe.verdict, KVM_NATIVE);
    CHECK(probe.is_measured && kvm_probe_ratio(&probe) < 10);
    CHECK_INT(err.code, VIAL_ERROR_NONE);
}

TEST(a_slow_but_steady_kvm_is_native)
{
    fake = fake_kvm_sound;
    fake.ns_per_iteration = 3; /* several times this host's own, as inside an emulated host */
    CHECK_INT(probe_fake(), 0);
    CHECK_INT(probe.verdict, KVM_NATIVE);
}

TEST(an_emulating_kvm_is_recognised)
{
    fake = fake_kvm_sound;
    fake.ns_per_iteration = 480;
    uint64_t start_ns = clock_now_ns();
    CHECK_INT(probe_fake(), -ENOTSUP);
    CHECK(clock_now_ns() - start_ns < 100 * CLOCK_NS_PER_MS);
    CHECK_INT(probe.verdict, KVM_RING0_EMULATED);
    CHECK_INT(err.code, VIAL_ERROR_KVM_EMULATED);
    CHECK(strstr(err.message, "KVM emulates ring-0 code instead of running it: ") == err.message);
    CHECK(strstr(err.message, "00 instructions took") != NULL); /* how many: a busy host takes fewer */
    CHECK(strstr(err.remedy, "uml engine") != NULL);
}

TEST(a_kvm_that_never_comes_back_is_interrupted)
{
    sigset_t before, after;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    fake = fake_kvm_sound;
    fake.never_returns = true;
    uint64_t start_ns = clock_now_ns();
    CHECK_INT(probe_fake(), -EIO);
    CHECK(clock_now_ns() - start_ns < 200 * CLOCK_NS_PER_MS);
    CHECK_INT(probe.verdict, KVM_SMOKE_FAILED);
    CHECK_INT(probe.os_error, ETIMEDOUT);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    for (int number = 1; number <= SIGRTMAX; number++)
        CHECK_INT(sigismember(&after, number), sigismember(&before, number));
    CHECK(sigpending(&after) == 0 && sigisemptyset(&after));
}

TEST(a_signal_of_the_program_is_left_alone)
{
    sigset_t one, before;
    siginfo_t info;
    static const struct timespec now = {0};
    sigemptyset(&one);
    sigaddset(&one, SIGRTMAX);
    pthread_sigmask(SIG_BLOCK, &one, &before);
    for (int i = 0; i < 3; i++)
        raise(SIGRTMAX);
    fake = fake_kvm_sound;
    CHECK_INT(probe_fake(), 0);
    CHECK_INT(probe.verdict, KVM_NATIVE);
    for (int i = 0; i < 3; i++)
        CHECK_INT(sigtimedwait(&one, &info, &now), SIGRTMAX);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

TEST(a_thread_that_blocks_every_signal_can_probe)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    fake = fake_kvm_sound;
    int result = probe_fake();
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    CHECK_INT(result, 0);
}

TEST(a_vcpu_that_falls_asleep_later_is_no_better)
{
    fake = fake_kvm_sound;
    fake.sleeps_from_run = 4; /* after the smoke test */
    CHECK_INT(probe_fake(), -EIO);
    CHECK_INT(probe.verdict, KVM_SMOKE_FAILED);
    CHECK_INT(probe.os_error, ETIMEDOUT);
}

TEST(a_failed_smoke_test_is_explained)
{
    fake = fake_kvm_sound;
    fake.exit_reason = KVM_EXIT_INTERNAL_ERROR;
    CHECK_INT(probe_fake(), -EIO);
    CHECK_INT(probe.verdict, KVM_SMOKE_FAILED);
    CHECK_INT(err.code, VIAL_ERROR_KVM_BROKEN);
    CHECK_TEXT(err.message, "KVM cannot execute guest code: HLT ended in exit reason 17 instead of 5");
    CHECK_INT(fake.runs, 1);
    fake = fake_kvm_sound;
    fake.failing_request = KVM_RUN;
    fake.failing_errno = EFAULT;
    CHECK_INT(probe_fake(), -EIO);
    CHECK_TEXT(err.message, "KVM cannot execute guest code: KVM_RUN: Bad address");
}

TEST(wrong_versions_and_missing_capabilities)
{
    fake = fake_kvm_sound;
    fake.api_version = 11;
    CHECK_INT(probe_fake(), -EIO);
    CHECK_INT(probe.verdict, KVM_NOT_KVM);
    fake = fake_kvm_sound;
    fake.missing_capability = KVM_CAP_IRQFD;
    CHECK_INT(probe_fake(), -EIO);
    CHECK_INT(probe.verdict, KVM_LACKS_CAPABILITY);
    CHECK_TEXT(err.message, "this host's KVM has no KVM_CAP_IRQFD");
    fake = fake_kvm_sound;
    fake.missing_capability = KVM_CAP_SPLIT_IRQCHIP; /* optional */
    CHECK_INT(probe_fake(), 0);
    CHECK(!probe.has_split_irqchip);
}

TEST(every_step_of_the_setup_may_fail)
{
    static const struct {
        unsigned long request;
        const char *name;
    } steps[] = {
        {KVM_CREATE_VM, "KVM_CREATE_VM"},
        {KVM_SET_USER_MEMORY_REGION, "KVM_SET_USER_MEMORY_REGION"},
        {KVM_GET_VCPU_MMAP_SIZE, "KVM_GET_VCPU_MMAP_SIZE"},
        {KVM_CREATE_VCPU, "KVM_CREATE_VCPU"},
        {KVM_GET_SUPPORTED_CPUID, "KVM_GET_SUPPORTED_CPUID"},
        {KVM_SET_CPUID2, "KVM_SET_CPUID2"},
        {KVM_GET_SREGS, "KVM_GET_SREGS"},
        {KVM_SET_SREGS, "KVM_SET_SREGS"},
        {KVM_SET_SIGNAL_MASK, "KVM_SET_SIGNAL_MASK"},
        {KVM_SET_REGS, "KVM_SET_REGS"},
    };
    for (size_t i = 0; i < array_length(steps); i++) {
        char expected[128];
        fake = fake_kvm_sound;
        fake.failing_request = steps[i].request;
        fake.failing_errno = EBUSY;
        CHECK_INT(probe_fake(), -EIO);
        CHECK_INT(probe.verdict, KVM_SETUP_FAILED);
        snprintf(expected, sizeof(expected), "KVM cannot make a machine: %s: Device or resource busy", steps[i].name);
        CHECK_TEXT(err.message, expected);
        CHECK_TEXT(err.remedy, "stop the other hypervisor that holds the CPU (VirtualBox, VMware)");
    }
}

TEST(the_setup_survives_no_memory)
{
    fake = fake_kvm_sound;
    FOR_EACH_FAULT
    {
        probe_fake();
        CHECK_INT(probe.verdict, fault_was_hit() ? KVM_SETUP_FAILED : KVM_NATIVE);
    }
}

static const char *missing_remedy(void)
{
    kvm_probe_run(test_folder(), &probe);
    if (probe.verdict != KVM_NO_DEVICE || kvm_probe_explain(test_folder(), &probe, &err) != -ENODEV)
        return "?";
    return err.remedy;
}

TEST(a_missing_device_gets_the_fitting_remedy)
{
    CHECK(strstr(missing_remedy(), "the CPU shows no virtualization") == err.remedy);
    CHECK_TEXT(err.message, "/dev/kvm does not exist");
    CHECK_INT(err.code, VIAL_ERROR_KVM_MISSING);
    test_text_file("proc/cpuinfo", "flags\t: fpu vmx sse\n");
    CHECK(strstr(missing_remedy(), "modprobe kvm_intel") != NULL);
    test_text_file("proc/cpuinfo", "flags\t: fpu svm sse\n");
    CHECK(strstr(missing_remedy(), "modprobe kvm_amd") != NULL);
    test_text_file(".dockerenv", "");
    CHECK(strstr(missing_remedy(), "docker run --device /dev/kvm") != NULL);
    test_text_file("proc/sys/fs/binfmt_misc/WSLInterop", "");
    CHECK(strstr(missing_remedy(), "nestedVirtualization=true") != NULL);
}

TEST(a_large_host_is_not_mistaken_for_one_without_virtualization)
{
    static char cpuinfo[200000];
    memset(cpuinfo, '\n', sizeof(cpuinfo) - 1);
    memcpy(cpuinfo, "flags\t: fpu vmx sse", 19);
    test_text_file("proc/cpuinfo", cpuinfo);
    CHECK(strstr(missing_remedy(), "modprobe kvm_intel") != NULL);
}

TEST(a_forbidden_device_names_the_group)
{
    if (geteuid() != 0)
        return; /* only root can make a device that others may not open */
    test_text_file("dev/kvm", "");
    CHECK_INT(chmod(test_folder(), 0755), 0);
    char path[4200];
    snprintf(path, sizeof(path), "%s/dev/kvm", test_folder());
    CHECK_INT(chmod(path, 0600), 0);
    CHECK_INT(seteuid(65534), 0);
    kvm_probe_run(test_folder(), &probe);
    CHECK_INT(seteuid(0), 0);
    CHECK_INT(probe.verdict, KVM_NO_ACCESS);
    CHECK_INT(kvm_probe_explain(test_folder(), &probe, &err), -EACCES);
    CHECK_INT(err.code, VIAL_ERROR_PERMISSION);
    CHECK_TEXT(err.message, "/dev/kvm may not be opened by this user: Permission denied");
    CHECK(strstr(err.remedy, "chgrp kvm /dev/kvm") != NULL);
    CHECK_INT(chmod(path, 0660), 0);
    CHECK_INT(chown(path, 0, 12345), 0);
    test_text_file("etc/group", "root:x:0:\nkvm:x:12345:somebody\n");
    CHECK_INT(seteuid(65534), 0);
    kvm_probe_run(test_folder(), &probe);
    CHECK_INT(seteuid(0), 0);
    CHECK_INT(kvm_probe_explain(test_folder(), &probe, &err), -EACCES);
    CHECK(strstr(err.remedy, "add this user to the group kvm") == err.remedy);
    test_text_file("etc/group", "kvm::12345:\n"); /* the first line, without a password */
    CHECK_INT(kvm_probe_explain(test_folder(), &probe, &err), -EACCES);
    CHECK(strstr(err.remedy, "add this user to the group kvm") == err.remedy);
    test_text_file("etc/group", "kvm:x:7:\nother:x:12345:\n"); /* another group's number */
    CHECK_INT(kvm_probe_explain(test_folder(), &probe, &err), -EACCES);
    CHECK(strstr(err.remedy, "chgrp kvm /dev/kvm") != NULL);
}

TEST(something_else_at_the_device_is_not_kvm)
{
    test_text_file("dev/kvm", "");
    kvm_probe_run(test_folder(), &probe);
    CHECK_INT(probe.verdict, KVM_NOT_KVM);
    CHECK_INT(kvm_probe_explain(test_folder(), &probe, &err), -EIO);
    CHECK(strstr(err.message, "/dev/kvm does not answer as KVM does: KVM_GET_API_VERSION gives") == err.message);
}

TEST(a_failure_is_refined_only_when_kvm_is_the_cause)
{
    fake = fake_kvm_sound;
    fake_kvm_install(test_folder(), &fake);
    memset(&err, 0, sizeof(err));
    snprintf(err.message, sizeof(err.message), "the original");
    CHECK_INT(kvm_diagnose_create_failure(test_folder(), -EIO, &err), -EIO);
    CHECK_TEXT(err.message, "the original");
    fake.ns_per_iteration = 480; /* emulating, which is no reason to fail */
    CHECK_INT(kvm_diagnose_create_failure(test_folder(), -EMFILE, &err), -EMFILE);
    CHECK_TEXT(err.message, "the original");
    fake.exit_reason = KVM_EXIT_FAIL_ENTRY;
    CHECK_INT(kvm_diagnose_create_failure(test_folder(), -EINVAL, &err), -EIO);
    CHECK_INT(err.code, VIAL_ERROR_KVM_BROKEN);
    CHECK(strstr(err.message, "HLT ended in exit reason 9") != NULL);
    fake_kvm_install(test_folder(), NULL);
}

/* ---- capacity and kernels ---- */

TEST(capacity_is_what_files_and_groups_leave)
{
    struct host_capacity capacity;
    test_text_file("proc/meminfo", "MemTotal:        2097152 kB\nMemFree: 5 kB\nMemAvailable:    1048576 kB\n");
    host_capacity_read(test_folder(), &capacity);
    CHECK_INT(capacity.memory_mib, 2048);
    CHECK_INT(capacity.available_mib, 1024);
    CHECK_INT(capacity.max_vcpus, LIMIT_VCPUS);
    CHECK(capacity.cpus >= 1);
    test_text_file("proc/self/cgroup", "0::/a/b\n");
    test_text_file("sys/fs/cgroup/a/b/memory.max", "max\n");
    test_text_file("sys/fs/cgroup/a/memory.max", "536870912\n");
    host_capacity_read(test_folder(), &capacity);
    CHECK_INT(capacity.memory_mib, 512);
    CHECK_INT(capacity.available_mib, 512);
    test_text_file("sys/fs/cgroup/a/memory.current", "402653184\n");
    host_capacity_read(test_folder(), &capacity);
    CHECK_INT(capacity.available_mib, 128);
    test_text_file("proc/self/cgroup", "1:name=systemd:/\n");
    test_text_file("proc/meminfo", "garbage\nMemTotal: x\n");
    host_capacity_read(test_folder(), &capacity);
    CHECK(capacity.memory_mib == HOST_UNKNOWN);
}

TEST(kernels_are_found_where_they_are_put)
{
    struct host_path path;
    setenv("VIAL_KERNELS", "relative", 1);
    setenv("XDG_CACHE_HOME", "/cache", 1);
    CHECK(!host_kernel_find(test_folder(), HOST_ENGINE_UML, &path));
    test_text_file("cache/vial/kernel/kvm-x86_64/vmlinux", "\x7f"
                                                           "ELF");
    CHECK(host_kernel_find(test_folder(), HOST_ENGINE_KVM, &path));
    const char *uml = test_text_file("cache/vial/kernel/uml/linux", "\x7f"
                                                                    "ELF");
    CHECK(!host_kernel_find(test_folder(), HOST_ENGINE_UML, &path)); /* it must be executable */
    CHECK_INT(chmod(uml, 0755), 0);
    CHECK(host_kernel_find(test_folder(), HOST_ENGINE_UML, &path));
    CHECK_TEXT(path.text, uml);
    setenv("VIAL_KERNELS", "/mine", 1);
    test_make_folder("mine/kvm-x86_64/vmlinux"); /* a folder is no kernel */
    CHECK(host_kernel_find(test_folder(), HOST_ENGINE_KVM, &path));
    CHECK(strstr(path.text, "/mine/") == NULL);
    setenv("VIAL_KERNELS", "/yours", 1);
    const char *mine = test_text_file("yours/kvm-x86_64/vmlinux", "\x7f"
                                                                  "ELF");
    CHECK(host_kernel_find(test_folder(), HOST_ENGINE_KVM, &path));
    CHECK_TEXT(path.text, mine);
    unsetenv("VIAL_KERNELS");
    unsetenv("XDG_CACHE_HOME");
}

/* ---- the doctor ---- */

static struct doctor_report report;

TEST(the_doctor_picks_kvm_when_it_is_native)
{
    fake = fake_kvm_sound;
    fake_kvm_install(test_folder(), &fake);
    doctor_run(test_folder(), &report);
    fake_kvm_install(test_folder(), NULL);
    CHECK_INT(report.auto_engine, HOST_ENGINE_KVM);
    CHECK(report.engines[HOST_ENGINE_KVM].is_usable);
    for (int check = CHECK_KVM_DEVICE; check <= CHECK_KVM_NATIVE; check++)
        CHECK_INT(report.checks[check].status, DOCTOR_OK);
}

TEST(the_doctor_reads_the_modules_for_nesting)
{
    fake = fake_kvm_sound;
    fake_kvm_install(test_folder(), &fake);
    test_text_file("sys/module/kvm_amd/parameters/nested", "1\n");
    doctor_run(test_folder(), &report);
    CHECK_INT(report.checks[CHECK_KVM_NESTED].status, DOCTOR_OK);
    test_text_file("sys/module/kvm_intel/parameters/nested", "N\n");
    doctor_run(test_folder(), &report);
    CHECK_INT(report.checks[CHECK_KVM_NESTED].status, DOCTOR_NOTE);
    CHECK(strstr(report.checks[CHECK_KVM_NESTED].remedy, "nested=1") != NULL);
    fake_kvm_install(test_folder(), NULL);
}

TEST(the_doctor_picks_uml_when_its_kernel_is_there)
{
    setenv("VIAL_KERNELS", "/kernels", 1);
    CHECK_INT(chmod(test_text_file("kernels/uml/linux", "\x7f"
                                                        "ELF"),
                    0755),
              0);
    test_make_folder("dev");
    test_make_folder("dev/shm");
    doctor_run(test_folder(), &report);
    CHECK_INT(report.auto_engine, HOST_ENGINE_UML);
    CHECK_INT(report.checks[CHECK_KVM_DEVICE].status, DOCTOR_FAIL);
    CHECK(!report.checks[CHECK_KVM_SMOKE].was_run);
    CHECK_TEXT(report.auto_reason, "kvm is not usable here, uml is");
    unsetenv("VIAL_KERNELS");
}

TEST(the_doctor_says_when_nothing_works)
{
    setenv("VIAL_KERNELS", "/nowhere", 1);
    setenv("XDG_CACHE_HOME", "/nowhere", 1);
    fake = fake_kvm_sound;
    fake.exit_reason = KVM_EXIT_SHUTDOWN;
    fake_kvm_install(test_folder(), &fake);
    doctor_run(test_folder(), &report);
    fake_kvm_install(test_folder(), NULL);
    CHECK_INT(report.auto_engine, -1);
    CHECK_INT(report.checks[CHECK_KVM_DEVICE].status, DOCTOR_OK);
    CHECK_INT(report.checks[CHECK_KVM_SMOKE].status, DOCTOR_FAIL);
    CHECK(!report.checks[CHECK_KVM_NATIVE].was_run);
    for (int check = 0; check < CHECK_COUNT; check++)
        CHECK(!report.checks[check].was_run || report.checks[check].status < DOCTOR_WARN ||
              report.checks[check].remedy[0] != '\0');
    unsetenv("VIAL_KERNELS");
    unsetenv("XDG_CACHE_HOME");
}

/* What the doctor says about a passt that is this script. */
static const struct doctor_check *doctor_on_passt(const char *script)
{
    chmod(test_text_file("usr/bin/passt", script), 0755);
    doctor_run(test_folder(), &report);
    return &report.checks[CHECK_PASST];
}

TEST(the_doctor_knows_whether_passt_can_be_used)
{
    doctor_run(test_folder(), &report);
    CHECK_INT(report.checks[CHECK_PASST].status, DOCTOR_NOTE);
    CHECK(strstr(report.checks[CHECK_PASST].remedy, "install passt") != NULL);
    const struct doctor_check *check = doctor_on_passt("#!/bin/sh\n[ \"$*\" = --help ] || exit\n"
                                                       "echo '  -F, --fd FD' >&2\necho --dns-forward ADDR\n"
                                                       "echo --no-map-gw\nexit 1\n");
    CHECK_INT(check->status, DOCTOR_OK);
    CHECK(strstr(check->detail, "/usr/bin/passt") != NULL);
    check = doctor_on_passt("#!/bin/sh\necho --fds --map-fd --dns-forward --no-map-gw\n");
    CHECK_INT(check->status, DOCTOR_WARN);
    CHECK(strstr(check->detail, "it has no --fd") != NULL && strstr(check->remedy, "newer") != NULL);
}

TEST(the_doctor_does_not_wait_for_a_passt_that_hangs)
{
    uint64_t start_ns = clock_now_ns();
    const struct doctor_check *check = doctor_on_passt("#!/bin/sh\necho $$ >\"${0%/*}/pid\"\nexec sleep 100\n");
    CHECK_INT(check->status, DOCTOR_WARN);
    CHECK(strstr(check->detail, "timed out") != NULL && check->remedy[0] != '\0');
    CHECK(clock_now_ns() - start_ns < 20000 * CLOCK_NS_PER_MS);
    uint64_t pid = 0;
    CHECK_INT(host_file_number(test_folder(), "/usr/bin/pid", &pid), 0);
    while (kill((pid_t)pid, 0) == 0)
        sched_yield(); /* init takes it */
    /* What prints without an end is not listened to for ever. */
    check = doctor_on_passt("#!/bin/sh\nwhile :; do echo --fd --dns-forward --no-map-gw; done\n");
    CHECK_INT(check->status, DOCTOR_OK);
    CHECK_INT(chmod(test_text_file("usr/bin/passt", "neither a program nor a script"), 0755), 0);
    doctor_run(test_folder(), &report);
    CHECK_INT(report.checks[CHECK_PASST].status, DOCTOR_WARN);
}

TEST(kvm_is_chosen_where_it_is_native)
{
    struct host_engine_choice choice;
    struct kvm_probe known = {.verdict = KVM_NATIVE};
    host_engine_judge("", &known, &choice);
    CHECK_INT(choice.engine, HOST_ENGINE_KVM);
    CHECK_TEXT(choice.reason, "KVM runs guests natively here");
}

TEST(user_mode_linux_is_chosen_elsewhere_and_the_reason_says_what_kvm_lacks)
{
    struct host_engine_choice choice;
    struct kvm_probe known = {
        .verdict = KVM_RING0_EMULATED, .is_measured = true, .guest_ns = 48000, .host_ns = 100, .instructions = 100};
    host_engine_judge("", &known, &choice);
    CHECK_INT(choice.engine, HOST_ENGINE_UML);
    CHECK(strstr(choice.reason, "ring-0") != NULL);
    host_engine_choose("/nonexistent", &choice);
    CHECK_INT(choice.engine, HOST_ENGINE_UML);
    CHECK(strstr(choice.reason, "/dev/kvm") != NULL);
}

TEST(the_real_host_is_checked_quickly)
{
    uint64_t best_ns = UINT64_MAX;
    for (int i = 0; i < 5; i++) {
        doctor_run("", &report);
        best_ns = report.elapsed_ns < best_ns ? report.elapsed_ns : best_ns;
    }
    CHECK(report.host_kernel[0] != '\0');
    CHECK(best_ns < 50 * CLOCK_NS_PER_MS);
}
