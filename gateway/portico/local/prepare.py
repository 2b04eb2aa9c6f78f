"""Stage 1, run through the Makefile by the machine's own Python: look at the machine, make what is missing, go on.

Like the preflight it must stay within the syntax and the imports of Python 3.7 until the preflight is through.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from portico.local import layout, preflight
from portico.local.environments import CUDA_DISK, CUDA_DOWNLOAD, MB, Environment, missing, sizes
from portico.local.machine import Machine

MEMORY_TO_RUN = 2000 * MB
SLACK = 300 * MB


def main(arguments: list[str]) -> int:
    """Runs one command; the exit code."""
    options = parser().parse_args(arguments)
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    problems = look(options)
    if problems:
        print("Nothing was downloaded or started, because of this machine:\n")
        for problem in problems:
            print(f"  ✗ {problem.problem}\n    → {problem.remedy}\n")
        return 1
    try:
        return go(options)
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from here.")
        return 130


def parser() -> argparse.ArgumentParser:
    """What the Makefile passes."""
    top = argparse.ArgumentParser(prog="python3 -m portico.local", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    setup = commands.add_parser("setup", help="make the environments and the stubs")
    setup.add_argument("--for", dest="purpose", choices=("run", "check", "test", "protos"), default="run")
    run = commands.add_parser("run", help="set up, then start everything and serve")
    run.add_argument("--port", default="8080")
    run.add_argument("--models", default="model-repository", type=Path)
    run.add_argument("--replicas", default="1", help="how many of each model server")
    run.add_argument("--demo", default="1", help="0: serve only")
    run.set_defaults(purpose="run")
    setup.set_defaults(replicas="1")
    return top


def look(options: argparse.Namespace) -> list[preflight.Finding]:
    """Everything that stands in the way."""
    to_make = to_be_made(options)
    options.sizes = sizes(to_make)
    running = options.purpose in ("run", "test")
    problems = preflight.findings(
        Machine.here(layout.ROOT),
        disk_needed=sum(options.sizes) + SLACK,
        memory_needed=MEMORY_TO_RUN if running else 0,
    )
    found = [preflight.writable_checkout(layout.ROOT)]
    if options.command == "run":
        found += [preflight.free_port(options.port), preflight.readable_models(options.models)]
        found.append(preflight.number_of_replicas(options.replicas))
    return problems + [finding for finding in found if finding is not None]


def to_be_made(options: argparse.Namespace) -> list[Environment]:
    """The environments that are missing."""
    return missing(options.purpose, int(options.replicas) if options.replicas.isdigit() else 1)


def go(options: argparse.Namespace) -> int:
    """Sets up, and for `run` becomes the process that runs the stack."""
    from portico.local.board import Board
    from portico.local.installing import InstallationFailed, install
    from portico.local.stubs import GenerationFailed, generate

    to_make = to_be_made(options)
    try:
        if to_make:
            began = time.monotonic()
            announce(*options.sizes)
            install(to_make, Board())
            print(f"  Set up in {time.monotonic() - began:.0f} s.\n", flush=True)
        if generate():
            print("  Generated gateway/portico/wire from protos/.", flush=True)
    except (InstallationFailed, GenerationFailed) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    if options.command == "run":
        become_the_stack(options)
    return 0


def announce(download: int, disk: int) -> None:
    """What is about to happen, and how much of it."""
    size = preflight.size
    print(f"Setting up in .venv, once: about {size(download)} to download, {size(disk)} on disk.", flush=True)
    if download > CUDA_DOWNLOAD:
        cuda = (
            f"{size(CUDA_DOWNLOAD)} and {size(CUDA_DISK)} of it are CUDA, which the registry's build of PyTorch needs"
        )
        print(f"  {cuda}.\n  PIP_EXTRA_INDEX_URL with PyTorch's own index of CPU builds spares them.", flush=True)


def become_the_stack(options: argparse.Namespace) -> None:
    """Never returns: stage 2 takes over this process."""
    python = str(layout.GATEWAY_PYTHON)
    command = [python, "-m", "portico", "local", "--port", options.port, "--models", str(options.models.resolve())]
    command += ["--replicas", options.replicas]
    if options.demo in ("0", "no", "false", ""):
        command.append("--no-demo")
    os.environ.pop("PYTHONPATH", None)
    os.execv(python, command)  # noqa: S606 - Ctrl-C and SIGTERM shall reach the stack itself
