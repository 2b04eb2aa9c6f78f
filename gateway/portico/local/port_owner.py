"""Names the process that listens on a TCP port, from Linux's /proc; asked by the preflight when a port is taken."""

from __future__ import annotations

import os
from pathlib import Path

LISTENING = "0A"
PROC = Path("/proc")


def owner(port: int) -> str | None:
    """`name (pid N: command line)` of the listener on `port`; None where /proc does not tell (another user's)."""
    inodes = listening_inodes(port)
    if not inodes:
        return None
    for process in PROC.glob("[0-9]*"):
        if inodes & open_sockets(process):
            return described(process)
    return None


def listening_inodes(port: int) -> set[str]:
    """Inodes of the sockets that listen on `port`, whatever the address (proc(5), /proc/net/tcp)."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(fields[9])
    return inodes


def open_sockets(process: Path) -> set[str]:
    """Inodes of the sockets that a process holds; none where it is gone or not ours to look at."""
    inodes = set()
    try:
        for descriptor in (process / "fd").iterdir():
            target = os.readlink(str(descriptor))
            if target.startswith("socket:["):
                inodes.add(target[len("socket:[") : -1])
    except OSError:
        pass
    return inodes


def described(process: Path) -> str | None:
    """A process for a person to recognise."""
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        name = (process / "comm").read_text().strip()
    except OSError:
        return None
    command = " ".join(word for word in words if word)
    if len(command) > 100:
        command = command[:97] + "..."
    return f"{name} (pid {process.name}: {command})"
