// SPDX-License-Identifier: Apache-2.0
/* A growing byte buffer with a limit.
 *
 * Capacity doubles, never past the limit plus the NUL. The limit is the caller's answer to "how much may somebody else
 * make me store": every buffer has one.
 *
 * Invariants: (1) length <= limit and length < capacity whenever data is set. (2) data[length] is NUL. (3) once error
 * is set, length does not change.
 *
 * Trust: contents and lengths may be hostile, the limit is ours.
 */
#include "base/buffer.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *buffer_reserve(struct buffer *buffer, size_t length)
{
    size_t need = 0;
    if (buffer->error < 0)
        return NULL;
    if (__builtin_add_overflow(buffer->length, length, &need) || need > buffer->limit) {
        buffer->error = -ENOBUFS;
        return NULL;
    }
    need += 1; /* cannot overflow: the limit is a size that fits in memory */
    if (need > buffer->capacity) {
        size_t wanted = buffer->capacity < 64 ? 64 : buffer->capacity * 2;
        if (wanted > buffer->limit + 1)
            wanted = buffer->limit + 1;
        if (wanted < need)
            wanted = need;
        char *bigger = realloc(buffer->data, wanted);
        if (bigger == NULL) {
            buffer->error = -ENOMEM;
            return NULL;
        }
        buffer->data = bigger;
        buffer->capacity = wanted;
        buffer->data[buffer->length] = '\0';
    }
    return buffer->data + buffer->length;
}

void buffer_commit(struct buffer *buffer, size_t length)
{
    assert(buffer->data != NULL && length < buffer->capacity - buffer->length);
    buffer->length += length;
    buffer->data[buffer->length] = '\0';
}

int buffer_add(struct buffer *buffer, const void *bytes, size_t length)
{
    char *room = buffer_reserve(buffer, length);
    if (room == NULL)
        return buffer->error;
    if (length > 0)
        memcpy(room, bytes, length);
    buffer_commit(buffer, length);
    return 0;
}

int buffer_add_text(struct buffer *buffer, const char *text)
{
    return buffer_add(buffer, text, strlen(text));
}

int buffer_format(struct buffer *buffer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0 && buffer->error == 0)
        buffer->error = -EINVAL;
    if (buffer->error < 0)
        return buffer->error;
    char *room = buffer_reserve(buffer, (size_t)length);
    if (room == NULL)
        return buffer->error;
    va_start(arguments, format);
    vsnprintf(room, (size_t)length + 1, format, arguments); /* reserve keeps room for the NUL */
    va_end(arguments);
    buffer_commit(buffer, (size_t)length);
    return 0;
}

char *buffer_steal(struct buffer *buffer)
{
    if (buffer_reserve(buffer, 0) == NULL) {
        buffer_free(buffer);
        return NULL;
    }
    char *data = buffer->data;
    *buffer = (struct buffer)BUFFER_INIT(buffer->limit);
    return data;
}

void buffer_free(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer)BUFFER_INIT(buffer->limit);
}
