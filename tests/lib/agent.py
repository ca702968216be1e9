# SPDX-License-Identifier: Apache-2.0
"""A client of the guest's agent, written from docs/PROTOCOL.md: the protocol a second time, so that a mistake in the
code that host and guest share is seen.

    link = Link(sock)                    READY has been heard
    session = link.exec(["sh", "-c", "echo"])
    session.run() -> (code, signal), with session.out and session.err
"""

import collections
import select
import socket
import struct
import time

KINDS = {
    "exec": 1, "connect": 2, "stat": 3, "list": 4, "read": 5, "write": 6, "make": 7, "remove": 8, "rename": 9,
    "pull": 10, "push": 11, "ping": 12, "clock": 13, "shutdown": 14, "signal": 32, "resize": 33, "cancel": 34,
    "gone": 35, "data": 48, "credit": 49, "ready": 64, "heartbeat": 65, "started": 66, "failed": 67, "ended": 68,
    "done": 69, "entry": 70,
}
NAMES = {number: name for name, number in KINDS.items()}
FIELDS = {  # in the order of their keys
    "exec": "flags window rows columns path args env workdir user rlimits",
    "connect": "window port target", "stat": "flags path", "list": "path", "read": "window offset length path",
    "write": "flags mode path", "make": "flags mode path", "remove": "flags path", "rename": "path to",
    "pull": "window path", "push": "flags path", "clock": "unix_ns", "shutdown": "grace_ms", "signal": "number",
    "resize": "rows columns", "data": "stream bytes", "credit": "stream bytes",
    "ready": "version cpus memory_bytes uptime_ns kernel",
    "heartbeat": "uptime_ns busy_ns total_bytes available_bytes sessions processes", "started": "pid window",
    "failed": "stage os_error message", "ended": "code signal",
    "entry": "mode uid gid size mtime_s mtime_ns name link",
}
LAST, END = 1, 2
TERMINAL, DETACHED, NO_INPUT, MAIN = 1, 2, 4, 8
STAGES = dict(protocol=1, limit=2, fork=3, terminal=4, streams=5, rlimit=6, user=7, chdir=8, exec=9, open=10, read=11,
              write=12, connect=13, file=14, clock=15, state=16)
ALL = 2**64 - 1


class Wrong(Exception):
    """The agent has said something that it must not."""


def head(major, number):
    for limit, code in ((24, None), (1 << 8, 24), (1 << 16, 25), (1 << 32, 26), (1 << 64, 27)):
        if number < limit:
            if code is None:
                return bytes([major << 5 | number])
            return bytes([major << 5 | code]) + number.to_bytes(1 << (code - 24), "big")
    raise ValueError(number)


def encode(value):
    if isinstance(value, bool) or value is None:
        raise TypeError(value)
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(encode(item) for item in value)
    return head(5, len(value)) + b"".join(encode(key) + encode(value[key]) for key in sorted(value))


def decode(data, at=0):
    """-> value, where it ends. Only the shortest form of everything is taken."""
    major, number, at = data[at] >> 5, data[at] & 31, at + 1
    if number >= 24:
        size = 1 << (number - 24)
        if number > 27:
            raise Wrong("an indefinite length")
        number, at = int.from_bytes(data[at:at + size], "big"), at + size
        if number < (24 if size == 1 else 1 << 4 * size):
            raise Wrong("a number that is not as short as it could be")
    if major == 0:
        return number, at
    if major == 1:
        return -1 - number, at
    if major == 2:
        if at + number > len(data):
            raise Wrong("bytes that are cut off")
        return bytes(data[at:at + number]), at + number
    if major == 4:
        items = []
        for _ in range(number):
            item, at = decode(data, at)
            items.append(item)
        return items, at
    if major == 5:
        found = {}
        for expected in range(number):
            key, at = decode(data, at)
            if key != expected:
                raise Wrong("keys that are not in order")
            found[key], at = decode(data, at)
        return found, at
    raise Wrong(f"a CBOR type {major}")


def frame(kind, number, bits=0, /, **fields):
    names = FIELDS.get(kind, "").split()
    body = encode({i: fields[name] for i, name in enumerate(names)}) if names else b""
    assert set(fields) == set(names), (kind, fields)
    return struct.pack("<IIHH", len(body), number, KINDS[kind], bits) + body


Message = collections.namedtuple("Message", "kind id flags fields")


def strings(items):
    return b"".join((item if isinstance(item, bytes) else item.encode()) + b"\0" for item in items)


def path_bytes(path):
    return path if isinstance(path, bytes) else path.encode()


class Session:
    def __init__(self, link, number, window):
        self.link, self.id, self.window = link, number, window
        self.credit = {1: window, 2: window}  # what the agent may still send
        self.granted = 0  # what we may
        self.streams = {1: bytearray(), 2: bytearray()}
        self.ended_streams = set()
        self.entries = []
        self.started = self.last = None
        self.reads = True  # gives credit for what has come
        self.owed = {1: 0, 2: 0}
        self.keeps = True
        self.counts = {1: 0, 2: 0}

    def take(self, message):
        fields = message.fields
        if self.last is not None:
            raise Wrong(f"{message} behind the last frame of its session")
        if message.kind == "data":
            stream, data = fields["stream"], fields["bytes"]
            self.credit[stream] -= len(data)
            if self.credit[stream] < 0 or stream in self.ended_streams:
                raise Wrong(f"more data than was granted in stream {stream}")
            if self.keeps:
                self.streams[stream] += data
            self.counts[stream] += len(data)
            if message.flags & END:
                self.ended_streams.add(stream)
            self.owed[stream] += len(data)
            if self.reads and self.owed[stream] >= self.window // 2:
                self.give(stream)
        elif message.kind == "credit":
            self.granted += fields["bytes"]
        elif message.kind == "started":
            self.started = fields
            self.granted += fields["window"]
        elif message.kind == "entry" and not message.flags & LAST:
            self.entries.append(fields)
        elif not message.flags & LAST:
            raise Wrong(f"{message} within a session")
        if message.flags & LAST:
            self.last = message

    def give(self, stream):
        if self.owed[stream] > 0:
            self.link.send("credit", self.id, stream=stream, bytes=self.owed[stream])
            self.credit[stream] += self.owed[stream]
            self.owed[stream] = 0

    def write(self, data, end=False):
        """All of it, waiting for credit."""
        view = memoryview(data)
        while len(view) > 0 and self.last is None:
            if self.granted == 0:
                self.link.turn()
                continue
            part = view[:min(self.granted, 65536)]
            self.granted -= len(part)
            self.link.send("data", self.id, stream=0, bytes=bytes(part))
            view = view[len(part):]
            self.link.turn(0)
        if end and self.last is None:
            self.end()

    def end(self):
        self.link.send("data", self.id, END, stream=0, bytes=b"")

    def signal(self, number):
        self.link.send("signal", self.id, number=number)

    def resize(self, rows, columns):
        self.link.send("resize", self.id, rows=rows, columns=columns)

    def cancel(self):
        self.link.send("cancel", self.id)

    def wait(self, limit=60):
        """Until its last frame, which is returned."""
        self.link.until(lambda: self.last is not None, limit)
        return self.last

    def run(self, data=b"", limit=60):
        """(code, signal) of a program that gets the bytes and nothing more; or ("failed", stage, errno)."""
        if data:
            self.link.until(lambda: self.started or self.last, limit)
            self.write(data, end=True)
        last = self.wait(limit)
        if last.kind == "failed":
            return "failed", last.fields["stage"], last.fields["os_error"]
        return last.fields["code"], last.fields["signal"]

    @property
    def out(self):
        return bytes(self.streams[1])

    @property
    def err(self):
        return bytes(self.streams[2])


class Link:
    """One connection to an agent: numbers for sessions, and a loop that hears for all of them."""

    def __init__(self, sock, client=0):
        self.sock, self.client = sock, client
        sock.setblocking(False)
        self.sessions, self.next_id = {}, 1
        self.received, self.unsent = bytearray(), bytearray()
        self.ready, self.heartbeats, self.is_closed = None, [], False
        self.until(lambda: self.ready is not None)

    def send(self, kind, number, bits=0, /, **fields):
        self.unsent += frame(kind, number, bits, **fields)
        self.flush()

    def flush(self):
        try:
            while self.unsent:
                del self.unsent[:self.sock.send(memoryview(self.unsent)[:1 << 20])]
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            self.is_closed = True
            self.unsent.clear()

    def turn(self, wait=10.0):
        writers = [self.sock] if self.unsent else []
        readable, writable, _ = select.select([self.sock], writers, [], wait)
        if writable:
            self.flush()
        if readable:
            try:
                data = self.sock.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                self.is_closed = True
            self.received += data
            self.parse()
        return bool(readable or writable)

    def parse(self):
        at, view = 0, bytes(self.received)
        while len(view) - at >= 12:
            length, number, kind, flags = struct.unpack_from("<IIHH", view, at)
            if len(view) - at - 12 < length:
                break
            self.handle(self.message(view[at + 12:at + 12 + length], number, kind, flags))
            at += 12 + length
        del self.received[:at]

    @staticmethod
    def message(body, number, kind, flags):
        name = NAMES.get(kind)
        if name is None or kind < 48:
            raise Wrong(f"kind {kind} of the agent")
        if name not in FIELDS:
            if body:
                raise Wrong(f"a body of {name}")
            return Message(name, number, flags, {})
        found, end = decode(body)
        names = FIELDS[name].split()
        if end != len(body) or list(found) != list(range(len(names))):
            raise Wrong(f"a body of {name} with other fields")
        return Message(name, number, flags, {names[i]: found[i] for i in found})

    def handle(self, message):
        if message.kind == "ready":
            if self.ready or message.id:
                raise Wrong("READY a second time")
            self.ready = message.fields
        elif message.kind == "heartbeat":
            self.heartbeats.append((time.monotonic(), message.fields))
        else:
            session = self.sessions.get(message.id)
            if session is None:
                raise Wrong(f"{message} of no session")
            session.take(message)

    def until(self, condition, limit=60):
        deadline = time.monotonic() + limit
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0 or self.is_closed:
                raise TimeoutError("the agent is gone" if self.is_closed else "the agent does not say it")
            self.turn(left)

    def begin(self, kind, window=256 << 10, number=None, /, **fields):
        if number is None:
            number, self.next_id = self.client << 16 | self.next_id, self.next_id % 0xffff + 1
        session = self.sessions[number] = Session(self, number, window)
        self.send(kind, number, **fields)
        return session

    def exec(self, args, env=("PATH=/usr/bin:/bin",), workdir="", user="", flags=0, window=256 << 10, rows=0, columns=0,
             rlimits=(), path=None, number=None):
        path = path_bytes(args[0] if path is None else path)
        return self.begin("exec", window, number, flags=flags, window=window, rows=rows, columns=columns, path=path,
                          args=strings(args), env=strings(env), workdir=path_bytes(workdir), user=user.encode(),
                          rlimits=[number for limit in rlimits for number in limit])

    def shell(self, script, **options):
        return self.exec(["sh", "-c", script], **options)

    def ask(self, kind, **fields):
        """A request that is answered by one frame."""
        return self.begin(kind, **fields).wait()

    def read(self, path, offset=0, length=ALL, window=256 << 10):
        session = self.begin("read", window, window=window, offset=offset, length=length, path=path_bytes(path))
        return session.wait(), session.out

    def write(self, path, data, flags=0, mode=0o644):
        session = self.begin("write", flags=flags, mode=mode, path=path_bytes(path))
        self.until(lambda: session.started or session.last)
        session.write(data, end=True)
        return session.wait()


def connect(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    return sock
