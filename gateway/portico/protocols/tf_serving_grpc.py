"""TF Serving over gRPC: `PredictionService.Predict` and `GetModelMetadata`, `ModelService.GetModelStatus`.

Source: tensorflow_serving/apis/{prediction_service,model_service}.proto and servables/tensorflow/predict_util.cc.
"""

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from portico.codecs.handler import tensors_of
from portico.codecs.tensorflow import decode_tensors, encode_tensor
from portico.dispatch import Dispatcher
from portico.edges.grpc import Call, Method
from portico.errors import InvalidRequest
from portico.inference import InferenceRequest
from portico.protocols import tf_serving_models as models
from portico.protocols.caching import cache_metadata, wants_fresh
from portico.routing import DEFAULT_SIGNATURE, Route
from portico.wire import tf_serving_pb2 as tfs

_PREDICTION = "/tensorflow.serving.PredictionService/"
_MODEL = "/tensorflow.serving.ModelService/"


class TFServingGrpc:
    """One method per RPC."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def methods(self) -> Iterable[Method]:
        yield Method(_PREDICTION + "Predict", self.predict)
        yield Method(_PREDICTION + "GetModelMetadata", self.metadata)
        yield Method(_MODEL + "GetModelStatus", self.status)

    async def predict(self, message: bytes, call: Call) -> bytes:
        try:
            request = tfs.PredictRequest.FromString(message)
        except DecodeError as error:
            raise InvalidRequest(f"The message is no PredictRequest: {error}.") from error
        route = self._dispatcher.resolve(*_named(request.model_spec))
        decoded = InferenceRequest(
            inputs=decode_tensors(request.inputs),
            outputs=tuple(request.output_filter),
            signature=request.model_spec.signature_name,
        )
        answer = await self._dispatcher.infer(route, decoded, call.deadline, wants_fresh(call))
        call.initial.append(cache_metadata(answer))
        response = tfs.PredictResponse()
        _specify(response.model_spec, route, decoded.signature or DEFAULT_SIGNATURE)
        for tensor in tensors_of(answer.response, decoded.outputs, route.policy.wire):
            response.outputs[tensor.name].CopyFrom(encode_tensor(tensor, typed=True))
        return response.SerializeToString()

    async def metadata(self, message: bytes, call: Call) -> bytes:
        try:
            request = tfs.GetModelMetadataRequest.FromString(message)
        except DecodeError as error:
            raise InvalidRequest(f"The message is no GetModelMetadataRequest: {error}.") from error
        route = self._dispatcher.resolve(*_named(request.model_spec))
        models.check_metadata_fields(request.metadata_field)
        response = tfs.GetModelMetadataResponse()
        _specify(response.model_spec, route, "")
        response.metadata[models.SIGNATURE_DEF].Pack(models.signature_def_map(route))
        return response.SerializeToString()

    async def status(self, message: bytes, call: Call) -> bytes:
        try:
            request = tfs.GetModelStatusRequest.FromString(message)
        except DecodeError as error:
            raise InvalidRequest(f"The message is no GetModelStatusRequest: {error}.") from error
        name, version, label = _named(request.model_spec)
        return models.status(self._dispatcher.table.model(name), version, label).SerializeToString()


def _named(spec: tfs.ModelSpec) -> tuple[str, str, str]:
    """(name, version, label) of a ModelSpec. Raises InvalidRequest if the name is missing."""
    if not spec.name:
        raise InvalidRequest("Missing ModelSpec: the request names no model.")
    version = str(spec.version.value) if spec.HasField("version") else ""
    return spec.name, version, spec.version_label


def _specify(spec: tfs.ModelSpec, route: Route, signature: str) -> None:
    """Fills in what was served, as TF Serving does: the version even where the client gave none."""
    spec.name = route.model
    spec.signature_name = signature
    if number := models.number(route.version):
        spec.version.value = number
