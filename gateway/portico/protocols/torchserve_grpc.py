"""TorchServe's inference API over gRPC: `Predictions`, `StreamPredictions` and `Ping`.

Source: TorchServe's frontend/server/src/main/resources/proto/inference.proto.
"""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from google.protobuf.message import DecodeError

from portico.codecs.handler import body_of
from portico.dispatch import Dispatcher
from portico.edges.grpc import Call, Method
from portico.errors import InvalidRequest
from portico.inference import Form, InferenceRequest, Tensor, pack_bytes
from portico.protocols.caching import cache_metadata, wants_fresh
from portico.routing import Route
from portico.wire import torchserve_pb2 as ts

_SERVICE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/"
_HEALTHY = ts.TorchServeHealthResponse(health='{\n  "status": "Healthy"\n}\n').SerializeToString()


class TorchServeGrpc:
    """One method per RPC."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def methods(self) -> Iterable[Method]:
        yield Method(_SERVICE + "Predictions", self.predictions)
        yield Method(_SERVICE + "StreamPredictions", stream=self.stream_predictions)
        yield Method(_SERVICE + "Ping", self.ping)

    async def predictions(self, message: bytes, call: Call) -> bytes:
        route, decoded = self._decoded(message)
        answer = await self._dispatcher.infer(route, decoded, call.deadline, wants_fresh(call))
        call.initial.append(cache_metadata(answer))
        return ts.PredictionResponse(prediction=body_of(answer.response)).SerializeToString()

    async def stream_predictions(self, message: bytes, call: Call) -> AsyncGenerator[bytes]:
        route, decoded = self._decoded(message)
        async with aclosing(self._dispatcher.stream(route, decoded, call.deadline, wants_fresh(call))) as answers:
            async for answer in answers:
                if not call.initial:
                    call.initial.append(cache_metadata(answer))
                yield ts.PredictionResponse(prediction=body_of(answer.response)).SerializeToString()

    def _decoded(self, message: bytes) -> tuple[Route, InferenceRequest]:
        try:
            request = ts.PredictionsRequest.FromString(message)
        except DecodeError as error:
            raise InvalidRequest(f"The message is no PredictionsRequest: {error}.") from error
        route = self._dispatcher.resolve(request.model_name, request.model_version)
        parts = (Tensor(name, "BYTES", (1,), pack_bytes([part])) for name, part in request.input.items())
        return route, InferenceRequest(tuple(parts), form=Form.PARTS)

    async def ping(self, message: bytes, call: Call) -> bytes:
        """As TorchServe answers it; whether a model can answer is asked for the model."""
        return _HEALTHY
