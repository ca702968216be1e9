#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Streams and datagrams with known content, for both sides of tests/e2e/network and tsi.

    network.py                        in a guest: does what it is told on stdin, and answers on stdout
    network.py hold TARGET COUNT      holds streams until it is killed
    network.py serve ADDRESS          a server until it is killed

A target is where to connect to, or an address where to listen: a list, family first. Each stream begins with a byte
that says what its server does, and a number:

    e  sends all that it has read, when it has read all
    n  sends back that many bytes, when it has read them
    f  sends that many bytes and ends its half, then reads all and keeps its checksum
    g  sends that many bytes
    l  reads nothing before a stream of kind o has come, then all, and sends its checksum
    h  answers, and keeps how the stream ends

On stdin and stdout is one JSON document a line. Each request is done by a thread of its own, so that several can wait.

Trust: both sides are ours; what lies between them is what is tested.
"""

import asyncio
import ctypes
import hashlib
import json
import os
import random
import resource
import socket
import struct
import subprocess
import sys
import threading

FAMILIES = {"vsock": socket.AF_VSOCK, "unix": socket.AF_UNIX, "tcp": socket.AF_INET, "tcp6": socket.AF_INET6,
            "unixgram": socket.AF_UNIX, "udp": socket.AF_INET, "udp6": socket.AF_INET6}
PATIENCE = 60  # seconds for anything that has to come from the other side
CONNECT_TIMEOUT = 6  # SO_VM_SOCKETS_CONNECT_TIMEOUT: 2 s are not enough where all is emulated


def address_of(target):
    return target[1] if FAMILIES[target[0]] == socket.AF_UNIX else tuple(target[1:])


def content(number, size):
    return random.Random(number).randbytes(size)


def checksum(data):
    return hashlib.sha256(data).hexdigest().encode()


def read_all(stream):
    pieces = []
    while piece := stream.recv(1 << 18):
        pieces.append(piece)
    return b"".join(pieces)


def read_exactly(stream, size):
    data = b""
    while len(data) < size:
        piece = stream.recv(size - len(data))
        if not piece:
            raise EOFError(f"an end after {len(data)} of {size} bytes")
        data += piece
    return data


def expect(found, wanted, what):
    if found != wanted:
        raise AssertionError(f"{what}: {found!r:.200}, expected {wanted!r:.200}")


def how_it_ends(stream):
    try:
        return "end" if stream.recv(1) == b"" else "data"
    except ConnectionResetError:
        return "reset"


# ---- the server

class Server:
    def __init__(self, address):
        kind = socket.SOCK_DGRAM if address[0].startswith("udp") or address[0] == "unixgram" else socket.SOCK_STREAM
        self.socket = socket.socket(FAMILIES[address[0]], kind)
        if address[0].startswith("tcp"):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(address_of(address))
        self.ends, self.checksums = [], []  # of streams of kind h and f; also of datagrams that nobody signed
        self.names = []  # of streams: our end's and the other's
        self.accepted = 0  # streams, or datagrams
        self.changed = threading.Condition()
        self.gate = threading.Event()
        if kind == socket.SOCK_STREAM:
            self.socket.listen(4096)
        threading.Thread(target=self.accept if kind == socket.SOCK_STREAM else self.answer, daemon=True).start()

    @property
    def port(self):
        return self.socket.getsockname()[1]

    def accept(self):
        while True:
            stream, name = self.socket.accept()
            self.names.append([stream.getsockname(), name])
            self.accepted += 1
            threading.Thread(target=self.serve, args=[stream], daemon=True).start()

    def answer(self):
        while True:
            data, peer = self.socket.recvfrom(65536)
            self.accepted += 1
            if peer:
                self.socket.sendto(data[::-1], peer)
            else:
                self.keep(self.checksums, checksum(data).decode())

    def keep(self, items, item):
        with self.changed:
            items.append(item)
            self.changed.notify_all()

    def wait(self, items, count):
        with self.changed:
            self.changed.wait_for(lambda: len(items) >= count, PATIENCE)
        expect(len(items), count, "what the server has seen")
        return list(items)

    def serve(self, stream):
        with stream:
            try:
                kind, number = struct.unpack("!cI", read_exactly(stream, 5))
                SERVICES[kind](self, stream, number)
            except (OSError, EOFError):
                pass  # the client went, which some do

    def echo(self, stream, _):
        stream.sendall(read_all(stream))
        stream.shutdown(socket.SHUT_WR)

    def send_back(self, stream, size):
        stream.sendall(read_exactly(stream, size))

    def end_first(self, stream, size):
        stream.sendall(content(size, size))
        stream.shutdown(socket.SHUT_WR)
        self.keep(self.checksums, checksum(read_all(stream)).decode())

    def give(self, stream, size):
        stream.sendall(content(size, size))

    def read_late(self, stream, _):
        self.gate.wait()
        stream.sendall(checksum(read_all(stream)))

    def open_gate(self, stream, _):
        self.gate.set()
        stream.sendall(b"o")

    def hold(self, stream, _):
        stream.sendall(b"h")
        self.keep(self.ends, how_it_ends(stream))


SERVICES = {b"e": Server.echo, b"n": Server.send_back, b"f": Server.end_first, b"g": Server.give,
            b"l": Server.read_late, b"o": Server.open_gate, b"h": Server.hold}


# ---- the client

def wait_longer(stream):
    """By the C library: Python gives such a socket's options eight bytes, and this one wants a struct timeval."""
    value = struct.pack("ll", PATIENCE, 0)
    result = ctypes.CDLL(None).setsockopt(stream.fileno(), socket.AF_VSOCK, CONNECT_TIMEOUT, value, len(value))
    expect(result, 0, "SO_VM_SOCKETS_CONNECT_TIMEOUT")


def connect(target, kind, number=0):
    stream = socket.socket(FAMILIES[target[0]], socket.SOCK_STREAM)
    stream.settimeout(PATIENCE)
    if target[0] == "vsock":
        wait_longer(stream)
    try:
        stream.connect(address_of(target))
        stream.sendall(struct.pack("!cI", kind, number))
    except BaseException:
        stream.close()
        raise
    return stream


def echoes(target, count, size, ends_half=True):
    """One after the other. Without ends_half the server knows from a number how much comes."""
    for number in range(count):
        data = content(number, size)
        with connect(target, b"e" if ends_half else b"n", size) as stream:
            stream.sendall(data)
            if ends_half:
                stream.shutdown(socket.SHUT_WR)
            expect(checksum(read_all(stream)), checksum(data), f"stream {number}")


def echoes_at_once(target, count, size):
    streams = []
    try:
        for number in range(count):
            streams.append(connect(target, b"e"))
            streams[-1].sendall(content(number, size))
        for stream in streams:
            stream.shutdown(socket.SHUT_WR)
        for number, stream in enumerate(streams):
            expect(checksum(read_all(stream)), checksum(content(number, size)), f"stream {number}")
    finally:
        for stream in streams:
            stream.close()


def sends_much(target, size, ends_half=True):
    """There and back, a writer and a reader at once: for more than what lies between them can hold."""
    data = content(size, size)
    with connect(target, b"e" if ends_half else b"n", size) as stream:
        def write():
            stream.sendall(data)
            if ends_half:
                stream.shutdown(socket.SHUT_WR)
        writer = threading.Thread(target=write)
        writer.start()
        found = read_all(stream)
        writer.join()
    expect(checksum(found), checksum(data), f"{len(found)} of {size} bytes")


def reads_first(target, size, answer):
    """The server ends first; what the client sends after that arrives. Its checksum is with the server then."""
    with connect(target, b"f", size) as stream:
        expect(checksum(read_all(stream)), checksum(content(size, size)), "what came before the end")
        stream.sendall(content(answer, answer))
    return checksum(content(answer, answer)).decode()


def reads_late(target, size):
    """Nothing is lost to a reader that does not read, and others do not wait for it."""
    with connect(target, b"g", size) as stream:
        echoes(target, 5, 1000)
        expect(checksum(read_all(stream)), checksum(content(size, size)), "what was read late")


def writes_to_late(target, size):
    data, failures = content(size, size), []
    with connect(target, b"l") as stream:
        def write():
            try:
                stream.sendall(data)
                stream.shutdown(socket.SHUT_WR)
            except OSError as error:
                failures.append(error)
        writer = threading.Thread(target=write)
        writer.start()
        echoes(target, 5, 1000)
        expect(writer.is_alive(), True, "the writer waits")
        with connect(target, b"o") as other:
            expect(other.recv(1), b"o", "the gate")
        writer.join()
        expect(failures, [], "the writer")
        expect(read_all(stream), checksum(data), "the checksum")


held = []


def hold(target, count):
    for _ in range(count):
        held.append(connect(target, b"h"))
        expect(held[-1].recv(1), b"h", "the answer")


def held_end():
    """How those end; waits for it."""
    ends = [how_it_ends(stream) for stream in held]
    while held:
        held.pop().close()
    return ends


children = []


def hold_in_child(target, count):
    child = subprocess.Popen([sys.executable, "-B", __file__, "hold", json.dumps(target), str(count)],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    children.append(child)
    expect(child.stdout.readline(), b"ready\n", "the child")


def serve_in_child(address):
    child = subprocess.Popen([sys.executable, "-B", __file__, "serve", json.dumps(address)],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    children.append(child)
    expect(child.stdout.readline(), b"ready\n", "the child")


PROGRAMS = os.environ.get("VIAL_TEST_PROGRAMS", "/mnt/programs")  # where guest-streams is: here, and in a guest


def serve_streams(address):
    """By a program; it lives until the end, or as long as it is the only child."""
    child = subprocess.Popen([f"{PROGRAMS}/guest-streams", "serve", address], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE)
    children.insert(0, child)
    expect(child.stdout.readline(), b"ready\n", "the server")


def streams(how, address, count, size):
    """So many of them, by a program: one-by-one, or at-once."""
    done = subprocess.run([f"{PROGRAMS}/guest-streams", how, address, str(count), str(size)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    expect((done.returncode, done.stdout), (0, ""), "the status, and what was said")


def kill_child():
    child = children.pop()
    child.kill()
    child.wait()
    child.stdout.close()


def asks(target, count, size, connects=True):
    """Datagrams, each answered; one may be lost on any network, but not all."""
    with socket.socket(FAMILIES[target[0]], socket.SOCK_DGRAM) as sock:
        sock.settimeout(3)
        if connects:
            sock.connect(address_of(target))
        for number in range(count):
            data = content(number, size)
            for _ in range(5):
                if connects:
                    sock.send(data)
                else:
                    sock.sendto(data, address_of(target))
                try:
                    answer = sock.recv(65536)
                    while answer != data[::-1] and number > 0:  # a late one
                        answer = sock.recv(65536)
                    break
                except TimeoutError:
                    answer = b""
            expect(checksum(answer), checksum(data[::-1]), f"datagram {number}")


def fails(target, seconds=PATIENCE):
    """Why nobody is reached there."""
    with socket.socket(FAMILIES[target[0]], socket.SOCK_STREAM) as stream:
        stream.settimeout(seconds)
        try:
            stream.connect(address_of(target))
            stream.sendall(struct.pack("!cI", b"h", 0))
            return "" if stream.recv(1) == b"h" else "an end"
        except OSError as error:
            return os.strerror(error.errno) if error.errno else "timed out"


def is_deaf(target, connects=True):
    """Nothing answers a datagram."""
    with socket.socket(FAMILIES[target[0]], socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        try:
            if connects:
                sock.connect(address_of(target))
                sock.send(b"?")
            else:
                sock.sendto(b"?", address_of(target))
            return sock.recv(100) != b"?"
        except OSError:
            return True


# ---- with an event loop, whose sockets never wait

def serve_by_loop(kind, *address):
    """Streams that end first are sent back."""
    ready = threading.Event()

    async def echo(reader, writer):
        writer.write(await reader.read())
        writer.close()

    async def serve_all():
        server = await asyncio.start_server(echo, *address, family=FAMILIES[kind], backlog=100)
        ready.set()
        await server.serve_forever()
    threading.Thread(target=asyncio.run, args=[serve_all()], daemon=True).start()
    expect(ready.wait(PATIENCE), True, "the server listens")


def echoes_by_loop(target, count, size):
    """Streams at once."""
    async def echo(number):
        reader, writer = await asyncio.open_connection(*target[1:])
        writer.write(struct.pack("!cI", b"e", 0) + content(number, size))
        writer.write_eof()
        found = await reader.read()
        writer.close()
        expect(checksum(found[-size:]), checksum(content(number, size)), f"stream {number}")

    async def echo_all():
        await asyncio.wait_for(asyncio.gather(*map(echo, range(count))), PATIENCE)
    asyncio.run(echo_all())


def calls(target):
    """A stream's other end, by its name."""
    with connect(target, b"h") as stream:
        expect(stream.recv(1), b"h", "the answer")
        return stream.getpeername()


def throws(target, size, connects):
    """A datagram that is not signed. Its checksum is with the server then."""
    with socket.socket(FAMILIES[target[0]], socket.SOCK_DGRAM) as sock:
        if connects:
            sock.connect(address_of(target))
            sock.send(content(size, size))
        else:
            sock.sendto(content(size, size), address_of(target))
    return checksum(content(size, size)).decode()


# ---- in a guest

servers = {}


def serve(name, address):
    servers[name] = Server(address)


def seen(name, list_name, count):
    return servers[name].wait(getattr(servers[name], list_name), count)


def known(name):
    """The names of its streams: our end's and the other's."""
    return servers[name].names


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def becomes(path, wanted):
    """Waits until a file of sysfs says that."""
    import time  # pylint: disable=import-outside-toplevel
    end = time.monotonic() + PATIENCE
    while (found := read(path)) != wanted and time.monotonic() < end:
        time.sleep(0.02)  # nothing signals it
    expect(found, wanted, path)


def tell(command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False).stdout


def make_folder(path):
    os.makedirs(path)


def remove(path):
    os.unlink(path)


def interfaces():
    return sorted(os.listdir("/sys/class/net"))


CALLS = (echoes, echoes_at_once, sends_much, reads_first, reads_late, writes_to_late, hold, held_end, hold_in_child,
         serve_in_child, kill_child, asks, fails, is_deaf, calls, throws, serve, seen, known, read, becomes, tell,
         make_folder, remove, interfaces, serve_streams, streams, serve_by_loop,
         echoes_by_loop)


def obey():
    lock = threading.Lock()

    def do(request):
        try:
            answer = {"result": {call.__name__: call for call in CALLS}[request["call"]](*request["args"])}
        except BaseException as error:  # pylint: disable=broad-except
            answer = {"error": f"{type(error).__name__}: {error}"}
        with lock:
            print(json.dumps({"id": request["id"], **answer}), flush=True)

    print(json.dumps({"id": 0}), flush=True)
    for line in sys.stdin:
        threading.Thread(target=do, args=[json.loads(line)], daemon=True).start()


def prepare():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))
    threading.stack_size(256 << 10)


def main():
    prepare()
    if len(sys.argv) == 1:
        obey()
        return
    if sys.argv[1] == "hold":
        hold(json.loads(sys.argv[2]), int(sys.argv[3]))
    else:
        servers["own"] = Server(json.loads(sys.argv[2]))
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
