"""TF Serving over REST: `:predict` in row and column form, model status, model metadata.

Source: TF Serving's docs/api_rest.md, util/json_tensor.cc and model_servers/http_rest_api_handler.cc.
"""

from collections.abc import Iterable
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from portico.codecs import json_values
from portico.dispatch import Answer, Dispatcher
from portico.edges.rest import JSON, Endpoint, Request, Response
from portico.errors import InvalidRequest
from portico.inference import InferenceRequest, Tensor
from portico.protocols import tf_serving_models as models
from portico.protocols.caching import cache_header, wants_fresh
from portico.routing import Signature, TensorSpec
from portico.validation import signature_of

_MODEL = r"/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>[^/:]+)|/labels/(?P<label>[^/:]+))?"


class TFServingRest:
    """One method per endpoint."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def endpoints(self) -> Iterable[Endpoint]:
        yield Endpoint("POST", _MODEL + ":predict", self.predict, json_values.error_object)
        yield Endpoint("GET", _MODEL, self.status, json_values.error_object)
        yield Endpoint("GET", _MODEL + "/metadata", self.metadata, json_values.error_object)

    async def predict(self, request: Request) -> Response:
        route = self._dispatcher.resolve(request.path["model"], request.path["version"], request.path["label"])
        body = json_values.parse_object(request.body)
        signature_name = body.get("signature_name", "")
        if not isinstance(signature_name, str):
            raise InvalidRequest("'signature_name' has to be a string.")
        signature = signature_of(route, signature_name)
        if signature is None:
            raise InvalidRequest(
                f"Model '{route.model}' declares no signature, so JSON without datatypes cannot be read for it. "
                f"Use POST /v2/models/{route.model}/infer, or /predictions/{route.model}."
            )
        inputs = _inputs(body, signature)
        decoded = InferenceRequest(inputs, signature=signature_name)
        answer = await self._dispatcher.infer(route, decoded, request.deadline, wants_fresh(request))
        encoded = _rows(answer) if "instances" in body else _columns(answer)
        return Response(json_values.render_numbers(encoded), headers=[JSON, cache_header(answer)])

    async def status(self, request: Request) -> Response:
        path = request.path
        return _json(models.status(self._dispatcher.table.model(path["model"]), path["version"], path["label"]))

    async def metadata(self, request: Request) -> Response:
        route = self._dispatcher.resolve(request.path["model"], request.path["version"], request.path["label"])
        spec = {"name": route.model, "signature_name": "", "version": route.version}
        signatures = _dict(models.signature_def_map(route))
        body = {"model_spec": spec, "metadata": {models.SIGNATURE_DEF: signatures}}
        return Response(json_values.render(body))


def _inputs(body: dict[str, Any], signature: Signature) -> tuple[Tensor, ...]:
    """The inputs of either form. Raises InvalidRequest."""
    if ("instances" in body) == ("inputs" in body):
        raise InvalidRequest("The body needs either 'instances' (row form) or 'inputs' (column form), and not both.")
    specs = {spec.name: spec for spec in signature.inputs}
    columns = _transposed(body["instances"], specs) if "instances" in body else body["inputs"]
    if not _is_named(columns):
        if len(specs) != 1:
            raise InvalidRequest(f"The model takes the inputs {', '.join(specs)}: name each in a JSON object.")
        columns = {next(iter(specs)): columns}
    return tuple(_tensor(name, value, specs) for name, value in columns.items())


def _transposed(rows: Any, specs: dict[str, TensorSpec]) -> Any:
    """Row form → column form: a list of objects becomes an object of lists."""
    if not isinstance(rows, list) or not rows:
        raise InvalidRequest("'instances' has to be a list with at least one instance.")
    if not any(map(_is_named, rows)):
        return rows
    names = rows[0].keys() if _is_named(rows[0]) else frozenset()
    if not all(_is_named(row) and row.keys() == names for row in rows):
        raise InvalidRequest("Each of 'instances' has to be an object with the same inputs as the first.")
    return {name: [row[name] for row in rows] for name in names}


def _is_named(value: Any) -> bool:
    """Whether a JSON value is an object of inputs, and not a base64 string's {"b64": …}."""
    return isinstance(value, dict) and value.keys() != {"b64"}


def _tensor(name: str, value: Any, specs: dict[str, TensorSpec]) -> Tensor:
    spec = specs.get(name)
    if spec is None:
        raise InvalidRequest(f"The model has no input '{name}'. Its inputs: {', '.join(specs)}.")
    value = json_values.from_base64(name, value) if spec.datatype == "BYTES" else value
    return json_values.tensor_from(name, value, spec.datatype)


def _columns(answer: Answer) -> dict[str, Any]:
    outputs = {tensor.name: _nested(tensor) for tensor in answer.response.outputs}
    return {"outputs": next(iter(outputs.values())) if len(outputs) == 1 else outputs}


def _rows(answer: Answer) -> dict[str, Any]:
    """One entry per instance. Raises InvalidRequest where an output does not have them all."""
    outputs = answer.response.outputs
    sizes = {tensor.shape[:1] for tensor in outputs}
    if len(sizes) != 1 or () in sizes:
        shapes = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in outputs)
        raise InvalidRequest(f"The outputs ({shapes}) have no common batch dimension: use the column form, 'inputs'.")
    if len(outputs) == 1:
        return {"predictions": _nested(outputs[0])}
    nested = {tensor.name: _nested(tensor) for tensor in outputs}
    names = list(nested)
    return {"predictions": [dict(zip(names, row, strict=True)) for row in zip(*nested.values(), strict=True)]}


def _nested(tensor: Tensor) -> Any:
    """A tensor as JSON: numbers as an array, strings nested, those of an output called `…_bytes` as base64."""
    if tensor.datatype == "BYTES" and tensor.name.endswith("_bytes"):
        return json_values.nested_base64(tensor)
    return json_values.nested(tensor)


def _dict(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def _json(message: Message) -> Response:
    return Response(json_values.render(_dict(message)))
