// SPDX-License-Identifier: Apache-2.0
/* A guest with an agent, for tests/e2e/agent: the host's root, thrown away, and a client of the agent at a Unix socket.
 *
 *     agent-run SOCKET CONSOLE [HOSTNAME]
 *
 * The socket is made, and who connects first gets the agent's stream itself: the machine begins then. Prints how the
 * machine ended; the status is 0 when it was completed. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <vial/vmm.h>

static int fail(const struct vial_error *err)
{
    fprintf(stderr, "agent-run: %s: %s\n", err->field, err->message);
    return 125;
}

/* The first client, or -1. */
static int accept_one(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 1) < 0)
        return -1;
    int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    close(fd);
    return client;
}

int main(int count, char **args)
{
    struct vial_machine_options machine = VIAL_MACHINE_OPTIONS_INIT;
    struct vial_root_host_options root = VIAL_ROOT_HOST_OPTIONS_INIT;
    struct vial_console_options console = VIAL_CONSOLE_OPTIONS_INIT;
    struct vial_agent_options agent = VIAL_AGENT_OPTIONS_INIT;
    struct vial_exit end = VIAL_EXIT_INIT;
    struct vial_vm_config *config = NULL;
    struct vial_vm *vm = NULL;
    struct vial_error err;
    if (count < 3) {
        fprintf(stderr, "usage: agent-run SOCKET CONSOLE [HOSTNAME]\n");
        return 125;
    }
    machine.vcpus = 1;
    machine.memory_mib = 512;
    console.output = args[2];
    agent.hostname = args[3];
    agent.fd = accept_one(args[1]);
    if (vial_vm_config_new(&config, &err) < 0 || vial_vm_config_set_machine(config, &machine, &err) < 0 ||
        vial_vm_config_set_root_host(config, &root, &err) < 0 ||
        vial_vm_config_set_console(config, &console, &err) < 0 || vial_vm_config_set_agent(config, &agent, &err) < 0 ||
        vial_vm_start(config, &vm, &err) < 0)
        return fail(&err);
    vial_vm_config_free(config); /* with its duplicate of the stream, when the machine ends */
    close(agent.fd);
    if (vial_vm_wait(vm, VIAL_WAIT_FOREVER, &end, &err) < 0)
        return fail(&err);
    vial_vm_free(vm);
    printf("%s %d: %s\n", vial_exit_reason_name(end.reason), end.code, end.detail);
    return end.reason == VIAL_EXIT_COMPLETED ? 0 : 1;
}
