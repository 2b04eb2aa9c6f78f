"""TF Serving, by its `PredictionService` over gRPC."""

from collections.abc import AsyncGenerator

import grpc
from google.protobuf.message import DecodeError

from portico.backends.channel import call_headers, raise_ours
from portico.codecs.tensorflow import decode_tensors, serialize_request, without_field
from portico.errors import InferenceFailed, InvalidRequest, Unavailable
from portico.inference import InferenceRequest, InferenceResponse, NativeResponse, Tensor
from portico.routing import Route
from portico.wire import tf_serving_pb2 as tfs

NAME = "TF Serving"


class TFServing:
    """Implements `ports.Backend`. Source: tensorflow_serving/apis/prediction_service.proto."""

    def __init__(self, channel: grpc.aio.Channel, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._predict: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict"
        )
        self._status = channel.unary_unary(
            "/tensorflow.serving.ModelService/GetModelStatus",
            request_serializer=tfs.GetModelStatusRequest.SerializeToString,
            response_deserializer=tfs.GetModelStatusResponse.FromString,
        )

    async def infer(self, route: Route, request: InferenceRequest, timeout: float) -> InferenceResponse:
        if request.explain:
            raise InvalidRequest(f"Model '{route.model}' has no explanations: {NAME} gives none.")
        try:
            answer = await self._predict(_message(route, request), timeout=timeout, metadata=call_headers(route))
        except grpc.aio.AioRpcError as error:
            raise_ours(error, NAME, self._max_bytes, {route.servable: route.model})
        if request.native:
            return NativeResponse(_nameless(answer), _outputs)
        return InferenceResponse(_outputs(answer))

    async def stream(
        self, route: Route, request: InferenceRequest, timeout: float
    ) -> AsyncGenerator[InferenceResponse]:
        yield await self.infer(route, request, timeout)

    async def ping(self, timeout: float) -> None:
        """Any answer will do: that no model has an empty name is one."""
        try:
            await self._status(tfs.GetModelStatusRequest(), timeout=timeout)
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise Unavailable(f"{NAME} cannot be reached now.") from error


def _message(route: Route, request: InferenceRequest) -> bytes:
    """The PredictRequest, serialized: the client's own if it came as one, with the servable's name over the model's.

    Protobuf messages that are written one after the other are read as one, and what is said last counts.
    """
    message = tfs.PredictRequest()
    message.model_spec.name = route.servable
    message.model_spec.version.value = int(route.servable_version)
    if request.native:
        return request.native + message.SerializeToString()
    message.model_spec.signature_name = request.signature
    message.output_filter.extend(request.outputs)
    return serialize_request(message, request.inputs)


def _nameless(answer: bytes) -> bytes:
    """A PredictResponse without its model_spec: the inner name is not for clients."""
    try:
        return without_field(answer, tfs.PredictResponse.MODEL_SPEC_FIELD_NUMBER)
    except InvalidRequest as error:
        raise InferenceFailed(f"{NAME} gave an answer that cannot be passed on: {error}") from error


def _outputs(answer: bytes) -> tuple[Tensor, ...]:
    """The tensors of a PredictResponse, by name. Raises InferenceFailed for one that is no tensor we know."""
    try:
        message = tfs.PredictResponse.FromString(answer)
        return decode_tensors(dict(sorted(message.outputs.items())))
    except (DecodeError, InvalidRequest) as error:
        unreadable = str(error).removeprefix("Input ")
        raise InferenceFailed(f"{NAME} gave an output that cannot be passed on: {unreadable}") from error
