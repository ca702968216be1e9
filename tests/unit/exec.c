// SPDX-License-Identifier: Apache-2.0
/* Tests of exec: the host's end of the port of a guest's init, with guests that say what they should and what they
 * should not, and what the machine's end then means. */
#include "test.h"

#include "base/alloc.h"
#include "vmm/exec.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

static struct vial_error err;
static struct vial_vm_config *config;
static struct exec *exec;
static struct console_port_options ports[EXEC_MOST_PORTS];
static size_t port_count;
static int starts;

static void count_start(void *user)
{
    *(int *)user += 1;
}

static int begin(bool has_terminal)
{
    static const char *const args[] = {"-x", NULL}, *const env[] = {"A=b", NULL};
    struct vial_exec_options options = VIAL_EXEC_OPTIONS_INIT;
    options.path = "some program";
    options.args = args;
    options.env = env;
    options.workdir = "/work";
    options.uid = 1000;
    options.has_uid = true;
    int result = vial_vm_config_new(&config, &err);
    if (result == 0)
        result = vial_vm_config_set_exec(config, &options, &err);
    if (result == 0)
        result = vial_vm_config_add_rlimit(config, "NOFILE=5:6", &err);
    if (result == 0)
        result = exec_new(config, has_terminal, &exec, &err);
    starts = 0;
    if (result < 0)
        return result;
    exec_set_streams(exec, (const int[]){STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO});
    exec_on_start(exec, count_start, &starts);
    port_count = exec_ports(exec, ports);
    return 0;
}

static void end(void)
{
    exec = exec_free(exec);
    vial_vm_config_free(config);
    config = NULL;
}

static const struct console_port_options *init_port(void)
{
    return &ports[port_count - 1];
}

static ssize_t hear(void *bytes, size_t size)
{
    return init_port()->ops->read(init_port()->ops_user, bytes, size);
}

static bool is_readable(void)
{
    struct pollfd wait = {.fd = init_port()->ops->poll_fd(init_port()->ops_user), .events = POLLIN | POLLOUT};
    return poll(&wait, 1, 0) == 1 && (wait.revents & POLLOUT) != 0 && (wait.revents & POLLIN) != 0;
}

static ssize_t say_bytes(const void *bytes, size_t length)
{
    return init_port()->ops->write(init_port()->ops_user, bytes, length);
}

/* In pieces of that size. */
static void say(const struct init_answer *answer, size_t piece)
{
    uint8_t bytes[INIT_MOST_ANSWER_BYTES];
    size_t length = init_encode_answer(answer, bytes);
    for (size_t done = 0; done < length; done += piece)
        say_bytes(bytes + done, length - done < piece ? length - done : piece);
}

static const struct init_answer started = {.kind = INIT_STARTED};
static struct vial_exit judged;

static void judge(int reason)
{
    judged = (struct vial_exit)VIAL_EXIT_INIT;
    judged.reason = reason;
    judged.code = -7;
    snprintf(judged.detail, sizeof(judged.detail), "as it was");
    exec_judge(exec, &judged);
}

/* ---- ports ---- */

TEST(an_agent_stands_before_the_init)
{
    struct vial_agent_options options = VIAL_AGENT_OPTIONS_INIT;
    uint8_t bytes[64], expected[] = "\x10\0\0\0\3\0\5\0\2\0\0\0\0\0\0\0\0\0\0\0box";
    int ends[2];
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    options.fd = ends[0];
    options.hostname = "box";
    CHECK_INT(vial_vm_config_new(&config, NULL), 0);
    CHECK_INT(vial_vm_config_set_agent(config, &options, NULL), 0);
    CHECK_INT(exec_new(config, false, &exec, NULL), 0);
    port_count = exec_ports(exec, ports);
    CHECK_INT(port_count, 2);
    CHECK_TEXT(ports[0].name, "vial.agent");
    CHECK(ports[0].input_fd > ends[1] && ports[0].input_fd == ports[0].output_fd && ports[0].guest_changed != NULL);
    CHECK_TEXT(ports[1].name, "vial.init");
    CHECK_INT(hear(bytes, sizeof(bytes)), sizeof(expected));
    CHECK(memcmp(bytes, expected, sizeof(expected)) == 0);
    end();
    CHECK(close(ends[0]) == 0 && close(ends[1]) == 0);
}

TEST(the_streams_stand_before_the_init)
{
    CHECK_INT(begin(false), 0);
    CHECK_INT(port_count, 4);
    CHECK_TEXT(ports[0].name, "vial.stdin");
    CHECK_TEXT(ports[1].name, "vial.stdout");
    CHECK_TEXT(ports[2].name, "vial.stderr");
    CHECK_TEXT(ports[3].name, "vial.init");
    CHECK(ports[0].input_fd == 0 && ports[0].output_fd == -1);
    CHECK(ports[1].input_fd == -1 && ports[1].output_fd == 1);
    CHECK(ports[2].input_fd == -1 && ports[2].output_fd == 2);
    CHECK(!ports[0].is_console && !ports[3].is_console);
    exec_set_streams(exec, (const int[]){-1, 71, -1});
    exec_ports(exec, ports);
    CHECK(ports[0].input_fd > 2); /* an empty one, that says so */
    CHECK_INT(read(ports[0].input_fd, ports, 1), 0);
    CHECK_INT(ports[1].output_fd, 71);
    CHECK_INT(ports[2].output_fd, -1);
    end();
    CHECK_INT(begin(true), 0);
    CHECK_INT(port_count, 1);
    CHECK_TEXT(ports[0].name, "vial.init");
    end();
}

TEST(the_console_takes_the_ports)
{
    struct virtio_device *console = NULL;
    CHECK_INT(begin(false), 0);
    exec_set_streams(exec, (const int[]){-1, -1, -1});
    exec_ports(exec, ports);
    struct console_options options = {.ports = ports, .port_count = 4};
    CHECK_INT(console_new(&options, &console), 0);
    virtio_device_free(console);
    end();
}

/* ---- the request ---- */

TEST(the_request_is_given_once)
{
    enum { setup_bytes = INIT_HEADER_BYTES + 13 };
    uint8_t bytes[512];
    size_t length = 0;
    struct init_header header;
    struct init_request request;
    auto_free void *table = NULL;
    CHECK_INT(begin(false), 0);
    for (ssize_t got; (got = hear(bytes + length, 7)) > 0; length += (size_t)got)
        CHECK(length < sizeof(bytes) - 7);
    CHECK_INT(hear(bytes, 7), -EAGAIN);
    CHECK(!is_readable());
    CHECK(memcmp(bytes, "\xd\0\0\0\3\0\5\0\1\0\0\0\0\0\0\0\0\0\0\0", setup_bytes) ==
          0); /* nothing to mount, a request */
    CHECK_INT(init_decode_header(bytes + setup_bytes, &header), 0);
    const uint8_t *body = bytes + setup_bytes + INIT_HEADER_BYTES;
    CHECK_INT(header.body_bytes, length - setup_bytes - INIT_HEADER_BYTES);
    CHECK_INT(init_decode_request(body, header.body_bytes, &request, &table), 0);
    CHECK_TEXT(request.path, "some program");
    CHECK_TEXT(request.args[0], "-x");
    CHECK_TEXT(request.env[0], "A=b");
    CHECK_TEXT(request.workdir, "/work");
    CHECK(request.has_uid && !request.has_gid && !request.has_terminal);
    CHECK_INT(request.uid, 1000);
    CHECK_INT(request.rlimits[0].resource, 7);
    CHECK_INT(request.rlimits[0].soft, 5);
    end();
}

TEST(it_can_be_waited_for)
{
    uint8_t bytes[512];
    CHECK_INT(begin(true), 0);
    CHECK(is_readable());
    CHECK(hear(bytes, 10) == 10 && is_readable());
    CHECK(hear(bytes, sizeof(bytes)) > 0 && !is_readable());
    say(&started, 100);
    CHECK(!is_readable());
    say(&(struct init_answer){.kind = INIT_ENDED, .number = 1}, 100);
    CHECK(is_readable());
    CHECK_INT(hear(bytes, sizeof(bytes)), INIT_HEADER_BYTES);
    CHECK(memcmp(bytes, "\0\0\0\0\2\0\5\0", INIT_HEADER_BYTES) == 0);
    CHECK(!is_readable() && hear(bytes, 1) == -EAGAIN);
    end();
}

TEST(goodbye_waits_for_the_outputs)
{
    uint8_t bytes[512];
    CHECK_INT(begin(false), 0);
    CHECK(ports[0].guest_changed == NULL && ports[3].guest_changed == NULL);
    CHECK(hear(bytes, sizeof(bytes)) > 0);
    for (int i = 1; i <= 2; i++)
        ports[i].guest_changed(ports[i].guest_user, true);
    say(&started, 100);
    ports[1].guest_changed(ports[1].guest_user, false); /* a program may close its own */
    CHECK(!is_readable());
    say(&(struct init_answer){.kind = INIT_ENDED, .number = 1}, 100);
    CHECK(!is_readable());
    ports[2].guest_changed(ports[2].guest_user, false);
    CHECK(is_readable());
    CHECK_INT(hear(bytes, sizeof(bytes)), INIT_HEADER_BYTES);
    ports[2].guest_changed(ports[2].guest_user, true);
    ports[2].guest_changed(ports[2].guest_user, false);
    CHECK(!is_readable());
    end();
}

static int ends;

static void count_end(void *user)
{
    ends += user == &ends;
}

TEST(the_end_of_the_machine_waits_for_the_outputs)
{
    uint8_t bytes[512];
    ends = 0;
    CHECK_INT(begin(false), 0);
    exec_on_end(exec, count_end, &ends);
    CHECK(hear(bytes, sizeof(bytes)) > 0);
    ports[1].guest_changed(ports[1].guest_user, true);
    say(&started, 100);
    say(&(struct init_answer){.kind = INIT_ENDED, .number = 1}, 100);
    CHECK_INT(ends, 0);
    ports[1].guest_changed(ports[1].guest_user, false);
    CHECK_INT(ends, 1);
    CHECK(!is_readable()); /* and no goodbye */
    ports[1].guest_changed(ports[1].guest_user, true);
    ports[1].guest_changed(ports[1].guest_user, false);
    CHECK_INT(ends, 1);
    end();
}

/* ---- what the end means ---- */

#define JUDGED(expected_reason, expected_code, expected_detail)                                                        \
    do {                                                                                                               \
        for (int reset = 0; reset < 2; reset++) {                                                                      \
            judge(reset ? VIAL_EXIT_GUEST_RESET : VIAL_EXIT_COMPLETED);                                                \
            CHECK_INT(judged.reason, expected_reason);                                                                 \
            CHECK_INT(judged.code, expected_code);                                                                     \
            CHECK_TEXT(judged.detail, expected_detail);                                                                \
        }                                                                                                              \
    } while (0)

static void say_end(bool was_killed, uint32_t number)
{
    say(&started, 3);
    say(&(struct init_answer){.kind = INIT_ENDED, .was_killed = was_killed, .number = number}, 3);
}

TEST(a_program_that_ends)
{
    CHECK_INT(begin(false), 0);
    CHECK_INT(exec_started_ns(exec), 0);
    say_end(false, 0);
    JUDGED(VIAL_EXIT_COMPLETED, 0, "the program ended with exit code 0");
    CHECK(exec_started_ns(exec) > 0);
    CHECK_INT(starts, 1);
    end();
    CHECK_INT(begin(false), 0);
    say_end(false, 3);
    JUDGED(VIAL_EXIT_FAILED, 3, "the program ended with exit code 3");
    end();
}

TEST(a_program_that_is_killed)
{
    CHECK_INT(begin(false), 0);
    say_end(true, 11);
    JUDGED(VIAL_EXIT_FAILED, 139, "the program was killed by signal 11 (SIGSEGV)");
    end();
    CHECK_INT(begin(false), 0);
    say_end(true, 40); /* a real-time signal has no name */
    JUDGED(VIAL_EXIT_FAILED, 168, "the program was killed by signal 40");
    end();
}

static int fail(enum init_stage stage, uint32_t os_error)
{
    int result = begin(false);
    if (result == 0)
        say(&(struct init_answer){.kind = INIT_FAILED, .stage = stage, .os_error = os_error}, 1);
    return result;
}

TEST(a_program_that_cannot_be_executed)
{
    CHECK_INT(fail(INIT_STAGE_EXEC, ENOENT), 0);
    JUDGED(VIAL_EXIT_FAILED, 127, "exec \"some program\": No such file or directory");
    CHECK_INT(starts, 0);
    end();
    CHECK_INT(fail(INIT_STAGE_EXEC, EACCES), 0);
    JUDGED(VIAL_EXIT_FAILED, 126, "exec \"some program\": Permission denied");
    end();
    CHECK_INT(fail(INIT_STAGE_CHDIR, ENOENT), 0);
    JUDGED(VIAL_EXIT_FAILED, 126, "chdir \"/work\": No such file or directory");
    end();
    CHECK_INT(fail(INIT_STAGE_SETUID, EINVAL), 0);
    JUDGED(VIAL_EXIT_FAILED, 126, "setuid 1000: Invalid argument");
    end();
    CHECK_INT(fail(INIT_STAGE_FORK, 4000), 0);
    JUDGED(VIAL_EXIT_FAILED, 126, "fork: an unknown error of the guest");
    end();
}

/* What the guest is to run is its own to say, and where it says so. */
static int fail_from_guest(const char *path, const char *variable, enum init_stage stage, uint32_t os_error,
                           uint32_t place)
{
    const char *const env[] = {"A=b", variable, NULL};
    struct vial_exec_options options = VIAL_EXEC_OPTIONS_INIT;
    options.path = path;
    options.env = env;
    options.from_guest = true;
    int result = vial_vm_config_new(&config, &err);
    if (result == 0)
        result = vial_vm_config_set_exec(config, &options, &err);
    if (result == 0)
        result = exec_new(config, false, &exec, &err);
    if (result < 0)
        return result;
    port_count = exec_ports(exec, ports);
    say(&(struct init_answer){.kind = INIT_FAILED, .stage = stage, .os_error = os_error, .mount = place}, 1);
    return 0;
}

TEST(what_a_guest_says_by_itself_is_judged_as_libkrun_does)
{
    static const struct {
        const char *path, *variable;
        enum init_stage stage;
        uint32_t os_error, place;
        int code;
        const char *detail;
    } cases[] = {
        {NULL, NULL, INIT_STAGE_EXEC, ENOENT, INIT_NO_MOUNT, 127,
         "exec what the guest names: No such file or directory"},
        {"/bin/it", NULL, INIT_STAGE_EXEC, EACCES, INIT_NO_MOUNT, 126, "exec \"/bin/it\": Permission denied"},
        {NULL, NULL, INIT_STAGE_CHDIR, ENOENT, INIT_NO_MOUNT, 125,
         "chdir what the guest names: No such file or directory"},
        {NULL, NULL, INIT_STAGE_RLIMIT, EPERM, INIT_NO_MOUNT, 125, "rlimit: Operation not permitted"},
        {NULL, NULL, INIT_STAGE_CONFIG, EBADMSG, 17, 125, "config \"/.krun_config.json\" at byte 17: this is no JSON"},
        {NULL, "KRUN_CONFIG=/etc/\"it", INIT_STAGE_CONFIG, EINVAL, 0, 125,
         "config \"/etc/\\\"it\" at byte 0: what stands here makes no sense there"},
        {NULL, "KRUN_CONFIG=/x", INIT_STAGE_CONFIG, E2BIG, 5, 125, "config \"/x\" at byte 5: this is too much"},
        {NULL, "KRUN_CONFIG=/x", INIT_STAGE_CONFIG, EISDIR, INIT_NO_MOUNT, 125, "config \"/x\": Is a directory"},
        {NULL, NULL, INIT_STAGE_SYSTEM, ENODEV, INIT_NO_MOUNT, 125, NULL},
    };
    for (size_t i = 0; i < array_length(cases); i++) {
        CHECK_INT(fail_from_guest(cases[i].path, cases[i].variable, cases[i].stage, cases[i].os_error, cases[i].place),
                  0);
        CHECK_INT(port_count, 4);
        judge(VIAL_EXIT_COMPLETED);
        CHECK_INT(judged.reason, VIAL_EXIT_FAILED);
        CHECK_INT(judged.code, cases[i].code);
        if (cases[i].detail != NULL)
            CHECK_TEXT(judged.detail, cases[i].detail);
        end();
    }
}

TEST(a_request_leaves_open_what_the_guest_says)
{
    static const char expected[] = "\0\0A=b";
    uint8_t bytes[128];
    CHECK_INT(fail_from_guest(NULL, NULL, INIT_STAGE_EXEC, ENOENT, INIT_NO_MOUNT), 0);
    ssize_t length = hear(bytes, sizeof(bytes)) - INIT_HEADER_BYTES; /* without the goodbye */
    CHECK(length > (ssize_t)(sizeof(expected) + 24 + INIT_HEADER_BYTES));
    CHECK(memcmp(bytes + length - sizeof(expected), expected, sizeof(expected)) == 0);
    CHECK(memcmp(bytes + length - sizeof(expected) - 24, "\x8\0\0\0", 4) == 0);
    end();
}

TEST(a_long_name_leaves_the_reason_in_sight)
{
    char name[1000];
    struct vial_exec_options options = VIAL_EXEC_OPTIONS_INIT;
    memset(name, '\x1b', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    options.path = name;
    CHECK_INT(vial_vm_config_new(&config, &err), 0);
    CHECK_INT(vial_vm_config_set_exec(config, &options, &err), 0);
    CHECK_INT(exec_new(config, false, &exec, &err), 0);
    port_count = exec_ports(exec, ports);
    say(&(struct init_answer){.kind = INIT_FAILED, .stage = INIT_STAGE_EXEC, .os_error = ENOENT}, 1);
    judge(VIAL_EXIT_GUEST_RESET);
    CHECK(strstr(judged.detail, "\": No such file or directory") != NULL);
    CHECK(strchr(judged.detail, '\x1b') == NULL && strstr(judged.detail, "\\x1b") != NULL);
    end();
}

TEST(a_guest_that_says_too_little)
{
    char byte;
    CHECK_INT(begin(false), 0);
    JUDGED(VIAL_EXIT_FAILED, 0, "the guest ended, and nothing in it asked what to do: its init is not vial-init");
    CHECK_INT(init_port()->ops->read(init_port()->ops_user, &byte, 1), 1);
    JUDGED(VIAL_EXIT_FAILED, 0, "the guest ended before its init had said how the program ended");
    say_bytes("\0\0\0\0\x10\0\5", 7); /* nearly a STARTED */
    JUDGED(VIAL_EXIT_FAILED, 0, "the guest ended before its init had said how the program ended");
    say_bytes("\0", 1);
    JUDGED(VIAL_EXIT_FAILED, 0, "the guest ended before its init had said how the program ended");
    end();
}

TEST(other_ends_stay_what_they_are)
{
    static const int reasons[] = {VIAL_EXIT_GUEST_PANIC,  VIAL_EXIT_STOP_REQUESTED, VIAL_EXIT_TRIPLE_FAULT,
                                  VIAL_EXIT_MAX_DURATION, VIAL_EXIT_INTERNAL_ERROR, VIAL_EXIT_FAILED};
    CHECK_INT(begin(false), 0);
    say_end(false, 3);
    for (size_t i = 0; i < array_length(reasons); i++) {
        judge(reasons[i]);
        CHECK_INT(judged.reason, reasons[i]);
        CHECK_INT(judged.code, -7);
        CHECK_TEXT(judged.detail, "as it was");
    }
    end();
}

/* ---- what is mounted ---- */

static const char storage[] =
    "{\"root\": {\"layers\": [\"a\", \"b\"], \"upper\": \"u\", \"upper_fstype\": \"ext4\"},"
    " \"disks\": [{\"id\": \"a\"}, {\"id\": \"b\"}, {\"id\": \"u\"}, {\"id\": \"d\", \"read_only\": true}],"
    " \"mounts\": [{\"disk\": \"d\", \"guest\": \"/data/./x\", \"fstype\": \"auto\", \"options\": \"noatime\"}],"
    " \"mapped_dirs\": [\"/host:/src:ro\"],"
    " \"tmpfs\": [{\"guest\": \"/scratch\", \"size_mib\": 5, \"mode\": \"755\"}]}";

static int begin_storage(const char *json)
{
    int result = vial_vm_config_load_text(json, strlen(json), &config, &err);
    if (result == 0)
        result = exec_new(config, false, &exec, &err);
    if (result == 0)
        port_count = exec_ports(exec, ports);
    return result;
}

static int hear_setup(uint8_t bytes[4096], struct init_setup *ret_setup, void **ret_table)
{
    ssize_t length = hear(bytes, 4096);
    struct init_header header;
    if (length < INIT_HEADER_BYTES || init_decode_header(bytes, &header) < 0 || header.kind != INIT_SETUP ||
        header.body_bytes != length - INIT_HEADER_BYTES)
        return -EPROTO;
    return init_decode_setup(bytes + INIT_HEADER_BYTES, header.body_bytes, ret_setup, ret_table);
}

static void check_mount(const struct init_mount *mount, enum init_mount_role role, enum init_mount_kind kind,
                        uint32_t flags, const char *texts)
{
    char got[256];
    snprintf(got, sizeof(got), "%s|%s|%s|%s", mount->source, mount->target, mount->fstype, mount->options);
    CHECK_INT(mount->role, role);
    CHECK_INT(mount->kind, kind);
    CHECK_INT(mount->flags, flags);
    CHECK_TEXT(got, texts);
}

TEST(a_configuration_becomes_a_setup)
{
    static uint8_t bytes[4096];
    struct init_setup setup;
    auto_free void *table = NULL;
    CHECK_INT(begin_storage(storage), 0);
    CHECK_INT(port_count, 1); /* nothing runs that could have streams */
    CHECK_INT(hear_setup(bytes, &setup, &table), 0);
    CHECK(!setup.has_request);
    CHECK_INT(setup.mount_count, 6);
    check_mount(&setup.mounts[0], INIT_ROLE_LOWER, INIT_MOUNT_DISK, INIT_MOUNT_READ_ONLY, "a|||");
    check_mount(&setup.mounts[1], INIT_ROLE_LOWER, INIT_MOUNT_DISK, INIT_MOUNT_READ_ONLY, "b|||");
    check_mount(&setup.mounts[2], INIT_ROLE_UPPER, INIT_MOUNT_DISK, 0, "u||ext4|");
    check_mount(&setup.mounts[3], INIT_ROLE_PLACE, INIT_MOUNT_VIRTIOFS, INIT_MOUNT_NODEV | INIT_MOUNT_READ_ONLY,
                "fs1|/src||");
    check_mount(&setup.mounts[4], INIT_ROLE_PLACE, INIT_MOUNT_DISK, INIT_MOUNT_READ_ONLY, "d|/data/x||noatime");
    check_mount(&setup.mounts[5], INIT_ROLE_PLACE, INIT_MOUNT_TMPFS, INIT_MOUNT_NODEV | INIT_MOUNT_NOSUID,
                "|/scratch||mode=755,size=5m");
    end();
}

/* The root of each kind, as the first mount of the setup; "" when there is nothing to mount. */
TEST(roots_become_mounts)
{
    static const struct {
        const char *json;
        enum init_mount_role role;
        enum init_mount_kind kind;
        uint32_t flags;
        const char *texts;
    } cases[] = {
        {"{\"root\": {\"path\": \"/r\", \"throw_away\": true}}", INIT_ROLE_LOWER, INIT_MOUNT_PRESENT, 0, "|||"},
        {"{\"root\": \"host\"}", INIT_ROLE_LOWER, INIT_MOUNT_PRESENT, 0, "|||"},
        {"{\"root\": {\"path\": \"/r\"}, \"kernel\": {\"initramfs\": \"i\"}}", INIT_ROLE_ROOT, INIT_MOUNT_VIRTIOFS, 0,
         "/dev/root|||"},
        {"{\"root\": \"host\", \"kernel\": {\"initramfs\": \"i\"}}", INIT_ROLE_LOWER, INIT_MOUNT_VIRTIOFS,
         INIT_MOUNT_READ_ONLY, "/dev/root|||"},
        {"{\"root\": {\"disk\": \"/dev/vda1\", \"fstype\": \"xfs\", \"options\": \"a=b\"}}", INIT_ROLE_ROOT,
         INIT_MOUNT_DISK, 0, "/dev/vda1||xfs|a=b"},
        {"{\"root\": {\"disk\": \"d\"}, \"disks\": [{\"id\": \"d\", \"read_only\": true}]}", INIT_ROLE_ROOT,
         INIT_MOUNT_DISK, INIT_MOUNT_READ_ONLY, "d|||"},
    };
    for (size_t i = 0; i < array_length(cases); i++) {
        static uint8_t bytes[4096];
        struct init_setup setup;
        auto_free void *table = NULL;
        CHECK_INT(begin_storage(cases[i].json), 0);
        CHECK(config_asks_init(config));
        CHECK_INT(hear_setup(bytes, &setup, &table), 0);
        CHECK_INT(setup.mount_count, 1);
        check_mount(&setup.mounts[0], cases[i].role, cases[i].kind, cases[i].flags, cases[i].texts);
        end();
    }
    CHECK_INT(begin_storage("{\"root\": {\"path\": \"/r\"}}"), 0);
    CHECK(!config_asks_init(config));
    end();
    CHECK_INT(begin_storage("{\"root\": \"builtin\"}"), 0);
    CHECK(!config_asks_init(config));
    end();
}

TEST(a_mount_that_fails_is_named)
{
    static const struct {
        enum init_stage stage;
        uint32_t os_error, mount;
        const char *detail;
    } cases[] = {
        {INIT_STAGE_SOURCE, ENOENT, 0,
         "cannot mount the disk a as a layer of the root: the guest has no such disk (No such file or directory)"},
        {INIT_STAGE_MOUNT, EINVAL, 1,
         "cannot mount the disk b as a layer of the root: no file system is recognised on it"},
        {INIT_STAGE_MOUNT, EINVAL, 2,
         "cannot mount the disk u as the root's upper layer: it holds no ext4, or the options are wrong (Invalid "
         "argument)"},
        {INIT_STAGE_MOUNT, ENODEV, 2,
         "cannot mount the disk u as the root's upper layer: the guest's kernel knows no file system ext4"},
        {INIT_STAGE_TARGET, EROFS, 3,
         "cannot mount the folder at /src: there is no such folder, and the root is read-only"},
        {INIT_STAGE_TARGET, ENOSPC, 4,
         "cannot mount the disk d at /data/x: the folder cannot be made (No space left on device)"},
        {INIT_STAGE_MOUNT, ENOMEM, 5, "cannot mount memory at /scratch: Cannot allocate memory"},
        {INIT_STAGE_MOUNT, 4000, 6, "mount: an unknown error of the guest"}, /* there is no such mount */
        {INIT_STAGE_LAYERS, EINVAL, INIT_NO_MOUNT, "the layers of the root cannot be merged: Invalid argument"},
        {INIT_STAGE_SYSTEM, ENOENT, INIT_NO_MOUNT,
         "/proc, /sys or /dev cannot be mounted in the guest's root: No such file or directory"},
    };
    for (size_t i = 0; i < array_length(cases); i++) {
        CHECK_INT(begin_storage(storage), 0);
        say(
            &(struct init_answer){
                .kind = INIT_FAILED, .stage = cases[i].stage, .os_error = cases[i].os_error, .mount = cases[i].mount},
            100);
        JUDGED(VIAL_EXIT_FAILED, 0, cases[i].detail); /* nothing has run */
        end();
    }
}

TEST(without_a_program_there_is_an_end)
{
    CHECK_INT(begin_storage(storage), 0);
    say_end(false, 0);
    JUDGED(VIAL_EXIT_COMPLETED, 0, "the guest's init ended with exit code 0");
    end();
    CHECK_INT(begin_storage(storage), 0);
    say(&(struct init_answer){.kind = INIT_FAILED, .stage = INIT_STAGE_EXEC, .os_error = ENOENT}, 100);
    JUDGED(VIAL_EXIT_FAILED, 127, "exec: No such file or directory"); /* of a program that nobody asked for */
    end();
}

TEST(storage_survives_no_memory)
{
    CHECK_INT(begin_storage(storage), 0);
    exec_free(exec);
    FOR_EACH_FAULT
    {
        exec = NULL;
        CHECK_INT(exec_new(config, false, &exec, &err), fault_was_hit() ? -ENOMEM : 0);
        exec_free(exec);
    }
    exec = NULL;
    end();
}

/* ---- hostile guests ---- */

#define CONFUSED(statement)                                                                                            \
    do {                                                                                                               \
        CHECK_INT(begin(false), 0);                                                                                    \
        statement;                                                                                                     \
        say_end(false, 0); /* too late */                                                                              \
        JUDGED(VIAL_EXIT_FAILED, 0, "the guest's init said something that makes no sense");                            \
        end();                                                                                                         \
    } while (0)

TEST(nonsense_is_remembered_and_the_rest_ignored)
{
    static char noise[100000];
    memset(noise, 0xff, sizeof(noise));
    CONFUSED(CHECK_INT(say_bytes(noise, sizeof(noise)), sizeof(noise)));
    CONFUSED(say_bytes("\0\0\0\0\2\0\5\0", 8));                             /* GOODBYE is ours to say */
    CONFUSED(say_bytes("\xd\0\0\0\3\0\5\0\0\0\0\0\0\0\0\0\0\0\0\0", 21));   /* a SETUP, too */
    CONFUSED(say_bytes("\x18\0\0\0\1\0\5\0", 8));                           /* and a REQUEST, with its longer body */
    CONFUSED(say_bytes("\xc\0\0\0\x11\0\5\0\0\0\0\0\1\0\0\0\0\0\0\0", 20)); /* no such stage */
    CONFUSED(say(&(struct init_answer){.kind = INIT_ENDED}, 1));            /* an end without a start */
    CONFUSED((say(&started, 8), say(&started, 8)));                         /* two starts */
    CONFUSED((say(&started, 8), say(&(struct init_answer){.kind = INIT_FAILED, .stage = 1, .os_error = 1}, 8)));
    CHECK_INT(starts, 1);
}

TEST(an_init_of_another_version_is_told_as_that)
{
    static const char *const headers[] = {"\0\0\0\0\x10\0\1\0", "\xc\0\0\0\x11\0\4\0", "\0\0\0\0\x10\0\6\0"};
    for (size_t i = 0; i < array_length(headers); i++) {
        CHECK_INT(begin(false), 0);
        say_bytes(headers[i], 8);
        say_end(false, 0);
        JUDGED(VIAL_EXIT_FAILED, 0, "the guest's init is of another version; build the initramfs anew");
        end();
    }
    CONFUSED(say_bytes("\0\0\0\0\x10\0\0\0", 8));   /* no version */
    CONFUSED(say_bytes("\0\0\0\0\x02\0\3\0", 8));   /* no answer */
    CONFUSED(say_bytes("\xff\0\0\0\x10\0\3\0", 8)); /* nor one of such a length */
}

/* The guest numbers the networks that it was told of; the first here is not one of them. */
TEST(a_network_that_failed_is_named)
{
    static const char json[] =
        "{\"net\": [{\"kind\": \"tap\", \"path\": \"tap0\"}, {\"kind\": \"tap\", \"path\": \"tap1\", "
        "\"dhcp\": true}, {\"kind\": \"tap\", \"path\": \"tap2\", \"addresses\": [\"10.1.0.2/24\"]}]}";
    static const struct {
        enum init_stage stage;
        uint32_t os_error, number;
        const char *detail;
    } cases[] = {
        {INIT_STAGE_LEASE, ETIMEDOUT, 0, "net[1]: nobody gives the guest an address by DHCP: Connection timed out"},
        {INIT_STAGE_INTERFACE, ENODEV, 1, "net[2]: the guest's interface cannot be set up: No such device"},
        {INIT_STAGE_INTERFACE, ENODEV, 2, "interface: No such device"}, /* there is no such network */
        {INIT_STAGE_LEASE, ETIMEDOUT, INIT_NO_MOUNT, "lease: Connection timed out"},
        {INIT_STAGE_INTERFACE, EXDEV, INIT_NO_MOUNT,
         "the name servers cannot be shown: /etc/resolv.conf is missing, and its folder is the host's"},
        {INIT_STAGE_INTERFACE, ENOSPC, INIT_NO_MOUNT,
         "the name servers cannot be shown in /etc/resolv.conf: No space left on device"},
    };
    for (size_t i = 0; i < array_length(cases); i++) {
        CHECK_INT(begin_storage(json), 0);
        CHECK(config_asks_init(config));
        say(
            &(struct init_answer){
                .kind = INIT_FAILED, .stage = cases[i].stage, .os_error = cases[i].os_error, .mount = cases[i].number},
            100);
        JUDGED(VIAL_EXIT_FAILED, 0, cases[i].detail);
        end();
    }
}

/* An init that may be anybody's is asked only for what was given. */
TEST(networks_ask_the_init)
{
    static const struct {
        const char *json;
        bool asks;
    } cases[] = {
        {"{\"net\": [{\"kind\": \"passt\"}]}", false},
        {"{\"net\": [{\"kind\": \"passt\", \"nameservers\": [\"10.1.0.3\"]}]}", true},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"tap0\"}]}", false},
        {"{\"net\": [{\"kind\": \"tap\", \"path\": \"tap0\", \"dhcp\": true}]}", true},
        {"{\"root\": \"builtin\", \"net\": [{\"kind\": \"passt\"}]}", true},
        {"{\"root\": \"builtin\", \"net\": [{\"kind\": \"tap\", \"path\": \"tap0\"}]}", false},
        {"{\"root\": \"builtin\", \"kernel\": {\"init\": \"/sbin/init\"}, \"net\": [{\"kind\": \"passt\"}]}", false},
    };
    for (size_t i = 0; i < array_length(cases); i++) {
        CHECK_INT(vial_vm_config_load_text(cases[i].json, strlen(cases[i].json), &config, &err), 0);
        CHECK_INT(config_asks_init(config), cases[i].asks);
        config = vial_vm_config_free(config);
    }
}

TEST(after_the_end_nothing_changes)
{
    uint8_t bytes[512];
    CHECK_INT(begin(false), 0);
    CHECK(hear(bytes, sizeof(bytes)) > 0);
    say_end(false, 4);
    CHECK_INT(hear(bytes, sizeof(bytes)), INIT_HEADER_BYTES);
    say_end(false, 5);
    CHECK_INT(say_bytes("nonsense", 8), 8);
    CHECK_INT(hear(bytes, sizeof(bytes)), -EAGAIN); /* one goodbye is enough */
    JUDGED(VIAL_EXIT_FAILED, 4, "the program ended with exit code 4");
    end();
}

TEST(exec_survives_no_memory)
{
    CHECK_INT(begin(false), 0);
    exec_free(exec);
    FOR_EACH_FAULT
    {
        exec = NULL;
        CHECK_INT(exec_new(config, false, &exec, &err), fault_was_hit() ? -ENOMEM : 0);
        exec_free(exec);
    }
    exec = NULL;
    end();
}

TEST(what_validation_would_refuse_is_refused)
{
    CHECK_INT(begin(false), 0);
    exec_free(exec);
    exec = NULL;
    config->exec_workdir[0] = 'w';
    CHECK_INT(exec_new(config, false, &exec, &err), -EINVAL);
    CHECK(exec == NULL && err.remedy[0] != '\0');
    end();
}
