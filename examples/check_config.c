// SPDX-License-Identifier: Apache-2.0
/* Describes a machine through the library and checks it: what a program that embeds Vial does before anything starts.
 *
 *     cc check_config.c $(pkg-config --cflags --libs vial) -o check_config
 *     ./check_config ROOT-FOLDER [HOST-FOLDER:GUEST-PATH...]
 */
#include <stdio.h>
#include <stdlib.h>
#include <vial/vmm.h>

static void end(const struct vial_error *err)
{
    fprintf(stderr, "%s%s%s\n  -> %s\n", err->field, err->field[0] != '\0' ? ": " : "", err->message, err->remedy);
    exit(1);
}

int main(int argc, char *argv[])
{
    struct vial_machine_options machine = VIAL_MACHINE_OPTIONS_INIT;
    struct vial_fs_options root = VIAL_FS_OPTIONS_INIT;
    struct vial_vm_config *config = NULL;
    struct vial_error err;
    char *json = NULL;
    if (argc < 2) {
        fprintf(stderr, "usage: %s ROOT-FOLDER [HOST-FOLDER:GUEST-PATH...]\n", argv[0]);
        return 2;
    }
    machine.vcpus = 2;
    machine.memory_mib = 256;
    root.path = argv[1];
    root.read_only = true;
    if (vial_vm_config_new(&config, &err) < 0 || vial_vm_config_set_machine(config, &machine, &err) < 0 ||
        vial_vm_config_set_root(config, &root, &err) < 0)
        end(&err);
    for (int i = 2; i < argc; i++)
        if (vial_vm_config_add_mapped_dir_text(config, argv[i], &err) < 0)
            end(&err);
    if (vial_vm_config_validate(config, &err) < 0 || vial_vm_config_dump(config, &json, &err) < 0)
        end(&err);
    printf("%s\n", json);
    free(json);
    vial_vm_config_free(config);
    return 0;
}
