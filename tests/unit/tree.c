// SPDX-License-Identifier: Apache-2.0
/* Tests of trees as streams: nasty trees arrive as they were, hostile streams reach nothing outside. */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "proto/cbor.h"
#include "proto/tree_links.h"
#include "proto/tree_record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static struct tree_failure failure;
static struct tree_counts read_counts, written_counts;

/* ---- streams ---- */

static int open_scratch(void)
{
    return open(test_folder(), O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* Moves the tree in pieces of that size, and from one buffer of exactly that size into another. */
static int pump(struct tree_reader *reader, struct tree_writer *writer, size_t piece)
{
    auto_free uint8_t *bytes = malloc(piece);
    for (;;) {
        long got = tree_reader_next(reader, bytes, piece, &failure);
        if (got < 0)
            return (int)got;
        if (got == 0)
            return tree_writer_end(writer, &failure);
        int result = tree_writer_add(writer, bytes, (size_t)got, &failure);
        if (result < 0)
            return result;
    }
}

static int copy(const char *from, const char *to, uint32_t flags, size_t piece)
{
    auto_close int scratch = open_scratch();
    struct tree_reader *reader = NULL;
    struct tree_writer *writer = NULL;
    int result = tree_reader_new(scratch, from, &reader);
    if (result == 0)
        result = tree_writer_new(scratch, to, flags, &writer);
    if (result == 0)
        result = pump(reader, writer, piece);
    if (reader != NULL)
        tree_reader_counts(reader, &read_counts);
    if (writer != NULL)
        tree_writer_counts(writer, &written_counts);
    tree_reader_free(reader);
    tree_writer_free(writer);
    return result;
}

/* ---- comparing ---- */

static bool is_same_content(int one, int other, const char *name)
{
    char left[4096], right[4096];
    auto_close int one_file = openat(one, name, O_RDONLY | O_CLOEXEC);
    auto_close int other_file = openat(other, name, O_RDONLY | O_CLOEXEC);
    for (;;) {
        ssize_t got = read(one_file, left, sizeof(left));
        if (got < 0 || read(other_file, right, sizeof(right)) != got)
            return false;
        if (got == 0)
            return true;
        if (memcmp(left, right, (size_t)got) != 0)
            return false;
    }
}

static bool is_same_link(int one, int other, const char *name)
{
    char left[4097] = "", right[4097] = "";
    return readlinkat(one, name, left, 4096) > 0 && readlinkat(other, name, right, 4096) > 0 &&
           strcmp(left, right) == 0;
}

static size_t count_names(int folder)
{
    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fdopendir(fd);
    size_t count = 0;
    while (readdir(stream) != NULL)
        count++;
    closedir(stream);
    return count;
}

static bool is_same_folder(int one, int other);

static bool is_same(int one, int other, const char *name)
{
    struct stat left, right;
    if (fstatat(one, name, &left, AT_SYMLINK_NOFOLLOW) < 0 || fstatat(other, name, &right, AT_SYMLINK_NOFOLLOW) < 0)
        return false;
    if (left.st_mode != right.st_mode || left.st_uid != right.st_uid || left.st_gid != right.st_gid ||
        left.st_mtim.tv_sec != right.st_mtim.tv_sec || left.st_mtim.tv_nsec != right.st_mtim.tv_nsec)
        return false;
    if (S_ISREG(left.st_mode))
        return left.st_size == right.st_size && left.st_nlink == right.st_nlink && is_same_content(one, other, name);
    if (S_ISLNK(left.st_mode))
        return is_same_link(one, other, name);
    if (!S_ISDIR(left.st_mode))
        return true;
    auto_close int inner = openat(one, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    auto_close int other_inner = openat(other, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return is_same_folder(inner, other_inner);
}

static bool is_same_folder(int one, int other)
{
    if (count_names(one) != count_names(other))
        return false;
    int fd = openat(one, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fdopendir(fd);
    bool are_same = true;
    for (const struct dirent *entry; are_same && (entry = readdir(stream)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            are_same = is_same(one, other, entry->d_name);
    closedir(stream);
    return are_same;
}

static bool is_same_tree(const char *one, const char *other)
{
    auto_close int scratch = open_scratch();
    auto_close int left = openat(scratch, one, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    auto_close int right = openat(scratch, other, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat left_status, right_status;
    if (fstat(left, &left_status) < 0 || fstat(right, &right_status) < 0)
        return false;
    return left_status.st_mode == right_status.st_mode && left_status.st_mtim.tv_nsec == right_status.st_mtim.tv_nsec &&
           left_status.st_mtim.tv_sec == right_status.st_mtim.tv_sec && is_same_folder(left, right);
}

static const char *below(const char *name)
{
    static char paths[2][8192]; /* in turn: some calls take two */
    static size_t turn;
    char *path = paths[turn++ % 2];
    snprintf(path, sizeof(paths[0]), "%s/%s", test_folder(), name);
    return path;
}

static bool exists(const char *name)
{
    struct stat status;
    return lstat(below(name), &status) == 0;
}

static struct stat status_of(const char *name)
{
    struct stat status = {0};
    if (lstat(below(name), &status) < 0)
        status.st_mode = 0;
    return status;
}

static bool holds(const char *name, const char *expected)
{
    char text[256] = "";
    auto_close int fd = open(below(name), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    return fd >= 0 && read(fd, text, sizeof(text) - 1) == (ssize_t)strlen(expected) && strcmp(text, expected) == 0;
}

/* ---- round trips ---- */

static char long_name[256];

static void make_nasty_tree(void)
{
    static uint8_t big[200000];
    memset(long_name, 'n', 255);
    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = (uint8_t)(i * 7 % 251 + 1);
    test_file("from/big", big, sizeof(big));
    test_text_file("from/a/b/c/file", "deep");
    test_text_file("from/empty", "");
    test_text_file("from/a/new\nline \xff\x01", "odd");
    test_make_folder("from/hollow");
    test_make_folder("from/shut");
    test_text_file("from/shut/inside", "secret");
    auto_close int from = open(below("from"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    auto_close int file = openat(from, long_name, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
    if (write(file, "long", 4) != 4 || symlinkat("/nowhere/at/all", from, "a/dangling") < 0 ||
        symlinkat("../big", from, "a/relative") < 0 || linkat(from, "big", from, "a/again", 0) < 0 ||
        linkat(from, "big", from, "third", 0) < 0 || linkat(from, "a/dangling", from, "twin", 0) < 0 ||
        mkfifoat(from, "pipe", 0622) < 0 || fchmodat(from, "shut/inside", 0, 0) < 0 ||
        fchmodat(from, "pipe", 0666, 0) < 0 || fchmodat(from, "empty", 01777, 0) < 0 ||
        fchmodat(from, "shut", 0, 0) < 0 || fchmodat(from, "a/b", 0555, 0) < 0)
        abort();
    const struct timespec old[2] = {{.tv_sec = 1}, {.tv_sec = -86400, .tv_nsec = 123456789}};
    utimensat(from, "a/b/c", old, 0);
    utimensat(from, "a", old, 0);
    utimensat(from, "empty", old, 0);
    utimensat(from, "a/dangling", old, AT_SYMLINK_NOFOLLOW);
    utimensat(from, "pipe", old, 0);
    futimens(from, old);
}

TEST(a_nasty_tree_arrives_as_it_was)
{
    static const size_t pieces[] = {1, 7, 4096, 65536, 1 << 20};
    make_nasty_tree();
    for (size_t i = 0; i < array_length(pieces); i++) {
        char name[32];
        snprintf(name, sizeof(name), "to%zu", i);
        CHECK_INT(copy("from", name, 0, pieces[i]), 0);
        CHECK(is_same_tree("from", name));
        CHECK_INT(read_counts.files, 18);
        CHECK_INT(read_counts.bytes, 200000 + 4 + 3 + 6 + 4); /* what has three names is sent once */
        CHECK(memcmp(&read_counts, &written_counts, sizeof(read_counts)) == 0);
    }
    CHECK_INT(status_of("to0/big").st_ino, status_of("to0/a/again").st_ino);
    CHECK_INT(status_of("to0/big").st_ino, status_of("to0/third").st_ino);
    CHECK_INT(status_of("to0/twin").st_ino, status_of("to0/a/dangling").st_ino);
}

TEST(copying_again_replaces_what_is_there)
{
    make_nasty_tree();
    CHECK_INT(copy("from", "to", 0, 65536), 0);
    CHECK_INT(copy("from", "to", 0, 65536), 0);
    CHECK(is_same_tree("from", "to"));
    CHECK_INT(chmod(below("from"), 0750), 0);
    CHECK_INT(copy("from", "to", TREE_NO_TOP, 65536), 0);
    CHECK_INT(status_of("to").st_mode & 0777, 0755); /* a top that exists keeps what it has */
}

TEST(holes_stay_holes)
{
    static const struct {
        off_t data[3], size;
    } files[] = {{{-1, -1, -1}, 8 << 20},
                 {{0, -1, -1}, 8 << 20},
                 {{4 << 20, (8 << 20) - 1, -1}, 8 << 20},
                 {{65536, 262144, 1 << 20}, (1 << 20) + 1}};
    test_make_folder("from");
    for (size_t i = 0; i < array_length(files); i++) {
        char name[32];
        snprintf(name, sizeof(name), "from/%zu", i);
        auto_close int fd = open(below(name), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        CHECK_INT(ftruncate(fd, files[i].size), 0);
        for (size_t j = 0; j < 3; j++)
            CHECK(files[i].data[j] < 0 || pwrite(fd, "x", 1, files[i].data[j]) == 1);
    }
    CHECK_INT(copy("from", "to", 0, 10000), 0);
    CHECK(is_same_tree("from", "to"));
    for (size_t i = 0; i < array_length(files); i++) {
        char from[32], to[32];
        snprintf(from, sizeof(from), "from/%zu", i);
        snprintf(to, sizeof(to), "to/%zu", i);
        CHECK(status_of(to).st_blocks <= status_of(from).st_blocks + 8);
    }
    CHECK(read_counts.bytes < 200000);
}

TEST(set_id_bits_need_to_be_asked_for)
{
    test_text_file("from/tool", "x");
    CHECK_INT(chmod(below("from/tool"), 06755), 0);
    CHECK_INT(copy("from", "to", 0, 4096), 0);
    CHECK_INT(status_of("to/tool").st_mode & 07777, 0755);
    if (geteuid() == 0) {
        CHECK_INT(chown(below("from/tool"), 1234, 4321), 0);
        CHECK_INT(chmod(below("from/tool"), 06755), 0);
        CHECK_INT(symlink("tool", below("from/link")), 0);
        CHECK_INT(lchown(below("from/link"), 77, 78), 0);
        CHECK_INT(mkfifo(below("from/pipe"), 0600), 0);
        CHECK_INT(lchown(below("from/pipe"), 79, 80), 0);
        CHECK_INT(copy("from", "owned", TREE_OWNERS, 4096), 0);
        CHECK(is_same_tree("from", "owned"));
        CHECK_INT(status_of("owned/tool").st_mode & 07777, 06755);
        CHECK_INT(status_of("owned/tool").st_uid, 1234);
        CHECK_INT(copy("from", "mine", 0, 4096), 0);
        CHECK_INT(status_of("mine/tool").st_uid, 0);
    } else {
        CHECK_INT(copy("from", "owned", TREE_OWNERS, 4096), 0);
    }
}

TEST(any_top_can_be_sent)
{
    test_text_file("file", "hello");
    test_text_file("folder/x", "x");
    CHECK_INT(symlink("file", below("link")), 0);
    CHECK_INT(copy("file", "file2", 0, 4096), 0);
    CHECK(holds("file2", "hello"));
    CHECK_INT(copy("link", "link2", 0, 4096), 0);
    CHECK(S_ISLNK(status_of("link2").st_mode));
    CHECK_INT(copy("file", "link2", 0, 4096), 0); /* in place of the link */
    CHECK(holds("link2", "hello"));
    CHECK_INT(copy("file", "folder", 0, 4096), -EISDIR);
    CHECK_INT(copy("folder", "missing", TREE_NO_TOP, 4096), -ENOENT);
    CHECK_INT(copy("file", "folder", TREE_NO_TOP, 4096), -ENOTDIR);
    CHECK_INT(copy("nothing", "to", 0, 4096), -ENOENT);
    CHECK_INT(failure.os_error, ENOENT);
    CHECK(!exists("to"));
    struct tree_reader *reader = NULL;
    struct tree_writer *writer = NULL;
    auto_close int scratch = open_scratch();
    static const char *const names[] = {".", "..", "a/b", "/", "/etc"};
    for (size_t i = 0; i < array_length(names); i++) {
        CHECK_INT(tree_reader_new(scratch, names[i], &reader), -EINVAL);
        CHECK_INT(tree_writer_new(scratch, names[i], 0, &writer), -EINVAL);
    }
    CHECK_INT(tree_writer_new(scratch, "", 0, &writer), -EINVAL); /* which is not a name to be made */
    CHECK_INT(tree_writer_new(scratch, "x", 4, &writer), -EINVAL);
    auto_close int folder = open(below("folder"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    auto_close int other = open(test_make_folder("other"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK_INT(tree_reader_new(folder, "", &reader), 0);
    CHECK_INT(tree_writer_new(other, "", TREE_NO_TOP, &writer), 0);
    CHECK_INT(pump(reader, writer, 512), 0);
    tree_reader_free(reader);
    tree_writer_free(writer);
    CHECK(holds("other/x", "x"));
}

TEST(sockets_are_left_out_and_counted)
{
    test_text_file("from/x", "x");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", below("from/socket"));
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_INT(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    CHECK_INT(copy("from", "to", 0, 4096), 0);
    CHECK_INT(read_counts.left_out, 1);
    CHECK(exists("to/x") && !exists("to/socket"));
}

static void make_deep(const char *name, unsigned depth)
{
    int fd = open(test_make_folder(name), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (unsigned i = 0; i < depth; i++) {
        mkdirat(fd, "d", 0700);
        int next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        close(fd);
        fd = next;
    }
    close(fd);
}

TEST(depth_is_bounded)
{
    make_deep("from", TREE_MOST_DEPTH);
    CHECK_INT(copy("from", "to", 0, 4096), 0);
    CHECK(is_same_tree("from", "to"));
    make_deep("from2", TREE_MOST_DEPTH + 1);
    CHECK_INT(copy("from2", "to2", 0, 4096), -ENAMETOOLONG);
    CHECK_INT(strlen(failure.path), 2 * TREE_MOST_DEPTH + 1);
}

TEST(a_file_that_changes_is_sent_as_it_was_told)
{
    char bytes[65536];
    struct tree_reader *reader = NULL;
    struct tree_writer *writer = NULL;
    memset(bytes, 'a', sizeof(bytes));
    for (int grows = 0; grows < 2; grows++) {
        const char *path = test_file("from", bytes, sizeof(bytes));
        auto_close int scratch = open_scratch();
        CHECK_INT(tree_reader_new(scratch, "from", &reader), 0);
        CHECK_INT(tree_writer_new(scratch, "to", 0, &writer), 0);
        CHECK_INT(tree_reader_next(reader, (uint8_t *)bytes, 20, &failure), 20); /* in the middle of FILE */
        CHECK_INT(tree_writer_add(writer, (uint8_t *)bytes, 20, &failure), 0);
        CHECK_INT(truncate(path, grows ? 100000 : 10), 0);
        CHECK_INT(pump(reader, writer, 4096), 0);
        CHECK_INT(status_of("to").st_size, 65536);
        reader = tree_reader_free(reader);
        writer = tree_writer_free(writer);
        memset(bytes, 'a', sizeof(bytes));
    }
}

TEST(what_vanishes_is_left_out)
{
    uint8_t bytes[65536];
    struct tree_reader *reader = NULL;
    test_make_folder("from/x");
    auto_close int scratch = open_scratch();
    CHECK_INT(tree_reader_new(scratch, "from", &reader), 0);
    CHECK(tree_reader_next(reader, bytes, 8, &failure) == 8);
    CHECK_INT(rmdir(below("from/x")), 0);
    CHECK(tree_reader_next(reader, bytes, sizeof(bytes), &failure) > 0);
    CHECK_INT(tree_reader_next(reader, bytes, sizeof(bytes), &failure), 0);
    CHECK_INT(tree_reader_next(reader, bytes, sizeof(bytes), &failure), 0);
    tree_reader_free(reader);
}

TEST(a_failure_stays)
{
    test_text_file("from/x", "x");
    auto_close int scratch = open_scratch();
    auto_close int proc = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* where nothing can be made */
    struct tree_reader *reader = NULL;
    struct tree_writer *writer = NULL;
    CHECK_INT(tree_reader_new(scratch, "from", &reader), 0);
    CHECK_INT(tree_writer_new(proc, "x", 0, &writer), 0);
    CHECK(pump(reader, writer, 4096) < 0);
    uint8_t byte = 0;
    CHECK(tree_writer_add(writer, &byte, 1, &failure) < 0); /* and it stays so */
    CHECK(tree_writer_end(writer, &failure) < 0);
    tree_reader_free(reader);
    tree_writer_free(writer);
}

/* ---- hostile streams ---- */

static uint8_t stream[1 << 20];
static size_t stream_length;

static void begin_stream(void)
{
    stream_length = 0;
}

static void add_record(enum tree_kind kind, const void *body, size_t length)
{
    tree_put_header(stream + stream_length, kind, length);
    if (length > 0)
        memcpy(stream + stream_length + TREE_HEADER_BYTES, body, length);
    stream_length += TREE_HEADER_BYTES + length;
}

struct raw {
    const char *path;
    uint64_t mode, size, mtime_ns;
    const char *link, *same;
    size_t path_length; /* 0: all of it */
};

/* As tree_encode_file would, if it let us. */
static void add_raw(const struct raw *raw)
{
    uint8_t body[32768];
    struct cbor_writer writer = {.bytes = body, .capacity = sizeof(body)};
    const char *link = raw->link != NULL ? raw->link : "", *same = raw->same != NULL ? raw->same : "";
    const uint64_t numbers[] = {raw->mode, 0, 0, raw->size, 5, raw->mtime_ns};
    cbor_write_map(&writer, 9);
    cbor_write_unsigned(&writer, 0);
    cbor_write_bytes(&writer, raw->path, raw->path_length > 0 ? raw->path_length : strlen(raw->path));
    for (size_t i = 0; i < array_length(numbers); i++) {
        cbor_write_unsigned(&writer, i + 1);
        cbor_write_unsigned(&writer, numbers[i]);
    }
    cbor_write_unsigned(&writer, 7);
    cbor_write_bytes(&writer, link, strlen(link));
    cbor_write_unsigned(&writer, 8);
    cbor_write_bytes(&writer, same, strlen(same));
    add_record(TREE_FILE, body, writer.length);
}

static void add_folder(const char *path)
{
    add_raw(&(struct raw){.path = path, .mode = S_IFDIR | 0755});
}

static void add_bytes(uint64_t offset, const char *text)
{
    uint8_t body[TREE_OFFSET_BYTES + 100];
    tree_put_offset(body, offset);
    memcpy(body + TREE_OFFSET_BYTES, text, strlen(text));
    add_record(TREE_BYTES, body, TREE_OFFSET_BYTES + strlen(text));
}

static void add_text_file(const char *path, const char *text)
{
    add_raw(&(struct raw){.path = path, .mode = S_IFREG | 0644, .size = strlen(text)});
    add_bytes(0, text);
}

static int play_bytes(size_t length, uint32_t flags)
{
    auto_close int scratch = open_scratch();
    auto_free uint8_t *exact = malloc(length > 0 ? length : 1);
    struct tree_writer *writer = NULL;
    memcpy(exact, stream, length);
    int result = tree_writer_new(scratch, "top", flags, &writer);
    if (result == 0)
        result = tree_writer_add(writer, exact, length, &failure);
    if (result == 0)
        result = tree_writer_end(writer, &failure);
    tree_writer_free(writer);
    return result;
}

static int play(void)
{
    return play_bytes(stream_length, 0);
}

static int play_one(const struct raw *raw)
{
    begin_stream();
    add_folder("");
    add_raw(raw);
    add_record(TREE_END, NULL, 0);
    return play();
}

TEST(what_a_file_may_not_say)
{
    static const char *const bad_paths[] = {"..", ".", "../x", "a/..", "/", "/x", "x/", "a//b", "a/./b", "a/../b", ""};
    const uint64_t file = S_IFREG | 0600;
    test_text_file("x", "outside");
    for (size_t i = 0; i < array_length(bad_paths); i++)
        CHECK_INT(play_one(&(struct raw){.path = bad_paths[i], .mode = file}), -EPROTO);
    char name[257];
    memset(name, 'x', sizeof(name));
    CHECK_INT(play_one(&(struct raw){.path = name, .mode = file, .path_length = 256}), -EPROTO);
    CHECK_INT(play_one(&(struct raw){.path = name, .mode = file, .path_length = 255}), 0);
    CHECK_INT(play_one(&(struct raw){.path = "a\0b", .mode = file, .path_length = 3}), -EPROTO);
    static const uint64_t bad_modes[] = {0, S_IFSOCK, S_IFCHR | 0666, S_IFBLK, S_IFMT, 0200000 | S_IFREG, UINT64_MAX};
    for (size_t i = 0; i < array_length(bad_modes); i++)
        CHECK_INT(play_one(&(struct raw){.path = "x", .mode = bad_modes[i]}), -EPROTO);
    CHECK_INT(play_one(&(struct raw){.path = "x", .mode = file, .size = UINT64_C(1) << 63}), -EPROTO);
    CHECK_INT(play_one(&(struct raw){.path = "x", .mode = file, .mtime_ns = 1000000000}), -EPROTO);
    CHECK_INT(play_one(&(struct raw){.path = "x", .mode = file, .link = "y"}), -EPROTO);
    CHECK_INT(play_one(&(struct raw){.path = "x", .mode = S_IFLNK | 0777}), -EPROTO);
    CHECK_INT(play_one(&(struct raw){.path = "x", .mode = S_IFLNK | 0777, .link = "y", .size = 1}), -EPROTO);
    CHECK_INT(play_one(&(struct raw){.path = "x", .mode = S_IFDIR, .size = 1}), -EPROTO);
    CHECK_INT(play_one(&(struct raw){.path = "x", .mode = S_IFDIR, .same = "y"}), -EPROTO);
    CHECK_INT(play_one(&(struct raw){.path = "x", .mode = file, .same = "x"}), -EPROTO);
    CHECK_INT(play_one(&(struct raw){.path = "x", .mode = file, .same = "../x"}), -EPROTO);
    CHECK_INT(play_one(&(struct raw){.path = "x", .mode = file, .same = "/etc/passwd"}), -EPROTO);
    CHECK_INT(play_one(&(struct raw){.path = "x", .mode = file, .same = "missing"}), -ENOENT);
    CHECK(holds("x", "outside"));
}

TEST(no_link_leads_out)
{
    test_text_file("outside/secret", "secret");
    begin_stream();
    add_folder("");
    add_raw(&(struct raw){.path = "way", .mode = S_IFLNK | 0777, .link = "../outside"});
    add_text_file("way/secret", "pwned");
    CHECK_INT(play(), -EPROTO); /* it is no folder of the stream */

    begin_stream(); /* a folder where the link is: the link makes way */
    add_folder("");
    add_raw(&(struct raw){.path = "way", .mode = S_IFLNK | 0777, .link = "../outside"});
    add_folder("way");
    add_text_file("way/secret", "inside");
    add_record(TREE_END, NULL, 0);
    CHECK_INT(play(), 0);
    CHECK(S_ISDIR(status_of("top/way").st_mode) && holds("top/way/secret", "inside"));

    begin_stream(); /* a file through a link in its own place */
    add_folder("");
    add_raw(&(struct raw){.path = "file", .mode = S_IFLNK | 0777, .link = "../outside/secret"});
    add_text_file("file", "mine");
    add_record(TREE_END, NULL, 0);
    CHECK_INT(play(), 0);
    CHECK(holds("top/file", "mine"));

    begin_stream(); /* another name, through a link */
    add_folder("");
    add_raw(&(struct raw){.path = "way2", .mode = S_IFLNK | 0777, .link = "../outside"});
    add_raw(&(struct raw){.path = "stolen", .mode = S_IFREG | 0600, .same = "way2/secret"});
    CHECK_INT(play(), -ENOTDIR);
    CHECK(!exists("top/stolen"));
    CHECK(holds("outside/secret", "secret"));
}

TEST(links_that_were_there_lead_nowhere_either)
{
    test_text_file("outside/secret", "secret");
    test_make_folder("top");
    CHECK_INT(symlink("../outside", below("top/way")), 0);
    CHECK_INT(symlink("../outside/secret", below("top/file")), 0);
    CHECK_INT(link(below("outside/secret"), below("top/hard")), 0);
    begin_stream();
    add_folder("");
    add_folder("way");
    add_text_file("way/secret", "one");
    add_text_file("file", "two");
    add_text_file("hard", "three");
    add_record(TREE_END, NULL, 0);
    CHECK_INT(play(), 0);
    CHECK(holds("outside/secret", "secret"));
    CHECK_INT(status_of("outside/secret").st_nlink, 1);
    CHECK(holds("top/way/secret", "one") && holds("top/file", "two") && holds("top/hard", "three"));
    /* The top itself: a link in its place makes way, and is not gone through where the top has to be there. */
    CHECK_INT(rename(below("top"), below("old")), 0);
    CHECK_INT(symlink("outside", below("top")), 0);
    CHECK_INT(play_bytes(stream_length, TREE_NO_TOP), -ENOTDIR);
    CHECK_INT(play(), 0);
    CHECK(S_ISDIR(status_of("top").st_mode) && !exists("outside/file"));
}

TEST(records_in_the_wrong_order_are_refused)
{
    begin_stream(); /* below a file */
    add_raw(&(struct raw){.path = "", .mode = S_IFREG});
    add_text_file("x", "x");
    CHECK_INT(play(), -EPROTO);
    begin_stream(); /* no top */
    add_folder("a");
    CHECK_INT(play(), -EPROTO);
    begin_stream(); /* two tops */
    add_folder("");
    add_folder("");
    CHECK_INT(play(), -EPROTO);
    begin_stream(); /* a folder that was left */
    add_folder("");
    add_folder("a");
    add_folder("b");
    add_text_file("a/x", "x");
    CHECK_INT(play(), -EPROTO);
    begin_stream(); /* a folder whose name begins as another */
    add_folder("");
    add_folder("ab");
    add_text_file("a/x", "x");
    CHECK_INT(play(), -EPROTO);
    begin_stream(); /* after the end */
    add_folder("");
    add_record(TREE_END, NULL, 0);
    stream[stream_length++] = 0;
    CHECK_INT(play(), -EPROTO);
    begin_stream(); /* nothing at all */
    CHECK_INT(play(), -EPROTO);
    add_record(TREE_END, NULL, 0);
    CHECK_INT(play(), -EPROTO);
}

static int play_two_pieces(uint64_t size, uint64_t first, uint64_t second)
{
    begin_stream();
    add_folder("");
    add_raw(&(struct raw){.path = "x", .mode = S_IFREG | 0600, .size = size});
    add_bytes(first, "ab");
    add_bytes(second, "cd");
    add_record(TREE_END, NULL, 0);
    return play();
}

TEST(bytes_stay_in_their_file)
{
    CHECK_INT(play_two_pieces(4, 0, 2), 0);
    CHECK(holds("top/x", "abcd"));
    CHECK_INT(play_two_pieces(1 << 20, 0, (1 << 20) - 2), 0);
    CHECK_INT(play_two_pieces(3, 0, 2), -EPROTO);
    CHECK_INT(play_two_pieces(4, 0, 1), -EPROTO);
    CHECK_INT(play_two_pieces(4, 2, 0), -EPROTO);
    CHECK_INT(play_two_pieces(4, 0, UINT64_MAX), -EPROTO);
    CHECK_INT(play_two_pieces(4, 0, UINT64_MAX - 1), -EPROTO);
    begin_stream(); /* for no file, and for what has another name */
    add_folder("");
    add_bytes(0, "x");
    CHECK_INT(play(), -EPROTO);
    begin_stream();
    add_folder("");
    add_text_file("x", "x");
    add_raw(&(struct raw){.path = "y", .mode = S_IFREG | 0600, .same = "x"});
    add_bytes(0, "z");
    CHECK_INT(play(), -EPROTO);
    CHECK(holds("top/x", "x"));
}

TEST(headers_are_checked)
{
    static const uint8_t bad[][TREE_HEADER_BYTES] = {
        {0, 0, 0, 0, 0, 0},         {0, 0, 0, 0, 4, 0},    {0, 0, 0, 0, 1, 0},
        {8, 0, 0, 0, 2, 0},         {1, 0, 0, 0, 3, 0},    {1, 0, 1, 0, 1, 0},
        {255, 255, 255, 255, 2, 0}, {0, 0, 0, 0, 3, 0, 1}, {0, 0, 0, 0, 3, 1, 0},
    };
    for (size_t i = 0; i < array_length(bad); i++) {
        begin_stream();
        add_folder("");
        memcpy(stream + stream_length, bad[i], TREE_HEADER_BYTES);
        stream_length += TREE_HEADER_BYTES;
        CHECK_INT(play(), -EPROTO);
    }
}

TEST(every_truncation_is_refused)
{
    begin_stream();
    add_folder("");
    add_folder("a");
    add_text_file("a/x", "hello");
    add_raw(&(struct raw){.path = "a/y", .mode = S_IFREG | 0600, .same = "a/x"});
    add_raw(&(struct raw){.path = "l", .mode = S_IFLNK | 0777, .link = "a"});
    add_raw(&(struct raw){.path = "p", .mode = S_IFIFO | 0666});
    add_record(TREE_END, NULL, 0);
    for (size_t length = 0; length < stream_length; length++)
        CHECK_INT(play_bytes(length, 0), -EPROTO);
    CHECK_INT(play(), 0);
    CHECK_INT(status_of("top/p").st_mode, S_IFIFO | 0666); /* whatever our umask is */
}

TEST(decoded_records_encode_to_the_same_bytes)
{
    uint8_t again[TREE_HEADER_BYTES + TREE_MOST_RECORD_BYTES];
    struct tree_file file;
    begin_stream();
    add_raw(&(struct raw){.path = "a/l", .mode = S_IFLNK | 0777, .link = "x", .mtime_ns = 999999999});
    CHECK_INT(tree_decode_file(stream + TREE_HEADER_BYTES, stream_length - TREE_HEADER_BYTES, &file), 0);
    CHECK_INT(tree_encode_file(&file, again), stream_length);
    CHECK(memcmp(again, stream, stream_length) == 0);
}

/* ---- memory ---- */

TEST(trees_survive_no_memory)
{
    test_text_file("from/x", "x");
    CHECK_INT(link(below("from/x"), below("from/y")), 0);
    FOR_EACH_FAULT
    {
        auto_close int scratch = open_scratch();
        struct tree_reader *reader = NULL;
        struct tree_writer *writer = NULL;
        uint8_t bytes[4096];
        int result = tree_reader_new(scratch, "from", &reader);
        if (result == 0)
            result = tree_writer_new(scratch, "to", 0, &writer);
        while (result == 0) {
            long got = tree_reader_next(reader, bytes, sizeof(bytes), &failure);
            result = got < 0 ? (int)got : got == 0 ? 1 : tree_writer_add(writer, bytes, (size_t)got, &failure);
        }
        if (result == 1)
            result = tree_writer_end(writer, &failure);
        tree_reader_free(reader);
        tree_writer_free(writer);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
    }
}

TEST(links_are_forgotten_with_their_last_name)
{
    struct tree_links links = {0};
    for (uint64_t i = 0; i < 5000; i++) {
        struct stat status = {.st_dev = i % 3, .st_ino = i, .st_nlink = 3};
        char path[32];
        int length = snprintf(path, sizeof(path), "%d", (int)i);
        CHECK_TEXT(tree_links_meet(&links, &status, path, (size_t)length), "");
        CHECK_TEXT(tree_links_meet(&links, &status, "other", 5), path);
        if (i % 2 == 0)
            CHECK_TEXT(tree_links_meet(&links, &status, "third", 5), path);
    }
    CHECK_INT(links.count, 2500);
    for (uint64_t i = 1; i < 5000; i += 2) {
        struct stat status = {.st_dev = i % 3, .st_ino = i, .st_nlink = 3};
        CHECK_INT(atoll(tree_links_meet(&links, &status, "third", 5)), i);
    }
    CHECK_INT(links.count, 0);
    tree_links_free(&links);
}
