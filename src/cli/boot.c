// SPDX-License-Identifier: Apache-2.0
/* vial boot: a plain front end for people who bring a kernel.
 *
 * Options become calls that configure a machine; they stand above what a file given with --config says. Then the
 * machine starts, and this process waits: for its end, for signals that end it, and for the terminal to change its
 * size. The machine's own threads do the work.
 *
 * A KVM without hardware underneath takes minutes for a kernel and says nothing. So, when a machine still runs after a
 * few seconds, KVM is measured once, beside it, and the user is told. Nothing of that stands in the way of the start.
 *
 *     exit status: 0     the guest shut down, or reset the machine
 *                  1     its kernel panicked, or a CPU triple-faulted
 *                  125   vial could not start it, or could not go on
 *                  128+N signal N ended vial, and the machine with it
 *
 * Trust: arguments are the user's own; what the guest writes goes to the terminal as it comes, as on any console.
 */
#include "cli/command.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/loop.h"
#include "base/text.h"
#include "host/kvm_probe.h"
#include "vmm/config.h"

#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

static const uint64_t slow_start_ns = 3 * CLOCK_NS_PER_S;

struct boot {
    struct vial_vm_config *config; /* owned */
    bool has_options;              /* that --config would undo */
    struct vial_error error;

    struct vial_vm *vm; /* owned */
    struct loop *loop;  /* owned */
    int signal_number;  /* that ended us, or 0 */
};

/* ---- options ---- */

static int report(struct boot *boot, const struct command_option *option)
{
    print_error(option->name, &boot->error);
    return OPTIONS_WRONG;
}

static void *member_of(struct boot *boot, const struct command_option *option)
{
    boot->has_options = true;
    return (char *)boot->config + option->member;
}

static int take_config(void *user, const struct command_option *option, const char *value)
{
    struct boot *boot = user;
    struct vial_vm_config *config = NULL;
    if (boot->has_options)
        return refuse_value(option->name, value, "it would undo the options before it", "give it first");
    if (vial_vm_config_load_file(value, &config, &boot->error) < 0)
        return report(boot, option);
    vial_vm_config_free(boot->config);
    boot->config = config;
    boot->has_options = true;
    return 0;
}

static int take_flag(void *user, const struct command_option *option, const char *value)
{
    (void)value;
    *(bool *)member_of(user, option) = true;
    return 0;
}

static int take_no_flag(void *user, const struct command_option *option, const char *value)
{
    (void)value;
    *(bool *)member_of(user, option) = false;
    return 0;
}

static int take_text(void *user, const struct command_option *option, const char *value)
{
    char **text = member_of(user, option), *copy = alloc_string(value);
    if (copy == NULL)
        return refuse_value(option->name, value, "there is no memory for it", "free some");
    free(*text);
    *text = copy;
    return 0;
}

static int take_acpi(void *user, const struct command_option *option, const char *value)
{
    (void)value;
    *(uint8_t *)member_of(user, option) = strcmp(option->name, "--acpi") == 0 ? VIAL_ACPI_ON : VIAL_ACPI_OFF;
    return 0;
}

/* MiB, or with a suffix: 512, 512M, 6G. */
static int take_memory(void *user, const struct command_option *option, const char *value)
{
    size_t length = strlen(value);
    char suffix = length > 0 ? value[length - 1] : '\0';
    uint64_t unit_mib = suffix == 'G' || suffix == 'g' ? 1024 : 1;
    bool has_suffix = unit_mib > 1 || suffix == 'M' || suffix == 'm';
    uint64_t number = 0;
    if (text_to_u64(value, length - has_suffix, UINT32_MAX, &number) < 0)
        return refuse_value(option->name, value, "it is not a size", "give MiB, or a number with M or G, such as 2G");
    *(uint64_t *)member_of(user, option) = number * unit_mib;
    return 0;
}

static int take_cpus(void *user, const struct command_option *option, const char *value)
{
    uint64_t number = 0;
    if (text_to_u64(value, strlen(value), UINT32_MAX, &number) < 0)
        return refuse_value(option->name, value, "it is not a number of CPUs", "give a whole number, such as 2");
    *(uint32_t *)member_of(user, option) = (uint32_t)number;
    return 0;
}

static int take_format(void *user, const struct command_option *option, const char *value)
{
    for (int i = 0; config_kernel_formats[i] != NULL; i++) {
        if (strcmp(value, config_kernel_formats[i]) == 0) {
            *(enum vial_kernel_format *)member_of(user, option) = (enum vial_kernel_format)i;
            return 0;
        }
    }
    return refuse_value(option->name, value, "there is no such format",
                        "use auto, elf, bzimage, raw, image-gz, image-bz2, image-zstd or pe-gz");
}

static int take_cmdline(void *user, const struct command_option *option, const char *value)
{
    struct boot *boot = user;
    boot->has_options = true;
    return vial_vm_config_append_cmdline(boot->config, value, &boot->error) < 0 ? report(boot, option) : 0;
}

/* "-" is where the console is anyway, "none" nowhere, anything else a file. */
static int take_console(void *user, const struct command_option *option, const char *value)
{
    struct boot *boot = user;
    bool is_here = strcmp(value, "-") == 0;
    struct vial_console_options console = VIAL_CONSOLE_OPTIONS_INIT;
    console.implicit = is_here;
    console.output = is_here || strcmp(value, "none") == 0 ? NULL : value;
    boot->has_options = true;
    return vial_vm_config_set_console(boot->config, &console, &boot->error) < 0 ? report(boot, option) : 0;
}

static int take_serial(void *user, const struct command_option *option, const char *value)
{
    struct boot *boot = user;
    struct vial_serial_options serial = VIAL_SERIAL_OPTIONS_INIT;
    (void)value;
    serial.input_fd = STDIN_FILENO;
    serial.output_fd = STDOUT_FILENO;
    boot->has_options = true;
    return vial_vm_config_add_serial(boot->config, &serial, &boot->error) < 0 ? report(boot, option) : 0;
}

#define MEMBER(member) offsetof(struct vial_vm_config, member)

static const struct command_option options[] = {
    {"--config", true, take_config, 0},
    {"--kernel", true, take_text, MEMBER(kernel.path)},
    {"--kernel-format", true, take_format, MEMBER(kernel.format)},
    {"--krunfw", true, take_text, MEMBER(kernel.krunfw)},
    {"--initramfs", true, take_text, MEMBER(kernel.initramfs)},
    {"--init", true, take_text, MEMBER(kernel.init)},
    {"--cmdline", true, take_cmdline, 0},
    {"--cpus", true, take_cpus, MEMBER(machine.vcpus)},
    {"--memory", true, take_memory, MEMBER(machine.memory_mib)},
    {"--console", true, take_console, 0},
    {"--serial", false, take_serial, 0},
    {"--split-irqchip", false, take_flag, MEMBER(machine.split_irqchip)},
    {"--acpi", false, take_acpi, MEMBER(machine.acpi)},
    {"--no-acpi", false, take_acpi, MEMBER(machine.acpi)},
    {"--hyperthreading", false, take_flag, MEMBER(machine.hyperthreading)},
    {"--nested", false, take_flag, MEMBER(machine.nested_virtualization)},
    {"--huge-pages", false, take_flag, MEMBER(machine.huge_pages)},
    {"--no-balloon", false, take_no_flag, MEMBER(machine.balloon)},
    {"--no-rng", false, take_no_flag, MEMBER(machine.rng)},
    {.name = NULL},
};

/* ---- running ---- */

static void handle_end(void *user, uint32_t what)
{
    struct boot *boot = user;
    (void)what;
    loop_stop(boot->loop);
}

static void handle_signal(void *user, uint32_t what)
{
    struct boot *boot = user;
    boot->signal_number = (int)what;
    vial_vm_stop(boot->vm);
}

/* By now a kernel is up on any KVM that is worth the name. */
static void handle_slow_start(void *user, uint32_t what)
{
    struct kvm_probe probe;
    struct vial_error error = {0};
    (void)user;
    (void)what;
    kvm_probe_run("", &probe);
    if (probe.verdict == KVM_RING0_EMULATED && kvm_probe_explain("", &probe, &error) < 0)
        fprintf(stderr, "vial boot: warning: %s\n  -> %s\n", error.message, error.remedy);
}

static void handle_resize(void *user, uint32_t what)
{
    struct boot *boot = user;
    (void)what;
    vial_vm_window_changed(boot->vm);
}

/* As nohup(1) and the background jobs of scripts have it. Taken through a descriptor, the signal would come all the
 * same. */
static bool is_ignored(int signal_number)
{
    struct sigaction action;
    return sigaction(signal_number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

/* Signals are taken from here on, so that none ends this process while the terminal is in raw mode. */
static bool watch(struct boot *boot)
{
    static const int ending[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};
    struct loop_source *source = NULL;
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, NULL); /* nobody reads our warnings: no reason to end the machine */
    int result = loop_new(&boot->loop);
    for (size_t i = 0; i < array_length(ending) && result == 0; i++)
        if (!is_ignored(ending[i]))
            result = loop_add_signal(boot->loop, ending[i], handle_signal, boot, &source);
    if (result == 0)
        result = loop_add_signal(boot->loop, SIGWINCH, handle_resize, boot, &source);
    if (result == 0) /* a shell had the terminal while we were stopped */
        result = loop_add_signal(boot->loop, SIGCONT, handle_resize, boot, &source);
    if (result < 0)
        fprintf(stderr, "vial boot: cannot wait for signals: %s\n", strerror(-result));
    return result == 0;
}

static int run_machine(struct boot *boot, struct vial_exit *ret_exit)
{
    struct loop_source *source = NULL;
    int result = vial_vm_start(boot->config, &boot->vm, &boot->error);
    if (result < 0) {
        print_error("vial boot", &boot->error);
        return result;
    }
    result = loop_add_fd(boot->loop, vial_vm_end_fd(boot->vm), EPOLLIN, handle_end, boot, &source);
    if (result == 0)
        result = loop_add_timer(boot->loop, clock_deadline_ns(slow_start_ns), handle_slow_start, boot, &source);
    if (result == 0)
        result = loop_run(boot->loop);
    if (result < 0) /* nothing but a kernel without memory: then wait without signals */
        vial_vm_stop(boot->vm);
    return vial_vm_wait(boot->vm, VIAL_WAIT_FOREVER, ret_exit, &boot->error);
}

static int print_end(const struct boot *boot, const struct vial_exit *end, bool is_json)
{
    bool is_good = end->reason == VIAL_EXIT_COMPLETED || end->reason == VIAL_EXIT_GUEST_RESET;
    bool is_ours = end->reason == VIAL_EXIT_INTERNAL_ERROR;
    if (is_json) { /* standard output belongs to the guest's console */
        auto_json json_t *document = json_pack("{s:s, s:i, s:s}", "reason", vial_exit_reason_name(end->reason), "code",
                                               (int)end->code, "detail", end->detail);
        if (document == NULL || json_dumpf(document, stderr, 0) < 0)
            fprintf(stderr, "vial: cannot write the result as JSON");
        fputc('\n', stderr);
    } else if (!is_good && boot->signal_number == 0) {
        const struct palette *colour = palette_for(stderr);
        fprintf(stderr, "vial boot: %s%s:%s %s\n", colour->red, vial_exit_reason_name(end->reason), colour->off,
                end->detail);
    }
    if (boot->signal_number != 0)
        return 128 + boot->signal_number;
    return is_good ? EXIT_YES : is_ours ? EXIT_OURS : EXIT_NO;
}

static void release(struct boot *boot)
{
    loop_free(boot->loop); /* it watches a descriptor of the machine */
    vial_vm_free(boot->vm);
    vial_vm_config_free(boot->config);
}

static int run_boot(const struct command *command, int argc, char *argv[])
{
    struct boot boot = {0};
    struct vial_exit end = VIAL_EXIT_INIT;
    bool is_json = false;
    if (vial_vm_config_new(&boot.config, &boot.error) < 0) {
        print_error(command->path, &boot.error);
        return EXIT_OURS;
    }
    int operands = command_options(command, options, &boot, argc, argv, 0, 0, &is_json);
    int status = operands == OPTIONS_DONE ? EXIT_YES : EXIT_OURS;
    if (operands >= 0 && watch(&boot) && run_machine(&boot, &end) == 0)
        status = print_end(&boot, &end, is_json);
    release(&boot);
    return status;
}

const struct command command_boot = {
    .name = "boot",
    .path = "vial boot",
    .arguments = "[OPTIONS]",
    .summary = "Boot a kernel on KVM, with this terminal as its console",
    .help =
        "The guest's console is standard input and output; on a terminal it is in raw mode, so ^C goes to the "
        "guest.\n\n"
        "  --config FILE          a machine's configuration (docs/CONFIG.md), which the options behind it change\n"
        "  --kernel FILE          the kernel (default: the project's own, built by kernel/build)\n"
        "  --kernel-format NAME   auto (default), elf, bzimage, raw, image-gz, image-bz2, image-zstd, pe-gz\n"
        "  --krunfw FILE          take the kernel from a libkrunfw.so.5\n"
        "  --initramfs FILE       what the kernel unpacks as its first root\n"
        "  --init PATH            the guest's first process\n"
        "  --cmdline TEXT         append to the kernel's command line; may be repeated (loglevel=7 shows messages)\n"
        "  --cpus N               virtual CPUs, 1 to 64 (default: 1)\n"
        "  --memory SIZE          MiB, or with a suffix M or G (default: 512)\n"
        "  --console WHERE        - (default: this terminal), none, or a file for the output\n"
        "  --serial               a 16550 serial port on standard input and output, instead of the virtio console\n"
        "  --split-irqchip        room for 200 devices instead of 19 (about 50 without ACPI)\n"
        "  --acpi --no-acpi       describe the machine in ACPI tables, or not (default: only to a bzImage)\n"
        "  --hyperthreading       show pairs of CPUs as threads of one core\n"
        "  --nested               show VMX or SVM to the guest\n"
        "  --huge-pages           ask the host for transparent huge pages\n"
        "  --no-balloon --no-rng  leave these devices out\n"
        "  --json                 say on standard error how it ended, as JSON\n\n"
        "exit status: 0 when the guest shut down or reset the machine, 1 when its kernel panicked or a CPU triple-\n"
        "faulted, 125 when vial could not run it, 128+N when signal N ended vial\n",
    .run = run_boot,
};
