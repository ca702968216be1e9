// SPDX-License-Identifier: Apache-2.0
/* A careless embedding program, and what must hold all the same.
 *
 *     careless closed MASK ENGINE INITRAMFS     standard descriptors are closed: 1 input, 2 output, 4 error, and sums
 *     careless cancelled ENGINE INITRAMFS       threads are cancelled in the library's calls
 *
 * The machine runs a program that reads and writes all it has, and ends with 3. A descriptor of the library's own must
 * not become a stream of that program, and a cancelled call must leave nothing locked. It exits with 0 when the machine
 * has ended as it should within the time given.
 */
#include "tool.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { patience_ms = 20000 };

static struct vial_vm_config *config;
static struct vial_vm *vm;

static void *choose(void *user)
{
    struct vial_engine_info info = VIAL_ENGINE_INFO_INIT;
    struct vial_error err = {0};
    (void)user;
    pthread_cancel(pthread_self()); /* to be obeyed at the first call that allows it */
    vial_vm_config_choose_engine(config, &info, &err);
    pthread_testcancel();
    return NULL;
}

static void *resume(void *user)
{
    struct vial_error err = {0};
    (void)user;
    pthread_cancel(pthread_self());
    vial_vm_resume(vm, &err);
    pthread_testcancel();
    return NULL;
}

static void run_thread(void *(*function)(void *user))
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, function, NULL) != 0)
        exit(125);
    pthread_join(thread, NULL);
}

/* 0 when it ends in time, for this reason and with this code. */
static int wait_for(int reason, int code)
{
    struct vial_exit end = VIAL_EXIT_INIT;
    struct vial_error err = {0};
    int result = vial_vm_wait(vm, patience_ms, &end, &err);
    if (result < 0)
        _exit(1); /* to free it would hang as well */
    vial_vm_free(vm);
    vial_vm_config_free(config);
    return end.reason == reason && end.code == code ? 0 : 2;
}

static int run_closed(int mask, const char *engine, const char *initramfs)
{
    static const char *const command[] = {"sh", "-c", "echo out; echo err >&2; read -r line; exit 3", NULL};
    for (int fd = 0; fd < 3; fd++)
        if ((mask & 1 << fd) != 0)
            close(fd);
    config = tool_configure(engine, initramfs, 64, command);
    vm = tool_start(config);
    return wait_for(VIAL_EXIT_FAILED, 3);
}

static int run_cancelled(const char *engine, const char *initramfs)
{
    static const char *const command[] = {"sleep", "60", NULL};
    struct vial_error err = {0};
    config = tool_configure(engine, initramfs, 64, command);
    run_thread(choose);
    vm = tool_start(config);
    tool_check(vial_vm_pause(vm, &err), &err);
    run_thread(resume);
    vial_vm_stop(vm);
    return wait_for(VIAL_EXIT_STOP_REQUESTED, 0);
}

int main(int argc, char *argv[])
{
    if (argc == 5 && strcmp(argv[1], "closed") == 0)
        return run_closed((int)strtol(argv[2], NULL, 10), argv[3], argv[4]);
    if (argc == 4 && strcmp(argv[1], "cancelled") == 0)
        return run_cancelled(argv[2], argv[3]);
    fprintf(stderr, "usage: careless closed MASK ENGINE INITRAMFS | careless cancelled ENGINE INITRAMFS\n");
    return 125;
}
