"""TorchServe's inference API over REST: `/predictions` and `/explanations/{model}[/{version}[/{further path}]]`,
`/ping`, and the API's description.

The body goes to the handler as it comes, with its content type: forms are taken apart by TorchServe itself. As with
TorchServe the handler is told of the URL only what follows the version, and neither the query nor the method. Other
than with TorchServe it sees no header of the client's but the content type, and the client no header of the handler's
but that one: an answer may come from the cache, where neither is part of the question or of the answer.
Source: TorchServe's docs/inference_api.md and frontend/server's InferenceRequestHandler and RestJob.
"""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from portico import __version__
from portico.codecs import json_values
from portico.codecs.handler import body_of, raw_request
from portico.dispatch import Answer, Dispatcher
from portico.edges.rest import Endpoint, Request, Response
from portico.errors import InvalidRequest
from portico.protocols import torchserve_tensors as tensors
from portico.protocols.torchserve_errors import NO_RESOURCE, SEQUENCES, answering, content_type_header, render_error
from portico.protocols.torchserve_openapi import description, model_description
from portico.routing import Server
from portico.validation import check_explains

_MODEL = "(?P<model>[^/]+)(?:/(?P<version>[^/]*)(?:/(?P<url_path>.*))?)?"

_DESCRIBED = "/predictions/(?P<model>[^/]+)(?:/(?P<version>[^/]+))?"


class TorchServeRest:
    """One method per endpoint."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def endpoints(self) -> Iterable[Endpoint]:
        for verb, handler in (("predictions", self.predictions), ("explanations", self.explanations)):
            for method in ("POST", "PUT", "GET"):
                yield Endpoint(method, f"/{verb}/{_MODEL}", answering(handler), render_error)
                yield Endpoint(method, f"/{verb}/?", self.nothing, render_error)
        yield Endpoint("OPTIONS", _DESCRIBED, answering(self.describe_model), render_error)
        yield Endpoint("GET", "/ping/?", self.ping, render_error)
        yield Endpoint("OPTIONS", "/", self.describe, render_error)
        yield Endpoint("GET", "/api-description", self.describe, render_error)

    async def predictions(self, request: Request) -> Response:
        return await self._ask(request, explain=False)

    async def explanations(self, request: Request) -> Response:
        return await self._ask(request, explain=True)

    async def _ask(self, request: Request, explain: bool) -> Response:
        if request.header(b"ts_request_sequence_id"):
            raise InvalidRequest(SEQUENCES)
        route = self._dispatcher.resolve(request.path["model"], request.path["version"])
        content_type = request.header(b"content-type") or "application/octet-stream"
        if explain:
            check_explains(route)
        elif route.signatures:
            asked = tensors.of_body(route, request.body, content_type)
            answer = await self._dispatcher.infer(route, asked, request.deadline, request)
            return Response(tensors.answer_body(answer), answer=answer)
        decoded = raw_request(request.body, content_type, explain, request.path["url_path"])
        answers = self._dispatcher.stream(route, decoded, request.deadline, request)
        first = await anext(answers)
        more = None
        if first.response.partial:
            more = _bodies(answers)
            await anext(more)
        else:
            await answers.aclose()
        headers = content_type_header(first.response.content_type)
        return Response(body_of(first.response), first.response.status, headers, more, first)

    async def nothing(self, request: Request) -> Response:
        """What TorchServe says where there is no model in the path."""
        return Response(render_error(404, NO_RESOURCE), 404)

    async def ping(self, request: Request) -> Response:
        """Answers as TorchServe's does; whether a model can answer is asked at `/v2/models/{model}/ready`."""
        return Response(json_values.render({"status": "Healthy"}))

    async def describe(self, request: Request) -> Response:
        """An OpenAPI document of the endpoints that TorchServe's clients call."""
        return Response(json_values.render(description(__version__)))

    async def describe_model(self, request: Request) -> Response:
        """An OpenAPI document of the one model. It says the same as TorchServe's: what goes in and out is unknown."""
        route = self._dispatcher.resolve(request.path["model"], request.path["version"])
        explains = route.server is Server.TORCHSERVE
        return Response(json_values.render(model_description(route.model, route.version, explains)))


async def _bodies(answers: AsyncGenerator[Answer]) -> AsyncGenerator[bytes]:
    """The bodies of `answers`. The first item is empty, and there to begin: who closes this closes them then."""
    async with aclosing(answers):
        yield b""
        async for answer in answers:
            yield body_of(answer.response)
