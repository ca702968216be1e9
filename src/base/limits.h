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

/* The least memory that the guest kernels boot in, and the most that one memory slot of KVM takes (2^31 - 1 pages), as
 * all RAM above 4 GiB is one. */
#define LIMIT_MEMORY_MIN_MIB 64u
#define LIMIT_MEMORY_MAX_MIB (8u << 20)

/* Devices of one kind in one machine. The widest interrupt controller serves about 200 devices altogether. */
#define LIMIT_DEVICES 200

/* Devices of one machine on the in-kernel interrupt controller: its pins 5 to 23. */
#define LIMIT_DEVICES_DEFAULT_IRQCHIP 19

/* Published ports and vsock ports of one machine. */
#define LIMIT_PORTS 1024

/* Serial ports, as on a PC. */
#define LIMIT_SERIALS 4

/* Strings of an array (arguments, environment), as libkrun caps them. */
#define LIMIT_STRINGS 4096

/* All arguments and environment together: what Linux's execve takes by default (a quarter of an 8 MiB stack). */
#define LIMIT_EXEC_BYTES (2u << 20)

/* One of them: Linux's MAX_ARG_STRLEN, its NUL included. */
#define LIMIT_EXEC_STRING_BYTES (128 << 10)

/* A path that travels beside them: Linux's PATH_MAX, its NUL included. */
#define LIMIT_EXEC_PATH_BYTES 4096

/* The body of the message with all of that: strings, two paths, and what stands before them. */
#define LIMIT_EXEC_REQUEST_BYTES (LIMIT_EXEC_BYTES + (16u << 10))

/* The path of init, which travels on the kernel command line. */
#define LIMIT_INIT_BYTES 255

/* What a compressed kernel may unpack to. A distribution's takes some 60 MiB, one with its debug information 400. */
#define LIMIT_KERNEL_UNPACKED_BYTES (512u << 20)

/* An option struct of any version of the library; a larger size was never initialised. */
#define LIMIT_OPTIONS_BYTES 4096

/* The command line of an x86 Linux kernel (COMMAND_LINE_SIZE), its NUL included, and the part of it that stays free for
 * what the machine itself has to say: console, root, init, and 200 announced devices need their own share. */
#define LIMIT_CMDLINE_BYTES 2048
#define LIMIT_CMDLINE_USER_BYTES 1024

/* A virtio-fs tag (virtio 1.2, 5.11.4) and a virtio-blk serial (5.2.6): fixed fields of the devices. */
#define LIMIT_FS_TAG_BYTES 36
#define LIMIT_DISK_ID_BYTES 20

/* Ports of one machine's console: Linux's driver takes 512, our device two queues for each of these. */
#define LIMIT_CONSOLE_PORTS 64

/* A console port's name; the guest shows it as a file name in /sys/class/virtio-ports. */
#define LIMIT_PORT_NAME_BYTES 64

/* The greatest DAX window of one mount: what fits above RAM several times over. */
#define LIMIT_DAX_WINDOW_MIB (1u << 20)

/* Rlimits that Linux knows (asm-generic/resource.h, RLIM_NLIMITS). */
#define LIMIT_RLIMITS 16

/* Exit observers of one machine. */
#define LIMIT_OBSERVERS 64

/* What a serial port holds for an output that does not keep up: a whole kernel log of ordinary length, as much as a
 * pipe holds. After that the guest has to wait. */
#define LIMIT_SERIAL_OUTPUT_BYTES (64u << 10)

/* How long a serial port that ends waits for its output: while the reader takes something at least every tenth of a
 * second, a second altogether. Nobody would call that hanging, and a reader that lives empties a pipe in far less. */
#define LIMIT_SERIAL_IDLE_MS 100
#define LIMIT_SERIAL_DRAIN_MS 1000

/* Random bytes for one request of a guest, which may ask for 4 GiB at once. The host makes 64 KiB in a fraction of a
 * millisecond, and the standard lets a device use less than the whole buffer (virtio 1.2, 5.4.6.2). */
#define LIMIT_RNG_REQUEST_BYTES (64u << 10)

/* Page numbers in one request of a guest's balloon, each of which can cost a system call of some microseconds. Linux
 * sends 256 at a time, Windows and the BSDs at most one page full of them. */
#define LIMIT_BALLOON_PAGES 1024u

/* Free memory reported in one request. Linux sends at most 32 blocks (PAGE_REPORTING_CAPACITY) of 4 MiB; giving back
 * 256 MiB takes about 50 ms. */
#define LIMIT_BALLOON_REPORT_BYTES (UINT64_C(256) << 20)

/* Statistics in one message of a guest's balloon. Linux knows 16. */
#define LIMIT_BALLOON_STATISTICS 64

/* Processes and threads in the jail of a user-mode Linux: each guest process is one. Together with the descriptors, of
 * which the guest's kernel takes one a process, this is far more than an ordinary guest has. */
#define LIMIT_JAIL_PROCESSES 4096
#define LIMIT_JAIL_DESCRIPTORS 4096

/* What the root of a jail holds beside the initramfs: the entry of one CPU, and some folders. */
#define LIMIT_JAIL_ROOT_BYTES (64u << 10)

/* How long the end of a jail waits for processes that are killed but not gone, at a time. Only a host that does not get
 * to run them takes as long. */
#define LIMIT_JAIL_END_MS 1000

/* The command line of a user-mode Linux kernel (COMMAND_LINE_SIZE of ARCH=um), its NUL included. */
#define LIMIT_UML_CMDLINE_BYTES 4096

/* Virtqueues of one device that user-mode Linux's vhost-user driver takes. */
#define LIMIT_UML_QUEUES 64

/* Ports of a console that has so many queues: two each, and two for control. */
#define LIMIT_UML_CONSOLE_PORTS 31

/* A line of a user-mode Linux kernel's early output; the rest of a longer one is passed over. Linux's own lines are
 * shorter than 1 KiB with their prefixes (PRINTK_MESSAGE_MAX), and what we tell of one is a sentence. */
#define LIMIT_UML_LINE_BYTES 512

/* The walls of a jail, told in words. There are 13, and a reason for each that is missing. */
#define LIMIT_UML_WALLS_BYTES 2048

/* What we look through in a kernel's file: its table of sections, their names, and its read-only data, which holds the
 * configuration that it was built with. The project's kernel has 44 sections and 1.1 MiB. */
#define LIMIT_UML_SECTIONS 1024
#define LIMIT_UML_SECTION_NAMES_BYTES (64u << 10)
#define LIMIT_UML_RODATA_BYTES (64u << 20)

#endif
