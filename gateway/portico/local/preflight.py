"""Looks at the machine before anything is downloaded or started and tells everything that is missing at once.

Called by `portico.local.__main__`. Its syntax and imports must stay those of Python 3.7: an old Python is one of the
things it reports.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from portico.local.machine import Machine
from portico.local.port_owner import owner

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
OLDEST_GLIBC = (2, 31)
MOST_REPLICAS = 100
CONTAINERS = "Start the containers instead: docker compose up"


@dataclass(frozen=True)
class Finding:
    """Something that is missing, and what to do about it."""

    problem: str
    remedy: str


def findings(machine: Machine, disk_needed: int, memory_needed: int) -> list[Finding]:
    """What the machine itself lacks; `disk_needed` and `memory_needed` are in bytes."""
    found = [python_version(machine), supported_platform(machine)]
    if not any(found):  # on another platform, or with another Python, these would only repeat the news
        found += [shared_libpython(machine), venv_module(machine)]
    found += [enough_disk(machine, disk_needed), enough_memory(machine, memory_needed)]
    return [finding for finding in found if finding is not None]


def python_version(machine: Machine) -> Finding | None:
    """A Python for which every package in the lock files has a wheel."""
    if OLDEST_PYTHON <= machine.python <= NEWEST_PYTHON:
        return None
    problem = "This is Python {}.{}; Portico needs Python 3.11, 3.12 or 3.13".format(*machine.python)
    if machine.python > NEWEST_PYTHON:
        problem += " (TensorFlow has no wheels for newer ones)"
    other = other_python()
    if other:
        return Finding(
            problem + ".", f"There is another one here; use it by adding this to the make command: PYTHON={other}"
        )
    return Finding(
        problem + ".",
        "Install one (Debian, Ubuntu: apt install python3.12 python3.12-venv libpython3.12) and add this to the make "
        "command: PYTHON=python3.12",
    )


def other_python() -> str | None:
    """A suitable Python on PATH under another name than python3."""
    for minor in range(NEWEST_PYTHON[1], OLDEST_PYTHON[1] - 1, -1):
        name = f"python3.{minor}"
        if shutil.which(name):
            # Version switchers put a file of that name on PATH that only says that it is not installed.
            tried = subprocess.run([name, "-c", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            if tried.returncode == 0:
                return name
    return None


def supported_platform(machine: Machine) -> Finding | None:
    """Linux on x86_64 with glibc is what the wheels (Envoy's among them) are built for and the tests run on."""
    if machine.system != "linux" or machine.architecture != "x86_64":
        here = f"{machine.system} on {machine.architecture}"
        return Finding(f"Running without containers works on Linux on x86_64; this is {here}.", CONTAINERS)
    if machine.glibc is None:
        return Finding("This Linux has no glibc (Alpine?); Envoy and PyTorch come as glibc programs.", CONTAINERS)
    if machine.glibc < OLDEST_GLIBC:
        version = ".".join(map(str, machine.glibc))
        return Finding(f"This Linux has glibc {version}; at least 2.31 is needed.", CONTAINERS)
    return None


def shared_libpython(machine: Machine) -> Finding | None:
    """The gateway runs inside Envoy, which loads Python as a library."""
    if machine.libpython is not None:
        return None
    version = "{}.{}".format(*machine.python)
    return Finding(
        f"{sys.executable} has no shared libpython{version}.so, which the gateway needs to run inside Envoy.",
        f"Debian, Ubuntu: apt install libpython{version}. "
        f"pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install {version}. "
        "Or add another Python to the make command: PYTHON=/path/to/python3",
    )


def venv_module(machine: Machine) -> Finding | None:
    """Debian splits what makes environments out of its Python."""
    if machine.has_venv:
        return None
    version = "{}.{}".format(*machine.python)
    return Finding(
        f"{sys.executable} cannot make environments (venv or ensurepip is missing).",
        f"Debian, Ubuntu: apt install python{version}-venv",
    )


def enough_disk(machine: Machine, needed: int) -> Finding | None:
    """Room for what is still to be downloaded and unpacked."""
    if machine.disk is None or machine.disk >= needed:
        return None
    return Finding(
        f"{size(needed)} of disk are needed here, {size(machine.disk)} are free.",
        "Free some, or move this folder to a larger disk.",
    )


def enough_memory(machine: Machine, needed: int) -> Finding | None:
    """Room for TensorFlow and PyTorch beside each other."""
    if machine.memory is None or machine.memory >= needed:
        return None
    return Finding(
        f"{size(needed)} of memory are needed, {size(machine.memory)} are available.",
        "Stop something large, or give this machine or container more memory.",
    )


def free_port(text: str) -> Finding | None:
    """The port that clients will call."""
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        return Finding(f"PORT={text} is not a port.", "Give a number from 1 to 65535: make run PORT=9090")
    other = f"Choose another port: make run PORT={9090 if int(text) != 9090 else 9091}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(text)))
        except PermissionError:
            return Finding(f"Port {text} may be opened by root only.", other)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return Finding(f"Port {text} cannot be opened: {error.strerror}.", other)
            holder = owner(int(text)) or "another user's process"
            return Finding(f"Port {text} is taken by {holder}.", f"Stop it. {other}")
    return None


def number_of_replicas(text: str) -> Finding | None:
    """How many there are to be of each model server: each has an address of its own in 127.0.0.0/8."""
    if text.isdigit() and 1 <= int(text) <= MOST_REPLICAS:
        return None
    return Finding(f"REPLICAS={text} is not a number of replicas.", f"Give a number from 1 to {MOST_REPLICAS}.")


def readable_models(folder: Path) -> Finding | None:
    """The model repository to serve."""
    name = f"MODELS={folder}"
    if not folder.exists():
        return Finding(name + " does not exist.", "Name a folder of models: make run MODELS=model-repository")
    if not folder.is_dir():
        return Finding(name + " is not a folder.", "Name the folder that the models lie in.")
    if not os.access(str(folder), os.R_OK | os.X_OK):
        return Finding(name + " cannot be read.", f"Let this user read it: chmod -R u+rX {folder}")
    return None


def writable_checkout(folder: Path) -> Finding | None:
    """Environments and stubs are made inside the checkout."""
    if os.access(str(folder), os.W_OK | os.X_OK):
        return None
    return Finding(f"{folder} cannot be written to.", "Clone Portico into a folder of your own.")


def size(count: int) -> str:
    """Bytes for a person: 850 MB, 3.4 GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
