"""The machine that is measured on: what it is, which core does what, and what processes take of it.

Used by the benchmarks. Linux only: it reads /proc.
"""

import os
import platform
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Cores:
    """`front` has what is measured, `back` the servers behind it, `load` the load generator."""

    front: int
    back: int
    load: int

    @classmethod
    def of_this_machine(cls) -> "Cores":
        """One each, as far as there are as many: with two, what is behind shares one with the load generator."""
        cores = sorted(os.sched_getaffinity(0))
        return cls(cores[0], cores[1 % len(cores)], cores[2] if len(cores) > 2 else cores[-1])


def count() -> int:
    """The cores that we may use."""
    return len(os.sched_getaffinity(0))


def describe() -> str:
    """The processor and the system, on a line."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.lower().startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PHYS_PAGES") * PAGE / (1 << 30)
    return (
        f"{count()} cores of {model}, {memory:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}"
    )


def commit() -> str:
    """The state of the checkout that is measured."""
    here = Path(__file__).parent
    said = [
        subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, timeout=30, check=False).stdout
        for words in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--untracked-files=no", "../gateway"))
    ]
    return (said[0].strip() or "no commit") + (", with changes" if said[1].strip() else "")


def family(pid: int) -> list[int]:
    """A process and all that it has started."""
    found = [pid]
    for parent in found:
        with suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def pin(pid: int, cores: Iterable[int]) -> None:
    """Keeps a process, all of its threads and all that it has started on some cores."""
    for member in family(pid):
        with suppress(OSError):
            for task in Path(f"/proc/{member}/task").iterdir():
                with suppress(OSError):
                    os.sched_setaffinity(int(task.name), cores)


def reserve(pid: int, core: int) -> None:
    """Gives a process, and all that it has started, a core that nothing else uses. Whatever is measured knows that:
    threads let each other finish, as those of a gateway do by PORTICO_OWN_CORES.
    """
    pin(pid, (core,))
    schedule(pid, os.SCHED_BATCH)


def schedule(pid: int, policy: int) -> None:
    """How all threads of a process, and of all that it has started, are scheduled."""
    for member in family(pid):
        with suppress(OSError):
            for task in Path(f"/proc/{member}/task").iterdir():
                with suppress(OSError):
                    os.sched_setscheduler(int(task.name), policy, os.sched_param(0))


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started in the block stays on a core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, (core,))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class Usage:
    """What processes have taken so far: seconds of CPU; bytes of memory now, and at most since `forget_peaks`."""

    cpu: float
    memory: int
    peak: int

    @classmethod
    def of(cls, pids: Iterable[int]) -> "Usage":
        """Of all of them together, whose children are not counted."""
        cpu, memory, peak = 0, 0, 0
        for pid in pids:
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                cpu += int(fields[11]) + int(fields[12])
                status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
                memory += int(status["VmRSS"].split()[0]) << 10
                peak += int(status["VmHWM"].split()[0]) << 10
        return cls(cpu / TICKS, memory, peak)


def forget_peaks(pids: Iterable[int]) -> None:
    """The peak of memory is that of what comes from now on (proc(5), clear_refs)."""
    for pid in pids:
        with suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")
