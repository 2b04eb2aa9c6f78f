"""Open Inference Protocol (V2) over REST: health, metadata, readiness and `infer`.

Source: the Open Inference Protocol's `specification/protocol/inference_rest.md`.
"""

from collections.abc import Iterable
from typing import Any

from portico import __version__
from portico.codecs import json_values
from portico.codecs.handler import tensors_of
from portico.codecs.open_inference import decode_request, encode_tensor
from portico.dispatch import Answer, Dispatcher
from portico.edges.rest import JSON, Endpoint, Request, Response
from portico.errors import InvalidRequest, PorticoError
from portico.inference import InferenceRequest
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

    async def infer(self, request: Request) -> Response:
        route = self._dispatcher.resolve(request.path["model"], request.path["version"])
        if request.header(b"inference-header-content-length"):
            raise InvalidRequest("Binary tensors are not read yet: send the data as JSON.")
        body = json_values.parse_object(request.body)
        decoded = decode_request(body, bool(route.signatures))
        answer = await self._dispatcher.infer(route, decoded, request.deadline, wants_fresh(request))
        return Response(encode(answer, decoded), headers=[JSON, cache_header(answer)])

    async def model_metadata(self, request: Request) -> Response:
        model = self._dispatcher.table.model(request.path["model"])
        status = model.status(request.path["version"])
        signature = _default_signature(status.route)
        return _json(
            {
                "name": model.name,
                "versions": [version.version for version in model.versions.values() if version.route],
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
        waiting = [model.name for model in self._dispatcher.table.models.values() if _is_awaited(model)]
        ready = not waiting
        return _json({"ready": ready} if ready else {"ready": ready, "waiting_for": waiting}, 200 if ready else 503)


def encode(answer: Answer, request: InferenceRequest) -> bytes:
    """The body of an `infer` answer: tensors with flat data, row-major."""
    route = answer.route
    body: dict[str, Any] = {"model_name": route.model, "model_version": route.version}
    if request.id:
        body["id"] = request.id
    tensors = tensors_of(answer.response, request.outputs, route.policy.wire)
    body["outputs"] = [encode_tensor(tensor) for tensor in tensors]
    return json_values.render_numbers(body)


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


def _is_awaited(model: Model) -> bool:
    """Whether it is to become ready. One that only drains has left the repository."""
    if model.default and model.versions[model.default].state is State.READY:
        return False
    return any(version.state is not State.DRAINING for version in model.versions.values())


def _json(value: Any, status: int = 200) -> Response:
    return Response(json_values.render(value), status)
