"""A gateway that is told to stop answers what it has, and ends then."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

from portico.edges import draining

GATEWAY = Path(draining.__file__).parents[2]

# The process of a server, started with the signal blocked as `edges.pyvoy.serve` does: it prints what happens to it.
SERVER = """
import asyncio, os, signal, subprocess, sys
from portico.edges import draining
draining.NOTICE, draining.LONGEST = 0.1, float(sys.argv[1])
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

def stop_and_go_on():
    # The wait for the signal has to be over when the process goes on.
    subprocess.run(["sh", "-c", f"kill -STOP {os.getpid()}; sleep 0.4; kill -CONT {os.getpid()}"], check=True)

async def main():
    mine, ended = draining.Draining(under_way=1), asyncio.Event()
    async with mine.on(signal.SIGTERM, ended.set):
        if sys.argv[2] == "stopped":
            await asyncio.to_thread(stop_and_go_on)
            await asyncio.sleep(0.5)
            print("drains" if mine.begun else "goes on", flush=True)
            mine.under_way = 0
        os.kill(os.getpid(), signal.SIGTERM)
        while not mine.begun:
            await asyncio.sleep(0.01)
        if sys.argv[2] == "answer":
            await asyncio.sleep(0.5)
            print("ended" if ended.is_set() else "waits", flush=True)
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
    assert run("3600", "answer") == "waits\nended with 0\n"


def test_it_gives_up_what_takes_too_long() -> None:
    """A call that never ends keeps the gateway for a bounded time."""
    assert run("0.5", "hang") == "ended with 1\n"


def test_it_goes_on_after_it_was_stopped() -> None:
    """A process that a debugger, or Ctrl-Z, holds up is not told to end by that."""
    assert run("3600", "stopped") == "goes on\nended with 0\n"


async def test_a_signal_that_is_not_blocked_is_the_servers() -> None:
    """Under a server that handles signals itself, nothing waits for them."""
    async with draining.Draining().on(signal.SIGUSR2, lambda: None):
        assert "draining" not in {thread.name for thread in threading.enumerate()}
