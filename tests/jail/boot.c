// SPDX-License-Identifier: Apache-2.0
/* Boots a user-mode Linux kernel in a jail, for tests/e2e/jail: KERNEL GUEST MIB WORD…
 *
 * GUEST is the guest's first program; WORDs go to the kernel. What the kernel and the guest say goes to standard
 * output, and then what became of it:
 *
 *     walls: user namespace, …
 *     start: 4.6 ms
 *     end: exit 0, 512 ms
 */
#include "base/clock.h"
#include "base/fd.h"
#include "engine/uml/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { most_words = 32 };

/* One entry of a "newc" archive (Linux, initramfs buffer format). */
static void add_entry(struct buffer *archive, const char *name, unsigned mode, unsigned device, const char *bytes,
                      size_t length)
{
    static const char zeros[4];
    buffer_format(archive, "070701%08x%08x%08x%08x%08x%08x%08zx%08x%08x%08x%08x%08zx%08x", 1u, mode, 0u, 0u, 1u, 0u,
                  length, 0u, 0u, device >> 8, device & 255, strlen(name) + 1, 0u);
    buffer_add(archive, name, strlen(name) + 1);
    buffer_add(archive, zeros, -archive->length & 3);
    buffer_add(archive, bytes, length);
    buffer_add(archive, zeros, -archive->length & 3);
}

static int make_initramfs(const char *guest)
{
    auto_buffer struct buffer program = BUFFER_INIT(64 << 20), archive = BUFFER_INIT(65 << 20);
    if (fd_read_file(guest, &program) < 0)
        return -1;
    add_entry(&archive, "dev", S_IFDIR | 0755, 0, NULL, 0);
    add_entry(&archive, "dev/console", S_IFCHR | 0600, 5 << 8 | 1, NULL, 0);
    add_entry(&archive, "init", S_IFREG | 0755, 0, program.data, program.length);
    add_entry(&archive, "TRAILER!!!", 0, 0, NULL, 0);
    int fd = memfd_create("initramfs", MFD_CLOEXEC);
    return archive.error == 0 && fd >= 0 && fd_write_all(fd, archive.data, archive.length) == 0 ? fd : fd_close(fd);
}

static int die(const char *what, const struct vial_error *error)
{
    printf("%s: %s (%s)\n", what, error->message, error->remedy);
    return 1;
}

static int start(struct jail *jail, const char *kernel, const char *mib, char *words[], struct vial_error *error)
{
    char memory[32], state[160], initrd[160], folder[160];
    const char *arguments[most_words + 16] = {kernel,     memory,           state,       initrd,    "seccomp=on",
                                              "con=null", "con0=fd:0,fd:1", "root=98:0", "panic=-1"};
    const char *const environment[] = {folder, NULL};
    snprintf(memory, sizeof(memory), "mem=%sM", mib);
    snprintf(state, sizeof(state), "uml_dir=%s", jail_state_folder(jail).text);
    snprintf(initrd, sizeof(initrd), "initrd=%s", jail_initramfs_path(jail).text);
    snprintf(folder, sizeof(folder), "TMPDIR=%s", jail_memory_folder(jail).text);
    for (size_t i = 0; words[i] != NULL && i < most_words; i++)
        arguments[9 + i] = words[i];
    auto_close int program_fd = open(kernel, O_RDONLY | O_CLOEXEC), nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct jail_program program = {
        .fd = program_fd,
        .arguments = arguments,
        .environment = environment,
        .stdin_fd = nothing,
        .stdout_fd = STDOUT_FILENO,
        .stderr_fd = STDERR_FILENO,
    };
    return jail_start(jail, &program, error);
}

int main(int argc, char *argv[])
{
    if (argc < 4)
        return 2;
    struct vial_error error = {0};
    struct jail *jail = NULL;
    struct jail_end end;
    auto_close int initramfs_fd = make_initramfs(argv[2]);
    struct jail_options options = {
        .memory_bytes = (uint64_t)strtoul(argv[3], NULL, 10) << 20,
        .initramfs_fd = initramfs_fd,
        .allows_missing_walls = getenv("JAIL_ALLOWS_MISSING_WALLS") != NULL,
    };
    setvbuf(stdout, NULL, _IONBF, 0);
    if (jail_prepare(&options, &jail, &error) < 0)
        return die("prepare", &error);
    uint64_t began = clock_now_ns();
    int result = start(jail, argv[1], argv[3], argv + 4, &error);
    uint64_t started = clock_now_ns();
    if (result < 0) {
        jail_free(jail);
        return die("start", &error);
    }
    auto_buffer struct buffer walls = BUFFER_INIT(4096);
    jail_describe(jail, &walls);
    struct pollfd ended = {.fd = jail_pidfd(jail), .events = POLLIN};
    poll(&ended, 1, -1);
    uint64_t ended_ns = clock_now_ns();
    result = jail_end(jail, &end);
    jail_free(jail);
    printf("walls: %s\nstart: %.2f ms\n", walls.data, (double)(started - began) / 1e6);
    printf("end: %s %d, %.0f ms\n",
           result < 0       ? "unknown"
           : end.was_killed ? "killed"
                            : "exit",
           end.status, (double)(ended_ns - started) / 1e6);
    return 0;
}
