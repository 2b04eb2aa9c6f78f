"""A TorchServe client's call of a model that takes tensors, as TF Serving's do: it sends and gets JSON, as such clients
are used to, of the values that TF Serving's column form holds. Used by TorchServe's REST and gRPC protocols.
"""

from collections.abc import Mapping

from portico.codecs import json_values
from portico.dispatch import Answer
from portico.errors import InvalidRequest
from portico.inference import InferenceRequest, Tensor, pack_bytes
from portico.protocols.tf_serving_json import COLUMNS, ROWS, columns, inputs_of
from portico.routing import Route, Signature, TensorSpec
from portico.validation import signature_of

JSON = "application/json"
_FORMS = ("multipart/", "application/x-www-form-urlencoded")


def of_body(route: Route, body: bytes, content_type: str) -> InferenceRequest:
    """The request of a body: JSON of the one input or of an object of them; or, where the one input is BYTES and the
    body is not called JSON, its one element. Raises InvalidRequest.
    """
    signature = _signature(route)
    if content_type.startswith(_FORMS):
        raise InvalidRequest(f"A form has no tensors. {_takes(route, signature)}")
    sole = signature.inputs[0] if len(signature.inputs) == 1 else None
    if sole and sole.datatype == "BYTES" and not content_type.startswith(JSON):
        return InferenceRequest((_element(sole, body),))
    try:
        value = json_values.parse(body)
    except InvalidRequest as error:
        raise InvalidRequest(f"{error} {_takes(route, signature)}") from error
    is_whole = isinstance(value, dict) and not value.keys().isdisjoint((ROWS, COLUMNS))
    return InferenceRequest(inputs_of(value if is_whole else {COLUMNS: value}, signature))


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
    tensors: list[Tensor] = []
    for name, part in parts.items():
        if specs[name].datatype == "BYTES":
            tensors.append(_element(specs[name], part))
        else:
            tensors.append(json_values.tensor_from(name, json_values.parse(part), specs[name].datatype))
    return InferenceRequest(tuple(tensors))


def answer_body(answer: Answer) -> bytes:
    """JSON of the one output, or of an object of them. Raises NotRepresentable."""
    return json_values.render_numbers(columns(answer.response)["outputs"])


def _signature(route: Route) -> Signature:
    signature = signature_of(route, "")
    assert signature is not None
    return signature


def _element(spec: TensorSpec, element: bytes) -> Tensor:
    return Tensor(spec.name, "BYTES", () if spec.shape == () else (1,), pack_bytes([element]))


def _takes(route: Route, signature: Signature) -> str:
    shapes = ("of any shape" if spec.shape is None else list(spec.shape) for spec in signature.inputs)
    inputs = (f"'{spec.name}' ({spec.datatype} {shape})" for spec, shape in zip(signature.inputs, shapes, strict=True))
    return f"Model '{route.model}' takes tensors, as JSON: {', '.join(inputs)}."
