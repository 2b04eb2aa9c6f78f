"""Ports on loopback for every process of one stack, and Envoy's configuration with them filled in."""

import copy
import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

LOOPBACK = "127.0.0.1"
# Below what Linux hands out to outgoing connections (ip_local_port_range starts at 32768), so that a port stays free
# while the process that listens on it is stopped and started again.
LOWEST, HIGHEST = 20000, 32000
TRIES = 2000
USUAL = MappingProxyType({"operators": 9400, "gateway_metrics": 9401})
"""Where operators look for a stack that a person runs, as in containers."""


@dataclass(frozen=True)
class Addresses:
    """One port for each listener of the stack; replicas of a server have the same ports, each at its own `loopback`."""

    clients: int
    model_servers: int
    envoy_admin: int
    gateway: int
    gateway_admin: int
    redis: int
    tf_serving: int
    tf_serving_rest: int
    torchserve_grpc: int
    torchserve_grpc_management: int
    torchserve_rest: int
    torchserve_management: int
    torchserve_metrics: int
    operators: int
    gateway_metrics: int

    @classmethod
    def pick(cls, clients: int | None = None, usual: Mapping[str, int] = MappingProxyType({})) -> Self:
        """Free ports; `clients` is taken as given when it is, and those that are `usual` when they are free."""
        names = [field.name for field in fields(cls)]
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        ports |= {name: port for name, port in usual.items() if port != clients and is_free(port)}
        return cls(**(ports | {"clients": clients} if clients else ports))


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """`count` different ports of loopback that nobody listens on. Raises OSError when there are not as many."""
    held: list[socket.socket] = []
    try:
        for port in random.sample(range(LOWEST, HIGHEST), TRIES):
            probe = socket.socket()
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                probe.close()
                continue
            held.append(probe)
            if len(held) == count:
                return [probe.getsockname()[1] for probe in held]
    finally:
        for probe in held:
            probe.close()
    raise OSError(f"Of {TRIES} ports of {LOOPBACK} that were tried, {len(held)} were free; {count} are needed.")


def loopback(replica: int) -> str:
    """Where a replica listens, counted from 0: all of 127.0.0.0/8 is this machine on Linux."""
    return f"127.0.0.{replica + 1}"


def fill_in(configuration: dict[str, Any], addresses: Addresses, endpoints: Path) -> dict[str, Any]:
    """envoy/envoy.yaml for this machine: replaced are the addresses of its listeners and of the gateway, and the folder
    of the files that hold the other clusters' endpoints; nothing else.

    Raises KeyError for a listener that has no address here, and for a cluster with neither an address nor a file.
    """
    filled = copy.deepcopy(configuration)
    listeners = {"clients": addresses.clients, "model_servers": addresses.model_servers}
    clusters = {"gateway": addresses.gateway}
    place(filled["admin"]["address"], addresses.envoy_admin)
    for listener in filled["static_resources"]["listeners"]:
        place(listener["address"], listeners[listener["name"]])
    for cluster in filled["static_resources"]["clusters"]:
        if "eds_cluster_config" in cluster:
            source = cluster["eds_cluster_config"]["eds_config"]["path_config_source"]
            source["path"] = str(endpoints / Path(source["path"]).name)
            continue
        for locality in cluster["load_assignment"]["endpoints"]:
            for endpoint in locality["lb_endpoints"]:
                place(endpoint["endpoint"]["address"], clusters[cluster["name"]])
    return filled


def place(address: dict[str, Any], port: int) -> None:
    """Puts an Envoy address (envoy.config.core.v3.Address) on loopback."""
    address["socket_address"] |= {"address": LOOPBACK, "port_value": port}
