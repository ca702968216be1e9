// SPDX-License-Identifier: Apache-2.0
/* The options that describe a machine, for every command that has one. */
#ifndef CLI_MACHINE_H
#define CLI_MACHINE_H

#include "cli/command.h"
#include "vmm/config.h"

struct machine_arguments {
    struct vial_vm_config *config; /* owned by the command */
    bool has_options;              /* that --config would undo */
    const char *env[256];          /* of the command; borrowed from argv, as is the next */
    size_t env_count;
    const char *workdir;
    char terminal[64]; /* TERM=…, for a command that has this terminal */
    const char *published[64];
    size_t published_count;
    struct vial_error error;
};

/* For command_options, whose `user` is then a struct machine_arguments, or a struct that begins with one. The second
 * table: of a machine that this process runs itself, and its command. */
extern const struct command_option machine_options[], machine_boot_options[];

/* A command for the guest and its arguments, ended by NULL. 0, or -errno with arguments->error. */
int machine_take_command(struct machine_arguments *arguments, char *const words[]);

/* The same for the command of a configuration file, which it has. */
int machine_take_configured(struct machine_arguments *arguments);

/* MiB, or with a suffix: 512, 512M, 6G. */
bool machine_parse_mib(const char *value, uint64_t *ret_mib);

/* For the table: what a machine stores on (machine_storage.c). */
int machine_take_root(void *user, const struct command_option *option, const char *value);
int machine_take_volume(void *user, const struct command_option *option, const char *value);
int machine_take_disk(void *user, const struct command_option *option, const char *value);
int machine_take_mount(void *user, const struct command_option *option, const char *value);
int machine_take_tmpfs(void *user, const struct command_option *option, const char *value);

/* The same for what it talks through (machine_network.c). The last one is for when all options were read: 0, or not 0
 * with the reason on stderr. */
int machine_take_net(void *user, const struct command_option *option, const char *value);
int machine_take_publish(void *user, const struct command_option *option, const char *value);
int machine_take_vsock(void *user, const struct command_option *option, const char *value);
int machine_publish(struct machine_arguments *arguments);

/* The next word of a list, which is changed; NULL behind the last. What stands behind its '=' is in *ret_value, or
 * NULL. */
char *machine_next_word(char **list, const char **ret_value);
bool machine_is_flag(const char *word, const char *value, const char *name);
bool machine_is_key(const char *word, const char *value, const char *name);

/* What an option is worth whose call has returned `result`. */
int machine_finish(struct machine_arguments *arguments, const struct command_option *option, int result);
int machine_fail_memory(const struct command_option *option, const char *value);

#endif
