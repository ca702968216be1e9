// SPDX-License-Identifier: Apache-2.0
/* Tests of base/text: escaping, numbers, guesses. */
#include "test.h"

#include "base/text.h"

#include <errno.h>

static const char *escape(const char *source, size_t length, size_t size)
{
    static char result[256];
    memset(result, 'z', sizeof(result));
    size_t used = text_escape(result, size, source, length, "\"");
    if (used >= size || result[used] != '\0' || strlen(result) != used)
        test_fail(__FILE__, __LINE__, "length %zu of %zu does not fit", used, size);
    return result;
}
#define ESCAPE(literal, size) escape(literal, sizeof(literal) - 1, size)

TEST(escape_keeps_text)
{
    CHECK_TEXT(ESCAPE("", 64), "");
    CHECK_TEXT(ESCAPE("hello world", 64), "hello world");
    CHECK_TEXT(ESCAPE("caf\xc3\xa9 \xe4\xbd\xa0 \xf0\x9f\x8c\x8e", 64), "caf\xc3\xa9 \xe4\xbd\xa0 \xf0\x9f\x8c\x8e");
    CHECK_TEXT(ESCAPE("say \"x\"", 64), "say \\\"x\\\"");
}

TEST(escape_disarms_control_characters)
{
    CHECK_TEXT(ESCAPE("a\x1b[2Jb\n\0c", 64), "a\\x1b[2Jb\\x0a\\x00c");
    CHECK_TEXT(ESCAPE("\x7f", 64), "\\x7f");
    CHECK_TEXT(ESCAPE("\xc2\x9b", 64), "\\xc2\\x9b");          /* C1: CSI */
    CHECK_TEXT(ESCAPE("\xe2\x80\xae", 64), "\\xe2\\x80\\xae"); /* right-to-left override */
}

TEST(escape_refuses_broken_utf8)
{
    CHECK_TEXT(ESCAPE("\xff", 64), "\\xff");
    CHECK_TEXT(ESCAPE("\xc3", 64), "\\xc3");
    CHECK_TEXT(ESCAPE("\xc0\xaf", 64), "\\xc0\\xaf");                   /* overlong */
    CHECK_TEXT(ESCAPE("\xed\xa0\x80", 64), "\\xed\\xa0\\x80");          /* surrogate */
    CHECK_TEXT(ESCAPE("\xf4\x90\x80\x80", 64), "\\xf4\\x90\\x80\\x80"); /* above U+10FFFF */
    CHECK_TEXT(ESCAPE("\xe4\xbd"
                      "x",
                      64),
               "\\xe4\\xbdx");
}

TEST(escape_cuts_between_characters)
{
    CHECK_TEXT(ESCAPE("0123456789", 11), "0123456789");
    CHECK_TEXT(ESCAPE("0123456789", 10), "012345...");
    CHECK_TEXT(ESCAPE("\xe4\xbd\xa0\xe4\xbd\xa0\xe4\xbd\xa0", 9), "\xe4\xbd\xa0...");
    CHECK_TEXT(ESCAPE("\n\n\n\n", 9), "\\x0a...");
    CHECK_TEXT(ESCAPE("abcdef", 4), "...");
    CHECK_TEXT(ESCAPE("abcdef", 3), "ab");
    CHECK_TEXT(ESCAPE("abcdef", 1), "");
}

TEST(numbers)
{
    uint64_t value = 7;
    CHECK_INT(text_to_u64("0", 1, 10, &value), 0);
    CHECK_INT(value, 0);
    CHECK_INT(text_to_u64("18446744073709551615", 20, UINT64_MAX, &value), 0);
    CHECK(value == UINT64_MAX);
    value = 7;
    CHECK_INT(text_to_u64("18446744073709551616", 20, UINT64_MAX, &value), -ERANGE);
    CHECK_INT(text_to_u64("11", 2, 10, &value), -ERANGE);
    CHECK_INT(text_to_u64("", 0, 10, &value), -EINVAL);
    CHECK_INT(text_to_u64("-1", 2, 10, &value), -EINVAL);
    CHECK_INT(text_to_u64(" 1", 2, 10, &value), -EINVAL);
    CHECK_INT(text_to_u64("1x", 2, 10, &value), -EINVAL);
    CHECK_INT(text_to_u64("99999999999999999999x", 21, 10, &value), -EINVAL);
    CHECK_INT(value, 7);
}

TEST(printable_ascii)
{
    CHECK(text_is_printable_ascii(""));
    CHECK(text_is_printable_ascii(" ~"));
    CHECK(!text_is_printable_ascii("\t"));
    CHECK(!text_is_printable_ascii("\x7f"));
    CHECK(!text_is_printable_ascii("caf\xc3\xa9"));
}

TEST(nearest_finds_typing_mistakes)
{
    static const char *const words[] = {"vcpus", "memory_mib", "read_only", "format", "raw", NULL};
    CHECK_TEXT(text_nearest("vcpu", words), "vcpus");
    CHECK_TEXT(text_nearest("vpcus", words), "vcpus");
    CHECK_TEXT(text_nearest("memory", words), "memory_mib");
    CHECK_TEXT(text_nearest("memory_mb", words), "memory_mib");
    CHECK_TEXT(text_nearest("readonly", words), "read_only");
    CHECK_TEXT(text_nearest("fromat", words), "format");
    CHECK(text_nearest("kernel", words) == NULL);
    CHECK(text_nearest("", words) == NULL);
    CHECK(text_nearest("x", words) == NULL);
    CHECK(text_nearest("a_word_that_is_longer_than_any_key_could_ever_be", words) == NULL);
}
