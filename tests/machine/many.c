// SPDX-License-Identifier: Apache-2.0
/* Boots the project's kernel in a machine with a given number of virtio devices, the serial console on standard output.
 *
 *     many-devices COUNT default|split INITRAMFS
 *
 * Configurations have no more than one device of most kinds, so the rest are random-number devices. The exit status is
 * 0 when the guest reset the machine.
 */
#include "tool.h"

#include "base/alloc.h"
#include "device/rng/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { of_the_configuration = 3 }; /* balloon, rng, metrics */

int main(int argc, char *argv[])
{
    struct vm_extra extras[LIMIT_DEVICES] = {0};
    struct vial_machine_options machine = VIAL_MACHINE_OPTIONS_INIT;
    struct vial_exit end = VIAL_EXIT_INIT;
    size_t count = argc == 4 ? strtoul(argv[1], NULL, 10) : 0;
    if (count <= of_the_configuration || count - of_the_configuration > LIMIT_DEVICES) {
        fprintf(stderr, "usage: many-devices COUNT default|split INITRAMFS\n");
        return 125;
    }
    machine.split_irqchip = strcmp(argv[2], "split") == 0;
    for (size_t i = 0; i < count - of_the_configuration; i++)
        if (rng_new(&extras[i].device) < 0)
            return 125;
    struct vial_vm_config *config = tool_configure(argv[3], STDOUT_FILENO, &machine);
    struct vial_vm *vm = tool_start(config, extras, count - of_the_configuration);
    int result = vial_vm_wait(vm, 60000, &end, NULL);
    vial_vm_free(vm);
    vial_vm_config_free(config);
    return result == 0 && end.reason == VIAL_EXIT_GUEST_RESET ? 0 : 1;
}
