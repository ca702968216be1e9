// SPDX-License-Identifier: Apache-2.0
/* A sandbox whose process is a thread of the test: it has the lock, listens at the relay's socket, and does with each
 * connection what the test says. */
#ifndef CLIENT_FAKE_H
#define CLIENT_FAKE_H

#include "proto/agent.h"
#include "vial/vial.h"

struct fake;

/* Serves one connection; a request that begins it has been read already. */
typedef void (*fake_serve)(int fd, const struct agent_message *request, void *user);

/* A home in the test's folder, a sandbox in it, and its process. Aborts on failure. */
struct fake *fake_new(fake_serve serve, void *user);
struct fake *fake_free(struct fake *fake);
struct vial_sandbox *fake_sandbox(struct fake *fake);

/* What the process says, and hears. */
void fake_send(int fd, const struct agent_message *message);
void fake_send_bytes(int fd, const void *bytes, size_t length);
void fake_data(int fd, uint32_t stream, const void *bytes, size_t length, uint32_t flags);
void fake_started(int fd, uint32_t window);
void fake_ended(int fd, uint32_t code);
void fake_failed(int fd, uint32_t stage, uint32_t os_error, const char *text);
void fake_done(int fd);

/* The next frame, whose body lives until the next call on this thread; false at the end. */
bool fake_receive(int fd, struct agent_message *ret_message);

#endif
