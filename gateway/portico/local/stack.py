"""All processes of Portico on loopback: started together, watched, and stopped together, whatever happens to the owner.

Used by `portico local` and, as a fixture, by tests/stack.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from portico.local import guard
from portico.local.addresses import Addresses
from portico.local.models import NoRoutes, wait_until_settled
from portico.local.parts import Surroundings, all_parts
from portico.local.preflight import free_port
from portico.local.process import Part, PartFailed, PartProcess
from portico.models_table import Entry

BIND_RETRIES = 3
OPEN_FILES = 65536
ADDRESS_TAKEN = ("address already in use", "address in use", "failed to bind", "eaddrinuse")
# What the owner was started with must not leak into other interpreters.
NOT_FOR_PARTS = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "LD_PRELOAD")


class Stack:
    """`with Stack(models) as stack:` starts everything and leaves nothing behind.

    `port` is the clients' port, a free one if None; `usual` are other ports, taken where they are free; `replicas` is
    the number of each model server; `compact` makes gateway and edge one process. `report` gets a line, or several,
    about what happens while it runs; `tell` (part, state) while it starts. Logs lie in `scratch` until a clean end.
    """

    def __init__(
        self,
        models: Path,
        port: int | None = None,
        report: Callable[[str], None] = print,
        tell: Callable[[str, str], None] = lambda name, state: None,
        replicas: int = 1,
        usual: Mapping[str, int] = MappingProxyType({}),
        compact: bool = False,
    ) -> None:
        self.models = models.resolve()
        self.scratch = Path(tempfile.mkdtemp(prefix="portico-"))
        self.addresses = Addresses.pick(port, usual)
        self._port = port
        self._usual = usual
        self._replicas = replicas
        self._compact = compact
        self._report = report
        self._tell = tell
        self._processes: dict[str, PartProcess] = {}
        self._guard: subprocess.Popen[str] | None = None
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="stack-watcher", daemon=True)

    @property
    def url(self) -> str:
        """Where clients call, REST and gRPC alike."""
        return f"http://127.0.0.1:{self.addresses.clients}"

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(keep_logs=kind is not None and not issubclass(kind, KeyboardInterrupt | SystemExit))

    def open(self) -> None:
        """Starts all parts at once and waits until each answers. Raises PartFailed, with nothing left running."""
        raise_file_limit()
        self._start_guard()
        for attempt in range(1, BIND_RETRIES + 1):
            try:
                self._start_all()
                self._watcher.start()
                return
            except PartFailed as error:
                self._stop_all()
                taken = free_port(str(self._port)) if self._port else None
                unlucky = any(text in str(error).lower() for text in ADDRESS_TAKEN)
                if taken or not unlucky or attempt == BIND_RETRIES:
                    self.close(keep_logs=not taken)
                    raise PartFailed(f"{taken.problem} {taken.remedy}" if taken else str(error)) from error
                self.addresses = Addresses.pick(self._port, self._usual)
            except BaseException:
                self.close()
                raise

    def _start_all(self) -> None:
        here = Surroundings(self.addresses, self.models, self.scratch, self._replicas, self._compact)
        self._processes = {part.name: self._process(part) for part in all_parts(here)}
        waiting, started = dict(self._processes), set[str]()
        while waiting:
            for name, process in list(waiting.items()):
                if name not in started:
                    if process.part.after not in waiting:
                        process.start()
                        started.add(name)
                        self._tell(name, "starting")
                elif process.is_ready():
                    del waiting[name]
                    self._tell(name, "ready")
            self._tell("", "")
            time.sleep(0.1)

    def _process(self, part: Part) -> PartProcess:
        environment = {name: value for name, value in os.environ.items() if name not in NOT_FOR_PARTS}
        environment[guard.VARIABLE] = str(self.scratch)
        # A proxy for the outside world must not be asked for loopback; gRPC would.
        environment["no_proxy"] = ",".join(filter(None, (environment.get("no_proxy"), "127.0.0.1,localhost")))
        return PartProcess(part, self.scratch / f"{part.name}.log", environment, self._tell_guard)

    def _start_guard(self) -> None:
        command = [sys.executable, "-I", "-S", str(Path(guard.__file__)), str(self.scratch)]
        self._guard = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, bufsize=1, start_new_session=True)

    def _tell_guard(self, news: int | str) -> None:
        """A pid to watch, or goodbye. Should somebody have killed the guard, the stack still stops in order."""
        if self._guard is not None and self._guard.stdin is not None:
            with suppress(BrokenPipeError):
                self._guard.stdin.write(f"{news}\n")

    def wait_for_models(
        self, seconds: float = 300.0, tell: Callable[[list[Entry]], None] = lambda models: None
    ) -> list[Entry]:
        """The models when each is ready or has failed, or as they are after `seconds`. Raises PartFailed."""
        try:
            return wait_until_settled(self.addresses.clients, seconds, tell)
        except NoRoutes as error:
            raise PartFailed(f"{error}\n{self._processes['controller'].tail()}") from error

    def start(self, name: str) -> None:
        """Starts one part again and waits until it answers. Raises PartFailed."""
        self._processes[name].start()
        self._processes[name].wait_until_ready()

    def stop(self, name: str) -> None:
        """Stops one part, and it stays stopped."""
        self._processes[name].stop()

    def pid(self, name: str) -> int | None:
        """Process id of a part, None while it does not run."""
        return self._processes[name].pid

    def log(self, name: str) -> Path:
        """The file that a part writes to."""
        return self._processes[name].log

    def tails(self) -> str:
        """The last log lines of every part, for whoever has to find out what went wrong."""
        return "\n".join(f"{name}:\n{process.tail()}" for name, process in self._processes.items())

    def close(self, keep_logs: bool = False) -> None:
        """Stops everything in reverse order, kills what would not, and removes the logs unless they are to be kept."""
        self._over.set()
        if self._watcher.is_alive():
            self._watcher.join()
        self._stop_all()
        if self._guard is not None:
            self._tell_guard(guard.GOODBYE)
            self._guard.communicate(timeout=guard.SWEEP_SECONDS + 10)
            self._guard = None
        if keep_logs:
            self._report(f"The logs are kept in {self.scratch}")
        else:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _stop_all(self) -> None:
        for process in reversed(self._processes.values()):
            process.stop()

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            for process in self._processes.values():
                if news := process.revive():
                    self._report(news)


def raise_file_limit() -> None:
    """Lets what is started from here open as many files as it needs; Envoy crashes when it runs out of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
