// SPDX-License-Identifier: Apache-2.0
/* A machine on user-mode Linux, put together: what the kernel is told, its pipes, and a server for each device.
 *
 *     this process                                         the jail
 *     ────────────────────────────                         ──────────────────────────────────
 *     device's thread: vhost-user  <── socket, memory ──>  user-mode Linux: virtio_uml
 *     engine's thread (run.c):     <── pipes, pidfd ─────  its standard output and error, its end
 *
 * A device stands behind a vhost-user server (virtio/vhost_user.c), which runs on the device's own thread. Its
 * listening socket is made here, without a name, and is bound and made to listen by the jail's child at a path inside
 * the jail, so no name of it ever exists on the host. One connection is accepted in its life: a kernel connects once,
 * at its boot.
 *
 * Kicks and calls go by descriptors of their own, not as messages (INBAND_NOTIFICATIONS is not offered). A message
 * waits for the device's answer, with the guest's interrupts off; an eventfd does not. Measured with 1 and 2 CPUs on
 * two busy cores, neither the time to the first process (20 to 30 ms at best) nor what a guest prints (1 MB/s, the
 * console driver sends 16 bytes at a time) differed between messages, eventfds, and eventfds without REPLY_ACK by more
 * than two runs of the same kind did. REPLY_ACK stays: an error in setting up a device is then one in the guest's log.
 *
 * The guest's memory is a file that the kernel makes and passes over each socket. The first one is made by the kernel
 * before any program of the guest runs, so it is what we expect, a file of the jail's that cannot be shrunk; every
 * later one has to be the same file. A guest that sends another could cut it under our feet.
 *
 * Invariants: (1) nothing runs until run.c starts it. (2) a server lives no longer than its device. (3) nothing
 * that waits, and no function of others, is called with the lock held.
 *
 * Trust: options are the embedding program's; the descriptors of memory come from a hostile guest.
 */
#include "engine/uml/private.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "engine/uml/kernel.h"
#include "engine/uml/placement.h"
#include "virtio/device.h"
#include "virtio/vhost_user.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(struct vial_error *err, int os_error, const char *step)
{
    int result = error_set_os(err, VIAL_PHASE_START, os_error, "%s failed", step);
    error_remedy(err, result == -EMFILE || result == -ENFILE ? "raise the limit of open files (ulimit -n)"
                                                             : "free memory, or raise this process's memory limits");
    return result;
}

/* ---- what a server calls, on its device's thread ---- */

bool uml_machine_accepts_memory(struct uml_machine *machine, int fd)
{
    struct stat file;
    if (fstat(fd, &file) < 0 || !S_ISREG(file.st_mode) || file.st_size < 0 ||
        (uint64_t)file.st_size > machine->memory_bytes)
        return false;
    pthread_mutex_lock(&machine->lock);
    if (!machine->has_memory) {
        machine->has_memory = true;
        machine->memory_device = file.st_dev;
        machine->memory_inode = file.st_ino;
    }
    bool is_same = file.st_dev == machine->memory_device && file.st_ino == machine->memory_inode;
    pthread_mutex_unlock(&machine->lock);
    return is_same;
}

static bool accepts_memory(void *user, int fd)
{
    const struct uml_server *server = user;
    return uml_machine_accepts_memory(server->machine, fd);
}

/* The guest would find no device, and wait for it. */
static void handle_out_of_room(void *user, int os_error)
{
    const struct uml_server *server = user;
    uml_machine_end(server->machine, VIAL_EXIT_INTERNAL_ERROR,
                    "the %s device cannot take what the guest shares with it: %s; raise this process's limit of %s",
                    virtio_device_name(server->device), strerrordesc_np(os_error),
                    os_error == EMFILE ? "open files (ulimit -n)" : "address space (ulimit -v)");
}

static void handle_connected(void *user)
{
    struct uml_server *server = user;
    struct uml_machine *machine = server->machine;
    unsigned connected = 1 + atomic_fetch_add(&machine->connected, 1);
    log_debug("uml.device_connected", LOG_TEXT("device", virtio_device_name(server->device)),
              LOG_UINT("connected", connected), LOG_UINT("devices", machine->server_count),
              LOG_UINT("elapsed_us", uml_machine_elapsed_us(machine, clock_now_ns())));
}

/* ---- parts of a machine ---- */

static int refuse_queues(const struct virtio_device *device, struct vial_error *err)
{
    int result = error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_START,
                           "the %s device has %u queues, and user-mode Linux drives %d of one device at most",
                           virtio_device_name(device), virtio_device_queue_count(device), LIMIT_UML_QUEUES);
    error_remedy(err, "give it fewer ports (a console of 31 ports has 64 queues)");
    return result;
}

static int add_server(struct uml_machine *machine, struct virtio_device *device, struct vial_error *err)
{
    struct uml_server *server = &machine->servers[machine->server_count];
    if (virtio_device_queue_count(device) > LIMIT_UML_QUEUES)
        return refuse_queues(device, err);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail(err, errno, "the making of a device's socket");
    *server = (struct uml_server){.machine = machine, .device = device};
    const struct vhost_user_options options = {
        .listen_fd = fd,
        .connection_fd = -1,
        .protocol_without = VHOST_USER_F_INBAND,
        .is_once = true,
        .signals_sockets_only = true, /* as the kernel's driver has them (virtio_uml.c) */
        .accepts_memory = accepts_memory,
        .out_of_room = handle_out_of_room,
        .connected = handle_connected,
        .user = server,
    };
    int result = vhost_user_new(device, &options, &server->vhost);
    if (result < 0) {
        fd_close(fd);
        return fail(err, result, "the making of a device's server");
    }
    machine->socket_fds[machine->server_count++] = fd;
    return 0;
}

static int add_servers(struct uml_machine *machine, const struct uml_options *options, struct vial_error *err)
{
    size_t count = options->device_count;
    if (count == 0)
        return 0;
    machine->servers = alloc_zero(count * sizeof(machine->servers[0]));
    machine->socket_fds = alloc_zero(count * sizeof(machine->socket_fds[0]));
    if (machine->servers == NULL || machine->socket_fds == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    int result = 0;
    for (size_t i = 0; i < count && result == 0; i++)
        result = add_server(machine, options->devices[i], err);
    return result;
}

void uml_machine_free_servers(struct uml_machine *machine)
{
    /* First none of them waits for the guest any more, then each is waited for. */
    for (size_t i = 0; i < machine->server_count; i++)
        vhost_user_abandon(machine->servers[i].vhost);
    for (size_t i = 0; i < machine->server_count; i++)
        vhost_user_free(machine->servers[i].vhost);
    machine->server_count = 0;
}

static int make_jail(struct uml_machine *machine, const struct uml_options *options, struct vial_error *err)
{
    const struct jail_options jail_options = {
        .memory_bytes = options->memory_bytes,
        .initramfs_fd = options->initramfs_fd,
        .socket_fds = machine->socket_fds,
        .socket_count = machine->server_count,
        .allows_missing_walls = options->allows_no_jail,
    };
    return jail_prepare(&jail_options, &machine->jail, err);
}

static int make_cmdline(struct uml_machine *machine, const struct uml_options *options, struct vial_error *err)
{
    size_t count = machine->server_count;
    struct jail_path state = jail_state_folder(machine->jail), initramfs = jail_initramfs_path(machine->jail);
    struct jail_path memory = jail_memory_folder(machine->jail);
    auto_free struct jail_path *paths = alloc_zero((count + 1) * sizeof(paths[0]));
    auto_free struct uml_cmdline_device *devices = alloc_zero((count + 1) * sizeof(devices[0]));
    if (paths == NULL || devices == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    for (size_t i = 0; i < count; i++) {
        paths[i] = jail_socket_path(machine->jail, i);
        devices[i].socket = paths[i].text;
        devices[i].type = virtio_device_type(machine->servers[i].device);
    }
    snprintf(machine->memory_variable, sizeof(machine->memory_variable), "TMPDIR=%s", memory.text);
    const struct uml_cmdline_options cmdline = {
        .vcpus = options->vcpus,
        .memory_bytes = options->memory_bytes,
        .state_folder = state.text,
        .initramfs = options->initramfs_fd >= 0 ? initramfs.text : NULL,
        .text = options->cmdline,
        .devices = devices,
        .device_count = count,
    };
    return uml_cmdline_make(&cmdline, &machine->cmdline, err);
}

/* Our end does not block; the kernel waits when it says more than we have read. */
static int make_output(struct uml_output *output, const char *name, int *ret_child_fd, struct vial_error *err)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return fail(err, errno, "the making of a pipe");
    output->name = name;
    output->fd = fds[0];
    *ret_child_fd = fds[1];
    return fcntl(output->fd, F_SETFL, O_NONBLOCK) < 0 ? fail(err, errno, "F_SETFL") : 0;
}

/* An input at which nothing ever comes, not even an end: user-mode Linux would take that for a hang-up of its tty0. */
static int make_input(struct uml_machine *machine, struct vial_error *err)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return fail(err, errno, "the making of a pipe");
    machine->child_fds[0] = fds[0];
    machine->input_fd = fds[1];
    return 0;
}

static int make_pipes(struct uml_machine *machine, struct vial_error *err)
{
    int result = make_input(machine, err);
    if (result == 0)
        result = make_output(&machine->output, "stdout", &machine->child_fds[1], err);
    if (result == 0)
        result = make_output(&machine->error, "stderr", &machine->child_fds[2], err);
    if (result < 0)
        return result;
    result = uml_machine_watch(machine);
    return result < 0 ? fail(err, result, "the making of an event loop") : 0;
}

/* ---- life ---- */

static int assemble(struct uml_machine *machine, const struct uml_options *options, struct vial_error *err)
{
    int result = uml_kernel_check(options->kernel_fd, options->kernel_path, options->vcpus, err);
    if (result == 0)
        result = make_pipes(machine, err);
    if (result == 0)
        result = add_servers(machine, options, err);
    if (result == 0)
        result = make_jail(machine, options, err);
    return result == 0 ? make_cmdline(machine, options, err) : result;
}

int uml_machine_new(const struct uml_options *options, struct uml_machine **ret_machine, struct vial_error *err)
{
    assert(options->vcpus > 0 && options->memory_bytes > 0 && options->memory_bytes % 4096 == 0);
    struct uml_machine *machine = alloc_zero(sizeof(*machine));
    if (machine == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    machine->on_end = options->on_end;
    machine->user = options->user;
    machine->kernel_fd = options->kernel_fd;
    machine->memory_bytes = options->memory_bytes;
    machine->is_placed = options->vcpus == 1;
    machine->end_fd = machine->input_fd = machine->output.fd = machine->error.fd = -1;
    machine->child_fds[0] = machine->child_fds[1] = machine->child_fds[2] = -1;
    machine->walls_text = (struct buffer)BUFFER_INIT(LIMIT_UML_WALLS_BYTES);
    pthread_mutex_init(&machine->control_lock, NULL);
    pthread_mutex_init(&machine->lock, NULL);
    pthread_cond_init(&machine->changed, NULL);
    int result = assemble(machine, options, err);
    if (result < 0) {
        uml_machine_free(machine);
        return result;
    }
    *ret_machine = machine;
    return 0;
}

struct uml_machine *uml_machine_free(struct uml_machine *machine)
{
    if (machine == NULL)
        return NULL;
    uml_machine_join(machine);
    uml_machine_free_servers(machine);
    jail_free(machine->jail);
    placement_free(machine->placement);
    loop_free(machine->loop);
    uml_machine_close_child_fds(machine);
    fd_close(machine->input_fd);
    fd_close(machine->end_fd);
    fd_close(machine->output.fd);
    fd_close(machine->error.fd);
    uml_cmdline_free(&machine->cmdline);
    buffer_free(&machine->walls_text);
    free(machine->servers);
    free(machine->socket_fds);
    pthread_cond_destroy(&machine->changed);
    pthread_mutex_destroy(&machine->lock);
    pthread_mutex_destroy(&machine->control_lock);
    free(machine);
    return NULL;
}

void uml_machine_close_child_fds(struct uml_machine *machine)
{
    for (size_t i = 0; i < array_length(machine->child_fds); i++)
        machine->child_fds[i] = fd_close(machine->child_fds[i]);
}

uint32_t uml_machine_walls(const struct uml_machine *machine)
{
    return machine->walls;
}

void uml_machine_describe(const struct uml_machine *machine, struct buffer *text)
{
    buffer_add(text, machine->walls_text.data, machine->walls_text.length);
}
