#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One case of tests/e2e/sandbox-process: the hidden command, run on sandboxes that libvial has recorded, and talked to by
a client written from the protocol's description.

    process_suite.py BUILD KERNEL SCRATCH CASE
"""

import atexit
import base64
import contextlib
import ctypes
import json
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import agent  # noqa: E402

agent.KINDS.update(status=96, stop=97, pause=98, resume=99, attach=100, report=101, events=102)
agent.NAMES.update({number: name for name, number in agent.KINDS.items()})
agent.FIELDS.update(stop="grace_ms", attach="flags window rows columns", report="json")
INPUT, PRIMARY = 1, 2
BUILD, KERNEL, SCRATCH = sys.argv[1:4]
HOME = os.path.join(SCRATCH, "kept")
lib = ctypes.CDLL(os.path.join(BUILD, "src/libvial.so"))


# ---- include/vial/vial.h, as far as it is needed ----

class Error(ctypes.Structure):
    _fields_ = [("numbers", ctypes.c_int32 * 4), ("field", ctypes.c_char * 128), ("value", ctypes.c_char * 128),
                ("message", ctypes.c_char * 376), ("remedy", ctypes.c_char * 376)]


class Program(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("args", ctypes.c_void_p), ("env", ctypes.c_void_p),
                ("rlimits", ctypes.c_void_p), ("workdir", ctypes.c_char_p), ("user", ctypes.c_char_p),
                ("rows", ctypes.c_uint16), ("columns", ctypes.c_uint16), ("terminal", ctypes.c_bool),
                ("input", ctypes.c_bool), ("detached", ctypes.c_bool), ("reserved", ctypes.c_uint8 * 9)]


class Options(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("name", ctypes.c_char_p), ("config", ctypes.c_void_p),
                ("program", ctypes.c_void_p), ("labels", ctypes.c_void_p), ("scripts", ctypes.c_void_p),
                ("hostname", ctypes.c_char_p), ("idle_ms", ctypes.c_uint64), ("most_ms", ctypes.c_uint64),
                ("grace_ms", ctypes.c_uint64), ("ephemeral", ctypes.c_bool), ("replace", ctypes.c_bool),
                ("reserved", ctypes.c_uint8 * 14)]


def check(result, error):
    if result < 0:
        raise OSError(-result, f"{error.field.decode()}: {error.message.decode()}")


def strings(items):
    array = (ctypes.c_char_p * (len(items) + 1))(*[os.fsencode(item) for item in items], None)
    return array, ctypes.cast(array, ctypes.c_void_p)


def create(args=None, name=None, config=None, scripts=None, takes_input=False, **members):
    """The id of a new sandbox; one without a name is ephemeral."""
    error, home, machine, sandbox = Error(), ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    text = json.dumps({"machine": {"engine": "uml", "memory_mib": 128}, "kernel": {"path": KERNEL},
                       "root": {"host": True}, **(config or {})}).encode()
    check(lib.vial_home_open(HOME.encode(), ctypes.byref(home), ctypes.byref(error)), error)
    check(lib.vial_vm_config_load_text(text, ctypes.c_size_t(len(text)), ctypes.byref(machine), ctypes.byref(error)),
          error)
    options = Options(size=ctypes.sizeof(Options), name=name and name.encode(), config=machine.value, grace_ms=2000,
                      ephemeral=name is None, **members)
    keep = []
    if scripts:
        keep.append(strings(scripts))
        options.scripts = keep[-1][1]
    if args:
        keep += [strings(args), strings(["PATH=/usr/bin:/bin"])]
        program = Program(size=ctypes.sizeof(Program), args=keep[-2][1], env=keep[-1][1], input=takes_input)
        options.program = ctypes.addressof(program)
    before = set(os.listdir(f"{HOME}/sandboxes")) if os.path.isdir(f"{HOME}/sandboxes") else set()
    check(lib.vial_sandbox_create(home, ctypes.byref(options), ctypes.byref(sandbox), ctypes.byref(error)), error)
    return (set(os.listdir(f"{HOME}/sandboxes")) - before).pop()


def rows(query, *values):
    base = sqlite3.connect(f"{HOME}/vial.db")
    try:
        return base.execute(query, values).fetchall()
    finally:
        base.close()


def last_run(number):
    return rows("select reason, code, detail from runs where sandbox = ? order by number desc", number)[0]


REASONS = {"completed": 1, "failed": 2, "idle": 3, "too-long": 4, "signal": 5, "stop": 6, "panic": 7, "silent": 10}


def expect(value, wanted, what="value"):
    if value != wanted:
        raise AssertionError(f"{what} is {value!r}, expected {wanted!r}")


# ---- processes and clients ----

class Process:
    def __init__(self, number, first=False):
        self.id, self.folder = number, f"{HOME}/sandboxes/{number}"
        report, write = os.pipe()
        command = [f"{BUILD}/vial", "sandbox-process", "--home", HOME, "--id", number, "--report-fd", str(write)]
        descriptors = [write]
        self.first = None
        if first:
            self.first, theirs = socket.socketpair()
            descriptors.append(theirs.fileno())
            command += ["--first-fd", str(theirs.fileno())]
        with open(f"{self.folder}/log/runtime.log", "ab") as log:
            self.process = subprocess.Popen(command, pass_fds=descriptors, stderr=log, stdin=subprocess.DEVNULL)
        for fd in descriptors:
            os.close(fd) if fd == write else theirs.close()
        self.report_fd = report
        atexit.register(self.process.kill)  # of a case that fails

    def report(self):
        line = b""
        while not line.endswith(b"\n"):
            piece = os.read(self.report_fd, 65536)
            if not piece:
                break
            line += piece
        return json.loads(line) if line else None

    def connect(self):
        return Client(unix_socket(f"{self.folder}/relay.sock"))

    def link(self):
        return agent.Link(unix_socket(f"{self.folder}/relay.sock"))

    def log(self, name):
        with open(f"{self.folder}/log/{name}.log", "rb") as file:
            return file.read()

    def wait(self, limit=30):
        return self.process.wait(limit)


def unix_socket(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    return sock


class Client:
    """Frames one at a time, and nothing done about them."""

    def __init__(self, sock):
        self.sock, self.buffer = sock, bytearray()
        sock.settimeout(60)

    def say(self, kind, bits=0, /, **fields):
        self.sock.sendall(agent.frame(kind, 1, bits, **fields))

    def hear(self):
        """-> kind, values, flags; None at the end."""
        while True:
            if len(self.buffer) >= 12:
                length, _, kind, flags = struct.unpack_from("<IIHH", self.buffer)
                if len(self.buffer) >= 12 + length:
                    body = bytes(self.buffer[12:12 + length])
                    del self.buffer[:12 + length]
                    return agent.NAMES[kind], list(agent.decode(body)[0].values()) if body else [], flags
            try:
                piece = self.sock.recv(1 << 20)
            except ConnectionResetError:
                piece = b""
            if not piece:
                return None
            self.buffer += piece

    def ask(self, kind, **fields):
        self.say(kind, **fields)
        while True:
            answer = self.hear()
            if answer is None or answer[0] not in ("ready", "report") or answer[2] & agent.LAST:
                return answer

    def listen(self, pace=0):
        """What the program says until it has ended: output, the last frame."""
        said = {1: bytearray(), 2: bytearray()}
        while True:
            answer = self.hear()
            if answer is None or answer[2] & agent.LAST:
                return said, answer
            if answer[0] == "data" and answer[1][1]:
                stream, data = answer[1]
                said[stream] += data
                time.sleep(pace)
                try:
                    self.say("credit", stream=stream, bytes=len(data))
                except BrokenPipeError:
                    pass  # it has said everything and gone; what it said is here to be read


def run(args, data=b"", name=None, **members):
    """Starts, attaches from the beginning, and waits: what it said, the last frame, the process."""
    process = Process(create(args, name, takes_input=bool(data), **members), first=True)
    client = Client(process.first)
    client.say("attach", flags=PRIMARY | (INPUT if data else 0), window=256 << 10, rows=0, columns=0)
    while data:
        answer = client.hear()
        if answer[0] == "started":
            client.say("data", agent.END, stream=0, bytes=data)
            break
    said, last = client.listen()
    while client.hear() is not None:
        pass
    return said, last, process


def is_gone(process):
    expect(process.wait(), 0, "exit status")
    expect(os.path.exists(process.folder), False, "the folder's existence")
    expect(rows("select count(*) from sandboxes where id = ?", process.id), [(0,)], "rows")


# ---- cases ----

def output_and_status():
    said, last, process = run(["sh", "-c", "echo out; echo err >&2; exit 7"])
    expect((bytes(said[1]), bytes(said[2]), last[0], last[1]), (b"out\n", b"err\n", "ended", [7, 0]))
    expect(process.report()["state"], "running")
    is_gone(process)


def input_comes_back():
    data = os.urandom(900)
    said, last, process = run(["cat"], data)
    expect((bytes(said[1]), last[1]), (data, [0, 0]))
    is_gone(process)


def killed_program():
    _, last, process = run(["sh", "-c", "kill -9 $$"], name="killed")
    expect(last[1], [0, 9])
    process.wait()
    expect(last_run(process.id)[:2], (REASONS["signal"], 137))


def no_such_program():
    _, last, process = run(["/no/such/program"], name="missing")
    expect((last[0], last[1][:2]), ("failed", [agent.STAGES["exec"], 2]))
    process.wait()
    expect(last_run(process.id)[:2], (REASONS["failed"], 127))


def no_such_program_unattached():
    process = Process(create(["/no/such/program"], "alone"))
    report = process.report()
    expect((report["state"], report["stage"], report["error"]["field"], report["error"]["errno"]),
           ("failed", "program", "exec", 2))
    process.wait()
    again = Process(process.id)  # the lock is free by then
    expect(again.report()["stage"], "program")
    again.wait()


def logs_tell_what_was_said():
    said, _, process = run(["sh", "-c", "echo a; printf '\\377\\0'; echo b >&2"], name="logged")
    process.wait()
    text = {"out": b"", "err": b""}
    for line in process.log("exec").splitlines():
        record = json.loads(line)
        text[record["s"]] += record["text"].encode() if "text" in record else base64.b64decode(record["base64"])
    expect(text, {"out": bytes(said[1]), "err": b"b\n"})
    expect(b"process.ready" in process.log("runtime"), True)


def slow_reader_loses_nothing():
    process = Process(create(["seq", "300000"]), first=True)
    client = Client(process.first)
    client.say("attach", flags=PRIMARY, window=4096, rows=0, columns=0)
    said, last = client.listen(0.0005)
    expect(bytes(said[1]) == b"".join(b"%d\n" % i for i in range(1, 300001)), True, "the output being whole")
    expect(last[0], "ended")
    client.sock.close()
    is_gone(process)


def stop_of_one_that_lingers():
    """Its machine has ended; a client that the program waited for does not read what it was told."""
    process = Process(create(["sh", "-c", "head -c 250000 /dev/zero; head -c 250000 /dev/zero >&2"]), first=True)
    client = Client(process.first)
    client.say("attach", flags=PRIMARY, window=256 << 10, rows=0, columns=0)
    process.report()
    while json.loads(process.connect().ask("status")[1][0])["status"] != "draining":
        time.sleep(0.05)
    time.sleep(2)
    expect(process.process.poll(), None, "the end, before it was asked for")
    expect(process.connect().ask("stop", grace_ms=500)[0], "done")
    is_gone(process)
    client.sock.close()


def reader_that_went():
    process = Process(create(["sh", "-c", "yes | head -c 3000000; echo done >&2"], "left"), first=True)
    client = Client(process.first)
    client.say("attach", flags=PRIMARY, window=4096, rows=0, columns=0)
    client.hear()
    client.sock.close()
    expect(process.wait(), 0)
    expect(last_run(process.id)[0], REASONS["completed"])


def status_pause_events_stop():
    process = Process(create(name="steps"))
    expect(process.report()["engine"], "uml")
    expect(Process(process.id).report()["stage"], "lock")
    client, events = process.connect(), process.connect()
    events.say("events")
    while (answer := events.hear())[0] != "report":
        pass
    expect(json.loads(answer[1][0])["status"], "running")
    status = json.loads(client.ask("status")[1][0])
    expect((status["status"], status["name"], "seccomp" in status["walls"]["standing"]), ("running", "steps", True))
    expect(client.ask("pause")[0], "done")
    expect(client.ask("pause")[0], "failed")
    expect(json.loads(client.ask("status")[1][0])["status"], "paused")
    expect(client.ask("resume")[0], "done")
    expect(process.link().exec(["true"]).run(), (0, 0))
    expect(client.ask("stop", grace_ms=5000)[0], "done")
    heard = []
    while (answer := events.hear()) is not None:
        if answer[0] == "report":
            heard.append(json.loads(answer[1][0])["event"])
    expect(heard, ["pause", "resume", "drain", "end"])
    process.wait()
    expect(last_run(process.id)[0], REASONS["stop"])
    expect(os.listdir(process.folder).count("relay.sock"), 0)


def stop_of_a_paused_one():
    process = Process(create(name="paused"))
    process.report()
    client = process.connect()
    expect(client.ask("pause")[0], "done")
    expect(client.ask("stop", grace_ms=5000)[0], "done")
    expect(process.wait(10), 0)


def signals_end_it():
    process = Process(create(["sh", "-c", "trap 'echo told; exit 3' TERM; echo up; while :; do sleep 0.1; done"], "told"))
    process.report()
    while b"up" not in process.log("exec"):
        time.sleep(0.05)
    process.process.send_signal(signal.SIGTERM)
    expect(process.wait(), 0)
    expect(last_run(process.id)[:2], (REASONS["stop"], 3))


def force_by_grace():
    process = Process(create(["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"], "stubborn"))
    process.report()
    while b"up" not in process.log("exec"):
        time.sleep(0.05)
    begun = time.monotonic()
    expect(process.connect().ask("stop", grace_ms=1000)[0], "done")
    expect(process.wait(10), 0)
    expect(0.9 < time.monotonic() - begun < 4, True, "the grace being kept")
    process = Process(process.id)
    process.report()
    expect(process.connect().ask("stop", grace_ms=0)[0], "done")
    expect(process.wait(3), 0)


def idle_and_too_long():
    idle = Process(create(["sleep", "1000"], "idle", idle_ms=3000))
    busy = Process(create(["sh", "-c", "while :; do :; done"], "busy", idle_ms=3000, most_ms=7000))
    begun = time.monotonic()
    idle.wait()
    expect(last_run(idle.id)[0], REASONS["idle"])
    expect(time.monotonic() - begun < 7, True, "idleness being noticed in time")
    busy.wait()
    expect(last_run(busy.id)[0], REASONS["too-long"])


def guest_that_is_killed():
    process = Process(create(name="killed"))
    report = process.report()
    for child in guest_processes(report["pid"]):
        with contextlib.suppress(ProcessLookupError):  # the first may have taken the others with it
            os.kill(child, signal.SIGKILL)
    expect(process.wait(5), 0)
    reason, _, detail = last_run(process.id)
    expect(reason not in (0, REASONS["completed"], REASONS["stop"]) and detail != "", True, "a reason")


def silent_agent():
    process = Process(create(name="silent"))
    report = process.report()
    for child in guest_processes(report["pid"]):
        os.kill(child, signal.SIGSTOP)  # nobody in the guest says anything any more
    begun = time.monotonic()
    process.wait(40)
    expect(last_run(process.id)[0], REASONS["silent"])
    expect(9 < time.monotonic() - begun < 20, True, "the patience")


def descendants(pid):
    found, parents = [], [pid]
    while parents:
        parent = parents.pop()
        for task in os.listdir(f"/proc/{parent}/task"):
            with open(f"/proc/{parent}/task/{task}/children") as file:
                children = [int(word) for word in file.read().split()]
            parents += children
            found += children
    return found


def guest_processes(pid):
    with_linux = []
    for child in descendants(pid):
        with open(f"/proc/{child}/comm") as file:
            if file.read().strip() not in ("vial", "vial-guardian"):
                with_linux.append(child)
    return with_linux


def lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def hostile_clients():
    process = Process(create(name="beset"))
    process.report()
    bad = []
    for data in (b"\xff" * 64, agent.frame("gone", 1 << 16), b"\x10\x00", agent.frame("data", 1, stream=0, bytes=b"x")[:20]):
        sock = unix_socket(f"{process.folder}/relay.sock")
        sock.sendall(data)
        bad.append(sock)
    deaf = agent.Link(unix_socket(f"{process.folder}/relay.sock"))
    deaf.shell("yes")
    deaf.flush()
    begun = time.monotonic()
    for _ in range(20):
        expect(process.link().exec(["true"]).run(), (0, 0))
    print("20 execs beside them:", round(1000 * (time.monotonic() - begun)), "ms")
    expect(process.connect().ask("stop", grace_ms=500)[0], "done")
    expect(process.wait(10), 0)


def full_disk():
    """A limit on the size of files is what a full disk is to a log; the guest goes on."""
    process = Process(create(["sh", "-c", "seq 100000; echo done >&2"], "full"), first=True)
    client = Client(process.first)
    expect(client.hear()[0], "ready")
    subprocess.run(["prlimit", "--pid", str(process.process.pid), "--fsize=20000"], check=True)
    client.say("attach", flags=PRIMARY, window=256 << 10, rows=0, columns=0)
    said, last = client.listen()
    expect((len(said[1]), bytes(said[2]), last[0]), (588895, b"done\n", "ended"))
    client.sock.close()
    process.wait()
    expect(os.path.getsize(f"{process.folder}/log/exec.log") <= 20000, True, "the log's size")


def scripts_stand_first():
    path = os.path.join(SCRATCH, "hello")
    with open(path, "w") as file:
        file.write("#!/bin/sh\necho mine\n")
    os.chmod(path, 0o755)
    said, last, process = run(["sh", "-c", "ls"], scripts=[f"ls={path}"])
    expect((bytes(said[1]), last[1]), (b"mine\n", [0, 0]))
    is_gone(process)


def killed_processes():
    for _ in range(5):
        process = Process(create(name=f"k{time.time_ns()}"))
        process.report()
        left = descendants(process.process.pid)  # the guardian goes last, and with it the lock
        process.process.kill()
        process.wait()
        deadline = time.monotonic() + 2
        while (left := [child for child in left if lives(child)]) and time.monotonic() < deadline:
            time.sleep(0.01)
        expect(left, [], "what is left")
        again = Process(process.id)
        expect(again.report()["state"], "running")
        again.process.send_signal(signal.SIGTERM)
        expect(again.wait(), 0)


def lots_of_output():
    begun = time.monotonic()
    process = Process(create(["head", "-c", str(256 << 20), "/dev/zero"]), first=True)
    client = Client(process.first)
    client.say("attach", flags=PRIMARY, window=1 << 20, rows=0, columns=0)
    said, last = client.listen()
    expect((len(said[1]), last[0]), (256 << 20, "ended"))
    client.sock.close()
    is_gone(process)
    print("256 MiB, logged:", round(256 / (time.monotonic() - begun)), "MiB/s")


if __name__ == "__main__":
    os.makedirs(HOME, 0o700, exist_ok=True)
    globals()[sys.argv[4]]()
