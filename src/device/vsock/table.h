// SPDX-License-Identifier: Apache-2.0
/* The streams of a guest by their pair of ports. */
#ifndef DEVICE_VSOCK_TABLE_H
#define DEVICE_VSOCK_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct connection;

struct table {
    struct connection **buckets; /* owned array of borrowed streams, linked by next_in_bucket */
    size_t bucket_count, connection_count;
    uint64_t key;
};

int table_init(struct table *table);
void table_free(struct table *table);

struct connection *table_find(const struct table *table, uint32_t guest_port, uint32_t host_port); /* or NULL */

/* The pair of the stream is not in it. */
void table_add(struct table *table, struct connection *connection);

/* Harmless for one that is not in it. */
void table_remove(struct table *table, struct connection *connection);

#endif
