"""What this machine is and has, asked of Python, the C library and /proc; read by the preflight.

Like the preflight it must stay within the syntax and the imports of Python 3.7.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """What was found out about the machine; a test makes one up."""

    python: tuple[int, int] = sys.version_info[:2]
    system: str = sys.platform
    architecture: str = platform.machine()
    glibc: tuple[int, ...] | None = None
    libpython: Path | None = None
    has_venv: bool = True
    memory: int | None = None
    disk: int | None = None

    @classmethod
    def here(cls, folder: Path) -> Machine:
        """This machine; `disk` is what is free where `folder` lies. Sizes are in bytes, None where unknown."""
        return cls(
            glibc=glibc_version(),
            libpython=find_libpython(),
            has_venv=all(importlib.util.find_spec(name) is not None for name in ("venv", "ensurepip")),
            memory=available_memory(),
            disk=shutil.disk_usage(str(folder)).free,
        )


def glibc_version() -> tuple[int, ...] | None:
    """(2, 36) or the like; None without glibc."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, AttributeError, OSError):
        return None
    return tuple(int(part) for part in version.split(".")[:2]) if name == "glibc" else None


def find_libpython() -> Path | None:
    """The shared library of this interpreter, where its build or the system's loader says it lies."""
    variables = sysconfig.get_config_vars()
    folders = [str(variables.get(name) or "") for name in ("LIBDIR", "LIBPL", "srcdir")]
    folders.append(os.path.join(sys.base_prefix, "lib"))
    names = [str(variables.get(name) or "") for name in ("INSTSONAME", "LDLIBRARY")]
    for folder in filter(None, folders):
        for name in names:
            if ".so" in name and os.path.exists(os.path.join(folder, name)):
                return Path(folder) / name
    known = ctypes.util.find_library("python{}.{}".format(*sys.version_info))
    return Path(known) if known else None


def available_memory() -> int | None:
    """Bytes that could be used without swapping: the machine's, or the container's limit when that is less."""
    limits = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no cgroup, or one without a limit ("max")
        pass
    return min(limits) if limits else None
