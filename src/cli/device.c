// SPDX-License-Identifier: Apache-2.0
/* vial device: one virtio device in a process of its own, for any virtual machine monitor that speaks vhost-user.
 *
 *     QEMU, Cloud Hypervisor, crosvm, user-mode Linux ──Unix socket──> vial device rng
 *
 * A subcommand for each kind of device; they share the options that say where to serve. The device's own thread serves
 * the socket and the queues (virtio/vhost_user.c). The first thread waits for a signal that ends it all, for the end of
 * the only connection with --once, and for changes of the terminal.
 *
 *     exit status: 0     the only connection has ended (--once, or a connected --fd)
 *                  125   vial could not serve, or could not go on
 *                  128+N signal N ended vial
 *
 * Invariants: (1) what listens is a socket of ours that only its owner may connect to, and its file goes with us.
 * (2) the terminal is as before, whatever ends this process.
 *
 * Trust: arguments are the user's own. The front end is a guest's, and hostile: what it sends is checked where it is
 * received. One thing it can do to this process, by shrinking the file of its memory, is to have SIGBUS kill it; that
 * harms nobody but its own device, and the socket's file is replaced by the next start.
 */
#include "cli/device.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/loop.h"
#include "base/text.h"
#include "device/rng/rng.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- options ---- */

static int take_socket(void *user, const struct command_option *option, const char *value)
{
    struct server *server = user;
    if (server->inherited_fd >= 0)
        return refuse_value(option->name, value, "there is an --fd already", "give one of the two");
    server->path = value;
    return 0;
}

/* 1 for a connected stream socket, 0 for one that listens, -EINVAL for anything else. */
static int ask_connected(int fd)
{
    int domain = 0, type = 0, listens = 0;
    struct sockaddr_storage peer;
    socklen_t size = sizeof(int), peer_size = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0 || domain != AF_UNIX || type != SOCK_STREAM)
        return -EINVAL;
    if (listens != 0)
        return 0;
    return getpeername(fd, (struct sockaddr *)&peer, &peer_size) == 0 ? 1 : -EINVAL;
}

static int take_fd(void *user, const struct command_option *option, const char *value)
{
    struct server *server = user;
    uint64_t number = 0;
    if (server->path != NULL || server->inherited_fd >= 0)
        return refuse_value(option->name, value, "there is a socket already", "give one --socket or one --fd");
    if (text_to_u64(value, strlen(value), INT32_MAX, &number) < 0 || number <= STDERR_FILENO)
        return refuse_value(option->name, value, "it is no number of a descriptor",
                            "give a whole number above 2, such as 3");
    int connected = ask_connected((int)number);
    if (connected < 0 || fcntl((int)number, F_SETFD, FD_CLOEXEC) < 0)
        return refuse_value(option->name, value, "it is neither a listening nor a connected Unix stream socket",
                            "let the process that starts vial open one, and leave it open across execve(2)");
    server->inherited_fd = (int)number;
    server->is_connected = connected == 1;
    return 0;
}

static int take_once(void *user, const struct command_option *option, const char *value)
{
    struct server *server = user;
    (void)option;
    (void)value;
    server->is_once = true;
    return 0;
}

static int take_no_inband(void *user, const struct command_option *option, const char *value)
{
    struct server *server = user;
    (void)option;
    (void)value;
    server->protocol_without |= VHOST_USER_F_INBAND;
    return 0;
}

static int take_output(void *user, const struct command_option *option, const char *value)
{
    struct server *server = user;
    if (value[0] == '\0')
        return refuse_value(option->name, value, "the path is empty", "name a file");
    server->output_path = value;
    return 0;
}

static int take_port(void *user, const struct command_option *option, const char *value)
{
    struct server *server = user;
    size_t length = strcspn(value, "=");
    if (length == 0 || value[length] == '\0' || value[length + 1] == '\0')
        return refuse_value(option->name, value, "it is not NAME=PATH", "write it as in agent=/run/agent.sock");
    if (length > LIMIT_PORT_NAME_BYTES)
        return refuse_value(option->name, value, "the name is too long", "give a name of at most 64 bytes");
    for (unsigned i = 0; i < server->port_count; i++)
        if (strlen(server->ports[i].name) == length && strncmp(server->ports[i].name, value, length) == 0)
            return refuse_value(option->name, value, "another port has this name", "give each port a name of its own");
    if (server->port_count == MOST_NAMED_PORTS)
        return refuse_value(option->name, value, "there are too many ports", "give at most 63");
    struct named_port port = {.name = alloc_string(value), .path = value + length + 1, .fd = -1};
    if (port.name == NULL)
        return refuse_value(option->name, value, "there is no memory for it", "free some");
    port.name[length] = '\0';
    server->ports[server->port_count++] = port;
    return 0;
}

const struct command_option server_options[] = {
    {"--socket", 0, "PATH", "listen there, for this user alone; a socket that nobody has any more is replaced",
     take_socket, .completes = COMPLETE_FILE},
    {"--fd", 0, "N", "an inherited Unix socket instead, which listens or is connected", take_fd},
    {"--once", 0, NULL, "end when the first connection ends", take_once},
    {"--no-inband", 0, NULL, "do not offer in-band notifications: kicks and calls in the socket itself",
     take_no_inband},
    {"--json", 0, NULL, "when it listens, say so in one line of JSON on standard output", NULL},
    {.name = NULL},
};

static const struct command_option console_options[] = {
    {"--output", 0, "FILE", "append what the guest writes to a file instead, and give it no input", take_output,
     .completes = COMPLETE_FILE},
    {"--port", 0, "NAME=PATH",
     "a further port, which the guest finds by its name in /sys/class/virtio-ports; PATH is a Unix socket to connect "
     "to, "
     "or a file to append to; may be repeated",
     take_port},
    {.name = NULL},
};

/* ---- devices ---- */

int device_fail(struct server *server, int os_error, const char *what)
{
    return error_set_os(&server->error, VIAL_PHASE_START, os_error, "cannot %s", what);
}

static int make_rng(struct server *server)
{
    int result = rng_new(&server->device);
    if (result < 0)
        device_fail(server, result, "make the random number generator");
    if (result == -EAGAIN)
        error_remedy(&server->error, "wait until the host has random numbers (it has just started)");
    return result;
}

/* What a guest writes goes to the end of the file. A FIFO without a reader is an error and not waited for. */
static int open_output(struct server *server, const char *path, int *ret_fd)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0600);
    if (fd < 0) {
        int result = error_set_os(&server->error, VIAL_PHASE_START, errno, "cannot open %s", error_short(path).text);
        error_remedy(&server->error, result == -ENXIO ? "give a file, or a pipe that has a reader"
                                                      : "check the path and its permissions");
        return result;
    }
    *ret_fd = fd;
    return 0;
}

static int open_port(struct server *server, struct named_port *port)
{
    struct stat status;
    bool is_socket = stat(port->path, &status) == 0 && S_ISSOCK(status.st_mode);
    int result = is_socket ? local_socket_connect(port->path, &port->fd, &server->error)
                           : open_output(server, port->path, &port->fd);
    if (result < 0)
        error_field(&server->error, "--port %s", port->name);
    return result;
}

/* The guest's terminal: a file, or ours, or whatever standard input and output are. */
static struct console_port_options main_port(const struct server *server)
{
    struct console_port_options port = {.is_console = true, .input_fd = -1, .output_fd = -1, .tty_fd = -1};
    if (server->output_fd >= 0) {
        port.output_fd = server->output_fd;
    } else if (isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1) {
        port.kind = CONSOLE_PORT_TTY;
        port.tty_fd = STDIN_FILENO;
    } else {
        port.input_fd = server->has_input ? STDIN_FILENO : -1;
        port.output_fd = server->has_output ? STDOUT_FILENO : -1;
    }
    return port;
}

/* A file can only be written; a socket goes both ways. */
static struct console_port_options named_port(const struct named_port *named)
{
    int type = 0;
    socklen_t size = sizeof(type);
    bool is_socket = getsockopt(named->fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0;
    return (struct console_port_options){
        .name = named->name,
        .input_fd = is_socket ? named->fd : -1,
        .output_fd = named->fd,
        .tty_fd = -1,
    };
}

static int make_console(struct server *server)
{
    struct console_port_options ports[CONSOLE_MOST_PORTS];
    int result = 0;
    if (server->output_path != NULL) {
        result = open_output(server, server->output_path, &server->output_fd);
        if (result < 0)
            error_field(&server->error, "--output");
    }
    for (unsigned i = 0; i < server->port_count && result == 0; i++)
        result = open_port(server, &server->ports[i]);
    if (result < 0)
        return result;
    ports[0] = main_port(server);
    for (unsigned i = 0; i < server->port_count; i++)
        ports[i + 1] = named_port(&server->ports[i]);
    result = console_new(&(struct console_options){.ports = ports, .port_count = server->port_count + 1},
                         &server->device);
    return result < 0 ? device_fail(server, result, "make the console") : 0;
}

/* ---- serving ---- */

static void handle_signal(void *user, uint32_t what)
{
    struct server *server = user;
    if (server->signal_number == 0) /* the first has ended it */
        server->signal_number = (int)what;
    loop_stop(server->loop);
}

static void handle_window(void *user, uint32_t what)
{
    struct server *server = user;
    (void)what;
    console_window_changed(server->device);
}

/* On the device's thread. */
static void handle_disconnected(void *user)
{
    struct server *server = user;
    if (server->is_once)
        loop_stop(server->loop);
}

/* Our own end of an inherited socket, or a socket of our own. */
static int open_socket(struct server *server)
{
    if (server->inherited_fd >= 0)
        return 0;
    int result = local_socket_listen(server->path, &server->socket, &server->error);
    if (result < 0)
        error_field(&server->error, "--socket");
    return result;
}

static int attach(struct server *server)
{
    int *fd = server->inherited_fd >= 0 ? &server->inherited_fd : &server->socket.fd;
    struct vhost_user_options options = {
        .listen_fd = server->is_connected ? -1 : *fd,
        .connection_fd = server->is_connected ? *fd : -1,
        .protocol_without = server->protocol_without,
        .is_once = server->is_once,
        .disconnected = handle_disconnected,
        .user = server,
    };
    int result = vhost_user_new(server->device, &options, &server->vhost);
    if (result < 0)
        return device_fail(server, result, "serve the socket");
    steal_fd(fd); /* it is the server's now */
    return 0;
}

static int watch(struct server *server)
{
    struct loop_source *source = NULL;
    bool is_console = virtio_device_type(server->device) == VIRTIO_TYPE_CONSOLE;
    int result = command_watch_signals(server->loop, handle_signal, server);
    if (result == 0 && is_console)
        result = loop_add_signal(server->loop, SIGWINCH, handle_window, server, &source);
    if (result == 0 && is_console) /* a shell had the terminal while we were stopped */
        result = loop_add_signal(server->loop, SIGCONT, handle_window, server, &source);
    return result < 0 ? device_fail(server, result, "wait for signals") : 0;
}

/* Everything but the device's thread. Signals are watched last: until then they end this process as usual. */
static int set_up(struct server *server, make_function make)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return device_fail(server, errno, "give up new privileges");
    int result = loop_new(&server->loop);
    if (result < 0)
        return device_fail(server, result, "make an event loop");
    result = make(server);
    if (result == 0)
        result = open_socket(server);
    if (result == 0)
        result = attach(server);
    return result == 0 ? watch(server) : result;
}

/* In a line of its own, before anything that a guest writes on the same output. */
static int announce_json(const struct server *server)
{
    auto_json json_t *facts = json_pack("{s:s?, s:s, s:i}", "socket", server->path, "device", server->kind, "pid",
                                        (int)getpid());
    if (facts == NULL || json_dumpf(facts, stdout, 0) < 0 || putchar('\n') == EOF) {
        fprintf(stderr, "%s: cannot write the facts as JSON\n", server->command->path);
        return EXIT_OURS;
    }
    return finish_output(EXIT_YES);
}

static int announce(const struct server *server, bool is_json)
{
    const struct palette *colour = palette_for(stderr);
    if (is_json)
        return announce_json(server);
    if (isatty(STDERR_FILENO) == 0)
        return EXIT_YES;
    char safe[256];
    text_escape(safe, sizeof(safe), server->path != NULL ? server->path : "the inherited socket",
                server->path != NULL ? strlen(server->path) : strlen("the inherited socket"), "");
    fprintf(stderr, "%s: serving %s%s%s\n", server->command->path, colour->bold, safe, colour->off);
    return EXIT_YES;
}

static int run_server(struct server *server, bool is_json)
{
    int status = announce(server, is_json);
    if (status != EXIT_YES)
        return status;
    int result = virtio_device_launch(server->device);
    if (result == 0)
        result = loop_run(server->loop);
    if (result < 0) {
        device_fail(server, result, "run the device");
        print_error(server->command->path, &server->error);
        return EXIT_OURS;
    }
    return server->signal_number != 0 ? 128 + server->signal_number : EXIT_YES;
}

static void release(struct server *server)
{
    if (server->vhost != NULL)
        vhost_user_abandon(server->vhost); /* so that a front end that reads nothing cannot keep us */
    local_socket_end(&server->socket);     /* while it is ours, and so nobody else's yet */
    vhost_user_free(server->vhost);
    virtio_device_free(server->device);
    for (unsigned i = 0; i < server->port_count; i++) {
        fd_close(server->ports[i].fd);
        free(server->ports[i].name);
    }
    fd_close(server->output_fd);
    fd_close(server->inherited_fd);
    loop_free(server->loop);
}

int device_serve(const struct command *command, make_function make, void *settings, int argc, char *argv[])
{
    struct server server = {
        .command = command,
        .kind = command->name,
        .settings = settings,
        .inherited_fd = -1,
        .has_input = fcntl(STDIN_FILENO, F_GETFD) >= 0,
        .has_output = fcntl(STDOUT_FILENO, F_GETFD) >= 0,
        .socket = LOCAL_SOCKET_NONE,
        .output_fd = -1,
    };
    bool is_json = false;
    int operands = command_options(command, &server, argc, argv, 0, 0, &is_json);
    int status = operands == OPTIONS_DONE ? EXIT_YES : EXIT_OURS;
    server.is_once |= server.is_connected;
    if (operands >= 0 && server.path == NULL && server.inherited_fd < 0) {
        fprintf(stderr, "%s: there is no socket\n  -> give --socket PATH or --fd N\n", command->path);
    } else if (operands >= 0) {
        if (set_up(&server, make) == 0)
            status = run_server(&server, is_json);
        else
            print_error(command->path, &server.error);
    }
    release(&server);
    return status;
}

/* ---- the commands ---- */

static int run_rng(const struct command *command, int argc, char *argv[])
{
    return device_serve(command, make_rng, NULL, argc, argv);
}

static const struct command command_rng = {
    .name = "rng",
    .path = "vial device rng",
    .arguments = "--socket PATH|--fd N [OPTIONS]",
    .summary = "Serve random numbers over vhost-user",
    .statuses = SERVER_STATUSES,
    .options = {server_options},
    .run = run_rng,
};

static int run_console(const struct command *command, int argc, char *argv[])
{
    return device_serve(command, make_console, NULL, argc, argv);
}

static const struct command command_console = {
    .name = "console",
    .path = "vial device console",
    .arguments = "--socket PATH|--fd N [OPTIONS]",
    .summary = "Serve a console and further ports over vhost-user",
    .about =
        "The guest's console is standard input and output; on a terminal it is in raw mode while a guest has it, so "
        "^C goes to the guest.",
    .statuses = SERVER_STATUSES,
    .options = {console_options, server_options},
    .run = run_console,
};

static const struct command *const kinds[] = {&command_rng, &command_console, &command_device_blk, &command_device_fs,
                                              NULL};

const struct command command_device = {
    .name = "device",
    .path = "vial device",
    .summary = "Serve one virtio device to QEMU and others, over vhost-user",
    .children = kinds,
};
