"""The gRPC channel to the model servers: one, kept open, shared by all calls; and gRPC's failures in our own terms."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

import grpc

from portico.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InvalidRequest,
    Overloaded,
    PorticoError,
    ServableLost,
    TooLarge,
    Unavailable,
)
from portico.routing import Route

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_channel(address: str, max_bytes: int) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to `address` (host:port) that takes messages of up to `max_bytes`; closed on leaving."""
    options = [
        ("grpc.max_receive_message_length", max_bytes),
        ("grpc.max_send_message_length", max_bytes),
        # Retries are Envoy's: it sees the replicas, and knows what surely did not reach a model.
        ("grpc.enable_retries", 0),
        # A proxy on the way out to the world is not on the way to a model server.
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    async with grpc.aio.insecure_channel(address, options) as channel:
        yield channel


def _too_large(text: str, max_bytes: int) -> PorticoError:
    return TooLarge(max_bytes) if "larger than max" in text else Overloaded(text)


RETRY = (("x-envoy-retry-on", "reset"), ("x-envoy-retry-grpc-on", "cancelled"))
"""Headers that let Envoy send a call again, to another replica, when the connection broke before an answer, or a server
that ends cancelled the call. Only for models that keep no state: the lost replica may have worked on the call."""

SERVABLE = "x-portico-servable"
"""Header that tells Envoy which servable a call is for, so that it goes to a replica that has it."""


def call_headers(route: Route) -> tuple[tuple[str, str], ...]:
    """What Envoy is told of a call, as gRPC metadata or HTTP headers."""
    servable = SERVABLE, route.servable
    return (servable,) if route.policy.stateful else (servable, *RETRY)


_ERRORS: dict[grpc.StatusCode, Callable[[str], PorticoError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    # FAILED_PRECONDITION is TF Serving's word for a model that lacks what is asked of it.
    grpc.StatusCode.FAILED_PRECONDITION: InvalidRequest,
}


LOST = "Servable not found for request"
"""How TF Serving begins when it does not have a model (basic_manager.cc). Any other NOT_FOUND is of an operation in the
model's graph: the model has worked on the call, and failed.
"""


def restarted(server: str) -> str:
    """What a client reads when a route says that a model is loaded, and its server does not know it."""
    return f"{server} was restarted and is loading the model. Try again in a few seconds."


def raise_ours(error: grpc.aio.AioRpcError, server: str, max_bytes: int, hidden: dict[str, str]) -> NoReturn:
    """Raises the PorticoError of a failed call to `server`, from `error`.

    `hidden` maps names that clients never see to what they do see.
    """
    code, text = error.code(), error.details() or error.code().name
    for inner, outer in hidden.items():
        text = text.replace(inner, outer)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        raise _too_large(text, max_bytes) from error
    if code is grpc.StatusCode.NOT_FOUND and text.startswith(LOST):
        raise ServableLost(restarted(server)) from error
    if code is grpc.StatusCode.UNAVAILABLE:
        # The text holds addresses inside the stack: for its log, not for clients.
        log.debug("%s cannot be reached: %s", server, text)
        raise Unavailable(f"{server} cannot be reached now. Try again in a few seconds.") from error
    raise _ERRORS.get(code, InferenceFailed)(text) from error
