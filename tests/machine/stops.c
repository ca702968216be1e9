// SPDX-License-Identifier: Apache-2.0
/* Stops a kernel that boots, at one moment after the other, and measures how long the machine takes to end.
 *
 *     stop-anytime INITRAMFS
 *
 * The moments go from the start to beyond the kernel's first process, in steps of a tenth of the time that one
 * whole boot takes here. The exit status is 0 when each end came within 100 ms and for the right reason.
 */
#include "tool.h"

#include "base/clock.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { steps = 11, of_a_boot = 10, limit_ms = 100 };

int main(int argc, char *argv[])
{
    struct vial_machine_options machine = VIAL_MACHINE_OPTIONS_INIT;
    struct vial_exit end = VIAL_EXIT_INIT;
    int status = 0, nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (argc != 2 || nowhere < 0)
        return 125;
    machine.vcpus = 2;
    struct vial_vm_config *config = tool_configure(argv[1], nowhere, &machine);
    uint64_t start_ns = clock_now_ns();
    struct vial_vm *vm = tool_start(config, NULL, 0);
    if (vial_vm_wait(vm, 60000, &end, NULL) < 0 || end.reason != VIAL_EXIT_GUEST_RESET)
        return 1;
    uint64_t boot_ms = (clock_now_ns() - start_ns) / CLOCK_NS_PER_MS;
    vial_vm_free(vm);
    for (uint64_t step = 0; step < steps; step++) {
        vm = tool_start(config, NULL, 0);
        int result = vial_vm_wait(vm, step * boot_ms / of_a_boot, &end, NULL);
        uint64_t stop_ns = clock_now_ns();
        vial_vm_stop(vm);
        vial_vm_wait(vm, VIAL_WAIT_FOREVER, &end, NULL);
        uint64_t took_ms = (clock_now_ns() - stop_ns) / CLOCK_NS_PER_MS;
        bool is_fine = took_ms < limit_ms && (result == 0 || end.reason == VIAL_EXIT_STOP_REQUESTED);
        printf("%s after %llu ms: %s within %llu ms\n", is_fine ? "fine" : "WRONG",
               (unsigned long long)(step * boot_ms / of_a_boot), vial_exit_reason_name(end.reason),
               (unsigned long long)took_ms);
        status |= !is_fine;
        vial_vm_free(vm);
    }
    vial_vm_config_free(config);
    return status;
}
