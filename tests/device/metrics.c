// SPDX-License-Identifier: Apache-2.0
/* The metrics device against an agent: samples, and what is none. */
#include "test.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "device/metrics/metrics.h"
#include "hostile.h"

#include <errno.h>

#define BUFFER VIRTIO_DRIVER_BUFFERS

struct message {
    uint32_t version, size;
    uint64_t used_bytes, free_bytes;
};

static struct virtio_driver driver;
static struct metrics_sample sample;
static uint32_t head, written;

static void begin(void)
{
    struct virtio_device *device = NULL;
    virtio_driver_init(&driver, 2 << 20);
    if (metrics_new(&device) < 0)
        abort();
    virtio_driver_attach(&driver, device);
}

static void end(void)
{
    virtio_driver_release(&driver);
}

static void send(const struct message *message, uint32_t length)
{
    virtio_driver_put(&driver, BUFFER, message, sizeof(*message));
    virtio_driver_send(&driver, 0, BUFFER, length, 0);
}

TEST(it_says_what_it_is)
{
    begin();
    CHECK_INT(virtio_driver_read(&driver, 0x008), 0x4d53);
    CHECK_INT(virtio_driver_read(&driver, 0x034), 64);
    CHECK(!metrics_last(driver.device, &sample));
    end();
}

TEST(the_last_sample_is_kept)
{
    begin();
    CHECK(virtio_driver_start(&driver, 0, 1, 64));
    uint64_t before = clock_now_ns();
    send(&(struct message){1, 24, 1000, 2000}, 24);
    CHECK(virtio_driver_take(&driver, 0, &head, &written));
    CHECK_INT(written, 0);
    CHECK(metrics_last(driver.device, &sample));
    CHECK_INT(sample.used_bytes, 1000);
    CHECK_INT(sample.free_bytes, 2000);
    CHECK(sample.time_ns >= before && sample.time_ns <= clock_now_ns());
    send(&(struct message){1, 24, UINT64_MAX, 0}, 24);
    CHECK(metrics_last(driver.device, &sample));
    CHECK_INT(sample.used_bytes, UINT64_MAX);
    CHECK_INT(metrics_ignored(driver.device), 0);
    end();
}

TEST(a_sample_in_pieces)
{
    struct message message = {1, 24, 7, 8};
    begin();
    CHECK(virtio_driver_start(&driver, 0, 1, 64));
    virtio_driver_put(&driver, BUFFER, &message, 24);
    virtio_driver_describe(&driver, 0, 0, BUFFER, 1, VIRTIO_DRIVER_NEXT, 1);
    virtio_driver_describe(&driver, 0, 1, BUFFER + 1, 12, VIRTIO_DRIVER_NEXT, 2);
    virtio_driver_describe(&driver, 0, 2, BUFFER + 13, 11, VIRTIO_DRIVER_NEXT, 3);
    virtio_driver_describe(&driver, 0, 3, BUFFER + 4096, 64, VIRTIO_DRIVER_WRITE, 0); /* nothing comes back */
    virtio_driver_offer(&driver, 0, 0);
    virtio_driver_kick(&driver, 0);
    CHECK(virtio_driver_take(&driver, 0, &head, &written));
    CHECK_INT(written, 0);
    CHECK(metrics_last(driver.device, &sample));
    CHECK_INT(sample.used_bytes, 7);
    CHECK_INT(sample.free_bytes, 8);
    end();
}

TEST(what_is_no_sample_is_counted_and_ignored)
{
    begin();
    CHECK(virtio_driver_start(&driver, 0, 1, 64));
    send(&(struct message){1, 24, 5, 6}, 24);
    send(&(struct message){0, 24, 1, 1}, 24);
    send(&(struct message){2, 24, 1, 1}, 24);
    send(&(struct message){1, 23, 1, 1}, 24);
    send(&(struct message){1, 24, 1, 1}, 23);
    send(&(struct message){1, 24, 1, 1}, 25);
    send(&(struct message){1, 24, 1, 1}, 1);
    send(&(struct message){1, 24, UINT64_MAX, 1}, 24);
    virtio_driver_send(&driver, 0, BUFFER, 24, VIRTIO_DRIVER_WRITE);
    CHECK_INT(metrics_ignored(driver.device), 8);
    CHECK(metrics_last(driver.device, &sample));
    CHECK_INT(sample.used_bytes, 5);
    for (int i = 0; i < 9; i++)
        CHECK(virtio_driver_take(&driver, 0, &head, &written) && written == 0);
    CHECK(!virtio_driver_needs_reset(&driver));
    end();
}

TEST(another_guests_sample_is_forgotten)
{
    begin();
    CHECK(virtio_driver_start(&driver, 0, 1, 64));
    send(&(struct message){1, 24, 5, 6}, 24);
    virtio_driver_reset(&driver);
    CHECK(metrics_last(driver.device, &sample)); /* the last word of one that ended */
    CHECK(virtio_driver_restart(&driver, 0, 1, 64));
    CHECK(!metrics_last(driver.device, &sample));
    end();
}

TEST(hostile_rings_and_registers)
{
    begin();
    const char *wrong = hostile_rings(&driver, 0, 1, 0);
    CHECK_TEXT(wrong != NULL ? wrong : "", "");
    wrong = hostile_registers(&driver, 0, 1, 0);
    CHECK_TEXT(wrong != NULL ? wrong : "", "");
    CHECK(virtio_driver_restart(&driver, 0, 1, 64)); /* and it still works */
    send(&(struct message){1, 24, 5, 6}, 24);
    CHECK(metrics_last(driver.device, &sample));
    end();
}

TEST(a_ring_that_changes_meanwhile)
{
    begin();
    const char *wrong = hostile_changes(&driver, 0, 1, 0, 0);
    CHECK_TEXT(wrong != NULL ? wrong : "", "");
    metrics_last(driver.device, &sample); /* from this thread, while the device has its own */
    CHECK(metrics_ignored(driver.device) > 0);
    end();
}

TEST(metrics_survives_no_memory)
{
    FOR_EACH_FAULT
    {
        struct virtio_device *device = NULL;
        CHECK_INT(metrics_new(&device), fault_was_hit() ? -ENOMEM : 0);
        virtio_device_free(device);
    }
}
