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

bool machine_parse_mib(const char *value, uint64_t *ret_mib)
{
    size_t length = strlen(value);
    char suffix = length > 0 ? value[length - 1] : '\0';
    uint64_t unit_mib = suffix == 'G' || suffix == 'g' ? 1024 : 1;
    bool has_suffix = unit_mib > 1 || suffix == 'M' || suffix == 'm';
    uint64_t number = 0;
    if (text_to_u64(value, length - has_suffix, UINT32_MAX, &number) < 0)
        return false;
    *ret_mib = number * unit_mib;
    return true;
}

static int take_memory(void *user, const struct command_option *option, const char *value)
{
    if (machine_parse_mib(value, member_of(user, option)))
        return 0;
    return refuse_value(option->name, value, "it is not a size", "give MiB, or a number with M or G, such as 2G");
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

/* ---- what the files of options share ---- */

char *machine_next_word(char **list, const char **ret_value)
{
    char *word = strsep(list, ",");
    char *equals = word != NULL ? strchr(word, '=') : NULL;
    *ret_value = NULL;
    if (equals != NULL) {
        *equals = '\0';
        *ret_value = equals + 1;
    }
    return word;
}

bool machine_is_flag(const char *word, const char *value, const char *name)
{
    return value == NULL && strcmp(word, name) == 0;
}

bool machine_is_key(const char *word, const char *value, const char *name)
{
    return value != NULL && strcmp(word, name) == 0;
}

int machine_finish(struct machine_arguments *arguments, const struct command_option *option, int result)
{
    arguments->has_options = true;
    if (result < 0)
        print_error(option->name, &arguments->error);
    return result < 0 ? OPTIONS_WRONG : 0;
}

int machine_fail_memory(const struct command_option *option, const char *value)
{
    return refuse_value(option->name, value, "there is no memory for it", "free some");
}

/* ---- the table ---- */

#define MEMBER(member) offsetof(struct vial_vm_config, member)

const struct command_option machine_options[] = {
    {"--config", 0, "FILE", "a machine's configuration (docs/CONFIG.md), which the options behind it change",
     take_config, .completes = COMPLETE_FILE},
    {"--engine", 0, "NAME", "auto (default: kvm where it runs guests natively, else uml), kvm, uml", take_engine,
     MEMBER(machine.engine), "auto kvm uml"},
    {"--insecure-no-jail", 0, NULL, "uml: start even where this host forbids walls of the guest's jail", take_flag,
     MEMBER(machine.insecure_no_jail)},
    {"--cpus", 0, "N", "virtual CPUs, 1 to 64 (default: 1)", take_cpus, MEMBER(machine.vcpus)},
    {"--memory", 'm', "SIZE", "MiB, or with a suffix M or G (default: 512)", take_memory, MEMBER(machine.memory_mib)},
    {"--root", 0, "ROOT",
     "the guest's root: FOLDER[:ro], or with :throwaway what the guest writes goes with the machine; host: this host's "
     "programs (/usr, /etc, …), what every user may read of them, under such a layer; builtin: an empty one; "
     "disk:ID[:TYPE][:ro]: a disk's file system; layers:ID,…: disks merged, the topmost first, under a layer in "
     "memory, or "
     "with +ID on that disk",
     machine_take_root, .completes = COMPLETE_FOLDER},
    {"--volume", 'v', "FOLDER:PATH[:ro]", "a folder of this host at a path of the guest; may be repeated",
     machine_take_volume, .completes = COMPLETE_FOLDER},
    {"--disk", 0, "FILE:FORMAT[:id=ID,ro,…]",
     "a disk: raw, qcow2 or vmdk; words: also direct, cache=unsafe, sync=none, queues=N; may be repeated",
     machine_take_disk, .completes = COMPLETE_FILE},
    {"--mount", 0, "disk=ID,at=PATH[,…]", "a disk's file system at a path of the guest; also type=TYPE, ro",
     machine_take_mount},
    {"--tmpfs", 0, "PATH[:size=SIZE,mode=MODE]", "memory at a path of the guest", machine_take_tmpfs},
    {"--net", 0, "NETWORK[,WORD…]",
     "none (default); passt: this host's network, as one of its users; tap:NAME, unix:SOCKET (passt's frames), "
     "unixgram:SOCKET (one a datagram); words: address=ADDRESS/PREFIX, gateway=ADDRESS, dns=ADDRESS, dhcp (default "
     "of tap and sockets), manual, mac=MAC, mtu=N, queues=N, host (passt: the gateway leads to this host's loopback), "
     "vfkit; may be repeated",
     machine_take_net},
    {"--publish", 'p', "[ADDRESS:]PORT[:PORT][/udp]",
     "with --net passt: a port of this host (of its loopback, but for an ADDRESS) leads to one of the guest's; may be "
     "repeated",
     machine_take_publish},
    {"--vsock", 0, "PORT=SOCKET[:listen]",
     "the guest's connections to this vsock port of the host reach the Unix socket; with listen those to the socket, "
     "which is made, reach the guest's port; may be repeated",
     machine_take_vsock, .completes = COMPLETE_FILE},
    {"--kernel", 0, "FILE", "the kernel (default: the project's own, built by kernel/build)", take_text,
     MEMBER(kernel.path), .completes = COMPLETE_FILE},
    {"--kernel-format", 0, "NAME", "auto (default), elf, bzimage, raw, image-gz, image-bz2, image-zstd, pe-gz",
     take_format, MEMBER(kernel.format), "auto elf bzimage raw image-gz image-bz2 image-zstd pe-gz"},
    {"--krunfw", 0, "FILE", "take the kernel from a libkrunfw.so.5", take_text, MEMBER(kernel.krunfw),
     .completes = COMPLETE_FILE},
    {"--initramfs", 0, "FILE", "what the kernel unpacks as its first root", take_text, MEMBER(kernel.initramfs),
     .completes = COMPLETE_FILE},
    {"--init", 0, "PATH", "the guest's first process", take_text, MEMBER(kernel.init)},
    {"--cmdline", 0, "TEXT", "append to the kernel's command line; may be repeated (loglevel=7 shows messages)",
     take_cmdline},
    {"--split-irqchip", 0, NULL, "room for 200 devices instead of 19 (about 50 without ACPI)", take_flag,
     MEMBER(machine.split_irqchip)},
    {"--acpi", 0, NULL, "describe the machine in ACPI tables (default: only to a bzImage)", take_acpi,
     MEMBER(machine.acpi)},
    {"--no-acpi", 0, NULL, "do not", take_acpi, MEMBER(machine.acpi)},
    {"--hyperthreading", 0, NULL, "show pairs of CPUs as threads of one core", take_flag,
     MEMBER(machine.hyperthreading)},
    {"--nested", 0, NULL, "show VMX or SVM to the guest", take_flag, MEMBER(machine.nested_virtualization)},
    {"--huge-pages", 0, NULL, "ask the host for transparent huge pages", take_flag, MEMBER(machine.huge_pages)},
    {"--no-balloon", 0, NULL, "no device that returns memory which the guest does not use", take_no_flag,
     MEMBER(machine.balloon)},
    {"--no-rng", 0, NULL, "no source of random numbers", take_no_flag, MEMBER(machine.rng)},
    {.name = NULL},
};

const struct command_option machine_boot_options[] = {
    {"--env", 0, "KEY=VALUE", "for the command; may be repeated. PATH, HOME and a terminal's TERM are there by default",
     take_env},
    {"--workdir", 0, "PATH", "the command's working directory", take_workdir},
    {"--console", 0, "WHERE", "- (default: this terminal), none, or a file for the output", take_console,
     .completes = COMPLETE_FILE},
    {"--serial", 0, NULL, "a 16550 serial port on standard input and output, instead of the virtio console",
     take_serial},
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

/* What is given with --env, then what a configuration file says, then what programs expect to find, unless the guest
 * is to say that. */
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
    for (size_t i = 0; i < array_length(defaults) && !arguments->config->exec_from_guest; i++)
        if (!has_variable(environment, count, defaults[i]))
            environment[count++] = defaults[i];
    if (arguments->terminal[0] != '\0' && !has_variable(environment, count, arguments->terminal))
        environment[count++] = arguments->terminal;
}

static int take_program(struct machine_arguments *arguments, const char *path, char *const args[])
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
    exec.path = path;
    exec.args = (const char *const *)args;
    exec.env = environment;
    exec.workdir = arguments->workdir != NULL ? arguments->workdir : config->exec_workdir;
    exec.uid = config->exec_uid;
    exec.gid = config->exec_gid;
    exec.has_uid = config->has_exec_uid;
    exec.has_gid = config->has_exec_gid;
    exec.from_guest = config->exec_from_guest;
    arguments->has_options = true;
    return vial_vm_config_set_exec(arguments->config, &exec, &arguments->error);
}

int machine_take_command(struct machine_arguments *arguments, char *const words[])
{
    return take_program(arguments, words[0], words + 1);
}

int machine_take_configured(struct machine_arguments *arguments)
{
    const struct vial_vm_config *config = arguments->config;
    auto_free char **words = alloc_zero((config->exec_args.count + 1) * sizeof(words[0]));
    if (words == NULL)
        return error_no_memory(&arguments->error, VIAL_PHASE_CONFIGURE);
    for (size_t i = 0; i < config->exec_args.count; i++)
        words[i] = config->exec_args.items[i];
    return take_program(arguments, config->exec_path, words); /* which copies before it frees */
}
