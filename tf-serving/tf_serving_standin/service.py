"""The calls both edges offer: a request message in, a response message out, ServingError when it fails.

Between the edges and the core; knows neither gRPC nor HTTP (model_servers/prediction_service_impl.cc and its kin).
"""

from tensorflow_serving.apis.classification_pb2 import ClassificationRequest, ClassificationResponse
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    SignatureDefMap,
)
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, GetModelStatusResponse
from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest, MultiInferenceResponse
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.regression_pb2 import RegressionRequest, RegressionResponse

from tf_serving_standin import examples
from tf_serving_standin.core import ServerCore
from tf_serving_standin.errors import invalid_argument
from tf_serving_standin.predict import RunSettings, predict
from tf_serving_standin.saved_model import SavedModel
from tf_serving_standin.tensors import Array, encode

SIGNATURE_DEF = "signature_def"


class Service:
    """Answers requests from the servables of a core."""

    def __init__(self, core: ServerCore[SavedModel], *, tensors_as_content: bool, check_method_names: bool) -> None:
        self.core = core
        self._tensors_as_content = tensors_as_content
        self._check_method_names = check_method_names

    def _settings(self, timeout_ms: int) -> RunSettings:
        return RunSettings(timeout_ms, self._check_method_names)

    def run(self, spec: ModelSpec, inputs: dict[str, Array], timeout_ms: int) -> dict[str, Array]:
        """Predict on arrays; all outputs of the signature that `spec` names."""
        with self.core.servable(spec) as (_, model):
            return predict(model, spec.signature_name, inputs, (), self._settings(timeout_ms))

    def predict(self, request: PredictRequest) -> PredictResponse:
        """PredictionService.Predict."""
        _require_spec(request)
        spec = request.model_spec
        with self.core.servable(spec) as (servable_id, model):
            outputs = predict(model, spec.signature_name, request.inputs, request.output_filter, self._settings(0))
        answer = examples.model_spec(spec.name, spec.signature_name, servable_id.version)
        response = PredictResponse(model_spec=answer)
        for alias, array in outputs.items():
            response.outputs[alias].CopyFrom(encode(array, as_content=self._tensors_as_content))
        return response

    def classify(self, request: ClassificationRequest, timeout_ms: int = 0) -> ClassificationResponse:
        """PredictionService.Classify."""
        _require_spec(request)
        spec = request.model_spec
        with self.core.servable(spec) as (servable_id, model):
            result = examples.classify(model, spec.signature_name, request.input, self._settings(timeout_ms))
        answer = examples.model_spec(spec.name, spec.signature_name, servable_id.version)
        return ClassificationResponse(model_spec=answer, result=result)

    def regress(self, request: RegressionRequest, timeout_ms: int = 0) -> RegressionResponse:
        """PredictionService.Regress."""
        _require_spec(request)
        spec = request.model_spec
        with self.core.servable(spec) as (servable_id, model):
            result = examples.regress(model, spec.signature_name, request.input, self._settings(timeout_ms))
        answer = examples.model_spec(spec.name, spec.signature_name, servable_id.version)
        return RegressionResponse(model_spec=answer, result=result)

    def multi_inference(self, request: MultiInferenceRequest) -> MultiInferenceResponse:
        """PredictionService.MultiInference; the first task's model_spec decides which version runs."""
        spec = request.tasks[0].model_spec if request.tasks else ModelSpec()
        with self.core.servable(spec) as (servable_id, model):
            return examples.multi_inference(model, servable_id.version, request, self._settings(0))

    def metadata(self, request: GetModelMetadataRequest) -> GetModelMetadataResponse:
        """PredictionService.GetModelMetadata; `signature_def` is the only field there is."""
        _require_spec(request)
        if not request.metadata_field:
            raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != SIGNATURE_DEF:
                raise invalid_argument(f"Metadata field {field} is not supported")
        with self.core.servable(request.model_spec) as (servable_id, model):
            signatures = SignatureDefMap(signature_def=model.signatures)
        response = GetModelMetadataResponse(model_spec=ModelSpec(name=servable_id.name))
        response.model_spec.version.value = servable_id.version
        response.metadata[SIGNATURE_DEF].Pack(signatures)
        return response

    def status(self, request: GetModelStatusRequest) -> GetModelStatusResponse:
        """ModelService.GetModelStatus."""
        _require_spec(request)
        response = GetModelStatusResponse()
        for state in self.core.states(request.model_spec):
            version = response.model_version_status.add(version=state.id.version, state=int(state.state))
            # Set also when all is well: the real server always sends the message.
            version.status.error_code = 0 if state.error is None else int(state.error.code)
            version.status.error_message = "" if state.error is None else state.error.message
        return response


def _require_spec(
    request: PredictRequest
    | ClassificationRequest
    | RegressionRequest
    | GetModelMetadataRequest
    | GetModelStatusRequest,
) -> None:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
