// SPDX-License-Identifier: Apache-2.0
/* boxlite FOLDER UID GID PROGRAM [ARG…]: the calls of BoxLite's KrunContext, in its order.
 *
 *     FOLDER/disk.qcow2    the container's disk, /dev/vda
 *     FOLDER/root.raw      the guest's root, /dev/vdb, read-only
 *     FOLDER/ro, rw        folders that the guest mounts by these names
 *     FOLDER/agent.sock    port 2695, where the host calls; ready.sock: port 2696, where the guest calls
 *     FOLDER/console.log   what the guest prints
 *
 * BoxLite has no network interface here: then it takes TSI away, too. An UID of 0 is left as it is.
 *
 * Trust: it is run by tests/krun_suite.py only.
 */
#include "client.h"

enum { port_of_agent = 2695, port_of_ready = 2696 };

static const char *folder;

/* A file of the folder; one at a time. */
static const char *in_folder(const char *name)
{
    static char path[4096];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static void set_storage(uint32_t context)
{
    MUST(krun_add_virtiofs3, context, "ro", in_folder("ro"), 0, true);
    MUST(krun_add_virtiofs3, context, "rw", in_folder("rw"), 0, false);
    MUST(krun_add_disk2, context, "vda", in_folder("disk.qcow2"), KRUN_DISK_FORMAT_QCOW2, false);
    MUST(krun_add_disk2, context, "vdb", in_folder("root.raw"), KRUN_DISK_FORMAT_RAW, true);
    MUST(krun_set_root_disk_remount, context, "/dev/vdb", "ext4", NULL);
}

static void set_channels(uint32_t context)
{
    MUST(krun_disable_implicit_vsock, context);
    MUST(krun_add_vsock, context, 0);
    MUST(krun_add_vsock_port2, context, port_of_agent, in_folder("agent.sock"), true);
    MUST(krun_add_vsock_port2, context, port_of_ready, in_folder("ready.sock"), false);
}

static void set_program(uint32_t context, char **words)
{
    static const char *const env[] = {"BOX=two words", "PATH=/bin", "EMPTY=", NULL};
    static const char *const limits[] = {"6=4096:8192", "7=1048576:1048576", NULL};
    MUST(krun_set_rlimits, context, limits);
    MUST(krun_set_workdir, context, "/srv");
    MUST(krun_set_exec, context, words[0], (const char *const *)(words + 1), env);
    MUST(krun_set_console_output, context, in_folder("console.log"));
}

int main(int count, char **words)
{
    if (count < 5)
        return code_usage;
    folder = words[1];
    MUST(krun_init_log, KRUN_LOG_TARGET_DEFAULT, KRUN_LOG_LEVEL_ERROR, KRUN_LOG_STYLE_AUTO, 0);
    uint32_t context = (uint32_t)MUST(krun_create_ctx);
    MUST(krun_set_vm_config, context, 1, 256);
    MUST(krun_split_irqchip, context, true);
    MUST(krun_set_nested_virt, context, false);
    set_storage(context);
    set_channels(context);
    set_program(context, words + 4);
    if (number(words[2]) != 0) {
        MUST(krun_setgid, context, (gid_t)number(words[3]));
        MUST(krun_setuid, context, (uid_t)number(words[2]));
    }
    return not_started(krun_start_enter(context));
}
