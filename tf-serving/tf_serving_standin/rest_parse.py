"""REST request bodies → arrays and tf.Examples, with the checks and texts of TF Serving's util/json_tensor.cc.

Used by the REST edge only; knows signatures' inputs, but no model and no HTTP.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tensorflow.core.example.example_pb2 import Example
from tensorflow.core.example.feature_pb2 import Feature
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo
from tensorflow_serving.apis.input_pb2 import Input

from tf_serving_standin.dense_json import debug_string, dense_tensor, is_base64_object, type_name
from tf_serving_standin.errors import ServingError, invalid_argument
from tf_serving_standin.tensors import Array, numpy_dtype

Inputs = Mapping[str, TensorInfo]


@dataclass(frozen=True)
class PredictBody:
    """A parsed predict body; `row` is the form with "instances", else it is the one with "inputs"."""

    inputs: dict[str, Array]
    row: bool


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object at the start of `body`; what follows it is ignored, as the real server does."""
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    try:
        text = body.decode("utf-8-sig")
        start = len(text) - len(text.lstrip(" \t\r\n"))
        document, _ = json.JSONDecoder().raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise invalid_argument(f"JSON Parse error: Invalid value. at offset: {error.pos}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise invalid_argument("JSON Parse error: Invalid encoding in string. at offset: 0") from error
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {debug_string(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    """The optional `signature_name`, "" when there is none."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {debug_string(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return name


def predict_inputs(document: Mapping[str, Any], signature: str, inputs: Inputs) -> PredictBody:
    """The arrays in "instances" or "inputs", shaped and typed as the signature's `inputs` say."""
    if not inputs:
        raise invalid_argument(f"Failed to get input map for signature: {signature or 'DEFAULT'}")
    if "instances" not in document and "inputs" not in document:
        raise invalid_argument("Missing 'inputs' or 'instances' key")
    if "instances" in document and "inputs" in document:
        raise _format_error(
            document, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        )
    if "inputs" in document:
        return PredictBody(_columns(document["inputs"], inputs), row=False)
    instances = document["instances"]
    if not isinstance(instances, list):
        raise _format_error(document, "Expecting 'instances' to be an list/array")
    if not instances:
        raise _format_error(document, "No values in 'instances' array")
    return PredictBody(_rows(instances, inputs), row=True)


def _format_error(document: Mapping[str, Any], text: str) -> ServingError:
    return invalid_argument(f"JSON Value: {debug_string(document)} {text}")


def _columns(value: Any, inputs: Inputs) -> dict[str, Array]:
    if isinstance(value, dict) and not is_base64_object(value):
        for name in inputs:
            if name not in value:
                raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
        return {name: dense_tensor(value[name], info.dtype) for name, info in inputs.items()}
    if len(inputs) > 1:
        raise invalid_argument(
            "inputs is a plain value/list, but expecting an object as multiple "
            "input tensors required as per tensorinfo_map"
        )
    ((name, info),) = inputs.items()
    return {name: dense_tensor(value, info.dtype)}


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64_object(value)


def _rows(instances: list[Any], inputs: Inputs) -> dict[str, Array]:
    if not isinstance(instances[0], dict) and len(inputs) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map"
        )
    at_once = _rows_at_once(instances, inputs)
    return _rows_one_by_one(instances, inputs) if at_once is None else at_once


def _rows_at_once(instances: list[Any], inputs: Inputs) -> dict[str, Array] | None:
    """The rows as one array for each input; None when anything is wrong, which only the slow way can name."""
    named = [_is_named(element) for element in instances]
    if any(named) and not (all(named) and all(element.keys() == inputs.keys() for element in instances)):
        return None
    columns = {name: [e[name] for e in instances] if named[0] else instances for name in inputs}
    try:
        return {name: dense_tensor(column, inputs[name].dtype) for name, column in columns.items()}
    except ServingError:
        return None


def _rows_one_by_one(instances: list[Any], inputs: Inputs) -> dict[str, Array]:
    named = _is_named(instances[0])
    items: dict[str, list[Array]] = {name: [] for name in inputs}
    only = next(iter(inputs))
    for index, element in enumerate(instances):
        if named and not _is_named(element):
            raise invalid_argument(f"Expecting object but got list at item {index} of input list")
        if not named and _is_named(element):
            raise invalid_argument(f"Expecting value/list but got object at item {index} of input list")
        try:
            _add_instance(element if named else {only: element}, inputs, items)
        except _ItemError as error:
            key = f" key: {error.key}" if named else ""
            reason = f"INVALID_ARGUMENT: {error.cause.message}"
            raise invalid_argument(
                f"Failed to process element: {index}{key} of 'instances' list. Error: {reason}"
            ) from error
        if named and set(element) != set(inputs):
            raise invalid_argument(
                f"Failed to process element: {index} of 'instances' list. JSON object: {debug_string(element)} "
                f"keys must be equal to: {','.join(sorted(inputs))}"
            )
    return {name: _stack(arrays, inputs[name].dtype) for name, arrays in items.items()}


class _ItemError(Exception):
    def __init__(self, key: str, cause: ServingError) -> None:
        super().__init__(key)
        self.key = key
        self.cause = cause


def _add_instance(element: Mapping[str, Any], inputs: Inputs, items: dict[str, list[Array]]) -> None:
    for name, value in element.items():
        try:
            if name not in inputs:
                raise invalid_argument(f"JSON object: does not have named input: {name}")
            array = dense_tensor(value, inputs[name].dtype)
            first = items[name][0] if items[name] else array
            if array.size != first.size:
                raise invalid_argument(f"Expecting tensor size: {first.size} but got: {array.size}")
            if array.shape != first.shape:
                raise invalid_argument(f"Expecting shape {_shape(first)} but got: {_shape(array)}")
        except ServingError as error:
            raise _ItemError(name, error) from error
        items[name].append(array)


def _shape(array: Array) -> str:
    return f"[{','.join(map(str, array.shape))}]"


def _stack(arrays: list[Array], datatype: int) -> Array:
    stacked = np.empty((len(arrays), *arrays[0].shape), dtype=numpy_dtype(datatype))
    for index, array in enumerate(arrays):
        stacked[index] = array if array.shape else array[()]
    return stacked


def examples_input(document: Mapping[str, Any]) -> Input:
    """The tf.Examples of a classify or regress body, and their common context when there is one."""
    found = Input()
    examples = document.get("examples")
    if "examples" not in document:
        raise _format_error(document, "When method is classify, key 'examples' is expected and was not found")
    if not isinstance(examples, list):
        raise _format_error(document, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise _format_error(document, "'examples' value is an empty array")
    if "context" in document:
        context = found.example_list_with_context
        context.context.CopyFrom(_example(document["context"]))
        context.examples.extend(_example(value) for value in examples)
    else:
        found.example_list.examples.extend(_example(value) for value in examples)
    return found


def _example(value: Any) -> Example:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {type_name(value)}")
    example = Example()
    for name, content in value.items():
        feature = example.features.feature[name]
        for item in content if isinstance(content, list) else [content]:
            _add_to_feature(item, name, feature)
    return example


_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


def _add_to_feature(item: Any, name: str, feature: Feature) -> None:
    kind, value = _feature_value(item, name)
    present = feature.WhichOneof("kind")
    if present not in (None, kind):
        raise invalid_argument(
            f"Unexpected element type in feature: {name} expecting type: {_KINDS.get(str(present), 'UNKNOWN')}"
        )
    getattr(feature, kind).value.append(value)


def _feature_value(item: Any, name: str) -> tuple[str, Any]:
    if isinstance(item, float):
        return "float_list", item
    if isinstance(item, int):
        if not -(2**63) <= item < 2**63:
            raise invalid_argument(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
        return "int64_list", int(item)
    if isinstance(item, str):
        return "bytes_list", item.encode("utf-8", "surrogatepass")
    if is_base64_object(item):
        try:
            return "bytes_list", base64.b64decode(item["b64"])
        except (binascii.Error, ValueError) as error:
            raise invalid_argument("Unable to base64 decode") from error
    raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {type_name(item)}")
