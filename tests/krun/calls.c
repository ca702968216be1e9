// SPDX-License-Identifier: Apache-2.0
/* calls CALL [ARG…] , CALL [ARG…] , …: makes these calls of libkrun in this order, on one context, and starts it.
 *
 * A call is named without krun_. A "-" is a NULL, or no descriptor; "yes" is true. What returns a number for later
 * calls returns 0 here, as it is the first of its kind.
 *
 *     calls set_vm_config 1 128 , set_root /srv/root , set_exec /bin/sh -c 'exit 7'
 *
 * set_exec gives the program no environment, inherit_exec this process's own.
 *
 * Trust: it is run by tests/krun_suite.py only.
 */
#include "client.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const char *const nothing[] = {NULL};
static const uint8_t mac[6] = {0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee};

static const char *text(const char *word)
{
    return strcmp(word, "-") == 0 ? NULL : word;
}

static int fd(const char *word)
{
    return strcmp(word, "-") == 0 ? -1 : (int)number(word);
}

static bool yes(const char *word)
{
    return strcmp(word, "yes") == 0;
}

/* ---- calls that take more than one line ---- */

static int32_t add_overlay_file(uint32_t context, char **words)
{
    const uint8_t *data = (const uint8_t *)words[4];
    return krun_fs_add_overlay_file(context, words[0], words[1], data, strlen(words[4]), number(words[2]),
                                    yes(words[3]));
}

/* The init that the library would put there, by the program's own hand. */
static int32_t put_default_init(uint32_t context, char **words)
{
    const uint8_t *data = NULL;
    size_t length = 0;
    MUST(krun_get_default_init, &data, &length);
    return krun_fs_add_overlay_file(context, words[0], words[1], data, length, 0755, false);
}

static uint8_t *own_mac(void)
{
    static uint8_t copy[6];
    memcpy(copy, mac, sizeof(copy));
    return copy;
}

/* A socket of the given kind, connected to the path: what a program hands over that has found its network itself. */
static int32_t connect_passt(uint32_t context, char **words)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", words[0]);
    if (sock < 0 || connect(sock, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        perror(words[0]);
        exit(code_usage);
    }
    int32_t result = krun_add_net_unixstream(context, NULL, sock, own_mac(), COMPAT_NET_FEATURES, NET_FLAG_DHCP_CLIENT);
    close(sock);
    return result;
}

/* ---- the table ---- */

#define CALL(name, ...)                                                                                                \
    static int32_t do_##name(uint32_t context, char **words)                                                           \
    {                                                                                                                  \
        (void)words;                                                                                                   \
        return krun_##name(context, ##__VA_ARGS__);                                                                    \
    }

#define STRINGS(words) ((const char *const *)(words))

CALL(set_vm_config, (uint8_t)number(words[0]), number(words[1]))
CALL(set_root, words[0])
CALL(add_virtiofs, words[0], text(words[1]))
CALL(fs_add_overlay_dir, words[0], words[1], number(words[2]))
CALL(disable_implicit_init)
CALL(add_disk, words[0], words[1], yes(words[2]))
CALL(set_root_disk_remount, words[0], text(words[1]), text(words[2]))
CALL(set_root_disk, words[0])
CALL(set_exec, words[0], STRINGS(words + 1), nothing)
CALL(set_env, STRINGS(words))
CALL(set_workdir, words[0])
CALL(set_rlimits, STRINGS(words))
CALL(set_console_output, words[0])
CALL(disable_implicit_console)
CALL(add_virtio_console_default, fd(words[0]), fd(words[1]), fd(words[2]))
CALL(add_virtio_console_multiport)
CALL(add_console_port_inout, number(words[0]), words[1], fd(words[2]), fd(words[3]))
CALL(add_console_port_tty, number(words[0]), words[1], fd(words[2]))
CALL(set_kernel, words[0], number(words[1]), text(words[2]), text(words[3]))
CALL(setuid, number(words[0]))
CALL(setgid, number(words[0]))
CALL(set_passt_fd, fd(words[0]))
CALL(add_net_unixstream, words[0], -1, own_mac(), COMPAT_NET_FEATURES, number(words[1]))

static int32_t inherit_exec(uint32_t context, char **words)
{
    return krun_set_exec(context, words[0], STRINGS(words + 1), NULL);
}

static const struct row {
    const char *name;
    int least;
    int32_t (*make)(uint32_t context, char **words);
} rows[] = {
    {"set_vm_config", 2, do_set_vm_config},
    {"set_root", 1, do_set_root},
    {"add_virtiofs", 2, do_add_virtiofs},
    {"fs_add_overlay_dir", 3, do_fs_add_overlay_dir},
    {"disable_implicit_init", 0, do_disable_implicit_init},
    {"add_disk", 3, do_add_disk},
    {"set_root_disk_remount", 3, do_set_root_disk_remount},
    {"set_root_disk", 1, do_set_root_disk},
    {"set_exec", 1, do_set_exec},
    {"set_env", 0, do_set_env},
    {"set_workdir", 1, do_set_workdir},
    {"set_rlimits", 0, do_set_rlimits},
    {"set_console_output", 1, do_set_console_output},
    {"disable_implicit_console", 0, do_disable_implicit_console},
    {"add_virtio_console_default", 3, do_add_virtio_console_default},
    {"add_virtio_console_multiport", 0, do_add_virtio_console_multiport},
    {"add_console_port_inout", 4, do_add_console_port_inout},
    {"add_console_port_tty", 3, do_add_console_port_tty},
    {"set_kernel", 4, do_set_kernel},
    {"setuid", 1, do_setuid},
    {"setgid", 1, do_setgid},
    {"set_passt_fd", 1, do_set_passt_fd},
    {"add_net_unixstream", 2, do_add_net_unixstream},
    {"fs_add_overlay_file", 5, add_overlay_file},
    {"put_default_init", 2, put_default_init},
    {"connect_passt", 1, connect_passt},
    {"inherit_exec", 1, inherit_exec},
};

static void make(uint32_t context, char **words, int count)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (strcmp(rows[i].name, words[0]) == 0 && count > rows[i].least) {
            must(words[0], rows[i].make(context, words + 1));
            return;
        }
    fprintf(stderr, "no such call, or too few arguments: %s\n", words[0]);
    exit(code_usage);
}

int main(int count, char **words)
{
    uint32_t context = (uint32_t)MUST(krun_create_ctx);
    int first = 1;
    for (int i = 1; i <= count; i++) {
        bool is_end = i == count || strcmp(words[i], ",") == 0;
        if (!is_end)
            continue;
        if (i < count)
            words[i] = NULL;
        if (i > first)
            make(context, words + first, i - first);
        first = i + 1;
    }
    return not_started(krun_start_enter(context));
}
