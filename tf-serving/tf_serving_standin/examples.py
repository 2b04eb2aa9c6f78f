"""Classify, Regress and MultiInference: tf.Example in, classes and scores or values out, for both edges.

Error texts are those of servables/tensorflow/classifier.cc, regressor.cc and multi_inference.cc.
"""

from collections.abc import Mapping

import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis.classification_pb2 import ClassificationResult
from tensorflow_serving.apis.inference_pb2 import InferenceTask, MultiInferenceRequest, MultiInferenceResponse
from tensorflow_serving.apis.input_pb2 import Input
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.regression_pb2 import RegressionResult

from tf_serving_standin.errors import Code, ServingError, invalid_argument
from tf_serving_standin.predict import CLASSIFY_METHOD, DEFAULT_SIGNATURE, REGRESS_METHOD, RunSettings
from tf_serving_standin.saved_model import SavedModel
from tf_serving_standin.tensors import Array, datatype_of


def model_spec(name: str, signature_name: str, version: int) -> ModelSpec:
    """The model_spec of a response: name, signature (the default when none was asked for) and version."""
    spec = ModelSpec(name=name, signature_name=signature_name or DEFAULT_SIGNATURE)
    spec.version.value = version
    return spec


def classify(model: SavedModel, signature_name: str, examples: Input, settings: RunSettings) -> ClassificationResult:
    """Run a classification signature; raises INVALID_ARGUMENT when it is none or the examples are empty."""
    signature = _signature(model, signature_name, "No signature was found with the name: ")
    feed, fetches = classification_tensors(signature, settings)
    batch = serialized_examples(examples)
    values = model.run({feed: batch}, fetches, settings.timeout_ms)
    return classification_result(signature, len(batch), dict(zip(fetches, values, strict=True)))


def regress(model: SavedModel, signature_name: str, examples: Input, settings: RunSettings) -> RegressionResult:
    """Run a regression signature; raises INVALID_ARGUMENT when it is none or the examples are empty."""
    signature = _signature(model, signature_name, "No signature was found with the name: ")
    feed, fetch = regression_tensors(signature, settings)
    batch = serialized_examples(examples)
    (value,) = model.run({feed: batch}, [fetch], settings.timeout_ms)
    return regression_result(len(batch), value)


def multi_inference(
    model: SavedModel, version: int, request: MultiInferenceRequest, settings: RunSettings
) -> MultiInferenceResponse:
    """Run all tasks of a request in one pass; they must be of one model and of different signatures."""
    feeds: set[str] = set()
    fetches: list[str] = []
    signatures: dict[str, SignatureDef] = {}
    for task in request.tasks:
        name = _checked_task(request, task, signatures)
        signature = _signature(model, name, "Requested signature not found in model graph: ")
        signatures[name] = signature
        feed, outputs = _task_tensors(task, signature, settings)
        feeds.add(feed)
        fetches.extend(outputs)
    batch = serialized_examples(request.input)
    values = model.run(dict.fromkeys(feeds, batch), fetches, settings.timeout_ms)
    fetched = dict(zip(fetches, values, strict=True))
    response = MultiInferenceResponse()
    for task in request.tasks:
        signature = signatures[task.model_spec.signature_name or DEFAULT_SIGNATURE]
        spec = model_spec(task.model_spec.name, task.model_spec.signature_name, version)
        result = response.results.add(model_spec=spec)
        if task.method_name == CLASSIFY_METHOD:
            result.classification_result.CopyFrom(classification_result(signature, len(batch), fetched))
        else:
            value = fetched[signature.outputs["outputs"].name]
            result.regression_result.CopyFrom(regression_result(len(batch), value))
    return response


def _checked_task(request: MultiInferenceRequest, task: InferenceTask, seen: Mapping[str, SignatureDef]) -> str:
    if not task.model_spec.name:
        raise invalid_argument("Found ModelSpec with an empty model name.")
    if task.model_spec.name != request.tasks[0].model_spec.name:
        raise invalid_argument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
    name = task.model_spec.signature_name or DEFAULT_SIGNATURE
    if name in seen:
        raise invalid_argument(f"Duplicate evaluation of signature: {name}")
    return name


def _task_tensors(task: InferenceTask, signature: SignatureDef, settings: RunSettings) -> tuple[str, list[str]]:
    if task.method_name == CLASSIFY_METHOD:
        return classification_tensors(signature, settings)
    if task.method_name == REGRESS_METHOD:
        feed, fetch = regression_tensors(signature, settings)
        return feed, [fetch]
    raise ServingError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")


def _signature(model: SavedModel, signature_name: str, complaint: str) -> SignatureDef:
    name = signature_name or DEFAULT_SIGNATURE
    signature = model.signatures.get(name)
    if signature is None:
        raise invalid_argument(complaint + name)
    return signature


def serialized_examples(examples: Input) -> Array:
    """The examples, each with the context merged in front of it, as a vector of serialized tf.Example."""
    if examples.WhichOneof("kind") == "example_list_with_context":
        context = examples.example_list_with_context.context.SerializeToString()
        found = [context + e.SerializeToString() for e in examples.example_list_with_context.examples]
    else:
        found = [e.SerializeToString() for e in examples.example_list.examples]
    if not found:
        raise invalid_argument("Input is empty.")
    batch = np.empty(len(found), dtype=np.object_)
    batch[:] = found
    return batch


def classification_tensors(signature: SignatureDef, settings: RunSettings) -> tuple[str, list[str]]:
    """The tensor to feed and those to fetch; raises INVALID_ARGUMENT when the signature does not classify."""
    if settings.check_method_names and signature.method_name != CLASSIFY_METHOD:
        raise invalid_argument(
            f"Expected classification signature method_name to be {CLASSIFY_METHOD}. Was: {signature.method_name}"
        )
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid_argument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if "inputs" not in signature.inputs:
        raise invalid_argument(f"No classification inputs found in SignatureDef: {signature}")
    fetches = [signature.outputs[alias].name for alias in ("classes", "scores") if alias in signature.outputs]
    if not fetches:
        raise invalid_argument(
            "Expected classification signature outputs to contain at least one of "
            f'"classes" or "scores". Signature was: {signature}'
        )
    return signature.inputs["inputs"].name, fetches


def regression_tensors(signature: SignatureDef, settings: RunSettings) -> tuple[str, str]:
    """The tensor to feed and the one to fetch; raises INVALID_ARGUMENT when the signature does not regress."""
    if settings.check_method_names and signature.method_name != REGRESS_METHOD:
        raise invalid_argument(
            f"Expected regression signature method_name to be {REGRESS_METHOD}. Was: {signature.method_name}"
        )
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    if "inputs" not in signature.inputs:
        raise invalid_argument(f"No regression inputs found in SignatureDef: {signature}")
    if "outputs" not in signature.outputs:
        raise invalid_argument(f"No regression outputs found in SignatureDef: {signature}")
    return signature.inputs["inputs"].name, signature.outputs["outputs"].name


def classification_result(signature: SignatureDef, batch: int, fetched: Mapping[str, Array]) -> ClassificationResult:
    """Labels and scores per example, from tensors of shape [batch, classes]."""
    classes = _checked_classes(signature, "classes", types_pb2.DT_STRING, batch, fetched)
    scores = _checked_classes(signature, "scores", types_pb2.DT_FLOAT, batch, fetched)
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise invalid_argument(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    width = next(tensor.shape[1] for tensor in (classes, scores) if tensor is not None)
    result = ClassificationResult()
    for row in range(batch):
        classifications = result.classifications.add()
        for column in range(width):
            label = "" if classes is None else classes[row, column]
            score = 0.0 if scores is None else scores[row, column]
            classifications.classes.add(label=label, score=score)
    return result


def _checked_classes(
    signature: SignatureDef, alias: str, datatype: int, batch: int, fetched: Mapping[str, Array]
) -> Array | None:
    if alias not in signature.outputs:
        return None
    tensor = fetched[signature.outputs[alias].name]
    if tensor.ndim != 2:
        raise invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(tensor)}")
    if datatype_of(tensor) != datatype:
        wanted, got = types_pb2.DataType.Name(datatype), types_pb2.DataType.Name(datatype_of(tensor))
        raise invalid_argument(f"Expected {alias} Tensor of {wanted}. Got: {got}")
    if len(tensor) != batch:
        raise invalid_argument(f"Expected {alias} output batch size of {batch}. Got: {len(tensor)}")
    return tensor


def regression_result(batch: int, tensor: Array) -> RegressionResult:
    """One value per example, from a float tensor of shape [batch] or [batch, 1]."""
    if not (tensor.ndim == 1 or (tensor.ndim == 2 and tensor.shape[1] == 1)):
        raise invalid_argument(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape(tensor)}"
        )
    if len(tensor) != batch:
        raise invalid_argument(f"Input batch size did not match output batch size: {batch} vs. {len(tensor)}")
    if datatype_of(tensor) != types_pb2.DT_FLOAT:
        got = types_pb2.DataType.Name(datatype_of(tensor))
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: {got}")
    result = RegressionResult()
    for value in tensor.ravel().tolist():
        result.regressions.add(value=value)
    return result


def _shape(tensor: Array) -> str:
    return "[" + ",".join(str(size) for size in tensor.shape) + "]"
