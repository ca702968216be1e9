// SPDX-License-Identifier: Apache-2.0
/* A network's cable is pulled out and plugged in while a guest looks at its carriers; on any engine.
 *
 *     link-changes ENGINE INITRAMFS
 *
 *     guest                               this process
 *     ─────                               ────────────
 *     has two networks                    says a line, reads the carriers of both
 *     answers each line with both         pulls one, asks until the guest has seen it; that the other keeps its own
 *                                         plugs it in again, asks again
 *     ends at the line "end"              then there is no machine whose link could be changed
 */
#include "tool.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { memory_mib = 128, patience_ms = 60000, look_ms = 20, network_count = 2 };

static const char guest[] = "for name in /sys/class/virtio-ports/*/name; do\n"
                            "  [ \"$(cat $name)\" != links ] || { port=${name%/name}; port=/dev/${port##*/}; }\n"
                            "done\n"
                            "exec 3<>$port\n"
                            "while read -r line <&3 && [ \"$line\" != end ]; do\n"
                            "  echo $(cat /sys/class/net/eth0/carrier) $(cat /sys/class/net/eth1/carrier) >&3\n"
                            "done\n";

static const char *ask_carriers(int port)
{
    static char answer[64];
    size_t length = 0;
    struct pollfd poller = {.fd = port, .events = POLLIN};
    if (write(port, "\n", 1) != 1)
        return "nobody reads";
    while (length < sizeof(answer) - 1 && poll(&poller, 1, patience_ms) > 0) {
        ssize_t got = read(port, answer + length, 1);
        if (got != 1 || answer[length] == '\n')
            break;
        length++;
    }
    answer[length] = '\0';
    return answer;
}

static bool becomes(int port, const char *wanted)
{
    const char *carriers = "";
    for (int waited = 0; waited < patience_ms; waited += look_ms) {
        carriers = ask_carriers(port);
        if (strcmp(carriers, wanted) == 0)
            return true;
        poll(NULL, 0, look_ms);
    }
    printf("the guest sees %s, and not %s\n", carriers, wanted);
    return false;
}

static void add_port(struct vial_vm_config *config, int fd)
{
    struct vial_console_port_options options = VIAL_CONSOLE_PORT_OPTIONS_INIT;
    struct vial_error err = {0};
    options.name = "links";
    options.kind = VIAL_CONSOLE_PORT_INOUT;
    options.input_fd = options.output_fd = fd;
    tool_check(vial_vm_config_add_console_port(config, &options, &err), &err);
}

/* Whose other end is there, and reads nothing. */
static void add_network(struct vial_vm_config *config, const char *address, int fd)
{
    struct vial_net_options options = VIAL_NET_OPTIONS_INIT;
    struct vial_error err = {0};
    const char *const addresses[] = {address, NULL};
    options.kind = VIAL_NET_UNIXGRAM;
    options.fd = fd;
    options.addresses = addresses;
    tool_check(vial_vm_config_add_net(config, &options, &err), &err);
}

static bool set_link(struct vial_vm *vm, size_t index, bool is_up, int wanted)
{
    struct vial_error err = {0};
    int result = vial_vm_set_link(vm, index, is_up, &err);
    if (result != wanted)
        printf("the link %zu: %d %s\n", index, result, err.message);
    return result == wanted && (result == 0) == (err.message[0] == '\0');
}

static bool change_links(struct vial_vm *vm, int port)
{
    return becomes(port, "1 1") && set_link(vm, 1, true, 0) && becomes(port, "1 1") && set_link(vm, 0, false, 0) &&
           becomes(port, "0 1") && set_link(vm, 1, false, 0) && becomes(port, "0 0") && set_link(vm, 0, true, 0) &&
           becomes(port, "1 0") && set_link(vm, network_count, false, -ENODEV) &&
           set_link(vm, SIZE_MAX, false, -ENODEV) && becomes(port, "1 0") && set_link(vm, 1, true, 0) &&
           becomes(port, "1 1");
}

int main(int argc, char *argv[])
{
    static const char *const command[] = {"sh", "-c", guest, NULL};
    static const char *const addresses[network_count] = {"10.9.0.2/24", "10.9.1.2/24"};
    struct vial_exit end = VIAL_EXIT_INIT;
    struct vial_error err = {0};
    int port[2], cables[network_count][2];
    if (argc != 3 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, port) < 0)
        return 125;
    struct vial_vm_config *config = tool_configure(argv[1], argv[2], memory_mib, command);
    add_port(config, port[1]);
    for (int i = 0; i < network_count; i++) {
        if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, cables[i]) < 0)
            return 125;
        add_network(config, addresses[i], cables[i][1]);
    }
    struct vial_vm *vm = tool_start(config);
    bool is_good = change_links(vm, port[0]);
    if (is_good && write(port[0], "end\n", 4) == 4)
        tool_check(vial_vm_wait(vm, patience_ms, &end, &err), &err);
    is_good = is_good && end.reason == VIAL_EXIT_COMPLETED && set_link(vm, 0, false, -ESRCH);
    vial_vm_free(vm);
    vial_vm_config_free(config);
    return !is_good;
}
