// SPDX-License-Identifier: Apache-2.0
/* Wrong use of libkrun.h, and a lot of use: nothing crashes, nothing stays behind, and threads do not get in each
 * other's way.
 */
#include "krun.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { thread_count = 16, rounds = 50 };

static const char *const no_strings[] = {NULL};

TEST(a_context_is_freed_once)
{
    uint32_t id = new_context();
    CHECK_INT(krun_free_ctx(id), 0);
    CHECK_INT(krun_free_ctx(id), -ENOENT);
    CHECK_INT(krun_set_root(id, "/"), -ENOENT);
    CHECK_INT(krun_start_enter(id), -ENOENT);
}

/* ---- long arrays ---- */

/* An array of more strings than are taken has no end that anybody looks for: what lies behind the last one may not be
 * read. */
TEST(of_5000_strings_4096_are_taken_and_no_more_is_read)
{
    enum { most = 4096 };
    const size_t page = 4096, bytes = most * sizeof(char *);
    char *place = mmap(NULL, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(place != MAP_FAILED);
    const char **strings = (const char **)(void *)place;
    for (size_t i = 0; i < most; i++)
        strings[i] = "A=1";
    CHECK_INT(mprotect(place + bytes, page, PROT_NONE), 0);
    uint32_t id = new_context();
    CHECK_INT(krun_set_exec(id, "/bin/sh", strings, strings), 0);
    CHECK_INT(krun_set_env(id, strings), 0);
    for (size_t i = 0; i < most; i++)
        strings[i] = "7=1:2";
    CHECK_INT(krun_set_rlimits(id, strings), 0);
    CHECK_INT(krun_set_port_map(id, strings), -EINVAL);
    CHECK_INT(krun_free_ctx(id), 0);
    CHECK_INT(munmap(place, bytes + page), 0);
}

TEST(that_strings_are_left_out_is_logged)
{
    enum { count = 5000 };
    static const char *strings[count + 1];
    char said[4096] = "";
    int file = memfd_create("said", MFD_CLOEXEC);
    uint32_t id = new_context();
    for (size_t i = 0; i < count; i++)
        strings[i] = i < 4096 ? "a" : "\xff"; /* what is not taken is not looked at */
    CHECK_INT(krun_init_log(file, KRUN_LOG_LEVEL_WARN, KRUN_LOG_STYLE_NEVER, KRUN_LOG_OPTION_NO_ENV), 0);
    CHECK_INT(krun_set_exec(id, "/bin/sh", strings, no_strings), 0);
    CHECK_INT(krun_set_log_level(KRUN_LOG_LEVEL_OFF), 0);
    CHECK(pread(file, said, sizeof(said) - 1, 0) > 0);
    CHECK(strstr(said, "krun.strings_cut") != NULL && strstr(said, "4096") != NULL);
    CHECK_INT(krun_free_ctx(id), 0);
    close(file);
}

TEST(an_environment_of_5000_is_cut_too)
{
    enum { count = 5000 };
    char name[32];
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "VIAL_TEST_%d", i);
        setenv(name, "1", 1);
    }
    uint32_t id = new_context();
    CHECK_INT(krun_set_exec(id, "/bin/sh", no_strings, NULL), 0);
    CHECK_INT(krun_set_env(id, NULL), 0);
    CHECK_INT(krun_free_ctx(id), 0);
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "VIAL_TEST_%d", i);
        unsetenv(name);
    }
}

/* ---- many contexts ---- */

TEST(seventy_thousand_contexts)
{
    uint32_t last = 0;
    for (int i = 0; i < 70000; i++) {
        uint32_t id = new_context();
        CHECK(i == 0 || id == last + 1);
        last = id;
        CHECK_INT(krun_free_ctx(id), 0);
    }
}

TEST(without_descriptors_a_context_is_made_or_refused)
{
    struct rlimit before, none;
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
    uint32_t early = new_context();
    none = (struct rlimit){3, before.rlim_max};
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &none), 0);
    int32_t id = krun_create_ctx();
    int32_t console = krun_add_virtio_console_default(early, 0, 1, 2);
    int32_t passt = krun_set_passt_fd(early, 0);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
    CHECK(id >= 0 || id == -EMFILE);
    CHECK_INT(console, -EMFILE);
    CHECK_INT(passt, -EMFILE);
    CHECK(id < 0 || krun_free_ctx((uint32_t)id) == 0);
    CHECK_INT(krun_free_ctx(early), 0);
}

/* Everything that is duplicated, once. */
static int use(uint32_t id, int fd)
{
    static const uint8_t bytes[] = {1, 2, 3};
    uint8_t mac[6] = {2};
    int result = krun_set_vm_config(id, 2, 256);
    result |= krun_set_root(id, "/");
    result |= krun_fs_add_overlay_dir(id, KRUN_FS_ROOT_TAG, "etc", 0755);
    result |= krun_fs_add_overlay_file(id, KRUN_FS_ROOT_TAG, "etc/name", bytes, sizeof(bytes), 0644, true);
    result |= krun_add_virtiofs3(id, "share", "/", 1 << 20, true);
    result |= krun_add_disk3(id, "a", "a.img", KRUN_DISK_FORMAT_QCOW2, true, false, KRUN_SYNC_NONE);
    result |= krun_set_port_map(id, (const char *const[]){"8080:80", NULL});
    result |= krun_add_net_unixstream(id, NULL, fd, mac, COMPAT_NET_FEATURES, 0);
    result |= krun_add_vsock_port(id, 7, "a.sock");
    result |= krun_set_exec(id, "/bin/sh", (const char *const[]){"-c", "true", NULL}, NULL);
    result |= krun_set_workdir(id, "/");
    result |= krun_set_rlimits(id, (const char *const[]){"7=1:2", NULL});
    result |= krun_set_console_output(id, "a.log");
    result |= krun_add_virtio_console_default(id, fd, fd, fd);
    result |= krun_add_serial_console_default(id, fd, fd);
    int console = krun_add_virtio_console_multiport(id);
    result |= krun_add_console_port_inout(id, (uint32_t)console, "p", fd, fd);
    result |= krun_set_kernel(id, "vmlinux", KRUN_KERNEL_FORMAT_RAW, NULL, "quiet");
    return result;
}

TEST(no_descriptor_stays_open) /* as counted by the runner of the tests, behind each */
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int i = 0; i < 20; i++) {
        uint32_t id = new_context();
        CHECK_INT(use(id, fd), 0);
        CHECK_INT(krun_free_ctx(id), 0);
    }
    close(fd);
}

/* ---- threads ---- */

struct shared {
    uint32_t id;
    int fd;
};

/* Contexts of its own, and changes to the one that all share. */
static void *work(void *user)
{
    struct shared *shared = user;
    long failures = 0;
    for (int i = 0; i < rounds; i++) {
        int32_t id = krun_create_ctx();
        failures += id < 0 || use((uint32_t)id, shared->fd) != 0;
        failures += krun_set_workdir(shared->id, i % 2 == 0 ? "/a" : "/b") != 0;
        failures += krun_set_env(shared->id, NULL) != 0;
        failures += krun_set_kernel_console(shared->id, "hvc0") != 0;
        failures += krun_free_ctx((uint32_t)id) != 0;
        failures += krun_free_ctx((uint32_t)id) != -ENOENT;
    }
    return (void *)failures;
}

TEST(sixteen_threads_at_once)
{
    pthread_t threads[thread_count];
    struct shared shared = {.id = new_context(), .fd = open("/dev/null", O_RDWR | O_CLOEXEC)};
    for (int i = 0; i < thread_count; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, work, &shared), 0);
    long failures = 0;
    for (int i = 0; i < thread_count; i++) {
        void *result = NULL;
        CHECK_INT(pthread_join(threads[i], &result), 0);
        failures += (long)result;
    }
    CHECK_INT(failures, 0);
    CHECK_INT(krun_free_ctx(shared.id), 0);
    close(shared.fd);
}

static void *free_it(void *user)
{
    return (void *)(long)(krun_free_ctx(*(uint32_t *)user) == 0);
}

TEST(one_of_sixteen_threads_frees_a_context)
{
    for (int round = 0; round < rounds; round++) {
        pthread_t threads[thread_count];
        uint32_t id = new_context();
        long count = 0;
        for (int i = 0; i < thread_count; i++)
            CHECK_INT(pthread_create(&threads[i], NULL, free_it, &id), 0);
        for (int i = 0; i < thread_count; i++) {
            void *result = NULL;
            CHECK_INT(pthread_join(threads[i], &result), 0);
            count += (long)result;
        }
        CHECK_INT(count, 1);
    }
}
