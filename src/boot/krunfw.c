// SPDX-License-Identifier: Apache-2.0
/* Loading the kernel that a libkrunfw holds.
 *
 * libkrunfw is a shared library around one array, a flat kernel image in pages of 64 KiB, with a function that tells
 * where it is and where it goes:
 *
 *     char *krunfw_get_kernel(size_t *load_address, size_t *entry_address, size_t *size);   since its ABI 5
 *     int krunfw_get_version(void);
 *
 * The bytes lie in the library's file as they lie in memory, so they are placed from the file (boot/place.c): mapped,
 * not copied. The loader is asked which segment they belong to. Once they are placed nothing points into the library
 * any more, and it is closed.
 *
 * Invariants: (1) bytes that are copied or mapped lie wholly inside a segment of the library. (2) they are only taken
 * from the file when the file is the one that is loaded; a copy of the memory is always right. (3) the library is
 * closed whatever happens.
 *
 * Trust: the library's code runs in this process, so it is trusted as the program is; what it answers is checked like
 * any image's header, because a library of another ABI answers nonsense without meaning harm.
 */
#include "boot/krunfw.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/log.h"
#include "boot/flat.h"
#include "boot/place.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <string.h>

enum { page_bytes = 4096 };

/* What the library answers. */
struct answer {
    const uint8_t *bytes;
    size_t load, entry, size;
};

/* Where the bytes lie in the library, as far as it is known. */
struct origin {
    struct answer answer;
    bool is_inside;  /* of one of the library's segments */
    bool is_in_file; /* of that segment's part that comes from the file, at `offset` */
    uint64_t offset;
    const uint8_t *first_page; /* of the file, as it is loaded; NULL where it is not */
};

static void close_library(void **library)
{
    if (*library != NULL)
        dlclose(*library);
}

/* A name without a slash would be looked up in the system's folders instead of the current one (dlopen(3)). */
static int open_library(const char *path, void **ret_library, struct boot_reason *reason)
{
    enum { most_path_bytes = 4096 + 2 };
    auto_free char *name = alloc_zero(most_path_bytes);
    if (name == NULL)
        return -ENOMEM;
    snprintf(name, most_path_bytes, "%s%s", strchr(path, '/') != NULL ? "" : "./", path);
    *ret_library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    return *ret_library != NULL ? 0 : reason_set(reason, "%s", dlerror());
}

static int ask(void *library, struct answer *ret_answer, struct boot_reason *reason)
{
    union {
        void *symbol;
        char *(*get_kernel)(size_t *load, size_t *entry, size_t *size);
        int (*get_version)(void);
    } kernel = {.symbol = dlsym(library, "krunfw_get_kernel")},
      version = {.symbol = dlsym(library, "krunfw_get_version")};
    struct answer answer = {0};
    if (kernel.symbol == NULL)
        return reason_set(reason, "it has no function krunfw_get_kernel");
    answer.bytes = (const uint8_t *)kernel.get_kernel(&answer.load, &answer.entry, &answer.size);
    log_debug("boot.krunfw", LOG_INT("version", version.symbol != NULL ? version.get_version() : 0),
              LOG_HEX("load", answer.load), LOG_HEX("entry", answer.entry), LOG_UINT("size", answer.size));
    if (answer.bytes == NULL || answer.size == 0) /* a library before ABI 5 leaves the size alone */
        return reason_set(reason, "it hands out no kernel; a libkrunfw.so.5 is needed");
    *ret_answer = answer;
    return 0;
}

/* For dl_iterate_phdr(3): does this object have the bytes in one of its segments? */
static int look_into_object(struct dl_phdr_info *object, size_t size, void *user)
{
    struct origin *origin = user;
    (void)size;
    const uint8_t *first_page = NULL;
    for (size_t i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD)
            continue;
        uint64_t start = object->dlpi_addr + segment->p_vaddr;
        if (segment->p_offset == 0 && segment->p_filesz >= sizeof(ElfW(Ehdr)))
            first_page = (const uint8_t *)(uintptr_t)start;
        uint64_t inside = (uint64_t)(uintptr_t)origin->answer.bytes - start; /* huge below the segment */
        if (inside >= segment->p_memsz || origin->answer.size > segment->p_memsz - inside)
            continue;
        origin->is_inside = true;
        origin->is_in_file = inside < segment->p_filesz && origin->answer.size <= segment->p_filesz - inside;
        origin->offset = segment->p_offset + inside;
    }
    if (origin->is_inside)
        origin->first_page = first_page;
    return origin->is_inside;
}

static bool has_bytes(int fd, uint64_t offset, const uint8_t *expected, size_t length)
{
    uint8_t bytes[page_bytes];
    struct boot_reason ignored;
    return place_read(fd, bytes, length, offset, &ignored) == 0 && memcmp(bytes, expected, length) == 0;
}

/* The path may name another file by now, or the loader may have had an older one of that name in memory. The ELF header
 * names the file's layout; the image's first and last bytes are what would differ first between two kernels. */
static bool is_loaded_file(int fd, const struct origin *origin)
{
    const struct answer *answer = &origin->answer;
    size_t length = answer->size < page_bytes ? answer->size : page_bytes;
    size_t last = answer->size - length;
    return origin->is_in_file && origin->first_page != NULL &&
           has_bytes(fd, 0, origin->first_page, sizeof(ElfW(Ehdr))) &&
           has_bytes(fd, origin->offset, answer->bytes, length) &&
           has_bytes(fd, origin->offset + last, answer->bytes + last, length);
}

static int place(const char *path, const struct origin *origin, const struct memory *memory, struct boot_reason *reason)
{
    const struct answer *answer = &origin->answer;
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0 && is_loaded_file(fd, origin))
        return place_file(fd, origin->offset, answer->size, memory, answer->load, reason);
    return memory_write(memory, answer->load, answer->bytes, answer->size);
}

int krunfw_load(const char *path, const struct memory *memory, struct boot_image *ret_image, struct boot_reason *reason)
{
    __attribute__((cleanup(close_library))) void *library = NULL;
    struct origin origin = {0};
    struct boot_image image = {0};
    int result = open_library(path, &library, reason);
    if (result == 0)
        result = ask(library, &origin.answer, reason);
    if (result == 0)
        result = flat_check(memory, origin.answer.load, origin.answer.entry, origin.answer.size, &image, reason);
    if (result < 0)
        return result;
    dl_iterate_phdr(look_into_object, &origin);
    if (!origin.is_inside)
        return reason_set(reason, "the kernel that it hands out lies outside of the library");
    result = place(path, &origin, memory, reason);
    if (result == 0)
        *ret_image = image;
    return result;
}
