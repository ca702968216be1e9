// SPDX-License-Identifier: Apache-2.0
/* Every limit on what somebody else can make us hold, each with its reason. */
#ifndef BASE_LIMITS_H
#define BASE_LIMITS_H

/* A configuration file. A machine with 200 devices and 4096 arguments of ordinary length fits in a tenth of it. */
#define LIMIT_CONFIG_FILE_BYTES (4u << 20)

/* A configuration written out: what every limit below allows together, escaped, is a quarter of it. */
#define LIMIT_DUMP_BYTES (64u << 20)

/* Any file of /proc or /sys that we read whole. */
#define LIMIT_PROC_FILE_BYTES (64u << 10)

/* vCPUs of one machine: what the APIC ids of our MP table and the guest kernels (NR_CPUS) are made for. */
#define LIMIT_VCPUS 64

/* The least memory that the guest kernels boot in, and the most that fits below the guest's 46-bit physical addresses
 * with room for the shared-memory windows. */
#define LIMIT_MEMORY_MIN_MIB 64u
#define LIMIT_MEMORY_MAX_MIB (16u << 20)

/* Devices of one kind in one machine. The widest interrupt controller serves about 200 devices altogether. */
#define LIMIT_DEVICES 200

/* Devices of one machine on the in-kernel interrupt controller: its pins 5 to 23. */
#define LIMIT_DEVICES_DEFAULT_IRQCHIP 19

/* Published ports and vsock ports of one machine. */
#define LIMIT_PORTS 1024

/* Strings of an array (arguments, environment), as libkrun caps them. */
#define LIMIT_STRINGS 4096

/* All arguments and environment together: what Linux's execve takes by default (a quarter of an 8 MiB stack). */
#define LIMIT_EXEC_BYTES (2u << 20)

/* One of them: Linux's MAX_ARG_STRLEN, its NUL included. */
#define LIMIT_EXEC_STRING_BYTES (128 << 10)

/* The path of init, which travels on the kernel command line. */
#define LIMIT_INIT_BYTES 255

/* An option struct of any version of the library; a larger size was never initialised. */
#define LIMIT_OPTIONS_BYTES 4096

/* The command line of an x86 Linux kernel (COMMAND_LINE_SIZE), its NUL included, and the part of it that stays free for
 * what the machine itself has to say: console, root, init, and 200 announced devices need their own share. */
#define LIMIT_CMDLINE_BYTES 2048
#define LIMIT_CMDLINE_USER_BYTES 1024

/* A virtio-fs tag (virtio 1.2, 5.11.4) and a virtio-blk serial (5.2.6): fixed fields of the devices. */
#define LIMIT_FS_TAG_BYTES 36
#define LIMIT_DISK_ID_BYTES 20

/* A console port's name; the guest shows it as a file name in /sys/class/virtio-ports. */
#define LIMIT_PORT_NAME_BYTES 64

/* The greatest DAX window of one mount: what fits above RAM several times over. */
#define LIMIT_DAX_WINDOW_MIB (1u << 20)

/* Rlimits that Linux knows (asm-generic/resource.h, RLIM_NLIMITS). */
#define LIMIT_RLIMITS 16

/* Exit observers of one machine. */
#define LIMIT_OBSERVERS 64

#endif
