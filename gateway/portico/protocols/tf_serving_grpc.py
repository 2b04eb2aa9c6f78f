"""TF Serving over gRPC: all of `PredictionService`, and `ModelService`, whose reloads are refused: files deploy.

Source: tensorflow_serving/apis/{prediction_service,model_service}.proto and servables/tensorflow/predict_util.cc.
"""

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from portico.codecs.tensorflow import encode_tensor, unread_tensors
from portico.dispatch import Dispatcher
from portico.edges.grpc import Abort, Call, Method
from portico.edges.status import GrpcCode
from portico.errors import InvalidRequest
from portico.inference import InferenceRequest
from portico.protocols import tf_serving_models as models
from portico.protocols.open_inference import outputs_of
from portico.protocols.tf_serving_multi import multi_inference
from portico.protocols.tf_serving_tasks import CLASSIFY, REGRESS, ask
from portico.routing import Route
from portico.wire import tf_serving_pb2 as tfs

_PREDICTION = "/tensorflow.serving.PredictionService/"
_MODEL = "/tensorflow.serving.ModelService/"
_NO_SIGNATURE = 'Serving signature key "{name}" not found.'
"""Of servables/tensorflow/predict_util.cc."""

Parsed = TypeVar("Parsed", bound=Message)


class TFServingGrpc:
    """One method per RPC."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def methods(self) -> Iterable[Method]:
        yield Method(_PREDICTION + "Predict", self.predict)
        yield Method(_PREDICTION + "Classify", self.classify)
        yield Method(_PREDICTION + "Regress", self.regress)
        yield Method(_PREDICTION + "MultiInference", self.multi_inference)
        yield Method(_PREDICTION + "GetModelMetadata", self.metadata)
        yield Method(_MODEL + "GetModelStatus", self.status)
        yield Method(_MODEL + "HandleReloadConfigRequest", self.reload)

    async def predict(self, message: bytes, call: Call) -> bytes | tuple[bytes, ...]:
        request = _parsed(tfs.PredictRequest, message)
        route = self._route(request.model_spec)
        models.signature_named(route, request.model_spec.signature_name, _NO_SIGNATURE)
        decoded = InferenceRequest(
            inputs=unread_tensors(request.inputs, len(message)),
            outputs=tuple(request.output_filter),
            signature=request.model_spec.signature_name,
            native=message,
        )
        answer = await self._dispatcher.infer(route, decoded, call.deadline, call)
        call.answer = answer
        response = tfs.PredictResponse(model_spec=models.spec(route, decoded.signature))
        if answer.response.native:
            # Protobuf messages that are written one after the other are read as one, and what is said last counts.
            return answer.response.native, response.SerializeToString()
        for tensor in outputs_of(answer, decoded):
            encode_tensor(tensor, typed=True, into=response.outputs[tensor.name])
        return response.SerializeToString()

    async def classify(self, message: bytes, call: Call) -> bytes:
        request = _parsed(tfs.ClassificationRequest, message)
        route, name = self._route(request.model_spec), request.model_spec.signature_name
        answer, result = await ask(self._dispatcher, CLASSIFY, route, name, request.input, call.deadline, call)
        call.answer = answer
        return tfs.ClassificationResponse(result=result, model_spec=models.spec(route, name)).SerializeToString()

    async def regress(self, message: bytes, call: Call) -> bytes:
        request = _parsed(tfs.RegressionRequest, message)
        route, name = self._route(request.model_spec), request.model_spec.signature_name
        answer, result = await ask(self._dispatcher, REGRESS, route, name, request.input, call.deadline, call)
        call.answer = answer
        return tfs.RegressionResponse(result=result, model_spec=models.spec(route, name)).SerializeToString()

    async def multi_inference(self, message: bytes, call: Call) -> bytes:
        request = _parsed(tfs.MultiInferenceRequest, message)
        if not request.tasks:
            raise InvalidRequest("ModelSpec has no name specified.")
        route = self._route(request.tasks[0].model_spec)
        status, response = await multi_inference(self._dispatcher, route, request, call)
        call.initial.append(("x-cache", status.value))
        return response.SerializeToString()

    async def metadata(self, message: bytes, call: Call) -> bytes:
        request = _parsed(tfs.GetModelMetadataRequest, message)
        route = self._route(request.model_spec)
        models.check_metadata_fields(request.metadata_field)
        response = tfs.GetModelMetadataResponse(model_spec=models.spec(route))
        response.metadata[models.SIGNATURE_DEF].Pack(models.signature_def_map(route))
        return response.SerializeToString()

    async def status(self, message: bytes, call: Call) -> bytes:
        request = _parsed(tfs.GetModelStatusRequest, message)
        return models.status(self._dispatcher.table, *_named(request.model_spec)).SerializeToString()

    async def reload(self, message: bytes, call: Call) -> bytes:
        raise Abort(
            GrpcCode.PERMISSION_DENIED,
            "Models are not configured by calls here: files deploy. Put a model's folder into the model repository to "
            "serve it, take it away to end that; labels and versions stand in its policy file.",
        )

    def _route(self, spec: tfs.ModelSpec) -> Route:
        return models.resolve(self._dispatcher.table, *_named(spec))


def _parsed(kind: type[Parsed], message: bytes) -> Parsed:
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise InvalidRequest(f"The message is no {kind.DESCRIPTOR.name}: {error}.") from error


def _named(spec: tfs.ModelSpec) -> tuple[str, str, str]:
    """(name, version, label) of a ModelSpec. Raises InvalidRequest if the name is missing."""
    if not spec.name:
        raise InvalidRequest("Missing ModelSpec: the request names no model.")
    version = str(spec.version.value) if spec.HasField("version") else ""
    return spec.name, version, spec.version_label
