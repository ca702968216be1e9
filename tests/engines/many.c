// SPDX-License-Identifier: Apache-2.0
/* Many machines in one long-lived process, some at once; afterwards the process is as it was.
 *
 *     many-machines ENGINE INITRAMFS COUNT WIDTH
 *
 * COUNT machines run /bin/true, WIDTH at a time, each on a thread that waits for it. A few run before anything is
 * counted, because libraries keep what they have asked for once. Then descriptors and threads must be as many as
 * before, child processes none, and the memory of this process within 2 MiB. Every exit must be a completed one.
 */
#include "tool.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { most_width = 64, first_machines = 20, most_growth_kib = 2048 };

struct batch {
    const char *engine, *initramfs;
    atomic_int left, failed;
};

static int count_entries(const char *folder)
{
    int count = 0;
    DIR *stream = opendir(folder);
    while (stream != NULL && readdir(stream) != NULL)
        count++;
    if (stream != NULL)
        closedir(stream);
    return count;
}

static long resident_kib(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL || fscanf(file, "%*d %ld", &pages) != 1)
        pages = -1;
    if (file != NULL)
        fclose(file);
    return pages * 4;
}

static void run_one(struct batch *batch)
{
    static const char *const command[] = {"true", NULL};
    struct vial_exit end = VIAL_EXIT_INIT;
    struct vial_error err = {0};
    struct vial_vm_config *config = tool_configure(batch->engine, batch->initramfs, 64, command);
    struct vial_vm *vm = tool_start(config);
    tool_check(vial_vm_wait(vm, 60000, &end, &err), &err);
    if (end.reason != VIAL_EXIT_COMPLETED) {
        fprintf(stderr, "%s: %s\n", vial_exit_reason_name(end.reason), end.detail);
        atomic_fetch_add(&batch->failed, 1);
    }
    vial_vm_free(vm);
    vial_vm_config_free(config);
}

static void *run_some(void *user)
{
    struct batch *batch = user;
    while (atomic_fetch_sub(&batch->left, 1) > 0)
        run_one(batch);
    return NULL;
}

static int run_batch(struct batch *batch, int count, int width)
{
    pthread_t threads[most_width];
    atomic_store(&batch->left, count);
    atomic_store(&batch->failed, 0);
    for (int i = 0; i < width; i++)
        if (pthread_create(&threads[i], NULL, run_some, batch) != 0)
            exit(125);
    for (int i = 0; i < width; i++)
        pthread_join(threads[i], NULL);
    return atomic_load(&batch->failed);
}

int main(int argc, char *argv[])
{
    int count = argc == 5 ? (int)strtol(argv[3], NULL, 10) : 0, width = argc == 5 ? (int)strtol(argv[4], NULL, 10) : 0;
    if (count < 1 || width < 1 || width > most_width) {
        fprintf(stderr, "usage: many-machines ENGINE INITRAMFS COUNT WIDTH\n");
        return 125;
    }
    struct batch batch = {.engine = argv[1], .initramfs = argv[2]};
    int failed = run_batch(&batch, first_machines, width);
    int descriptors = count_entries("/proc/self/fd"), threads = count_entries("/proc/self/task");
    long memory_kib = resident_kib();
    failed += run_batch(&batch, count, width);
    int descriptors_after = count_entries("/proc/self/fd"), threads_after = count_entries("/proc/self/task");
    long growth_kib = resident_kib() - memory_kib;
    bool has_children = waitpid(-1, NULL, WNOHANG | __WALL) >= 0 || errno != ECHILD;
    printf("%d machines, %d at once: %d failed, descriptors %d -> %d, threads %d -> %d, %+ld KiB, children: %s\n",
           count, width, failed, descriptors, descriptors_after, threads, threads_after, growth_kib,
           has_children ? "yes" : "none");
    return failed > 0 || descriptors_after != descriptors || threads_after != threads || has_children ||
           growth_kib > most_growth_kib;
}
