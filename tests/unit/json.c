// SPDX-License-Identifier: Apache-2.0
/* Tests of base/json: strictness, places, guesses. */
#include "test.h"

#include "base/json.h"

#include <errno.h>
#include <unistd.h>

static struct vial_error err;

static json_t *parse(const char *text)
{
    json_t *document = NULL;
    memset(&err, 0, sizeof(err));
    json_parse(text, strlen(text), &document, &err);
    return document;
}

TEST(syntax_errors_name_line_and_column)
{
    CHECK(parse("{\n  \"a\": 1,\n}") == NULL);
    CHECK_INT(err.code, VIAL_ERROR_SYNTAX);
    CHECK(strncmp(err.message, "line 3, column 1: ", 18) == 0);
    CHECK(parse("") == NULL);
    CHECK_INT(err.code, VIAL_ERROR_SYNTAX);
    CHECK(parse("{\"a\": 1, \"a\": 2}") == NULL); /* twice */
    CHECK(parse("{} x") == NULL);                 /* behind the end */
    CHECK(parse("{\"a\": \"\xff\"}") == NULL);    /* not UTF-8 */
    CHECK(parse("// comment\n{}") == NULL);
    CHECK(parse("[]") == NULL);
    CHECK_INT(err.code, VIAL_ERROR_TYPE);
    CHECK_TEXT(err.message, "expected an object, found an array");
}

TEST(deep_nesting_is_refused)
{
    static char text[20000];
    memset(text, '[', sizeof(text) - 1);
    CHECK(parse(text) == NULL);
    CHECK_INT(err.code, VIAL_ERROR_SYNTAX);
}

TEST(places_are_named)
{
    static const char *const keys[] = {"disks", NULL}, *const disk_keys[] = {"format", "path", NULL};
    auto_json json_t *document = parse("{\"disks\": [{}, {\"fromat\": 7, \"path\": 3}]}");
    struct json_cursor root = {.value = document}, disks, format;
    const char *text = NULL;
    CHECK_INT(json_check_object(&root, keys, &err), 0);
    CHECK(json_member(&root, "disks", &disks));
    struct json_cursor second = json_element(&disks, 1);
    CHECK_INT(json_check_object(&second, disk_keys, &err), -EINVAL);
    CHECK_INT(err.code, VIAL_ERROR_UNKNOWN_KEY);
    CHECK_TEXT(err.field, "disks[1].fromat");
    CHECK_TEXT(err.value, "7");
    CHECK_TEXT(err.remedy, "did you mean \"format\"?");
    CHECK(json_member(&second, "path", &format));
    CHECK_INT(json_get_text(&format, &text, &err), -EINVAL);
    CHECK_TEXT(err.field, "disks[1].path");
    CHECK_TEXT(err.message, "expected a string, found a whole number");
    CHECK_INT(json_check_object(&disks, keys, &err), -EINVAL);
    CHECK_TEXT(err.message, "expected an object, found an array");
    CHECK(!json_member(&root, "absent", &format));
}

TEST(unknown_keys_without_a_likeness_list_what_is_known)
{
    static const char *const keys[] = {"one", "two", "three", NULL};
    auto_json json_t *document = parse("{\"qqqqqqqq\": null}");
    struct json_cursor root = {.value = document};
    CHECK_INT(json_check_object(&root, keys, &err), -EINVAL);
    CHECK_TEXT(err.remedy, "remove it; the keys known here are one, two or three");
    CHECK_TEXT(err.value, "null");
}

TEST(values_are_typed)
{
    static const char *const names[] = {"raw", "qcow2", NULL};
    auto_json json_t *document = parse("{\"n\": -1, \"f\": 1.0, \"b\": \"yes\", \"c\": \"qcow3\", \"d\": \"xyz\", "
                                       "\"nul\": \"a\\u0000b\", \"list\": [1, 2, 3], \"e\": \"qcow2\"}");
    struct json_cursor root = {.value = document}, at;
    uint64_t number = 0;
    size_t count = 0;
    bool flag = false;
    int choice = -1;
    const char *text = NULL;
    CHECK(json_member(&root, "n", &at));
    CHECK_INT(json_get_u64(&at, 10, &number, &err), -ERANGE);
    CHECK_TEXT(err.message, "-1 is not between 0 and 10");
    CHECK(json_member(&root, "f", &at));
    CHECK_INT(json_get_u64(&at, 10, &number, &err), -EINVAL);
    CHECK_TEXT(err.message, "expected a whole number, found a number with a fraction or exponent");
    CHECK(json_member(&root, "b", &at));
    CHECK_INT(json_get_bool(&at, &flag, &err), -EINVAL);
    CHECK_TEXT(err.message, "expected true or false, found a string");
    CHECK(json_member(&root, "c", &at));
    CHECK_INT(json_get_choice(&at, names, &choice, &err), -EINVAL);
    CHECK_TEXT(err.message, "\"qcow3\" is not one of raw or qcow2");
    CHECK_TEXT(err.remedy, "did you mean \"qcow2\"?");
    CHECK(json_member(&root, "d", &at));
    CHECK_INT(json_get_choice(&at, names, &choice, &err), -EINVAL);
    CHECK_TEXT(err.remedy, "use raw or qcow2");
    CHECK(json_member(&root, "nul", &at));
    CHECK_INT(json_get_text(&at, &text, &err), -EINVAL);
    CHECK_TEXT(err.field, "nul");
    CHECK_TEXT(err.message, "the text holds a NUL byte at offset 1");
    CHECK(json_member(&root, "list", &at));
    CHECK_INT(json_get_count(&at, 2, &count, &err), -E2BIG);
    CHECK_TEXT(err.message, "3 elements are more than the limit of 2");
    CHECK_INT(json_get_count(&at, 3, &count, &err), 0);
    CHECK_INT(count, 3);
    CHECK(json_member(&root, "e", &at));
    CHECK_INT(json_get_choice(&at, names, &choice, &err), 0);
    CHECK_INT(choice, 1);
}

TEST(files)
{
    json_t *document = NULL;
    CHECK_INT(json_parse_file("/nonexistent", &document, &err), -ENOENT);
    CHECK_INT(err.code, VIAL_ERROR_NOT_FOUND);
    CHECK_INT(json_parse_file(test_folder(), &document, &err), -EISDIR);
    const char *path = test_text_file("big", "");
    CHECK_INT(truncate(path, 5 << 20), 0);
    CHECK_INT(json_parse_file(path, &document, &err), -E2BIG);
    CHECK_INT(json_parse_file(test_text_file("empty", ""), &document, &err), -EINVAL);
    CHECK_INT(json_parse_file(test_text_file("good", "{\"a\": 1}"), &document, &err), 0);
    json_decref(document);
}

TEST(reading_a_file_survives_no_memory)
{
    const char *path = test_text_file("good", "{\"a\": 1}");
    FOR_EACH_FAULT
    {
        auto_json json_t *document = NULL;
        CHECK_INT(json_parse_file(path, &document, &err), fault_was_hit() ? -ENOMEM : 0);
    }
}
