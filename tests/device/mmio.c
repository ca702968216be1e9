// SPDX-License-Identifier: Apache-2.0
/* virtio-mmio from the driver's side: a device that echoes, the ladder of status bits, and what a driver may not do. */
#include "test.h"

#include "driver.h"
#include "virtio/mmio.h"

#include <sys/eventfd.h>
#include <unistd.h>

struct echo {
    unsigned started, stopped;
};

static void echo_start(void *state, uint64_t features)
{
    struct echo *echo = state;
    (void)features;
    echo->started++;
}

static void echo_stop(void *state)
{
    struct echo *echo = state;
    echo->stopped++;
}

static const struct virtio_device_ops echo_ops = {
    .type = VIRTIO_TYPE_RNG, .name = "echo", .start = echo_start, .stop = echo_stop};

TEST(a_device_starts_at_the_top_of_the_ladder)
{
    struct echo echo = {0};
    static const uint16_t sizes[] = {16};
    struct virtio_device_options options = {.ops = &echo_ops, .state = &echo, .queue_sizes = sizes, .queue_count = 1};
    struct virtio_device *device = NULL;
    struct memory *memory = NULL;
    struct mmio *mmio = NULL;
    int interrupt = eventfd(0, EFD_NONBLOCK);
    CHECK_INT(virtio_device_new(&options, &device), 0);
    CHECK_INT(memory_new(1 << 20, false, &memory), 0);
    CHECK_INT(mmio_new(device, memory, interrupt, &mmio), 0);
    CHECK_INT(virtio_device_launch(device), 0);
    for (uint32_t step = 1, status = 0; step <= 3; step++) {
        static const uint32_t bits[] = {0, VIRTIO_ACKNOWLEDGE, VIRTIO_DRIVER, VIRTIO_FEATURES_OK};
        uint32_t select = 1, version_1 = 1;
        status |= bits[step];
        if (step == 3) {
            mmio_write(mmio, 0x24, &select, 4);
            mmio_write(mmio, 0x20, &version_1, 4);
        }
        mmio_write(mmio, 0x70, &status, 4);
        uint32_t got;
        mmio_read(mmio, 0x70, &got, 4);
        CHECK_INT(got, status);
    }
    uint32_t ok = 15, zero = 0;
    mmio_write(mmio, 0x70, &ok, 4);
    CHECK_INT(echo.started, 1);
    mmio_write(mmio, 0x70, &zero, 4);
    CHECK_INT(echo.stopped, 1);
    mmio_free(mmio);
    virtio_device_free(device);
    memory_free(memory);
    close(interrupt);
}
