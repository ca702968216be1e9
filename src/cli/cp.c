// SPDX-License-Identifier: Apache-2.0
/* vial cp: files and trees into a sandbox, and out of it.
 *
 * Which side is the sandbox's: NAME:PATH, unless there is a slash before the colon (./a:b is a file of this host). The
 * library copies (modes, times, links, holes) and never writes outside the target, whatever the guest says.
 *
 * Trust: arguments are the user's own.
 */
#include "cli/sandbox.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static const uint64_t redraw_ns = 100 * CLOCK_NS_PER_MS;

/* ---- progress ---- */

struct progress {
    bool is_shown, was_drawn;
    uint64_t next_ns;
    uint64_t files, bytes;
    int signal_number; /* that asks for the end, or 0 */
    sigset_t watched, before;
};

static void begin_progress(struct progress *progress)
{
    static const int ending[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};
    struct sigaction action;
    *progress = (struct progress){.is_shown = is_live_terminal(stderr)};
    sigemptyset(&progress->watched);
    for (size_t i = 0; i < array_length(ending); i++)
        if (sigaction(ending[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(&progress->watched, ending[i]);
    pthread_sigmask(SIG_BLOCK, &progress->watched, &progress->before);
}

static bool step_progress(void *user, uint64_t files, uint64_t bytes)
{
    static const struct timespec at_once = {0, 0};
    struct progress *progress = user;
    int number = sigtimedwait(&progress->watched, NULL, &at_once);
    uint64_t now = clock_now_ns();
    if (number > 0)
        progress->signal_number = number;
    progress->files = files;
    progress->bytes = bytes;
    if (progress->is_shown && now >= progress->next_ns) {
        progress->next_ns = now + redraw_ns;
        progress->was_drawn = true;
        fprintf(stderr, "\r%" PRIu64 " files, %-12s", files, amount_text(bytes).text);
        fflush(stderr);
    }
    return progress->signal_number == 0;
}

/* Ends the process by the signal that came, if one did. */
static void end_progress(struct progress *progress)
{
    if (progress->was_drawn) /* without an escape sequence, which NO_COLOR would forbid */
        fprintf(stderr, "\r%*s\r", 40, "");
    if (progress->signal_number != 0) {
        signal(progress->signal_number, SIG_DFL);
        raise(progress->signal_number);
    }
    pthread_sigmask(SIG_SETMASK, &progress->before, NULL);
}

/* ---- the two sides ---- */

/* Cuts NAME:PATH: the path, or NULL for a file of this host. */
static char *cut_sandbox(char *text)
{
    char *colon = strchr(text, ':'), *slash = strchr(text, '/');
    if (colon == NULL || colon == text || (slash != NULL && slash < colon))
        return NULL;
    *colon = '\0';
    return colon + 1;
}

static int copy(const struct command *command, const char *name, const char *from, const char *to, bool is_in,
                bool is_quiet)
{
    auto_home struct vial_home *home = NULL;
    auto_sandbox struct vial_sandbox *sandbox = NULL;
    struct vial_error error = {0};
    struct progress progress;
    if (sandbox_open(command, name, &home, &sandbox) < 0)
        return EXIT_OURS;
    begin_progress(&progress);
    progress.is_shown = progress.is_shown && !is_quiet;
    int result = is_in ? vial_sandbox_copy_in(sandbox, from, to, step_progress, &progress, &error)
                       : vial_sandbox_copy_out(sandbox, from, to, step_progress, &progress, &error);
    end_progress(&progress);
    if (result == 0)
        return EXIT_YES;
    print_error(command->path, &error);
    return EXIT_OURS;
}

struct arguments {
    bool is_quiet, is_json;
};

static int run_cp(const struct command *command, int argc, char *argv[])
{
    struct arguments arguments = {0};
    int operands = command_options(command, &arguments, argc, argv, 2, 2, &arguments.is_json);
    if (operands < 0)
        return options_status(operands);
    if (strcmp(argv[1], "-") == 0 || strcmp(argv[2], "-") == 0)
        return refuse_use(command, "- is no file to copy", "use vial exec -i SANDBOX tar ... for streams");
    char *from_guest = cut_sandbox(argv[1]), *to_guest = cut_sandbox(argv[2]);
    if (from_guest != NULL && to_guest != NULL)
        return refuse_use(command, "both sides are sandboxes", "copy to this host first");
    if (from_guest == NULL && to_guest == NULL)
        return refuse_use(command, "neither side is a sandbox", "write SANDBOX:PATH for one of them");
    if (to_guest != NULL)
        return copy(command, argv[2], argv[1], to_guest[0] != '\0' ? to_guest : "/", true, arguments.is_quiet);
    return copy(command, argv[1], from_guest[0] != '\0' ? from_guest : "/", argv[2], false, arguments.is_quiet);
}

static const struct command_option options[] = {
    {"--quiet", 'q', NULL, "do not say on a terminal how far it is", take_true, offsetof(struct arguments, is_quiet)},
    {.name = NULL},
};

const struct command command_cp = {
    .name = "cp",
    .path = "vial cp",
    .arguments = "[OPTIONS] SANDBOX:PATH PATH | PATH SANDBOX:PATH",
    .summary = "Copy files and trees into a sandbox that runs, or out of it",
    .about =
        "As cp -a does it: the source becomes the target, or goes into it where that is a folder. Modes, times, links "
        "and holes stay. A file of this host with a colon in its name is written ./a:b.",
    .statuses = "0 when everything was copied, 125 when not",
    .options = {options},
    .run = run_cp,
    .operand = COMPLETE_COPY,
    .has_no_json = true,
};
