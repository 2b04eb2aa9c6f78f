"""Runs clients that other people made, unmodified, in environments of their own: the scripts in clients/, each of which
is told where the stack is and prints JSON.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from portico.local import layout

CLIENTS = Path(__file__).parent / "clients"
NODE_MODULES = layout.VENVS / "clients-node"
SECONDS = 120


def run(script: str, *arguments: str, python: Path = layout.CLIENTS_PYTHON) -> Any:
    """What a Python script in clients/ prints; it fails with what the script says."""
    return _printed([str(python), str(CLIENTS / script), *arguments])


def run_node(script: str, *arguments: str) -> Any:
    """The same of a script for Node, whose packages are fetched the first time."""
    locks = ("package.json", "package-lock.json")
    if any(_read(NODE_MODULES / name) != _read(CLIENTS / name) for name in locks):
        shutil.rmtree(NODE_MODULES, ignore_errors=True)
        fresh = NODE_MODULES.with_name(f"{NODE_MODULES.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for name in locks:
            shutil.copy(CLIENTS / name, fresh)
        install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", str(fresh / ".npm")]
        done = subprocess.run(install, cwd=fresh, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        fresh.rename(NODE_MODULES)
    # Node looks for packages beside the script.
    copy = NODE_MODULES / script
    shutil.copy(CLIENTS / script, copy)
    return _printed(["node", str(copy), *arguments])


def _printed(command: list[str]) -> Any:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
