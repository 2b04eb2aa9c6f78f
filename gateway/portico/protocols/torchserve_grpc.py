"""TorchServe's inference API over gRPC: `Predictions`, `StreamPredictions` and `Ping`.

Source: TorchServe's frontend/server/src/main/resources/proto/inference.proto and grpcimpl/InferenceImpl.java.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing

from google.protobuf.message import DecodeError

from portico.codecs.handler import body_of
from portico.dispatch import Answer, Dispatcher
from portico.edges.grpc import Abort, Call, Method
from portico.edges.status import GrpcCode
from portico.errors import InvalidRequest, PorticoError
from portico.inference import Form, InferenceRequest, Tensor, pack_bytes
from portico.protocols import torchserve_tensors as tensors
from portico.protocols.torchserve_errors import SEQUENCES, answered_or_aborted
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
        yield Method(_SERVICE + "StreamPredictions2", both=no_sequences)
        yield Method(_SERVICE + "Ping", self.ping)

    async def predictions(self, message: bytes, call: Call) -> bytes:
        request = _parsed(message)
        try:
            route = self._dispatcher.resolve(request.model_name, request.model_version)
            answer = await self._dispatcher.infer(route, _decoded(request, route), call.deadline, call)
            call.answer = answer
            return _encoded(answer)
        except PorticoError as error:
            return answered_or_aborted(error, request)

    async def stream_predictions(self, message: bytes, call: Call) -> AsyncGenerator[bytes]:
        request = _parsed(message)
        try:
            route = self._dispatcher.resolve(request.model_name, request.model_version)
            answers = self._dispatcher.stream(route, _decoded(request, route), call.deadline, call)
            async with aclosing(answers):
                async for answer in answers:
                    call.answer = answer
                    yield _encoded(answer)
        except PorticoError as error:
            yield answered_or_aborted(error, request)

    async def ping(self, message: bytes, call: Call) -> bytes:
        """As TorchServe answers it; whether a model can answer is asked for the model."""
        return _HEALTHY


def no_sequences(messages: AsyncIterator[bytes], call: Call) -> AsyncGenerator[bytes]:
    """TorchServe's streams of a stateful model's sequences, refused."""
    raise Abort(GrpcCode.UNIMPLEMENTED, SEQUENCES)


def _parsed(message: bytes) -> ts.PredictionsRequest:
    try:
        request = ts.PredictionsRequest.FromString(message)
    except DecodeError as error:
        raise InvalidRequest(f"The message is no PredictionsRequest: {error}.") from error
    if not request.model_name:
        raise InvalidRequest("Parameter model_name is required.")
    if request.sequence_id:
        raise InvalidRequest(SEQUENCES)
    return request


def _decoded(request: ts.PredictionsRequest, route: Route) -> InferenceRequest:
    if route.signatures:
        return tensors.of_parts(route, request.input)
    parts = (Tensor(name, "BYTES", (1,), pack_bytes([part])) for name, part in request.input.items())
    return InferenceRequest(tuple(parts), form=Form.PARTS)


def _encoded(answer: Answer) -> bytes:
    body = tensors.answer_body(answer) if answer.route.signatures else body_of(answer.response)
    return ts.PredictionResponse(prediction=body).SerializeToString()
