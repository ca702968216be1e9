// SPDX-License-Identifier: Apache-2.0
/* The main program of a sandbox, and the clients that are attached to its streams. */
#ifndef SANDBOX_SESSION_H
#define SANDBOX_SESSION_H

#include "sandbox/relay.h"
#include "sandbox/spec.h"

#define SESSION_MAIN_ID 1u /* of client 0 */

struct session;

/* On the loop's thread. What is called last of started, failed and ended: failed or ended, once. */
struct session_ops {
    void (*started)(void *user, uint32_t pid);
    void (*failed)(void *user, const struct agent_message *failed);
    void (*ended)(void *user, uint32_t code, uint32_t signal);
    void (*output)(void *user, const char *stream, const char *bytes, size_t length); /* "out", "err" or "tty" */
};

/* `program` is borrowed; its args are NULL when there is none: whoever attaches is told so. */
int session_new(struct relay *relay, const struct spec_program *program, const struct session_ops *ops, void *user,
                struct session **ret_session);
struct session *session_free(struct session *session);

/* Has the agent start the program, if there is one and it has not been started. */
void session_begin(struct session *session);

/* What came from the agent in the program's session: 0 or -EPROTO. */
int session_agent_message(struct session *session, const struct agent_message *message);

/* ATTACH, and what follows in a session of that kind. */
void session_client_message(struct session *session, struct relay_client *client, const struct agent_message *message);
void session_client_gone(struct session *session, struct relay_client *client);

/* Whether all that the program has said is with those it waits for, and with all that are attached. */
bool session_is_with_primaries(const struct session *session);
bool session_is_with_all(const struct session *session);
size_t session_attached_count(const struct session *session);

#endif
