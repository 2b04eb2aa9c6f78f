"""A private dockerd: started with a data folder in .venv/containers that is kept as a cache, and stopped with nothing
left behind. Called by the engine; what the daemon does to the host's network is undone by engine_host.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import engine_host
from engine_packages import CACHE, Programs

START_SECONDS = 60.0
STOP_SECONDS = 60.0
COMMAND_SECONDS = 120.0


class DaemonError(RuntimeError):
    """No daemon can be started; the text says why and what to do."""


def refuse_a_second() -> None:
    """Raises DaemonError when some dockerd runs: two overwrite each other's packet filter."""
    for name in Path("/proc").glob("[0-9]*/comm"):
        try:
            found = name.read_text().strip() == "dockerd"
        except OSError:  # it has just ended
            continue
        if found:
            raise DaemonError(
                f"dockerd runs already (process {name.parent.name}) but does not answer with Compose 2. "
                "Set DOCKER_HOST to its socket and install Compose 2, or stop it to have a private one started."
            )


@contextmanager
def running(programs: Programs) -> Iterator[dict[str, str]]:
    """The environment in which `docker` reaches the daemon. SIGTERM ends what is inside like Ctrl-C, so that it is
    stopped then, too. Raises DaemonError.
    """
    if os.geteuid() != 0:
        raise DaemonError("A private Docker engine takes root. Start one yourself, or run this as root.")
    work = Path(tempfile.mkdtemp(prefix="portico-engine-"))  # short: sockets lie in it
    environment = programs.environment() | {"DOCKER_HOST": f"unix://{work}/docker.sock"}
    with ExitStack() as undo:
        for number in (signal.SIGINT, signal.SIGTERM):
            undo.callback(signal.signal, number, signal.getsignal(number))
        signal.signal(signal.SIGTERM, _interrupt)
        undo.callback(_remove, work)
        host = engine_host.State.read(programs.with_libraries())
        undo.callback(host.restore, programs.with_libraries())
        daemon = _start(programs, work)
        undo.callback(_stop, daemon)
        try:
            _wait(daemon, environment, work / "log")
            undo.callback(_clear, environment)
            _clear(environment)  # what an earlier run could not remove
            yield environment
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):  # a second one must not leave half of it behind
                signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _start(programs: Programs, work: Path) -> "subprocess.Popen[bytes]":
    data = CACHE / "data"
    data.mkdir(parents=True, exist_ok=True)
    command = [
        # Should this process be killed, the daemon ends all the same.
        *["setpriv", "--pdeathsig", "TERM", "dockerd", "--host", f"unix://{work}/docker.sock"],
        *["--data-root", str(data), "--exec-root", str(work / "exec"), "--pidfile", str(work / "pid")],
    ]
    with (work / "log").open("wb") as log:
        # A session of its own: Ctrl-C is for this process, which then stops the daemon.
        return subprocess.Popen(
            command,
            env=programs.with_libraries(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _wait(daemon: "subprocess.Popen[bytes]", environment: dict[str, str], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(environment):
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise DaemonError(
                f"dockerd did not start. Its last lines:\n{log.read_text(errors='replace')[-4000:]}\n"
                f"It needs the rights of the machine's root. If its data are damaged, remove {CACHE}/data."
            )
        time.sleep(0.1)


def _answers(environment: dict[str, str]) -> bool:
    done = subprocess.run(["docker", "version"], env=environment, capture_output=True, timeout=START_SECONDS)
    return done.returncode == 0


def _clear(environment: dict[str, str]) -> None:
    """Removes all containers, and networks and volumes that are left; images and what builds cached stay."""

    def docker(*arguments: str) -> str:
        done = subprocess.run(
            ["docker", *arguments], env=environment, capture_output=True, text=True, timeout=COMMAND_SECONDS
        )
        return done.stdout

    if containers := docker("ps", "--all", "--quiet").split():
        docker("rm", "--force", "--volumes", *containers)
    docker("network", "prune", "--force")
    if volumes := docker("volume", "ls", "--quiet").split():
        docker("volume", "rm", "--force", *volumes)
    docker("image", "prune", "--force")  # what a newer build replaced


def _stop(daemon: "subprocess.Popen[bytes]") -> None:
    """By its own process: it ends its containerd itself."""
    daemon.terminate()
    try:
        daemon.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait(STOP_SECONDS)


def _remove(work: Path) -> None:
    """The scratch folder, and what is still mounted in it and in the data."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in reversed(mounts):
        if Path(mount).is_relative_to(work) or Path(mount).is_relative_to(CACHE):
            subprocess.run(["umount", "--lazy", mount], capture_output=True, timeout=COMMAND_SECONDS)
    shutil.rmtree(work, ignore_errors=True)
