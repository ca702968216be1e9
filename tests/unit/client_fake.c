// SPDX-License-Identifier: Apache-2.0
/* A sandbox whose process is a thread of the test. */
#include "client_fake.h"

#include "test.h"

#include "base/buffer.h"
#include "base/fd.h"
#include "sandbox/home.h"
#include "sandbox/library.h"

#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct fake {
    struct vial_home *home;
    struct vial_sandbox *sandbox;
    int lock, listener;
    pthread_t thread;
    fake_serve serve;
    void *user;
};

static _Thread_local uint8_t body[AGENT_MOST_BODY_BYTES];

static void must(bool is_so)
{
    if (!is_so)
        abort();
}

void fake_send_bytes(int fd, const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length > 0) {
        ssize_t sent = send(fd, at, length, MSG_NOSIGNAL);
        if (sent <= 0)
            return; /* the client has enough */
        at += sent;
        length -= (size_t)sent;
    }
}

void fake_send(int fd, const struct agent_message *message)
{
    struct buffer frame = BUFFER_INIT(AGENT_HEADER_BYTES + AGENT_MOST_BODY_BYTES);
    must(agent_encode(message, &frame) == 0);
    fake_send_bytes(fd, frame.data, frame.length);
    buffer_free(&frame);
}

void fake_data(int fd, uint32_t stream, const void *bytes, size_t length, uint32_t flags)
{
    fake_send(fd,
              &(struct agent_message){
                  .id = 1, .kind = AGENT_DATA, .flags = flags, .data = {.stream = stream, .bytes = {bytes, length}}});
}

void fake_started(int fd, uint32_t window)
{
    fake_send(fd, &(struct agent_message){.id = 1, .kind = AGENT_STARTED, .started = {.pid = 7, .window = window}});
}

void fake_ended(int fd, uint32_t code)
{
    fake_send(fd, &(struct agent_message){.id = 1, .kind = AGENT_ENDED, .flags = AGENT_LAST, .ended = {.code = code}});
}

void fake_failed(int fd, uint32_t stage, uint32_t os_error, const char *text)
{
    fake_send(
        fd, &(struct agent_message){.id = 1,
                                    .kind = AGENT_FAILED,
                                    .flags = AGENT_LAST,
                                    .failed = {.stage = stage, .os_error = os_error, .message = {text, strlen(text)}}});
}

void fake_done(int fd)
{
    fake_send(fd, &(struct agent_message){.id = 1, .kind = AGENT_DONE, .flags = AGENT_LAST});
}

static bool receive_all(int fd, void *bytes, size_t length)
{
    return length == 0 || recv(fd, bytes, length, MSG_WAITALL) == (ssize_t)length;
}

bool fake_receive(int fd, struct agent_message *ret_message)
{
    uint8_t head_bytes[AGENT_HEADER_BYTES];
    struct agent_header head;
    if (!receive_all(fd, head_bytes, sizeof(head_bytes)))
        return false;
    must(agent_decode_header(head_bytes, &head) == 0);
    if (!receive_all(fd, body, head.body_bytes))
        return false;
    must(agent_decode(&head, body, ret_message) == 0);
    return true;
}

static void *run(void *user)
{
    struct fake *fake = user;
    static const char kernel[] = "7.3";
    for (;;) {
        struct agent_message request;
        int fd = accept4(fake->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            return NULL;
        fake_send(fd, &(struct agent_message){.kind = AGENT_READY,
                                              .ready = {.version = AGENT_VERSION, .cpus = 1, .kernel = {kernel, 3}}});
        if (fake_receive(fd, &request))
            fake->serve(fd, &request, fake->user);
        close(fd);
    }
}

static void listen_in(struct fake *fake, int folder)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/relay.sock", folder);
    fake->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(bind(fake->listener, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fake->listener, 64) == 0);
}

struct fake *fake_new(fake_serve serve, void *user)
{
    struct fake *fake = calloc(1, sizeof(*fake));
    struct vial_error err = {0};
    struct vial_sandbox_options options = VIAL_SANDBOX_OPTIONS_INIT;
    static const char *const args[] = {"true", NULL};
    struct vial_program_options program = VIAL_PROGRAM_OPTIONS_INIT;
    char path[4096];
    must(fake != NULL);
    snprintf(path, sizeof(path), "%s/home", test_folder());
    program.args = args;
    options.name = "web";
    options.program = &program;
    if (vial_home_open(path, &fake->home, &err) < 0 ||
        vial_sandbox_create(fake->home, &options, &fake->sandbox, &err) < 0) {
        printf("# %s: %s\n", err.field, err.message);
        abort();
    }
    fake->lock = home_sandbox_lock(fake->sandbox->folder);
    must(fake->lock >= 0);
    listen_in(fake, fake->sandbox->folder);
    fake->serve = serve;
    fake->user = user;
    must(pthread_create(&fake->thread, NULL, run, fake) == 0);
    return fake;
}

struct fake *fake_free(struct fake *fake)
{
    shutdown(fake->listener, SHUT_RDWR);
    pthread_join(fake->thread, NULL);
    close(fake->listener);
    fd_close(fake->lock);
    vial_sandbox_free(fake->sandbox);
    vial_home_free(fake->home);
    free(fake);
    return NULL;
}

struct vial_sandbox *fake_sandbox(struct fake *fake)
{
    return fake->sandbox;
}
