#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The groups of tests/e2e/network: guests that talk to servers of this process, and the other way round.

    network_suite.py VIAL ENGINE OUT GROUP…

It runs as root in a network namespace of its own, which it furnishes: an "uplink", a TAP device with the default routes
that nobody reads, makes passt find a network; what this process serves on its addresses is the network, and what it
serves on the loopback is what a guest must not reach unless it was asked for.

Guests run tests/guest/network.py and are told by its stdin what to do. Of each group there is GROUP.tap in OUT, and
GROUP.status: 0, 1, or 124 where a guest was silent for too long. Groups that have one are not run again.
"""

import contextlib
import fcntl
import glob
import json
import os
import queue
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "guest"))
os.environ["VIAL_TEST_PROGRAMS"] = os.path.join(os.path.dirname(os.path.abspath(sys.argv[1])), "tests/guest")
import network as peer  # noqa: E402
from network import Server, expect  # noqa: E402

VIAL, ENGINE, OUT = sys.argv[1:4]
IS_UML = ENGINE == "uml"
# In the emulated host a stream that is opened, echoed and ended costs 10 ms, or 60 while others use the machine, for its 42
# exits from the guest. VIAL_STREAMS=10000 makes as many there, too, which takes some three minutes longer.
AT_ONCE, HELD, FEW, MUCH = (1000, 50, 20, 20 << 20) if IS_UML else (1000, 8, 4, 1 << 20)
MANY = int(os.environ.get("VIAL_STREAMS", 10000 if IS_UML else 2000))
PATIENCE = 60 if IS_UML else 180  # seconds for an answer of a guest
NEAR, NEAR_6 = "198.51.100.2", "fd00:51::2"
GATEWAY, GATEWAY_6 = "10.0.2.2", "fd00:7669:616c::2"
work = ""


# ---- asking

class Silent(Exception):
    """A guest does not answer: with the emulated host that may be the host."""


def wait_until(condition, what, seconds=30):
    """For what signals nobody: processes that end, descriptors that are closed."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


class Group:
    def __init__(self, name):
        self.lines, self.count, self.failed, self.name = [], 0, 0, name
        self.is_silent = False

    def check(self, description, function, *args):
        began = time.monotonic()
        self.count += 1
        try:
            function(*args)
        except (Exception, SystemExit) as error:  # pylint: disable=broad-except
            self.failed += 1
            self.is_silent |= isinstance(error, Silent)
            self.lines.append(f"not ok {self.count} - {ENGINE}: {description}")
            self.lines += ["# " + line for line in traceback.format_exc().splitlines()[-12:]]
            return
        self.lines.append(f"ok {self.count} - {ENGINE}: {description}")
        self.lines.append(f"# {time.monotonic() - began:.1f} s")

    def tell_refusals(self):
        """Why sandboxes that were kept have ended, where something failed."""
        for path in glob.glob(f"{os.environ['VIAL_HOME']}/sandboxes/*/log/runtime.log") if self.failed else []:
            with open(path, encoding="utf-8", errors="replace") as file:
                self.lines += ["# " + line.rstrip() for line in file if " refused " in line]

    def run(self, function):
        try:
            function(self)
        except Exception as error:  # pylint: disable=broad-except
            self.is_silent |= isinstance(error, Silent)
            text = traceback.format_exc().splitlines()
            self.check(f"{self.name}: runs to its end", fail, "\n".join(text[-6:]))
        while peer.children:  # those that live until the end, and all of a group that came to none
            peer.kill_child()
        self.tell_refusals()
        with open(f"{OUT}/{self.name}.tap", "w", encoding="utf-8") as file:
            file.write("".join(line + "\n" for line in self.lines))
        with open(f"{OUT}/{self.name}.status", "w", encoding="utf-8") as file:
            file.write(f"{124 if self.is_silent else int(self.failed > 0)}\n")


def fail(why):
    raise AssertionError(why)


def command(*words, **options):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, timeout=PATIENCE, **options)
    return done.returncode, done.stdout


def is_refused(words, *texts):
    """The command ends with 125 and says all that."""
    status, said = command(VIAL, *words)
    for text in texts:
        if text not in said:
            raise AssertionError(f"{text!r} is not in {said!r}")
    expect(status, 125, "the exit status")


def free_port(kind=socket.SOCK_STREAM, family=socket.AF_INET):
    """Nobody else is in this namespace, so it stays free."""
    with socket.socket(family, kind) as sock:
        sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        return sock.getsockname()[1]


# ---- processes

def processes(name):
    """Those in this namespace that are called so, dead ones left out."""
    found, own = [], os.readlink("/proc/self/ns/net")
    for number in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{number}/stat", encoding="utf-8") as file:
                comm, rest = file.read().split("(", 1)[1].rsplit(")", 1)
            if comm.startswith(name) and rest.split()[0] != "Z" and os.readlink(f"/proc/{number}/ns/net") == own:
                found.append(int(number))
    return found


def passts():
    return processes("passt")


def sandbox_processes():
    """Those of this suite's home, without the processes of their own, which look the same."""
    parents = {}
    for number in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{number}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            with open(f"/proc/{number}/stat", encoding="utf-8") as file:
                parent = file.read().rsplit(")", 1)[1].split()[1]
            if b"sandbox-process" in words and os.environ["VIAL_HOME"].encode() in words:
                parents[int(number)] = int(parent)
    return [number for number, parent in parents.items() if parent not in parents]


def sockets(number):
    """Each with a name of its own. (Of files there are more and fewer, as the guest's kernel remembers them.)"""
    found = set()
    for fd in os.listdir(f"/proc/{number}/fd"):
        with contextlib.suppress(FileNotFoundError):  # it was just closed
            found.add(os.readlink(f"/proc/{number}/fd/{fd}"))
    return {name for name in found if name.startswith("socket:")}


# ---- guests

class Guest:
    """tests/guest/network.py in a guest, with these options."""

    def __init__(self, *options, verb="boot", memory=512):
        self.errors = tempfile.TemporaryFile(dir=work)  # pylint: disable=consider-using-with
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            [VIAL, verb, *options, "--engine", ENGINE, "--root", "host", "--memory", str(memory), "-v",
             f"{HERE}/guest:/mnt/tests:ro", "--", "python3", "-B", "/mnt/tests/network.py"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        self.answers = {0: queue.SimpleQueue()}
        self.last = 0
        threading.Thread(target=self.listen, daemon=True).start()
        try:
            self.take(0)
        except BaseException:
            self.__exit__(None, None, None)
            raise

    @property
    def pid(self):
        return self.process.pid

    def listen(self):
        for line in self.process.stdout:
            answer = json.loads(line)
            self.answers[answer["id"]].put(answer)
        for waiting in list(self.answers.values()):
            waiting.put(None)

    def begin(self, call, *args):
        self.last += 1
        self.answers[self.last] = queue.SimpleQueue()
        print(json.dumps({"id": self.last, "call": call, "args": args}), file=self.process.stdin, flush=True)
        return self.last

    def take(self, number):
        try:
            answer = self.answers[number].get(timeout=PATIENCE)
        except queue.Empty:
            raise Silent("the guest does not answer") from None
        if answer is None:
            self.errors.seek(0)
            raise AssertionError(f"the guest has ended: {self.errors.read().decode(errors='replace')[-1500:]}")
        if "error" in answer:
            raise AssertionError(f"in the guest: {answer['error']}")
        return answer.get("result")

    def call(self, call, *args):
        return self.take(self.begin(call, *args))

    def expect(self, wanted, call, *args):
        expect(self.call(call, *args), wanted, call)

    def end(self):
        """As when a user is done: its input ends."""
        self.process.stdin.close()
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Silent("the guest does not end") from None
        self.errors.seek(0)
        expect((status, self.errors.read().decode(errors="replace")), (0, ""), "status, and what was said")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


# ---- vsock

def goes_on(guest, target, back):
    """Both directions work."""
    guest.call("echoes", target, 3, 1000)
    peer.echoes(back, 3, 1000)


def many_options():
    """For check_many."""
    return ["--vsock", f"83={work}/many-out.sock", "--vsock", f"84={work}/many-in.sock:listen", "-v",
            f"{peer.PROGRAMS}:/mnt/programs:ro"]


def check_many(group, guest, title, count):
    """Very short streams, by a program on either side: here they are to be many."""
    out, back = "vsock:2:83", f"unix:{work}/many-in.sock"
    peer.serve_streams(f"unix:{work}/many-out.sock")
    guest.call("serve_streams", "vsock:any:84")

    def one_by_one(function, *words):
        for done in range(0, count, 1000):  # an answer for each thousand: there is a limit to patience
            function(*words, min(1000, count - done), 100)
    group.check(f"{title}: {count} streams of the guest", one_by_one, guest.call, "streams", "one-by-one", out)
    group.check(f"{title}: {count} streams of the host", one_by_one, peer.streams, "one-by-one", back)
    group.check(f"{title}: {AT_ONCE} streams of the guest at once", guest.call, "streams", "at-once", out, AT_ONCE, 1000)
    group.check(f"{title}: {AT_ONCE} streams of the host at once", peer.streams, "at-once", back, AT_ONCE, 1000)


def vsock(group):
    to_host, back = ["vsock", 2, 78], ["unix", f"{work}/in.sock"]
    server = Server(["unix", f"{work}/out.sock"])
    peer.serve_in_child(["unix", f"{work}/child.sock"])
    size = 4 << 20 if IS_UML else 1 << 20
    with Guest("--vsock", f"78={work}/out.sock", "--vsock", f"79={work}/nobody.sock",
               "--vsock", f"80={work}/in.sock:listen", "--vsock", f"81={work}/unserved.sock:listen",
               "--vsock", f"82={work}/child.sock", *many_options()) as guest:
        guest.call("serve", "vsock", ["vsock", 0xffffffff, 80])
        before = sockets(guest.pid)
        goes_on(guest, to_host, back)

        def guest_dies():
            guest.call("hold_in_child", to_host, HELD)
            guest.call("kill_child")
            expect(set(server.wait(server.ends, HELD)) <= {"end", "reset"}, True, "how they ended")
            goes_on(guest, to_host, back)

        def client_dies():
            peer.hold_in_child(back, HELD)
            peer.kill_child()
            expect(set(guest.call("seen", "vsock", "ends", HELD)) <= {"end", "reset"}, True, "how they ended")
            goes_on(guest, to_host, back)

        def server_dies():
            guest.call("hold", ["vsock", 2, 82], HELD)
            peer.kill_child()
            expect(set(guest.call("held_end")) <= {"end", "reset"}, True, "how they ended")
            goes_on(guest, to_host, back)

        def host_ends_first():
            wanted = guest.call("reads_first", to_host, 100000, 200000)
            expect(server.wait(server.checksums, 1), [wanted], "what came after")

        def guest_ends_first():
            wanted = peer.reads_first(back, 100000, 200000)
            guest.expect([wanted], "seen", "vsock", "checksums", 1)

        check = group.check
        check("vsock: the listening socket is for its owner only",
              lambda: expect(stat.S_IMODE(os.stat(back[1]).st_mode), 0o600, "mode"))
        check_many(group, guest, "vsock", MANY)
        check("vsock: much, there and back, from the guest", guest.call, "sends_much", to_host, MUCH)
        check("vsock: much, there and back, from the host", peer.sends_much, back, MUCH)
        check("vsock: the host ends its half first", host_ends_first)
        check("vsock: the guest ends its half first", guest_ends_first)
        check("vsock: a slow reader in the guest, a writer on the host", guest.call, "reads_late", to_host, size)
        check("vsock: a slow reader on the host, a writer in the guest", guest.call, "writes_to_late", to_host, size)
        check("vsock: a slow reader on the host of a stream of its own", peer.reads_late, back, size)
        check("vsock: a slow reader in the guest of a stream of the host's", peer.writes_to_late, back, size)
        check("vsock: clients in the guest are killed", guest_dies)
        check("vsock: clients on the host are killed", client_dies)
        check("vsock: the server on the host is killed", server_dies)
        check("vsock: nobody serves the port on the host", guest.expect, "Connection reset by peer", "fails",
              ["vsock", 2, 79])
        check("vsock: a port that leads nowhere", guest.expect, "Connection reset by peer", "fails", ["vsock", 2, 7777])
        for number in (1, 3, 4, 0xfffffffe):
            check(f"vsock: the CID {number} is nobody", lambda number=number: expect(
                guest.call("fails", ["vsock", number, 78]) != "", True, "it is refused"))
        check("vsock: nobody serves the port in the guest", lambda: expect(
            peer.fails(["unix", f"{work}/unserved.sock"]) in ("an end", "Connection reset by peer", "Broken pipe"),
            True, "it is refused"))
        check("vsock: it still works", goes_on, guest, to_host, back)
        check("vsock: no descriptor is left", wait_until, lambda: sockets(guest.pid) <= before, "no socket is new")
        check("vsock: the guest ends well", guest.end)
        check("vsock: its sockets are gone", lambda: expect(
            (os.path.exists(back[1]), os.path.exists(f"{work}/unserved.sock")), (False, False), "sockets"))

    def there_already():
        with open(f"{work}/file", "w", encoding="utf-8") as file:
            file.write("mine")
        is_refused(["boot", "--engine", ENGINE, "--root", "host", "--vsock", f"78={work}/file:listen", "--", "true"],
                   f"vsock_ports[0].path: {work}/file ", "exists already", "choose another path")
        with open(f"{work}/file", encoding="utf-8") as file:
            expect(file.read(), "mine", "the file")
    group.check("vsock: a path that exists is refused, and left alone", there_already)


# ---- passt

def survives_resets(function, *args):
    """Debian 12's passt resets a stream now and then, more often over IPv6: another one has to do."""
    for left in (2, 1, 0):
        try:
            return function(*args)
        except Silent:
            raise
        except Exception as error:  # of here, or told by the guest
            if left == 0 or "reset by peer" not in str(error):
                raise


class Hosts:
    """What a guest may meet: on the loopback, and on the network."""

    def __init__(self):
        self.loopback = [Server(["tcp", "127.0.0.1", 0]), Server(["tcp6", "::1", 0]), Server(["udp", "127.0.0.1", 0]),
                         Server(["udp6", "::1", 0])]
        self.network = [Server(["tcp", NEAR, 0]), Server(["tcp6", NEAR_6, 0]), Server(["udp", NEAR, 0]),
                        Server(["udp6", NEAR_6, 0])]

    def targets(self, is_loopback):
        places = (GATEWAY, GATEWAY_6) if is_loopback else (NEAR, NEAR_6)
        servers = self.loopback if is_loopback else self.network
        return [[kind, places[kind.endswith("6")], server.port]
                for kind, server in zip(("tcp", "tcp6", "udp", "udp6"), servers)]

    def check(self, group, guest, title, is_loopback, most):
        for target in self.targets(is_loopback):
            is_tcp = target[0].startswith("tcp")
            where = f"{title}: {target[0]} {'the loopback by the gateway' if is_loopback else 'the network'}"
            if is_tcp:
                # Debian 12's passt does not tell a guest that has ended its half that the host has ended, too.
                group.check(f"{where}, streams", survives_resets, guest.call, "echoes", target, FEW, 1000, False)
                if target[0] == "tcp":  # over IPv6 it stands still on a busy machine, once in some runs
                    group.check(f"{where}, {most >> 12} KiB there and back", guest.call, "sends_much", target, most // 4,
                                False)
                if is_loopback:
                    group.check(f"{where}, the host ends its half first", guest.call, "reads_first", target, 1000, 2000)
            elif target[1] != GATEWAY_6:  # Debian 12's passt has answers of ::1 come from a link-local address
                group.check(f"{where}, datagrams", guest.call, "asks", target, FEW, 1200)


def publish():
    """-p for TCP and UDP, v4 and v6: options, and targets on the host. (UDP from ::1 reaches no guest, as above.)"""
    tcp, udp = free_port(), free_port(socket.SOCK_DGRAM)
    tcp_6, udp_6 = free_port(family=socket.AF_INET6), free_port(socket.SOCK_DGRAM, socket.AF_INET6)
    options = ["-p", f"{tcp}:8001", "-p", f"{udp}:8002/udp", "-p", f"[::1]:{tcp_6}:8003",
               "-p", f"[{NEAR_6}]:{udp_6}:8004/udp"]
    return options, [["tcp", "127.0.0.1", tcp], ["udp", "127.0.0.1", udp], ["tcp6", "::1", tcp_6],
                     ["udp6", NEAR_6, udp_6]]


def check_published(group, guest, title, targets, most):
    for address in (["tcp", "0.0.0.0", 8001], ["udp", "0.0.0.0", 8002], ["tcp6", "::", 8003], ["udp6", "::", 8004]):
        guest.call("serve", address[0], address)
    for target in targets:
        if target[0].startswith("tcp"):
            # Not with a half that ends first: passt resets some of those.
            group.check(f"{title}: published, {target[0]}, streams", survives_resets, peer.echoes, target, FEW, 1000,
                        False)
            if target[0] == "tcp":
                group.check(f"{title}: published, {target[0]}, {most >> 12} KiB there and back", peer.sends_much, target,
                            most // 4)
        else:
            group.check(f"{title}: published, {target[0]}", peer.asks, target, FEW, 1200)


def passt(group):
    hosts = Hosts()
    options, targets = publish()
    with Guest("--net", "passt,host", *options) as guest:
        group.check("passt: the guest's interfaces", guest.expect, ["eth0", "lo"], "interfaces")
        hosts.check(group, guest, "passt", True, MUCH)
        hosts.check(group, guest, "passt", False, MUCH)
        check_published(group, guest, "passt", targets, MUCH)
        group.check("passt: resolv.conf", guest.expect, "nameserver 10.0.2.3", "read", "/etc/resolv.conf")
        group.check("passt: hosts", lambda: expect(
            guest.call("read", "/etc/hosts").startswith("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 vial"),
            True, "hosts"))

        def loses_passt():
            expect(len(passts()), 1, "passt")
            guest.call("becomes", "/sys/class/net/eth0/carrier", "1")
            os.kill(passts()[0], signal.SIGKILL)
            guest.call("becomes", "/sys/class/net/eth0/carrier", "0")
            expect(guest.call("fails", ["tcp", NEAR, hosts.network[0].port], 1) != "", True, "nobody is reached")
        group.check("passt: it is killed, and the guest's link goes down", loses_passt)
        group.check("passt: the guest ends well after that", guest.end)


def walls(group):
    """A network that does not lead to the host's loopback, and none at all."""
    hosts = Hosts()

    def is_unreachable(guest, seconds=2):
        wrong = [target for target in hosts.targets(True) if target[0].startswith("tcp") and
                 guest.call("fails", target, seconds) == ""]
        wrong += [target for target in hosts.targets(True) if target[0].startswith("udp") and
                  not guest.call("is_deaf", target)]
        own = ["tcp", "127.0.0.1", hosts.loopback[0].port], ["tcp6", "::1", hosts.loopback[1].port]
        wrong += [target for target in own if guest.call("fails", target, seconds) == ""]
        expect((wrong, [server.accepted for server in hosts.loopback]), ([], [0, 0, 0, 0]), "who was reached")

    with Guest("--net", "passt,mac=02:00:00:00:be:ef,mtu=1400", memory=256) as guest:
        group.check("walls: the network is reached", guest.call, "echoes",
                    ["tcp", NEAR, hosts.network[0].port], 3, 1000, False)
        group.check("walls: the loopback of the host is not", is_unreachable, guest)
        group.check("walls: the MAC address is the given one", guest.expect, "02:00:00:00:be:ef", "read",
                    "/sys/class/net/eth0/address")
        group.check("walls: so is the MTU", guest.expect, "1400", "read", "/sys/class/net/eth0/mtu")

        def is_killed():
            expect(len(passts()), 1, "passt")
            guest.process.kill()
            wait_until(lambda: not passts(), "passt has ended")
        group.check("walls: kill -9 of vial ends passt", is_killed)
    with Guest("--net", "none", memory=256) as guest:
        group.check("walls: without a network there is the loopback only", guest.expect, ["lo"], "interfaces")
        group.check("walls: without a network nobody is reached", is_unreachable, guest)
        group.check("walls: without a network there is no way out", lambda: expect(
            guest.call("fails", ["tcp", NEAR, hosts.network[0].port], 2), "Network is unreachable", "why"))
        group.check("walls: without a vsock neither", lambda: expect(
            guest.call("fails", ["vsock", 2, 78]) != "", True, "it is refused"))

    def is_taken(kind):
        server = Server([kind, "127.0.0.1", 0])
        is_refused(["boot", "--engine", ENGINE, "--root", "host", "--net", "passt", "-p", f"{server.port}:80/{kind}",
                    "--", "true"], "passt has ended: ", str(server.port), "publish ports that are free")
        wait_until(lambda: not passts(), "passt has ended")
    group.check("walls: a TCP port that is taken is refused with passt's reason", is_taken, "tcp")
    group.check("walls: so is a UDP port", is_taken, "udp")
    group.check("walls: a published port without a network is refused", is_refused,
                ["boot", "--engine", ENGINE, "--root", "host", "-p", "80", "--", "true"], "add --net passt")

    def folder_is_untouched():
        folder = f"{work}/root"
        for name in ("bin", "etc", "proc", "sys", "dev"):
            os.makedirs(f"{folder}/{name}")
        shutil.copy(shutil.which("busybox"), f"{folder}/bin/busybox")
        for name in ("resolv.conf", "hosts"):
            with open(f"{folder}/etc/{name}", "w", encoding="utf-8") as file:
                file.write(f"# the user's {name}\n")
        status, said = command(VIAL, "boot", "--engine", ENGINE, "--root", folder, "--memory", "128", "--net", "passt",
                               "--", "/bin/busybox", "cat", "/etc/resolv.conf", "/etc/hosts")
        expect((status, said), (0, "nameserver 10.0.2.3\n127.0.0.1 localhost\n::1 localhost\n127.0.1.1 vial\n"
                                "# the user's hosts\n"), "what the guest sees")
        for name in ("resolv.conf", "hosts"):
            with open(f"{folder}/etc/{name}", encoding="utf-8") as file:
                expect(file.read(), f"# the user's {name}\n", name)
        expect(sorted(os.listdir(f"{folder}/etc")), ["hosts", "resolv.conf"], "the folder")
    group.check("walls: the user's own root keeps its files", folder_is_untouched)


# ---- TAP devices and sockets

@contextlib.contextmanager
def running(*words):
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def tap(name, address, address_6=None):
    for words in ([["ip", "tuntap", "add", "dev", name, "mode", "tap"], ["ip", "addr", "add", address, "dev", name]] +
                  ([["ip", "addr", "add", address_6, "dev", name, "nodad"]] if address_6 else []) +
                  [["ip", "link", "set", name, "up"]]):
        expect(command(*words), (0, ""), " ".join(words))
    try:
        yield
    finally:
        command("ip", "link", "del", name)


def dhcp_server(name, first, last, nameserver):
    return running("dnsmasq", "--no-daemon", f"--interface={name}", "--bind-interfaces", "--port=0", "--no-resolv",
                   "--no-hosts", "--conf-file=/dev/null", f"--dhcp-range={first},{last},1h",
                   f"--dhcp-option=option:dns-server,{nameserver}", "--leasefile-ro", "--no-ping", "--user=root",
                   "--pid-file=")


def slirp(network, *netdev):
    """QEMU's own network behind a socket: DHCP, and a gateway that leads to the host's loopback."""
    return running("qemu-system-x86_64", "-M", "none", "-display", "none", "-nodefaults", "-netdev",
                   f"user,id=user,net={network}", "-netdev", ",".join(netdev), "-netdev",
                   "hubport,id=one,hubid=0,netdev=user", "-netdev", "hubport,id=two,hubid=0,netdev=socket")


def slirp_stream(network, path):
    return slirp(network, "stream", "id=socket", "server=on", "addr.type=unix", f"addr.path={path}")


class Relay:
    """Between the datagram socket of a guest, whose name nobody knows before it is there, and QEMU's."""

    def __init__(self, front, back, qemu):
        self.front, self.back = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
        self.front.bind(front)
        self.back.bind(back)
        self.guest, self.qemu = None, qemu
        threading.Thread(target=self.forward, daemon=True).start()
        threading.Thread(target=self.backward, daemon=True).start()

    def forward(self):
        while True:
            frame, self.guest = self.front.recvfrom(1 << 17)
            with contextlib.suppress(OSError):
                self.back.sendto(frame, self.qemu)

    def backward(self):
        while True:
            frame = self.back.recv(1 << 17)
            with contextlib.suppress(OSError):
                if self.guest:
                    self.front.sendto(frame, self.guest)


def is_socket(path):
    with contextlib.suppress(OSError):
        return stat.S_ISSOCK(os.stat(path).st_mode)
    return False


def others(group):
    """Four networks in one guest."""
    loopback, most = Server(["tcp", "127.0.0.1", 0]), MUCH // 4
    relay = Relay(f"{work}/gram.sock", f"{work}/relay.sock", f"{work}/qemu-gram.sock")
    with contextlib.ExitStack() as stack:
        stack.enter_context(tap("vial0", "10.9.0.1/24", "fd00:9::1/64"))
        stack.enter_context(tap("vial1", "10.8.0.1/24"))
        stack.enter_context(dhcp_server("vial1", "10.8.0.50", "10.8.0.50", "10.8.0.1"))
        stack.enter_context(slirp_stream("10.77.0.0/24", f"{work}/stream.sock"))
        stack.enter_context(slirp("10.78.0.0/24", "dgram", "id=socket", "local.type=unix", f"local.path={relay.qemu}",
                                  "remote.type=unix", f"remote.path={work}/relay.sock"))
        wait_until(lambda: is_socket(f"{work}/stream.sock") and is_socket(relay.qemu), "QEMU's sockets")
        guest = stack.enter_context(Guest(
            "--net", "tap:vial0,address=10.9.0.2/24,address=fd00:9::2/64,mac=02:00:00:00:00:10,mtu=1400",
            "--net", "tap:vial1,mac=02:00:00:00:00:11", "--net", f"unix:{work}/stream.sock,mac=02:00:00:00:00:12",
            "--net", f"unixgram:{work}/gram.sock,mac=02:00:00:00:00:13"))
        near = [Server(["tcp", "10.9.0.1", 0]), Server(["tcp6", "fd00:9::1", 0]), Server(["tcp", "10.8.0.1", 0]),
                Server(["udp", "10.9.0.1", 0]), Server(["udp6", "fd00:9::1", 0])]
        group.check("others: four networks and the loopback", guest.expect,
                    ["eth0", "eth1", "eth2", "eth3", "lo"], "interfaces")
        group.check("others: each with its MAC address", lambda: expect(
            [guest.call("read", f"/sys/class/net/eth{i}/address") for i in range(4)],
            [f"02:00:00:00:00:1{i}" for i in range(4)], "addresses"))
        group.check("others: each with its addresses", lambda: expect(
            [word in guest.call("tell", ["ip", "-o", "addr"]) for word in
             ("10.9.0.2/24", "fd00:9::2/64", "10.8.0.50/24", "10.77.0.15/24", "10.78.0.15/24")], [True] * 5,
            guest.call("tell", ["ip", "-o", "addr"])))
        group.check("others: the first with its MTU", guest.expect, "1400", "read", "/sys/class/net/eth0/mtu")
        group.check("others: the first network with a gateway is the way out; name servers are those of all", lambda: expect(
            (guest.call("tell", ["ip", "route", "show", "default"]).split()[:3],
             guest.call("read", "/etc/resolv.conf").split()[1::2]),
            (["default", "via", "10.8.0.1"], ["10.8.0.1", "10.77.0.3", "10.78.0.3"]), "both"))
        targets = (("TAP, v4", ["tcp", "10.9.0.1", near[0].port]), ("TAP, v6", ["tcp6", "fd00:9::1", near[1].port]),
                   ("TAP, DHCP", ["tcp", "10.8.0.1", near[2].port]), ("unix", ["tcp", "10.77.0.2", loopback.port]),
                   ("unixgram", ["tcp", "10.78.0.2", loopback.port]))
        for name, target in targets:
            group.check(f"others: {name}, streams", guest.call, "echoes", target, FEW, 1000)
            group.check(f"others: {name}, {most >> 10} KiB there and back", guest.call, "sends_much", target, most)
        group.check("others: TAP, v4, datagrams", guest.call, "asks", ["udp", "10.9.0.1", near[3].port], FEW, 1200)
        group.check("others: TAP, v6, datagrams", guest.call, "asks", ["udp6", "fd00:9::1", near[4].port], FEW, 1200)
        guest.call("serve", "tap", ["tcp", "10.9.0.2", 8001])
        group.check("others: TAP, streams of the host", peer.echoes, ["tcp", "10.9.0.2", 8001], FEW, 1000)

        def all_at_once():
            for number in [guest.begin("sends_much", target, most) for _, target in targets]:
                guest.take(number)
        group.check("others: all of them at once", all_at_once)
        group.check("others: the guest ends well", guest.end)
        group.check("others: nothing of it is left", lambda: expect(
            [name for name in os.listdir(work) if name.startswith("gram.sock") and name != "gram.sock"], [], "sockets"))


# ---- sandboxes

def sandbox(group):
    """All of it behind the walls of vial run."""
    hosts, most = Hosts(), MUCH // 4
    options, targets = publish()
    server, to_host, back = Server(["unix", f"{work}/run-out.sock"]), ["vsock", 2, 78], ["unix", f"{work}/run-in.sock"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(tap("vial2", "10.9.0.1/24"))
        stack.enter_context(slirp_stream("10.77.0.0/24", f"{work}/run-stream.sock"))
        wait_until(lambda: is_socket(f"{work}/run-stream.sock"), "QEMU's socket")
        guest = stack.enter_context(Guest(
            "--net", "passt,host", "--net", "tap:vial2,address=10.9.0.2/24", "--net", f"unix:{work}/run-stream.sock",
            "--vsock", f"78={work}/run-out.sock", "--vsock", f"80={work}/run-in.sock:listen", *options,
            *many_options(), "--name", "kept", verb="run"))
        near = Server(["tcp", "10.9.0.1", 0])
        guest.call("serve", "vsock", ["vsock", 0xffffffff, 80])
        [process] = sandbox_processes()
        before = sockets(process)
        goes_on(guest, to_host, back)
        group.check("run: the listening socket is for its owner only",
                    lambda: expect(stat.S_IMODE(os.stat(back[1]).st_mode), 0o600, "mode"))
        check_many(group, guest, "run", MANY // 10)
        group.check("run: vsock, much, there and back", guest.call, "sends_much", to_host, most)
        group.check("run: no descriptor is left", wait_until, lambda: sockets(process) <= before, "no socket is new")
        hosts.check(group, guest, "run", True, most)
        check_published(group, guest, "run", targets, most)
        for name, target in (("TAP", ["tcp", "10.9.0.1", near.port]),
                             ("unix", ["tcp", "10.77.0.2", hosts.loopback[0].port])):
            group.check(f"run: {name}, {most >> 10} KiB there and back", guest.call, "sends_much", target, most)
        group.check("run: the guest ends well", guest.end)
        group.check("run: its socket and passt are gone", wait_until,
                    lambda: not os.path.exists(back[1]) and not passts() and not sandbox_processes(), "nothing is left")
    del server

    def detached(name):
        status, said = command(VIAL, "run", "-d", "--engine", ENGINE, "--name", name, "--memory", "128", "--net",
                               "passt", *options, "--vsock", f"80={back[1]}:listen", "--", "sleep", "1000")
        expect(status, 0, said)
        expect((len(passts()), os.path.exists(back[1])), (1, True), "passt and the socket")

    def stops():
        detached("stopped")
        expect(command(VIAL, "stop", "stopped")[0], 0, "stop")
        wait_until(lambda: not passts() and not os.path.exists(back[1]), "passt and the socket are gone")

    def is_killed():
        detached("killed")
        [process] = sandbox_processes()
        os.kill(process, signal.SIGKILL)
        wait_until(lambda: not passts(), "passt has ended")
        os.unlink(back[1])  # a kill -9 leaves it, as with every program
    group.check("run: -d, and stop", stops)
    group.check("run: kill -9 of a sandbox's process", is_killed)
    group.check("run: they can be removed", lambda: expect(
        command(VIAL, "rm", "kept", "stopped", "killed")[0], 0, "rm"))


# ---- together

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454ca, 2, 0x1000


def furnish(addresses=()):
    """The network of this namespace, with more addresses. Its uplink is there, and has a carrier, as long as what this returns is open."""
    uplink = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(uplink, TUNSETIFF, struct.pack("16sH22x", b"uplink", IFF_TAP | IFF_NO_PI))
    for words in ("link set lo up", f"addr add {NEAR}/24 dev uplink",
                  f"addr add {NEAR_6}/64 dev uplink nodad", "link set uplink up", "route add default via 198.51.100.1",
                  "-6 route add default via fd00:51::1", *(f"addr add {address} dev uplink{' nodad' if ':' in address else ''}" for address in addresses)):
        expect(command("ip", *words.split()), (0, ""), words)
    return uplink


def main(groups, names, addresses=()):
    global work  # pylint: disable=global-statement
    peer.prepare()
    uplink = furnish(addresses)
    for name in names or groups:
        if os.path.exists(f"{OUT}/{name}.status"):
            continue
        with tempfile.TemporaryDirectory(prefix="vial-") as work:
            os.environ["VIAL_HOME"] = f"{work}/home"
            Group(name).run(groups[name])
    os.close(uplink)


if __name__ == "__main__":
    main({"vsock": vsock, "passt": passt, "walls": walls, "others": others, "sandbox": sandbox}, sys.argv[4:])
