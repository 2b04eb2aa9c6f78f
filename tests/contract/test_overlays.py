"""The promises of the overlays, compose.*.yml: they fit docker-compose.yml in every combination, and open nothing."""

import itertools
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_compose import INTERPOLATION, compose_plugin

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted(ROOT.glob("compose.*.yml"))
COMBINATIONS = [some for count in range(len(OVERLAYS) + 1) for some in itertools.combinations(OVERLAYS, count)]
EXAMPLE = ROOT / ".env.example"
BASE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
EVERY_OVERLAY = pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
NEEDS_COMPOSE = pytest.mark.skipif(
    compose_plugin() is None, reason="Docker Compose 2 is not installed, so nothing can read the files for us"
)


def variables(path: Path) -> dict[str, str]:
    """What a file reads from the environment, with the defaults; where that is a file that is always empty, nothing."""
    found = dict(re.findall(INTERPOLATION, path.read_text()))
    return {name: "" if default == "./gateway/no-secret" else default for name, default in found.items()}


def config(*overlays: Path, settings: Path = Path(os.devnull), **environment: str) -> Any:
    """What Compose makes of docker-compose.yml with these overlays, `settings` in place of a user's own `.env`. It must
    have nothing to say about them."""
    compose = compose_plugin()
    assert compose
    files = [word for path in (ROOT / "docker-compose.yml", *overlays) for word in ("-f", str(path))]
    command = [*compose, *files, "--env-file", str(settings), "--profile", "tests", "config", "--format", "json"]
    known = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "DOCKER_CONFIG")}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT, env={**known, **environment}
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_the_overlays_are_those_that_are_told_of() -> None:
    """There is an overlay for each of the uses, and no other."""
    assert [path.name for path in OVERLAYS] == [
        f"compose.{use}.yml" for use in ("compact", "dev", "gpu", "monitoring", "test")
    ]


@EVERY_OVERLAY
def test_an_overlay_says_what_it_is_for(overlay: Path) -> None:
    """It opens with a comment that has the command to use it with."""
    comment = "".join(itertools.takewhile(lambda line: line.startswith("#"), overlay.read_text().splitlines(True)))
    assert f"#   docker compose -f docker-compose.yml -f {overlay.name} " in comment


@EVERY_OVERLAY
def test_every_variable_of_an_overlay_is_documented(overlay: Path) -> None:
    """.env.example holds each variable that the overlay reads, with its default, and none is read without a default."""
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    documented = dict(line.split("=", 1) for line in lines)
    assert variables(overlay).items() <= documented.items()
    assert len(lines) == len(documented)
    bare = set(re.findall(r"(?<!\$)\$(?:\{)?([A-Z][A-Z0-9_]*)", overlay.read_text())) - set(variables(overlay))
    assert not bare


def test_nothing_else_is_documented() -> None:
    """Each variable of .env.example is read by docker-compose.yml or by an overlay."""
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    read = {name for path in (ROOT / "docker-compose.yml", *OVERLAYS) for name in variables(path)}
    assert {line.split("=", 1)[0] for line in lines} == read


@EVERY_OVERLAY
def test_images_are_pinned_and_mounted_files_exist(overlay: Path) -> None:
    """Stock images have a full version, others are built here; files are mounted from the repository, read-only."""
    for service in yaml.safe_load(overlay.read_text())["services"].values():
        image = service.get("image", "")
        if not image:
            continue  # as in docker-compose.yml
        if "build" in service:
            assert image == "portico:development"
            assert (ROOT / service["build"]["dockerfile"]).exists()
        elif image != "portico:development":
            assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+(-[a-z]+)?", image), image
        for volume in service.get("volumes", []):
            if isinstance(volume, dict):
                assert volume["read_only"]
                continue
            source, _, mode = volume.partition(":")
            if source.startswith("."):
                assert (ROOT / source).exists()
                assert mode.endswith(":ro")


def test_the_gpu_images_are_of_the_same_release() -> None:
    """The model servers' images for GPUs are those of docker-compose.yml in another build."""
    services = yaml.safe_load((ROOT / "compose.gpu.yml").read_text())["services"]
    stock = {name: BASE["services"][name]["image"].removesuffix("-cpu") for name in ("tf-serving", "torchserve")}
    assert {name: service["image"] for name, service in services.items()} == {n: f"{i}-gpu" for n, i in stock.items()}


def test_every_replica_is_scraped_where_it_answers() -> None:
    """Prometheus asks for all addresses of a name, at the ports at which docker-compose.yml has the metrics."""
    scraped = yaml.safe_load((ROOT / "gateway" / "monitoring" / "prometheus.yml").read_text())["scrape_configs"]
    asked = {job["job_name"]: (*sd["names"], sd["type"], sd["port"]) for job in scraped for sd in job["dns_sd_configs"]}
    ports = {
        name: int(re.findall(r"\d+", BASE["services"][name]["environment"]["PORTICO_METRICS_ADDRESS"])[-1])
        for name in ("gateway", "controller")
    }
    properties = (ROOT / "torchserve" / "config.properties").read_text()
    (ports["torchserve"],) = map(int, re.findall(r"^metrics_address=http://0\.0\.0\.0:(\d+)$", properties, re.M))
    assert asked == {name: (name, "A", port) for name, port in ports.items()}


@NEEDS_COMPOSE
@pytest.mark.parametrize(
    "overlays", COMBINATIONS, ids=lambda some: "+".join(path.name.split(".")[1] for path in some) or "none"
)
def test_every_combination_is_valid_and_confined(overlays: tuple[Path, ...]) -> None:
    """Compose takes every combination, with the defaults and with .env.example alike, and what holds for the services
    of docker-compose.yml holds for all."""
    merged = config(*overlays)
    assert config(*overlays, settings=EXAMPLE) == merged
    for name, service in merged["services"].items():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["mem_limit"]) > 0, name
        assert service["pids_limit"] > 0, name
        assert service.get("privileged", False) is False, name
        assert {port["host_ip"] for port in service.get("ports", [])} <= {"127.0.0.1"}, name
    for name, network in BASE["networks"].items():
        internal = bool((network or {}).get("internal"))
        if name in merged["networks"]:
            assert bool((merged["networks"][name] or {}).get("internal")) is internal, name


@NEEDS_COMPOSE
def test_overlays_leave_the_stacks_networks_as_they_are() -> None:
    """With all overlays, who was in a network of docker-compose.yml still is, and only who watches or tests came, and
    the gateway that is its own Envoy.
    """
    before, after = config(), config(*OVERLAYS)

    def members(merged: Any) -> dict[str, set[str]]:
        joined = [(net, name) for name, service in merged["services"].items() for net in service["networks"]]
        return {net: {name for other, name in joined if other == net} for net in before["networks"]}

    came = {net: names - members(before)[net] for net, names in members(after).items()}
    assert all(members(before)[net] <= members(after)[net] for net in came)
    assert {net: names for net, names in came.items() if names} == {
        "clients": {"gateway", "tests"},
        "gateways": {"prometheus"},
        "servers": {"gateway", "prometheus"},
    }


@NEEDS_COMPOSE
def test_one_process_takes_envoys_place() -> None:
    """With compose.compact.yml no Envoy stands in front, and the gateway has its port, its files and its names."""
    before, after = config()["services"], config(ROOT / "compose.compact.yml")["services"]
    assert after["envoy"]["scale"] == 0
    gateway, envoy = after["gateway"], before["envoy"]
    assert gateway["ports"] == envoy["ports"]
    assert envoy["networks"].keys() <= gateway["networks"].keys()
    assert gateway["networks"]["gateways"] == envoy["networks"]["gateways"]
    mounted = [volume["target"] for volume in envoy["volumes"]]
    assert [volume for volume in gateway["volumes"] if volume["target"] in mounted] == envoy["volumes"]
    assert gateway["environment"]["PORTICO_EDGE"] in mounted


@NEEDS_COMPOSE
def test_a_number_of_gpus_can_be_asked_for() -> None:
    """Each model server gets all GPUs, or as many as its setting says."""

    def counts(**environment: str) -> dict[str, Any]:
        services = config(ROOT / "compose.gpu.yml", **environment)["services"]
        devices = {name: service.get("deploy", {}).get("resources", {}) for name, service in services.items()}
        return {name: found["reservations"]["devices"][0]["count"] for name, found in devices.items() if found}

    assert counts() == {"tf-serving": -1, "torchserve": -1}
    assert counts(TF_SERVING_GPUS="2", TORCHSERVE_GPUS="1") == {"tf-serving": 2, "torchserve": 1}


@NEEDS_COMPOSE
def test_the_tests_run_only_when_they_are_asked_for() -> None:
    """`up` with compose.test.yml starts no tests: they are in a profile of their own."""
    assert config(ROOT / "compose.test.yml")["services"]["tests"]["profiles"] == ["tests"]
