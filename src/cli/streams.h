// SPDX-License-Identifier: Apache-2.0
/* Our streams, terminal and signals as those of a program in a sandbox. See streams.c. */
#ifndef CLI_STREAMS_H
#define CLI_STREAMS_H

#include "base/endpoint.h"
#include "base/terminal.h"
#include "vial/vial.h"

enum stream_end {
    STREAMS_ENDED = 1, /* the program has */
    STREAMS_FAILED,    /* it could not be started, or nobody knows what became of it: `error` */
    STREAMS_DETACHED,  /* the user typed ctrl-p ctrl-q */
    STREAMS_TIMED_OUT,
    STREAMS_FORCED, /* the user has asked for the end three times */
    STREAMS_BROKEN, /* our own: `error` */
};

enum { STREAM_BYTES = 64 << 10 };

struct streams {
    struct loop *loop; /* owned */
    bool is_over;
    enum stream_end end;
    int code;          /* STREAMS_ENDED: the exit code, or 128 + signal */
    int signal_number; /* the last one that asked for the end */
    unsigned signal_count;
    struct vial_error error;

    struct vial_process *process;               /* borrowed while it runs */
    struct loop_source *process_source, *again; /* the loop's, as are the others */
    bool can_detach;

    struct terminal *terminal; /* owned; while ours is raw */
    bool is_terminal, is_raw_wanted;

    struct endpoint outputs[2]; /* owned: output, error */
    struct loop_source *output_sources[2];
    bool is_output_broken[2];
    const char *pending; /* of the process's last event, for outputs[pending_stream] */
    size_t pending_length;
    int pending_stream;

    struct endpoint input; /* owned */
    struct loop_source *input_source;
    char *input_bytes; /* owned: STREAM_BYTES */
    size_t input_start, input_length;
    bool has_input, is_input_over, was_ctrl_p;
};

struct stream_options {
    struct vial_process *process;
    bool is_terminal; /* the program has one; ours becomes raw, if it is one */
    bool has_input;
    bool can_detach;
    uint64_t timeout_ms; /* 0: none */
};

/* Takes signals from here on, before the program runs, so that none is lost. 0 or -errno. */
int streams_begin(struct streams *streams);

/* Passes everything on until `streams->end` is known. The terminal is as before then. */
void streams_run(struct streams *streams, const struct stream_options *options);

/* What the shell gets to see; says on stderr what the program could not say itself. */
int streams_status(const struct streams *streams, const char *subject);

void streams_free(struct streams *streams);

#endif
