// SPDX-License-Identifier: Apache-2.0
/* Any rings: the input is written over the three parts of a queue and its tables, and the queue is served.
 *
 * The input's first bytes choose the layout, the rest is the ring's content, repeated over guest memory. What must
 * hold: each span lies in guest memory, a chain has at most as many links as the queue, readable and writable bytes
 * add up.
 */
#include "ring.h"

#include "virtio/queue.h"

#include <errno.h>

enum { ram_bytes = 1 << 16, most_entries = 64 };

static void check_spans(const struct iovec *spans, size_t count, uint64_t bytes, const uint8_t *ram)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *start = spans[i].iov_base;
        FUZZ_CHECK(start >= ram && start < ram + ram_bytes);
        FUZZ_CHECK(spans[i].iov_len > 0 && spans[i].iov_len <= (size_t)(ram + ram_bytes - start));
        sum += spans[i].iov_len;
    }
    FUZZ_CHECK(sum == bytes);
}

static void serve(struct queue *queue, const uint8_t *ram, unsigned mode)
{
    struct queue_chain chain;
    for (int round = 0; round < 200; round++) {
        int result = queue_pop(queue, &chain);
        FUZZ_CHECK((result == -EPROTO) == queue_is_broken(queue));
        if (result <= 0 && !queue_enable_kicks(queue))
            return;
        if (result <= 0)
            continue;
        FUZZ_CHECK(chain.readable_count + chain.writable_count <= most_entries);
        check_spans(chain.readable, chain.readable_count, chain.readable_bytes, ram);
        check_spans(chain.writable, chain.writable_count, chain.writable_bytes, ram);
        if (chain.writable_count > 0) /* a device writes, perhaps over the rings themselves */
            memset(chain.writable[0].iov_base, (int)mode, chain.writable[0].iov_len);
        if ((mode & 1) != 0 && round % 3 == 0)
            queue_unpop(queue);
        else if ((mode & 2) == 0 || round % 2 == 0)
            queue_push(queue, chain.head, (uint32_t)round);
        queue_needs_call(queue);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct memory *memory;
    static struct queue *queue;
    if (memory == NULL)
        FUZZ_CHECK(memory_new(ram_bytes, false, &memory) == 0 && queue_new(most_entries, &queue) == 0);
    if (size < 8)
        return 0;
    uint8_t *ram = memory_span(memory, 0, ram_bytes);
    fuzz_fill(ram, ram_bytes, data, size);
    struct queue_layout layout = fuzz_layout(data);
    if (queue_start(queue, memory, &layout) == 0)
        serve(queue, ram, data[3] >> 5);
    queue_stop(queue);
    return 0;
}
