"""Where things lie in a checkout, for both stages. It must not import anything but the standard library."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
VENVS = ROOT / ".venv"
SETUP_LOGS = VENVS / "logs"
PROGRAMS = VENVS / "programs" / "wheels"
GATEWAY_PYTHON = VENVS / "gateway" / "bin" / "python"
TF_SERVING_PYTHON = VENVS / "tf-serving" / "bin" / "python"
CLIENTS_PYTHON = VENVS / "clients" / "bin" / "python"
TORCHSERVE_PYTHON = VENVS / "torchserve" / "bin" / "python"


def redis_server() -> str:
    """The Redis of this machine, else the one that came in a wheel."""
    return shutil.which("redis-server") or str(PROGRAMS / "bin" / "redis-server")


def shown(path: Path) -> str:
    """`path` as a user in the checkout's folder would type it."""
    try:
        return str(path.relative_to(ROOT))
    except ValueError:
        return str(path)
