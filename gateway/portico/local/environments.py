"""The environments below .venv, and whether each is there and up to date; built by `portico.local.installing`.

Like the preflight it must stay within the syntax and the imports of Python 3.7.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from portico.local import layout

STAMP = "portico-stamp"
MB = 1_000_000


@dataclass(frozen=True)
class Environment:
    """A Python environment made from lock files.

    `download` and `disk` are bytes, as measured, to tell beforehand how much there is to come. `imports` are folders of
    the checkout that its Python finds packages in. With `for_python` set the wheels are those of that Python version,
    unpacked into the folder `wheels` beside the environment's own packages: they hold programs, not modules. `starts`
    are the modules that its programs begin with: their bytecode, and that of all they import, is made at once.
    """

    name: str
    holds: str
    locks: tuple[str, ...]
    download: int
    disk: int
    imports: tuple[str, ...] = ()
    for_python: str | None = None
    starts: tuple[str, ...] = ()
    root: Path = layout.ROOT

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.root / ".venv" / self.name

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def digest(self) -> str:
        """Changes whenever the environment has to be made again: other packages, another Python, another place."""
        digest = hashlib.sha256(repr((sys.version, sys.base_prefix, str(self.folder), self.imports)).encode())
        for lock in self.locks:
            digest.update((self.root / lock).read_bytes())
        return digest.hexdigest()

    def is_current(self) -> bool:
        """Whether it was finished, from these lock files. A half-made one has no stamp."""
        try:
            return (self.folder / STAMP).read_text() == self.digest() and self.python.exists()
        except OSError:
            return False

    def mark_current(self) -> None:
        """Says that it is finished; the last step of making it."""
        (self.folder / STAMP).write_text(self.digest())


GATEWAY = Environment(
    "gateway",
    "gateway, controller and Envoy",
    ("gateway/requirements.lock",),
    81 * MB,
    270 * MB,
    imports=("gateway",),
    starts=("aiohttp", "fastapi", "grpc.aio", "numpy", "prometheus_client", "pyvoy", "redis.asyncio", "uvloop"),
)
PROGRAMS = Environment(
    "programs",
    "Redis and protoc",
    ("gateway/requirements-programs.lock",),
    10 * MB,
    60 * MB,
    for_python="3.12",
)
TF_SERVING = Environment(
    "tf-serving",
    "TensorFlow",
    ("tf-serving/requirements.lock",),
    430 * MB,
    1640 * MB,
    imports=("tf-serving",),
    starts=("tensorflow", "tensorflow_serving.apis.prediction_service_pb2_grpc"),
)
TORCHSERVE = Environment(
    "torchserve",
    "TorchServe and PyTorch",
    ("torchserve/requirements.lock",),
    350 * MB,
    1310 * MB,
    starts=("torch", "ts.model_service_worker", "ts.torch_handler.base_handler"),
)
DEV = Environment(
    "dev",
    "tools and tests",
    ("gateway/requirements-dev.lock",),
    145 * MB,
    450 * MB,
    imports=("gateway",),
)
CLIENTS = Environment(
    "clients",
    "clients that people have",
    ("tests/stack/clients/requirements.lock",),
    18 * MB,
    165 * MB,
)
# What PyTorch's build for CUDA comes with, and cannot be imported without; the registry's build for Linux is that one.
CUDA_DOWNLOAD, CUDA_DISK = 2800 * MB, 5400 * MB


def needed(purpose: str, replicas: int = 1) -> list[Environment]:
    """The environments that `run`, `check`, `test` or `protos` works with; several replicas are of the stand-in."""
    if purpose == "protos":
        return [PROGRAMS]
    if purpose == "check":
        return [PROGRAMS, DEV]
    if purpose == "run" and replicas == 1 and shutil.which("tensorflow_model_server"):
        return [PROGRAMS, GATEWAY, TORCHSERVE]
    # The largest first: with several made at a time, they then end at about the same time.
    serving = [TF_SERVING, TORCHSERVE, GATEWAY, PROGRAMS]
    return [*serving, DEV, CLIENTS] if purpose == "test" else serving


def missing(purpose: str, replicas: int = 1) -> list[Environment]:
    """Those of them that have to be made."""
    return [environment for environment in needed(purpose, replicas) if not environment.is_current()]


def sizes(environments: list[Environment]) -> tuple[int, int]:
    """Bytes to download and bytes on disk for these environments, with PyTorch's build that pip would take here."""
    download = sum(environment.download for environment in environments)
    disk = sum(environment.disk for environment in environments)
    if TORCHSERVE in environments and not finds_cpu_build():
        return download + CUDA_DOWNLOAD, disk + CUDA_DISK
    return download, disk


def finds_cpu_build() -> bool:
    """Whether this user's pip settings lead to the CPU build of the PyTorch that the lock file names."""
    pins = (layout.ROOT / TORCHSERVE.locks[0]).read_text().splitlines()
    version = next((pin.split("==")[1].split()[0] for pin in pins if pin.startswith("torch==")), "")
    command = [sys.executable, "-m", "pip", "--retries=0", "--timeout=5", "index", "versions", "torch"]
    try:
        told = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return False
    return version + "+cpu" in told.stdout.decode()
