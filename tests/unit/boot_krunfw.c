// SPDX-License-Identifier: Apache-2.0
/* Tests of kernels that come in a libkrunfw: good ones, and libraries that answer nonsense (krunfw/library.c). */
#include "test.h"

#include "base/fd.h"
#include "boot/boot.h"
#include "boot/krunfw.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum { mib = 1 << 20, load_address = 16 * mib, entry_address = load_address + 0x123, bundle_bytes = 8192 + 100 };

static struct memory *memory;
static struct boot_image image;
static struct boot_reason reason;
static char library[4096];

static const char *library_path(const char *name)
{
    snprintf(library, sizeof(library), "%s/libkrunfw-%s.so", KRUNFW_FOLDER, name);
    return library;
}

static int load_path(const char *path)
{
    memory_free(memory);
    if (memory_new(64 * mib, false, &memory) < 0)
        abort();
    image = (struct boot_image){0};
    reason = (struct boot_reason){0};
    return krunfw_load(path, memory, &image, &reason);
}

static int load(const char *name)
{
    return load_path(library_path(name));
}

static void forget(void)
{
    memory = memory_free(memory);
}

static bool is_open(const char *path)
{
    void *handle = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    if (handle != NULL)
        dlclose(handle);
    return handle != NULL;
}

static char byte_at(uint64_t offset)
{
    return *(const char *)memory_span(memory, load_address + offset, 1);
}

/* Whether that page is a view of another file than the memory's own, which stays empty there. */
static bool is_view(uint64_t offset)
{
    char byte = 0;
    return pread(memory_region(memory, 0)->fd, &byte, 1, (off_t)(load_address + offset)) == 1 && byte == 0;
}

static bool is_loaded(char first)
{
    return image.protocol == BOOT_LINUX64 && image.entry == entry_address && image.begin == load_address &&
           image.end >= load_address + bundle_bytes && byte_at(0) == first && byte_at(4096) == '1' &&
           byte_at(8192) == '2' && byte_at(bundle_bytes - 1) == 'E' && byte_at(bundle_bytes) == 0;
}

TEST(a_kernel_is_mapped_from_its_library)
{
    for (int i = 0; i < 2; i++) {
        CHECK_INT(load("good"), 0);
        CHECK(is_loaded('K'));
        CHECK(is_view(0) && is_view(4096) && !is_view(8192));
        CHECK(!is_open(library)); /* and its bytes are still there */
    }
    forget();
}

TEST(a_library_that_is_in_use_stays)
{
    void *handle = dlopen(library_path("good"), RTLD_NOW | RTLD_LOCAL);
    CHECK_INT(load("good"), 0);
    CHECK(is_loaded('K') && is_open(library));
    CHECK_INT(memory_write(memory, load_address, "x", 1), 0); /* the guest writes to its own */
    union {
        void *symbol;
        char *(*get_kernel)(size_t *load, size_t *entry, size_t *size);
    } kernel = {.symbol = dlsym(handle, "krunfw_get_kernel")};
    size_t ignored;
    CHECK_INT(*kernel.get_kernel(&ignored, &ignored, &ignored), 'K');
    dlclose(handle);
    forget();
}

TEST(what_is_only_in_memory_is_copied)
{
    CHECK_INT(load("prepared"), 0);
    CHECK(is_loaded('P') && !is_view(4096));
    CHECK_INT(load("zeroed"), 0);
    CHECK_INT(byte_at(0), 'Z');
    CHECK(!is_view(0));
    forget();
}

TEST(a_library_whose_file_was_replaced_is_copied)
{
    char moved[4200];
    static char bytes[1 << 20];
    auto_close int fd = open(library_path("good"), O_RDONLY | O_CLOEXEC);
    ssize_t length = read(fd, bytes, sizeof(bytes));
    CHECK(length > bundle_bytes && length < (ssize_t)sizeof(bytes));
    const char *path = test_file("libkrunfw.so.5", bytes, (size_t)length);
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL); /* the loader goes by names it knows */
    CHECK(handle != NULL);
    snprintf(moved, sizeof(moved), "%s.old", path);
    CHECK_INT(rename(path, moved), 0);
    test_file("libkrunfw.so.5", "another file", 12);
    CHECK_INT(load_path(path), 0);
    CHECK(is_loaded('K') && !is_view(0));
    dlclose(handle);
    forget();
}

TEST(a_name_without_a_slash_is_in_the_current_folder)
{
    char before[4096];
    CHECK(getcwd(before, sizeof(before)) != NULL);
    CHECK_INT(chdir(KRUNFW_FOLDER), 0);
    int result = load_path("libkrunfw-good.so");
    CHECK_INT(chdir(before), 0);
    CHECK_INT(result, 0);
    CHECK(is_loaded('K') && is_view(0));
    forget();
}

#define REFUSED(name, expected)                                                                                        \
    do {                                                                                                               \
        CHECK_INT(load(name), -EINVAL);                                                                                \
        CHECK_TEXT(reason.text, expected);                                                                             \
        CHECK(image.end == 0 && !is_open(library));                                                                    \
    } while (0)

TEST(nonsense_is_refused_with_a_reason)
{
    REFUSED("nameless", "it has no function krunfw_get_kernel");
    REFUSED("empty", "it hands out no kernel; a libkrunfw.so.5 is needed");
    REFUSED("null", "it hands out no kernel; a libkrunfw.so.5 is needed");
    REFUSED("low", "it wants to lie below 1 MiB, where the boot protocols have their tables");
    REFUSED("outside", "its entry point lies outside of it");
    REFUSED("before", "its entry point lies outside of it");
    REFUSED("wrapped", "it wants to lie beyond the end of all addresses");
    REFUSED("huge", "it needs 65 MiB of memory, and the machine has 64");
    CHECK(reason.wants_memory);
    REFUSED("longer", "the kernel that it hands out lies outside of the library");
    forget();
}

TEST(what_is_no_library_is_refused_with_the_loaders_words)
{
    CHECK_INT(load_path(test_text_file("text.so", "just text, and more of it than an ELF header would be long enough")),
              -EINVAL);
    CHECK(strstr(reason.text, "text.so") != NULL);
    CHECK_INT(load("missing"), -EINVAL);
    CHECK(strstr(reason.text, "cannot open shared object file") != NULL);
    forget();
}

TEST(errors_name_the_library)
{
    struct vial_error err;
    struct boot_entry entry = {0};
    const struct boot_options options = {
        .kernel_fd = -1, .krunfw = library_path("low"), .initramfs_fd = -1, .cmdline = "", .vcpus = 1};
    CHECK_INT(memory_new(64 * mib, false, &memory), 0);
    CHECK_INT(boot_load(&options, memory, &entry, &err), -EINVAL);
    CHECK_TEXT(err.field, "kernel.krunfw");
    CHECK(strncmp(err.message, "cannot load the kernel of the library ", 38) == 0);
    CHECK(strstr(err.message, "libkrunfw-low.so: it wants to lie below 1 MiB") != NULL);
    const struct boot_options good = {
        .kernel_fd = -1, .krunfw = library_path("good"), .initramfs_fd = -1, .cmdline = "", .vcpus = 1};
    CHECK_INT(boot_load(&good, memory, &entry, &err), 0);
    CHECK_INT(entry.protocol, BOOT_LINUX64);
    CHECK_INT(entry.entry, entry_address);
    forget();
}

TEST(loading_survives_no_memory)
{
    if (memory_new(64 * mib, false, &memory) < 0)
        abort();
    FOR_EACH_FAULT
    CHECK_INT(krunfw_load(library_path("good"), memory, &image, &reason), fault_was_hit() ? -ENOMEM : 0);
    forget();
}
