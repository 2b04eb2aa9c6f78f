"""Classify and Regress: the signatures that they fit, the call, and the results. Used by TF Serving's gRPC and REST
protocols; to the dispatcher they are ordinary calls with one BYTES input.

Source: servables/tensorflow/{classifier,regressor,multi_inference}.cc, whose error texts are used here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf import text_format

from portico.codecs.examples import decode_examples
from portico.codecs.json_values import array_of
from portico.codecs.tensorflow import DTYPE, signature_def
from portico.dispatch import Answer, Caller, Dispatcher
from portico.errors import InvalidRequest, NotRepresentable
from portico.inference import InferenceRequest, Tensor, unpack_bytes
from portico.routing import DEFAULT_SIGNATURE, Route, Server, Signature
from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as tfs

INPUTS = "inputs"
CLASSES, SCORES = "classes", "scores"
OUTPUTS = "outputs"

Result = TypeVar("Result", tfs.ClassificationResult, tfs.RegressionResult)


@dataclass(frozen=True, slots=True)
class Task(Generic[Result]):
    """`outputs` gives the outputs that a signature is asked for, or raises InvalidRequest if it does not fit; `result`
    makes the answer of them, and of the number of examples.
    """

    method: str
    outputs: Callable[[Signature], tuple[str, ...]]
    result: Callable[[Mapping[str, Tensor], int], Result]


async def ask(
    dispatcher: Dispatcher,
    task: Task[Result],
    route: Route,
    signature_name: str,
    examples: tfs.Input,
    deadline: float,
    caller: Caller,
) -> tuple[Answer, Result]:
    """Asks a model for the classes or values of examples. Raises any PorticoError."""
    signature = task_signature(route, signature_name)
    wanted = task.outputs(signature)
    tensor = decode_examples(examples, INPUTS)
    # All of them is what a call without names asks for, so that both have one entry in the cache.
    named = wanted if len(wanted) < len(signature.outputs) else ()
    request = InferenceRequest((tensor,), named, signature_name)
    answer = await dispatcher.infer(route, request, deadline, caller)
    outputs = {output.name: output for output in answer.response.outputs if output.name in wanted}
    return answer, task.result(outputs, tensor.shape[0])


def task_signature(route: Route, name: str, missing: str = "No signature was found with the name: {name}") -> Signature:
    """Raises InvalidRequest for a model without signatures, and with `missing` for one that has not this one."""
    if route.server is not Server.TF_SERVING:
        raise InvalidRequest(
            f"Model '{route.model}' is served by {route.server.display_name} and declares no signatures, so it cannot "
            f"classify or regress examples. Use POST /v2/models/{route.model}/infer, or /predictions/{route.model}."
        )
    signature = route.signatures.get(name or DEFAULT_SIGNATURE)
    if signature is None:
        raise InvalidRequest(missing.format(name=name or DEFAULT_SIGNATURE))
    return signature


def _check_input_count(signature: Signature) -> None:
    if len(signature.inputs) != 1:
        raise InvalidRequest("Expected one input Tensor.")


def _check_input_name(signature: Signature, kind: str) -> None:
    if signature.inputs[0].name != INPUTS:
        raise InvalidRequest(f"No {kind} inputs found in SignatureDef: {_shown(signature)}")


def _shown(signature: Signature) -> str:
    return text_format.MessageToString(signature_def(signature))


def _classification_outputs(signature: Signature) -> tuple[str, ...]:
    _check_input_count(signature)
    if len(signature.outputs) not in (1, 2):
        raise InvalidRequest(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    _check_input_name(signature, "classification")
    names = tuple(spec.name for spec in signature.outputs if spec.name in (CLASSES, SCORES))
    if not names:
        raise InvalidRequest(
            f'Expected classification signature outputs to contain at least one of "{CLASSES}" or "{SCORES}". '
            f"Signature was: {_shown(signature)}"
        )
    return names


def _regression_outputs(signature: Signature) -> tuple[str, ...]:
    _check_input_count(signature)
    if len(signature.outputs) != 1:
        raise InvalidRequest("Expected one output Tensor.")
    _check_input_name(signature, "regression")
    if signature.outputs[0].name != OUTPUTS:
        raise InvalidRequest(f"No regression outputs found in SignatureDef: {_shown(signature)}")
    return (OUTPUTS,)


def _classification_result(outputs: Mapping[str, Tensor], examples: int) -> tfs.ClassificationResult:
    """Labels and scores by example, from BYTES and FP32 tensors of shape [examples, classes]."""
    classes, scores = outputs.get(CLASSES), outputs.get(SCORES)
    if classes is not None:
        _check_table(classes, "BYTES", examples)
    if scores is not None:
        _check_table(scores, "FP32", examples)
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise InvalidRequest(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    width = next(tensor.shape[1] for tensor in (classes, scores) if tensor is not None)
    labels = [""] * (width * examples) if classes is None else _labels(classes)
    values = [0.0] * (width * examples) if scores is None else array_of(scores).ravel().tolist()
    entries = [tfs.Class(label=label, score=value) for label, value in zip(labels, values, strict=True)]
    rows = (entries[row * width : (row + 1) * width] for row in range(examples))
    return tfs.ClassificationResult(classifications=[tfs.Classifications(classes=row) for row in rows])


def _labels(classes: Tensor) -> list[str]:
    try:
        return [element.decode() for element in unpack_bytes(classes.data, classes.name)]
    except UnicodeDecodeError:
        raise NotRepresentable(
            f"Output '{CLASSES}' is not UTF-8 text, and a class's label is. Ask for it by Predict."
        ) from None


def _check_table(tensor: Tensor, datatype: str, examples: int) -> None:
    if len(tensor.shape) != 2:
        raise InvalidRequest(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(tensor)}")
    if tensor.datatype != datatype:
        raise InvalidRequest(f"Expected {tensor.name} Tensor of {_dtype(datatype)}. Got: {_dtype(tensor.datatype)}")
    if tensor.shape[0] != examples:
        raise InvalidRequest(f"Expected {tensor.name} output batch size of {examples}. Got: {tensor.shape[0]}")


def _regression_result(outputs: Mapping[str, Tensor], examples: int) -> tfs.RegressionResult:
    """One value by example, from an FP32 tensor of shape [examples] or [examples, 1]."""
    tensor = outputs[OUTPUTS]
    if not (len(tensor.shape) == 1 or tensor.shape[1:] == (1,)):
        raise InvalidRequest(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape(tensor)}"
        )
    if tensor.shape[0] != examples:
        raise InvalidRequest(f"Input batch size did not match output batch size: {examples} vs. {tensor.shape[0]}")
    if tensor.datatype != "FP32":
        raise InvalidRequest(f"Expected output Tensor of DT_FLOAT.  Got: {_dtype(tensor.datatype)}")
    values = array_of(tensor).ravel().tolist()
    return tfs.RegressionResult(regressions=[tfs.Regression(value=value) for value in values])


def _shape(tensor: Tensor) -> str:
    return f"[{','.join(map(str, tensor.shape))}]"


def _dtype(datatype: str) -> str:
    return tf.DataType.Name(DTYPE[datatype])


CLASSIFY = Task("tensorflow/serving/classify", _classification_outputs, _classification_result)
REGRESS = Task("tensorflow/serving/regress", _regression_outputs, _regression_result)
