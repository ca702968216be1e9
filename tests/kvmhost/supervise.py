# SPDX-License-Identifier: Apache-2.0
"""The emulated KVM host from the outside: starts QEMU and virtiofsd, passes the streams on, returns the job's status.

tests/kvmhost/run checks the options, has the kernel and the initramfs ready, and hands over to this. The machine has
four virtio-serial ports (status, stdout, stderr, stdin; see init) and a serial console, each one end of a socket pair.
The host's tree is shared by one virtiofsd, each --out folder by another. The job travels as a second archive behind the
initramfs, in a memfd.

Nothing is put into the file system, so nothing is left there when this process is killed: streams are socket pairs,
the guest's memory and the initramfs are memfds, and virtiofsd listens on an abstract address, for the one connection that
is made here before virtiofsd starts. QEMU and virtiofsd get SIGKILL from the kernel when this process dies.

The host's tree cannot be changed even by a guest that tries: its virtiofsd runs in a mount namespace where every mount
is read-only. Only the --out folders are writable.

Invariants: (1) the exit status is the job's only after "exit N" came and both streams reached their end mark; all else
is 125 (the machine), 124 (time-out, or the machine locked up) or 128+n (a signal to this process). (2) no thread but the main one starts a
process: PDEATHSIG is bound to the thread. (3) the caller's descriptors keep their flags: they are read and written
blocking, each by its own thread.

Trust: the options come from run, the environment and the arguments from the caller. What comes from the guest is passed
on and never interpreted, but for the status port.
"""

import argparse
import ctypes
import math
import os
import platform
import queue
import resource
import secrets
import shlex
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time

STATUS_TIMEOUT = 124
STATUS_MACHINE = 125
CONSOLE_TAIL_BYTES = 8192
CONSOLE_KEPT_BYTES = 1 << 20
CHUNK_BYTES = 1 << 16
OPEN_FILES_MOST = 1 << 20  # fs.nr_open of a new kernel
CORE_PATTERN_BYTES = 128  # what the kernel takes
ALIVE_SECONDS = 5  # how often init says that its kernel still runs; --silence is longer

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
AT_FDCWD = -100
AT_RECURSIVE = 0x8000
MOUNT_ATTR_RDONLY = 0x1
MS_PRIVATE = 1 << 18
SYS_MOUNT_SETATTR = 442  # x86_64; Linux 5.12

libc = ctypes.CDLL(None, use_errno=True)


class MachineError(Exception):
    """The machine failed, not the job."""


class Stopped(Exception):
    """A signal asked this process to end."""

    def __init__(self, number):
        super().__init__(number)
        self.number = number


def message(text):
    try:
        os.write(2, b"kvmhost: " + os.fsencode(text) + b"\n")
    except OSError:
        pass


# --- the archive behind the initramfs


def archive_entry(name, data, mode):
    """One file of a cpio archive in the "newc" format, as the kernel's initramfs takes it."""
    name = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
    entry = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    entry += b"\0" * (-len(entry) % 4) + data
    return entry + b"\0" * (-len(entry) % 4)


def quote(word):
    """A word for the guest's shell, any bytes."""
    return b"'" + word.replace(b"'", b"'\\''") + b"'"


def limit(option, kind, unit, most):
    """Sets a limit as the caller has it: both at first, for either may be above what the guest started with."""
    words = []
    for value in resource.getrlimit(kind):
        words.append("unlimited" if value == resource.RLIM_INFINITY else str(value // unit))
    soft, hard = (str(most) if most and (word == "unlimited" or int(word) > most) else word for word in words)
    return f"ulimit -{option} {hard}; ulimit -S -{option} {soft}\n".encode()


def job_script(arguments, folder):
    """What init runs as the job: the caller's folder, mask, limits and environment, then the command."""
    mask = os.umask(0)
    os.umask(mask)
    script = b"# The job: written by tests/kvmhost/supervise.py.\n"
    script += limit("n", resource.RLIMIT_NOFILE, 1, OPEN_FILES_MOST)
    script += limit("c", resource.RLIMIT_CORE, 512, None)
    script += b"umask %04o\n" % mask
    script += b"cd " + quote(folder) + b" || exit 125\n"
    script += b"exec env -i --"
    for name, value in os.environb.items():
        script += b" " + quote(name + b"=" + value)
    script += b" /run/kvmhost/busybox setsid"
    for argument in arguments:
        script += b" " + quote(argument)
    return script + b"\n"


def find_program(name):
    """The command as execvp would find it. The guest's busybox would take its own applet of that name."""
    if "/" in name:
        return name
    found = shutil.which(name)
    return found and os.path.join(".", found)


def settings_script(outs, core_folder, has_input, joined, end_mark):
    lines = [
        f"out_count={len(outs)}",
        f"input={int(has_input)}",
        f"join={int(joined)}",
        f"alive_seconds={ALIVE_SECONDS}",
        f"host_name={shlex.quote(platform.node() or 'kvmhost')}",
        "end_mark='" + "".join(f"\\{byte:03o}" for byte in end_mark) + "'",
    ]
    script = "\n".join(lines).encode() + b"\n"
    for index, out in enumerate(outs):
        script += b"out_%d=%s\n" % (index, quote(out))
    pattern = core_folder + b"/core.%e.%p" if core_folder else b""
    if len(pattern) < CORE_PATTERN_BYTES:
        script += b"core_pattern=" + quote(pattern) + b"\n"
    return script


def memory_file(name, data):
    fd = os.memfd_create(name, 0)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(data)
    return fd


# --- processes


def child_setup(namespace):
    """Between fork and exec of a helper: it dies with us, and sees the file system as namespace says."""
    parent = os.getpid()

    def setup():
        try:
            if namespace is not None:
                namespace()
        except OSError as error:
            os.write(2, f"no namespace for virtiofsd: {error}; it needs CAP_SYS_ADMIN\n".encode())
            os._exit(1)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # after: a change of credentials clears it
        if os.getppid() != parent:
            os._exit(1)

    return setup


def check(result, what):
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def set_mount_attributes(attributes, propagation):
    packed = struct.pack("=QQQQ", attributes, 0, propagation, 0)
    result = libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, b"/", AT_RECURSIVE, packed, len(packed))
    check(result, "mount_setattr")


def own_mounts(is_read_only):
    """A mount namespace where the host's tree is as the guest may have it; an ordinary user needs a user namespace."""
    user, group = os.geteuid(), os.getegid()
    check(libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if user else 0)), "unshare")
    if user:
        for name, text in ("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1"):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    set_mount_attributes(0, MS_PRIVATE)
    if is_read_only:
        set_mount_attributes(MOUNT_ATTR_RDONLY, 0)


class Machine:
    """QEMU, the virtiofsd processes, and the ends of their sockets."""

    def __init__(self):
        self.events = queue.SimpleQueue()
        self.processes = []
        self.keep = []  # sockets that QEMU inherits
        self.console = bytearray()
        self.console_reader = None
        self.log_fd = os.memfd_create("kvmhost-log", 0)  # what QEMU and virtiofsd say

    def start(self, name, command, fds, namespace=None):
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self.log_fd,
                stderr=self.log_fd,
                pass_fds=fds,
                start_new_session=True,
                preexec_fn=child_setup(namespace),
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise MachineError(f"cannot start {name}: {error}") from error
        self.processes.append(process)
        self.thread(lambda: self.events.put((name, process.wait())))

    def thread(self, work):
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def cause_of_end(self, name):
        """Why the machine ended, when the process called name ended. virtiofsd follows QEMU, but not the other way."""
        qemu = self.processes[-1]
        try:
            status = qemu.wait(timeout=1)
            self.console_reader.join(timeout=1)
        except subprocess.TimeoutExpired:
            return f"{name} ended by itself"
        if b"Kernel panic" in self.console:
            return "the outer kernel panicked"
        if status < 0:
            return f"signal {-status} ended QEMU"
        return f"QEMU ended with status {status}" if status else "the machine was switched off or reset from inside"

    def stop(self):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()

    def log(self):
        return os.pread(self.log_fd, 1 << 16, 0).decode(errors="replace")


class Port:
    """Our end of a virtio-serial port or of the console; the other end goes to QEMU."""

    def __init__(self, name):
        self.name = name
        self.ours, self.theirs = socket.socketpair()

    def chardev(self):
        return ["-chardev", f"socket,id={self.name},fd={self.theirs.fileno()}"]


def send_all(fd, data):
    while data:
        data = data[os.write(fd, data) :]


def forward_output(port, fd, end_mark, machine):
    """Guest to caller, up to the end mark. Bytes that may be the start of the mark wait for the next chunk."""
    held = b""
    while chunk := port.ours.recv(CHUNK_BYTES):
        held += chunk
        end = held.find(end_mark)
        ready = end
        if end < 0:
            ready = len(held)
            start = held.find(end_mark[:1], max(0, len(held) - len(end_mark) + 1))
            while start >= 0 and not end_mark.startswith(held[start:]):
                start = held.find(end_mark[:1], start + 1)
            if start >= 0:
                ready = start
        try:
            send_all(fd, held[:ready])
        except OSError as error:
            machine.events.put(("output", error))
            return
        if end >= 0:
            machine.events.put(("stream", port.name))
            return
        held = held[ready:]


def forward_input(port):
    try:
        while chunk := os.read(0, CHUNK_BYTES):
            port.ours.sendall(chunk)
        port.ours.shutdown(socket.SHUT_WR)  # never close: a hang-up of both directions would drop what is on its way
    except OSError:
        pass  # the machine has ended


def read_status(port, machine):
    with port.ours.makefile("rb") as lines:
        for line in lines:
            machine.events.put(("status", line.decode(errors="replace").strip()))


def read_console(port, machine, is_verbose):
    while chunk := port.ours.recv(CHUNK_BYTES):
        machine.console += chunk
        del machine.console[:-CONSOLE_KEPT_BYTES]
        if is_verbose:
            os.write(2, chunk)


def is_open(fd):
    try:
        os.fstat(fd)
        return True
    except OSError:
        return False


def wants_input():
    """The job gets our standard input, unless that is a terminal or there is nothing to read."""
    if os.isatty(0):
        return False
    return not os.path.samestat(os.fstat(0), os.stat(os.devnull))


def text_of_help(program):
    """There are two programs of the name virtiofsd: the older one in C, of QEMU, and the newer in Rust."""
    try:
        return subprocess.run([program, "--help"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


def share(machine, name, folder, options):
    """Starts a virtiofsd for folder and returns the arguments that give it to QEMU as the tag name."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind("")  # the kernel picks an abstract address
    listener.listen(1)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(listener.getsockname())  # takes the only place: nobody else reaches this virtiofsd
    command = [options.virtiofsd, f"--fd={listener.fileno()}"]
    is_root = name == "root"
    if "--shared-dir" not in options.virtiofsd_help:
        if os.geteuid():  # it opens files with O_NOATIME, which only their owner may
            raise MachineError("this virtiofsd needs root: run with sudo --preserve-env, or install the one in Rust")
        source = folder.replace("\\", "\\\\").replace(",", "\\,")
        command += ["-o", f"source={source},sandbox=chroot,log_level=err"]
        command += ["-o", "cache=always,no_xattr" if is_root else "cache=auto,xattr"]
    else:
        command += [f"--shared-dir={folder}", "--sandbox=chroot", "--log-level=error"]
        command += ["--cache=always"] if is_root else ["--cache=auto", "--xattr"]
        if "--no-announce-submounts" in options.virtiofsd_help:
            command.append("--no-announce-submounts")  # an overlay refuses what is below an announced one
    machine.start("virtiofsd", command, [listener.fileno()], lambda: own_mounts(is_root))
    listener.close()
    machine.keep.append(connection)
    return [
        "-chardev",
        f"socket,id=share-{name},fd={connection.fileno()}",
        "-device",
        f"vhost-user-fs-pci,chardev=share-{name},tag={name},queue-size=1024",
    ]


def qemu_command(options, ports, shares, initrd_fd):
    accelerator = "tcg,thread=single" if options.icount else "tcg,thread=multi"
    command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    command += ["-name", "vial-kvmhost", "-M", "q35,memory-backend=memory", "-accel", accelerator]
    command += ["-cpu", "max,-xsave,-la57", "-smp", str(options.cpus), "-m", f"{options.memory}M"]
    command += ["-object", f"memory-backend-memfd,id=memory,size={options.memory}M,share=on"]
    if options.icount:
        command += ["-icount", "shift=0", "-rtc", "base=utc,clock=vm"]
    command += ["-kernel", f"{options.machine}/vmlinuz", "-initrd", f"/proc/self/fd/{initrd_fd}"]
    command += ["-append", options.append]
    console, *rest = ports
    command += console.chardev() + ["-serial", f"chardev:{console.name}", "-device", "virtio-serial-pci,max_ports=8"]
    for number, port in enumerate(rest, start=1):
        command += port.chardev() + ["-device", f"virtserialport,chardev={port.name},nr={number}"]
    return command + shares


def run(machine, options):
    outs = [os.fsencode(os.path.realpath(out)) for out in options.out]
    joined = os.path.samestat(os.fstat(1), os.fstat(2))
    has_input = wants_input()
    end_mark = b"\xff" + secrets.token_bytes(24).hex().encode()
    files = archive_entry("job", job_script([os.fsencode(word) for word in options.command], os.getcwdb()), stat.S_IFREG | 0o600)
    settings = settings_script(outs, outs[0] if outs else b"", has_input, joined, end_mark)
    files += archive_entry("settings", settings, stat.S_IFREG | 0o600)
    files += archive_entry("TRAILER!!!", b"", 0)
    with open(f"{options.machine}/initramfs", "rb") as base:
        initrd_fd = memory_file("kvmhost-initrd", base.read() + files)

    ports = [Port(name) for name in ("console", "status", "stdout", "stderr", "stdin")]
    console, status, stdout, stderr, stdin = ports
    shares = share(machine, "root", "/", options)
    for index, out in enumerate(outs):
        shares += share(machine, f"out{index}", os.fsdecode(out), options)
    fds = [port.theirs.fileno() for port in ports] + [connection.fileno() for connection in machine.keep] + [initrd_fd]
    machine.start("QEMU", qemu_command(options, ports, shares, initrd_fd), fds)
    for port in ports:
        port.theirs.close()
    for connection in machine.keep:
        connection.close()

    machine.console_reader = machine.thread(lambda: read_console(console, machine, options.verbose))
    machine.thread(lambda: read_status(status, machine))
    streams = {"stdout"}
    machine.thread(lambda: forward_output(stdout, 1, end_mark, machine))
    if not joined:
        streams.add("stderr")
        machine.thread(lambda: forward_output(stderr, 2, end_mark, machine))
    if has_input:
        machine.thread(lambda: forward_input(stdin))
    return wait_for_end(machine, options, streams)


def wait_for_end(machine, options, streams):
    """Until the job's status and the ends of its streams are here. Emulated CPUs lock up now and then, all at once."""
    deadline = time.monotonic() + options.timeout if options.timeout else math.inf
    last_word = math.inf  # from the first one on: until then the machine boots; with icount its clock is not ours
    exit_status = None
    while exit_status is None or streams:
        until = min(deadline, last_word + options.silence)
        try:
            what, value = machine.events.get(timeout=None if until == math.inf else max(0, until - time.monotonic()))
        except queue.Empty:
            if until < deadline:
                raise TimeoutError(f"the machine has locked up: no sign of life for {options.silence} s") from None
            raise TimeoutError(f"the time-out of {options.timeout} s ended the machine") from None
        if (what, value) == ("status", "alive"):
            last_word = math.inf if options.icount else time.monotonic()
            continue
        if what == "stream":
            streams.discard(value)
        elif what == "output":
            if isinstance(value, BrokenPipeError):
                raise Stopped(signal.SIGPIPE)
            raise MachineError(f"cannot write the job's output: {value}")
        elif what == "status":
            verb, _, rest = value.partition(" ")
            if verb != "exit" or not rest.isdigit():
                raise MachineError(rest or f"bad status line {value!r}")
            exit_status = int(rest)
        else:
            raise MachineError(machine.cause_of_end(what))
    return exit_status


def console_tail(machine):
    text = bytes(machine.console[-CONSOLE_TAIL_BYTES:]).decode(errors="replace").replace("\r", "").strip()
    for source, said in ("the console's tail", text), ("QEMU and virtiofsd", machine.log().strip()):
        if said:
            message(f"{source}:\n{said}")


def stop_on_signal(number, _frame):
    raise Stopped(number)


def main():
    parser = argparse.ArgumentParser(prog="supervise.py", allow_abbrev=False)
    parser.add_argument("--machine", required=True)
    parser.add_argument("--virtiofsd", required=True)
    parser.add_argument("--append", required=True)
    parser.add_argument("--cpus", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True)
    parser.add_argument("--timeout", type=int, required=True)
    parser.add_argument("--silence", type=int, required=True)
    parser.add_argument("--icount", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--out", action="append", default=[])
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()

    while not is_open(2) or not is_open(1) or not is_open(0):
        os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    program = find_program(options.command[0])
    if program is None:
        message(f"{options.command[0]}: command not found")
        sys.exit(127)
    options.command[0] = program
    options.virtiofsd_help = text_of_help(options.virtiofsd)

    machine = Machine()
    stop_signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in stop_signals:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop_on_signal)
    try:
        exit_status = run(machine, options)
    except Stopped as stopped:
        exit_status = 128 + stopped.number
    except TimeoutError as error:
        message(str(error))
        console_tail(machine)
        exit_status = STATUS_TIMEOUT
    except (MachineError, OSError, ValueError) as error:
        message(f"the machine failed: {error}")
        console_tail(machine)
        exit_status = STATUS_MACHINE
    finally:
        for number in stop_signals:
            signal.signal(number, signal.SIG_IGN)
        machine.stop()
    os._exit(exit_status)  # threads may still wait for the caller's input or output


main()
