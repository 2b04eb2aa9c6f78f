"""What the gateway's process is made of, and what it needs."""

import os
import subprocess
from pathlib import Path

import pytest
from door import Door, eventually
from second_gateway import second_gateway

from portico.local.stack import Stack

ROOT = Path(__file__).parents[2]
LARGEST_RESIDENT = 250 << 20


def test_environment_holds_no_framework() -> None:
    """Neither tensorflow nor torch can be imported in the gateway's environment."""
    code = "import importlib.util as u; print([n for n in ('tensorflow', 'torch') if u.find_spec(n)])"
    python = ROOT / ".venv/gateway/bin/python"
    assert subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60).stdout.strip() == "[]"


def test_resident_memory(stack: Stack, door: Door) -> None:
    """After a thousand requests, and again after large ones, the gateway's process is under 250 MB resident."""
    for index in range(500):
        door.infer("iris", "measurements", "FP32", [1.0, 2.0, 3.0, index / 10], [1, 4])
        door.post("/v1/models/iris:predict", {"instances": [[1.0, 2.0, 3.0, index / 10]]})
    assert resident(stack) < LARGEST_RESIDENT
    for _ in range(3):
        door.post("/v2/models/iris/infer", bytes(60 << 20))
        door.infer("iris", "measurements", "FP32", [1.5] * 2_000_000, [500_000, 4])
    eventually(lambda: resident(stack) < LARGEST_RESIDENT, 20, "what large messages took is given back")


@pytest.mark.parametrize(("own", "policy"), [("false", os.SCHED_OTHER), ("true", os.SCHED_BATCH)])
def test_its_cores_may_be_its_own(stack: Stack, tmp_path: Path, own: str, policy: int) -> None:
    """All threads of the process are scheduled so, Envoy's and Python's."""
    with second_gateway(stack, tmp_path / "gateway", PORTICO_OWN_CORES=own) as gateway:
        tasks = [int(task.name) for task in Path(f"/proc/{gateway.process.pid}/task").iterdir()]
        assert {os.sched_getscheduler(task) for task in tasks} == {policy}


def resident(stack: Stack) -> int:
    """Bytes of memory that the gateway holds."""
    status = Path(f"/proc/{stack.pid('gateway')}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS"))
