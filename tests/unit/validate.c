// SPDX-License-Identifier: Apache-2.0
/* Tests of vmm/validate: every rule, with its exact error; those of networks are in validate_net.c. Most cases are
 * files (refusals.h). What a file cannot say is built by hand below. */
#include "refusals.h"
#include "test.h"

#include "base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

TEST(machine)
{
    static const struct refusal refusals[] = {
        {"{\"machine\": {\"vcpus\": 0}}", VIAL_ERROR_OUT_OF_RANGE, "machine.vcpus", "0",
         "a machine needs at least one vCPU", "give at least 1"},
        {"{\"machine\": {\"vcpus\": 65}}", VIAL_ERROR_OUT_OF_RANGE, "machine.vcpus", "65",
         "65 vCPUs are more than the 64 that a machine can have on this host", "give at most 64"},
        {"{\"machine\": {\"memory_mib\": 0}}", VIAL_ERROR_OUT_OF_RANGE, "machine.memory_mib", "0",
         "a machine needs memory", "give at least 64; 512 is the default"},
        {"{\"machine\": {\"memory_mib\": 63}}", VIAL_ERROR_OUT_OF_RANGE, "machine.memory_mib", "63",
         "63 MiB are less than the 64 MiB that a kernel boots in", "give at least 64; 512 is the default"},
        {"{\"machine\": {\"memory_mib\": 8193}}", VIAL_ERROR_OUT_OF_RANGE, "machine.memory_mib", "8193",
         "8193 MiB are more than the 8192 MiB that this host can give", "give at most 8192"},
        {"{\"machine\": {\"vcpus\": 3, \"hyperthreading\": true}}", VIAL_ERROR_CONFLICT, "machine.hyperthreading",
         "true", "3 vCPUs cannot be shown as pairs of threads", "give an even number of vCPUs"},
        {"{\"machine\": {\"vcpus\": 4294967296}}", VIAL_ERROR_OUT_OF_RANGE, "machine.vcpus", "4294967296",
         "4294967296 is not between 0 and 4294967295", "give a whole number from 0 to 4294967295"},
        {"{\"machine\": {\"acpi\": \"of\"}}", VIAL_ERROR_INVALID, "machine.acpi", "of",
         "\"of\" is not one of auto, on or off", "did you mean \"on\"?"},
        {"{\"machine\": {\"engine\": \"umx\"}}", VIAL_ERROR_INVALID, "machine.engine", "umx",
         "\"umx\" is not one of auto, kvm or uml", "did you mean \"uml\"?"},
    };
    check_refusals(refusals, array_length(refusals));
}

TEST(kernel)
{
    static const struct refusal refusals[] = {
        {"{\"kernel\": {\"path\": \"gone\"}}", VIAL_ERROR_NOT_FOUND, "kernel.path", "gone", "gone does not exist",
         "create it, or correct the path"},
        {"{\"kernel\": {\"path\": \"\"}}", VIAL_ERROR_MISSING, "kernel.path", "", "it is empty",
         "give the path of a kernel image, or leave it out"},
        {"{\"kernel\": {\"path\": \"root\"}}", VIAL_ERROR_WRONG_KIND, "kernel.path", "root",
         "root is not a regular file", "give the path of a regular file"},
        {"{\"kernel\": {\"path\": \"kernel.unknown\"}}", VIAL_ERROR_INVALID, "kernel.format", "kernel.unknown",
         "the format of kernel.unknown cannot be told: it carries no mark of a known format",
         "name the format (raw, elf, pe-gz, image-bz2, image-gz, image-zstd, bzimage), or give another image"},
        {"{\"kernel\": {\"format\": \"elf\"}}", VIAL_ERROR_MISSING, "kernel.path", "",
         "a kernel format is given, but no kernel", "give kernel.path, or leave kernel.format out"},
        {"{\"kernel\": {\"path\": \"file\", \"format\": \"elv\"}}", VIAL_ERROR_INVALID, "kernel.format", "elv",
         "\"elv\" is not one of auto, raw, elf, pe-gz, image-bz2, image-gz, image-zstd or bzimage",
         "did you mean \"elf\"?"},
        {"{\"kernel\": {\"path\": \"kernel.elf\", \"krunfw\": \"file\"}}", VIAL_ERROR_CONFLICT, "kernel.krunfw", "file",
         "the kernel is given twice, as a file and inside a libkrunfw", "give one of kernel.path and kernel.krunfw"},
        {"{\"kernel\": {\"krunfw\": \"gone\"}}", VIAL_ERROR_NOT_FOUND, "kernel.krunfw", "gone", "gone does not exist",
         "create it, or correct the path"},
        {"{\"kernel\": {\"initramfs\": \"gone\"}}", VIAL_ERROR_NOT_FOUND, "kernel.initramfs", "gone",
         "gone does not exist", "create it, or correct the path"},
        {"{\"kernel\": {\"krunfw\": \"\"}}", VIAL_ERROR_MISSING, "kernel.krunfw", "", "it is empty",
         "give the path of a libkrunfw, or leave it out"},
        {"{\"kernel\": {\"initramfs\": \"\"}}", VIAL_ERROR_MISSING, "kernel.initramfs", "", "it is empty",
         "give the path of a file, or leave it out"},
        {"{\"kernel\": {\"cmdline\": \"a=\\\"b c\\\" --\"}}", VIAL_ERROR_INVALID, "kernel.cmdline", "a=\"b c\" --",
         "the word -- would hand the rest of the command line to init",
         "remove it; give the program's arguments in exec.args"},
        {"{\"kernel\": {\"init\": \"sbin/init\"}}", VIAL_ERROR_INVALID, "kernel.init", "sbin/init",
         "the path of init must be absolute and hold neither spaces nor quotes",
         "give an absolute path of the guest, such as /sbin/init"},
        {"{\"kernel\": {\"init\": \"/a b\"}}", VIAL_ERROR_INVALID, "kernel.init", "/a b",
         "the path of init must be absolute and hold neither spaces nor quotes",
         "give an absolute path of the guest, such as /sbin/init"},
        {"{\"kernel\": {\"cmdline\": \"a\\nb\"}}", VIAL_ERROR_INVALID, "kernel.cmdline", "a\\x0ab",
         "it travels on the kernel command line, which cannot carry control or non-ASCII characters",
         "use only characters from space to tilde here; arguments and environment in exec may hold any text"},
        {"{\"kernel\": {\"cmdline\": \"caf\\u00e9\"}}", VIAL_ERROR_INVALID, "kernel.cmdline", "caf\xc3\xa9",
         "it travels on the kernel command line, which cannot carry control or non-ASCII characters",
         "use only characters from space to tilde here; arguments and environment in exec may hold any text"},
        {"{\"kernel\": {\"cmdline\": \"a=\\\"b\"}}", VIAL_ERROR_INVALID, "kernel.cmdline", "a=\"b",
         "a double quote without its partner would swallow the rest of the command line", "close the quotation"},
        {"{\"kernel\": {\"cmdline\": \"quiet -- x\"}}", VIAL_ERROR_INVALID, "kernel.cmdline", "quiet -- x",
         "the word -- would hand the rest of the command line to init",
         "remove it; give the program's arguments in exec.args"},
        {"{\"kernel\": {\"cmdline\": \"a\\u0000b\"}}", VIAL_ERROR_INVALID, "kernel.cmdline", "a",
         "the text holds a NUL byte at offset 1", "remove the \\u0000: neither paths nor arguments can carry it"},
    };
    check_refusals(refusals, array_length(refusals));
}

TEST(file_systems)
{
    static const struct refusal refusals[] = {
        {"{\"root\": {\"path\": \"gone\"}}", VIAL_ERROR_NOT_FOUND, "root.path", "gone", "gone does not exist",
         "create it, or correct the path"},
        {"{\"root\": {}}", VIAL_ERROR_MISSING, "root.path", "", "it is not given", "give the path of a folder"},
        {"{\"root\": {\"path\": \"file\"}}", VIAL_ERROR_WRONG_KIND, "root.path", "file", "file is not a folder",
         "give the path of a folder"},
        {"{\"fs\": [{\"path\": \"file/x\"}]}", VIAL_ERROR_NOT_FOUND, "fs[0].path", "file/x", "file/x does not exist",
         "create it, or correct the path"},
        {"{\"fs\": [{\"path\": \"data\", \"tag\": \"\"}]}", VIAL_ERROR_MISSING, "fs[0].tag", "", "it is empty",
         "give a tag, or leave it out"},
        {"{\"fs\": [{\"path\": \"data\", \"tag\": \"a-tag-with-more-than-thirty-six-letters\"}]}", VIAL_ERROR_INVALID,
         "fs[0].tag", "a-tag-with-more-than-thirty-six-letters",
         "a tag has at most 36 characters and neither spaces nor quotes", "use a short name, such as data"},
        {"{\"fs\": [{\"path\": \"data\", \"tag\": \"\\u00e9\"}]}", VIAL_ERROR_INVALID, "fs[0].tag", "\xc3\xa9",
         "it travels on the kernel command line, which cannot carry control or non-ASCII characters",
         "use only characters from space to tilde here; arguments and environment in exec may hold any text"},
        {"{\"fs\": [{\"path\": \"data\", \"dax_window_mib\": 3}]}", VIAL_ERROR_INVALID, "fs[0].dax_window_mib", "3",
         "the DAX window is not a whole number of 2 MiB pages", "give a multiple of 2"},
        {"{\"fs\": [{\"path\": \"data\", \"dax_window_mib\": 1048578}]}", VIAL_ERROR_OUT_OF_RANGE,
         "fs[0].dax_window_mib", "1048578", "the DAX window is larger than 1 TiB", "give at most 1048576 (1 TiB)"},
        {"{\"fs\": [{\"path\": \"data\", \"tag\": \"x\"}, {\"path\": \"root\", \"tag\": \"x\"}]}", VIAL_ERROR_DUPLICATE,
         "fs[1].tag", "x", "fs[0].tag has the same tag",
         "give each file system a tag of its own (fs<N> is the default of the N-th)"},
        {"{\"root\": {\"path\": \"root\"}, \"fs\": [{\"path\": \"data\", \"tag\": \"/dev/root\"}]}",
         VIAL_ERROR_DUPLICATE, "fs[0].tag", "/dev/root", "root.tag has the same tag",
         "give each file system a tag of its own (fs<N> is the default of the N-th)"},
        {"{\"fs\": [{\"path\": \"data\", \"tag\": \"fs1\"}], \"mapped_dirs\": [\"data:/d\"]}", VIAL_ERROR_DUPLICATE,
         "mapped_dirs[0]", "fs1", "fs[0].tag has the same tag",
         "give each file system a tag of its own (fs<N> is the default of the N-th)"},
    };
    check_refusals(refusals, array_length(refusals));
}

TEST(mapped_dirs)
{
    static const struct refusal refusals[] = {
        {"{\"mapped_dirs\": [\"gone:/x\"]}", VIAL_ERROR_NOT_FOUND, "mapped_dirs[0].host", "gone", "gone does not exist",
         "create it, or correct the path"},
        {"{\"mapped_dirs\": [{\"guest\": \"/x\"}]}", VIAL_ERROR_MISSING, "mapped_dirs[0].host", "", "it is not given",
         "give the path of a folder"},
        {"{\"mapped_dirs\": [{\"host\": \"data\"}]}", VIAL_ERROR_MISSING, "mapped_dirs[0].guest", "", "it is not given",
         "give an absolute path of the guest"},
        {"{\"mapped_dirs\": [\"data\"]}", VIAL_ERROR_SYNTAX, "mapped_dirs[0]", "data",
         "\"data\" is not a pair of folders: it has no colon with an absolute path of the guest behind it",
         "write HOST:GUEST or HOST:GUEST:ro, such as ./data:/data:ro"},
        {"{\"mapped_dirs\": [{\"host\": \"data\", \"guest\": \"app\"}]}", VIAL_ERROR_INVALID, "mapped_dirs[0].guest",
         "app", "a path of the guest must be absolute", "begin the path with /"},
        {"{\"mapped_dirs\": [\"data:/app/../../etc\"]}", VIAL_ERROR_INVALID, "mapped_dirs[0].guest", "/app/../../etc",
         "the path leaves the guest's root", "remove the .. that climbs above /"},
        {"{\"mapped_dirs\": [\"data:/./\"]}", VIAL_ERROR_CONFLICT, "mapped_dirs[0].guest", "/./",
         "what is mounted at / would hide the root", "make it the root instead"},
        {"{\"mapped_dirs\": [\"data:/./init.krun\"]}", VIAL_ERROR_CONFLICT, "mapped_dirs[0].guest", "/./init.krun",
         "/init.krun is the init that mounts it", "choose another path"},
        {"{\"mapped_dirs\": [\"data:/init.krun/d\"]}", VIAL_ERROR_CONFLICT, "mapped_dirs[0].guest", "/init.krun/d",
         "/init.krun is the init that mounts it", "choose another path"},
        {"{\"mapped_dirs\": [\"data:/app/./data\", \"root:/app/data/\"]}", VIAL_ERROR_DUPLICATE, "mapped_dirs[1].guest",
         "/app/data/", "mapped_dirs[0] is mounted at /app/data already", "give each mount a path of its own"},
        {"{\"mapped_dirs\": [\"data:/var\", \"root:/var/log\"]}", VIAL_ERROR_CONFLICT, "mapped_dirs[1].guest",
         "/var/log", "/var/log and /var (mapped_dirs[0]) lie one inside the other",
         "mount the two side by side; one would hide a part of the other"},
        {"{\"mapped_dirs\": [\"data:/var/log\", \"root:/var\"]}", VIAL_ERROR_CONFLICT, "mapped_dirs[1].guest", "/var",
         "/var and /var/log (mapped_dirs[0]) lie one inside the other",
         "mount the two side by side; one would hide a part of the other"},
        {"{\"mapped_dirs\": [\"data:/a\\u0000b\"]}", VIAL_ERROR_INVALID, "mapped_dirs[0]", "data:/a",
         "the text holds a NUL byte at offset 7", "remove the \\u0000: neither paths nor arguments can carry it"},
    };
    check_refusals(refusals, array_length(refusals));
}

/* One that cannot be written to, and one that can. */
#define DISKS                                                                                                          \
    "\"disks\": [{\"id\": \"a\", \"path\": \"disk.img\", \"format\": \"raw\", \"read_only\": true},"                   \
    " {\"id\": \"b\", \"path\": \"file\", \"format\": \"raw\"}]"

/* What is mounted: roots, disks, memory. */
TEST(roots_and_mounts)
{
    static const struct refusal refusals[] = {
        {"{\"root\": {\"disk\": \"a\"}}", VIAL_ERROR_NOT_FOUND, "root.disk", "a", "the machine has no disks",
         "add it to disks"},
        {"{\"root\": {\"disk\": \"c\"}, " DISKS "}", VIAL_ERROR_NOT_FOUND, "root.disk", "c", "no disk has the id \"c\"",
         "give the id of one of the disks (vial vm inspect --json)"},
        {"{\"root\": {\"disk\": \"\"}, " DISKS "}", VIAL_ERROR_MISSING, "root.disk", "", "it is empty",
         "give the id of a disk"},
        {"{\"root\": {\"disk\": \"b\", \"fstype\": \"ext4\\u0007\"}, " DISKS "}", VIAL_ERROR_INVALID, "root.fstype",
         "ext4\\x07", "it holds control or non-ASCII characters", "use only characters from space to tilde"},
        {"{\"root\": {\"disk\": \"b\", \"fstype\": \"a-name-that-no-file-system-of-linux-has\"}, " DISKS "}",
         VIAL_ERROR_TOO_BIG, "root.fstype", "a-name-that-no-file-system-of-linux-has", "it is longer than 32 bytes",
         "use a shorter one"},
        {"{\"root\": {\"layers\": []}, " DISKS "}", VIAL_ERROR_MISSING, "root.layers", "", "there is no layer",
         "name at least one disk"},
        {"{\"root\": {\"layers\": [\"a\", \"x\"]}, " DISKS "}", VIAL_ERROR_NOT_FOUND, "root.layers[1]", "x",
         "no disk has the id \"x\"", "give the id of one of the disks (vial vm inspect --json)"},
        {"{\"root\": {\"layers\": [\"a\"], \"upper\": \"a\"}, " DISKS "}", VIAL_ERROR_CONFLICT, "root.upper", "a",
         "the upper layer is written to, and its disk is read_only",
         "let the disk be written to, or leave upper out for a throw-away layer"},
        {"{\"root\": {\"layers\": [\"a\", \"a\"]}, " DISKS "}", VIAL_ERROR_DUPLICATE, "root.layers[1]", "a",
         "root.layers[0] is the same disk", "mount each disk once"},
        {"{\"root\": {\"layers\": [\"a\"], \"upper\": \"b\"}, " DISKS
         ", \"mounts\": [{\"disk\": \"b\", \"guest\": \"/b\"}]}",
         VIAL_ERROR_DUPLICATE, "mounts[0].disk", "b", "root.upper is the same disk", "mount each disk once"},
        {"{\"root\": {\"host\": true, \"hidden\": [\"usr\"]}}", VIAL_ERROR_INVALID, "root.hidden[0]", "usr",
         "a path of the guest must be absolute", "begin the path with /"},
        {"{\"root\": {\"host\": true, \"hidden\": [\"/opt\", \"/.\"]}}", VIAL_ERROR_CONFLICT, "root.hidden[1]", "/",
         "nothing would be left", "use the builtin root"},
        {"{\"root\": {\"host\": true, \"hidden\": [\"/init.krun/.\"]}}", VIAL_ERROR_CONFLICT, "root.hidden[0]",
         "/init.krun/.", "/init.krun is the init that starts the machine", "leave it out"},
        {"{\"root\": {\"host\": true, \"dax_window_mib\": 3}}", VIAL_ERROR_OUT_OF_RANGE, "root.dax_window_mib", "3",
         "it is no size of a DAX window", "give an even number up to 1048576"},
        {"{\"root\": {\"path\": \"root\", \"throw_away\": true}, \"kernel\": {\"init\": \"/sbin/init\"}}",
         VIAL_ERROR_CONFLICT, "kernel.init", "/sbin/init", "the root or the mounts need the project's own init",
         "leave it out; or use a folder or an initramfs as the root, without mounts"},
        {"{\"mapped_dirs\": [\"data:/d\"], \"kernel\": {\"init\": \"/sbin/init\"}}", VIAL_ERROR_CONFLICT, "kernel.init",
         "/sbin/init", "the root or the mounts need the project's own init",
         "leave it out; or use a folder or an initramfs as the root, without mounts"},
        {"{\"fs\": [{\"path\": \"data\", \"throw_away\": true}]}", VIAL_ERROR_UNSUPPORTED, "fs[0].throw_away", "true",
         "only a root has a throw-away layer", "leave it out, or make it read_only"},
        {"{\"fs\": [{\"path\": \"data\", \"owner\": {\"uid\": 4294967295}}]}", VIAL_ERROR_OUT_OF_RANGE, "fs[0].owner",
         "4294967295", "4294967295 stands for nobody", "give numbers up to 4294967294"},
        {"{\"mounts\": [{\"disk\": \"a\"}], " DISKS "}", VIAL_ERROR_MISSING, "mounts[0].guest", "", "it is not given",
         "give an absolute path of the guest"},
        {"{\"mounts\": [{\"guest\": \"/m\"}], " DISKS "}", VIAL_ERROR_MISSING, "mounts[0].disk", "", "it is not given",
         "give the id of a disk"},
        {"{\"mounts\": [{\"disk\": \"a\", \"guest\": \"/proc/.\"}], " DISKS "}", VIAL_ERROR_CONFLICT, "mounts[0].guest",
         "/proc/.", "/proc is the guest kernel's own", "choose another path"},
        {"{\"mapped_dirs\": [\"data:/d\"], \"mounts\": [{\"disk\": \"a\", \"guest\": \"/d/e\"}], " DISKS "}",
         VIAL_ERROR_CONFLICT, "mounts[0].guest", "/d/e", "/d/e and /d (mapped_dirs[0]) lie one inside the other",
         "mount the two side by side; one would hide a part of the other"},
        {"{\"tmpfs\": [{\"guest\": \"/t\"}, {\"guest\": \"/t/\"}]}", VIAL_ERROR_DUPLICATE, "tmpfs[1].guest", "/t/",
         "tmpfs[0] is mounted at /t already", "give each mount a path of its own"},
        {"{\"tmpfs\": [{\"guest\": \"/t\", \"size_mib\": 9000000}]}", VIAL_ERROR_OUT_OF_RANGE, "tmpfs[0].size_mib",
         "9000000", "no machine has that much memory", "give less than the machine's memory, or 0"},
        {"{\"disks\": [{\"path\": \"disk.img\", \"format\": \"raw\", \"queues\": 17}]}", VIAL_ERROR_OUT_OF_RANGE,
         "disks[0].queues", "17", "a disk has at most 16 queues", "give at most 16, or 0 for one for each vCPU"},
        {"{\"disks\": [{\"path\": \"disk.img\", \"format\": \"raw\", \"limits\": {\"burst_bytes\": 5}}]}",
         VIAL_ERROR_MISSING, "disks[0].limits", "5", "a burst of bytes means nothing without a limit",
         "give bytes_per_second, too"},
        {"{\"disks\": [{\"path\": \"disk.img\", \"format\": \"raw\", \"limits\": {\"bytes_per_second\": 1, "
         "\"burst_operations\": 6}}]}",
         VIAL_ERROR_MISSING, "disks[0].limits", "6", "a burst of operations means nothing without a limit",
         "give operations_per_second, too"},
        {"{\"disks\": [{\"path\": \"disk.img\", \"format\": \"qcow2\", \"backing\": [{\"format\": \"raw\"}]}]}",
         VIAL_ERROR_MISSING, "disks[0].backing[0].path", "", "it is not given", "give the path as the image has it"},
        {"{\"disks\": [{\"path\": \"disk.img\", \"format\": \"qcow2\", \"backing\": [{\"path\": \"b\"}]}]}",
         VIAL_ERROR_MISSING, "disks[0].backing[0].format", "0", "the format of the image below is not given",
         "name the format: raw, qcow2 or vmdk"},
    };
    check_refusals(refusals, array_length(refusals));
}

TEST(right_roots_and_mounts_are_accepted)
{
    static const char *const texts[] = {
        "{\"root\": \"host\", \"mapped_dirs\": [\"data:/root/data\"]}",
        "{\"root\": \"builtin\", \"tmpfs\": [{\"guest\": \"/dev/shm\"}], \"mapped_dirs\": [\"data:/d\"]}",
        "{\"root\": {\"disk\": \"a\", \"options\": \"noatime,data=ordered\"}, " DISKS "}",
        "{\"root\": {\"disk\": \"/dev/vda\"}, " DISKS "}",
        "{\"root\": {\"layers\": [\"a\"], \"upper\": \"b\"}, " DISKS ", \"kernel\": {\"init\": \"/init.krun\"}}",
        "{\"root\": {\"path\": \"root\"}, \"kernel\": {\"init\": \"/sbin/init\"}}",
        "{\"mounts\": [{\"disk\": \"a\", \"guest\": \"/a\"}, {\"disk\": \"b\", \"guest\": \"/b\"}], " DISKS "}",
    };
    check_accepted(texts, array_length(texts));
}

TEST(disks)
{
    static const struct refusal refusals[] = {
        {"{\"disks\": [{\"format\": \"raw\"}]}", VIAL_ERROR_MISSING, "disks[0].path", "", "it is not given",
         "give the path of a disk image or block device"},
        {"{\"disks\": [{\"path\": \"gone\", \"format\": \"raw\"}]}", VIAL_ERROR_NOT_FOUND, "disks[0].path", "gone",
         "gone does not exist", "create it, or correct the path"},
        {"{\"disks\": [{\"path\": \"root\", \"format\": \"raw\"}]}", VIAL_ERROR_WRONG_KIND, "disks[0].path", "root",
         "root is neither a regular file nor a block device", "give the path of a disk image or block device"},
        {"{\"disks\": [{\"path\": \"disk.img\"}]}", VIAL_ERROR_MISSING, "disks[0].format", "",
         "the disk's format is not given, and guessing it would let a guest choose it",
         "name the format: raw, qcow2 or vmdk"},
        {"{\"disks\": [{\"path\": \"disk.img\", \"format\": \"qcow3\"}]}", VIAL_ERROR_INVALID, "disks[0].format",
         "qcow3", "\"qcow3\" is not one of raw, qcow2 or vmdk", "did you mean \"qcow2\"?"},
        {"{\"disks\": [{\"path\": \"disk.img\", \"format\": \"vmdk\"}]}", VIAL_ERROR_UNSUPPORTED, "disks[0].read_only",
         "false", "VMDK images can only be read", "set read_only, or convert the image to raw or qcow2"},
        {"{\"disks\": [{\"path\": \"disk.img\", \"format\": \"raw\", \"cache\": \"writethrough\"}]}",
         VIAL_ERROR_INVALID, "disks[0].cache", "writethrough", "\"writethrough\" is not one of writeback or unsafe",
         "use writeback or unsafe"},
        {"{\"disks\": [{\"path\": \"disk.img\", \"format\": \"raw\", \"sync\": \"fulll\"}]}", VIAL_ERROR_INVALID,
         "disks[0].sync", "fulll", "\"fulll\" is not one of full, relaxed or none", "did you mean \"full\"?"},
        {"{\"disks\": [{\"path\": \"disk.img\", \"format\": \"raw\", \"id\": \"\"}]}", VIAL_ERROR_MISSING,
         "disks[0].id", "", "it is empty", "give an id, or leave it out"},
        {"{\"disks\": [{\"path\": \"disk.img\", \"format\": \"raw\", \"id\": \"longer-than-20-letters\"}]}",
         VIAL_ERROR_INVALID, "disks[0].id", "longer-than-20-letters",
         "a disk id has at most 20 ASCII characters and no space, slash, quote or backslash",
         "use letters, digits and dashes, such as data-1"},
        {"{\"disks\": [{\"path\": \"disk.img\", \"format\": \"raw\", \"id\": \"a/b\"}]}", VIAL_ERROR_INVALID,
         "disks[0].id", "a/b", "a disk id has at most 20 ASCII characters and no space, slash, quote or backslash",
         "use letters, digits and dashes, such as data-1"},
        {"{\"disks\": [{\"path\": \"disk.img\", \"format\": \"raw\"},"
         " {\"path\": \"./disk.img\", \"format\": \"raw\", \"read_only\": true}]}",
         VIAL_ERROR_CONFLICT, "disks[1].path", "./disk.img", "disks[0] is the same image, and one of the two can write",
         "give each writable disk an image of its own, or make both read_only"},
        {"{\"disks\": [{\"path\": \"disk.img\", \"format\": \"raw\", \"id\": \"vdb\"},"
         " {\"path\": \"disk.img\", \"format\": \"raw\"}]}",
         VIAL_ERROR_DUPLICATE, "disks[1].id", "vdb", "disks[0] has the same id",
         "give each disk an id of its own (vda, vdb \xe2\x80\xa6 are the defaults in order)"},
    };
    check_refusals(refusals, array_length(refusals));
}

TEST(console)
{
    static const struct refusal refusals[] = {
        {"{\"console\": {\"output\": \"gone/log\"}}", VIAL_ERROR_NOT_FOUND, "console.output", "gone/log",
         "the folder gone does not exist", "create the folder first, or correct the path"},
        {"{\"console\": {\"output\": \"root\"}}", VIAL_ERROR_WRONG_KIND, "console.output", "root",
         "root is not a file that output can go to", "give the path of a file"},
        {"{\"console\": {\"ports\": [{\"input_fd\": 0}]}}", VIAL_ERROR_MISSING, "console.ports[0].name", "",
         "it is not given", "give the port a name"},
        {"{\"console\": {\"ports\": [{\"name\": \"a b\", \"input_fd\": 0}]}}", VIAL_ERROR_INVALID,
         "console.ports[0].name", "a b", "a port's name has at most 64 ASCII characters and no space, slash or quote",
         "use letters, digits, dots and dashes, such as agent.0"},
        {"{\"console\": {\"ports\": [{\"name\": \"a\"}]}}", VIAL_ERROR_MISSING, "console.ports[0].input_fd", "",
         "the port has no descriptor", "give input_fd, output_fd or both"},
        {"{\"console\": {\"ports\": [{\"name\": \"a\", \"input_fd\": 0}, {\"name\": \"a\", \"input_fd\": 0}]}}",
         VIAL_ERROR_DUPLICATE, "console.ports[1].name", "a", "console.ports[0] has the same name",
         "give each port a name of its own"},
        {"{\"console\": {\"ports\": [{\"name\": \"vial.init\", \"input_fd\": 0}]}}", VIAL_ERROR_CONFLICT,
         "console.ports[0].name", "vial.init", "names that begin with vial. are for the guest's init",
         "choose another name"},
        {"{\"console\": {\"ports\": [{\"name\": \"a\", \"input_fd\": 0, \"tty_fd\": 0}]}}", VIAL_ERROR_CONFLICT,
         "console.ports[0].tty_fd", "", "the port has a terminal and something else",
         "give tty_fd alone, or input_fd and output_fd"},
        {"{\"console\": {\"gpu\": {}}}", VIAL_ERROR_UNSUPPORTED, "console.gpu", "", "a GPU is not in this build",
         "leave it out"},
        {"{\"console\": {\"sound\": true}}", VIAL_ERROR_UNSUPPORTED, "console.sound", "true",
         "sound is not in this build", "leave it out"},
    };
    check_refusals(refusals, array_length(refusals));
}

TEST(exec)
{
    static const struct refusal refusals[] = {
        {"{\"exec\": {\"path\": \"\"}}", VIAL_ERROR_MISSING, "exec.path", "", "it is empty",
         "give the path or the name of a program"},
        {"{\"exec\": {\"args\": [\"x\"]}}", VIAL_ERROR_MISSING, "exec.path", "", "there are arguments, but no program",
         "give the program in exec.path; exec.args begins behind it"},
        {"{\"exec\": {\"path\": \"x\", \"args\": [\"a\\u0000\"]}}", VIAL_ERROR_INVALID, "exec.args[0]", "a",
         "the text holds a NUL byte at offset 1", "remove the \\u0000: neither paths nor arguments can carry it"},
        {"{\"exec\": {\"env\": {\"A=B\": \"c\"}}}", VIAL_ERROR_SYNTAX, "exec.env.A=B", "c",
         "the name \"A=B\" of a variable is empty or holds =", "name the variable as in {\"LANG\": \"C.UTF-8\"}"},
        {"{\"exec\": {\"env\": [\"A=B\"]}}", VIAL_ERROR_TYPE, "exec.env", "", "expected an object, found an array",
         "write an object here"},
        {"{\"exec\": {\"env\": {\"A\": 1}}}", VIAL_ERROR_TYPE, "exec.env.A", "1",
         "expected a string, found a whole number", "write a string here"},
        {"{\"exec\": {\"workdir\": \"tmp\"}}", VIAL_ERROR_INVALID, "exec.workdir", "tmp",
         "a path of the guest must be absolute", "begin the path with /"},
        {"{\"exec\": {\"rlimits\": [\"NOFILE=x:1\"]}}", VIAL_ERROR_SYNTAX, "exec.rlimits[0]", "NOFILE=x:1",
         "\"NOFILE=x:1\" is not a resource limit: a limit is neither a number nor \"unlimited\"",
         "write NAME=SOFT:HARD, such as NOFILE=1024:4096 or 7=1024:unlimited"},
        {"{\"exec\": {\"rlimits\": [\"NOFILE=2:1\"]}}", VIAL_ERROR_OUT_OF_RANGE, "exec.rlimits[0]", "NOFILE=2:1",
         "\"NOFILE=2:1\" is not a resource limit: its soft limit is above its hard limit",
         "write NAME=SOFT:HARD, such as NOFILE=1024:4096 or 7=1024:unlimited"},
        {"{\"exec\": {\"rlimits\": [\"NOFILE=1:1\", \"7=2:2\"]}}", VIAL_ERROR_DUPLICATE, "exec.rlimits[1]", "NOFILE",
         "exec.rlimits[0] limits the same resource", "give each resource one limit"},
        {"{\"exec\": {\"uid\": 4294967295}}", VIAL_ERROR_OUT_OF_RANGE, "exec.uid", "4294967295",
         "4294967295 stands for no user", "give a number up to 4294967294"},
        {"{\"exec\": {\"gid\": 4294967295}}", VIAL_ERROR_OUT_OF_RANGE, "exec.gid", "4294967295",
         "4294967295 stands for no group", "give a number up to 4294967294"},
    };
    check_refusals(refusals, array_length(refusals));
}

TEST(shape_of_the_file)
{
    static const struct refusal refusals[] = {
        {"{\"machien\": {}}", VIAL_ERROR_UNKNOWN_KEY, "machien", "", "\"machien\" is not a known key",
         "did you mean \"machine\"?"},
        {"{\"machine\": {\"cpus\": 1}}", VIAL_ERROR_UNKNOWN_KEY, "machine.cpus", "1", "\"cpus\" is not a known key",
         "did you mean \"vcpus\"?"},
        {"{\"machine\": []}", VIAL_ERROR_TYPE, "machine", "", "expected an object, found an array",
         "write an object here"},
        {"{\"disks\": {}}", VIAL_ERROR_TYPE, "disks", "", "expected an array, found an object", "write an array here"},
        {"{\"machine\": {\"vcpus\": \"2\"}}", VIAL_ERROR_TYPE, "machine.vcpus", "2",
         "expected a whole number, found a string", "write a whole number here"},
        {"{\"log_level\": \"verbose\"}", VIAL_ERROR_INVALID, "log_level", "verbose",
         "\"verbose\" is not one of off, error, warn, info, debug or trace",
         "use off, error, warn, info, debug or trace"},
        {"{", VIAL_ERROR_SYNTAX, "", "", "line 1, column 1: string or '}' expected near end of file",
         "make it valid JSON (RFC 8259: no comments, no trailing commas, every key once)"},
    };
    check_refusals(refusals, array_length(refusals));
}

TEST(right_configurations_are_accepted)
{
    static const char *const texts[] = {
        "{}",
        "{\"machine\": {\"vcpus\": 64, \"memory_mib\": 8192}}",
        "{\"kernel\": {\"path\": \"kernel.elf\"}}",
        "{\"kernel\": {\"path\": \"kernel.unknown\", \"format\": \"raw\", \"cmdline\": \"a=\\\"b -- c\\\" quiet--x\"}}",
        "{\"root\": {\"path\": \"root\"}, \"fs\": [{\"path\": \"data\"}, {\"path\": \"data\"}]}",
        "{\"mapped_dirs\": [\"data:/var\", \"data:/variety\", \"root:/app/./data\", \"root:/etc//config\"]}",
        "{\"disks\": [{\"path\": \"disk.img\", \"format\": \"raw\", \"read_only\": true},"
        " {\"path\": \"disk.img\", \"format\": \"vmdk\", \"read_only\": true}]}",
        "{\"console\": {\"output\": \"/dev/null\"}}",
        "{\"net\": [{\"kind\": \"unixgram\", \"path\": \"socket\", \"vfkit\": true}, {\"kind\": \"tap\", \"path\": "
        "\"t\"}]}",
        "{\"machine\": {\"inet_hijack\": true}, \"kernel\": {\"path\": \"file\", \"format\": \"raw\"}, \"port_map\": "
        "[\"80:80\", \"81:81\"],"
        " \"tsi\": {\"local_only\": true}}",
        "{\"vsock_ports\": [{\"port\": 1, \"path\": \"later\"}, {\"port\": 2, \"path\": \"new\", \"listen\": true}]}",
        "{\"console\": {\"output\": \"log\", \"ports\": [{\"name\": \"a\", \"input_fd\": 0, \"output_fd\": 1}]}}",
        "{\"exec\": {\"path\": \"sh\", \"args\": [\"\\u00e9\\n\"], \"env\": {\"\\u00e9\": \"\\n\"}, \"workdir\": "
        "\"/\"}}",
    };
    check_accepted(texts, array_length(texts));
}

/* ---- what a file cannot say ---- */

TEST(custom_backends_must_be_complete)
{
    struct vial_fs_ops fs_ops = {.size = sizeof(fs_ops)};
    struct vial_net_ops net_ops = {.size = sizeof(net_ops)};
    struct vial_console_ops console_ops = {.size = sizeof(console_ops)};
    struct vial_fs_options fs = VIAL_FS_OPTIONS_INIT;
    struct vial_net_options net = VIAL_NET_OPTIONS_INIT;
    struct vial_console_port_options port = VIAL_CONSOLE_PORT_OPTIONS_INIT;
    struct vial_vm_config *config = new_config();
    fs.ops = &fs_ops;
    CHECK_INT(vial_vm_config_set_root(config, &fs, &err), 0);
    check_refused(config, "root.ops", "the custom backend has no lookup");
    config = new_config();
    fs.path = "/";
    CHECK_INT(vial_vm_config_set_root(config, &fs, &err), 0);
    check_refused(config, "root.path", "the file system has both a path and a custom backend");
    config = new_config();
    net.kind = VIAL_NET_CUSTOM;
    net.ops = &net_ops;
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    check_refused(config, "net[0].ops", "the custom backend is not complete");
    config = new_config();
    port.name = "p";
    port.kind = VIAL_CONSOLE_PORT_CUSTOM;
    port.ops = &console_ops;
    CHECK_INT(vial_vm_config_add_console_port(config, &port, &err), 0);
    check_refused(config, "console.ports[0].ops", "the custom backend is not complete");
}

TEST(backends_of_another_kind_are_refused)
{
    struct vial_net_ops net_ops = VIAL_NET_OPS_INIT;
    struct vial_console_ops console_ops = VIAL_CONSOLE_OPS_INIT;
    struct vial_net_options net = VIAL_NET_OPTIONS_INIT;
    struct vial_console_port_options port = VIAL_CONSOLE_PORT_OPTIONS_INIT;
    struct vial_vm_config *config = new_config();
    net.kind = VIAL_NET_TAP;
    net.path = "tap0";
    net.ops = &net_ops;
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    check_refused(config, "net[0].ops", "the network has a custom backend, but another kind");
    config = new_config();
    net.kind = VIAL_NET_CUSTOM;
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    check_refused(config, "net[0].kind", "a custom backend has neither a path nor a descriptor");
    config = new_config();
    net.ops = NULL;
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    check_refused(config, "net[0].ops", "the network has no backend");
    config = new_config();
    port.name = "p";
    port.kind = VIAL_CONSOLE_PORT_INOUT;
    port.input_fd = 0;
    port.ops = &console_ops;
    CHECK_INT(vial_vm_config_add_console_port(config, &port, &err), 0);
    check_refused(config, "console.ports[0].ops", "the port has a custom backend, but another kind");
}

TEST(what_only_programs_can_say_too_large)
{
    struct vial_vm_config *config = new_config();
    struct vial_kernel_options kernel = VIAL_KERNEL_OPTIONS_INIT;
    struct vial_exec_options exec = VIAL_EXEC_OPTIONS_INIT;
    static char long_text[200000] = "/";
    const char *const args[] = {long_text, NULL};
    memset(long_text + 1, 'a', sizeof(long_text) - 2);
    CHECK_INT(vial_vm_config_add_port(config, 1, 0, &err), 0);
    check_refused(config, "port_map[0]", "0 is not a port");
    config = new_config();
    exec.path = "x";
    exec.args = args;
    CHECK_INT(vial_vm_config_set_exec(config, &exec, &err), 0);
    check_refused(config, "exec.args[0]", "one string is longer than the 128 KiB that Linux takes");
    config = new_config();
    exec.path = long_text;
    exec.args = NULL;
    CHECK_INT(vial_vm_config_set_exec(config, &exec, &err), 0);
    check_refused(config, "exec.path", "the path is longer than 4095 bytes");
    config = new_config();
    exec.path = NULL;
    exec.workdir = long_text;
    CHECK_INT(vial_vm_config_set_exec(config, &exec, &err), 0);
    check_refused(config, "exec.workdir", "the path is longer than 4095 bytes");
    config = new_config();
    kernel.init = long_text;
    CHECK_INT(vial_vm_config_set_kernel(config, &kernel, &err), 0);
    check_refused(config, "kernel.init", "the path of init is longer than 255 bytes");
}

TEST(numbers_outside_their_enumerations)
{
    struct vial_machine_options machine = VIAL_MACHINE_OPTIONS_INIT;
    struct vial_vm_config *config = new_config();
    struct vial_net_options net = VIAL_NET_OPTIONS_INIT;
    struct vial_console_port_options port = VIAL_CONSOLE_PORT_OPTIONS_INIT;
    struct vial_kernel_options kernel = VIAL_KERNEL_OPTIONS_INIT;
    struct vial_disk_options disk = VIAL_DISK_OPTIONS_INIT;
    net.kind = 9;
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    check_refused(config, "net[0].kind", "it is not a kind of network");
    config = new_config();
    net.kind = VIAL_NET_TAP;
    net.path = "tap0";
    net.features = 1u << 31;
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    check_refused(config, "net[0].features", "it holds bits that are no offload");
    config = new_config();
    port.name = "p";
    port.kind = 9;
    CHECK_INT(vial_vm_config_add_console_port(config, &port, &err), 0);
    check_refused(config, "console.ports[0].kind", "it is not a kind of console port");
    config = new_config();
    machine.acpi = 3;
    CHECK_INT(vial_vm_config_set_machine(config, &machine, &err), 0);
    check_refused(config, "machine.acpi", "it does not say whether there is ACPI");
    config = new_config();
    machine = (struct vial_machine_options)VIAL_MACHINE_OPTIONS_INIT;
    machine.engine = 3;
    CHECK_INT(vial_vm_config_set_machine(config, &machine, &err), 0);
    check_refused(config, "machine.engine", "it is not an engine");
    config = new_config();
    port = (struct vial_console_port_options)VIAL_CONSOLE_PORT_OPTIONS_INIT;
    port.kind = VIAL_CONSOLE_PORT_INOUT;
    port.output_fd = STDOUT_FILENO;
    for (int i = 0; i < LIMIT_CONSOLE_PORTS; i++) {
        char name[16];
        snprintf(name, sizeof(name), "p%d", i);
        port.name = name;
        CHECK_INT(vial_vm_config_add_console_port(config, &port, &err), 0);
    }
    check_refused(config, "console.ports",
                  "these are more ports than one console has"); /* with the one of standard output */
    config = new_config();
    kernel.path = "/proc/self/exe";
    kernel.format = 9;
    CHECK_INT(vial_vm_config_set_kernel(config, &kernel, &err), 0);
    check_refused(config, "kernel.format", "it is not a kernel format");
    for (int which = 0; which < 3; which++) {
        static const char *const fields[] = {"disks[0].format", "disks[0].cache", "disks[0].sync"};
        static const char *const messages[] = {"it is not a disk format", "it is not a cache mode",
                                               "it is not a sync mode"};
        config = new_config();
        disk.path = "/proc/self/exe";
        disk.read_only = true;
        disk.format = which == 0 ? -7 : VIAL_DISK_RAW;
        disk.cache = which == 1 ? 7 : 0;
        disk.sync = which == 2 ? 7 : 0;
        CHECK_INT(vial_vm_config_add_disk(config, &disk, &err), 0);
        check_refused(config, fields[which], messages[which]);
    }
}

TEST(descriptors_must_be_of_the_right_kind)
{
    struct vial_net_options net = VIAL_NET_OPTIONS_INIT;
    struct vial_console_port_options port = VIAL_CONSOLE_PORT_OPTIONS_INIT;
    struct vial_vm_config *config = new_config();
    int pair[2];
    CHECK_INT(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
    net.kind = VIAL_NET_UNIXGRAM;
    net.fd = pair[0];
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    CHECK_INT(config_validate(config, &host, &err), 0);
    vial_vm_config_free(config);
    config = new_config();
    net.kind = VIAL_NET_UNIXSTREAM;
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    check_refused(config, "net[0].fd", "the descriptor is not a Unix stream socket");
    config = new_config();
    net.path = "/x";
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    check_refused(config, "net[0].path", "the network has both a path and a descriptor");
    config = new_config();
    net.path = NULL;
    net.fd = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    check_refused(config, "net[0].fd", "the descriptor is not connected");
    close(net.fd);
    config = new_config();
    port.name = "p";
    port.kind = VIAL_CONSOLE_PORT_TTY;
    port.tty_fd = pair[0];
    CHECK_INT(vial_vm_config_add_console_port(config, &port, &err), 0);
    check_refused(config, "console.ports[0].tty_fd", "the descriptor is not a terminal");
    close(pair[0]);
    close(pair[1]);
}

TEST(environment_entries_need_a_name)
{
    static const char *const without_equals[] = {"A=b", "B", NULL}, *const without_name[] = {"=b", NULL};
    struct vial_exec_options exec = VIAL_EXEC_OPTIONS_INIT;
    struct vial_vm_config *config = new_config();
    exec.env = without_equals;
    CHECK_INT(vial_vm_config_set_exec(config, &exec, &err), 0);
    check_refused(config, "exec.env[1]", "an entry of the environment has no =");
    config = new_config();
    exec.env = without_name;
    CHECK_INT(vial_vm_config_set_exec(config, &exec, &err), 0);
    check_refused(config, "exec.env[0]", "an entry of the environment has no name before its =");
}

TEST(files_this_user_may_not_open)
{
    if (geteuid() == 0 && seteuid(65534) < 0)
        abort();
    struct vial_vm_config *config = new_config();
    struct vial_kernel_options kernel = VIAL_KERNEL_OPTIONS_INIT;
    kernel.path = "/etc/shadow";
    CHECK_INT(vial_vm_config_set_kernel(config, &kernel, &err), 0);
    check_refused(config, "kernel.path", "/etc/shadow cannot be read by this user");
    config = new_config();
    struct vial_disk_options disk = VIAL_DISK_OPTIONS_INIT;
    disk.path = "/etc/passwd";
    disk.format = VIAL_DISK_RAW;
    CHECK_INT(vial_vm_config_add_disk(config, &disk, &err), 0);
    check_refused(config, "disks[0].path", "/etc/passwd cannot be written by this user");
    if (getuid() == 0 && seteuid(0) < 0)
        abort();
}

TEST(too_many_devices_altogether)
{
    struct vial_vm_config *config = new_config();
    struct vial_net_options net = VIAL_NET_OPTIONS_INIT;
    char name[16];
    net.kind = VIAL_NET_TAP;
    net.path = name;
    /* One of each default device (balloon, rng, metrics, console), and taps up to the limit of each controller. */
    for (int i = 0; i < 15; i++) {
        snprintf(name, sizeof(name), "tap%d", i);
        CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    }
    CHECK_INT(config_validate(config, &host, &err), 0);
    snprintf(name, sizeof(name), "tap15");
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    CHECK_INT(config_validate(config, &host, &err), -EINVAL);
    CHECK_TEXT(err.field, "machine.split_irqchip");
    CHECK_TEXT(err.remedy, "set machine.split_irqchip, which has room for 200 devices");
    config->machine.split_irqchip = true;
    for (int i = 16; i < 196; i++) {
        snprintf(name, sizeof(name), "tap%d", i);
        CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    }
    CHECK_INT(config_validate(config, &host, &err), 0);
    snprintf(name, sizeof(name), "tap196");
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    check_refused(config, "machine", "these are more devices than a machine has interrupts for");
}

TEST(validation_survives_no_memory)
{
    prepare();
    struct vial_vm_config *config = new_config();
    CHECK_INT(vial_vm_config_add_mapped_dir_text(config, "data:/a", &err), 0);
    CHECK_INT(vial_vm_config_add_mapped_dir_text(config, "root:/b", &err), 0);
    FOR_EACH_FAULT
    CHECK_INT(config_validate(config, &host, &err), fault_was_hit() ? -ENOMEM : 0);
    vial_vm_config_free(config);
}

TEST(the_real_host_is_asked)
{
    struct vial_vm_config *config = new_config();
    CHECK_INT(vial_vm_config_validate(config, &err), 0);
    config->machine.memory_mib = UINT64_C(1) << 40;
    CHECK_INT(vial_vm_config_validate(config, &err), -ERANGE);
    CHECK_TEXT(err.field, "machine.memory_mib");
    vial_vm_config_free(config);
}
