"""Makes the environments with venv and pip, several at a time, and shows how far they are.

Called by `portico.local.__main__` after the preflight. Nothing half-made is ever used: what has no stamp is made anew.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from portico.local import layout
from portico.local.board import Board
from portico.local.environments import MB, Environment
from portico.local.preflight import size

# Two keep both the network and a small machine's cores busy: while one downloads, the other unpacks.
AT_A_TIME = 2
TAIL_LINES = 15
DOWNLOADING = re.compile(r"\s*Downloading (?:\S*/)?(\S+?)(?: \((\d+(?:\.\d+)?) ?(kB|MB|GB|bytes)\))?$")
UNITS = {"bytes": 1, "kB": 1_000, "MB": MB, "GB": 1_000 * MB}
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
# Of the user's own pip settings, where from is respected; where to is not.
PIP_PLACES = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_REQUIRE_VIRTUALENV", "PYTHONPATH", "PYTHONHOME")


class InstallationFailed(Exception):
    """An environment could not be made; the text says which, why and where the whole log lies."""


def install(environments: list[Environment], board: Board) -> None:
    """Makes these environments.

    Raises InstallationFailed after all of them have ended, with each failure in its text.
    """
    layout.SETUP_LOGS.mkdir(parents=True, exist_ok=True)
    with alone(board), ThreadPoolExecutor(AT_A_TIME) as pool:
        makers = [Maker(environment, board) for environment in environments if not environment.is_current()]
        running = [pool.submit(maker.make) for maker in makers]
        try:
            while not all(future.done() for future in running):
                board.draw()
                time.sleep(0.2)
        except BaseException:
            for future, maker in zip(running, makers, strict=True):
                future.cancel()
                maker.stop()
            raise
        finally:
            board.close()
    failures = [str(error) for future in running if (error := future.exception())]
    if failures:
        raise InstallationFailed("\n\n".join(failures))


class Maker:
    """Makes one environment: a folder, the packages of its lock files, the way to our own, and last the stamp."""

    def __init__(self, environment: Environment, board: Board) -> None:
        self.environment = environment
        self.board = board
        self.log = layout.SETUP_LOGS / f"{environment.name}.log"
        self.downloaded = 0.0
        self._process: subprocess.Popen[str] | None = None
        self._stopped = threading.Event()

    def make(self) -> None:
        """Raises InstallationFailed."""
        environment = self.environment
        temporary = environment.folder.with_name(f"{environment.name}.tmp")
        self.say("removing what was there")
        try:
            for folder in (environment.folder, temporary):
                shutil.rmtree(folder, ignore_errors=True)
            temporary.mkdir(parents=True)
            self.say("making an empty environment")
            with self.log.open("w") as log:
                self._run([sys.executable, "-m", "venv", str(environment.folder)], log, temporary)
                for lock in environment.locks:
                    self._run(self._pip(lock), log, temporary)
                if environment.starts:
                    self.say("compiling")
                    begin = f"import {', '.join(environment.starts)}"
                    self._run([str(environment.python), "-c", begin], log, temporary)
            self._show_own_packages()
            environment.mark_current()
        except OSError as error:
            self.board.failed(environment.name, str(error))
            raise InstallationFailed(f"Making {layout.shown(environment.folder)} failed: {error}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self.board.done(environment.name, f"{environment.holds}  ({size(int(self.downloaded))} downloaded)")

    def say(self, doing: str) -> None:
        """Shows what is being done, and how much was downloaded until now."""
        got = f"{size(int(self.downloaded))} of about {size(self.environment.download)}, " if self.downloaded else ""
        self.board.state(self.environment.name, f"{self.environment.holds}: {got}{doing}")

    def stop(self) -> None:
        """Ends what is running; `make` then fails in its thread."""
        self._stopped.set()
        if self._process is not None:
            self._process.terminate()

    def _pip(self, lock: str) -> list[str]:
        path = self.environment.root / lock
        # Most modules are never imported; the bytecode of those that are is made below (`starts`).
        command = [str(self.environment.python), "-m", "pip", "install", "--no-compile", "--no-input"]
        command += ["--progress-bar=off", "--disable-pip-version-check"]
        if "--hash=" in path.read_text():
            command += ["--require-hashes", "--no-deps"]  # a lock file with hashes is complete
        if self.environment.for_python:
            command += ["--only-binary=:all:", f"--python-version={self.environment.for_python}"]
            command += [f"--target={self.environment.folder / 'wheels'}"]
        return [*command, "-r", str(path)]

    def _run(self, command: list[str], log: TextIO, temporary: Path) -> None:
        settings = {name: value for name, value in os.environ.items() if name not in (*PIP_PLACES, NO_BYTECODE)}
        # pip unpacks below TMPDIR, which is in memory on some machines: too small for PyTorch.
        settings |= {"TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}
        if self._stopped.is_set():
            raise InstallationFailed(f"Making {layout.shown(self.environment.folder)} was interrupted.")
        self._process = subprocess.Popen(
            command, env=settings, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        with self._process as process:
            for line in process.stdout or ():
                log.write(line)
                self.read(line)
        if self._process.returncode != 0:
            log.flush()
            self._give_up()

    def read(self, line: str) -> None:
        """Takes a line of pip's output into account."""
        if match := DOWNLOADING.match(line.rstrip()):
            name, count, unit = match.groups()
            if count:
                self.downloaded += float(count) * UNITS[unit]
            self.say(f"downloading {name.partition('-')[0]}" + (f" ({count} {unit})" if count else ""))
        elif line.startswith("Installing collected packages"):
            self.say("unpacking")

    def _give_up(self) -> None:
        self.board.failed(self.environment.name, f"{self.environment.holds}: failed")
        lines = self.log.read_text().splitlines()[-TAIL_LINES:]
        raise InstallationFailed(
            f"Making {layout.shown(self.environment.folder)} ({self.environment.holds}) failed. pip's last lines:\n\n"
            + "\n".join(f"    {line}" for line in lines)
            + f"\n\n  The whole log: {layout.shown(self.log)}. Run the same command to try again."
        )

    def _show_own_packages(self) -> None:
        if self.environment.imports:
            ask = [str(self.environment.python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
            packages = subprocess.run(ask, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
            folders = "".join(f"{self.environment.root / folder}\n" for folder in self.environment.imports)
            (Path(packages) / "portico-checkout.pth").write_text(folders)


@contextmanager
def alone(board: Board) -> Iterator[None]:
    """Keeps two set-ups of one checkout from working on the same folders; the lock goes with the process."""
    with (layout.VENVS / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            board.state("waiting", "another `make` is setting up this checkout")
            board.draw()
            fcntl.flock(lock, fcntl.LOCK_EX)
            board.done("waiting", "the other `make` is through")
        yield
