"""TorchServe's ways to fail, in our own terms. Called by the TorchServe backend.

Its statuses alone do not tell who is to blame: 503 is a full queue as well as a handler that raised. Its exception
class does, which both of its APIs send along (frontend/server: http/, job/RestJob.java, job/GRPCJob.java).
"""

from collections.abc import Callable, Mapping

import grpc
import orjson

from portico.backends.channel import restarted
from portico.errors import (
    InferenceFailed,
    InvalidRequest,
    Overloaded,
    PorticoError,
    ServableLost,
    TooLarge,
    Unavailable,
)

UNREACHABLE = "TorchServe cannot be reached now. Try again in a few seconds."
_RESTARTED = restarted("TorchServe")

_LONGEST = 500
"""Characters of a handler's own error body that a client is told."""

_BY_CLASS: Mapping[str, tuple[Callable[[str], PorticoError], grpc.StatusCode]] = {
    "ModelNotFoundException": (lambda _: ServableLost(_RESTARTED), grpc.StatusCode.NOT_FOUND),
    "ModelVersionNotFoundException": (lambda _: ServableLost(_RESTARTED), grpc.StatusCode.NOT_FOUND),
    # No worker yet, or none whose queue has room.
    "ServiceUnavailableException": (Unavailable, grpc.StatusCode.UNAVAILABLE),
}
_BY_STATUS: Mapping[int, Callable[[str], PorticoError]] = {429: Overloaded}

ENVOYS = (502, 503, 504)
"""Statuses of Envoy's own answers, when it does not reach TorchServe."""
_NO_WORKER = "InternalServerException.()"
"""What gRPC says in place of ServiceUnavailableException (grpcimpl/InferenceImpl.java)."""
_HANDLERS = "org.pytorch.serve.http.InternalServerException"
"""What gRPC says when a worker or its handler failed (job/GRPCJob.java)."""


def of_rest(status: int, answer: bytes, max_bytes: int) -> PorticoError:
    """What a REST answer with an error status means.

    TorchServe's own are {"code", "type", "message"}. Others come from a handler that sets its status itself, or, for
    502 to 504, from Envoy.
    """
    text, kind = _told(answer)
    if kind in _BY_CLASS:
        return _BY_CLASS[kind][0](text)
    if status == 413:
        return TooLarge(max_bytes)
    if not kind and status in ENVOYS:
        return Unavailable(UNREACHABLE)
    return _BY_STATUS.get(status, InvalidRequest if status < 500 else InferenceFailed)(text)


def _told(answer: bytes) -> tuple[str, str]:
    """(text, exception class) of an answer; the class is empty if it is not in TorchServe's form."""
    try:
        body = orjson.loads(answer)
        return str(body["message"]), str(body["type"])
    except (ValueError, KeyError, TypeError):
        return answer.decode(errors="replace")[:_LONGEST] or "TorchServe gave no reason.", ""


def of_grpc(error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
    """The failure with the code that fits, and without the Java class that TorchServe adds as the last line.

    TorchServe says INTERNAL of a model that is not there, and UNAVAILABLE of a handler that raised.
    """
    text, _, kind = (error.details() or "").rpartition("\n")
    if not kind.endswith(("Exception", "Exception.()")):
        return error
    code = error.code()
    if kind == _NO_WORKER and "has no worker" in text:
        code = grpc.StatusCode.UNAVAILABLE
    elif kind == _HANDLERS and code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
        code = grpc.StatusCode.INTERNAL
    elif (name := kind.rpartition(".")[2]) in _BY_CLASS:
        code = _BY_CLASS[name][1]
    return grpc.aio.AioRpcError(code, error.initial_metadata(), error.trailing_metadata(), text)
