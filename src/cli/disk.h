// SPDX-License-Identifier: Apache-2.0
/* What the subcommands of vial disk share: their options, sizes, formats, progress. */
#ifndef CLI_DISK_H
#define CLI_DISK_H

#include "cli/command.h"
#include "disk/image.h"

#include <signal.h>

extern const struct command command_disk_create, command_disk_info, command_disk_check, command_disk_resize,
    command_disk_convert, command_disk_snapshot;

enum { DISK_MOST_BACKING = 64 };

struct disk_arguments {
    enum vial_disk_format format;                   /* of an image that is there; --from of convert */
    struct image_create_options create;             /* its texts are borrowed from argv */
    struct disk_backing backing[DISK_MOST_BACKING]; /* their paths are owned */
    size_t backing_count;
    enum image_repair repair;
    bool compresses, uses_zstd, may_shrink;
    bool is_json;
};

/* Options, for the tables of the subcommands. */
int disk_take_format(void *user, const struct command_option *option, const char *value);
int disk_take_target_format(void *user, const struct command_option *option, const char *value);
int disk_take_size(void *user, const struct command_option *option, const char *value);    /* member: a uint64_t */
int disk_take_size_32(void *user, const struct command_option *option, const char *value); /* member: a uint32_t */
int disk_take_flag(void *user, const struct command_option *option, const char *value);    /* member: a bool */
int disk_take_backing(void *user, const struct command_option *option, const char *value);

/* One of the NULL-terminated names: 0 with its place, or not 0 with the reason on stderr. */
int disk_take_choice(const struct command_option *option, const char *value, const char *const names[],
                     int *ret_choice);

/* "512", "64K", "10G": bytes, exactly. 0, -EINVAL or -ERANGE. */
int disk_parse_size(const char *text, uint64_t *ret_bytes);

extern const char *const disk_format_names[]; /* by enum vial_disk_format less 1, then NULL */

/* Reads options and operands: their number, or what command_options says. A format that is not given is refused. */
int disk_options(const struct command *command, struct disk_arguments *arguments, int argc, char *argv[],
                 int min_operands, int max_operands);
void disk_arguments_free(struct disk_arguments *arguments);

/* An error on stderr, or as JSON on stdout: EXIT_OURS. */
int disk_report(const struct command *command, const struct disk_arguments *arguments, const struct vial_error *error);

/* A size as people read it, "1.5 GiB (1610612736 bytes)". */
struct disk_size_text {
    char text[64];
};
struct disk_size_text disk_size_text(uint64_t bytes);

/* Text of others, safe for a terminal and for JSON. */
struct disk_safe_text {
    char text[IMAGE_NAME_BYTES];
};
struct disk_safe_text disk_safe_text(const char *text);

/* Long work: a line on a terminal, and signals that end it in order. */
struct disk_progress {
    const char *verb;
    bool is_shown;
    int percent; /* on the line */
    int signal_number;
    sigset_t watched, before;
};

void disk_progress_begin(struct disk_progress *progress, const char *verb);
bool disk_progress_step(void *user, uint64_t done, uint64_t whole); /* an image_progress */

/* Ends the process by the signal that came, if one did. */
void disk_progress_end(struct disk_progress *progress);

#endif
