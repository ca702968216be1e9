// SPDX-License-Identifier: Apache-2.0
/* A list of system calls becomes a seccomp filter, by libseccomp, when Vial is built.
 *
 * At run time there is an array and one system call: no library to trust or to load, and nothing that can fail for want
 * of memory. Numbers decide the way through a filter by a tree, so its length hardly matters.
 *
 * Invariants: (1) no answer is stronger than TRAP. (2) a name that this machine's headers do not know ends the build.
 *
 * Trust: libseccomp, and the headers of the machine that Vial is built on.
 */
#include "base/filter/write.h"

#include <errno.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    most_arguments = sizeof(((struct filter_rule *)NULL)->arguments) /
                     sizeof(((struct filter_rule *)NULL)->arguments[0])
};

__attribute__((noreturn)) static void die(const char *what, int result)
{
    fprintf(stderr, "the filter cannot be generated: %s: %s\n", what, strerrordesc_np(-result));
    exit(1);
}

static void check(const char *what, int result)
{
    if (result < 0)
        die(what, result);
}

static int number_of(const char *name)
{
    int number = seccomp_syscall_resolve_name(name);
    if (number < 0)
        die(name, -ENOENT);
    return number;
}

static void add_rule(scmp_filter_ctx filter, const struct filter_rule *rule)
{
    struct scmp_arg_cmp compare[most_arguments];
    for (unsigned i = 0; i < rule->count; i++) {
        compare[i].arg = rule->arguments[i].index;
        compare[i].op = rule->arguments[i].mask != 0 ? SCMP_CMP_MASKED_EQ : SCMP_CMP_EQ;
        compare[i].datum_a = rule->arguments[i].mask != 0 ? rule->arguments[i].mask : rule->arguments[i].value;
        compare[i].datum_b = rule->arguments[i].value;
    }
    check(rule->name, seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number_of(rule->name), rule->count, compare));
}

static void add_value(scmp_filter_ctx filter, const struct filter_value *value)
{
    bool is_refused = value->answer == FILTER_REFUSED;
    struct scmp_arg_cmp compare = {.arg = value->argument, .op = SCMP_CMP_EQ, .datum_a = value->value};
    check(value->name, seccomp_rule_add_array(filter, is_refused ? SCMP_ACT_ERRNO(EPERM) : SCMP_ACT_ALLOW,
                                              number_of(value->name), 1, &compare));
    compare.op = SCMP_CMP_NE;
    check(value->name, seccomp_rule_add_array(filter, is_refused ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(EPERM),
                                              number_of(value->name), 1, &compare));
}

static void add_group(scmp_filter_ctx filter, const struct filter_group *group)
{
    for (const char *const *name = group->allowed; name != NULL && *name != NULL; name++)
        check(*name, seccomp_rule_add(filter, SCMP_ACT_ALLOW, number_of(*name), 0));
    for (const struct filter_refusal *row = group->refused; row != NULL && row->name != NULL; row++)
        check(row->name, seccomp_rule_add(filter, SCMP_ACT_ERRNO((unsigned)row->error), number_of(row->name), 0));
    for (const struct filter_rule *row = group->rules; row != NULL && row->name != NULL; row++)
        add_rule(filter, row);
    for (const struct filter_value *row = group->values; row != NULL && row->name != NULL; row++)
        add_value(filter, row);
}

static void print(scmp_filter_ctx filter)
{
    struct sock_filter line;
    FILE *file = tmpfile();
    if (file == NULL)
        die("tmpfile", -errno);
    check("seccomp_export_bpf", seccomp_export_bpf(filter, fileno(file)));
    rewind(file);
    while (fread(&line, sizeof(line), 1, file) == 1)
        printf("{0x%02x, %u, %u, 0x%08x},\n", line.code, line.jt, line.jf, line.k);
    fclose(file);
}

void filter_write(const struct filter_group *const *groups)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_TRAP);
    if (filter == NULL)
        die("seccomp_init", -ENOMEM);
    check("seccomp_attr_set", seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_TRAP));
    check("seccomp_attr_set", seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2)); /* a tree, not a list */
    for (; *groups != NULL; groups++)
        add_group(filter, *groups);
    print(filter);
    seccomp_release(filter);
}

void filter_write_names(void)
{
    enum { numbers = 1024 }; /* x86_64 has some 470, and x32 begins at 2^30 */
    for (int number = 0; number < numbers; number++) {
        char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, number);
        if (name != NULL)
            printf("[%d] = \"%s\",\n", number, name);
        free(name);
    }
}
