"""What a peer of Portico is: an environment made on demand, and a server that doubles 16 numbers, started and stopped.

The benchmark takes peers from `peers.PEERS`. It knows nothing of any one of them: those are the modules beside it.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from peers.call import Endpoint
from portico.local import guard, layout
from portico.local.addresses import free_ports
from portico.local.board import Board
from portico.local.environments import MB, Environment
from portico.local.installing import install
from portico.local.process import Part, PartProcess

HERE = Path(__file__).parent
SERVED = HERE / "served"
READY_WITHIN = 90.0
"""Seconds until the first right answer; Ray takes longest."""


class PeerEnvironment(Environment):
    """An environment below .venv/peers, so that those who measure without peers never see it."""

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.root / ".venv" / "peers" / self.name


@dataclass(frozen=True)
class Ground:
    """What a peer's server is made of: its Python, a folder of its own, ports, and what the caller gave."""

    python: Path
    folder: Path
    rest: int
    grpc: int
    spare: tuple[int, ...]
    given: dict[str, str]

    @property
    def packages(self) -> Path:
        """Where its packages lie."""
        return next((self.python.parents[1] / "lib").glob("python3.*/site-packages"))


@dataclass(frozen=True)
class Server:
    """How to start it and call it. `behind` are the parts it works with, which start before it."""

    command: tuple[str | Path, ...]
    rest: Endpoint | None
    grpc: Endpoint | None = None
    environment: tuple[tuple[str, str], ...] = ()
    behind: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Running:
    """A server that has given the right answer. `behind` are pids of what it works with: Redis, the model server."""

    pid: int
    rest: Endpoint | None
    grpc: Endpoint | None
    behind: tuple[int, ...]
    folder: Path

    @property
    def pids(self) -> list[int]:
        """Of all its own processes that live now, the first one included."""
        leader = guard.process(self.pid)
        return guard.members(str(self.folder), {self.pid: leader.started} if leader else {})


@dataclass(frozen=True)
class Packages:
    """Those that requirements/`name`.txt pins, and how much they take to download and on disk, in MB."""

    name: str
    download: int
    disk: int


@dataclass(frozen=True)
class Peer:
    """`cached`: a cache of responses, its own, is switched on."""

    name: str
    version: str
    cached: bool
    serve: Callable[[Ground], Server]
    packages: Packages

    @property
    def environment(self) -> PeerEnvironment:
        """Peers of the same packages share it."""
        name = self.packages.name
        lock = (HERE / "requirements" / f"{name}.txt").relative_to(layout.ROOT)
        sizes = (self.packages.download * MB, self.packages.disk * MB)
        return PeerEnvironment(name, f"{name} {self.version}", (str(lock),), *sizes)

    def install(self) -> None:
        """Makes its environment, unless it is there. Raises portico.local.installing.InstallationFailed."""
        (layout.VENVS / "peers").mkdir(parents=True, exist_ok=True)
        if not self.environment.is_current():
            install([self.environment], Board())

    @contextmanager
    def start(self, **given: str) -> Iterator[Running]:
        """Runs it until the end of the block. What may be given is said in its own module.

        Raises SystemExit when it is not installed, and PartFailed when it gives no right answer in time.
        """
        if not self.environment.is_current():
            raise SystemExit(f"{self.name} is not installed: run `python -m peers install {self.name}` in bench/")
        rest, grpc, *spare = free_ports(6)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True)))
            server = self.serve(Ground(self.environment.python, folder, rest, grpc, tuple(spare), given))
            own = Part(
                self.name,
                tuple(map(str, server.command)),
                lambda: answers(server),
                folder=folder,
                ready_within=READY_WITHIN,
            )
            tell = stack.enter_context(watched(folder))
            pids = []
            for part in (*server.behind, own):
                mark = {guard.VARIABLE: str(folder), **dict(server.environment)} if part is own else {}
                log = layout.SETUP_LOGS / f"peer-{part.name}.log"
                log.unlink(missing_ok=True)
                process = PartProcess(part, log, self._variables(folder) | mark, tell)
                stack.callback(process.stop)
                process.start()
                process.wait_until_ready()
                pids.append(process.pid or 0)
            yield Running(pids[-1], server.rest, server.grpc, tuple(pids[:-1]), folder)

    def _variables(self, folder: Path) -> dict[str, str]:
        path = f"{self.environment.python.parent}{os.pathsep}{os.environ['PATH']}"
        # At home, some leave settings, and who used them how often.
        return {
            "PATH": path,
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(SERVED),
            "PYTHONPYCACHEPREFIX": str(self.environment.folder / "bytecode"),
        }


def answers(server: Server) -> bool:
    """Whether each of its protocols gives the right answer."""
    return all(endpoint.answers() for endpoint in (server.rest, server.grpc) if endpoint)


@contextmanager
def watched(folder: Path) -> Iterator[Callable[[int], None]]:
    """Ends what is told by its pid, and all it started, after the block or when this process is killed."""
    command = [sys.executable, guard.__file__, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, bufsize=1, start_new_session=True) as process:
        assert process.stdin is not None
        pipe = process.stdin
        yield lambda pid: print(pid, file=pipe, flush=True)
