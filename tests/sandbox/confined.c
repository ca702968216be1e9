// SPDX-License-Identifier: Apache-2.0
/* Runs a machine as a sandbox's process does, within the walls: CONFIG.json [pause|stop|attack]. For tests/e2e/confine.
 *
 * Standard error gets lines `standing: …`, `missing: …` and `refused: CALL in a KIND thread`; the status is the
 * machine's, or 125. With "pause" the machine is stopped and goes on ten times, with "stop" it is ended at once,
 * and with "attack" this process executes a program.
 */
#include "base/alloc.h"
#include "sandbox/confine.h"
#include "vial/vmm.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ours = 125 };

static int die(const char *what, const struct vial_error *err)
{
    fprintf(stderr, "%s: %s (%s) %s\n", what, err->message, err->value, err->remedy);
    return ours;
}

static void tell(const char *call, enum confine_kind kind)
{
    char text[128];
    int length = snprintf(text, sizeof(text), "refused: %s in a %s thread\n", call,
                          kind < CONFINE_KINDS ? confine_kind_names[kind] : "free");
    ssize_t written = write(STDERR_FILENO, text, (size_t)length);
    (void)written;
}

static int put_up_walls(const struct vial_vm_config *config, struct vial_error *err)
{
    static struct confine_path paths[CONFINE_MACHINE_PATHS];
    struct confine_options options = {.paths = NULL};
    struct confine_report report;
    size_t count = 0;
    int result = confine_options_add_machine(&options, config, paths, &count, array_length(paths));
    confine_on_refusal(tell);
    if (result == 0)
        result = confine_process(&options, &report, err);
    if (result == 0)
        fprintf(stderr, "standing: %s\nmissing: %s\n", report.standing, report.missing);
    return result;
}

static int pause_and_resume(struct vial_vm *vm, struct vial_error *err)
{
    for (int i = 0; i < 10; i++) {
        int result = vial_vm_pause(vm, err);
        if (result == 0)
            result = vial_vm_resume(vm, err);
        if (result < 0)
            return result;
    }
    return 0;
}

static int run(struct vial_vm_config *config, const char *what, struct vial_error *err)
{
    struct vial_vm *vm = NULL;
    struct vial_exit end = VIAL_EXIT_INIT;
    int result = vial_vm_start(config, &vm, err);
    if (result == 0)
        result = confine_thread(CONFINE_CONTROL, err);
    if (result == 0 && strcmp(what, "pause") == 0)
        result = pause_and_resume(vm, err);
    if (result == 0 && strcmp(what, "stop") == 0)
        vial_vm_stop(vm);
    if (result == 0 && strcmp(what, "attack") == 0)
        execl("/bin/true", "true", NULL);
    if (result == 0)
        result = vial_vm_wait(vm, UINT64_MAX, &end, err);
    vial_vm_free(vm);
    if (result < 0)
        return die("run", err);
    fprintf(stderr, "end: %s, %d, %s\n", vial_exit_reason_name(end.reason), end.code, end.detail);
    return end.code;
}

int main(int argc, char *argv[])
{
    struct vial_error err = {0};
    struct vial_vm_config *config = NULL;
    if (argc < 2)
        return 2;
    int result = vial_vm_config_load_file(argv[1], &config, &err);
    if (result == 0)
        result = put_up_walls(config, &err);
    int status = result < 0 ? die("start", &err) : run(config, argc > 2 ? argv[2] : "", &err);
    vial_vm_config_free(config);
    return status;
}
