// SPDX-License-Identifier: Apache-2.0
/* Loading an ELF kernel into guest memory. (System V ABI, chapters 4 and 5; AMD64 supplement)
 *
 * Only program headers matter: each PT_LOAD says where its bytes lie in the file and where they go in physical memory;
 * a PT_NOTE may hold Xen's note of type 18, the 32-bit entry point of the PVH protocol. When it is there PVH is used,
 * else the ELF entry with Linux's 64-bit protocol. Everything is checked first; then the bytes become a view of the
 * file, or are read straight into guest memory (boot/place.c).
 *
 * Invariants: (1) nothing is read from the file that is not bounded by a constant or by guest memory. (2) each segment
 * lies wholly in guest memory, above BOOT_HIGH_MEMORY, and meets no other, so that what is behind its bytes in the file
 * stays zero. (3) the entry lies inside a loaded segment. (4) every loop is bounded by most_headers or most_note_bytes.
 *
 * Trust: the image may be anything; what it says is checked before it is used.
 */
#include "boot/elf.h"

#include "base/alloc.h"
#include "boot/layout.h"
#include "boot/place.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

enum { most_headers = 64, most_note_bytes = 65536, xen_note_entry = 18 };

struct segments {
    Elf64_Phdr headers[most_headers];
    size_t count;
};

static int read_header(int fd, Elf64_Ehdr *header, struct boot_reason *reason)
{
    int result = place_read(fd, header, sizeof(*header), 0, reason);
    if (result < 0)
        return result;
    if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0)
        return reason_set(reason, "it is not an ELF file");
    if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_ident[EI_DATA] != ELFDATA2LSB ||
        header->e_machine != EM_X86_64)
        return reason_set(reason, "it is not made for x86_64");
    if (header->e_type != ET_EXEC && header->e_type != ET_DYN)
        return reason_set(reason, "it is an object or core file, not a kernel");
    if (header->e_phentsize != sizeof(Elf64_Phdr))
        return reason_set(reason, "its program headers have the wrong size");
    if (header->e_phnum == 0 || header->e_phnum > most_headers)
        return reason_set(reason, "it has no program headers, or too many");
    return 0;
}

static bool is_to_load(const Elf64_Phdr *segment)
{
    return segment->p_type == PT_LOAD && segment->p_memsz > 0;
}

/* Both have been checked: their ends do not wrap. */
static bool do_overlap(const Elf64_Phdr *one, const Elf64_Phdr *other)
{
    return one->p_paddr < other->p_paddr + other->p_memsz && other->p_paddr < one->p_paddr + one->p_memsz;
}

static int check_segment(const struct segments *segments, size_t index, struct boot_image *image,
                         struct boot_reason *reason)
{
    const Elf64_Phdr *segment = &segments->headers[index];
    uint64_t end = 0;
    if (segment->p_filesz > segment->p_memsz)
        return reason_set(reason, "a segment has more bytes in the file than in memory");
    if (segment->p_memsz == 0)
        return 0;
    if (segment->p_paddr < BOOT_HIGH_MEMORY)
        return reason_set(reason, "a segment lies below 1 MiB, where the boot protocols have their tables");
    if (__builtin_add_overflow(segment->p_paddr, segment->p_memsz, &end))
        return reason_set(reason, "a segment reaches beyond the end of all addresses");
    for (size_t i = 0; i < index; i++)
        if (is_to_load(&segments->headers[i]) && do_overlap(segment, &segments->headers[i]))
            return reason_set(reason, "two of its segments overlap");
    image->begin = segment->p_paddr < image->begin ? segment->p_paddr : image->begin;
    image->end = end > image->end ? end : image->end;
    return 0;
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

static int read_notes(int fd, const Elf64_Phdr *segment, struct boot_image *image, struct boot_reason *reason)
{
    if (segment->p_filesz == 0 || segment->p_filesz > most_note_bytes)
        return segment->p_filesz == 0 ? 0 : reason_set(reason, "its notes are larger than 64 KiB");
    auto_free uint8_t *notes = alloc_zero(segment->p_filesz);
    if (notes == NULL)
        return -ENOMEM;
    int result = place_read(fd, notes, segment->p_filesz, segment->p_offset, reason);
    if (result == 0 && find_entry_note(notes, segment->p_filesz, &image->entry))
        image->protocol = BOOT_PVH;
    return result;
}

static bool is_loaded(const struct segments *segments, uint64_t address)
{
    for (size_t i = 0; i < segments->count; i++)
        if (segments->headers[i].p_type == PT_LOAD &&
            address - segments->headers[i].p_paddr < segments->headers[i].p_filesz)
            return true;
    return false;
}

static int check_segments(int fd, const struct memory *memory, const struct segments *segments,
                          struct boot_image *image, struct boot_reason *reason)
{
    int result = 0;
    for (size_t i = 0; i < segments->count && result == 0; i++) {
        if (segments->headers[i].p_type == PT_LOAD)
            result = check_segment(segments, i, image, reason);
        else if (segments->headers[i].p_type == PT_NOTE)
            result = read_notes(fd, &segments->headers[i], image, reason);
    }
    if (result < 0)
        return result;
    if (image->end == 0)
        return reason_set(reason, "it has nothing to load");
    for (size_t i = 0; i < segments->count; i++)
        if (is_to_load(&segments->headers[i]) &&
            memory_span(memory, segments->headers[i].p_paddr, segments->headers[i].p_memsz) == NULL)
            return reason_set_memory(reason, image->end, place_low_end(memory));
    if (!is_loaded(segments, image->entry))
        return reason_set(reason, "its entry point lies outside of what it loads");
    if (image->protocol == BOOT_PVH && image->entry > UINT32_MAX)
        return reason_set(reason, "its PVH entry point lies above 4 GiB");
    return 0;
}

int elf_load(int fd, const struct memory *memory, struct boot_image *ret_image, struct boot_reason *reason)
{
    Elf64_Ehdr header;
    struct segments segments = {0};
    int result = read_header(fd, &header, reason);
    if (result < 0)
        return result;
    segments.count = header.e_phnum;
    result = place_read(fd, segments.headers, segments.count * sizeof(segments.headers[0]), header.e_phoff, reason);
    struct boot_image image = {.protocol = BOOT_LINUX64, .entry = header.e_entry, .begin = UINT64_MAX};
    if (result == 0)
        result = check_segments(fd, memory, &segments, &image, reason);
    for (size_t i = 0; i < segments.count && result == 0; i++) {
        const Elf64_Phdr *segment = &segments.headers[i];
        if (is_to_load(segment))
            result = place_file(fd, segment->p_offset, segment->p_filesz, memory, segment->p_paddr, reason);
    }
    if (result == 0)
        *ret_image = image;
    return result;
}
