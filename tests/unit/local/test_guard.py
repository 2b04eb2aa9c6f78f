"""That nothing of a stack outlives its owner, not even when that is killed without a chance to clean up."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portico.local import guard

# Like TorchServe: a part that starts a process which starts another, in a session of its own, and does not wait.
WORKER = "import time; print('worker', flush=True); time.sleep(600)"
PART = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {WORKER!r}], start_new_session=True)
time.sleep(600)
"""
# Like Redis: without the variable in what others see of its environment.
TITLED = "import time; print('titled', flush=True); time.sleep(600)"
OWNER = f"""
import os, subprocess, sys, time
from portico.local import guard
stack = sys.argv[1]
pipe = subprocess.Popen([sys.executable, "-I", "-S", guard.__file__, stack], stdin=subprocess.PIPE, text=True).stdin
marked = os.environ | {{guard.VARIABLE: stack}}
parts = [
    subprocess.Popen([sys.executable, "-c", {PART!r}], env=marked, start_new_session=True),
    subprocess.Popen([sys.executable, "-c", {TITLED!r}], start_new_session=True),
]
for part in parts:
    print(part.pid, file=pipe, flush=True)
    print(part.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[str]:
    """The name of a stack of this test; whatever is left of it is killed after the test."""
    yield str(tmp_path)
    guard.sweep(str(tmp_path), {})


def wait_for(condition: Callable[[], object]) -> None:
    """Fails the test when the condition does not hold soon."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_kill_9_of_the_owner_leaves_no_process(stack: str) -> None:
    """Parts that hide their environment, and workers in other sessions, end with an owner that noticed nothing."""
    with subprocess.Popen([sys.executable, "-c", OWNER, stack], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        said = {owner.stdout.readline().strip() for _ in range(4)}
        assert {"worker", "titled"} < said
        parts = {int(text): guard.process(int(text)).started for text in said if text.isdigit()}  # type: ignore[union-attr]
        assert len(guard.members(stack, parts)) == 3
        owner.send_signal(signal.SIGKILL)
    wait_for(lambda: not guard.members(stack, parts))


def test_a_pid_that_was_given_again_is_left_alone(stack: str) -> None:
    """A process that has the pid of a part that ended long ago is not taken for it."""
    with subprocess.Popen([sys.executable, "-c", TITLED], stdout=subprocess.DEVNULL, start_new_session=True) as other:
        try:
            alive = guard.process(other.pid)
            assert alive is not None
            assert guard.members(stack, {other.pid: alive.started}) == [other.pid]
            assert guard.members(stack, {other.pid: alive.started - 1}) == []
        finally:
            other.kill()


def test_another_stack_is_left_alone(stack: str) -> None:
    """Only what carries this stack's name is killed, though another's name may begin with it."""
    marked = os.environ | {guard.VARIABLE: stack + "-other"}
    with subprocess.Popen([sys.executable, "-c", WORKER], env=marked, stdout=subprocess.DEVNULL) as other:
        try:
            guard.sweep(stack, {})
            assert other.poll() is None
        finally:
            other.kill()


@pytest.mark.parametrize(("last_words", "kept"), [(guard.GOODBYE, True), ("", False)])
def test_the_folder_goes_with_an_owner_that_could_not_see_to_it(stack: str, last_words: str, kept: bool) -> None:
    """After kill -9 no folder stays behind; an owner that ended in order has decided about its logs itself."""
    (Path(stack) / "part.log").touch()
    command = [sys.executable, "-I", "-S", guard.__file__, stack]
    subprocess.run(command, input=last_words, text=True, timeout=60, check=True)
    assert (Path(stack) / "part.log").exists() is kept
