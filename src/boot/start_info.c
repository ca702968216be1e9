// SPDX-License-Identifier: Apache-2.0
/* What a kernel finds when it starts by the PVH protocol. (Xen, "x86/HVM direct boot ABI": struct hvm_start_info)
 *
 * The kernel is entered in 32-bit mode with the address of start_info in EBX. Everything else hangs on it by physical
 * addresses. Version 1 has the memory map, without which the kernel would ask a Xen that is not there.
 *
 * Invariants: (1) the map fits into its page. (2) no address is 0 unless there is no such thing.
 *
 * Trust: nothing here comes from the guest or from an image.
 */
#include "boot/start_info.h"

#include "boot/layout.h"
#include "boot/ram_map.h"

enum { magic_number = 0x336ec578, format_version = 1 };

struct start_info {
    uint32_t magic; /* "xEn3" with the high bit of the E set */
    uint32_t version;
    uint32_t flags;
    uint32_t module_count;
    uint64_t modules;
    uint64_t cmdline;
    uint64_t rsdp; /* 0: no ACPI */
    uint64_t memory_map;
    uint32_t memory_map_count;
    uint32_t reserved;
};
_Static_assert(sizeof(struct start_info) == 56, "part of the protocol");
_Static_assert(BOOT_START_INFO + sizeof(struct start_info) <= BOOT_MODULES, "start_info would reach into the modules");

struct module {
    uint64_t address;
    uint64_t size;
    uint64_t cmdline;
    uint64_t reserved;
};
_Static_assert(sizeof(struct module) == 32, "part of the protocol");

struct map_entry {
    uint64_t address;
    uint64_t size;
    uint32_t type;
    uint32_t reserved;
};
_Static_assert(sizeof(struct map_entry) == 24, "part of the protocol");

static int write_map(const struct memory *memory, uint32_t *ret_count)
{
    struct ram_map map;
    struct map_entry entries[sizeof(map.ranges) / sizeof(map.ranges[0])] = {0};
    _Static_assert(sizeof(entries) <= BOOT_STACK - BOOT_MEMORY_MAP, "the memory map would reach into the stack's page");
    ram_map_make(memory, &map);
    for (size_t i = 0; i < map.count; i++)
        entries[i] = (struct map_entry){map.ranges[i].begin, map.ranges[i].size, map.ranges[i].type, 0};
    *ret_count = (uint32_t)map.count;
    return memory_write(memory, BOOT_MEMORY_MAP, entries, map.count * sizeof(entries[0]));
}

int start_info_write(const struct memory *memory, const struct initramfs *initramfs, uint64_t rsdp)
{
    struct start_info info = {
        .magic = magic_number,
        .version = format_version,
        .cmdline = BOOT_CMDLINE,
        .rsdp = rsdp,
        .memory_map = BOOT_MEMORY_MAP,
    };
    struct module module = {.address = initramfs->address, .size = initramfs->size};
    int result = write_map(memory, &info.memory_map_count);
    if (result == 0 && initramfs->size > 0) {
        info.module_count = 1;
        info.modules = BOOT_MODULES;
        result = memory_write(memory, BOOT_MODULES, &module, sizeof(module));
    }
    return result == 0 ? memory_write(memory, BOOT_START_INFO, &info, sizeof(info)) : result;
}
