"""That nothing of a stack outlives its owner, not even when that is killed without a chance to clean up."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from portico.local import guard

# Like TorchServe: a part that starts a process which starts another, in a session of its own, and does not wait.
GRANDCHILD = "import time; print('grandchild', flush=True); time.sleep(600)"
CHILD = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {GRANDCHILD!r}], start_new_session=True)
time.sleep(600)
"""
OWNER = f"""
import os, subprocess, sys, time
from portico.local import guard
stack = sys.argv[1]
subprocess.Popen([sys.executable, "-I", "-S", guard.__file__, stack], stdin=subprocess.PIPE, start_new_session=True)
environment = os.environ | {{guard.VARIABLE: stack}}
subprocess.Popen([sys.executable, "-c", {CHILD!r}], env=environment, start_new_session=True)
time.sleep(600)
"""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[str]:
    """The name of a stack of this test; whatever is left of it is killed after the test."""
    yield str(tmp_path)
    guard.sweep(str(tmp_path))


def wait_for_members(stack: str, count: int) -> None:
    """Fails the test unless the stack has `count` processes soon."""
    deadline = time.monotonic() + 20
    while len(guard.members(stack)) != count:
        assert time.monotonic() < deadline, f"{guard.members(stack)} are left"
        time.sleep(0.02)


def test_kill_9_of_the_owner_leaves_no_process(stack: str) -> None:
    """Children, and their children in other sessions, end with an owner that could not even notice its end."""
    with subprocess.Popen([sys.executable, "-c", OWNER, stack], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "grandchild\n"
        wait_for_members(stack, 2)
        owner.send_signal(signal.SIGKILL)
    wait_for_members(stack, 0)


@pytest.mark.parametrize(("goodbye", "kept"), [(guard.GOODBYE, True), (b"", False)])
def test_the_folder_goes_with_an_owner_that_could_not_see_to_it(stack: str, goodbye: bytes, kept: bool) -> None:
    """After kill -9 no folder stays behind; an owner that ended in order has decided about its logs itself."""
    (Path(stack) / "part.log").touch()
    subprocess.run([sys.executable, "-I", "-S", guard.__file__, stack], input=goodbye, timeout=60, check=True)
    assert (Path(stack) / "part.log").exists() is kept


def test_another_stack_is_left_alone(stack: str) -> None:
    """Only what carries this stack's name is killed, though another's name may begin with it."""
    environment = os.environ | {guard.VARIABLE: stack + "-other"}
    with subprocess.Popen([sys.executable, "-c", GRANDCHILD], env=environment, stdout=subprocess.DEVNULL) as other:
        try:
            assert guard.sweep(stack) == 0
            assert other.poll() is None
        finally:
            other.kill()
