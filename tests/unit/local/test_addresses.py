"""The ports of a stack, and Envoy's configuration with them filled in."""

import ipaddress
import socket
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from portico.controller.endpoints import Endpoints
from portico.local import layout
from portico.local.addresses import HIGHEST, LOWEST, Addresses, fill_in, free_ports, loopback
from portico.local.preflight import MOST_REPLICAS

ADDRESSES = Addresses(*range(1001, 1016))
ENDPOINTS = Path("/anywhere")


@pytest.fixture
def configuration() -> dict[str, Any]:
    """envoy/envoy.yaml as it lies there."""
    parsed: dict[str, Any] = yaml.safe_load((layout.ROOT / "envoy" / "envoy.yaml").read_text())
    return parsed


def addresses_in(node: Any) -> list[dict[str, Any]]:
    """Every socket_address of a configuration, in its order."""
    if isinstance(node, dict):
        own = [node["socket_address"]] if "socket_address" in node else []
        return own + [found for value in node.values() for found in addresses_in(value)]
    return [found for value in node for found in addresses_in(value)] if isinstance(node, list) else []


def test_every_address_is_on_loopback_with_its_port(configuration: dict[str, Any]) -> None:
    """No listener is reachable from outside, and no upstream is looked up in the network."""
    found = addresses_in(fill_in(configuration, ADDRESSES, ENDPOINTS))
    assert {address["address"] for address in found} == {"127.0.0.1"}
    wanted = {ADDRESSES.envoy_admin, ADDRESSES.clients, ADDRESSES.model_servers, ADDRESSES.gateway}
    assert {address["port_value"] for address in found} == wanted


def sources_in(configuration: dict[str, Any]) -> list[dict[str, Any]]:
    """Where the endpoints of clusters without an address of their own are read."""
    clusters = configuration["static_resources"]["clusters"]
    configs = [cluster["eds_cluster_config"] for cluster in clusters if "eds_cluster_config" in cluster]
    return [config["eds_config"]["path_config_source"] for config in configs]


def test_endpoints_are_read_from_the_stack_s_own_folder(configuration: dict[str, Any], tmp_path: Path) -> None:
    """From the files that its controller writes, one for each cluster of model servers."""
    Endpoints(tmp_path, 1, 2).prepare()
    read = {source["path"] for source in sources_in(fill_in(configuration, ADDRESSES, tmp_path))}
    assert read == set(map(str, tmp_path.iterdir()))


def test_replicas_have_addresses_of_their_own() -> None:
    """All on loopback, and the first is where a server without replicas listens."""
    assert [loopback(replica) for replica in range(3)] == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    for replica in range(MOST_REPLICAS):
        assert ipaddress.ip_address(loopback(replica)).is_loopback


def test_nothing_but_addresses_is_changed(configuration: dict[str, Any]) -> None:
    """Timeouts, routes and health checks are those of the file that containers run with."""
    filled = fill_in(configuration, ADDRESSES, ENDPOINTS)
    for before, after in zip(sources_in(configuration), sources_in(filled), strict=True):
        after.update(before)
    for before, after in zip(addresses_in(configuration), addresses_in(filled), strict=True):
        after.clear()
        after.update(before)
    assert filled == configuration


def test_an_unknown_cluster_is_an_error(configuration: dict[str, Any]) -> None:
    """A cluster added to envoy.yaml and forgotten here does not silently point at a host of that name."""
    configuration["static_resources"]["clusters"][0]["name"] = "new"
    with pytest.raises(KeyError, match="new"):
        fill_in(configuration, ADDRESSES, ENDPOINTS)


def test_the_port_for_clients_is_the_one_asked_for() -> None:
    """PORT is kept; every other port is free, and none is used twice."""
    picked = Addresses.pick(clients=8080)
    assert picked.clients == 8080
    ports = astuple(replace(picked, clients=0))
    assert len(set(ports)) == len(ports)


def test_usual_ports_are_taken_where_they_are_free() -> None:
    """Operators find a stack where they look first, unless somebody else is there, be it the clients' own port."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        free, clients = free_ports(2)
        picked = Addresses.pick(usual={"operators": free, "gateway_metrics": taken})
        assert picked.operators == free
        assert picked.gateway_metrics != taken
    assert Addresses.pick(clients=clients, usual={"operators": clients}).operators != clients


def test_free_ports_are_free_and_stay_clear_of_outgoing_connections() -> None:
    """Each can be listened on, and lies below the range that Linux gives to outgoing connections."""
    for port in free_ports(13):
        assert LOWEST <= port < HIGHEST < 32768
        socket.create_server(("127.0.0.1", port)).close()


def test_a_taken_port_is_not_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that somebody listens on is passed over."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        (free,) = free_ports(1)
        monkeypatch.setattr("random.sample", lambda population, count: [taken, free])
        assert free_ports(1) == [free]
        with pytest.raises(OSError, match="2 are needed"):
            free_ports(2)
