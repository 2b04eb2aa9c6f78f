"""Predict: checks a request against a signature and runs it, for both edges.

Error texts are those of servables/tensorflow/predict_util.cc and of TensorFlow's saved_model::GetInputValues.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from tf_serving_standin.errors import Code, ServingError, failed_precondition, invalid_argument
from tf_serving_standin.saved_model import SavedModel
from tf_serving_standin.tensors import Array, decode

DEFAULT_SIGNATURE = "serving_default"
PREDICT_METHOD = "tensorflow/serving/predict"
CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"


@dataclass(frozen=True)
class RunSettings:
    """How to run: 0 is no time limit; `check_method_names` is --enable_signature_method_name_check."""

    timeout_ms: int = 0
    check_method_names: bool = False


def predict(
    model: SavedModel,
    signature_name: str,
    inputs: Mapping[str, TensorProto | Array],
    output_filter: Sequence[str],
    settings: RunSettings,
) -> dict[str, Array]:
    """Run a signature; alias → tensor of the outputs asked for, or of all.

    Raises FAILED_PRECONDITION for an unknown signature, INVALID_ARGUMENT for inputs or outputs that do not fit it.
    """
    name = signature_name or DEFAULT_SIGNATURE
    signature = model.signatures.get(name)
    if signature is None:
        raise failed_precondition(f'Serving signature key "{name}" not found.')
    if settings.check_method_names:
        _check_method(signature)
    _check_input_count(signature, inputs.keys())
    feeds = _feeds(signature, inputs)
    aliases = _output_aliases(signature, output_filter)
    values = model.run(feeds, [signature.outputs[alias].name for alias in aliases], settings.timeout_ms)
    return dict(zip(aliases, values, strict=True))


def _check_method(signature: SignatureDef) -> None:
    if signature.method_name not in (PREDICT_METHOD, CLASSIFY_METHOD, REGRESS_METHOD):
        raise ServingError(
            Code.INTERNAL,
            f"Expected prediction signature method_name to be one of {{{PREDICT_METHOD}, {CLASSIFY_METHOD}, "
            f"{REGRESS_METHOD}}}. Was: {signature.method_name}",
        )


def _check_input_count(signature: SignatureDef, given: Collection[str]) -> None:
    expected = signature.inputs.keys()
    if len(given) == len(expected) or (len(given) < len(expected) and signature.defaults):
        return
    raise invalid_argument(
        f"input size does not match signature: {len(given)}!={len(expected)} "
        f"len({{{_joined(given)}}}) != len({{{_joined(expected)}}}). "
        f"Sent extra: {{{_joined(set(given) - set(expected))}}}. "
        f"Missing but required: {{{_joined(set(expected) - set(given))}}}."
    )


def _feeds(signature: SignatureDef, inputs: Mapping[str, TensorProto | Array]) -> dict[str, Array]:
    feeds: dict[str, Array] = {}
    used: set[str] = set()
    for alias in sorted(signature.inputs):
        tensor_name = signature.inputs[alias].name
        if alias in inputs:
            used.add(alias)
            value = inputs[alias]
            feeds[tensor_name] = decode(alias, value) if isinstance(value, TensorProto) else value
        elif alias in signature.defaults:
            feeds[tensor_name] = decode(alias, signature.defaults[alias])
        else:
            raise invalid_argument(
                f"Signature input alias: {alias}(feed name: {tensor_name}) not found in request and no default value "
                f"provided. Inputs expected to be in the request {{{_joined(signature.inputs)}}}, or default input "
                f"alias set: {_joined(signature.defaults)}, request input: {_joined(inputs)}"
            )
    if len(used) != len(inputs):
        raise invalid_argument(
            f"Inputs contains invalid name. Used request inputs: {_joined(used)}, request input: {_joined(inputs)}"
        )
    return feeds


def _output_aliases(signature: SignatureDef, output_filter: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {{{_joined(signature.outputs)}}}."
            )
        if alias in seen:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        seen.add(alias)
    return list(output_filter) or sorted(signature.outputs)


def _joined(names: Collection[str]) -> str:
    return ",".join(sorted(names))
