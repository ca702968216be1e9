// SPDX-License-Identifier: Apache-2.0
/* A list of system calls becomes a seccomp filter: rows of a C array of struct sock_filter. For programs that run when
 * Vial is built; nothing of this is in the library.
 *
 * What no group has is answered by a signal (SECCOMP_RET_TRAP), as are calls of other ABIs (32 bit, x32).
 */
#ifndef BASE_FILTER_WRITE_H
#define BASE_FILTER_WRITE_H

#include <stdint.h>

/* Answered with this errno: what somebody tries and does without. */
struct filter_refusal {
    const char *name;
    int error;
};

/* Allowed with these arguments only: rows of one name are alternatives. `mask` 0 compares whole arguments. */
struct filter_rule {
    const char *name;
    unsigned count;
    struct {
        unsigned index;
        uint64_t mask, value;
    } arguments[3];
};

/* One value of an argument is refused with EPERM and all others are allowed, or the other way round. */
enum filter_answer { FILTER_REFUSED, FILTER_ALLOWED };
struct filter_value {
    const char *name;
    unsigned argument;
    enum filter_answer answer;
    uint64_t value;
};

/* Lists that belong together. Each ends in a row without a name, and may be NULL. */
struct filter_group {
    const char *const *allowed; /* with any arguments, which is also the fast way */
    const struct filter_refusal *refused;
    const struct filter_rule *rules;
    const struct filter_value *values;
};

/* Prints the filter that these groups, up to NULL, make together. Whatever fails ends the program. */
void filter_write(const struct filter_group *const *groups);

/* Prints the names of all calls as rows of an array of texts, by their numbers. */
void filter_write_names(void);

#endif
