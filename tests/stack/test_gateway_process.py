"""What the gateway's process is made of, and what it needs."""

import subprocess
from pathlib import Path

from door import Door

from portico.local.stack import Stack

ROOT = Path(__file__).parents[2]
LARGEST_RESIDENT = 250 << 20


def test_environment_holds_no_framework() -> None:
    """Neither tensorflow nor torch can be imported in the gateway's environment."""
    code = "import importlib.util as u; print([n for n in ('tensorflow', 'torch') if u.find_spec(n)])"
    python = ROOT / ".venv/gateway/bin/python"
    assert subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60).stdout.strip() == "[]"


def test_resident_memory(stack: Stack, door: Door) -> None:
    """After a thousand requests the gateway's process is under 250 MB resident."""
    for index in range(500):
        door.infer("iris", "measurements", "FP32", [1.0, 2.0, 3.0, index / 10], [1, 4])
        door.post("/v1/models/iris:predict", {"instances": [[1.0, 2.0, 3.0, index / 10]]})
    status = Path(f"/proc/{stack.pid('gateway')}/status").read_text()
    resident = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS"))
    assert resident < LARGEST_RESIDENT
