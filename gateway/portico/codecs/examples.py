"""tf.Examples ↔ the one BYTES tensor that a model takes them in. Used by the TF Serving protocols.

Source: tensorflow_serving/apis/input.proto, `InputToSerializedExampleTensor` in servables/tensorflow/util.cc, and
util/json_tensor.cc for JSON, whose error texts are used here.
"""

from collections.abc import Iterable
from typing import Any

import orjson

from portico.codecs import base64_text
from portico.errors import InvalidRequest
from portico.inference import Tensor, pack_bytes
from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as tfs

MOST_REPEATED = 64 << 20
"""Bytes that a context may take in all the examples that it is put before."""

MOST_EXAMPLES = 1 << 18
"""An example can be of two bytes, and takes some hundred times as much until it is answered."""

_LONGEST_SHOWN = 256
"""Characters of a JSON value that an error quotes."""

_NAMES = {
    type(None): "Null",
    bool: "True",
    int: "Number",
    float: "Number",
    str: "String",
    list: "Array",
    dict: "Object",
}
"""Type of a JSON value → what TF Serving calls it."""

_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


def decode_examples(message: tfs.Input, name: str) -> Tensor:
    """The examples as input `name`: BYTES [number of examples], each a serialized tf.Example.

    Features of a context are put before each example's own, which win where both have one. Maps are written in order,
    so that the same examples are the same bytes. Raises InvalidRequest if there are none.
    """
    if message.WhichOneof("kind") == "example_list_with_context":
        shared = message.example_list_with_context
        context, examples = _serialized(shared.context), shared.examples
    else:
        context, examples = b"", message.example_list.examples
    if not examples:
        raise InvalidRequest("Input is empty.")
    if len(examples) > MOST_EXAMPLES:
        raise InvalidRequest(f"The request has {len(examples)} examples, and may have up to {MOST_EXAMPLES}.")
    if len(context) * len(examples) > MOST_REPEATED:
        raise InvalidRequest(
            f"A context of {len(context)} bytes for {len(examples)} examples makes more than {MOST_REPEATED} bytes of "
            "examples: send fewer at once."
        )
    # Protobuf messages that are written one after the other are read as one, merged.
    return Tensor(name, "BYTES", (len(examples),), pack_bytes(context + _serialized(entry) for entry in examples))


def _serialized(example: tf.Example) -> bytes:
    return example.SerializeToString(deterministic=True)


def examples_from_json(body: dict[str, Any]) -> tfs.Input:
    """The `examples` and the `context` of a REST body. Raises InvalidRequest."""
    found = tfs.Input()
    if "context" in body:
        _fill(found.example_list_with_context.context, body["context"])
    if "examples" not in body:
        raise _malformed(body, "When method is classify, key 'examples' is expected and was not found")
    examples = body["examples"]
    if not isinstance(examples, list):
        raise _malformed(body, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise _malformed(body, "'examples' value is an empty array")
    into = found.example_list_with_context.examples if "context" in body else found.example_list.examples
    for value in examples:
        _fill(into.add(), value)
    return found


def _malformed(body: dict[str, Any], text: str) -> InvalidRequest:
    try:
        shown = orjson.dumps(body, default=str).decode()[:_LONGEST_SHOWN]
    except TypeError:  # nested deeper than it writes, or with a number larger than that
        shown = "{…}"
    return InvalidRequest(f"JSON Value: {shown} {text}")


def _fill(example: tf.Example, value: Any) -> None:
    if not isinstance(value, dict):
        raise InvalidRequest(f"Example must be JSON object but got JSON {_name(value)}")
    for name, content in value.items():
        feature = example.features.feature[name]
        _extend(feature, name, content if isinstance(content, list) else [content])


def _extend(feature: tf.Feature, name: str, values: Iterable[Any]) -> None:
    present = None
    for value in values:
        kind, element = _element(name, value)
        if present is not None and kind != present:
            raise InvalidRequest(
                f"Unexpected element type in feature: {name} expecting type: {_KINDS[present]}. A feature's values "
                "are all of one type; 1.0 is a float, 1 an integer."
            )
        present = kind
        getattr(feature, kind).value.append(element)


def _element(name: str, value: Any) -> tuple[str, Any]:
    """(which list of a Feature, the value in it); booleans are the integers 0 and 1."""
    if isinstance(value, float):
        return "float_list", value
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise InvalidRequest(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
        return "int64_list", int(value)
    if isinstance(value, str):
        return "bytes_list", value.encode()
    if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        try:
            return "bytes_list", base64_text.decode(value["b64"])
        except base64_text.NotBase64 as error:
            raise InvalidRequest(f"Feature: {name}: Unable to base64 decode: it is {error}.") from None
    raise InvalidRequest(f"Feature: {name} has element with unexpected JSON type: {_name(value)}")


def _name(value: Any) -> str:
    return "False" if value is False else _NAMES[type(value)]
