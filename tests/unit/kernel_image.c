// SPDX-License-Identifier: Apache-2.0
/* Small kernel images made by hand, and what wraps them. */
#include "kernel_image.h"

#include <bzlib.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

static struct bytes bytes_new(size_t length)
{
    struct bytes bytes = {.data = calloc(1, length > 0 ? length : 1), .length = length};
    if (bytes.data == NULL)
        abort();
    return bytes;
}

void bytes_free(struct bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct bytes){0};
}

void bytes_add(struct bytes *bytes, const void *more, size_t length)
{
    bytes->data = realloc(bytes->data, bytes->length + length + 1);
    if (bytes->data == NULL)
        abort();
    memcpy(bytes->data + bytes->length, more, length);
    bytes->length += length;
}

uint8_t code_byte(size_t offset)
{
    return (uint8_t)(1 + offset % 253);
}

struct bytes make_elf(bool has_pvh)
{
    struct {
        Elf64_Ehdr header;
        Elf64_Phdr segments[2];
        Elf64_Nhdr note;
        char name[4];
        uint32_t entry;
    } head = {
        .header = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB},
                   .e_type = ET_EXEC,
                   .e_machine = EM_X86_64,
                   .e_entry = KERNEL_ELF_ENTRY,
                   .e_phoff = sizeof(Elf64_Ehdr),
                   .e_phentsize = sizeof(Elf64_Phdr),
                   .e_phnum = has_pvh ? 2 : 1},
        .segments = {{.p_type = PT_LOAD,
                      .p_offset = 4096,
                      .p_paddr = KERNEL_ADDRESS,
                      .p_filesz = KERNEL_CODE_BYTES,
                      .p_memsz = KERNEL_MEMORY_BYTES},
                     {.p_type = PT_NOTE, .p_offset = sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr), .p_filesz = 20}},
        .note = {.n_namesz = 4, .n_descsz = 4, .n_type = 18},
        .name = "Xen",
        .entry = KERNEL_PVH_ENTRY,
    };
    struct bytes elf = bytes_new(4096 + KERNEL_CODE_BYTES);
    memcpy(elf.data, &head, sizeof(head));
    for (size_t i = 0; i < KERNEL_CODE_BYTES; i++)
        elf.data[4096 + i] = code_byte(i);
    return elf;
}

struct setup_header *bzimage_header(struct bytes *image)
{
    return (struct setup_header *)(image->data + 0x1f1);
}

struct bytes make_bzimage(const void *payload, size_t length)
{
    size_t code_bytes = (KERNEL_PAYLOAD + length + 15) / 16 * 16;
    struct bytes image = bytes_new(KERNEL_CODE_OFFSET + code_bytes);
    struct setup_header *header = bzimage_header(&image);
    memset(image.data, 0xff, 0x1f1); /* so that the sentinel would be seen */
    *header = (struct setup_header){
        .setup_sects = 2,
        .syssize = (uint32_t)(code_bytes / 16),
        .boot_flag = 0xaa55,
        .jump = 0x6aeb, /* over the header, which ends at 0x26c */
        .header = 0x53726448,
        .version = 0x020f,
        .loadflags = LOADED_HIGH | CAN_USE_HEAP,
        .initrd_addr_max = 0x7fffffff,
        .kernel_alignment = 0x200000,
        .relocatable_kernel = 1,
        .xloadflags = XLF_KERNEL_64,
        .cmdline_size = 2047,
        .payload_offset = KERNEL_PAYLOAD,
        .payload_length = (uint32_t)length,
        .setup_data = 0xbad,
        .pref_address = KERNEL_ADDRESS,
        .init_size = KERNEL_INIT_BYTES,
        .kernel_info_offset = 0x1234,
    };
    for (size_t i = 0; i < code_bytes; i++)
        image.data[KERNEL_CODE_OFFSET + i] = code_byte(i);
    memcpy(image.data + KERNEL_CODE_OFFSET + KERNEL_PAYLOAD, payload, length);
    return image;
}

struct bytes make_zboot(const void *payload, size_t length)
{
    enum { payload_offset = 512 };
    const uint32_t numbers[2] = {payload_offset, (uint32_t)length};
    struct bytes image = bytes_new(payload_offset + length + 64);
    memcpy(image.data, "MZ\0\0zimg", 8);
    memcpy(image.data + 8, numbers, sizeof(numbers));
    memcpy(image.data + 24, "gzip", 5);
    memcpy(image.data + payload_offset, payload, length);
    return image;
}

struct bytes pack_gzip(const void *bytes, size_t length)
{
    z_stream gzip = {0};
    if (deflateInit2(&gzip, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        abort();
    struct bytes packed = bytes_new(deflateBound(&gzip, length) + 64);
    gzip.next_in = (Bytef *)(uintptr_t)bytes;
    gzip.avail_in = (unsigned)length;
    gzip.next_out = packed.data;
    gzip.avail_out = (unsigned)packed.length;
    if (deflate(&gzip, Z_FINISH) != Z_STREAM_END)
        abort();
    packed.length -= gzip.avail_out;
    deflateEnd(&gzip);
    return packed;
}

struct bytes pack_bzip2(const void *bytes, size_t length)
{
    struct bytes packed = bytes_new(length + length / 100 + 600); /* bzlib.h's bound */
    unsigned packed_length = (unsigned)packed.length;
    if (BZ2_bzBuffToBuffCompress((char *)packed.data, &packed_length, (char *)(uintptr_t)bytes, (unsigned)length, 1, 0,
                                 0) != BZ_OK)
        abort();
    packed.length = packed_length;
    return packed;
}

struct bytes pack_zstd(const void *bytes, size_t length)
{
    struct bytes packed = bytes_new(ZSTD_compressBound(length));
    ZSTD_CCtx *zstd = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_checksumFlag, 1); /* as zstd(1) does */
    packed.length = ZSTD_compress2(zstd, packed.data, packed.length, bytes, length);
    if (ZSTD_isError(packed.length))
        abort();
    ZSTD_freeCCtx(zstd);
    return packed;
}
