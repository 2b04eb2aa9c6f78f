"""The files that tell Envoy which replicas take calls."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from portico.controller.endpoints import Endpoints
from portico.routing import Server

CLUSTERS = {"tf_serving", "torchserve_grpc", "torchserve_rest"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that does not exist yet."""
    return tmp_path / "stage" / "envoy"


@pytest.fixture
def endpoints(folder: Path) -> Endpoints:
    """With the ports that docker-compose.yml has."""
    made = Endpoints(folder, 7070, 8080)
    made.prepare()
    return made


def assignment(folder: Path, cluster: str) -> dict[str, Any]:
    """The one resource in a cluster's file."""
    (found,) = json.loads((folder / f"{cluster}.json").read_text())["resources"]
    assert found["@type"] == "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    assert found["cluster_name"] == cluster
    return dict(found)


def addresses(folder: Path, cluster: str) -> list[tuple[str, int]]:
    """Where Envoy sends the calls of a cluster."""
    (locality,) = assignment(folder, cluster)["endpoints"]
    found = [endpoint["endpoint"]["address"]["socket_address"] for endpoint in locality["lb_endpoints"]]
    return [(each["address"], each["port_value"]) for each in found]


def inodes(folder: Path) -> dict[str, int]:
    """Changes with each file that was replaced."""
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


def test_every_cluster_has_a_file_from_the_start(endpoints: Endpoints, folder: Path) -> None:
    """Envoy does not start without; nobody takes calls yet."""
    assert {path.name for path in folder.iterdir()} == {f"{cluster}.json" for cluster in CLUSTERS}
    assert [addresses(folder, cluster) for cluster in CLUSTERS] == [[]] * 3


def test_calls_go_to_the_replicas(endpoints: Endpoints, folder: Path) -> None:
    """TF Serving's answer where the controller asks them, TorchServe's at the ports of their inference."""
    endpoints.write(Server.TF_SERVING, ["10.0.0.10:8500", "10.0.0.9:8500"])
    endpoints.write(Server.TORCHSERVE, ["10.0.0.3:7071"])
    assert addresses(folder, "tf_serving") == [("10.0.0.9", 8500), ("10.0.0.10", 8500)]
    assert addresses(folder, "torchserve_grpc") == [("10.0.0.3", 7070)]
    assert addresses(folder, "torchserve_rest") == [("10.0.0.3", 8080)]


def test_ipv6_has_no_brackets(endpoints: Endpoints, folder: Path) -> None:
    """Envoy takes the bare address; both kinds may stand side by side."""
    endpoints.write(Server.TF_SERVING, ["[fd00::2]:8500", "10.0.0.1:8500"])
    endpoints.write(Server.TORCHSERVE, ["[::1]:7071"])
    assert addresses(folder, "tf_serving") == [("10.0.0.1", 8500), ("fd00::2", 8500)]
    assert addresses(folder, "torchserve_rest") == [("::1", 8080)]


def test_a_server_s_replicas_touch_no_other_s(endpoints: Endpoints, folder: Path) -> None:
    """And taking all of them out leaves an empty cluster."""
    endpoints.write(Server.TF_SERVING, ["10.0.0.1:8500"])
    endpoints.write(Server.TORCHSERVE, ["10.0.0.3:7071"])
    endpoints.write(Server.TORCHSERVE, [])
    assert addresses(folder, "tf_serving") == [("10.0.0.1", 8500)]
    assert addresses(folder, "torchserve_grpc") == addresses(folder, "torchserve_rest") == []


def test_a_file_is_replaced_only_when_it_changes(endpoints: Endpoints, folder: Path) -> None:
    """Each replaced file is work for Envoy; the order and repetitions of addresses do not matter."""
    endpoints.write(Server.TF_SERVING, ["10.0.0.1:8500", "10.0.0.2:8500"])
    before = inodes(folder)
    endpoints.write(Server.TF_SERVING, ["10.0.0.2:8500", "10.0.0.1:8500", "10.0.0.2:8500"])
    assert inodes(folder) == before
    endpoints.write(Server.TF_SERVING, ["10.0.0.1:8500"])
    changed = {name for name, inode in inodes(folder).items() if inode != before[name]}
    assert changed == {"tf_serving.json"}


def test_a_new_controller_leaves_what_is_there(endpoints: Endpoints, folder: Path) -> None:
    """Until it knows better, calls go where they went; a file that is cut off is made anew."""
    endpoints.write(Server.TF_SERVING, ["10.0.0.1:8500"])
    (folder / "torchserve_grpc.json").write_text('{"resources": [')
    Endpoints(folder, 7070, 8080).prepare()
    assert addresses(folder, "tf_serving") == [("10.0.0.1", 8500)]
    assert addresses(folder, "torchserve_grpc") == []


@pytest.fixture
def strict_umask() -> Iterator[None]:
    """A user whose files nobody else may read."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_envoy_s_user_may_read_them(strict_umask: None, endpoints: Endpoints, folder: Path) -> None:
    """Whatever the controller's umask is."""
    endpoints.write(Server.TF_SERVING, ["10.0.0.1:8500"])
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    assert folder.stat().st_mode & 0o777 == 0o755
