"""Connections to the replicas of one model server: a gRPC channel kept open to each. Used by the adapters beside it."""

from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from grpc import aio

from portico.controller.loaders import LoaderError, ReplicaUnreachable
from portico.controller.loaders.discovery import Discovery

CALL_TIMEOUT = 3.0
_OPTIONS = (
    ("grpc.max_receive_message_length", 64 << 20),
    # A replica that restarts is found within a second. The "minimum" is how long one attempt to connect may take.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.min_reconnect_backoff_ms", int(CALL_TIMEOUT * 1000)),
    ("grpc.enable_http_proxy", 0),
)
_UNREACHABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}

Response = TypeVar("Response", bound=Message)


class CallFailed(LoaderError):
    """A replica answered a call with an error."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code


class TimedOut(ReplicaUnreachable):
    """A replica did not answer a call in time."""


class Channels:
    """One open channel per replica of `targets` (see `Discovery`), for as long as it is there."""

    def __init__(self, targets: str) -> None:
        self._discovery = Discovery(targets)
        self._targets: dict[str, str] = {}
        self._channels: dict[str, aio.Channel] = {}

    async def addresses(self) -> tuple[str, ...]:
        """The address of each replica. Raises ReplicaUnreachable if none can be found."""
        found = await self._discovery.replicas()
        for address in self._channels.keys() - {each for each in found if found[each] == self._targets.get(each)}:
            await self._channels.pop(address).close()
        self._targets = found
        return tuple(found)

    async def call(
        self, address: str, method: str, request: Message, answer: type[Response], timeout: float = CALL_TIMEOUT
    ) -> Response:
        """One unary call of `/package.Service/Method`. Raises ReplicaUnreachable (TimedOut) or CallFailed."""
        channel = self._channels.get(address)
        if channel is None:
            target = self._targets.get(address, address)
            channel = self._channels[address] = aio.insecure_channel(target, options=_OPTIONS)
        stub: Any = channel.unary_unary(
            method, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
        )
        try:
            response: Response = await stub(request, timeout=timeout)
        except aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimedOut(f"{address} did not answer within {timeout:.3g} s") from error
            if error.code() in _UNREACHABLE:
                raise ReplicaUnreachable(f"{address} does not answer: {error.details()}") from error
            raise CallFailed(error.code(), error.details() or error.code().name) from error
        return response

    async def close(self) -> None:
        """Closes all channels."""
        while self._channels:
            await self._channels.popitem()[1].close()
