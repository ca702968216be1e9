// SPDX-License-Identifier: Apache-2.0
/* libkrun.h has every constant with its value, and every call with its types (rows.h has both).
 *
 * A call whose types differ does not compile: its address goes into a pointer of the table's types. Values are compared
 * when this runs. It is C99 and C++ at once, knows nothing of Vial but the header, and needs the library only to link.
 */
#include <libkrun.h>

#include <libkrun.h> /* twice: it has a guard */

#include <stdio.h>
#include <string.h>

#define CONSTANT(name, value)
#define TEXT(name, value)
#define SIZES(name, ...)
#define FUNCTION(type, name, types) static type(*const pointer_of_##name) types = name;
#define OLDER(type, name, types) FUNCTION(type, name, types)
#include "rows.h"
#undef CONSTANT
#undef TEXT
#undef SIZES
#undef FUNCTION
#undef OLDER

static unsigned test_count, test_failed;

static void check(const char *name, int is_right)
{
    test_count++;
    test_failed += !is_right;
    printf("%sok %u - %s\n", is_right ? "" : "not ", test_count, name);
}

#ifdef __cplusplus /* has no array literals */
#define CHECK_SIZES(name, ...)
#else
#define CHECK_SIZES(name, ...)                                                                                         \
    {                                                                                                                  \
        static const uint16_t expected[] = {__VA_ARGS__};                                                              \
        check(#name, sizeof(name) == sizeof(expected) && memcmp(name, expected, sizeof(expected)) == 0);               \
    }
#endif

int main(void)
{
#define CONSTANT(name, value) check(#name, (name) == (value));
#define TEXT(name, value) check(#name, strcmp(name, value) == 0 && sizeof(name) == sizeof(value));
#define SIZES(name, ...) CHECK_SIZES(name, __VA_ARGS__)
#define FUNCTION(type, name, types) check(#name, pointer_of_##name != NULL);
#define OLDER(type, name, types) FUNCTION(type, name, types)
#include "rows.h"
    printf("1..%u\n", test_count);
    return test_failed > 0;
}
