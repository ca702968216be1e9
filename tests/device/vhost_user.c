// SPDX-License-Identifier: Apache-2.0
/* The vhost-user server against a front end of the test: as QEMU and user-mode Linux work it, and what becomes of the
 * device when rings, memory and front ends come and go. What a hostile one sends is in vhost_hostile.c. */
#include "test.h"

#include "vhost_driver.h"

#include "base/alloc.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static struct vhost_driver front;
static const struct vhost_driver_options plain = {0};

static const enum vhost_driver_style styles[] = {VHOST_DRIVER_LIKE_UML, VHOST_DRIVER_LIKE_UML_EVENTS,
                                                 VHOST_DRIVER_LIKE_QEMU, VHOST_DRIVER_OLD};

static bool begin_as(enum vhost_driver_style style, bool is_launched)
{
    struct vhost_driver_options options = {.is_launched = is_launched};
    if (style == VHOST_DRIVER_LIKE_UML_EVENTS)
        options.protocol_without = VHOST_USER_F_INBAND;
    vhost_driver_begin(&front, &options);
    return vhost_driver_shake_hands(&front, style) == 0;
}

/* Whether this process, the device's thread with it, does nothing for a while. */
static bool is_idle(void)
{
    struct timespec before, after;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    poll(NULL, 0, 200);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    return (after.tv_sec - before.tv_sec) * INT64_C(1000000000) + after.tv_nsec - before.tv_nsec < 50 * 1000 * 1000;
}

/* ---- as it is meant ---- */

TEST(every_kind_of_front_end_echoes)
{
    for (size_t i = 0; i < array_length(styles); i++) {
        for (int is_launched = 0; is_launched < 2; is_launched++) {
            CHECK(begin_as(styles[i], is_launched));
            for (int round = 0; round < 1000; round++)
                CHECK(vhost_driver_echoes(&front, round % 2 == 0 ? "even" : "odd"));
            CHECK_TEXT(front.order, "s");
            vhost_driver_end(&front);
        }
    }
}

TEST(features_of_the_protocol_can_be_left_out)
{
    static const struct {
        uint64_t without, offered;
    } cases[] = {
        {0, 0x16229 | 1 << 14},
        {VHOST_USER_F_INBAND, 0x12229},
        {VHOST_USER_F_REPLY_ACK, 0x12221},   /* and so no kicks in messages */
        {VHOST_USER_F_BACKEND_REQ, 0x12209}, /* likewise */
        {UINT64_MAX, 0},
    };
    for (size_t i = 0; i < array_length(cases); i++) {
        struct vhost_driver_options options = {.protocol_without = cases[i].without};
        vhost_driver_begin(&front, &options);
        CHECK_INT(vhost_driver_ask(&front, VHOST_GET_PROTOCOL_FEATURES), cases[i].offered);
        CHECK_INT(vhost_driver_shake_hands(&front, VHOST_DRIVER_LIKE_UML), 0);
        CHECK(vhost_driver_echoes(&front, "hello"));
        vhost_driver_end(&front);
    }
}

TEST(rings_may_be_larger_than_the_device_asks_for)
{
    CHECK(begin_as(VHOST_DRIVER_LIKE_UML, false));
    CHECK_INT(vhost_driver_tell_state(&front, VHOST_SET_VRING_ENABLE, 0, 0), 0);
    front.driver.entries = 256; /* always, with user-mode Linux */
    CHECK_INT(vhost_driver_set_ring(&front, 0), 0);
    for (int i = 0; i < 600; i++)
        CHECK(vhost_driver_echoes(&front, "hello"));
    vhost_driver_end(&front);
}

TEST(messages_come_in_pieces)
{
    uint8_t bytes[2 * (12 + 8)] = {0};
    struct vhost_header set = {VHOST_SET_FEATURES, VHOST_VERSION, 8}, get = {VHOST_GET_FEATURES, VHOST_VERSION, 0};
    uint64_t features = VHOST_DRIVER_FEATURES;
    struct vhost_message reply;
    memcpy(bytes, &set, 12);
    memcpy(bytes + 12, &features, 8);
    memcpy(bytes + 20, &get, 12);
    vhost_driver_begin(&front, &plain);
    for (size_t i = 0; i < 32; i++) {
        CHECK_INT(send(front.fd, bytes + i, 1, 0), 1);
        vhost_driver_turn(&front);
    }
    CHECK(vhost_driver_receive(&front, front.fd, &reply));
    CHECK_INT(send(front.fd, bytes, 32, 0), 32); /* both at once */
    CHECK(vhost_driver_receive(&front, front.fd, &reply));
    CHECK_INT(send(front.fd, bytes, 30, 0), 30);
    vhost_driver_turn(&front);
    vhost_driver_disconnect(&front); /* in the middle of one */
    CHECK_INT(front.disconnected, 1);
    vhost_driver_end(&front);
}

TEST(one_message_a_turn)
{
    struct vhost_header get = {VHOST_GET_FEATURES, VHOST_VERSION, 0};
    vhost_driver_begin(&front, &plain);
    for (int i = 0; i < 10; i++)
        CHECK_INT(send(front.fd, &get, 12, 0), 12);
    for (int i = 1; i <= 10; i++) {
        uint8_t replies[20];
        virtio_device_turn(front.device);
        CHECK_INT(recv(front.fd, replies, sizeof(replies), MSG_DONTWAIT), 20);
        CHECK(recv(front.fd, replies, sizeof(replies), MSG_DONTWAIT) < 0);
    }
    vhost_driver_end(&front);
}

/* ---- connections ---- */

static void forget_ring(void)
{
    driver_put_16(&front.driver, DRIVER_USED + 2, 0);
    driver_set_available(&front.driver, 0);
    front.driver.next_available = front.driver.last_used = 0;
}

TEST(front_ends_come_and_go)
{
    for (int is_launched = 0; is_launched < 2; is_launched++) {
        struct vhost_driver_options options = {.is_launched = is_launched, .listens = true};
        vhost_driver_begin(&front, &options);
        for (unsigned i = 0; i < 8; i++) {
            forget_ring();
            CHECK_INT(vhost_driver_shake_hands(&front, styles[i % 4]), 0);
            CHECK(vhost_driver_echoes(&front, "hello"));
            CHECK_INT(front.connected, i + 1);
            vhost_driver_connect(&front); /* which ends the one before */
        }
        CHECK_INT(vhost_driver_negotiate(&front, VHOST_DRIVER_OLD), 0);
        CHECK_INT(front.disconnected, 8);
        CHECK_TEXT(front.order, "sesesesesesesese");
        vhost_driver_end(&front);
        CHECK_INT(front.disconnected, 9);
    }
}

/* As QEMU 7.2 does: what was agreed on before is not agreed on again. */
TEST(a_front_end_that_connects_again_goes_on_without_agreeing)
{
    struct vhost_driver_options options = {.listens = true};
    vhost_driver_begin(&front, &options);
    CHECK_INT(vhost_driver_shake_hands(&front, VHOST_DRIVER_LIKE_QEMU), 0);
    CHECK(vhost_driver_echoes(&front, "before"));
    uint64_t features = front.features, protocol = front.protocol;
    vhost_driver_connect(&front);
    front.features = features;
    front.protocol = protocol & (VHOST_USER_F_REPLY_ACK | VHOST_USER_F_STATUS);
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_FEATURES, features, -1), 0);
    CHECK_INT(vhost_driver_ask(&front, VHOST_GET_STATUS), 0);
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER, -1), 0);
    CHECK_INT(vhost_driver_set_memory(&front, VHOST_DRIVER_MEMORY_BYTES), 0);
    CHECK_INT(vhost_driver_set_ring(&front, front.driver.last_used), 0);
    CHECK(vhost_driver_echoes(&front, "after"));
    vhost_driver_end(&front);
}

TEST(a_second_front_end_waits_for_its_turn)
{
    struct vhost_driver_options options = {.listens = true};
    struct vhost_message reply;
    vhost_driver_begin(&front, &options);
    CHECK_INT(vhost_driver_shake_hands(&front, VHOST_DRIVER_OLD), 0);
    auto_close int first = steal_fd(&front.fd);
    vhost_driver_connect(&front);
    CHECK(vhost_driver_send(&front, VHOST_GET_FEATURES, VHOST_VERSION, NULL, 0, NULL, 0));
    CHECK_INT(front.connected, 1);
    shutdown(first, SHUT_WR);
    CHECK(vhost_driver_receive(&front, front.fd, &reply));
    CHECK_INT(front.connected, 2);
    vhost_driver_end(&front);
}

TEST(a_server_for_one_connection_closes_its_listener)
{
    struct vhost_driver_options options = {.listens = true, .is_once = true};
    struct sockaddr_un address;
    socklen_t length = sizeof(address);
    vhost_driver_begin(&front, &options);
    CHECK_INT(getsockname(front.listen_fd, (struct sockaddr *)&address, &length), 0);
    CHECK_INT(vhost_driver_shake_hands(&front, VHOST_DRIVER_LIKE_QEMU), 0);
    auto_close int second = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(connect(second, (struct sockaddr *)&address, length) < 0 && errno == ECONNREFUSED);
    vhost_driver_disconnect(&front);
    CHECK_INT(front.disconnected, 1);
    vhost_driver_end(&front);
    CHECK_INT(front.disconnected, 1);
}

TEST(a_socket_that_does_not_listen_yet_costs_nothing)
{
    struct virtio_device *device = NULL;
    struct vhost_user *server = NULL;
    vhost_driver_begin(&front, &plain);
    device = front.device;
    front.server = vhost_user_free(front.server);
    struct vhost_user_options options = {.connection_fd = -1};
    options.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_INT(vhost_user_new(device, &options, &server), 0);
    CHECK_INT(virtio_device_launch(device), 0);
    CHECK(is_idle());
    vhost_user_free(server);
    vhost_driver_end(&front);
}

TEST(a_front_end_ends_between_any_two_messages)
{
    /* Each step of a hand-shake is one message at most; what was given until then must go. */
    for (int is_launched = 0; is_launched < 2; is_launched++) {
        for (unsigned steps = 0; steps < 6; steps++) {
            struct vhost_driver_options options = {.is_launched = is_launched};
            vhost_driver_begin(&front, &options);
            if (steps > 0)
                CHECK_INT(vhost_driver_negotiate(&front, VHOST_DRIVER_LIKE_QEMU), 0);
            if (steps > 1)
                CHECK_INT(vhost_driver_set_ring(&front, 0), 0);
            if (steps > 2)
                CHECK(vhost_driver_echoes(&front, "hello"));
            if (steps > 3)
                CHECK_INT(vhost_driver_tell_state(&front, VHOST_SET_VRING_ENABLE, 0, 0), 0);
            if (steps > 4)
                CHECK_INT(vhost_driver_set_memory(&front, 1 << 20), 0);
            vhost_driver_disconnect(&front);
            if (is_launched && steps % 2 == 0)
                virtio_device_stop(front.device); /* a call in between */
            vhost_driver_end(&front);
            CHECK_INT(front.disconnected, 1);
        }
    }
}

/* ---- rings that stop and go on ---- */

TEST(a_disabled_ring_keeps_the_device)
{
    for (int is_launched = 0; is_launched < 2; is_launched++) {
        CHECK(begin_as(VHOST_DRIVER_LIKE_QEMU, is_launched));
        CHECK(vhost_driver_echoes(&front, "one"));
        CHECK_INT(vhost_driver_tell_state(&front, VHOST_SET_VRING_ENABLE, 0, 0), 0);
        unsigned before = front.served;
        driver_offer_text(&front.driver, "two");
        vhost_driver_kick(&front);
        CHECK_INT(vhost_driver_ask(&front, VHOST_GET_STATUS), 15); /* so that the kick has been seen */
        CHECK_INT(front.served, before);
        CHECK_INT(vhost_driver_tell_state(&front, VHOST_SET_VRING_ENABLE, 0, 1), 0);
        CHECK(vhost_driver_gets(&front, "two"));
        CHECK_TEXT(front.order, "sp");
        vhost_driver_end(&front);
    }
}

TEST(rings_of_an_old_front_end_are_enabled_until_it_says_otherwise)
{
    CHECK(begin_as(VHOST_DRIVER_OLD, false));
    CHECK(vhost_driver_echoes(&front, "one"));
    CHECK_INT(vhost_driver_tell_state(&front, VHOST_SET_VRING_ENABLE, 0, 0), 0);
    driver_offer_text(&front.driver, "two");
    vhost_driver_kick(&front);
    CHECK(!driver_takes_text(&front.driver, "two"));
    CHECK_INT(vhost_driver_tell_state(&front, VHOST_SET_VRING_ENABLE, 0, 1), 0);
    CHECK(vhost_driver_gets(&front, "two"));
    vhost_driver_end(&front);
}

TEST(chains_that_were_held_come_again)
{
    CHECK(begin_as(VHOST_DRIVER_LIKE_UML, false));
    CHECK(vhost_driver_echoes(&front, "one"));
    front.holds = true;
    driver_offer_text(&front.driver, "two");
    vhost_driver_kick(&front);
    CHECK_INT(driver_get_16(&front.driver, DRIVER_USED + 2), 1);
    CHECK_INT(vhost_driver_tell_state(&front, VHOST_SET_VRING_ENABLE, 0, 0), 0);
    front.holds = false;
    CHECK_INT(vhost_driver_tell_state(&front, VHOST_SET_VRING_ENABLE, 0, 1), 0);
    vhost_driver_turn(&front);
    CHECK(driver_takes_text(&front.driver, "two"));
    vhost_driver_end(&front);
}

static uint32_t get_base(void)
{
    struct vhost_message reply;
    struct vhost_ring_state state = {.index = 0};
    if (!vhost_driver_send(&front, VHOST_GET_VRING_BASE, VHOST_VERSION, &state, sizeof(state), NULL, 0) ||
        !vhost_driver_receive(&front, front.fd, &reply) || reply.header.request != VHOST_GET_VRING_BASE ||
        reply.header.size != sizeof(state) || reply.state.index != 0)
        return UINT32_MAX;
    return reply.state.number;
}

TEST(a_ring_goes_on_where_it_stopped)
{
    for (size_t i = 0; i < array_length(styles); i++) {
        CHECK(begin_as(styles[i], false));
        for (unsigned round = 0; round < 20; round++) {
            CHECK(vhost_driver_echoes(&front, "one"));
            CHECK_INT(get_base(), 2 * round + 1);
            CHECK_INT(get_base(), 2 * round + 1);
            driver_offer_text(&front.driver, "two");
            CHECK_INT(vhost_driver_set_ring(&front, (uint16_t)(2 * round + 1)), 0);
            vhost_driver_turn(&front);
            CHECK(driver_takes_text(&front.driver, "two"));
        }
        CHECK(strncmp(front.order, "sppp", 4) == 0 && strchr(front.order, 'e') == NULL);
        vhost_driver_end(&front);
    }
}

TEST(a_device_is_reset_in_every_way_there_is)
{
    for (int way = 0; way < 5; way++) {
        CHECK(begin_as(VHOST_DRIVER_LIKE_QEMU, false));
        CHECK(vhost_driver_echoes(&front, "one"));
        if (way == 0)
            CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_STATUS, 0, -1), 0);
        if (way == 1)
            CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_STATUS, VIRTIO_FAILED, -1), 0);
        if (way == 2)
            CHECK_INT(vhost_driver_tell(&front, VHOST_RESET_DEVICE, NULL, 0, -1), 0);
        if (way == 3) {
            CHECK_INT(vhost_driver_tell_state(&front, VHOST_SET_VRING_ENABLE, 0, 0), 0);
            CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_FEATURES, VHOST_DRIVER_FEATURES, -1), 0);
        }
        if (way == 4) {
            CHECK_INT(vhost_driver_tell(&front, VHOST_RESET_OWNER, NULL, 0, -1), 0);
            CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_FEATURES, VHOST_DRIVER_FEATURES, -1), 0);
        }
        CHECK_TEXT(front.order, way < 3 ? "se" : "spe");
        CHECK_INT(vhost_driver_ask(&front, VHOST_GET_STATUS), way == 1 ? VIRTIO_FAILED : way < 3 ? 0 : 15);
        unsigned before = front.served;
        driver_offer_text(&front.driver, "two");
        vhost_driver_kick(&front);
        CHECK_INT(front.served, before);
        CHECK_INT(vhost_driver_set_ring(&front, 1), 0);
        vhost_driver_turn(&front);
        CHECK(driver_takes_text(&front.driver, "two"));
        vhost_driver_end(&front);
    }
}

TEST(the_same_features_again_change_nothing_while_a_ring_runs)
{
    CHECK(begin_as(VHOST_DRIVER_LIKE_UML, false));
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_FEATURES, VHOST_DRIVER_FEATURES, -1), 0);
    CHECK(vhost_driver_tell_number(&front, VHOST_SET_FEATURES, VHOST_DRIVER_FEATURES | VIRTIO_F_EVENT_IDX, -1) > 0);
    CHECK(vhost_driver_tell_number(&front, VHOST_SET_PROTOCOL_FEATURES, 0, -1) > 0);
    CHECK(vhost_driver_echoes(&front, "hello"));
    CHECK_TEXT(front.order, "s");
    vhost_driver_end(&front);
}

/* ---- memory ---- */

TEST(memory_is_replaced_under_a_ring)
{
    for (int is_launched = 0; is_launched < 2; is_launched++) {
        CHECK(begin_as(VHOST_DRIVER_LIKE_QEMU, is_launched));
        for (uint64_t bytes = 2 << 20; bytes >= 256 << 10; bytes /= 2) {
            CHECK_INT(vhost_driver_set_memory(&front, bytes), 0);
            CHECK(vhost_driver_echoes(&front, "hello"));
        }
        CHECK_TEXT(front.order, "spppp");
        vhost_driver_end(&front);
    }
}

TEST(a_table_without_a_ring_that_runs_is_refused)
{
    CHECK(begin_as(VHOST_DRIVER_LIKE_QEMU, false));
    struct vhost_regions table = {.count = 1, .regions = {{0, 1 << 16, VHOST_DRIVER_USER, 0}}};
    int fd = memory_region(front.driver.memory, 0)->fd;
    CHECK(vhost_driver_tell(&front, VHOST_SET_MEM_TABLE, &table, 40, fd) > 0);
    CHECK(vhost_driver_echoes(&front, "hello"));
    CHECK_INT(get_base(), 1);
    CHECK_INT(vhost_driver_tell(&front, VHOST_SET_MEM_TABLE, &table, 40, fd), 0); /* nothing runs in it now */
    CHECK(vhost_driver_tell_number(&front, VHOST_SET_VRING_KICK, 0, front.kick_fd) > 0);
    CHECK(vhost_driver_set_ring(&front, 1) > 0);
    CHECK_INT(vhost_driver_set_memory(&front, VHOST_DRIVER_MEMORY_BYTES), 0);
    CHECK_INT(vhost_driver_set_ring(&front, 1), 0);
    CHECK(vhost_driver_echoes(&front, "hello"));
    vhost_driver_end(&front);
}

static bool accepts_nothing(void *user, int fd)
{
    return user == NULL && fd < 0;
}

TEST(memory_may_have_to_be_accepted)
{
    struct vhost_driver_options options = {.accepts_memory = accepts_nothing};
    vhost_driver_begin(&front, &options);
    CHECK_INT(vhost_driver_negotiate(&front, VHOST_DRIVER_LIKE_UML), 7);
    vhost_driver_end(&front);
}

/* ---- configuration and calls ---- */

static bool reads_config(uint32_t offset, uint32_t size, struct vhost_message *ret_reply)
{
    struct vhost_config config = {.offset = offset, .size = size};
    return vhost_driver_send(&front, VHOST_GET_CONFIG, VHOST_VERSION, &config, 12 + size, NULL, 0) &&
           vhost_driver_receive(&front, front.fd, ret_reply);
}

TEST(the_configuration_is_read_and_written)
{
    struct vhost_message reply;
    uint8_t bytes[VHOST_DRIVER_CONFIG_BYTES];
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i + 1);
    CHECK(begin_as(VHOST_DRIVER_LIKE_UML, false));
    virtio_set_config(front.device, 0, bytes, sizeof(bytes));
    CHECK(reads_config(0, 16, &reply));
    CHECK_INT(reply.header.size, 28);
    CHECK_INT(reply.config.size, 16);
    CHECK(memcmp(reply.config.bytes, bytes, 16) == 0);
    CHECK(reads_config(15, 2, &reply));
    CHECK(reply.header.size == 14 && reply.config.bytes[0] == 16 && reply.config.bytes[1] == 0);
    CHECK(reads_config(0, 256, &reply)); /* a front end that knows more than we have */
    CHECK(reply.header.size == 268 && reply.config.bytes[15] == 16 && reply.config.bytes[16] == 0);
    CHECK(reads_config(1, 256, &reply));
    CHECK_INT(reply.header.size, 0);
    CHECK(reads_config(UINT32_MAX, 1, &reply));
    CHECK_INT(reply.header.size, 0);
    struct vhost_config config = {.offset = 4, .size = 8, .bytes = {0xaa}};
    CHECK_INT(vhost_driver_tell(&front, VHOST_SET_CONFIG, &config, 20, -1), 0);
    CHECK_INT(front.config_writes, 1);
    config.offset = 5;
    CHECK(vhost_driver_tell(&front, VHOST_SET_CONFIG, &config, 20, -1) > 0);
    config.offset = 4;
    config.flags = 1;
    CHECK(vhost_driver_tell(&front, VHOST_SET_CONFIG, &config, 20, -1) > 0);
    CHECK_INT(front.config_writes, 1);
    CHECK(reads_config(4, 1, &reply));
    CHECK_INT(reply.config.bytes[0], 0xaa);
    vhost_driver_end(&front);
}

static bool was_told_of_config(void)
{
    struct vhost_message message;
    return vhost_driver_receive(&front, front.channel_fd, &message) &&
           message.header.request == VHOST_BACKEND_CONFIG_CHANGE && message.header.size == 0;
}

static bool is_channel_empty(void)
{
    char byte;
    return recv(front.channel_fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
}

TEST(a_change_of_the_configuration_is_told)
{
    struct vhost_message reply;
    uint8_t byte = 1;
    CHECK(begin_as(VHOST_DRIVER_LIKE_QEMU, false));
    virtio_set_config(front.device, 0, &byte, 1);
    CHECK(was_told_of_config());
    CHECK(reads_config(0, 1, &reply));
    /* QEMU goes on with its copy after a reset: what changed meanwhile is told when the device begins again. */
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_STATUS, 0, -1), 0);
    virtio_set_config(front.device, 0, &byte, 1);
    CHECK(is_channel_empty());
    CHECK_INT(vhost_driver_set_ring(&front, 0), 0);
    CHECK(was_told_of_config());
    CHECK(is_channel_empty());
    vhost_driver_end(&front);
}

TEST(calls_that_find_the_channel_full_are_not_lost)
{
    struct vhost_message message;
    unsigned calls = 0, changes = 0;
    uint8_t byte = 1;
    CHECK(begin_as(VHOST_DRIVER_LIKE_UML, false));
    for (unsigned i = 0; i < 5000; i++) {
        driver_offer_text(&front.driver, "hello");
        vhost_driver_tell_state(&front, VHOST_VRING_KICK, 0, 0);
        CHECK(driver_takes_text(&front.driver, "hello"));
    }
    virtio_set_config(front.device, 0, &byte, 1);
    uint64_t before = front.served;
    for (bool is_config = false; !is_config;) { /* the last one to come */
        CHECK(vhost_driver_receive(&front, front.channel_fd, &message));
        is_config = message.header.request == VHOST_BACKEND_CONFIG_CHANGE;
        changes += is_config;
        calls += !is_config;
    }
    CHECK_INT(front.served, before);
    CHECK_INT(changes, 1);
    CHECK(calls > 10 && calls < 5000);
    CHECK(vhost_driver_was_called(&front)); /* the one that was owed */
    CHECK(is_channel_empty());
    CHECK(vhost_driver_echoes(&front, "hello"));
    CHECK_INT(virtio_device_launch(front.device), 0);
    front.is_launched = true;
    CHECK(is_idle());                              /* nobody waits for room any more */
    front.channel_fd = fd_close(front.channel_fd); /* its own loss */
    driver_offer_text(&front.driver, "hello");
    CHECK_INT(vhost_driver_tell_state(&front, VHOST_VRING_KICK, 0, 0), 0);
    CHECK(driver_takes_text(&front.driver, "hello"));
    vhost_driver_end(&front);
}

TEST(a_channel_that_closes_while_something_is_owed_is_let_go)
{
    CHECK(begin_as(VHOST_DRIVER_LIKE_UML, false));
    for (unsigned i = 0; i < 5000; i++) {
        driver_offer_text(&front.driver, "hello");
        vhost_driver_tell_state(&front, VHOST_VRING_KICK, 0, 0);
        CHECK(driver_takes_text(&front.driver, "hello"));
    }
    front.channel_fd = fd_close(front.channel_fd);
    vhost_driver_turn(&front);
    CHECK_INT(vhost_driver_tell(&front, VHOST_SET_OWNER, NULL, 0, -1), 0);
    vhost_driver_end(&front);
}

TEST(a_new_call_is_signalled_at_once)
{
    eventfd_t count = 0;
    CHECK(begin_as(VHOST_DRIVER_LIKE_QEMU, false));
    auto_close int call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_VRING_CALL, 0, call_fd), 0);
    CHECK_INT(eventfd_read(call_fd, &count), 0); /* the call before may have gone to the other one */
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_VRING_CALL, VHOST_NO_FD, -1), 0);
    driver_offer_text(&front.driver, "hello");
    vhost_driver_kick(&front);
    CHECK(driver_takes_text(&front.driver, "hello"));
    CHECK(eventfd_read(call_fd, &count) < 0);
    vhost_driver_end(&front);
}

TEST(a_broken_ring_is_told)
{
    eventfd_t count = 0;
    CHECK(begin_as(VHOST_DRIVER_LIKE_QEMU, false));
    driver_set_available(&front.driver, VHOST_DRIVER_ENTRIES + 1);
    vhost_driver_kick(&front);
    CHECK_INT(eventfd_read(front.error_fd, &count), 0);
    CHECK_INT(vhost_driver_ask(&front, VHOST_GET_STATUS), 15 | VIRTIO_NEEDS_RESET);
    CHECK_INT(vhost_driver_set_memory(&front, 1 << 20), 0); /* it stays broken */
    driver_set_available(&front.driver, 0);
    driver_offer_text(&front.driver, "hello");
    vhost_driver_kick(&front);
    CHECK(!driver_takes_text(&front.driver, "hello"));
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_STATUS, 0, -1), 0);
    CHECK_INT(vhost_driver_set_ring(&front, 0), 0);
    vhost_driver_turn(&front);
    CHECK(driver_takes_text(&front.driver, "hello"));
    CHECK_INT(vhost_driver_ask(&front, VHOST_GET_STATUS), 0);
    vhost_driver_end(&front);
}

/* ---- life ---- */

TEST(a_server_is_freed_while_its_device_runs)
{
    for (int i = 0; i < 20; i++) {
        CHECK(begin_as(styles[i % 4], true));
        driver_offer_text(&front.driver, "hello");
        vhost_driver_kick(&front);
        front.server = vhost_user_free(front.server);
        CHECK_INT(front.disconnected, 1);
        CHECK(vhost_driver_is_closed(&front));
        vhost_driver_end(&front);
    }
    CHECK(vhost_user_free(NULL) == NULL);
}

TEST(a_server_survives_no_memory)
{
    vhost_driver_begin(&front, &plain);
    front.server = vhost_user_free(front.server);
    vhost_driver_end(&front);
    FOR_EACH_FAULT
    {
        int pair[2];
        struct virtio_device *device = NULL;
        struct vhost_user *server = NULL;
        static const struct virtio_device_ops ops = {.type = VIRTIO_TYPE_RNG, .name = "none"};
        static const uint16_t sizes[] = {8};
        struct virtio_device_options options = {.ops = &ops, .queue_sizes = sizes, .queue_count = 1};
        CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        int result = virtio_device_new(&options, &device);
        struct vhost_user_options server_options = {.listen_fd = -1, .connection_fd = pair[1]};
        if (result == 0)
            result = vhost_user_new(device, &server_options, &server);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
        if (result < 0)
            close(pair[1]); /* it was not taken */
        vhost_user_free(server);
        virtio_device_free(device);
        close(pair[0]);
    }
}
