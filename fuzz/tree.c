// SPDX-License-Identifier: Apache-2.0
/* Any bytes as a tree's stream, written into a folder. What must hold: nothing outside of the top is made, changed or
 * removed; what was taken to its end can be read again, and no device or set-id bit is among it. */
#include "fuzz.h"

#include "proto/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A scratch folder with a "top" to write into, and beside it a file and a folder that stay as they are. */
static int scratch = -1;
static char scratch_path[64];

static void empty(int folder, const char *name)
{
    FUZZ_CHECK(fchmodat(folder, name, 0700, 0) == 0);
    int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    FUZZ_CHECK(fd >= 0);
    DIR *stream = fdopendir(fd);
    for (const struct dirent *entry; (entry = readdir(stream)) != NULL;) {
        struct stat status;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        FUZZ_CHECK(fstatat(fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0);
        FUZZ_CHECK(S_ISREG(status.st_mode) || S_ISDIR(status.st_mode) || S_ISLNK(status.st_mode) ||
                   S_ISFIFO(status.st_mode));
        FUZZ_CHECK((status.st_mode & (S_ISUID | S_ISGID)) == 0);
        if (S_ISDIR(status.st_mode))
            empty(fd, entry->d_name);
        FUZZ_CHECK(unlinkat(fd, entry->d_name, S_ISDIR(status.st_mode) ? AT_REMOVEDIR : 0) == 0);
    }
    closedir(stream);
}

static void remove_scratch(void)
{
    (void)unlinkat(scratch, "outside/secret", 0);
    (void)unlinkat(scratch, "outside", AT_REMOVEDIR);
    (void)unlinkat(scratch, "top", AT_REMOVEDIR);
    (void)rmdir(scratch_path);
}

static void set_up(void)
{
    const char *folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : getenv("TMPDIR");
    snprintf(scratch_path, sizeof(scratch_path), "%.40s/fuzz-tree-XXXXXX", folder != NULL ? folder : ".");
    FUZZ_CHECK(mkdtemp(scratch_path) != NULL);
    scratch = open(scratch_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    FUZZ_CHECK(mkdirat(scratch, "top", 0700) == 0 && mkdirat(scratch, "outside", 0700) == 0);
    int fd = openat(scratch, "outside/secret", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    FUZZ_CHECK(write(fd, "secret", 6) == 6);
    close(fd);
    atexit(remove_scratch);
}

static void check_outside(void)
{
    struct stat status;
    char text[8];
    int fd = openat(scratch, "outside/secret", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    FUZZ_CHECK(fd >= 0 && read(fd, text, sizeof(text)) == 6 && memcmp(text, "secret", 6) == 0);
    FUZZ_CHECK(fstat(fd, &status) == 0 && status.st_nlink == 1 && (status.st_mode & 07777) == 0600);
    close(fd);
    FUZZ_CHECK(fstatat(scratch, "outside", &status, 0) == 0 && (status.st_mode & 07777) == 0700);
}

/* Files of a hostile size are all holes: reading them takes no time. */
static void read_again(void)
{
    static uint8_t bytes[64 << 10];
    struct tree_failure failure;
    struct tree_reader *reader = NULL;
    FUZZ_CHECK(tree_reader_new(scratch, "top", &reader) == 0);
    long got = 0;
    while ((got = tree_reader_next(reader, bytes, sizeof(bytes), &failure)) > 0)
        continue;
    FUZZ_CHECK(got == 0 || (got == -EACCES && geteuid() != 0));
    tree_reader_free(reader);
}

/* Its first byte says in pieces of what size the rest comes. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tree_writer *writer = NULL;
    struct tree_failure failure;
    if (size == 0)
        return 0;
    if (scratch < 0)
        set_up();
    FUZZ_CHECK(tree_writer_new(scratch, "top", TREE_NO_TOP, &writer) == 0);
    size_t piece = (size_t)data[0] + 1;
    int result = 0;
    for (size_t at = 1; at < size && result == 0; at += piece)
        result = tree_writer_add(writer, data + at, size - at < piece ? size - at : piece, &failure);
    if (result == 0)
        result = tree_writer_end(writer, &failure);
    FUZZ_CHECK(result <= 0 && (result == 0 || failure.os_error == -result));
    tree_writer_free(writer);
    if (result == 0)
        read_again();
    check_outside();
    empty(scratch, "top");
    return 0;
}
