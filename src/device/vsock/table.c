// SPDX-License-Identifier: Apache-2.0
/* The streams of a guest by their pair of ports: a hash table with chains.
 *
 * The guest chooses one port of each pair and, where it connects, nearly the other, too. So the hash has a key that it
 * does not know; with the limit on streams even the worst chain would be walked in some microseconds.
 *
 * The table doubles when it has as many streams as buckets. Where there is no memory for that, chains get longer.
 *
 * Invariants: (1) bucket_count is a power of two. (2) a pair stands in it once at most.
 *
 * Trust: ports are the guest's.
 */
#include "device/vsock/table.h"

#include "base/alloc.h"
#include "device/vsock/connection.h"

#include <errno.h>
#include <sys/random.h>

enum { first_buckets = 64 };

int table_init(struct table *table)
{
    *table = (struct table){.bucket_count = first_buckets};
    if (getrandom(&table->key, sizeof(table->key), GRND_NONBLOCK) < 0)
        table->key = (uintptr_t)table; /* early in the host's boot; less to guess, and nothing else is lost */
    table->buckets = alloc_zero(first_buckets * sizeof(table->buckets[0]));
    return table->buckets == NULL ? -ENOMEM : 0;
}

void table_free(struct table *table)
{
    free(table->buckets);
    *table = (struct table){0};
}

static struct connection **bucket_of(const struct table *table, uint32_t guest_port, uint32_t host_port)
{
    uint64_t hash = ((uint64_t)guest_port << 32 | host_port) ^ table->key;
    hash *= UINT64_C(0x9e3779b97f4a7c15); /* 2^64 / golden ratio, odd */
    hash ^= hash >> 32;
    hash *= table->key | 1;
    hash ^= hash >> 32;
    return &table->buckets[hash & (table->bucket_count - 1)];
}

static struct connection **link_of(const struct table *table, uint32_t guest_port, uint32_t host_port)
{
    struct connection **link = bucket_of(table, guest_port, host_port);
    while (*link != NULL && ((*link)->guest_port != guest_port || (*link)->host_port != host_port))
        link = &(*link)->next_in_bucket;
    return link;
}

struct connection *table_find(const struct table *table, uint32_t guest_port, uint32_t host_port)
{
    return *link_of(table, guest_port, host_port);
}

static void grow(struct table *table)
{
    struct table larger = {.bucket_count = 2 * table->bucket_count, .key = table->key};
    larger.buckets = alloc_zero(larger.bucket_count * sizeof(larger.buckets[0]));
    if (larger.buckets == NULL)
        return;
    for (size_t i = 0; i < table->bucket_count; i++) {
        for (struct connection *connection = table->buckets[i], *next; connection != NULL; connection = next) {
            struct connection **bucket = bucket_of(&larger, connection->guest_port, connection->host_port);
            next = connection->next_in_bucket;
            connection->next_in_bucket = *bucket;
            *bucket = connection;
        }
    }
    free(table->buckets);
    table->buckets = larger.buckets;
    table->bucket_count = larger.bucket_count;
}

void table_add(struct table *table, struct connection *connection)
{
    if (table->connection_count >= table->bucket_count)
        grow(table);
    struct connection **bucket = bucket_of(table, connection->guest_port, connection->host_port);
    connection->next_in_bucket = *bucket;
    *bucket = connection;
    table->connection_count++;
}

void table_remove(struct table *table, struct connection *connection)
{
    struct connection **link = link_of(table, connection->guest_port, connection->host_port);
    if (*link != connection)
        return;
    *link = connection->next_in_bucket;
    connection->next_in_bucket = NULL;
    table->connection_count--;
}
