"""A gateway that is told to stop answers what it has, and ends then."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from portico.edges import draining

GATEWAY = Path(draining.__file__).parents[2]

# The process of a server, started with the signal blocked as `edges.pyvoy.serve` does: it prints what happens to it.
SERVER = """
import asyncio, os, signal, sys
from portico.edges import draining
draining.NOTICE, draining.LONGEST = 0.2, 1.0
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

async def main():
    mine, ended = draining.Draining(under_way=1), asyncio.Event()
    async with mine.on(signal.SIGTERM, ended.set):
        os.kill(os.getpid(), signal.SIGTERM)
        while not mine.begun:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        print("waits" if not ended.is_set() else "ended", flush=True)
        if sys.argv[1] == "answer":
            mine.under_way = 0
        await ended.wait()
        print("ended with", mine.under_way, flush=True)

asyncio.run(asyncio.wait_for(main(), 20))
"""


def run(*arguments: str) -> str:
    """What the process of a server says."""
    command = [sys.executable, "-c", SERVER, *arguments]
    done = subprocess.run(command, env={"PYTHONPATH": str(GATEWAY)}, capture_output=True, text=True, timeout=40)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_ends_when_nothing_is_under_way() -> None:
    """The signal does not end the process, and the last answer does."""
    assert run("answer") == "waits\nended with 0\n"


def test_it_gives_up_what_takes_too_long() -> None:
    """A call that never ends keeps the gateway for a bounded time."""
    assert run("hang") == "waits\nended with 1\n"


async def test_a_signal_that_is_not_blocked_is_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a server that handles signals itself, nothing waits for them."""
    monkeypatch.setattr(signal, "sigtimedwait", lambda *_: pytest.fail("it waits"))
    async with draining.Draining().on(signal.SIGUSR2, lambda: None):
        pass
