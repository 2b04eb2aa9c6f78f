"""Tensors ↔ what a TorchServe handler reads and writes: a body with a content type.

Going in, one BYTES element is the body as it is, several inputs of one BYTES element each are the parts of a form, and
numbers become JSON. Coming out, JSON of numbers becomes tensors, one for each key of an object, and anything else stays
BYTES. A model's policy may say another form (`routing.Wire`).
Used by the TorchServe backend, and by protocols that speak in tensors.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from portico.codecs import json_values, kserve_v1, open_inference
from portico.codecs.json_numbers import of_rows
from portico.codecs.multipart import multipart
from portico.errors import InferenceFailed, InvalidRequest, NotRepresentable
from portico.inference import Form, InferenceRequest, InferenceResponse, Tensor, pack_bytes, unpack_bytes
from portico.routing import Wire

BODY = "body"
"""Name of the one tensor that holds a raw body, going in as well as coming out."""

JSON = "application/json"

RAISED = "Prediction failed"
"""All that TorchServe says of a handler that raised an error (ts/service.py). Its clients read it as it is."""

_DATATYPE: Mapping[frozenset[type], str] = {
    frozenset({bool}): "BOOL",
    frozenset({int}): "INT64",
    frozenset({float}): "FP64",
    frozenset({int, float}): "FP64",
}
"""Types of the values in a handler's JSON → datatype of the tensor they make."""


def raised(model: str) -> str:
    """What clients of other protocols than TorchServe's are told in place of `RAISED`."""
    return f"The handler of model '{model}' raised an error; TorchServe's log has its traceback."


def raw_request(body: bytes, content_type: str, explain: bool = False, url_path: str = "") -> InferenceRequest:
    """The request of a raw HTTP body."""
    tensors = (_body(body),)
    return InferenceRequest(tensors, form=Form.BODY, content_type=content_type, explain=explain, url_path=url_path)


def raw_response(
    body: bytes, content_type: str, partial: bool = False, status: int = 200, joined: bool = False
) -> InferenceResponse:
    """The answer of a handler: its bytes, and the content type it gave them, empty if it gave none that is one."""
    return InferenceResponse((_body(body),), as_content_type(content_type), partial, status=status, joined=joined)


def as_content_type(text: str) -> str:
    """A content type that can stand in a header; empty for text that cannot."""
    return text if text.isascii() and text.isprintable() else ""


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


def request_body(request: InferenceRequest, wire: Wire = Wire.AUTO) -> tuple[bytes, str]:
    """The (body, content type) that a request is sent to a handler with. `wire` is for tensors: a body goes as it is.

    Raises InvalidRequest where there is no such form: no inputs, bytes that are no text, a content type that is none.
    """
    if not request.inputs:
        raise InvalidRequest("The request has no inputs.")
    if in_parts(request, wire):
        return multipart(parts_of(request).items())
    body = _sole_element(request)
    if body is not None and (request.form is Form.BODY or wire in (Wire.AUTO, Wire.RAW)):
        return body, _checked(request.content_type or "application/octet-stream")
    if wire is Wire.RAW:
        raise InvalidRequest(
            "The model takes one body ('wire: raw' in its policy): give one input, BYTES with one element."
        )
    try:
        return json_values.render_numbers(_written(request.inputs, wire)), JSON
    except NotRepresentable as error:
        raise InvalidRequest(str(error)) from error


def in_parts(request: InferenceRequest, wire: Wire) -> bool:
    """Whether a request goes to the handler as named parts: it came so, or it is several BYTES of one element each."""
    if request.form is not Form.TENSORS or wire is not Wire.AUTO or len(request.inputs) < 2:
        return request.form is Form.PARTS
    return all(tensor.datatype == "BYTES" and tensor.shape in ((), (1,)) for tensor in request.inputs)


def parts_of(request: InferenceRequest) -> dict[str, bytes]:
    """The parts of a request that is `in_parts`, by name. Raises InvalidRequest for an input that is none."""
    parts = {}
    for tensor in request.inputs:
        elements = list(unpack_bytes(tensor.data, tensor.name)) if tensor.datatype == "BYTES" else []
        if len(elements) != 1:
            raise InvalidRequest(f"Input '{tensor.name}': a part is one BYTES element.")
        parts[tensor.name] = elements[0]
    return parts


def _sole_element(request: InferenceRequest) -> bytes | None:
    """The one element of the one input, if that is all there is."""
    if len(request.inputs) != 1 or request.inputs[0].datatype != "BYTES" or request.inputs[0].shape not in ((), (1,)):
        return None
    (element,) = unpack_bytes(request.inputs[0].data)
    return element


def _checked(content_type: str) -> str:
    if not as_content_type(content_type):
        raise InvalidRequest(f"The content type {content_type!r} is none.")
    return content_type


def _written(inputs: tuple[Tensor, ...], wire: Wire) -> Any:
    if wire is Wire.KSERVE_V1:
        return {"instances": kserve_v1.instances(inputs)}
    if wire is Wire.KSERVE_V2:
        return {"inputs": [open_inference.encode_tensor(tensor) for tensor in inputs]}
    values = {tensor.name: json_values.nested(tensor) for tensor in inputs}
    return next(iter(values.values())) if len(values) == 1 else values


def tensors_of(response: InferenceResponse, wanted: tuple[str, ...] = (), wire: Wire = Wire.AUTO) -> tuple[Tensor, ...]:
    """The outputs of an answer, those that are `wanted` or all; a handler's body is taken apart as its `wire` says.

    Raises InvalidRequest for a wanted output that there is not, InferenceFailed for an answer that is not of the wire.
    """
    outputs = {output.name: output for output in _parts(response, wire)}
    missing = [name for name in wanted if name not in outputs]
    if missing:
        raise InvalidRequest(f"The model has no output '{missing[0]}'. Its outputs: {', '.join(outputs)}.")
    return tuple(outputs[name] for name in outputs if not wanted or name in wanted)


def _parts(response: InferenceResponse, wire: Wire) -> tuple[Tensor, ...]:
    """A handler's answer in tensors: whole numbers INT64, others FP64, as JSON knows no other; text BYTES.

    An answer that is not JSON, or whose JSON is no tensor, stays the one BYTES tensor that it is; only in KServe's
    forms it has to be what they say.
    """
    if wire is Wire.RAW or not _is_raw(response):
        return response.outputs
    try:
        value = json_values.parse(body_of(response), numbers=True)
        if wire is Wire.KSERVE_V2:
            return _open_inference_outputs(value)
        if wire is Wire.KSERVE_V1:
            value = kserve_v1.columns(value)
    except InvalidRequest as error:
        if wire in (Wire.KSERVE_V1, Wire.KSERVE_V2):
            raise InferenceFailed(
                f"The handler's answer is not of the form '{wire}', as its policy says: {error}"
            ) from error
        return response.outputs
    named = value if isinstance(value, dict) and value else {"output": value}
    tensors = [_tensor(str(name), element) for name, element in named.items()]
    if None in tensors:
        return response.outputs
    return tuple(tensor for tensor in tensors if tensor is not None)


def _open_inference_outputs(value: Any) -> tuple[Tensor, ...]:
    """The tensors of {"outputs": […]}. Raises InvalidRequest."""
    try:
        tensors = open_inference.decode_tensors(value if isinstance(value, dict) else {}, "outputs")
    except InvalidRequest as error:
        raise InvalidRequest(str(error).removeprefix("Input ")) from error
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise InvalidRequest("two outputs have one name.")
    return tensors


def _tensor(name: str, value: Any) -> Tensor | None:
    try:
        numbers = of_rows(value)
        if numbers is not None:
            datatype = _DATATYPE[numbers.kinds]
            data = b"".join(array.data for array in numbers.cast(np.dtype(json_values.NUMPY[datatype])))
            return Tensor(name, datatype, numbers.shape, data)
        shape, kinds, values = json_values.flatten(value if isinstance(value, list) else [value])
        if kinds == {str}:
            return Tensor(name, "BYTES", shape, pack_bytes(text.encode() for text in values))
        if kinds not in _DATATYPE:
            return None
        datatype = _DATATYPE[kinds]
        return Tensor(name, datatype, shape, np.array(values, json_values.NUMPY[datatype]).tobytes())
    except (ValueError, OverflowError):
        return None
