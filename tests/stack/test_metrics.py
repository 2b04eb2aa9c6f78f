"""What the controller tells Prometheus."""

from door import Door

from portico.local.stack import Stack


def test_the_controller_tells_what_is_served_and_how_long_it_took(stack: Stack) -> None:
    """Both demo models are ready, and each phase of their way there was measured."""
    text = Door(stack.addresses.controller_metrics).get("/metrics").body.decode()
    ready = next(line for line in text.splitlines() if line.startswith('portico_model_versions{state="ready"}'))
    assert float(ready.split()[-1]) >= 2
    for phase in ("settle", "judge", "load", "flip"):
        assert f'portico_swap_seconds_count{{phase="{phase}"}}' in text
    assert 'portico_model_changes_total{change="ready",model="iris"}' in text
