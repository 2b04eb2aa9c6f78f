"""Tensors ↔ what a TorchServe handler reads and writes: a body with a content type.

Going in, one BYTES element is the body as it is, and numbers become JSON. Coming out, JSON of numbers becomes tensors,
one for each key of an object, and anything else stays BYTES. Used by the TorchServe backend, and by protocols that
speak in tensors.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from portico.codecs import json_values
from portico.errors import InvalidRequest, NotRepresentable
from portico.inference import Form, InferenceRequest, InferenceResponse, Tensor, pack_bytes, unpack_bytes

BODY = "body"
"""Name of the one tensor that holds a raw body, going in as well as coming out."""

JSON = "application/json"

_DATATYPE: Mapping[frozenset[type], str] = {
    frozenset({bool}): "BOOL",
    frozenset({int}): "INT64",
    frozenset({float}): "FP64",
    frozenset({int, float}): "FP64",
}
"""Types of the values in a handler's JSON → datatype of the tensor they make."""


def raw_request(body: bytes, content_type: str) -> InferenceRequest:
    """The request of a raw HTTP body."""
    return InferenceRequest((_body(body),), form=Form.BODY, content_type=content_type)


def raw_response(body: bytes, content_type: str) -> InferenceResponse:
    """The answer of a handler: its bytes, and the content type it gave them, empty if it gave none that is one."""
    known = content_type if content_type.isascii() and content_type.isprintable() else ""
    return InferenceResponse((_body(body),), known)


def _body(body: bytes) -> Tensor:
    return Tensor(BODY, "BYTES", (1,), pack_bytes([body]))


def body_of(response: InferenceResponse) -> bytes:
    """The bytes of `raw_response`. Raises NotRepresentable for an answer in tensors, which only another model gives."""
    if not _is_raw(response):
        raise NotRepresentable("The model answers in tensors and not with one body: use POST /v2/models/<name>/infer.")
    return response.outputs[0].data[4:]


def _is_raw(response: InferenceResponse) -> bool:
    tensors = [(output.name, output.datatype, output.shape) for output in response.outputs]
    return tensors == [(BODY, "BYTES", (1,))]


def request_body(request: InferenceRequest) -> tuple[bytes, str]:
    """The (body, content type) that a request is sent to a handler with.

    Raises InvalidRequest where there is no such form: no inputs, bytes that are no text, a content type that is none.
    """
    if len(request.inputs) == 1 and request.inputs[0].datatype == "BYTES" and request.inputs[0].shape in ((), (1,)):
        (body,) = unpack_bytes(request.inputs[0].data)
        content_type = request.content_type or "application/octet-stream"
        if not (content_type.isascii() and content_type.isprintable()):
            raise InvalidRequest(f"The content type {content_type!r} is none.")
        return body, content_type
    try:
        values = {tensor.name: _json_value(tensor) for tensor in request.inputs}
    except NotRepresentable as error:
        raise InvalidRequest(str(error)) from error
    if not values:
        raise InvalidRequest("The request has no inputs.")
    value = next(iter(values.values())) if len(values) == 1 else values
    return json_values.render_numbers(value), JSON


def _json_value(tensor: Tensor) -> Any:
    if tensor.datatype == "BYTES":
        return json_values.nested_text(tensor)
    return json_values.array_of(tensor) if tensor.shape else json_values.array_of(tensor).item()


def tensors_of(response: InferenceResponse, wanted: tuple[str, ...] = ()) -> tuple[Tensor, ...]:
    """The outputs of an answer, those that are `wanted` or all; a handler's JSON is taken apart into tensors.

    Raises InvalidRequest for a wanted output that there is not.
    """
    outputs = {output.name: output for output in _parts(response)}
    missing = [name for name in wanted if name not in outputs]
    if missing:
        raise InvalidRequest(f"The model has no output '{missing[0]}'. Its outputs: {', '.join(outputs)}.")
    return tuple(outputs[name] for name in outputs if not wanted or name in wanted)


def _parts(response: InferenceResponse) -> tuple[Tensor, ...]:
    """A handler's answer in tensors: whole numbers INT64, others FP64, as JSON knows no other; text BYTES.

    An answer that is not JSON, or whose JSON is no tensor, stays the one BYTES tensor that it is.
    """
    if not _is_raw(response):
        return response.outputs
    try:
        value = json_values.parse(body_of(response))
    except InvalidRequest:
        return response.outputs
    named = value if isinstance(value, dict) and value else {"output": value}
    tensors = [_tensor(str(name), element) for name, element in named.items()]
    if None in tensors:
        return response.outputs
    return tuple(tensor for tensor in tensors if tensor is not None)


def _tensor(name: str, value: Any) -> Tensor | None:
    try:
        shape, kinds, values = json_values.flatten(value if isinstance(value, list) else [value])
        if kinds == {str}:
            return Tensor(name, "BYTES", shape, pack_bytes(text.encode() for text in values))
        datatype = _DATATYPE.get(kinds)
        if datatype is None:
            return None
        return Tensor(name, datatype, shape, np.array(values, json_values.NUMPY[datatype]).tobytes())
    except (ValueError, OverflowError):
        return None
