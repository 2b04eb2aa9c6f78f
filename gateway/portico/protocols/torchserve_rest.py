"""TorchServe's inference API over REST: `/predictions/{model}[/{version}]` and `/ping`.

The body goes to the handler as it comes, with its content type. Source: TorchServe's docs/inference_api.md and
frontend/server's InferenceRequestHandler.
"""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from http import HTTPStatus

from portico.codecs import json_values
from portico.codecs.handler import body_of, raw_request
from portico.dispatch import Answer, Dispatcher
from portico.edges.rest import JSON, Endpoint, Request, Response
from portico.protocols.caching import cache_header, wants_fresh

_TYPES = {
    400: "BadRequestException",
    404: "ModelNotFoundException",
    405: "MethodNotAllowedException",
    413: "TooLongFrameException",
    429: "ServiceUnavailableException",
    503: "ServiceUnavailableException",
}
"""TorchServe's names for what went wrong (frontend/server, http/*Exception.java), by HTTP status."""


class TorchServeRest:
    """One method per endpoint."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def endpoints(self) -> Iterable[Endpoint]:
        path = r"/predictions/(?P<model>[^/]+)(?:/(?P<version>[^/]+))?"
        for method in ("POST", "PUT", "GET"):
            yield Endpoint(method, path, self.predictions, render_error)
        yield Endpoint("GET", "/ping", self.ping, render_error)

    async def predictions(self, request: Request) -> Response:
        route = self._dispatcher.resolve(request.path["model"], request.path["version"])
        content_type = request.header(b"content-type") or "application/octet-stream"
        decoded = raw_request(request.body, content_type, request.query)
        answers = self._dispatcher.stream(route, decoded, request.deadline, wants_fresh(request))
        first = await anext(answers)
        if first.response.partial:
            return Response(*_body(first), more=_rest(answers))
        await answers.aclose()
        return Response(*_body(first))

    async def ping(self, request: Request) -> Response:
        """Answers as TorchServe's does; whether a model can answer is asked at `/v2/models/{model}/ready`."""
        return Response(json_values.render({"status": "Healthy"}))


async def _rest(answers: AsyncGenerator[Answer]) -> AsyncGenerator[bytes]:
    async with aclosing(answers):
        async for answer in answers:
            yield body_of(answer.response)


def _body(answer: Answer) -> tuple[bytes, int, list[tuple[bytes, bytes]]]:
    content_type = answer.response.content_type
    header = (b"content-type", content_type.encode("latin-1")) if content_type else JSON
    return body_of(answer.response), HTTPStatus.OK, [header, cache_header(answer)]


def render_error(status: int, message: str) -> bytes:
    """TorchServe's error object."""
    kind = _TYPES.get(status, "InternalServerException")
    return json_values.render({"code": status, "type": kind, "message": message})
