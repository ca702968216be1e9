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

/* Tmpfs mounts of one machine, which are no devices. */
#define LIMIT_TMPFS 200

/* Everything that a machine's init mounts: at most a root's layers, and three lists of LIMIT_DEVICES. */
#define LIMIT_MOUNTS (4 * LIMIT_DEVICES)

/* The message with all of that. Ordinary ones are a hundredth; what is longer than it is refused before the start. */
#define LIMIT_SETUP_BYTES (1u << 20)

/* The name of a file system type; the longest that Linux has is half of it. */
#define LIMIT_FSTYPE_BYTES 32

/* Options of a mount: mount(2) takes a page, its NUL included. */
#define LIMIT_MOUNT_OPTIONS_BYTES 4095

/* Images that a disk's image may stand on: far more than anybody stacks. */
#define LIMIT_DISK_BACKING 64

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

/* A guest's own file that says what is to run: podman writes 20 KiB. Values in it, each of which is 40 bytes of the
 * guest's memory, and how deep they stand in each other. */
#define LIMIT_KRUN_CONFIG_BYTES (1u << 20)
#define LIMIT_JSON_NODES (64u << 10)
#define LIMIT_JSON_DEPTH 64

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

/* Images under images, the top one included. A snapshot a day for two weeks. */
#define LIMIT_DISK_CHAIN 16

/* A VMDK descriptor: as many extents as the next limit allows, with names of 200 bytes each. */
#define LIMIT_VMDK_DESCRIPTOR_BYTES (1u << 20)

/* Extents of one VMDK disk: 8 TiB in pieces of 2 GiB. The files that they lie in, each of which is a descriptor of ours
 * for as long as the disk is open. */
#define LIMIT_VMDK_EXTENTS 4096
#define LIMIT_VMDK_FILES 1024

/* Grain directories of one VMDK disk, held in memory: 8 TiB in grains of 64 KiB take 1 MiB. */
#define LIMIT_VMDK_DIRECTORY_BYTES (16u << 20)

/* Grain tables of one VMDK disk in memory, 2 KiB each: what 64 GiB take. */
#define LIMIT_VMDK_TABLES 2048

/* One grain: VMware writes 64 KiB, and at most 1 MiB on its servers. A compressed one is unpacked as a whole. */
#define LIMIT_VMDK_GRAIN_BYTES (2u << 20)

/* Tables of a qcow2 image in memory: QEMU's bounds, so that whatever it makes can be opened. */
#define LIMIT_QCOW2_L1_BYTES (32u << 20)
#define LIMIT_QCOW2_REFCOUNT_TABLE_BYTES (8u << 20)

/* Snapshots in a qcow2 image, and the table that lists them: QEMU's bounds. */
#define LIMIT_QCOW2_SNAPSHOTS 65536u
#define LIMIT_QCOW2_SNAPSHOT_TABLE_BYTES (64u << 20)

/* L2 tables and refcount blocks of a qcow2 image in memory: enough for 64 GiB in use with clusters of 64 KiB. It is
 * taken as it is needed. */
#define LIMIT_QCOW2_CACHE_BYTES (16u << 20)

/* Clusters of a qcow2 image that hold its tables, whose numbers are held while it is open for writing: what 32 MiB of
 * L1 table can name, and as much again for refcounts. 16 bytes each at most. */
#define LIMIT_QCOW2_METADATA_CLUSTERS (8u << 20)

/* One step of a write to a qcow2 image: its clusters lie in a row, and others wait until it is done. */
#define LIMIT_QCOW2_STEP_BYTES (UINT64_C(8) << 20)

/* Runs of clusters that wait to become free. At a quarter of it they are made free by a flush. */
#define LIMIT_QCOW2_FREED_RANGES 4096

/* Clusters of a qcow2 image that can be checked, for each of which a number of 4 bytes is held: 4 TiB in clusters of
 * 64 KiB. */
#define LIMIT_QCOW2_CHECK_CLUSTERS (64u << 20)

/* L2 tables that one check looks through, those of snapshots each time anew: 30000 snapshots of 64 GiB each. */
#define LIMIT_QCOW2_CHECK_TABLES (4u << 20)

/* What one request to a block device may read or write: what we tell the driver (254 segments of 1 MiB), rounded up.
 * Linux asks for 4 MiB at most. */
#define LIMIT_BLK_REQUEST_BYTES (UINT64_C(256) << 20)
#define LIMIT_BLK_SEGMENT_BYTES (1u << 20)
#define LIMIT_BLK_SEGMENTS 254

/* Zeros that a block device's own thread writes to guest memory for one request: 20 µs. More is a worker's job. */
#define LIMIT_BLK_FILL_BYTES (256u << 10)

/* Discards in one request, and how much each may give back: a hole of 2 GiB takes some milliseconds. Zeros may have to
 * be written, so there is less of them at once. */
#define LIMIT_BLK_DISCARDS 16
#define LIMIT_BLK_DISCARD_SECTORS (1u << 22)
#define LIMIT_BLK_ZEROES_SECTORS (1u << 17)

/* Threads of one block device that wait for its disk, where nothing else can: as many as disks and file systems of our
 * time serve well. */
#define LIMIT_BLK_WORKERS 16

/* Streams of one guest over its virtio socket: some 300 bytes each, and a descriptor of the host, whose own limit is
 * usually met first. A busy server in the guest has some thousands of connections. */
#define LIMIT_VSOCK_STREAMS 16384

/* What a stream may hold for a host that does not read, which is the credit that its guest is given: four of Linux's
 * largest packets, as Linux itself gives. */
#define LIMIT_VSOCK_STREAM_BYTES (256u << 10)

/* The sum of all such credit, for which a thousand streams do. A stream beyond it gets only little, so all streams
 * together hold at most twice as much. */
#define LIMIT_VSOCK_CREDIT_BYTES (UINT64_C(256) << 20)
#define LIMIT_VSOCK_LITTLE_BYTES (16u << 10)

/* Connections of the host's that the guest has not answered. A guest that lives answers at once; more wait where
 * listen(2) has them. */
#define LIMIT_VSOCK_UNANSWERED 1024

/* Refusals that wait for a buffer of the guest's: as many as its queue has places. Then its own packets wait. */
#define LIMIT_VSOCK_RESETS 256

/* One datagram, and all those that wait for a guest that does not read: some times what Linux gives a UDP
 * socket. */
#define LIMIT_VSOCK_DATAGRAM_BYTES (64u << 10)
#define LIMIT_VSOCK_DATAGRAMS_BYTES (1u << 20)
/* An Ethernet frame: a datagram of IPv4's 64 KiB with its Ethernet header, rounded up. passt, whose MTU is 65520, and
 * drivers that leave segmentation to the device send such. */
#define LIMIT_NET_FRAME_BYTES 65550u

/* Pieces of guest memory that one frame may be spread over: what one call of the host's kernel takes (IOV_MAX), but one
 * for what we put before it. Linux uses 19 at most. */
#define LIMIT_NET_PIECES 1023

/* What one direction of a network device moves before the other one has its turn: half a millisecond of copying, and
 * as many system calls as take that long. */
#define LIMIT_NET_TURN_BYTES (1u << 20)
#define LIMIT_NET_TURN_FRAMES 256

/* What is read ahead of a stream of frames, and what is held of a batch that a stream did not take: some frames of the
 * longest kind, or one moment's worth of short ones. */
#define LIMIT_NET_AHEAD_BYTES (256u << 10)

/* Frames that go into a stream with one call, and how many bytes are gathered for it. */
#define LIMIT_NET_BATCH_FRAMES 64
#define LIMIT_NET_BATCH_BYTES (64u << 10)

/* Between two attempts to find a network's socket again: at first, and after some. Each costs microseconds. */
#define LIMIT_NET_PAUSE_LEAST_MS 100
#define LIMIT_NET_PAUSE_MOST_MS 5000

/* What one guest makes its file server remember: nodes that it looked up and did not forget, at most 32 bytes each in a
 * table that stays below 96 MiB. A guest's own kernel needs 1 KiB for each, so ordinary ones never come near. */
#define LIMIT_FS_KNOWN_NODES (3u << 20)

/* Open files and folders of one shared file system: 48 bytes each here, and a descriptor of the host, whose own limit
 * is usually met first. */
#define LIMIT_FS_OPEN_HANDLES (128u << 10)

/* Files that are kept open for a guest that opens none itself, 32 bytes each here: more than any program reads side by
 * side. A file that is opened again costs some microseconds. */
#define LIMIT_FS_KEPT_FILES 256

/* Requests of one shared file system that are worked on at a time; more wait in their queues. Linux has at most 64
 * reads ahead under way (we tell it so) and one request for each process that waits. */
#define LIMIT_FS_REQUESTS 128

/* The greatest read or write: 256 pages, as we tell the guest (FUSE_MAX_PAGES). */
#define LIMIT_FS_TRANSFER_BYTES (1u << 20)

/* What the device's own thread reads, writes or lists at once, without a worker: some 30 microseconds of copying. */
#define LIMIT_FS_QUICK_BYTES (128u << 10)

/* How long a guest may believe what never changes. */
#define LIMIT_FS_VALID_S 86400

/* Inodes that one guest knows of a shared folder: a kernel's or a distribution's source tree forty times over. At 180
 * bytes each, and up to 256 more for its name, they are some 0.8 GiB of the host's memory with ordinary names and 1.8
 * GiB with the longest ones: its cgroup is the real bound. */
#define LIMIT_FS_NODES (4u << 20)

/* Descriptors held for those of them that were used last, and for what a guest has open, of all shared folders of the
 * process. Its own limit (RLIMIT_NOFILE) is lower nearly everywhere: nodes take a quarter of that, handles a half. */
#define LIMIT_FS_NODE_DESCRIPTORS (64u << 10)
#define LIMIT_FS_HANDLES (1u << 20)

/* What a folder's handle has read ahead of the guest: some 200 names of ordinary length. */
#define LIMIT_FS_FOLDER_BYTES (8u << 10)

/* An extended attribute's value, or a list of their names: Linux's XATTR_SIZE_MAX and XATTR_LIST_MAX. */
#define LIMIT_FS_XATTR_BYTES (64u << 10)

/* One copy between two files, which no signal ends early: a tenth of a second on a disk. */
#define LIMIT_FS_COPY_BYTES (128u << 20)

/* Entries that a program puts into a machine's file systems, and their bytes: an init, its configuration, and some
 * static programs. A folder's entries are searched one after another. */
#define LIMIT_FS_ENTRIES 1024
#define LIMIT_FS_ENTRY_BYTES (256u << 20)

/* Virtual files and folders over a shared folder, with those on the way to them. A machine's mounts are some ten. */
#define LIMIT_FS_VIRTUAL 4096

/* Folders on the way from the root of the host to a shared folder. */
#define LIMIT_FS_DEPTH 256

/* Sockets of the host that a guest has by TSI, those included that only have a name left: some 500 bytes each here, and
 * a descriptor, whose own limit is usually met first. A server with a thousand clients has room. */
#define LIMIT_TSI_SOCKETS 4096

/* Connections that one listener of a guest has been given and has not accepted. Linux's own servers ask for 128 by
 * habit (the old SOMAXCONN); more wait with the host. */
#define LIMIT_TSI_PENDING 128

/* A datagram, with TSI or to it: the greatest of UDP (65507 bytes) is less, and a vsock packet holds as much. */
#define LIMIT_TSI_DATAGRAM_BYTES (64u << 10)

/* What is read from one datagram socket before others have their turn: 50 µs of copying, or as many system calls. */
#define LIMIT_TSI_TURN_BYTES (256u << 10)
#define LIMIT_TSI_TURN_DATAGRAMS 32

/* How long listeners rest when the host has no descriptor for one more connection, which nothing signals. */
#define LIMIT_TSI_REST_MS 100

/* The path of a home of sandboxes: SQLite takes 512 bytes, names of the files beside a database included. */
#define LIMIT_HOME_PATH_BYTES 480

/* Folders inside the folder of a sandbox that is removed: ours are two deep. */
#define LIMIT_HOME_DEPTH 16

/* Sandboxes of one home in one list: 80 MiB of it. */
#define LIMIT_SANDBOXES 100000

/* The write-ahead log of the database of a home, in pages of 1 KiB: what is read, in well under a millisecond, by the
 * first process that opens it. Who lists or removes sandboxes puts a longer one into the database. */
#define LIMIT_STORE_LOG_BYTES (1u << 20)

/* The file of a home's events, which is kept twice: some 40,000 events. One event is written at once, in less than a
 * page. */
#define LIMIT_EVENTS_BYTES (4u << 20)
#define LIMIT_EVENT_BYTES 4095

/* Labels of a sandbox, and one of them with its value. */
#define LIMIT_LABELS 256
#define LIMIT_LABEL_BYTES 4096

/* Scripts of a sandbox, and one of them: the guest has them in memory of the host. */
#define LIMIT_SCRIPTS 64
#define LIMIT_SCRIPT_BYTES (1u << 20)

/* What a sandbox is, written out: all arguments and environment as bytes that JSON cannot hold, and its machine. */
#define LIMIT_SPEC_BYTES (LIMIT_DUMP_BYTES + 8 * LIMIT_EXEC_BYTES)

/* The hostname of a guest (HOST_NAME_MAX of Linux). */
#define LIMIT_HOSTNAME_BYTES 64

/* Entries of one folder that a program asks a guest for, some 4.4 KiB each: more than any ordinary folder has, and what
 * a hostile guest costs stays below 300 MiB. */
#define LIMIT_FOLDER_ENTRIES 65536

/* A line of a sandbox's log: what one DATA brings, each byte of it escaped as \u00nn. */
#define LIMIT_LOG_RECORD_BYTES (512u << 10)

/* A line of a log: of the guest's console, or of our own. Longer ones of the console become several. */
#define LIMIT_JOURNAL_LINE_BYTES (16u << 10)

/* Clients of one sandbox at a time: each is a descriptor, and what its frames hold (below). */
#define LIMIT_RELAY_CLIENTS 1024

/* What waits for one client that does not read, and for all of them, the parts of frames that have not come whole among
 * it. A client's windows allow it 3 MiB for a program with both outputs and a file; who lets more pile up opened many
 * sessions and reads none of them. */
#define LIMIT_RELAY_CLIENT_BYTES (4u << 20)
#define LIMIT_RELAY_BYTES (128u << 20)

/* What waits for the agent before clients are not read any more. It may become this, one frame and one read more. */
#define LIMIT_RELAY_AGENT_BYTES (1u << 20)

/* What a client that is attached to the main program may lag behind, unless the program waits for it. */
#define LIMIT_SESSION_BEHIND_BYTES (8u << 20)

/* How long a guest may take from its start until its agent serves; on an emulated CPU it has taken 20 s. */
#define LIMIT_SANDBOX_START_MS 120000

/* How long an agent may be silent while it could speak: it says something every second. */
#define LIMIT_SANDBOX_SILENCE_MS 10000

/* What a guest may take to write what it holds to its disks and unmount, after the programs' grace. */
#define LIMIT_SANDBOX_UNMOUNT_MS 10000

/* Addresses of either kind that an interface of a guest is given, and name servers: resolv.conf(5) takes three. */
#define LIMIT_NET_ADDRESSES 8
#define LIMIT_NET_NAMESERVERS 3

/* A list of them as words: 16 of IPv6's longest with their prefixes. */
#define LIMIT_NET_WORDS_BYTES 1024

/* What IPv4 asks of each link (RFC 791), and what fits into 64 KiB with an Ethernet header, in whole words (passt). */
#define LIMIT_NET_LEAST_MTU 68
#define LIMIT_NET_MTU 65520

/* What passt's socket holds for a guest that is slower: the greatest window of one of its connections twice over. */
#define LIMIT_PASST_SOCKET_BYTES (8 << 20)

/* How long passt may take to print its help, which it does in 5 ms. */
#define LIMIT_PASST_HELP_MS 1000u

/* Pairs of queues of one network device: as many as a guest's CPUs need that one device's thread can serve. */
#define LIMIT_NET_QUEUE_PAIRS 8

#endif
