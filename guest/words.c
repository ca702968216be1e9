// SPDX-License-Identifier: Apache-2.0
/* What is to run, told by the words of the kernel's command line, as libkrun tells its own init.
 *
 * The host has no channel to this init then, as when somebody takes it out of the library and puts it into a root of
 * their own. A kernel makes words with a = that it does not know variables of the init's environment, and others, and
 * what stands behind --, its arguments:
 *
 *     KRUN_INIT=PATH                         the program; the arguments are its own
 *     KRUN_WORKDIR=FOLDER  HOSTNAME=NAME     where it runs, and in what guest
 *     KRUN_RLIMITS=ID=SOFT:HARD,…            its limits, as Linux numbers them
 *     KRUN_BLOCK_ROOT_DEVICE=DEVICE          another root, with KRUN_BLOCK_ROOT_FSTYPE and KRUN_BLOCK_ROOT_OPTIONS
 *     KRUN_DHCP=1                            eth0 asks for its address
 *     KRUN_CONFIG=FILE                       what is not said here (krun.c), with KRUN_HOME and KRUN_TERM
 *     KRUN_PORTS=NAME                        the last of the ports below that the host has, to be waited for
 *     KRUN_INIT_PID1=1                       the program is the first process itself, and nobody tells how it ends
 *
 * The program has the console as its terminal, and instead of it, one by one, the ports "krun-stdin", "krun-stdout"
 * and "krun-stderr". Linux hears of ports in its own time, in their order: without KRUN_PORTS, which is a word of ours,
 * those that come late are missed, as libkrun's own init misses them.
 *
 * How it ended, the first root is told, where that is the host's: by an ioctl with the code itself as its argument, on
 * the folder that was open before any other root was. So the code is not lost with a root on a disk.
 *
 * Invariants: (1) the first root is told exactly one code, unless the program replaced this process: the program's, or
 * 128 + signal, or 127, 126 and 125 where it could not be found, executed, or given what it needs. (2) what failed is
 * said where the program would have said it.
 *
 * Trust: the command line is the host's, which can do with the guest what it likes.
 */
#include "complete.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { ioctl_exit_code = 0x7602, magic_fuse = 0x65735546 };

/* ---- whether ---- */

bool has_words(int count, char *const args[])
{
    const char *slash = count > 0 ? strrchr(args[0], '/') : NULL;
    const char *name = slash != NULL ? slash + 1 : count > 0 ? args[0] : "";
    for (char *const *entry = environ; *entry != NULL; entry++)
        if (strncmp(*entry, "KRUN_", 5) == 0)
            return true;
    return count > 1 && strcmp(name, "init.krun") == 0;
}

/* ---- what they say ---- */

static const char *word(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value != NULL ? value : otherwise;
}

static bool is_one(const char *name)
{
    return strcmp(word(name, ""), "1") == 0;
}

/* A number, and the character that has to stand behind it, which is passed over; 0: the end, or a comma. */
static bool take_number(const char **text, char behind, uint64_t *ret_number)
{
    char *end;
    if (**text < '0' || **text > '9')
        return false;
    errno = 0;
    *ret_number = strtoull(*text, &end, 10);
    *text = end + (behind != '\0' && *end == behind);
    return errno == 0 && (behind != '\0' ? *end == behind : *end == '\0' || *end == ',');
}

/* As many as there is room for. One that makes no sense is passed over, as libkrun does. */
static void take_limits(const char *text, struct init_request *request)
{
    while (*text != '\0' && request->rlimit_count < LIMIT_RLIMITS) {
        struct init_rlimit *limit = &request->rlimits[request->rlimit_count];
        uint64_t resource = 0;
        const char *begin = text;
        if (take_number(&text, '=', &resource) && take_number(&text, ':', &limit->soft) &&
            take_number(&text, '\0', &limit->hard) && resource < LIMIT_RLIMITS) {
            limit->resource = (uint32_t)resource;
            request->rlimit_count++;
        } else {
            tell("understand the limits", begin, -EINVAL);
        }
        text += strcspn(text, ",");
        text += *text == ',';
    }
}

/* ---- the guest ---- */

/* The address of eth0, or false where there is none. */
static bool find_address(uint8_t mac[6])
{
    char text[32] = "";
    unsigned bytes[6];
    int fd = open("/sys/class/net/eth0/address", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        close(fd);
    if (length <= 0 ||
        sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x", &bytes[0], &bytes[1], &bytes[2], &bytes[3], &bytes[4], &bytes[5]) != 6)
        return false;
    for (int i = 0; i < 6; i++)
        mac[i] = (uint8_t)bytes[i];
    return true;
}

/* Without a lease the program runs all the same: it may be the one to find out why. */
static void ask_for_address(const char *hostname)
{
    struct init_answer failure;
    struct init_network network = {.wants_dhcp = true, .addresses = "", .gateways = "", .nameservers = ""};
    struct init_setup setup = {.networks = &network, .network_count = 1, .hostname = hostname};
    if (!find_address(network.mac))
        tell("find", "eth0", -ENODEV);
    else if (!network_set_up(&setup, &failure))
        tell("set up", "eth0", -(int)failure.os_error);
}

static bool make_guest(struct init_answer *ret_failure)
{
    const char *hostname = word("HOSTNAME", "localhost"), *type = word("KRUN_BLOCK_ROOT_FSTYPE", "");
    struct init_mount root = {
        .role = INIT_ROLE_ROOT,
        .kind = INIT_MOUNT_DISK,
        .source = word("KRUN_BLOCK_ROOT_DEVICE", ""),
        .target = "",
        .fstype = strcmp(type, "auto") == 0 ? "" : type,
        .options = word("KRUN_BLOCK_ROOT_OPTIONS", ""),
    };
    struct init_setup setup = {.mounts = &root, .mount_count = root.source[0] != '\0', .hostname = hostname};
    if (!storage_make_root(&setup, ret_failure))
        return false;
    int result = prepare_system(hostname);
    if (result < 0) {
        *ret_failure = (struct init_answer){.kind = INIT_FAILED, .stage = INIT_STAGE_SYSTEM};
        ret_failure->os_error = (uint32_t)-result;
        return false;
    }
    if (is_one("KRUN_DHCP"))
        ask_for_address(hostname);
    return true;
}

/* ---- the program ---- */

static struct init_request read_request(int count, char *const args[])
{
    struct init_request request = {
        .path = word("KRUN_INIT", ""),
        .workdir = word("KRUN_WORKDIR", ""),
        .args = (const char *const *)args + (count > 0),
        .arg_count = count > 0 ? (size_t)count - 1 : 0,
        .env = (const char *const *)environ,
        .has_terminal = console_is_terminal(),
        .wants_config = true,
    };
    while (environ[request.env_count] != NULL)
        request.env_count++;
    take_limits(word("KRUN_RLIMITS", ""), &request);
    return request;
}

static const char *const ports[PROGRAM_STREAMS] = {"krun-stdin", "krun-stdout", "krun-stderr"};

static void wait_for_ports(const char *last)
{
    int fd = last[0] != '\0' ? port_wait_name(last) : -1;
    if (fd >= 0)
        close(fd);
}

static struct init_answer run(const struct init_request *request)
{
    struct init_answer answer = {.kind = INIT_FAILED, .mount = INIT_NO_MOUNT};
    int streams[PROGRAM_STREAMS];
    pid_t child = -1;
    wait_for_ports(word("KRUN_PORTS", ""));
    for (int i = 0; i < PROGRAM_STREAMS; i++)
        streams[i] = port_open(ports[i]); /* which most hosts do not have */
    if (is_one("KRUN_INIT_PID1")) {
        answer.stage = program_become(request, streams);
        answer.os_error = (uint32_t)errno;
        return answer;
    }
    bool is_started = program_start(request, streams, &child, &answer);
    for (int i = 0; i < PROGRAM_STREAMS; i++)
        if (streams[i] >= 0)
            close(streams[i]);
    if (!is_started)
        return answer;
    answer = program_wait(child);
    if (request->has_terminal)
        console_drain();
    return answer;
}

/* ---- the end ---- */

static int code_of(const struct init_answer *answer)
{
    enum { not_set_up = 125, cannot_execute = 126, not_found = 127, signal = 128 };
    if (answer->kind == INIT_ENDED)
        return (int)answer->number + (answer->was_killed ? signal : 0);
    if (answer->stage != INIT_STAGE_EXEC)
        return not_set_up;
    return answer->os_error == ENOENT ? not_found : cannot_execute;
}

/* What a failure was about; of the guest's own file the place, too. */
static void name_subject(const struct init_answer *failure, const struct init_request *request, char *text, size_t size)
{
    const char *name = failure->stage == INIT_STAGE_EXEC     ? request->path
                       : failure->stage == INIT_STAGE_CHDIR  ? request->workdir
                       : failure->stage == INIT_STAGE_CONFIG ? word(INIT_CONFIG_VARIABLE, INIT_CONFIG_FILE)
                                                             : word("KRUN_BLOCK_ROOT_DEVICE", "");
    bool has_place = failure->stage == INIT_STAGE_CONFIG && failure->mount != INIT_NO_MOUNT;
    snprintf(text, size, has_place ? "%s at byte %u" : "%s", name, failure->mount);
}

static void say(const struct init_answer *failure, const struct init_request *request)
{
    char subject[LIMIT_EXEC_PATH_BYTES];
    int port = port_open(ports[STDERR_FILENO]);
    int fd = port >= 0 ? port : open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC);
    name_subject(failure, request, subject, sizeof(subject));
    dprintf(fd, "vial-init: %s %s: %s\n", init_stage_name(failure->stage), subject, strerror((int)failure->os_error));
    if (fd >= 0)
        close(fd);
    if (port < 0)
        console_drain();
}

/* Other file systems know no such ioctl, or have one of their own. */
static void tell_code(int first_root, int code)
{
    struct statfs status;
    if (first_root < 0 || fstatfs(first_root, &status) < 0 || status.f_type != magic_fuse)
        return;
    if (ioctl(first_root, ioctl_exit_code, (long)code) < 0)
        tell("tell the code on", "/", -errno);
}

void run_by_words(int count, char *const args[])
{
    int first_root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct completion completion = COMPLETION_INIT;
    struct init_answer answer = {.kind = INIT_FAILED, .stage = INIT_STAGE_SYSTEM, .mount = INIT_NO_MOUNT};
    int result = mount_essentials();
    console_close();
    struct init_request given = read_request(count, args);
    answer.os_error = (uint32_t)-result;
    if (result == 0 && make_guest(&answer) && complete_request(&given, &completion, &answer))
        answer = run(&completion.request);
    if (answer.kind == INIT_FAILED)
        say(&answer, completion.table != NULL ? &completion.request : &given);
    tell_code(first_root, code_of(&answer));
    free_completion(&completion);
    storage_release();
    if (first_root >= 0)
        close(first_root);
}
