// SPDX-License-Identifier: Apache-2.0
/* Tests of whose the files of a shared folder are, what others of the host may get from them, and what is public. */
#include "test.h"

#include "base/alloc.h"
#include "fs_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/* ---- owners ---- */

static int work_as_mapped_owner(void)
{
    uint64_t handle = 0;
    struct passthrough_options options = {.path = share};
    MUST(!passthrough_is_privileged());
    MUST(passthrough_new(&options, &fs) == -EPERM);
    options.has_owner = true;
    options.owner_uid = 1000;
    options.owner_gid = 1001;
    MUST(passthrough_new(&options, &fs) == 0);
    struct vial_fs_caller caller = {.uid = 5, .gid = 6, .umask = 022};
    MUST(fs.ops.create(fs.user, &caller, ROOT, "mine", 0444, O_RDWR | O_EXCL, &entry, &handle) == 0);
    MUST(entry.attributes.uid == 1000 && entry.attributes.gid == 1001);
    MUST(write_at(entry.node, handle, "through the handle", 0, 0) == 18);
    MUST(fs.ops.close(fs.user, entry.node, handle) == 0);
    MUST(set(entry.node, VIAL_FS_SET_UID | VIAL_FS_SET_GID, (struct vial_fs_attributes){.uid = 1000, .gid = 1001}) ==
         0);
    MUST(set(entry.node, VIAL_FS_SET_UID, (struct vial_fs_attributes){.uid = 1002}) == -EPERM);
    MUST(set(entry.node, VIAL_FS_SET_MODE, (struct vial_fs_attributes){.mode = 0644}) == 0);
    MUST(fs.ops.hard_link(fs.user, &caller, entry.node, ROOT, "again", &other) == 0 && other.node == entry.node);
    struct stat status;
    MUST(stat(below("mine"), &status) == 0 && status.st_uid == getuid());
    MUST(lookup(ROOT, "roots") == 0);
    MUST(entry.attributes.uid == (getuid() == 65534 ? 65534 : 1000)); /* another's on the host is nobody's */
    MUST(fs.ops.open(fs.user, &caller, entry.node, O_RDONLY, &handle) == -EACCES);
    MUST(fs.ops.set_xattr(fs.user, &caller, entry.node, "system.posix_acl_access", "x", 1, 0) == -EOPNOTSUPP);
    MUST(fs.ops.make_folder(fs.user, &caller, ROOT, "d", 0755, &entry) == 0);
    MUST(fs.ops.make_link(fs.user, &caller, entry.node, "l", "x", &other) == 0);
    MUST(fs.ops.rename(fs.user, &caller, entry.node, "l", ROOT, "l", 0) == 0);
    MUST(fs.ops.remove_folder(fs.user, &caller, ROOT, "d") == 0);
    MUST(strcmp(fs_list_text(ROOT), "again l mine roots ") == 0);
    end();
    return 0;
}

TEST(an_ordinary_user_shares_as_one_owner)
{
    share = test_make_folder("share");
    CHECK_INT(chmod(test_folder(), 0711), 0);
    CHECK_INT(chmod(share, 0777), 0);
    test_text_file("share/roots", "");
    CHECK_INT(chmod(below("roots"), 0600), 0);
    if (getuid() != 0)
        TEST_SKIP("only root can become somebody else");
    CHECK_INT(as_ordinary_user(work_as_mapped_owner), 0);
}

TEST(with_privileges_files_belong_to_who_made_them)
{
    if (!passthrough_is_privileged())
        TEST_SKIP("only root can make files for others");
    uint64_t handle = 0;
    struct vial_fs_caller caller = {.uid = 1234, .gid = 4321, .umask = 0};
    CHECK_INT(begin(), 0);
    CHECK_INT(chmod(share, 0700), 0); /* the guest's kernel has checked; ours must not say no */
    CHECK_INT(fs.ops.create(fs.user, &caller, ROOT, "a", 0600, O_RDWR | O_EXCL, &entry, &handle), 0);
    CHECK(entry.attributes.uid == 1234 && entry.attributes.gid == 4321);
    CHECK_INT(fs.ops.make_folder(fs.user, &caller, ROOT, "d", 0700, &entry), 0);
    CHECK(entry.attributes.uid == 1234 && entry.attributes.gid == 4321);
    uint64_t folder = entry.node;
    CHECK_INT(fs.ops.make_link(fs.user, &caller, folder, "l", "x", &entry), 0);
    CHECK(entry.attributes.uid == 1234 && entry.attributes.gid == 4321);
    CHECK_INT(fs.ops.make_node(fs.user, &caller, folder, "p", S_IFIFO | 0600, 0, &entry), 0);
    CHECK(entry.attributes.uid == 1234 && entry.attributes.gid == 4321);
    caller.uid = UINT32_MAX;
    CHECK_INT(fs.ops.make_folder(fs.user, &caller, ROOT, "e", 0700, &entry), -EINVAL);
    CHECK_INT(mkdir(below("ours"), 0700), 0); /* the thread is itself again */
    struct stat status;
    CHECK(stat(below("ours"), &status) == 0 && status.st_uid == geteuid() && status.st_gid == getegid());
    CHECK(passthrough_is_privileged());
    end();
}

TEST(set_id_bits_are_kept_only_where_nobody_else_comes)
{
    uint64_t handle = 0;
    const struct vial_fs_attributes wanted = {.mode = 06755};
    CHECK_INT(begin(), 0); /* below a scratch folder of mode 0700 */
    CHECK_INT(create(ROOT, "a", 04755, O_RDWR | O_EXCL, &handle), 0);
    CHECK_INT(entry.attributes.mode, S_IFREG | 04755);
    CHECK_INT(set(entry.node, VIAL_FS_SET_MODE, wanted), 0);
    CHECK_INT(attributes.mode, S_IFREG | 06755);
    CHECK_INT(write_at(entry.node, handle, "x", 0, VIAL_FS_WRITE_KILL_IDS), 1);
    CHECK_INT(fs.ops.attributes(fs.user, &fs_root, entry.node, NULL, &attributes), 0);
    CHECK_INT(attributes.mode, S_IFREG | 0755);
    CHECK_INT(set(entry.node, VIAL_FS_SET_MODE, wanted), 0);
    CHECK_INT(set(entry.node, VIAL_FS_SET_SIZE | VIAL_FS_SET_KILL_IDS, wanted), 0);
    CHECK_INT(attributes.mode, S_IFREG | 0755);
    CHECK_INT(set(entry.node, VIAL_FS_SET_MODE, wanted), 0);
    CHECK_INT(fs.ops.close(fs.user, entry.node, handle), 0);
    CHECK_INT(fs.ops.open(fs.user, &fs_root, entry.node, O_WRONLY | O_TRUNC, &handle), 0);
    CHECK_INT(fs.ops.attributes(fs.user, &fs_root, entry.node, NULL, &attributes), 0);
    CHECK_INT(attributes.mode, S_IFREG | 0755);
    end();
    CHECK_INT(chmod(test_folder(), 0755), 0); /* now the way is open to all, */
    CHECK_INT(chmod(share, 0700), 0);         /* or would be, should the guest want it */
    struct passthrough_options options = {.path = share, .has_owner = !passthrough_is_privileged()};
    options.xattrs = FS_XATTR_ALL;
    CHECK_INT(passthrough_new(&options, &fs), 0);
    CHECK_INT(create(ROOT, "b", 06755, O_RDWR | O_EXCL, &handle), 0);
    CHECK_INT(entry.attributes.mode, S_IFREG | 0755);
    CHECK_INT(set(entry.node, VIAL_FS_SET_MODE, wanted), 0);
    CHECK_INT(attributes.mode, S_IFREG | 0755);
    CHECK_INT(fs.ops.set_xattr(fs.user, &fs_root, entry.node, "security.capability", "x", 1, 0), -EPERM);
    CHECK_INT(set(ROOT, VIAL_FS_SET_MODE, (struct vial_fs_attributes){.mode = 02755}), 0);
    CHECK_INT(attributes.mode, S_IFDIR | 02755); /* a folder's is no right */
    end();
}

/* A file of the host that gives rights to who runs it, looked up; whether it could have capabilities, too. */
static bool find_powerful(const char *name)
{
    static const uint8_t capability[20] = {[3] = 2, [4] = 1}; /* linux/capability.h, revision 2: CAP_CHOWN, permitted */
    char path[64];
    snprintf(path, sizeof(path), "share/%s", name);
    test_text_file(path, "contents");
    bool has_capability = setxattr(below(name), "security.capability", capability, sizeof(capability), 0) == 0;
    if (chmod(below(name), 06755) < 0 || lookup(ROOT, name) < 0)
        abort();
    return has_capability;
}

/* Whether it still gives them. */
static bool is_powerful(const char *name)
{
    struct stat status;
    return stat(below(name), &status) < 0 || (status.st_mode & 06000) != 0 ||
           getxattr(below(name), "security.capability", NULL, 0) >= 0;
}

TEST(contents_that_a_guest_changes_give_no_rights)
{
    uint64_t handle = 0;
    int fd = -1;
    CHECK_INT(begin(), 0); /* nobody else comes here: as the guest's kernel wants it */
    bool has_capabilities = find_powerful("private");
    CHECK_INT(fs.ops.open(fs.user, &fs_root, entry.node, O_RDWR, &handle), 0);
    CHECK(is_powerful("private"));
    end();
    CHECK_INT(chmod(test_folder(), 0755), 0);
    struct passthrough_options options = {.path = share, .has_owner = !passthrough_is_privileged()};
    CHECK_INT(passthrough_new(&options, &fs), 0);
    find_powerful("read");
    CHECK_INT(fs.ops.open(fs.user, &fs_root, entry.node, O_RDONLY, &handle), 0);
    CHECK_INT(fs.ops.map(fs.user, &fs_root, entry.node, false, &fd), 0);
    close(fd);
    CHECK(is_powerful("read"));
    CHECK_INT(fs.ops.map(fs.user, &fs_root, entry.node, true, &fd), 0);
    close(fd);
    CHECK(!is_powerful("read"));
    find_powerful("opened");
    CHECK_INT(fs.ops.open(fs.user, &fs_root, entry.node, O_WRONLY, &handle), 0);
    CHECK(!is_powerful("opened"));
    find_powerful("created");
    CHECK_INT(create(ROOT, "created", 0644, O_RDWR, &handle), 0);
    CHECK(!is_powerful("created"));
    find_powerful("cut");
    CHECK_INT(set(entry.node, VIAL_FS_SET_SIZE, (struct vial_fs_attributes){.size_bytes = 1}), 0);
    CHECK_INT(attributes.mode, S_IFREG | 0755);
    CHECK(!is_powerful("cut"));
    end();
    if (!has_capabilities)
        printf("# without file capabilities, which cannot be given here\n");
}

/* ---- what is public ---- */

static int look_at_what_is_public(void)
{
    char text[32];
    struct passthrough_options options = {.path = share, .only_public = true, .xattrs = FS_XATTR_ALL};
    options.has_owner = !passthrough_is_privileged();
    MUST(passthrough_new(&options, &fs) == 0);
    MUST(strcmp(fs_list_text(ROOT), "link open readable ") == 0);
    static const char *const hidden[] = {"secret", "closed", "half", "fifo"};
    for (size_t i = 0; i < array_length(hidden); i++)
        MUST(lookup(ROOT, hidden[i]) == -ENOENT);
    MUST(fs_read_file("open/inside", text, sizeof(text)) == 6);
    uint64_t handle = 0;
    MUST(lookup(ROOT, "readable") == 0);
    MUST(fs.ops.open(fs.user, &fs_root, entry.node, O_RDWR, &handle) == -EROFS);
    MUST(create(ROOT, "new", 0644, O_RDWR, &handle) == -EROFS);
    MUST(chmod(below("readable"), 0640) == 0); /* not public any more */
    MUST(fs.ops.open(fs.user, &fs_root, entry.node, O_RDONLY, &handle) == -EACCES);
    int fd = -1;
    MUST(fs.ops.map(fs.user, &fs_root, entry.node, false, &fd) == -EACCES);
    MUST(fs.ops.get_xattr(fs.user, &fs_root, entry.node, "security.selinux", text, 8) == -EOPNOTSUPP);
    end();
    return 0;
}

TEST(only_what_is_public_is_there)
{
    share = test_make_folder("share");
    test_text_file("share/readable", "");
    test_text_file("share/secret", "");
    test_text_file("share/open/inside", "public");
    test_text_file("share/closed/inside", "");
    test_text_file("share/half/inside", "");
    CHECK_INT(chmod(below("secret"), 0640), 0);
    CHECK_INT(chmod(below("closed"), 0750), 0);
    CHECK_INT(chmod(below("half"), 0754), 0); /* its names could be read, but nothing in it */
    CHECK_INT(mkfifo(below("fifo"), 0666), 0);
    CHECK_INT(symlink("secret", below("link")), 0);
    CHECK_INT(look_at_what_is_public(), 0);
}
