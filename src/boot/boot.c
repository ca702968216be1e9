// SPDX-License-Identifier: Apache-2.0
/* Everything that a machine's memory holds when it starts.
 *
 *     format     what it is                       loader                  protocol
 *     elf        vmlinux                          elf.c                   PVH, or Linux's 64-bit entry
 *     image-*    a compressed vmlinux, a bzImage  unpack.c, then elf.c    as its content
 *     bzimage    a bzImage that unpacks itself    bzimage.c               Linux's 64-bit entry
 *     raw        a flat image                     flat.c                  Linux's 64-bit entry
 *     (krunfw)   a flat image in a library        krunfw.c                Linux's 64-bit entry
 *
 * The loaders know phrases about an image, not settings; here phrases become errors with the setting's name and path.
 *
 * Invariants: (1) kernel, initramfs and the tables of boot/layout.h never share a byte. (2) with the 64-bit entry, the
 * kernel lies in what the page tables map.
 *
 * Trust: images may be anything, paths are the user's; the command line has been put together by boot/cmdline.c.
 */
#include "boot/boot.h"

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "boot/bzimage.h"
#include "boot/elf.h"
#include "boot/flat.h"
#include "boot/format.h"
#include "boot/initramfs.h"
#include "boot/krunfw.h"
#include "boot/layout.h"
#include "boot/linux64.h"
#include "boot/mptable.h"
#include "boot/place.h"
#include "boot/start_info.h"
#include "boot/unpack.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* A file that a setting names. */
struct subject {
    const char *field, *path, *what;
};

/* Turns what a loader returned into an error about its file. */
static int explain(const struct subject *subject, int result, const struct boot_reason *reason, struct vial_error *err)
{
    struct error_text path = error_short(subject->path);
    if (result == -ENOMEM)
        return error_no_memory(err, VIAL_PHASE_LOAD);
    if (result != -EINVAL)
        result = error_set_os(err, VIAL_PHASE_LOAD, result, "cannot load the %s %s", subject->what, path.text);
    else
        result = error_set(err, reason->wants_memory ? VIAL_ERROR_OUT_OF_RANGE : VIAL_ERROR_INVALID, VIAL_PHASE_LOAD,
                           "cannot load the %s %s: %s", subject->what, path.text, reason->text);
    error_field(err, "%s", subject->field);
    error_value(err, "%s", subject->path);
    if (reason->wants_memory)
        error_remedy(err, "give the machine more memory (machine.memory_mib)");
    else
        error_remedy(err, "give another file, or check that this one is whole");
    return result;
}

static int load_unpacked(int fd, enum vial_kernel_format format, const struct memory *memory, struct boot_image *image,
                         struct boot_reason *reason)
{
    auto_close int unpacked = -1;
    struct boot_reason inner = {0};
    int result = unpack_image(fd, format, &unpacked, reason);
    if (result < 0)
        return result;
    result = elf_load(unpacked, memory, image, &inner);
    if (result == -EINVAL) {
        reason_set(reason, "what it unpacks to is of no use: %s", inner.text);
        reason->wants_memory = inner.wants_memory;
    }
    return result;
}

static int load_format(int fd, enum vial_kernel_format format, const struct memory *memory, struct boot_image *image,
                       struct boot_reason *reason)
{
    const char *why = NULL;
    int result = 0;
    if (format == VIAL_KERNEL_AUTO)
        result = kernel_format_detect(fd, &format, &why);
    if (result < 0)
        return result == -EINVAL ? reason_set(reason, "%s", why) : result;
    switch (format) {
    case VIAL_KERNEL_RAW:
        return flat_load(fd, memory, image, reason);
    case VIAL_KERNEL_ELF:
        return elf_load(fd, memory, image, reason);
    case VIAL_KERNEL_BZIMAGE:
        return bzimage_load(fd, memory, image, reason);
    case VIAL_KERNEL_PE_GZ:
    case VIAL_KERNEL_IMAGE_BZ2:
    case VIAL_KERNEL_IMAGE_GZ:
    case VIAL_KERNEL_IMAGE_ZSTD:
        return load_unpacked(fd, format, memory, image, reason);
    case VIAL_KERNEL_AUTO:
        break;
    }
    return reason_set(reason, "its format is unknown");
}

static int load_kernel(const struct boot_options *options, const struct memory *memory, struct boot_image *image,
                       struct vial_error *err)
{
    struct boot_reason reason = {0};
    bool is_library = options->krunfw != NULL;
    const struct subject subject = {
        .field = is_library ? "kernel.krunfw" : "kernel.path",
        .path = is_library ? options->krunfw : options->kernel_path,
        .what = is_library ? "kernel of the library" : "kernel",
    };
    int result = is_library ? krunfw_load(options->krunfw, memory, image, &reason)
                            : load_format(options->kernel_fd, options->format, memory, image, &reason);
    if (result == 0 && image->protocol == BOOT_LINUX64 && image->end > BOOT_MAPPED_END)
        result = reason_set(&reason, "it lies above 1 GiB, beyond what is mapped at its 64-bit entry");
    return result < 0 ? explain(&subject, result, &reason, err) : 0;
}

static int load_initramfs(const struct boot_options *options, const struct memory *memory,
                          const struct boot_image *image, struct initramfs *initramfs, struct vial_error *err)
{
    struct boot_reason reason = {0};
    const struct subject subject = {"kernel.initramfs", options->initramfs_path, "initramfs"};
    if (options->initramfs_fd < 0)
        return 0;
    int result = initramfs_load(options->initramfs_fd, memory, image, initramfs, &reason);
    return result < 0 ? explain(&subject, result, &reason, err) : 0;
}

static int write_cmdline(const struct boot_options *options, const struct memory *memory,
                         const struct boot_image *image, struct vial_error *err)
{
    size_t length = strlen(options->cmdline), most = BOOT_CMDLINE_BYTES - 1;
    /* What this kernel takes (boot protocol 2.06, cmdline_size): more would be cut without a word. */
    if (image->has_setup_header && image->setup_header.cmdline_size < most)
        most = image->setup_header.cmdline_size;
    if (length <= most)
        return memory_write(memory, BOOT_CMDLINE, options->cmdline, length + 1);
    int result = error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_LOAD,
                           "the kernel command line is %zu bytes long, and this kernel takes %zu", length, most);
    error_field(err, "kernel.cmdline");
    error_remedy(err, "append less, use fewer devices, or tell of them by ACPI (machine.acpi)");
    return result;
}

static int check_memory(const struct memory *memory, struct vial_error *err)
{
    if (place_low_end(memory) > BOOT_HIGH_MEMORY)
        return 0;
    int result = error_set(err, VIAL_ERROR_OUT_OF_RANGE, VIAL_PHASE_LOAD,
                           "the machine has no memory above 1 MiB, where kernels lie");
    error_field(err, "machine.memory_mib");
    error_remedy(err, "give the machine more memory");
    return result;
}

static int write_tables(const struct boot_options *options, const struct memory *memory, const struct boot_image *image,
                        const struct initramfs *initramfs)
{
    const struct acpi_machine machine = {
        .vcpus = options->vcpus,
        .devices = options->devices,
        .device_count = options->device_count,
        .serials = options->serials,
        .serial_count = options->serial_count,
    };
    uint64_t rsdp = options->has_acpi ? BOOT_ACPI : 0;
    int result = mptable_write(memory, options->vcpus, options->interrupt_pins);
    if (result == 0 && options->has_acpi)
        result = acpi_write(memory, &machine);
    if (result < 0)
        return result;
    return image->protocol == BOOT_PVH ? start_info_write(memory, initramfs, rsdp)
                                       : linux64_write(memory, image, initramfs, rsdp);
}

static struct boot_entry make_entry(const struct boot_image *image)
{
    if (image->protocol == BOOT_PVH)
        return (struct boot_entry){
            .protocol = BOOT_PVH,
            .entry = image->entry,
            .argument = BOOT_START_INFO,
            .stack = BOOT_STACK,
        };
    return (struct boot_entry){
        .protocol = BOOT_LINUX64,
        .entry = image->entry,
        .argument = BOOT_ZERO_PAGE,
        .stack = BOOT_STACK,
        .page_table = BOOT_PAGE_TABLE,
        .gdt_address = BOOT_GDT,
        .gdt_limit = LINUX64_GDT_BYTES - 1,
        .idt_address = BOOT_IDT,
        .idt_limit = 0,
        .code_selector = LINUX64_CODE,
        .data_selector = LINUX64_DATA,
        .code_segment = LINUX64_CODE_SEGMENT,
        .data_segment = LINUX64_DATA_SEGMENT,
    };
}

int boot_load(const struct boot_options *options, const struct memory *memory, struct boot_entry *ret_entry,
              struct vial_error *err)
{
    assert(options->krunfw != NULL || options->kernel_fd >= 0);
    struct boot_image image = {0};
    struct initramfs initramfs = {0};
    int result = check_memory(memory, err);
    if (result == 0)
        result = load_kernel(options, memory, &image, err);
    if (result == 0)
        result = load_initramfs(options, memory, &image, &initramfs, err);
    if (result == 0)
        result = write_cmdline(options, memory, &image, err);
    if (result < 0)
        return result;
    result = write_tables(options, memory, &image, &initramfs);
    assert(result == 0); /* all of it lies below 1 MiB, which is there */
    log_debug("boot.loaded", LOG_TEXT("protocol", image.protocol == BOOT_PVH ? "pvh" : "linux64"),
              LOG_HEX("entry", image.entry), LOG_HEX("begin", image.begin), LOG_HEX("end", image.end),
              LOG_HEX("initramfs", initramfs.address), LOG_UINT("initramfs_bytes", initramfs.size));
    *ret_entry = make_entry(&image);
    return 0;
}
