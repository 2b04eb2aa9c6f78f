"""The environment is read once, checked, and then fixed."""

import pytest
from pydantic import ValidationError

from portico.settings import ControllerSettings, GatewaySettings


def test_each_setting_is_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting is taken from its own PORTICO_ variable, by the gateway and the controller alike."""
    monkeypatch.setenv("PORTICO_REDIS_URL", "redis://cache:1/2")
    monkeypatch.setenv("PORTICO_PORT", "9000")
    monkeypatch.setenv("PORTICO_CACHE", "off")
    monkeypatch.setenv("PORTICO_TORCHSERVE_MANAGEMENT", "")
    gateway, controller = GatewaySettings(), ControllerSettings()
    assert gateway.redis_url == controller.redis_url == "redis://cache:1/2"
    assert (gateway.port, gateway.cache, controller.torchserve_management) == (9000, False, "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "0"),
        ("port", "http"),
        ("max_message_bytes", "64MiB"),
        ("max_message_bytes", "1"),
        ("request_timeout", "0"),
        ("request_timeout", "nan"),
        ("cache_ttl", "0"),
        ("redis_timeout", "-1"),
        ("log_level", "inof"),
        ("log_level", ""),
    ],
)
def test_values_that_cannot_be_meant(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A value out of range stops the start, and the message names the setting."""
    monkeypatch.setenv(f"PORTICO_{name.upper()}", value)
    with pytest.raises(ValidationError, match=name):
        GatewaySettings()


def test_settings_do_not_change() -> None:
    """Nobody changes a setting after the start."""
    with pytest.raises(ValidationError, match="frozen"):
        GatewaySettings().port = 1  # type: ignore[misc]
