// SPDX-License-Identifier: Apache-2.0
/* What each kind of frame holds and may say (agent_kinds.c), for what reads and writes them (agent.c). */
#ifndef PROTO_AGENT_KINDS_H
#define PROTO_AGENT_KINDS_H

#include "proto/agent.h"

enum agent_field_type {
    FIELD_U32,
    FIELD_FLAGS, /* 32 bits, of which `most` may be set */
    FIELD_U64,
    FIELD_I64,
    FIELD_BYTES,
    FIELD_TEXT,      /* without a NUL */
    FIELD_PATH,      /* a text that begins with a slash, if with anything */
    FIELD_NAME,      /* a text that is the name of a file in its folder */
    FIELD_STRINGS,   /* the bytes of all, each with a NUL at its end */
    FIELD_VARIABLES, /* strings of the form KEY=VALUE */
    FIELD_RLIMITS,   /* an array of resource, soft, hard, resource, … */
};

struct agent_field {
    size_t offset; /* in struct agent_message */
    enum agent_field_type type;
    uint64_t least, most; /* of a number; of a span's length */
};

enum agent_id_rule { ID_SESSION, ID_NONE, ID_CLIENT };

struct agent_kind_rules {
    const char *name;
    unsigned senders;               /* of enum sender */
    unsigned must_flags, may_flags; /* of enum agent_flag */
    enum agent_id_rule id_rule;
    const struct agent_field *fields;
    size_t field_count;
    int (*check)(const struct agent_message *message); /* or NULL */
};

/* NULL for a number that is no kind. */
const struct agent_kind_rules *agent_rules(unsigned kind);

/* Whether a frame of that kind may have that id and those flags. */
bool agent_is_id_for(const struct agent_kind_rules *rules, uint32_t id);
bool agent_are_flags_for(const struct agent_kind_rules *rules, uint32_t flags);

/* The longest body that a frame of that kind can have. */
size_t agent_most_body_bytes(const struct agent_kind_rules *rules);

/* Whether the message may be said: 0, -E2BIG for what is too long or too many, -EINVAL for anything else. Its bytes
 * have been read, and need no more than to be of the right types. */
int agent_check(const struct agent_kind_rules *rules, const struct agent_message *message);

#endif
