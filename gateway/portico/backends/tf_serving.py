"""TF Serving, by its `PredictionService` over gRPC."""

from collections.abc import AsyncGenerator

import grpc

from portico.backends.channel import RETRY_ON_RESET, raise_ours
from portico.codecs.tensorflow import decode_tensors, encode_tensor
from portico.errors import InferenceFailed, InvalidRequest, Unavailable
from portico.inference import InferenceRequest, InferenceResponse
from portico.routing import Route
from portico.wire import tf_serving_pb2 as tfs

NAME = "TF Serving"


class TFServing:
    """Implements `ports.Backend`. Source: tensorflow_serving/apis/prediction_service.proto."""

    def __init__(self, channel: grpc.aio.Channel, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._predict = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=tfs.PredictRequest.SerializeToString,
            response_deserializer=tfs.PredictResponse.FromString,
        )
        self._status = channel.unary_unary(
            "/tensorflow.serving.ModelService/GetModelStatus",
            request_serializer=tfs.GetModelStatusRequest.SerializeToString,
            response_deserializer=tfs.GetModelStatusResponse.FromString,
        )

    async def infer(self, route: Route, request: InferenceRequest, timeout: float) -> InferenceResponse:
        if request.explain:
            raise InvalidRequest(f"Model '{route.model}' has no explanations: {NAME} gives none.")
        message = tfs.PredictRequest(output_filter=request.outputs)
        message.model_spec.name = route.servable
        message.model_spec.version.value = int(route.servable_version)
        message.model_spec.signature_name = request.signature
        for tensor in request.inputs:
            message.inputs[tensor.name].CopyFrom(encode_tensor(tensor))
        try:
            retry = None if route.policy.stateful else (RETRY_ON_RESET,)
            answer = await self._predict(message, timeout=timeout, metadata=retry)
        except grpc.aio.AioRpcError as error:
            raise_ours(error, NAME, self._max_bytes, {route.servable: route.model})
        try:
            outputs = decode_tensors(dict(sorted(answer.outputs.items())))
        except InvalidRequest as error:
            unreadable = str(error).removeprefix("Input ")
            raise InferenceFailed(f"{NAME} gave an output that cannot be passed on: {unreadable}") from error
        return InferenceResponse(outputs)

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
