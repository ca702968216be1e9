// SPDX-License-Identifier: Apache-2.0
/* Checking a configuration as a whole, before anything is touched: the machine, its kernel, what runs in it, and then
 * everything else by the files that know it.
 *
 * One function a section, in the order of the JSON file; the first problem ends the check. The host is only asked:
 * stat, access, fstat, the first bytes of a kernel image, KVM's limit of vCPUs.
 *
 * Invariants: (1) a refusal names the field as in the JSON file, the value, and a remedy. (2) neither the configuration
 * nor anything on the host is changed.
 *
 * Trust: every value may come from a hostile or careless caller.
 */
#include "vmm/check.h"

#include "base/fd.h"
#include "boot/format.h"
#include "host/capacity.h"
#include "vmm/parse.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* ---- machine ---- */

static int check_machine(const struct machine_config *machine, const struct host_capacity *host, struct vial_error *err)
{
    char text[24], remedy[96];
    if (machine->vcpus == 0)
        return refuse_number(err, VIAL_ERROR_OUT_OF_RANGE, "machine.vcpus", 0, "give at least 1",
                             "a machine needs at least one vCPU");
    snprintf(text, sizeof(text), "%u", machine->vcpus);
    snprintf(remedy, sizeof(remedy), "give at most %u", host->max_vcpus);
    if (machine->vcpus > host->max_vcpus)
        return refuse(err, VIAL_ERROR_OUT_OF_RANGE, "machine.vcpus", text, remedy,
                      "%s vCPUs are more than the %u that a machine can have on this host", text, host->max_vcpus);
    if (machine->hyperthreading && machine->vcpus % 2 != 0)
        return refuse(err, VIAL_ERROR_CONFLICT, "machine.hyperthreading", "true", "give an even number of vCPUs",
                      "%s vCPUs cannot be shown as pairs of threads", text);
    if (machine->memory_mib == 0)
        return refuse_number(err, VIAL_ERROR_OUT_OF_RANGE, "machine.memory_mib", 0,
                             "give at least 64; 512 is the default", "a machine needs memory");
    snprintf(text, sizeof(text), "%" PRIu64, machine->memory_mib);
    if (machine->memory_mib < LIMIT_MEMORY_MIN_MIB)
        return refuse(err, VIAL_ERROR_OUT_OF_RANGE, "machine.memory_mib", text, "give at least 64; 512 is the default",
                      "%s MiB are less than the %u MiB that a kernel boots in", text, LIMIT_MEMORY_MIN_MIB);
    uint64_t most = host->memory_mib < LIMIT_MEMORY_MAX_MIB ? host->memory_mib : LIMIT_MEMORY_MAX_MIB;
    snprintf(remedy, sizeof(remedy), "give at most %" PRIu64, most);
    if (machine->memory_mib > most)
        return refuse(err, VIAL_ERROR_OUT_OF_RANGE, "machine.memory_mib", text, remedy,
                      "%s MiB are more than the %" PRIu64 " MiB that this host can give", text, most);
    if (machine->acpi > VIAL_ACPI_OFF)
        return refuse_number(err, VIAL_ERROR_INVALID, "machine.acpi", machine->acpi, "use a value of enum vial_acpi",
                             "it does not say whether there is ACPI");
    if (machine->engine > VIAL_ENGINE_UML)
        return refuse_number(err, VIAL_ERROR_INVALID, "machine.engine", machine->engine,
                             "use a value of enum vial_engine", "it is not an engine");
    return 0;
}

/* ---- kernel ---- */

/* Words that would swallow what the machine itself appends behind them: device announcements, the root, init. */
static int check_cmdline(const char *cmdline, struct vial_error *err)
{
    static const char field[] = "kernel.cmdline";
    int result = check_cmdline_text(cmdline, field, err);
    if (result < 0)
        return result;
    size_t quotes = 0;
    for (const char *next = cmdline; *next != '\0'; next++)
        quotes += *next == '"';
    if (quotes % 2 != 0)
        return refuse(err, VIAL_ERROR_INVALID, field, cmdline, "close the quotation",
                      "a double quote without its partner would swallow the rest of the command line");
    bool is_quoted = false; /* inside quotes, two dashes are a part of their word */
    for (const char *next = cmdline; *next != '\0'; next++) {
        bool is_word_start = !is_quoted && (next == cmdline || next[-1] == ' ');
        if (is_word_start && strcspn(next, " ") == 2 && memcmp(next, "--", 2) == 0)
            return refuse(err, VIAL_ERROR_INVALID, field, cmdline,
                          "remove it; give the program's arguments in exec.args",
                          "the word -- would hand the rest of the command line to init");
        is_quoted ^= *next == '"';
    }
    return 0;
}

static int check_kernel_format(const struct kernel_config *kernel, struct vial_error *err)
{
    if (kernel->format < VIAL_KERNEL_AUTO || kernel->format > VIAL_KERNEL_BZIMAGE)
        return refuse_number(err, VIAL_ERROR_INVALID, "kernel.format", kernel->format,
                             "use a value of enum vial_kernel_format", "it is not a kernel format");
    if (kernel->format != VIAL_KERNEL_AUTO)
        return 0;
    auto_close int fd = open(kernel->path, O_RDONLY | O_CLOEXEC);
    enum vial_kernel_format format = VIAL_KERNEL_AUTO;
    const char *why = NULL;
    int result = fd < 0 ? -errno : kernel_format_detect(fd, &format, &why);
    if (result == -EINVAL && why != NULL)
        return refuse(
            err, VIAL_ERROR_INVALID, "kernel.format", kernel->path,
            "name the format (raw, elf, pe-gz, image-bz2, image-gz, image-zstd, bzimage), or give another image",
            "the format of %s cannot be told: %s", error_short(kernel->path).text, why);
    if (result < 0) {
        error_set_os(err, VIAL_PHASE_VALIDATE, result, "cannot read %s", error_short(kernel->path).text);
        error_field(err, "kernel.path");
        error_value(err, "%s", kernel->path);
        error_remedy(err, "check the file and its permissions");
    }
    return result;
}

static int check_named_file(const char *path, const char *field, const char *remedy, struct vial_error *err)
{
    int result = check_given(path, field, remedy, err);
    return result == 0 ? check_file(path, field, err) : result;
}

static int check_kernel(const struct kernel_config *kernel, struct vial_error *err)
{
    int result = 0;
    if (kernel->path != NULL && kernel->krunfw != NULL)
        return refuse(err, VIAL_ERROR_CONFLICT, "kernel.krunfw", kernel->krunfw,
                      "give one of kernel.path and kernel.krunfw",
                      "the kernel is given twice, as a file and inside a libkrunfw");
    if (kernel->path == NULL && kernel->format != VIAL_KERNEL_AUTO)
        return refuse(err, VIAL_ERROR_MISSING, "kernel.path", "", "give kernel.path, or leave kernel.format out",
                      "a kernel format is given, but no kernel");
    if (kernel->path != NULL) {
        result = check_named_file(kernel->path, "kernel.path", "give the path of a kernel image, or leave it out", err);
        if (result == 0)
            result = check_kernel_format(kernel, err);
    }
    if (result == 0 && kernel->krunfw != NULL)
        result = check_named_file(kernel->krunfw, "kernel.krunfw", "give the path of a libkrunfw, or leave it out",
                                  err);
    if (result == 0 && kernel->initramfs != NULL)
        result = check_named_file(kernel->initramfs, "kernel.initramfs", "give the path of a file, or leave it out",
                                  err);
    if (result == 0 && kernel->init != NULL) {
        result = check_cmdline_text(kernel->init, "kernel.init", err);
        if (result == 0 && strlen(kernel->init) > LIMIT_INIT_BYTES)
            result = refuse(err, VIAL_ERROR_TOO_BIG, "kernel.init", kernel->init, "use a shorter path",
                            "the path of init is longer than %d bytes", LIMIT_INIT_BYTES);
        if (result == 0 && (kernel->init[0] != '/' || strpbrk(kernel->init, " \"") != NULL))
            result = refuse(err, VIAL_ERROR_INVALID, "kernel.init", kernel->init,
                            "give an absolute path of the guest, such as /sbin/init",
                            "the path of init must be absolute and hold neither spaces nor quotes");
    }
    if (result == 0 && kernel->cmdline != NULL)
        result = check_cmdline(kernel->cmdline, err);
    return result;
}

/* ---- exec ---- */

static int check_ids(const struct vial_vm_config *config, struct vial_error *err)
{
    static const char remedy[] = "give a number up to 4294967294";
    if (config->has_exec_uid && config->exec_uid == UINT32_MAX)
        return refuse_number(err, VIAL_ERROR_OUT_OF_RANGE, "exec.uid", UINT32_MAX, remedy,
                             "4294967295 stands for no user");
    if (config->has_exec_gid && config->exec_gid == UINT32_MAX)
        return refuse_number(err, VIAL_ERROR_OUT_OF_RANGE, "exec.gid", UINT32_MAX, remedy,
                             "4294967295 stands for no group");
    return 0;
}

/* What execve of the guest's kernel takes. */
static int check_exec_sizes(const struct vial_vm_config *config, struct vial_error *err)
{
    static const char remedy[] = "put long data into a file or standard input";
    const struct string_list *lists[] = {&config->exec_args, &config->exec_env};
    static const char *const names[] = {"exec.args", "exec.env"};
    if (config->exec_path != NULL && strlen(config->exec_path) >= PATH_MAX)
        return refuse(err, VIAL_ERROR_TOO_BIG, "exec.path", config->exec_path, "use a shorter path",
                      "the path is longer than %d bytes", PATH_MAX - 1);
    if (config->exec_workdir != NULL && strlen(config->exec_workdir) >= PATH_MAX)
        return refuse(err, VIAL_ERROR_TOO_BIG, "exec.workdir", config->exec_workdir, "use a shorter path",
                      "the path is longer than %d bytes", PATH_MAX - 1);
    for (size_t list = 0; list < array_length(lists); list++)
        for (size_t i = 0; i < lists[list]->count; i++)
            if (strlen(lists[list]->items[i]) >= LIMIT_EXEC_STRING_BYTES)
                return refuse(err, VIAL_ERROR_TOO_BIG, place_of("%s[%zu]", names[list], i).text, lists[list]->items[i],
                              remedy, "one string is longer than the %d KiB that Linux takes",
                              LIMIT_EXEC_STRING_BYTES >> 10);
    return 0;
}

static int check_exec(const struct vial_vm_config *config, struct vial_error *err)
{
    if (config->exec_path != NULL && config->exec_path[0] == '\0')
        return refuse(err, VIAL_ERROR_MISSING, "exec.path", "", "give the path or the name of a program",
                      "it is empty");
    if (!config_has_program(config) && config->exec_args.count > 0)
        return refuse(err, VIAL_ERROR_MISSING, "exec.path", "",
                      "give the program in exec.path; exec.args begins behind it",
                      "there are arguments, but no program");
    for (size_t i = 0; i < config->exec_env.count; i++) {
        const char *entry = config->exec_env.items[i];
        const char *equals = strchr(entry, '=');
        if (equals == NULL || equals == entry)
            return refuse(err, VIAL_ERROR_SYNTAX, place_of("exec.env[%zu]", i).text, entry, "write KEY=VALUE",
                          "an entry of the environment has no %s", equals == NULL ? "=" : "name before its =");
    }
    if (config->exec_workdir != NULL) {
        auto_free char *normal = NULL;
        int result = check_guest_path(config->exec_workdir, "exec.workdir", &normal, err);
        if (result < 0)
            return result;
    }
    for (size_t i = 0; i < config->rlimit_count; i++)
        for (size_t j = 0; j < i; j++)
            if (config->rlimits[i].resource == config->rlimits[j].resource)
                return refuse(err, VIAL_ERROR_DUPLICATE, place_of("exec.rlimits[%zu]", i).text,
                              rlimit_name(config->rlimits[i].resource), "give each resource one limit",
                              "exec.rlimits[%zu] limits the same resource", j);
    int result = check_exec_sizes(config, err);
    return result == 0 ? check_ids(config, err) : result;
}

/* ---- agent ---- */

static int check_hostname(const char *name, struct vial_error *err)
{
    static const char field[] = "agent.hostname";
    int result = check_given(name, field, "leave it out, or give a name", err);
    if (result == 0 && strlen(name) > LIMIT_HOSTNAME_BYTES)
        result = refuse(err, VIAL_ERROR_TOO_BIG, field, name, "use a shorter one", "it is longer than %d characters",
                        LIMIT_HOSTNAME_BYTES);
    if (result == 0 && (!text_is_printable_ascii(name) || strpbrk(name, " /\"") != NULL))
        result = refuse(err, VIAL_ERROR_INVALID, field, name, "use letters, digits, dots and dashes",
                        "it is no name of a host");
    return result;
}

static int check_agent(const struct vial_vm_config *config, struct vial_error *err)
{
    struct sockaddr_storage peer;
    int type = 0;
    socklen_t length = sizeof(type), peer_length = sizeof(peer);
    if (config->agent_fd < 0)
        return 0;
    if (config_has_program(config))
        return refuse(err, VIAL_ERROR_CONFLICT, "agent", "", "give the program to the agent",
                      "the guest's init either runs a program or is an agent");
    if (getsockopt(config->agent_fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0 || type != SOCK_STREAM ||
        getpeername(config->agent_fd, (struct sockaddr *)&peer, &peer_length) < 0)
        return refuse(err, VIAL_ERROR_WRONG_KIND, "agent.fd", "", "give one end of a socketpair(2)",
                      "the descriptor is not a connected stream socket");
    return config->agent_hostname != NULL ? check_hostname(config->agent_hostname, err) : 0;
}

/* ---- the whole ---- */

static int check_device_count(const struct vial_vm_config *config, struct vial_error *err)
{
    const struct machine_config *machine = &config->machine;
    size_t count = config->fs_total + config->disk_count + config->net_count + machine->balloon + machine->rng +
                   machine->metrics + config_has_vsock(config) + (config_most_console_ports(config) > 0);
    if (count > LIMIT_DEVICES)
        return refuse_number(err, VIAL_ERROR_TOO_BIG, "machine", (int64_t)count,
                             "use fewer mounts, disks and networks (200 devices)",
                             "these are more devices than a machine has interrupts for");
    if (count > LIMIT_DEVICES_DEFAULT_IRQCHIP && !machine->split_irqchip)
        return refuse_number(err, VIAL_ERROR_CONFLICT, "machine.split_irqchip", (int64_t)count,
                             "set machine.split_irqchip, which has room for 200 devices",
                             "these are more devices than the 19 that the default interrupt controller serves");
    return 0;
}

int config_validate(const struct vial_vm_config *config, const struct host_capacity *host, struct vial_error *err)
{
    int result = check_machine(&config->machine, host, err);
    if (result == 0)
        result = check_kernel(&config->kernel, err);
    if (result == 0)
        result = check_file_systems(config, err);
    if (result == 0)
        result = check_disks(config, err);
    if (result == 0)
        result = check_mounts(config, err);
    if (result == 0)
        result = check_networks(config, err);
    if (result == 0)
        result = check_vsock_ports(config, err);
    if (result == 0)
        result = check_console(config, err);
    if (result == 0)
        result = check_exec(config, err);
    if (result == 0)
        result = check_agent(config, err);
    return result == 0 ? check_device_count(config, err) : result;
}

int vial_vm_config_validate(const struct vial_vm_config *config, struct vial_error *err)
{
    struct host_capacity host;
    host_capacity_read("", &host);
    return config_validate(config, &host, err);
}
