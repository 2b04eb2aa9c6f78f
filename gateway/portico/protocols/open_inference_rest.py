"""Open Inference Protocol (V2) over REST: health, metadata, readiness, `infer`, and the repository index.

Source: the Open Inference Protocol's `specification/protocol/inference_rest.md`, and for the index Triton's
model repository extension.
"""

from collections.abc import Iterable
from typing import Any

from portico import __version__
from portico.codecs import json_values
from portico.codecs.handler import tensors_of
from portico.dispatch import Answer, Dispatcher
from portico.edges.rest import JSON, Endpoint, Request, Response
from portico.errors import InvalidRequest, PorticoError
from portico.inference import InferenceRequest, Tensor
from portico.protocols.caching import cache_header, wants_fresh
from portico.routing import DEFAULT_SIGNATURE, LOADING, Model, Route, Server, Signature, State, TensorSpec
from portico.validation import signature_of

PLATFORM = {Server.TF_SERVING: "tensorflow_savedmodel", Server.TORCHSERVE: "pytorch_torchserve"}

_MODEL = r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?"


class OpenInferenceRest:
    """One method per endpoint."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def endpoints(self) -> Iterable[Endpoint]:
        yield Endpoint("POST", _MODEL + "/infer", self.infer, json_values.error_object)
        yield Endpoint("GET", _MODEL + "/ready", self.model_ready, json_values.error_object)
        yield Endpoint("GET", _MODEL, self.model_metadata, json_values.error_object)
        yield Endpoint("GET", "/v2", self.server_metadata, json_values.error_object)
        yield Endpoint("GET", "/v2/health/live", self.live, json_values.error_object)
        yield Endpoint("GET", "/v2/health/ready", self.ready, json_values.error_object)
        yield Endpoint("POST", "/v2/repository/index", self.index, json_values.error_object)

    async def infer(self, request: Request) -> Response:
        route = self._dispatcher.resolve(request.path["model"], request.path["version"])
        if request.header(b"inference-header-content-length"):
            raise InvalidRequest("Binary tensors are not read yet: send the data as JSON.")
        body = json_values.parse_object(request.body)
        decoded = decode(body, route)
        answer = await self._dispatcher.infer(route, decoded, request.deadline, wants_fresh(request))
        return Response(encode(answer, decoded), headers=[JSON, cache_header(answer)])

    async def model_metadata(self, request: Request) -> Response:
        model = self._dispatcher.table.model(request.path["model"])
        status = model.status(request.path["version"])
        signature = _default_signature(status.route)
        return _json(
            {
                "name": model.name,
                "versions": list(model.versions),
                "platform": PLATFORM[model.server] if model.server else "",
                "inputs": [_described(spec) for spec in signature.inputs],
                "outputs": [_described(spec) for spec in signature.outputs],
            }
        )

    async def model_ready(self, request: Request) -> Response:
        status = self._dispatcher.table.model(request.path["model"]).status(request.path["version"])
        ready = status.state is State.READY
        answer = {"name": request.path["model"], "version": status.version, "ready": ready}
        return _json(answer if ready else answer | {"error": status.reason or LOADING}, 200 if ready else 503)

    async def server_metadata(self, request: Request) -> Response:
        return _json({"name": "portico", "version": __version__, "extensions": ["model_repository"]})

    async def live(self, request: Request) -> Response:
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        """Ready means that every model of the repository is."""
        waiting = [model.name for model in self._dispatcher.table.models.values() if not _is_ready(model)]
        ready = not waiting
        return _json({"ready": ready} if ready else {"ready": ready, "waiting_for": waiting}, 200 if ready else 503)

    async def index(self, request: Request) -> Response:
        only_ready = bool(request.body) and bool(json_values.parse_object(request.body).get("ready"))
        models = self._dispatcher.table.models.values()
        listed = [
            {"name": model.name, "version": status.version, "state": status.state.value, "reason": status.reason}
            for model in models
            for status in model.versions.values()
            if status.state is State.READY or not only_ready
        ]
        return _json(listed)


def decode(body: dict[str, Any], route: Route) -> InferenceRequest:
    """The request of a parsed `infer` body. Raises InvalidRequest."""
    inputs = body.get("inputs")
    if not isinstance(inputs, list):
        raise InvalidRequest("The body needs a list 'inputs', of objects with name, shape, datatype and data.")
    outputs = body.get("outputs") or []
    if not isinstance(outputs, list) or not all(map(_has_name, outputs)):
        raise InvalidRequest("'outputs' has to be a list of objects with a 'name'.")
    parameters = body.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidRequest("'parameters' has to be an object.")
    return InferenceRequest(
        inputs=tuple(_input(entry) for entry in inputs),
        outputs=tuple(output["name"] for output in outputs),
        signature=_text(parameters, "signature_name") if route.signatures else "",
        content_type="" if route.signatures else _text(parameters, "content_type"),
        id=_text(body, "id"),
    )


def _text(values: dict[str, Any], name: str) -> str:
    value = values.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"'{name}' has to be a string.")
    return value or ""


def _has_name(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("name"), str)


def _input(entry: Any) -> Tensor:
    if not _has_name(entry):
        raise InvalidRequest("Each of 'inputs' has to be an object with a 'name'.")
    name = entry["name"]
    shape, datatype = entry.get("shape"), entry.get("datatype")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise InvalidRequest(f"Input '{name}': 'shape' has to be a list of sizes, none of them negative.")
    if not isinstance(datatype, str):
        raise InvalidRequest(f"Input '{name}' needs a 'datatype', such as FP32, INT64 or BYTES.")
    if "data" not in entry:
        raise InvalidRequest(f"Input '{name}' needs 'data': its values as JSON, flat or nested.")
    return json_values.tensor_from(name, entry["data"], datatype, tuple(shape))


def encode(answer: Answer, request: InferenceRequest) -> bytes:
    """The body of an `infer` answer: tensors with flat data, row-major."""
    route = answer.route
    body: dict[str, Any] = {"model_name": route.model, "model_version": route.version}
    if request.id:
        body["id"] = request.id
    body["outputs"] = [_output(tensor) for tensor in tensors_of(answer.response, request.outputs)]
    return json_values.render_numbers(body)


def _output(tensor: Tensor) -> dict[str, Any]:
    data = json_values.text_of(tensor) if tensor.datatype == "BYTES" else json_values.array_of(tensor).ravel()
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape, "data": data}


def _default_signature(route: Route | None) -> Signature:
    """The signature to describe: the default one, else the only one, else none."""
    if route is None or not route.signatures:
        return Signature((), ())
    try:
        return signature_of(route, DEFAULT_SIGNATURE) or Signature((), ())
    except PorticoError:
        return next(iter(route.signatures.values()))


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape) if spec.shape is not None else [-1]}


def _is_ready(model: Model) -> bool:
    return bool(model.default) and model.versions[model.default].state is State.READY


def _json(value: Any, status: int = 200) -> Response:
    return Response(json_values.render(value), status)
