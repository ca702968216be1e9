// SPDX-License-Identifier: Apache-2.0
/* Any bytes as a VMDK disk: a descriptor, whose extents are files of a scratch folder that hold the same bytes, or a
 * sparse extent. What must hold: it opens, or a reason is given; where the map says that bytes lie, they do, and they
 * are those that a read gives. */
#include "fuzz.h"

#include "disk/open.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { piece = 3 << 10, most_pieces = 64 };

static char folder[PATH_MAX], paths[3][PATH_MAX + 16];

static void remove_folder(void)
{
    for (int i = 0; i < 3; i++)
        unlink(paths[i]);
    rmdir(folder);
}

static void make_folder(void)
{
    static const char *const names[] = {"disk", "a", "b"};
    const char *temporary = getenv("TMPDIR");
    snprintf(folder, sizeof(folder), "%s/vial-fuzz-XXXXXX", temporary != NULL ? temporary : "/tmp");
    FUZZ_CHECK(mkdtemp(folder) != NULL && atexit(remove_folder) == 0);
    for (int i = 0; i < 3; i++)
        snprintf(paths[i], sizeof(paths[i]), "%s/%s", folder, names[i]);
}

static void write_files(const uint8_t *data, size_t size)
{
    for (int i = 0; i < 3; i++) {
        int fd = open(paths[i], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        FUZZ_CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size && close(fd) == 0);
    }
}

/* What a read gives against what the map says. */
static void compare(struct disk *disk, uint64_t offset, uint64_t length)
{
    static uint8_t bytes[piece], mapped[piece];
    struct iovec part = {bytes, (size_t)length};
    struct disk_extent extent;
    uint64_t known = 0;
    bool is_zero = false;
    int result = disk_read(disk, &part, 1, offset);
    FUZZ_CHECK(result == 0 || result == -EIO);
    if (disk_status(disk, offset, length, &is_zero, &known) == 0)
        FUZZ_CHECK(known >= 1 && known <= length);
    if (disk_map(disk, offset, length, false, &extent) < 0)
        return;
    memset(mapped, 0, sizeof(mapped));
    FUZZ_CHECK(extent.length >= 1 && extent.length <= length);
    if (extent.kind == DISK_EXTENT_FILE)
        FUZZ_CHECK(pread(extent.fd, mapped, extent.length, (off_t)extent.offset) == (ssize_t)extent.length);
    FUZZ_CHECK(result < 0 || memcmp(bytes, mapped, extent.length) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct disk_properties properties;
    struct disk *disk = NULL;
    struct vial_error error = {0};
    if (folder[0] == '\0')
        make_folder();
    write_files(data, size);
    const struct disk_options options = {.path = paths[0], .format = VIAL_DISK_VMDK, .read_only = true};
    if (disk_open(&options, &disk, &error) < 0) {
        FUZZ_CHECK(error.message[0] != '\0');
        return 0;
    }
    disk_describe(disk, &properties);
    uint64_t step = properties.size_bytes / most_pieces < piece ? piece : properties.size_bytes / most_pieces;
    for (uint64_t offset = 0; offset < properties.size_bytes; offset += step) {
        uint64_t left = properties.size_bytes - offset;
        compare(disk, offset, left < piece ? left : piece);
    }
    disk_free(disk);
    return 0;
}
