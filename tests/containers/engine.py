"""A Docker engine with Compose 2 for the tests and the builds of this folder: the one that answers, else a private one.

Knows nothing of images and of what runs in them.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import engine_daemon
import engine_packages

ANSWER_SECONDS = 20.0


class EngineError(RuntimeError):
    """There is no engine, or a command of it failed; the text says what to do or what it said."""


@dataclass(frozen=True)
class Engine:
    """Where commands run: `environment` has `docker` on PATH, with Compose, and reaches the engine.

    `private` tells that nobody else uses it and that it ends with this process.
    """

    environment: Mapping[str, str]
    private: bool

    def docker(self, *arguments: str, seconds: float = 600.0) -> str:
        """What `docker ...` prints to stdout. Raises EngineError with what it says when it fails or takes too long."""
        command = ["docker", *arguments]
        try:
            done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise EngineError(f"`{' '.join(command)}` took longer than {seconds:.0f} s") from None
        if done.returncode != 0:
            raise EngineError(f"`{' '.join(command)}` failed:\n{(done.stdout + done.stderr)[-6000:]}")
        return done.stdout


@contextmanager
def engine() -> Iterator[Engine]:
    """The engine at DOCKER_HOST or the default socket; without one, a private one that is stopped at the end.

    Raises EngineError, PackageError or DaemonError, each saying what to do.
    """
    found = _reachable()
    if found:
        yield found
        return
    if os.environ.get("DOCKER_HOST"):
        raise EngineError(
            f"No engine with Compose 2 answers at DOCKER_HOST={os.environ['DOCKER_HOST']}. "
            "Start it, or unset DOCKER_HOST to have a private one started."
        )
    engine_daemon.refuse_a_second()
    programs = engine_packages.engine_programs()
    with engine_daemon.running(programs) as environment:
        yield Engine(environment, private=True)


def _reachable() -> Engine | None:
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    for command in (["docker", "version"], ["docker", "compose", "version"]):
        try:
            done = subprocess.run(command, env=environment, capture_output=True, timeout=ANSWER_SECONDS)
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return None
        if done.returncode != 0:
            return None
    return Engine(environment, private=False)
