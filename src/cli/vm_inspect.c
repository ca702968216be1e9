// SPDX-License-Identifier: Apache-2.0
/* vial vm inspect: what would a machine with these options be, here and now?
 *
 * Invariants: (1) nothing is started, and nothing on the host changes.
 *
 * Trust: arguments are the user's own; what is shown of a file is escaped.
 */
#include "cli/machine.h"

#include "base/alloc.h"
#include "base/text.h"

#include <string.h>

static void print_line(const char *name, const char *value)
{
    const struct palette *colour = palette_for(stdout);
    char safe[VIAL_ENGINE_TEXT_SIZE];
    text_escape(safe, sizeof(safe), value, strlen(value), "");
    printf("%s%-10s%s %s\n", colour->bold, name, colour->off, safe);
}

static const char *describe(const struct vial_engine_info *info)
{
    switch (info->isolation) {
    case VIAL_ISOLATION_HARDWARE:
        return "hardware: the CPU keeps the guest apart";
    case VIAL_ISOLATION_JAIL:
        return "jail: a kernel of its own, kept apart by the host's kernel (namespaces, seccomp, an empty root)";
    default:
        return "weak: a kernel of its own, and as much of the jail as this host allows";
    }
}

/* As JSON takes it: text of UTF-8. */
static void make_safe(char *text, size_t size)
{
    char safe[VIAL_ENGINE_TEXT_SIZE];
    text_escape(safe, sizeof(safe), text, strlen(text), "");
    snprintf(text, size, "%s", safe);
}

/* The root in a few words; --json has the rest. */
static void describe_root(const struct vial_vm_config *config, char *text, size_t size)
{
    const char *layer = config->root.throw_away ? ", under a throw-away layer" : "";
    switch (config->root_kind) {
    case ROOT_NONE:
        snprintf(text, size, "%s", config->kernel.initramfs != NULL ? config->kernel.initramfs : "none");
        break;
    case ROOT_FOLDER:
        snprintf(text, size, "%s%s",
                 config->root.path != NULL ? config->root.path
                 : config->root.is_empty   ? "empty"
                                           : "a custom backend",
                 layer);
        break;
    case ROOT_DISK:
        snprintf(text, size, "disk %s", config->root_disk.disk);
        break;
    case ROOT_LAYERS:
        snprintf(text, size, "%zu disks under %s", config->root_lower.count,
                 config->root_upper.disk != NULL ? config->root_upper.disk : "a throw-away layer");
        break;
    case ROOT_BUILTIN:
        snprintf(text, size, "built-in");
        break;
    case ROOT_HOST:
        snprintf(text, size, "this host's programs, as every user may read them%s", layer);
        break;
    }
}

static int print_machine(const struct machine_arguments *arguments, struct vial_engine_info *info, bool is_json)
{
    const struct machine_config *machine = &arguments->config->machine;
    char text[VIAL_ENGINE_TEXT_SIZE];
    make_safe(info->reason, sizeof(info->reason));
    make_safe(info->kernel, sizeof(info->kernel));
    if (is_json) {
        auto_free char *dump = NULL;
        struct vial_error error = {0};
        if (vial_vm_config_dump(arguments->config, &dump, &error) < 0) {
            print_error("vial vm inspect", &error);
            return EXIT_OURS;
        }
        return print_json(json_pack("{s:s, s:s, s:s, s:s, s:o}", "engine", vial_engine_name(info->engine), "reason",
                                    info->reason, "isolation", vial_isolation_name(info->isolation), "kernel",
                                    info->kernel, "config", json_loads(dump, 0, NULL)),
                          EXIT_YES);
    }
    print_line("engine", vial_engine_name(info->engine));
    print_line("reason", info->reason);
    print_line("isolation", describe(info));
    print_line("kernel", info->kernel);
    snprintf(text, sizeof(text), "%u", machine->vcpus);
    print_line("vcpus", text);
    snprintf(text, sizeof(text), "%llu MiB", (unsigned long long)machine->memory_mib);
    print_line("memory", text);
    describe_root(arguments->config, text, sizeof(text));
    print_line("root", text);
    return finish_output(EXIT_YES);
}

static int run_inspect(const struct command *command, int argc, char *argv[])
{
    struct machine_arguments arguments = {0};
    struct vial_engine_info info = VIAL_ENGINE_INFO_INIT;
    bool is_json = false;
    int status = EXIT_OURS;
    if (vial_vm_config_new(&arguments.config, &arguments.error) < 0) {
        print_error(command->path, &arguments.error);
        return EXIT_OURS;
    }
    int operands = command_options(command, &arguments, argc, argv, 0, 0, &is_json);
    if (operands == OPTIONS_DONE)
        status = EXIT_YES;
    else if (operands >= 0 && machine_publish(&arguments) != 0)
        status = EXIT_OURS;
    else if (operands >= 0 && vial_vm_config_choose_engine(arguments.config, &info, &arguments.error) == 0)
        status = print_machine(&arguments, &info, is_json);
    else if (operands >= 0) {
        status = EXIT_NO;
        if (is_json)
            status = print_json(json_pack("{s:o}", "error", error_to_json(&arguments.error)), EXIT_NO);
        else
            print_error(command->path, &arguments.error);
    }
    vial_vm_config_free(arguments.config);
    return status;
}

const struct command command_vm_inspect = {
    .name = "inspect",
    .path = "vial vm inspect",
    .arguments = "[OPTIONS]",
    .summary = "Say which engine, kernel and isolation a machine would have here",
    .about =
        "Takes the options of vial boot, checks them, and starts nothing. --json shows the whole configuration, too.",
    .statuses = "0 when such a machine could be started as far as can be told, 1 when it could not",
    .options = {machine_boot_options, machine_options},
    .run = run_inspect,
};
