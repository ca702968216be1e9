// SPDX-License-Identifier: Apache-2.0
/* The file server against a guest that does everything wrong. What must hold: it answers or stays silent, the backend
 * never sees what was not handed out (fake_files.c notes that), and afterwards everything still works.
 */
#include "test.h"

#include "base/alloc.h"
#include "base/limits.h"
#include "fs_client.h"
#include "hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

static struct fs_client client;

static void begin_with(struct fs_options options)
{
    fs_client_begin(&client, options);
    if (fs_client_init(&client) < 0)
        abort();
}

static void begin(void)
{
    begin_with((struct fs_options){.window_bytes = FS_CLIENT_WINDOW});
}

#define CALL(opcode, node, arguments) fs_client_call(&client, opcode, node, &(arguments), sizeof(arguments), NULL, 0)

/* ---- messages ---- */

TEST(short_messages)
{
    begin();
    client.room = 0; /* a chain of so many bytes, and nothing to write to */
    for (uint32_t length = 1; length < sizeof(struct fuse_in_header); length++) {
        virtio_driver_describe(&client.driver, 1, 0, FS_CLIENT_OUT, length, 0, 0);
        virtio_driver_offer(&client.driver, 1, 0);
        virtio_driver_kick(&client.driver, 1);
        CHECK_INT(fs_client_take(&client, NULL), FS_CLIENT_NO_REPLY);
    }
    CHECK_INT(virtio_device_faults(client.driver.device), 2 * (sizeof(struct fuse_in_header) - 1));
    client.room = FS_CLIENT_ROOM;
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "file"), 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(lies_about_the_length)
{
    const uint32_t lengths[] = {0, 1, 39, 46, 1000, 1 << 21, UINT32_MAX, UINT32_MAX - 39};
    begin();
    for (size_t i = 0; i < array_length(lengths); i++) {
        client.lies = true;
        client.header.len = lengths[i];
        CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "file"), -EIO);
        CHECK_INT(client.reply_bytes, 0);
    }
    client.header.len = 40 + 4; /* cuts the name's NUL off */
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "file"), -EINVAL);
    client.header.len = 40;
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "file"), -EINVAL);
    client.lies = false;
    client.header.total_extlen = 1;
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "file"), -EINVAL);
    client.header.total_extlen = 0;
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(arguments_of_a_wrong_size)
{
    static const uint8_t zeros[256];
    begin();
    for (uint32_t opcode = 0; opcode < 64; opcode++)
        for (size_t length = 0; length < 120; length++) { /* whatever is right for it is in there */
            if (opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_DESTROY || opcode == FUSE_INIT)
                continue;
            int error = fs_client_call(&client, opcode, 1, zeros, length, NULL, 0);
            CHECK(error <= FS_CLIENT_NO_REPLY);
        }
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "file"), 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(unknown_opcodes)
{
    const uint32_t opcodes[] = {0, 7, 19, 31, 32, 33, 37, 41, 51, 52, 53, 63, 4096, 1048576, UINT32_MAX};
    begin();
    for (size_t i = 0; i < array_length(opcodes); i++)
        CHECK_INT(fs_client_name(&client, opcodes[i], 1, "file"), -ENOSYS);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(bad_names)
{
    static char long_name[300];
    static const struct {
        const char *bytes;
        size_t length;
        int error;
    } names[] = {
        {"file", 4, -EINVAL},
        {"file\0", 6, -EINVAL},
        {"file\0x", 7, -EINVAL},
        {"", 1, -EINVAL},
        {".", 2, -EINVAL},
        {"..", 3, -EINVAL},
        {"a/b", 4, -EINVAL},
        {"/", 2, -EINVAL},
        {"../file", 8, -EINVAL},
        {"folder/inner", 13, -EINVAL},
        {"", 0, -EINVAL},
        {long_name, 257, -ENAMETOOLONG},
        {long_name, 256, -ENAMETOOLONG},
        {"...", 4, -ENOENT},
    };
    begin();
    memset(long_name, 'n', sizeof(long_name));
    long_name[256] = '\0';
    for (size_t i = 0; i < array_length(names); i++)
        CHECK_INT(fs_client_call(&client, FUSE_LOOKUP, 1, NULL, 0, names[i].bytes, names[i].length), names[i].error);
    long_name[255] = '\0';
    CHECK_INT(fs_client_call(&client, FUSE_LOOKUP, 1, NULL, 0, long_name, 256), -ENOENT);
    struct fuse_rename_in rename = {.newdir = 1};
    CHECK_INT(fs_client_call(&client, FUSE_RENAME, 1, &rename, sizeof(rename), "file\0..", 8), -EINVAL);
    CHECK_INT(fs_client_call(&client, FUSE_RENAME, 1, &rename, sizeof(rename), "file\0", 5), -EINVAL);
    CHECK_INT(fs_client_call(&client, FUSE_RENAME, 1, &rename, sizeof(rename), "file\0a/b", 9), -EINVAL);
    CHECK_INT(fs_client_call(&client, FUSE_RENAME, 1, &rename, sizeof(rename), "file\0ok\0x", 10), -EINVAL);
    CHECK_INT(client.files.changes, 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(link_targets_may_be_anything_but_too_long)
{
    static char message[2 + 4096 + 1];
    begin();
    memset(message, '/', sizeof(message));
    memcpy(message, "l", 2);
    message[sizeof(message) - 1] = '\0';
    CHECK_INT(fs_client_call(&client, FUSE_SYMLINK, 1, NULL, 0, message, sizeof(message)), -ENAMETOOLONG);
    message[sizeof(message) - 2] = '\0';
    CHECK_INT(fs_client_call(&client, FUSE_SYMLINK, 1, NULL, 0, message, sizeof(message) - 1), 0);
    CHECK_INT(fs_client_call(&client, FUSE_SYMLINK, 1, NULL, 0, "m\0", 3), -EINVAL);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(replies_without_room)
{
    begin();
    const uint64_t faults = virtio_device_faults(client.driver.device);
    client.room = 15;
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "file"), FS_CLIENT_NO_REPLY);
    CHECK_INT(virtio_device_faults(client.driver.device), faults + 1);
    client.room = 16 + 127;
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "file"), -EIO);
    CHECK_INT(client.files.nodes[1].lookups, 0); /* not even counted */
    struct fuse_create_in create = {.flags = O_RDWR};
    client.room = 16 + 128 + 15;
    CHECK_INT(fs_client_call(&client, FUSE_CREATE, 1, &create, sizeof(create), "new", 4), -EIO);
    CHECK_INT(client.files.changes, 0);
    client.room = FS_CLIENT_ROOM;
    uint64_t file = fs_client_node(&client, 1, "file");
    uint64_t handle = fs_client_open(&client, FUSE_OPEN, file, O_RDONLY);
    client.room = 16;
    CHECK_INT(fs_client_read(&client, file, handle, 0, 1), -EIO);
    client.room = 17;
    CHECK_INT(fs_client_read(&client, file, handle, 0, 1), 0);
    client.room = FS_CLIENT_ROOM;
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(ranges_that_overflow)
{
    begin();
    uint64_t file = fs_client_node(&client, 1, "file");
    uint64_t handle = fs_client_open(&client, FUSE_OPEN, file, O_RDWR);
    CHECK_INT(fs_client_read(&client, file, handle, UINT64_MAX, 1), -EINVAL);
    CHECK_INT(fs_client_read(&client, file, handle, INT64_MAX, 1), -EINVAL);
    CHECK_INT(fs_client_read(&client, file, handle, 0, LIMIT_FS_TRANSFER_BYTES + 1), -EINVAL);
    CHECK_INT(fs_client_read(&client, file, handle, 0, UINT32_MAX), -EINVAL);
    CHECK_INT(fs_client_write(&client, file, handle, UINT64_MAX - 1, "abc"), -EINVAL);
    struct fuse_write_in write = {.fh = handle, .size = 100}; /* more than there is */
    CHECK_INT(fs_client_call(&client, FUSE_WRITE, file, &write, sizeof(write), "abc", 3), -EINVAL);
    struct fuse_lseek_in seek = {.fh = handle, .whence = SEEK_DATA, .offset = UINT64_MAX};
    CHECK_INT(CALL(FUSE_LSEEK, file, seek), -EINVAL);
    struct fuse_copy_file_range_in copy = {
        .fh_in = handle, .fh_out = handle, .nodeid_out = file, .off_in = INT64_MAX, .len = 1};
    CHECK_INT(CALL(FUSE_COPY_FILE_RANGE, file, copy), -EINVAL);
    CHECK_INT(client.files.changes, 1); /* the open */
    CHECK_TEXT(fs_client_end(&client), "");
}

/* ---- sessions, nodes, handles ---- */

TEST(nothing_before_init)
{
    static const uint8_t zeros[200];
    fs_client_begin(&client, (struct fs_options){.cache = FS_CACHE_AUTO});
    for (uint32_t opcode = 1; opcode < 52; opcode++) {
        if (opcode == FUSE_INIT)
            continue;
        for (size_t length = 0; length < 100; length += 4)
            CHECK(fs_client_call(&client, opcode, 1, zeros, length, NULL, 0) != 0);
    }
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "file"), -EIO);
    CHECK_INT(client.files.calls, 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

static atomic_int log_lines;

static void count_lines(void *user, const struct vial_log_record *record)
{
    (void)user;
    log_lines += strncmp(record->event, "fs.", 3) == 0;
}

TEST(a_guest_that_begins_anew_in_a_loop_does_not_fill_the_log)
{
    enum { rounds = 1000 };
    begin();
    log_lines = 0;
    vial_log_set_hook(count_lines, NULL, VIAL_LOG_INFO);
    for (int i = 0; i < rounds; i++) {
        CHECK_INT(fs_client_init(&client), 0);
        struct fuse_init_in old = {.major = 7, .minor = 20};
        CHECK_INT(fs_client_call(&client, FUSE_INIT, 0, &old, 16, NULL, 0), -EPROTO);
    }
    vial_log_set_hook(NULL, NULL, VIAL_LOG_OFF);
    CHECK(log_lines > 0 && log_lines < 20); /* of 2000, as many as powers of two */
    CHECK_INT(fs_client_init(&client), 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(forged_and_stale_nodes)
{
    static const uint64_t nodes[] = {0, 2, 3, 1000, UINT64_MAX, UINT64_C(1) << 32 | 1};
    begin();
    struct fuse_getattr_in get = {0};
    for (size_t i = 0; i < array_length(nodes); i++)
        CHECK_INT(CALL(FUSE_GETATTR, nodes[i], get), -ESTALE);
    uint64_t file = fs_client_node(&client, 1, "file");
    CHECK_INT(CALL(FUSE_GETATTR, file, get), 0);
    fs_client_forget(&client, file, 1);
    CHECK_INT(CALL(FUSE_GETATTR, file, get), -ESTALE);
    fs_client_forget(&client, file, UINT64_MAX);
    fs_client_forget(&client, 1, UINT64_MAX);
    fs_client_forget(&client, 0, 1);
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "file"), 0);
    struct fuse_link_in link = {.oldnodeid = 3};
    CHECK_INT(fs_client_call(&client, FUSE_LINK, 1, &link, sizeof(link), "x", 2), -ESTALE);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(forged_and_stale_handles)
{
    begin();
    uint64_t file = fs_client_node(&client, 1, "file"), folder = fs_client_node(&client, 1, "folder");
    uint64_t handle = fs_client_open(&client, FUSE_OPEN, file, O_RDONLY);
    uint64_t folder_handle = fs_client_open(&client, FUSE_OPENDIR, folder, O_RDONLY);
    CHECK_INT(fs_client_read(&client, folder, folder_handle, 0, 10), -EBADF); /* of another kind */
    CHECK_INT(fs_client_read(&client, folder, handle, 0, 10), -EBADF);        /* of another node */
    CHECK_INT(fs_client_read(&client, file, handle + 1, 0, 10), -EBADF);
    CHECK_INT(fs_client_read(&client, file, 0xffffffff, 0, 10), -EBADF);
    CHECK_INT(fs_client_release(&client, FUSE_RELEASE, folder, folder_handle), -EBADF);
    CHECK_INT(fs_client_release(&client, FUSE_RELEASEDIR, file, handle), -EBADF);
    CHECK_INT(fs_client_release(&client, FUSE_RELEASE, file, handle), 0);
    CHECK_INT(fs_client_release(&client, FUSE_RELEASE, file, handle), -EBADF);
    CHECK_INT(fs_client_read(&client, file, handle, 0, 10), -EBADF);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(a_node_forgotten_while_it_is_open)
{
    begin();
    uint64_t file = fs_client_node(&client, 1, "file");
    uint64_t handle = fs_client_open(&client, FUSE_OPEN, file, O_RDONLY);
    fs_client_forget(&client, file, 1);
    CHECK_INT(fs_client_read(&client, file, handle, 0, 10), -ESTALE);
    CHECK_INT(client.files.nodes[1].lookups, 1); /* the handle keeps it */
    CHECK_INT(fs_client_node(&client, 1, "file"), file);
    CHECK_INT(fs_client_read(&client, file, handle, 0, 10), 0);
    CHECK_INT(fs_client_release(&client, FUSE_RELEASE, file, handle), 0);
    fs_client_forget(&client, file, 1);
    CHECK_INT(client.files.nodes[1].lookups, 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(handles_have_an_end)
{
    begin();
    uint64_t file = fs_client_node(&client, 1, "file"), first = 0;
    for (unsigned i = 0; i < LIMIT_FS_OPEN_HANDLES; i++) {
        uint64_t handle = fs_client_open(&client, FUSE_OPEN, file, O_RDONLY);
        first = i == 0 ? handle : first;
        CHECK(handle != UINT64_MAX);
    }
    struct fuse_open_in open = {0};
    CHECK_INT(CALL(FUSE_OPEN, file, open), -ENFILE);
    struct fuse_create_in create = {.flags = O_RDWR};
    CHECK_INT(fs_client_call(&client, FUSE_CREATE, 1, &create, sizeof(create), "new", 4), -ENFILE);
    CHECK_INT(client.files.changes, 0); /* and nothing was created */
    CHECK_INT(fs_client_release(&client, FUSE_RELEASE, file, first), 0);
    CHECK_INT(CALL(FUSE_OPEN, file, open), 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

/* ---- read-only ---- */

TEST(read_only_for_every_opcode)
{
    static const uint8_t zeros[100];
    static const struct {
        uint32_t opcode;
        size_t argument_bytes;
        const char *tail;
        size_t tail_bytes;
    } changes[] = {
        {FUSE_SETATTR, sizeof(struct fuse_setattr_in), NULL, 0},
        {FUSE_SYMLINK, 0, "a\0b", 4},
        {FUSE_MKNOD, sizeof(struct fuse_mknod_in), "a", 2},
        {FUSE_MKDIR, sizeof(struct fuse_mkdir_in), "a", 2},
        {FUSE_UNLINK, 0, "file", 5},
        {FUSE_RMDIR, 0, "folder", 7},
        {FUSE_RENAME, sizeof(struct fuse_rename_in), "file\0a", 7},
        {FUSE_RENAME2, sizeof(struct fuse_rename2_in), "file\0a", 7},
        {FUSE_LINK, sizeof(struct fuse_link_in), "a", 2},
        {FUSE_WRITE, sizeof(struct fuse_write_in), NULL, 0},
        {FUSE_SETXATTR, 8, "user.a", 7},
        {FUSE_REMOVEXATTR, 0, "user.a", 7},
        {FUSE_CREATE, sizeof(struct fuse_create_in), "a", 2},
        {FUSE_FALLOCATE, sizeof(struct fuse_fallocate_in), NULL, 0},
        {FUSE_COPY_FILE_RANGE, sizeof(struct fuse_copy_file_range_in), NULL, 0},
    };
    begin_with((struct fs_options){.read_only = true, .window_bytes = FS_CLIENT_WINDOW});
    for (size_t i = 0; i < array_length(changes); i++)
        CHECK_INT(fs_client_call(&client, changes[i].opcode, 1, zeros, changes[i].argument_bytes, changes[i].tail,
                                 changes[i].tail_bytes),
                  -EROFS);
    uint64_t file = fs_client_node(&client, 1, "file");
    static const uint32_t flags[] = {O_WRONLY, O_RDWR, O_TRUNC, O_RDONLY | O_TRUNC, O_WRONLY | O_APPEND};
    for (size_t i = 0; i < array_length(flags); i++) {
        struct fuse_open_in open = {.flags = flags[i]};
        CHECK_INT(CALL(FUSE_OPEN, file, open), -EROFS);
    }
    struct fuse_setupmapping_in map = {.len = 4096, .flags = FUSE_SETUPMAPPING_FLAG_WRITE};
    CHECK_INT(CALL(FUSE_SETUPMAPPING, file, map), -EROFS);
    map.flags = FUSE_SETUPMAPPING_FLAG_READ;
    CHECK_INT(CALL(FUSE_SETUPMAPPING, file, map), 0);
    int ends[2];
    CHECK_INT(pipe(ends), 0);
    CHECK_INT(write(ends[1], "X", 1), 1);
    ssize_t result = read(ends[0], client.window, 1); /* which writes to the mapping */
    int error = errno;
    close(ends[0]);
    close(ends[1]);
    CHECK(result < 0 && error == EFAULT);
    uint64_t handle = fs_client_open(&client, FUSE_OPEN, file, O_RDONLY);
    CHECK_INT(fs_client_read(&client, file, handle, 0, 10), 0);
    struct fuse_syncfs_in sync = {0};
    uint64_t calls = client.files.calls;
    CHECK_INT(CALL(FUSE_SYNCFS, 1, sync), 0); /* without making the host write what others have */
    CHECK_INT(client.files.changes, 0);
    CHECK_INT(client.files.calls, calls);
    CHECK_TEXT(fs_client_end(&client), "");
}

/* ---- requests that take long ---- */

static uint64_t file_node, file_handle;

static void begin_long(void)
{
    begin_with((struct fs_options){.worker_count = 3});
    file_node = fs_client_node(&client, 1, "file");
    file_handle = fs_client_open(&client, FUSE_OPEN, file_node, O_RDONLY);
}

static void post_sync(unsigned place)
{
    struct fuse_fsync_in sync = {.fh = file_handle};
    fs_client_post(&client, place, FUSE_FSYNC, file_node, &sync, sizeof(sync), 16);
}

TEST(short_requests_overtake_long_ones)
{
    unsigned place = 0;
    begin_long();
    fake_files_hold(&client.files, true);
    post_sync(1);
    virtio_driver_kick(&client.driver, 1);
    fake_files_wait(&client.files, 1);
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "folder"), 0);
    fake_files_hold(&client.files, false);
    CHECK_INT(fs_client_take(&client, &place), 0);
    CHECK_INT(place, 1);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(reads_that_come_together_are_done_together)
{
    begin_long();
    fake_files_hold(&client.files, true);
    struct fuse_read_in in = {.fh = file_handle, .size = 8192};
    for (unsigned i = 1; i <= 4; i++)
        fs_client_post(&client, i, FUSE_READ, file_node, &in, sizeof(in), 16 + 8192);
    virtio_driver_kick(&client.driver, 1);
    fake_files_wait(&client.files, 4); /* three workers and the device's thread */
    fake_files_hold(&client.files, false);
    for (unsigned i = 0; i < 4; i++)
        CHECK(fs_client_take(&client, NULL) == 0 && client.reply_bytes == 6);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(a_file_released_and_forgotten_while_it_is_read)
{
    unsigned place = 0;
    begin_long();
    fake_files_hold(&client.files, true);
    post_sync(1);
    virtio_driver_kick(&client.driver, 1);
    fake_files_wait(&client.files, 1);
    CHECK_INT(fs_client_release(&client, FUSE_RELEASE, file_node, file_handle), 0);
    CHECK_INT(fs_client_release(&client, FUSE_RELEASE, file_node, file_handle), -EBADF);
    fs_client_forget(&client, file_node, 1);
    CHECK_INT(fake_files_held(&client.files), 2); /* the backend still has both */
    fake_files_hold(&client.files, false);
    CHECK_INT(fs_client_take(&client, &place), 0);
    CHECK_INT(fake_files_held(&client.files), 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(more_long_requests_than_there_may_be)
{
    enum { rounds = 12, places = 15 };
    begin_with((struct fs_options){.worker_count = 1, .backend_may_wait = true});
    file_node = fs_client_node(&client, 1, "file");
    file_handle = fs_client_open(&client, FUSE_OPEN, file_node, O_RDONLY);
    fake_files_hold(&client.files, true);
    struct fuse_fsync_in sync = {.fh = file_handle};
    /* More heads than there are places: each place's chain is offered several times. */
    for (unsigned i = 1; i <= places; i++)
        post_sync(i);
    for (unsigned round = 1; round < 8; round++)
        for (unsigned i = 1; i <= places; i++)
            virtio_driver_offer(&client.driver, 1, (uint16_t)(4 * i));
    client.queue = 2;
    for (unsigned i = 1; i <= places; i++)
        fs_client_post(&client, i, FUSE_FSYNC, file_node, &sync, sizeof(sync), 16);
    virtio_driver_kick(&client.driver, 1);
    virtio_driver_kick(&client.driver, 2);
    fake_files_wait(&client.files, 1);
    fake_files_hold(&client.files, false);
    for (unsigned i = 0; i < places; i++)
        CHECK_INT(fs_client_take(&client, NULL), 0);
    client.queue = 1;
    for (unsigned i = 0; i < 8 * places; i++)
        CHECK_INT(fs_client_take(&client, NULL), 0);
    CHECK_INT(fs_client_release(&client, FUSE_RELEASE, file_node, file_handle), 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

static void *let_go_soon(void *user)
{
    (void)user;
    fake_files_wait(&client.files, 2);
    poll(NULL, 0, 20); /* the reset is waiting by now, and if it is not, the test only proves less */
    fake_files_hold(&client.files, false);
    return NULL;
}

TEST(a_reset_waits_for_what_is_in_flight)
{
    pthread_t thread;
    begin_long();
    fake_files_hold(&client.files, true);
    post_sync(1);
    post_sync(2);
    virtio_driver_kick(&client.driver, 1);
    CHECK_INT(pthread_create(&thread, NULL, let_go_soon, NULL), 0);
    fake_files_wait(&client.files, 2);
    virtio_driver_reset(&client.driver);
    CHECK_INT(client.files.waiting, 0);
    CHECK_INT(fake_files_held(&client.files), 0);
    pthread_join(thread, NULL);
    fs_client_start(&client);
    CHECK_INT(fs_client_init(&client), 0);
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "file"), 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(a_new_session_waits_for_what_is_in_flight)
{
    pthread_t thread;
    begin_long();
    fake_files_hold(&client.files, true);
    post_sync(1);
    post_sync(2);
    CHECK_INT(pthread_create(&thread, NULL, let_go_soon, NULL), 0);
    fs_client_post(&client, 3, FUSE_DESTROY, 0, NULL, 0, 16);
    virtio_driver_kick(&client.driver, 1);
    for (unsigned i = 0; i < 3; i++)
        CHECK_INT(fs_client_take(&client, NULL), 0);
    CHECK_INT(fake_files_held(&client.files), 0);
    pthread_join(thread, NULL);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(errors_of_the_backend_are_made_sane)
{
    static const int errors[] = {-EIO, -512, -4095, -1000000};
    begin_long();
    struct fuse_fsync_in sync = {.fh = file_handle};
    for (size_t i = 0; i < array_length(errors); i++) {
        client.files.next_error = errors[i];
        CHECK_INT(CALL(FUSE_FSYNC, file_node, sync), -EIO);
    }
    client.files.next_error = -ENOSPC;
    CHECK_INT(CALL(FUSE_FSYNC, file_node, sync), -ENOSPC);
    CHECK_TEXT(fs_client_end(&client), "");
}

/* ---- rings ---- */

TEST(hostile_queues)
{
    struct virtio_driver driver;
    static struct fake_files files;
    struct virtio_device *device = NULL;
    virtio_driver_init(&driver, 4 << 20);
    fake_files_init(&files);
    struct fs_options options = {
        .tag = "t", .backend = fake_files_backend(&files), .queue_count = 1, .worker_count = 1};
    CHECK_INT(fs_new(&options, &device), 0);
    virtio_driver_attach(&driver, device);
    for (unsigned queue = 0; queue < 2; queue++) {
        const char *wrong = hostile_rings(&driver, 0, 3, queue);
        CHECK_TEXT(wrong != NULL ? wrong : "", "");
        wrong = hostile_registers(&driver, 0, 3, queue);
        CHECK_TEXT(wrong != NULL ? wrong : "", "");
    }
    const char *wrong = hostile_changes(&driver, 0, 3, 1, VIRTIO_DRIVER_WRITE);
    CHECK_TEXT(wrong != NULL ? wrong : "", "");
    virtio_driver_release(&driver);
    CHECK(files.wrong == NULL && files.was_released);
    fake_files_end(&files);
}
