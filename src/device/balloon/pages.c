// SPDX-License-Identifier: Apache-2.0
/* The requests of a balloon's driver that name pages. (virtio 1.2, 5.5.6)
 *
 * To inflate, the driver sends an array of page numbers, 32 bits each and little-endian. Pages that were allocated one
 * after the other often lie side by side, in rising or in falling order: such runs go back in one call.
 *
 *     17 18 19 20  9  8  7  42      becomes      [17,21)  [7,10)  [42,43)
 *
 * To report, the driver lends the free pages themselves, as writable buffers; these are known to be RAM already.
 *
 * A wrong page number, or a buffer that is not whole pages, is ignored and counted. The request around it is sound, all
 * that a guest can name is its own memory, and losing that is its own loss: no reason to reset the device of a driver
 * with a mistake. For the same reason it is allowed to discard a page twice, or the pages in which its rings are.
 *
 * Invariants: (1) only whole pages that are RAM are discarded. (2) a page number is read once. (3) a request names at
 * most LIMIT_BALLOON_PAGES pages or LIMIT_BALLOON_REPORT_BYTES; what is more is ignored and counted.
 *
 * Trust: page numbers, and the buffers that are lent, are a hostile guest's choice, and may change while we read.
 */
#include "device/balloon/pages.h"

#include "base/limits.h"

/* ---- page numbers ---- */

/* Copies the array that the request is: how many numbers. */
static size_t read_numbers(const struct queue_chain *chain, uint32_t numbers[LIMIT_BALLOON_PAGES],
                           struct balloon_counters *counters)
{
    uint64_t count = chain->readable_bytes / sizeof(numbers[0]);
    counters->ignored += chain->readable_bytes % sizeof(numbers[0]) != 0;
    if (count > LIMIT_BALLOON_PAGES) {
        counters->ignored += count - LIMIT_BALLOON_PAGES;
        count = LIMIT_BALLOON_PAGES;
    }
    virtio_read_spans(chain->readable, chain->readable_count, 0, numbers, count * sizeof(numbers[0]));
    return count;
}

static bool is_page(const struct memory *memory, uint64_t page)
{
    return memory_span(memory, page * BALLOON_PAGE_BYTES, BALLOON_PAGE_BYTES) != NULL;
}

struct run { /* of adjacent pages, [first, end) */
    uint64_t first, end;
};

/* Whether the page now is part of the run. */
static bool extend(struct run *run, uint64_t page)
{
    if (page == run->end)
        run->end++;
    else if (page + 1 == run->first)
        run->first--;
    return page >= run->first && page < run->end;
}

static void discard_run(const struct memory *memory, const struct run *run, struct balloon_counters *counters)
{
    uint64_t pages = run->end - run->first;
    if (pages == 0)
        return;
    if (memory_discard(memory, run->first * BALLOON_PAGE_BYTES, pages * BALLOON_PAGE_BYTES) < 0)
        counters->failed++;
}

void pages_inflate(const struct memory *memory, const struct queue_chain *chain, struct pages_work *work,
                   struct balloon_counters *counters)
{
    uint32_t numbers[LIMIT_BALLOON_PAGES];
    size_t count = read_numbers(chain, numbers, counters);
    struct run run = {0};
    for (size_t i = 0; i < count; i++) {
        if (!is_page(memory, numbers[i])) {
            counters->ignored++;
            continue;
        }
        counters->inflated_pages++;
        if (run.first != run.end && extend(&run, numbers[i]))
            continue;
        discard_run(memory, &run, counters);
        run = (struct run){.first = numbers[i], .end = (uint64_t)numbers[i] + 1};
    }
    discard_run(memory, &run, counters);
    work->pages += count;
}

void pages_deflate(const struct memory *memory, const struct queue_chain *chain, struct pages_work *work,
                   struct balloon_counters *counters)
{
    uint32_t numbers[LIMIT_BALLOON_PAGES];
    size_t count = read_numbers(chain, numbers, counters);
    for (size_t i = 0; i < count; i++)
        *(is_page(memory, numbers[i]) ? &counters->deflated_pages : &counters->ignored) += 1;
    work->pages += count;
}

/* ---- buffers ---- */

void pages_report(const struct memory *memory, const struct queue_chain *chain, struct pages_work *work,
                  struct balloon_counters *counters)
{
    uint64_t left = LIMIT_BALLOON_REPORT_BYTES;
    for (size_t i = 0; i < chain->writable_count; i++) {
        const struct iovec *span = &chain->writable[i];
        bool is_whole = ((uintptr_t)span->iov_base | span->iov_len) % BALLOON_PAGE_BYTES == 0;
        if (!is_whole || span->iov_len > left) {
            counters->ignored++;
            continue;
        }
        left -= span->iov_len;
        if (memory_discard_span(memory, span->iov_base, span->iov_len) < 0)
            counters->failed++;
        else
            counters->reported_bytes += span->iov_len;
    }
    work->pages += chain->writable_count;
    work->bytes += LIMIT_BALLOON_REPORT_BYTES - left;
}
