// SPDX-License-Identifier: Apache-2.0
/* What a shell completes a command line to, and the scripts that make it ask.
 *
 *     vial completion bash|zsh|fish     prints a script
 *     vial complete WORD...             is what the script calls: the words behind `vial`, the last one unfinished
 *
 * The answer is a line for each candidate, with a tab and a description behind it, or `:file` or `:folder`: the shell
 * completes those itself. Everything comes from the tree of commands, so the scripts know nothing and never grow old.
 *
 * Trust: words are the user's own; names of sandboxes have passed a check.
 */
#include "cli/sandbox.h"

#include "base/alloc.h"

#include <string.h>

/* ---- candidates ---- */

/* A candidate that begins with what is there; `before` is put in front of it again. */
static void offer(const char *before, const char *word, const char *candidate, const char *description)
{
    if (strncmp(candidate, word, strlen(word)) == 0)
        printf("%s%s\t%s\n", before, candidate, description);
}

static bool is_wanted(const struct vial_sandbox_info *info, enum command_completion what)
{
    return what == COMPLETE_SANDBOX || (info->pid > 0) == (what != COMPLETE_STOPPED);
}

static void offer_sandboxes(const char *before, const char *word, enum command_completion what)
{
    auto_home struct vial_home *home = NULL;
    auto_free struct vial_sandbox_info *list = NULL;
    size_t count = 0;
    if (vial_home_open(NULL, &home, NULL) < 0 || vial_sandbox_list(home, NULL, &list, &count, NULL) < 0)
        return;
    for (size_t i = 0; i < count; i++) {
        char name[VIAL_SANDBOX_NAME_SIZE + 1];
        snprintf(name, sizeof(name), "%s%s", list[i].name, what == COMPLETE_COPY ? ":" : "");
        if (is_wanted(&list[i], what))
            offer(before, word, name, vial_sandbox_status_name(list[i].status));
    }
}

static void offer_commands(const char *word, const struct command *parent)
{
    for (const struct command *const *child = parent->children; *child != NULL; child++)
        if (!(*child)->is_hidden)
            offer("", word, (*child)->name, (*child)->summary);
}

static void offer_what(const char *before, const char *word, enum command_completion what)
{
    switch (what) {
    case COMPLETE_NOTHING:
        break;
    case COMPLETE_FILE:
        printf(":file\n");
        break;
    case COMPLETE_FOLDER:
        printf(":folder\n");
        break;
    case COMPLETE_COPY:
        offer_sandboxes(before, word, what);
        printf(":file\n");
        break;
    case COMPLETE_COMMAND:
        offer_commands(word, &command_root);
        break;
    case COMPLETE_SANDBOX:
    case COMPLETE_RUNNING:
    case COMPLETE_STOPPED:
        offer_sandboxes(before, word, what);
        break;
    }
}

static void offer_value(const char *before, const char *word, const struct command_option *option)
{
    for (const char *choice = option->choices; choice != NULL && *choice != '\0';) {
        char text[64];
        size_t length = strcspn(choice, " ");
        snprintf(text, sizeof(text), "%.*s", (int)length, choice);
        offer(before, word, text, "");
        choice += length + (choice[length] == ' ');
    }
    offer_what(before, word, option->completes);
}

static bool offer_option(void *user, const struct command_option *option)
{
    if (option->help != NULL)
        offer("", user, option->name, option->help);
    return true;
}

/* ---- the line ---- */

/* --name=VALUE: the option's value is what is unfinished. */
static void complete_joined(const struct command *command, char *word)
{
    const struct command_option *option = command_find_option(command, word);
    char *value = strchr(word, '=') + 1;
    auto_free char *before = strndup(word, (size_t)(value - word));
    if (option != NULL && option->value != NULL && before != NULL)
        offer_value(before, value, option);
}

/* The option whose value the next word is, or NULL. */
static const struct command_option *awaits_value(const struct command *command, const char *word)
{
    const struct command_option *option = strchr(word, '=') == NULL ? command_find_option(command, word) : NULL;
    bool is_letters = option != NULL && word[1] != '-';
    if (is_letters && strlen(word) > 2) { /* -it: the last letter's */
        const char last[] = {'-', word[strlen(word) - 1], '\0'};
        option = option->value != NULL ? NULL : command_find_option(command, last);
    }
    return option != NULL && option->value != NULL ? option : NULL;
}

static void complete_operand(const struct command *command, const char *word, int operands)
{
    if (command->stops_at_operand && (operands > 0 || command->operand == COMPLETE_NOTHING))
        printf(":file\n"); /* a command of the guest's, and its words */
    else
        offer_what("", word, command->operand);
}

static void complete_words(const struct command *command, char *words[], int count)
{
    const struct command_option *awaited = NULL;
    int operands = 0;
    bool is_over = false;
    char *last = words[count - 1];
    for (int i = 0; i + 1 < count; i++) {
        if (awaited != NULL)
            awaited = NULL;
        else if (strcmp(words[i], "--") == 0)
            is_over = true;
        else if (!is_over && words[i][0] == '-')
            awaited = awaits_value(command, words[i]);
        else
            is_over = operands++ >= 0 && (is_over || command->stops_at_operand);
    }
    if (awaited != NULL)
        offer_value("", last, awaited);
    else if (!is_over && last[0] == '-' && strchr(last, '=') != NULL)
        complete_joined(command, last);
    else if (!is_over && last[0] == '-')
        command_each_option(command, offer_option, last);
    else
        complete_operand(command, last, operands);
}

static int run_complete(const struct command *self, int argc, char *argv[])
{
    const struct command *command = &command_root;
    char **words = argv + 1;
    int count = argc - 1;
    (void)self;
    while (count > 1 && command->children != NULL) {
        command = command_find(command, words[0]);
        if (command == NULL)
            return EXIT_YES;
        words++;
        count--;
    }
    if (count < 1)
        return EXIT_YES;
    if (command->children != NULL)
        offer_commands(words[0], command);
    else
        complete_words(command, words, count);
    return finish_output(EXIT_YES);
}

const struct command command_complete = {
    .name = "complete",
    .path = "vial complete",
    .arguments = "WORD...",
    .summary = "Say what the last word may become",
    .run = run_complete,
    .is_hidden = true,
};

/* ---- scripts ---- */

/* Bash cuts words at = and :, which are put together again; what it gets back must not repeat what it has cut off. */
static const char bash_script[] = "# bash completion for vial\n"
                                  "_vial() {\n"
                                  "    local word line joined=() cut='' i\n"
                                  "    for ((i = 1; i <= COMP_CWORD; i++)); do\n"
                                  "        word=${COMP_WORDS[i]}\n"
                                  "        if [[ $word == [=:] && ${#joined[@]} -gt 0 ]]; then\n"
                                  "            joined[-1]+=$word\n"
                                  "            [[ $i -eq COMP_CWORD ]] || { ((i++)); joined[-1]+=${COMP_WORDS[i]}; }\n"
                                  "        else\n"
                                  "            joined+=(\"$word\")\n"
                                  "        fi\n"
                                  "    done\n"
                                  "    word=${joined[-1]}\n"
                                  "    [[ $word != *[=:]* ]] || cut=${word%\"${word##*[=:]}\"}\n"
                                  "    COMPREPLY=()\n"
                                  "    while IFS= read -r line; do\n"
                                  "        case $line in\n"
                                  "        :file) compopt -o filenames; mapfile -t -O \"${#COMPREPLY[@]}\" COMPREPLY < "
                                  "<(compgen -f -- \"${word#\"$cut\"}\") ;;\n"
                                  "        :folder) compopt -o filenames; mapfile -t -O \"${#COMPREPLY[@]}\" COMPREPLY "
                                  "< <(compgen -d -- \"${word#\"$cut\"}\") ;;\n"
                                  "        *) line=${line%%$'\\t'*}; COMPREPLY+=(\"${line#\"$cut\"}\")\n"
                                  "            [[ $line != *[:=] ]] || compopt -o nospace ;;\n"
                                  "        esac\n"
                                  "    done < <(\"${COMP_WORDS[0]}\" complete \"${joined[@]}\" 2>/dev/null)\n"
                                  "}\n"
                                  "complete -F _vial vial\n";

static const char zsh_script[] = "#compdef vial\n"
                                 "# zsh completion for vial\n"
                                 "_vial() {\n"
                                 "    local line\n"
                                 "    local -a found\n"
                                 "    for line in \"${(@f)$(_call_program commands ${(q)words[1]} complete "
                                 "${(q)words[2,CURRENT]} 2>/dev/null)}\"; do\n"
                                 "        case $line in\n"
                                 "        :file) _files ;;\n"
                                 "        :folder) _files -/ ;;\n"
                                 "        ?*) found+=(\"${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}\") ;;\n"
                                 "        esac\n"
                                 "    done\n"
                                 "    (( $#found == 0 )) || _describe vial found\n"
                                 "}\n"
                                 "if [ \"$funcstack[1]\" = _vial ]; then _vial \"$@\"; else compdef _vial vial; fi\n";

static const char fish_script[] = "# fish completion for vial\n"
                                  "function __vial_complete\n"
                                  "    set -l words (commandline -opc) (commandline -ct)\n"
                                  "    for line in ($words[1] complete $words[2..-1] 2>/dev/null)\n"
                                  "        switch $line\n"
                                  "            case :file\n"
                                  "                __fish_complete_path (commandline -ct)\n"
                                  "            case :folder\n"
                                  "                __fish_complete_directories (commandline -ct)\n"
                                  "            case '*'\n"
                                  "                echo $line\n"
                                  "        end\n"
                                  "    end\n"
                                  "end\n"
                                  "complete -c vial -f -a '(__vial_complete)'\n";

static int run_completion(const struct command *command, int argc, char *argv[])
{
    static const struct {
        const char *shell, *script;
    } scripts[] = {{"bash", bash_script}, {"zsh", zsh_script}, {"fish", fish_script}};
    bool is_json = false;
    int operands = command_options(command, NULL, argc, argv, 1, 1, &is_json);
    if (operands < 0)
        return options_status(operands);
    for (size_t i = 0; i < array_length(scripts); i++) {
        if (strcmp(argv[1], scripts[i].shell) != 0)
            continue;
        fputs(scripts[i].script, stdout);
        return finish_output(EXIT_YES);
    }
    refuse_value("SHELL", argv[1], "it is not a shell that is known", "give bash, zsh or fish");
    return EXIT_OURS;
}

const struct command command_completion = {
    .name = "completion",
    .path = "vial completion",
    .arguments = "bash|zsh|fish",
    .summary = "Print what makes a shell complete vial's commands",
    .about = "An installed vial has brought it along. Else, for bash: source <(vial completion bash). For zsh: vial "
             "completion zsh >_vial in a folder of fpath. For fish: vial completion fish | source.",
    .statuses = "0",
    .run = run_completion,
    .has_no_json = true,
};
