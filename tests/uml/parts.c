// SPDX-License-Identifier: Apache-2.0
/* The parts of the uml engine that need no guest: the kernel's arguments, its file, its words, its end, and where it
 * should run. */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/limits.h"
#include "engine/uml/cmdline.h"
#include "engine/uml/ending.h"
#include "engine/uml/kernel.h"
#include "engine/uml/output.h"
#include "engine/uml/placement.h"
#include "host/kernels.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

static struct vial_error err;

/* ---- the kernel's arguments ---- */

static const struct uml_cmdline_device devices[] = {{"/socket/0", 3}, {"/socket/1", 4}};

static struct uml_cmdline_options make_options(const char *text)
{
    return (struct uml_cmdline_options){
        .vcpus = 2,
        .memory_bytes = 256 << 20,
        .state_folder = "/run",
        .initramfs = "/initrd",
        .text = text,
        .devices = devices,
        .device_count = 2,
    };
}

static size_t count_words(const struct uml_cmdline *cmdline)
{
    size_t count = 0;
    while (cmdline->words[count] != NULL)
        count++;
    return count;
}

static bool has_word(const struct uml_cmdline *cmdline, const char *word)
{
    bool is_there = false;
    for (size_t i = 0; cmdline->words[i] != NULL; i++)
        is_there |= strcmp(cmdline->words[i], word) == 0;
    return is_there;
}

TEST(the_machine_becomes_arguments)
{
    struct uml_cmdline_options options = make_options("console=hvc0 quiet");
    struct uml_cmdline cmdline;
    CHECK_INT(uml_cmdline_make(&options, &cmdline, &err), 0);
    CHECK_TEXT(cmdline.words[0], "linux");
    CHECK_TEXT(cmdline.words[1], "mem=262144K");
    static const char *const words[] = {"ncpus=2",
                                        "seccomp=on",
                                        "initrd=/initrd",
                                        "uml_dir=/run",
                                        "root=none",
                                        "console=tty0",
                                        "con0=fd:0,fd:1",
                                        "rcupdate.rcu_expedited=1",
                                        "virtio_uml.device=/socket/0:3:0",
                                        "virtio_uml.device=/socket/1:4:1"};
    for (size_t i = 0; i < array_length(words); i++)
        CHECK(has_word(&cmdline, words[i]));
    CHECK(!has_word(&cmdline, "noreboot"));
    CHECK_TEXT(cmdline.words[count_words(&cmdline) - 1], "panic=-1 console=hvc0 quiet");
    uml_cmdline_free(&cmdline);
    options.initramfs = NULL;
    options.vcpus = 1;
    options.text = "";
    CHECK_INT(uml_cmdline_make(&options, &cmdline, &err), 0);
    CHECK(!has_word(&cmdline, "initrd=/initrd") && !has_word(&cmdline, "rcupdate.rcu_expedited=1"));
    CHECK_TEXT(cmdline.words[count_words(&cmdline) - 1], "panic=-1");
    uml_cmdline_free(&cmdline);
}

/* What user-mode Linux compares with the beginnings of its arguments must not find anything of the text there. */
TEST(no_text_becomes_an_option_of_the_program)
{
    static const char *const texts[] = {"mem=64G",     "--help",        " --version",           "initrd=/etc/shadow",
                                        "seccomp=off", "a\" ncpus=64",  "quiet \"--showconfig", "uml_dir=/",
                                        "noreboot",    "\"x y\" mem=1G"};
    for (size_t i = 0; i < array_length(texts); i++) {
        struct uml_cmdline_options options = make_options(texts[i]), plain = make_options("");
        struct uml_cmdline cmdline, other;
        CHECK_INT(uml_cmdline_make(&options, &cmdline, &err), 0);
        CHECK_INT(uml_cmdline_make(&plain, &other, &err), 0);
        size_t count = count_words(&cmdline);
        CHECK_INT(count, count_words(&other));
        for (size_t word = 0; word + 1 < count; word++)
            CHECK_TEXT(cmdline.words[word], other.words[word]);
        CHECK(strncmp(cmdline.words[count - 1], "panic=-1 ", 9) == 0);
        CHECK_TEXT(cmdline.words[count - 1] + 9, texts[i]);
        uml_cmdline_free(&cmdline);
        uml_cmdline_free(&other);
    }
}

TEST(what_a_command_line_cannot_carry_is_refused)
{
    static const char *const texts[] = {"a\nb", "tab\there", "caf\xc3\xa9", "\x1b[31m"};
    for (size_t i = 0; i < array_length(texts); i++) {
        struct uml_cmdline_options options = make_options(texts[i]);
        struct uml_cmdline cmdline;
        CHECK_INT(uml_cmdline_make(&options, &cmdline, &err), -EINVAL);
        CHECK_TEXT(err.field, "kernel.cmdline");
        CHECK(err.remedy[0] != '\0');
    }
}

TEST(the_arguments_never_exceed_the_kernels_buffer)
{
    static char text[LIMIT_UML_CMDLINE_BYTES + 64];
    size_t longest = 0;
    bool has_ended = false; /* from some length on it is too long, and stays so */
    for (size_t length = 1; length < sizeof(text) - 1; length++) {
        struct uml_cmdline cmdline;
        memset(text, 'x', length);
        text[length] = '\0';
        struct uml_cmdline_options options = make_options(text);
        int result = uml_cmdline_make(&options, &cmdline, &err);
        CHECK(result == -E2BIG || (result == 0 && !has_ended));
        has_ended = result < 0;
        if (has_ended)
            continue;
        longest = length;
        size_t joined = 0;
        for (size_t i = 1; cmdline.words[i] != NULL; i++)
            joined += strlen(cmdline.words[i]) + 1;
        CHECK(joined <= LIMIT_UML_CMDLINE_BYTES);
        uml_cmdline_free(&cmdline);
    }
    CHECK(longest > 3000 && has_ended);
}

TEST(many_devices_are_too_many_for_a_command_line)
{
    static struct uml_cmdline_device many[LIMIT_DEVICES];
    struct uml_cmdline cmdline;
    for (size_t i = 0; i < array_length(many); i++)
        many[i] = (struct uml_cmdline_device){"/socket/100", 26};
    struct uml_cmdline_options options = make_options("");
    options.devices = many;
    options.device_count = 80;
    CHECK_INT(uml_cmdline_make(&options, &cmdline, &err), 0);
    uml_cmdline_free(&cmdline);
    options.device_count = array_length(many);
    CHECK_INT(uml_cmdline_make(&options, &cmdline, &err), -E2BIG);
    CHECK(strstr(err.message, "200 devices") != NULL);
}

TEST(the_arguments_survive_no_memory)
{
    FOR_EACH_FAULT
    {
        struct uml_cmdline_options options = make_options("quiet");
        struct uml_cmdline cmdline = {0};
        CHECK_INT(uml_cmdline_make(&options, &cmdline, &err), fault_was_hit() ? -ENOMEM : 0);
        uml_cmdline_free(&cmdline);
    }
}

/* ---- the kernel's file ---- */

static int check_file(const char *path, unsigned vcpus)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    err = (struct vial_error){0};
    return fd < 0 ? -errno : uml_kernel_check(fd, path, vcpus, &err);
}

/* A static program for x86_64 with two sections and their names. */
struct image {
    Elf64_Ehdr header;
    Elf64_Shdr sections[3];
    char names[64];
    char rodata[64];
};

static struct image make_image(const char *setup_section, const char *rodata)
{
    struct image image = {
        .header = {.e_type = ET_EXEC,
                   .e_machine = EM_X86_64,
                   .e_shoff = offsetof(struct image, sections),
                   .e_shentsize = sizeof(Elf64_Shdr),
                   .e_shnum = 3,
                   .e_shstrndx = 2},
        .sections = {{.sh_name = 1, .sh_type = SHT_PROGBITS},
                     {.sh_name = 32,
                      .sh_type = SHT_PROGBITS,
                      .sh_offset = offsetof(struct image, rodata),
                      .sh_size = sizeof(image.rodata)},
                     {.sh_name = 0, .sh_offset = offsetof(struct image, names), .sh_size = sizeof(image.names)}},
    };
    memcpy(image.header.e_ident, ELFMAG, SELFMAG);
    image.header.e_ident[EI_CLASS] = ELFCLASS64;
    snprintf(image.names + 1, 31, "%s", setup_section);
    snprintf(image.names + 32, 31, ".rodata");
    snprintf(image.rodata, sizeof(image.rodata), "%s", rodata);
    return image;
}

static int check_bytes(const void *bytes, size_t length, unsigned vcpus)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/kernel", test_folder());
    auto_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    return fd < 0 || fd_write_all(fd, bytes, length) < 0 ? -EIO : check_file(path, vcpus);
}

static int check_image(const struct image *image, unsigned vcpus)
{
    return check_bytes(image, sizeof(*image), vcpus);
}

TEST(the_projects_kernel_is_accepted)
{
    struct host_path path;
    CHECK(host_kernel_find("", HOST_ENGINE_UML, &path));
    CHECK_INT(check_file(path.text, 1), 0);
    CHECK_INT(check_file(path.text, 64), 0);
    CHECK_INT(check_file(path.text, 65), -ERANGE);
    CHECK(strstr(err.message, "was built for 64") != NULL);
    CHECK_TEXT(err.field, "machine.vcpus");
}

TEST(a_kernel_for_few_cpus_says_so)
{
    struct image image = make_image(".uml.setup.init", "CONFIG_SMP=y\nCONFIG_NR_CPUS=4\n");
    CHECK_INT(check_image(&image, 4), 0);
    CHECK_INT(check_image(&image, 5), -ERANGE);
    image = make_image(".uml.setup.init", "CONFIG_X=y\n# CONFIG_SMP is not set\n");
    CHECK_INT(check_image(&image, 1), 0);
    CHECK_INT(check_image(&image, 2), -ERANGE);
    image = make_image(".uml.setup.init", "no configuration");
    CHECK_INT(check_image(&image, 64), 0);
}

TEST(what_is_no_user_mode_linux_is_refused)
{
    struct host_path kvm;
    auto_buffer struct buffer bytes = BUFFER_INIT(64 << 20);
    struct image image = make_image(".init.setup", "");
    CHECK_INT(check_image(&image, 1), -EINVAL);
    CHECK(strstr(err.message, "no user-mode Linux") != NULL);
    CHECK_TEXT(err.field, "kernel.path");
    CHECK(host_kernel_find("", HOST_ENGINE_KVM, &kvm));
    auto_close int fd = open(kvm.text, O_RDONLY | O_CLOEXEC);
    CHECK_INT(fd_read_all(fd, &bytes), 0);
    CHECK_INT(check_bytes(bytes.data, bytes.length, 1), -EINVAL);
    CHECK(strstr(err.message, "for KVM") != NULL);
    CHECK_INT(check_bytes("#!/bin/sh\nexit 0\n", 17, 1), -EINVAL);
    CHECK(strstr(err.message, "script") != NULL);
    CHECK_INT(check_bytes("", 0, 1), -EINVAL);
    CHECK_INT(check_file(test_make_folder("folder"), 1), -EINVAL);
    CHECK(strstr(err.message, "folder") != NULL);
    CHECK_INT(check_file("/dev/null", 1), -EINVAL);
}

TEST(a_kernel_that_nobody_may_execute_is_refused)
{
    struct image image = make_image(".uml.setup.init", "");
    const char *path = test_file("kernel", &image, sizeof(image));
    chmod(path, 0644);
    CHECK_INT(check_file(path, 1), -EACCES);
    CHECK(strstr(err.remedy, "chmod") != NULL);
}

/* Every field that leads somewhere, leading nowhere. */
TEST(a_broken_file_is_no_kernel)
{
    static const uint64_t odd[] = {UINT64_MAX, INT64_MAX, UINT64_C(1) << 40, sizeof(struct image)};
    const struct image good = make_image(".uml.setup.init", "CONFIG_NR_CPUS=4");
    for (size_t i = 0; i < array_length(odd); i++) {
        struct image image = good;
        image.header.e_shoff = odd[i];
        CHECK_INT(check_image(&image, 2), -EINVAL);
        image = good;
        image.sections[2].sh_offset = odd[i];
        CHECK_INT(check_image(&image, 2), -EINVAL);
        image = good;
        image.sections[2].sh_size = odd[i];
        CHECK_INT(check_image(&image, 2), -EINVAL);
        image = good;
        image.sections[1].sh_offset = odd[i];
        CHECK_INT(check_image(&image, 2), -EINVAL);
        image = good;
        image.sections[0].sh_name = (uint32_t)odd[i];
        CHECK_INT(check_image(&image, 2), -EINVAL);
    }
    for (size_t length = 0; length < offsetof(struct image, rodata); length++)
        CHECK_INT(check_bytes(&good, length, 1), -EINVAL);
    struct image image = good;
    image.header.e_shstrndx = 3;
    CHECK_INT(check_image(&image, 1), -EINVAL);
    image = good;
    image.header.e_shnum = UINT16_MAX;
    CHECK_INT(check_image(&image, 1), -EINVAL);
    image = good;
    image.header.e_machine = EM_AARCH64;
    CHECK_INT(check_image(&image, 1), -EINVAL);
    image = good;
    image.header.e_type = ET_REL;
    CHECK_INT(check_image(&image, 1), -EINVAL);
}

TEST(the_check_survives_no_memory)
{
    const struct image image = make_image(".uml.setup.init", "CONFIG_NR_CPUS=4");
    const char *path = test_file("kernel", &image, sizeof(image));
    chmod(path, 0755);
    FOR_EACH_FAULT
    CHECK_INT(check_file(path, 2), fault_was_hit() ? -ENOMEM : 0);
}

/* ---- what it says ---- */

static struct uml_output make_output(const char *text)
{
    struct uml_output output = {.name = "stdout", .fd = -1};
    uml_output_feed(&output, text, strlen(text));
    return output;
}

TEST(lines_are_kept)
{
    struct uml_output output = make_output("one\r\ntwo \r\n\n\r\n");
    CHECK_TEXT(output.last, "two");
    CHECK_TEXT(output.panic, "");
    uml_output_feed(&output, "thr", 3);
    CHECK_TEXT(output.last, "two");
    uml_output_feed(&output, "ee\n", 3);
    CHECK_TEXT(output.last, "three");
    uml_output_feed(&output, "four", 4);
    uml_output_finish(&output);
    CHECK_TEXT(output.last, "four");
}

TEST(a_long_line_is_cut)
{
    static char bytes[3 * LIMIT_UML_LINE_BYTES];
    struct uml_output output = make_output("");
    memset(bytes, 'x', sizeof(bytes));
    uml_output_feed(&output, bytes, sizeof(bytes));
    uml_output_feed(&output, "\nnext\n", 1);
    CHECK_INT(strlen(output.last), LIMIT_UML_LINE_BYTES - 1);
    uml_output_feed(&output, "next\n", 5);
    CHECK_TEXT(output.last, "next");
}

TEST(signs_are_seen)
{
    struct uml_output output = make_output("[    0.010000] Kernel panic - not syncing: Attempted to kill init!\r\n"
                                           "Kernel panic - not syncing: again\n");
    CHECK_TEXT(output.panic, "Attempted to kill init!");
    output = make_output("Failed to exec kernel: Operation not permitted\n");
    CHECK(output.has_failed_exec);
    output = make_output("a program says: Failed to exec kernel\n");
    CHECK(!output.has_failed_exec);
}

TEST(a_pipe_is_read_in_bounded_pieces)
{
    static char bytes[10000];
    int fds[2];
    CHECK_INT(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    auto_close int mine = fds[0];
    int theirs = fds[1];
    struct uml_output output = {.name = "stdout", .fd = mine};
    CHECK_INT(uml_output_read(&output), 0);
    memset(bytes, '\n', sizeof(bytes));
    memcpy(bytes + sizeof(bytes) - 5, "end.\n", 5);
    CHECK_INT(write(theirs, bytes, sizeof(bytes)), sizeof(bytes));
    CHECK_INT(uml_output_read(&output), 1);
    CHECK_TEXT(output.last, "");
    uml_output_finish(&output);
    CHECK_TEXT(output.last, "end.");
    fd_close(theirs);
    CHECK_INT(uml_output_read(&output), -EPIPE);
}

/* ---- the end ---- */

static struct vial_exit judge(bool was_killed, int status, bool has_begun, const char *panic, const char *last)
{
    struct vial_exit exit;
    struct uml_ending ending = {
        .was_killed = was_killed, .status = status, .has_begun = has_begun, .panic = panic, .last_line = last};
    uml_ending_judge(&ending, &exit);
    return exit;
}

TEST(every_end_has_its_reason)
{
    static const struct {
        bool was_killed;
        int status;
        bool has_begun;
        const char *panic, *last;
        enum vial_exit_reason reason;
        int exit_code;
        const char *says;
    } rows[] = {
        {false, 0, true, "", "", VIAL_EXIT_COMPLETED, 0, "the guest powered the machine off"},
        {false, 127, true, "no init", "", VIAL_EXIT_GUEST_PANIC, 0, "the guest's kernel panicked: no init"},
        {false, 127, false, "", "", VIAL_EXIT_GUEST_PANIC, 0, "the guest's kernel panicked"},
        {true, SIGABRT, true, "bad", "", VIAL_EXIT_GUEST_PANIC, 0, "the guest's kernel panicked: bad"},
        {false, 1, false, "", "open: no space", VIAL_EXIT_INTERNAL_ERROR, 0, "open: no space"},
        {false, 0, false, "", "", VIAL_EXIT_INTERNAL_ERROR, 0, "before it found a device"},
        {false, 1, true, "", "fatal", VIAL_EXIT_INTERNAL_ERROR, 0, "status 1: fatal"},
        {true, SIGKILL, true, "", "", VIAL_EXIT_SIGNAL, 137, "out-of-memory"},
        {true, SIGTERM, true, "", "", VIAL_EXIT_SIGNAL, 143, "(SIGTERM)"},
        {true, SIGSYS, true, "", "", VIAL_EXIT_INTERNAL_ERROR, 0, "the jail forbids"},
        {true, SIGSEGV, true, "", "", VIAL_EXIT_GUEST_PANIC, 0, "died of signal 11 (SIGSEGV)"},
        {true, SIGBUS, true, "", "", VIAL_EXIT_GUEST_PANIC, 0, "(SIGBUS)"},
    };
    for (size_t i = 0; i < array_length(rows); i++) {
        struct vial_exit exit = judge(rows[i].was_killed, rows[i].status, rows[i].has_begun, rows[i].panic,
                                      rows[i].last);
        CHECK_INT(exit.size, sizeof(exit));
        CHECK_INT(exit.reason, rows[i].reason);
        CHECK_INT(exit.code, rows[i].exit_code);
        if (strstr(exit.detail, rows[i].says) == NULL)
            CHECK_TEXT(exit.detail, rows[i].says);
    }
}

TEST(a_reset_is_told_from_the_power_being_off)
{
    struct vial_exit exit;
    struct uml_ending ending = {.has_begun = true, .has_failed_exec = true, .panic = "", .last_line = ""};
    uml_ending_judge(&ending, &exit);
    CHECK_INT(exit.reason, VIAL_EXIT_GUEST_RESET);
}

TEST(what_a_guest_says_is_escaped)
{
    char line[600];
    memset(line, '\x1b', sizeof(line) - 1);
    line[sizeof(line) - 1] = '\0';
    struct vial_exit exit = judge(false, 127, true, line, line);
    CHECK(strchr(exit.detail, '\x1b') == NULL && strlen(exit.detail) < sizeof(exit.detail));
}

/* ---- where it should run ---- */

TEST(the_cpu_of_a_process_is_field_39)
{
#define FIELDS_3_TO_38                                                                                                 \
    " R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35"
    CHECK_INT(placement_parse_cpu("7 (a) b)" FIELDS_3_TO_38 " 6 0 0\n"), 6);
    static const char *const wrong[] = {"", "7 (a R 1 2 3", "7 (a) R 1 2 3\n", "7 (a)" FIELDS_3_TO_38,
                                        "7 (a)" FIELDS_3_TO_38 " 99999 0\n"};
    for (size_t i = 0; i < array_length(wrong); i++)
        CHECK_INT(placement_parse_cpu(wrong[i]), -EPROTO);
}

TEST(the_idle_time_of_cpus_is_read_as_far_as_the_text_goes)
{
    static uint64_t idle[CPU_SETSIZE];
    placement_parse_idle("cpu  1 1 1 1 1 1\ncpu0 1 2 3 40 5 6 7\ncpu2 1 2 3 400 50 6 7\ncpu3 1 2 3 4", idle);
    CHECK_INT(idle[0], 45);
    CHECK_INT(idle[2], 450);
    CHECK(idle[1] == UINT64_MAX && idle[3] == UINT64_MAX && idle[CPU_SETSIZE - 1] == UINT64_MAX);
    placement_parse_idle("cpu0 1 2 3 40 5 6 7\ncpu99999 1 2 3 4 5 6\nintr 1 2 3\ncpu1 1 2 3 4 5 6\n", idle);
    CHECK(idle[0] == 45 && idle[1] == UINT64_MAX);
    placement_parse_idle("", idle);
    CHECK(idle[0] == UINT64_MAX);
}

TEST(a_cpu_is_chosen_that_is_allowed_and_idle)
{
    static uint64_t before[CPU_SETSIZE], after[CPU_SETSIZE];
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    for (size_t cpu = 0; cpu < 5; cpu++)
        CPU_SET(cpu, &allowed);
    memset(before, 0xff, sizeof(before));
    memset(after, 0xff, sizeof(after));
    const uint64_t idle[] = {100, 15, 20, 99, 0, 100}; /* our own is the first; the last one is not for us */
    for (size_t cpu = 0; cpu < array_length(idle); cpu++) {
        before[cpu] = 1000;
        after[cpu] = 1000 + idle[cpu];
    }
    after[3] = 999; /* it went offline and came back */
    CHECK_INT(placement_choose(&allowed, 0, before, after, 15), 2);
    CHECK_INT(placement_choose(&allowed, 0, before, after, 21), -1);
    CHECK_INT(placement_choose(&allowed, 2, before, after, 15), 0);
    after[2] = UINT64_MAX;
    CHECK_INT(placement_choose(&allowed, 0, before, after, 15), 1);
}
