// SPDX-License-Identifier: Apache-2.0
/* Building a configuration: every public call that sets or adds, but for storage (config_storage.c) and
 * networks (config_net.c).
 *
 * Each call takes a sized option struct into a local copy that starts from the defaults, builds a new element whole,
 * and only then puts it in place, so a call that fails has changed nothing. What relates one setting to another is
 * left to validate.c.
 *
 * Invariants: (1) the configuration owns every string and descriptor in it. (2) arrays never exceed their limits.h
 * bound. (3) a custom backend's release is called exactly once, by vial_vm_config_free, and never after a failed call.
 *
 * Trust: callers are programs; the strings they pass on may be anybody's.
 */
#include "vmm/configure.h"

#include "base/fd.h"
#include "vmm/parse.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* ---- helpers ---- */

static int refuse_unknown_member(struct vial_error *err)
{
    int result = error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_CONFIGURE,
                           "an option struct sets a member that libvial %s does not know", vial_version());
    error_remedy(err, "run with a newer libvial, or leave that member at zero");
    return result;
}

/* Copies the caller's sized struct over our defaults. What the caller's header has beyond ours must be zero. Public
 * structs end without padding (their reserved bytes are named), so a multiple of 8 bytes ends between two members. */
int config_take_sized(void *ours, size_t our_size, const void *theirs, struct vial_error *err)
{
    size_t their_size = 0;
    if (theirs != NULL)
        memcpy(&their_size, theirs, sizeof(their_size));
    if (their_size <= sizeof(their_size) || their_size > LIMIT_OPTIONS_BYTES || their_size % sizeof(uint64_t) != 0) {
        int result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_CONFIGURE, "an option struct has the size %zu",
                               their_size);
        error_remedy(err, "initialise it with its _INIT macro, or set its size to its sizeof");
        return result;
    }
    const unsigned char *bytes = theirs;
    for (size_t i = our_size; i < their_size; i++)
        if (bytes[i] != 0)
            return refuse_unknown_member(err);
    memcpy(ours, theirs, their_size < our_size ? their_size : our_size);
    return 0;
}

/* A configuration that a machine has stays as it is. */
int config_check_free(const struct vial_vm_config *config, struct vial_error *err)
{
    if (atomic_load(&config->references) == 1)
        return 0;
    int result = error_set(err, VIAL_ERROR_CONFLICT, VIAL_PHASE_CONFIGURE,
                           "the configuration cannot be changed as long as a machine has it");
    error_remedy(err, "make a configuration of its own for the next machine");
    return result;
}

int config_check_reserved(const uint8_t *reserved, size_t size, struct vial_error *err)
{
    for (size_t i = 0; i < size; i++)
        if (reserved[i] != 0)
            return refuse_unknown_member(err);
    return 0;
}

/* A text that a call cannot do without. */
int config_check_text(const char *text, const char *field, struct vial_error *err)
{
    if (text != NULL)
        return 0;
    int result = error_set(err, VIAL_ERROR_MISSING, VIAL_PHASE_CONFIGURE, "it is NULL");
    error_field(err, "%s", field);
    error_remedy(err, "give a text");
    return result;
}

int config_no_memory(struct vial_error *err)
{
    return error_no_memory(err, VIAL_PHASE_CONFIGURE);
}

/* A copy in *slot, or NULL for NULL; false without memory. */
bool config_copy_text(char **slot, const char *text)
{
    *slot = text != NULL ? alloc_string(text) : NULL;
    return text == NULL || *slot != NULL;
}

int config_grow_failed(int result, const char *field, size_t max_count, struct vial_error *err)
{
    if (result == -ENOMEM)
        return config_no_memory(err);
    result = error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_CONFIGURE, "there are %zu already, the limit", max_count);
    error_field(err, "%s", field);
    error_remedy(err, "use fewer");
    return result;
}

int config_copy_fd(int *slot, int fd, const char *field, size_t index, const char *member, struct vial_error *err)
{
    *slot = -1;
    if (fd < 0)
        return 0;
    *slot = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (*slot >= 0)
        return 0;
    int failure = errno;
    int result = failure == EBADF
                     ? error_set(err, VIAL_ERROR_WRONG_KIND, VIAL_PHASE_CONFIGURE, "descriptor %d is not open", fd)
                     : error_set_os(err, VIAL_PHASE_CONFIGURE, failure, "cannot duplicate descriptor %d", fd);
    if (index == CONFIG_NO_INDEX)
        error_field(err, "%s.%s", field, member);
    else
        error_field(err, "%s[%zu].%s", field, index, member);
    error_value(err, "%d", fd);
    error_remedy(err, failure == EBADF ? "open it first and keep it open until it was added"
                                       : "raise the limit of open files (ulimit -n)");
    return result;
}

int config_refuse_text(int result, const char *field, size_t index, const char *what, const char *text, const char *why,
                       const char *remedy, struct vial_error *err)
{
    enum vial_error_code code = result == -ERANGE ? VIAL_ERROR_OUT_OF_RANGE : VIAL_ERROR_SYNTAX;
    error_set(err, code, VIAL_PHASE_CONFIGURE, "\"%s\" is not a %s: %s", error_short(text).text, what, why);
    error_field(err, "%s[%zu]", field, index);
    error_value(err, "%s", text);
    error_remedy(err, "%s", remedy);
    return result;
}

/* ---- life ---- */

void string_list_free(struct string_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    *list = (struct string_list){0};
}

static void kernel_free(struct kernel_config *kernel)
{
    free(kernel->path);
    free(kernel->initramfs);
    free(kernel->krunfw);
    free(kernel->init);
}

int vial_vm_config_new(struct vial_vm_config **ret_config, struct vial_error *err)
{
    static const struct vial_machine_options machine = VIAL_MACHINE_OPTIONS_INIT;
    auto_free struct vial_vm_config *config = alloc_zero(sizeof(*config));
    if (config == NULL)
        return config_no_memory(err);
    atomic_init(&config->references, 1);
    config->log_level = -1;
    config->has_implicit_console = true;
    config->agent_fd = -1;
    for (size_t i = 0; i < array_length(config->exec_streams); i++)
        config->exec_streams[i] = -1;
    int result = vial_vm_config_set_machine(config, &machine, err);
    if (result == 0)
        *ret_config = steal_ptr(config);
    return result;
}

struct vial_vm_config *config_share(struct vial_vm_config *config)
{
    atomic_fetch_add(&config->references, 1);
    return config;
}

struct vial_vm_config *vial_vm_config_free(struct vial_vm_config *config)
{
    if (config == NULL || atomic_fetch_sub(&config->references, 1) > 1)
        return NULL;
    kernel_free(&config->kernel);
    free(config->kernel.cmdline);
    free(config->kernel.arguments);
    config_free_storage(config);
    config_free_networks(config);
    for (size_t i = 0; i < config->console_port_count; i++) {
        struct console_port_config *port = &config->console_ports[i];
        if (port->has_ops && port->ops.release != NULL)
            port->ops.release(port->ops_user);
        fd_close(port->input_fd);
        fd_close(port->output_fd);
        fd_close(port->tty_fd);
        free(port->name);
    }
    free(config->console_output);
    free(config->console_ports);
    for (size_t i = 0; i < config->serial_count; i++) {
        fd_close(config->serials[i].input_fd);
        fd_close(config->serials[i].output_fd);
    }
    for (size_t i = 0; i < array_length(config->exec_streams); i++)
        fd_close(config->exec_streams[i]);
    fd_close(config->agent_fd);
    free(config->agent_hostname);
    free(config->exec_path);
    free(config->exec_workdir);
    string_list_free(&config->exec_args);
    string_list_free(&config->exec_env);
    free(config->rlimits);
    free(config->observers);
    free(config);
    return NULL;
}

/* ---- machine and kernel ---- */

int vial_vm_config_set_machine(struct vial_vm_config *config, const struct vial_machine_options *options,
                               struct vial_error *err)
{
    struct vial_machine_options ours = VIAL_MACHINE_OPTIONS_INIT;
    int result = TAKE_SIZED(config, ours, options, err);
    if (result < 0)
        return result;
    config->machine = (struct machine_config){
        .memory_mib = ours.memory_mib,
        .vcpus = ours.vcpus,
        .balloon_stats_interval_ms = ours.balloon_stats_interval_ms,
        .hyperthreading = ours.hyperthreading,
        .nested_virtualization = ours.nested_virtualization,
        .split_irqchip = ours.split_irqchip,
        .huge_pages = ours.huge_pages,
        .vsock = ours.vsock,
        .balloon = ours.balloon,
        .rng = ours.rng,
        .metrics = ours.metrics,
        .inet_hijack = ours.inet_hijack,
        .acpi = ours.acpi,
        .engine = ours.engine,
        .insecure_no_jail = ours.insecure_no_jail,
    };
    return 0;
}

int vial_vm_config_set_log_level(struct vial_vm_config *config, int level, struct vial_error *err)
{
    if (level < VIAL_LOG_OFF || level > VIAL_LOG_TRACE) {
        int result = error_set(err, VIAL_ERROR_OUT_OF_RANGE, VIAL_PHASE_CONFIGURE, "log level %d does not exist",
                               level);
        error_field(err, "log_level");
        error_value(err, "%d", level);
        error_remedy(err, "use a level from 0 (off) to 5 (trace)");
        return result;
    }
    int result = config_check_free(config, err);
    if (result == 0)
        config->log_level = level;
    return result;
}

int vial_vm_config_set_kernel(struct vial_vm_config *config, const struct vial_kernel_options *options,
                              struct vial_error *err)
{
    struct vial_kernel_options ours = VIAL_KERNEL_OPTIONS_INIT;
    int result = TAKE_SIZED(config, ours, options, err);
    if (result < 0)
        return result;
    struct kernel_config kernel = {.format = (enum vial_kernel_format)ours.format};
    if (!config_copy_text(&kernel.path, ours.path) || !config_copy_text(&kernel.initramfs, ours.initramfs) ||
        !config_copy_text(&kernel.krunfw, ours.krunfw) || !config_copy_text(&kernel.init, ours.init)) {
        kernel_free(&kernel);
        return config_no_memory(err);
    }
    kernel.cmdline = config->kernel.cmdline; /* appended to by a call of its own */
    kernel.arguments = config->kernel.arguments;
    kernel_free(&config->kernel);
    config->kernel = kernel;
    return 0;
}

int vial_vm_config_append_cmdline(struct vial_vm_config *config, const char *text, struct vial_error *err)
{
    auto_buffer struct buffer whole = BUFFER_INIT(LIMIT_CMDLINE_USER_BYTES);
    int given = config_check_text(text, "kernel.cmdline", err);
    if (given == 0)
        given = config_check_free(config, err);
    if (given < 0)
        return given;
    if (config->kernel.cmdline != NULL)
        buffer_format(&whole, "%s ", config->kernel.cmdline);
    buffer_add_text(&whole, text);
    if (whole.error == -ENOBUFS) {
        int result = error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_CONFIGURE,
                               "the command line is longer than the %d bytes that are left for it",
                               LIMIT_CMDLINE_USER_BYTES);
        error_field(err, "kernel.cmdline");
        error_value(err, "%s", text);
        error_remedy(err, "shorten it; the program's arguments and environment belong into exec, not here");
        return result;
    }
    char *cmdline = buffer_steal(&whole);
    if (cmdline == NULL)
        return config_no_memory(err);
    free(config->kernel.cmdline);
    config->kernel.cmdline = cmdline;
    return 0;
}

/* ---- console, GPU, sound ---- */

int vial_vm_config_set_console(struct vial_vm_config *config, const struct vial_console_options *options,
                               struct vial_error *err)
{
    struct vial_console_options ours = VIAL_CONSOLE_OPTIONS_INIT;
    int result = TAKE_SIZED(config, ours, options, err);
    if (result < 0)
        return result;
    char *output = NULL;
    if (!config_copy_text(&output, ours.output))
        return config_no_memory(err);
    free(config->console_output);
    config->console_output = output;
    config->has_implicit_console = ours.implicit;
    return 0;
}

int vial_vm_config_add_console_port(struct vial_vm_config *config, const struct vial_console_port_options *options,
                                    struct vial_error *err)
{
    struct vial_console_port_options ours = VIAL_CONSOLE_PORT_OPTIONS_INIT;
    int result = TAKE_SIZED(config, ours, options, err);
    if (result == 0)
        result = GROW(config, console_ports, console_port_count, console_port_capacity, LIMIT_DEVICES, "console.ports",
                      err);
    if (result < 0)
        return result;
    struct console_port_config port = {
        .kind = (enum vial_console_port_kind)ours.kind,
        .has_ops = ours.ops != NULL,
        .ops_user = ours.ops_user,
    };
    size_t index = config->console_port_count;
    auto_close int input_fd = -1;
    auto_close int output_fd = -1;
    auto_close int tty_fd = -1;
    if (ours.ops != NULL)
        result = config_take_sized(&port.ops, sizeof(port.ops), ours.ops, err);
    if (result == 0)
        result = config_copy_fd(&input_fd, ours.input_fd, "console.ports", index, "input_fd", err);
    if (result == 0)
        result = config_copy_fd(&output_fd, ours.output_fd, "console.ports", index, "output_fd", err);
    if (result == 0)
        result = config_copy_fd(&tty_fd, ours.tty_fd, "console.ports", index, "tty_fd", err);
    if (result == 0 && !config_copy_text(&port.name, ours.name))
        result = config_no_memory(err);
    if (result < 0)
        return result;
    port.input_fd = steal_fd(&input_fd);
    port.output_fd = steal_fd(&output_fd);
    port.tty_fd = steal_fd(&tty_fd);
    config->console_ports[config->console_port_count++] = port;
    return 0;
}

int vial_vm_config_add_serial(struct vial_vm_config *config, const struct vial_serial_options *options,
                              struct vial_error *err)
{
    struct vial_serial_options ours = VIAL_SERIAL_OPTIONS_INIT;
    int result = TAKE_SIZED(config, ours, options, err);
    if (result < 0)
        return result;
    if (config->serial_count == LIMIT_SERIALS)
        return config_grow_failed(-E2BIG, "console.serial", LIMIT_SERIALS, err);
    auto_close int input_fd = -1;
    auto_close int output_fd = -1;
    result = config_copy_fd(&input_fd, ours.input_fd, "console.serial", config->serial_count, "input_fd", err);
    if (result == 0)
        result = config_copy_fd(&output_fd, ours.output_fd, "console.serial", config->serial_count, "output_fd", err);
    if (result < 0)
        return result;
    config->serials[config->serial_count++] = (struct serial_config){.input_fd = steal_fd(&input_fd),
                                                                     .output_fd = steal_fd(&output_fd)};
    return 0;
}

int vial_vm_config_set_gpu(struct vial_vm_config *config, const struct vial_gpu_options *options,
                           struct vial_error *err)
{
    struct vial_gpu_options ours = VIAL_GPU_OPTIONS_INIT;
    int result = TAKE_SIZED(config, ours, options, err);
    if (result < 0)
        return result;
    config->has_gpu = true;
    config->gpu_virgl_flags = ours.virgl_flags;
    config->gpu_shared_memory_mib = ours.shared_memory_mib;
    return 0;
}

int vial_vm_config_set_sound(struct vial_vm_config *config, bool wants_sound, struct vial_error *err)
{
    int result = config_check_free(config, err);
    if (result == 0)
        config->has_sound = wants_sound;
    return result;
}

/* ---- exec ---- */

int string_list_copy(struct string_list *list, const char *const *strings, const char *field, size_t *total_bytes,
                     struct vial_error *err)
{
    for (size_t i = 0; strings != NULL && strings[i] != NULL; i++) {
        int result = GROW(list, items, count, capacity, LIMIT_STRINGS, field, err);
        if (result < 0)
            return result;
        *total_bytes += strlen(strings[i]) + 1; /* cannot overflow: the strings are in memory */
        if (*total_bytes > LIMIT_EXEC_BYTES) {
            result = error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_CONFIGURE,
                               "arguments and environment take more than %u KiB", LIMIT_EXEC_BYTES >> 10);
            error_field(err, "%s[%zu]", field, i);
            error_remedy(err, "put long data into a file or standard input");
            return result;
        }
        if (!config_copy_text(&list->items[list->count], strings[i]))
            return config_no_memory(err);
        list->count++;
    }
    return 0;
}

/* Duplicates of the three descriptors, all -1 where none are given. On failure there are none. */
static int copy_streams(const struct vial_exec_options *options, int streams[3], struct vial_error *err)
{
    static const char *const members[] = {"stdin_fd", "stdout_fd", "stderr_fd"};
    const int given[] = {options->stdin_fd, options->stdout_fd, options->stderr_fd};
    int result = 0;
    for (size_t i = 0; i < array_length(given); i++)
        streams[i] = -1;
    for (size_t i = 0; i < array_length(given) && options->has_streams && result == 0; i++)
        result = config_copy_fd(&streams[i], given[i], "exec", CONFIG_NO_INDEX, members[i], err);
    for (size_t i = 0; i < array_length(given) && result < 0; i++)
        streams[i] = fd_close(streams[i]);
    return result;
}

int vial_vm_config_set_exec(struct vial_vm_config *config, const struct vial_exec_options *options,
                            struct vial_error *err)
{
    struct vial_exec_options ours = VIAL_EXEC_OPTIONS_INIT;
    int streams[3], result = TAKE_SIZED(config, ours, options, err);
    if (result == 0)
        result = config_check_reserved(ours.reserved_end, sizeof(ours.reserved_end), err);
    if (result < 0)
        return result;
    struct string_list args = {0}, env = {0};
    size_t total_bytes = 0;
    auto_free char *path = NULL, *workdir = NULL;
    result = string_list_copy(&args, ours.args, "exec.args", &total_bytes, err);
    if (result == 0)
        result = string_list_copy(&env, ours.env, "exec.env", &total_bytes, err);
    if (result == 0 && (!config_copy_text(&path, ours.path) || !config_copy_text(&workdir, ours.workdir)))
        result = config_no_memory(err);
    if (result == 0)
        result = copy_streams(&ours, streams, err);
    if (result < 0) {
        string_list_free(&args);
        string_list_free(&env);
        return result;
    }
    free(config->exec_path);
    free(config->exec_workdir);
    string_list_free(&config->exec_args);
    string_list_free(&config->exec_env);
    config->exec_path = steal_ptr(path);
    config->exec_workdir = steal_ptr(workdir);
    config->exec_args = args;
    config->exec_env = env;
    config->exec_uid = ours.uid;
    config->exec_gid = ours.gid;
    config->has_exec_uid = ours.has_uid;
    config->has_exec_gid = ours.has_gid;
    config->has_exec_streams = ours.has_streams;
    config->exec_from_guest = ours.from_guest;
    for (size_t i = 0; i < array_length(streams); i++) {
        fd_close(config->exec_streams[i]);
        config->exec_streams[i] = streams[i];
    }
    return 0;
}

int vial_vm_config_set_agent(struct vial_vm_config *config, const struct vial_agent_options *options,
                             struct vial_error *err)
{
    struct vial_agent_options ours = VIAL_AGENT_OPTIONS_INIT;
    int result = TAKE_SIZED(config, ours, options, err);
    auto_close int fd = -1;
    auto_free char *hostname = NULL;
    if (result == 0 && ours.fd < 0) {
        result = error_set(err, VIAL_ERROR_MISSING, VIAL_PHASE_CONFIGURE, "the agent has no descriptor");
        error_field(err, "agent.fd");
        error_remedy(err, "give one end of a socketpair(2)");
    }
    if (result == 0)
        result = config_copy_fd(&fd, ours.fd, "agent", CONFIG_NO_INDEX, "fd", err);
    if (result == 0 && !config_copy_text(&hostname, ours.hostname))
        result = config_no_memory(err);
    if (result < 0)
        return result;
    fd_close(config->agent_fd);
    free(config->agent_hostname);
    config->agent_fd = steal_fd(&fd);
    config->agent_hostname = steal_ptr(hostname);
    return 0;
}

int vial_vm_config_add_rlimit(struct vial_vm_config *config, const char *text, struct vial_error *err)
{
    struct rlimit_config limit;
    const char *why = NULL;
    int result = config_check_text(text, "exec.rlimits", err);
    if (result < 0)
        return result;
    result = parse_rlimit(text, &limit, &why);
    if (result < 0)
        return config_refuse_text(result, "exec.rlimits", config->rlimit_count, "resource limit", text, why,
                                  "write NAME=SOFT:HARD, such as NOFILE=1024:4096 or 7=1024:unlimited", err);
    result = config_check_free(config, err);
    if (result == 0)
        result = GROW(config, rlimits, rlimit_count, rlimit_capacity, LIMIT_STRINGS, "exec.rlimits", err);
    if (result < 0)
        return result;
    config->rlimits[config->rlimit_count++] = limit;
    return 0;
}

int vial_vm_config_add_exit_observer(struct vial_vm_config *config, vial_exit_observer observer, void *user,
                                     struct vial_error *err)
{
    if (observer == NULL) {
        int result = error_set(err, VIAL_ERROR_MISSING, VIAL_PHASE_CONFIGURE, "an exit observer is NULL");
        error_remedy(err, "give a function");
        return result;
    }
    int result = config_check_free(config, err);
    if (result == 0)
        result = GROW(config, observers, observer_count, observer_capacity, LIMIT_OBSERVERS, "exit_observers", err);
    if (result < 0)
        return result;
    config->observers[config->observer_count++] = (struct observer_config){.function = observer, .user = user};
    return 0;
}
