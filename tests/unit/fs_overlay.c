// SPDX-License-Identifier: Apache-2.0
/* Tests of virtual files over other backends, of the read-only wrapper, and of the empty backend. */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "fs_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static struct fs_names names;

static int begin_folder(struct fs_backend *ret_backend)
{
    int result = begin();
    *ret_backend = fs;
    return result;
}

static int begin_over(struct fs_backend below, const struct fs_virtual *entries, size_t count)
{
    int result = overlay_new(&below, entries, count, &fs);
    if (result < 0)
        fs_backend_release(&below);
    return result;
}

/* Every call that would change the node, its contents, or what is in it: how many of them were not refused with one of
 * two errors, or, where a handle is for reading, with EBADF. */
static int count_changes(uint64_t folder, const char *name, uint64_t node, uint64_t handle, int error, int or_error)
{
    char letter = 'x';
    struct iovec part = {&letter, 1};
    uint64_t made = 0;
    int fd = -1;
    struct vial_fs_attributes wanted = {.mode = 0777};
    const long results[] = {
        fs.ops.set_attributes(fs.user, &fs_root, node, NULL, VIAL_FS_SET_MODE, &wanted, &attributes),
        fs.ops.unlink(fs.user, &fs_root, folder, name),
        fs.ops.remove_folder(fs.user, &fs_root, folder, name),
        fs.ops.rename(fs.user, &fs_root, folder, name, folder, "renamed", 0),
        fs.ops.rename(fs.user, &fs_root, folder, "there", folder, name, 0),
        fs.ops.open(fs.user, &fs_root, node, O_WRONLY, &made),
        fs.ops.open(fs.user, &fs_root, node, O_RDWR, &made),
        fs.ops.open(fs.user, &fs_root, node, O_RDONLY | O_TRUNC, &made),
        fs.ops.map(fs.user, &fs_root, node, true, &fd),
        fs.ops.write(fs.user, node, handle, &part, 1, 0, 0),
        fs.ops.allocate(fs.user, node, handle, 0, 0, 1),
        fs.ops.set_xattr(fs.user, &fs_root, node, "user.x", "x", 1, 0),
        fs.ops.remove_xattr(fs.user, &fs_root, node, "user.x"),
    };
    int changes = 0;
    for (size_t i = 0; i < array_length(results); i++) {
        bool is_refused = results[i] == error || results[i] == or_error || results[i] == -EBADF;
        if (!is_refused)
            printf("# change %zu: %ld\n", i, results[i]);
        changes += !is_refused;
    }
    return changes;
}

static int syncs;

static int count_sync(void *user)
{
    (void)user;
    syncs++;
    return 0;
}

/* ---- nothing ---- */

TEST(the_empty_backend_has_an_empty_root)
{
    uint64_t handle = 0;
    CHECK_INT(null_new(&fs), 0);
    CHECK_INT(fs.ops.attributes(fs.user, &fs_root, ROOT, NULL, &attributes), 0);
    CHECK_INT(attributes.mode, S_IFDIR | 0755);
    CHECK_INT(lookup(ROOT, "x"), -ENOENT);
    CHECK_INT(lookup(2, "x"), -ESTALE);
    CHECK_TEXT(fs_list_text(ROOT), "");
    CHECK_INT(fs.ops.open_folder(fs.user, &fs_root, ROOT, &handle), 0);
    CHECK_INT(fs_list(ROOT, handle, 0, 1, &names), 0);
    CHECK_TEXT(names.entry[0].name, ".");
    CHECK_INT(fs_list(ROOT, handle, names.next_offset, 5, &names), 0);
    CHECK_INT(names.count, 1);
    CHECK_INT(fs.ops.make_folder(fs.user, &fs_root, ROOT, "d", 0755, &entry), -EROFS);
    fs_backend_release(&fs);
    fs_backend_release(&fs); /* an empty one is fine */
}

/* ---- read-only ---- */

TEST(read_only_reads_and_changes_nothing)
{
    struct fs_backend folder;
    char text[32];
    uint64_t handle = 0;
    CHECK_INT(begin_folder(&folder), 0);
    test_text_file("share/a", "contents");
    test_text_file("share/there", "");
    CHECK_INT(symlink("a", below("l")), 0);
    folder.ops.sync_all = count_sync;
    CHECK_INT(readonly_new(&folder, &fs), 0);
    CHECK_INT(fs.ops.sync_all(fs.user), 0);
    CHECK_INT(syncs, 0); /* what the host has to write is not this guest's */
    CHECK(folder.user == NULL && folder.ops.release == NULL);
    CHECK_INT(fs_read_file("a", text, sizeof(text)), 8);
    CHECK_TEXT(fs_list_text(ROOT), "a l there ");
    CHECK_INT(lookup(ROOT, "l"), 0);
    CHECK_INT(fs.ops.read_link(fs.user, &fs_root, entry.node, text, sizeof(text)), 1);
    CHECK_INT(lookup(ROOT, "a"), 0);
    CHECK_INT(fs.ops.open(fs.user, &fs_root, entry.node, O_RDONLY, &handle), 0);
    CHECK_INT(count_changes(ROOT, "a", entry.node, handle, -EROFS, -EROFS), 0);
    CHECK_INT(fs.ops.copy(fs.user, entry.node, handle, 0, entry.node, handle, 4, 4), -EROFS);
    CHECK_INT(fs.ops.sync(fs.user, entry.node, handle, false), 0);
    CHECK(fs.ops.flush == NULL || fs.ops.flush(fs.user, entry.node, handle) == 0);
    CHECK_INT(fs.ops.seek(fs.user, entry.node, handle, 0, SEEK_HOLE), 8);
    CHECK_INT(fs.ops.close(fs.user, entry.node, handle), 0);
    CHECK_INT(fs.ops.create(fs.user, &fs_root, ROOT, "a", 0644, O_RDONLY, &other, &handle), -EROFS);
    CHECK_INT(fs.ops.make_folder(fs.user, &fs_root, ROOT, "d", 0755, &other), -EROFS);
    CHECK_INT(fs.ops.make_link(fs.user, &fs_root, ROOT, "m", "x", &other), -EROFS);
    CHECK_INT(fs.ops.make_node(fs.user, &fs_root, ROOT, "p", S_IFIFO, 0, &other), -EROFS);
    CHECK_INT(fs.ops.hard_link(fs.user, &fs_root, entry.node, ROOT, "h", &other), -EROFS);
    int fd = -1;
    CHECK_INT(fs.ops.map(fs.user, &fs_root, entry.node, false, &fd), 0);
    CHECK(!fd_is_writable(fd));
    close(fd);
    struct vial_fs_usage usage;
    CHECK_INT(fs.ops.usage(fs.user, ROOT, &usage), 0);
    CHECK_INT(fs.ops.sync_all(fs.user), 0);
    fs_backend_release(&fs);
    CHECK_INT(null_new(&folder), 0);
    CHECK_INT(readonly_new(&folder, &fs), 0);
    CHECK(fs.ops.read == NULL && fs.ops.get_xattr == NULL && fs.ops.write != NULL);
    fs_backend_release(&fs);
}

/* ---- virtual files ---- */

static const struct fs_virtual plain[] = {
    {.kind = FS_VIRTUAL_FILE, .path = "/init.krun", .bytes = "#!init", .length = 6, .mode = 0755},
    {.kind = FS_VIRTUAL_FILE, .path = "/etc/deep/conf", .bytes = "deep", .length = 4, .mode = 0644, .copies = true},
    {.kind = FS_VIRTUAL_FILE, .path = "/empty", .mode = 0400},
    {.kind = FS_VIRTUAL_FOLDER, .path = "/media/data", .mode = 0700},
};

TEST(virtual_files_stand_in_nothing)
{
    struct fs_backend nothing;
    char text[32] = "";
    uint64_t handle = 0;
    CHECK_INT(null_new(&nothing), 0);
    CHECK_INT(begin_over(nothing, plain, array_length(plain)), 0);
    CHECK_TEXT(fs_list_text(ROOT), "empty etc init.krun media ");
    CHECK_INT(fs_walk("media/data", &entry), 0);
    CHECK_INT(entry.attributes.mode, S_IFDIR | 0700);
    CHECK_TEXT(fs_list_text(entry.node), "");
    CHECK_INT(fs.ops.make_folder(fs.user, &fs_root, entry.node, "x", 0755, &other), -EROFS);
    CHECK_INT(fs.ops.create(fs.user, &fs_root, entry.node, "x", 0755, O_RDWR, &other, &handle), -EROFS);
    CHECK_INT(fs_read_file("etc/deep/conf", text, sizeof(text)), 4);
    CHECK_TEXT(text, "deep");
    CHECK_INT(fs_read_file("empty", text, sizeof(text)), 0);
    CHECK_INT(lookup(ROOT, "init.krun"), 0);
    CHECK(entry.attributes.mode == (S_IFREG | 0755) && entry.attributes.size_bytes == 6 && entry.attributes.links == 1);
    CHECK_INT(fs.ops.attributes(fs.user, &fs_root, entry.node, NULL, &attributes), 0);
    CHECK(memcmp(&attributes, &entry.attributes, sizeof(attributes)) == 0);
    CHECK_INT(fs.ops.open(fs.user, &fs_root, entry.node, O_RDONLY, &handle), 0);
    struct iovec parts[2] = {{text, 2}, {text + 2, 10}};
    CHECK_INT(fs.ops.read(fs.user, entry.node, handle, parts, 2, 1), 5);
    CHECK(memcmp(text, "!init", 5) == 0);
    CHECK_INT(fs.ops.read(fs.user, entry.node, handle, parts, 2, 6), 0);
    CHECK_INT(fs.ops.read(fs.user, entry.node, handle, parts, 2, UINT64_MAX), 0);
    CHECK_INT(fs.ops.seek(fs.user, entry.node, handle, 2, SEEK_DATA), 2);
    CHECK_INT(fs.ops.seek(fs.user, entry.node, handle, 2, SEEK_HOLE), 6);
    CHECK_INT(fs.ops.seek(fs.user, entry.node, handle, 6, SEEK_DATA), -ENXIO);
    CHECK_INT(fs.ops.get_xattr(fs.user, &fs_root, entry.node, "user.x", text, 5), -ENODATA);
    CHECK_INT(fs.ops.list_xattr(fs.user, &fs_root, entry.node, text, 5), 0);
    CHECK_INT(fs.ops.hard_link(fs.user, &fs_root, entry.node, ROOT, "h", &other), -EROFS);
    CHECK(fs.ops.flush == NULL || fs.ops.flush(fs.user, entry.node, handle) == 0);
    CHECK_INT(fs.ops.close(fs.user, entry.node, handle), 0);
    CHECK_INT(fs.ops.close(fs.user, entry.node, handle), -EBADF);
    CHECK_INT(lookup(entry.node, "x"), -ENOTDIR);
    CHECK_INT(fs.ops.attributes(fs.user, &fs_root, UINT64_MAX, NULL, &attributes), -ESTALE);
    CHECK_INT(fs.ops.attributes(fs.user, &fs_root, UINT64_C(1) << 63, NULL, &attributes), -ESTALE);
    fs_backend_release(&fs);
}

TEST(virtual_files_are_mapped)
{
    struct fs_backend nothing;
    int fd = -1;
    CHECK_INT(null_new(&nothing), 0);
    CHECK_INT(begin_over(nothing, plain, array_length(plain)), 0);
    CHECK_INT(lookup(ROOT, "init.krun"), 0);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(fs.ops.map(fs.user, &fs_root, entry.node, false, &fd), 0);
        char *mapping = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
        CHECK(mapping != MAP_FAILED && memcmp(mapping, "#!init", 7) == 0);
        munmap(mapping, 4096);
        CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
        CHECK(ftruncate(fd, 0) < 0 && write(fd, "x", 1) < 0);
        close(fd);
    }
    CHECK_INT(fs.ops.map(fs.user, &fs_root, entry.node, true, &fd), -EROFS);
    fs_backend_release(&fs);
}

TEST(virtual_files_cover_a_folder)
{
    struct fs_backend folder;
    char text[32];
    uint64_t handle = 0;
    CHECK_INT(begin_folder(&folder), 0);
    test_text_file("share/init.krun", "the host's");
    test_text_file("share/there", "there");
    test_text_file("share/etc/passwd", "root");
    test_text_file("share/media/data/file", "on the mount");
    CHECK_INT(begin_over(folder, plain, array_length(plain)), 0);
    CHECK_TEXT(fs_list_text(ROOT), "empty etc init.krun media there ");
    CHECK_INT(fs_read_file("init.krun", text, sizeof(text)), 6);
    CHECK_INT(fs_read_file("etc/passwd", text, sizeof(text)), 4);
    CHECK_INT(fs_read_file("media/data/file", text, sizeof(text)), 12);
    CHECK_INT(fs_walk("etc", &entry), 0);
    uint64_t etc = entry.node;
    CHECK_INT(entry.attributes.mode, S_IFDIR | 0755);
    CHECK_TEXT(fs_list_text(etc), "deep passwd ");
    CHECK_INT(fs_write_file(etc, "new", "by the guest"), 0); /* into the folder below */
    CHECK_INT(access(below("etc/new"), F_OK), 0);
    CHECK_INT(access(below("etc/deep"), F_OK), -1);
    CHECK_INT(fs.ops.rename(fs.user, &fs_root, etc, "new", ROOT, "newer", 0), 0);
    CHECK_INT(fs.ops.create(fs.user, &fs_root, etc, "deep", 0644, O_RDWR, &other, &handle), -EEXIST);
    CHECK_INT(lookup(ROOT, "init.krun"), 0);
    CHECK_INT(fs.ops.open(fs.user, &fs_root, entry.node, O_RDONLY, &handle), 0);
    CHECK_INT(count_changes(ROOT, "init.krun", entry.node, handle, -EROFS, -EROFS), 0);
    CHECK_INT(fs.ops.rename(fs.user, &fs_root, ROOT, "media", ROOT, "x", 0), -EBUSY);
    CHECK_INT(fs.ops.remove_folder(fs.user, &fs_root, ROOT, "media"), -EBUSY);
    CHECK_INT(fs.ops.rename(fs.user, &fs_root, ROOT, "there", ROOT, "media", 0), -EBUSY);
    CHECK_INT(fs.ops.rename(fs.user, &fs_root, ROOT, "there", ROOT, "init.krun", RENAME_EXCHANGE), -EROFS);
    CHECK_INT(fs_walk("there", &entry), 0);
    CHECK_INT(fs.ops.hard_link(fs.user, &fs_root, entry.node, etc, "hard", &other), 0);
    CHECK_INT(fs.ops.unlink(fs.user, &fs_root, etc, "hard"), 0);
    CHECK_INT(fs.ops.set_attributes(fs.user, &fs_root, etc, NULL, VIAL_FS_SET_MODE,
                                    &(struct vial_fs_attributes){.mode = 0711}, &attributes),
              0); /* the folder below is what it is */
    CHECK_INT(attributes.mode, S_IFDIR | 0711);
    fs_backend_release(&fs);
}

TEST(what_the_host_changes_below_is_seen)
{
    struct fs_backend folder;
    char text[32];
    CHECK_INT(begin_folder(&folder), 0);
    CHECK_INT(begin_over(folder, plain, array_length(plain)), 0);
    CHECK_INT(fs_walk("media/data", &entry), 0);
    uint64_t node = entry.node;
    CHECK_INT(entry.attributes.mode, S_IFDIR | 0700); /* virtual: the host has none */
    test_text_file("share/media/data/file", "one");
    CHECK_INT(fs_read_file("media/data/file", text, sizeof(text)), 3);
    CHECK_INT(fs_walk("media/data", &entry), 0);
    CHECK_INT(entry.node, node);
    CHECK_TEXT(fs_list_text(node), "file ");
    CHECK_INT(rename(below("media"), below("gone")), 0);
    CHECK_INT(fs_walk("media/data", &entry), 0);
    CHECK_TEXT(fs_list_text(node), "");
    test_text_file("share/media/data", "a file is not a mount point");
    CHECK_INT(fs_walk("media/data", &entry), 0);
    CHECK_INT(entry.attributes.mode, S_IFDIR | 0700);
    fs_backend_release(&fs);
}

TEST(names_are_hidden_unless_something_lies_in_them)
{
    static const struct fs_virtual hidden[] = {
        {.kind = FS_VIRTUAL_FOLDER, .path = "/people/me/project", .mode = 0755},
        {.kind = FS_VIRTUAL_HIDDEN, .path = "/people"},
        {.kind = FS_VIRTUAL_HIDDEN, .path = "/etc/shadow"},
        {.kind = FS_VIRTUAL_EMPTY, .path = "/root", .mode = 0700},
    };
    struct fs_backend folder;
    uint64_t handle = 0;
    CHECK_INT(begin_folder(&folder), 0);
    test_text_file("share/people/me/secret", "");
    test_text_file("share/etc/shadow", "");
    test_text_file("share/etc/passwd", "");
    test_text_file("share/root/key", "");
    CHECK_INT(begin_over(folder, hidden, array_length(hidden)), 0);
    CHECK_INT(fs_walk("people/me/secret", &entry), -ENOENT);
    CHECK_INT(fs_walk("people/me/project", &entry), 0);
    CHECK_INT(fs_walk("etc/shadow", &entry), -ENOENT);
    CHECK_INT(fs_walk("root/key", &entry), -ENOENT);
    CHECK_INT(fs_walk("people", &entry), 0);
    CHECK_TEXT(fs_list_text(entry.node), "me ");
    CHECK_INT(fs_walk("root", &entry), 0);
    CHECK_INT(entry.attributes.mode, S_IFDIR | 0700);
    CHECK_TEXT(fs_list_text(entry.node), "");
    CHECK_INT(fs_walk("etc", &entry), 0);
    CHECK_TEXT(fs_list_text(entry.node), "passwd ");
    CHECK_INT(fs.ops.create(fs.user, &fs_root, entry.node, "shadow", 0644, O_RDWR, &other, &handle), -EPERM);
    CHECK_INT(fs.ops.unlink(fs.user, &fs_root, entry.node, "shadow"), -ENOENT);
    CHECK_INT(fs.ops.rename(fs.user, &fs_root, entry.node, "shadow", entry.node, "x", 0), -ENOENT);
    CHECK_INT(fs.ops.rename(fs.user, &fs_root, entry.node, "passwd", entry.node, "shadow", 0), -EPERM);
    CHECK_INT(fs.ops.rename(fs.user, &fs_root, ROOT, "etc", ROOT, "elsewhere", 0), -EBUSY);
    fs_backend_release(&fs);
}

TEST(a_one_shot_file_is_found_once)
{
    static const struct fs_virtual once[] = {
        {.kind = FS_VIRTUAL_FILE, .path = "/once", .bytes = "1", .length = 1, .mode = 0600, .one_shot = true},
        {.kind = FS_VIRTUAL_FILE, .path = "/other", .bytes = "1", .length = 1, .mode = 0600, .one_shot = true},
    };
    struct fs_backend folder;
    char text[32] = "";
    uint64_t handle = 0, second = 0;
    CHECK_INT(begin_folder(&folder), 0);
    test_text_file("share/once", "below");
    CHECK_INT(begin_over(folder, once, 2), 0);
    CHECK_TEXT(fs_list_text(ROOT), "once other ");
    CHECK_INT(fs.ops.open_folder(fs.user, &fs_root, ROOT, &handle), 0);
    CHECK_INT(fs_list(ROOT, handle, 0, FS_MOST_NAMES, &names), 0);
    for (size_t i = 0; i < names.count; i++) /* the server does not look these up for READDIRPLUS */
        CHECK_INT(names.entry[i].type & FS_LISTED_ONLY, names.entry[i].name[0] == 'o' ? FS_LISTED_ONLY : 0);
    CHECK_INT(fs.ops.close_folder(fs.user, ROOT, handle), 0);
    CHECK_INT(fs.ops.unlink(fs.user, &fs_root, ROOT, "once"), -EROFS);
    CHECK_INT(lookup(ROOT, "once"), 0);
    CHECK(fs_entry_is_once(&entry));
    uint64_t node = entry.node;
    CHECK_INT(fs.ops.open(fs.user, &fs_root, node, O_RDONLY, &handle), 0); /* who has found it has it */
    CHECK_INT(lookup(ROOT, "once"), 0);
    CHECK(entry.node != node && !fs_entry_is_once(&entry) && entry.attributes.size_bytes == 5);
    CHECK_INT(fs_read_file("once", text, sizeof(text)), 5);
    CHECK_TEXT(text, "below");
    struct iovec part = {text, sizeof(text)};
    CHECK_INT(fs.ops.read(fs.user, node, handle, &part, 1, 0), 1);
    CHECK_INT(fs.ops.open(fs.user, &fs_root, node, O_RDONLY, &second), 0);
    CHECK_INT(fs.ops.close(fs.user, node, handle), 0);
    CHECK_INT(fs.ops.close(fs.user, node, second), 0);
    CHECK_INT(fs.ops.close(fs.user, node, second), -EBADF);
    CHECK_INT(lookup(ROOT, "other"), 0);
    CHECK_INT(lookup(ROOT, "other"), -ENOENT);
    CHECK_TEXT(fs_list_text(ROOT), "once ");
    CHECK_INT(fs.ops.unlink(fs.user, &fs_root, ROOT, "once"), 0);
    CHECK_INT(fs_write_file(ROOT, "other", "of the guest"), 0);
    CHECK_INT(access(below("other"), F_OK), 0);
    CHECK_TEXT(fs_list_text(ROOT), "other ");
    fs_backend_release(&fs);
}

/* What is hidden in a place stays so when a file in that place goes. */
TEST(a_one_shot_file_uncovers_nothing_that_is_hidden)
{
    static const char *const paths[] = {"/a", "/b", "/c", "/d"};
    static const struct fs_virtual under[] = {
        {.kind = FS_VIRTUAL_HIDDEN, .path = "/a"},
        {.kind = FS_VIRTUAL_EMPTY, .path = "/b"},
        {.kind = FS_VIRTUAL_HIDDEN, .path = "/c/deep/secret"},
    };
    struct fs_virtual entries[array_length(paths) + array_length(under)];
    struct fs_backend folder;
    uint64_t handle = 0;
    CHECK_INT(begin_folder(&folder), 0);
    test_text_file("share/a", "");
    test_text_file("share/b/secret", "");
    test_text_file("share/c/deep/secret", "");
    test_text_file("share/d/shown", "");
    for (size_t i = 0; i < array_length(paths); i++)
        entries[i] = (struct fs_virtual){.kind = FS_VIRTUAL_FILE, .path = paths[i], .mode = 0600, .one_shot = true};
    memcpy(entries + array_length(paths), under, sizeof(under));
    CHECK_INT(begin_over(folder, entries, array_length(entries)), 0);
    for (size_t i = 0; i < array_length(paths); i++)
        CHECK(lookup(ROOT, paths[i] + 1) == 0 && S_ISREG(entry.attributes.mode));
    for (size_t i = 0; i < 3; i++) {
        CHECK_INT(lookup(ROOT, paths[i] + 1), -ENOENT);
        CHECK_INT(create(ROOT, paths[i] + 1, 0600, O_RDWR, &handle), -EPERM);
    }
    CHECK_TEXT(fs_list_text(ROOT), "d ");
    CHECK_INT(fs_walk("d/shown", &entry), 0);
    end();
    struct fs_backend nothing;
    CHECK_INT(null_new(&nothing), 0);
    struct fs_virtual twice[] = {entries[0], entries[0]};
    twice[1].kind = FS_VIRTUAL_FOLDER; /* a mount point cannot be had where a file is */
    CHECK_INT(overlay_new(&nothing, twice, 2, &fs), -EEXIST);
    fs_backend_release(&nothing);
}

TEST(a_merged_listing_goes_on_anywhere)
{
    struct fs_backend folder;
    uint64_t handle = 0, offset = 0;
    size_t total = 0;
    CHECK_INT(begin_folder(&folder), 0);
    for (int i = 0; i < 40; i++) {
        char name[32];
        snprintf(name, sizeof(name), "share/n%d", i);
        test_text_file(name, "");
    }
    test_text_file("share/etc/x", "");
    CHECK_INT(begin_over(folder, plain, array_length(plain)), 0);
    CHECK_INT(fs.ops.open_folder(fs.user, &fs_root, ROOT, &handle), 0);
    for (;; offset = names.next_offset, total++) {
        CHECK_INT(fs_list(ROOT, handle, offset, 1, &names), 0);
        if (names.count == 0)
            break;
        CHECK(names.next_offset <= INT64_MAX);
    }
    CHECK_INT(total, 2 + 40 + 4);
    CHECK_INT(fs_list(ROOT, handle, 0, FS_MOST_NAMES, &names), 0);
    CHECK_INT(names.count, total);
    CHECK_INT(fs.ops.sync_folder(fs.user, ROOT, handle, false), 0);
    CHECK_INT(fs.ops.close_folder(fs.user, ROOT, handle), 0);
    CHECK_INT(fs.ops.close_folder(fs.user, ROOT, handle), -EBADF);
    CHECK_INT(fs.ops.open_folder(fs.user, &fs_root, ROOT, &handle), 0);
    fs_backend_release(&fs); /* with a folder open */
}

TEST(folders_meet_folders)
{
    static const struct fs_virtual entries[] = {
        {.kind = FS_VIRTUAL_FOLDER, .path = "/tmp", .mode = 01777},
        {.kind = FS_VIRTUAL_FOLDER, .path = "/tmp", .mode = 0755}, /* a mount point */
        {.kind = FS_VIRTUAL_EMPTY, .path = "/home", .mode = 0755},
        {.kind = FS_VIRTUAL_HIDDEN, .path = "/home"},
        {.kind = FS_VIRTUAL_HIDDEN, .path = "/home"},
        {.kind = FS_VIRTUAL_EMPTY, .path = "/emptied"},
        {.kind = FS_VIRTUAL_FOLDER, .path = "/emptied"},
        {.kind = FS_VIRTUAL_HIDDEN, .path = "/back"},
        {.kind = FS_VIRTUAL_FOLDER, .path = "/back"},
        {.kind = FS_VIRTUAL_FOLDER, .path = "/way/point"},
        {.kind = FS_VIRTUAL_FOLDER, .path = "/way"},
        {.kind = FS_VIRTUAL_HIDDEN, .path = "/way"},
    };
    struct fs_backend folder;
    CHECK_INT(begin_folder(&folder), 0);
    static const char *const files[] = {"tmp", "home", "emptied", "back", "way"};
    for (size_t i = 0; i < array_length(files); i++) {
        char path[32];
        snprintf(path, sizeof(path), "share/%s/file", files[i]);
        test_text_file(path, "");
    }
    CHECK_INT(begin_over(folder, entries, array_length(entries)), 0);
    CHECK_TEXT(fs_list_text(ROOT), "back emptied tmp way ");
    CHECK_INT(lookup(ROOT, "tmp"), 0);
    CHECK_INT(fs.ops.lookup(fs.user, &fs_root, entry.node, "file", &other), 0);
    CHECK_INT(lookup(ROOT, "home"), -ENOENT);
    CHECK_INT(lookup(ROOT, "emptied"), 0);
    CHECK_TEXT(fs_list_text(entry.node), "");
    CHECK_INT(lookup(ROOT, "back"), 0);
    CHECK_TEXT(fs_list_text(entry.node), "");
    CHECK_INT(lookup(ROOT, "way"), 0);
    CHECK_TEXT(fs_list_text(entry.node), "point ");
    end();
    struct fs_backend nothing;
    CHECK_INT(null_new(&nothing), 0);
    CHECK_INT(begin_over(nothing, entries, 2), 0);
    CHECK_INT(lookup(ROOT, "tmp"), 0);
    CHECK_INT(entry.attributes.mode, S_IFDIR | 01777); /* the first one's */
    end();
}

TEST(entries_that_make_no_sense_are_refused)
{
    static const char *const bad[] = {"/", "relative", "", "/a//b", "/a/../b", "/a/.", "/a/", "/file/below"};
    struct fs_virtual entries[2] = {{.kind = FS_VIRTUAL_FILE, .path = "/file", .mode = 0644}};
    for (size_t i = 0; i < array_length(bad); i++) {
        struct fs_backend nothing;
        CHECK_INT(null_new(&nothing), 0);
        entries[1] = (struct fs_virtual){.kind = FS_VIRTUAL_FOLDER, .path = bad[i]};
        CHECK_INT(begin_over(nothing, entries, 2), i == 7 ? -ENOTDIR : -EINVAL);
    }
    struct fs_backend nothing;
    CHECK_INT(null_new(&nothing), 0);
    entries[1].path = "/file";
    CHECK_INT(overlay_new(&nothing, entries, 2, &fs), -EEXIST);
    CHECK(nothing.ops.lookup != NULL); /* still the caller's */
    entries[1].kind = (enum fs_virtual_kind)9;
    CHECK_INT(overlay_new(&nothing, entries, 2, &fs), -EINVAL);
    fs_backend_release(&nothing);
}

/* ---- a backend that breaks the rules ---- */

static int looked_up, forgotten;
static uint64_t evil_node;

static int evil_lookup(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                       struct vial_fs_entry *ret_entry)
{
    (void)user, (void)caller, (void)parent, (void)name;
    *ret_entry = (struct vial_fs_entry){.node = evil_node, .attributes.mode = S_IFDIR | 0755};
    looked_up++;
    return 0;
}

static void evil_forget(void *user, uint64_t node, uint64_t lookups)
{
    (void)user, (void)node;
    forgotten += (int)lookups;
}

static int evil_open(void *user, const struct vial_fs_caller *caller, uint64_t node, uint64_t *ret_handle)
{
    (void)user, (void)caller, (void)node;
    *ret_handle = UINT64_MAX;
    return 0;
}

TEST(numbers_of_ours_are_not_taken_from_below)
{
    uint64_t handle = 0;
    looked_up = forgotten = 0;
    struct fs_backend evil = {.ops = {.size = sizeof(struct vial_fs_ops),
                                      .lookup = evil_lookup,
                                      .forget = evil_forget,
                                      .open_folder = evil_open}};
    CHECK_INT(begin_over(evil, plain, array_length(plain)), 0);
    evil_node = UINT64_C(1) << 63 | 1;
    CHECK_INT(lookup(ROOT, "x"), -EIO);
    CHECK_INT(forgotten, 1);
    CHECK_INT(fs.ops.open_folder(fs.user, &fs_root, ROOT, &handle), -EIO);
    for (evil_node = 2; evil_node < 50; evil_node++) /* another number each time: none is kept but the last */
        CHECK_INT(lookup(ROOT, "media"), 0);
    CHECK_INT(looked_up - forgotten, 1);
    CHECK_INT(lookup(ROOT, "media"), 0);
    CHECK_INT(lookup(ROOT, "media"), 0);
    CHECK_INT(looked_up - forgotten, 1);
    CHECK_INT(fs.ops.unlink(fs.user, &fs_root, ROOT, "x"), -ENOSYS);
    fs_backend_release(&fs);
    CHECK_INT(looked_up, forgotten);
}

TEST(no_memory_is_an_error_and_no_leak)
{
    share = test_make_folder("share");
    test_text_file("share/etc/passwd", "root");
    FOR_EACH_FAULT
    {
        char text[16];
        struct passthrough_options options = {.path = share, .has_owner = !passthrough_is_privileged()};
        struct fs_backend folder, above;
        int result = passthrough_new(&options, &folder);
        if (result == 0) {
            result = overlay_new(&folder, plain, array_length(plain), &above);
            if (result < 0)
                fs_backend_release(&folder);
        }
        if (result == 0) {
            result = readonly_new(&above, &fs);
            if (result < 0)
                fs_backend_release(&above);
        }
        CHECK(result == 0 || (result == -ENOMEM && fault_was_hit()));
        if (result < 0)
            continue;
        result = (int)fs_read_file("etc/deep/conf", text, sizeof(text));
        CHECK(result == 4 || (result == -ENOMEM && fault_was_hit()));
        result = (int)fs_read_file("etc/passwd", text, sizeof(text));
        CHECK(result == 4 || (result == -ENOMEM && fault_was_hit()));
        (void)fs_list_text(ROOT);
        fs_backend_release(&fs);
    }
}

/* ---- many threads ---- */

static struct fs_virtual contested = {
    .kind = FS_VIRTUAL_FILE, .path = "/contested", .bytes = "1", .length = 1, .mode = 0600, .one_shot = true};

static void *look_for_one(void *user)
{
    struct vial_fs_entry mine;
    int *finds = user;
    *finds += fs.ops.lookup(fs.user, &fs_root, ROOT, "contested", &mine) == 0;
    return NULL;
}

TEST(one_of_eight_threads_finds_a_one_shot_file)
{
    for (int round = 0; round < 100; round++) {
        struct fs_backend nothing;
        pthread_t thread[8];
        int finds[array_length(thread)] = {0}, total = 0;
        CHECK_INT(null_new(&nothing), 0);
        CHECK_INT(begin_over(nothing, &contested, 1), 0);
        for (size_t i = 0; i < array_length(thread); i++)
            CHECK_INT(pthread_create(&thread[i], NULL, look_for_one, &finds[i]), 0);
        for (size_t i = 0; i < array_length(thread); i++) {
            pthread_join(thread[i], NULL);
            total += finds[i];
        }
        CHECK_INT(total, 1);
        fs_backend_release(&fs);
    }
}

static void *look_and_list(void *user)
{
    const char **failure = user;
    for (int i = 0; i < 300; i++) {
        struct vial_fs_entry mine;
        struct vial_fs_attributes found;
        uint64_t handle = 0;
        if (fs.ops.lookup(fs.user, &fs_root, ROOT, "media", &mine) < 0)
            *failure = "lookup";
        if (fs.ops.attributes(fs.user, &fs_root, mine.node, NULL, &found) == -EBADF)
            *failure = "attributes";
        if (fs.ops.open_folder(fs.user, &fs_root, mine.node, &handle) == 0)
            fs.ops.close_folder(fs.user, mine.node, handle);
    }
    return NULL;
}

TEST(joins_change_under_eight_threads)
{
    struct fs_backend folder;
    CHECK_INT(begin_folder(&folder), 0);
    CHECK_INT(begin_over(folder, plain, array_length(plain)), 0);
    pthread_t thread[8];
    const char *failures[array_length(thread)] = {NULL};
    for (size_t i = 0; i < array_length(thread); i++)
        CHECK_INT(pthread_create(&thread[i], NULL, look_and_list, &failures[i]), 0);
    for (int i = 0; i < 500; i++) {
        CHECK_INT(mkdir(below("media"), 0755), 0);
        CHECK_INT(rmdir(below("media")), 0);
    }
    for (size_t i = 0; i < array_length(thread); i++)
        pthread_join(thread[i], NULL);
    for (size_t i = 0; i < array_length(thread); i++)
        CHECK(failures[i] == NULL);
    fs_backend_release(&fs);
}
