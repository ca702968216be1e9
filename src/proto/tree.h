// SPDX-License-Identifier: Apache-2.0
/* A tree of files as a stream of bytes, written from a folder and made in another: how `vial cp` moves trees, the same
 * code on both sides.
 *
 *     folder ── tree_reader ──> bytes, a piece at a time ──> tree_writer ──> folder
 *
 * The stream is a sequence of records. Each has a header of 8 bytes (length 4, kind 2, 0 2; little-endian) and a body
 * of at most TREE_MOST_RECORD_BYTES:
 *
 *     FILE    1   what comes next: a CBOR map of path, mode, owner, size, times, where a link leads to, or of which
 *                 earlier path this is another name. Paths are relative, without "." or ".." or empty parts; the top
 *                 has the empty path. Folders come before what they hold
 *     BYTES   2   offset (8), and bytes of the file before: only where they are not holes, in order
 *     END     3   nothing follows: the tree is whole
 *
 * The reader never waits but for the disk. The writer makes everything beneath one descriptor: each name is opened
 * without following links, so a hostile stream reaches nothing outside; modes and times of folders are set at the end.
 * Sockets and devices are left out and counted; fifos are made, but not opened.
 *
 * Trust: the writer trusts nothing in the stream, the reader nothing in the folder (it may change meanwhile).
 */
#ifndef PROTO_TREE_H
#define PROTO_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TREE_MOST_RECORD_BYTES = 64 << 10,
    TREE_MOST_DEPTH = 256,
    TREE_MOST_LINKS = 1 << 20, /* files with several names that are remembered at a time */
};

struct tree_reader;
struct tree_writer;

/* What went wrong with which file. */
struct tree_failure {
    int os_error; /* positive */
    char path[4096];
};

/* `folder` is an O_PATH or readable descriptor of the folder that the thing is in, `name` its name there ("": the
 * folder itself). */
int tree_reader_new(int folder, const char *name, struct tree_reader **ret_reader);
struct tree_reader *tree_reader_free(struct tree_reader *reader);

/* The next bytes of the stream: how many, 0 at its end, or -errno with the failure told. Files that vanish meanwhile
 * are left out. */
long tree_reader_next(struct tree_reader *reader, uint8_t *bytes, size_t length, struct tree_failure *ret_failure);

enum tree_flag {
    TREE_OWNERS = 1, /* give files the owners of the stream */
    TREE_NO_TOP = 2, /* the top is a folder that exists: what it holds goes there */
};

/* Makes the tree as `name` in the folder, in place of a file of that name, into a folder of that name. */
int tree_writer_new(int folder, const char *name, uint32_t flags, struct tree_writer **ret_writer);
struct tree_writer *tree_writer_free(struct tree_writer *writer);

/* 0, or -errno with the failure told: -EPROTO for what is no stream. */
int tree_writer_add(struct tree_writer *writer, const uint8_t *bytes, size_t length, struct tree_failure *ret_failure);

/* Whether everything has come: 0, -EPROTO if not; and the last that there is to be done. */
int tree_writer_end(struct tree_writer *writer, struct tree_failure *ret_failure);

/* So far. */
struct tree_counts {
    uint64_t files, bytes, left_out;
};
void tree_reader_counts(const struct tree_reader *reader, struct tree_counts *ret_counts);
void tree_writer_counts(const struct tree_writer *writer, struct tree_counts *ret_counts);

#endif
