// SPDX-License-Identifier: Apache-2.0
/* Tests of vmm/parse and boot/format: the little grammars and the marks of kernel images. */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "boot/format.h"
#include "vmm/parse.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>

TEST(macs)
{
    static const uint8_t expected[6] = {0x52, 0x54, 0x00, 0x12, 0xab, 0xCD};
    uint8_t mac[6] = {0};
    const char *why = NULL;
    CHECK_INT(parse_mac("52:54:00:12:ab:CD", mac, &why), 0);
    CHECK(memcmp(mac, expected, 6) == 0);
    CHECK_INT(parse_mac("52-54-00-12-ab-cd", mac, &why), 0);
    static const char *const wrong[] = {"",
                                        "52:54:00:12:ab",
                                        "52:54:00:12:ab:cd:ef",
                                        "52:54:00:12:ab:c",
                                        "52:54:00:12:ab:cg",
                                        "52:54:00-12:ab:cd",
                                        "525400:12:ab:cd:e",
                                        " 2:54:00:12:ab:cd",
                                        "52:54:00:12:ab:cd "};
    for (size_t i = 0; i < array_length(wrong); i++) {
        memset(mac, 7, sizeof(mac));
        why = NULL;
        CHECK_INT(parse_mac(wrong[i], mac, &why), -EINVAL);
        CHECK(why != NULL && mac[0] == 7);
    }
}

TEST(port_pairs)
{
    struct port_config pair;
    const char *why = NULL;
    CHECK_INT(parse_port_pair("8080:80", &pair, &why), 0);
    CHECK_INT(pair.host, 8080);
    CHECK_INT(pair.guest, 80);
    CHECK_INT(parse_port_pair("443", &pair, &why), 0);
    CHECK_INT(pair.host, 443);
    CHECK_INT(pair.guest, 443);
    CHECK_INT(parse_port_pair("65535:1", &pair, &why), 0);
    CHECK_INT(parse_port_pair("65536:1", &pair, &why), -ERANGE);
    CHECK_INT(parse_port_pair("0:1", &pair, &why), -ERANGE);
    CHECK_INT(parse_port_pair("1:0", &pair, &why), -ERANGE);
    static const char *const wrong[] = {"", ":", "80:", ":80", "a:b", "80:80:80", "80/tcp", "+80", "0x50", " 80"};
    for (size_t i = 0; i < array_length(wrong); i++)
        CHECK_INT(parse_port_pair(wrong[i], &pair, &why), -EINVAL);
}

static const char *folder_pair(const char *text)
{
    static char result[256];
    auto_free char *host = NULL, *guest = NULL;
    bool is_read_only = false;
    const char *why = NULL;
    if (parse_folder_pair(text, &host, &guest, &is_read_only, &why) < 0)
        return "refused";
    snprintf(result, sizeof(result), "%s -> %s %s", host, guest, is_read_only ? "ro" : "rw");
    return result;
}

TEST(folder_pairs)
{
    CHECK_TEXT(folder_pair("/a:/b"), "/a -> /b rw");
    CHECK_TEXT(folder_pair("./a:/b:ro"), "./a -> /b ro");
    CHECK_TEXT(folder_pair("a:/b:rw"), "a -> /b rw");
    CHECK_TEXT(folder_pair("/with:colon:/b"), "/with:colon -> /b rw");
    CHECK_TEXT(folder_pair("/a:/b:/c"), "/a:/b -> /c rw");
    /* What was meant to be read-only must never become a writable mount with a strange name. */
    CHECK_TEXT(folder_pair("/a:/b:RO"), "refused");
    CHECK_TEXT(folder_pair("/a:/b:readonly"), "refused");
    CHECK_TEXT(folder_pair("/a:/b:"), "refused");
    CHECK_TEXT(folder_pair("/a:/b:ro:rw"), "refused");
    CHECK_TEXT(folder_pair(""), "refused");
    CHECK_TEXT(folder_pair("/a"), "refused");
    CHECK_TEXT(folder_pair("/a:b"), "refused");
    CHECK_TEXT(folder_pair(":/b"), "refused");
    CHECK_TEXT(folder_pair("/a:"), "refused");
    CHECK_TEXT(folder_pair(":ro"), "refused");
    CHECK_TEXT(folder_pair("/a:ro"), "refused");
}

TEST(folder_pairs_survive_no_memory)
{
    FOR_EACH_FAULT
    {
        auto_free char *host = NULL, *guest = NULL;
        bool is_read_only = false;
        const char *why = NULL;
        int result = parse_folder_pair("/a:/b", &host, &guest, &is_read_only, &why);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
        CHECK_INT(host != NULL, result == 0);
    }
}

TEST(rlimits)
{
    struct rlimit_config limit;
    const char *why = NULL;
    CHECK_INT(parse_rlimit("NOFILE=1024:4096", &limit, &why), 0);
    CHECK_INT(limit.resource, RLIMIT_NOFILE);
    CHECK_INT(limit.soft, 1024);
    CHECK_INT(limit.hard, 4096);
    CHECK_INT(parse_rlimit("6=4096:8192", &limit, &why), 0);
    CHECK_INT(limit.resource, RLIMIT_NPROC);
    CHECK_INT(parse_rlimit("RLIMIT_CORE=0:unlimited", &limit, &why), 0);
    CHECK_INT(limit.resource, RLIMIT_CORE);
    CHECK(limit.hard == RLIM_INFINITY);
    CHECK_INT(parse_rlimit("rlimit_rttime=1:2", &limit, &why), 0);
    CHECK_INT(limit.resource, RLIMIT_RTTIME);
    CHECK_INT(parse_rlimit("as=18446744073709551615:18446744073709551615", &limit, &why), 0);
    CHECK_INT(parse_rlimit("16=1:2", &limit, &why), -ERANGE);
    CHECK_INT(parse_rlimit("NOFILE=2:1", &limit, &why), -ERANGE);
    CHECK_INT(parse_rlimit("NOFILE=1:18446744073709551616", &limit, &why), -ERANGE);
    static const char *const wrong[] = {
        "",     "NOFILE",     "NOFILE=",     "NOFILE=1",   "NOFILE=1:",   "NOFILE=:1",   "FILES=1:2",
        "=1:2", "NOFILE=a:b", "NOFILE=-1:1", "NOFILE 1:2", "RLIMIT_=1:2", "NOFILE=1:2:3"};
    for (size_t i = 0; i < array_length(wrong); i++) {
        why = NULL;
        CHECK_INT(parse_rlimit(wrong[i], &limit, &why), -EINVAL);
        CHECK(why != NULL);
    }
}

TEST(modes)
{
    uint32_t mode = 7;
    const char *why = NULL;
    CHECK_INT(parse_mode("1777", &mode, &why), 0);
    CHECK_INT(mode, 01777);
    CHECK_INT(parse_mode("0", &mode, &why), 0);
    CHECK_INT(mode, 0);
    static const char *const wrong[] = {"", "8", "00777", "-1", "0x7", "7 ", "rwx"};
    for (size_t i = 0; i < array_length(wrong); i++)
        CHECK_INT(parse_mode(wrong[i], &mode, &why), -EINVAL);
    CHECK_TEXT(why, "it is not one to four octal digits");
    CHECK_INT(mode, 0);
}

TEST(rlimit_numbers_are_linux_numbers)
{
    CHECK_TEXT(rlimit_name(RLIMIT_CPU), "CPU");
    CHECK_TEXT(rlimit_name(RLIMIT_NPROC), "NPROC");
    CHECK_TEXT(rlimit_name(RLIMIT_MEMLOCK), "MEMLOCK");
    CHECK_TEXT(rlimit_name(RLIMIT_RTTIME), "RTTIME");
    CHECK_TEXT(rlimit_name(99), "unknown");
}

TEST(disk_names_count_like_linux)
{
    char name[disk_name_bytes];
    static const struct {
        size_t index;
        const char *name;
    } cases[] = {{0, "vda"},   {1, "vdb"},    {25, "vdz"},    {26, "vdaa"},     {51, "vdaz"},
                 {52, "vdba"}, {701, "vdzz"}, {702, "vdaaa"}, {18277, "vdzzz"}, {18278, "vdaaaa"}};
    for (size_t i = 0; i < array_length(cases); i++) {
        format_disk_name(cases[i].index, name);
        CHECK_TEXT(name, cases[i].name);
    }
}

/* ---- kernel images ---- */

static int detect(const void *bytes, size_t length, enum vial_kernel_format *format, const char **why)
{
    static int count;
    char name[32];
    snprintf(name, sizeof(name), "image%d", count++);
    auto_close int fd = open(test_file(name, bytes, length), O_RDONLY);
    *why = NULL;
    return kernel_format_detect(fd, format, why);
}
#define DETECT(literal) detect(literal, sizeof(literal) - 1, &format, &why)

/* A bzImage's setup header: one setup sector, the payload at its beginning. */
static void make_bzimage(uint8_t image[1536], uint16_t version, const char *magic, size_t magic_length)
{
    memset(image, 0, 1536);
    memcpy(image, "MZ", 2);
    image[0x1f1] = 1;
    memcpy(image + 0x202, "HdrS", 4);
    image[0x206] = (uint8_t)version;
    image[0x207] = (uint8_t)(version >> 8);
    image[0x248] = 0x10;
    memcpy(image + 1024 + 0x10, magic, magic_length);
}

TEST(formats_are_told_by_their_marks)
{
    enum vial_kernel_format format = VIAL_KERNEL_AUTO;
    const char *why = NULL;
    uint8_t image[1536];
    CHECK_INT(DETECT("\x7f"
                     "ELF\x02\x01\x01"),
              0);
    CHECK_INT(format, VIAL_KERNEL_ELF);
    CHECK_INT(DETECT("\x1f\x8b\x08"), 0);
    CHECK_INT(format, VIAL_KERNEL_IMAGE_GZ);
    CHECK_INT(DETECT("BZh9"), 0);
    CHECK_INT(format, VIAL_KERNEL_IMAGE_BZ2);
    CHECK_INT(DETECT("\x28\xb5\x2f\xfd"), 0);
    CHECK_INT(format, VIAL_KERNEL_IMAGE_ZSTD);
    CHECK_INT(DETECT("MZ\0\0zimg\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0gzip\0"), 0);
    CHECK_INT(format, VIAL_KERNEL_PE_GZ);
    make_bzimage(image, 0x20f, "\x1f\x8b", 2);
    CHECK_INT(detect(image, sizeof(image), &format, &why), 0);
    CHECK_INT(format, VIAL_KERNEL_IMAGE_GZ);
    make_bzimage(image, 0x20f, "\x28\xb5\x2f\xfd", 4);
    CHECK_INT(detect(image, sizeof(image), &format, &why), 0);
    CHECK_INT(format, VIAL_KERNEL_IMAGE_ZSTD);
    make_bzimage(image, 0x208, "BZh", 3);
    CHECK_INT(detect(image, sizeof(image), &format, &why), 0);
    CHECK_INT(format, VIAL_KERNEL_IMAGE_BZ2);
}

TEST(a_bzimage_that_unpacks_itself_is_one)
{
    static const char magics[][5] = {
        {'\xfd', '7', 'z', 'X', 'Z'}, "\x5d\x00\x00", "\x02\x21\x4c\x18", "\x89LZO", "none"};
    enum vial_kernel_format format = VIAL_KERNEL_AUTO;
    const char *why = NULL;
    uint8_t image[1536];
    for (size_t i = 0; i < array_length(magics); i++) {
        make_bzimage(image, 0x20c, magics[i], sizeof(magics[i]));
        image[0x236] = 1; /* XLF_KERNEL_64 */
        format = VIAL_KERNEL_AUTO;
        CHECK_INT(detect(image, sizeof(image), &format, &why), 0);
        CHECK_INT(format, VIAL_KERNEL_BZIMAGE);
        image[0x206] = 0x0b; /* before 2.12 the flag does not exist */
        CHECK_INT(detect(image, sizeof(image), &format, &why), -EINVAL);
    }
    make_bzimage(image, 0x20f, "\x1f\x8b", 2); /* the host unpacks it: that is faster */
    image[0x236] = 1;
    CHECK_INT(detect(image, sizeof(image), &format, &why), 0);
    CHECK_INT(format, VIAL_KERNEL_IMAGE_GZ);
    CHECK_INT(detect(image, 1040, &format, &why), -EINVAL); /* cut before its payload */
    CHECK(strstr(why, "truncated") != NULL);
}

TEST(what_cannot_be_told_is_refused_with_a_reason)
{
    enum vial_kernel_format format = VIAL_KERNEL_AUTO;
    const char *why = NULL;
    uint8_t image[1536];
    CHECK_INT(DETECT(""), -EINVAL);
    CHECK_TEXT(why, "it is empty");
    CHECK_INT(DETECT("just text"), -EINVAL);
    CHECK_TEXT(why, "it carries no mark of a known format");
    CHECK_INT(DETECT("MZ\0\0zimg\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0zstd\0"), -EINVAL);
    CHECK_TEXT(why, "it is an EFI zboot image that is not compressed with gzip");
    make_bzimage(image, 0x20f,
                 "\xfd"
                 "7zXZ",
                 5);
    CHECK_INT(detect(image, sizeof(image), &format, &why), -EINVAL);
    CHECK_TEXT(why, "it is compressed with xz, which no format here covers");
    make_bzimage(image, 0x207, "\x1f\x8b", 2);
    CHECK_INT(detect(image, sizeof(image), &format, &why), -EINVAL);
    CHECK(strstr(why, "older than boot protocol 2.08") != NULL);
    make_bzimage(image, 0x20f, "\x1f\x8b", 2);
    CHECK_INT(detect(image, 1030, &format, &why), -EINVAL); /* cut before its payload */
    CHECK(strstr(why, "truncated") != NULL);
    memset(image + 0x248, 0xff, 4); /* a payload far outside */
    CHECK_INT(detect(image, sizeof(image), &format, &why), -EINVAL);
    CHECK_INT(kernel_format_detect(-1, &format, &why), -EBADF);
    CHECK_INT(format, VIAL_KERNEL_AUTO);
}
