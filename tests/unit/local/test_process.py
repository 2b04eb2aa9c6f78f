"""Supervision of one part, with real small processes."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portico.local.guard import group
from portico.local.process import Part, PartFailed, PartProcess

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"
PARENT = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]); " + SLEEPER
Run = Callable[..., PartProcess]


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Returns when the condition holds; fails the test when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Starts Python code as a part, and stops it after the test."""
    started = []

    def start(code: str, lines: int = 1, **more: float) -> PartProcess:
        log = tmp_path / "part.log"
        part = Part("part", (sys.executable, "-c", code), lambda: log.read_text().count("up") >= lines, **more)  # type: ignore[arg-type]
        started.append(PartProcess(part, log, os.environ))
        started[-1].start()
        return started[-1]

    yield start
    for process in started:
        process.stop()


def test_a_part_gets_ready_and_stops(run: Run) -> None:
    """It runs in a group of its own, is ready when it says so, and is gone after `stop`."""
    process = run(SLEEPER)
    process.wait_until_ready()
    pid = process.pid
    assert pid is not None
    assert os.getpgid(pid) == pid
    process.stop()
    assert process.pid is None
    assert group(pid) == []


def test_a_part_that_ignores_sigterm_is_killed(run: Run) -> None:
    """Stopping is bounded, whatever a part does with the signal."""
    process = run(STUBBORN, stop_within=0.3)
    process.wait_until_ready()
    pid = process.pid
    assert pid is not None
    process.stop()
    assert group(pid) == []


def test_children_of_a_part_are_stopped_with_it(run: Run) -> None:
    """A worker that a part forked does not outlive it, even one that ignores SIGTERM."""
    process = run(PARENT.format(child=STUBBORN), lines=2, stop_within=0.5)
    process.wait_until_ready()
    pid = process.pid
    assert pid is not None
    assert len(group(pid)) == 2
    process.stop()
    assert group(pid) == []


def test_an_early_end_is_an_error_with_the_log(run: Run) -> None:
    """A part that ends before it is ready is not waited for; the error has its code and its last words."""
    process = run("import sys; print('no such file'); sys.exit(3)")
    with pytest.raises(PartFailed, match=r"exit code 3(.|\n)*no such file"):
        process.wait_until_ready()


def test_waiting_for_a_part_is_bounded(run: Run) -> None:
    """A part that never gets ready is an error after its time."""
    process = run("import time; time.sleep(600)", ready_within=0.3)
    with pytest.raises(PartFailed, match="not ready within"):
        process.wait_until_ready()


def test_a_part_that_dies_is_started_again(run: Run) -> None:
    """What was killed from outside comes back, and both is reported, the death with the signal's name."""
    process = run(SLEEPER)
    process.wait_until_ready()
    killed = process.pid
    assert killed is not None
    assert process.revive() is None
    os.kill(killed, signal.SIGKILL)
    news: list[str] = []
    wait_for(lambda: news.extend(filter(None, [process.revive()])) or len(news) == 2)
    assert "was ended by SIGKILL" in news[0]
    assert news[1] == "part: the process was started again."
    process.wait_until_ready()
    assert process.pid not in (None, killed)


def test_the_children_of_a_dead_part_do_not_stay(run: Run) -> None:
    """Before a part is started again, what the dead one left is killed: it would hold the ports."""
    process = run(PARENT.format(child=SLEEPER), lines=2)
    process.wait_until_ready()
    leader = process.pid
    assert leader is not None
    os.kill(leader, signal.SIGKILL)
    wait_for(process.revive)
    wait_for(lambda: group(leader) == [])


def test_a_part_that_keeps_dying_is_given_longer_pauses(run: Run) -> None:
    """The pause before a restart doubles, so that a broken part does not keep the machine busy."""
    process = run("import sys; sys.exit(1)")
    news: list[str] = []
    wait_for(lambda: news.extend(filter(None, [process.revive()])) or len(news) >= 3)
    assert "starting it again in 1 s" in news[0]
    assert "starting it again in 2 s" in news[2]


def test_a_stopped_part_stays_stopped(run: Run) -> None:
    """What was stopped on purpose is not revived, and can be started again."""
    process = run(SLEEPER)
    process.wait_until_ready()
    process.stop()
    assert process.revive() is None
    assert process.pid is None
    process.start()
    process.wait_until_ready()
    assert process.pid is not None
