// SPDX-License-Identifier: Apache-2.0
/* A machine on user-mode Linux for tests. */
#include "uml.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fd.h"
#include "device/balloon/balloon.h"
#include "device/console/console.h"
#include "device/rng/rng.h"
#include "host/kernels.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { limit_ms = 20000 };

struct vial_error guest_error;

const char *guest_kernel(void)
{
    static struct host_path path;
    return host_kernel_find("", HOST_ENGINE_UML, &path) ? path.text : NULL;
}

/* ---- the initramfs: an archive in cpio's new format, with checksums that nobody looks at ---- */

static bool add_padded(struct buffer *archive, const void *bytes, size_t length)
{
    buffer_add(archive, bytes, length);
    while (archive->length % 4 != 0 && archive->error == 0)
        buffer_add(archive, "", 1);
    return archive->error == 0;
}

static bool add_file(struct buffer *archive, const char *name, unsigned mode, const char *bytes, size_t length)
{
    char header[512];
    int used = snprintf(header, sizeof(header), "070701%08x%08x%08x%08x%08x%08x%08zx%08x%08x%08x%08x%08zx%08x%s", 1,
                        mode, 0, 0, 1, 0, length, 0, 0, 0, 0, strlen(name) + 1, 0, name);
    return add_padded(archive, header, (size_t)used + 1) && add_padded(archive, bytes, length);
}

int guest_initramfs(const char *init_path)
{
    auto_buffer struct buffer program = BUFFER_INIT(16 << 20), archive = BUFFER_INIT(17 << 20);
    int fd = memfd_create("initramfs", MFD_CLOEXEC);
    auto_close int init_fd = open(init_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || init_fd < 0 || fd_read_all(init_fd, &program) < 0 ||
        !add_file(&archive, "init", S_IFREG | 0755, program.data, program.length) ||
        !add_file(&archive, "TRAILER!!!", 0, "", 0) || fd_write_all(fd, archive.data, archive.length) < 0)
        return fd_close(fd);
    return fd;
}

/* ---- devices ---- */

static bool add_console(struct guest *guest, unsigned port_count)
{
    struct console_port_options ports[CONSOLE_MOST_PORTS];
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC) < 0)
        return false;
    guest->input_fd = in[1];
    auto_close int guest_input_fd = in[0];
    if (pipe2(out, O_CLOEXEC) < 0)
        return false;
    guest->output_fd = out[0];
    auto_close int guest_output_fd = out[1];
    for (unsigned i = 0; i < port_count; i++)
        ports[i] = (struct console_port_options){.is_console = i == 0, .input_fd = -1, .output_fd = -1, .tty_fd = -1};
    ports[0].input_fd = guest_input_fd;
    ports[0].output_fd = guest_output_fd;
    struct console_options options = {.ports = ports, .port_count = port_count};
    return console_new(&options, &guest->devices[guest->device_count++]) == 0;
}

static bool add_devices(struct guest *guest, const struct guest_options *options, uint64_t memory_bytes)
{
    struct balloon_options balloon = {.memory_bytes = memory_bytes, .stats_interval_ms = 100};
    if (options->has_no_devices)
        return true;
    return add_console(guest, options->console_ports != 0 ? options->console_ports : 1) &&
           rng_new(&guest->devices[guest->device_count++]) == 0 &&
           balloon_new(&balloon, &guest->devices[guest->device_count++]) == 0;
}

static void free_devices(struct guest *guest)
{
    for (size_t i = 0; i < guest->device_count; i++)
        virtio_device_free(guest->devices[i]);
    guest->device_count = 0;
}

/* ---- life ---- */

static void handle_end(void *user, const struct vial_exit *exit)
{
    struct guest *guest = user;
    guest->end_ns = clock_now_ns();
    free_devices(guest);
    if (guest->in_end != NULL)
        guest->in_end(guest);
    pthread_mutex_lock(&guest->lock);
    guest->ends++;
    guest->exit = *exit;
    pthread_cond_broadcast(&guest->changed);
    pthread_mutex_unlock(&guest->lock);
}

bool guest_new(struct guest *guest, const struct guest_options *options)
{
    const char *kernel = options->kernel != NULL ? options->kernel : guest_kernel();
    pthread_condattr_t attributes;
    *guest = (struct guest){.kernel_fd = -1, .initramfs_fd = -1, .input_fd = -1, .output_fd = -1};
    guest_error = (struct vial_error){0};
    pthread_mutex_init(&guest->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&guest->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    guest->kernel_fd = kernel != NULL ? open(kernel, O_RDONLY | O_CLOEXEC) : -1;
    guest->initramfs_fd = guest_initramfs(GUEST);
    snprintf(guest->cmdline, sizeof(guest->cmdline), "quiet %s test=%s %s",
             options->has_no_devices ? "" : "console=hvc0", options->mode,
             options->cmdline != NULL ? options->cmdline : "");
    struct uml_options machine = {
        .kernel_fd = guest->kernel_fd,
        .kernel_path = kernel,
        .initramfs_fd = guest->initramfs_fd,
        .vcpus = options->vcpus != 0 ? options->vcpus : 1,
        .memory_bytes = (uint64_t)(options->memory_mib != 0 ? options->memory_mib : 128) << 20,
        .cmdline = guest->cmdline,
        .devices = guest->devices,
        .allows_no_jail = options->allows_no_jail,
        .on_end = handle_end,
        .user = guest,
    };
    if (guest->kernel_fd < 0 || guest->initramfs_fd < 0 || !add_devices(guest, options, machine.memory_bytes))
        return false;
    machine.device_count = guest->device_count;
    return uml_machine_new(&machine, &guest->machine, &guest_error) == 0;
}

bool guest_start(struct guest *guest)
{
    for (size_t i = 0; i < guest->device_count; i++)
        if (virtio_device_launch(guest->devices[i]) < 0)
            return false;
    guest->start_ns = clock_now_ns();
    bool is_started = uml_machine_start(guest->machine, &guest_error) == 0;
    guest->started_ns = clock_now_ns();
    return is_started;
}

bool guest_run(struct guest *guest, const struct guest_options *options)
{
    bool runs = guest_new(guest, options) && guest_start(guest);
    if (!runs)
        printf("# %s: %s; %s\n", guest_error.field, guest_error.message, guest_error.remedy);
    return runs;
}

void guest_free(struct guest *guest)
{
    guest->machine = uml_machine_free(guest->machine);
    free_devices(guest);
    fd_close(guest->kernel_fd);
    fd_close(guest->initramfs_fd);
    fd_close(guest->input_fd);
    fd_close(guest->output_fd);
    pthread_cond_destroy(&guest->changed);
    pthread_mutex_destroy(&guest->lock);
}

/* ---- what it says ---- */

static bool read_more(struct guest *guest, int timeout_ms)
{
    struct pollfd poller = {.fd = guest->output_fd, .events = POLLIN};
    if (guest->length > sizeof(guest->text) / 2) { /* only the end matters */
        memmove(guest->text, guest->text + sizeof(guest->text) / 4, guest->length - sizeof(guest->text) / 4);
        guest->length -= sizeof(guest->text) / 4;
    }
    if (poll(&poller, 1, timeout_ms) <= 0)
        return false;
    ssize_t got = read(guest->output_fd, guest->text + guest->length, sizeof(guest->text) - 1 - guest->length);
    if (got > 0)
        guest->length += (size_t)got;
    guest->text[guest->length] = '\0';
    return got > 0;
}

bool guest_expect(struct guest *guest, const char *wanted)
{
    char *found;
    guest->text[guest->length] = '\0';
    while ((found = strstr(guest->text, wanted)) == NULL)
        if (!read_more(guest, limit_ms)) {
            printf("# \"%s\" has not come; what came last: \"%s\"\n", wanted, guest->text);
            return false;
        }
    guest->up_ns = guest->up_ns == 0 ? clock_now_ns() : guest->up_ns;
    size_t used = (size_t)(found - guest->text) + strlen(wanted);
    memmove(guest->text, guest->text + used, guest->length - used + 1);
    guest->length -= used;
    return true;
}

size_t guest_count_bytes(struct guest *guest, int milliseconds)
{
    size_t count = 0;
    for (uint64_t end_ns = clock_deadline_ns((uint64_t)milliseconds * CLOCK_NS_PER_MS); clock_now_ns() < end_ns;) {
        guest->length = 0;
        read_more(guest, 5);
        count += guest->length;
    }
    return count;
}

bool guest_wait(struct guest *guest)
{
    struct timespec until = clock_to_timespec(clock_deadline_ns(limit_ms * CLOCK_NS_PER_MS));
    int result = 0;
    pthread_mutex_lock(&guest->lock);
    while (guest->ends == 0 && result == 0)
        result = pthread_cond_timedwait(&guest->changed, &guest->lock, &until);
    pthread_mutex_unlock(&guest->lock);
    return result == 0;
}

bool guest_ends(struct guest *guest, enum vial_exit_reason reason)
{
    if (!guest_wait(guest))
        printf("# it has not ended\n");
    else if (guest->exit.reason != (int)reason)
        printf("# %s: %s\n", vial_exit_reason_name(guest->exit.reason), guest->exit.detail);
    return guest->ends == 1 && guest->exit.reason == (int)reason;
}
