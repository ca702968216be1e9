// SPDX-License-Identifier: Apache-2.0
/* virtio-mmio from the driver's side: an echo through the registers, the ladder of status bits, and what a driver may
 * not do. The driver sets queues up in the order that Linux does. */
#include "test.h"

#include "base/clock.h"
#include "driver.h"
#include "virtio/mmio.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { /* registers, written down a second time (virtio 1.2, 4.2.2) */
       DEVICE_FEATURES = 0x10,
       DEVICE_FEATURES_SELECT = 0x14,
       DRIVER_FEATURES = 0x20,
       DRIVER_FEATURES_SELECT = 0x24,
       QUEUE_SELECT = 0x30,
       QUEUE_SIZE_MAX = 0x34,
       QUEUE_SIZE = 0x38,
       QUEUE_READY = 0x44,
       QUEUE_NOTIFY = 0x50,
       INTERRUPT_STATUS = 0x60,
       INTERRUPT_ACKNOWLEDGE = 0x64,
       STATUS = 0x70,
       DESCRIPTORS_LOW = 0x80,
       AVAILABLE_LOW = 0x90,
       USED_LOW = 0xa0,
       WINDOW_SELECT = 0xac,
       CONFIG_GENERATION = 0xfc,
       CONFIG = 0x100,
};

enum { entries = 8, queue_count = 2, patience_ms = 10000 };
enum { ready = VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK, running = ready | VIRTIO_DRIVER_OK };
enum { used_bit = 1, config_bit = 2 };

static const uint64_t type_feature = 1 << 5;

static struct driver driver;
static struct virtio_device *device;
static struct mmio *mmio;
static int interrupt_fd = -1;

/* Touched by the device's functions; read when no thread runs them. */
static unsigned started, stopped;
static uint64_t started_features;
static bool holds; /* chains are taken and not given back */
static uint16_t held[entries];
static unsigned held_count;

/* ---- a device that echoes ---- */

static void start(void *state, uint64_t features)
{
    (void)state;
    started++;
    started_features = features;
}

static void stop(void *state)
{
    (void)state;
    stopped++;
}

static void serve(void *state, unsigned queue)
{
    struct queue_chain chain;
    uint8_t bytes[64];
    (void)state;
    while (virtio_pop(device, queue, &chain)) {
        if (holds) {
            held[held_count++ % entries] = chain.head;
            continue;
        }
        size_t length = virtio_read_spans(chain.readable, chain.readable_count, 0, bytes, sizeof(bytes));
        length = virtio_write_spans(chain.writable, chain.writable_count, 0, bytes, length);
        virtio_push(device, queue, chain.head, (uint32_t)length);
    }
    virtio_call(device, queue);
}

static void push_held(void *state, void *argument)
{
    (void)state;
    (void)argument;
    for (unsigned i = 0; i < held_count; i++)
        virtio_push(device, 0, held[i], 64);
    virtio_call(device, 0);
}

static const struct virtio_device_ops ops = {
    .type = VIRTIO_TYPE_RNG, .name = "echo", .start = start, .serve = serve, .stop = stop};

static const uint16_t sizes[] = {entries, entries};
static const struct virtio_device_options options = {.ops = &ops,
                                                     .features = UINT64_C(1) << 5,
                                                     .queue_sizes = sizes,
                                                     .queue_count = queue_count,
                                                     .config_bytes = 16,
                                                     .writable_offset = 8,
                                                     .writable_bytes = 8};

static void begin(void)
{
    started = stopped = held_count = 0;
    holds = false;
    driver_init(&driver, entries);
    interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (interrupt_fd < 0 || virtio_device_new(&options, &device) < 0 ||
        mmio_new(device, driver.memory, interrupt_fd, &mmio) < 0)
        abort();
}

static void end(void)
{
    mmio = mmio_free(mmio);
    device = virtio_device_free(device);
    driver_release(&driver);
    close(interrupt_fd);
}

/* ---- a driver ---- */

static uint32_t get(uint64_t offset)
{
    uint32_t value = 0xdddddddd;
    mmio_read(mmio, offset, &value, sizeof(value));
    return value;
}

static void put(uint64_t offset, uint32_t value)
{
    mmio_write(mmio, offset, &value, sizeof(value));
}

static void put_features(uint64_t features)
{
    put(DRIVER_FEATURES_SELECT, 1);
    put(DRIVER_FEATURES, (uint32_t)(features >> 32));
    put(DRIVER_FEATURES_SELECT, 0);
    put(DRIVER_FEATURES, (uint32_t)features);
}

static void put_address(uint64_t low_offset, uint64_t address)
{
    put(low_offset, (uint32_t)address);
    put(low_offset + 4, (uint32_t)(address >> 32));
}

static void put_queue(uint32_t index, const struct queue_layout *layout)
{
    put(QUEUE_SELECT, index);
    put(QUEUE_SIZE, layout->entries);
    put_address(DESCRIPTORS_LOW, layout->descriptors);
    put_address(AVAILABLE_LOW, layout->available);
    put_address(USED_LOW, layout->used);
    put(QUEUE_READY, 1);
}

/* Up to the step at which queues are set up. */
static void negotiate(uint64_t features)
{
    put(STATUS, 0);
    put(STATUS, VIRTIO_ACKNOWLEDGE);
    put(STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    put_features(features);
    put(STATUS, ready);
}

static void start_driver(uint64_t features)
{
    struct queue_layout layout = driver_layout(&driver);
    negotiate(features | VIRTIO_F_VERSION_1);
    put_queue(0, &layout);
    put(STATUS, running);
}

/* Forgets the rings, as a driver does that sets the device up again. */
static void empty_rings(void)
{
    driver.next_available = driver.last_used = 0;
    driver_set_available(&driver, 0);
    driver_put_16(&driver, DRIVER_USED + 2, 0);
}

static bool has_interrupt(int wait_ms)
{
    eventfd_t count;
    struct pollfd wait = {.fd = interrupt_fd, .events = POLLIN};
    return poll(&wait, 1, wait_ms) == 1 && eventfd_read(interrupt_fd, &count) == 0;
}

/* An echo there and back, on the caller's thread. */
static bool echoes(const char *text)
{
    driver_offer_text(&driver, text);
    put(QUEUE_NOTIFY, 0);
    virtio_device_turn(device);
    return driver_takes_text(&driver, text);
}

/* ---- what a device is ---- */

TEST(registers_say_what_the_device_is)
{
    begin();
    CHECK_INT(get(0x000), 0x74726976);
    CHECK_INT(get(0x004), 2);
    CHECK_INT(get(0x008), VIRTIO_TYPE_RNG);
    CHECK_INT(get(0x00c), 0x4c414956);
    put(DEVICE_FEATURES_SELECT, 0);
    CHECK_INT(get(DEVICE_FEATURES), type_feature | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC);
    put(DEVICE_FEATURES_SELECT, 1);
    CHECK_INT(get(DEVICE_FEATURES), VIRTIO_F_VERSION_1 >> 32);
    put(DEVICE_FEATURES_SELECT, 2);
    CHECK_INT(get(DEVICE_FEATURES), 0);
    put(DEVICE_FEATURES_SELECT, UINT32_MAX);
    CHECK_INT(get(DEVICE_FEATURES), 0);
    end();
}

TEST(registers_are_32_bits_wide_and_aligned)
{
    begin();
    for (uint32_t length = 1; length <= 8; length++) {
        for (uint64_t offset = 0; offset < 12; offset++) {
            uint8_t bytes[9];
            memset(bytes, 7, sizeof(bytes));
            mmio_read(mmio, offset, bytes, length);
            CHECK_INT(bytes[length], 7);
            bool is_right = length == 4 && offset % 4 == 0;
            CHECK_INT(bytes[0] != 0, is_right);
            for (uint32_t i = 0; i < length && !is_right; i++)
                CHECK_INT(bytes[i], 0);
        }
        for (uint64_t offset = STATUS - 3; offset <= STATUS + 3; offset++) {
            static const uint8_t ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
            mmio_write(mmio, offset, ones, length);
            CHECK_INT(get(STATUS), length == 4 && offset == STATUS ? VIRTIO_ACKNOWLEDGE : 0);
            put(STATUS, 0);
        }
    }
    put(MMIO_BYTES, 1); /* behind the last byte there is nothing */
    put(UINT64_MAX - 3, 1);
    CHECK_INT(get(MMIO_BYTES), 0);
    CHECK_INT(get(UINT64_MAX - 3), 0);
    end();
}

TEST(the_configuration_space_has_every_width)
{
    uint8_t bytes[16], content[16];
    begin();
    for (uint8_t i = 0; i < 16; i++)
        content[i] = (uint8_t)(i + 1);
    virtio_set_config(device, 0, content, sizeof(content));
    for (uint32_t length = 1; length <= 8; length++) {
        for (uint32_t offset = 0; offset < 24; offset++) {
            memset(bytes, 99, sizeof(bytes));
            mmio_read(mmio, CONFIG + offset, bytes, length);
            for (uint32_t i = 0; i < length; i++)
                CHECK_INT(bytes[i], offset + i < 16 ? offset + i + 1 : 0);
            CHECK_INT(bytes[length], 99);
        }
    }
    mmio_read(mmio, MMIO_BYTES - 1, bytes, 8);
    CHECK_INT(bytes[7], 0);
    put(CONFIG + 4, 0x01020304); /* read-only */
    put(CONFIG + 6, 0x01020304); /* half of it */
    put(CONFIG + 12, 0x0a0b0c0d);
    CHECK_INT(get(CONFIG + 4), 0x08070605);
    CHECK_INT(get(CONFIG + 8), 0x0c0b0a09);
    CHECK_INT(get(CONFIG + 12), 0x0a0b0c0d);
    end();
}

TEST(windows_are_shown)
{
    static const struct virtio_window windows[] = {{.guest = UINT64_C(0x2300000000), .size_bytes = 0x45000, .id = 0},
                                                   {.guest = 0x1000, .size_bytes = UINT64_C(1) << 33, .id = 255}};
    static const struct {
        uint32_t select;
        uint64_t size_bytes, guest;
    } rows[] = {{0, 0x45000, UINT64_C(0x2300000000)},
                {255, UINT64_C(1) << 33, 0x1000},
                {1, UINT64_MAX, UINT64_MAX},
                {256, UINT64_MAX, UINT64_MAX}, /* not window 0 */
                {UINT32_MAX, UINT64_MAX, UINT64_MAX}};
    begin();
    virtio_device_add_window(device, &windows[0]);
    virtio_device_add_window(device, &windows[1]);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        put(WINDOW_SELECT, rows[i].select);
        CHECK((get(0xb0) | (uint64_t)get(0xb4) << 32) == rows[i].size_bytes);
        CHECK((get(0xb8) | (uint64_t)get(0xbc) << 32) == rows[i].guest);
    }
    end();
}

/* ---- the ladder ---- */

/* Writes to the status, and what is read after them, up to a row's 0xffff. VERSION_1 is taken as soon as it can be. */
static const struct {
    const char *what;
    uint32_t writes[6], reads[6];
} climbs[] = {
    {"one step at a time", {1, 3, 11, 15, 0, 0xffff}, {1, 3, 11, 15, 0}},
    {"only the new bit", {1, 2, 8, 4, 0xffff}, {1, 3, 11, 15}},
    {"all at once, without features", {15, 0xffff}, {3}},
    {"two at once", {3, 15, 0xffff}, {3, 15}},
    {"DRIVER first", {2, 1, 0xffff}, {0, 1}},
    {"FEATURES_OK first", {8, 9, 11, 0xffff}, {0, 1, 3}},
    {"DRIVER_OK first", {4, 5, 7, 11, 0xffff}, {0, 1, 3, 11}},
    {"steps back", {1, 3, 11, 15, 1, 0xffff}, {1, 3, 11, 15, 15}},
    {"bits that are not of the driver", {64, 0x30, 0x100, 0xffffff00, 0x41, 0xffff}, {0, 0, 0, 0, 1}},
    {"given up at once", {128, 1, 15, 0, 1, 0xffff}, {128, 128, 128, 0, 1}},
    {"given up while running", {3, 15, 143, 64, 0, 0xffff}, {3, 15, 143, 143, 0}},
    {"given up in the same write", {3, 255, 0xffff}, {3, 131}},
    {"again after a reset", {3, 15, 0, 3, 15, 0xffff}, {3, 15, 0, 3, 15}},
};

static bool climb(size_t row)
{
    for (size_t i = 0; i < 6 && climbs[row].writes[i] != 0xffff; i++) {
        put(STATUS, climbs[row].writes[i]);
        if (get(STATUS) != climbs[row].reads[i])
            return false;
        if (climbs[row].reads[i] == 3)
            put_features(VIRTIO_F_VERSION_1);
    }
    return true;
}

TEST(the_ladder_has_these_steps)
{
    for (size_t row = 0; row < sizeof(climbs) / sizeof(climbs[0]); row++) {
        begin();
        if (!climb(row))
            test_fail(__FILE__, __LINE__, "%s: the status is %#x", climbs[row].what, get(STATUS));
        bool is_running = (get(STATUS) & (VIRTIO_DRIVER_OK | VIRTIO_FAILED)) == VIRTIO_DRIVER_OK;
        CHECK_INT(started - stopped, is_running);
        end();
        CHECK_INT(started, stopped);
    }
}

/* No bit without those below it, and none that goes away, whatever is written in whatever order. */
TEST(no_order_of_writes_leads_off_the_ladder)
{
    static const uint32_t writes[] = {0, 1, 2, 3, 4, 7, 8, 11, 15, 64, 128, 255, 0x10b};
    enum { count = sizeof(writes) / sizeof(writes[0]), depth = 4 };
    begin();
    for (unsigned sequence = 0; sequence < count * count * count * count; sequence++) {
        uint32_t before = 0;
        unsigned rest = sequence;
        put(STATUS, 0);
        for (int i = 0; i < depth; i++, rest /= count) {
            uint32_t value = writes[rest % count];
            put_features(VIRTIO_F_VERSION_1);
            put(STATUS, value);
            uint32_t after = get(STATUS), more = after & ~before;
            CHECK(value == 0 ? after == 0 : (after & before) == before);
            CHECK((more & ~value) == 0);
            CHECK((after & VIRTIO_DRIVER) == 0 || (after & VIRTIO_ACKNOWLEDGE) != 0);
            CHECK((after & VIRTIO_FEATURES_OK) == 0 || (after & VIRTIO_DRIVER) != 0);
            CHECK((after & VIRTIO_DRIVER_OK) == 0 || (after & VIRTIO_FEATURES_OK) != 0);
            CHECK((before & VIRTIO_FAILED) == 0 || value == 0 || after == before);
            CHECK_INT(started - stopped, (after & (VIRTIO_DRIVER_OK | VIRTIO_FAILED)) == VIRTIO_DRIVER_OK);
            before = after;
        }
    }
    CHECK(started > 100);
    end();
}

TEST(features_are_taken_between_driver_and_features_ok)
{
    static const struct {
        uint64_t features;
        bool is_right;
    } rows[] = {
        {VIRTIO_F_VERSION_1, true},
        {VIRTIO_F_VERSION_1 | UINT64_C(1) << 5 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC, true},
        {0, false},
        {UINT64_C(1) << 5, false},
        {VIRTIO_F_VERSION_1 | 1, false},
        {VIRTIO_F_VERSION_1 | UINT64_C(1) << 63, false},
        {UINT64_MAX, false},
    };
    begin();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        negotiate(rows[i].features);
        CHECK_INT(get(STATUS), rows[i].is_right ? ready : 3);
        put(STATUS, running);
        CHECK_INT(get(STATUS), rows[i].is_right ? running : 3);
    }
    put(STATUS, 0);
    put_features(VIRTIO_F_VERSION_1); /* too early */
    put(STATUS, ready);
    CHECK_INT(get(STATUS), 3);
    put_features(VIRTIO_F_VERSION_1 | 1); /* refused, */
    put(STATUS, ready);
    CHECK_INT(get(STATUS), 3);
    put_features(VIRTIO_F_VERSION_1); /* and a second try */
    put(DRIVER_FEATURES_SELECT, 2);
    put(DRIVER_FEATURES, UINT32_MAX); /* a word that does not exist */
    put(STATUS, ready);
    CHECK_INT(get(STATUS), ready);
    put_features(VIRTIO_F_VERSION_1 | type_feature); /* too late */
    put(STATUS, running);
    CHECK(started_features == VIRTIO_F_VERSION_1);
    end();
}

/* ---- queues ---- */

TEST(queues_beyond_the_last_are_not_there)
{
    static const uint32_t beyond[] = {queue_count, 0x7fffffff, UINT32_MAX};
    struct queue_layout layout = driver_layout(&driver);
    begin();
    negotiate(VIRTIO_F_VERSION_1);
    for (size_t i = 0; i < 3; i++) {
        put_queue(beyond[i], &layout);
        CHECK_INT(get(QUEUE_READY), 0);
        CHECK_INT(get(QUEUE_SIZE_MAX), 0);
    }
    put(QUEUE_SELECT, queue_count - 1);
    CHECK_INT(get(QUEUE_SIZE_MAX), entries);
    put(STATUS, running);
    for (size_t i = 0; i < 3; i++)
        put(QUEUE_NOTIFY, beyond[i]);
    put(QUEUE_NOTIFY, 0x10000); /* the index has 16 bits, but the register has 32 */
    virtio_device_turn(device);
    CHECK_INT(get(STATUS), running);
    end();
}

TEST(a_queue_is_set_up_on_its_step_only)
{
    struct queue_layout right = {0}, wrong = {.descriptors = 8, .available = 1, .used = 1, .entries = 3};
    begin();
    right = driver_layout(&driver);
    put_queue(0, &right);
    CHECK_INT(get(QUEUE_READY), 0);
    put(STATUS, 1);
    put_queue(0, &right);
    put(STATUS, 3);
    put_queue(0, &right);
    CHECK_INT(get(QUEUE_READY), 0);
    put_features(VIRTIO_F_VERSION_1);
    put(STATUS, ready);
    CHECK_INT(get(QUEUE_READY), 0);
    put_queue(0, &wrong);
    CHECK_INT(get(QUEUE_READY), 1);
    put(QUEUE_READY, 0); /* the driver thinks again */
    CHECK_INT(get(QUEUE_READY), 0);
    put_queue(0, &right);
    put_queue(0, &wrong); /* frozen while it is ready */
    put(STATUS, running);
    CHECK_INT(get(STATUS), running);
    CHECK(echoes("first"));
    put(QUEUE_READY, 0); /* and from here on for good */
    CHECK_INT(get(QUEUE_READY), 1);
    put_queue(0, &wrong);
    put_queue(1, &right);
    CHECK_INT(get(QUEUE_READY), 0);
    CHECK(echoes("second"));
    put(STATUS, 0);
    put(QUEUE_SELECT, 0);
    CHECK_INT(get(QUEUE_READY), 0);
    put(STATUS, ready | VIRTIO_FAILED);
    put_queue(0, &right);
    CHECK_INT(get(QUEUE_READY), 0);
    end();
}

TEST(queues_that_cannot_be_need_a_reset)
{
    const uint64_t end_of_ram = 2 << 20;
    const struct {
        uint32_t size;
        uint64_t descriptors, available, used;
    } rows[] = {
        {0, 0x10000, 0x20000, 0x30000},
        {3, 0x10000, 0x20000, 0x30000},
        {2 * entries, 0x10000, 0x20000, 0x30000},
        {0x10000 + entries, 0x10000, 0x20000, 0x30000}, /* not the low half of it */
        {UINT32_MAX, 0x10000, 0x20000, 0x30000},
        {entries, 0x10008, 0x20000, 0x30000},
        {entries, 0x10000, 0x20001, 0x30000},
        {entries, 0x10000, 0x20000, 0x30002},
        {entries, end_of_ram - 16, 0x20000, 0x30000},
        {entries, 0x10000, MEMORY_GAP_START, 0x30000},
        {entries, 0x10000, 0x20000, UINT64_MAX - 3},
        {entries, UINT64_C(1) << 32 | 0x10000, 0x20000, 0x30000}, /* not the low half of it either */
    };
    begin();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        negotiate(VIRTIO_F_VERSION_1);
        put(QUEUE_SELECT, 0);
        put(QUEUE_SIZE, rows[i].size);
        put_address(DESCRIPTORS_LOW, rows[i].descriptors);
        put_address(AVAILABLE_LOW, rows[i].available);
        put_address(USED_LOW, rows[i].used);
        put(QUEUE_READY, 1);
        put(STATUS, running);
        CHECK_INT(get(STATUS), running | VIRTIO_NEEDS_RESET);
        CHECK_INT(get(INTERRUPT_STATUS), config_bit);
        CHECK(has_interrupt(0));
        CHECK_INT(started, 0);
        CHECK_INT(virtio_device_faults(device), i + 1);
        put(QUEUE_NOTIFY, 0);
        virtio_device_turn(device);
    }
    start_driver(0);
    CHECK(echoes("after all"));
    end();
}

/* ---- running ---- */

TEST(data_comes_back_and_an_interrupt_with_it)
{
    begin();
    start_driver(0);
    CHECK_INT(get(STATUS), running);
    CHECK_INT(get(INTERRUPT_STATUS), 0);
    CHECK(echoes("hello"));
    CHECK(has_interrupt(0));
    CHECK_INT(get(INTERRUPT_STATUS), used_bit);
    CHECK(echoes("again")); /* not acknowledged: an edge all the same */
    CHECK(has_interrupt(0));
    virtio_set_config(device, 0, "x", 1);
    CHECK(has_interrupt(0));
    CHECK_INT(get(INTERRUPT_STATUS), used_bit | config_bit);
    put(INTERRUPT_ACKNOWLEDGE, used_bit);
    CHECK_INT(get(INTERRUPT_STATUS), config_bit);
    put(INTERRUPT_ACKNOWLEDGE, ~(uint32_t)config_bit);
    CHECK_INT(get(INTERRUPT_STATUS), config_bit);
    put(INTERRUPT_ACKNOWLEDGE, UINT32_MAX);
    CHECK_INT(get(INTERRUPT_STATUS), 0);
    CHECK(!has_interrupt(0));
    end();
}

TEST(data_comes_back_from_the_devices_thread)
{
    begin();
    CHECK_INT(virtio_device_launch(device), 0);
    for (int life = 0; life < 20; life++) {
        start_driver(life % 2 == 0 ? 0 : VIRTIO_F_EVENT_IDX);
        for (int i = 0; i < 20; i++) {
            const char *text = i % 2 == 0 ? "even" : "odd";
            driver_put_16(&driver, DRIVER_AVAILABLE + 4 + 2 * entries, driver.last_used);
            driver_offer_text(&driver, text);
            put(QUEUE_NOTIFY, 0);
            while (driver_get_16(&driver, DRIVER_USED + 2) == driver.last_used) {
                CHECK(has_interrupt(patience_ms));
                put(INTERRUPT_ACKNOWLEDGE, get(INTERRUPT_STATUS));
            }
            CHECK(driver_takes_text(&driver, text));
        }
        driver_offer_text(&driver, "late");
        put(QUEUE_NOTIFY, 0); /* served or not: once the reset has returned, nothing comes any more */
        put(STATUS, 0);
        uint16_t used = driver_get_16(&driver, DRIVER_USED + 2);
        has_interrupt(0);
        virtio_device_run(device, push_held, NULL);
        CHECK_INT(get(INTERRUPT_STATUS), 0);
        CHECK(!has_interrupt(0));
        CHECK_INT(driver_get_16(&driver, DRIVER_USED + 2), used);
        empty_rings();
    }
    end();
    CHECK_INT(started, 20);
    CHECK_INT(stopped, 20);
}

TEST(a_reset_puts_every_register_back)
{
    uint32_t fresh[0x40], now[0x40];
    begin();
    virtio_set_config(device, 0, "config", 6);
    for (uint32_t i = 0; i < 0x40; i++)
        fresh[i] = get(4 * (uint64_t)i);
    start_driver(0);
    CHECK(echoes("hello"));
    put(DEVICE_FEATURES_SELECT, 1);
    put(QUEUE_SELECT, 7);
    put(WINDOW_SELECT, 3);
    put(STATUS, 0);
    for (uint32_t i = 0; i < 0x40; i++)
        now[i] = get(4 * (uint64_t)i);
    CHECK(memcmp(fresh, now, sizeof(now)) == 0);
    CHECK_INT(stopped, 1);
    put(STATUS, 0);
    CHECK_INT(stopped, 1);
    put(STATUS, 1);
    put(STATUS, ready); /* the features that were taken are forgotten, too */
    CHECK_INT(get(STATUS), 3);
    end();
}

TEST(requests_in_flight_end_with_a_reset)
{
    static const uint32_t ends[] = {0, running | VIRTIO_FAILED};
    for (size_t i = 0; i < 2; i++) {
        begin();
        holds = true;
        CHECK_INT(virtio_device_launch(device), 0);
        driver_offer_text(&driver, "hello");
        start_driver(0);
        virtio_device_run(device, push_held, &held_count); /* behind the serving of what was there */
        put(STATUS, ends[i]);
        driver_put_16(&driver, DRIVER_USED + 2, 0x5555);
        virtio_device_run(device, push_held, NULL);
        put(QUEUE_NOTIFY, 0);
        virtio_device_run(device, push_held, NULL);
        CHECK_INT(driver_get_16(&driver, DRIVER_USED + 2), 0x5555);
        CHECK_INT(get(STATUS), ends[i]);
        CHECK_INT(stopped, 1);
        end();
        CHECK_INT(stopped, 1);
    }
}

TEST(a_broken_ring_needs_a_reset)
{
    begin();
    start_driver(0);
    driver_offer(&driver, entries); /* no such descriptor */
    put(QUEUE_NOTIFY, 0);
    virtio_device_turn(device);
    CHECK_INT(get(STATUS), running | VIRTIO_NEEDS_RESET);
    CHECK_INT(get(INTERRUPT_STATUS), config_bit);
    CHECK(has_interrupt(0));
    put(STATUS, running | 0x10);
    CHECK_INT(get(STATUS), running | VIRTIO_NEEDS_RESET);
    put(STATUS, running | VIRTIO_NEEDS_RESET | VIRTIO_FAILED); /* how a driver gives up on it */
    CHECK_INT(get(STATUS), running | VIRTIO_NEEDS_RESET | VIRTIO_FAILED);
    CHECK_INT(stopped, 1);
    put(STATUS, 0);
    CHECK_INT(get(STATUS), 0);
    CHECK_INT(get(INTERRUPT_STATUS), 0);
    empty_rings();
    start_driver(0);
    CHECK(echoes("again"));
    end();
}

TEST(a_change_while_the_driver_sets_up_is_not_lost)
{
    struct queue_layout layout = {0};
    begin();
    layout = driver_layout(&driver);
    negotiate(VIRTIO_F_VERSION_1);
    CHECK_INT(get(CONFIG), 0);
    uint32_t before = get(CONFIG_GENERATION);
    virtio_set_config(device, 0, "abcd", 4);
    CHECK(get(CONFIG_GENERATION) != before);
    CHECK(!has_interrupt(0)); /* nothing is told before DRIVER_OK */
    put_queue(0, &layout);
    put(STATUS, running);
    CHECK(has_interrupt(0));
    CHECK_INT(get(INTERRUPT_STATUS), config_bit);
    end();
}

/* ---- life ---- */

TEST(mmio_survives_no_memory)
{
    driver_init(&driver, entries);
    CHECK_INT(virtio_device_new(&options, &device), 0);
    FOR_EACH_FAULT
    {
        mmio = NULL;
        CHECK_INT(mmio_new(device, driver.memory, -1, &mmio), fault_was_hit() ? -ENOMEM : 0);
        mmio = mmio_free(mmio);
    }
    CHECK(mmio_free(NULL) == NULL);
    device = virtio_device_free(device);
    driver_release(&driver);
}

TEST(a_transport_may_go_while_the_device_runs)
{
    begin();
    CHECK_INT(virtio_device_launch(device), 0);
    start_driver(0);
    driver_offer_text(&driver, "hello");
    put(QUEUE_NOTIFY, 0);
    mmio = mmio_free(mmio);
    started = stopped;
    end();
    CHECK_INT(started, stopped); /* and it is stopped once */
}

/* ---- everything at once ---- */

enum { stress_threads = 4 };
static atomic_bool is_over;
static atomic_uint resets;

static void write_at_random(unsigned *seed)
{
    static const uint32_t offsets[] = {
        STATUS,          STATUS,          QUEUE_NOTIFY,      QUEUE_SELECT,          QUEUE_SIZE, QUEUE_READY,
        DESCRIPTORS_LOW, DRIVER_FEATURES, CONFIG_GENERATION, INTERRUPT_ACKNOWLEDGE, CONFIG + 8, CONFIG};
    static const uint32_t values[] = {0, 1, 3, 11, 15, 128, entries, 0x10000, UINT32_MAX};
    *seed = *seed * 1103515245 + 12345;
    uint64_t offset = offsets[(*seed >> 16) % (sizeof(offsets) / sizeof(offsets[0]))];
    if ((*seed & 0x1000) != 0)
        get(offset);
    else
        put(offset, values[(*seed >> 20) % (sizeof(values) / sizeof(values[0]))]);
}

static void *disturb(void *argument)
{
    unsigned seed = *(const unsigned *)argument;
    while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
        for (unsigned i = 0; i < seed % 64; i++)
            write_at_random(&seed);
        start_driver(0); /* often enough it gets there, in spite of the others */
        put(QUEUE_NOTIFY, 0);
        write_at_random(&seed);
        put(STATUS, 0);
        resets++;
        seed++;
    }
    return NULL;
}

TEST(four_cpus_that_set_up_and_reset_at_once)
{
    pthread_t threads[stress_threads];
    unsigned seeds[stress_threads] = {1, 22, 333, 4444};
    begin();
    is_over = false;
    resets = 0;
    for (uint16_t i = 0; i < entries; i++)
        driver_describe(&driver, DRIVER_DESCRIPTORS, i, DRIVER_BUFFERS, 16, i % 2, (uint16_t)(i + 1) % entries);
    driver_set_available(&driver, entries);
    CHECK_INT(virtio_device_launch(device), 0);
    for (int i = 0; i < stress_threads; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, disturb, &seeds[i]), 0);
    for (uint64_t end_ns = clock_now_ns() + 700000000; clock_now_ns() < end_ns;)
        virtio_device_run(device, push_held, NULL); /* the machine's owner has wishes, too */
    atomic_store(&is_over, true);
    for (int i = 0; i < stress_threads; i++)
        pthread_join(threads[i], NULL);
    CHECK(resets > 100);
    put(STATUS, 0);
    CHECK_INT(started, stopped);
    printf("# %u resets, %u of them of a running device\n", resets, stopped);
    CHECK(started > 10);
    empty_rings();
    start_driver(0);
    CHECK_INT(get(STATUS), running);
    driver_offer_text(&driver, "alive");
    while (has_interrupt(0))
        ;
    put(QUEUE_NOTIFY, 0);
    while (driver_get_16(&driver, DRIVER_USED + 2) == driver.last_used)
        CHECK(has_interrupt(patience_ms));
    CHECK(driver_takes_text(&driver, "alive"));
    end();
}
