// SPDX-License-Identifier: Apache-2.0
/* Is this file a user-mode Linux kernel that can run such a machine?
 *
 * A kernel for hardware is an ELF file as well, and executing it kills the child before it can say why. So the file is
 * looked at first: user-mode Linux is an ELF program for x86_64 without an interpreter, and its linker script makes a
 * section that nothing else has, the table of the options that it reads before it is a kernel (.uml.setup.init).
 *
 * It takes any number of CPUs on its command line and silently makes fewer of them. The number that it was built for
 * stands in its read-only data, in the text that --showconfig prints, and is read there when more than one is wanted. A
 * kernel that does not carry that text is not asked further.
 *
 * Invariants: (1) every offset and size is checked against a limit before it is used. (2) nothing is kept.
 *
 * Trust: the file may be anything, and may change while it is read; what passes here is still executed in the jail.
 */
#include "engine/uml/kernel.h"

#include "base/alloc.h"
#include "base/limits.h"

#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct section_table {
    Elf64_Shdr *sections; /* owned */
    size_t count;
    char *names; /* owned; terminated */
    size_t names_bytes;
};

/* Exactly that much: 0, -ENODATA at the file's end, or -errno. */
static int read_exactly(int fd, uint64_t offset, void *bytes, size_t length)
{
    uint8_t *next = bytes;
    while (length > 0) {
        ssize_t got = offset > INT64_MAX - length ? 0 : pread(fd, next, length, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -ENODATA;
        next += got;
        offset += (uint64_t)got;
        length -= (size_t)got;
    }
    return 0;
}

/* ---- sections ---- */

static int read_names(int fd, const Elf64_Ehdr *header, struct section_table *table)
{
    if (header->e_shstrndx >= table->count)
        return -ENODATA;
    const Elf64_Shdr *names = &table->sections[header->e_shstrndx];
    if (names->sh_size == 0 || names->sh_size > LIMIT_UML_SECTION_NAMES_BYTES)
        return -ENODATA;
    table->names = alloc_zero(names->sh_size + 1);
    if (table->names == NULL)
        return -ENOMEM;
    table->names_bytes = names->sh_size;
    return read_exactly(fd, names->sh_offset, table->names, names->sh_size);
}

static int read_sections(int fd, const Elf64_Ehdr *header, struct section_table *table)
{
    if (header->e_shnum == 0 || header->e_shnum > LIMIT_UML_SECTIONS || header->e_shentsize != sizeof(Elf64_Shdr))
        return -ENODATA;
    table->sections = alloc_zero(header->e_shnum * sizeof(table->sections[0]));
    if (table->sections == NULL)
        return -ENOMEM;
    table->count = header->e_shnum;
    int result = read_exactly(fd, header->e_shoff, table->sections, table->count * sizeof(table->sections[0]));
    return result < 0 ? result : read_names(fd, header, table);
}

static void free_sections(struct section_table *table)
{
    free(table->sections);
    free(table->names);
}

static const Elf64_Shdr *find_section(const struct section_table *table, const char *name)
{
    for (size_t i = 0; i < table->count; i++) {
        const Elf64_Shdr *section = &table->sections[i];
        if (section->sh_name < table->names_bytes && strcmp(table->names + section->sh_name, name) == 0)
            return section;
    }
    return NULL;
}

/* ---- how many CPUs ---- */

/* The number behind CONFIG_NR_CPUS= in the read-only data; 1 where the text says that there is no SMP, 0 where there is
 * no such text, or -errno. */
static int read_most_cpus(int fd, const Elf64_Shdr *rodata, unsigned *ret_cpus)
{
    static const char key[] = "CONFIG_NR_CPUS=", no_smp[] = "# CONFIG_SMP is not set";
    *ret_cpus = 0;
    if (rodata == NULL || rodata->sh_type != SHT_PROGBITS || rodata->sh_size < sizeof(key) ||
        rodata->sh_size > LIMIT_UML_RODATA_BYTES)
        return 0;
    auto_free char *bytes = alloc_zero(rodata->sh_size + 1);
    if (bytes == NULL)
        return -ENOMEM;
    int result = read_exactly(fd, rodata->sh_offset, bytes, rodata->sh_size);
    if (result < 0)
        return result;
    const char *found = memmem(bytes, rodata->sh_size, key, sizeof(key) - 1);
    if (memmem(bytes, rodata->sh_size, no_smp, sizeof(no_smp) - 1) != NULL)
        *ret_cpus = 1;
    else if (found != NULL)
        *ret_cpus = (unsigned)strtoul(found + sizeof(key) - 1, NULL, 10);
    return 0;
}

/* ---- the answer ---- */

static int refuse(struct vial_error *err, enum vial_error_code code, const char *path, const char *what)
{
    int result = error_set(err, code, VIAL_PHASE_LOAD, "%s %s", error_short(path).text, what);
    error_field(err, "kernel.path");
    error_value(err, "%s", path);
    error_remedy(err, "give a user-mode Linux, or build the project's (kernel/build uml)");
    return result;
}

static int fail_read(struct vial_error *err, const char *path, int result)
{
    if (result == -ENODATA)
        return refuse(err, VIAL_ERROR_WRONG_KIND, path, "is an ELF file that is cut off or has no sections");
    error_set_os(err, VIAL_PHASE_LOAD, result, "%s cannot be read", error_short(path).text);
    error_field(err, "kernel.path");
    error_value(err, "%s", path);
    error_remedy(err, "check the file and its permissions");
    return result;
}

static int check_file(int fd, const char *path, struct vial_error *err)
{
    struct stat file;
    if (fstat(fd, &file) < 0)
        return fail_read(err, path, -errno);
    if (S_ISDIR(file.st_mode))
        return refuse(err, VIAL_ERROR_WRONG_KIND, path, "is a folder, not a kernel");
    if (!S_ISREG(file.st_mode))
        return refuse(err, VIAL_ERROR_WRONG_KIND, path, "is not a regular file");
    if ((file.st_mode & (S_IXUSR | S_IXGRP | S_IXOTH)) != 0)
        return 0;
    int result = refuse(err, VIAL_ERROR_PERMISSION, path, "is a file that nobody may execute");
    error_remedy(err, "make it executable (chmod a+x)");
    return result;
}

static int check_header(int fd, const char *path, Elf64_Ehdr *header, struct vial_error *err)
{
    int result = read_exactly(fd, 0, header, sizeof(*header));
    if (result < 0 && result != -ENODATA)
        return fail_read(err, path, result);
    if (result == -ENODATA || memcmp(header->e_ident, ELFMAG, SELFMAG) != 0)
        return refuse(
            err, VIAL_ERROR_WRONG_KIND, path,
            "is no user-mode Linux, which is an ELF program; a bzImage or a script cannot run on this engine");
    if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_machine != EM_X86_64)
        return refuse(err, VIAL_ERROR_WRONG_KIND, path, "is an ELF file for another CPU than x86_64");
    if (header->e_type != ET_EXEC && header->e_type != ET_DYN)
        return refuse(err, VIAL_ERROR_WRONG_KIND, path, "is an ELF file, but not a program");
    return 0;
}

static int check_cpus(int fd, const char *path, const struct section_table *table, unsigned vcpus,
                      struct vial_error *err)
{
    unsigned most = 0;
    int result = vcpus > 1 ? read_most_cpus(fd, find_section(table, ".rodata"), &most) : 0;
    if (result < 0)
        return fail_read(err, path, result);
    if (most == 0 || vcpus <= most)
        return 0;
    result = error_set(err, VIAL_ERROR_OUT_OF_RANGE, VIAL_PHASE_LOAD,
                       "%u vCPUs are asked for, and %s was built for %u (CONFIG_NR_CPUS)", vcpus,
                       error_short(path).text, most);
    error_field(err, "machine.vcpus");
    error_value(err, "%u", vcpus);
    error_remedy(err, "give at most %u, or use a kernel that was built for more", most);
    return result;
}

int uml_kernel_check(int fd, const char *path, unsigned vcpus, struct vial_error *err)
{
    Elf64_Ehdr header;
    struct section_table table = {0};
    int result = check_file(fd, path, err);
    if (result == 0)
        result = check_header(fd, path, &header, err);
    if (result < 0)
        return result;
    result = read_sections(fd, &header, &table);
    if (result < 0)
        result = fail_read(err, path, result);
    else if (find_section(&table, ".uml.setup.init") == NULL)
        result = refuse(err, VIAL_ERROR_WRONG_KIND, path,
                        "is an ELF file, but no user-mode Linux; a kernel for KVM cannot run on this engine");
    else
        result = check_cpus(fd, path, &table, vcpus, err);
    free_sections(&table);
    return result;
}
