// SPDX-License-Identifier: Apache-2.0
/* The file server over virtual entries, as a guest's kernel meets them: found, listed, read, mapped; and one-shot
 * files, which no cache policy and no listing may bring back or use up. */
#include "test.h"

#include "base/alloc.h"
#include "fs_client.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static struct fs_client client;

#define CALL(opcode, node, arguments) fs_client_call(&client, opcode, node, &(arguments), sizeof(arguments), NULL, 0)
#define REPLY(type) (*(const struct type *)(const void *)client.reply)

static const struct fs_virtual entries[] = {
    {.kind = FS_VIRTUAL_EMPTY, .path = "/bin", .mode = 0711},
    {.kind = FS_VIRTUAL_FILE,
     .path = "/bin/tool",
     .bytes = "\x7f"
              "ELF",
     .length = 4,
     .mode = 0755},
    {.kind = FS_VIRTUAL_FILE, .path = "/file", .bytes = "virtual", .length = 7, .mode = 0400},
    {.kind = FS_VIRTUAL_FILE, .path = "/once", .bytes = "once", .length = 4, .mode = 0600, .one_shot = true},
    {.kind = FS_VIRTUAL_FILE, .path = "/link", .bytes = "over", .length = 4, .mode = 0600, .one_shot = true},
};

static void begin(struct fs_options options)
{
    struct fs_backend below = fake_files_backend(&client.files); /* made by fs_client_begin, before it is asked */
    if (overlay_new(&below, entries, array_length(entries), &options.backend) < 0)
        abort();
    options.window_bytes = FS_CLIENT_WINDOW;
    fs_client_begin(&client, options);
    if (fs_client_init(&client) < 0)
        abort();
}

/* What the last LOOKUP has found. */
static const struct fuse_entry_out *found(void)
{
    return &REPLY(fuse_entry_out);
}

static uint64_t validity_ns(const struct fuse_entry_out *out)
{
    return out->entry_valid * UINT64_C(1000000000) + out->entry_valid_nsec;
}

TEST(entries_are_read_only_files_of_root)
{
    begin((struct fs_options){.cache = FS_CACHE_AUTO});
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "bin"), 0);
    uint64_t folder = found()->nodeid;
    CHECK(found()->attr.mode == (S_IFDIR | 0711) && found()->attr.uid == 0 && found()->attr.gid == 0);
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, folder, "tool"), 0);
    uint64_t tool = found()->nodeid;
    CHECK(found()->attr.mode == (S_IFREG | 0755) && found()->attr.size == 4 && validity_ns(found()) > 0);
    uint64_t handle = fs_client_open(&client, FUSE_OPEN, tool, O_RDONLY);
    CHECK(fs_client_read(&client, tool, handle, 0, 100) == 0 && client.reply_bytes == 4);
    CHECK(memcmp(client.reply,
                 "\x7f"
                 "ELF",
                 4) == 0);
    struct fuse_setupmapping_in map = {.fh = UINT64_MAX, .len = 4096, .flags = FUSE_SETUPMAPPING_FLAG_READ};
    CHECK_INT(CALL(FUSE_SETUPMAPPING, tool, map), 0);
    CHECK(memcmp(client.window,
                 "\x7f"
                 "ELF",
                 5) == 0);
    map.flags |= FUSE_SETUPMAPPING_FLAG_WRITE;
    CHECK_INT(CALL(FUSE_SETUPMAPPING, tool, map), -EROFS);
    struct fuse_open_in open = {.flags = O_RDWR};
    CHECK_INT(CALL(FUSE_OPEN, tool, open), -EROFS);
    open.flags = O_RDONLY | O_TRUNC;
    CHECK_INT(CALL(FUSE_OPEN, tool, open), -EROFS);
    CHECK_INT(fs_client_write(&client, tool, handle, 0, "x"), -EBADF);
    struct fuse_setattr_in mode = {.valid = FATTR_MODE, .mode = 0777};
    CHECK_INT(CALL(FUSE_SETATTR, tool, mode), -EROFS);
    CHECK_INT(fs_client_name(&client, FUSE_UNLINK, folder, "tool"), -EROFS);
    CHECK_INT(fs_client_name(&client, FUSE_RMDIR, 1, "bin"), -EROFS);
    CHECK_INT(fs_client_name(&client, FUSE_UNLINK, 1, "file"), -EROFS);
    struct fuse_rename_in rename = {.newdir = 1};
    CHECK_INT(fs_client_call(&client, FUSE_RENAME, folder, &rename, sizeof(rename), "tool\0x", 7), -EROFS);
    CHECK_INT(fs_client_call(&client, FUSE_RENAME, 1, &rename, sizeof(rename), "folder\0bin", 11), -EROFS);
    struct fuse_mkdir_in make = {.mode = 0755};
    CHECK_INT(fs_client_call(&client, FUSE_MKDIR, folder, &make, sizeof(make), "x", 2), -EROFS);
    CHECK_INT(fs_client_release(&client, FUSE_RELEASE, tool, handle), 0);
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "file"), 0); /* over the one below */
    CHECK(found()->attr.size == 7 && found()->attr.mode == (S_IFREG | 0400));
    CHECK_TEXT(fs_client_end(&client), "");
}

/* Whether READDIRPLUS of the root lists the name, and with which node. */
static bool lists(const char *name, uint64_t *ret_node)
{
    uint64_t handle = fs_client_open(&client, FUSE_OPENDIR, 1, O_RDONLY);
    struct fuse_read_in in = {.fh = handle, .size = 4096};
    bool is_there = false;
    if (CALL(FUSE_READDIRPLUS, 1, in) < 0)
        return false;
    for (size_t at = 0; at + FUSE_NAME_OFFSET_DIRENTPLUS < client.reply_bytes;) {
        const struct fuse_direntplus *entry = (const void *)(client.reply + at);
        if (entry->dirent.namelen == strlen(name) && memcmp(entry->dirent.name, name, strlen(name)) == 0) {
            is_there = entry->dirent.type == S_IFREG >> 12 || entry->dirent.type == S_IFLNK >> 12;
            *ret_node = entry->entry_out.nodeid;
        }
        at += FUSE_DIRENTPLUS_SIZE(entry);
    }
    fs_client_release(&client, FUSE_RELEASEDIR, 1, handle);
    return is_there;
}

static void check_once(struct fs_options options)
{
    uint64_t node = UINT64_MAX;
    begin(options);
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "folder"), 0);
    uint64_t before = validity_ns(found());
    for (int i = 0; i < 3; i++) /* a listing does not use it up */
        CHECK(lists("once", &node) && node == 0);
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "once"), 0);
    uint64_t once = found()->nodeid;
    CHECK(validity_ns(found()) == 0 && found()->attr.size == 4);
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "folder"), 0);
    CHECK_INT(validity_ns(found()), before); /* it says nothing of other names */
    int result = fs_client_name(&client, FUSE_LOOKUP, 1, "once");
    CHECK(result == -ENOENT || (result == 0 && found()->nodeid == 0));
    CHECK(!lists("once", &node));
    uint64_t handle = options.without_opens ? 0 : fs_client_open(&client, FUSE_OPEN, once, O_RDONLY);
    CHECK(fs_client_read(&client, once, handle, 0, 100) == 0 && client.reply_bytes == 4);
    CHECK(memcmp(client.reply, "once", 4) == 0);
    CHECK_INT(options.without_opens ? 0 : fs_client_release(&client, FUSE_RELEASE, once, handle), 0);
    fs_client_forget(&client, once, 1);
    struct fuse_open_in open = {.flags = O_RDONLY};
    CHECK_INT(CALL(FUSE_OPEN, once, open), -ESTALE); /* nobody knows it any more */
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "link"), 0);
    CHECK(S_ISREG(found()->attr.mode) && validity_ns(found()) == 0);
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "link"), 0); /* what is below */
    CHECK(S_ISLNK(found()->attr.mode) && validity_ns(found()) == before);
    CHECK(lists("link", &node) && node != 0);
    CHECK_TEXT(fs_client_end(&client), "");
}

TEST(a_one_shot_file_is_found_once_whatever_is_cached)
{
    check_once((struct fs_options){.cache = FS_CACHE_AUTO});
    check_once((struct fs_options){.cache = FS_CACHE_NONE});
    check_once((struct fs_options){.cache = FS_CACHE_ALWAYS});
    check_once((struct fs_options){.cache = FS_CACHE_AUTO, .read_only = true});
    check_once((struct fs_options){.cache = FS_CACHE_ALWAYS, .read_only = true, .without_opens = true});
}

TEST(a_one_shot_file_does_not_come_back_with_a_new_session)
{
    begin((struct fs_options){.cache = FS_CACHE_AUTO});
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "once"), 0);
    CHECK_INT(fs_client_init(&client), 0);
    CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "once"), -ENOENT);
    CHECK_TEXT(fs_client_end(&client), "");
}

/* The exit code is told on the root, whatever it is like. */
TEST(the_exit_code_of_a_root_that_cannot_be_written_to)
{
    begin((struct fs_options){.cache = FS_CACHE_AUTO, .read_only = true});
    uint64_t handle = fs_client_open(&client, FUSE_OPENDIR, 1, O_RDONLY);
    struct fuse_ioctl_in in = {.fh = handle, .flags = FUSE_IOCTL_DIR, .cmd = 0x7602, .arg = 0x1234567807};
    CHECK_INT(CALL(FUSE_IOCTL, 1, in), 0);
    CHECK(client.has_exited && client.exit_code == 0x34567807);
    CHECK_TEXT(fs_client_end(&client), "");
}
