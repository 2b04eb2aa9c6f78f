"""TorchServe: named parts by its gRPC `Predictions`, a body with a content type by its REST `/predictions`.

Two wires because neither can say all: its gRPC API has no content types and no statuses of a handler's own, and REST
bodies have no named parts without them. So a handler gets what it would have got from TorchServe itself.
"""

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus

import aiohttp
import grpc
import orjson

from portico.backends.channel import raise_ours
from portico.codecs.handler import raw_response, request_body
from portico.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InvalidRequest,
    ModelNotReady,
    Overloaded,
    PorticoError,
    TooLarge,
    Unavailable,
)
from portico.inference import InferenceRequest, InferenceResponse, unpack_bytes
from portico.routing import Route
from portico.wire import torchserve_pb2 as ts

log = logging.getLogger(__name__)

NAME = "TorchServe"

_UNREACHABLE = f"{NAME} cannot be reached now. Try again in a few seconds."
_ENVOYS = (502, 503, 504)

_CONTENT_TYPE = "Content-Type"

PARTS = "parts"
"""Parameter of a request whose inputs are named parts for gRPC, each one BYTES element."""

_ERRORS: Mapping[int, Callable[[str], PorticoError]] = {
    404: ModelNotReady,  # the route says it is loaded: TorchServe was restarted, and is getting its models
    429: Overloaded,
    502: Unavailable,
    503: Unavailable,
    504: DeadlineExceeded,
}


class TorchServe:
    """Implements `ports.Backend`. `base` is the REST address, "http://host:port"."""

    def __init__(self, channel: grpc.aio.Channel, http: aiohttp.ClientSession, base: str, max_bytes: int) -> None:
        self._http = http
        self._base = base
        self._max_bytes = max_bytes
        self._predictions = channel.unary_unary(
            "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions",
            request_serializer=ts.PredictionsRequest.SerializeToString,
            response_deserializer=ts.PredictionResponse.FromString,
        )

    async def infer(self, route: Route, request: InferenceRequest, timeout: float) -> InferenceResponse:
        if request.parameters.get(PARTS):
            return await self._by_grpc(route, request, timeout)
        return await self._by_rest(route, request, timeout)

    async def _by_grpc(self, route: Route, request: InferenceRequest, timeout: float) -> InferenceResponse:
        message = ts.PredictionsRequest(model_name=route.servable, model_version=route.servable_version)
        for tensor in request.inputs:
            elements = list(unpack_bytes(tensor.data, tensor.name)) if tensor.datatype == "BYTES" else []
            if len(elements) != 1:
                raise InvalidRequest(f"Input '{tensor.name}': a part is one BYTES element.")
            message.input[tensor.name] = elements[0]
        try:
            answer = await self._predictions(message, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise_ours(error, NAME, self._max_bytes, {route.servable: route.model})
        return raw_response(answer.prediction, "")

    async def _by_rest(self, route: Route, request: InferenceRequest, timeout: float) -> InferenceResponse:
        body, content_type = request_body(request)
        url = f"{self._base}/predictions/{route.servable}/{route.servable_version}"
        limits = aiohttp.ClientTimeout(total=timeout)
        try:
            headers = {_CONTENT_TYPE: content_type}
            async with self._http.post(url, data=body, headers=headers, timeout=limits) as response:
                answer = await response.read()
        except TimeoutError as error:
            raise DeadlineExceeded(f"{NAME} did not answer within {timeout:.3g} s.") from error
        except aiohttp.ClientError as error:
            log.debug("%s cannot be reached: %s", NAME, error)
            raise Unavailable(_UNREACHABLE) from error
        if response.status != HTTPStatus.OK:
            self._refuse(response.status, answer, {route.servable: route.model})
        return raw_response(answer, response.headers.get(_CONTENT_TYPE, ""))

    def _refuse(self, status: int, answer: bytes, hidden: Mapping[str, str]) -> None:
        """Raises what TorchServe's error answer, {"code", "type", "message"}, means; an answer without is Envoy's."""
        text = _message(answer) or (_UNREACHABLE if status in _ENVOYS else f"{NAME} gave no reason.")
        for inner, outer in hidden.items():
            text = text.replace(inner, outer)
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise TooLarge(self._max_bytes)
        fallback = InvalidRequest if 400 <= status < 500 else InferenceFailed
        raise _ERRORS.get(status, fallback)(text)

    async def ping(self, timeout: float) -> None:
        try:
            limits = aiohttp.ClientTimeout(total=timeout)
            async with self._http.get(f"{self._base}/ping", timeout=limits) as response:
                if response.status != HTTPStatus.OK:
                    raise Unavailable(f"{NAME} says {response.status} to a ping.")
        except (TimeoutError, aiohttp.ClientError) as error:
            raise Unavailable(f"{NAME} cannot be reached now.") from error


def _message(answer: bytes) -> str:
    """TorchServe's text, empty if the answer is not in its form."""
    try:
        return str(orjson.loads(answer)["message"])
    except (ValueError, KeyError, TypeError):
        return ""
