/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of guest-tests share: each is a function that tries one subject of Linux in the guest it runs in. */
#ifndef PART_H
#define PART_H

#include <stdbool.h>
#include <stdint.h>

#define length_of(array) (sizeof(array) / sizeof(*(array)))

/* True when everything was as it has to be. What was not has been said with complain or expect. */
typedef bool part_function(void);

part_function part_storm, part_vfork, part_pipes, part_limits, part_stack;
part_function part_cpus, part_threads, part_pingpong;
part_function part_mappings, part_faults, part_sharing, part_leftovers;
part_function part_signals, part_queued, part_stopping, part_arithmetic;
part_function part_unix, part_loopback, part_epoll;
part_function part_registers, part_control_words;
part_function part_clocks;

/* One line on standard output, with errno's text where it is not 0. Returns false. */
bool complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A fact beside the verdict, such as how long a thing took. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Whether the condition holds; says so where it does not. */
#define expect(condition) ((condition) || complain("line %d: not %s", __LINE__, #condition))

uint64_t now_ns(void);
unsigned cpu_count(void);
void pin_to(unsigned cpu);

/* What part_leftovers executes: whether there is nothing where others had memory. */
bool finds_nothing(void);

/* The exit status of a child, or 128+N when signal N ended it; -1 when there is no such child. */
int status_of(int child);

#endif
