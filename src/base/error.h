// SPDX-License-Identifier: Apache-2.0
/* Filling in a struct vial_error. Every function accepts NULL for it. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "vial/base.h"

/* Resets the error and sets its code, phase and message. Returns the negative errno that stands for the code, so that a
 * failing function can end in `return error_set(…)`. */
int error_set(struct vial_error *err, enum vial_error_code code, enum vial_phase phase, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The same for a failed system call: VIAL_ERROR_OS unless its errno has a better code, ": " and the errno's text behind
 * the message. `os_error` may have either sign. Returns it negative. */
int error_set_os(struct vial_error *err, enum vial_phase phase, int os_error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* -ENOMEM, with everything set. */
int error_no_memory(struct vial_error *err, enum vial_phase phase);

/* A long text with its middle left out, for the arguments of a message: what is said about it must stay in sight. */
struct error_text {
    char text[128];
};
struct error_text error_short(const char *text);

void error_field(struct vial_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));
void error_value(struct vial_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));
void error_remedy(struct vial_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
