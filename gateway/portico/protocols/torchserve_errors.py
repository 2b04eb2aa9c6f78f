"""How TorchServe says what went wrong: over REST {"code", "type", "message"}, over gRPC a code and a text. Used by its
two protocols.

What a handler answered itself goes to the client as TorchServe gives it: by REST the handler's own status, body and
content type; by gRPC, which has no statuses of handlers, the body as a prediction; and an exception's status as the
code that TorchServe makes of it. Source: frontend/server's http/*Exception.java, HttpRequestHandler.java,
util/GRPCUtils.java; ModelManager.java for the words that clients match on.
"""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import NoReturn

from portico.codecs import json_values
from portico.codecs.handler import RAISED, raised
from portico.edges.grpc import Abort
from portico.edges.rest import Request, Response
from portico.edges.status import GrpcCode, http_status
from portico.errors import HandlerAnswer, ModelNotFound, PorticoError, VersionNotFound
from portico.wire import torchserve_pb2 as ts

_INTERNAL = "InternalServerException"
_TYPES = {
    400: "BadRequestException",
    404: "ResourceNotFoundException",
    405: "MethodNotAllowedException",
    413: "TooLongFrameException",
    429: "ServiceUnavailableException",
    503: "ServiceUnavailableException",
}
"""TorchServe's names for what went wrong, by HTTP status."""

_CODES: Mapping[int, GrpcCode] = {
    400: GrpcCode.INVALID_ARGUMENT,
    401: GrpcCode.UNAUTHENTICATED,
    403: GrpcCode.PERMISSION_DENIED,
    404: GrpcCode.NOT_FOUND,
    409: GrpcCode.ABORTED,
    413: GrpcCode.RESOURCE_EXHAUSTED,
    416: GrpcCode.OUT_OF_RANGE,
    429: GrpcCode.RESOURCE_EXHAUSTED,
    499: GrpcCode.CANCELLED,
    501: GrpcCode.UNIMPLEMENTED,
    503: GrpcCode.UNAVAILABLE,
    504: GrpcCode.DEADLINE_EXCEEDED,
}

NO_RESOURCE = "Requested resource is not found, please refer to API document."
SEQUENCES = (
    "Sequences of requests to a stateful model (ts_request_sequence_id, sequence_id) are not served: their requests "
    "would have to reach one worker. Send what belongs together as one request."
)
_NO_METHOD = "Requested method is not allowed, please refer to API document."


def render_error(status: int, message: str, kind: str = "") -> bytes:
    """TorchServe's error object."""
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        message = f"{_NO_METHOD} {message}"
    return json_values.render({"code": status, "type": kind or _TYPES.get(status, _INTERNAL), "message": message})


def answering(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """The same REST handler, whose failures are answered as TorchServe does."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except PorticoError as error:
            return _refusal(error, request.path.get("model", ""), request.path.get("version", ""))

    return answer


def _refusal(error: PorticoError, model: str, version: str) -> Response:
    answer = error.answer
    if answer is not None and answer.body is not None:
        return Response(answer.body, answer.status, content_type_header(answer.content_type))
    if answer is not None:
        return Response(render_error(answer.status, _handlers_words(error, model), _INTERNAL), answer.status)
    kind, text = _words(error, model, version)
    status = http_status(error)
    return Response(render_error(status, text, kind), status)


def _handlers_words(error: PorticoError, model: str) -> str:
    return RAISED if str(error) == raised(model) else str(error)


def content_type_header(content_type: str) -> list[tuple[bytes, bytes]]:
    """None for a handler that gave no content type: TorchServe invents none."""
    return [(b"content-type", content_type.encode("latin-1"))] if content_type else []


def _words(error: PorticoError, model: str, version: str) -> tuple[str, str]:
    """(type, message). What is not found is said in TorchServe's words, and then in ours."""
    if isinstance(error, ModelNotFound):
        return "ModelNotFoundException", f"Model not found: {model}. {error.explanation}"
    if isinstance(error, VersionNotFound):
        missing = f"Model version: {version or 'default'} does not exist for model: {model}"
        return "ModelVersionNotFoundException", f"{missing}. {error.explanation}"
    return "", str(error)


def answered_or_aborted(error: PorticoError, request: ts.PredictionsRequest) -> bytes:
    """The message that a failed gRPC call is answered with, where TorchServe answers with one. Raises Abort else."""
    if error.answer is None:
        _abort(error, request)
    if error.answer.body is not None:
        return ts.PredictionResponse(prediction=error.answer.body).SerializeToString()
    raise Abort(_code(error.answer), _handlers_words(error, request.model_name)) from error


def _abort(error: PorticoError, request: ts.PredictionsRequest) -> NoReturn:
    if isinstance(error, ModelNotFound | VersionNotFound):
        raise Abort(GrpcCode.NOT_FOUND, _words(error, request.model_name, request.model_version)[1]) from error
    raise error


def _code(answer: HandlerAnswer) -> GrpcCode:
    if answer.status in _CODES:
        return _CODES[answer.status]
    return GrpcCode.FAILED_PRECONDITION if answer.status < 500 else GrpcCode.INTERNAL
