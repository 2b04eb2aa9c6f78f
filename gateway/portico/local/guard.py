"""Outlives whoever started the stack just long enough to end everything that belongs to it, even after `kill -9`.

Run as a process of its own by `portico.local.stack`, with a pipe as its standard input: the end of that pipe is the end
of its owner. It knows the stack's processes by the sessions that its owner tells it, and by a variable in their
environment, whose value is the folder of their logs. Either alone would not do: a process may leave its session, and a
process that sets its title, as Redis does, overwrites what others see of its environment.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

VARIABLE = "PORTICO_STACK"
GOODBYE = "the folder is taken care of"
SWEEP_SECONDS = 20.0


class Process(NamedTuple):
    """A live process (proc(5), stat); `started` tells it from a later one with the same pid."""

    pid: int
    parent: int
    group: int
    session: int
    started: int


def process(pid: int) -> Process | None:
    """The process of that pid; None when there is none, or only a zombie."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    parent, group_id, session = map(int, rest[:3])
    return None if state in "ZX" else Process(pid, parent, group_id, session, int(rest[18]))


def processes() -> list[Process]:
    """All live processes of this machine."""
    return [found for name in os.listdir("/proc") if name.isdigit() and (found := process(int(name)))]


def group(leader: int) -> list[int]:
    """Pids of the live processes in the process group that `leader` leads or led."""
    return [found.pid for found in processes() if found.group == leader]


def members(stack: str, leaders: Mapping[int, int]) -> list[int]:
    """Pids of the stack's live processes, this one left out. `leaders` are session leaders and when they started."""
    mark = f"{VARIABLE}={stack}".encode()
    alive = processes()
    # A pid is given again only when nothing is left of its session.
    given_again = {found.pid for found in alive if leaders.get(found.pid, found.started) != found.started}
    sessions = leaders.keys() - given_again
    return [
        found.pid
        for found in alive
        if found.pid != os.getpid() and (found.session in sessions or mark in environment(found.pid))
    ]


def environment(pid: int) -> list[bytes]:
    """The variables a process was started with; none where it is gone or another user's."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def sweep(stack: str, leaders: Mapping[int, int]) -> None:
    """Kills the members until there are none, twice in a row since one may just be starting another."""
    empty_looks, deadline = 0, time.monotonic() + SWEEP_SECONDS
    while empty_looks < 2 and time.monotonic() < deadline:
        found = members(stack, leaders)
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        empty_looks = 0 if found else empty_looks + 1
        time.sleep(0.05)


def main() -> None:
    """Reads pids of session leaders, a line each, until the owner ends; then sweeps, and tidies up for an owner that
    did not say goodbye.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    stack, leaders, goodbye = sys.argv[1], {}, False
    for line in map(str.strip, sys.stdin):
        goodbye = line == GOODBYE
        if line.isdigit() and (leader := process(int(line))):
            leaders[leader.pid] = leader.started
    sweep(stack, leaders)
    if not goodbye:
        shutil.rmtree(stack, ignore_errors=True)


if __name__ == "__main__":
    main()
