"""What `portico local` says about the models."""

from portico.local import layout
from portico.local.command import listed
from portico.local.models import ModelState


def test_a_model_that_is_not_ready_is_shown_with_its_reason() -> None:
    """Whoever dropped a broken file reads why it is not served, beside the models that are."""
    models = [ModelState("iris", "1", "READY", ""), ModelState("broken", "2", "QUARANTINED", "saved_model.pb is empty")]
    ready, broken = listed(models, layout.ROOT).splitlines()
    assert "✓ iris" in ready
    assert "version 1" in ready
    assert "✗ broken" in broken
    assert "quarantined: saved_model.pb is empty" in broken


def test_an_empty_repository_is_named() -> None:
    """Without models the folder to put them into is named, as a path to type."""
    assert "no models in model-repository yet" in listed([], layout.ROOT / "model-repository")
