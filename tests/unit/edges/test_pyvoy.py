"""The configuration of the gateway's server, alone and as the edge as well."""

import copy
from typing import Any

import pytest
import yaml

from portico.edges.pyvoy import both_in_one, envoy_config
from portico.local import layout

Config = dict[str, Any]
EDGE = yaml.safe_load((layout.ROOT / "envoy" / "envoy.yaml").read_text())


@pytest.fixture
def both() -> Config:
    """envoy/envoy.yaml and a gateway in one."""
    return both_in_one(copy.deepcopy(EDGE), envoy_config("some:app", "127.0.0.1", 8000, 1 << 20))


def test_nothing_else_of_the_edge_changes(both: Config) -> None:
    """Every listener and every cluster but the gateway's are as they are in the file, and nothing else listens."""
    resources, edge = both["static_resources"], EDGE["static_resources"]
    assert [listener["name"] for listener in resources["listeners"]] == ["clients", "model_servers"]
    assert resources["listeners"][1] == edge["listeners"][1]
    assert resources["clusters"] == [cluster for cluster in edge["clusters"] if cluster["name"] != "gateway"]
    assert {name: both[name] for name in EDGE if name != "static_resources"} == {
        name: EDGE[name] for name in EDGE if name != "static_resources"
    }


def test_the_application_answers_what_went_to_the_gateway(
    both: Config,
) -> None:
    """It stands before the router, on the route that went to the gateway and on no other."""
    manager = both["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    assert [each["name"].rpartition(".")[2] for each in manager["http_filters"]] == ["grpc_web", "pyvoy", "router"]
    (host,) = manager["route_config"]["virtual_hosts"]
    past, taken = host["routes"]
    assert past["typed_per_filter_config"]["pyvoy"]["disabled"] is True
    assert taken["match"] == {"prefix": "/"}
    assert "typed_per_filter_config" not in taken
    assert "gateway" not in str([route.get("route") for route in host["routes"]])


def test_messages_of_the_limit_go_through(both: Config) -> None:
    """Envoy holds as much for a connection as the gateway takes."""
    limit = both["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"]
    assert isinstance(limit, int)
    assert limit > 1 << 20
