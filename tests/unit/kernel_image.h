// SPDX-License-Identifier: Apache-2.0
/* Small kernel images made by hand, and what wraps them. */
#ifndef KERNEL_IMAGE_H
#define KERNEL_IMAGE_H

#include <asm/bootparam.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that grow; freed by bytes_free. They come from the C library, not from src/base. */
struct bytes {
    uint8_t *data; /* owned */
    size_t length;
};
void bytes_free(struct bytes *bytes);
#define auto_bytes __attribute__((cleanup(bytes_free)))

/* An ELF kernel: two pages of pattern at KERNEL_ADDRESS, 64 KiB of bss; with a PVH note or without. */
enum { KERNEL_ADDRESS = 16 << 20, KERNEL_CODE_BYTES = 8192, KERNEL_MEMORY_BYTES = KERNEL_CODE_BYTES + 65536 };
enum { KERNEL_PVH_ENTRY = KERNEL_ADDRESS + 0x40, KERNEL_ELF_ENTRY = KERNEL_ADDRESS + 0x80 };
struct bytes make_elf(bool has_pvh);

/* The byte at that offset of a kernel's code; never 0. */
uint8_t code_byte(size_t offset);

/* A bzImage around a payload: two setup sectors, code of pattern, the payload at KERNEL_PAYLOAD in it. */
enum { KERNEL_PAYLOAD = 0x400, KERNEL_CODE_OFFSET = 3 * 512, KERNEL_INIT_BYTES = 1 << 20 };
struct bytes make_bzimage(const void *payload, size_t length);
struct setup_header *bzimage_header(struct bytes *image);

/* An EFI zboot image around a payload. */
struct bytes make_zboot(const void *payload, size_t length);

struct bytes pack_gzip(const void *bytes, size_t length);
struct bytes pack_bzip2(const void *bytes, size_t length);
struct bytes pack_zstd(const void *bytes, size_t length);

/* Appends. */
void bytes_add(struct bytes *bytes, const void *more, size_t length);

#endif
