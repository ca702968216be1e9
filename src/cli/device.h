// SPDX-License-Identifier: Apache-2.0
/* What the subcommands of `vial device` share: a server, its options, and how it runs. See device.c. */
#ifndef CLI_DEVICE_H
#define CLI_DEVICE_H

#include "cli/command.h"
#include "cli/local_socket.h"
#include "device/console/console.h"
#include "virtio/vhost_user.h"

enum { MOST_NAMED_PORTS = CONSOLE_MOST_PORTS - 1 };

struct named_port {
    char *name;       /* owned */
    const char *path; /* borrowed from the arguments */
    int fd;           /* owned; -1 until it is opened */
};

struct server {
    const struct command *command;
    const char *kind;
    struct vial_error error;
    void *settings; /* borrowed: the kind's own, which its options fill in; or NULL */

    /* From the options: */
    const char *path;  /* borrowed from the arguments; NULL for an inherited socket */
    int inherited_fd;  /* owned, or -1 */
    bool is_connected; /* it is the connection itself */
    bool is_once;
    uint64_t protocol_without;
    const char *output_path; /* borrowed from the arguments; NULL for standard input and output */
    struct named_port ports[MOST_NAMED_PORTS];
    unsigned port_count;

    bool has_input, has_output;   /* standard input and output were open when we started */
    struct local_socket socket;   /* owned */
    int output_fd;                /* owned, or -1 */
    struct virtio_device *device; /* owned */
    struct vhost_user *vhost;     /* owned */
    struct loop *loop;            /* owned */
    int signal_number;            /* that ended us, or 0 */
};

/* What makes the device; the error is reported by the caller. */
typedef int (*make_function)(struct server *server);

/* Options that every kind has; `user` is the server. */
extern const struct command_option server_options[];

#define SERVER_STATUSES                                                                                                \
    "0 when the only connection has ended, 125 when vial could not serve, 128+N when signal N ended it. "              \
    "vial --log-level info device ... tells on standard error who comes and goes"

/* Reads the options, makes the device and serves it until the end: the exit status. */
int device_serve(const struct command *command, make_function make, void *settings, int argc, char *argv[]);

/* Sets the server's error. Returns it negative. */
int device_fail(struct server *server, int os_error, const char *what);

/* ---- kinds in files of their own ---- */

extern const struct command command_device_blk, command_device_fs;

#endif
