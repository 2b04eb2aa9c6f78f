"""The command that `make run` ends in: what it prints is real, and nothing of it stays, however it ends."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portico.local import demo, guard, layout, readiness
from portico.local.addresses import free_ports
from portico.local.guard import Process
from portico.local.stack import Stack

PARTS = 5
STOP_SECONDS = 60.0


class Command:
    """A `portico local` in a process group of its own, as a shell makes one for a foreground job."""

    def __init__(self, *arguments: str) -> None:
        (self.port,) = free_ports(1)
        command = [str(layout.GATEWAY_PYTHON), "-m", "portico", "local", "--port", str(self.port), *arguments]
        self.process = subprocess.Popen(
            command,
            cwd=layout.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output = ""

    @property
    def scratch(self) -> Path:
        """The folder of its logs, by which its processes can be told from others."""
        self.read_until("Logs: ")
        return Path(self.output.partition("Logs: ")[2].split()[0])

    def read_until(self, text: str) -> str:
        """The output so far, which has `text` in it."""
        assert self.process.stdout is not None
        while text not in self.output:
            line = self.process.stdout.readline()
            assert line, f"it ended before it said {text!r}:\n{self.output}"
            self.output += line
        return self.output

    def family(self) -> set[Process]:
        """Its live descendants."""
        found = {self.process.pid: guard.process(self.process.pid)}
        alive = guard.processes()
        while True:
            more = {one.pid: one for one in alive if one.parent in found and one.pid not in found}
            if not more:
                return {one for pid, one in found.items() if one and pid != self.process.pid}
            found |= more

    def end(self) -> int:
        """Ctrl-C; the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.output += self.process.communicate(timeout=STOP_SECONDS)[0]
        return self.process.returncode


@pytest.fixture
def start() -> Iterator[Callable[..., Command]]:
    """Starts commands, and leaves nothing of them after the test."""
    started: list[Command] = []

    def begin(*arguments: str) -> Command:
        started.append(Command(*arguments))
        return started[-1]

    yield begin
    for command in started:
        command.process.kill()
        command.process.communicate()


def left(family: set[Process]) -> set[Process]:
    """Those that still live; a later process with the same pid is not one of them."""
    return {one for one in family if (now := guard.process(one.pid)) and now.started == one.started}


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Fails the test when the condition does not hold within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_it_shows_real_predictions_serves_and_stops_without_a_trace(start: Callable[..., Command]) -> None:
    """Every kind of call is answered, a miss is followed by a hit, and Ctrl-C leaves neither a process nor a file."""
    command = start()
    output = command.read_until("Serving on ")
    assert "2 of 2 ready" in output
    for call in demo.calls(command.port, curl=True):
        assert call.heading in output
    assert "That call failed" not in output
    assert re.findall(r"x-cache: (HIT|MISS)", output)[-2:] == ["MISS", "HIT"]
    assert f"http://127.0.0.1:{command.port} (REST and gRPC)" in output
    family, scratch = command.family(), command.scratch
    assert len(family) > PARTS
    assert command.end() == 0
    assert left(family) == set()
    assert not scratch.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_start_can_be_interrupted(number: signal.Signals, start: Callable[..., Command]) -> None:
    """A signal in the middle of the start stops what has been started by then, within its bounds."""
    command = start("--no-demo")
    scratch = command.scratch
    wait_for(lambda: len(command.family()) > PARTS, 60, "the parts did not start")
    family = command.family()
    command.process.send_signal(number)
    output, _ = command.process.communicate(timeout=STOP_SECONDS)
    assert command.process.returncode == 0
    assert "Traceback" not in output
    assert left(family) == set()
    assert not scratch.exists()


def test_kill_9_leaves_no_process(start: Callable[..., Command]) -> None:
    """Even what could not clean up takes every server and every worker of theirs with it."""
    command = start("--no-demo")
    command.read_until("Serving on ")
    family = command.family()
    assert len(family) > PARTS + 1, "the guard, and TorchServe's worker"
    command.process.kill()
    wait_for(lambda: not left(family), STOP_SECONDS, "processes are left")
    wait_for(lambda: not command.scratch.exists(), STOP_SECONDS, "its folder is left")


def test_a_port_that_is_taken_after_all_is_named(start: Callable[..., Command]) -> None:
    """When somebody takes the port between the preflight and the start, the error names the port and the holder."""
    command = start("--no-demo")
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", command.port))
        holder.listen()
        output, _ = command.process.communicate(timeout=STOP_SECONDS)
    assert command.process.returncode == 1
    assert f"Port {command.port} is taken by " in output
    assert f"pid {os.getpid()}" in output


def test_what_the_demo_prints_can_be_pasted(stack: Stack) -> None:
    """Each command of the demo, run by a shell in the checkout, is answered, with curl and without."""
    for curl in (True, False):
        for call in demo.calls(stack.addresses.clients, curl):
            done = demo.run(call.command)
            assert done.returncode == 0, f"{call.command}\n{done.stdout}{done.stderr}"
            assert done.stdout.strip()


def test_a_stopped_server_stays_stopped_until_it_is_started(stack: Stack) -> None:
    """`stop` is no accident to recover from: the part is gone until `start`, which waits until it answers again."""
    port = stack.addresses.torchserve_rest
    stack.stop("torchserve")
    try:
        assert stack.pid("torchserve") is None
        assert not readiness.accepts(port)
    finally:
        stack.start("torchserve")
    assert readiness.accepts(port)


def test_a_server_that_dies_is_started_again(stack: Stack) -> None:
    """A part killed from outside comes back by itself."""
    killed = stack.pid("gateway")
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: stack.pid("gateway") not in (None, killed), 30, "the gateway was not started again")
    stack.start("gateway")
    assert readiness.http_status(stack.addresses.gateway, "/healthz") == 200
