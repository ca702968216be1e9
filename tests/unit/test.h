// SPDX-License-Identifier: Apache-2.0
/* Unit tests in TAP: TEST(name) { CHECK(…); } and nothing to register.
 *
 * Each TEST is one line of the output. The first CHECK that fails ends its test and says where. A test runs in a
 * scratch folder of its own (test_folder), which is removed afterwards. A test that leaves a descriptor open fails.
 *
 * Failing allocations: test programs are linked with malloc and its kin wrapped (fault.c).
 *
 *     FOR_EACH_FAULT
 *     {
 *         struct thing *thing = NULL;
 *         int result = thing_new(&thing);
 *         CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
 *         thing_free(thing);
 *     }
 */
#ifndef TEST_H
#define TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void test_function(void);
void test_register(const char *name, test_function *function);

#define TEST(name)                                                                                                     \
    static void test_##name(void);                                                                                     \
    __attribute__((constructor)) static void register_##name(void)                                                     \
    {                                                                                                                  \
        test_register(#name, test_##name);                                                                             \
    }                                                                                                                  \
    static void test_##name(void)

/* Notes the failure of the running test. */
void test_fail(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            test_fail(__FILE__, __LINE__, "%s", #condition);                                                           \
            return;                                                                                                    \
        }                                                                                                              \
    } while (0)

#define CHECK_INT(actual, expected)                                                                                    \
    do {                                                                                                               \
        long long check_actual = (long long)(actual), check_expected = (long long)(expected);                          \
        if (check_actual != check_expected) {                                                                          \
            test_fail(__FILE__, __LINE__, "%s is %lld, expected %lld", #actual, check_actual, check_expected);         \
            return;                                                                                                    \
        }                                                                                                              \
    } while (0)

#define CHECK_TEXT(actual, expected)                                                                                   \
    do {                                                                                                               \
        const char *check_actual = (actual), *check_expected = (expected);                                             \
        if (check_actual == NULL || strcmp(check_actual, check_expected) != 0) {                                       \
            test_fail(__FILE__, __LINE__, "%s is \"%s\", expected \"%s\"", #actual,                                    \
                      check_actual != NULL ? check_actual : "(null)", check_expected);                                 \
            return;                                                                                                    \
        }                                                                                                              \
    } while (0)

/* Ends the running test without a verdict. Only a missing network is a reason: say what could not be had. */
#define TEST_SKIP(reason)                                                                                              \
    do {                                                                                                               \
        test_skip(reason);                                                                                             \
        return;                                                                                                        \
    } while (0)
void test_skip(const char *reason);

/* The scratch folder of the running test, absolute. */
const char *test_folder(void);

/* Makes a file below the scratch folder, with the folders on the way; returns its absolute path (kept until the test's
 * end). */
const char *test_file(const char *name, const void *bytes, size_t length);
const char *test_text_file(const char *name, const char *text);
const char *test_make_folder(const char *name);

struct fault {
    long at; /* the allocation that fails, counted from 0 */
};

bool fault_next(struct fault *fault);

/* Whether the allocation that was to fail in this round has been asked for. */
bool fault_was_hit(void);

/* Runs its body with the first allocation failing, then with the second, … and at last with none. `continue` is
 * fine. */
#define FOR_EACH_FAULT for (struct fault fault_round = {.at = -1}; fault_next(&fault_round);)

#endif
