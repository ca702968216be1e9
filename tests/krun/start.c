// SPDX-License-Identifier: Apache-2.0
/* krun_start_enter where no machine can be started: a number that fits the cause, one line on standard error that says
 * the cause and what to do about it, and a process that lives on.
 *
 * A machine that did start would end this program, which fails the tests.
 */
#include "krun.h"

#include <ctype.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { nobody = 65534 };

static char said[4096]; /* what the last start has printed on standard error */

/* Starts the machine, and keeps what that prints. */
static int32_t start(uint32_t id)
{
    int before = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3), file = memfd_create("said", MFD_CLOEXEC);
    fflush(stdout);
    dup2(file, STDERR_FILENO);
    int32_t result = krun_start_enter(id);
    dup2(before, STDERR_FILENO);
    ssize_t length = pread(file, said, sizeof(said) - 1, 0);
    said[length > 0 ? length : 0] = '\0';
    close(before);
    close(file);
    return result;
}

/* One line, with the cause and the remedy, and no control character. */
static bool says(const char *cause, const char *remedy)
{
    const char *end = strchr(said, '\n');
    bool is_clean = true;
    for (const char *letter = said; letter < end; letter++)
        is_clean = is_clean && !iscntrl((unsigned char)*letter);
    bool is_right = end != NULL && end[1] == '\0' && is_clean && strstr(said, cause) != NULL &&
                    strstr(said, remedy) != NULL;
    if (!is_right)
        printf("# it said: %s\n", said);
    return is_right;
}

#define CHECK_FAILS(id, number, cause, remedy)                                                                         \
    do {                                                                                                               \
        uint32_t fails_id = (id);                                                                                      \
        CHECK_INT(start(fails_id), number);                                                                            \
        CHECK(says(cause, remedy));                                                                                    \
        CHECK_INT(krun_free_ctx(fails_id), -ENOENT); /* it is gone in any case */                                      \
    } while (0)

/* A machine that would start, but for its kernel, which is a text. */
static uint32_t new_machine(void)
{
    uint32_t id = new_context();
    setenv("VIAL_ENGINE", "uml", 1);
    if (krun_set_vm_config(id, 1, 256) != 0 || krun_set_root(id, test_make_folder("root")) != 0 ||
        krun_set_kernel(id, test_text_file("kernel", "no kernel"), KRUN_KERNEL_FORMAT_ELF, NULL, NULL) != 0)
        abort();
    return id;
}

TEST(an_unknown_context)
{
    CHECK_INT(start(0xffffffff), -ENOENT);
}

TEST(no_root)
{
    uint32_t id = new_context();
    setenv("VIAL_ENGINE", "uml", 1);
    CHECK_FAILS(id, -EINVAL, "has no root", "krun_set_root");
}

TEST(a_kernel_that_is_none)
{
    CHECK_FAILS(new_machine(), -EACCES, "kernel", ";"); /* it is not even executable */
    uint32_t id = new_context();
    const char *kernel = test_text_file("executable", "no kernel");
    CHECK_INT(chmod(kernel, 0755), 0);
    CHECK_INT(krun_set_root(id, test_make_folder("root2")), 0);
    CHECK_INT(krun_set_vm_config(id, 1, 256), 0);
    CHECK_INT(krun_set_kernel(id, kernel, KRUN_KERNEL_FORMAT_ELF, NULL, NULL), 0);
    CHECK_FAILS(id, -EINVAL, "executable", ";");
}

TEST(a_kernel_that_is_not_there)
{
    uint32_t id = new_machine();
    CHECK_INT(krun_set_kernel(id, "/nonexistent/kernel", KRUN_KERNEL_FORMAT_ELF, NULL, NULL), 0);
    CHECK_FAILS(id, -ENOENT, "/nonexistent/kernel", ";");
}

TEST(a_root_that_is_not_there)
{
    uint32_t id = new_context();
    setenv("VIAL_ENGINE", "uml", 1);
    CHECK_INT(krun_set_root(id, "/nonexistent/root"), 0);
    CHECK_FAILS(id, -ENOENT, "/nonexistent/root", ";");
}

TEST(a_root_that_is_no_folder)
{
    uint32_t id = new_context();
    setenv("VIAL_ENGINE", "uml", 1);
    CHECK_INT(krun_set_root(id, test_text_file("file", "")), 0);
    CHECK_FAILS(id, -EINVAL, "file", ";");
}

TEST(a_disk_that_is_not_there)
{
    uint32_t id = new_machine();
    CHECK_INT(krun_add_disk(id, "a", "/nonexistent/a.img", false), 0);
    CHECK_FAILS(id, -ENOENT, "/nonexistent/a.img", ";");
}

TEST(a_disk_that_is_no_image)
{
    uint32_t id = new_machine();
    CHECK_INT(krun_add_disk2(id, "a", test_text_file("a.qcow2", "text"), KRUN_DISK_FORMAT_QCOW2, false), 0);
    CHECK_FAILS(id, -EINVAL, "qcow2", ";");
}

/* A qcow2 image of version 2 with one cluster of each kind, that stands on b.img without saying its format. */
TEST(a_backing_file_without_a_format)
{
    enum { cluster = 65536 };
    static uint8_t image[4 * cluster];
    static const uint8_t header[] = {
        'Q', 'F', 'I', 0xfb, 0,   0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 72, 0, 0, 0, 5, 0, 0, 0, 16, /* magic … cluster bits */
        0,   0,   0,   0,    0,   1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,  0, 0, 0, 0, 0, 3, 0, 0,  /* size, crypt, L1 */
        0,   0,   0,   0,    0,   1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0, 0,  /* refcounts, snapshots */
        'b', '.', 'i', 'm',  'g',
    };
    uint32_t id = new_machine();
    memcpy(image, header, sizeof(header));
    image[cluster + 5] = 2; /* the block of refcounts is the third cluster */
    for (int i = 0; i < 4; i++)
        image[2 * cluster + 2 * i + 1] = 1;
    test_file("b.img", header, sizeof(header));
    CHECK_INT(krun_add_disk2(id, "a", test_file("a.qcow2", image, sizeof(image)), KRUN_DISK_FORMAT_QCOW2, false), 0);
    CHECK_FAILS(id, -EINVAL, "does not say in what format", "qemu-img rebase");
}

TEST(an_engine_that_there_is_not)
{
    uint32_t id = new_machine();
    setenv("VIAL_ENGINE", "qemu\n\033[31m", 1);
    CHECK_FAILS(id, -EINVAL, "VIAL_ENGINE names no engine: qemu", "set it to kvm, uml or auto");
}

TEST(too_little_memory)
{
    uint32_t id = new_machine();
    CHECK_INT(krun_set_vm_config(id, 1, 1), 0);
    CHECK_INT(start(id), -ERANGE);
    CHECK(says("64 MiB", "give at least 64"));
}

TEST(too_much_memory)
{
    uint32_t id = new_machine();
    CHECK_INT(krun_set_vm_config(id, 1, UINT32_MAX), 0);
    CHECK_INT(start(id), -ERANGE);
    CHECK(says("this host can give", "give at most"));
}

TEST(console_output_that_cannot_be_written)
{
    uint32_t id = new_machine();
    CHECK_INT(krun_set_console_output(id, "/nonexistent/console.log"), 0);
    CHECK_FAILS(id, -ENOENT, "/nonexistent/console.log", "check the path");
}

TEST(a_command_line_that_is_too_long)
{
    enum { most = 1024 };
    uint32_t id = new_machine();
    char line[most + 2];
    memset(line, 'a', sizeof(line) - 1);
    line[most] = '\0';
    CHECK_INT(krun_set_kernel(id, "/nonexistent/kernel", KRUN_KERNEL_FORMAT_ELF, NULL, line), 0);
    CHECK_FAILS(id, -ENOENT, "/nonexistent/kernel", ";");
    id = new_context();
    CHECK_INT(krun_set_root(id, "/"), 0);
    line[most] = 'a';
    line[most + 1] = '\0';
    CHECK_INT(krun_set_kernel(id, test_text_file("other", "no kernel"), KRUN_KERNEL_FORMAT_ELF, NULL, line), 0);
    CHECK_FAILS(id, -E2BIG, "command line", ";");
}

TEST(an_init_of_ones_own_that_cannot_be_told)
{
    uint32_t id = new_context();
    setenv("VIAL_ENGINE", "uml", 1);
    CHECK_INT(krun_disable_implicit_init(id), 0);
    CHECK_INT(krun_set_root(id, test_make_folder("root")), 0);
    CHECK_INT(
        krun_set_exec(id, "/bin/sh", (const char *const[]){"-c", "echo \"quoted\"", NULL}, (const char *const[]){NULL}),
        0);
    CHECK_FAILS(id, -EINVAL, "cannot carry", "krun_disable_implicit_init");
}

/* ---- who the process is ---- */

/* In a process that is nobody: the number, or a positive one where something else failed. */
static int start_as_nobody(bool is_group)
{
    uint32_t id = new_machine();
    if ((is_group ? krun_setgid(id, 0) : krun_setuid(id, 0)) != 0)
        abort();
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        bool is_nobody = geteuid() != 0 ||
                         (setresgid(nobody, nobody, nobody) == 0 && setresuid(nobody, nobody, nobody) == 0);
        int32_t result = is_nobody ? start(id) : 0;
        bool is_said = says(is_group ? "setgid(0) failed" : "setuid(0) failed", "");
        fflush(stdout);
        _exit(is_said && result < 0 ? -result : 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    krun_free_ctx(id);
    return WIFEXITED(status) && WEXITSTATUS(status) > 0 ? -WEXITSTATUS(status) : 1;
}

TEST(a_user_that_the_process_may_not_become)
{
    CHECK_INT(chmod(test_folder(), 0755), 0);
    CHECK_INT(start_as_nobody(false), -EPERM);
}

TEST(a_group_that_the_process_may_not_become)
{
    CHECK_INT(chmod(test_folder(), 0755), 0);
    CHECK_INT(start_as_nobody(true), -EPERM);
}

/* A start that fails before the ids change leaves what goes with them, too. */
TEST(a_process_that_stays_as_it_was)
{
    uint32_t id = new_context();
    setenv("VIAL_ENGINE", "uml", 1);
    CHECK_INT(prctl(PR_SET_DUMPABLE, 1), 0);
    CHECK_INT(krun_set_root(id, "/nonexistent/root"), 0);
    CHECK_INT(krun_setgid(id, getgid()), 0);
    CHECK_INT(krun_setuid(id, getuid()), 0);
    CHECK_FAILS(id, -ENOENT, "/nonexistent/root", ";");
    CHECK_INT(prctl(PR_GET_DUMPABLE), 1);
}

/* ---- the line ---- */

TEST(the_line_goes_to_the_log_where_there_is_one)
{
    uint32_t id = new_context();
    setenv("VIAL_ENGINE", "uml", 1);
    CHECK_INT(krun_set_log_level(KRUN_LOG_LEVEL_ERROR), 0);
    CHECK_INT(start(id), -EINVAL);
    CHECK_INT(krun_set_log_level(KRUN_LOG_LEVEL_OFF), 0);
    CHECK(says("has no root", "remedy="));
}

TEST(signals_are_as_they_were)
{
    sigset_t before, after;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    CHECK(start(new_machine()) < 0);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    for (int number = 1; number < 32; number++)
        CHECK_INT(sigismember(&after, number), sigismember(&before, number));
}

TEST(a_hundred_failures_leave_nothing_behind)
{
    for (int i = 0; i < 100; i++) {
        uint32_t id = new_context();
        CHECK_INT(krun_set_root(id, "/nonexistent/root"), 0);
        CHECK_INT(krun_add_console_port_inout(id, (uint32_t)krun_add_virtio_console_multiport(id), "a", 0, 1), 0);
        CHECK_INT(start(id), -ENOENT);
    }
}
