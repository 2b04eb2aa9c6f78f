"""The environment is read once, checked, and then fixed."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from portico import cli
from portico.redis_address import RedisAccess
from portico.settings import ControllerSettings, GatewaySettings
from redis_server import certificates


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
        ("redis_url", "cache:6379"),
        ("redis_url", "redis+sentinel://cache"),
        ("redis_password_file", "/no/such/file"),
        ("redis_ca_file", "/no/such/file"),
        ("metrics_address", "9401"),
        ("metrics_address", "host:port"),
    ],
)
def test_values_that_cannot_be_meant(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A value out of range stops the start, and the message names the setting."""
    monkeypatch.setenv(f"PORTICO_{name.upper()}", value)
    with pytest.raises(ValidationError, match=name):
        GatewaySettings()


def test_what_opens_redis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The URL, the password's file and the authority's certificates go together; these are of no use without TLS."""
    certificates(tmp_path)
    password, ca = tmp_path / "password", tmp_path / "ca.pem"
    password.write_text("secret")
    given = {"url": "rediss://cache", "password_file": str(password), "ca_file": str(ca)}
    for name, value in given.items():
        monkeypatch.setenv(f"PORTICO_REDIS_{name.upper()}", value)
    assert ControllerSettings().redis == GatewaySettings().redis == RedisAccess(**given)
    monkeypatch.setenv("PORTICO_REDIS_URL", "redis://cache")
    with pytest.raises(ValidationError, match="does not begin with rediss"):
        GatewaySettings()


def test_no_password_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A URL that is refused is shown without it, each setting in its line."""
    monkeypatch.setenv("PORTICO_REDIS_URL", "redis+cluster://me:secret@a:b")
    monkeypatch.setenv("PORTICO_METRICS_ADDRESS", "9401")
    assert cli.main(["controller"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "These settings are not valid:",
        "  PORTICO_REDIS_URL: 'a:b' is not host:port",
        "  PORTICO_METRICS_ADDRESS: it is not host:port, as in 0.0.0.0:9400 (given: '9401')",
    ]


def test_settings_do_not_change() -> None:
    """Nobody changes a setting after the start."""
    with pytest.raises(ValidationError, match="frozen"):
        GatewaySettings().port = 1  # type: ignore[misc]
