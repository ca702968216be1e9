// SPDX-License-Identifier: Apache-2.0
/* Loading an ELF kernel into guest memory. (System V ABI, chapters 4 and 5; AMD64 supplement)
 *
 * Only program headers matter: each PT_LOAD says where its bytes lie in the file and where they go in physical memory;
 * a PT_NOTE may hold Xen's note of type 18, the 32-bit entry point of the PVH protocol. When it is there PVH is used,
 * else the ELF entry with Linux's 64-bit protocol. Bytes are read straight into guest memory.
 *
 * Invariants: (1) nothing is read from the file that is not bounded by a constant or by guest memory. (2) each segment
 * lies wholly in guest memory, above BOOT_HIGH_MEMORY. (3) the entry lies inside a loaded segment. (4) every loop is
 * bounded by most_headers or most_note_bytes.
 *
 * Trust: the image may be anything; what it says is checked before it is used.
 */
#include "boot/elf.h"

#include "base/alloc.h"

#include <elf.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { most_headers = 64, most_note_bytes = 65536, xen_note_entry = 18 };

static int wrong(const char *why, const char **ret_why)
{
    *ret_why = why;
    return -EINVAL;
}

/* Reads exactly that many bytes; a file that ends before is truncated. */
static int read_exactly(int fd, void *bytes, uint64_t length, uint64_t offset, const char **ret_why)
{
    uint8_t *next = bytes;
    while (length > 0) {
        ssize_t got = offset <= INT64_MAX ? pread(fd, next, length, (off_t)offset) : 0;
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            return wrong("it is truncated", ret_why);
        next += got;
        offset += (uint64_t)got;
        length -= (uint64_t)got;
    }
    return 0;
}

static int read_header(int fd, Elf64_Ehdr *header, const char **ret_why)
{
    int result = read_exactly(fd, header, sizeof(*header), 0, ret_why);
    if (result < 0)
        return result;
    if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0)
        return wrong("it is not an ELF file", ret_why);
    if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_ident[EI_DATA] != ELFDATA2LSB ||
        header->e_machine != EM_X86_64)
        return wrong("it is not made for x86_64", ret_why);
    if (header->e_type != ET_EXEC && header->e_type != ET_DYN)
        return wrong("it is an object or core file, not a kernel", ret_why);
    if (header->e_phentsize != sizeof(Elf64_Phdr))
        return wrong("its program headers have the wrong size", ret_why);
    if (header->e_phnum == 0 || header->e_phnum > most_headers)
        return wrong("it has no program headers, or too many", ret_why);
    return 0;
}

static int load_segment(int fd, const struct memory *memory, const Elf64_Phdr *segment, struct boot_image *image,
                        const char **ret_why)
{
    if (segment->p_filesz > segment->p_memsz)
        return wrong("a segment has more bytes in the file than in memory", ret_why);
    if (segment->p_memsz == 0)
        return 0;
    if (segment->p_paddr < BOOT_HIGH_MEMORY)
        return wrong("a segment lies below 1 MiB, where the boot protocols have their tables", ret_why);
    void *target = memory_span(memory, segment->p_paddr, segment->p_memsz);
    if (target == NULL)
        return wrong("a segment does not fit into the machine's memory", ret_why);
    uint64_t end = segment->p_paddr + segment->p_memsz; /* no overflow: the span lies in a region */
    image->begin = segment->p_paddr < image->begin ? segment->p_paddr : image->begin;
    image->end = end > image->end ? end : image->end;
    return read_exactly(fd, target, segment->p_filesz, segment->p_offset, ret_why);
}

static uint64_t align_4(uint64_t length)
{
    return (length + 3) & ~UINT64_C(3);
}

/* Looks for Xen's entry note in a block of notes; true and *ret_entry when it is there. */
static bool find_entry_note(const uint8_t *notes, uint64_t length, uint64_t *ret_entry)
{
    uint64_t at = 0;
    while (length - at >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr note;
        memcpy(&note, notes + at, sizeof(note));
        at += sizeof(note);
        /* 32-bit lengths in 64-bit sums: nothing wraps */
        uint64_t name = at, descriptor = name + align_4(note.n_namesz), next = descriptor + align_4(note.n_descsz);
        if (next > length)
            return false;
        bool is_xen = note.n_namesz == 4 && memcmp(notes + name, "Xen", 4) == 0;
        if (is_xen && note.n_type == xen_note_entry && (note.n_descsz == 4 || note.n_descsz == 8)) {
            *ret_entry = 0;
            memcpy(ret_entry, notes + descriptor, note.n_descsz);
            return true;
        }
        at = next;
    }
    return false;
}

static int read_notes(int fd, const Elf64_Phdr *segment, struct boot_image *image, const char **ret_why)
{
    if (segment->p_filesz == 0 || segment->p_filesz > most_note_bytes)
        return segment->p_filesz == 0 ? 0 : wrong("its notes are larger than 64 KiB", ret_why);
    auto_free uint8_t *notes = alloc_zero(segment->p_filesz);
    if (notes == NULL)
        return -ENOMEM;
    int result = read_exactly(fd, notes, segment->p_filesz, segment->p_offset, ret_why);
    if (result == 0 && find_entry_note(notes, segment->p_filesz, &image->entry))
        image->protocol = BOOT_PVH;
    return result;
}

static bool is_loaded(const Elf64_Phdr *segments, size_t count, uint64_t address)
{
    for (size_t i = 0; i < count; i++)
        if (segments[i].p_type == PT_LOAD && address - segments[i].p_paddr < segments[i].p_filesz)
            return true;
    return false;
}

int elf_load(int fd, const struct memory *memory, struct boot_image *ret_image, const char **ret_why)
{
    Elf64_Ehdr header;
    Elf64_Phdr segments[most_headers];
    int result = read_header(fd, &header, ret_why);
    if (result == 0)
        result = read_exactly(fd, segments, header.e_phnum * sizeof(segments[0]), header.e_phoff, ret_why);
    if (result < 0)
        return result;
    struct boot_image image = {.protocol = BOOT_LINUX64, .entry = header.e_entry, .begin = UINT64_MAX};
    for (size_t i = 0; i < header.e_phnum && result == 0; i++) {
        if (segments[i].p_type == PT_LOAD)
            result = load_segment(fd, memory, &segments[i], &image, ret_why);
        else if (segments[i].p_type == PT_NOTE)
            result = read_notes(fd, &segments[i], &image, ret_why);
    }
    if (result < 0)
        return result;
    if (image.end == 0)
        return wrong("it has nothing to load", ret_why);
    if (!is_loaded(segments, header.e_phnum, image.entry))
        return wrong("its entry point lies outside of what it loads", ret_why);
    if (image.protocol == BOOT_PVH && image.entry > UINT32_MAX)
        return wrong("its PVH entry point lies above 4 GiB", ret_why);
    *ret_image = image;
    return 0;
}
