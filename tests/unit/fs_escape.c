// SPDX-License-Identifier: Apache-2.0
/* Tests of what a guest must not reach through the passthrough backend: anything outside the shared folder, whatever
 * names it sends and whatever the host renames meanwhile; devices, FIFOs and sockets; the host's kernel. */
#include "test.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fd.h"
#include "device/fs/passthrough.h"
#include "fs_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

static const char *outside;

/* Beside the shared folder lies another one, with a canary in it. */
static int begin_beside(uint32_t most_descriptors)
{
    outside = test_make_folder("outside");
    test_text_file("outside/canary", "outside");
    return begin_with((struct passthrough_options){.most_descriptors = most_descriptors});
}

static bool outside_is_untouched(void)
{
    char path[8192], text[16] = "";
    snprintf(path, sizeof(path), "%s/canary", outside);
    auto_close int fd = open(path, O_RDONLY);
    struct stat status;
    return fd >= 0 && read(fd, text, sizeof(text)) == 7 && memcmp(text, "outside", 7) == 0 &&
           stat(outside, &status) == 0 && status.st_nlink == 2 && fstat(fd, &status) == 0 && status.st_nlink == 1 &&
           (status.st_mode & 07777) == 0644;
}

/* ---- names ---- */

TEST(names_are_one_component)
{
    static const char *const bad[] = {"", ".", "..", "/", "a/b", "../outside", "/etc", "d/../..", "./d", "d/"};
    char too_long[300];
    uint64_t handle = 0;
    memset(too_long, 'a', sizeof(too_long) - 1);
    too_long[sizeof(too_long) - 1] = '\0';
    CHECK_INT(begin_beside(0), 0);
    CHECK_INT(mkdir(below("d"), 0755), 0);
    CHECK_INT(lookup(ROOT, "d"), 0);
    uint64_t node = entry.node;
    for (size_t i = 0; i <= array_length(bad); i++) {
        const char *name = i < array_length(bad) ? bad[i] : too_long;
        const int results[] = {
            lookup(ROOT, name),
            lookup(node, name),
            fs.ops.make_link(fs.user, &fs_root, node, name, "x", &other),
            fs.ops.make_folder(fs.user, &fs_root, node, name, 0755, &other),
            fs.ops.make_node(fs.user, &fs_root, node, name, S_IFREG | 0644, 0, &other),
            fs.ops.create(fs.user, &fs_root, node, name, 0644, O_RDWR, &other, &handle),
            fs.ops.unlink(fs.user, &fs_root, node, name),
            fs.ops.remove_folder(fs.user, &fs_root, node, name),
            fs.ops.rename(fs.user, &fs_root, node, name, ROOT, "x", 0),
            fs.ops.rename(fs.user, &fs_root, ROOT, "d", node, name, 0),
            fs.ops.hard_link(fs.user, &fs_root, node, node, name, &other),
        };
        for (size_t j = 0; j < array_length(results); j++)
            CHECK_INT(results[j], name == too_long ? -ENAMETOOLONG : -EINVAL);
    }
    CHECK_TEXT(fs_list_text(ROOT), "d ");
    CHECK_TEXT(fs_list_text(node), "");
    CHECK(outside_is_untouched());
    end();
}

TEST(forged_numbers_lead_nowhere)
{
    static const uint64_t forged[] = {0, 2, 77, UINT32_MAX, UINT64_MAX, UINT64_C(1) << 63};
    char text[8];
    uint64_t handle = 0;
    struct iovec part = {text, sizeof(text)};
    CHECK_INT(begin_beside(0), 0);
    for (size_t i = 0; i < array_length(forged); i++) {
        uint64_t node = forged[i];
        CHECK_INT(lookup(node, "x"), -ESTALE);
        CHECK_INT(fs.ops.open(fs.user, &fs_root, node, O_RDONLY, &handle), -ESTALE);
        CHECK_INT(fs.ops.read(fs.user, node, node, &part, 1, 0), -EBADF);
        CHECK_INT(fs.ops.write(fs.user, ROOT, node, &part, 1, 0, 0), -EBADF);
        CHECK_INT(fs.ops.close_folder(fs.user, ROOT, node), -EBADF);
        CHECK_INT(fs.ops.unlink(fs.user, &fs_root, node, "x"), -ESTALE);
        CHECK_INT(fs.ops.get_xattr(fs.user, &fs_root, node, "user.x", text, 1), -ESTALE);
        fs.ops.forget(fs.user, node, 5);
    }
    end();
}

TEST(links_are_never_followed)
{
    static const char *const targets[] = {"../outside", "../outside/canary", "d"};
    char absolute[8192], text[64];
    uint64_t handle = 0;
    CHECK_INT(begin_beside(0), 0);
    CHECK_INT(mkdir(below("d"), 0755), 0);
    snprintf(absolute, sizeof(absolute), "%s/canary", outside);
    for (size_t i = 0; i <= array_length(targets); i++) {
        const char *target = i < array_length(targets) ? targets[i] : absolute;
        CHECK_INT(symlink(target, below("link")), 0);
        CHECK_INT(lookup(ROOT, "link"), 0);
        CHECK_INT(entry.attributes.mode & S_IFMT, S_IFLNK);
        uint64_t link = entry.node;
        int fd = -1;
        CHECK_INT(lookup(link, "canary"), -ENOTDIR);
        CHECK_INT(fs.ops.open(fs.user, &fs_root, link, O_RDONLY, &handle), -ELOOP);
        CHECK_INT(fs.ops.map(fs.user, &fs_root, link, true, &fd), -ELOOP);
        CHECK_INT(fs.ops.open_folder(fs.user, &fs_root, link, &handle), -ENOTDIR);
        CHECK_INT(fs.ops.create(fs.user, &fs_root, ROOT, "link", 0644, O_RDWR | O_TRUNC, &other, &handle), -ELOOP);
        CHECK_INT(fs.ops.create(fs.user, &fs_root, link, "made", 0644, O_RDWR, &other, &handle), -ENOTDIR);
        CHECK_INT(fs.ops.make_folder(fs.user, &fs_root, ROOT, "link", 0755, &other), -EEXIST);
        CHECK_INT(fs.ops.make_node(fs.user, &fs_root, ROOT, "link", S_IFREG, 0, &other), -EEXIST);
        CHECK_INT(fs.ops.unlink(fs.user, &fs_root, link, "canary"), -ENOTDIR);
        CHECK_INT(fs.ops.rename(fs.user, &fs_root, link, "canary", ROOT, "stolen", 0), -ENOTDIR);
        struct vial_fs_attributes wanted = {.mode = 0777, .size_bytes = 0, .uid = 7, .gid = 7};
        CHECK(fs.ops.set_attributes(fs.user, &fs_root, link, NULL, VIAL_FS_SET_MODE, &wanted, &attributes) < 0);
        CHECK(fs.ops.set_attributes(fs.user, &fs_root, link, NULL, VIAL_FS_SET_SIZE, &wanted, &attributes) < 0);
        CHECK(fs.ops.set_xattr(fs.user, &fs_root, link, "user.x", "x", 1, 0) < 0);
        CHECK_INT(fs.ops.hard_link(fs.user, &fs_root, link, ROOT, "hard", &other), 0); /* of the link itself */
        CHECK_INT(other.node, link);
        CHECK_INT(fs.ops.read_link(fs.user, &fs_root, link, text, 1), 1);
        CHECK_INT(fs.ops.unlink(fs.user, &fs_root, ROOT, "hard"), 0);
        CHECK_INT(fs.ops.unlink(fs.user, &fs_root, ROOT, "link"), 0);
    }
    CHECK(outside_is_untouched());
    end();
}

/* ---- races with the host ---- */

static _Atomic bool is_over;
static _Atomic unsigned exchanges;

/* Exchanges share/one and share/two until the test is over. */
static void *exchange(void *user)
{
    char one[8192], two[8192];
    (void)user;
    snprintf(one, sizeof(one), "%s/one", share);
    snprintf(two, sizeof(two), "%s/two", share);
    while (!is_over)
        exchanges += renameat2(AT_FDCWD, one, AT_FDCWD, two, RENAME_EXCHANGE) == 0;
    return NULL;
}

/* One round of everything, against a name that is a folder in one moment and a link to outside in the next. */
static const char *attack(unsigned *met)
{
    char text[16] = "";
    uint64_t handle = 0;
    struct vial_fs_entry folder, file;
    if (fs.ops.lookup(fs.user, &fs_root, ROOT, "one", &folder) < 0)
        return "the name is always there";
    bool is_folder = S_ISDIR(folder.attributes.mode);
    met[is_folder]++;
    int result = fs.ops.lookup(fs.user, &fs_root, folder.node, "canary", &file);
    if (!is_folder && result != -ENOTDIR && result != -ESTALE)
        return "a link has no names in it";
    if (result == 0) {
        ssize_t length = fs_read_node(file.node, text, sizeof(text));
        fs.ops.forget(fs.user, file.node, 1);
        if (length >= 0 && strcmp(text, "inside") != 0)
            return "read outside";
    }
    if (fs.ops.create(fs.user, &fs_root, folder.node, "made", 0644, O_RDWR | O_TRUNC, &file, &handle) == 0) {
        fs.ops.close(fs.user, file.node, handle);
        fs.ops.forget(fs.user, file.node, 1);
    }
    if (fs.ops.create(fs.user, &fs_root, ROOT, "one", 0644, O_RDWR | O_TRUNC, &file, &handle) == 0)
        return "created over a folder";
    if (fs.ops.make_folder(fs.user, &fs_root, folder.node, "sub", 0755, &file) == 0)
        fs.ops.forget(fs.user, file.node, 1);
    (void)fs.ops.rename(fs.user, &fs_root, folder.node, "made", folder.node, "canary2", 0);
    (void)fs.ops.unlink(fs.user, &fs_root, folder.node, "canary2");
    (void)fs.ops.remove_folder(fs.user, &fs_root, folder.node, "sub");
    struct vial_fs_attributes wanted = {.mode = 0700};
    (void)fs.ops.set_attributes(fs.user, &fs_root, folder.node, NULL, VIAL_FS_SET_MODE, &wanted, &attributes);
    if (fs.ops.open_folder(fs.user, &fs_root, folder.node, &handle) == 0)
        fs.ops.close_folder(fs.user, folder.node, handle);
    fs.ops.forget(fs.user, folder.node, 1);
    return NULL;
}

static const char *attack_for_a_second(unsigned *met)
{
    pthread_t thread;
    const char *failure = NULL;
    is_over = false;
    exchanges = 0;
    if (pthread_create(&thread, NULL, exchange, NULL) != 0)
        return "no thread";
    uint64_t deadline_ns = clock_now_ns() + CLOCK_NS_PER_S;
    while (failure == NULL && clock_now_ns() < deadline_ns)
        failure = attack(met);
    is_over = true;
    pthread_join(thread, NULL);
    return failure;
}

TEST(a_folder_that_becomes_a_link_leads_nowhere)
{
    static const uint32_t budgets[] = {0, 1}; /* with one, every node is opened again and again */
    for (size_t i = 0; i < array_length(budgets); i++) {
        unsigned met[2] = {0, 0};
        if (i == 0) {
            CHECK_INT(begin_beside(budgets[i]), 0);
            test_text_file("share/one/canary", "inside");
            CHECK_INT(symlink(outside, below("two")), 0);
        } else {
            struct passthrough_options options = {.path = share, .most_descriptors = budgets[i]};
            options.has_owner = !passthrough_is_privileged();
            CHECK_INT(passthrough_new(&options, &fs), 0);
        }
        const char *failure = attack_for_a_second(met);
        CHECK_TEXT(failure != NULL ? failure : "", "");
        CHECK(outside_is_untouched());
        CHECK(exchanges > 100 && met[0] > 10 && met[1] > 10); /* otherwise nothing was shown */
        end();
    }
}

TEST(a_folder_that_is_moved_out_shows_only_itself)
{
    char moved[8192];
    CHECK_INT(begin_beside(0), 0);
    test_text_file("share/d/inside", "inside");
    CHECK_INT(lookup(ROOT, "d"), 0);
    uint64_t folder = entry.node;
    snprintf(moved, sizeof(moved), "%s/moved", outside);
    CHECK_INT(rename(below("d"), moved), 0);
    CHECK_INT(lookup(folder, "inside"), 0); /* like any folder that is held open */
    CHECK_INT(lookup(folder, ".."), -EINVAL);
    CHECK_INT(lookup(folder, "canary"), -ENOENT);
    CHECK_INT(fs.ops.rename(fs.user, &fs_root, folder, "inside", folder, "../canary", 0), -EINVAL);
    CHECK_INT(rename(moved, below("d")), 0);
    CHECK(outside_is_untouched());
    end();
}

TEST(a_node_is_not_opened_again_through_a_link)
{
    char moved[8192], text[16];
    CHECK_INT(begin_beside(1), 0);
    test_text_file("share/d/e/inside", "inside");
    CHECK_INT(fs_walk("d/e/inside", &entry), 0);
    CHECK_INT(mkdir(below("f"), 0755), 0);
    CHECK_INT(fs.ops.lookup(fs.user, &fs_root, ROOT, "f", &other), 0); /* takes the one descriptor */
    snprintf(moved, sizeof(moved), "%s/moved", outside);
    CHECK_INT(rename(below("d"), moved), 0);
    CHECK_INT(symlink(moved, below("d")), 0); /* the very same file, but outside */
    CHECK_INT(fs_read_node(entry.node, text, sizeof(text)), -ESTALE);
    CHECK_INT(unlink(below("d")), 0);
    CHECK_INT(rename(moved, below("d")), 0);
    CHECK_INT(fs_read_node(entry.node, text, sizeof(text)), 6);
    end();
}

/* ---- what is never opened ---- */

TEST(devices_fifos_and_sockets_are_shown_but_not_opened)
{
    static const char *const names[] = {"fifo", "socket", "device"};
    CHECK_INT(begin_beside(0), 0);
    CHECK_INT(mkfifo(below("fifo"), 0666), 0);
    CHECK_INT(fs.ops.make_node(fs.user, &fs_root, ROOT, "socket", S_IFSOCK | 0666, 0, &entry), 0);
    bool has_device = mknod(below("device"), S_IFCHR | 0666, makedev(1, 3)) == 0;
    alarm(20); /* to open a FIFO would wait for a writer */
    for (size_t i = 0; i < array_length(names) - !has_device; i++) {
        uint64_t handle = 0;
        int fd = -1;
        CHECK_INT(lookup(ROOT, names[i]), 0);
        CHECK(!S_ISREG(entry.attributes.mode));
        CHECK_INT(fs.ops.open(fs.user, &fs_root, entry.node, O_RDONLY, &handle), -ENXIO);
        CHECK_INT(fs.ops.open(fs.user, &fs_root, entry.node, O_RDWR | O_TRUNC, &handle), -ENXIO);
        CHECK_INT(fs.ops.map(fs.user, &fs_root, entry.node, true, &fd), -ENXIO);
        CHECK_INT(fs.ops.create(fs.user, &fs_root, ROOT, names[i], 0644, O_RDWR, &other, &handle), -ENXIO);
        struct vial_fs_attributes wanted = {.mode = 0600};
        CHECK_INT(fs.ops.set_attributes(fs.user, &fs_root, entry.node, NULL, VIAL_FS_SET_SIZE, &wanted, &attributes),
                  -EINVAL);
        CHECK_INT(fs.ops.set_attributes(fs.user, &fs_root, entry.node, NULL, VIAL_FS_SET_MODE, &wanted, &attributes),
                  0);
        CHECK_INT(attributes.mode & 07777, 0600);
        CHECK_INT(fs.ops.rename(fs.user, &fs_root, ROOT, names[i], ROOT, "moved", 0), 0);
        CHECK_INT(fs.ops.unlink(fs.user, &fs_root, ROOT, "moved"), 0);
    }
    alarm(0);
    CHECK_INT(fs.ops.make_node(fs.user, &fs_root, ROOT, "c", S_IFCHR | 0666, (uint32_t)makedev(1, 3), &entry), -EPERM);
    CHECK_INT(fs.ops.make_node(fs.user, &fs_root, ROOT, "b", S_IFBLK | 0666, (uint32_t)makedev(8, 0), &entry), -EPERM);
    CHECK_INT(fs.ops.make_node(fs.user, &fs_root, ROOT, "d", S_IFDIR | 0666, 0, &entry), -EINVAL);
    end();
}

TEST(a_file_that_becomes_a_fifo_is_not_waited_for)
{
    CHECK_INT(begin_beside(0), 0);
    test_text_file("share/one", "text");
    CHECK_INT(mkfifo(below("two"), 0666), 0);
    pthread_t thread;
    is_over = false;
    exchanges = 0;
    CHECK_INT(pthread_create(&thread, NULL, exchange, NULL), 0);
    alarm(20);
    unsigned met[2] = {0, 0};
    uint64_t deadline_ns = clock_now_ns() + CLOCK_NS_PER_S / 2;
    while (clock_now_ns() < deadline_ns) {
        uint64_t handle = 0;
        int result = fs.ops.create(fs.user, &fs_root, ROOT, "one", 0644, O_RDWR, &entry, &handle);
        met[result == 0]++;
        if (result == 0) {
            fs.ops.close(fs.user, entry.node, handle);
            fs.ops.forget(fs.user, entry.node, 1);
        }
    }
    alarm(0);
    is_over = true;
    pthread_join(thread, NULL);
    CHECK(met[0] > 10 && met[1] > 10);
    end();
}

/* ---- other file systems below ---- */

/* What fstatfs says of any descriptor, if it is not 0: not every host's kernel has all file systems. */
int __real_fstatfs64(int fd, struct statfs *ret_status);
int __wrap_fstatfs64(int fd, struct statfs *ret_status);
static uint32_t pretended_type;

int __wrap_fstatfs64(int fd, struct statfs *ret_status)
{
    int result = __real_fstatfs64(fd, ret_status);
    if (result == 0 && pretended_type != 0)
        ret_status->f_type = pretended_type;
    return result;
}

TEST(levers_of_the_hosts_kernel_are_no_files)
{
    static const uint32_t closed[] = {PROC_SUPER_MAGIC, SYSFS_MAGIC, 0x6e667364 /* nfsd */,
                                      0x67596969 /* rpc_pipefs */};
    struct fs_backend none;
    struct passthrough_options options = {.path = test_folder(), .has_owner = !passthrough_is_privileged()};
    for (size_t i = 0; i < array_length(closed); i++) {
        auto_close int fd = open(test_folder(), O_PATH | O_CLOEXEC);
        CHECK(passthrough_is_for_guests(fd));
        pretended_type = closed[i];
        bool is_for_guests = passthrough_is_for_guests(fd);
        pretended_type = 0;
        CHECK(!is_for_guests);
    }
    CHECK_INT(passthrough_new(&options, &none), 0);
    fs_backend_release(&none);
}

static int look_at_mounts(void)
{
    char value[8];
    struct passthrough_options options = {.path = share};
    MUST(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    MUST(mount("proc", below("proc"), "proc", 0, NULL) == 0);
    MUST(mount("sysfs", below("sys"), "sysfs", 0, NULL) == 0);
    MUST(mount("tmpfs", below("tmp"), "tmpfs", 0, NULL) == 0);
    MUST(mount("ramfs", below("ram"), "ramfs", 0, NULL) == 0);
    MUST(mount("/proc/self", below("bound"), NULL, MS_BIND, NULL) == 0);
    MUST(passthrough_new(&options, &fs) == 0);
    MUST(lookup(ROOT, "proc") == -EACCES);
    MUST(lookup(ROOT, "sys") == -EACCES);
    MUST(lookup(ROOT, "bound") == -EACCES);
    /* A file system that has no ACLs: any other error, and the guest's kernel would keep all but the owner out. */
    MUST(lookup(ROOT, "ram") == 0);
    MUST(fs.ops.get_xattr(fs.user, &fs_root, entry.node, "system.posix_acl_access", value, sizeof(value)) == -ENODATA);
    MUST(fs.ops.get_xattr(fs.user, &fs_root, entry.node, "user.x", value, sizeof(value)) == -EOPNOTSUPP);
    MUST(lookup(ROOT, "tmp") == 0);
    MUST(fs_write_file(entry.node, "a", "on the tmpfs") == 0);
    MUST(fs.ops.rename(fs.user, &fs_root, entry.node, "a", ROOT, "a", 0) == -EXDEV);
    end();
    options.one_device = true;
    MUST(passthrough_new(&options, &fs) == 0);
    MUST(lookup(ROOT, "proc") == -ENOENT && lookup(ROOT, "tmp") == -ENOENT);
    MUST(lookup(ROOT, "plain") == 0);
    MUST(strcmp(fs_list_text(ROOT), "plain ") == 0);
    end();
    options.path = "/proc";
    MUST(passthrough_new(&options, &fs) == -EACCES);
    return 0;
}

TEST(the_hosts_kernel_is_closed)
{
    static const char *const folders[] = {"share/proc", "share/sys",   "share/tmp",
                                          "share/ram",  "share/bound", "share/plain"};
    if (!passthrough_is_privileged())
        TEST_SKIP("only root can mount");
    for (size_t i = 0; i < array_length(folders); i++)
        (void)test_make_folder(folders[i]);
    static char path[4096];
    snprintf(path, sizeof(path), "%s/share", test_folder());
    share = path;
    CHECK_INT(in_child(look_at_mounts), 0);
}
