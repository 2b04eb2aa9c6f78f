"""Ports on loopback for every process of one stack, and Envoy's configuration with them filled in."""

import copy
import random
import socket
from dataclasses import dataclass, fields
from typing import Any, Self

LOOPBACK = "127.0.0.1"
# Below what Linux hands out to outgoing connections (ip_local_port_range starts at 32768), so that a port stays free
# while the process that listens on it is stopped and started again.
LOWEST, HIGHEST = 20000, 32000
TRIES = 2000


@dataclass(frozen=True)
class Addresses:
    """One port for each listener of the stack."""

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

    @classmethod
    def pick(cls, clients: int | None = None) -> Self:
        """Free ports; `clients` is taken as given when it is."""
        names = [field.name for field in fields(cls)]
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        return cls(**(ports | {"clients": clients} if clients else ports))


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


def fill_in(configuration: dict[str, Any], addresses: Addresses) -> dict[str, Any]:
    """envoy/envoy.yaml for this machine: the addresses of its listeners and clusters replaced, and nothing else.

    Raises KeyError for a listener or cluster that has no address here.
    """
    filled = copy.deepcopy(configuration)
    listeners = {"clients": addresses.clients, "model_servers": addresses.model_servers}
    clusters = {
        "gateway": addresses.gateway,
        "tf_serving": addresses.tf_serving,
        "torchserve_grpc": addresses.torchserve_grpc,
        "torchserve_rest": addresses.torchserve_rest,
    }
    place(filled["admin"]["address"], addresses.envoy_admin)
    for listener in filled["static_resources"]["listeners"]:
        place(listener["address"], listeners[listener["name"]])
    for cluster in filled["static_resources"]["clusters"]:
        for locality in cluster["load_assignment"]["endpoints"]:
            for endpoint in locality["lb_endpoints"]:
                place(endpoint["endpoint"]["address"], clusters[cluster["name"]])
    return filled


def place(address: dict[str, Any], port: int) -> None:
    """Puts an Envoy address (envoy.config.core.v3.Address) on loopback."""
    address["socket_address"] |= {"address": LOOPBACK, "port_value": port}
