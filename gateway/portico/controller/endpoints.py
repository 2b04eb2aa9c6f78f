"""Tells Envoy which replicas take calls: files with the endpoints of its clusters, which it watches (envoy/envoy.yaml).
Called by the reconcile loop, which decides.
"""

import ipaddress
import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from portico.controller.stage import make_folder
from portico.routing import Server

TF_SERVING = "tf_serving"
TORCHSERVE_GRPC = "torchserve_grpc"
TORCHSERVE_REST = "torchserve_rest"

_ASSIGNMENT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


_NONE: Mapping[str, Collection[str]] = MappingProxyType({})


class _Replica(NamedTuple):
    """`partial` are the servables that it has and others have not."""

    ip: str
    port: int
    partial: list[str]


class Endpoints:
    """`folder` gets one file for each cluster, `<cluster>.json`; the ports are those of each TorchServe's inference."""

    def __init__(self, folder: Path, torchserve_grpc_port: int, torchserve_rest_port: int) -> None:
        self._folder = folder
        self._clusters: Mapping[Server, Mapping[str, int | None]] = {
            Server.TF_SERVING: {TF_SERVING: None},
            Server.TORCHSERVE: {TORCHSERVE_GRPC: torchserve_grpc_port, TORCHSERVE_REST: torchserve_rest_port},
        }

    def prepare(self) -> None:
        """Makes a file without endpoints where none can be read: Envoy does not start without. Raises OSError."""
        make_folder(os.path.abspath(self._folder))
        for cluster in (name for clusters in self._clusters.values() for name in clusters):
            try:
                json.loads(self._path(cluster).read_bytes())
            except (FileNotFoundError, ValueError):
                self._write(cluster, [])

    def write(self, server: Server, addresses: Iterable[str], partial: Mapping[str, Collection[str]] = _NONE) -> None:
        """From now on calls go to these replicas, given as the server's `Loader` gives them (ip:port), and to no other.

        Calls of the servables in `partial` go only to the replicas that it names them for. Does nothing if all that is
        so already. Raises OSError.
        """
        servables = {_parsed(address): sorted(names) for address, names in partial.items()}
        replicas = sorted({_parsed(address) for address in addresses}, key=lambda each: (each[0].version, *each))
        for cluster, port in self._clusters[server].items():
            self._write(
                cluster,
                [
                    _Replica(str(ip), own if port is None else port, servables.get((ip, own), []))
                    for ip, own in replicas
                ],
            )

    def _write(self, cluster: str, replicas: Iterable[_Replica]) -> None:
        path, content = self._path(cluster), json.dumps(_assignment(cluster, replicas), indent=1).encode()
        if path.is_file() and path.read_bytes() == content:
            return
        # Envoy reads a file when it is moved to its place, and may start at any time.
        make_folder(os.path.abspath(self._folder))
        new = path.with_name(f".{path.name}.new")
        new.write_bytes(content)
        new.chmod(0o644)
        new.replace(path)

    def _path(self, cluster: str) -> Path:
        return self._folder / f"{cluster}.json"


def _parsed(address: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    ip, _, port = address.rpartition(":")
    return ipaddress.ip_address(ip.strip("[]")), int(port)


def _assignment(cluster: str, replicas: Iterable[_Replica]) -> dict[str, Any]:
    """A DiscoveryResponse (envoy/service/discovery/v3) with the cluster's endpoints."""
    endpoints = [_endpoint(replica) for replica in replicas]
    return {
        "resources": [{"@type": _ASSIGNMENT, "cluster_name": cluster, "endpoints": [{"lb_endpoints": endpoints}]}],
    }


def _endpoint(replica: _Replica) -> dict[str, Any]:
    address = {"socket_address": {"address": replica.ip, "port_value": replica.port}}
    found: dict[str, Any] = {"endpoint": {"address": address}}
    if replica.partial:
        found["metadata"] = {"filter_metadata": {"envoy.lb": {"servable": replica.partial}}}
    return found
