"""Tensors ↔ what a TorchServe handler reads and writes: a body with a content type.

Going in, one BYTES element is the body as it is, and numbers become JSON. Coming out, JSON of numbers becomes tensors,
one for each key of an object, and anything else stays BYTES. Used by the TorchServe backend, and by protocols that
speak in tensors.
"""

from typing import Any

import numpy as np
import orjson

from portico.codecs import json_values
from portico.errors import InvalidRequest
from portico.inference import InferenceRequest, InferenceResponse, Tensor, pack_bytes, unpack_bytes

BODY = "body"
"""Name of the one tensor that holds a raw body, going in as well as coming out."""

CONTENT_TYPE = "content_type"
"""Parameter that says what the body is."""

JSON = "application/json"


def raw_request(body: bytes, content_type: str) -> InferenceRequest:
    """The request of a raw HTTP body."""
    return InferenceRequest((Tensor(BODY, "BYTES", (1,), pack_bytes([body])),), parameters={CONTENT_TYPE: content_type})


def raw_response(body: bytes, content_type: str) -> InferenceResponse:
    """The answer of a handler: its bytes, and the content type it gave them (empty if unknown)."""
    parameters = {CONTENT_TYPE: content_type} if content_type else {}
    return InferenceResponse((Tensor(BODY, "BYTES", (1,), pack_bytes([body])),), parameters)


def body_of(response: InferenceResponse) -> bytes:
    """The bytes of `raw_response`."""
    return response.tensor(BODY).data[4:]


def request_body(request: InferenceRequest) -> tuple[bytes, str]:
    """The (body, content type) that a request is sent to a handler with.

    Raises InvalidRequest where a mixture of tensors has no such form.
    """
    if len(request.inputs) == 1 and request.inputs[0].datatype == "BYTES" and request.inputs[0].shape in ((), (1,)):
        (body,) = unpack_bytes(request.inputs[0].data)
        return body, str(request.parameters.get(CONTENT_TYPE, "application/octet-stream"))
    values = {tensor.name: _json_value(tensor) for tensor in request.inputs}
    if not values:
        raise InvalidRequest("The request has no inputs.")
    value = next(iter(values.values())) if len(values) == 1 else values
    return json_values.render_numbers(value), JSON


def _json_value(tensor: Tensor) -> Any:
    if tensor.datatype == "BYTES":
        return np.array(json_values.text_of(tensor), dtype=object).reshape(tensor.shape).tolist()
    return json_values.array_of(tensor)


def tensors_of(response: InferenceResponse) -> InferenceResponse:
    """A handler's answer in tensors: whole numbers INT64, others FP64, as JSON knows no other; text BYTES.

    An answer that is not JSON, or whose JSON is no tensor, stays the one BYTES tensor that it is.
    """
    if len(response.outputs) != 1 or response.outputs[0].name != BODY:
        return response
    try:
        value = orjson.loads(body_of(response))
    except orjson.JSONDecodeError:
        return response
    named = value if isinstance(value, dict) and value else {"output": value}
    tensors = [_tensor(str(name), element) for name, element in named.items()]
    if None in tensors:
        return response
    return InferenceResponse(tuple(tensor for tensor in tensors if tensor is not None))


def _tensor(name: str, value: Any) -> Tensor | None:
    try:
        array = np.array(value if isinstance(value, list) else [value])
    except ValueError:
        return None
    if array.dtype.kind == "U":
        return Tensor(name, "BYTES", array.shape, pack_bytes(text.encode() for text in array.ravel().tolist()))
    datatype = {"b": "BOOL", "i": "INT64", "u": "UINT64", "f": "FP64"}.get(array.dtype.kind)
    if datatype is None or not array.size:
        return None
    return Tensor(name, datatype, array.shape, array.tobytes())
