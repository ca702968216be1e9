// SPDX-License-Identifier: Apache-2.0
/* The entropy device against a driver: random bytes in the right places, and no more than a turn allows. */
#include "test.h"

#include "base/alloc.h"
#include "base/limits.h"
#include "device/rng/rng.h"
#include "hostile.h"

#include <errno.h>

#define BUFFER VIRTIO_DRIVER_BUFFERS

static struct virtio_driver driver;
static uint32_t head, written;

static void begin(uint64_t memory_bytes)
{
    struct virtio_device *device = NULL;
    virtio_driver_init(&driver, memory_bytes);
    if (rng_new(&device) < 0)
        abort();
    virtio_driver_attach(&driver, device);
}

static void end(void)
{
    virtio_driver_release(&driver);
}

static size_t count_zeros(uint64_t address, size_t length)
{
    size_t count = 0;
    const uint8_t *bytes = memory_span(driver.memory, address, length);
    for (size_t i = 0; i < length; i++)
        count += bytes[i] == 0;
    return count;
}

TEST(it_says_what_it_is)
{
    begin(2 << 20);
    CHECK_INT(virtio_driver_read(&driver, 0x008), 4);
    CHECK_INT(virtio_driver_read(&driver, 0x034), 64);
    virtio_driver_write(&driver, 0x030, 1);
    CHECK_INT(virtio_driver_read(&driver, 0x034), 0);
    CHECK_INT(virtio_driver_read(&driver, 0x100), 0);
    end();
}

TEST(a_buffer_is_filled_and_nothing_else)
{
    begin(2 << 20);
    CHECK(virtio_driver_start(&driver, 0, 1, 64));
    virtio_driver_send(&driver, 0, BUFFER + 3, 1000, VIRTIO_DRIVER_WRITE);
    CHECK(virtio_driver_take(&driver, 0, &head, &written));
    CHECK_INT(head, 0);
    CHECK_INT(written, 1000);
    CHECK(virtio_driver_interrupts(&driver) > 0);
    CHECK(count_zeros(BUFFER + 3, 1000) < 40); /* of which chance makes about 4 */
    CHECK_INT(count_zeros(BUFFER, 3), 3);
    CHECK_INT(count_zeros(BUFFER + 1003, 1000), 1000);
    end();
}

TEST(requests_differ)
{
    begin(2 << 20);
    CHECK(virtio_driver_start(&driver, VIRTIO_F_EVENT_IDX, 1, 64));
    virtio_driver_send(&driver, 0, BUFFER, 32, VIRTIO_DRIVER_WRITE);
    virtio_driver_send(&driver, 0, BUFFER + 32, 32, VIRTIO_DRIVER_WRITE);
    CHECK(memcmp(memory_span(driver.memory, BUFFER, 32), memory_span(driver.memory, BUFFER + 32, 32), 32) != 0);
    end();
}

TEST(readable_parts_are_left_alone)
{
    begin(2 << 20);
    CHECK(virtio_driver_start(&driver, 0, 1, 64));
    virtio_driver_describe(&driver, 0, 0, BUFFER, 4096, VIRTIO_DRIVER_NEXT, 1);
    virtio_driver_describe(&driver, 0, 1, BUFFER + 4096, 100, VIRTIO_DRIVER_WRITE | VIRTIO_DRIVER_NEXT, 2);
    virtio_driver_describe(&driver, 0, 2, BUFFER + 8192, 200, VIRTIO_DRIVER_WRITE, 0);
    virtio_driver_offer(&driver, 0, 0);
    virtio_driver_kick(&driver, 0);
    CHECK(virtio_driver_take(&driver, 0, &head, &written));
    CHECK_INT(written, 300);
    CHECK_INT(count_zeros(BUFFER, 4096), 4096);
    CHECK(count_zeros(BUFFER + 4096, 100) < 20 && count_zeros(BUFFER + 8192, 200) < 20);
    end();
}

TEST(a_request_without_room_comes_back_empty)
{
    begin(2 << 20);
    CHECK(virtio_driver_start(&driver, 0, 1, 64));
    virtio_driver_send(&driver, 0, BUFFER, 64, 0);
    CHECK(virtio_driver_take(&driver, 0, &head, &written));
    CHECK_INT(written, 0);
    CHECK(!virtio_driver_needs_reset(&driver));
    end();
}

TEST(a_request_for_gigabytes_is_served_short)
{
    begin(UINT64_C(3) << 30);
    CHECK(virtio_driver_start(&driver, 0, 1, 64));
    for (uint16_t i = 0; i < 64; i++)
        virtio_driver_describe(&driver, 0, i, BUFFER + 4096 * (uint64_t)i, UINT32_C(0xb0000000),
                               VIRTIO_DRIVER_WRITE | (i < 63 ? VIRTIO_DRIVER_NEXT : 0), (uint16_t)(i + 1));
    virtio_driver_offer(&driver, 0, 0);
    virtio_driver_kick(&driver, 0);
    CHECK(virtio_driver_take(&driver, 0, &head, &written));
    CHECK_INT(written, LIMIT_RNG_REQUEST_BYTES);
    CHECK(count_zeros(BUFFER, LIMIT_RNG_REQUEST_BYTES) < LIMIT_RNG_REQUEST_BYTES / 100);
    CHECK_INT(count_zeros(BUFFER + LIMIT_RNG_REQUEST_BYTES, 1 << 20), 1 << 20);
    end();
}

TEST(the_limit_holds_over_several_buffers)
{
    begin(2 << 20);
    CHECK(virtio_driver_start(&driver, 0, 1, 64));
    virtio_driver_describe(&driver, 0, 0, BUFFER, 60000, VIRTIO_DRIVER_WRITE | VIRTIO_DRIVER_NEXT, 1);
    virtio_driver_describe(&driver, 0, 1, BUFFER + 0x40000, 60000, VIRTIO_DRIVER_WRITE, 0);
    virtio_driver_offer(&driver, 0, 0);
    virtio_driver_kick(&driver, 0);
    CHECK(virtio_driver_take(&driver, 0, &head, &written));
    CHECK_INT(written, LIMIT_RNG_REQUEST_BYTES);
    CHECK_INT(count_zeros(BUFFER + 0x40000 + LIMIT_RNG_REQUEST_BYTES - 60000, 50000), 50000);
    end();
}

TEST(hostile_rings_and_registers)
{
    begin(2 << 20);
    const char *wrong = hostile_rings(&driver, 0, 1, 0);
    CHECK_TEXT(wrong != NULL ? wrong : "", "");
    wrong = hostile_registers(&driver, 0, 1, 0);
    CHECK_TEXT(wrong != NULL ? wrong : "", "");
    CHECK(virtio_driver_restart(&driver, 0, 1, 64)); /* and it still works */
    virtio_driver_send(&driver, 0, BUFFER, 64, VIRTIO_DRIVER_WRITE);
    CHECK(virtio_driver_take(&driver, 0, &head, &written));
    CHECK_INT(written, 64);
    end();
}

TEST(random_bytes_over_the_ring_itself)
{
    begin(2 << 20);
    CHECK(virtio_driver_start(&driver, 0, 1, 64));
    virtio_driver_send(&driver, 0, VIRTIO_DRIVER_DESCRIPTORS(0), 0x9000, VIRTIO_DRIVER_WRITE);
    virtio_driver_turn(&driver); /* with whatever indices and descriptors those make */
    CHECK(virtio_driver_restart(&driver, 0, 1, 64));
    end();
}

TEST(a_ring_that_changes_meanwhile)
{
    begin(2 << 20);
    const char *wrong = hostile_changes(&driver, 0, 1, 0, VIRTIO_DRIVER_WRITE);
    CHECK_TEXT(wrong != NULL ? wrong : "", "");
    end();
}

TEST(rng_survives_no_memory)
{
    FOR_EACH_FAULT
    {
        struct virtio_device *device = NULL;
        CHECK_INT(rng_new(&device), fault_was_hit() ? -ENOMEM : 0);
        virtio_device_free(device);
    }
}
