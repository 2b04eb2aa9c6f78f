"""TorchServe: named parts by its gRPC `Predictions`, a body with a content type by its REST `/predictions`.

Two wires because neither can say all: its gRPC API has no content types and no statuses of a handler's own, and REST
bodies have no named parts without them. So a handler gets what it would have got from TorchServe itself.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus

import aiohttp
import grpc
from yarl import URL

from portico.backends.channel import RETRY_ON_RESET, raise_ours
from portico.backends.torchserve_failures import ENVOYS, UNREACHABLE, of_grpc, of_rest
from portico.codecs.handler import raw_response, request_body
from portico.errors import DeadlineExceeded, InvalidRequest, TooLarge, Unavailable
from portico.inference import Form, InferenceRequest, InferenceResponse, unpack_bytes
from portico.routing import Route, Wire
from portico.wire import torchserve_pb2 as ts

log = logging.getLogger(__name__)

NAME = "TorchServe"

_CONTENT_TYPE = "Content-Type"
_RETRY = dict([RETRY_ON_RESET])


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
        self._stream = channel.unary_stream(
            "/org.pytorch.serve.grpc.inference.InferenceAPIsService/StreamPredictions",
            request_serializer=ts.PredictionsRequest.SerializeToString,
            response_deserializer=ts.PredictionResponse.FromString,
        )

    async def infer(self, route: Route, request: InferenceRequest, timeout: float) -> InferenceResponse:
        if _in_parts(request, route):
            message, options = _message(route, request)
            with self._grpc_failures(route):
                answer = await self._predictions(message, timeout=timeout, metadata=options)
            return raw_response(answer.prediction, "")
        async with self._posted(route, request, timeout) as response:
            return raw_response(await _read(response, self._max_bytes), response.headers.get(_CONTENT_TYPE, ""))

    async def stream(
        self, route: Route, request: InferenceRequest, timeout: float
    ) -> AsyncGenerator[InferenceResponse]:
        if _in_parts(request, route):
            message, options = _message(route, request)
            with self._grpc_failures(route):
                async for piece in self._stream(message, timeout=timeout, metadata=options):
                    yield raw_response(piece.prediction, "", partial=True)
            return
        async with self._posted(route, request, timeout) as response:
            content_type = response.headers.get(_CONTENT_TYPE, "")
            if response.headers.get("Transfer-Encoding") != "chunked":
                yield raw_response(await _read(response, self._max_bytes), content_type)
                return
            # A handler that streams (send_intermediate_predict_response) is answered for in chunks, each with a piece.
            async for chunk in response.content.iter_any():
                yield raw_response(chunk, content_type, partial=True)

    @contextmanager
    def _grpc_failures(self, route: Route) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise_ours(of_grpc(error), NAME, self._max_bytes, {route.servable: route.model})

    @asynccontextmanager
    async def _posted(
        self, route: Route, request: InferenceRequest, timeout: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a POST, its body not yet read. Raises what an error status means."""
        body, content_type = request_body(request, route.policy.wire)
        verb = "explanations" if request.explain else "predictions"
        path = f"/{verb}/{route.servable}/{route.servable_version}"
        url = URL(f"{self._base}{path}?{request.query}" if request.query else self._base + path, encoded=True)
        headers = {_CONTENT_TYPE: content_type, **({} if route.policy.stateful else _RETRY)}
        limits = aiohttp.ClientTimeout(total=timeout)
        try:
            async with self._http.post(
                url, data=body, headers=headers, timeout=limits, allow_redirects=False
            ) as response:
                if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                    answer = await _read(response, self._max_bytes)
                    shown = answer.replace(route.servable.encode(), route.model.encode())
                    raise of_rest(response.status, shown, self._max_bytes)
                yield response
        except TimeoutError as error:
            raise DeadlineExceeded(f"{NAME} did not answer within {timeout:.3g} s.") from error
        except aiohttp.ClientError as error:
            log.debug("%s cannot be reached: %s", NAME, error)
            raise Unavailable(UNREACHABLE) from error

    async def ping(self, timeout: float) -> None:
        """Any answer of TorchServe's will do: its own is 500 as long as one model has no worker."""
        try:
            limits = aiohttp.ClientTimeout(total=timeout)
            async with self._http.get(f"{self._base}/ping", timeout=limits) as response:
                if response.status in ENVOYS:
                    raise Unavailable(UNREACHABLE)
        except (TimeoutError, aiohttp.ClientError) as error:
            raise Unavailable(UNREACHABLE) from error


def _in_parts(request: InferenceRequest, route: Route) -> bool:
    """Whether a request goes to the handler as named parts: it came so, or it is several BYTES of one element each."""
    if request.form is not Form.TENSORS or request.explain:
        return request.form is Form.PARTS
    if route.policy.wire is not Wire.AUTO or len(request.inputs) < 2:
        return False
    return all(tensor.datatype == "BYTES" and tensor.shape in ((), (1,)) for tensor in request.inputs)


def _message(route: Route, request: InferenceRequest) -> tuple[ts.PredictionsRequest, tuple[tuple[str, str], ...]]:
    """(message, metadata). Raises InvalidRequest for an input that is no part."""
    message = ts.PredictionsRequest(model_name=route.servable, model_version=route.servable_version)
    for tensor in request.inputs:
        elements = list(unpack_bytes(tensor.data, tensor.name)) if tensor.datatype == "BYTES" else []
        if len(elements) != 1:
            raise InvalidRequest(f"Input '{tensor.name}': a part is one BYTES element.")
        message.input[tensor.name] = elements[0]
    return message, () if route.policy.stateful else (RETRY_ON_RESET,)


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body of an answer. Raises TooLarge once it is over `limit` bytes."""
    gathered = bytearray()
    async for chunk in response.content.iter_any():
        gathered += chunk
        if len(gathered) > limit:
            raise TooLarge(limit)
    return bytes(gathered)
