#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the guest's agent does for a host, seen from the host.

    agent_suite.py here PROGRAM [CASE...]     PROGRAM is agent-here: the agent as a process of this machine
    agent_suite.py guest SOCKET [CASE...]     SOCKET leads to the port of a guest (tests/guest/agent-run.c)

Each CASE is a function below named case_CASE; without one it is every one, on one agent, in their order. What would harm
this machine is done in a guest only. Prints TAP.
"""

import errno
import hashlib
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import agent as A  # pylint: disable=wrong-import-position

MIB = 1 << 20


class Place:
    """Where the agent is."""

    count = 0

    def __init__(self, kind, where):
        self.is_guest, self.process, self.folder = kind == "guest", None, None
        if self.is_guest:
            begin = time.monotonic()
            self.link = A.Link(A.connect(where))
            print(f"# READY: {(time.monotonic() - begin) * 1000:.0f} ms")
        else:
            ours, theirs = socket.socketpair()
            self.process = subprocess.Popen([where, str(theirs.fileno())], pass_fds=[theirs.fileno()])
            theirs.close()
            self.link = A.Link(ours)
        Place.count += 1
        self.scratch = f"/tmp/agent-suite-{os.getpid()}-{Place.count}"
        equal(self.link.ask("make", flags=2, mode=0o755, path=self.scratch.encode()).kind, "done")


def equal(found, expected):
    if found != expected:
        raise AssertionError(f"{found!r:.300} is not {expected!r:.300}")


def check(condition, what="it is not so"):
    if not condition:
        raise AssertionError(what)


def failed(message, stage, code=None):
    equal((message.kind, message.fields.get("stage")), ("failed", A.STAGES[stage]))
    if code is not None:
        equal(message.fields["os_error"], code)


# ---- programs


def case_ready(place):
    ready = place.link.ready
    equal(ready["version"], 1)
    check(ready["cpus"] >= 1 and ready["memory_bytes"] > 16 * MIB and ready["uptime_ns"] > 0 and ready["kernel"])


def case_streams_and_codes(place):
    session = place.link.shell("echo out; echo err >&2; cat; exit 7")
    equal(session.run(b"in\n"), (7, 0))
    equal((session.out, session.err), (b"out\nin\n", b"err\n"))
    check(session.started["pid"] > 1 and session.ended_streams == {1, 2})
    equal(place.link.exec(["true"]).run(), (0, 0))
    equal(place.link.exec(["/bin/false"]).run(), (1, 0))
    equal(place.link.shell("kill -9 $$").run(), (0, 9))


def case_no_input(place):
    session = place.link.exec(["cat"], flags=A.NO_INPUT)
    equal(session.run(), (0, 0))
    equal(session.started["window"], 0)


def case_arguments_and_environment(place):
    long = "x" * 100_000
    session = place.link.exec(["sh", "-c", 'printf %s "$1"; env', "sh", long],
                              env=["PATH=/usr/bin:/bin", "LINES=a\nb", "UTF=ä€", "EMPTY="])
    equal(session.run(), (0, 0))
    check(session.out.startswith(long.encode()))
    for line in (b"LINES=a\nb\n", "UTF=ä€\n".encode(), b"EMPTY=\n", b"HOME="):
        check(line in session.out, f"{line} is missing")
    session = place.link.exec(["zeroth", "-c", "echo $0"], path="/bin/sh")
    session.run()
    equal(session.out, b"zeroth\n")
    session = place.link.exec(["/bin/sh", "-c", "echo $PATH"], env=[])
    session.run()
    check(session.out.strip().endswith(b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), session.out)


def case_failures(place):
    link = place.link
    failed(link.exec(["no-such-program"]).wait(), "exec", errno.ENOENT)
    failed(link.exec(["/etc/passwd"]).wait(), "exec", errno.EACCES)
    failed(link.exec(["/"]).wait(), "exec", errno.EACCES)
    last = link.exec(["true"], workdir="/no/such").wait()
    failed(last, "chdir", errno.ENOENT)
    equal(last.fields["message"], b"/no/such")
    failed(link.exec(["true"], user="nobody-at-all").wait(), "user", errno.ENOENT)
    failed(link.exec(["true"], user=":no-group").wait(), "user", errno.ENOENT)
    failed(link.exec(["true"], rlimits=[(7, 1, 1 << 60)]).wait(), "rlimit", errno.EPERM)
    equal(link.ask("ping").kind, "done")


def case_working_directory_and_limits(place):
    session = place.link.exec(["sh", "-c", "pwd; ulimit -n; umask"], workdir="/usr", rlimits=[(7, 77, 78)])
    session.run()
    equal(session.out.split(), [b"/usr", b"77", b"0022"])
    session = place.link.exec(["sh", "-c", "cat /proc/self/oom_score_adj; grep SigBlk /proc/self/status; ls /proc/self/fd"])
    session.run()
    lines = session.out.split()
    equal((lines[0], lines[2]), (b"0", b"0" * 16))
    equal(lines[3:], [b"0", b"1", b"2", b"3"])  # 3 is ls's own


def case_users(place):
    def identity(user):
        session = place.link.shell("id -u; id -g; id -G; echo $HOME $USER", user=user)
        equal(session.run(), (0, 0))
        return session.out.decode().split("\n")[:4]

    equal(identity("")[:2], ["0", "0"])
    equal(identity("")[3], "/root root")
    equal(identity("1234")[:3], ["1234", "0", "0"])
    equal(identity("1234:77")[:3], ["1234", "77", "77"])
    lines = {line.split(":")[0]: line.split(":") for line in place.link.read("/etc/passwd")[1].decode().splitlines()}
    if "nobody" in lines:
        equal(identity("nobody")[:2], lines["nobody"][2:4])
        equal(identity(lines["nobody"][2])[3].split()[1:], ["nobody"])


def case_one_gib_out(place):
    megabytes = 1024 if place.is_guest else 256
    session = place.link.exec(["head", "-c", str(megabytes * MIB), "/dev/zero"], window=MIB)
    session.keeps = False
    begin = time.monotonic()
    equal(session.run(limit=300), (0, 0))
    equal(session.counts[1], megabytes * MIB)
    print(f"# stdout: {megabytes / (time.monotonic() - begin):.0f} MiB/s")


def case_bytes_both_ways(place):
    data = random.Random(1).randbytes(16 * MIB)
    session = place.link.exec(["cat"])
    place.link.until(lambda: session.started)
    begin = time.monotonic()
    session.write(data, end=True)
    equal(session.wait().fields, {"code": 0, "signal": 0})
    print(f"# through cat: {16 / (time.monotonic() - begin):.0f} MiB/s")
    equal(hashlib.sha256(session.out).digest(), hashlib.sha256(data).digest())


def case_a_program_that_does_not_read(place):
    session = place.link.exec(["sleep", "1"])
    place.link.until(lambda: session.started)
    while session.granted > 0:
        part = min(session.granted, 65536)
        session.granted -= part
        place.link.send("data", session.id, stream=0, bytes=bytes(part))
        place.link.turn(0.01)
    equal(place.link.ask("ping").kind, "done")
    session.signal(15)
    equal(session.wait().fields["signal"], 15)
    session = place.link.shell("exec 0<&-; sleep 0.3; echo end")  # what nobody reads is dropped
    place.link.until(lambda: session.started)
    time.sleep(0.1)
    session.write(bytes(MIB), end=True)
    equal(session.wait().fields["code"], 0)
    equal(session.out, b"end\n")


def case_a_client_that_does_not_read(place):
    flood = place.link.exec(["cat", "/dev/zero"], window=100_000)
    flood.reads = False
    place.link.until(lambda: flood.counts[1] == 100_000)
    for _ in range(10):
        equal(place.link.exec(["true"]).run(limit=10), (0, 0))
    equal(flood.counts[1], 100_000)
    flood.give(1)
    place.link.until(lambda: flood.counts[1] == 200_000)
    flood.signal(9)
    time.sleep(0.3)
    equal((place.link.ask("ping").kind, flood.last), ("done", None))  # what it has said is still to be read
    flood.reads = True
    flood.give(1)
    equal(flood.wait().fields, {"code": 0, "signal": 9})


def case_floods_share(place):
    floods = [place.link.exec(["cat", "/dev/zero"]) for _ in range(20)]
    for flood in floods:
        flood.keeps = False
    end = time.monotonic() + 2
    place.link.until(lambda: time.monotonic() > end)
    begin = time.monotonic()
    equal(place.link.exec(["true"]).run(limit=10), (0, 0))
    print(f"# true beside 20 floods: {(time.monotonic() - begin) * 1000:.1f} ms")
    counts = [flood.counts[1] for flood in floods]
    check(min(counts) * 5 > max(counts), f"shares from {min(counts)} to {max(counts)}")
    for flood in floods:
        flood.cancel()
    for flood in floods:
        equal(flood.wait().fields["signal"], 9)


def case_background_children(place):
    begin = time.monotonic()
    session = place.link.shell("sleep 5 & echo said")
    equal(session.run(), (0, 0))
    equal(session.out, b"said\n")
    check(time.monotonic() - begin < 3, "it has waited for the child")
    session = place.link.shell("(sleep 0.02; echo late) & head -c 60000 /dev/zero")  # it comes, though a little late
    session.run()
    equal(len(session.out), 60005)


def case_signals_reach_the_group(place):
    session = place.link.shell("trap 'echo got; exit 3' TERM; sleep 100 & wait; wait")
    place.link.until(lambda: session.started)
    time.sleep(0.2)
    session.signal(15)
    equal(session.run(), (3, 0))
    equal(session.out, b"got\n")


def case_cancel_ends_all_of_it(place):
    mark = f"7{random.randrange(10**6):06}"
    session = place.link.shell(f"(trap '' HUP; sleep {mark} & sleep {mark}) & setsid true; sleep {mark}")
    place.link.until(lambda: session.started)
    time.sleep(0.3)
    session.cancel()
    equal(session.wait().fields["signal"], 9)
    time.sleep(0.2)
    left = place.link.shell(f"for file in $(grep -l {mark} /proc/[0-9]*/cmdline 2>/dev/null); do"
                            " grep -l sleep ${file%/*}/comm; done 2>/dev/null")  # the search has the mark in it, too
    left.run()
    equal(left.out, b"")


def case_terminals(place):
    link = place.link
    session = link.shell("tty; stty size; read line; echo got $line; cat; echo end", flags=A.TERMINAL, rows=33, columns=101)
    link.until(lambda: b"33 101" in session.out)
    check(session.out.startswith(b"/dev/pts/"), session.out)
    session.write(b"word\nhalf", end=True)  # ^D twice: once for the line, once for the end
    equal(session.run(), (0, 0))
    check(b"got word" in session.out and session.out.endswith(b"end\r\n"), session.out)
    equal(session.ended_streams, {1})
    session = link.shell("trap 'stty size; exit 4' WINCH; echo ready; while :; do sleep 0.1; done", flags=A.TERMINAL)
    link.until(lambda: b"ready" in session.out)
    session.resize(50, 60)
    equal(session.run(), (4, 0))
    check(b"50 60" in session.out, session.out)
    session = link.shell("sleep 100", flags=A.TERMINAL)
    link.until(lambda: session.started)
    time.sleep(0.1)
    session.write(b"\3")
    equal(session.run(), (0, 2))
    session = link.shell("head -c 300000 /dev/zero | tr '\\0' x; sleep 50 &", flags=A.TERMINAL)
    equal(session.run(), (0, 0))
    equal(len(session.out), 300_000)


def case_many_at_once(place):
    begin = time.monotonic()
    sessions = [place.link.shell(f"echo {i}; cat; exit {i % 200}") for i in range(200)]
    for i, session in enumerate(sessions):
        equal(session.run(b"%d!" % i), (i % 200, 0))
        equal(session.out, b"%d\n%d!" % (i, i))
    print(f"# 200 programs at once: {time.monotonic() - begin:.2f} s")


def case_too_many(place):
    sessions = [place.link.begin("connect", window=1, port=0, target=b"/no/such") for _ in range(100)]
    for session in sessions:
        failed(session.wait(), "connect", errno.ENOENT)
    number = 200 if not place.is_guest else 1100  # processes of this machine are not ours alone
    sessions = [place.link.exec(["sleep", "1000"], window=10) for _ in range(number)]
    place.link.until(lambda: all(session.started or session.last for session in sessions), 120)
    refused = [session for session in sessions if session.last]
    for session in refused:
        check(session.last.fields["stage"] in (A.STAGES["limit"], A.STAGES["fork"]), session.last)
    check(len(sessions) - len(refused) == min(number, 1024) or place.is_guest)
    for session in sessions:
        if not session.last:
            session.cancel()
    for session in sessions:
        session.wait(120)
    equal(place.link.exec(["true"]).run(), (0, 0))


def case_clients_that_go(place):
    link = place.link
    bound = link.exec(["sleep", "1000"], number=5 << 16 | 1)
    free = link.shell(f"sleep 0.5; yes | head -c 1000000; echo done >{place.scratch}/detached", flags=A.DETACHED,
                      number=5 << 16 | 2, window=1000)
    other = link.exec(["sleep", "1000"], number=6 << 16 | 1)
    link.until(lambda: bound.started and free.started and other.started)
    link.send("gone", 5 << 16)
    link.until(lambda: link.read(f"{place.scratch}/detached")[1] == b"done\n", 10)
    session = link.shell(f"kill -0 {bound.started['pid']} 2>/dev/null && grep -q Z /proc/{bound.started['pid']}/status")
    check(session.run()[0] != 0, "the program of a client that is gone still runs")
    for session in (bound, free):  # at once, and nothing after it: the client's number may go to somebody else
        failed(session.last, "state", errno.ECANCELED)
    check(other.last is None)
    other.cancel()
    equal(other.wait().kind, "ended")


def case_requests_without_end(place):
    """Many more than the agent keeps, each with an answer that is far longer."""
    link, count, begin = place.link, 60000, time.monotonic()
    path = f"{place.scratch}/l"
    session = link.exec(["ln", "-s", "x" * 4000, path])
    equal(session.run(), (0, 0))
    sessions = [link.begin("stat", flags=0, path=path.encode()) for _ in range(count)]
    for session in sessions:
        equal(session.wait().kind, "entry")
    print(f"# {count} answers of 4 KiB: {time.monotonic() - begin:.2f} s")


# ---- files


def case_files_of_no_type(place):
    link = place.link
    session = link.begin("list", path=b"/proc/self/fd")
    equal(session.wait().kind, "done")
    names = [entry["name"] for entry in session.entries if entry["link"].startswith(b"anon_inode:")]
    check(names, "the agent has no epoll")
    for name in names:
        answer = link.ask("stat", flags=1, path=b"/proc/self/fd/" + name)
        check(answer.kind == "entry" or answer.fields["os_error"] == errno.EOVERFLOW, answer)
    equal(link.ask("ping").kind, "done")


def case_files(place):
    link, path = place.link, place.scratch + "/file ä"
    data = random.Random(2).randbytes(3 * MIB + 5)
    equal(link.write(path, data, mode=0o600).kind, "done")
    last, read = link.read(path)
    equal((last.kind, read == data), ("done", True))
    equal(link.read(path, offset=MIB, length=1000)[1], data[MIB:MIB + 1000])
    equal(link.read(path, offset=len(data))[1], b"")
    entry = link.ask("stat", flags=0, path=path.encode()).fields
    equal((stat.S_IMODE(entry["mode"]), entry["size"], entry["name"]), (0o600, len(data), b""))
    check(abs(entry["mtime_s"] - time.time()) < 100, "the time is wrong")
    equal(link.write(path, b"+", flags=8).kind, "done")
    equal(link.read(path, offset=len(data) - 1)[1], data[-1:] + b"+")
    equal(link.write(path, b"short").kind, "done")
    equal(link.read(path)[1], b"short")
    failed(link.write(path, b"", flags=16), "open", errno.EEXIST)
    failed(link.read(place.scratch)[0], "open", errno.EISDIR)
    failed(link.read("/no/such")[0], "open", errno.ENOENT)
    last = link.write("/dev/full", b"x")
    failed(last, "write", errno.ENOSPC)


def case_a_reader_that_stops(place):
    link, path = place.link, place.scratch + "/large"
    equal(link.write(path, bytes(MIB)).kind, "done")
    session = link.begin("read", 1000, window=1000, offset=0, length=A.ALL, path=path.encode())
    session.reads = False
    link.until(lambda: session.counts[1] == 1000)
    begin = time.process_time(), time.monotonic()
    equal(link.ask("ping").kind, "done")
    session.cancel()
    failed(session.wait(), "state", errno.ECANCELED)


def case_folders(place):
    link, top = place.link, place.scratch + "/folders"
    failed(link.ask("make", flags=0, mode=0o700, path=f"{top}/a/b".encode()), "file", errno.ENOENT)
    equal(link.ask("make", flags=2, mode=0o1777, path=f"{top}/a/b".encode()).kind, "done")
    equal(link.ask("make", flags=2, mode=0o700, path=f"{top}/a/b".encode()).kind, "done")
    equal(stat.S_IMODE(link.ask("stat", flags=0, path=f"{top}/a/b".encode()).fields["mode"]), 0o1777)
    failed(link.ask("make", flags=0, mode=0o700, path=f"{top}/a/b".encode()), "file", errno.EEXIST)
    session = link.shell(f"cd {top}; for i in $(seq 1000); do : >f$i; done; ln -s a/b link; ln -s /nowhere dangling; mkfifo pipe")
    equal(session.run(), (0, 0))
    listing = link.begin("list", path=top.encode())
    equal(listing.wait().kind, "done")
    found = {entry["name"]: entry for entry in listing.entries}
    equal(len(found), 1004)
    equal((found[b"link"]["link"], stat.S_ISLNK(found[b"link"]["mode"])), (b"a/b", True))
    equal(link.ask("stat", flags=0, path=f"{top}/link".encode()).fields["link"], b"a/b")
    check(stat.S_ISDIR(link.ask("stat", flags=1, path=f"{top}/link".encode()).fields["mode"]))
    failed(link.ask("stat", flags=1, path=f"{top}/dangling".encode()), "file", errno.ENOENT)
    failed(link.begin("list", path=f"{top}/f1".encode()).wait(), "open", errno.ENOTDIR)
    equal(link.ask("rename", path=f"{top}/f1".encode(), to=f"{top}/a/g".encode()).kind, "done")
    equal(link.ask("remove", flags=0, path=f"{top}/a/g".encode()).kind, "done")
    failed(link.ask("remove", flags=0, path=f"{top}/a".encode()), "file", errno.ENOTEMPTY)
    equal(link.write(place.scratch + "/kept", b"kept").kind, "done")
    session = link.shell(f"ln -s {place.scratch} {top}/a/out; mkdir -p {top}/" + "/".join(["d"] * 100))
    equal(session.run(), (0, 0))
    failed(link.begin("write", flags=0, mode=0, path=f"{top}/pipe".encode()).wait(), "open", errno.ENXIO)
    equal(link.ask("remove", flags=4, path=top.encode()).kind, "done")
    failed(link.ask("stat", flags=0, path=top.encode()), "file", errno.ENOENT)
    equal(link.read(place.scratch + "/kept")[1], b"kept")


def case_trees(place):
    link, top = place.link, place.scratch
    session = link.shell(f"cd {top}; mkdir -p tree/sub; echo one >tree/one; ln -s one tree/link; ln tree/one tree/two;"
                         f"truncate -s 10M tree/sparse; echo x >>tree/sparse; chmod 640 tree/one; mkfifo tree/sub/fifo")
    equal(session.run(), (0, 0))
    pull = link.begin("pull", 65536, window=65536, path=f"{top}/tree".encode())
    last = pull.wait()
    if last.kind == "failed" and last.fields["os_error"] == errno.ENOSYS:
        return
    equal(last.kind, "done")
    check(len(pull.out) < MIB, "holes were sent")
    push = link.begin("push", flags=0, path=f"{top}/copy".encode())
    link.until(lambda: push.started or push.last)
    push.write(pull.out, end=True)
    equal(push.wait().kind, "done")
    session = link.shell(f"cd {top}; diff -r --no-dereference tree/link copy/link && cmp tree/one copy/one && cmp tree/sparse"
                         f" copy/sparse && stat -c %a copy/one && stat -c %h copy/two && test -p copy/sub/fifo")
    equal((session.run(), session.out), ((0, 0), b"640\n2\n"))
    push = link.begin("push", flags=0, path=f"{top}/broken".encode())
    link.until(lambda: push.started or push.last)
    push.write(pull.out[:-20], end=True)
    failed(push.wait(), "write")


# ---- sockets


def case_sockets(place):
    link = place.link
    server = """
import socket, sys
unix = sys.argv[1] == 'unix'
family = socket.AF_UNIX if unix else socket.AF_INET6 if sys.argv[1] == '6' else socket.AF_INET
listener = socket.socket(family)
listener.bind(sys.argv[2] if unix else ('::1' if sys.argv[1] == '6' else '127.0.0.1', 0))
listener.listen()
print(0 if unix else listener.getsockname()[1], flush=True)
peer = listener.accept()[0]
total = b''
while data := peer.recv(65536): total += data
peer.sendall(total[::-1])
"""
    if link.exec(["python3", "-c", ""]).run() != (0, 0):
        print("# there is no python3")
        return
    data = random.Random(3).randbytes(300_000)
    for kind in ("4", "6", "unix"):
        path = f"{place.scratch}/socket"
        session = link.exec(["python3", "-c", server, kind, path])
        link.until(lambda session=session: b"\n" in session.out or session.last)
        check(session.last is None, session.err)
        port = int(session.out)
        stream = link.begin("connect", 100_000, window=100_000, port=port, target=path.encode() if kind == "unix" else b"")
        link.until(lambda stream=stream: stream.started or stream.last)
        check(stream.last is None, stream.last)
        stream.write(data, end=True)
        equal(stream.wait().kind, "done")
        equal(stream.out, data[::-1])
        equal(session.run(), (0, 0))
    failed(link.begin("connect", window=1, port=1, target=b"").wait(), "connect", errno.ECONNREFUSED)
    failed(link.begin("connect", window=1, port=1, target=b"a name").wait(), "connect", errno.EINVAL)


# ---- the agent itself


def case_heartbeats(place):
    seen = len(place.link.heartbeats)
    place.link.until(lambda: len(place.link.heartbeats) >= seen + 3, 5)
    (first, a), (last, b) = place.link.heartbeats[-2], place.link.heartbeats[-1]
    check(0.5 < last - first < 1.5 and 5e8 < b["uptime_ns"] - a["uptime_ns"] < 1.5e9)
    check(b["busy_ns"] >= a["busy_ns"] > 0 and b["total_bytes"] > b["available_bytes"] > 0 and b["processes"] > 0)


def case_misuse(place):
    link = place.link
    session = link.exec(["sleep", "1000"])
    link.until(lambda: session.started)
    session.granted = 1 << 30
    for _ in range(9):
        link.send("data", session.id, stream=0, bytes=bytes(65536))
    failed(session.wait(), "protocol")
    session = link.exec(["sleep", "1000"])
    link.until(lambda: session.started)
    link.send("credit", session.id, stream=1, bytes=MIB)
    failed(session.wait(), "protocol")
    for kind, fields in (("cancel", {}), ("signal", {"number": 9}), ("data", {"stream": 0, "bytes": b"x"}),
                         ("credit", {"stream": 1, "bytes": 1}), ("resize", {"rows": 1, "columns": 1})):
        link.send(kind, 0x7777, **fields)  # of no session: it may have just ended
    equal(link.ask("ping").kind, "done")


def case_round_trip(place):
    link, times = place.link, []
    for _ in range(200):
        begin = time.perf_counter()
        equal(link.exec(["/bin/true"]).run(), (0, 0))
        times.append(time.perf_counter() - begin)
    times.sort()
    print(f"# exec of true: median {times[100] * 1000:.2f} ms, best {times[0] * 1000:.2f} ms")
    begin = time.perf_counter()
    for _ in range(200):
        link.ask("ping")
    print(f"# ping: {(time.perf_counter() - begin) / 200 * 1e6:.0f} us")


def case_no_zombies(place):
    session = place.link.shell("(sh -c 'sleep 0.1 & exec sleep 0.05' &) ; exit 0")
    session.run()
    time.sleep(0.4)
    session = place.link.shell("grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l")
    session.run()
    check(not place.is_guest or session.out.strip() == b"0", session.out)


def case_clock(place):
    if not place.is_guest:
        return
    now = place.link.exec(["date", "+%s"])
    now.run()
    check(abs(int(now.out) - time.time()) < 3, "the guest's clock is wrong from the start")
    equal(place.link.ask("clock", unix_ns=1_000_000_000_000_000_000).kind, "done")
    now = place.link.exec(["date", "+%Y"])
    now.run()
    equal(now.out, b"2001\n")
    equal(place.link.ask("clock", unix_ns=time.time_ns()).kind, "done")


def case_hostname(place):
    if place.is_guest:
        session = place.link.exec(["cat", "/proc/sys/kernel/hostname"])
        session.run()
        check(session.out in (b"boxy\n", b"vial\n"), session.out)


def case_says_on_console(place):
    if place.is_guest:
        equal(place.link.shell("echo on the console >/dev/console").run(), (0, 0))


def case_shutdown(place):
    """The last one."""
    link = place.link
    equal(link.ask("remove", flags=4, path=place.scratch.encode()).fields, {})
    polite = link.shell("trap 'echo bye; exit 5' TERM; while :; do sleep 0.05; done")
    stubborn = link.shell("trap '' TERM; echo on; while :; do sleep 0.05; done")
    link.until(lambda: stubborn.out and polite.started)
    time.sleep(0.2)
    begin = time.monotonic()
    end = link.begin("shutdown", grace_ms=1000)
    equal(polite.run(), (5, 0))
    equal(polite.out, b"bye\n")
    failed(link.exec(["true"]).wait(), "state", errno.ESHUTDOWN)
    equal(stubborn.run(), (0, 9))
    equal(end.wait().kind, "done")
    check(0.9 < time.monotonic() - begin < 3, "the grace was not kept")
    if place.process:
        equal(place.process.wait(10), 0)


def case_malformed(place):
    """On an agent of its own: the end of it."""
    if place.is_guest:
        return
    for data in (b"\0" * 12, A.frame("done", 1, A.LAST), A.frame("ping", 0), A.frame("ping", 1) + b"\xff" * 12,
                 b"\xff\xff\xff\xff" + A.frame("ping", 1)[4:], A.frame("stat", 1, flags=0, path=b"/")[:-1] + b"x\0"):
        other = Place("here", sys.argv[2])
        session = other.link.exec(["sleep", "1000"])
        other.link.until(lambda session=session: session.started)
        other.link.sock.send(data)
        equal(other.process.wait(10), 0)
        check(not os.path.exists(f"/proc/{session.started['pid']}"), "its program still runs")
        shutil.rmtree(other.scratch, ignore_errors=True)
    other = Place("here", sys.argv[2])
    other.link.sock.close()
    equal(other.process.wait(10), 0)
    shutil.rmtree(other.scratch, ignore_errors=True)


def main():
    kind, where, names = sys.argv[1], sys.argv[2], sys.argv[3:]
    cases = {name[5:]: value for name, value in globals().items() if name.startswith("case_")}
    order = names or [name for name in cases if name not in ("shutdown",)] + ["shutdown"]
    place, bad = Place(kind, where), 0
    for number, name in enumerate(order, 1):
        begin = time.monotonic()
        try:
            cases[name](place)
            print(f"ok {number} - {name.replace('_', ' ')} # {time.monotonic() - begin:.2f} s", flush=True)
        except (AssertionError, TimeoutError, A.Wrong) as problem:
            bad += 1
            print(f"not ok {number} - {name.replace('_', ' ')}\n# {type(problem).__name__}: {problem}", flush=True)
            if place.link.is_closed:
                break
    if place.process and place.process.poll() is None:
        place.link.sock.close()
        bad += place.process.wait(10) != 0
    print(f"1..{len(order)}")
    return bad > 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    sys.exit(main())
