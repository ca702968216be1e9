// SPDX-License-Identifier: Apache-2.0
/* The contexts of a process, and how the calls of libkrun.h read their arguments.
 *
 * They stand in one list under one lock, which is held while a call changes one: calls are rare and short. A number is
 * given once in a process.
 *
 * Invariants: (1) a context is in the list or has one owner. (2) a call that fails has changed nothing. (3) no lock is
 * held while a machine starts or runs.
 *
 * Trust: callers are the embedding program's; a wrong number, a NULL and text that is not UTF-8 are its mistakes and
 * get an error. That an array of strings ends with NULL, or has LIMIT_STRINGS of them, is all that is relied on.
 */
#include "krun/context.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/text.h"
#include "libkrun.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

enum { default_memory_mib = 128, most_contexts = 1 << 16 };

/* Of an interface of the older form. */
static const uint8_t legacy_mac[6] = {0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee};

static struct {
    pthread_mutex_t lock;
    struct krun_context **list; /* owned, as is each; by number */
    size_t count, capacity;
    uint32_t next_id;
} contexts = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- the list ---- */

static struct krun_context **find(uint32_t id)
{
    for (size_t i = 0; i < contexts.count; i++)
        if (contexts.list[i]->id == id)
            return &contexts.list[i];
    return NULL;
}

struct krun_context *krun_hold(uint32_t id)
{
    pthread_mutex_lock(&contexts.lock);
    struct krun_context **place = find(id);
    if (place != NULL)
        return *place;
    pthread_mutex_unlock(&contexts.lock);
    return NULL;
}

void krun_let_go(void)
{
    pthread_mutex_unlock(&contexts.lock);
}

int krun_set_flag(uint32_t id, size_t member, bool value)
{
    struct krun_context *context = krun_hold(id);
    if (context == NULL)
        return -ENOENT;
    *(bool *)((char *)context + member) = value;
    krun_let_go();
    return 0;
}

int krun_set_text(uint32_t id, size_t member, const char *text)
{
    auto_free char *copy = NULL;
    int result = krun_copy_text(text, false, &copy);
    if (result < 0)
        return result;
    struct krun_context *context = krun_hold(id);
    if (context == NULL)
        return -ENOENT;
    char **place = (char **)(void *)((char *)context + member);
    free(*place);
    *place = steal_ptr(copy);
    krun_let_go();
    return 0;
}

struct krun_context *krun_take(uint32_t id)
{
    pthread_mutex_lock(&contexts.lock);
    struct krun_context **place = find(id), *context = NULL;
    if (place != NULL) {
        context = *place;
        contexts.count--;
        size_t behind = (size_t)(contexts.list + contexts.count - place);
        memmove(place, place + 1, behind * sizeof(place[0]));
    }
    pthread_mutex_unlock(&contexts.lock);
    return context;
}

static int keep(struct krun_context *context)
{
    pthread_mutex_lock(&contexts.lock);
    int result = contexts.next_id > INT32_MAX ? -EMFILE : 0;
    if (result == 0)
        result = alloc_grow((void **)&contexts.list, contexts.count, &contexts.capacity, sizeof(struct krun_context *),
                            most_contexts);
    if (result == 0) {
        context->id = contexts.next_id++;
        contexts.list[contexts.count++] = context;
        result = (int)context->id;
    }
    pthread_mutex_unlock(&contexts.lock);
    return result == -E2BIG ? -EMFILE : result;
}

int32_t krun_create_ctx(void)
{
    struct krun_context *context = alloc_zero(sizeof(*context));
    if (context == NULL)
        return -ENOMEM;
    context->vcpus = 1;
    context->memory_mib = default_memory_mib;
    context->legacy_net.fd = -1;
    memcpy(context->legacy_mac, legacy_mac, sizeof(legacy_mac));
    krun_kernels_find(context);
    int result = vial_vm_config_new(&context->config, NULL);
    if (result == 0)
        result = keep(context);
    if (result < 0)
        krun_context_free(context);
    return result;
}

int32_t krun_free_ctx(uint32_t ctx_id)
{
    struct krun_context *context = krun_take(ctx_id);
    if (context == NULL)
        return -ENOENT;
    krun_context_free(context);
    return 0;
}

struct krun_context *krun_context_free(struct krun_context *context)
{
    if (context == NULL)
        return NULL;
    krun_kernels_free(context);
    krun_block_root_free(&context->block_root);
    vial_vm_config_free(context->config);
    krun_disks_free(context);
    krun_network_free(context);
    krun_console_free(context);
    free(context->exec_path);
    free(context->workdir);
    krun_free_strings(&context->args);
    krun_free_strings(&context->env);
    krun_free_strings(&context->rlimits);
    free(context);
    return NULL;
}

/* ---- arguments ---- */

int krun_check_text(const char *text, bool may_be_null)
{
    bool is_right = text == NULL ? may_be_null : text_is_utf8(text);
    return is_right ? 0 : -EINVAL;
}

int krun_copy_text(const char *text, bool may_be_null, char **ret_copy)
{
    int result = krun_check_text(text, may_be_null);
    if (result < 0)
        return result;
    char *copy = text != NULL ? alloc_string(text) : NULL;
    if (text != NULL && copy == NULL)
        return -ENOMEM;
    *ret_copy = copy;
    return 0;
}

int krun_copy_absolute(const char *path, char **ret_path)
{
    size_t length = strlen(path), has_slash = path[0] == '/';
    char *copy = alloc_zero(length + 2);
    if (copy == NULL)
        return -ENOMEM;
    copy[0] = '/';
    memcpy(copy + 1 - has_slash, path, length);
    *ret_path = copy;
    return 0;
}

void krun_free_strings(struct string_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    *list = (struct string_list){0};
}

int krun_copy_strings(const char *const strings[], struct string_list *ret_list)
{
    struct string_list list = {0};
    int result = 0;
    size_t i = 0;
    for (; strings != NULL && i < LIMIT_STRINGS && strings[i] != NULL && result == 0; i++) {
        result = alloc_grow((void **)&list.items, list.count, &list.capacity, sizeof(list.items[0]), LIMIT_STRINGS);
        if (result == 0)
            result = krun_copy_text(strings[i], false, &list.items[list.count]);
        list.count += result == 0;
    }
    if (result < 0) {
        krun_free_strings(&list);
        return result;
    }
    if (i == LIMIT_STRINGS)
        log_warn("krun.strings_cut", LOG_UINT("most", LIMIT_STRINGS));
    *ret_list = list;
    return 0;
}

int krun_copy_fd(int fd, int *ret_fd)
{
    int copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (fd >= 0 && copy < 0)
        return errno == EINVAL ? -EMFILE : -errno; /* no number from there on is allowed */
    *ret_fd = copy;
    return 0;
}

int krun_open(const char *path, int flags, mode_t mode)
{
    auto_close int fd = open(path, flags | O_CLOEXEC | O_NOCTTY, mode);
    int copy = -1;
    if (fd < 0)
        return -errno;
    if (fd > STDERR_FILENO)
        return steal_fd(&fd);
    int result = krun_copy_fd(fd, &copy);
    return result < 0 ? result : copy;
}
