#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Plays the host of one guest under QEMU, as src/proto/init.h describes it, and looks at what a program does there.

    init_host.py KERNEL INITRAMFS CASE...

Each CASE is a function below named case_CASE; "all" is every one. A guest of its own is booted for each: a microvm under
TCG whose virtio-console ports are sockets of this process. What the protocol looks like is written here a second time, from
its description, so that a mistake in the code shared by host and guest is seen.
"""

import hashlib
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time

REQUEST, GOODBYE, SETUP, STARTED, FAILED, ENDED = 1, 2, 3, 16, 17, 18
TERMINAL, UID, GID, CONFIG = 1, 2, 4, 8
SOURCE, TARGET, MOUNT, STREAMS, RLIMIT, SETUID, CHDIR, EXEC, OWN_CONFIG = 3, 4, 5, 8, 11, 14, 15, 16, 19
NO_MOUNT = 0xffffffff
ROOT, LOWER, UPPER, PLACE = 1, 2, 3, 4  # roles
DISK, VIRTIOFS, TMPFS, PRESENT = 1, 2, 3, 4  # kinds
LIMIT = 90
PATH = b"PATH=/bin"


def message(kind, body=b"", version=5):
    return struct.pack("<IHH", len(body), kind, version) + body


def setup(*mounts, has_request=True):
    """Each mount is (role, kind, flags, source, target, type, options)."""
    body = struct.pack("<3I", has_request, len(mounts), 0) + b"\0"
    for mount in mounts:
        body += struct.pack("<3I", *mount[:3]) + b"".join(text + b"\0" for text in mount[3:])
    return message(SETUP, body)


def failed(stage, os_error, mount=NO_MOUNT):
    return (FAILED, stage, os_error, mount)


def request(path, *args, env=(PATH,), workdir=b"/", uid=None, gid=None, limits=(), terminal=False,
            mounts=(), config=False):
    flags = (TERMINAL if terminal else 0) | (UID if uid is not None else 0) | (GID if gid is not None else 0) | \
            (CONFIG if config else 0)
    body = struct.pack("<6I", flags, uid or 0, gid or 0, len(args), len(env), len(limits))
    for limit in limits:
        body += struct.pack("<IIQQ", limit[0], 0, limit[1], limit[2])
    return setup(*mounts) + message(REQUEST, body + b"".join(text + b"\0" for text in (path, workdir, *args, *env)))


def shell(script, **options):
    return request(b"sh", b"-c", script.encode(), **options)


class Guest:
    """Boots at once; the request waits in the port's socket."""

    def __init__(self, first, terminal=False, streams=True, goodbye=True, is_late=False):
        self.folder = tempfile.TemporaryDirectory()
        self.goodbye = goodbye
        self.names = (["console"] if terminal else []) + (["stdin", "stdout", "stderr"] if streams else []) + ["init"]
        self.output = {name: b"" for name in self.names}
        self.answers = []
        self.deadline = time.monotonic() + LIMIT
        self.sockets = {}
        self.is_late = is_late
        self.process = self.start(terminal)
        if is_late:
            self.add_init()
        self.send("init", first)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def start(self, terminal):
        command = ["qemu-system-x86_64", "-M", "microvm,acpi=off", "-accel", "tcg", "-cpu", "max", "-m", "256",
                   "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "file:" + self.path("log"),
                   "-kernel", sys.argv[1], "-initrd", sys.argv[2], "-append",
                   f"console={'hvc0' if terminal else 'ttyS0'} reboot=t panic=-1 no_timer_check VIAL_EXEC=1",
                   "-device", "virtio-serial-device,max_ports=8"]
        listeners = {}
        if self.is_late:
            command += ["-monitor", f"unix:{self.path('monitor')},server=on,wait=off", "-chardev",
                        f"socket,id=init,path={self.path('init')},server=on,wait=off"]
        for name in self.names[:-1] if self.is_late else self.names:
            listeners[name] = socket.socket(socket.AF_UNIX)
            listeners[name].bind(self.path(name))
            listeners[name].listen()
            device = "virtconsole" if name == "console" else "virtserialport"
            command += ["-chardev", f"socket,id={name},path={self.path(name)}", "-device",
                        f"{device},chardev={name},name=vial.{name}"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        for name, listener in listeners.items():
            listener.settimeout(LIMIT)
            self.sockets[name] = listener.accept()[0]
            listener.close()
        return process

    def connect(self, name):
        self.sockets[name] = socket.socket(socket.AF_UNIX)
        while self.sockets[name].connect_ex(self.path(name)) != 0:
            time.sleep(0.1)

    def add_init(self):
        """Plugs its port in when the init waits for it already, and opens the host's side still later."""
        self.connect("monitor")
        self.names.append("monitor")
        self.output["monitor"] = b""
        time.sleep(4)
        self.send("monitor", b"device_add virtserialport,chardev=init,name=vial.init\n")
        time.sleep(2)
        self.connect("init")

    def turn(self):
        """Takes what is there from every port; False when the guest has gone from all of them."""
        if time.monotonic() > self.deadline:
            self.fail("it takes too long")
        live = {sock: name for name, sock in self.sockets.items()}
        if not live:
            return False
        for sock in select.select(list(live), [], [], 1)[0]:
            try:
                data = sock.recv(65536)
            except ConnectionError:
                data = b""
            self.output[live[sock]] += data
            if not data:
                self.sockets.pop(live[sock]).close()
        self.take_answers()
        return True

    def take_answers(self):
        data = self.output["init"]
        while len(data) >= 8:
            length, kind, version = struct.unpack("<IHH", data[:8])
            if version != 5 or length > 12:
                self.fail("an answer makes no sense")
            if len(data) < 8 + length:
                break
            self.answers.append((kind, *struct.unpack(f"<{length // 4}I", data[8:8 + length])))
            data = data[8 + length:]
            if kind in (FAILED, ENDED) and self.goodbye:
                self.sockets["init"].sendall(message(GOODBYE))
        self.output["init"] = data

    def until(self, condition):
        while not condition():
            if not self.turn():
                self.fail("the guest ended too early")

    def send(self, name, data):
        self.sockets[name].sendall(data)

    def close(self, name):
        self.sockets.pop(name).close()

    def finish(self, *expected):
        """Until the machine ends; then these must have been the answers."""
        while self.turn():
            pass
        self.process.wait(timeout=LIMIT)
        if self.answers != list(expected):
            self.fail(f"expected {list(expected)}")

    def text(self, name="stdout"):
        return self.output[name].replace(b"\r\n", b"\n").decode(errors="surrogateescape")

    def expect(self, text, name="stdout"):
        if self.text(name) != text:
            self.fail(f"expected {text!r} on {name}")

    def fail(self, why):
        self.process.kill()
        with open(self.path("log"), errors="replace") as log:
            kernel = "".join(log.readlines()[-15:])
        for name, data in self.output.items():
            print(f"{name}: {data[:2000]!r} ({len(data)} bytes)")
        sys.exit(f"{why}\nanswers: {self.answers}\nlog:\n{kernel}")


def run(first, *expected, **options):
    guest = Guest(first, **options)
    guest.finish(*expected)
    return guest


# ---- how it ends ----

def case_zero():
    run(request(b"/bin/true"), (STARTED,), (ENDED, 0, 0))


def case_three():
    run(shell("exit 3"), (STARTED,), (ENDED, 0, 3))


def case_signal():
    run(shell("kill -SEGV $$"), (STARTED,), (ENDED, 1, 11))


def case_missing():
    run(request(b"no-such-program"), failed(EXEC, 2))
    run(request(b"/no/such/program"), failed(EXEC, 2))


def case_denied():
    run(request(b"/etc/passwd"), failed(EXEC, 13))
    run(request(b"passwd", env=(b"PATH=/etc",)), failed(EXEC, 13))


def case_folder():
    run(request(b"/bin/true", workdir=b"/nowhere"), failed(CHDIR, 2))


def case_nonsense():
    """Another version of the protocol, and a request that does not hold together."""
    run(message(SETUP, bytes(13), version=4), failed(1, 71))
    run(message(REQUEST, bytes(24)), failed(1, 71))
    run(setup() + message(REQUEST, bytes(24)), failed(1, 71))
    run(setup((PLACE, TMPFS, 0, b"", b"no/path", b"", b"")), failed(1, 71))


def case_mounts():
    """Memory and a root in layers over what is there, with a mount point that has to be made."""
    mounts = ((LOWER, PRESENT, 0, b"", b"", b"", b""), (PLACE, TMPFS, 6, b"", b"/made/for/it", b"", b"size=64k,mode=700"))
    guest = run(shell("grep -E ' / | /made' /proc/mounts; echo x >/new && cat /new", mounts=mounts), (STARTED,),
                (ENDED, 0, 0))
    lines = guest.output["stdout"].decode().splitlines()
    if len(lines) != 3 or not lines[0].startswith("overlay / overlay rw") or "nosuid,nodev" not in lines[1] or \
            "size=64k,mode=700" not in lines[1] or lines[2] != "x":
        guest.fail("the mounts are not as they were asked for")


def case_mount_failures():
    disk = (PLACE, DISK, 0, b"data", b"/data", b"", b"")
    run(shell("true", mounts=((PLACE, TMPFS, 0, b"", b"/a", b"", b""), disk)), failed(SOURCE, 2, 1))
    run(shell("true", mounts=((PLACE, TMPFS, 0, b"", b"/etc/passwd", b"", b""),)), failed(TARGET, 20, 0))
    run(shell("true", mounts=((PLACE, VIRTIOFS, 0, b"none", b"/data", b"", b""),)), failed(MOUNT, 22, 0))
    run(shell("true", mounts=((ROOT, DISK, 0, b"/dev/vdq", b"", b"ext4", b""),)), failed(SOURCE, 2, 0))


def case_nothing_to_run():
    """Then init says that it is up; there is no console here, and nobody hears it."""
    run(setup((PLACE, TMPFS, 0, b"", b"/t", b"", b""), has_request=False), (STARTED,), (ENDED, 0, 0))


def case_no_streams():
    run(request(b"/bin/true"), failed(STREAMS, 2), streams=False)


def case_late():
    run(request(b"/bin/true"), (STARTED,), (ENDED, 0, 0), is_late=True)


def case_goodbye():
    """The machine waits for the host's last word, and for nothing else."""
    guest = Guest(request(b"/bin/true"), goodbye=False)
    guest.until(lambda: len(guest.answers) == 2)
    still = time.monotonic() + 3
    while time.monotonic() < still:
        guest.turn()
        if guest.process.poll() is not None:
            guest.fail("it did not wait")
    guest.send("init", message(GOODBYE))
    guest.finish((STARTED,), (ENDED, 0, 0))


# ---- what it is given ----

def case_words():
    """Every byte but NUL in arguments and environment, an empty argument, and nothing that was not asked for."""
    odd = bytes(range(1, 256))
    guest = run(request(b"/bin/sh", b"-c", b'printf "%s|" "$0" "$@"; env -0 | sort -z | tr "\\0" "\\n"', b"zero", b"", odd,
                        env=(b"ODD=" + odd[:8] + odd[10:], b"EMPTY=", b"PATH=/bin")), (STARTED,), (ENDED, 0, 0))
    got = guest.output["stdout"]
    if not got.startswith(b"zero||" + odd + b"|EMPTY=\nODD=" + odd[:8] + odd[10:] + b"\nPATH=/bin\n") or b"VIAL" in got:
        guest.fail("the words are others")


def case_many():
    """As many and as much as the limits allow: a program cannot be asked for more."""
    args = [b"x" * 200] * 4094
    guest = run(request(b"/bin/sh", b"-c", b'echo $#', *args), (STARTED,), (ENDED, 0, 0))
    guest.expect("4093\n")


def case_place():
    script = "pwd; id -u; id -g; id -G; cat /proc/self/status | grep ^Groups; ulimit -n; ulimit -Hn; hostname; umask"
    guest = run(shell(script, workdir=b"/var/log", uid=1000, gid=1001, limits=((7, 100, 200),)), (STARTED,), (ENDED, 0, 0))
    guest.expect("/var/log\n1000\n1001\n1001\nGroups:\t \n100\n200\nvial\n0022\n")


def case_root():
    script = "id -u; id -g; pwd; awk '{print $3, $2}' /proc/mounts | sort; ls -l /dev/fd | sed 's/.* //'; " \
             "ip addr show lo | grep -c UP; cat /proc/self/stat | cut -d' ' -f6; ls /proc/self/fd | wc -l; test -w /tmp"
    guest = run(shell(script), (STARTED,), (ENDED, 0, 0))
    lines = guest.text().split("\n")
    mounts = ["cgroup2 /sys/fs/cgroup", "devpts /dev/pts", "devtmpfs /dev", "proc /proc", "sysfs /sys", "tmpfs /dev/shm"]
    if lines[:3] != ["0", "0", "/"] or any(mount not in lines for mount in mounts) or lines[-5] != "/proc/self/fd" or \
            lines[-4] != "1" or lines[-2] != "4":  # 0, 1, 2, and the folder that ls reads
        guest.fail("the place is another")


def case_config():
    """What is not asked for is in a file of the guest's, or nowhere; here it is one that is no such file."""
    guest = run(request(b"", b"sh", b"-c", b"echo $HOME $TERM; pwd; hostname; exit 3", workdir=b"", config=True),
                (STARTED,), (ENDED, 0, 3))
    guest.expect("/ linux\n/\nlocalhost\n")
    run(request(b"sh", workdir=b"", env=(b"KRUN_CONFIG=/etc/passwd",), config=True), failed(OWN_CONFIG, 74, 0))
    run(request(b"sh", workdir=b""), failed(1, 71))


# ---- streams ----

def case_stdin():
    guest = Guest(request(b"cat"))
    guest.send("stdin", b"one\ntwo\n")
    guest.until(lambda: guest.output["stdout"] == b"one\ntwo\n")
    guest.close("stdin")
    guest.finish((STARTED,), (ENDED, 0, 0))
    guest.expect("one\ntwo\n")


def case_large():
    """A MiB each way, with a sum."""
    data = os.urandom(1 << 20)
    guest = Guest(shell("head -c 1048576 | tee /dev/fd/3 3>/tmp/copy; sha256sum /tmp/copy >&2"))
    guest.until(lambda: guest.answers)
    sent = 0
    guest.sockets["stdin"].setblocking(False)
    while sent < len(data):
        guest.turn()
        try:
            sent += guest.sockets["stdin"].send(data[sent:sent + 65536])
        except BlockingIOError:
            pass
    guest.finish((STARTED,), (ENDED, 0, 0))
    if guest.output["stdout"] != data:
        guest.fail("the bytes are others")
    guest.expect(hashlib.sha256(data).hexdigest() + "  /tmp/copy\n", "stderr")


def case_apart():
    guest = run(shell("echo out; echo err >&2; echo more"), (STARTED,), (ENDED, 0, 0))
    guest.expect("out\nmore\n")
    guest.expect("err\n", "stderr")


# ---- processes ----

def case_orphans():
    """What the program leaves behind is killed and does not keep the machine; what ends meanwhile is reaped."""
    script = "(setsid sleep 1000 &) ; (sleep 1000 >/dev/null 2>&1 &); (true &); sleep 1; pidof sleep | wc -w; " \
             "ps -o stat | grep -c Z; exit 4"
    guest = run(shell(script), (STARTED,), (ENDED, 0, 4))
    guest.expect("2\n0\n")


def case_zombies():
    script = "i=0; while [ $i -lt 300 ]; do (sh -c 'true & true &' &); i=$((i+1)); done; sleep 2; ps -o stat | grep -c Z"
    guest = run(shell(script), (STARTED,), (ENDED, 0, 1))
    guest.expect("0\n")


def case_reboot():
    """A program that ends the machine under its init: no second answer."""
    run(shell("reboot -f; sleep 1000"), (STARTED,))


# ---- the terminal ----

def case_terminal():
    guest = Guest(request(b"sh", b"-i", env=(PATH, b"PS1=ready> "), terminal=True), terminal=True, streams=False)
    guest.until(lambda: b"ready> " in guest.output["console"])
    guest.send("console", b"tty; stty -a | head -n 1; test -t 2 && echo a $((1+2)) terminal; ps -o tty,args >/dev/tty\n")
    guest.until(lambda: b"a 3 terminal" in guest.output["console"])
    guest.send("console", b"stty rows 41 cols 97; stty size\n")
    guest.until(lambda: b"41 97" in guest.output["console"])
    # What it prints comes from the foreground: only from there on are ^Z and ^C its own.
    guest.send("console", b"sh -c 'trap \"echo on $((5+1))\" CONT; echo at $((2+2)); while sleep 0.2; do :; done'\n")
    guest.until(lambda: b"at 4" in guest.output["console"])
    guest.send("console", b"\x1a")  # ^Z: stopped, and the shell is there again
    guest.until(lambda: b"Stopped" in guest.output["console"])
    guest.send("console", b"fg\n")
    guest.until(lambda: b"on 6" in guest.output["console"])
    prompts = guest.output["console"].count(b"ready> ")
    guest.send("console", b"\x03")  # ^C ends it and not the shell
    guest.until(lambda: guest.output["console"].count(b"ready> ") > prompts)
    guest.send("console", b"echo last $((3+4)); seq 2000; exit 5\n")
    guest.finish((STARTED,), (ENDED, 0, 5))
    text = guest.text("console")
    numbers = "\n".join(str(number) for number in range(1, 2001))
    if "/dev/console" not in text or "last 7" not in text or numbers not in text or "job control" in text:
        guest.fail("the terminal is none")


def case_terminal_user():
    guest = run(request(b"sh", b"-c", b"id -u; echo again >/dev/console; echo own >/dev/tty", uid=1000, terminal=True),
                (STARTED,), (ENDED, 0, 0), terminal=True, streams=False)
    if "1000\nagain\nown\n" not in guest.text("console"):
        guest.fail("it is not the user's")


CASES = [name[5:] for name in list(globals()) if name.startswith("case_")]


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    if sys.argv[3] == "list":
        print("\n".join(CASES))
        return
    for case in CASES if sys.argv[3] == "all" else sys.argv[3:]:
        globals()["case_" + case]()


main()
