// SPDX-License-Identifier: Apache-2.0
/* vial vm check: is this configuration file right, and if not, what is wrong with it?
 *
 * Trust: the file may be anybody's; what is shown of it is escaped.
 */
#include "cli/command.h"

#include "base/alloc.h"
#include "base/text.h"
#include "vial/vmm.h"

#include <string.h>

struct auto_config {
    struct vial_vm_config *config;
};

static void release_config(struct auto_config *holder)
{
    vial_vm_config_free(holder->config);
}

static int print_invalid(const char *path, const struct vial_error *error, bool is_json)
{
    if (is_json)
        return print_json(json_pack("{s:b, s:o}", "valid", 0, "error", error_to_json(error)), EXIT_NO);
    print_error(path, error);
    return EXIT_NO;
}

static int print_valid(const char *path, const struct vial_vm_config *config, bool is_json)
{
    struct vial_error error = {0};
    auto_free char *text = NULL;
    if (vial_vm_config_dump(config, &text, &error) < 0) {
        print_error(path, &error);
        return EXIT_OURS;
    }
    auto_json json_t *document = json_loads(text, 0, NULL);
    if (is_json)
        return print_json(json_pack("{s:b, s:O}", "valid", 1, "config", document), EXIT_YES);
    const json_t *machine = json_object_get(document, "machine");
    char safe[256];
    text_escape(safe, sizeof(safe), path, strlen(path), "");
    printf("%s: ok: %lld vCPUs, %lld MiB, %zu mounts, %zu disks, %zu networks\n", safe,
           (long long)json_integer_value(json_object_get(machine, "vcpus")),
           (long long)json_integer_value(json_object_get(machine, "memory_mib")),
           json_array_size(json_object_get(document, "fs")) +
               json_array_size(json_object_get(document, "mapped_dirs")) + (json_object_get(document, "root") != NULL),
           json_array_size(json_object_get(document, "disks")), json_array_size(json_object_get(document, "net")));
    return finish_output(EXIT_YES);
}

static int run_check(const struct command *command, int argc, char *argv[])
{
    __attribute__((cleanup(release_config))) struct auto_config holder = {NULL};
    struct vial_error error = {0};
    bool is_json = false;
    int operands = command_options(command, NULL, argc, argv, 1, 1, &is_json);
    if (operands < 0)
        return options_status(operands);
    const char *path = argv[1];
    int result = vial_vm_config_load_file(path, &holder.config, &error);
    if (result == 0)
        result = vial_vm_config_validate(holder.config, &error);
    return result < 0 ? print_invalid(path, &error, is_json) : print_valid(path, holder.config, is_json);
}

static const struct command command_check = {
    .name = "check",
    .path = "vial vm check",
    .arguments = "[--json] FILE",
    .summary = "Check a machine's configuration file without starting anything",
    .about =
        "Reads the JSON file (- is standard input) and checks everything that can be known before a machine is "
        "started: keys, types, ranges, conflicts, and the host's files that it names. The first problem is reported "
        "with its field and a remedy. docs/CONFIG.md lists the keys. --json prints the whole configuration with "
        "defaults filled in, or the error.",
    .statuses = "0 when the file is right, 1 when it is not",
    .run = run_check,
    .operand = COMPLETE_FILE,
};

const struct command command_vm = {
    .name = "vm",
    .path = "vial vm",
    .summary = "Work with machine configurations",
    .children = (const struct command *const[]){&command_check, &command_vm_inspect, NULL},
};
