// SPDX-License-Identifier: Apache-2.0
/* Compressed streams from one file to another, in pieces. */
#ifndef BOOT_UNPACK_STREAM_H
#define BOOT_UNPACK_STREAM_H

#include "boot/reason.h"

#include <stddef.h>
#include <stdint.h>

enum { UNPACK_PIECE_BYTES = 256 << 10 };

struct unpack_stream {
    int input_fd, output_fd; /* borrowed */
    uint64_t at, end;        /* of what is still to be read in the input file */
    uint64_t written, limit; /* of the output */
    uint8_t *input, *output; /* borrowed; a piece each */
    struct boot_reason *reason;
};

/* Each unpacks one stream that begins at `at` and leaves `at` behind it. 0; -EINVAL with a reason for a stream that is
 * damaged, cut, or too long; or -errno. */
int unpack_gzip(struct unpack_stream *stream);
int unpack_bzip2(struct unpack_stream *stream);
int unpack_zstd(struct unpack_stream *stream);

#endif
