// SPDX-License-Identifier: Apache-2.0
/* The file server and a guest that opens no file, but reads by node (NO_OPEN_SUPPORT). What must hold: the backend sees
 * one open a file, closed before its node is forgotten, at the end of the session, and when descriptors run short; and
 * whatever such a guest says of handles, it gets nothing that it has not looked up (fake_files.c notes that).
 */
#include "test.h"

#include "base/alloc.h"
#include "fs_client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static struct fs_client client;

#define CALL(opcode, node, arguments) fs_client_call(&client, opcode, node, &(arguments), sizeof(arguments), NULL, 0)
#define REPLY(type) (*(const struct type *)(const void *)client.reply)

enum { file_place = 1, inner_place = 3 }; /* in client.files.nodes */

static void begin(void)
{
    struct fs_options options = {.read_only = true, .without_opens = true, .window_bytes = FS_CLIENT_WINDOW};
    options.worker_count = 3;
    fs_client_begin(&client, options);
    if (fs_client_init(&client) < 0)
        abort();
}

static uint64_t opens(void)
{
    uint64_t count = 0;
    pthread_mutex_lock(&client.files.lock);
    for (int i = 0; i < FAKE_MOST_NODES; i++)
        count += client.files.nodes[i].opens;
    pthread_mutex_unlock(&client.files.lock);
    return count;
}

static int open_with(uint64_t node, uint32_t flags)
{
    struct fuse_open_in in = {.flags = flags};
    return CALL(FUSE_OPEN, node, in);
}

TEST(it_is_agreed_on_with_who_can)
{
    begin();
    const uint64_t features = FUSE_NO_OPEN_SUPPORT | FUSE_ATOMIC_O_TRUNC;
    CHECK_INT(fs_client_init_as(&client, 38, features)->flags, FUSE_NO_OPEN_SUPPORT); /* a truncation is told apart */
    CHECK_INT(fs_client_init_as(&client, 38, FUSE_ATOMIC_O_TRUNC)->flags, FUSE_ATOMIC_O_TRUNC);
    uint64_t file = fs_client_node(&client, 1, "file");
    uint64_t handle = fs_client_open(&client, FUSE_OPEN, file, O_RDONLY); /* an old guest opens, as ever */
    CHECK(handle != UINT64_MAX);
    CHECK_INT(fs_client_read(&client, file, handle, 0, 100), 0);
    CHECK_INT(fs_client_read(&client, file, handle + 1, 0, 100), -EBADF);
    CHECK_INT(fs_client_release(&client, FUSE_RELEASE, file, handle), 0);
    CHECK_INT(opens(), 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(a_file_is_read_by_its_node)
{
    begin();
    uint64_t file = fs_client_node(&client, 1, "file");
    CHECK_INT(open_with(file, O_RDONLY), -ENOSYS);
    CHECK_INT(opens(), 0);
    CHECK_INT(fs_client_read(&client, file, 0, 1, 100), 0);
    CHECK_INT(client.reply_bytes, 5);
    CHECK_INT(memcmp(client.reply, "ello\n", 5), 0);
    CHECK_INT(fs_client_read(&client, file, 0, 0, 2), 0);
    CHECK_INT(memcmp(client.reply, "he", 2), 0);
    CHECK_INT(opens(), 1);
    struct fuse_lseek_in seek = {.whence = SEEK_HOLE};
    CHECK_INT(CALL(FUSE_LSEEK, file, seek), 0);
    CHECK_INT(REPLY(fuse_lseek_out).offset, 6);
    struct fuse_getattr_in get = {.getattr_flags = FUSE_GETATTR_FH};
    CHECK_INT(CALL(FUSE_GETATTR, file, get), 0);
    CHECK_INT(REPLY(fuse_attr_out).attr.size, 6);
    struct fuse_setupmapping_in map = {.fh = UINT64_MAX, .len = 4096, .flags = FUSE_SETUPMAPPING_FLAG_READ};
    CHECK_INT(CALL(FUSE_SETUPMAPPING, file, map), 0);
    CHECK_INT(memcmp(client.window, "hello\n", 6), 0);
    map.fh = 0;
    CHECK_INT(CALL(FUSE_SETUPMAPPING, file, map), 0);
    CHECK_INT(opens(), 1);
    fs_client_forget(&client, file, 1); /* which closes it first: else the backend complains */
    CHECK_INT(fake_files_held(&client.files), 0);
    CHECK_INT(fs_client_read(&client, file, 0, 0, 2), -ESTALE);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(what_is_not_open_is_not_flushed_synced_or_released)
{
    begin();
    uint64_t file = fs_client_node(&client, 1, "file");
    CHECK_INT(fs_client_read(&client, file, 0, 0, 2), 0);
    struct fuse_flush_in flush = {.fh = 0};
    struct fuse_fsync_in sync = {.fh = 0};
    uint64_t calls = client.files.calls;
    CHECK_INT(CALL(FUSE_FLUSH, file, flush), -ENOSYS);
    CHECK_INT(CALL(FUSE_FSYNC, file, sync), -ENOSYS);
    CHECK_INT(fs_client_release(&client, FUSE_RELEASE, file, 0), -ENOSYS);
    CHECK_INT(client.files.calls, calls);
    CHECK_INT(fs_client_read(&client, file, 0, 0, 2), 0);
    CHECK_INT(opens(), 1);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(nothing_is_written_without_opens_either)
{
    begin();
    uint64_t file = fs_client_node(&client, 1, "file");
    static const uint32_t flags[] = {O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC};
    for (size_t i = 0; i < array_length(flags); i++)
        CHECK_INT(open_with(file, flags[i]), -EROFS);
    CHECK_INT(open_with(file, O_RDONLY), -ENOSYS);
    CHECK_INT(fs_client_write(&client, file, 0, 0, "x"), -EROFS);
    struct fuse_setattr_in set = {.valid = FATTR_SIZE | FATTR_FH};
    CHECK_INT(CALL(FUSE_SETATTR, file, set), -EROFS);
    struct fuse_fallocate_in allocate = {.length = 1};
    CHECK_INT(CALL(FUSE_FALLOCATE, file, allocate), -EROFS);
    struct fuse_copy_file_range_in copy = {.nodeid_out = file, .len = 1};
    CHECK_INT(CALL(FUSE_COPY_FILE_RANGE, file, copy), -EROFS);
    CHECK_INT(client.files.changes, 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(handles_of_files_that_nobody_was_given)
{
    static const uint64_t handles[] = {1, UINT32_MAX, UINT64_C(1) << 32, UINT64_MAX};
    begin();
    uint64_t file = fs_client_node(&client, 1, "file"), folder = fs_client_node(&client, 1, "folder");
    for (size_t i = 0; i < array_length(handles); i++) {
        struct fuse_getattr_in get = {.getattr_flags = FUSE_GETATTR_FH, .fh = handles[i]};
        CHECK_INT(fs_client_read(&client, file, handles[i], 0, 10), -EBADF);
        CHECK_INT(fs_client_release(&client, FUSE_RELEASE, file, handles[i]), -EBADF);
        CHECK_INT(CALL(FUSE_GETATTR, file, get), -EBADF);
    }
    CHECK_INT(fs_client_open(&client, FUSE_OPENDIR, folder, O_RDONLY), 0); /* a folder's number, which is no file's */
    CHECK_INT(fs_client_read(&client, folder, 0, 0, 10), -EISDIR);
    CHECK_INT(fs_client_release(&client, FUSE_RELEASE, folder, 0), -ENOSYS);
    struct fuse_read_in list = {.size = 1000};
    CHECK_INT(CALL(FUSE_READDIR, folder, list), 0);
    CHECK_INT(fs_client_release(&client, FUSE_RELEASEDIR, file, 0), -EBADF);
    CHECK_INT(fs_client_release(&client, FUSE_RELEASEDIR, folder, 0), 0);
    CHECK_INT(fs_client_read(&client, 77, 0, 0, 10), -ESTALE);
    CHECK_INT(opens(), 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(every_opcode_with_zeros)
{
    static const uint8_t zeros[120];
    begin();
    uint64_t nodes[] = {1, fs_client_node(&client, 1, "file"), fs_client_node(&client, 1, "folder"),
                        fs_client_node(&client, 1, "link")};
    for (uint32_t opcode = 0; opcode < 64; opcode++)
        for (size_t i = 0; i < array_length(nodes) * sizeof(zeros); i++) {
            if (opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_DESTROY || opcode == FUSE_INIT)
                continue;
            CHECK(fs_client_call(&client, opcode, nodes[i / sizeof(zeros)], zeros, i % sizeof(zeros), NULL, 0) <=
                  FS_CLIENT_NO_REPLY);
        }
    CHECK_INT(client.files.changes, 0);
    CHECK_INT(fs_client_read(&client, nodes[1], 0, 0, 2), 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(the_end_of_a_session_closes_what_is_kept)
{
    begin();
    uint64_t file = fs_client_node(&client, 1, "file");
    CHECK_INT(fs_client_read(&client, file, 0, 0, 2), 0);
    CHECK_INT(fs_client_call(&client, FUSE_DESTROY, 0, NULL, 0, NULL, 0), 0);
    CHECK_INT(fake_files_held(&client.files), 0);
    CHECK_INT(fs_client_init(&client), 0);
    CHECK_INT(fs_client_read(&client, file, 0, 0, 2), -ESTALE);
    CHECK_INT(fs_client_node(&client, 1, "file"), file);
    CHECK_INT(fs_client_read(&client, file, 0, 0, 2), 0);
    client.files.nodes[0].mode = S_IFREG | 0644; /* the root, which is never forgotten */
    CHECK_INT(fs_client_read(&client, 1, 0, 0, 2), 0);
    CHECK_INT(opens(), 2);
    virtio_driver_reset(&client.driver);
    CHECK_INT(fake_files_held(&client.files), 0);
    fs_client_start(&client);
    CHECK_TEXT(fs_client_end(&client), "");
}

/* ---- descriptors ---- */

TEST(no_more_are_kept_than_there_is_room_for)
{
    enum { files = 40, most = 16 };
    struct rlimit before, few = {4 * most, 0};
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
    few.rlim_max = before.rlim_max;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &few), 0); /* of which a sixteenth would be too few */
    begin();
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
    uint64_t nodes[files];
    for (int i = 0; i < files; i++) {
        char name[16];
        struct vial_fs_entry entry;
        struct fs_backend backend = fake_files_backend(&client.files);
        snprintf(name, sizeof(name), "f%d", i);
        CHECK_INT(backend.ops.make_node(backend.user, NULL, 1, name, S_IFREG | 0644, 0, &entry), 0);
        nodes[i] = fs_client_node(&client, 1, name);
        backend.ops.forget(backend.user, entry.node, 1);
        CHECK_INT(fs_client_read(&client, nodes[i], 0, 0, 2), 0);
        CHECK_INT(opens(), i < most ? i + 1 : most);
    }
    for (int i = 0; i < files; i++)
        CHECK_INT(client.files.nodes[nodes[i] - 1].opens, i >= files - most); /* the last ones are those that stay */
    CHECK_INT(fs_client_read(&client, nodes[files - most], 0, 0, 2), 0);
    CHECK_INT(fs_client_read(&client, nodes[0], 0, 0, 2), 0);
    CHECK_INT(client.files.nodes[nodes[files - most] - 1].opens, 1);
    CHECK_INT(client.files.nodes[nodes[files - most + 1] - 1].opens, 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(what_is_kept_goes_when_descriptors_run_short)
{
    static const int errors[] = {-EMFILE, -ENFILE};
    begin();
    uint64_t file = fs_client_node(&client, 1, "file"), folder = fs_client_node(&client, 1, "folder");
    uint64_t inner = fs_client_node(&client, folder, "inner");
    for (size_t i = 0; i < array_length(errors); i++) {
        CHECK_INT(fs_client_read(&client, file, 0, 0, 2), 0);
        client.files.next_error = errors[i];
        CHECK_INT(fs_client_read(&client, inner, 0, 0, 2), 0);
        CHECK(client.files.nodes[file_place].opens == 0 && client.files.nodes[inner_place].opens == 1);
        client.files.next_error = errors[i];
        CHECK_INT(fs_client_open(&client, FUSE_OPENDIR, folder, O_RDONLY), i);
        CHECK_INT(client.files.nodes[inner_place].opens, 0);
        client.files.next_error = errors[i]; /* and nothing is left that could go */
        CHECK_INT(fs_client_read(&client, file, 0, 0, 2), errors[i]);
    }
    client.files.next_error = -EACCES;
    CHECK_INT(fs_client_read(&client, file, 0, 0, 2), -EACCES);
    CHECK_INT(fs_client_read(&client, file, 0, 0, 2), 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

/* ---- side by side ---- */

static void post_reads(unsigned count, uint64_t node)
{
    struct fuse_read_in in = {.size = 8192};
    fake_files_hold(&client.files, true);
    for (unsigned i = 1; i <= count; i++)
        fs_client_post(&client, i, FUSE_READ, node, &in, sizeof(in), 16 + 8192);
    virtio_driver_kick(&client.driver, 1);
    fake_files_wait(&client.files, count);
}

TEST(first_reads_that_come_together_leave_one_open)
{
    begin();
    uint64_t file = fs_client_node(&client, 1, "file");
    for (unsigned round = 0; round < 50; round++) {
        post_reads(4, file); /* three workers and the device's thread */
        CHECK_INT(opens(), 1);
        fake_files_hold(&client.files, false);
        for (unsigned i = 0; i < 4; i++)
            CHECK(fs_client_take(&client, NULL) == 0 && client.reply_bytes == 6);
        fs_client_forget(&client, file, 1);
        CHECK_INT(fake_files_held(&client.files), 0);
        CHECK_INT(fs_client_node(&client, 1, "file"), file);
    }
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(a_file_forgotten_while_it_is_read_by_its_node)
{
    begin();
    uint64_t file = fs_client_node(&client, 1, "file");
    post_reads(2, file); /* the second is held back for a moment, and then read on the device's thread */
    fake_files_hold(&client.files, false);
    for (unsigned i = 0; i < 2; i++)
        CHECK_INT(fs_client_take(&client, NULL), 0);
    struct fuse_read_in in = {.size = 200 << 10}; /* what a worker reads */
    fake_files_hold(&client.files, true);
    fs_client_post(&client, 1, FUSE_READ, file, &in, sizeof(in), 16 + in.size);
    virtio_driver_kick(&client.driver, 1);
    fake_files_wait(&client.files, 1);
    fs_client_forget(&client, file, 1);
    CHECK_INT(fake_files_held(&client.files), 2);               /* the backend still has the lookup and the open */
    CHECK_INT(fs_client_read(&client, file, 0, 0, 2), -ESTALE); /* but the guest has not */
    CHECK_INT(fs_client_node(&client, 1, "file"), file);        /* and it can come back */
    CHECK_INT(fs_client_read(&client, file, 0, 0, 2), 0);
    CHECK_INT(opens(), 1);
    fs_client_forget(&client, file, 1);
    fake_files_hold(&client.files, false);
    CHECK_INT(fs_client_take(&client, NULL), 0);
    CHECK_INT(fake_files_held(&client.files), 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(a_part_of_the_lookups_taken_back_while_it_is_read)
{
    begin();
    uint64_t file = fs_client_node(&client, 1, "file");
    CHECK_INT(fs_client_node(&client, 1, "file"), file);
    struct fuse_read_in in = {.size = 200 << 10};
    fake_files_hold(&client.files, true);
    fs_client_post(&client, 1, FUSE_READ, file, &in, sizeof(in), 16 + in.size);
    virtio_driver_kick(&client.driver, 1);
    fake_files_wait(&client.files, 1);
    fs_client_forget(&client, file, 1); /* closes it when it is no longer read */
    CHECK_INT(opens(), 1);
    fake_files_hold(&client.files, false);
    CHECK_INT(fs_client_take(&client, NULL), 0);
    CHECK_INT(opens(), 0);
    CHECK_INT(fs_client_read(&client, file, 0, 0, 2), 0);
    CHECK_INT(opens(), 1);
    CHECK_TEXT(fs_client_end(&client), "");
}
