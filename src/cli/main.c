// SPDX-License-Identifier: Apache-2.0
/* vial: the command.
 *
 *     vial [--log-level LEVEL] [--log-style STYLE] COMMAND …
 *
 * One file a subcommand, one table that names them. Options before the command set up logging to stderr.
 */
#include "cli/command.h"

#include "base/log.h"
#include "base/text.h"

#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static int run_version(const struct command *command, int argc, char *argv[])
{
    bool is_json = false;
    int operands = command_options(command, NULL, argc, argv, 0, 0, &is_json);
    if (operands < 0)
        return options_status(operands);
    if (is_json)
        return print_json(json_pack("{s:s}", "version", vial_version()), EXIT_YES);
    printf("vial %s\n", vial_version());
    return finish_output(EXIT_YES);
}

static const struct command command_version = {
    .name = "version",
    .path = "vial version",
    .group = "vial itself",
    .arguments = "[--json]",
    .summary = "Print the version",
    .statuses = "0",
    .run = run_version,
};

/* In the order of --help. */
static const struct command *const commands[] = {&command_run,
                                                 &command_create,
                                                 &command_start,
                                                 &command_exec,
                                                 &command_attach,
                                                 &command_ls,
                                                 &command_inspect,
                                                 &command_logs,
                                                 &command_stats,
                                                 &command_events,
                                                 &command_cp,
                                                 &command_stop,
                                                 &command_kill,
                                                 &command_wait,
                                                 &command_restart,
                                                 &command_rename,
                                                 &command_rm,
                                                 &command_prune,
                                                 &command_boot,
                                                 &command_vm,
                                                 &command_disk,
                                                 &command_device,
                                                 &command_doctor,
                                                 &command_version,
                                                 &command_completion,
                                                 &command_complete,
                                                 &command_man,
                                                 &command_sandbox_process,
                                                 NULL};

const struct command command_root = {
    .name = "vial",
    .path = "vial",
    .summary = "Run untrusted code in a Linux kernel of its own",
    .about =
        "Options before the command: --log-level off|error|warn|info|debug|trace makes vial say on standard error what "
        "it does, --log-style auto|always|never whether in colours. Sandboxes are kept in $VIAL_HOME, by default "
        "/var/lib/vial for root and ~/.local/share/vial for others.",
    .statuses = "125 when vial could not do what it was asked; else the command's own",
    .children = commands,
};

/* Takes --name VALUE or --name=VALUE from the front of argv; the number of words taken, 0 when it is not there. */
static int take_option(const char *name, int argc, char *argv[], const char **ret_value)
{
    size_t length = strlen(name);
    if (argc < 1 || strncmp(argv[0], name, length) != 0)
        return 0;
    if (argv[0][length] == '=') {
        *ret_value = argv[0] + length + 1;
        return 1;
    }
    if (argv[0][length] != '\0')
        return 0;
    *ret_value = argc > 1 ? argv[1] : ""; /* which is no value, and refused as such */
    return argc > 1 ? 2 : 1;
}

static int set_up_log(const char *level_name, const char *style_name)
{
    static const char *const styles[] = {"auto", "always", "never"};
    enum vial_log_level level = VIAL_LOG_OFF;
    struct vial_error error = {0};
    int style = 0;
    while (style < 3 && strcmp(style_name, styles[style]) != 0)
        style++;
    if (style == 3 || log_level_from_name(level_name, &level) < 0) {
        const char *word = style == 3 ? style_name : level_name;
        char safe[64];
        text_escape(safe, sizeof(safe), word, strlen(word), "");
        fprintf(stderr, "vial: \"%s\" is no log %s\n  -> use %s\n", safe, style == 3 ? "style" : "level",
                style == 3 ? "auto, always or never" : "off, error, warn, info, debug or trace");
        return EXIT_OURS;
    }
    if (level != VIAL_LOG_OFF && vial_log_to_fd(STDERR_FILENO, level, style, &error) < 0) {
        print_error("vial", &error);
        return EXIT_OURS;
    }
    return EXIT_YES;
}

/* A standard descriptor that is closed would be the first file that somebody opens. What takes its place cannot be
 * written: who prints to a closed output shall hear of it. */
static void open_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            open("/dev/null", O_RDONLY); /* the lowest number that is free */
}

/* What a guest has open in shared folders is open here, too. The lower limit is there for programs that use select(2),
 * which this one does not. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit); /* where it fails, a guest opens fewer files */
}

int main(int argc, char *argv[])
{
    const char *level = "off", *style = "auto";
    char *program = argv[0];
    int taken = 0;
    open_standard_descriptors();
    raise_descriptor_limit();
    do {
        taken = take_option("--log-level", argc - 1, argv + 1, &level);
        if (taken == 0)
            taken = take_option("--log-style", argc - 1, argv + 1, &style);
        argc -= taken;
        argv += taken;
    } while (taken > 0);
    argv[0] = program;
    int status = set_up_log(level, style);
    if (status != EXIT_YES)
        return status;
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        static char version[] = "version";
        argv[1] = version;
    }
    return command_dispatch(&command_root, argc, argv);
}
