// SPDX-License-Identifier: Apache-2.0
/* What a sandbox is: made from the options of a caller, with an id and a name.
 *
 * An id is 48 random bits. A made-up name is two words and the last digits of the id, so that it is as good as unique
 * and the same whoever computes it; that no two sandboxes have one name is the store's to see to.
 *
 * Invariants: (1) everything in a spec is owned by it. (2) a spec that spec_from_options returns has passed every
 * check.
 *
 * Trust: options come from the embedding program and are checked for what a mistake would cost, not for malice.
 */
#include "sandbox/spec_parts.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/text.h"
#include "vmm/configure.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

static const char adjectives[64][8] = {
    "agile", "amber", "azure", "bold",   "brave", "brisk", "calm",  "clear", "clever", "cosy",   "crisp",
    "dear",  "deep",  "eager", "early",  "easy",  "fair",  "fine",  "fond",  "free",   "fresh",  "gentle",
    "glad",  "gold",  "good",  "grand",  "great", "happy", "hardy", "jolly", "keen",   "kind",   "large",
    "light", "lucky", "lunar", "mellow", "merry", "mild",  "misty", "neat",  "new",    "nimble", "noble",
    "plain", "proud", "quick", "quiet",  "rapid", "ready", "round", "royal", "sharp",  "shiny",  "silent",
    "solar", "solid", "spry",  "still",  "sunny", "swift", "tidy",  "warm",  "wise",
};

static const char nouns[64][8] = {
    "acorn",  "aspen",   "badger", "bay",   "bear",  "beaver", "birch",  "bison",  "brook", "canyon", "cedar",
    "cliff",  "cloud",   "comet",  "coral", "crane", "creek",  "deer",   "delta",  "dune",  "eagle",  "elm",
    "falcon", "fern",    "finch",  "fjord", "fox",   "glade",  "grove",  "harbor", "hare",  "hawk",   "heron",
    "hill",   "island",  "ivy",    "jay",   "lake",  "lark",   "linden", "lynx",   "maple", "meadow", "moon",
    "moose",  "oak",     "otter",  "owl",   "peak",  "pine",   "quail",  "raven",  "reef",  "river",  "robin",
    "seal",   "sparrow", "spruce", "star",  "stone", "swan",   "tide",   "willow", "wren",
};

/* ---- ownership ---- */

bool spec_copy_strings(const char *const *strings, char ***ret_strings)
{
    size_t count = 0;
    while (strings != NULL && strings[count] != NULL)
        count++;
    *ret_strings = NULL;
    if (count == 0)
        return true;
    char **copy = alloc_zero((count + 1) * sizeof(copy[0]));
    for (size_t i = 0; i < count && copy != NULL; i++) {
        copy[i] = alloc_string(strings[i]);
        if (copy[i] == NULL) {
            spec_free_strings(copy);
            copy = NULL;
        }
    }
    *ret_strings = copy;
    return copy != NULL;
}

void spec_free_strings(char **strings)
{
    for (size_t i = 0; strings != NULL && strings[i] != NULL; i++)
        free(strings[i]);
    free(strings);
}

void spec_free(struct spec *spec)
{
    struct spec_program *program = &spec->program;
    spec_free_strings(program->args);
    spec_free_strings(program->env);
    spec_free_strings(program->rlimits);
    spec_free_strings(spec->labels);
    spec_free_strings(spec->scripts);
    free(program->workdir);
    free(program->user);
    free(spec->hostname);
    vial_vm_config_free(spec->config);
    *spec = (struct spec){.config = NULL};
}

/* ---- from options ---- */

static int make_id(char ret_id[VIAL_SANDBOX_ID_SIZE], struct vial_error *err)
{
    unsigned char bits[6];
    if (getrandom(bits, sizeof(bits), 0) != sizeof(bits)) /* so few bytes come whole (getrandom(2)) */
        return error_set_os(err, VIAL_PHASE_CONFIGURE, errno, "cannot get random bytes for an id");
    for (size_t i = 0; i < sizeof(bits); i++)
        snprintf(ret_id + 2 * i, 3, "%02x", bits[i]);
    return 0;
}

static unsigned digit(char hex)
{
    return (unsigned)(strchr("0123456789abcdef", hex) - "0123456789abcdef");
}

static void make_name(const char *id, char ret_name[VIAL_SANDBOX_NAME_SIZE])
{
    unsigned adjective = (digit(id[0]) * 16 + digit(id[1])) % 64, noun = (digit(id[2]) * 16 + digit(id[3])) % 64;
    snprintf(ret_name, VIAL_SANDBOX_NAME_SIZE, "%s-%s-%s", adjectives[adjective], nouns[noun], id + strlen(id) - 4);
}

static int set_names(const struct vial_sandbox_options *options, struct spec *spec, struct vial_error *err)
{
    int result = make_id(spec->id, err);
    if (result == 0 && options->name != NULL)
        result = spec_check_name(options->name, err);
    if (result == 0 && options->hostname != NULL)
        result = spec_check_hostname(options->hostname, err);
    if (result < 0)
        return result;
    if (options->name != NULL)
        snprintf(spec->name, sizeof(spec->name), "%s", options->name);
    else
        make_name(spec->id, spec->name);
    spec->hostname = alloc_string(options->hostname != NULL ? options->hostname : spec->name);
    spec->ephemeral = options->ephemeral || options->name == NULL;
    return spec->hostname != NULL ? 0 : error_no_memory(err, VIAL_PHASE_CONFIGURE);
}

static int set_program(const struct vial_program_options *theirs, struct spec *spec, struct vial_error *err)
{
    struct vial_program_options options = VIAL_PROGRAM_OPTIONS_INIT;
    struct spec_program *program = &spec->program;
    int result = config_take_sized(&options, sizeof(options), theirs, err);
    if (result == 0)
        result = spec_check_program(&options, err);
    if (result < 0)
        return result;
    program->rows = options.rows;
    program->columns = options.columns;
    program->terminal = options.terminal;
    program->input = options.input;
    bool is_whole = spec_copy_strings(options.args, &program->args) && spec_copy_strings(options.env, &program->env) &&
                    spec_copy_strings(options.rlimits, &program->rlimits) &&
                    config_copy_text(&program->workdir, options.workdir) &&
                    config_copy_text(&program->user, options.user);
    return is_whole ? 0 : error_no_memory(err, VIAL_PHASE_CONFIGURE);
}

/* The names of "NAME=FILE". */
static int set_scripts(const char *const *scripts, struct spec *spec, struct vial_error *err)
{
    int result = spec_check_scripts(scripts, err);
    if (result < 0)
        return result;
    if (!spec_copy_strings(scripts, &spec->scripts))
        return error_no_memory(err, VIAL_PHASE_CONFIGURE);
    for (size_t i = 0; spec->scripts != NULL && spec->scripts[i] != NULL; i++)
        spec->scripts[i][spec_key_length(spec->scripts[i])] = '\0';
    return 0;
}

static int fill(const struct vial_sandbox_options *options, struct spec *spec, struct vial_error *err)
{
    int result = set_names(options, spec, err);
    if (result == 0 && options->program != NULL)
        result = set_program(options->program, spec, err);
    if (result == 0)
        result = spec_check_labels(options->labels, err);
    if (result == 0 && !spec_copy_strings(options->labels, &spec->labels))
        result = error_no_memory(err, VIAL_PHASE_CONFIGURE);
    if (result == 0)
        result = set_scripts(options->scripts, spec, err);
    if (result == 0)
        result = spec_copy_machine(options->config, &spec->config, err);
    if (result == 0)
        result = vial_vm_config_validate(spec->config, err);
    spec->idle_timeout_ms = options->idle_timeout_ms;
    spec->max_duration_ms = options->max_duration_ms;
    spec->stop_grace_ms = options->stop_grace_ms;
    return result;
}

int spec_from_options(const struct vial_sandbox_options *options, struct spec *ret_spec, struct vial_error *err)
{
    struct vial_sandbox_options ours = VIAL_SANDBOX_OPTIONS_INIT;
    struct spec spec = {.config = NULL};
    int result = config_take_sized(&ours, sizeof(ours), options, err);
    if (result == 0)
        result = config_check_reserved(ours.reserved, sizeof(ours.reserved), err);
    if (result < 0)
        return result;
    result = fill(&ours, &spec, err);
    if (result < 0)
        spec_free(&spec);
    else
        *ret_spec = spec;
    return result;
}

/* ---- for people ---- */

static bool is_plain(const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%+,-./:=@_";
    return word[0] != '\0' && word[strspn(word, plain)] == '\0';
}

static void add_word(struct buffer *line, const char *word)
{
    if (is_plain(word)) {
        buffer_add_text(line, word);
        return;
    }
    buffer_add_text(line, "'");
    for (const char *quote = strchr(word, '\''); quote != NULL; quote = strchr(word, '\'')) {
        buffer_add(line, word, (size_t)(quote - word));
        buffer_add_text(line, "'\\''");
        word = quote + 1;
    }
    buffer_add_text(line, word);
    buffer_add_text(line, "'");
}

void spec_command_text(const struct spec *spec, char *text, size_t size)
{
    auto_buffer struct buffer line = BUFFER_INIT(2 * LIMIT_EXEC_BYTES);
    char *const *args = spec->program.args;
    for (size_t i = 0; args != NULL && args[i] != NULL && line.length < size; i++) {
        buffer_add_text(&line, i > 0 ? " " : "");
        add_word(&line, args[i]);
    }
    text_escape(text, size, line.data != NULL ? line.data : "", line.length, "");
}
