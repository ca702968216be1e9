// SPDX-License-Identifier: Apache-2.0
/* Tests of cbor: the encodings of RFC 8949's appendix A that we have, and every other form refused. */
#include "test.h"

#include "base/alloc.h"
#include "proto/cbor.h"

#include <errno.h>

static uint8_t bytes[64];

static struct cbor_writer a_writer(void)
{
    memset(bytes, 0xee, sizeof(bytes));
    return (struct cbor_writer){.bytes = bytes, .capacity = sizeof(bytes)};
}

static const char *in_hex(size_t length)
{
    static char text[2 * sizeof(bytes) + 1];
    text[0] = '\0';
    for (size_t i = 0; i < length; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    return text;
}

/* The bytes in memory of exactly their length. */
static uint8_t *exact;
static struct cbor_reader a_reader(const char *hex)
{
    size_t length = strlen(hex) / 2;
    free(exact);
    exact = malloc(length > 0 ? length : 1);
    for (size_t i = 0; i < length; i++) {
        char digits[3] = {hex[2 * i], hex[2 * i + 1]};
        exact[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    return (struct cbor_reader){.next = exact, .end = exact + length};
}

static const struct {
    int64_t number;
    const char *hex;
} numbers[] = {
    {0, "00"},
    {1, "01"},
    {10, "0a"},
    {23, "17"},
    {24, "1818"},
    {25, "1819"},
    {100, "1864"},
    {255, "18ff"},
    {256, "190100"},
    {1000, "1903e8"},
    {65535, "19ffff"},
    {65536, "1a00010000"},
    {1000000, "1a000f4240"},
    {4294967295, "1affffffff"},
    {4294967296, "1b0000000100000000"},
    {1000000000000, "1b000000e8d4a51000"},
    {INT64_MAX, "1b7fffffffffffffff"},
    {-1, "20"},
    {-10, "29"},
    {-24, "37"},
    {-25, "3818"},
    {-100, "3863"},
    {-1000, "3903e7"},
    {INT64_MIN, "3b7fffffffffffffff"},
};

TEST(numbers_are_as_the_standard_has_them)
{
    for (size_t i = 0; i < array_length(numbers); i++) {
        struct cbor_writer writer = a_writer();
        struct cbor_reader reader = a_reader(numbers[i].hex);
        int64_t number = 7;
        cbor_write_signed(&writer, numbers[i].number);
        CHECK_TEXT(in_hex(writer.length), numbers[i].hex);
        CHECK_INT(cbor_read_signed(&reader, &number), 0);
        CHECK_INT(number, numbers[i].number);
        CHECK(reader.next == reader.end);
        uint64_t natural = 7;
        reader = a_reader(numbers[i].hex);
        CHECK_INT(cbor_read_unsigned(&reader, &natural), numbers[i].number < 0 ? -EPROTO : 0);
        CHECK(numbers[i].number < 0 || natural == (uint64_t)numbers[i].number);
    }
    struct cbor_writer writer = a_writer();
    struct cbor_reader reader = a_reader("1bffffffffffffffff");
    uint64_t natural = 0;
    int64_t number = 0;
    cbor_write_unsigned(&writer, UINT64_MAX);
    CHECK_TEXT(in_hex(writer.length), "1bffffffffffffffff");
    CHECK_INT(cbor_read_signed(&reader, &number), -EPROTO); /* it has no room there */
    CHECK_INT(cbor_read_unsigned(&reader, &natural), 0);
    CHECK(natural == UINT64_MAX);
    reader = a_reader("3bffffffffffffffff");
    CHECK_INT(cbor_read_signed(&reader, &number), -EPROTO);
}

TEST(longer_forms_of_a_number_are_refused)
{
    static const char *const others[] = {
        "1800", "1817", "190017", "1900ff", "1a0000ffff", "1b00000000ffffffff", "3800", "3900ff", "1c", "1d", "1e",
        "1f",   "",     "18",     "1901",   "1a000100",   "1b00000001000000",   "f4",   "40",     "60", "80", "a0",
        "c0",   "ff"};
    for (size_t i = 0; i < array_length(others); i++) {
        struct cbor_reader reader = a_reader(others[i]);
        const uint8_t *before = reader.next;
        uint64_t natural = 7;
        int64_t number = 7;
        CHECK_INT(cbor_read_unsigned(&reader, &natural), -EPROTO);
        CHECK_INT(cbor_read_signed(&reader, &number), -EPROTO);
        CHECK(natural == 7 && number == 7 && reader.next == before);
    }
}

TEST(strings_and_counts)
{
    struct cbor_writer writer = a_writer();
    cbor_write_map(&writer, 2);
    cbor_write_array(&writer, 25);
    cbor_write_bytes(&writer, "\x01\x02\x03\x04", 4);
    cbor_write_bytes(&writer, NULL, 0);
    cbor_write_bytes_head(&writer, 65536);
    CHECK_TEXT(in_hex(writer.length), "a29819440102030440"
                                      "5a00010000");
    struct cbor_reader reader = a_reader("a298194401020304405a00010000");
    uint64_t count = 0;
    size_t length = 0;
    const uint8_t *string = NULL;
    CHECK_INT(cbor_read_array(&reader, &count), -EPROTO);
    CHECK_INT(cbor_read_map(&reader, &count), 0);
    CHECK_INT(count, 2);
    CHECK_INT(cbor_read_map(&reader, &count), -EPROTO);
    CHECK_INT(cbor_read_array(&reader, &count), 0);
    CHECK_INT(count, 25);
    CHECK_INT(cbor_read_bytes(&reader, &string, &length), 0);
    CHECK(length == 4 && memcmp(string, "\x01\x02\x03\x04", 4) == 0);
    CHECK_INT(cbor_read_bytes(&reader, &string, &length), 0);
    CHECK_INT(length, 0);
    const uint8_t *before = reader.next;
    CHECK_INT(cbor_read_bytes(&reader, &string, &length), -EPROTO); /* its bytes are not there */
    CHECK(reader.next == before);
    static const char *const others[] = {"5f41ff", "58034141", "5bffffffffffffffff00", "6161", "43ffff"};
    for (size_t i = 0; i < array_length(others); i++) {
        reader = a_reader(others[i]);
        CHECK_INT(cbor_read_bytes(&reader, &string, &length), -EPROTO);
    }
}

TEST(what_does_not_fit_is_counted_but_not_written)
{
    uint8_t small[4] = {0xee, 0xee, 0xee, 0xee};
    struct cbor_writer writer = {.bytes = small, .capacity = 3};
    struct cbor_writer measure = {0};
    cbor_write_bytes(&writer, "abc", 3);
    cbor_write_unsigned(&writer, 1);
    cbor_write_bytes(&measure, "abc", 3);
    cbor_write_unsigned(&measure, 1);
    CHECK_INT(writer.length, 5);
    CHECK_INT(measure.length, 5);
    CHECK(small[0] == 0x43 && small[1] == 0xee && small[3] == 0xee);
    cbor_write_bytes_head(&measure, SIZE_MAX);
    CHECK_INT(measure.length, 14);
    free(exact);
    exact = NULL;
}
