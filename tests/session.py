#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Drives a command on a terminal of its own, step by step.

    session.py STEP... -- COMMAND [ARGUMENT...]

Steps, in their order:
    until=TEXT     wait until the command has printed it, after what earlier steps have seen
    send=TEXT      type it (backslash escapes: \\n \\x03)
    size=ROWSxCOLS give the terminal another size; as the first step, the one that the command finds
    signal=NAME    to the command itself
    pause=SECONDS  for what cannot be seen from here
    raw            the terminal must be raw
    cooked         it must not be

Everything printed goes to standard output. Afterwards the terminal must be as it was before. The exit status is the
command's (128+N when signal N killed it), 99 when a step failed.
"""

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time

LIMIT = float(os.environ.get("SESSION_LIMIT", "20"))


def fail(text):
    sys.stdout.flush()
    print(f"\nsession: {text}")
    sys.exit(99)


class Session:
    def __init__(self, command, size):
        self.master, self.slave = os.openpty()
        self.resize(size)
        self.before = termios.tcgetattr(self.slave)
        self.unseen = b""
        self.process = subprocess.Popen(command, stdin=self.slave, stdout=self.slave, stderr=self.slave,
                                        preexec_fn=self.take, start_new_session=True)

    def take(self):
        """In the child: this is its controlling terminal."""
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

    def resize(self, text):
        rows, columns = map(int, text.split("x"))
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds):
        if not select.select([self.master], [], [], max(seconds, 0))[0]:
            return False
        data = os.read(self.master, 65536)
        sys.stdout.buffer.write(data)
        self.unseen += data
        return True

    def until(self, text):
        deadline = time.monotonic() + LIMIT
        wanted = text.encode()
        while wanted not in self.unseen:
            if not self.read(deadline - time.monotonic()):
                fail(f"{text!r} did not come")
        self.unseen = self.unseen[self.unseen.index(wanted) + len(wanted):]

    def await_raw(self, is_wanted):
        deadline = time.monotonic() + LIMIT
        while bool(termios.tcgetattr(self.slave)[3] & termios.ICANON) == is_wanted:
            if time.monotonic() > deadline:
                fail("the terminal does not become " + ("raw" if is_wanted else "cooked"))
            time.sleep(0.01)

    def step(self, step):
        kind, _, value = step.partition("=")
        if kind == "until":
            self.until(value)
        elif kind == "send":
            os.write(self.master, value.encode().decode("unicode_escape").encode("latin-1"))
        elif kind == "size":
            self.resize(value)
        elif kind == "signal":
            self.process.send_signal(getattr(signal, value))
        elif kind == "pause":
            time.sleep(float(value))
        elif kind in ("raw", "cooked"):
            self.await_raw(kind == "raw")
        else:
            fail(f"there is no step {step}")

    def finish(self):
        deadline = time.monotonic() + LIMIT
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                self.process.kill()
                fail("the command does not end")
            self.read(0.05)
        while self.read(0.05):
            pass
        deadline = time.monotonic() + 1
        while termios.tcgetattr(self.slave) != self.before:
            if time.monotonic() > deadline:
                fail("the terminal is not as it was")
            time.sleep(0.01)
        return self.process.returncode if self.process.returncode >= 0 else 128 - self.process.returncode


def main():
    split = sys.argv.index("--")
    steps = sys.argv[1:split]
    has_size = steps[:1] != [] and steps[0].startswith("size=")
    session = Session(sys.argv[split + 1:], steps.pop(0).partition("=")[2] if has_size else "24x80")
    for step in steps:
        session.step(step)
    sys.exit(session.finish())


if __name__ == "__main__":
    main()
