"""One supervised process of the stack: started in a session of its own, watched, restarted when it dies, and stopped.

Used by `portico.local.stack`; it knows nothing of what the process does.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from portico.local.guard import group

LOG_TAIL_LINES = 12
KILL_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 30.0
SETTLED_SECONDS = 60.0


class PartFailed(Exception):
    """A part did not get ready; the text has its last log lines."""


@dataclass(frozen=True)
class Part:
    """What is to be started, and how it is known to be ready. Times are in seconds.

    `folder` is its own, to work in and for temporary files; `after` is the part that has to be ready before it starts.
    """

    name: str
    command: tuple[str, ...]
    is_ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    ready_within: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within: float = 10.0
    after: str = ""


class PartProcess:
    """The process of a part, now or next. Its methods may be called from several threads."""

    def __init__(
        self,
        part: Part,
        log: Path,
        environment: Mapping[str, str],
        on_start: Callable[[int], None] = lambda pid: None,
    ) -> None:
        self.part = part
        self.log = log
        self._on_start = on_start
        self._environment = {**environment, **part.environment}
        if part.folder is not None:
            self._environment["TMPDIR"] = str(part.folder)
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted = False
        self._began = 0.0
        self._failures = 0
        self._again_at: float | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs, which is its process group's too."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Starts it, unless it runs."""
        with self._lock:
            self._wanted, self._again_at = True, None
            if self.pid is not None:
                return
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self.part.command,
                    env=self._environment,
                    cwd=self.part.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a Ctrl-C in the terminal is ours to handle, in our order
                )
            self._on_start(self._process.pid)
            self._began = time.monotonic()

    def is_ready(self) -> bool:
        """Whether it runs and answers. Raises PartFailed when it has ended instead."""
        process = self._process
        if process is None or process.poll() is not None:
            code = None if process is None else process.returncode
            raise PartFailed(f"{self.part.name} {ended(code)} before it was ready.\n{self.tail()}")
        if self.part.is_ready():
            return True
        if time.monotonic() - self._began > self.part.ready_within:
            raise PartFailed(f"{self.part.name} was not ready within {self.part.ready_within:.0f} s.\n{self.tail()}")
        return False

    def wait_until_ready(self) -> None:
        """Raises PartFailed."""
        while not self.is_ready():
            time.sleep(0.1)

    def stop(self) -> None:
        """Ends it and all it has started: asks, and kills what is left after `stop_within`."""
        with self._lock:
            self._wanted = False
            process, self._process = self._process, None
            if process is None:
                return
            for number, patience in ((self.part.stop_signal, self.part.stop_within), (signal.SIGKILL, KILL_SECONDS)):
                signal_group(process.pid, number)
                if ended_within(process, patience):
                    break

    def revive(self) -> str | None:
        """Starts it again, after a pause that doubles, when it has died by itself; what there is to say about that."""
        with self._lock:
            if not self._wanted or self.pid is not None or self._process is None:
                return None
            now = time.monotonic()
            if self._again_at is None:
                self._failures = 0 if now - self._began > SETTLED_SECONDS else self._failures + 1
                pause = min(2.0**self._failures / 2, LONGEST_PAUSE_SECONDS)
                self._again_at = now + pause
                signal_group(self._process.pid, signal.SIGKILL)
                how = ended(self._process.returncode)
                return f"{self.part.name} {how}; starting it again in {pause:.0f} s.\n{self.tail()}"
            if now >= self._again_at:
                self.start()
                return f"{self.part.name}: the process was started again."
            return None

    def tail(self) -> str:
        """The last lines of its log, for an error."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:] if self.log.exists() else []
        return "\n".join([*(f"    {line[:300]}" for line in lines), f"    (the whole log: {self.log})"])


def ended(code: int | None) -> str:
    """How a process ended, in words."""
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return "was not started" if code is None else f"ended with exit code {code}"


def signal_group(pid: int, number: signal.Signals) -> None:
    """Signals the process group that `pid` leads, if any of it is left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def ended_within(leader: subprocess.Popen[bytes], seconds: float) -> bool:
    """Waits until a process and all of its group have ended; whether they did within `seconds`."""
    deadline = time.monotonic() + seconds
    while leader.poll() is None or group(leader.pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
