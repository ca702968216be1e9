// SPDX-License-Identifier: Apache-2.0
/* The file server against a client in memory: every opcode as a guest's kernel uses it, and what it leaves behind. */
#include "test.h"

#include "base/alloc.h"
#include "base/limits.h"
#include "device/fs/request.h"
#include "fs_client.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static struct fs_client client;

static void begin(enum fs_cache cache)
{
    fs_client_begin(&client, (struct fs_options){.cache = cache, .window_bytes = FS_CLIENT_WINDOW});
    if (fs_client_init(&client) < 0)
        abort();
}

#define CALL(opcode, node, arguments) fs_client_call(&client, opcode, node, &(arguments), sizeof(arguments), NULL, 0)
#define CALL_NAMED(opcode, node, arguments, names)                                                                     \
    fs_client_call(&client, opcode, node, &(arguments), sizeof(arguments), names, sizeof(names))
#define REPLY(type) (*(const struct type *)(const void *)client.reply)

TEST(it_says_what_it_is)
{
    char tag[36];
    fs_client_begin(&client, (struct fs_options){.cache = FS_CACHE_AUTO});
    CHECK_INT(virtio_driver_read(&client.driver, 0x008), 26);
    for (unsigned i = 0; i < sizeof(tag); i += 4) {
        uint32_t word = virtio_driver_read(&client.driver, 0x100 + i);
        memcpy(tag + i, &word, sizeof(word));
    }
    CHECK_TEXT(tag, "shared");
    CHECK_INT(virtio_driver_read(&client.driver, 0x100 + 36), FS_CLIENT_QUEUES);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(init_agrees_on_what_both_know)
{
    fs_client_begin(&client, (struct fs_options){.cache = FS_CACHE_AUTO, .window_bytes = FS_CLIENT_WINDOW});
    const struct fuse_init_out *out = fs_client_init_as(&client, 46, ~UINT64_C(0));
    CHECK(out != NULL && client.reply_bytes == sizeof(*out));
    CHECK(out->major == 7 && out->minor == 38 && out->max_write == 1 << 20 && out->max_pages == 256);
    CHECK_INT(out->map_alignment, 12);
    CHECK((out->flags & FUSE_AUTO_INVAL_DATA) != 0 && (out->flags & FUSE_EXPLICIT_INVAL_DATA) == 0);
    CHECK((out->flags & (FUSE_POSIX_ACL | FUSE_WRITEBACK_CACHE | FUSE_NO_OPEN_SUPPORT | FUSE_DONT_MASK)) == 0);
    CHECK((out->flags & FUSE_SUBMOUNTS) == 0 && out->flags2 == 0);
    out = fs_client_init_as(&client, 31, FUSE_ASYNC_READ | FUSE_WRITEBACK_CACHE);
    CHECK(out != NULL && out->minor == 31 && out->flags == FUSE_ASYNC_READ && out->map_alignment == 0);
    CHECK(fs_client_init_as(&client, 26, 0) == NULL);
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "file"), -EIO); /* no session */
    struct fuse_init_in future = {.major = 8};
    CHECK_INT(CALL(FUSE_INIT, 0, future), 0);
    CHECK_INT(REPLY(fuse_init_out).major, 7);
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "file"), -EIO);
    future.major = 6;
    CHECK_INT(CALL(FUSE_INIT, 0, future), -EPROTO);
    CHECK_INT(fs_client_init(&client), 0);
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "file"), 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(an_old_init_has_sixteen_bytes)
{
    fs_client_begin(&client, (struct fs_options){.cache = FS_CACHE_NONE});
    struct fuse_init_in in = {.major = 7, .minor = 31, .flags = ~0u};
    CHECK_INT(fs_client_call(&client, FUSE_INIT, 0, &in, 16, NULL, 0), 0);
    CHECK_INT(REPLY(fuse_init_out).flags2, 0);
    CHECK_INT(fs_client_call(&client, FUSE_INIT, 0, &in, 15, NULL, 0), -EINVAL);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(entries_say_what_the_backend_said)
{
    begin(FS_CACHE_AUTO);
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "file"), 0);
    struct fuse_entry_out entry = REPLY(fuse_entry_out);
    CHECK_INT(client.reply_bytes, sizeof(entry));
    CHECK(entry.nodeid == 2 && entry.generation == 5 && entry.attr.ino == 101 && entry.attr.size == 6);
    CHECK(entry.entry_valid == 1 && entry.entry_valid_nsec == 500000000 && entry.attr_valid == 1);
    CHECK(entry.attr.mode == (S_IFREG | 0644) && entry.attr.mtime == 1000 && entry.attr.flags == 0);
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "missing"), -ENOENT);
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 2, "x"), -ENOENT);
    CHECK_INT(client.reply_bytes, 0);
    struct fs_stats stats;
    fs_read_stats(client.driver.device, &stats);
    CHECK(stats.nodes == 1 && stats.handles == 0 && stats.requests == 4 && stats.errors == 2);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(each_cache_policy_has_its_validity)
{
    begin(FS_CACHE_NONE);
    uint64_t file = fs_client_node(&client, 1, "file");
    CHECK(REPLY(fuse_entry_out).entry_valid == 0 && REPLY(fuse_entry_out).attr_valid_nsec == 0);
    fs_client_open(&client, FUSE_OPEN, file, O_RDONLY);
    CHECK_INT(REPLY(fuse_open_out).open_flags, FOPEN_DIRECT_IO);
    fs_client_init_as(&client, 38, FUSE_INIT_EXT); /* one that could not map such a file */
    fs_client_open(&client, FUSE_OPEN, fs_client_node(&client, 1, "file"), O_RDONLY);
    CHECK_INT(REPLY(fuse_open_out).open_flags, 0);
    CHECK_TEXT(fs_client_end(&client), "");
    begin(FS_CACHE_ALWAYS);
    file = fs_client_node(&client, 1, "file");
    CHECK_INT(REPLY(fuse_entry_out).entry_valid, LIMIT_FS_VALID_S);
    fs_client_open(&client, FUSE_OPEN, file, O_RDONLY);
    CHECK_INT(REPLY(fuse_open_out).open_flags, FOPEN_KEEP_CACHE);
    fs_client_open(&client, FUSE_OPENDIR, 1, O_RDONLY);
    CHECK_INT(REPLY(fuse_open_out).open_flags, FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR);
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "missing"), 0); /* which may be remembered */
    CHECK(REPLY(fuse_entry_out).nodeid == 0 && REPLY(fuse_entry_out).entry_valid == LIMIT_FS_VALID_S);
    CHECK_TEXT(fs_client_end(&client), "");
}

/* Looks up a name that is there and one that is not: how long the latter is good for, or -errno. */
static int64_t missing_ns(void)
{
    fs_client_name(&client, FUSE_LOOKUP, 1, "file");
    int result = fs_client_name(&client, FUSE_LOOKUP, 1, "missing");
    if (result < 0)
        return result;
    const struct fuse_entry_out *out = &REPLY(fuse_entry_out);
    return out->nodeid != 0 ? -EEXIST : (int64_t)out->entry_valid * FS_SECOND_NS + out->entry_valid_nsec;
}

TEST(a_missing_name_is_remembered_as_long_as_another_where_the_guest_makes_none)
{
    fs_client_begin(&client, (struct fs_options){.read_only = true});
    CHECK_INT(fs_client_init(&client), 0);
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "missing"), -ENOENT); /* no entry has said yet for how long */
    CHECK_INT(missing_ns(), FS_SECOND_NS);                                  /* not 1.5 seconds */
    client.files.entry_valid_ns = 5000000;
    CHECK_INT(missing_ns(), 5000000);
    client.files.entry_valid_ns = FS_SECOND_NS;
    CHECK_INT(missing_ns(), 5000000); /* the least that was said */
    client.files.entry_valid_ns = 0;
    CHECK_INT(missing_ns(), -ENOENT);
    CHECK_INT(fs_client_init(&client), 0);
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "missing"), -ENOENT);
    client.files.entry_valid_ns = FS_SECOND_NS / 2;
    CHECK_INT(missing_ns(), FS_SECOND_NS / 2); /* of this session */
    CHECK_TEXT(fs_client_end(&client), "");
    fs_client_begin(&client, (struct fs_options){.read_only = true, .cache = FS_CACHE_NONE});
    CHECK_INT(fs_client_init(&client), 0);
    CHECK_INT(missing_ns(), -ENOENT);
    CHECK_TEXT(fs_client_end(&client), "");
    begin(FS_CACHE_AUTO);
    CHECK_INT(missing_ns(), -ENOENT);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(contents_stay_cached_until_they_change)
{
    begin(FS_CACHE_AUTO);
    uint64_t file = fs_client_node(&client, 1, "file");
    uint64_t handle = fs_client_open(&client, FUSE_OPEN, file, O_RDWR);
    CHECK_INT(REPLY(fuse_open_out).open_flags, 0);
    fs_client_open(&client, FUSE_OPEN, file, O_RDONLY);
    CHECK_INT(REPLY(fuse_open_out).open_flags, FOPEN_KEEP_CACHE);
    CHECK_INT(fs_client_write(&client, file, handle, 6, "more"), 0);
    fs_client_open(&client, FUSE_OPEN, file, O_RDONLY);
    CHECK_INT(REPLY(fuse_open_out).open_flags, 0);
    fs_client_open(&client, FUSE_OPEN, file, O_RDONLY);
    CHECK_INT(REPLY(fuse_open_out).open_flags, FOPEN_KEEP_CACHE);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(reading_and_writing)
{
    begin(FS_CACHE_AUTO);
    uint64_t file = fs_client_node(&client, 1, "file");
    uint64_t handle = fs_client_open(&client, FUSE_OPEN, file, O_RDWR);
    CHECK_INT(fs_client_read(&client, file, handle, 1, 100), 0);
    CHECK_INT(client.reply_bytes, 5);
    CHECK_INT(memcmp(client.reply, "ello\n", 5), 0);
    CHECK_INT(fs_client_read(&client, file, handle, 1, 2), 0);
    CHECK_INT(client.reply_bytes, 2); /* though there is room for more */
    CHECK_INT(fs_client_write(&client, file, handle, 4, "! you"), 0);
    CHECK_INT(REPLY(fuse_write_out).size, 5);
    CHECK_INT(fs_client_read(&client, file, handle, 0, 100), 0);
    CHECK_INT(memcmp(client.reply, "hell! you", 9), 0);
    CHECK_INT(fs_client_read(&client, file, handle, 100, 100), 0);
    CHECK_INT(client.reply_bytes, 0);
    CHECK_INT(fs_client_read(&client, file, handle, 0, 0), 0);
    CHECK_INT(fs_client_write(&client, file, handle, 0, ""), 0);
    struct fs_stats stats;
    fs_read_stats(client.driver.device, &stats);
    CHECK(stats.read_bytes == 16 && stats.written_bytes == 5 && stats.handles == 1);
    CHECK_INT(fs_client_release(&client, FUSE_RELEASE, file, handle), 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(a_mebibyte_at_once_by_a_worker)
{
    static uint8_t much[1 << 20];
    begin(FS_CACHE_AUTO);
    memset(much, 0xa5, sizeof(much));
    uint64_t file = fs_client_node(&client, 1, "file");
    uint64_t handle = fs_client_open(&client, FUSE_OPEN, file, O_RDWR);
    struct fuse_write_in in = {.fh = handle, .offset = 3, .size = sizeof(much)};
    CHECK_INT(fs_client_call(&client, FUSE_WRITE, file, &in, sizeof(in), much, sizeof(much)), 0);
    CHECK_INT(REPLY(fuse_write_out).size, sizeof(much));
    client.room = 16 + sizeof(much);
    CHECK_INT(fs_client_read(&client, file, handle, 3, sizeof(much)), 0);
    CHECK_INT(client.reply_bytes, sizeof(much));
    CHECK_INT(memcmp(client.reply, much, sizeof(much)), 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(making_and_removing)
{
    begin(FS_CACHE_AUTO);
    struct fuse_mkdir_in folder = {.mode = 0750, .umask = 022};
    CHECK_INT(CALL_NAMED(FUSE_MKDIR, 1, folder, "new"), 0);
    CHECK_INT(REPLY(fuse_entry_out).attr.mode, S_IFDIR | 0750);
    uint64_t node = REPLY(fuse_entry_out).nodeid;
    struct fuse_mknod_in fifo = {.mode = S_IFIFO | 0600};
    CHECK_INT(CALL_NAMED(FUSE_MKNOD, node, fifo, "fifo"), 0);
    CHECK_INT(fs_client_call(&client, FUSE_SYMLINK, node, NULL, 0, "soft\0../file", 13), 0);
    uint64_t soft = REPLY(fuse_entry_out).nodeid;
    CHECK_INT(fs_client_call(&client, FUSE_READLINK, soft, NULL, 0, NULL, 0), 0);
    CHECK_INT(client.reply_bytes, 7);
    CHECK_INT(memcmp(client.reply, "../file", 7), 0);
    CHECK_INT(fs_client_name(&client, FUSE_UNLINK, node, "soft"), 0);
    CHECK_INT(fs_client_name(&client, FUSE_UNLINK, node, "soft"), -ENOENT);
    CHECK_INT(fs_client_name(&client, FUSE_RMDIR, 1, "file"), -ENOTDIR);
    CHECK_INT(fs_client_name(&client, FUSE_RMDIR, 1, "new"), 0);
    struct fuse_link_in link = {.oldnodeid = fs_client_node(&client, 1, "file")};
    CHECK_INT(CALL_NAMED(FUSE_LINK, 1, link, "second"), 0);
    CHECK_INT(REPLY(fuse_entry_out).attr.nlink, 2);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(renaming)
{
    begin(FS_CACHE_AUTO);
    uint64_t folder = fs_client_node(&client, 1, "folder");
    struct fuse_rename_in in = {.newdir = folder};
    CHECK_INT(CALL_NAMED(FUSE_RENAME, 1, in, "file\0moved"), 0);
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "file"), -ENOENT);
    CHECK(fs_client_node(&client, folder, "moved") != 0);
    struct fuse_rename2_in in2 = {.newdir = folder, .flags = RENAME_NOREPLACE};
    CHECK_INT(CALL_NAMED(FUSE_RENAME2, folder, in2, "moved\0inner"), -EEXIST);
    in2.flags = 8;
    CHECK_INT(CALL_NAMED(FUSE_RENAME2, folder, in2, "moved\0inner"), -EINVAL);
    in2.flags = RENAME_NOREPLACE | RENAME_EXCHANGE;
    CHECK_INT(CALL_NAMED(FUSE_RENAME2, folder, in2, "moved\0inner"), -EINVAL);
    in.newdir = 77;
    CHECK_INT(CALL_NAMED(FUSE_RENAME, folder, in, "moved\0inner"), -ESTALE);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(creating_opens)
{
    struct {
        struct fuse_entry_out entry;
        struct fuse_open_out open;
    } out;
    begin(FS_CACHE_AUTO);
    struct fuse_create_in in = {.flags = O_RDWR | O_CREAT | O_EXCL, .mode = S_IFREG | 0640};
    CHECK_INT(CALL_NAMED(FUSE_CREATE, 1, in, "made"), 0);
    CHECK_INT(client.reply_bytes, sizeof(out));
    memcpy(&out, client.reply, sizeof(out));
    CHECK_INT(out.entry.attr.mode, S_IFREG | 0640);
    CHECK_INT(fs_client_write(&client, out.entry.nodeid, out.open.fh, 0, "text"), 0);
    CHECK_INT(CALL_NAMED(FUSE_CREATE, 1, in, "made"), -EEXIST);
    struct fs_stats stats;
    fs_read_stats(client.driver.device, &stats);
    CHECK(stats.nodes == 1 && stats.handles == 1); /* the second left nothing */
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(attributes_are_told_and_set)
{
    begin(FS_CACHE_AUTO);
    uint64_t file = fs_client_node(&client, 1, "file");
    struct fuse_getattr_in get = {0};
    CHECK_INT(CALL(FUSE_GETATTR, file, get), 0);
    CHECK(REPLY(fuse_attr_out).attr.size == 6 && REPLY(fuse_attr_out).attr_valid == 1);
    get = (struct fuse_getattr_in){.getattr_flags = FUSE_GETATTR_FH, .fh = 12345};
    CHECK_INT(CALL(FUSE_GETATTR, file, get), -EBADF);
    get.fh = fs_client_open(&client, FUSE_OPEN, file, O_RDWR);
    CHECK_INT(CALL(FUSE_GETATTR, file, get), 0);
    struct fuse_setattr_in set = {.valid = FATTR_MODE | FATTR_SIZE | FATTR_FH, .mode = S_IFCHR | 04755, .size = 3};
    set.fh = get.fh;
    CHECK_INT(CALL(FUSE_SETATTR, file, set), 0);
    CHECK(REPLY(fuse_attr_out).attr.size == 3 && REPLY(fuse_attr_out).attr.mode == (S_IFREG | 04755));
    set = (struct fuse_setattr_in){.valid = FATTR_UID | FATTR_GID, .uid = 5, .gid = 6};
    CHECK_INT(CALL(FUSE_SETATTR, file, set), 0); /* which takes set-user-id away */
    CHECK(REPLY(fuse_attr_out).attr.uid == 5 && REPLY(fuse_attr_out).attr.mode == (S_IFREG | 0755));
    set = (struct fuse_setattr_in){.valid = FATTR_UID, .uid = UINT32_MAX};
    CHECK_INT(CALL(FUSE_SETATTR, file, set), -EINVAL);
    set = (struct fuse_setattr_in){.valid = FATTR_SIZE, .size = UINT64_C(1) << 63};
    CHECK_INT(CALL(FUSE_SETATTR, file, set), -EINVAL);
    set = (struct fuse_setattr_in){.valid = FATTR_MTIME, .mtimensec = 1000000000};
    CHECK_INT(CALL(FUSE_SETATTR, file, set), -EINVAL);
    CHECK_INT(fs_client_call(&client, FUSE_STATFS, 1, NULL, 0, NULL, 0), 0);
    CHECK(REPLY(fuse_statfs_out).st.bfree == 500 && REPLY(fuse_statfs_out).st.namelen == 255);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(set_user_id_bits_go_with_a_truncating_open_or_a_write)
{
    begin(FS_CACHE_AUTO);
    uint64_t file = fs_client_node(&client, 1, "file");
    client.files.nodes[1].mode = S_IFREG | 04755;
    uint64_t handle = fs_client_open(&client, FUSE_OPEN, file, O_WRONLY);
    struct fuse_write_in in = {.fh = handle, .size = 1, .write_flags = FUSE_WRITE_KILL_SUIDGID};
    CHECK_INT(fs_client_call(&client, FUSE_WRITE, file, &in, sizeof(in), "x", 1), 0);
    CHECK_INT(client.files.nodes[1].mode, S_IFREG | 0755);
    client.files.nodes[1].mode = S_IFREG | 04755;
    struct fuse_open_in open = {.flags = O_WRONLY | O_TRUNC, .open_flags = FUSE_OPEN_KILL_SUIDGID};
    CHECK_INT(CALL(FUSE_OPEN, file, open), 0);
    CHECK_INT(client.files.nodes[1].mode, S_IFREG | 0755);
    struct fuse_getattr_in get = {0};
    CHECK_INT(CALL(FUSE_GETATTR, file, get), 0);
    CHECK_INT(REPLY(fuse_attr_out).attr.size, 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(extended_attributes)
{
    static char large[4000];
    begin(FS_CACHE_AUTO);
    uint64_t file = fs_client_node(&client, 1, "file");
    uint32_t set[2] = {3, 0}; /* fuse_setxattr_in as it is without SETXATTR_EXT */
    CHECK_INT(fs_client_call(&client, FUSE_SETXATTR, file, set, sizeof(set), "user.a/b\0xyz", 12), 0);
    CHECK_INT(fs_client_call(&client, FUSE_SETXATTR, file, set, sizeof(set), "user.a/b\0xy", 11), -EINVAL);
    set[1] = 4;
    CHECK_INT(fs_client_call(&client, FUSE_SETXATTR, file, set, sizeof(set), "user.a/b\0xyz", 12), -EINVAL);
    struct fuse_getxattr_in get = {.size = 0};
    CHECK_INT(CALL_NAMED(FUSE_GETXATTR, file, get, "user.a/b"), 0);
    CHECK(REPLY(fuse_getxattr_out).size == 3 && client.reply_bytes == 8);
    get.size = 100;
    CHECK_INT(CALL_NAMED(FUSE_GETXATTR, file, get, "user.a/b"), 0);
    CHECK_INT(client.reply_bytes, 3);
    CHECK_INT(memcmp(client.reply, "xyz", 3), 0);
    CHECK_INT(CALL_NAMED(FUSE_GETXATTR, file, get, "user.c"), -ENODATA);
    get.size = 2;
    CHECK_INT(CALL_NAMED(FUSE_GETXATTR, file, get, "user.a/b"), -ERANGE);
    get.size = 1000;
    CHECK_INT(CALL(FUSE_LISTXATTR, file, get), 0);
    CHECK_TEXT((const char *)client.reply, "user.a/b");
    CHECK_INT(fs_client_name(&client, FUSE_REMOVEXATTR, file, "user.a/b"), 0);
    CHECK_INT(fs_client_name(&client, FUSE_REMOVEXATTR, file, "user.a/b"), -ENODATA);
    memcpy(large, "user.l", 7); /* and one that is larger than what is kept ready */
    set[0] = sizeof(large) - 7;
    set[1] = 0;
    CHECK_INT(fs_client_call(&client, FUSE_SETXATTR, file, set, sizeof(set), large, sizeof(large)), 0);
    get.size = 60000;
    CHECK_INT(CALL_NAMED(FUSE_GETXATTR, file, get, "user.l"), 0);
    CHECK_INT(client.reply_bytes, sizeof(large) - 7);
    set[0] = LIMIT_FS_XATTR_BYTES + 1;
    CHECK_INT(fs_client_call(&client, FUSE_SETXATTR, file, set, sizeof(set), large, sizeof(large)), -E2BIG);
    CHECK_TEXT(fs_client_end(&client), "");
}

/* The names of a listing, each with a slash behind it. */
static const char *names_of(uint32_t bytes, bool is_plus)
{
    static char names[1024];
    size_t length = 0, skip = is_plus ? sizeof(struct fuse_entry_out) : 0;
    for (uint32_t at = 0; at < bytes;) {
        const struct fuse_dirent *entry = (const void *)(client.reply + at + skip);
        length += (size_t)snprintf(names + length, sizeof(names) - length, "%.*s/", (int)entry->namelen, entry->name);
        at += (uint32_t)(skip + FUSE_DIRENT_SIZE(entry));
    }
    names[length] = '\0';
    return names;
}

TEST(listing_folders)
{
    begin(FS_CACHE_AUTO);
    struct fuse_read_in in = {.fh = fs_client_open(&client, FUSE_OPENDIR, 1, O_RDONLY), .size = 4096};
    CHECK_INT(CALL(FUSE_READDIR, 1, in), 0);
    CHECK_TEXT(names_of(client.reply_bytes, false), "./../file/folder/link/");
    const struct fuse_dirent *first = (const void *)client.reply;
    CHECK(first->type == 4 && first->off == 1 && first->ino == 100);
    in.size = 2 * 32; /* "." and "..", no more */
    CHECK_INT(CALL(FUSE_READDIR, 1, in), 0);
    CHECK_TEXT(names_of(client.reply_bytes, false), "./../");
    in.offset = 2;
    CHECK_INT(CALL(FUSE_READDIR, 1, in), 0);
    CHECK_TEXT(names_of(client.reply_bytes, false), "file/folder/");
    in.offset = 1 << 20;
    CHECK_INT(CALL(FUSE_READDIR, 1, in), 0);
    CHECK_INT(client.reply_bytes, 0);
    in.offset = 0;
    in.size = 31;
    CHECK_INT(CALL(FUSE_READDIR, 1, in), -EINVAL);
    CHECK_INT(fs_client_release(&client, FUSE_RELEASEDIR, 1, in.fh), 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(listing_with_details_counts_each_entry_once)
{
    begin(FS_CACHE_AUTO);
    struct fuse_read_in in = {.fh = fs_client_open(&client, FUSE_OPENDIR, 1, O_RDONLY), .size = 4096};
    CHECK_INT(CALL(FUSE_READDIRPLUS, 1, in), 0);
    CHECK_TEXT(names_of(client.reply_bytes, true), "./../file/folder/link/");
    const struct fuse_direntplus *first = (const void *)client.reply;
    CHECK(first->entry_out.nodeid == 0);
    const struct fuse_direntplus *third = (const void *)(client.reply + 2 * 160);
    CHECK(third->entry_out.nodeid == 2 && third->entry_out.attr.size == 6);
    CHECK_INT(client.files.nodes[1].lookups, 1);
    in.size = 3 * 160 + 100; /* room for three, and not for a part of the fourth */
    CHECK_INT(CALL(FUSE_READDIRPLUS, 1, in), 0);
    CHECK_INT(client.reply_bytes, 3 * 160);
    CHECK(client.files.nodes[1].lookups == 2 && client.files.nodes[2].lookups == 1);
    fs_client_forget(&client, 2, 2);
    CHECK_INT(client.files.nodes[1].lookups, 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(other_calls_on_files)
{
    begin(FS_CACHE_AUTO);
    uint64_t file = fs_client_node(&client, 1, "file"), link = fs_client_node(&client, 1, "link");
    uint64_t handle = fs_client_open(&client, FUSE_OPEN, file, O_RDWR);
    uint64_t folder = fs_client_open(&client, FUSE_OPENDIR, 1, O_RDONLY);
    struct fuse_flush_in flush = {.fh = handle};
    CHECK_INT(CALL(FUSE_FLUSH, file, flush), 0);
    struct fuse_fsync_in sync = {.fh = handle};
    CHECK_INT(CALL(FUSE_FSYNC, file, sync), 0);
    sync.fh = folder;
    CHECK_INT(CALL(FUSE_FSYNCDIR, 1, sync), 0);
    struct fuse_syncfs_in sync_all = {0};
    CHECK_INT(CALL(FUSE_SYNCFS, 1, sync_all), 0);
    struct fuse_fallocate_in allocate = {.fh = handle, .length = 100};
    CHECK_INT(CALL(FUSE_FALLOCATE, file, allocate), 0);
    allocate.mode = 0x40;
    CHECK_INT(CALL(FUSE_FALLOCATE, file, allocate), -EOPNOTSUPP);
    allocate = (struct fuse_fallocate_in){.fh = handle, .offset = INT64_MAX, .length = 1};
    CHECK_INT(CALL(FUSE_FALLOCATE, file, allocate), -EINVAL);
    struct fuse_lseek_in seek = {.fh = handle, .whence = SEEK_HOLE};
    CHECK_INT(CALL(FUSE_LSEEK, file, seek), 0);
    CHECK(REPLY(fuse_lseek_out).offset > 0);
    seek.whence = SEEK_SET;
    CHECK_INT(CALL(FUSE_LSEEK, file, seek), -EINVAL);
    struct fuse_copy_file_range_in copy = {.fh_in = handle, .nodeid_out = file, .fh_out = handle, .off_out = 200};
    copy.len = UINT64_MAX / 2;
    CHECK_INT(CALL(FUSE_COPY_FILE_RANGE, file, copy), 0);
    CHECK_INT(REPLY(fuse_write_out).size, 100);
    copy.fh_out = folder;
    CHECK_INT(CALL(FUSE_COPY_FILE_RANGE, file, copy), -EBADF);
    copy.nodeid_out = 99;
    CHECK_INT(CALL(FUSE_COPY_FILE_RANGE, file, copy), -ESTALE);
    struct fuse_access_in access = {0};
    CHECK_INT(CALL(FUSE_ACCESS, link, access), -ENOSYS);
    struct fuse_poll_in poll = {.fh = handle};
    CHECK_INT(CALL(FUSE_POLL, file, poll), -ENOSYS);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(the_exit_code)
{
    begin(FS_CACHE_AUTO);
    uint64_t file = fs_client_node(&client, 1, "file");
    uint64_t handle = fs_client_open(&client, FUSE_OPENDIR, 1, O_RDONLY);
    struct fuse_ioctl_in in = {.fh = handle, .flags = FUSE_IOCTL_DIR, .cmd = 0x7602, .arg = (uint64_t)-3};
    CHECK_INT(CALL(FUSE_IOCTL, file, in), -ENOTTY);
    CHECK(!client.has_exited);
    CHECK_INT(CALL(FUSE_IOCTL, 1, in), 0);
    CHECK_INT(client.reply_bytes, sizeof(struct fuse_ioctl_out));
    CHECK(client.has_exited && client.exit_code == -3);
    in.cmd = 0x7601;
    CHECK_INT(CALL(FUSE_IOCTL, 1, in), -ENOTTY);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(forgetting)
{
    struct {
        struct fuse_batch_forget_in in;
        struct fuse_forget_one ones[100];
    } batch = {.in = {.count = 100}};
    begin(FS_CACHE_AUTO);
    for (int i = 0; i < 5; i++)
        fs_client_node(&client, 1, "file");
    fs_client_node(&client, 1, "link");
    fs_client_forget(&client, 2, 2);
    CHECK_INT(client.files.nodes[1].lookups, 3);
    for (int i = 0; i < 100; i++)
        batch.ones[i] = (struct fuse_forget_one){.nodeid = (uint64_t)i, .nlookup = 1};
    batch.ones[99] = (struct fuse_forget_one){.nodeid = 2, .nlookup = 2};
    client.room = 0;
    client.queue = 0;
    CHECK_INT(CALL(FUSE_BATCH_FORGET, 0, batch), FS_CLIENT_NO_REPLY);
    client.room = FS_CLIENT_ROOM;
    client.queue = 1;
    CHECK(client.files.nodes[1].lookups == 0 && client.files.nodes[4].lookups == 0);
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 2, "x"), -ESTALE);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(an_unlinked_file_lives_as_long_as_it_is_open)
{
    begin(FS_CACHE_AUTO);
    uint64_t file = fs_client_node(&client, 1, "file");
    uint64_t handle = fs_client_open(&client, FUSE_OPEN, file, O_RDWR);
    CHECK_INT(fs_client_name(&client, FUSE_UNLINK, 1, "file"), 0);
    CHECK_INT(fs_client_read(&client, file, handle, 0, 10), 0);
    CHECK_INT(client.reply_bytes, 6);
    CHECK_INT(fs_client_release(&client, FUSE_RELEASE, file, handle), 0);
    fs_client_forget(&client, file, 1);
    CHECK(!client.files.nodes[1].is_alive);
    CHECK_TEXT(fs_client_end(&client), "");
}

static bool is_mapped(const uint8_t *page, const char *text)
{
    struct iovec own = {.iov_base = (char[16]){0}, .iov_len = strlen(text)};
    int ends[2];
    if (pipe(ends) < 0)
        abort();
    bool was_read = write(ends[1], page, own.iov_len) == (ssize_t)own.iov_len; /* -EFAULT instead of a signal */
    was_read = was_read && read(ends[0], own.iov_base, own.iov_len) > 0 && memcmp(own.iov_base, text, own.iov_len) == 0;
    close(ends[0]);
    close(ends[1]);
    return was_read;
}

TEST(mapping_files_into_the_window)
{
    struct {
        struct fuse_removemapping_in in;
        struct fuse_removemapping_one one;
    } __attribute__((packed)) remove = {{.count = 1}, {.moffset = 8192, .len = 4096}};
    begin(FS_CACHE_AUTO);
    uint64_t file = fs_client_node(&client, 1, "file");
    struct fuse_setupmapping_in in = {.fh = UINT64_MAX, .len = 4096, .flags = 3, .moffset = 8192};
    CHECK_INT(CALL(FUSE_SETUPMAPPING, file, in), 0);
    CHECK(is_mapped(client.window + 8192, "hello\n"));
    client.window[8192] = 'J';
    uint64_t handle = fs_client_open(&client, FUSE_OPEN, file, O_RDONLY);
    CHECK_INT(fs_client_read(&client, file, handle, 0, 10), 0);
    CHECK_INT(client.reply[0], 'J');
    CHECK(!is_mapped(client.window + 4096, "") && !is_mapped(client.window + 12288, "x"));
    in.moffset = FS_CLIENT_WINDOW - 4096;
    CHECK_INT(CALL(FUSE_SETUPMAPPING, file, in), 0);
    const struct {
        uint64_t moffset, len, foffset;
    } wrong[] = {
        {FS_CLIENT_WINDOW, 4096, 0},
        {FS_CLIENT_WINDOW - 4096, 8192, 0},
        {100, 4096, 0},
        {0, 100, 0},
        {4096, UINT64_MAX - 4095, 0},
        {UINT64_MAX - 4095, 8192, 0},
        {0, 0, 0},
        {0, 4096, 1},
        {0, 4096, (UINT64_MAX / 2 - 8191) | 4095},
        {0, 4096, UINT64_MAX - 4095},
    };
    for (size_t i = 0; i < array_length(wrong); i++) {
        struct fuse_setupmapping_in bad = {.len = wrong[i].len,
                                           .flags = FUSE_SETUPMAPPING_FLAG_READ,
                                           .moffset = wrong[i].moffset,
                                           .foffset = wrong[i].foffset};
        CHECK_INT(CALL(FUSE_SETUPMAPPING, file, bad), -EINVAL);
    }
    in = (struct fuse_setupmapping_in){.len = 4096, .flags = 5};
    CHECK_INT(CALL(FUSE_SETUPMAPPING, file, in), -EINVAL);
    in.flags = FUSE_SETUPMAPPING_FLAG_READ;
    CHECK_INT(CALL(FUSE_SETUPMAPPING, 1, in), -EACCES); /* a folder */
    CHECK_INT(fs_client_call(&client, FUSE_REMOVEMAPPING, file, &remove, sizeof(remove), NULL, 0), 0);
    CHECK(!is_mapped(client.window + 8192, "J"));
    remove.in.count = 2;
    CHECK_INT(fs_client_call(&client, FUSE_REMOVEMAPPING, file, &remove, sizeof(remove), NULL, 0), -EINVAL);
    remove.in.count = 1;
    remove.one.len = FS_CLIENT_WINDOW;
    CHECK_INT(fs_client_call(&client, FUSE_REMOVEMAPPING, file, &remove, sizeof(remove), NULL, 0), -EINVAL);
    CHECK(is_mapped(client.window + FS_CLIENT_WINDOW - 4096, "J"));
    CHECK_INT(fs_client_call(&client, FUSE_DESTROY, 0, NULL, 0, NULL, 0), 0);
    CHECK(!is_mapped(client.window + FS_CLIENT_WINDOW - 4096, "J"));
    CHECK_TEXT(fs_client_end(&client), "");
}

/* What is open, looked up or mapped goes with the session, however it ends. */
static bool leaves_nothing(void (*end)(void))
{
    begin(FS_CACHE_AUTO);
    uint64_t file = fs_client_node(&client, 1, "file");
    uint64_t handle = fs_client_open(&client, FUSE_OPEN, file, O_RDONLY);
    fs_client_open(&client, FUSE_OPENDIR, 1, O_RDONLY);
    bool was_held = fake_files_held(&client.files) == 3;
    end();
    bool is_held = fake_files_held(&client.files) > 0;
    bool is_gone = fs_client_read(&client, file, handle, 0, 10) == -ESTALE;
    file = fs_client_node(&client, 1, "file");
    bool is_stale = fs_client_read(&client, file, handle, 0, 10) == -EBADF; /* though its place is there again */
    fs_client_open(&client, FUSE_OPEN, file, O_RDONLY);
    is_stale = is_stale && fs_client_read(&client, file, handle, 0, 10) == -EBADF;
    return fs_client_end(&client)[0] == '\0' && was_held && !is_held && is_gone && is_stale;
}

static void end_by_destroy(void)
{
    if (fs_client_call(&client, FUSE_DESTROY, 0, NULL, 0, NULL, 0) != 0 ||
        fs_client_name(&client, FUSE_LOOKUP, 1, "file") != -EIO || fs_client_init(&client) < 0)
        abort();
}

static void end_by_init(void)
{
    if (fs_client_init(&client) < 0)
        abort();
}

static void end_by_reset(void)
{
    virtio_driver_reset(&client.driver);
    if (fake_files_held(&client.files) > 0)
        abort();
    fs_client_start(&client);
    if (fs_client_name(&client, FUSE_LOOKUP, 1, "file") != -EIO || fs_client_init(&client) < 0)
        abort();
}

TEST(every_end_of_a_session_leaves_nothing)
{
    CHECK(leaves_nothing(end_by_destroy));
    CHECK(leaves_nothing(end_by_init));
    CHECK(leaves_nothing(end_by_reset));
}

TEST(a_backend_may_do_almost_nothing)
{
    struct fs_options options = {.cache = FS_CACHE_AUTO, .backend_may_wait = true};
    fs_client_begin(&client, options); /* for its files */
    struct fs_backend own = fake_files_backend(&client.files);
    CHECK_TEXT(fs_client_end(&client), "");
    options.backend = (struct fs_backend){.user = &client.files};
    options.backend.ops.lookup = own.ops.lookup;
    options.backend.ops.attributes = own.ops.attributes;
    options.backend.ops.forget = own.ops.forget;
    options.backend.ops.release = own.ops.release;
    fs_client_begin(&client, options);
    CHECK_INT(fs_client_init(&client), 0);
    uint64_t file = fs_client_node(&client, 1, "file");
    client.files.nodes[1].opens = 1; /* it is asked with the handle 0, which the fake does not know */
    uint64_t handle = fs_client_open(&client, FUSE_OPEN, file, O_RDONLY);
    CHECK(handle != UINT64_MAX);
    CHECK_INT(fs_client_read(&client, file, handle, 0, 10), -ENOSYS);
    CHECK_INT(fs_client_release(&client, FUSE_RELEASE, file, handle), 0);
    CHECK_INT(fs_client_name(&client, FUSE_UNLINK, 1, "file"), -ENOSYS);
    CHECK_INT(fs_client_call(&client, FUSE_STATFS, 1, NULL, 0, NULL, 0), -ENOSYS);
    client.files.nodes[1].opens = 0;
    client.files.wrong = NULL;
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(fs_survives_no_memory)
{
    static struct fake_files files;
    fake_files_init(&files);
    FOR_EACH_FAULT
    {
        struct virtio_device *device = NULL;
        struct fs_options options = {
            .tag = "t", .backend = fake_files_backend(&files), .queue_count = 1, .worker_count = 1};
        options.read_only = options.without_opens = true;
        CHECK_INT(fs_new(&options, &device), fault_was_hit() ? -ENOMEM : 0);
        CHECK(!files.was_released);
        virtio_device_free(device);
        files.was_released = false;
    }
    fake_files_end(&files);
}
