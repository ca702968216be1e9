// SPDX-License-Identifier: Apache-2.0
/* vial sandbox-process: what the library executes for a sandbox; not for people, so that help does not list it.
 *
 * Trust: arguments come from libvial in another process of the same user, or from whoever plays it.
 */
#include "cli/command.h"

#include "base/text.h"
#include "sandbox/process.h"

#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <string.h>

static int take_descriptor(void *user, const struct command_option *option, const char *value)
{
    uint64_t fd = 0;
    if (text_to_u64(value, strlen(value), INT_MAX, &fd) < 0 || fcntl((int)fd, F_GETFD) < 0)
        return refuse_value(option->name, value, "this is no open descriptor", "let libvial start sandboxes");
    *(int *)(void *)((char *)user + option->member) = (int)fd;
    return 0;
}

#define MEMBER(member) offsetof(struct process_options, member)

static const struct command_option options[] = {
    {"--home", 0, "FOLDER", "where sandboxes are kept", take_word, MEMBER(home)},
    {"--id", 0, "ID", "the sandbox", take_word, MEMBER(id)},
    {"--report-fd", 0, "N", "a descriptor to which one line about the start is written", take_descriptor,
     MEMBER(report_fd)},
    {"--first-fd", 0, "N", "a socket, connected to the first client", take_descriptor, MEMBER(first_fd)},
    {.name = NULL},
};

static int run_process(const struct command *command, int argc, char *argv[])
{
    struct process_options process = {.report_fd = -1, .first_fd = -1};
    bool is_json = false;
    int operands = command_options(command, &process, argc, argv, 0, 0, &is_json);
    if (operands < 0)
        return options_status(operands);
    if (process.home == NULL || process.id == NULL)
        return refuse_use(command, "--home and --id are both needed", "let libvial start sandboxes");
    return sandbox_process_run(&process);
}

const struct command command_sandbox_process = {
    .name = "sandbox-process",
    .path = "vial sandbox-process",
    .arguments = "--home FOLDER --id ID --report-fd N [--first-fd N]",
    .summary = "Run a sandbox (for libvial)",
    .options = {options},
    .run = run_process,
    .is_hidden = true,
    .has_no_json = true,
};
