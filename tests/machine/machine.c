// SPDX-License-Identifier: Apache-2.0
/* A machine for tests: the payload, a serial port that the test reads, and an end. */
#include "machine.h"

#include "base/fd.h"
#include "test.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

static char text[16384];
static size_t text_length;

bool machine_can_run(void)
{
    auto_close int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    return fd >= 0;
}

static bool check(int result, const struct vial_error *err)
{
    if (result < 0)
        printf("# %s: %s\n", err->field, err->message);
    return result == 0;
}

bool machine_configure(struct machine *machine, const char *payload)
{
    struct vial_error err = {0};
    struct vial_machine_options options = VIAL_MACHINE_OPTIONS_INIT;
    struct vial_kernel_options kernel = VIAL_KERNEL_OPTIONS_INIT;
    struct vial_serial_options serial = VIAL_SERIAL_OPTIONS_INIT;
    char word[64];
    int ends[2];
    *machine = (struct machine){.serial_fd = -1};
    text_length = 0;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return false;
    machine->serial_fd = ends[0];
    auto_close int output_fd = ends[1];
    serial.output_fd = output_fd;
    options.memory_mib = 64;
    options.engine = VIAL_ENGINE_KVM;
    options.balloon = false;
    kernel.path = PAYLOAD;
    snprintf(word, sizeof(word), "payload=%s", payload);
    int result = vial_vm_config_new(&machine->config, &err);
    if (result == 0)
        result = vial_vm_config_set_machine(machine->config, &options, &err);
    if (result == 0)
        result = vial_vm_config_set_kernel(machine->config, &kernel, &err);
    if (result == 0)
        result = vial_vm_config_append_cmdline(machine->config, word, &err);
    if (result == 0)
        result = vial_vm_config_add_serial(machine->config, &serial, &err);
    return check(result, &err);
}

bool machine_start(struct machine *machine, const struct vm_extra *extras, size_t extra_count)
{
    struct vial_error err = {0};
    return check(vm_start(machine->config, extras, extra_count, &machine->vm, &err), &err);
}

/* One read more, within 10 s; false at the end of what there is. */
static bool read_more(struct machine *machine)
{
    struct pollfd poller = {.fd = machine->serial_fd, .events = POLLIN};
    if (text_length == sizeof(text) - 1 || poll(&poller, 1, 10000) <= 0)
        return false;
    ssize_t got = read(machine->serial_fd, text + text_length, sizeof(text) - 1 - text_length);
    if (got > 0)
        text_length += (size_t)got;
    text[text_length] = '\0';
    return got > 0;
}

bool machine_expect(struct machine *machine, const char *wanted)
{
    text[text_length] = '\0';
    while (strstr(text, wanted) == NULL)
        if (!read_more(machine))
            return false;
    text_length = 0;
    return true;
}

const char *machine_finish(struct machine *machine, enum vial_exit_reason reason)
{
    struct vial_exit end = VIAL_EXIT_INIT;
    struct vial_error err = {0};
    int result = vial_vm_wait(machine->vm, 20000, &end, &err);
    if (result < 0 || end.reason != (int)reason) {
        printf("# %s %s: %s\n", err.message, vial_exit_reason_name(end.reason), end.detail);
        return NULL;
    }
    /* Both the machine and its configuration hold the pipe's other end. */
    machine->vm = vial_vm_free(machine->vm);
    machine->config = vial_vm_config_free(machine->config);
    while (read_more(machine))
        ;
    text[text_length] = '\0';
    return text;
}

void machine_release(struct machine *machine)
{
    machine->vm = vial_vm_free(machine->vm);
    machine->config = vial_vm_config_free(machine->config);
    machine->serial_fd = fd_close(machine->serial_fd);
}

const char *machine_run(const char *payload, enum vial_exit_reason reason, bool has_split_irqchip)
{
    struct machine machine;
    const char *written = NULL;
    if (machine_configure(&machine, payload)) {
        machine.config->machine.split_irqchip = has_split_irqchip;
        if (machine_start(&machine, NULL, 0))
            written = machine_finish(&machine, reason);
    }
    machine_release(&machine);
    return written;
}

unsigned machine_count_entries(const char *folder)
{
    unsigned count = 0;
    DIR *handle = opendir(folder);
    for (struct dirent *entry; handle != NULL && (entry = readdir(handle)) != NULL;)
        count++;
    if (handle != NULL)
        closedir(handle);
    return count;
}
