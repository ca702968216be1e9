// SPDX-License-Identifier: Apache-2.0
/* A virtio device without a transport: its thread, its turns, its configuration space, and what it does to a driver
 * that keeps no rule. The transport here only counts what it is told. */
#include "test.h"

#include "driver.h"
#include "vial/base.h"
#include "virtio/device.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

enum { entries = 8, config_bytes = 16, writable_offset = 4, writable_bytes = 8, patience_ms = 10000 };

static struct driver driver;
static struct virtio_device *device;
static char order[16]; /* one letter for each of the device's functions that was called */
static atomic_uint calls, config_changes, breaks, served, popped, config_writes, log_lines;
static atomic_bool is_greedy; /* the driver offers each chain again as soon as it is taken */
static int call_fd = -1;

/* ---- a device that echoes, and a transport that counts ---- */

static void note(char letter)
{
    size_t length = strlen(order);
    if (length + 1 < sizeof(order))
        order[length] = letter;
}

static void start(void *state, uint64_t features)
{
    (void)state;
    (void)features;
    note('s');
}

static void stop(void *state)
{
    (void)state;
    note('e');
}

static void release(void *state)
{
    (void)state;
    note('f');
}

static void echo(struct virtio_device *own, unsigned queue, const struct queue_chain *chain)
{
    uint8_t bytes[64];
    size_t length = virtio_read_spans(chain->readable, chain->readable_count, 0, bytes, sizeof(bytes));
    length = virtio_write_spans(chain->writable, chain->writable_count, 0, bytes, length);
    virtio_push(own, queue, chain->head, (uint32_t)length);
}

static unsigned drain(void)
{
    struct queue_chain chain;
    unsigned count = 0;
    while (count < 100000 && virtio_pop(device, 0, &chain)) {
        echo(device, 0, &chain);
        count++;
        if (is_greedy)
            driver_offer(&driver, chain.head);
    }
    virtio_call(device, 0);
    popped += count;
    return count;
}

static void count_served(void *state, void *argument)
{
    (void)state;
    (void)argument;
    served++;
}

static void serve(void *state, unsigned queue)
{
    (void)state;
    (void)queue;
    virtio_device_run(device, count_served, NULL); /* an ordinary call here */
    drain();
}

static void config_written(void *state, uint32_t offset, uint32_t length)
{
    (void)state;
    (void)offset;
    (void)length;
    config_writes++;
}

static const struct virtio_device_ops ops = {
    .type = VIRTIO_TYPE_RNG,
    .name = "echo",
    .start = start,
    .serve = serve,
    .stop = stop,
    .config_written = config_written,
    .free = release,
};

static void count_call(void *transport, unsigned queue)
{
    (void)transport;
    (void)queue;
    calls++;
    eventfd_write(call_fd, 1);
}

static void count_change(void *transport)
{
    (void)transport;
    config_changes++;
}

static void count_break(void *transport)
{
    (void)transport;
    breaks++;
}

static const struct virtio_transport_ops transport_ops = {
    .call = count_call, .config_changed = count_change, .broken = count_break};

static int make_device(void)
{
    static const uint16_t sizes[] = {entries, entries};
    struct virtio_device_options options = {
        .ops = &ops,
        .queue_sizes = sizes,
        .queue_count = 2,
        .config_bytes = config_bytes,
        .writable_offset = writable_offset,
        .writable_bytes = writable_bytes,
    };
    return virtio_device_new(&options, &device);
}

static void begin(void)
{
    memset(order, 0, sizeof(order));
    calls = config_changes = breaks = served = popped = config_writes = log_lines = 0;
    is_greedy = false;
    call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    driver_init(&driver, entries);
    if (call_fd < 0 || make_device() < 0)
        abort();
    virtio_device_attach(device, &transport_ops, NULL);
}

static void end(void)
{
    device = virtio_device_free(device);
    driver_release(&driver);
    close(call_fd);
}

static int start_with(const struct queue_layout *layout)
{
    struct queue_layout layouts[2] = {*layout};
    return virtio_device_start(device, driver.memory, VIRTIO_F_VERSION_1, layouts);
}

static int start_device(void)
{
    struct queue_layout layout = driver_layout(&driver);
    return start_with(&layout);
}

static bool was_called(void)
{
    eventfd_t count;
    struct pollfd wait = {.fd = call_fd, .events = POLLIN};
    return poll(&wait, 1, patience_ms) == 1 && eventfd_read(call_fd, &count) == 0;
}

static unsigned count_entries(const char *path)
{
    unsigned count = 0;
    DIR *list = opendir(path);
    while (list != NULL && readdir(list) != NULL)
        count++;
    if (list != NULL)
        closedir(list);
    return count;
}

/* ---- kicks ---- */

TEST(a_chain_is_served_where_the_caller_turns)
{
    begin();
    CHECK_INT(start_device(), 0);
    driver_offer_text(&driver, "hello");
    virtio_kick(device, 0);
    CHECK_INT(served, 0);
    virtio_device_turn(device);
    CHECK(driver_takes_text(&driver, "hello"));
    CHECK_INT(calls, 1);
    virtio_device_turn(device);
    CHECK_INT(served, 1);
    end();
}

TEST(a_chain_is_served_on_the_devices_thread)
{
    begin();
    CHECK_INT(virtio_device_launch(device), 0);
    CHECK_INT(start_device(), 0);
    for (int i = 0; i < 1000; i++) {
        driver_offer_text(&driver, i % 2 == 0 ? "even" : "odd");
        CHECK_INT(eventfd_write(virtio_device_kick_fd(device, 0), 1), 0);
        while (driver_get_16(&driver, DRIVER_USED + 2) == driver.last_used)
            CHECK(was_called());
        CHECK(driver_takes_text(&driver, i % 2 == 0 ? "even" : "odd"));
    }
    end();
}

TEST(a_device_that_has_started_may_be_launched)
{
    begin();
    CHECK_INT(start_device(), 0);
    driver_offer_text(&driver, "hello"); /* served at once, perhaps before virtio_device_launch has returned */
    CHECK_INT(virtio_device_launch(device), 0);
    CHECK(was_called());
    CHECK(driver_takes_text(&driver, "hello"));
    end();
}

TEST(what_came_before_the_start_is_served_after_it)
{
    begin();
    driver_offer_text(&driver, "early");
    virtio_kick(device, 0);
    virtio_device_turn(device); /* the only kick has gone by */
    CHECK_INT(served, 0);
    CHECK_INT(start_device(), 0);
    virtio_device_turn(device);
    CHECK(driver_takes_text(&driver, "early"));
    CHECK_INT(served, 1); /* and the queue that was not set up is not served */
    end();
}

/* A driver that kicks only when it is asked to, over and over: one lost kick or call and it waits for ever. */
static void play_without_a_spare_kick(bool has_event_index)
{
    begin();
    struct queue_layout layout = driver_layout(&driver);
    layout.has_event_index = has_event_index;
    CHECK_INT(virtio_device_launch(device), 0);
    CHECK_INT(start_with(&layout), 0);
    _Atomic uint16_t *flags = memory_span(driver.memory, DRIVER_USED, 2);
    _Atomic uint16_t *event = memory_span(driver.memory, DRIVER_USED + 4 + 8 * entries, 2);
    _Atomic uint16_t *used = memory_span(driver.memory, DRIVER_USED + 2, 2);
    _Atomic uint16_t *available = memory_span(driver.memory, DRIVER_AVAILABLE + 2, 2);
    driver_describe(&driver, DRIVER_DESCRIPTORS, 0, DRIVER_BUFFERS, 8, 0, 0);
    for (unsigned i = 0; i < 20000; i++) {
        uint16_t old = driver.next_available;
        driver_put_16(&driver, DRIVER_AVAILABLE + 4 + 2 * (uint64_t)(old % entries), 0);
        /* The event index at which we want to hear: the next one. */
        driver_put_16(&driver, DRIVER_AVAILABLE + 4 + 2 * entries, driver.last_used);
        atomic_store_explicit(available, ++driver.next_available, memory_order_release);
        atomic_thread_fence(memory_order_seq_cst);
        bool is_wanted = has_event_index ? *event == old : (*flags & 1) == 0;
        if (is_wanted)
            virtio_kick(device, 0);
        while (atomic_load_explicit(used, memory_order_acquire) == driver.last_used)
            CHECK(was_called());
        driver.last_used++;
    }
    virtio_device_stop(device); /* it may still be counting */
    CHECK_INT(popped, 20000);
    end();
}

TEST(no_kick_is_lost_by_flags)
{
    play_without_a_spare_kick(false);
}

TEST(no_kick_is_lost_by_event_index)
{
    play_without_a_spare_kick(true);
}

/* ---- turns ---- */

static void drain_as_a_job(void *state, void *argument)
{
    (void)state;
    *(unsigned *)argument = drain();
}

TEST(a_driver_that_refills_for_ever_gets_one_queue_at_a_turn)
{
    begin();
    is_greedy = true;
    CHECK_INT(start_device(), 0);
    driver_offer_text(&driver, "again");
    for (unsigned turn = 1; turn <= 5; turn++) {
        virtio_device_turn(device); /* served again without a kick of the driver's */
        CHECK_INT(served, turn);
        CHECK_INT(popped, turn * entries);
    }
    virtio_device_stop(device);
    virtio_device_turn(device);
    CHECK_INT(served, 5);
    end();
}

TEST(a_turn_ends_outside_of_serve_too)
{
    unsigned count = 0;
    begin();
    is_greedy = true;
    CHECK_INT(start_device(), 0);
    driver_offer_text(&driver, "again");
    virtio_device_run(device, drain_as_a_job, &count);
    CHECK_INT(count, entries);
    is_greedy = false;
    virtio_device_turn(device); /* what was left waits for serve */
    CHECK_INT(popped, entries + 1);
    end();
}

static void pop_and_unpop(void *state, void *argument)
{
    struct queue_chain chain;
    (void)state;
    if (virtio_pop(device, 0, &chain)) {
        ++*(unsigned *)argument;
        virtio_unpop(device, 0);
    }
}

TEST(an_unpopped_chain_takes_nothing_from_the_turn)
{
    unsigned count = 0;
    begin();
    CHECK_INT(start_device(), 0);
    driver_offer_text(&driver, "later");
    for (unsigned i = 0; i < 3 * entries; i++)
        virtio_device_run(device, pop_and_unpop, &count);
    CHECK_INT(count, 3 * entries);
    virtio_device_turn(device);
    CHECK(driver_takes_text(&driver, "later"));
    end();
}

TEST(a_launched_device_stops_under_a_driver_that_refills_for_ever)
{
    begin();
    is_greedy = true;
    driver_offer_text(&driver, "again");
    CHECK_INT(virtio_device_launch(device), 0);
    CHECK_INT(start_device(), 0);
    CHECK(was_called());
    virtio_device_stop(device);
    unsigned before = popped;
    virtio_device_stop(device);
    CHECK_INT(popped, before);
    CHECK_TEXT(order, "se");
    end();
    CHECK_TEXT(order, "sef");
}

/* ---- calls on the device's thread ---- */

enum { run_threads = 4, runs = 2000 };
static unsigned run_count; /* guarded by being touched on one thread only, which is what is tested */

static void run_inside(void *state, void *argument)
{
    (void)state;
    ++*(unsigned *)argument;
}

static void run_once(void *state, void *argument)
{
    (void)state;
    virtio_device_run(device, run_inside, argument); /* an ordinary call here */
}

static void *run_often(void *argument)
{
    for (int i = 0; i < runs; i++)
        virtio_device_run(device, run_once, argument);
    return NULL;
}

TEST(many_threads_run_on_one)
{
    pthread_t threads[run_threads];
    begin();
    run_count = 0;
    CHECK_INT(virtio_device_launch(device), 0);
    CHECK_INT(start_device(), 0);
    for (int i = 0; i < run_threads; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, run_often, &run_count), 0);
    for (int i = 0; i < 500; i++) { /* meanwhile the driver comes and goes */
        virtio_device_stop(device);
        CHECK_INT(start_device(), 0);
    }
    for (int i = 0; i < run_threads; i++)
        pthread_join(threads[i], NULL);
    CHECK_INT(run_count, run_threads * runs);
    end();
}

static void look_around(void *state, void *argument)
{
    sigset_t mask;
    char name[16] = "";
    (void)state;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    pthread_getname_np(pthread_self(), name, sizeof(name));
    *(bool *)argument = sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGPROF) == 1 &&
                        strcmp(name, "vial-echo") == 0;
}

TEST(the_thread_has_a_name_and_takes_no_signals)
{
    bool is_right = false;
    sigset_t mask;
    begin();
    CHECK_INT(virtio_device_launch(device), 0);
    virtio_device_run(device, look_around, &is_right);
    CHECK(is_right);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    CHECK_INT(sigismember(&mask, SIGTERM), 0); /* and ours is as it was */
    end();
}

/* ---- life ---- */

TEST(a_device_is_freed_while_it_runs)
{
    unsigned before = count_entries("/proc/self/task");
    for (int i = 0; i < 20; i++) {
        begin();
        driver_offer_text(&driver, "hello");
        CHECK_INT(virtio_device_launch(device), 0);
        CHECK_INT(start_device(), 0);
        CHECK(count_entries("/proc/self/task") > before);
        end();
        CHECK_TEXT(order, "sef");
    }
    /* A joined thread may still be listed for a moment; a leak of twenty would stay. */
    CHECK(count_entries("/proc/self/task") < before + 20);
    CHECK(virtio_device_free(NULL) == NULL);
}

TEST(a_device_survives_no_memory)
{
    FOR_EACH_FAULT
    {
        memset(order, 0, sizeof(order));
        device = NULL;
        CHECK_INT(make_device(), fault_was_hit() ? -ENOMEM : 0);
        CHECK_TEXT(order, ""); /* the state is the caller's until the device is made */
        device = virtio_device_free(device);
    }
}

TEST(a_device_survives_having_no_descriptors)
{
    struct rlimit limit, low;
    unsigned open_now = count_entries("/proc/self/fd");
    unsigned refused = 0;
    int result = -EMFILE;
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = limit;
    device = NULL;
    for (low.rlim_cur = 3; low.rlim_cur < open_now + 16 && result == -EMFILE; low.rlim_cur++) {
        setrlimit(RLIMIT_NOFILE, &low);
        result = make_device();
        refused += result == -EMFILE;
        setrlimit(RLIMIT_NOFILE, &limit);
        if (result < 0)
            CHECK_INT(count_entries("/proc/self/fd"), open_now);
    }
    CHECK_INT(result, 0);
    CHECK(refused >= 5); /* the loop's two, the job's, one for each queue */
    device = virtio_device_free(device);
}

TEST(a_wrong_layout_starts_nothing)
{
    begin();
    struct queue_layout layout = driver_layout(&driver);
    layout.entries = 2 * entries;
    CHECK_INT(start_with(&layout), -EINVAL);
    layout.entries = entries;
    layout.used = MEMORY_GAP_START;
    CHECK_INT(start_with(&layout), -EFAULT);
    struct queue_layout second_wrong[2] = {driver_layout(&driver), layout};
    CHECK_INT(virtio_device_start(device, driver.memory, 0, second_wrong), -EFAULT);
    driver_offer_text(&driver, "hello");
    virtio_kick(device, 0);
    virtio_device_turn(device);
    CHECK_INT(served, 0);
    CHECK_TEXT(order, "");
    virtio_device_stop(device);
    CHECK_INT(start_device(), 0);
    virtio_device_turn(device);
    CHECK(driver_takes_text(&driver, "hello"));
    end();
}

static void push_held(void *state, void *argument)
{
    (void)state;
    virtio_push(device, 0, ((const struct queue_chain *)argument)->head, 64);
    virtio_call(device, 0);
}

static void pop_and_hold(void *state, void *argument)
{
    (void)state;
    virtio_pop(device, 0, argument);
}

TEST(what_was_in_flight_at_a_stop_never_comes_back)
{
    struct queue_chain held = {0};
    begin();
    CHECK_INT(start_device(), 0);
    driver_offer_text(&driver, "hello");
    virtio_device_run(device, pop_and_hold, &held);
    CHECK_INT(held.writable_bytes, 64);
    virtio_device_stop(device);
    virtio_device_run(device, push_held, &held);
    CHECK_INT(driver_get_16(&driver, DRIVER_USED + 2), 0);
    CHECK_INT(calls, 0);
    end();
}

/* ---- a driver that breaks rules ---- */

static void count_line(void *user, const struct vial_log_record *record)
{
    (void)user;
    (void)record;
    log_lines++;
}

TEST(a_broken_ring_is_told_once_and_left_alone)
{
    begin();
    CHECK_INT(vial_log_set_hook(count_line, NULL, VIAL_LOG_WARN), 0);
    for (unsigned round = 1; round <= 100; round++) {
        driver_set_available(&driver, entries + 1); /* more than there can be */
        CHECK_INT(start_device(), 0);
        virtio_device_turn(device);
        CHECK_INT(breaks, round);
        CHECK_INT(virtio_device_faults(device), round);
        uint16_t used_before = driver_get_16(&driver, DRIVER_USED + 2);
        driver_set_available(&driver, 1);
        virtio_kick(device, 0);
        virtio_device_turn(device);
        CHECK_INT(served, round);
        CHECK_INT(driver_get_16(&driver, DRIVER_USED + 2), used_before);
        uint8_t byte = 1;
        virtio_set_config(device, 0, &byte, 1);
        CHECK_INT(config_changes, 0); /* it has been told to reset: that is all it needs to know */
        virtio_device_stop(device);
    }
    CHECK_INT(log_lines, 7); /* 1, 2, 4, … 64 */
    virtio_break(device, "not started");
    CHECK_INT(breaks, 100);
    CHECK_INT(vial_log_set_hook(NULL, NULL, VIAL_LOG_WARN), 0);
    end();
}

/* ---- the configuration space ---- */

TEST(the_configuration_space_has_edges)
{
    uint8_t bytes[32], ones[32];
    memset(ones, 1, sizeof(ones));
    begin();
    static const struct {
        uint32_t offset, length;
        bool is_taken;
    } writes[] = {
        {4, 8, true},  {4, 1, true},           {11, 1, true},          {3, 1, false},
        {3, 2, false}, {11, 2, false},         {12, 1, false},         {0, 16, false},
        {4, 0, false}, {UINT32_MAX, 2, false}, {4, UINT32_MAX, false}, {UINT32_MAX - 3, 8, false},
    };
    CHECK_INT(start_device(), 0);
    for (size_t i = 0; i < sizeof(writes) / sizeof(writes[0]); i++) {
        uint8_t zeros[config_bytes] = {0}, expected[config_bytes] = {0};
        virtio_set_config(device, 0, zeros, config_bytes);
        config_writes = 0;
        virtio_device_write_config(device, writes[i].offset, ones, writes[i].length);
        CHECK_INT(config_writes, writes[i].is_taken);
        if (writes[i].is_taken)
            memset(expected + writes[i].offset, 1, writes[i].length);
        virtio_device_read_config(device, 0, bytes, sizeof(bytes));
        CHECK(memcmp(bytes, expected, config_bytes) == 0 && bytes[config_bytes] == 0 && bytes[31] == 0);
    }
    virtio_set_config(device, 15, ones, 1);
    memset(bytes, 7, sizeof(bytes));
    virtio_device_read_config(device, 15, bytes, 4);
    CHECK(bytes[0] == 1 && bytes[1] == 0 && bytes[3] == 0 && bytes[4] == 7);
    virtio_device_read_config(device, 16, bytes, 1);
    CHECK_INT(bytes[0], 0);
    virtio_device_read_config(device, UINT32_MAX, bytes + 1, 1);
    CHECK_INT(bytes[1], 0);
    virtio_device_stop(device);
    config_writes = 0;
    virtio_device_write_config(device, 4, ones, 1);
    CHECK_INT(config_writes, 0); /* the device is not running: it reads the space when it starts */
    end();
}

TEST(a_change_is_counted_and_told)
{
    uint8_t byte = 5;
    begin();
    CHECK_INT(start_device(), 0);
    uint32_t before = virtio_device_config_generation(device);
    virtio_device_write_config(device, 4, &byte, 1);
    CHECK_INT(virtio_device_config_generation(device), before); /* the driver knows what it wrote itself */
    virtio_set_config(device, 0, &byte, 1);
    CHECK(virtio_device_config_generation(device) != before);
    CHECK_INT(config_changes, 1);
    end();
}

TEST(a_change_between_reading_and_starting_is_told_at_the_start)
{
    uint8_t byte = 5;
    begin();
    virtio_set_config(device, 0, &byte, 1); /* before anybody looked: nothing to tell */
    CHECK_INT(start_device(), 0);
    CHECK_INT(config_changes, 0);
    virtio_device_stop(device);
    virtio_device_read_config(device, 0, &byte, 1);
    virtio_set_config(device, 0, &byte, 1);
    CHECK_INT(config_changes, 0);
    CHECK_INT(start_device(), 0);
    CHECK_INT(config_changes, 1);
    virtio_device_stop(device);
    CHECK_INT(start_device(), 0);
    CHECK_INT(config_changes, 1);
    virtio_device_stop(device);
    virtio_device_read_config(device, 0, &byte, 1);
    virtio_set_config(device, 0, &byte, 1);
    virtio_device_stop(device); /* that driver has gone, and the next one reads for itself */
    CHECK_INT(start_device(), 0);
    CHECK_INT(config_changes, 1);
    end();
}

/* ---- small things ---- */

TEST(spans_are_copied_across_their_borders)
{
    char first[] = "abc", second[] = "", third[] = "defgh", got[8] = "";
    const struct iovec spans[] = {{first, 3}, {second, 0}, {third, 5}};
    CHECK_INT(virtio_read_spans(spans, 3, 0, got, 8), 8);
    CHECK(memcmp(got, "abcdefgh", 8) == 0);
    CHECK_INT(virtio_read_spans(spans, 3, 2, got, 3), 3);
    CHECK(memcmp(got, "cde", 3) == 0);
    CHECK_INT(virtio_read_spans(spans, 3, 7, got, 8), 1);
    CHECK_INT(got[0], 'h');
    CHECK_INT(virtio_read_spans(spans, 3, 8, got, 8), 0);
    CHECK_INT(virtio_read_spans(spans, 3, SIZE_MAX, got, 8), 0);
    CHECK_INT(virtio_read_spans(spans, 0, 0, got, 8), 0);
    CHECK_INT(virtio_write_spans(spans, 3, 1, "12345678", 8), 7);
    CHECK_TEXT(first, "a12");
    CHECK_TEXT(third, "34567");
}

TEST(queues_and_windows_by_number)
{
    begin();
    CHECK_INT(virtio_device_queue_size(device, 1), entries);
    CHECK_INT(virtio_device_queue_size(device, 2), 0);
    CHECK_INT(virtio_device_queue_size(device, UINT32_MAX), 0);
    CHECK(!virtio_is_ready(device, 0) && !virtio_is_ready(device, UINT32_MAX));
    struct virtio_window window = {.guest = 1, .size_bytes = 2, .id = 3};
    virtio_device_add_window(device, &window);
    CHECK(virtio_device_window(device, 0) == NULL);
    CHECK_INT(virtio_device_window(device, 3)->size_bytes, 2);
    end();
}
