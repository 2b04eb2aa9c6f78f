"""A TorchServe client's call of a model that takes tensors, as TF Serving's do: it sends and gets JSON, as such clients
are used to, of the values that TF Serving's column form holds. Used by TorchServe's REST and gRPC protocols.
"""

from collections.abc import Mapping

from portico.codecs import json_values
from portico.codecs.forms import MULTIPART, URLENCODED, parts_of_form
from portico.dispatch import Answer
from portico.errors import InvalidRequest
from portico.inference import InferenceRequest, Tensor, pack_bytes
from portico.protocols.tf_serving_json import COLUMNS, ROWS, columns, inputs_of, signature_name
from portico.routing import Route, Signature, TensorSpec
from portico.validation import signature_of

JSON = "application/json"


def of_body(route: Route, body: bytes, content_type: str) -> InferenceRequest:
    """The request of a body: JSON of the one input, of an object of them, or of TF Serving's `:predict`, which may name
    a signature; a form of them; or, where the one input is BYTES and the body is not called JSON, its one element.

    Raises InvalidRequest.
    """
    if content_type.lower().startswith((MULTIPART, URLENCODED)):
        return _of_form(route, body, content_type)
    signature = _signature(route)
    sole = signature.inputs[0] if len(signature.inputs) == 1 else None
    if sole and sole.datatype == "BYTES" and not content_type.startswith(JSON):
        return InferenceRequest((_element(sole, body),))
    return _of_json(route, body)


def _of_json(route: Route, body: bytes) -> InferenceRequest:
    try:
        value = json_values.parse(body, numbers=True)
    except InvalidRequest as error:
        raise InvalidRequest(f"{error} {_takes(route, _signature(route))}") from error
    if not isinstance(value, dict) or value.keys().isdisjoint((ROWS, COLUMNS)):
        return InferenceRequest(inputs_of({COLUMNS: value}, _signature(route)))
    name = signature_name(value)
    return InferenceRequest(inputs_of(value, _signature(route, name)), signature=name)


def _of_form(route: Route, body: bytes, content_type: str) -> InferenceRequest:
    """curl calls any body a form of which it is not told what else it is, so one that is JSON is read as such."""
    if content_type.lower().startswith(URLENCODED):
        try:
            json_values.parse(body)
        except InvalidRequest:
            pass
        else:
            return _of_json(route, body)
    parts = parts_of_form(body, content_type)
    if not parts:
        raise InvalidRequest(
            f"The body is said to be a form, and is none. {_takes(route, _signature(route))} For a body that is JSON "
            "give curl -H 'content-type: application/json'."
        )
    return of_parts(route, parts)


def of_parts(route: Route, parts: Mapping[str, bytes]) -> InferenceRequest:
    """The request of named parts: each is the JSON of the input of that name, or the one element of a BYTES input; one
    part of another name is the body. Raises InvalidRequest.
    """
    signature = _signature(route)
    specs = {spec.name: spec for spec in signature.inputs}
    if len(parts) == 1 and not parts.keys() <= specs.keys():
        return of_body(route, next(iter(parts.values())), "")
    unknown = sorted(parts.keys() - specs.keys())
    if unknown or not parts:
        what = f"There is no input '{unknown[0]}'." if unknown else "The request has no inputs."
        raise InvalidRequest(f"{what} {_takes(route, signature)}")
    return InferenceRequest(tuple(_part(specs[name], part) for name, part in parts.items()))


def _part(spec: TensorSpec, part: bytes) -> Tensor:
    if spec.datatype == "BYTES":
        return _element(spec, part)
    try:
        return json_values.tensor_from(spec.name, json_values.parse(part, numbers=True), spec.datatype)
    except InvalidRequest as error:
        raise InvalidRequest(f"Part '{spec.name}': {error}") from error


def answer_body(answer: Answer) -> bytes:
    """JSON of the one output, or of an object of them. Raises NotRepresentable."""
    return json_values.render_numbers(columns(answer.response)["outputs"])


def _signature(route: Route, name: str = "") -> Signature:
    signature = signature_of(route, name)
    assert signature is not None
    return signature


def _element(spec: TensorSpec, element: bytes) -> Tensor:
    return Tensor(spec.name, "BYTES", () if spec.shape == () else (1,), pack_bytes([element]))


def _takes(route: Route, signature: Signature) -> str:
    shapes = ("of any shape" if spec.shape is None else list(spec.shape) for spec in signature.inputs)
    inputs = (f"'{spec.name}' ({spec.datatype} {shape})" for spec, shape in zip(signature.inputs, shapes, strict=True))
    return f"Model '{route.model}' takes tensors, as JSON: {', '.join(inputs)}."
