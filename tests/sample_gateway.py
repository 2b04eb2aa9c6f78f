"""A gateway over fakes: real edges, protocols and dispatch, put together as the bootstrap does it, and a repository
with a model of each kind and state. Used by tests that look at what a client reads.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import Message

from asgi_client import Answer, Headers, call, grpc_call
from fakes import FakeBackend, FakeCache
from portico.bootstrap import _edges
from portico.codecs.handler import raw_response
from portico.dispatch import Dispatcher
from portico.edges.asgi import Receive, Scope, Send
from portico.edges.memory import Memory
from portico.errors import InferenceFailed, InvalidRequest
from portico.inference import InferenceRequest, InferenceResponse, Tensor, pack_bytes, unpack_bytes
from portico.meters import MemoryMeter, PrometheusMeter
from portico.routing import LiveRoutes, Model, Route, RouteTable, Server, Signature, State, TensorSpec, Version
from portico.settings import GatewaySettings

LIMIT = 1 << 16
"""Bytes of the largest message that the sample gateway takes."""

PREDICT = "tensorflow/serving/predict"
PAST_CACHE = [(b"cache-control", b"no-store")]

IRIS = {
    "serving_default": Signature(
        (TensorSpec("measurements", "FP32", (-1, 4), "serving_default_measurements:0"),),
        (
            TensorSpec("probabilities", "FP32", (-1, 3), "StatefulPartitionedCall:0"),
            TensorSpec("species", "INT64", (-1,), "StatefulPartitionedCall:1"),
        ),
        PREDICT,
    ),
    "classify": Signature((TensorSpec("examples", "BYTES", (-1,)),), (TensorSpec("classes", "BYTES", (-1, 3)),)),
}
HALF = {"serving_default": Signature((TensorSpec("x", "FP32", None),), (TensorSpec("y", "FP32", None),), PREDICT)}
TEXT = {
    "serving_default": Signature(
        (TensorSpec("text", "BYTES", (-1,)),),
        (TensorSpec("upper", "BYTES", (-1,)), TensorSpec("raw_bytes", "BYTES", (-1,))),
        PREDICT,
    )
}
SUM = {
    "serving_default": Signature(
        (TensorSpec("a", "INT32", (-1,)), TensorSpec("b", "INT32", (-1,))),
        (TensorSpec("sum", "INT32", (-1,)),),
        PREDICT,
    )
}
ONE_NAMED = {"other": Signature((TensorSpec("x", "FP32", (-1,)),), (TensorSpec("y", "FP32", (-1,)),), PREDICT)}


def numbers(tensor: Tensor, memory: str) -> "np.ndarray[Any, Any]":
    """A tensor's values, read without the code under test."""
    return np.frombuffer(tensor.data, memory).reshape(tensor.shape)


def tensor(name: str, datatype: str, memory: str, values: Any) -> Tensor:
    """A tensor of nested lists."""
    array = np.array(values, memory)
    return Tensor(name, datatype, array.shape, array.tobytes())


def iris(request: InferenceRequest) -> InferenceResponse:
    """The first three measurements as probabilities, and which is the greatest."""
    probabilities = numbers(request.inputs[0], "<f4")[:, :3]
    outputs = (
        tensor("probabilities", "FP32", "<f4", probabilities),
        tensor("species", "INT64", "<i8", probabilities.argmax(axis=1)),
    )
    return InferenceResponse(tuple(output for output in outputs if output.name in (request.outputs or (output.name,))))


def half(request: InferenceRequest) -> InferenceResponse:
    """Half of x."""
    return InferenceResponse((tensor("y", "FP32", "<f4", numbers(request.inputs[0], "<f4") / 2),))


def text(request: InferenceRequest) -> InferenceResponse:
    """The texts in capitals, and after a byte that is no UTF-8."""
    elements = list(unpack_bytes(request.inputs[0].data))
    shape = request.inputs[0].shape
    upper = Tensor("upper", "BYTES", shape, pack_bytes(element.upper() for element in elements))
    raw = Tensor("raw_bytes", "BYTES", shape, pack_bytes(b"\xff" + element for element in elements))
    return InferenceResponse((upper, raw))


def add(request: InferenceRequest) -> InferenceResponse:
    """a + b."""
    a, b = sorted(request.inputs, key=lambda entry: entry.name)
    return InferenceResponse((tensor("sum", "INT32", "<i4", numbers(a, "<i4") + numbers(b, "<i4")),))


def fail(request: InferenceRequest) -> InferenceResponse:
    """A model that fails."""
    raise InferenceFailed("the graph divided by zero")


def digits(request: InferenceRequest) -> InferenceResponse:
    """A handler that tells what it was given; a body that starts with `?` is none it can read."""
    parts = {part.name: list(unpack_bytes(part.data)) if part.datatype == "BYTES" else None for part in request.inputs}
    if any(values and values[0].startswith(b"?") for values in parts.values()):
        raise InvalidRequest("the input is neither JSON nor a PNG; send an 8x8 image")
    return raw_response(b'{"digit": 7, "probabilities": [0.25, 0.75]}', "application/json")


def plain(request: InferenceRequest) -> InferenceResponse:
    """A handler that answers text, and does not say that it does."""
    return raw_response("größer".encode(), "")


def model(
    name: str, server: Server, versions: Mapping[str, State], signatures: Mapping[str, Signature] | None = None
) -> Model:
    """A model whose versions that are ready, or have been, are served as `<name>-<version>--loaded`."""
    entries = {}
    for version, state in versions.items():
        route = Route(name, version, server, f"{name}-{version}--loaded", version, f"print-{version}", signatures or {})
        routed = state in (State.READY, State.UNAVAILABLE)
        reason = "" if state in (State.READY, State.LOADING) else f"{name} is {state.lower()} for a reason"
        entries[version] = Version(version, state, reason, route if routed else None)
    ready = [version for version, state in versions.items() if state is State.READY]
    return Model(name, server, ready[-1] if ready else "", entries)


def repository() -> RouteTable:
    """A model of each kind and in each state."""
    tf, torch, ready = Server.TF_SERVING, Server.TORCHSERVE, State.READY
    models = [
        replace(model("iris", tf, {"1": ready, "2": ready}, IRIS), labels={"stable": "1", "canary": "2"}),
        model("half", tf, {"1": ready}, HALF),
        model("text", tf, {"1": ready}, TEXT),
        model("sum", tf, {"1": ready}, SUM),
        model("fails", tf, {"1": ready}, HALF),
        model("one named", tf, {"1": ready}, ONE_NAMED),
        model("digits", torch, {"1.0": ready, "1.1": ready}),
        model("plain", torch, {"1.0": ready}),
        model("loading", tf, {"1": State.LOADING}),
        model("away", torch, {"1.0": State.UNAVAILABLE}),
        model("refused", torch, {"1.0": State.FAILED}),
        replace(model("damaged", tf, {"3": State.QUARANTINED}), server=None),
    ]
    return RouteTable({entry.name: entry for entry in models}, revision=7)


class SampleGateway:
    """The gateway of `repository()`. Its fakes are open to the test: `tf_serving`, `torchserve`, `cache`, `routes`."""

    def __init__(
        self, timeout: float = 20.0, table: RouteTable | None = None, *, routed: bool = True, memory: int = 0
    ) -> None:
        self.tf_serving = FakeBackend(
            {
                "iris-1--loaded": iris,
                "iris-2--loaded": iris,
                "half-1--loaded": half,
                "text-1--loaded": text,
                "sum-1--loaded": add,
                "fails-1--loaded": fail,
                "one named-1--loaded": half,
            }
        )
        self.torchserve = FakeBackend(
            {"digits-1.0--loaded": digits, "digits-1.1--loaded": digits, "plain-1.0--loaded": plain}
        )
        self.cache = FakeCache()
        self.routes = LiveRoutes((table or repository()) if routed else None)
        backends = {Server.TF_SERVING: self.tf_serving, Server.TORCHSERVE: self.torchserve}
        settings = GatewaySettings(max_message_bytes=LIMIT, request_timeout=timeout)
        dispatcher = Dispatcher(self.routes, backends, self.cache)
        self.memory = Memory(self.routes, memory, MemoryMeter(PrometheusMeter()))
        self.grpc_edge, self.rest_edge = _edges(settings, dispatcher, self.routes, self.memory, nothing_here)

    async def rest(self, method: str, path: str, body: Any = b"", headers: Headers = ()) -> Answer:
        """One REST call; a body that is no bytes is sent as JSON."""
        return await call(self.rest_edge, method, path, body, headers)

    async def refused(self, method: str, path: str, body: Any = b"", headers: Headers = ()) -> tuple[int, Any]:
        """(status, JSON) of a REST call that has to fail."""
        answer = await self.rest(method, path, body, headers)
        assert answer.status >= 400
        return answer.status, answer.json()

    async def grpc(self, method: str, message: Message | bytes, metadata: Headers = ()) -> Answer:
        """One unary gRPC call; a message that is no bytes is serialized."""
        raw = message if isinstance(message, bytes) else message.SerializeToString()
        return await grpc_call(self.grpc_edge, method, raw, metadata)


Response = TypeVar("Response", bound=Message)


def parsed(answer: Answer, kind: type[Response]) -> Response:
    """The one message of a unary gRPC answer that ended with OK."""
    (message,) = answer.messages
    return kind.FromString(message)


async def nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    """Where a path goes that no protocol knows."""
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"fallback"})
