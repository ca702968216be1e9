// SPDX-License-Identifier: Apache-2.0
/* The options that describe a machine, for every command that has one: each becomes a call that configures it, or sets
 * a member of the configuration. They stand above what a file given with --config says.
 *
 * Invariants: (1) an option either changes the configuration or has said what is wrong with it. (2) an environment has
 * each name once: --env before a configuration file before the defaults.
 *
 * Trust: arguments are the user's own.
 */
#include "cli/machine.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/text.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int report(struct machine_arguments *arguments, const struct command_option *option)
{
    print_error(option->name, &arguments->error);
    return OPTIONS_WRONG;
}

static void *member_of(struct machine_arguments *arguments, const struct command_option *option)
{
    arguments->has_options = true;
    return (char *)arguments->config + option->member;
}

static int take_config(void *user, const struct command_option *option, const char *value)
{
    struct machine_arguments *arguments = user;
    struct vial_vm_config *config = NULL;
    if (arguments->has_options)
        return refuse_value(option->name, value, "it would undo the options before it", "give it first");
    if (vial_vm_config_load_file(value, &config, &arguments->error) < 0)
        return report(arguments, option);
    vial_vm_config_free(arguments->config);
    arguments->config = config;
    arguments->has_options = true;
    return 0;
}

static int take_flag(void *user, const struct command_option *option, const char *value)
{
    (void)value;
    *(bool *)member_of(user, option) = true;
    return 0;
}

static int take_no_flag(void *user, const struct command_option *option, const char *value)
{
    (void)value;
    *(bool *)member_of(user, option) = false;
    return 0;
}

static int take_text(void *user, const struct command_option *option, const char *value)
{
    char **text = member_of(user, option), *copy = alloc_string(value);
    if (copy == NULL)
        return refuse_value(option->name, value, "there is no memory for it", "free some");
    free(*text);
    *text = copy;
    return 0;
}

static int take_acpi(void *user, const struct command_option *option, const char *value)
{
    (void)value;
    *(uint8_t *)member_of(user, option) = strcmp(option->name, "--acpi") == 0 ? VIAL_ACPI_ON : VIAL_ACPI_OFF;
    return 0;
}

/* MiB, or with a suffix: 512, 512M, 6G. */
static int take_memory(void *user, const struct command_option *option, const char *value)
{
    size_t length = strlen(value);
    char suffix = length > 0 ? value[length - 1] : '\0';
    uint64_t unit_mib = suffix == 'G' || suffix == 'g' ? 1024 : 1;
    bool has_suffix = unit_mib > 1 || suffix == 'M' || suffix == 'm';
    uint64_t number = 0;
    if (text_to_u64(value, length - has_suffix, UINT32_MAX, &number) < 0)
        return refuse_value(option->name, value, "it is not a size", "give MiB, or a number with M or G, such as 2G");
    *(uint64_t *)member_of(user, option) = number * unit_mib;
    return 0;
}

static int take_cpus(void *user, const struct command_option *option, const char *value)
{
    uint64_t number = 0;
    if (text_to_u64(value, strlen(value), UINT32_MAX, &number) < 0)
        return refuse_value(option->name, value, "it is not a number of CPUs", "give a whole number, such as 2");
    *(uint32_t *)member_of(user, option) = (uint32_t)number;
    return 0;
}

static int take_format(void *user, const struct command_option *option, const char *value)
{
    for (int i = 0; config_kernel_formats[i] != NULL; i++) {
        if (strcmp(value, config_kernel_formats[i]) == 0) {
            *(enum vial_kernel_format *)member_of(user, option) = (enum vial_kernel_format)i;
            return 0;
        }
    }
    return refuse_value(option->name, value, "there is no such format",
                        "use auto, elf, bzimage, raw, image-gz, image-bz2, image-zstd or pe-gz");
}

static int take_engine(void *user, const struct command_option *option, const char *value)
{
    for (int i = 0; config_engines[i] != NULL; i++) {
        if (strcmp(value, config_engines[i]) == 0) {
            *(uint8_t *)member_of(user, option) = (uint8_t)i;
            return 0;
        }
    }
    return refuse_value(option->name, value, "there is no such engine", "use auto, kvm or uml");
}

static int take_env(void *user, const struct command_option *option, const char *value)
{
    struct machine_arguments *arguments = user;
    if (strchr(value, '=') == NULL || value[0] == '=')
        return refuse_value(option->name, value, "it is no variable", "write KEY=VALUE");
    size_t length = strcspn(value, "=") + 1;
    for (size_t i = 0; i < arguments->env_count; i++) {
        if (strncmp(arguments->env[i], value, length) == 0) {
            arguments->env[i] = value; /* the last one counts */
            return 0;
        }
    }
    if (arguments->env_count == array_length(arguments->env))
        return refuse_value(option->name, value, "there are too many", "put them into a configuration file");
    arguments->env[arguments->env_count++] = value;
    return 0;
}

static int take_workdir(void *user, const struct command_option *option, const char *value)
{
    struct machine_arguments *arguments = user;
    (void)option;
    arguments->workdir = value;
    return 0;
}

static int take_cmdline(void *user, const struct command_option *option, const char *value)
{
    struct machine_arguments *arguments = user;
    arguments->has_options = true;
    return vial_vm_config_append_cmdline(arguments->config, value, &arguments->error) < 0 ? report(arguments, option)
                                                                                          : 0;
}

/* "-" is where the console is anyway, "none" nowhere, anything else a file. */
static int take_console(void *user, const struct command_option *option, const char *value)
{
    struct machine_arguments *arguments = user;
    bool is_here = strcmp(value, "-") == 0;
    struct vial_console_options console = VIAL_CONSOLE_OPTIONS_INIT;
    console.implicit = strcmp(value, "none") != 0;
    console.output = is_here || strcmp(value, "none") == 0 ? NULL : value;
    arguments->has_options = true;
    return vial_vm_config_set_console(arguments->config, &console, &arguments->error) < 0 ? report(arguments, option)
                                                                                          : 0;
}

static int take_serial(void *user, const struct command_option *option, const char *value)
{
    struct machine_arguments *arguments = user;
    struct vial_serial_options serial = VIAL_SERIAL_OPTIONS_INIT;
    (void)value;
    serial.input_fd = STDIN_FILENO;
    serial.output_fd = STDOUT_FILENO;
    arguments->has_options = true;
    return vial_vm_config_add_serial(arguments->config, &serial, &arguments->error) < 0 ? report(arguments, option) : 0;
}

#define MEMBER(member) offsetof(struct vial_vm_config, member)

const struct command_option machine_options[] = {
    {"--config", true, take_config, 0},
    {"--kernel", true, take_text, MEMBER(kernel.path)},
    {"--kernel-format", true, take_format, MEMBER(kernel.format)},
    {"--krunfw", true, take_text, MEMBER(kernel.krunfw)},
    {"--initramfs", true, take_text, MEMBER(kernel.initramfs)},
    {"--init", true, take_text, MEMBER(kernel.init)},
    {"--cmdline", true, take_cmdline, 0},
    {"--env", true, take_env, 0},
    {"--workdir", true, take_workdir, 0},
    {"--engine", true, take_engine, MEMBER(machine.engine)},
    {"--insecure-no-jail", false, take_flag, MEMBER(machine.insecure_no_jail)},
    {"--cpus", true, take_cpus, MEMBER(machine.vcpus)},
    {"--memory", true, take_memory, MEMBER(machine.memory_mib)},
    {"--console", true, take_console, 0},
    {"--serial", false, take_serial, 0},
    {"--split-irqchip", false, take_flag, MEMBER(machine.split_irqchip)},
    {"--acpi", false, take_acpi, MEMBER(machine.acpi)},
    {"--no-acpi", false, take_acpi, MEMBER(machine.acpi)},
    {"--hyperthreading", false, take_flag, MEMBER(machine.hyperthreading)},
    {"--nested", false, take_flag, MEMBER(machine.nested_virtualization)},
    {"--huge-pages", false, take_flag, MEMBER(machine.huge_pages)},
    {"--no-balloon", false, take_no_flag, MEMBER(machine.balloon)},
    {"--no-rng", false, take_no_flag, MEMBER(machine.rng)},
    {.name = NULL},
};

/* ---- the command ---- */

static bool has_variable(const char *const environment[], size_t count, const char *entry)
{
    size_t length = strcspn(entry, "=") + 1;
    for (size_t i = 0; i < count; i++)
        if (strncmp(environment[i], entry, length) == 0)
            return true;
    return false;
}

/* What is given with --env, then what a configuration file says, then what programs expect to find. */
static void fill_environment(const struct machine_arguments *arguments, const char *environment[])
{
    static const char *const defaults[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                                           "HOME=/root"};
    const struct string_list *configured = &arguments->config->exec_env;
    size_t count = arguments->env_count;
    memcpy(environment, arguments->env, count * sizeof(environment[0]));
    for (size_t i = 0; i < configured->count; i++)
        if (!has_variable(environment, count, configured->items[i]))
            environment[count++] = configured->items[i];
    for (size_t i = 0; i < array_length(defaults); i++)
        if (!has_variable(environment, count, defaults[i]))
            environment[count++] = defaults[i];
    if (arguments->terminal[0] != '\0' && !has_variable(environment, count, arguments->terminal))
        environment[count++] = arguments->terminal;
}

int machine_take_command(struct machine_arguments *arguments, char *const words[])
{
    enum { most_defaults = 3 };
    const struct vial_vm_config *config = arguments->config;
    const char *terminal = getenv("TERM");
    size_t most = arguments->env_count + config->exec_env.count + most_defaults;
    auto_free const char **environment = alloc_zero((most + 1) * sizeof(environment[0]));
    if (environment == NULL)
        return error_no_memory(&arguments->error, VIAL_PHASE_CONFIGURE);
    if (terminal != NULL && isatty(STDIN_FILENO) == 1)
        snprintf(arguments->terminal, sizeof(arguments->terminal), "TERM=%s", terminal);
    fill_environment(arguments, environment);
    struct vial_exec_options exec = VIAL_EXEC_OPTIONS_INIT;
    exec.path = words[0];
    exec.args = (const char *const *)words + 1;
    exec.env = environment;
    exec.workdir = arguments->workdir != NULL ? arguments->workdir : config->exec_workdir;
    exec.uid = config->exec_uid;
    exec.gid = config->exec_gid;
    exec.has_uid = config->has_exec_uid;
    exec.has_gid = config->has_exec_gid;
    arguments->has_options = true;
    return vial_vm_config_set_exec(arguments->config, &exec, &arguments->error);
}

int machine_take_configured(struct machine_arguments *arguments)
{
    const struct vial_vm_config *config = arguments->config;
    auto_free char **words = alloc_zero((config->exec_args.count + 2) * sizeof(words[0]));
    if (words == NULL)
        return error_no_memory(&arguments->error, VIAL_PHASE_CONFIGURE);
    words[0] = config->exec_path;
    for (size_t i = 0; i < config->exec_args.count; i++)
        words[1 + i] = config->exec_args.items[i];
    return machine_take_command(arguments, words); /* which copies before it frees */
}
