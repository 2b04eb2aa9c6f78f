"""TorchServe: named parts by its gRPC `Predictions`, a body with a content type by its REST `/predictions`.

Two wires because neither can say all: its gRPC API has no content types and no statuses of a handler's own, and REST
bodies have no named parts without them. So a handler gets what it would have got from TorchServe itself.
"""

import logging
from http import HTTPStatus

import aiohttp
import grpc

from portico.backends.channel import RETRY_ON_RESET, raise_ours
from portico.backends.torchserve_failures import ENVOYS, UNREACHABLE, of_grpc, of_rest
from portico.codecs.handler import raw_response, request_body
from portico.errors import DeadlineExceeded, InvalidRequest, TooLarge, Unavailable
from portico.inference import Form, InferenceRequest, InferenceResponse, unpack_bytes
from portico.routing import Route
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

    async def infer(self, route: Route, request: InferenceRequest, timeout: float) -> InferenceResponse:
        if request.form is Form.PARTS:
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
            retry = None if route.policy.stateful else (RETRY_ON_RESET,)
            answer = await self._predictions(message, timeout=timeout, metadata=retry)
        except grpc.aio.AioRpcError as error:
            raise_ours(of_grpc(error), NAME, self._max_bytes, {route.servable: route.model})
        return raw_response(answer.prediction, "")

    async def _by_rest(self, route: Route, request: InferenceRequest, timeout: float) -> InferenceResponse:
        body, content_type = request_body(request, route.policy.wire)
        url = f"{self._base}/predictions/{route.servable}/{route.servable_version}"
        limits = aiohttp.ClientTimeout(total=timeout)
        try:
            headers = {_CONTENT_TYPE: content_type, **({} if route.policy.stateful else _RETRY)}
            async with self._http.post(
                url, data=body, headers=headers, timeout=limits, allow_redirects=False
            ) as response:
                answer = await _read(response, self._max_bytes)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{NAME} did not answer within {timeout:.3g} s.") from error
        except aiohttp.ClientError as error:
            log.debug("%s cannot be reached: %s", NAME, error)
            raise Unavailable(UNREACHABLE) from error
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            shown = answer.replace(route.servable.encode(), route.model.encode())
            raise of_rest(response.status, shown, self._max_bytes)
        return raw_response(answer, response.headers.get(_CONTENT_TYPE, ""))

    async def ping(self, timeout: float) -> None:
        """Any answer of TorchServe's will do: its own is 500 as long as one model has no worker."""
        try:
            limits = aiohttp.ClientTimeout(total=timeout)
            async with self._http.get(f"{self._base}/ping", timeout=limits) as response:
                if response.status in ENVOYS:
                    raise Unavailable(UNREACHABLE)
        except (TimeoutError, aiohttp.ClientError) as error:
            raise Unavailable(UNREACHABLE) from error


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body of an answer. Raises TooLarge once it is over `limit` bytes."""
    gathered = bytearray()
    async for chunk in response.content.iter_any():
        gathered += chunk
        if len(gathered) > limit:
            raise TooLarge(limit)
    return bytes(gathered)
