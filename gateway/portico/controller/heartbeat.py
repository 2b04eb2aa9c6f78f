"""Whether a controller is alive: a file that its loop touches, and the check of its age, `python -m
portico.controller.heartbeat`, which a container's health check runs. It imports nothing of Portico, to be quick.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

MAX_AGE = 30.0
"""Seconds without a beat after which the loop counts as stuck."""


def default_path() -> Path:
    """Where the heartbeat of this machine's (or container's) controller is."""
    return Path(tempfile.gettempdir()) / "portico-controller.heartbeat"


def beat(path: Path) -> None:
    """Notes that the loop has come round. Raises OSError."""
    path.touch()
    os.utime(path)


def problem(path: Path, max_age: float = MAX_AGE) -> str:
    """Why the controller does not count as alive, empty if it does."""
    try:
        age = time.time() - path.stat().st_mtime
    except OSError as error:
        return f"no heartbeat of a controller: {error.strerror}: {path}"
    return f"the controller's last heartbeat is {age:.0f} s old" if age > max_age else ""


if __name__ == "__main__":
    sys.exit(problem(default_path()) or 0)
