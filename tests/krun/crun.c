// SPDX-License-Identifier: Apache-2.0
/* crun ROOTFS: what crun's handler "krun" does with a bundle, between its own steps.
 *
 * It loads libkrun.so.1 and makes the context while it still sees the host; then it goes into the container, mounts and
 * root of its own, and only there reads what machine is wanted (/.krun_vm.json) and starts it. What is to run stands in
 * /.krun_config.json, which is the library's to read. Nothing else is said: streams are this process's.
 *
 * Debian 12's crun (1.8.1) is built without that handler: its program holds no "krun" at all, and cannot load the
 * library. So the steps are made here.
 *
 * Trust: it is run by tests/krun_suite.py only, as root, and the bundle is that suite's.
 */
#include "client.h"

#include <dlfcn.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct {
    int32_t (*create_ctx)(void);
    int32_t (*set_log_level)(uint32_t);
    int32_t (*set_root)(uint32_t, const char *);
    int32_t (*set_vm_config)(uint32_t, uint8_t, uint32_t);
    int32_t (*set_kernel)(uint32_t, const char *, uint32_t, const char *, const char *);
    int32_t (*start_enter)(uint32_t);
} krun;

static void *find(void *library, const char *name)
{
    void *symbol = dlsym(library, name);
    if (symbol == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(code_usage);
    }
    return symbol;
}

static void load(void)
{
    void *library = dlopen("libkrun.so.1", RTLD_NOW);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(code_usage);
    }
    *(void **)&krun.create_ctx = find(library, "krun_create_ctx");
    *(void **)&krun.set_log_level = find(library, "krun_set_log_level");
    *(void **)&krun.set_root = find(library, "krun_set_root");
    *(void **)&krun.set_vm_config = find(library, "krun_set_vm_config");
    *(void **)&krun.set_kernel = find(library, "krun_set_kernel");
    *(void **)&krun.start_enter = find(library, "krun_start_enter");
}

static void do_or_die(const char *what, int result)
{
    if (result < 0) {
        perror(what);
        exit(code_usage);
    }
}

/* The container: mounts of its own, /proc, /dev with what every container has, and no way back to the host's files. */
static void enter(const char *root)
{
    static const char *const devices[] = {"null", "zero", "full", "random", "urandom", "tty", "kvm"};
    do_or_die("unshare", unshare(CLONE_NEWNS));
    do_or_die("private", mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    do_or_die(root, mount(root, root, NULL, MS_BIND | MS_REC, NULL));
    do_or_die(root, chdir(root));
    do_or_die("proc", mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    do_or_die("dev", mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755,size=65536k"));
    for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++) {
        char from[64], to[64];
        snprintf(from, sizeof(from), "/dev/%s", devices[i]);
        snprintf(to, sizeof(to), "dev/%s", devices[i]);
        if (access(from, F_OK) < 0)
            continue;
        FILE *place = fopen(to, "we");
        if (place != NULL)
            fclose(place);
        do_or_die(to, mount(from, to, NULL, MS_BIND, NULL));
    }
    do_or_die("pivot_root", (int)syscall(SYS_pivot_root, ".", "."));
    do_or_die("the host's root", umount2(".", MNT_DETACH));
    do_or_die("/", chdir("/"));
}

/* ---- /.krun_vm.json ---- */

/* Where the value of a key begins, or NULL. */
static const char *find_value(const char *text, const char *key)
{
    char quoted[64];
    snprintf(quoted, sizeof(quoted), "\"%s\":", key);
    const char *place = strstr(text, quoted);
    return place == NULL ? NULL : place + strlen(quoted) + strspn(place + strlen(quoted), " ");
}

static unsigned number_of(const char *text, const char *key)
{
    const char *value = find_value(text, key);
    return value == NULL ? 0 : (unsigned)strtoul(value, NULL, 10);
}

/* NULL where there is none; the caller's for the process's time. */
static char *text_of(const char *text, const char *key)
{
    const char *value = find_value(text, key);
    return value == NULL || *value != '"' ? NULL : strndup(value + 1, strcspn(value + 1, "\""));
}

static void configure(uint32_t context)
{
    char text[4096] = "";
    FILE *file = fopen("/.krun_vm.json", "re");
    if (file == NULL) {
        must("krun_set_vm_config", krun.set_vm_config(context, 1, 2048));
        return;
    }
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    fclose(file);
    const char *kernel = text_of(text, "kernel_path");
    if (kernel != NULL)
        must("krun_set_kernel", krun.set_kernel(context, kernel, number_of(text, "kernel_format"),
                                                text_of(text, "initrd_path"), text_of(text, "kernel_cmdline")));
    must("krun_set_vm_config",
         krun.set_vm_config(context, (uint8_t)number_of(text, "cpus"), number_of(text, "ram_mib")));
}

int main(int count, char **words)
{
    if (count != 2)
        return code_usage;
    load();
    uint32_t context = (uint32_t)must("krun_create_ctx", krun.create_ctx());
    enter(words[1]);
    must("krun_set_log_level", krun.set_log_level(KRUN_LOG_LEVEL_ERROR));
    must("krun_set_root", krun.set_root(context, "/"));
    configure(context);
    return not_started(krun.start_enter(context));
}
