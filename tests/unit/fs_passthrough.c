// SPDX-License-Identifier: Apache-2.0
/* Tests of the passthrough backend on real folders: everything that a file system does. */
#include "test.h"

#include "base/alloc.h"
#include "fs_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

static struct fs_names names;

/* ---- files ---- */

TEST(a_file_is_created_written_read_and_truncated)
{
    uint64_t handle = 0;
    char text[64];
    CHECK_INT(begin(), 0);
    CHECK_INT(create(ROOT, "a", 0666, O_RDWR, &handle), 0);
    CHECK_INT(entry.attributes.mode, S_IFREG | 0644); /* the caller's umask, whatever ours is */
    CHECK(entry.node != ROOT && entry.node != 0);
    CHECK_INT(write_at(entry.node, handle, "hello, world", 0, 0), 12);
    CHECK_INT(write_at(entry.node, handle, "H", 0, 0), 1);
    struct iovec parts[2] = {{text, 5}, {text + 8, 5}};
    CHECK_INT(fs.ops.read(fs.user, entry.node, handle, parts, 2, 0), 10);
    CHECK(memcmp(text, "Hello", 5) == 0 && memcmp(text + 8, ", wor", 5) == 0);
    struct statfs file_system;
    CHECK_INT(statfs(share, &file_system), 0);
    if (file_system.f_type == TMPFS_MAGIC || file_system.f_type == EXT4_SUPER_MAGIC)
        CHECK(fs.ops.flush == NULL); /* there is nothing to tell at a close */
    CHECK(fs.ops.flush == NULL || fs.ops.flush(fs.user, entry.node, handle) == 0);
    CHECK_INT(fs.ops.sync(fs.user, entry.node, handle, false), 0);
    CHECK_INT(fs.ops.sync(fs.user, entry.node, handle, true), 0);
    CHECK_INT(set(entry.node, VIAL_FS_SET_SIZE, (struct vial_fs_attributes){.size_bytes = 5}), 0);
    CHECK_INT(attributes.size_bytes, 5);
    attributes.size_bytes = 100;
    CHECK_INT(fs.ops.set_attributes(fs.user, &fs_root, entry.node, &handle, VIAL_FS_SET_SIZE, &attributes, &attributes),
              0);
    CHECK_INT(attributes.size_bytes, 100);
    CHECK_INT(fs.ops.close(fs.user, entry.node, handle), 0);
    CHECK_INT(fs.ops.close(fs.user, entry.node, handle), -EBADF);
    CHECK_INT(fs.ops.read(fs.user, entry.node, handle, parts, 2, 0), -EBADF);
    CHECK_INT(fs.ops.open(fs.user, &fs_root, entry.node, O_WRONLY | O_TRUNC | O_APPEND, &handle), 0);
    CHECK_INT(write_at(entry.node, handle, "abc", 3, 0), 3);
    CHECK_INT(write_at(entry.node, handle, "xyz", 0, 0), 3); /* not appended: offsets rule */
    CHECK_INT(fs.ops.close(fs.user, entry.node, handle), 0);
    CHECK_INT(fs_read_file("a", text, sizeof(text)), 6);
    CHECK_TEXT(text, "xyzabc");
    end();
}

TEST(create_finds_what_is_there_unless_it_must_be_new)
{
    uint64_t handle = 0;
    char text[16];
    CHECK_INT(begin(), 0);
    test_text_file("share/a", "old");
    CHECK_INT(create(ROOT, "a", 0644, O_RDWR | O_EXCL, &handle), -EEXIST);
    CHECK_INT(create(ROOT, "a", 0644, O_RDWR, &handle), 0);
    CHECK_INT(entry.attributes.size_bytes, 3);
    struct iovec part = {text, sizeof(text)};
    CHECK_INT(fs.ops.read(fs.user, entry.node, handle, &part, 1, 0), 3);
    CHECK_INT(fs.ops.close(fs.user, entry.node, handle), 0);
    CHECK_INT(create(ROOT, "a", 0644, O_RDWR | O_TRUNC, &handle), 0);
    CHECK_INT(entry.attributes.size_bytes, 0);
    CHECK_INT(fs.ops.close(fs.user, entry.node, handle), 0);
    CHECK_INT(symlink("a", below("link")), 0);
    CHECK_INT(create(ROOT, "link", 0644, O_RDWR, &handle), -ELOOP);
    CHECK_INT(create(ROOT, "b", 0644, O_ACCMODE, &handle), -EINVAL);
    end();
}

TEST(permissions_do_not_depend_on_our_umask)
{
    uint64_t handle = 0;
    mode_t before = umask(077);
    struct vial_fs_caller caller = {.umask = 002};
    CHECK_INT(begin(), 0);
    CHECK_INT(fs.ops.create(fs.user, &caller, ROOT, "a", 0777, O_RDWR | O_EXCL, &entry, &handle), 0);
    CHECK_INT(entry.attributes.mode, S_IFREG | 0775);
    CHECK_INT(fs.ops.close(fs.user, entry.node, handle), 0);
    CHECK_INT(fs.ops.make_folder(fs.user, &caller, ROOT, "d", 01777, &entry), 0);
    CHECK_INT(entry.attributes.mode, S_IFDIR | 01775);
    CHECK_INT(fs.ops.make_node(fs.user, &caller, ROOT, "p", S_IFIFO | 0666, 0, &entry), 0);
    CHECK_INT(entry.attributes.mode, S_IFIFO | 0664);
    CHECK_INT(umask(before), 077);
    end();
}

TEST(holes_are_made_found_and_copied)
{
    uint64_t from = 0, to = 0, to_node = 0;
    static char block[8192];
    struct iovec part = {block, sizeof(block)};
    CHECK_INT(begin(), 0);
    memset(block, 'x', sizeof(block));
    CHECK_INT(create(ROOT, "to", 0644, O_RDWR, &to), 0);
    to_node = entry.node;
    CHECK_INT(create(ROOT, "from", 0644, O_RDWR, &from), 0);
    CHECK_INT(fs.ops.write(fs.user, entry.node, from, &part, 1, 1 << 20, 0), sizeof(block));
    CHECK_INT(fs.ops.seek(fs.user, entry.node, from, 0, SEEK_DATA), 1 << 20);
    CHECK_INT(fs.ops.seek(fs.user, entry.node, from, 1 << 20, SEEK_HOLE), (1 << 20) + 8192);
    CHECK_INT(fs.ops.seek(fs.user, entry.node, from, 2 << 20, SEEK_DATA), -ENXIO);
    CHECK_INT(fs.ops.seek(fs.user, entry.node, from, UINT64_MAX, SEEK_DATA), -ENXIO);
    CHECK_INT(fs.ops.seek(fs.user, entry.node, from, 0, SEEK_END), -EINVAL);
    uint32_t punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    CHECK_INT(fs.ops.allocate(fs.user, entry.node, from, punch, 1 << 20, 4096), 0);
    CHECK_INT(fs.ops.seek(fs.user, entry.node, from, 0, SEEK_DATA), (1 << 20) + 4096);
    CHECK_INT(fs.ops.allocate(fs.user, entry.node, from, 0, 0, 4096), 0);
    CHECK_INT(fs.ops.allocate(fs.user, entry.node, from, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), -EOPNOTSUPP);
    CHECK_INT(fs.ops.allocate(fs.user, entry.node, from, 0, UINT64_MAX, 4096), -EFBIG);
    CHECK_INT(fs.ops.copy(fs.user, entry.node, from, (1 << 20) + 4096, to_node, to, 0, UINT64_MAX), 4096);
    memset(block, 0, sizeof(block));
    CHECK_INT(fs.ops.read(fs.user, to_node, to, &part, 1, 0), 4096);
    CHECK(block[0] == 'x' && block[4095] == 'x' && block[4096] == 0);
    CHECK_INT(fs.ops.read(fs.user, to_node, to, &part, 1, UINT64_MAX), -EINVAL);
    CHECK_INT(fs.ops.write(fs.user, to_node, to, &part, 1, UINT64_MAX, 0), -EFBIG);
    end(); /* with both of them open */
}

TEST(a_mapping_reads_and_writes_the_file)
{
    int fd = -1;
    CHECK_INT(begin(), 0);
    test_text_file("share/a", "mapped");
    CHECK_INT(lookup(ROOT, "a"), 0);
    CHECK_INT(fs.ops.map(fs.user, &fs_root, entry.node, true, &fd), 0);
    char *mapping = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(mapping != MAP_FAILED && memcmp(mapping, "mapped", 6) == 0);
    munmap(mapping, 4096);
    close(fd);
    CHECK_INT(fs.ops.map(fs.user, &fs_root, entry.node, false, &fd), 0);
    CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    close(fd);
    CHECK_INT(fs.ops.map(fs.user, &fs_root, ROOT, false, &fd), -EISDIR);
    end();
}

TEST(an_unlinked_file_lives_by_its_handle)
{
    uint64_t handle = 0;
    char text[16] = "";
    CHECK_INT(begin_with((struct passthrough_options){.most_descriptors = 1}), 0);
    CHECK_INT(create(ROOT, "a", 0644, O_RDWR, &handle), 0);
    CHECK_INT(write_at(entry.node, handle, "still here", 0, 0), 10);
    CHECK_INT(fs.ops.unlink(fs.user, &fs_root, ROOT, "a"), 0);
    CHECK_INT(fs_write_file(ROOT, "b", "takes the descriptor"), 0);
    struct iovec part = {text, sizeof(text)};
    CHECK_INT(fs.ops.read(fs.user, entry.node, handle, &part, 1, 0), 10);
    CHECK_INT(fs.ops.attributes(fs.user, &fs_root, entry.node, &handle, &attributes), 0);
    CHECK_INT(attributes.links, 0);
    attributes.size_bytes = 5;
    CHECK_INT(fs.ops.set_attributes(fs.user, &fs_root, entry.node, &handle, VIAL_FS_SET_SIZE, &attributes, &attributes),
              0);
    CHECK_INT(attributes.size_bytes, 5);
    /* By its number alone, as fstat(2) asks, though no name leads to it any more. */
    uint64_t again = 0;
    CHECK_INT(fs.ops.attributes(fs.user, &fs_root, entry.node, NULL, &attributes), 0);
    CHECK_INT(attributes.links, 0);
    CHECK_INT(attributes.size_bytes, 5);
    CHECK_INT(fs_write_file(ROOT, "c", "takes it once more"), 0);
    CHECK_INT(fs.ops.open(fs.user, &fs_root, entry.node, O_RDONLY, &again), 0);
    CHECK_INT(fs.ops.close(fs.user, entry.node, again), 0);
    uint64_t wrong = handle + 1;
    CHECK_INT(fs.ops.attributes(fs.user, &fs_root, entry.node, &wrong, &attributes), -EBADF);
    CHECK_INT(fs.ops.attributes(fs.user, &fs_root, ROOT, &handle, &attributes), -EBADF);
    uint64_t node = entry.node;
    CHECK_INT(fs.ops.close(fs.user, node, handle), 0);
    CHECK_INT(fs_write_file(ROOT, "d", "takes it a last time"), 0);
    CHECK_INT(fs.ops.attributes(fs.user, &fs_root, node, NULL, &attributes), -ESTALE);
    end();
}

TEST(open_files_that_were_replaced_are_still_there)
{
    enum { count = 300 }; /* more than the table of handles begins with */
    static uint64_t nodes[count], handles[count];
    char name[16];
    CHECK_INT(begin_with((struct passthrough_options){.most_descriptors = 16}), 0);
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "%d", i);
        CHECK_INT(create(ROOT, name, 0644, O_RDWR, &handles[i]), 0);
        nodes[i] = entry.node;
        CHECK_INT(write_at(nodes[i], handles[i], name, 0, 0), strlen(name));
        CHECK_INT(fs_write_file(ROOT, "new", "another file"), 0);
        CHECK_INT(fs.ops.rename(fs.user, &fs_root, ROOT, "new", ROOT, name, 0), 0);
    }
    CHECK_INT(fs.ops.make_folder(fs.user, &fs_root, ROOT, "folder", 0755, &other), 0);
    uint64_t folder = 0;
    CHECK_INT(fs.ops.open_folder(fs.user, &fs_root, other.node, &folder), 0);
    CHECK_INT(fs.ops.remove_folder(fs.user, &fs_root, ROOT, "folder"), 0);
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "%d", i);
        CHECK_INT(fs.ops.attributes(fs.user, &fs_root, nodes[i], NULL, &attributes), 0);
        CHECK_INT(attributes.size_bytes, strlen(name));
        CHECK_INT(set(nodes[i], VIAL_FS_SET_SIZE, (struct vial_fs_attributes){.size_bytes = 9}), 0);
        CHECK_INT(fs.ops.close(fs.user, nodes[i], handles[i]), 0);
    }
    CHECK_INT(fs.ops.attributes(fs.user, &fs_root, other.node, NULL, &attributes), 0);
    CHECK_INT(fs.ops.close_folder(fs.user, other.node, folder), 0);
    end();
}

/* ---- names ---- */

TEST(folders_links_and_renames)
{
    char text[64];
    CHECK_INT(begin(), 0);
    CHECK_INT(fs.ops.make_folder(fs.user, &fs_root, ROOT, "d", 0755, &entry), 0);
    uint64_t folder = entry.node;
    CHECK_INT(fs.ops.make_folder(fs.user, &fs_root, ROOT, "d", 0755, &other), -EEXIST);
    CHECK_INT(fs_write_file(folder, "a", "one"), 0);
    CHECK_INT(fs.ops.remove_folder(fs.user, &fs_root, ROOT, "d"), -ENOTEMPTY);
    CHECK_INT(fs.ops.make_link(fs.user, &fs_root, ROOT, "l", "../../anything", &entry), 0);
    CHECK_INT(entry.attributes.mode & S_IFMT, S_IFLNK);
    CHECK_INT(fs.ops.read_link(fs.user, &fs_root, entry.node, text, sizeof(text)), 14);
    CHECK(memcmp(text, "../../anything", 14) == 0);
    CHECK_INT(fs.ops.read_link(fs.user, &fs_root, folder, text, sizeof(text)), -EINVAL);
    CHECK_INT(lookup(folder, "a"), 0);
    uint64_t node = entry.node;
    CHECK_INT(fs.ops.hard_link(fs.user, &fs_root, node, ROOT, "b", &entry), 0);
    CHECK(entry.node == node && entry.attributes.links == 2);
    CHECK_INT(fs.ops.rename(fs.user, &fs_root, folder, "a", ROOT, "b", RENAME_NOREPLACE), -EEXIST);
    CHECK_INT(fs.ops.rename(fs.user, &fs_root, ROOT, "b", ROOT, "c", 0), 0);
    CHECK_INT(fs.ops.rename(fs.user, &fs_root, ROOT, "c", ROOT, "d", RENAME_EXCHANGE), 0);
    CHECK_INT(lookup(ROOT, "d"), 0);
    CHECK_INT(entry.node, node);
    CHECK_INT(fs.ops.rename(fs.user, &fs_root, ROOT, "d", ROOT, "e", 4 /* RENAME_WHITEOUT */), -EINVAL);
    CHECK_INT(fs.ops.unlink(fs.user, &fs_root, ROOT, "c"), -EISDIR);
    CHECK_INT(fs.ops.remove_folder(fs.user, &fs_root, ROOT, "d"), -ENOTDIR);
    CHECK_INT(fs.ops.unlink(fs.user, &fs_root, folder, "a"), 0);
    CHECK_INT(fs.ops.remove_folder(fs.user, &fs_root, ROOT, "c"), 0);
    CHECK_INT(lookup(ROOT, "c"), -ENOENT);
    CHECK_TEXT(fs_list_text(ROOT), "d l ");
    end();
}

TEST(times_modes_and_owners_are_set)
{
    CHECK_INT(begin(), 0);
    test_text_file("share/a", "");
    CHECK_INT(symlink("a", below("l")), 0);
    static const char *const both[] = {"a", "l"};
    for (size_t i = 0; i < array_length(both); i++) { /* of the link itself, too */
        CHECK_INT(lookup(ROOT, both[i]), 0);
        struct vial_fs_attributes wanted = {.access_s = 1000, .access_ns = 5, .modify_s = -7, .modify_ns = 9};
        CHECK_INT(set(entry.node, VIAL_FS_SET_ACCESS_TIME | VIAL_FS_SET_MODIFY_TIME, wanted), 0);
        CHECK(attributes.access_s == 1000 && attributes.access_ns == 5);
        CHECK(attributes.modify_s == -7 && attributes.modify_ns == 9);
        CHECK_INT(set(entry.node, VIAL_FS_SET_MODIFY_NOW, wanted), 0);
        CHECK(attributes.access_s == 1000 && attributes.modify_s > 1000000);
        wanted.access_ns = UTIME_NOW;
        CHECK_INT(set(entry.node, VIAL_FS_SET_ACCESS_TIME, wanted), -EINVAL);
        int result = set(entry.node, VIAL_FS_SET_MODE, (struct vial_fs_attributes){.mode = 0640});
        CHECK_INT(result, i == 0 ? 0 : -EOPNOTSUPP);
        CHECK_INT(set(entry.node, VIAL_FS_SET_SIZE, wanted), i == 0 ? 0 : -EINVAL);
        if (!passthrough_is_privileged())
            continue;
        CHECK_INT(set(entry.node, VIAL_FS_SET_UID, (struct vial_fs_attributes){.uid = 1234, .gid = 77}), 0);
        CHECK(attributes.uid == 1234 && attributes.gid != 77);
        CHECK_INT(set(entry.node, VIAL_FS_SET_GID, (struct vial_fs_attributes){.uid = 77, .gid = 4321}), 0);
        CHECK(attributes.uid == 1234 && attributes.gid == 4321);
        CHECK_INT(set(entry.node, VIAL_FS_SET_UID, (struct vial_fs_attributes){.uid = UINT32_MAX}), -EINVAL);
    }
    CHECK_INT(lookup(ROOT, "a"), 0);
    CHECK_INT(entry.attributes.mode, S_IFREG | 0640);
    CHECK_INT(set(ROOT, VIAL_FS_SET_SIZE, (struct vial_fs_attributes){.size_bytes = 0}), -EISDIR);
    CHECK_INT(set(entry.node, VIAL_FS_SET_SIZE, (struct vial_fs_attributes){.size_bytes = UINT64_MAX}), -EFBIG);
    end();
}

/* ---- listings ---- */

TEST(ten_thousand_names_are_listed_from_any_offset)
{
    enum { count = 10000 };
    static bool seen[count];
    uint64_t handle = 0;
    CHECK_INT(begin(), 0);
    for (int i = 0; i < count; i++) {
        char name[16];
        snprintf(name, sizeof(name), "%d", i);
        CHECK_INT(mknod(below(name), S_IFREG | 0644, 0), 0);
    }
    CHECK_INT(fs.ops.open_folder(fs.user, &fs_root, ROOT, &handle), 0);
    memset(seen, 0, sizeof(seen));
    uint64_t offset = 0, halfway = 0;
    char behind_halfway[32] = "";
    size_t total = 0;
    for (size_t step = 1;; step = step % 97 + 1, offset = names.next_offset) { /* calls of many sizes */
        CHECK_INT(fs_list(ROOT, handle, offset, step, &names), 0);
        if (names.count == 0)
            break;
        if (behind_halfway[0] == '\0' && halfway != 0)
            memcpy(behind_halfway, names.entry[0].name, sizeof(behind_halfway));
        total += names.count;
        if (halfway == 0 && total > count / 2)
            halfway = names.next_offset;
        for (size_t i = 0; i < names.count; i++) {
            if (names.entry[i].name[0] == '.')
                continue;
            int number = (int)strtol(names.entry[i].name, NULL, 10);
            CHECK(!seen[number]);
            seen[number] = true;
        }
    }
    CHECK_INT(total, count + 2);
    CHECK_INT(fs_list(ROOT, handle, halfway, 1, &names), 0); /* back in the middle */
    CHECK_TEXT(names.entry[0].name, behind_halfway);
    CHECK_INT(fs_list(ROOT, handle, 0, 5, &names), 0);
    CHECK_INT(fs_list(ROOT, handle, names.next_offset, 5, &names), 0);
    for (int i = 0; i < count;
         i++) { /* everything goes while it is read: what is left is at most what was read ahead */
        char name[16];
        snprintf(name, sizeof(name), "%d", i);
        CHECK_INT(unlink(below(name)), 0);
    }
    CHECK_INT(fs_list(ROOT, handle, names.next_offset, FS_MOST_NAMES, &names), 0);
    CHECK(names.count < 1000);
    CHECK_INT(fs_list(ROOT, handle, 0, FS_MOST_NAMES, &names), 0); /* rewound: as it is now */
    CHECK_INT(names.count, 2);
    CHECK_INT(fs.ops.sync_folder(fs.user, ROOT, handle, true), 0);
    CHECK_INT(fs_list(ROOT, handle, UINT64_MAX, 5, &names), -EINVAL);
    CHECK_INT(fs.ops.close(fs.user, ROOT, handle), -EBADF); /* a folder's is not a file's */
    CHECK_INT(fs.ops.close_folder(fs.user, ROOT, handle), 0);
    CHECK_INT(fs_list(ROOT, handle, 0, 5, &names), -EBADF);
    end();
}

TEST(the_root_is_its_own_parent)
{
    uint64_t handle = 0;
    CHECK_INT(begin(), 0);
    CHECK_INT(fs.ops.attributes(fs.user, &fs_root, ROOT, NULL, &attributes), 0);
    CHECK_INT(fs.ops.open_folder(fs.user, &fs_root, ROOT, &handle), 0);
    CHECK_INT(fs_list(ROOT, handle, 0, FS_MOST_NAMES, &names), 0);
    CHECK_INT(names.count, 2);
    CHECK(names.entry[0].inode == attributes.inode && names.entry[1].inode == attributes.inode);
    CHECK_INT(fs.ops.open_folder(fs.user, &fs_root, 12345, &handle), -ESTALE);
    test_text_file("share/a", "");
    CHECK_INT(lookup(ROOT, "a"), 0);
    CHECK_INT(fs.ops.open_folder(fs.user, &fs_root, entry.node, &handle), -ENOTDIR);
    end();
}

TEST(a_listing_begins_anew_at_zero)
{
    uint64_t handle = 0;
    CHECK_INT(begin(), 0);
    CHECK_INT(fs.ops.open_folder(fs.user, &fs_root, ROOT, &handle), 0);
    CHECK_INT(fs_list(ROOT, handle, 0, 0, &names), 0); /* reads ahead, and takes nothing */
    test_text_file("share/new", "");
    CHECK_INT(fs_list(ROOT, handle, 0, FS_MOST_NAMES, &names), 0);
    CHECK_INT(names.count, 3);
    end();
}

/* Looks every entry up, as a server does for READDIRPLUS. */
static bool look_up_each(void *sink, const char *name, uint64_t inode, uint32_t type, uint64_t next_offset)
{
    size_t *count = sink;
    (void)type, (void)next_offset;
    if (name[0] == '.')
        return true;
    *count += lookup(ROOT, name) == 0 && entry.attributes.inode == inode;
    return true;
}

TEST(entries_can_be_looked_up_while_they_are_listed)
{
    uint64_t handle = 0;
    size_t count = 0;
    CHECK_INT(begin(), 0);
    for (int i = 0; i < 20; i++) {
        char name[16];
        snprintf(name, sizeof(name), "n%d", i);
        CHECK_INT(fs_write_file(ROOT, name, "x"), 0);
    }
    CHECK_INT(fs.ops.open_folder(fs.user, &fs_root, ROOT, &handle), 0);
    CHECK_INT(fs.ops.read_folder(fs.user, ROOT, handle, 0, look_up_each, &count), 0);
    CHECK_INT(count, 20);
    end();
}

/* ---- extended attributes ---- */

TEST(attributes_pass_by_policy)
{
    for (enum fs_xattrs policy = FS_XATTR_USER; policy <= FS_XATTR_ALL; policy++) {
        char text[256] = "";
        if (policy == FS_XATTR_USER) {
            share = test_make_folder("share");
            test_text_file("share/a", "");
        }
        struct passthrough_options options = {.path = share, .xattrs = policy};
        options.has_owner = !passthrough_is_privileged();
        CHECK_INT(passthrough_new(&options, &fs), 0);
        CHECK_INT(lookup(ROOT, "a"), 0);
        int user = fs.ops.set_xattr(fs.user, &fs_root, entry.node, "user.one", "1", 1, 0);
        int closed = policy == FS_XATTR_NONE ? -ENOSYS : -EOPNOTSUPP; /* -ENOSYS: a guest does not ask again */
        CHECK_INT(user, policy == FS_XATTR_NONE ? -ENOSYS : 0);
        CHECK_INT(fs.ops.set_xattr(fs.user, &fs_root, entry.node, "system.nonsense", "1", 1, 0), closed);
        CHECK_INT(fs.ops.get_xattr(fs.user, &fs_root, entry.node, "system.nonsense", text, sizeof(text)), closed);
        int trusted = fs.ops.set_xattr(fs.user, &fs_root, entry.node, "trusted.two", "2", 1, 0);
        CHECK_INT(trusted, policy != FS_XATTR_ALL ? closed : options.has_owner ? -EPERM : 0);
        ssize_t length = fs.ops.list_xattr(fs.user, &fs_root, entry.node, text, sizeof(text));
        if (policy == FS_XATTR_USER)
            CHECK(length == 9 && strcmp(text, "user.one") == 0);
        if (policy == FS_XATTR_ALL && !options.has_owner)
            CHECK_INT(length, 9 + 12);
        end();
    }
}

TEST(attributes_are_set_read_and_removed)
{
    static char big[(64 << 10) + 1];
    char text[64] = "";
    CHECK_INT(begin(), 0);
    test_text_file("share/a", "");
    CHECK_INT(lookup(ROOT, "a"), 0);
    uint64_t node = entry.node;
    CHECK_INT(fs.ops.set_xattr(fs.user, &fs_root, node, "user.k", "value", 5, 0), 0);
    CHECK_INT(fs.ops.set_xattr(fs.user, &fs_root, node, "user.k", "value", 5, XATTR_CREATE), -EEXIST);
    CHECK_INT(fs.ops.set_xattr(fs.user, &fs_root, node, "user.k", "value", 5, 8), -EINVAL);
    CHECK_INT(fs.ops.set_xattr(fs.user, &fs_root, node, "user.k", big, sizeof(big), 0), -E2BIG);
    CHECK_INT(fs.ops.get_xattr(fs.user, &fs_root, node, "user.k", text, 0), 5);
    CHECK_INT(fs.ops.get_xattr(fs.user, &fs_root, node, "user.k", text, 4), -ERANGE);
    CHECK_INT(fs.ops.get_xattr(fs.user, &fs_root, node, "user.k", text, sizeof(text)), 5);
    CHECK_TEXT(text, "value");
    CHECK_INT(fs.ops.list_xattr(fs.user, &fs_root, node, text, 3), -ERANGE);
    CHECK_INT(fs.ops.list_xattr(fs.user, &fs_root, node, text, 0), 7);
    CHECK_INT(fs.ops.remove_xattr(fs.user, &fs_root, node, "user.k"), 0);
    CHECK_INT(fs.ops.remove_xattr(fs.user, &fs_root, node, "user.k"), -ENODATA);
    CHECK_INT(symlink("a", below("l")), 0);
    CHECK_INT(lookup(ROOT, "l"), 0);
    CHECK_INT(fs.ops.set_xattr(fs.user, &fs_root, entry.node, "user.k", "value", 5, 0), -EPERM); /* not the target's */
    CHECK_INT(fs.ops.get_xattr(fs.user, &fs_root, node, "user.k", text, sizeof(text)), -ENODATA);
    memset(big, 'n', 300);
    memcpy(big, "user.", 5);
    CHECK_INT(fs.ops.get_xattr(fs.user, &fs_root, node, big, text, sizeof(text)), -ERANGE);
    end();
}
