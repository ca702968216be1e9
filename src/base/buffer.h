// SPDX-License-Identifier: Apache-2.0
/* A growing byte buffer with a limit.
 *
 *     struct buffer text = BUFFER_INIT(LIMIT_MESSAGE_BYTES);
 *     buffer_format(&text, "%s=%d ", key, value);
 *     buffer_add(&text, bytes, length);
 *     if (text.error < 0) …
 *     buffer_free(&text);
 *
 * The first failure sticks: later calls do nothing and return it, so a sequence of additions needs one check at its
 * end. The content is always followed by a NUL that `length` does not count.
 */
#ifndef BASE_BUFFER_H
#define BASE_BUFFER_H

#include <stddef.h>

struct buffer {
    char *data; /* owned; NULL until the first byte */
    size_t length;
    size_t capacity; /* of data, the NUL included */
    size_t limit;    /* the greatest length it may reach */
    int error;       /* 0, -ENOMEM, or -ENOBUFS past the limit */
};

#define BUFFER_INIT(limit_bytes)                                                                                       \
    {                                                                                                                  \
        .limit = (limit_bytes)                                                                                         \
    }

int buffer_add(struct buffer *buffer, const void *bytes, size_t length);
int buffer_add_text(struct buffer *buffer, const char *text);
int buffer_format(struct buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* At least `length` writable bytes behind the content, or NULL with the error set; buffer_commit makes them content. */
char *buffer_reserve(struct buffer *buffer, size_t length);
void buffer_commit(struct buffer *buffer, size_t length);

/* The content as a string that the caller frees (never NULL on success), the buffer empty again; NULL after an
 * error. */
char *buffer_steal(struct buffer *buffer);
void buffer_free(struct buffer *buffer);

#define auto_buffer __attribute__((cleanup(buffer_free)))

#endif
