// SPDX-License-Identifier: Apache-2.0
/* The console against a driver that wants to harm it: control messages and rings that make no sense, buffers the wrong
 * way round, and memory that changes while it is read. */
#include "test.h"

#include "base/clock.h"
#include "base/fd.h"
#include "console_driver.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };

static struct console_driver driver;
static int pair[2];

/* A machine with two ports on one end of a socket; the other end is ours. */
static void begin(bool is_multiport)
{
    signal(SIGPIPE, SIG_IGN);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        abort();
    struct console_port_options ports[] = {
        {.is_console = true, .input_fd = -1, .output_fd = pair[1], .tty_fd = -1},
        {.name = "agent", .input_fd = pair[1], .output_fd = pair[1], .tty_fd = -1},
    };
    struct console_options options = {.ports = ports, .port_count = 2};
    console_driver_init(&driver, &options);
    console_driver_start(&driver, is_multiport);
}

static void end(void)
{
    console_driver_release(&driver);
    pair[0] = fd_close(pair[0]);
    pair[1] = fd_close(pair[1]);
}

static bool is_broken(void)
{
    return (console_register(&driver, 0x70) & VIRTIO_NEEDS_RESET) != 0;
}

static bool still_works(void)
{
    char got[8] = "";
    if (is_broken() || !console_write(&driver, 1, "ping", 4))
        return false;
    console_driver_turn(&driver);
    return read(pair[0], got, sizeof(got)) == 4 && memcmp(got, "ping", 4) == 0;
}

/* ---- control messages ---- */

TEST(senseless_messages_are_counted_and_passed_over)
{
    static const struct {
        uint32_t port;
        uint16_t event, value;
    } messages[] = {
        {2, SAY_PORT_READY, 1},
        {UINT32_MAX, SAY_PORT_READY, 1},
        {0x10000, SAY_OPEN, 1},
        {1, SAY_OPEN, 2},
        {1, SAY_OPEN, 65535},
        {1, SAY_PORT_READY, 0},
        {1, SAY_PORT_READY, 1},
        {0, SAY_DEVICE_READY, 0},
        {0, SAY_DEVICE_READY, 7},
        {1, SAY_PORT_ADD, 1},
        {1, SAY_PORT_REMOVE, 1},
        {1, SAY_NAME, 1},
        {1, SAY_RESIZE, 0},
        {1, SAY_CONSOLE, 1},
        {1, 8, 1},
        {1, 65535, 65535},
        {UINT32_MAX, 65535, 65535},
    };
    struct control_message message;
    begin(true);
    for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
        console_say(&driver, messages[i].port, messages[i].event, messages[i].value);
        CHECK_INT(console_ignored_messages(driver.device), (long)i + 1);
        CHECK(!console_hear(&driver, &message));
        CHECK(still_works());
    }
    end();
}

static void offer_message(uint64_t address, uint32_t length, uint16_t flags)
{
    uint16_t slot = driver.queues[CONTROL_TX].next_available % DRIVER_ENTRIES;
    console_describe(&driver, CONTROL_TX, slot, address, length, flags, 0);
    console_offer(&driver, CONTROL_TX, slot);
    console_driver_turn(&driver);
}

TEST(short_messages_and_those_the_wrong_way_round)
{
    begin(true);
    for (uint32_t length = 1; length < 8; length++)
        offer_message(console_buffer(CONTROL_TX, 0), length, 0);
    CHECK_INT(console_ignored_messages(driver.device), 7);
    offer_message(console_buffer(CONTROL_TX, 0), 8, WRITE); /* it says nothing, it wants to hear */
    CHECK_INT(console_ignored_messages(driver.device), 8);
    offer_message(console_buffer(CONTROL_TX, 0), 4096, 0); /* longer than any: the rest is not looked at */
    CHECK(still_works());
    end();
}

TEST(messages_in_pieces)
{
    begin(true);
    static const uint8_t open_again[] = {1, 0, 0, 0, SAY_OPEN, 0, 0, 0};
    memory_write(driver.guest, console_buffer(CONTROL_TX, 0), open_again, 8);
    for (uint16_t i = 0; i < 8; i++)
        console_describe(&driver, CONTROL_TX, (uint16_t)(40 + i), console_buffer(CONTROL_TX, 0) + i, 1,
                         i < 7 ? NEXT : 0, (uint16_t)(41 + i));
    console_offer(&driver, CONTROL_TX, 40);
    console_driver_turn(&driver);
    CHECK_INT(console_ignored_messages(driver.device), 0);
    CHECK_INT(write(pair[0], "closed", 6), 6); /* so nothing arrives */
    char got[DRIVER_BUFFER_BYTES];
    CHECK_INT(console_read(&driver, 1, got, sizeof(got)), 0);
    end();
}

/* ---- buffers that make no sense ---- */

TEST(buffers_the_wrong_way_round)
{
    begin(true);
    uint16_t head;
    uint32_t written;
    for (int i = 0; i < 200; i++) { /* nothing to read for us in a transmit queue */
        uint16_t slot = driver.queues[console_tx(1)].next_available % DRIVER_ENTRIES;
        console_describe(&driver, console_tx(1), slot, console_buffer(5, 0), 64, WRITE, 0);
        console_offer(&driver, console_tx(1), slot);
        console_driver_turn(&driver);
        CHECK(console_take(&driver, console_tx(1), &head, &written) && written == 0);
    }
    CHECK_INT(console_ignored_messages(driver.device), 200);
    CHECK(still_works());
    console_driver_climb(&driver, true); /* and no room in receive queues: each buffer comes back empty, once */
    for (uint16_t i = 0; i < DRIVER_ENTRIES; i++)
        console_describe(&driver, CONTROL_RX, i, console_buffer(CONTROL_RX, i), i % 2 == 0 ? 7 : 64,
                         i % 2 == 0 ? WRITE : 0, 0);
    console_say(&driver, 0, SAY_DEVICE_READY, 1);
    for (int i = 0; i < DRIVER_ENTRIES; i++)
        CHECK(console_take(&driver, CONTROL_RX, &head, &written) && written == 0);
    CHECK(!console_take(&driver, CONTROL_RX, &head, &written));
    CHECK_INT(console_ignored_messages(driver.device), 200 + DRIVER_ENTRIES);
    end();
}

TEST(receive_buffers_without_room)
{
    begin(true);
    char got[DRIVER_BUFFER_BYTES];
    for (uint16_t i = 0; i < DRIVER_ENTRIES - 1; i++)
        console_describe(&driver, console_rx(1), i, console_buffer(4, i), 64, 0, 0);
    CHECK_INT(write(pair[0], "through", 7), 7);
    for (int i = 0; i < 64; i++)
        console_driver_turn(&driver);
    uint16_t head;
    uint32_t written;
    for (int i = 0; i < DRIVER_ENTRIES - 1; i++)
        CHECK(console_take(&driver, console_rx(1), &head, &written) && written == 0);
    CHECK_INT(console_read(&driver, 1, got, sizeof(got)), 7);
    end();
}

/* ---- rings that make no sense ---- */

static void point_at_itself(unsigned queue)
{
    console_describe(&driver, queue, 0, console_buffer(queue, 0), 1, NEXT, 0);
}

static void loop_of_two(unsigned queue)
{
    console_describe(&driver, queue, 0, console_buffer(queue, 0), 1, NEXT, 1);
    console_describe(&driver, queue, 1, console_buffer(queue, 0), 1, NEXT, 0);
}

static void next_outside(unsigned queue)
{
    console_describe(&driver, queue, 0, console_buffer(queue, 0), 1, NEXT, 64);
}

static void no_length(unsigned queue)
{
    console_describe(&driver, queue, 0, console_buffer(queue, 0), 0, 0, 0);
}

static void length_wraps(unsigned queue)
{
    console_describe(&driver, queue, 0, 0x1000, UINT32_MAX, 0, 0);
}

static void address_wraps(unsigned queue)
{
    console_describe(&driver, queue, 0, UINT64_MAX - 4, 64, 0, 0);
}

static void in_the_hole(unsigned queue)
{
    console_describe(&driver, queue, 0, MEMORY_GAP_START, 64, 0, 0);
}

static void indirect_unasked(unsigned queue)
{
    console_describe(&driver, queue, 0, console_buffer(queue, 0), 16, INDIRECT, 0);
}

TEST(broken_rings_stop_the_device_until_reset)
{
    static void (*const breaks[])(unsigned) = {point_at_itself, loop_of_two,   next_outside, no_length,
                                               length_wraps,    address_wraps, in_the_hole,  indirect_unasked};
    static const unsigned queues[] = {1, CONTROL_TX, 5};
    begin(true);
    for (size_t i = 0; i < sizeof(breaks) / sizeof(breaks[0]); i++) {
        for (size_t j = 0; j < sizeof(queues) / sizeof(queues[0]); j++) {
            CHECK(still_works());
            breaks[i](queues[j]);
            console_offer(&driver, queues[j], 0);
            console_driver_turn(&driver);
            CHECK(is_broken());
            console_write(&driver, 1, "silent", 6);
            console_driver_turn(&driver);
            char got[8];
            CHECK_INT(read(pair[0], got, sizeof(got)), -1);
            console_driver_start(&driver, true);
        }
    }
    CHECK_INT(virtio_device_faults(driver.device), sizeof(breaks) / sizeof(breaks[0]) * 3);
    end();
}

TEST(an_index_that_jumps_and_rings_on_top_of_each_other)
{
    begin(true);
    console_put_16(&driver, console_ring(1) + 0x802, 65);
    virtio_kick(driver.device, 1);
    console_driver_turn(&driver);
    CHECK(is_broken());
    console_driver_start(&driver, true);
    CHECK(still_works());
    /* A receive buffer over the ring it comes from: what arrives is the guest's own loss. */
    for (uint16_t i = 0; i < DRIVER_ENTRIES; i++)
        console_describe(&driver, 4, i, console_ring(4), 4096, WRITE, 0);
    for (int i = 0; i < 100; i++) {
        char noise[64];
        memset(noise, i * 37, sizeof(noise));
        CHECK(write(pair[0], noise, sizeof(noise)) == sizeof(noise) || i > 0);
        console_driver_turn(&driver);
    }
    console_driver_start(&driver, true);
    CHECK(!is_broken());
    end();
}

TEST(endless_chains_are_taken_in_turns)
{
    begin(true);
    /* A guest that makes chains faster than we take them: the same descriptor is always there again. */
    console_describe(&driver, console_tx(1), 0, console_buffer(5, 0), 1, WRITE, 0);
    for (int i = 0; i < 3000; i++) {
        uint16_t head;
        uint32_t written;
        console_put_16(&driver, console_ring(5) + 0x804 + 2 * (uint64_t)(i % DRIVER_ENTRIES), 0);
        for (int j = 0; j < DRIVER_ENTRIES; j++)
            console_offer(&driver, 5, 0);
        virtio_device_turn(driver.device);
        while (console_take(&driver, 5, &head, &written))
            continue;
        if (is_broken())
            break;
    }
    CHECK(!is_broken());
    console_driver_reset(&driver);
    end();
}

/* ---- a guest that changes everything while we look ---- */

static atomic_bool is_over;

/* Low bytes of lengths and addresses, flags, links, heads, and now and then the index, of a few queues. */
static void *flip_bytes(void *argument)
{
    struct memory *memory = console_driver_map(argument);
    static const unsigned queues[] = {0, 1, 2, 3, 4, 5};
    static const uint8_t fields[] = {0, 1, 8, 9, 12, 14, 14};
    unsigned random = 1;
    while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
        random = random * 1103515245 + 12345;
        uint64_t ring = console_ring(queues[(random >> 8) % 6]);
        uint8_t *page = memory_span(memory, ring, 4096);
        size_t offset = (random >> 16) % 4 != 0 ? 16 * ((random >> 12) % DRIVER_ENTRIES) + fields[(random >> 20) % 7]
                                                : 0x804 + 2 * ((random >> 12) % DRIVER_ENTRIES);
        if ((random >> 24) % 64 == 0)
            offset = 0x802;
        __atomic_store_n(page + offset, (uint8_t)((random >> 21) & (offset % 16 == 12 ? 3 : 63)), __ATOMIC_RELAXED);
    }
    memory_free(memory);
    return NULL;
}

static void *read_all(void *argument)
{
    char bytes[4096];
    struct pollfd wait = {.fd = *(int *)argument, .events = POLLIN};
    while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
        if (poll(&wait, 1, 10) > 0 && read(wait.fd, bytes, sizeof(bytes)) <= 0)
            break;
        if (write(wait.fd, "input", 5) < 0)
            continue;
    }
    return NULL;
}

TEST(nothing_that_changes_meanwhile_does_harm)
{
    pthread_t flipper, reader;
    begin(true);
    driver.is_launched = true;
    CHECK_INT(virtio_device_launch(driver.device), 0);
    atomic_store(&is_over, false);
    CHECK_INT(pthread_create(&flipper, NULL, flip_bytes, &driver), 0);
    CHECK_INT(pthread_create(&reader, NULL, read_all, &pair[0]), 0);
    uint64_t until_ns = clock_deadline_ns(3 * CLOCK_NS_PER_S);
    unsigned resets = 0, kicks = 0;
    while (clock_now_ns() < until_ns) {
        for (unsigned queue = 0; queue < 6; queue++, kicks++)
            console_offer(&driver, queue, (uint16_t)(kicks % DRIVER_ENTRIES));
        if (is_broken()) {
            console_driver_climb(&driver, true);
            console_say(&driver, 0, SAY_DEVICE_READY, 1);
            resets++;
        }
    }
    atomic_store(&is_over, true);
    pthread_join(flipper, NULL);
    pthread_join(reader, NULL);
    printf("# %u kicks, %u resets, %llu messages passed over\n", kicks, resets,
           (unsigned long long)console_ignored_messages(driver.device));
    CHECK(resets > 20 && kicks > 1000);
    end();
}
