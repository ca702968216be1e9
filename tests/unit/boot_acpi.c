// SPDX-License-Identifier: Apache-2.0
/* Tests of the ACPI tables: found as Linux finds them, checked byte by byte, and the AML read back by a small parser
 * that knows what ours is made of.
 *
 * With ACPI_DUMP set, the tables of the largest machine are also written to files of that folder, for iasl (tests/e2e).
 */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/limits.h"
#include "boot/boot.h"
#include "kernel_image.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { mib = 1 << 20, area = 0xe0000, area_end = 0xf0000 };

static struct vial_error err;
static struct memory *memory;
static struct boot_entry entry;
static struct boot_device devices[LIMIT_DEVICES];
static const struct boot_serial serials[LIMIT_SERIALS] = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}};

static void forget(void)
{
    memory = memory_free(memory);
}

static uint64_t number(uint64_t address, size_t bytes)
{
    uint64_t value = 0;
    if (memory_read(memory, address, &value, bytes) < 0)
        abort();
    return value;
}

static bool is_text(uint64_t address, const char *text)
{
    return memcmp(memory_span(memory, address, strlen(text)), text, strlen(text)) == 0;
}

static void prepare(size_t device_count)
{
    for (size_t i = 0; i < device_count; i++)
        devices[i] = (struct boot_device){0xd0000000 + i * 4096, 4096, (unsigned)i + 5};
}

static int boot(struct bytes image, bool has_acpi, unsigned vcpus, size_t device_count, size_t serial_count)
{
    auto_close int fd = memfd_create("image", MFD_CLOEXEC);
    if (fd < 0 || fd_write_all(fd, image.data, image.length) < 0)
        abort();
    prepare(device_count);
    const struct boot_options options = {
        .kernel_fd = fd,
        .kernel_path = "/boot/image",
        .initramfs_fd = -1,
        .cmdline = "quiet",
        .vcpus = vcpus,
        .interrupt_pins = 224,
        .has_acpi = has_acpi,
        .devices = devices,
        .device_count = device_count,
        .serials = serials,
        .serial_count = serial_count,
    };
    bytes_free(&image);
    forget();
    if (memory_new(64 * mib, false, &memory) < 0)
        abort();
    return boot_load(&options, memory, &entry, &err);
}

/* ---- the tables ---- */

static bool adds_up(uint64_t address, uint64_t length)
{
    uint8_t sum = 0;
    for (uint64_t i = 0; i < length; i++)
        sum = (uint8_t)(sum + number(address + i, 1));
    return sum == 0;
}

/* The RSDP, as a kernel finds it that nobody told: at a multiple of 16 in the BIOS area. */
static uint64_t find_rsdp(void)
{
    for (uint64_t at = area; at < 0x100000; at += 16)
        if (is_text(at, "RSD PTR ") && adds_up(at, 20) && adds_up(at, 36))
            return at;
    return 0;
}

/* Whether there is a whole table. */
static bool is_table(uint64_t at, const char *signature, uint8_t revision)
{
    return at >= area && at < area_end && at % 16 == 0 && is_text(at, signature) &&
           number(at + 4, 4) <= area_end - at && adds_up(at, number(at + 4, 4)) && number(at + 8, 1) == revision;
}

static uint64_t xsdt(void)
{
    return number(area + 24, 8);
}

static uint64_t fadt(void)
{
    return number(xsdt() + 36, 8);
}

static uint64_t madt(void)
{
    return number(xsdt() + 44, 8);
}

static uint64_t dsdt(void)
{
    return number(fadt() + 140, 8);
}

TEST(the_rsdp_is_told_and_can_be_found)
{
    CHECK_INT(boot(make_elf(true), true, 1, 1, 1), 0);
    CHECK_INT(entry.protocol, BOOT_PVH);
    CHECK_INT(number(entry.argument + 32, 8), area);
    CHECK_INT(find_rsdp(), area);
    CHECK_INT(boot(make_bzimage("payload", 7), true, 1, 1, 1), 0);
    CHECK_INT(entry.protocol, BOOT_LINUX64);
    CHECK_INT(number(entry.argument + 0x70, 8), area);
    CHECK_INT(find_rsdp(), area);
    CHECK_INT(number(area + 15, 1), 2);  /* revision */
    CHECK_INT(number(area + 16, 4), 0);  /* no RSDT */
    CHECK_INT(number(area + 20, 4), 36); /* length */
    forget();
}

TEST(without_acpi_nothing_is_there)
{
    static const uint8_t nothing[area_end - area] = {0};
    CHECK_INT(boot(make_elf(true), false, 2, 1, 1), 0);
    CHECK_INT(number(entry.argument + 32, 8), 0);
    CHECK(memcmp(memory_span(memory, area, sizeof(nothing)), nothing, sizeof(nothing)) == 0);
    CHECK(is_text(0xf0000, "_MP_"));
    CHECK_INT(boot(make_bzimage("payload", 7), false, 2, 1, 1), 0);
    CHECK_INT(number(entry.argument + 0x70, 8), 0);
    forget();
}

TEST(the_mp_table_stays)
{
    CHECK_INT(boot(make_elf(true), true, LIMIT_VCPUS, LIMIT_DEVICES, LIMIT_SERIALS), 0);
    CHECK(is_text(0xf0000, "_MP_") && adds_up(0xf0000, 16));
    forget();
}

/* A register of a byte at a port (ACPI 6.5, 5.2.3.2). */
static bool is_port(uint64_t at, uint64_t port)
{
    return number(at, 4) == 0x01000801 && number(at + 4, 8) == port;
}

TEST(the_fadt_describes_reduced_hardware)
{
    static const uint8_t zeros[96] = {0};
    CHECK_INT(boot(make_elf(true), true, 1, 1, 1), 0);
    CHECK(is_table(xsdt(), "XSDT", 1));
    CHECK_INT(number(xsdt() + 4, 4), 36 + 2 * 8);
    CHECK(is_table(fadt(), "FACP", 6));
    CHECK_INT(number(fadt() + 4, 4), 276);
    CHECK_INT(number(fadt() + 131, 1), 5);
    CHECK_INT(number(fadt() + 36, 4), 0); /* no FACS */
    CHECK_INT(number(fadt() + 132, 8), 0);
    CHECK_INT(number(fadt() + 40, 4), dsdt());
    CHECK_INT(number(fadt() + 109, 2), 6); /* 8042, no VGA */
    CHECK_INT(number(fadt() + 112, 4) & (1 << 20 | 1 << 10), 1 << 20 | 1 << 10);
    CHECK(is_port(fadt() + 116, 0x64));
    CHECK_INT(number(fadt() + 128, 1), 0xfe);
    CHECK(is_port(fadt() + 244, 0x604));
    CHECK(is_port(fadt() + 256, 0x605));
    CHECK(memcmp(memory_span(memory, fadt() + 45, 63), zeros, 63) == 0);
    CHECK(memcmp(memory_span(memory, fadt() + 148, 96), zeros, 96) == 0);
    forget();
}

static void check_madt(unsigned vcpus)
{
    CHECK_INT(boot(make_elf(true), true, vcpus, 1, 1), 0);
    CHECK(is_table(madt(), "APIC", 6));
    CHECK_INT(number(madt() + 4, 4), 44 + vcpus * 8 + 12);
    CHECK_INT(number(madt() + 36, 4), 0xfee00000);
    CHECK_INT(number(madt() + 40, 4), 0); /* no 8259 */
    uint64_t at = madt() + 44;
    for (unsigned i = 0; i < vcpus; i++, at += 8) {
        CHECK_INT(number(at, 2), 8 << 8 | 0);
        CHECK_INT(number(at + 2, 1), i);
        CHECK_INT(number(at + 3, 1), i);
        CHECK_INT(number(at + 4, 4), 1);
    }
    CHECK_INT(number(at, 2), 12 << 8 | 1);
    CHECK_INT(number(at + 2, 1), vcpus);
    CHECK_INT(number(at + 4, 4), 0xfec00000);
    CHECK_INT(number(at + 8, 4), 0);
}

TEST(the_madt_has_every_processor)
{
    check_madt(1);
    check_madt(2);
    check_madt(LIMIT_VCPUS);
    forget();
}

/* ---- AML ---- */

/* A cursor over [at, end). Whatever it meets that it does not know sets is_wrong. */
struct aml {
    uint64_t at, end;
    bool is_wrong;
};

static uint64_t take(struct aml *aml, size_t bytes)
{
    if (bytes > aml->end - aml->at) {
        aml->is_wrong = true;
        aml->at = aml->end;
        return 0;
    }
    uint64_t value = number(aml->at, bytes);
    aml->at += bytes;
    return value;
}

static void expect(struct aml *aml, const char *bytes)
{
    for (const char *next = bytes; *next != '\0'; next++)
        aml->is_wrong |= take(aml, 1) != (uint8_t)*next;
}

/* A length and what it encloses; the cursor goes on behind that (ACPI 6.5, 20.2.4). */
static struct aml take_piece(struct aml *aml)
{
    uint64_t begin = aml->at;
    uint64_t first = take(aml, 1);
    uint64_t length = first & 0x3f;
    if (first >> 6 > 0) {
        aml->is_wrong |= (first & 0x30) != 0;
        length = first & 0xf;
        for (unsigned i = 0; i < first >> 6; i++)
            length |= take(aml, 1) << (4 + 8 * i);
    }
    struct aml piece = {.at = aml->at, .end = begin + length};
    if (piece.end < piece.at || piece.end > aml->end) {
        aml->is_wrong = true;
        piece.end = piece.at;
    }
    aml->at = piece.end;
    return piece;
}

static uint64_t take_number(struct aml *aml)
{
    switch (take(aml, 1)) {
    case 0x00:
        return 0;
    case 0x01:
        return 1;
    case 0x0a:
        return take(aml, 1);
    case 0x0b:
        return take(aml, 2);
    case 0x0c:
        return take(aml, 4);
    default:
        aml->is_wrong = true;
        return 0;
    }
}

struct found {
    char name[5], hardware[9];
    uint64_t number;
    uint64_t address, size; /* of memory, or of ports */
    uint64_t interrupt, interrupt_flags;
};

static void take_resources(struct aml *aml, struct found *found, bool is_serial)
{
    expect(aml, "\x11");
    struct aml buffer = take_piece(aml);
    uint64_t length = take_number(&buffer);
    buffer.is_wrong |= length != buffer.end - buffer.at;
    if (is_serial) {
        expect(&buffer, "\x47\x01");
        found->address = take(&buffer, 2);
        buffer.is_wrong |= take(&buffer, 2) != found->address;
        expect(&buffer, "\x01");
        found->size = take(&buffer, 1);
    } else {
        buffer.is_wrong |= take(&buffer, 3) != 0x000986; /* Memory32Fixed */
        expect(&buffer, "\x01");
        found->address = take(&buffer, 4);
        found->size = take(&buffer, 4);
    }
    buffer.is_wrong |= take(&buffer, 3) != 0x000689; /* Interrupt */
    found->interrupt_flags = take(&buffer, 1);
    expect(&buffer, "\x01");
    found->interrupt = take(&buffer, 4);
    buffer.is_wrong |= take(&buffer, 2) != 0x79; /* the end, without a checksum */
    aml->is_wrong |= buffer.is_wrong || buffer.at != buffer.end;
}

static struct found take_device(struct aml *aml)
{
    struct found found = {0};
    expect(aml, "\x5b\x82");
    struct aml device = take_piece(aml);
    for (size_t i = 0; i < 4; i++)
        found.name[i] = (char)take(&device, 1);
    expect(&device, "\x08_HID\x0d");
    for (size_t i = 0; i < sizeof(found.hardware); i++) {
        found.hardware[i] = (char)take(&device, 1);
        if (found.hardware[i] == '\0')
            break;
    }
    found.hardware[8] = '\0';
    expect(&device, "\x08_UID");
    found.number = take_number(&device);
    expect(&device, "\x08_CRS");
    take_resources(&device, &found, strcmp(found.hardware, "PNP0501") == 0);
    aml->is_wrong |= device.is_wrong || device.at != device.end;
    return found;
}

static void check_devices(unsigned vcpus, size_t device_count, size_t serial_count)
{
    CHECK_INT(boot(make_elf(true), true, vcpus, device_count, serial_count), 0);
    CHECK(is_table(dsdt(), "DSDT", 2));
    struct aml aml = {.at = dsdt() + 36, .end = dsdt() + number(dsdt() + 4, 4)};
    expect(&aml, "\x08\\_S5_\x12");
    struct aml package = take_piece(&aml);
    CHECK_INT(take(&package, 1), 2);
    CHECK_INT(take_number(&package), 5);
    CHECK_INT(take_number(&package), 0);
    CHECK(!package.is_wrong && package.at == package.end);
    expect(&aml, "\x10");
    struct aml scope = take_piece(&aml);
    CHECK(!aml.is_wrong && aml.at == aml.end);
    expect(&scope, "\\_SB_");
    for (size_t i = 0; i < device_count; i++) {
        char name[16];
        snprintf(name, sizeof(name), "V%03zX", i);
        struct found found = take_device(&scope);
        CHECK(!scope.is_wrong);
        CHECK_TEXT(found.name, name);
        CHECK_TEXT(found.hardware, "LNRO0005");
        CHECK_INT(found.number, i);
        CHECK_INT(found.address, devices[i].address);
        CHECK_INT(found.size, 4096);
        CHECK_INT(found.interrupt, devices[i].pin);
        CHECK_INT(found.interrupt_flags, 3); /* consumer, edge, high, exclusive */
    }
    for (size_t i = 0; i < serial_count; i++) {
        struct found found = take_device(&scope);
        CHECK(!scope.is_wrong);
        CHECK(memcmp(found.name, "COM", 3) == 0 && found.name[3] == (char)('1' + i));
        CHECK_TEXT(found.hardware, "PNP0501");
        CHECK_INT(found.number, i + 1);
        CHECK_INT(found.address, serials[i].port);
        CHECK_INT(found.size, 8);
        CHECK_INT(found.interrupt, serials[i].pin);
        bool has_partner = serial_count == 4 || (serial_count == 3 && i != 1);
        CHECK_INT(found.interrupt_flags, has_partner ? 0xb : 3);
    }
    CHECK(scope.at == scope.end);
}

TEST(the_dsdt_has_every_device)
{
    check_devices(1, 0, 0);
    check_devices(1, 1, 1);
    check_devices(2, 19, 2);
    check_devices(2, 19, 3);
    check_devices(LIMIT_VCPUS, LIMIT_DEVICES, LIMIT_SERIALS);
    forget();
}

TEST(nothing_is_written_outside_of_the_area)
{
    CHECK_INT(boot(make_elf(true), true, LIMIT_VCPUS, LIMIT_DEVICES, LIMIT_SERIALS), 0);
    CHECK_INT(number(area - 8, 8), 0);
    CHECK(madt() > fadt() && fadt() > dsdt() && dsdt() > area && xsdt() > madt());
    CHECK(xsdt() + number(xsdt() + 4, 4) < area_end - 0x8000); /* half of it stays free */
    CHECK_INT(number(area_end - 8, 8), 0);
    forget();
}

TEST(loading_with_acpi_survives_no_memory)
{
    struct bytes image = make_elf(true);
    auto_close int fd = memfd_create("image", MFD_CLOEXEC);
    if (fd < 0 || fd_write_all(fd, image.data, image.length) < 0)
        abort();
    bytes_free(&image);
    const struct boot_options options = {
        .kernel_fd = fd, .kernel_path = "k", .initramfs_fd = -1, .cmdline = "", .vcpus = 1, .has_acpi = true};
    forget();
    if (memory_new(64 * mib, false, &memory) < 0)
        abort();
    FOR_EACH_FAULT
    CHECK_INT(boot_load(&options, memory, &entry, &err), fault_was_hit() ? -ENOMEM : 0);
    forget();
}

static void dump(const char *folder, const char *name, uint64_t table)
{
    char path[256];
    uint64_t length = number(table + 4, 4);
    snprintf(path, sizeof(path), "%s/%s.aml", folder, name);
    auto_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    CHECK_INT(fd_write_all(fd, memory_span(memory, table, length), length), 0);
}

TEST(they_can_be_written_out)
{
    const char *folder = getenv("ACPI_DUMP");
    CHECK_INT(boot(make_elf(true), true, LIMIT_VCPUS, LIMIT_DEVICES, LIMIT_SERIALS), 0);
    dump(folder != NULL ? folder : test_folder(), "dsdt", dsdt());
    dump(folder != NULL ? folder : test_folder(), "facp", fadt());
    dump(folder != NULL ? folder : test_folder(), "apic", madt());
    dump(folder != NULL ? folder : test_folder(), "xsdt", xsdt());
    forget();
}
