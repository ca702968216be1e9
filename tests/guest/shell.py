#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A person at a guest's shell, on a terminal: job control, ^C, ^Z, the window's size and its changes, and the way out.

    shell.py COMMAND [ARGUMENT...]      the command runs a shell in a guest, on this terminal

Each step types a line and waits for what has to come. The exit status is 0 when all came, the shell's own exit status
was passed on, and the terminal is as it was.
"""

import fcntl
import os
import select
import struct
import subprocess
import sys
import termios
import time

LIMIT = 90

# What is typed, and what has to come then. The echo of a line must not match: so results are computed.
STEPS = [
    ("tty; echo $((40 + 2)) ready", "42 ready"),
    ("stty size", "41 97"),
    ("sleep 1000; echo interrupted $((1 + 1))", None),
    ("\x03", ""),
    ("echo $((2 + 1)) after", "3 after"),
    ("sleep 1000", None),
    ("\x1a", "Stopped"),
    ("jobs; echo $((2 + 2)) jobs", "4 jobs"),
    ("bg; echo $((2 + 3)) bg", "5 bg"),
    ("kill %1; wait; echo $((3 + 3)) killed", "6 killed"),
    ("read -r line; echo heard ${#line}", None),
    ("twelve bytes", "heard 12"),
    ("cat", None),
    ("again", "again\r\nagain"),
    ("\x04", ""),
    ("echo $((3 + 4)) cat", "7 cat"),
    ("trap 'echo winch $((4 + 4))' WINCH; echo $((4 + 5)) trap", "9 trap"),
    ("sleep 1000 & wait; echo $((5 + 5)) waited", None),  # at its prompt the shell would keep the signal to itself
    (None, "winch 8\r\n10 waited"),
    ("kill %1; stty size", "30 111"),
]


class Shell:
    def __init__(self, command):
        self.master, self.slave = os.openpty()
        self.resize(41, 97)
        self.before = termios.tcgetattr(self.slave)
        self.output = b""
        self.process = subprocess.Popen(command, stdin=self.slave, stdout=self.slave, stderr=self.slave,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), start_new_session=True)

    def resize(self, rows, columns):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def fail(self, text):
        self.process.kill()
        sys.exit(f"shell: {text}\n{self.output.decode(errors='replace')}")

    def wait_for(self, text, start):
        deadline = time.monotonic() + LIMIT
        while text.encode() not in self.output[start:]:
            if not select.select([self.master], [], [], max(deadline - time.monotonic(), 0))[0]:
                self.fail(f"'{text}' did not come")
            self.output += os.read(self.master, 4096)

    def type(self, text):
        start = len(self.output)
        os.write(self.master, text.encode() + (b"" if len(text) == 1 else b"\r"))
        return start


def main():
    shell = Shell(sys.argv[1:])
    shell.wait_for("# ", 0)
    for line, answer in STEPS:
        if line is None:
            start = len(shell.output)
            shell.resize(30, 111)
        else:
            start = shell.type(line)
        if answer is None:
            time.sleep(0.5)  # the program has to be in the foreground before ^C
        elif answer == "":
            shell.wait_for("# ", start)
        else:
            shell.wait_for(answer, start)
    shell.type("exit 7")
    try:
        status = shell.process.wait(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        shell.fail("it does not end")
    if status != 7:
        shell.fail(f"exit status {status}, expected 7")
    if termios.tcgetattr(shell.slave) != shell.before:
        shell.fail("the terminal is not as it was")
    print(f"{len(STEPS)} steps: fine")


if __name__ == "__main__":
    main()
