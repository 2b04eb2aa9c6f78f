"""What the controller tells Prometheus."""

import shutil
from pathlib import Path

from door import Door, eventually

from portico.local.stack import Stack


def test_the_controller_tells_what_is_served_and_how_long_it_took(stack: Stack, repository: Path) -> None:
    """A model that is dropped is counted, and each phase of its way to the clients is measured."""
    metrics = Door(stack.addresses.operators)
    name = "metered"
    shutil.copytree(repository / "iris", repository / name)

    def text() -> str:
        return metrics.get("/metrics").body.decode()

    try:
        change = f'portico_model_changes_total{{change="ready",model="{name}"}} 1.0'
        eventually(lambda: change in text(), 60, "the model is ready")
        for phase in ("settle", "judge", "load", "flip"):
            assert f'portico_swap_seconds_count{{phase="{phase}"}}' in text()
        ready = next(line for line in text().splitlines() if line.startswith('portico_model_versions{state="ready"}'))
        assert float(ready.split()[-1]) >= 1
    finally:
        shutil.rmtree(repository / name)
    eventually(lambda: f'change="removed",model="{name}"' in text(), 60, "the model is removed")
