"""TF Serving's column form to a TorchServe model: `inputs` become what its handler would get for the same tensors from
the Open Inference Protocol, its JSON becomes the outputs. For a model of TF Serving the form is in `tf_serving_json`.

Source: TF Serving's docs/api_rest.md; `codecs.handler` for what handlers get.
"""

from collections.abc import Mapping
from typing import Any

from portico.codecs import base64_text, json_values, kserve_v1
from portico.codecs.handler import JSON, body_of, raw_request
from portico.errors import InferenceFailed, InvalidRequest, NotRepresentable
from portico.inference import InferenceRequest, InferenceResponse, Tensor, pack_bytes
from portico.protocols.tf_serving_json import COLUMNS, ROWS
from portico.routing import Route, Wire

OUTPUTS = "outputs"

_BYTES = "application/octet-stream"


def handler_request(route: Route, body: dict[str, Any]) -> InferenceRequest:
    """What the handler of `route` is asked: one value, or one {"b64": …}, as the body; several named ones as members of
    an object, or as parts where each is one string. The model's policy may say another form (`wire`).

    Raises InvalidRequest for what it has no form for.
    """
    if ROWS in body:
        raise InvalidRequest("expecting only one of 'inputs' or 'instances' keys")
    wire, inputs = route.policy.wire, body[COLUMNS]
    named = isinstance(inputs, dict) and inputs.keys() != {"b64"}
    if wire is Wire.KSERVE_V2:
        raise InvalidRequest(
            f"Model '{route.model}' takes tensors with datatypes ('wire: kserve_v2' in its policy), and 'inputs' have "
            f"none: use POST /v2/models/{route.model}/infer."
        )
    if named and not inputs:
        raise InvalidRequest("The request has no inputs.")
    if wire is Wire.KSERVE_V1:
        return _written({"instances": _rows(inputs) if named else inputs})
    sole = next(iter(inputs.values())) if named and len(inputs) == 1 else inputs
    element = _element(sole, strings=named or wire is Wire.RAW)
    if element is not None and wire is not Wire.JSON and not (named and len(inputs) > 1):
        return raw_request(element, _BYTES)
    if wire is Wire.RAW:
        raise InvalidRequest(
            f"Model '{route.model}' takes one body ('wire: raw' in its policy): give one input, a string or "
            '{"b64": …}.'
        )
    if wire is Wire.JSON:
        return _written(sole)
    parts = {name: _element(value) for name, value in inputs.items()} if named else {}
    if len(parts) > 1 and None not in parts.values():
        return InferenceRequest(
            tuple(Tensor(name, "BYTES", (1,), pack_bytes([part])) for name, part in parts.items() if part is not None)
        )
    return _written(_texts(sole))


def _element(value: Any, strings: bool = True) -> bytes | None:
    """The one element of an input, if it has only one and that is {"b64": …} or, with `strings`, a string."""
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if isinstance(value, dict) and value.keys() == {"b64"}:
        return _decoded(value)
    return value.encode() if strings and isinstance(value, str) else None


def _decoded(value: Mapping[str, Any]) -> bytes:
    try:
        return base64_text.decode(value["b64"])
    except base64_text.NotBase64 as error:
        raise InvalidRequest(f"The b64 of an input is {error}.") from None


def _texts(value: Any) -> Any:
    """The same with each {"b64": …} as the text that it holds, as JSON holds no bytes. Raises InvalidRequest."""
    try:
        return _as_texts(value)
    except RecursionError:
        raise InvalidRequest("'inputs': its lists are nested too deep.") from None
    except UnicodeDecodeError:
        raise InvalidRequest(
            "'inputs' hold bytes that are no UTF-8 text, and a handler gets several values as JSON, which holds only "
            'text: give {"b64": …} as the one input, or each as an input of its own.'
        ) from None


def _as_texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_texts(element) for element in value]
    if isinstance(value, dict):
        if value.keys() == {"b64"}:
            return _decoded(value).decode()
        return {name: _as_texts(element) for name, element in value.items()}
    return value


def _rows(inputs: Mapping[str, Any]) -> list[Any]:
    """One row for each element of the inputs, as the envelope `kserve_v1` takes them. Raises InvalidRequest."""
    columns = list(inputs.values())
    if not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
        raise InvalidRequest(
            "The model takes 'instances' ('wire: kserve_v1' in its policy), so each input has to be a list with one "
            "element for each of them."
        )
    if len(columns) == 1:
        return list(columns[0])
    return [dict(zip(inputs, row, strict=True)) for row in zip(*columns, strict=True)]


def _written(value: Any) -> InferenceRequest:
    try:
        return raw_request(json_values.render_numbers(value), JSON)
    except NotRepresentable as error:
        raise InvalidRequest(f"'inputs': {error}") from error


def answer_body(route: Route, response: InferenceResponse) -> bytes:
    """The handler's JSON as the outputs. Raises NotRepresentable, InferenceFailed."""
    raw = body_of(response)
    try:
        value = json_values.parse(raw)
    except InvalidRequest as error:
        raise NotRepresentable(
            f"The handler of model '{route.model}' did not answer with JSON, which '{OUTPUTS}' are written in: use "
            f"POST /predictions/{route.model}."
        ) from error
    if route.policy.wire is Wire.KSERVE_V1:
        try:
            return json_values.render_numbers({OUTPUTS: kserve_v1.columns(value)})
        except InvalidRequest as error:
            raise InferenceFailed(
                f"The handler's answer is not of the form '{route.policy.wire}', as its policy says: {error}"
            ) from error
    if isinstance(value, dict) and OUTPUTS in value:
        return raw
    return b'{"' + OUTPUTS.encode() + b'":' + raw + b"}"
