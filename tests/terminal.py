#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a command on a terminal of its own, ends it in every way there is, and looks at the terminal afterwards.

    terminal.py READY COMMAND [ARGUMENT...]

READY is what the guest prints once it has its console. From then on the terminal has to be raw, and ^C is the guest's, not
a signal. Then the command is ended: by SIGTERM, SIGINT, SIGKILL, SIGKILL to its whole process group, and by the terminal's
own end. Each time the command must be gone, and the terminal must be as it was. How soon that is, other tests measure:
here the machine may be busy.
"""

import fcntl
import glob
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time

LIMIT = 30


def fail(text, output=b""):
    sys.exit(f"terminal: {text}\n{output.decode(errors='replace')}")


def threads(pid):
    """Where the threads of a process are."""
    text = ""
    for name in ("comm", "wchan", "syscall", "status"):
        for path in glob.glob(f"/proc/{pid}/task/*/{name}"):
            with open(path, encoding="utf-8", errors="replace") as file:
                text += f"{path}: {file.read()}\n"
    return text.encode()


def wait_for(what, condition):
    deadline = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > deadline:
            fail(what)
        time.sleep(0.01)


class Terminal:
    def __init__(self, command):
        self.master, self.slave = os.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 41, 97, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.output = b""
        self.process = subprocess.Popen(command, stdin=self.slave, stdout=self.slave, stderr=self.slave,
                                        preexec_fn=self.take, start_new_session=True)

    def take(self):
        """In the child: this is its controlling terminal, and it is in the foreground."""
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

    def read_until(self, text):
        deadline = time.monotonic() + LIMIT
        while text not in self.output:
            if not select.select([self.master], [], [], max(deadline - time.monotonic(), 0))[0]:
                fail(f"{text} did not come", self.output)
            self.output += os.read(self.master, 4096)

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def is_restored(self):
        return termios.tcgetattr(self.slave) == self.before

    def close(self):
        for fd in (self.master, self.slave):
            try:
                os.close(fd)
            except OSError:
                pass


def end_by(how, ready, command):
    terminal = Terminal(command)
    process = terminal.process
    terminal.read_until(ready)
    wait_for(f"{how}: the terminal does not become raw", terminal.is_raw)
    os.write(terminal.master, b"\x03")
    time.sleep(0.05)
    if process.poll() is not None:
        fail(f"{how}: ^C ended it", terminal.output)
    if how == "SIGTERM":  # a shell had the terminal while the command was stopped
        process.send_signal(signal.SIGSTOP)
        termios.tcsetattr(terminal.slave, termios.TCSANOW, terminal.before)
        process.send_signal(signal.SIGCONT)
        wait_for(f"{how}: the terminal does not become raw again", terminal.is_raw)
    expected = None
    if how == "hangup":
        os.close(terminal.slave)
        os.close(terminal.master)
    elif how == "group":
        os.killpg(process.pid, signal.SIGKILL)
        expected = -signal.SIGKILL
    else:
        number = getattr(signal, how)
        process.send_signal(number)
        expected = -number if number == signal.SIGKILL else 128 + number
    try:
        status = process.wait(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        where = threads(process.pid)
        process.kill()
        fail(f"{how}: it does not end", where)
    if expected is not None and status != expected:
        fail(f"{how}: exit status {status}, expected {expected}")
    if how != "hangup":
        wait_for(f"{how}: the terminal is not as it was", terminal.is_restored)
    terminal.close()
    print(f"{how}: fine")


def main():
    ready, command = sys.argv[1].encode(), sys.argv[2:]
    for how in ("SIGTERM", "SIGINT", "SIGHUP", "SIGKILL", "group", "hangup"):
        end_by(how, ready, command)


if __name__ == "__main__":
    main()
