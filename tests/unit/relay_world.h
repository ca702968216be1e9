// SPDX-License-Identifier: Apache-2.0
/* A relay with an agent and clients that tests play, in a loop that is turned by hand. */
#ifndef RELAY_WORLD_H
#define RELAY_WORLD_H

#include "sandbox/relay.h"
#include "sandbox/session.h"

struct frame {
    struct agent_header header;
    struct agent_message message;
    uint8_t bytes[AGENT_HEADER_BYTES + AGENT_MOST_DATA_BYTES + 64];
};

struct seen {
    int agent_messages, client_messages, gone, failed, result, started, ended, program_failed;
    uint32_t code, kind;
    char output[256];
};

extern struct loop *loop;
extern struct relay *relay;
extern struct session *session; /* NULL: messages of the main program are only counted */
extern int folder, agent;       /* the agent's end of its port */
extern struct frame frame;      /* the last that was heard */
extern struct seen seen;        /* what the relay has called */
extern const struct agent_message ready;

void turn(int times); /* of the loop */

int begin(void);         /* a relay, its agent's port, and nobody else */
int begin_serving(void); /* the agent is ready */
void end(void);

int join(void);         /* a client */
int join_greeted(void); /* one that has heard READY */

void say(int fd, const struct agent_message *message);
void say_kind(int fd, uint32_t id, enum agent_kind kind, uint32_t flags);
void say_data(int fd, uint32_t id, uint32_t stream, uint32_t flags, const void *bytes, size_t length);

/* The next frame into `frame`: its kind, 0 when there is none, -1 for what is none. */
int hear(int fd);
bool has_ended(int fd);

#endif
