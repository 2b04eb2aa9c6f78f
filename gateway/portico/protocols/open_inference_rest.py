"""Open Inference Protocol (V2) over REST: health, metadata, readiness and `infer`, with tensors as JSON or as bytes.

Source: the Open Inference Protocol's `specification/protocol/inference_rest.md`, and Triton's
`docs/protocol/extension_{binary_data,model_repository}.md`.
"""

from collections.abc import Iterable
from typing import Any

from portico import __version__
from portico.codecs import json_values
from portico.codecs.open_inference import decode_request, encode_response, request_parameters, requested_outputs
from portico.codecs.open_inference_binary import HEADER, BinaryOutputs, lone_input, split
from portico.dispatch import Answer, Dispatcher
from portico.edges.rest import Endpoint, Request, Response
from portico.inference import InferenceRequest
from portico.protocols.open_inference import EXTENSIONS, FILES_DEPLOY, NAME, describe, outputs_of, waited_for
from portico.routing import LOADING, Route, State, TensorSpec
from portico.validation import signature_of

_MODEL = r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?"
_BINARY = (b"content-type", b"application/octet-stream")
_HEADER = HEADER.lower().encode()


class OpenInferenceRest:
    """One method per endpoint."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def endpoints(self) -> Iterable[Endpoint]:
        for method, path, handler in (
            ("POST", _MODEL + "/infer", self.infer),
            ("GET", _MODEL + "/ready/?", self.model_ready),
            ("GET", _MODEL + "/?", self.model_metadata),
            ("GET", "/v2/?", self.server_metadata),
            ("GET", "/v2/health/live/?", self.live),
            ("GET", "/v2/health/ready/?", self.ready),
            ("POST", "/v2/repository/models/[^/]+/(?:un)?load", self.load),
        ):
            yield Endpoint(method, path, handler, json_values.error_object)

    async def infer(self, request: Request) -> Response:
        """Answers bytes behind the JSON for the outputs that are asked for so."""
        route = self._dispatcher.resolve(request.path["model"], request.path["version"])
        decoded, binary = _decoded(request, route)
        answer = await self._dispatcher.infer(route, decoded, request.deadline, request)
        body, json_length = encode_response(_head(answer, decoded), outputs_of(answer, decoded), binary)
        if json_length is None:
            return Response(body, answer=answer)
        length = (_HEADER, str(json_length).encode())
        return Response(body, headers=[_BINARY, length], answer=answer)

    async def model_metadata(self, request: Request) -> Response:
        found = describe(self._dispatcher.table.model(request.path["model"]), request.path["version"])
        return _json(
            {
                "name": found.name,
                "versions": found.versions,
                "platform": found.platform,
                "inputs": [_described(spec) for spec in found.signature.inputs],
                "outputs": [_described(spec) for spec in found.signature.outputs],
            }
        )

    async def model_ready(self, request: Request) -> Response:
        status = self._dispatcher.table.model(request.path["model"]).status(request.path["version"])
        ready = status.state is State.READY
        answer = {"name": request.path["model"], "version": status.version, "ready": ready}
        return _json(answer if ready else answer | {"error": status.reason or LOADING}, 200 if ready else 503)

    async def server_metadata(self, request: Request) -> Response:
        return _json({"name": NAME, "version": __version__, "extensions": EXTENSIONS})

    async def live(self, request: Request) -> Response:
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        """Ready means that every model of the repository is."""
        waiting = waited_for(self._dispatcher.table)
        ready = not waiting
        return _json({"ready": ready} if ready else {"ready": ready, "waiting_for": waiting}, 200 if ready else 503)

    async def load(self, request: Request) -> Response:
        """Refused, whatever the model."""
        return Response(json_values.error_object(403, FILES_DEPLOY), 403)


def _decoded(request: Request, route: Route) -> tuple[InferenceRequest, BinaryOutputs]:
    """The request, and which outputs it wants as bytes. Raises InvalidRequest."""
    length = request.header(_HEADER)
    if length == "0":
        tensor = lone_input(route.model, signature_of(route, ""), request.body)
        return InferenceRequest((tensor,)), BinaryOutputs(default=True)
    text, behind = split(request.body, length)
    body = json_values.parse_object(text, numbers=True)
    decoded = decode_request(body, bool(route.signatures), behind)
    return decoded, BinaryOutputs.asked_for(request_parameters(body), requested_outputs(body))


def _head(answer: Answer, request: InferenceRequest) -> dict[str, Any]:
    head = {"model_name": answer.route.model, "model_version": answer.route.version}
    return head | {"id": request.id} if request.id else head


def _described(spec: TensorSpec) -> dict[str, Any]:
    """The protocol has no shape for any rank. Such a tensor has no sizes, as in Triton, and beyond it a parameter."""
    described = {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape or ()}
    return described if spec.shape is not None else described | {"parameters": {"unknown_rank": True}}


def _json(value: Any, status: int = 200) -> Response:
    return Response(json_values.render(value), status)
