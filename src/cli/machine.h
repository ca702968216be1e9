// SPDX-License-Identifier: Apache-2.0
/* The options that describe a machine, for every command that has one. */
#ifndef CLI_MACHINE_H
#define CLI_MACHINE_H

#include "cli/command.h"
#include "vmm/config.h"

struct machine_arguments {
    struct vial_vm_config *config; /* owned by the command */
    bool has_options;              /* that --config would undo */
    const char *env[256];          /* of the command; borrowed from argv, as is the next */
    size_t env_count;
    const char *workdir;
    char terminal[64]; /* TERM=…, for a command that has this terminal */
    struct vial_error error;
};

/* For command_options, whose `user` is then a struct machine_arguments. */
extern const struct command_option machine_options[];

/* A command for the guest and its arguments, ended by NULL. 0, or -errno with arguments->error. */
int machine_take_command(struct machine_arguments *arguments, char *const words[]);

/* The same for the command of a configuration file, which it has. */
int machine_take_configured(struct machine_arguments *arguments);

/* What --help says of them, a line each. */
#define MACHINE_OPTIONS_HELP                                                                                           \
    "  --config FILE          a machine's configuration (docs/CONFIG.md), which the options behind it change\n"        \
    "  --engine NAME          auto (default: kvm where it runs guests natively, else uml), kvm, uml\n"                 \
    "  --insecure-no-jail     uml: start even where this host forbids walls of the guest's jail\n"                     \
    "  --kernel FILE          the kernel (default: the project's own, built by kernel/build)\n"                        \
    "  --kernel-format NAME   auto (default), elf, bzimage, raw, image-gz, image-bz2, image-zstd, pe-gz\n"             \
    "  --krunfw FILE          take the kernel from a libkrunfw.so.5\n"                                                 \
    "  --initramfs FILE       what the kernel unpacks as its first root\n"                                             \
    "  --init PATH            the guest's first process\n"                                                             \
    "  --cmdline TEXT         append to the kernel's command line; may be repeated (loglevel=7 shows messages)\n"      \
    "  --env KEY=VALUE        for the command; may be repeated. PATH, HOME and a terminal's TERM are there by "        \
    "default\n"                                                                                                        \
    "  --workdir PATH         the command's working directory\n"                                                       \
    "  --cpus N               virtual CPUs, 1 to 64 (default: 1)\n"                                                    \
    "  --memory SIZE          MiB, or with a suffix M or G (default: 512)\n"                                           \
    "  --console WHERE        - (default: this terminal), none, or a file for the output\n"                            \
    "  --serial               a 16550 serial port on standard input and output, instead of the virtio console\n"       \
    "  --split-irqchip        room for 200 devices instead of 19 (about 50 without ACPI)\n"                            \
    "  --acpi --no-acpi       describe the machine in ACPI tables, or not (default: only to a bzImage)\n"              \
    "  --hyperthreading       show pairs of CPUs as threads of one core\n"                                             \
    "  --nested               show VMX or SVM to the guest\n"                                                          \
    "  --huge-pages           ask the host for transparent huge pages\n"                                               \
    "  --no-balloon --no-rng  leave these devices out\n"

#endif
