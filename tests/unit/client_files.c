// SPDX-License-Identifier: Apache-2.0
/* Tests of files and trees of a sandbox, over an agent that is a thread and has a folder of the test as its guest. */
#include "test.h"

#include "client_fake.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/fd.h"
#include "proto/tree_record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static struct vial_error err;

/* What the agent does next that it should not. */
enum mischief { NO_MISCHIEF, WRONG_NAMES, ENDLESS, NO_TREE, HALF_A_TREE, NOTHING_BUT_FOLDERS, TAKES_LITTLE };
static _Atomic enum mischief mischief; /* read by the thread that plays the sandbox */
static char pushed_path[4096];

/* A path of the guest in the test's folder. */
static void host_path(const struct agent_span *path, char text[4096])
{
    snprintf(text, 4096, "%s/guest%.*s", test_folder(), (int)path->length, path->bytes);
}

static void send_entry(int fd, const struct stat *about, const char *name, uint32_t flags)
{
    fake_send(fd, &(struct agent_message){.id = 1,
                                          .kind = AGENT_ENTRY,
                                          .flags = flags,
                                          .entry = {.mode = about->st_mode,
                                                    .size = (uint64_t)about->st_size,
                                                    .mtime_s = 5,
                                                    .name = {name, strlen(name)}}});
}

static void serve_stat(int fd, const struct agent_file *file, const char *path)
{
    struct stat about;
    bool follows = (file->flags & AGENT_FILE_FOLLOW) != 0;
    if (fstatat(AT_FDCWD, path, &about, follows ? 0 : AT_SYMLINK_NOFOLLOW) < 0)
        fake_failed(fd, AGENT_STAGE_FILE, (uint32_t)errno, "");
    else
        send_entry(fd, &about, "", AGENT_LAST);
}

static void serve_list(int fd)
{
    struct stat about = {.st_mode = S_IFREG | 0600, .st_size = 3};
    /* A frame of an entry whose name is "../x", as no encoder makes it: the name "aaaa" in another frame, changed. */
    struct buffer frame = BUFFER_INIT(4096);
    agent_encode(&(struct agent_message){.id = 1, .kind = AGENT_ENTRY, .entry = {.mode = S_IFREG, .name = {"aaaa", 4}}},
                 &frame);
    char *name = memmem(frame.data, frame.length, "aaaa", 4);
    if (name == NULL)
        abort();
    memcpy(name, "../x", 4);
    send_entry(fd, &about, "one", 0);
    send_entry(fd, &about, "two\n", 0);
    if (mischief == WRONG_NAMES)
        fake_send_bytes(fd, frame.data, frame.length);
    buffer_free(&frame);
    fake_done(fd);
}

/* Sends what a function brings, as the window allows. */
static void send_stream(int fd, size_t window, long (*bring)(void *from, uint8_t *bytes, size_t length), void *from)
{
    static uint8_t bytes[AGENT_MOST_DATA_BYTES];
    struct agent_message message;
    long got = 0;
    for (;;) {
        while (window < sizeof(bytes)) {
            if (!fake_receive(fd, &message))
                return;
            window += message.kind == AGENT_CREDIT ? message.credit.bytes : 0;
        }
        got = bring(from, bytes, sizeof(bytes));
        if (got <= 0)
            break;
        fake_data(fd, 1, bytes, (size_t)got, 0);
        window -= (size_t)got;
    }
    fake_data(fd, 1, "", 0, AGENT_END);
    fake_done(fd);
}

static long bring_file(void *from, uint8_t *bytes, size_t length)
{
    if (mischief == ENDLESS)
        return (long)length;
    return fread(bytes, 1, length, from);
}

static void serve_read(int fd, const struct agent_file *file, const char *path)
{
    FILE *opened = fopen(path, "re");
    if (opened == NULL) {
        fake_failed(fd, AGENT_STAGE_OPEN, (uint32_t)errno, "");
        return;
    }
    fake_started(fd, 0);
    send_stream(fd, file->window, bring_file, opened);
    fclose(opened);
}

/* Takes stream 0 and grants again what it has taken. */
static bool take_stream(int fd, bool (*take)(void *to, const struct agent_span *bytes), void *to)
{
    struct agent_message message;
    fake_started(fd, 50000);
    while (fake_receive(fd, &message) && message.kind == AGENT_DATA) {
        if (message.data.bytes.length > 50000 || !take(to, &message.data.bytes))
            return false;
        if ((message.flags & AGENT_END) != 0)
            return true;
        fake_send(fd, &(struct agent_message){
                          .id = 1, .kind = AGENT_CREDIT, .credit = {.bytes = (uint32_t)message.data.bytes.length}});
    }
    return false;
}

static bool take_file(void *to, const struct agent_span *bytes)
{
    return fwrite(bytes->bytes, 1, bytes->length, to) == bytes->length;
}

static void serve_write(int fd, const char *path)
{
    FILE *opened = fopen(path, "we");
    if (opened == NULL) {
        fake_failed(fd, AGENT_STAGE_OPEN, (uint32_t)errno, "");
        return;
    }
    if (mischief == TAKES_LITTLE || take_stream(fd, take_file, opened))
        fake_done(fd);
    fclose(opened);
}

/* The same folder over and over: files without a byte, and no end for a while. */
static long bring_folders(uint8_t *bytes)
{
    static uint8_t record[TREE_HEADER_BYTES + TREE_MOST_RECORD_BYTES];
    static int rounds;
    const struct tree_file folder = {.path = {"a", rounds > 0}, .mode = S_IFDIR | 0700};
    long length = rounds < 20000 ? tree_encode_file(&folder, record) : 0;
    rounds = length > 0 ? rounds + 1 : 0;
    if (length > 0)
        memcpy(bytes, record, (size_t)length);
    return length;
}

static long bring_tree(void *from, uint8_t *bytes, size_t length)
{
    struct tree_failure failure;
    static int rounds;
    if (mischief == NOTHING_BUT_FOLDERS)
        return length > 64 ? bring_folders(bytes) : 0;
    if (mischief == NO_TREE)
        memset(bytes, 0xff, length);
    rounds = mischief == HALF_A_TREE ? rounds + 1 : 0;
    if (mischief == NO_TREE)
        return (long)length;
    return rounds > 1 ? 0 : tree_reader_next(from, bytes, rounds == 1 ? 40 : length, &failure);
}

static void serve_pull(int fd, const struct agent_file *file, const char *path)
{
    struct tree_reader *reader = NULL;
    char parent[4096];
    snprintf(parent, sizeof(parent), "%s", path);
    char *slash = strrchr(parent, '/');
    *slash = '\0';
    auto_close int folder = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (tree_reader_new(folder, slash + 1, &reader) < 0)
        abort();
    fake_started(fd, 0);
    send_stream(fd, file->window, bring_tree, reader);
    tree_reader_free(reader);
}

static bool take_tree(void *to, const struct agent_span *bytes)
{
    struct tree_failure failure;
    return bytes->length == 0 || tree_writer_add(to, (const uint8_t *)bytes->bytes, bytes->length, &failure) == 0;
}

static void serve_push(int fd, const char *path)
{
    struct tree_writer *writer = NULL;
    struct tree_failure failure;
    char parent[4096];
    snprintf(parent, sizeof(parent), "%s", path);
    char *slash = strrchr(parent, '/');
    *slash = '\0';
    auto_close int folder = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (tree_writer_new(folder, slash + 1, 0, &writer) < 0)
        abort();
    if (take_stream(fd, take_tree, writer) && tree_writer_end(writer, &failure) == 0)
        fake_done(fd);
    else
        fake_failed(fd, AGENT_STAGE_FILE, ENOSPC, "full");
    tree_writer_free(writer);
}

static void serve_files(int fd, const struct agent_message *request, void *user)
{
    struct agent_file file = request->file;
    char path[4096];
    (void)user;
    host_path(&file.path, path);
    if (request->kind == AGENT_STAT)
        serve_stat(fd, &file, path);
    else if (request->kind == AGENT_LIST)
        serve_list(fd);
    else if (request->kind == AGENT_READ)
        serve_read(fd, &file, path);
    else if (request->kind == AGENT_WRITE)
        serve_write(fd, path);
    else if (request->kind == AGENT_PULL)
        serve_pull(fd, &file, path);
    else if (request->kind == AGENT_PUSH) {
        snprintf(pushed_path, sizeof(pushed_path), "%.*s", (int)file.path.length, file.path.bytes);
        serve_push(fd, path);
    } else if (mkdir(path, 0700) < 0)
        fake_failed(fd, AGENT_STAGE_FILE, (uint32_t)errno, "");
    else
        fake_done(fd);
}

static struct fake *begin(void)
{
    mischief = NO_MISCHIEF;
    test_make_folder("guest/folder");
    test_text_file("guest/file", "contents");
    return fake_new(serve_files, NULL);
}

static bool is_file(const char *path, const char *text)
{
    char name[4096], bytes[256] = "";
    snprintf(name, sizeof(name), "%s/%s", test_folder(), path);
    auto_close int fd = open(name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    return fd >= 0 && read(fd, bytes, sizeof(bytes) - 1) >= 0 && strcmp(bytes, text) == 0;
}

static const char *here(const char *name)
{
    static char paths[4][4096];
    static int count;
    char *path = paths[count++ % 4];
    snprintf(path, 4096, "%s/%s", test_folder(), name);
    return path;
}

/* ---- files ---- */

TEST(files_are_looked_at_and_listed)
{
    struct fake *fake = begin();
    struct vial_file_info info = VIAL_FILE_INFO_INIT, *list = NULL;
    size_t count = 0;
    CHECK_INT(vial_sandbox_stat(fake_sandbox(fake), "/file", &info, &err), 0);
    CHECK(S_ISREG(info.mode) && info.bytes == 8 && info.mtime_s == 5);
    CHECK_INT(vial_sandbox_stat(fake_sandbox(fake), "/none", &info, &err), -ENOENT);
    CHECK_TEXT(err.message, "sandbox \"web\": cannot look at /none: No such file or directory");
    CHECK_INT(vial_sandbox_stat(fake_sandbox(fake), "file", &info, &err), -EINVAL);
    CHECK_INT(vial_sandbox_list_folder(fake_sandbox(fake), "/", &list, &count, &err), 0);
    CHECK_INT(count, 2);
    CHECK_TEXT(list[1].name, "two\n");
    free(list);
    list = NULL;
    mischief = WRONG_NAMES;
    CHECK_INT(vial_sandbox_list_folder(fake_sandbox(fake), "/", &list, &count, &err), -EPROTO);
    CHECK(list == NULL);
    CHECK_INT(vial_sandbox_make_folder(fake_sandbox(fake), "/new", 0700, false, &err), 0);
    CHECK_INT(vial_sandbox_make_folder(fake_sandbox(fake), "/new", 0700, false, &err), -EEXIST);
    fake_free(fake);
}

TEST(contents_are_read_and_written)
{
    struct fake *fake = begin();
    static char much[300000];
    void *bytes = NULL;
    size_t length = 0;
    memset(much, 'm', sizeof(much));
    CHECK_INT(vial_sandbox_read_file(fake_sandbox(fake), "/file", 8, &bytes, &length, &err), 0);
    CHECK_INT(length, 8);
    CHECK_TEXT((char *)bytes, "contents");
    free(bytes);
    bytes = NULL;
    CHECK_INT(vial_sandbox_read_file(fake_sandbox(fake), "/file", 7, &bytes, &length, &err), -EFBIG);
    mischief = ENDLESS;
    CHECK_INT(vial_sandbox_read_file(fake_sandbox(fake), "/file", 4 << 20, &bytes, &length, &err), -EFBIG);
    mischief = NO_MISCHIEF;
    CHECK(bytes == NULL);
    CHECK_INT(vial_sandbox_write_file(fake_sandbox(fake), "/out", 0600, much, sizeof(much), &err), 0);
    CHECK_INT(vial_sandbox_read_file(fake_sandbox(fake), "/out", sizeof(much), &bytes, &length, &err), 0);
    CHECK(length == sizeof(much) && memcmp(bytes, much, length) == 0);
    free(bytes);
    CHECK_INT(vial_sandbox_write_file(fake_sandbox(fake), "/empty", 0600, "", 0, &err), 0);
    CHECK(is_file("guest/empty", ""));
    CHECK_INT(vial_sandbox_write_file(fake_sandbox(fake), "/no/such", 0600, "x", 1, &err), -ENOENT);
    mischief = TAKES_LITTLE;
    CHECK_INT(vial_sandbox_write_file(fake_sandbox(fake), "/out", 0600, much, sizeof(much), &err), -EPROTO);
    fake_free(fake);
}

/* ---- trees ---- */

static bool count_progress(void *user, uint64_t files, uint64_t bytes)
{
    uint64_t *last = user;
    last[0] = files;
    last[1] = bytes;
    return true;
}

TEST(trees_go_in_where_cp_would_put_them)
{
    static const struct {
        const char *from, *to, *file;
        int result;
    } cases[] = {
        {"tree", "/new", "guest/new/a", 0},
        {"tree", "/folder", "guest/folder/tree/a", 0},
        {"tree/", "/folder/", "guest/folder/tree/a", 0},
        {"tree/.", "/folder", "guest/folder/a", 0},
        {"tree", "/other/", "guest/other/a", 0},
        {"tree/a", "/b", "guest/b", 0},
        {"tree/a", "/folder/", "guest/folder/a", 0},
        {"tree/a", "/none/", NULL, -ENOTDIR},
        {"tree", "/file", NULL, -ENOTDIR},
        {"tree/a/", "/x", NULL, -ENOTDIR},
        {"tree/none", "/x", NULL, -ENOENT},
        {"tree", "relative", NULL, -EINVAL},
        {"tree", "/no/such/place", NULL, -ENOSPC},
    };
    struct fake *fake = begin();
    test_text_file("tree/a", "A");
    test_text_file("tree/deep/b", "B");
    for (size_t i = 0; i < array_length(cases); i++) {
        uint64_t progress[2] = {0};
        if (cases[i].result == -ENOSPC)
            continue; /* the thread of this test would abort: its agent is simpler than a real one */
        int result = vial_sandbox_copy_in(fake_sandbox(fake), here(cases[i].from), cases[i].to, count_progress,
                                          progress, &err);
        if (result != cases[i].result)
            printf("# %s to %s: %s\n", cases[i].from, cases[i].to, err.message);
        CHECK_INT(result, cases[i].result);
        CHECK(cases[i].file == NULL || is_file(cases[i].file, "A"));
        CHECK(result < 0 || progress[1] > 0);
    }
    fake_free(fake);
}

TEST(trees_come_out_where_cp_would_put_them)
{
    static const struct {
        const char *from, *to, *file;
        int result;
    } cases[] = {
        {"/tree", "new", "new/a", 0},
        {"/tree", "folder", "folder/tree/a", 0},
        {"/tree/.", "folder", "folder/a", 0},
        {"/tree/.", "newer", "newer/a", 0},
        {"/tree/a", "b", "b", 0},
        {"/tree/a", "folder/", "folder/a", 0},
        {"/tree/a", "none/", NULL, -ENOTDIR},
        {"/tree", "file", NULL, -ENOTDIR},
        {"/tree/a/", "x", NULL, -ENOTDIR},
        {"/none", "x", NULL, -ENOENT},
        {"/tree", "no/such/place", NULL, -ENOENT},
    };
    struct fake *fake = begin();
    test_text_file("guest/tree/a", "A");
    test_text_file("guest/tree/deep/b", "B");
    test_make_folder("folder");
    test_text_file("file", "mine");
    for (size_t i = 0; i < array_length(cases); i++) {
        int result = vial_sandbox_copy_out(fake_sandbox(fake), cases[i].from, here(cases[i].to), NULL, NULL, &err);
        if (result != cases[i].result)
            printf("# %s to %s: %s\n", cases[i].from, cases[i].to, err.message);
        CHECK_INT(result, cases[i].result);
        CHECK(cases[i].file == NULL || is_file(cases[i].file, "A"));
    }
    CHECK(is_file("file", "mine"));
    fake_free(fake);
}

static bool stop_at_once(void *user, uint64_t files, uint64_t bytes)
{
    (void)user;
    (void)files;
    (void)bytes;
    return false;
}

TEST(copies_that_go_wrong_end)
{
    struct fake *fake = begin();
    test_text_file("guest/tree/a", "A");
    mischief = NO_TREE;
    CHECK_INT(vial_sandbox_copy_out(fake_sandbox(fake), "/tree", here("x"), NULL, NULL, &err), -EPROTO);
    mischief = HALF_A_TREE;
    CHECK_INT(vial_sandbox_copy_out(fake_sandbox(fake), "/tree", here("y"), NULL, NULL, &err), -EPROTO);
    mischief = NO_MISCHIEF;
    CHECK_INT(vial_sandbox_copy_out(fake_sandbox(fake), "/tree", here("z"), stop_at_once, NULL, &err), -ECANCELED);
    mischief = NOTHING_BUT_FOLDERS;
    CHECK_INT(vial_sandbox_copy_out(fake_sandbox(fake), "/tree", here("f"), stop_at_once, NULL, &err), -ECANCELED);
    fake_free(fake);
}

TEST(copies_survive_no_memory)
{
    struct fake *fake = begin();
    test_text_file("guest/tree/a", "A");
    FOR_EACH_FAULT
    CHECK_INT(vial_sandbox_copy_out(fake_sandbox(fake), "/tree", here("x"), NULL, NULL, &err),
              fault_was_hit() ? -ENOMEM : 0);
    FOR_EACH_FAULT
    CHECK_INT(vial_sandbox_copy_in(fake_sandbox(fake), here("guest/tree"), "/y", NULL, NULL, &err),
              fault_was_hit() ? -ENOMEM : 0);
    fake_free(fake);
}
