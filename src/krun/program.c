// SPDX-License-Identifier: Apache-2.0
/* What runs in the guest: the program, its arguments, environment, working directory and limits.
 *
 * What is not given here, the guest's own configuration file may say (guest/krun.c).
 *
 * Invariants: (1) a call that fails has changed nothing.
 *
 * Trust: arguments are the embedding program's. Its environment, where that is asked for, is passed on as it is.
 */
#include "krun/context.h"

#include "base/alloc.h"
#include "libkrun.h"
#include "vmm/parse.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static void replace_list(struct string_list *place, struct string_list *list)
{
    krun_free_strings(place);
    *place = *list;
    *list = (struct string_list){0};
}

/* Variables that no program would see as such, and environments hold all the same, are left out. */
static int copy_variables(const char *const envp[], struct string_list *ret_list)
{
    struct string_list list = {0};
    size_t kept = 0;
    bool is_ours = envp == NULL;
    int result = 0;
    for (size_t i = 0; is_ours && environ != NULL && environ[i] != NULL && result == 0; i++) {
        result = alloc_grow((void **)&list.items, list.count, &list.capacity, sizeof(list.items[0]), LIMIT_STRINGS);
        if (result == 0) {
            list.items[list.count] = alloc_string(environ[i]);
            result = list.items[list.count] != NULL ? 0 : -ENOMEM;
        }
        list.count += result == 0;
        if (result == -E2BIG) {
            result = 0; /* as of any array, the first of them */
            break;
        }
    }
    if (!is_ours)
        result = krun_copy_strings(envp, &list);
    if (result < 0) {
        krun_free_strings(&list);
        return result;
    }
    for (size_t i = 0; i < list.count; i++) {
        bool is_variable = strchr(list.items[i], '=') != NULL && list.items[i][0] != '=';
        if (is_variable)
            list.items[kept++] = list.items[i];
        else
            free(list.items[i]);
    }
    list.count = kept;
    *ret_list = list;
    return 0;
}

int32_t krun_set_exec(uint32_t ctx_id, const char *exec_path, const char *const argv[], const char *const envp[])
{
    struct krun_context *context = NULL;
    struct string_list args = {0}, env = {0};
    auto_free char *path = NULL;
    int result = krun_copy_text(exec_path, false, &path);
    if (result == 0)
        result = krun_copy_strings(argv, &args);
    if (result == 0)
        result = copy_variables(envp, &env);
    if (result == 0) {
        context = krun_hold(ctx_id);
        result = context == NULL ? -ENOENT : 0;
    }
    if (result == 0) {
        free(context->exec_path);
        context->exec_path = steal_ptr(path);
        replace_list(&context->args, &args);
        replace_list(&context->env, &env);
        krun_let_go();
    }
    krun_free_strings(&args);
    krun_free_strings(&env);
    return result;
}

int32_t krun_set_env(uint32_t ctx_id, const char *const envp[])
{
    struct string_list env = {0};
    int result = copy_variables(envp, &env);
    if (result < 0)
        return result;
    struct krun_context *context = krun_hold(ctx_id);
    if (context != NULL) {
        replace_list(&context->env, &env);
        krun_let_go();
    }
    krun_free_strings(&env);
    return context != NULL ? 0 : -ENOENT;
}

int32_t krun_set_workdir(uint32_t ctx_id, const char *workdir_path)
{
    return krun_set_text(ctx_id, KRUN_MEMBER(workdir), workdir_path);
}

int32_t krun_set_rlimits(uint32_t ctx_id, const char *const rlimits[])
{
    struct string_list list = {0};
    struct rlimit_config limit;
    const char *why;
    if (rlimits == NULL)
        return -EINVAL;
    int result = krun_copy_strings(rlimits, &list);
    for (size_t i = 0; i < list.count && result == 0; i++)
        result = parse_rlimit(list.items[i], &limit, &why) < 0 ? -EINVAL : 0;
    struct krun_context *context = result == 0 ? krun_hold(ctx_id) : NULL;
    if (context != NULL) {
        replace_list(&context->rlimits, &list);
        krun_let_go();
    } else if (result == 0) {
        result = -ENOENT;
    }
    krun_free_strings(&list);
    return result;
}
