"""TorchServe: everything by its REST API, which gives a handler named parts and bodies with a content type, and tells
its statuses; pieces of an answer to named parts by gRPC `StreamPredictions`, as only that keeps them apart.

TorchServe 0.12 loses a worker for good where its gRPC API is asked in the wrong way: `Predictions` of a handler that
answers in pieces, or `StreamPredictions` of one that does not (job/GRPCJob.java, seen). So gRPC is used only for models
that have been seen to answer in pieces; until then these come as REST gives them, some joined and some split.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from urllib.parse import quote

import aiohttp
import grpc
from yarl import URL

from portico.backends.channel import call_headers
from portico.backends.torchserve_failures import ENVOYS, UNREACHABLE, of_rest, raise_of_grpc
from portico.codecs.handler import as_content_type, in_parts, parts_of, raw_response, request_body
from portico.errors import DeadlineExceeded, HandlerAnswer, TooLarge, Unavailable
from portico.inference import InferenceRequest, InferenceResponse
from portico.routing import Route
from portico.wire import torchserve_pb2 as ts

log = logging.getLogger(__name__)

NAME = "TorchServe"

MOST_KNOWN = 4096
"""How many servables are remembered to answer in pieces."""

_CONTENT_TYPE = "Content-Type"


class TorchServe:
    """Implements `ports.Backend`. `base` is the REST address, "http://host:port"."""

    def __init__(self, channel: grpc.aio.Channel, http: aiohttp.ClientSession, base: str, max_bytes: int) -> None:
        self._http = http
        self._base = base
        self._max_bytes = max_bytes
        self._stream = channel.unary_stream(
            "/org.pytorch.serve.grpc.inference.InferenceAPIsService/StreamPredictions",
            request_serializer=ts.PredictionsRequest.SerializeToString,
            response_deserializer=ts.PredictionResponse.FromString,
        )
        self._in_pieces: set[str] = set()

    async def infer(self, route: Route, request: InferenceRequest, timeout: float) -> InferenceResponse:
        async with self._posted(route, request, timeout) as response:
            return await self._whole(response)

    async def stream(
        self, route: Route, request: InferenceRequest, timeout: float
    ) -> AsyncGenerator[InferenceResponse]:
        by_grpc = route.servable in self._in_pieces and in_parts(request, route.policy.wire) and not request.explain
        pieces = self._messages(route, request, timeout) if by_grpc else self._chunks(route, request, timeout)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def _chunks(
        self, route: Route, request: InferenceRequest, timeout: float
    ) -> AsyncGenerator[InferenceResponse]:
        """The whole answer, or its pieces as they come, at least one."""
        async with self._posted(route, request, timeout) as response:
            if not _comes_in_pieces(response):
                yield await self._whole(response)
                return
            chunk, content_type = await response.content.readany(), _content_type(response)
            yield raw_response(chunk, content_type, partial=True, status=response.status)
            while chunk := await response.content.readany():
                yield raw_response(chunk, content_type, partial=True, status=response.status)

    async def _messages(
        self, route: Route, request: InferenceRequest, timeout: float
    ) -> AsyncGenerator[InferenceResponse]:
        message = ts.PredictionsRequest(
            model_name=route.servable, model_version=route.servable_version, input=parts_of(request)
        )
        call = self._stream(message, timeout=timeout, metadata=call_headers(route))
        try:
            async for piece in call:
                yield raw_response(piece.prediction, "", partial=True)
        except grpc.aio.AioRpcError as error:
            raise_of_grpc(error, self._max_bytes, route.servable, route.model)
        finally:
            call.cancel()

    @asynccontextmanager
    async def _posted(
        self, route: Route, request: InferenceRequest, timeout: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a POST, its body not yet read. Raises what an error status means."""
        body, content_type = request_body(request, route.policy.wire)
        headers = {_CONTENT_TYPE: content_type, **dict(call_headers(route))}
        limits = aiohttp.ClientTimeout(total=timeout)
        try:
            async with self._http.post(
                self._url(route, request), data=body, headers=headers, timeout=limits, allow_redirects=False
            ) as response:
                if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                    raise await self._failure(route, response)
                if _comes_in_pieces(response):
                    self._remember(route.servable)
                yield response
        except TimeoutError as error:
            raise DeadlineExceeded(f"{NAME} did not answer within {timeout:.3g} s.") from error
        except aiohttp.ClientPayloadError as error:
            raise Unavailable(f"{NAME}'s answer broke off: the handler failed, or the server was lost.") from error
        except aiohttp.ClientError as error:
            log.debug("%s cannot be reached: %s", NAME, error)
            raise Unavailable(UNREACHABLE) from error

    def _remember(self, servable: str) -> None:
        if len(self._in_pieces) >= MOST_KNOWN:
            self._in_pieces.clear()
        self._in_pieces.add(servable)

    def _url(self, route: Route, request: InferenceRequest) -> URL:
        verb = "explanations" if request.explain else "predictions"
        further = f"/{quote(request.url_path)}" if request.url_path else ""
        return URL(f"{self._base}/{verb}/{route.servable}/{route.servable_version}{further}", encoded=True)

    async def _failure(self, route: Route, response: aiohttp.ClientResponse) -> Exception:
        body = (await _read(response, self._max_bytes)).replace(route.servable.encode(), route.model.encode())
        answer = HandlerAnswer(response.status, _content_type(response), body)
        # TorchServe forbids caching of all its answers (NettyUtils.java), which tells them from Envoy's.
        return of_rest(answer, "Pragma" in response.headers, self._max_bytes, route.model)

    async def _whole(self, response: aiohttp.ClientResponse) -> InferenceResponse:
        body = await _read(response, self._max_bytes)
        joined = _comes_in_pieces(response)
        return raw_response(body, _content_type(response), status=response.status, joined=joined)

    async def ping(self, timeout: float) -> None:
        """Any answer of TorchServe's will do: its own is 500 as long as one model has no worker."""
        try:
            limits = aiohttp.ClientTimeout(total=timeout)
            async with self._http.get(f"{self._base}/ping", timeout=limits) as response:
                if response.status in ENVOYS:
                    raise Unavailable(UNREACHABLE)
        except (TimeoutError, aiohttp.ClientError) as error:
            raise Unavailable(UNREACHABLE) from error


def _comes_in_pieces(response: aiohttp.ClientResponse) -> bool:
    """TorchServe gives each whole answer a length (NettyUtils.java)."""
    return response.headers.get("Transfer-Encoding") == "chunked"


def _content_type(response: aiohttp.ClientResponse) -> str:
    return as_content_type(response.headers.get(_CONTENT_TYPE, ""))


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body of an answer. Raises TooLarge once it is over `limit` bytes."""
    gathered = bytearray()
    async for chunk in response.content.iter_any():
        gathered += chunk
        if len(gathered) > limit:
            raise TooLarge(limit)
    return bytes(gathered)
