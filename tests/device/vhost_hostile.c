// SPDX-License-Identifier: Apache-2.0
/* The vhost-user server against a hostile front end: every field of every message wrong, descriptors that are too many,
 * too few and of the wrong kind, floods, and signals that are meant to keep the device's thread waiting. What must
 * hold: the request is refused, by an acknowledgement or by the connection's end, nothing of it has taken effect, the
 * device serves the next one, and no descriptor is left (which the harness counts after each test). */
#include "test.h"

#include "vhost_driver.h"

#include "base/alloc.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct vhost_driver front;
static const struct vhost_driver_options plain = {0};
static const struct vhost_driver_options listening = {.listens = true};

static bool begin_running(enum vhost_driver_style style)
{
    vhost_driver_begin(&front, &plain);
    return vhost_driver_shake_hands(&front, style) == 0;
}

/* ---- the form ---- */

struct raw {
    uint32_t request, flags, size;
    unsigned fd_count;
};

/* A front end that sends this, in the middle of a session, is disconnected, and the next one is served. */
static const char *is_thrown_out(const struct raw *raw)
{
    static const uint8_t zeros[512];
    int fds[16];
    for (size_t i = 0; i < array_length(fds); i++)
        fds[i] = memory_region(front.driver.memory, 0)->fd;
    if (!vhost_driver_send(&front, raw->request, raw->flags, zeros, raw->size < 512 ? raw->size : 512, fds,
                           raw->fd_count))
        return "it could not be sent";
    if (!vhost_driver_is_closed(&front))
        return "it was accepted";
    vhost_driver_connect(&front);
    return vhost_driver_shake_hands(&front, VHOST_DRIVER_LIKE_QEMU) == 0 ? NULL : "nobody is served any more";
}

TEST(what_is_no_message_ends_the_connection)
{
    static const struct raw cases[] = {
        {VHOST_GET_FEATURES, 0, 0, 0},                           /* no version */
        {VHOST_GET_FEATURES, 2, 0, 0},                           /* another one */
        {VHOST_GET_FEATURES, 3, 0, 0},                           /* another one */
        {VHOST_GET_FEATURES, VHOST_VERSION | VHOST_REPLY, 0, 0}, /* a reply */
        {VHOST_GET_FEATURES, VHOST_VERSION | 16, 0, 0},          /* a flag that is not known */
        {VHOST_GET_FEATURES, UINT32_MAX, 0, 0},
        {VHOST_GET_FEATURES, VHOST_VERSION, 8, 0}, /* sizes */
        {VHOST_GET_FEATURES, VHOST_VERSION, 1, 0},
        {VHOST_GET_FEATURES, VHOST_VERSION, 273, 0},
        {VHOST_GET_FEATURES, VHOST_VERSION, UINT32_MAX, 0},
        {VHOST_SET_FEATURES, VHOST_VERSION, 0, 0},
        {VHOST_SET_FEATURES, VHOST_VERSION, 7, 0},
        {VHOST_SET_FEATURES, VHOST_VERSION, 9, 0},
        {VHOST_SET_OWNER, VHOST_VERSION | VHOST_NEED_REPLY, 8, 0},
        {VHOST_SET_MEM_TABLE, VHOST_VERSION, 0, 0},
        {VHOST_SET_MEM_TABLE, VHOST_VERSION, 4, 0},
        {VHOST_SET_MEM_TABLE, VHOST_VERSION, 40, 0}, /* a region that is not counted */
        {VHOST_SET_VRING_NUM, VHOST_VERSION, 4, 0},
        {VHOST_SET_VRING_ADDR, VHOST_VERSION, 32, 0},
        {VHOST_SET_VRING_ADDR, VHOST_VERSION, 48, 0},
        {VHOST_SET_VRING_BASE, VHOST_VERSION, 0, 0},
        {VHOST_GET_VRING_BASE, VHOST_VERSION, 16, 0},
        {VHOST_SET_VRING_KICK, VHOST_VERSION, 4, 1},
        {VHOST_GET_CONFIG, VHOST_VERSION, 11, 0},
        {VHOST_GET_CONFIG, VHOST_VERSION, 13, 0}, /* a byte that is not counted */
        {VHOST_SET_CONFIG, VHOST_VERSION, 13, 0},
        {VHOST_SET_STATUS, VHOST_VERSION, 1, 0},
        {VHOST_GET_FEATURES, VHOST_VERSION, 0, 1}, /* descriptors */
        {VHOST_SET_FEATURES, VHOST_VERSION | VHOST_NEED_REPLY, 8, 1},
        {VHOST_SET_MEM_TABLE, VHOST_VERSION, 8, 1},
        {VHOST_SET_VRING_KICK, VHOST_VERSION, 8, 0},
        {VHOST_SET_VRING_KICK, VHOST_VERSION, 8, 2},
        {VHOST_SET_VRING_CALL, VHOST_VERSION, 8, 0},
        {VHOST_SET_VRING_CALL, VHOST_VERSION, 8, 8},
        {VHOST_SET_VRING_CALL, VHOST_VERSION, 8, 9}, /* more than fit */
        {VHOST_SET_VRING_ERR, VHOST_VERSION, 8, 16},
        {VHOST_SET_BACKEND_REQ_FD, VHOST_VERSION, 0, 0},
        {VHOST_SET_BACKEND_REQ_FD, VHOST_VERSION, 0, 2},
        {77, VHOST_VERSION, 0, 8}, /* not known, and descriptors with it */
        {77, VHOST_VERSION | VHOST_NEED_REPLY, 0, 1},
        {77, VHOST_VERSION | VHOST_NEED_REPLY, 300, 0},
    };
    vhost_driver_begin(&front, &listening);
    CHECK_INT(vhost_driver_shake_hands(&front, VHOST_DRIVER_LIKE_QEMU), 0);
    for (size_t i = 0; i < array_length(cases); i++) {
        const char *wrong = is_thrown_out(&cases[i]);
        if (wrong != NULL)
            printf("# case %zu\n", i);
        CHECK_TEXT(wrong != NULL ? wrong : "", "");
    }
    CHECK_INT(front.disconnected, array_length(cases));
    vhost_driver_end(&front);
}

TEST(a_right_message_with_a_descriptor_too_many)
{
    struct vhost_regions table = {.count = VHOST_MOST_REGIONS};
    int fds[VHOST_MOST_REGIONS + 1];
    vhost_driver_begin(&front, &listening);
    CHECK_INT(vhost_driver_negotiate(&front, VHOST_DRIVER_LIKE_QEMU), 0);
    for (uint64_t i = 0; i <= VHOST_MOST_REGIONS; i++) {
        fds[i] = memory_region(front.driver.memory, 0)->fd;
        if (i < VHOST_MOST_REGIONS)
            table.regions[i] = (struct vhost_region){4096 * i, 4096, VHOST_DRIVER_USER + 4096 * i, 4096 * i};
    }
    CHECK(vhost_driver_send(&front, VHOST_SET_MEM_TABLE, VHOST_VERSION, &table, sizeof(table), fds, 8));
    CHECK_INT(vhost_driver_ask(&front, VHOST_GET_STATUS), 0);
    CHECK(vhost_driver_send(&front, VHOST_SET_MEM_TABLE, VHOST_VERSION, &table, sizeof(table), fds, 9));
    CHECK(vhost_driver_is_closed(&front));
    vhost_driver_end(&front);
}

TEST(what_is_not_known_is_refused)
{
    static const uint32_t requests[] = {0, 6, 7, 19, 20, 22, 23, 26, 33, 36, 37, 38, 41, 77, UINT32_MAX};
    uint8_t zeros[64] = {0};
    CHECK(begin_running(VHOST_DRIVER_LIKE_QEMU));
    for (size_t i = 0; i < array_length(requests); i++)
        CHECK_INT(vhost_driver_tell(&front, requests[i], zeros, 8 * (uint32_t)(i % 8), -1), EOPNOTSUPP);
    CHECK_INT(vhost_driver_tell_state(&front, VHOST_VRING_KICK, 0, 0), EOPNOTSUPP); /* not agreed on */
    CHECK(vhost_driver_echoes(&front, "hello"));
    vhost_driver_end(&front);
}

TEST(what_was_not_agreed_on_ends_the_connection)
{
    static const uint32_t requests[] = {VHOST_GET_QUEUE_NUM, VHOST_GET_CONFIG, VHOST_RESET_DEVICE, 77};
    for (size_t i = 0; i < array_length(requests); i++) {
        vhost_driver_begin(&front, &plain);
        CHECK(vhost_driver_send(&front, requests[i], VHOST_VERSION, NULL, 0, NULL, 0));
        CHECK(vhost_driver_is_closed(&front));
        vhost_driver_end(&front);
    }
    vhost_driver_begin(&front, &plain); /* an acknowledgement, too, by who has agreed on other things */
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_PROTOCOL_FEATURES, VHOST_USER_F_MQ, -1), 0);
    CHECK(vhost_driver_send(&front, VHOST_SET_OWNER, VHOST_VERSION | VHOST_NEED_REPLY, NULL, 0, NULL, 0));
    CHECK(vhost_driver_is_closed(&front));
    vhost_driver_end(&front);
    vhost_driver_begin(&front, &plain); /* nothing else would tell it (In-band notifications) */
    front.protocol = VHOST_USER_F_REPLY_ACK;
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_PROTOCOL_FEATURES, front.protocol, -1), 0);
    front.protocol |= VHOST_USER_F_INBAND;
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_PROTOCOL_FEATURES, front.protocol, -1), -1);
    CHECK(vhost_driver_is_closed(&front));
    vhost_driver_end(&front);
}

/* ---- numbers ---- */

TEST(numbers_that_cannot_be)
{
    const uint32_t most = UINT32_MAX;
    CHECK(begin_running(VHOST_DRIVER_LIKE_QEMU));
    static const uint32_t by_ring[] = {VHOST_SET_VRING_NUM, VHOST_SET_VRING_BASE, VHOST_SET_VRING_ENABLE};
    for (size_t i = 0; i < array_length(by_ring); i++) {
        CHECK(vhost_driver_tell_state(&front, by_ring[i], VHOST_DRIVER_RINGS, 1) > 0);
        CHECK(vhost_driver_tell_state(&front, by_ring[i], most, 1) > 0);
        CHECK(vhost_driver_tell_state(&front, by_ring[i], 1, most) > 0);
    }
    static const uint32_t sizes[] = {0, 3, 9, 2048, 65536, 1u << 31};
    for (size_t i = 0; i < array_length(sizes); i++)
        CHECK_INT(vhost_driver_tell_state(&front, VHOST_SET_VRING_NUM, 1, sizes[i]), EINVAL);
    CHECK_INT(vhost_driver_tell_state(&front, VHOST_SET_VRING_BASE, 1, 65536), EINVAL);
    CHECK_INT(vhost_driver_tell_state(&front, VHOST_SET_VRING_ENABLE, 1, 2), EINVAL);
    /* of a ring that runs */
    CHECK_INT(vhost_driver_tell_state(&front, VHOST_SET_VRING_NUM, 0, 8), EBUSY);
    CHECK_INT(vhost_driver_tell_state(&front, VHOST_SET_VRING_BASE, 0, 0), EBUSY);
    static const uint64_t signals[] = {2, 255, 512, 1 << 16, UINT64_MAX ^ VHOST_NO_FD, UINT64_C(1) << 32};
    for (size_t i = 0; i < array_length(signals); i++)
        for (uint32_t request = VHOST_SET_VRING_KICK; request <= VHOST_SET_VRING_ERR; request++)
            CHECK_INT(vhost_driver_tell_number(&front, request, signals[i], front.kick_fd), EINVAL);
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_VRING_KICK, VHOST_NO_FD, -1), EINVAL);  /* polling */
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_VRING_KICK, 1, front.kick_fd), EINVAL); /* not set up */
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_STATUS, 256, -1), EINVAL);
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_PROTOCOL_FEATURES, 1 << 1, -1), EINVAL);
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_PROTOCOL_FEATURES, UINT64_MAX, -1), EINVAL);
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_FEATURES, UINT64_MAX, -1), EINVAL);
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_FEATURES, 0, -1), EINVAL); /* no VERSION_1 */
    CHECK(vhost_driver_echoes(&front, "hello"));
    CHECK_TEXT(front.order, "s");
    vhost_driver_end(&front);
}

TEST(a_wrong_ring_number_where_an_answer_is_due_ends_the_connection)
{
    struct vhost_ring_state state = {.index = VHOST_DRIVER_RINGS};
    CHECK(begin_running(VHOST_DRIVER_LIKE_QEMU));
    CHECK(vhost_driver_send(&front, VHOST_GET_VRING_BASE, VHOST_VERSION, &state, sizeof(state), NULL, 0));
    CHECK(vhost_driver_is_closed(&front));
    vhost_driver_end(&front);
}

TEST(kicks_in_messages_that_cannot_be)
{
    CHECK(begin_running(VHOST_DRIVER_LIKE_UML));
    CHECK_INT(vhost_driver_tell_state(&front, VHOST_VRING_KICK, 0, 1), EINVAL);
    CHECK_INT(vhost_driver_tell_state(&front, VHOST_VRING_KICK, 1, 0), EINVAL);
    CHECK_INT(vhost_driver_tell_state(&front, VHOST_VRING_KICK, UINT32_MAX, 0), EINVAL);
    CHECK(vhost_driver_echoes(&front, "hello"));
    vhost_driver_end(&front);
}

/* ---- places of rings ---- */

static long place(uint64_t descriptors, uint64_t available, uint64_t used, uint32_t flags)
{
    struct vhost_ring_addresses addresses = {.index = 1,
                                             .flags = flags,
                                             .descriptors = VHOST_DRIVER_USER + descriptors,
                                             .available = VHOST_DRIVER_USER + available,
                                             .used = VHOST_DRIVER_USER + used};
    return vhost_driver_tell(&front, VHOST_SET_VRING_ADDR, &addresses, sizeof(addresses), -1);
}

TEST(places_that_cannot_be)
{
    const uint64_t end = VHOST_DRIVER_MEMORY_BYTES, d = DRIVER_DESCRIPTORS, a = DRIVER_AVAILABLE, u = DRIVER_USED;
    CHECK(begin_running(VHOST_DRIVER_LIKE_QEMU));
    CHECK_INT(place(d, a, u, 0), EINVAL); /* before it has a size */
    CHECK_INT(vhost_driver_tell_state(&front, VHOST_SET_VRING_NUM, 1, 8), 0);
    CHECK_INT(place(d + 8, a, u, 0), EINVAL);
    CHECK_INT(place(d, a + 1, u, 0), EINVAL);
    CHECK_INT(place(d, a, u + 2, 0), EINVAL);
    CHECK_INT(place(end - 127 + 15, a, u, 0), EFAULT);
    CHECK_INT(place(d, end - 20, u, 0), EFAULT);
    CHECK_INT(place(d, a, end - 68, 0), EFAULT);
    CHECK_INT(place(end, a, u, 0), EFAULT);
    CHECK_INT(place(0 - UINT64_C(16), a, u, 0), EFAULT);
    CHECK_INT(place(UINT64_MAX - 15 - VHOST_DRIVER_USER, a, u, 0), EFAULT);
    CHECK_INT(place(d - VHOST_DRIVER_USER, a, u, 0), EFAULT); /* a guest address */
    CHECK_INT(place(d, a, u, 1), EINVAL);                     /* logged */
    CHECK_INT(place(end - 128, end - 22, end - 72, 0), 0);    /* the very end */
    CHECK_INT(vhost_driver_tell_state(&front, VHOST_SET_VRING_NUM, 1, 16), 0);
    CHECK_INT(vhost_driver_tell_state(&front, VHOST_SET_VRING_BASE, 1, 0), 0);
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_VRING_KICK, 1, front.kick_fd), EINVAL); /* too small now */
    CHECK(vhost_driver_echoes(&front, "hello"));
    vhost_driver_end(&front);
    vhost_driver_begin(&front, &plain); /* and without any memory */
    CHECK_INT(vhost_driver_tell_state(&front, VHOST_SET_VRING_NUM, 1, 8), 0);
    CHECK_INT(place(d, a, u, 0), -1);
    vhost_driver_end(&front);
}

/* ---- memory ---- */

static long tell_regions(const struct vhost_region *regions, uint32_t count, int fd)
{
    struct vhost_regions table = {.count = count};
    struct vhost_message reply;
    int fds[VHOST_MOST_REGIONS];
    for (uint32_t i = 0; i < count; i++) {
        table.regions[i] = regions[i];
        fds[i] = fd;
    }
    if (!vhost_driver_send(&front, VHOST_SET_MEM_TABLE, VHOST_VERSION | VHOST_NEED_REPLY, &table, 8 + 32 * count, fds,
                           count) ||
        !vhost_driver_receive(&front, front.fd, &reply))
        return -1;
    return (long)reply.number;
}

TEST(memory_that_cannot_be)
{
    enum { page = 4096, file_bytes = 16 * page };
    const uint64_t user = 1 << 30;
    CHECK(begin_running(VHOST_DRIVER_LIKE_QEMU));
    auto_close int fd = memfd_create("memory", MFD_CLOEXEC);
    CHECK_INT(ftruncate(fd, file_bytes), 0);
    static const struct {
        struct vhost_region region;
        int answer;
    } wrong[] = {
        {{0, 0, 1 << 30, 0}, EINVAL},
        {{1, page, 1 << 30, 0}, EINVAL},
        {{0, page + 1, 1 << 30, 0}, EINVAL},
        {{0, page, 1 << 30, 1}, EINVAL},
        {{0, 17 * page, 1 << 30, 0}, EFBIG},
        {{0, page, 1 << 30, file_bytes}, EFBIG},
        {{0, page, 1 << 30, UINT64_MAX - page + 1}, EINVAL},
        {{0, UINT64_MAX - page + 1, 1 << 30, 0}, EINVAL},
        {{UINT64_MAX - page + 1, page, 1 << 30, 0}, EINVAL},
        {{UINT64_MAX - page + 1, 2 * page, 1 << 30, 0}, EINVAL},
        {{0, 2 * page, UINT64_MAX - page, 0}, EINVAL},
        {{0, UINT64_C(1) << 62, 1 << 30, 0}, EFBIG},
        {{0, page, 1 << 30, 0}, EFAULT}, /* right, but without the ring that runs */
    };
    for (size_t i = 0; i < array_length(wrong); i++)
        CHECK_INT(tell_regions(&wrong[i].region, 1, fd), wrong[i].answer);
    CHECK_INT(tell_regions(NULL, 0, -1), EINVAL);
    struct vhost_region two[] = {{0, 2 * page, user, 0}, {page, page, user + 8 * page, 0}};
    CHECK_INT(tell_regions(two, 2, fd), EEXIST); /* overlapping in the guest, */
    two[1] = (struct vhost_region){8 * page, page, user + page, 0};
    CHECK_INT(tell_regions(two, 2, fd), EINVAL); /* and in the front end */
    two[1] = (struct vhost_region){8 * page, 4 * page, user - page, 0};
    CHECK_INT(tell_regions(two, 2, fd), EINVAL);
    struct vhost_region one = {0, VHOST_DRIVER_MEMORY_BYTES, VHOST_DRIVER_USER, 0};
    auto_close int folder = open("/", O_RDONLY | O_CLOEXEC);
    auto_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    auto_close int event = eventfd(0, EFD_CLOEXEC);
    CHECK(tell_regions(&one, 1, folder) > 0);
    CHECK(tell_regions(&one, 1, null) > 0);
    CHECK(tell_regions(&one, 1, event) > 0);
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", memory_region(front.driver.memory, 0)->fd);
    auto_close int read_only = open(path, O_RDONLY | O_CLOEXEC);
    auto_close int path_only = open(path, O_PATH | O_CLOEXEC);
    CHECK(tell_regions(&one, 1, read_only) > 0);
    CHECK(tell_regions(&one, 1, path_only) > 0);
    CHECK(vhost_driver_echoes(&front, "hello"));
    vhost_driver_end(&front);
}

/* ---- descriptors of the wrong kind ---- */

TEST(kicks_of_the_wrong_kind)
{
    CHECK(begin_running(VHOST_DRIVER_LIKE_QEMU));
    auto_close int file = open(test_text_file("file", "text"), O_RDWR | O_CLOEXEC);
    auto_close int folder = open("/", O_RDONLY | O_CLOEXEC);
    auto_close int path_only = open("/", O_PATH | O_CLOEXEC);
    int pipe_fds[2];
    CHECK_INT(pipe2(pipe_fds, O_CLOEXEC), 0);
    close(pipe_fds[1]);
    CHECK(vhost_driver_tell_number(&front, VHOST_SET_VRING_KICK, 0, file) > 0);
    CHECK(vhost_driver_tell_number(&front, VHOST_SET_VRING_KICK, 0, folder) > 0);
    CHECK(vhost_driver_tell_number(&front, VHOST_SET_VRING_KICK, 0, path_only) > 0);
    CHECK(vhost_driver_echoes(&front, "still the old one"));
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_VRING_KICK, 0, pipe_fds[0]), 0); /* which never kicks */
    unsigned before = front.served;
    vhost_driver_turn(&front);
    vhost_driver_turn(&front);
    CHECK(front.served <= before + 2);
    close(pipe_fds[0]);
    vhost_driver_end(&front);
}

TEST(kicks_can_be_pipes_and_sockets)
{
    int pipe_fds[2];
    CHECK(begin_running(VHOST_DRIVER_LIKE_QEMU));
    CHECK_INT(pipe2(pipe_fds, O_CLOEXEC), 0);
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_VRING_KICK, 0, pipe_fds[0]), 0);
    close(front.kick_fd);
    front.kick_fd = pipe_fds[1];
    for (int i = 0; i < 100; i++) /* nobody reads it, and each write is a kick */
        CHECK(vhost_driver_echoes(&front, "hello"));
    close(pipe_fds[0]);
    vhost_driver_end(&front);
}

TEST(calls_of_the_wrong_kind)
{
    CHECK(begin_running(VHOST_DRIVER_LIKE_QEMU));
    const char *path = test_text_file("file", "text");
    auto_close int file = open(path, O_RDWR | O_CLOEXEC);
    auto_close int folder = open("/", O_RDONLY | O_CLOEXEC);
    auto_close int path_only = open("/", O_PATH | O_CLOEXEC);
    auto_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int pipe_fds[2];
    CHECK_INT(pipe2(pipe_fds, O_CLOEXEC), 0);
    const int wrong[] = {file, folder, path_only, null, pipe_fds[0]};
    for (uint32_t request = VHOST_SET_VRING_CALL; request <= VHOST_SET_VRING_ERR; request++)
        for (size_t i = 0; i < array_length(wrong); i++)
            CHECK(vhost_driver_tell_number(&front, request, 0, wrong[i]) > 0);
    CHECK(vhost_driver_echoes(&front, "still the old one"));
    CHECK_INT(lseek(file, 0, SEEK_END), 4); /* nothing was written to it */
    const int wrong_channels[] = {file, folder, null, pipe_fds[1], front.kick_fd};
    for (size_t i = 0; i < array_length(wrong_channels); i++)
        CHECK(vhost_driver_tell(&front, VHOST_SET_BACKEND_REQ_FD, NULL, 0, wrong_channels[i]) > 0);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    vhost_driver_end(&front);
}

/* ---- signals that are not to be waited for ---- */

/* Without waiting for a call: the ring alone says. */
static bool serves(void)
{
    driver_offer_text(&front.driver, "hello");
    vhost_driver_kick(&front);
    for (int i = 0; i < 1000; i++) { /* an answer may come before the kick has been seen, but not for long */
        if (vhost_driver_ask(&front, VHOST_GET_STATUS) == UINT64_MAX)
            return false;
        if (driver_takes_text(&front.driver, "hello"))
            return true;
    }
    return false;
}

TEST(a_full_pipe_is_not_waited_for)
{
    for (int is_launched = 0; is_launched < 2; is_launched++) {
        int pipe_fds[2];
        uint64_t one = 0;
        struct vhost_driver_options options = {.is_launched = is_launched};
        vhost_driver_begin(&front, &options);
        CHECK_INT(vhost_driver_shake_hands(&front, VHOST_DRIVER_LIKE_QEMU), 0);
        CHECK_INT(pipe2(pipe_fds, O_CLOEXEC), 0);                /* which blocks, */
        CHECK_INT(fcntl(pipe_fds[1], F_SETPIPE_SZ, 4096), 4096); /* and is full after 512 at the latest */
        CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_VRING_CALL, 0, pipe_fds[1]), 0);
        for (int i = 0; i < 1000; i++)
            CHECK(serves());
        CHECK_INT(read(pipe_fds[0], &one, sizeof(one)), 8);
        CHECK_INT(one, 1);
        close(pipe_fds[0]); /* and no SIGPIPE, on no thread */
        CHECK(serves());
        close(pipe_fds[1]);
        vhost_driver_end(&front);
    }
}

TEST(a_full_socket_is_not_waited_for)
{
    int pair[2];
    CHECK(begin_running(VHOST_DRIVER_LIKE_QEMU));
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_VRING_CALL, 0, pair[1]), 0);
    for (int i = 0; i < 2000; i++)
        CHECK(serves());
    close(pair[0]);
    CHECK(serves());
    close(pair[1]);
    vhost_driver_end(&front);
}

static void fill(int event)
{
    uint64_t most = UINT64_MAX - 1;
    if (write(event, &most, sizeof(most)) < 0)
        abort();
}

TEST(a_full_event_is_not_waited_for_as_it_comes)
{
    CHECK(begin_running(VHOST_DRIVER_LIKE_QEMU));
    auto_close int event = eventfd(0, EFD_CLOEXEC);
    fill(event);
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_VRING_CALL, 0, event), 0);
    CHECK(serves());
    vhost_driver_end(&front);
}

/* Makes the event block again and fills it: the device's thread waits. */
static bool is_stuck(int event)
{
    struct pollfd wait = {.fd = front.fd, .events = POLLIN};
    if (fcntl(event, F_SETFL, 0) < 0)
        return false;
    fill(event);
    driver_offer_text(&front.driver, "hello");
    vhost_driver_kick(&front);
    while (driver_get_16(&front.driver, DRIVER_USED + 2) == front.driver.last_used)
        poll(NULL, 0, 1);
    vhost_driver_send(&front, VHOST_GET_FEATURES, VHOST_VERSION, NULL, 0, NULL, 0);
    return poll(&wait, 1, 100) == 0;
}

TEST(abandoning_frees_a_thread_that_waits_for_the_peer)
{
    struct vhost_driver_options options = {.is_launched = true, .listens = true};
    vhost_driver_begin(&front, &options);
    CHECK_INT(vhost_driver_shake_hands(&front, VHOST_DRIVER_LIKE_QEMU), 0);
    auto_close int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_VRING_CALL, 0, event), 0);
    CHECK(eventfd_read(event, &(eventfd_t){0}) == 0);
    CHECK(is_stuck(event));
    vhost_user_abandon(front.server);
    vhost_driver_end(&front); /* which would wait for ever */
    CHECK_INT(front.disconnected, 1);
}

TEST(an_abandoned_server_serves_nobody)
{
    for (int is_launched = 0; is_launched < 2; is_launched++) {
        struct vhost_driver_options options = {.is_launched = is_launched, .listens = true};
        vhost_driver_begin(&front, &options);
        CHECK_INT(vhost_driver_shake_hands(&front, VHOST_DRIVER_LIKE_QEMU), 0);
        vhost_user_abandon(front.server);
        CHECK(vhost_driver_is_closed(&front));
        vhost_driver_connect(&front);
        CHECK(vhost_driver_send(&front, VHOST_GET_FEATURES, VHOST_VERSION, NULL, 0, NULL, 0));
        virtio_device_stop(front.device); /* so that the loop has had its turn */
        CHECK_INT(front.connected, 1);
        vhost_user_abandon(front.server);
        vhost_driver_end(&front);
    }
}

/* ---- floods ---- */

TEST(a_front_end_that_reads_no_replies_is_thrown_out)
{
    vhost_driver_begin(&front, &plain);
    bool was_sent = true;
    for (int i = 0; i < 100000 && was_sent; i++)
        was_sent = vhost_driver_send(&front, VHOST_GET_FEATURES, VHOST_VERSION, NULL, 0, NULL, 0) &&
                   front.disconnected == 0;
    CHECK_INT(front.disconnected, 1);
    vhost_driver_end(&front);
}

TEST(a_flood_of_descriptors_leaves_none)
{
    CHECK(begin_running(VHOST_DRIVER_LIKE_QEMU));
    for (int i = 0; i < 300; i++) {
        auto_close int event = eventfd(0, EFD_CLOEXEC);
        uint64_t ring = (uint64_t)(i % VHOST_DRIVER_RINGS);
        CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_VRING_CALL, ring, event), 0);
        CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_VRING_ERR, ring, event), 0);
        CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_VRING_KICK, 0, event), 0);
        CHECK_INT(vhost_driver_set_memory(&front, VHOST_DRIVER_MEMORY_BYTES >> i % 4), 0);
    }
    auto_close int last = eventfd(0, EFD_CLOEXEC);
    CHECK(last < 60);
    vhost_driver_end(&front);
}

TEST(a_message_for_which_there_are_no_descriptors_ends_the_connection)
{
    struct rlimit limit, low;
    CHECK(begin_running(VHOST_DRIVER_LIKE_QEMU));
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = limit;
    auto_close int event = eventfd(0, EFD_CLOEXEC);
    low.rlim_cur = (rlim_t)event + 1;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &low), 0);
    long result = vhost_driver_tell_number(&front, VHOST_SET_VRING_CALL, 0, event);
    setrlimit(RLIMIT_NOFILE, &limit);
    CHECK_INT(result, -1);
    CHECK_INT(front.disconnected, 1);
    vhost_driver_end(&front);
}

TEST(nothing_is_half_done_without_memory)
{
    CHECK(begin_running(VHOST_DRIVER_LIKE_QEMU));
    int fd = memory_region(front.driver.memory, 0)->fd;
    struct vhost_region one = {0, VHOST_DRIVER_MEMORY_BYTES, VHOST_DRIVER_USER, 0};
    FOR_EACH_FAULT
    {
        long result = tell_regions(&one, 1, fd);
        CHECK_INT(result, fault_was_hit() ? ENOMEM : 0);
        CHECK(vhost_driver_echoes(&front, "hello"));
    }
    FOR_EACH_FAULT
    {
        long result = vhost_driver_tell_number(&front, VHOST_SET_VRING_KICK, 0, front.kick_fd);
        CHECK_INT(result, fault_was_hit() ? ENOMEM : 0);
        CHECK(vhost_driver_echoes(&front, "hello"));
    }
    vhost_driver_end(&front);
}

/* ---- what this process lacks ---- */

TEST(signals_that_could_wait_are_refused_where_sockets_are_asked_for)
{
    struct vhost_driver_options options = {.signals_sockets_only = true};
    auto_close int event = eventfd(0, EFD_CLOEXEC);
    int ends[2];
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    vhost_driver_begin(&front, &options);
    CHECK_INT(vhost_driver_shake_hands(&front, VHOST_DRIVER_LIKE_UML), 0);
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_VRING_CALL, 0, event), EINVAL);
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_VRING_ERR, 0, event), EINVAL);
    CHECK_INT(vhost_driver_tell_number(&front, VHOST_SET_VRING_CALL, 0, ends[1]), EINVAL);
    CHECK(vhost_driver_echoes(&front, "as before"));
    vhost_driver_end(&front);
    fd_close(ends[0]), fd_close(ends[1]);
}

/* A descriptor of the peer's that there is no number left for is our own lack, and no fault of the driver's. */
TEST(a_lack_of_descriptors_is_told_as_our_own)
{
    struct rlimit before, none;
    CHECK(begin_running(VHOST_DRIVER_LIKE_QEMU));
    auto_close int event = eventfd(0, EFD_CLOEXEC);
    uint64_t faults = virtio_device_faults(front.device);
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &none), 0);
    long told = vhost_driver_tell_number(&front, VHOST_SET_VRING_ERR, 0, event);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
    CHECK_INT(told, -1);
    CHECK_INT(front.out_of_room, EMFILE);
    CHECK_INT(virtio_device_faults(front.device), faults);
    vhost_driver_end(&front);
}

/* No more address space: as ulimit -v makes it. */
TEST(memory_that_cannot_be_mapped_is_told_as_our_own)
{
    struct rlimit before, none;
    CHECK(begin_running(VHOST_DRIVER_LIKE_QEMU));
    CHECK_INT(getrlimit(RLIMIT_AS, &before), 0);
    none = (struct rlimit){.rlim_cur = 1 << 20, .rlim_max = before.rlim_max};
    CHECK_INT(setrlimit(RLIMIT_AS, &none), 0);
    long told = vhost_driver_set_memory(&front, VHOST_DRIVER_MEMORY_BYTES);
    CHECK_INT(setrlimit(RLIMIT_AS, &before), 0);
    CHECK_INT(told, ENOMEM);
    CHECK_INT(front.out_of_room, ENOMEM);
    CHECK(vhost_driver_echoes(&front, "with the memory of before"));
    vhost_driver_end(&front);
}
