// SPDX-License-Identifier: Apache-2.0
/* From a context of libkrun.h to a configuration: the machine, its kernel, its networks.
 *
 *     engine     $VIAL_ENGINE, else what suits the host
 *       kvm      the kernel that is given, else libkrunfw's, else the project's own
 *       uml      the kernel that is given, else the project's own; without what user-mode Linux has not: DAX windows,
 *                nested virtualization, TSI. A guest does without the first two; that it has no network is logged
 *     network    interfaces, or TSI through vsock where the kernel may have it: libkrunfw's, or one that was given
 *
 * libkrun means by a port map that is not there that every listener of the guest is published, and by an empty one that
 * none is.
 *
 * Invariants: (1) what libkrun promises and this machine cannot have is an error, or it is logged.
 *
 * Trust: the context is the embedding program's; the environment is believed only where the program is no more than its
 * user (secure_getenv). vial_vm_config_validate checks the whole when the machine is started.
 */
#include "krun/translate.h"

#include "base/error.h"
#include "base/log.h"
#include "host/engine.h"
#include "libkrun.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- the engine ---- */

static int choose_engine(bool *ret_is_uml, struct vial_error *err)
{
    struct host_engine_choice choice;
    const char *wish = secure_getenv("VIAL_ENGINE");
    bool is_given = wish != NULL && wish[0] != '\0' && strcmp(wish, "auto") != 0;
    if (is_given && strcmp(wish, "kvm") != 0 && strcmp(wish, "uml") != 0) {
        int result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_CONFIGURE, "VIAL_ENGINE names no engine: %s",
                               error_short(wish).text);
        error_remedy(err, "set it to kvm, uml or auto");
        return result;
    }
    if (is_given) {
        *ret_is_uml = strcmp(wish, "uml") == 0;
        return 0;
    }
    host_engine_choose("", &choice);
    *ret_is_uml = choice.engine == HOST_ENGINE_UML;
    log_info("krun.engine", LOG_TEXT("engine", host_engine_names[choice.engine]), LOG_TEXT("reason", choice.reason));
    return 0;
}

static int set_machine(const struct krun_context *context, bool is_uml, bool has_tsi, struct vial_vm_config *config,
                       struct vial_error *err)
{
    struct vial_machine_options machine = VIAL_MACHINE_OPTIONS_INIT;
    bool has_nets = krun_first_net(context) != NULL;
    machine.vcpus = context->vcpus;
    machine.memory_mib = context->memory_mib;
    machine.nested_virtualization = context->nested && !is_uml;
    machine.split_irqchip = context->split_irqchip;
    machine.engine = is_uml ? VIAL_ENGINE_UML : VIAL_ENGINE_KVM;
    machine.vsock = context->vsock == KRUN_VSOCK_EXPLICIT || (context->vsock == KRUN_VSOCK_IMPLICIT && !has_nets);
    machine.inet_hijack = has_tsi;
    return vial_vm_config_set_machine(config, &machine, err);
}

/* ---- the kernel ---- */

/* The path where the kernel was found, or its descriptor's: where that path leads elsewhere by now, or may lead nowhere
 * for the user that the process will be when the kernel is loaded. */
struct kernel_path {
    char text[sizeof(struct host_path)];
};

static bool is_still_there(const struct krun_context *context, const struct krun_kernel *kernel)
{
    struct stat held, there;
    bool stays_itself = !context->has_uid && !context->has_gid;
    return stays_itself && fstat(kernel->fd, &held) == 0 && stat(kernel->path.text, &there) == 0 &&
           held.st_dev == there.st_dev && held.st_ino == there.st_ino;
}

static int set_kernel(const struct krun_context *context, bool is_uml, struct vial_vm_config *config,
                      struct vial_error *err)
{
    struct vial_kernel_options kernel = VIAL_KERNEL_OPTIONS_INIT;
    const struct krun_kernel *own = &context->own[is_uml ? HOST_ENGINE_UML : HOST_ENGINE_KVM];
    struct kernel_path path;
    kernel.initramfs = context->initramfs;
    if (context->kernel_path != NULL) {
        kernel.path = context->kernel_path;
        kernel.format = (int32_t)context->kernel_format;
    } else if (context->krunfw_path != NULL && !is_uml) {
        kernel.krunfw = context->krunfw_path;
    } else if (own->fd >= 0) {
        if (is_still_there(context, own))
            snprintf(path.text, sizeof(path.text), "%s", own->path.text);
        else
            snprintf(path.text, sizeof(path.text), "/proc/self/fd/%d", own->fd);
        kernel.path = path.text;
    }
    int result = vial_vm_config_set_kernel(config, &kernel, err);
    if (result == 0 && context->cmdline != NULL && context->cmdline[0] != '\0')
        result = vial_vm_config_append_cmdline(config, context->cmdline, err);
    if (result == 0 && context->kernel_console != NULL) {
        char word[LIMIT_INIT_BYTES];
        int length = snprintf(word, sizeof(word), "console=%s", context->kernel_console);
        if ((size_t)length >= sizeof(word))
            return error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_CONFIGURE, "the console's name is too long");
        result = vial_vm_config_append_cmdline(config, word, err);
    }
    return result;
}

/* ---- networks ---- */

static int add_net(const struct krun_net *net, const uint8_t *mac, bool asks_init, struct vial_vm_config *config,
                   struct vial_error *err)
{
    struct vial_net_options options = VIAL_NET_OPTIONS_INIT;
    options.kind = (int32_t)net->kind;
    options.path = net->path;
    options.fd = net->fd;
    options.features = net->features;
    options.has_mac = true;
    memcpy(options.mac, mac, sizeof(options.mac));
    options.vfkit = net->vfkit;
    options.dhcp = net->dhcp && asks_init;
    return vial_vm_config_add_net(config, &options, err);
}

static int add_nets(const struct krun_context *context, struct vial_vm_config *config, struct vial_error *err)
{
    bool asks_init = !krun_has_own_init(context);
    int result = 0;
    for (size_t i = 0; i < context->net_count && result == 0; i++)
        result = add_net(&context->nets[i], context->nets[i].mac, asks_init, config, err);
    if (result == 0 && context->legacy_net.kind != 0)
        result = add_net(&context->legacy_net, context->legacy_mac, asks_init, config, err);
    return result;
}

static int add_vsock_ports(const struct krun_context *context, struct vial_vm_config *config, struct vial_error *err)
{
    int result = 0;
    for (size_t i = 0; i < context->vsock_port_count && result == 0; i++) {
        struct vial_vsock_port_options port = VIAL_VSOCK_PORT_OPTIONS_INIT;
        port.path = context->vsock_ports[i].path;
        port.port = context->vsock_ports[i].port;
        port.listen = context->vsock_ports[i].listen;
        if (context->vsock != KRUN_VSOCK_DISABLED)
            result = vial_vm_config_add_vsock_port(config, &port, err);
    }
    return result;
}

struct hijack {
    bool has_inet, has_unix;
};

/* What TSI the guest gets. A kernel that has none takes no notice of it, and programs in it have no network. */
static struct hijack find_hijack(const struct krun_context *context, bool is_uml)
{
    struct hijack hijack = {
        .has_inet = context->vsock == KRUN_VSOCK_IMPLICIT ||
                    (context->vsock == KRUN_VSOCK_EXPLICIT && (context->tsi_features & KRUN_TSI_HIJACK_INET) != 0),
        .has_unix = context->vsock == KRUN_VSOCK_EXPLICIT && (context->tsi_features & KRUN_TSI_HIJACK_UNIX) != 0,
    };
    bool may_have_tsi = !is_uml && (context->krunfw_path != NULL || context->kernel_path != NULL);
    if (krun_first_net(context) != NULL)
        hijack.has_inet = false;
    if ((hijack.has_inet || hijack.has_unix) && !may_have_tsi) {
        log_warn("krun.no_tsi", LOG_TEXT("engine", is_uml ? "uml" : "kvm"),
                 LOG_TEXT("remedy", "add a network interface, or let the loader find a libkrunfw.so.5 on a host "
                                    "with KVM"));
        hijack = (struct hijack){false, false};
    }
    return hijack;
}

static int set_tsi(const struct krun_context *context, struct hijack hijack, struct vial_vm_config *config,
                   struct vial_error *err)
{
    struct vial_tsi_options tsi = VIAL_TSI_OPTIONS_INIT;
    int result = 0;
    if (!hijack.has_inet && !hijack.has_unix)
        return 0;
    tsi.hijack_unix = hijack.has_unix;
    if (hijack.has_inet) {
        tsi.assigned_ip = context->rewrite_ip;
        tsi.local_only = context->local_only;
        tsi.publish_all = !context->has_port_map;
    }
    for (size_t i = 0; i < context->port_count && hijack.has_inet && result == 0; i++)
        result = vial_vm_config_add_port(config, context->ports[i].host, context->ports[i].guest, err);
    return result == 0 ? vial_vm_config_set_tsi(config, &tsi, err) : result;
}

/* ---- the whole ---- */

int krun_translate(struct krun_context *context, struct vial_error *err)
{
    struct vial_vm_config *config = context->config;
    bool is_uml = false;
    int result = choose_engine(&is_uml, err);
    if (result < 0)
        return result;
    struct hijack hijack = find_hijack(context, is_uml);
    result = set_machine(context, is_uml, hijack.has_inet, config, err);
    if (result == 0)
        result = set_kernel(context, is_uml, config, err);
    if (result == 0)
        result = krun_translate_storage(context, is_uml, config, err);
    if (result == 0)
        result = add_nets(context, config, err);
    if (result == 0)
        result = add_vsock_ports(context, config, err);
    if (result == 0)
        result = set_tsi(context, hijack, config, err);
    return result == 0 ? krun_translate_program(context, config, err) : result;
}
