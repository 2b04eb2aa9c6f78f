"""TorchServe's ways to fail, in our own terms. Called by the TorchServe backend.

Its statuses alone do not tell who is to blame: 503 is a full queue as well as a handler that raised. Its exception
class does, which both of its APIs send along (frontend/server: http/, job/RestJob.java, job/GRPCJob.java). What the
handler chose to say itself goes with the error, for clients of TorchServe.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NoReturn

import grpc
import orjson

from portico.backends.channel import raise_ours, restarted
from portico.codecs.handler import RAISED, raised
from portico.errors import (
    HandlerAnswer,
    InferenceFailed,
    InvalidRequest,
    Overloaded,
    PorticoError,
    ServableLost,
    TooLarge,
    Unavailable,
)

UNREACHABLE = "TorchServe cannot be reached now. Try again in a few seconds."

_LONGEST = 500
"""Characters of a handler's own error body that a client of another protocol is told."""

_WORKERS = "InternalServerException"
"""TorchServe's class for all that a handler raised, and for a worker that was lost."""
_LOST = ("ModelNotFoundException", "ModelVersionNotFoundException")
_BUSY = "ServiceUnavailableException"
"""No worker yet, or none whose queue has room."""
_NO_WORKER = "InternalServerException.()"
"""What gRPC says in place of it (grpcimpl/InferenceImpl.java)."""

ENVOYS = (502, 503, 504)
"""Statuses of Envoy's own answers, when it does not reach TorchServe."""

_STATUS: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 416,
    grpc.StatusCode.FAILED_PRECONDITION: 422,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
"""The status that a handler chose, by the code that TorchServe made of it (util/GRPCUtils.java)."""


def of_rest(answer: HandlerAnswer, from_torchserve: bool, max_bytes: int, model: str) -> PorticoError:
    """What a REST answer of `model` with an error status means. What is not `from_torchserve` is Envoy's."""
    text, kind = _told(answer.body or b"")
    if kind in _LOST:
        return ServableLost(restarted("TorchServe"))
    if kind == _BUSY or (answer.status in ENVOYS and not from_torchserve):
        return Unavailable(text if kind else UNREACHABLE)
    if answer.status == 413 and not from_torchserve:
        return TooLarge(max_bytes)
    return _of_handler(replace(answer, content_type="", body=None) if kind == _WORKERS else answer, text, model)


def _told(body: bytes) -> tuple[str, str]:
    """(text, exception class) of an answer; the class is empty if it is not in TorchServe's form."""
    try:
        said = orjson.loads(body)
        return str(said["message"]), str(said["type"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:_LONGEST] or "TorchServe gave no reason.", ""


def _of_handler(answer: HandlerAnswer, text: str, model: str) -> PorticoError:
    if text == RAISED and answer.body is None:
        text = raised(model)
    kind: type[PorticoError] = InvalidRequest if answer.status < 500 else InferenceFailed
    error = Overloaded(text) if answer.status == 429 else kind(text)
    error.answer = answer
    return error


def raise_of_grpc(error: grpc.aio.AioRpcError, max_bytes: int, servable: str, model: str) -> NoReturn:
    """Raises what the end of a gRPC call means. Its last line, a Java class, is left out, as is the servable's name.

    TorchServe says INTERNAL of a model that is not there.
    """
    text, _, kind = (error.details() or "").replace(servable, model).rpartition("\n")
    name = kind.rpartition(".")[2]
    if name in _LOST:
        raise ServableLost(restarted("TorchServe")) from error
    if kind == _NO_WORKER and "has no worker" in text:
        raise Unavailable(text) from error
    if name == _WORKERS:
        raise _of_handler(HandlerAnswer(_STATUS.get(error.code(), 500)), text, model) from error
    raise_ours(error, "TorchServe", max_bytes, {servable: model})
