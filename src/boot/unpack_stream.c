// SPDX-License-Identifier: Apache-2.0
/* Compressed streams from one file to another, in pieces: gzip, bzip2 and zstd behind one loop.
 *
 * The three libraries have the same shape: a state, a piece of input with what is left of it, a piece of output with
 * what is free of it, and a call that moves both on. A codec wraps that call; the loop reads pieces, writes pieces, and
 * knows the limit.
 *
 * Invariants: (1) the output never gets longer than its limit, whatever the stream says. (2) every round either reads
 * input, writes output, or ends: a stream that does neither is damaged. (3) the libraries' own checksums must match.
 *
 * Trust: the stream may be anything. The libraries are trusted to survive it; their output is not believed either.
 */
#include "boot/unpack_stream.h"

#include "base/fd.h"
#include "boot/place.h"

#include <bzlib.h>
#include <errno.h>
#include <zlib.h>
#include <zstd.h>

enum { STEP_MORE, STEP_END, STEP_DAMAGED, STEP_NO_MEMORY };

/* What is left of the piece of input and free of the piece of output. */
struct pieces {
    uint8_t *input, *output;
    size_t input_left, output_left;
};

/* One of the four above. */
typedef int step_function(void *state, struct pieces *pieces);

static int write_output(struct unpack_stream *stream, size_t length)
{
    if (length > stream->limit - stream->written)
        return reason_set(stream->reason, "it unpacks to more than %llu MiB", (unsigned long long)stream->limit >> 20);
    stream->written += length;
    return fd_write_all(stream->output_fd, stream->output, length);
}

static int read_input(struct unpack_stream *stream, struct pieces *pieces)
{
    uint64_t left = stream->end - stream->at;
    size_t length = left < UNPACK_PIECE_BYTES ? (size_t)left : UNPACK_PIECE_BYTES;
    int result = place_read(stream->input_fd, stream->input, length, stream->at, stream->reason);
    pieces->input = stream->input;
    pieces->input_left = result == 0 ? length : 0;
    stream->at += pieces->input_left;
    return result;
}

static int run(struct unpack_stream *stream, step_function *step, void *state)
{
    struct pieces pieces = {.input = stream->input};
    for (;;) {
        int result = pieces.input_left == 0 ? read_input(stream, &pieces) : 0;
        if (result < 0)
            return result;
        size_t before = pieces.input_left;
        pieces.output = stream->output;
        pieces.output_left = UNPACK_PIECE_BYTES;
        int outcome = step(state, &pieces);
        if (outcome == STEP_NO_MEMORY)
            return -ENOMEM;
        if (outcome == STEP_DAMAGED)
            return reason_set(stream->reason, "its compressed data is damaged");
        size_t length = UNPACK_PIECE_BYTES - pieces.output_left;
        result = write_output(stream, length);
        if (result < 0)
            return result;
        if (outcome == STEP_END) {
            stream->at -= pieces.input_left;
            return 0;
        }
        if (length == 0 && pieces.input_left == before)
            return reason_set(stream->reason,
                              before == 0 ? "its compressed data is truncated" : "its compressed data is damaged");
    }
}

static int step_gzip(void *state, struct pieces *pieces)
{
    z_stream *gzip = state;
    gzip->next_in = pieces->input;
    gzip->avail_in = (unsigned)pieces->input_left;
    gzip->next_out = pieces->output;
    gzip->avail_out = (unsigned)pieces->output_left;
    int result = inflate(gzip, Z_NO_FLUSH);
    pieces->input = gzip->next_in;
    pieces->input_left = gzip->avail_in;
    pieces->output_left = gzip->avail_out;
    if (result == Z_STREAM_END)
        return STEP_END;
    if (result == Z_MEM_ERROR)
        return STEP_NO_MEMORY;
    return result == Z_OK || result == Z_BUF_ERROR ? STEP_MORE : STEP_DAMAGED; /* Z_BUF_ERROR: it could not move */
}

int unpack_gzip(struct unpack_stream *stream)
{
    enum { window_bits = 15, gzip_only = 16 }; /* zlib.h, inflateInit2 */
    z_stream gzip = {0};
    if (inflateInit2(&gzip, window_bits + gzip_only) != Z_OK)
        return -ENOMEM;
    int result = run(stream, step_gzip, &gzip);
    inflateEnd(&gzip);
    return result;
}

static int step_bzip2(void *state, struct pieces *pieces)
{
    bz_stream *bzip2 = state;
    bzip2->next_in = (char *)pieces->input;
    bzip2->avail_in = (unsigned)pieces->input_left;
    bzip2->next_out = (char *)pieces->output;
    bzip2->avail_out = (unsigned)pieces->output_left;
    int result = BZ2_bzDecompress(bzip2);
    pieces->input = (uint8_t *)bzip2->next_in;
    pieces->input_left = bzip2->avail_in;
    pieces->output_left = bzip2->avail_out;
    if (result == BZ_STREAM_END)
        return STEP_END;
    if (result == BZ_MEM_ERROR)
        return STEP_NO_MEMORY;
    return result == BZ_OK ? STEP_MORE : STEP_DAMAGED;
}

int unpack_bzip2(struct unpack_stream *stream)
{
    bz_stream bzip2 = {0};
    if (BZ2_bzDecompressInit(&bzip2, 0, 0) != BZ_OK)
        return -ENOMEM;
    int result = run(stream, step_bzip2, &bzip2);
    BZ2_bzDecompressEnd(&bzip2);
    return result;
}

static int step_zstd(void *state, struct pieces *pieces)
{
    ZSTD_inBuffer input = {pieces->input, pieces->input_left, 0};
    ZSTD_outBuffer output = {pieces->output, pieces->output_left, 0};
    size_t result = ZSTD_decompressStream(state, &output, &input);
    pieces->input += input.pos;
    pieces->input_left -= input.pos;
    pieces->output_left -= output.pos;
    if (ZSTD_isError(result))
        return STEP_DAMAGED; /* or without memory for its window: the stable part of zstd.h does not tell */
    return result == 0 ? STEP_END : STEP_MORE;
}

int unpack_zstd(struct unpack_stream *stream)
{
    ZSTD_DStream *zstd = ZSTD_createDStream();
    if (zstd == NULL)
        return -ENOMEM;
    int result = run(stream, step_zstd, zstd);
    ZSTD_freeDStream(zstd);
    return result;
}
