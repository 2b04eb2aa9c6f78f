"""Outlives whoever started the stack just long enough to end everything that belongs to it, even after `kill -9`.

Run as a process of its own by `portico.local.stack`, with a pipe as its standard input: the end of that pipe is the end
of its owner. It knows the stack's processes by a variable in their environment, which grandchildren have too. Its value
is the folder of their logs.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

VARIABLE = "PORTICO_STACK"
GOODBYE = b"the folder is taken care of"
SWEEP_SECONDS = 20.0


def members(stack: str) -> list[int]:
    """Pids of the live processes started with `PORTICO_STACK=<stack>`, without this one (proc(5), environ)."""
    mark = f"{VARIABLE}={stack}".encode()
    return [pid for pid in pids() if pid != os.getpid() and mark in environment(pid) and pgrp(pid) is not None]


def pids() -> list[int]:
    """All processes of this machine."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def environment(pid: int) -> list[bytes]:
    """The variables a process was started with; none where it is gone or another user's."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def group(leader: int) -> list[int]:
    """Pids of the live processes in the process group that `leader` leads or led."""
    return [pid for pid in pids() if pgrp(pid) == leader]


def pgrp(pid: int) -> int | None:
    """The process group of a live process (proc(5), stat); None when it has ended, be it as a zombie."""
    try:
        state, _, group_id = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return None
    return None if state in "ZX" else int(group_id)


def sweep(stack: str) -> int:
    """Kills the members until there are none, twice in a row since one may just be starting another; how many died."""
    killed: set[int] = set()
    empty_looks, deadline = 0, time.monotonic() + SWEEP_SECONDS
    while empty_looks < 2 and time.monotonic() < deadline:
        found = members(stack)
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed.add(pid)
        empty_looks = 0 if found else empty_looks + 1
        time.sleep(0.05)
    return len(killed)


def main() -> None:
    """Waits for the end of standard input, then sweeps, and tidies up too where the owner did not say goodbye."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    goodbye = b""
    while received := os.read(0, 1024):
        goodbye += received
    sweep(sys.argv[1])
    if goodbye != GOODBYE:
        shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
