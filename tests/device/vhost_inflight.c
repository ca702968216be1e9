// SPDX-License-Identifier: Apache-2.0
/* What a vhost-user back end had in flight when its process was killed, and what the next one makes of it. */
#include "test.h"

#include "base/fd.h"
#include "vhost_driver.h"
#include "virtio/inflight.h"
#include "virtio/vhost_inflight.h"

#include <errno.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { entries = 8, region_bytes = 192 }; /* 16 + 16 × 8, in steps of 64 */
static _Alignas(64) uint8_t region[region_bytes];
static struct inflight inflight;
static struct vhost_driver front;
static uint16_t head;

/* ---- the notes of one queue ---- */

TEST(sizes)
{
    CHECK_INT(inflight_bytes(entries), region_bytes);
    CHECK_INT(inflight_bytes(1), 64);
    CHECK_INT(inflight_bytes(1024), 16448);
}

TEST(nothing_is_repeated_of_what_was_pushed)
{
    memset(region, 0, sizeof(region));
    inflight_begin(&inflight, region, entries, 0);
    CHECK_INT(inflight.to_repeat, 0);
    for (uint16_t i = 0; i < 4; i++)
        inflight_take(&inflight, i);
    inflight_push(&inflight, 2);
    inflight_pushed(&inflight, 2, 1);
    inflight_begin(&inflight, region, entries, 1);
    CHECK_INT(inflight.to_repeat, 3);
    static const uint16_t rest[] = {0, 1, 3};
    for (unsigned i = 0; i < 3; i++) {
        CHECK(inflight_repeat(&inflight, &head));
        CHECK_INT(head, rest[i]);
    }
    CHECK(!inflight_repeat(&inflight, &head));
}

TEST(the_oldest_comes_first)
{
    static const uint16_t order[] = {5, 0, 7, 2};
    memset(region, 0, sizeof(region));
    inflight_begin(&inflight, region, entries, 9);
    for (unsigned i = 0; i < 4; i++)
        inflight_take(&inflight, order[i]);
    inflight_take(&inflight, 1);
    inflight_put_back(&inflight, 1); /* not taken after all */
    for (unsigned life = 0; life < 3; life++) {
        inflight_begin(&inflight, region, entries, 9);
        CHECK_INT(inflight.to_repeat, 4);
        for (unsigned i = 0; i < 4; i++) {
            CHECK(inflight_repeat(&inflight, &head));
            inflight_repeat_later(&inflight, head);
            CHECK(inflight_repeat(&inflight, &head));
            CHECK_INT(head, order[i]);
        }
        CHECK(!inflight_repeat(&inflight, &head));
    }
    inflight_take(&inflight, 3); /* a new one is newer than all of them */
    inflight_begin(&inflight, region, entries, 9);
    for (unsigned i = 0; i < 5; i++)
        CHECK(inflight_repeat(&inflight, &head));
    CHECK_INT(head, 3);
}

/* Killed between any two steps of a push: it is repeated exactly if the ring does not have it yet. */
TEST(killed_while_it_pushes)
{
    for (int has_index = 0; has_index < 2; has_index++) {
        memset(region, 0, sizeof(region));
        inflight_begin(&inflight, region, entries, 65535);
        inflight_take(&inflight, 3);
        inflight_take(&inflight, 6);
        inflight_push(&inflight, 6); /* and then the ring's index, or not even that */
        inflight_begin(&inflight, region, entries, has_index ? 0 : 65535);
        CHECK_INT(inflight.to_repeat, has_index ? 1 : 2);
        CHECK(inflight_repeat(&inflight, &head));
        CHECK_INT(head, 3);
    }
}

TEST(nonsense)
{
    uint64_t random = 1; /* xorshift64 */
    for (unsigned round = 0; round < 10000; round++) {
        for (size_t i = 0; i < sizeof(region); i++) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            region[i] = (uint8_t)(random & (i % 16 == 0 ? 1 : 0xff));
        }
        inflight_begin(&inflight, region, entries, (uint16_t)round);
        unsigned count = 0, expected = inflight.to_repeat;
        while (inflight_repeat(&inflight, &head)) {
            CHECK(head < entries);
            CHECK(++count <= expected);
            if (round % 3 == 0)
                memset(region, 1, sizeof(region)); /* while it is read */
        }
    }
}

/* ---- a front end ---- */

enum { description_bytes = 24, largest_bytes = 16448 };

static long set_inflight(struct vhost_inflight_description description, int fd)
{
    return vhost_driver_tell(&front, VHOST_SET_INFLIGHT_FD, &description, description_bytes, fd);
}

/* The memory that the back end makes, and its description: the descriptor, or -1. */
static int get_inflight(struct vhost_inflight_description *description)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct {
        struct vhost_header header;
        uint8_t payload[description_bytes];
    } reply;
    struct iovec span = {.iov_base = &reply, .iov_len = sizeof(reply)};
    struct msghdr message = {
        .msg_iov = &span, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    struct pollfd wait = {.fd = front.fd, .events = POLLIN};
    int fd = -1;
    vhost_driver_send(&front, VHOST_GET_INFLIGHT_FD, VHOST_VERSION, description, description_bytes, NULL, 0);
    if (poll(&wait, 1, 5000) != 1 || recvmsg(front.fd, &message, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof(reply) ||
        reply.header.flags != (VHOST_VERSION | VHOST_REPLY) || reply.header.size != description_bytes)
        return -1;
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    if (part != NULL)
        memcpy(&fd, CMSG_DATA(part), sizeof(fd));
    memcpy(description, reply.payload, sizeof(*description));
    return fd;
}

static const struct vhost_driver_options out_of_order = {.listens = true, .is_out_of_order = true};

static int negotiate(void)
{
    int step = vhost_driver_negotiate(&front, VHOST_DRIVER_LIKE_QEMU);
    front.protocol |= VHOST_USER_F_INFLIGHT;
    return step == 0 && vhost_driver_tell_number(&front, VHOST_SET_PROTOCOL_FEATURES, front.protocol, -1) != 0 ? 99
                                                                                                               : step;
}

static bool any_memory(void *user, int fd)
{
    (void)user, (void)fd;
    return true;
}

TEST(it_is_offered_only_where_it_is_of_use)
{
    static const struct vhost_driver_options tries[] = {
        {.is_out_of_order = false},
        {.is_out_of_order = true, .accepts_memory = any_memory},
        {.is_out_of_order = true},
    };
    for (unsigned i = 0; i < 3; i++) {
        vhost_driver_begin(&front, &tries[i]);
        CHECK_INT((vhost_driver_ask(&front, VHOST_GET_PROTOCOL_FEATURES) & VHOST_USER_F_INFLIGHT) != 0, i == 2);
        vhost_driver_end(&front);
    }
}

TEST(memory_that_is_refused)
{
    vhost_driver_begin(&front, &out_of_order);
    CHECK_INT(negotiate(), 0);
    struct vhost_inflight_description right = {.queue_count = 2, .entries = entries};
    int fd = get_inflight(&right);
    CHECK(fd >= 0);
    CHECK(right.size_bytes == 2 * largest_bytes && right.offset == 0 && right.queue_count == 2);
    CHECK(lseek(fd, 0, SEEK_END) == 2 * largest_bytes);
    CHECK(ftruncate(fd, 0) < 0); /* nobody cuts it */
    struct vhost_inflight_description wrong[] = {right, right, right, right, right, right, right};
    wrong[0].queue_count = 3;
    wrong[1].queue_count = 0;
    wrong[2].entries = 0;
    wrong[3].entries = 2048;
    wrong[4].size_bytes = 2 * region_bytes - 1;
    wrong[5].offset = 1 << 20;
    wrong[6].offset = 100;
    for (unsigned i = 0; i < 7; i++)
        CHECK_INT(set_inflight(wrong[i], fd), EINVAL);
    CHECK_INT(set_inflight(right, front.fd), EINVAL); /* a socket is no memory */
    struct vhost_inflight_description small = right;  /* of another back end: room for exactly so many */
    small.size_bytes = 2 * region_bytes;
    CHECK_INT(set_inflight(small, fd), 0);
    small.entries *= 2;
    CHECK_INT(set_inflight(small, fd), EINVAL);
    CHECK_INT(set_inflight(right, fd), 0);
    CHECK_INT(vhost_driver_set_ring(&front, 0), 0);
    CHECK_INT(set_inflight(right, fd), EBUSY); /* while a ring runs */
    close(fd);
    wrong[0].queue_count = 3;
    CHECK_INT(get_inflight(&wrong[0]), -1);
    vhost_driver_end(&front);
}

/* Chains that are held, one descriptor each. */
static void offer(uint16_t from, uint16_t to)
{
    for (uint16_t i = from; i < to; i++) {
        driver_describe(&front.driver, DRIVER_DESCRIPTORS, i, DRIVER_BUFFERS, 16, DRIVER_WRITE, 0);
        driver_offer(&front.driver, i);
    }
    vhost_driver_kick(&front);
}

/* Finishes one of those, as a device does. */
static void finish(void *state, void *argument)
{
    const uint16_t *which = argument;
    (void)state;
    virtio_push(front.device, 0, *which, 0);
}

/* A connection's end leaves what is in flight as a kill does: the next one gets it again, and nothing else. */
TEST(what_was_in_flight_comes_again)
{
    vhost_driver_begin(&front, &out_of_order);
    front.holds = true;
    CHECK_INT(negotiate(), 0);
    struct vhost_inflight_description description = {.queue_count = 2, .entries = entries};
    int fd = get_inflight(&description);
    CHECK_INT(set_inflight(description, fd), 0);
    CHECK_INT(vhost_driver_set_ring(&front, 0), 0);
    offer(0, 5);
    CHECK_INT(front.held_count, 5);
    virtio_device_run(front.device, finish, &(uint16_t){3});
    virtio_device_run(front.device, finish, &(uint16_t){1});
    offer(5, 7); /* one of them is taken, */
    CHECK_INT(front.held_count, 7);
    vhost_driver_disconnect(&front);
    offer(7, 8); /* and this one not any more */

    front.held_count = 0;
    vhost_driver_connect(&front);
    CHECK_INT(negotiate(), 0);
    CHECK_INT(set_inflight(description, fd), 0);
    CHECK_INT(vhost_driver_set_ring(&front, 2), 0); /* the used index, which is no guide */
    vhost_driver_turn(&front);
    static const uint16_t expected[] = {0, 2, 4, 5, 6, 7};
    CHECK_INT(front.held_count, 6);
    for (unsigned i = 0; i < 6; i++)
        CHECK_INT(front.held[i], expected[i]);
    for (unsigned i = 6; i-- > 0;)
        virtio_device_run(front.device, finish, &front.held[i]);
    CHECK_INT(driver_get_16(&front.driver, DRIVER_USED + 2), 8);

    front.held_count = 0; /* now there is nothing left */
    vhost_driver_disconnect(&front);
    vhost_driver_connect(&front);
    CHECK_INT(negotiate(), 0);
    CHECK_INT(set_inflight(description, fd), 0);
    CHECK_INT(vhost_driver_set_ring(&front, 8), 0);
    vhost_driver_turn(&front);
    CHECK_INT(front.held_count, 0);
    close(fd);
    vhost_driver_end(&front);
}

/* What a driver has reset is nobody's any more. */
TEST(a_reset_forgets_it)
{
    for (unsigned i = 0; i < 2; i++) {
        vhost_driver_begin(&front, &out_of_order);
        front.holds = true;
        CHECK_INT(negotiate(), 0);
        struct vhost_inflight_description description = {.queue_count = 1, .entries = entries};
        int fd = get_inflight(&description);
        CHECK_INT(set_inflight(description, fd), 0);
        CHECK_INT(vhost_driver_set_ring(&front, 0), 0);
        offer(0, 3);
        CHECK_INT(front.held_count, 3);
        if (i == 0)
            CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_STATUS, 0, -1), 0);
        else
            CHECK_INT(vhost_driver_tell(&front, VHOST_RESET_DEVICE, NULL, 0, -1), 0);
        uint8_t *bytes = mmap(NULL, region_bytes, PROT_READ, MAP_SHARED, fd, 0);
        CHECK(bytes != MAP_FAILED);
        for (unsigned j = 0; j < entries; j++)
            CHECK_INT(bytes[16 + 16 * j], 0);
        CHECK_INT(bytes[8], 1); /* it was in use */
        munmap(bytes, region_bytes);
        close(fd);
        vhost_driver_end(&front);
    }
}
