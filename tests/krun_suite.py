#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The groups of tests/e2e/krun: programs that know libkrun only, and the guests that they start.

    krun_suite.py VIAL ENGINE OUT CLIENTS LIBRARY KRUNFW GROUP…

CLIENTS is a folder with the programs of tests/krun, linked against a library of which nothing but the names is
libkrun's; LIBRARY has the one that they are to run with, which LD_LIBRARY_PATH names, and KRUNFW one with a
libkrunfw.so.5, for the groups that need it. The harness, and the network that it runs in, is that of
tests/network_suite.py.

Guests have a root of busybox and tests/krun/guest.c. Of what a client leaves on the host nothing may be left when it has
ended: every run looks for processes of its session.

Trust: both sides are ours; what lies between them is what is tested.
"""

import contextlib
import errno
import glob
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import network_suite as suite
from network_suite import ENGINE, HERE, IS_UML, PATIENCE, Silent, expect, fail, wait_until

CLIENTS, LIBRARY, KRUNFW = sys.argv[4:7]
APPLETS = ("cat cut dd env false free grep head hostname ip kill ls mkdir mount nproc od printf ps pwd reboot sed sh sleep sort "
           "stat stty sync tail touch tr true umount usleep wc").split()
NOBODY = 65534
AGENT, READY = 2695, 2696  # BoxLite's vsock ports
NO_CALL, NOT_STARTED = 91, 92  # of tests/krun/client.h


# ---- roots

def write(path, text, mode=0o644):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def make_root(name, script=""):
    """A folder with what a small system needs, and the script as /check.sh."""
    root = f"{suite.work}/{name}"
    for folder in "bin dev etc mnt/disk mnt/ro mnt/rw proc root run srv sys tmp var".split():
        os.makedirs(f"{root}/{folder}")
    shutil.copy("/bin/busybox", f"{root}/bin/busybox")
    shutil.copy(f"{CLIENTS}/probe", f"{root}/bin/probe")
    for applet in APPLETS:
        os.symlink("busybox", f"{root}/bin/{applet}")
    write(f"{root}/etc/hostname", "box\n")
    write(f"{root}/check.sh", "#!/bin/sh\n" + script, 0o755)
    return root


def make_disk(path, folder, mib):
    """An ext4 file system of the folder's content, for root only."""
    done = subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", folder, path, f"{mib}m"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    expect(done.returncode, 0, done.stdout)
    os.chmod(path, 0o600)
    return path


def tool(*words):
    status, said = suite.command(*words)
    expect(status, 0, said)
    return said


def file_on_disk(image, name):
    """What a file of the image's file system holds, by tools that are not ours."""
    raw = f"{suite.work}/looked-at.raw"
    if image.endswith(".qcow2"):
        tool("qemu-img", "check", "-q", image)
    tool("qemu-img", "convert", "-O", "raw", image, raw)
    return subprocess.run(["debugfs", "-R", f"cat {name}", raw], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, check=True).stdout


# ---- clients

def environment(krunfw=False, library=None, **more):
    folders = [library or LIBRARY] + ([KRUNFW] if krunfw else [])
    kept = {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME", "VIAL_KERNELS", "ASAN_OPTIONS")
            if name in os.environ}
    return kept | {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LD_LIBRARY_PATH": ":".join(folders), "VIAL_ENGINE": ENGINE,
                   } | more


def left_of(session):
    """Processes of the session that are not dead."""
    found = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            fields = read(path).rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.split("/")[2]))
    return found


class Client:
    """A client that runs. What it says is kept, and shown when something fails."""

    def __init__(self, name, *words, stdin=subprocess.DEVNULL, fds=(), cwd=None, groups=None, **options):
        self.name = name
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            [f"{CLIENTS}/{name}", *words], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=fds,
            env=environment(**options), start_new_session=True, cwd=cwd or suite.work, extra_groups=groups)

    def end(self, text=None):
        """Status, output, errors: all of it, as text."""
        try:
            out, errors = self.process.communicate(text.encode() if text is not None else None, PATIENCE)
        except subprocess.TimeoutExpired:
            for number in left_of(self.process.pid):
                os.kill(number, 9)
            out, errors = self.process.communicate()
            raise Silent(f"{self.name} does not end: {out[-2000:]!r} {errors[-2000:]!r}") from None
        wait_until(lambda: not left_of(self.process.pid), "no process of the client's is left", 10)
        return self.process.returncode, out.decode(errors="replace"), errors.decode(errors="replace")


def run(name, *words, text=None, **options):
    stdin = subprocess.PIPE if text is not None else subprocess.DEVNULL
    return Client(name, *words, stdin=stdin, **options).end(text)


def line(*calls):
    """The command line of `calls`: each call a list, or a text as a shell would read it."""
    words = ["set_vm_config", "1", "128"]
    for call in calls:
        words += [",", *(shlex.split(call) if isinstance(call, str) else call)]
    return words


def calls(*made, **options):
    return run("calls", *line(*made), **options)


def ends(status, out, errors, done):
    """Exactly this status and this output; of what is said, nothing or a word of it."""
    expect(done[:2], (status, out), f"status and output; it said {done[2][-1500:]!r}")
    if (errors == "") != (done[2] == "") or errors not in done[2]:
        fail(f"it said {done[2]!r}, expected {errors!r}")


def has(text, *words):
    for word in words:
        if word not in text:
            fail(f"{word!r} is not in {text!r}")


# ---- servers

class Capitals:
    """Answers a line with the line in capitals, as the guest's probe does."""

    def __init__(self, family, address):
        self.socket = socket.socket(family)
        if family == socket.AF_INET:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(address)
        self.socket.listen()
        self.lines = []
        threading.Thread(target=self.serve, daemon=True).start()

    @property
    def port(self):
        return str(self.socket.getsockname()[1])

    def serve(self):
        while True:
            stream, _ = self.socket.accept()
            with stream, stream.makefile("rw") as file:
                self.lines.append(file.readline())
                file.write(self.lines[-1].upper())


def ask(family, address, text):
    """One line there, and the line that comes back. As long as nobody is there it asks again."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.socket(family) as stream:
                stream.settimeout(PATIENCE)
                stream.connect(address)
                with stream.makefile("rw") as file:
                    file.write(text + "\n")
                    file.flush()
                    answer = file.readline()
                    if answer:
                        return answer
        except OSError as error:
            if time.monotonic() > end:
                raise Silent(f"nobody answers at {address}: {error}") from None
        time.sleep(0.05)


def why_refused(address):
    with socket.socket() as stream:
        return stream.connect_ex(address)


# ---- the library itself

def abi(group):
    """What a program that was linked against another libkrun.so.1 relies on."""
    library = f"{LIBRARY}/libkrun.so.1"
    dynamic = tool("readelf", "--wide", "--dynamic", library)
    names = {row.split()[7].split("@")[0] for row in tool("readelf", "--wide", "--dyn-syms", library).splitlines()
             if row.strip() and " GLOBAL " in row and " UND " not in row}
    declared = set(read(f"{CLIENTS}/names").split())
    group.check("abi: it is called libkrun.so.1", has, dynamic, "Library soname: [libkrun.so.1]")
    group.check("abi: it has the names of the header, and no others", lambda: expect(
        (names - declared, declared - names), (set(), set()), "names"))
    group.check("abi: clients need it by that name", lambda: has(
        tool("readelf", "--dynamic", f"{CLIENTS}/boxlite"), "Shared library: [libkrun.so.1]"))
    root = make_root("root")
    made = (["set_root", root], ["set_exec", "/bin/sh", "-c", "exit 7"])
    group.check("abi: with the library that it was linked with, a client gets nowhere", lambda: ends(
        NO_CALL, "", "krun_create_ctx: -38", calls(*made, library=f"{CLIENTS}/hollow")))
    group.check("abi: with ours in LD_LIBRARY_PATH it runs a guest", lambda: ends(7, "", "", calls(*made)))


# ---- BoxLite

BOX = """
echo "arguments: $*"
echo "folder: $(pwd)"
env | grep -E '^(BOX|EMPTY|PATH)=' | sort
grep -E '^Max (processes|open files)' /proc/self/limits | sed 's/  */ /g; s/ $//'
echo "root: $(grep ' / ext4 ' /proc/mounts | cut -d ' ' -f 1,3,4 | cut -d , -f 1)"
mount -t virtiofs ro /mnt/ro && cat /mnt/ro/note
touch /mnt/ro/no 2>&1
mount -t virtiofs rw /mnt/rw && cat /mnt/rw/note && echo 'from the guest' >/mnt/rw/answer
mount -t ext4 /dev/vda /mnt/disk && cat /mnt/disk/note && echo 'written by the guest' >/mnt/disk/answer
umount /mnt/disk && echo unmounted
dd if=/dev/zero of=/dev/vdb count=1 2>&1 | grep -o 'not permitted\\|Read-only\\|rror.*'
probe answer vsock 2695 &
probe ask vsock 2696 'the guest is ready' || exit 1
wait
exit 7
"""
BOX_SAYS = """arguments: one two words
folder: /srv
BOX=two words
EMPTY=
PATH=/bin
Max processes 4096 8192 processes
Max open files 1048576 1048576 files
root: /dev/vdb ext4 ro
a note in ro
touch: /mnt/ro/no: Read-only file system
a note in rw
a note on the disk
unmounted
"""


class Box:
    """The folder of a box."""

    def __init__(self, name, owner, has_backing):
        self.folder = f"{suite.work}/{name}"
        for folder in (self.folder, f"{self.folder}/ro", f"{self.folder}/rw"):
            os.mkdir(folder)
            os.chown(folder, owner, owner)
        for folder in ("ro", "rw"):
            write(f"{self.folder}/{folder}/note", f"a note in {folder}\n")
        make_disk(f"{self.folder}/root.raw", make_root(f"{name}-root", BOX), 24)
        content = f"{suite.work}/{name}-content"
        os.mkdir(content)
        write(f"{content}/note", "a note on the disk\n")
        raw, self.disk = make_disk(f"{suite.work}/{name}.raw", content, 8), f"{self.folder}/disk.qcow2"
        if has_backing:
            tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", raw, "-F", "raw", self.disk)
        else:
            tool("qemu-img", "convert", "-O", "qcow2", raw, self.disk)
            os.unlink(raw)
        os.chmod(self.disk, 0o600)
        self.ready = Capitals(socket.AF_UNIX, f"{self.folder}/ready.sock")
        os.chmod(f"{self.folder}/ready.sock", 0o666)
        self.owner = owner

    def run(self):
        client = Client("boxlite", self.folder, str(self.owner), str(self.owner), "/check.sh", "one", "two words")
        answer = []
        asking = threading.Thread(target=lambda: answer.append(
            ask(socket.AF_UNIX, f"{self.folder}/agent.sock", "do something")), daemon=True)
        asking.start()
        status = client.end()
        asking.join(5)
        return (*status, answer)


def box(group, name, owner, has_backing):
    os.chmod(suite.work, 0o711)  # the folder of the box is its owner's
    each = Box(name, owner, has_backing)
    title = f"boxlite: {name}"
    found = each.run()
    said = read(f"{each.folder}/console.log") if os.path.exists(f"{each.folder}/console.log") else "(no file)"
    lines = said.splitlines(keepends=True)
    group.check(f"{title}: its code is the program's, and the terminal stays empty", lambda: expect(
        found[:3], (7, "", ""), f"status, output, errors; the console: {said[-1500:]!r}"))
    group.check(f"{title}: the guest has what was asked for", lambda: expect(
        "".join(lines[:13]), BOX_SAYS, "the console"))
    group.check(f"{title}: a read-only disk is not written to", lambda: expect(
        len(lines) > 13 and any(word in lines[13] for word in ("not permitted", "Read-only", "rror")), True, said[-300:]))
    group.check(f"{title}: vsock, the guest calls", lambda: (
        expect(each.ready.lines, ["the guest is ready\n"], "what came"), has(said, "answer: THE GUEST IS READY\n")))
    group.check(f"{title}: vsock, the host calls", lambda: (
        expect(found[3], ["DO SOMETHING\n"], "the answer"), has(said, "asked: do something\n")))
    group.check(f"{title}: what the guest wrote to a folder", lambda: (
        expect(read(f"{each.folder}/rw/answer"), "from the guest\n", "the file"),
        expect(os.stat(f"{each.folder}/rw/answer").st_uid, owner, "its owner")))
    group.check(f"{title}: what the guest wrote to the disk, by qemu-img", lambda: expect(
        file_on_disk(each.disk, "answer"), "written by the guest\n", "the file"))
    group.check(f"{title}: what it did not write", lambda: expect(
        sorted(os.listdir(f"{each.folder}/ro")), ["note"], "the folder"))
    group.check(f"{title}: the socket that was made is gone", lambda: expect(
        os.path.exists(f"{each.folder}/agent.sock"), False, "agent.sock"))
    if has_backing:
        group.check(f"{title}: the image under it is as it was", lambda: expect(
            file_on_disk(f"{suite.work}/{name}.raw", "answer"), "", "the file"))


def boxlite(group):
    if IS_UML:
        box(group, "as root", 0, False)
    box(group, "as nobody, with a backing file", NOBODY, True)


# ---- monocore

def monocore_line(root, ports, address, local_only, folders, *program):
    return ["monocore", root, f"{suite.work}/console.log", ",".join(ports), address, str(int(local_only)),
            ",".join(f"{host}={guest}" for host, guest in folders), *program]


def monocore(group):
    """Without TSI, which user-mode Linux does not have."""
    root = make_root("root", """
cat /data/note && echo 'from the guest' >/out/answer
grep -c '^virtiofs_[01] /[a-z]* virtiofs ' /proc/mounts
pwd
env | grep ^MONO
grep '^Max open files' /proc/self/limits | sed 's/  */ /g; s/ $//'
ls /sys/class/net
exit 3
""")
    for name in ("data", "out"):
        os.mkdir(f"{suite.work}/{name}")
    write(f"{suite.work}/data/note", "a note in data\n")
    words = monocore_line(root, ["18000:8000"], "", False,
                          [(f"{suite.work}/data", "/data"), (f"{suite.work}/out", "/out")], "/check.sh")
    found = run(*words)
    said = read(f"{suite.work}/console.log")
    group.check("monocore: its code is the program's", lambda: expect(found[:2], (3, ""), f"{found} {said}"))
    group.check("monocore: that there is no network is on the log", lambda: has(
        found[2], "krun.no_tsi", "add a network interface"))
    group.check("monocore: mapped folders are where /etc/fstab has them; folder, environment and limits are as asked for",
                lambda: expect(said, "a note in data\n2\n/tmp\nMONO=core\nMax open files 2048 4096 files\nlo\n", "console"))
    group.check("monocore: what the guest wrote", lambda: expect(
        read(f"{suite.work}/out/answer"), "from the guest\n", "the file"))


TSI = """
mount | grep -c ' on /data type virtiofs '
probe answer $3 8001 &
other=$!
probe ask 127.0.0.1 $1 'to the loopback'
probe ask %s $2 'to the network' 2>&1
probe answer $3 8000
kill $other
exit 3
"""


def tsi(group):
    """monocore's guests as they were meant to be: with the kernel of a libkrunfw. An address that stands for the guest's
    127.0.0.1 is that of what the guest binds there; what it binds to any address is on all of the host's."""
    expect(IS_UML, False, "this is for KVM")
    root = make_root("root", TSI % suite.NEAR)
    os.mkdir(f"{suite.work}/data")
    for title, address, local_only in (("everywhere", "", False), ("local only, another address", "127.0.0.5", True)):
        here = address or "127.0.0.1"
        loopback = Capitals(socket.AF_INET, (here, 0))
        network = Capitals(socket.AF_INET, (suite.NEAR, 0))
        words = monocore_line(root, ["18000:8000"], address, local_only, [(f"{suite.work}/data", "/data")],
                              "/check.sh", loopback.port, network.port, "127.0.0.1" if address else "tcp")
        elsewhere = [(here, 8000), (here, 8001)] + ([("127.0.0.1", 18000), (suite.NEAR, 18000)] if address else [])
        client, console = Client(*words, krunfw=True), f"{suite.work}/console.log"
        wait_until(lambda client=client, console=console: client.process.poll() is not None or (
            os.path.exists(console) and read(console).count("listening") == 2), "the guest listens", PATIENCE)
        refused = [(*where, why_refused(where)) for where in elsewhere]
        reached = ask(socket.AF_INET, (here, 18000), "to the guest")
        found = client.end()
        said = read(f"{suite.work}/console.log")
        group.check(f"monocore: {title}: its code is the program's, and nothing is on the log", lambda: expect(
            found, (3, "", ""), f"the console: {said}"))
        group.check(f"monocore: {title}: the mapped folder is there", has, said, "1\n")
        group.check(f"monocore: {title}: the guest reaches the host's loopback", lambda: (
            expect(loopback.lines, ["to the loopback\n"], "what came"), has(said, "answer: TO THE LOOPBACK\n")))
        if local_only:
            group.check(f"monocore: {title}: it does not reach the network", lambda: (
                expect(network.lines, [], "what came"), has(said, "connect: Permission denied\n")))
        else:
            group.check(f"monocore: {title}: it reaches the network", has, said, "answer: TO THE NETWORK\n")
        group.check(f"monocore: {title}: a port of the map leads to the guest", lambda: (
            expect(reached, "TO THE GUEST\n", "the answer"), has(said, "asked: to the guest\n")))
        group.check(f"monocore: {title}: others do not", lambda: expect(
            refused, [(*where, errno.ECONNREFUSED) for where in elsewhere], "what connecting gave"))
        os.unlink(console)


# ---- crun

OCI = {"ociVersion": "1.0.0",
       "process": {"user": {"uid": 0, "gid": 0}, "args": ["/check.sh", "one", "two words"], "cwd": "/srv",
                   "env": ["PATH=/bin", "BUNDLE=yes and no"]},
       "root": {"path": "rootfs"}, "hostname": "bundle",
       "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                  {"destination": "/var", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=1024k"]}]}
BUNDLE = """
echo "arguments: $*"
pwd
env | grep ^BUNDLE
nproc
grep -c '^[a-z]* /var tmpfs .*size=1024k' /proc/mounts
ls -d /check.sh /dev/null
exit 7
"""


def bundle(name, config, vm=None, script=BUNDLE):
    root = make_root(name, script)
    write(f"{root}/.krun_config.json", json.dumps(config))
    if vm is not None:
        write(f"{root}/.krun_vm.json", json.dumps(vm))
    return root


def crun(group):
    small = {"cpus": 1, "ram_mib": 128}
    missing = json.loads(json.dumps(OCI))
    missing["process"]["args"] = ["/bin/there-is-none"]
    image = {"Entrypoint": ["/check.sh"], "Cmd": ["one", "two words"], "Env": ["PATH=/bin", "BUNDLE=an image"],
             "WorkingDir": "/srv"}
    says = "arguments: one two words\n/srv\nBUNDLE={}\n{}\n{}\n/check.sh\n/dev/null\n"
    group.check("crun: the bundle's program, its folder, environment and mounts; its output and its code", lambda: ends(
        7, says.format("yes and no", 2, 1), "", run("crun", bundle("oci", OCI, {"cpus": 2, "ram_mib": 128}))))
    group.check("crun: a program that is missing", lambda: ends(
        127, "", "No such file or directory", run("crun", bundle("missing", missing, small))))
    if not IS_UML:
        return
    group.check("crun: the configuration of an image", lambda: ends(
        7, says.format("an image", 1, 0), "", run("crun", bundle("image", image, small))))
    group.check("crun: the same, below a member", lambda: ends(
        7, says.format("an image", 1, 0), "", run("crun", bundle("below", {"config": image}, small))))
    group.check("crun: without a word about the machine", lambda: ends(
        7, says.format("yes and no", 1, 1), "", run("crun", bundle("default", OCI))))
    group.check("crun: a kernel of the bundle's own", lambda: own_kernel(says.format("yes and no", 1, 1), small))
    group.check("crun: a configuration that is none", lambda: ends(
        125, "", ".krun_config.json", run("crun", bundle("broken", [], small))))
    disk = make_disk(f"{suite.work}/bundle.raw", bundle("on-disk", OCI), 24)
    group.check("crun: the configuration on a disk that is the root", lambda: ends(
        7, says.format("yes and no", 1, 1), "",
        calls(["add_disk", "root", disk, "no"], "set_root_disk_remount /dev/vda ext4 -")))


def kernel_path():
    """The project's own."""
    return tool(f"{HERE}/../kernel/build", "uml" if IS_UML else "kvm-x86_64", "--print-path").strip()


def own_kernel(says, vm):
    root = bundle("kernel", OCI, vm | {"kernel_path": "/kernel", "kernel_format": 1})
    shutil.copy(kernel_path(), f"{root}/kernel")
    ends(7, says, "", run("crun", root))


# ---- ends

def codes(group):
    """How programs end, and what a client is told where none began."""
    root = make_root("root")
    here = ["set_root", root]

    def shell(status, script, out="", errors=""):
        ends(status, out, errors, calls(here, ["set_exec", "/bin/sh", "-c", script]))

    for code in (0, 7, 255) if IS_UML else (7,):
        group.check(f"ends: with {code}", shell, code, f"exit {code}")
    group.check("ends: signal 9", shell, 137, "kill -9 $$")
    group.check("ends: a program that is none", lambda: ends(
        126, "", "/etc/hostname", calls(here, "set_exec /etc/hostname")))
    group.check("ends: a program that is missing", lambda: ends(
        127, "", "/bin/none", calls(here, "set_exec /bin/none")))
    group.check("ends: a folder that is missing", lambda: ends(
        125, "", "/there/is/none", calls(here, "set_exec /bin/true", "set_workdir /there/is/none")))
    if not IS_UML:
        return
    group.check("ends: a signal that asks", shell, 128 + 15, "kill -15 $$")
    group.check("ends: the environment is this process's where none is given", lambda: has(
        calls(here, "inherit_exec /bin/env")[1], f"LD_LIBRARY_PATH={LIBRARY}\n", "HOME="))
    group.check("ends: only the given one else", lambda: ends(
        0, "A=1\nHOME=/\nTERM=linux\n", "", calls(here, "set_exec /bin/env", "set_env A=1 =B C")))
    group.check("ends: a relative folder is the root's", lambda: ends(
        0, "/srv\n", "", calls(here, "set_exec /bin/pwd", "set_workdir srv")))
    group.check("ends: without a program it is a shell", lambda: ends(
        9, "from a shell\n", "", calls(here, text="echo from a shell; exit 9\n")))
    group.check("ends: a guest that switches itself off", shell, 0, "busybox poweroff -f", "", "before its init")
    waits = make_root("waits")
    os.mkfifo(f"{waits}/.krun_config.json")
    group.check("ends: a configuration that one would wait for", lambda: ends(
        125, "", ".krun_config.json", calls(["set_root", waits], "set_exec /bin/true")))

    def gives_up_groups():
        folder = f"{suite.work}/shared"
        os.mkdir(folder)
        write(f"{folder}/secret", "a secret\n", 0o640)  # of the group 0
        os.chmod(suite.work, 0o711)
        ends(1, "", "", calls(here, ["add_virtiofs", "shared", folder], "setgid 65534", "setuid 65534",
                              "set_exec /bin/sh -c 'mount -t virtiofs shared /mnt && cat /mnt/secret 2>/dev/null'", groups=[0]))

    group.check("ends: another user's machine has none of this one's groups", gives_up_groups)

    def is_not_shown():
        """Others of that user do not get at what was opened before (proc(5): such files are root's then)."""
        client = Client("calls", *line(here, "setuid 65534", "set_exec /bin/sh -c 'echo up; read -r line'"),
                        stdin=subprocess.PIPE)
        expect(client.process.stdout.readline(), b"up\n", "output")
        expect(os.stat(f"/proc/{client.process.pid}/environ").st_uid, 0, "whose the process's files are")
        expect(client.end("go\n")[0], 0, "status")

    group.check("ends: a process of another user is not for that user's others to look into", is_not_shown)
    group.check("ends: no root", lambda: ends(
        NOT_STARTED, "", "krun_set_root", calls("set_exec /bin/true")))
    group.check("ends: a root that is missing", lambda: ends(
        NOT_STARTED, "", "krun_start_enter: -2", calls("set_root /there/is/none", "set_exec /bin/true")))
    group.check("ends: a disk that is missing", lambda: ends(
        NOT_STARTED, "", "krun_start_enter: -2", calls(here, "add_disk a /there/is/none no", "set_exec /bin/true")))
    group.check("ends: an engine that is none", lambda: ends(
        NOT_STARTED, "", "VIAL_ENGINE", calls(here, "set_exec /bin/true", VIAL_ENGINE="xen")))


# ---- streams

MANY = 1 << 20


def much():
    return "".join(f"{number:07x} of many\n" for number in range(MANY // 16))


def by_pipe(root, *made):
    """Descriptors of the client's for input, output and errors: what came from the two."""
    (in_read, in_write), (out_read, out_write), (err_read, err_write) = os.pipe(), os.pipe(), os.pipe()
    calls_made = [call.format(in_fd=in_read, out_fd=out_write, err_fd=err_write) for call in made]
    client = Client("calls", *line(["set_root", root], *calls_made), fds=(in_read, out_write, err_write))
    for fd in (in_read, out_write, err_write):
        os.close(fd)
    os.write(in_write, b"from the host\n")
    found = {}

    def take(fd, name):
        with os.fdopen(fd, "rb") as file:
            found[name] = file.read().decode()
    threads = [threading.Thread(target=take, args=each, daemon=True) for each in ((out_read, "out"), (err_read, "err"))]
    for thread in threads:
        thread.start()
    done = client.end()
    os.close(in_write)
    for thread in threads:
        thread.join(5)
    return done, found


def on_terminal(root, script, *steps, program=None):
    words = program or line(["set_root", root], ["set_exec", "/bin/sh", "-c", script])
    return subprocess.run([sys.executable, "-B", f"{HERE}/session.py", *steps, "--", f"{CLIENTS}/calls", *words],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                          env=environment(SESSION_LIMIT=str(PATIENCE)), timeout=4 * PATIENCE)


def streams(group):
    root = make_root("root", """
for port in /sys/class/virtio-ports/*; do
    [ "$(cat $port/name)" != agent ] || agent=/dev/${port##*/}
done
exec 3<>"$agent" || exit 1
read -r line <&3
echo "the guest has read: $line" >&3
exit 5
""")
    here = ["set_root", root]

    def says_much():
        status, out, errors = calls(here, f"set_exec /bin/probe much {MANY}")
        expect((status, len(out), len(errors)), (0, MANY, MANY), "status and lengths")
        expect((out == much(), errors == much()), (True, True), "content")

    def reads_much():
        status, out, errors = calls(here, "set_exec /bin/cat", text=much())
        expect((status, len(out), errors), (0, MANY, ""), "status, length and errors")
        expect(out == much(), True, "content")

    def has_descriptors():
        done, found = by_pipe(root, "add_virtio_console_default {in_fd} {out_fd} {err_fd}",
                              "set_exec /bin/sh -c 'read -r line; echo \"$line\"; echo to errors >&2; exit 4'")
        ends(4, "", "", done)
        expect(found, {"out": "from the host\n", "err": "to errors\n"}, "what came")

    def has_port():
        done, found = by_pipe(root, "add_virtio_console_multiport", "add_console_port_inout 0 agent {in_fd} {out_fd}",
                              "set_exec /check.sh")
        ends(5, "", "", done)
        expect(found["out"], "the guest has read: from the host\n", "what came")

    def has_named_streams():
        done, found = by_pipe(root, "add_virtio_console_multiport", "add_console_port_inout 0 krun-stdin {in_fd} -",
                              "add_console_port_inout 0 krun-stdout - {out_fd}",
                              "add_console_port_inout 0 krun-stderr - {err_fd}",
                              "set_exec /bin/sh -c 'read -r line; echo \"$line\"; echo to errors >&2; exit 4'")
        ends(4, "", "", done)
        expect(found, {"out": "from the host\n", "err": "to errors\n"}, "what came")

    def is_terminal():
        done = on_terminal(root, 'stty size; printf "> "; read -r line; echo "read: $line"; '
                           'until [ "$(stty size)" = "20 70" ]; do usleep 50000; done; echo resized; exit 6',
                           "size=33x111", "until=33 111", "until=> ", "raw", "send=typed\\n", "until=read: typed", "size=20x70",
                           "until=resized")
        expect(done.returncode, 6, done.stdout.decode(errors="replace"))
        has(done.stdout.decode(errors="replace"), "> typed\r\nread: typed\r\n")

    def has_terminal_port():
        done = on_terminal(root, "", "size=33x111", "until=33 111", "until=on hvc0", "raw", program=line(
            here, "disable_implicit_console", "add_virtio_console_multiport", "add_console_port_tty 0 screen 0",
            "set_exec /bin/sh -c '(stty size; echo on hvc0) </dev/hvc0 >/dev/hvc0; exit 6'"))
        expect(done.returncode, 6, done.stdout.decode(errors="replace"))

    def loses_reader():
        client = Client("calls", *line(here, "set_exec /bin/sh -c 'while :; do echo more; done'"))
        expect(client.process.stdout.readline(), b"more\n", "output")
        client.process.stdout.close()
        expect(client.process.wait(PATIENCE), -signal.SIGPIPE, "status")
        wait_until(lambda: not left_of(client.process.pid), "no process of the client's is left", 10)

    def lacks(stream, program):
        """Without this stream of the client's, whose number anything could have got that it opens."""
        words = ["sh", "-c", f'exec "$@" {stream}>&-', "sh", f"{CLIENTS}/calls", *line(here, program)]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False, env=environment(),
                              timeout=PATIENCE)
        expect((done.returncode, done.stdout), (3, b""), f"status and output; it said {done.stderr!r}")

    group.check("streams: a reader that goes away ends the client, too", loses_reader)
    group.check("streams: a client without standard input", lacks, 0, "set_exec /bin/sh -c 'cat; exit 3'")
    group.check("streams: a client without standard output", lacks, 1, "set_exec /bin/sh -c 'echo said; exit 3'")
    group.check("streams: a client without standard error", lacks, 2, "set_exec /bin/sh -c 'echo said >&2; exit 3'")
    group.check("streams: a lot of output, on two pipes", says_much)
    group.check("streams: a lot of input, from a pipe", reads_much)
    group.check("streams: a terminal, its echo and its size", is_terminal)
    group.check("streams: a terminal as a port of a console", has_terminal_port)
    group.check("streams: a console of the client's descriptors", has_descriptors)
    group.check("streams: a port that is found by its name", has_port)
    group.check("streams: ports with the names of a program's streams", has_named_streams)
    group.check("streams: without a console what a program says is nowhere", lambda: ends(
        0, "", "", calls(here, "disable_implicit_console", "set_exec /bin/sh -c 'echo said'")))
    group.check("streams: a file that cannot be written to", lambda: ends(
        NOT_STARTED, "", "krun_start_enter: -2", calls(here, "set_console_output /there/is/none", "set_exec /bin/true")))


# ---- kernels, inits

OWN_INIT = """#!/bin/sh
mount -t proc proc /proc
{
    echo "init: $KRUN_INIT $*"
    echo "folder: $KRUN_WORKDIR"
    echo "limits: $KRUN_RLIMITS"
    echo "text: $TEXT"
    echo "path: $PATH"
} >/seen
probe code 9
probe reset
"""


def inits(group):
    root = make_root("root")
    here = ["set_root", root]

    def tells_init():
        write(f"{root}/init.krun", OWN_INIT, 0o755)
        done = calls("disable_implicit_init", here, ["set_exec", "/bin/none", "one", "two words"],
                     ["set_env", "PATH=/bin", "TEXT=two words"], "set_workdir /srv", "set_rlimits 7=64:128 6=1:2")
        os.unlink(f"{root}/init.krun")
        expect(done[0], 9, f"the exit code; {done}")
        expect(read(f"{root}/seen"), "init: /bin/none one two words\nfolder: /srv\nlimits: 7=64:128,6=1:2\n"
               "text: two words\npath: /bin\n", "what the init was told")

    def puts_it_back(status, out, *made):
        ends(status, out, "", calls("disable_implicit_init", here, "put_default_init /dev/root /init.krun", *made,
                                    text="typed\n"))

    group.check("inits: a kernel that is given", lambda: ends(
        7, "", "", calls(here, ["set_kernel", kernel_path(), "1", "-", "-"], "set_exec /bin/sh -c 'exit 7'")))
    group.check("inits: words for the kernel", lambda: has(
        calls(here, ["set_kernel", kernel_path(), "1", "-", "quiet words=of_mine"], "set_exec /bin/cat /proc/cmdline")[1],
        "words=of_mine"))
    group.check("inits: one of the root's own is told by the command line", tells_init)
    group.check("inits: the library's, put there by the client", puts_it_back, 7, "/srv\ntwo words\n64\ntyped\n",
                ["set_exec", "/bin/sh", "-c", "pwd; echo $TEXT; ulimit -n; cat; exit 7"], "set_workdir /srv",
                ["set_env", "PATH=/bin", "TEXT=two words"], "set_rlimits 7=64:128")
    group.check("inits: the same, a program that is missing", lambda: expect(
        calls("disable_implicit_init", here, "put_default_init /dev/root /init.krun", "set_exec /bin/none")[0], 127, "code"))
    disk = make_disk(f"{suite.work}/root.raw", root, 24)
    group.check("inits: the same, with a disk as the root", lambda: expect(
        calls("disable_implicit_init", ["add_disk", "root", disk, "no"], "set_root_disk_remount /dev/vda ext4 -",
              "put_default_init /dev/root /init.krun", "set_exec /bin/sh -c 'echo $(pwd) on a disk; exit 7'")[:2],
        (7, "/ on a disk\n"), "code and output"))
    group.check("inits: a root disk of the older kind", lambda: ends(
        7, "ext4\n", "", calls(["set_root_disk", disk], ["set_exec", "/bin/sh", "-c",
                                                        "grep ' / ' /proc/mounts | tail -n 1 | cut -d ' ' -f 3; exit 7"])))


# ---- entries

def entries(group):
    root = make_root("root", """
cat /virtual/note
stat -c '%a %F' /virtual /virtual/note
ls /virtual
mount -t virtiofs empty /mnt/ro && ls -a /mnt/ro
mount -t virtiofs some /mnt/rw && cat /mnt/rw/own
cat /once
cat /once
""")
    found = calls(["set_root", root], "add_virtiofs empty -", "add_virtiofs some -",
                  "fs_add_overlay_dir /dev/root virtual 0750",
                  ["fs_add_overlay_file", "/dev/root", "virtual/note", "0640", "no", "a virtual note\n"],
                  ["fs_add_overlay_file", "/dev/root", "/once", "0644", "yes", "only once\n"],
                  ["fs_add_overlay_file", "some", "own", "0644", "no", "in an empty one\n"], "set_exec /check.sh")
    group.check("entries: a file in a folder, an empty file system, a file in one, and a file for one lookup", lambda: expect(
        found[:2], (1, "a virtual note\n750 directory\n640 regular file\nnote\n.\n..\nin an empty one\nonly once\n"), found[2]))
    group.check("entries: the second lookup finds nothing", has, found[2], "cat: can't open '/once'")
    group.check("entries: nothing of it is on the host", lambda: expect(
        [name for name in ("virtual", "once") if os.path.exists(f"{root}/{name}")], [], "names"))


# ---- networks

@contextlib.contextmanager
def passt(name):
    path = f"{suite.work}/{name}.sock"
    with subprocess.Popen(["passt", "--foreground", "--quiet", "--one-off", "--socket", path],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        wait_until(lambda: suite.is_socket(path), "passt's socket")
        yield path
        process.terminate()


def net(group):
    """passt, whose socket the client connects to, or leaves to the library."""
    os.chmod(suite.work, 0o777)  # passt becomes nobody
    server = Capitals(socket.AF_INET, ("127.0.0.1", 0))
    by_hand = f"ip addr add {suite.NEAR}/24 dev eth0; ip link set eth0 up; ip route add default via 198.51.100.1"
    root = make_root("root", f"""
[ $# -eq 0 ] || {{ {by_hand}; }}
cat /sys/class/net/eth0/address
ip -4 -o addr show eth0 | grep -o 'inet [0-9./]*'
ip route | grep -o '^default via [0-9.]*'
probe ask 198.51.100.1 {server.port} 'by passt'
""")
    wanted = f"5a:94:ef:e4:0c:ee\ninet {suite.NEAR}/24\ndefault via 198.51.100.1\nanswer: BY PASST\n"

    def older():
        with passt("older") as path, socket.socket(socket.AF_UNIX) as stream:
            stream.connect(path)
            ends(0, wanted, "", calls(["set_root", root], ["set_passt_fd", str(stream.fileno())],
                                      "set_exec /check.sh by-hand", fds=(stream.fileno(),)))

    for title, words in (("a descriptor", ["connect_passt"]), ("a path", ["add_net_unixstream", "2"])):
        with passt(words[0]) as path:
            words.insert(1, path)
            group.check(f"net: passt by {title}, with an address of DHCP", lambda words=words: ends(
                0, wanted, "", calls(["set_root", root], words, "set_exec /check.sh")))
    group.check("net: passt by the older call, without DHCP", older)


def main():
    groups = {"abi": abi, "boxlite": boxlite, "monocore": monocore, "tsi": tsi, "crun": crun, "codes": codes,
              "streams": streams, "inits": inits, "entries": entries, "net": net}
    suite.main(groups, sys.argv[7:])


if __name__ == "__main__":
    main()
