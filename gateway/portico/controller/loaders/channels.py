"""Connections to the replicas of one model server: addresses from DNS, a gRPC channel kept open to each. Used by the
adapters beside it.
"""

import asyncio
import ipaddress
import logging
import socket
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from grpc import aio

from portico.controller.loaders import LoaderError, ReplicaUnreachable

RESOLVE_TIMEOUT = 2.0
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
_log = logging.getLogger(__name__)

Response = TypeVar("Response", bound=Message)


class CallFailed(LoaderError):
    """A replica answered a call with an error."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code


class TimedOut(ReplicaUnreachable):
    """A replica did not answer a call in time."""


async def resolve(target: str) -> tuple[str, ...]:
    """All addresses of `host:port`, sorted: each is a replica. Raises ReplicaUnreachable."""
    host, _, port = target.rpartition(":")
    host = host.strip("[]")
    if not (port.isdecimal() and 0 < int(port) < 1 << 16):
        raise ReplicaUnreachable(f"'{target}' cannot be resolved: it has to be host:port")
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT):
            found = await loop.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except TimeoutError as error:
        raise ReplicaUnreachable(f"looking up '{host}' took more than {RESOLVE_TIMEOUT} s") from error
    except (OSError, UnicodeError) as error:
        raise ReplicaUnreachable(f"'{target}' cannot be resolved: {error}") from error
    addresses = {ipaddress.ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found}
    # A host with both kinds has one server behind them.
    of_one_kind = sorted(a for a in addresses if a.version == min(b.version for b in addresses))
    return tuple(f"{a}:{port}" if a.version == 4 else f"[{a}]:{port}" for a in of_one_kind)


class Channels:
    """One open channel per address of `targets`, host:port or several with commas, for as long as it is there."""

    def __init__(self, targets: str) -> None:
        self._targets = [target for each in targets.split(",") if (target := each.strip())]
        self._unresolved = ""
        self._channels: dict[str, aio.Channel] = {}

    async def addresses(self) -> tuple[str, ...]:
        """The addresses behind all targets; a target that cannot be resolved is left out, and said in the log.

        Raises ReplicaUnreachable if none can be resolved.
        """
        answers = await asyncio.gather(*map(resolve, self._targets), return_exceptions=True)
        problems = [answer for answer in answers if isinstance(answer, BaseException)]
        unresolved = "; ".join(map(str, problems))
        if len(problems) == len(answers):
            raise ReplicaUnreachable(unresolved or "it has no address")
        if unresolved and unresolved != self._unresolved:
            _log.warning("%s; going on without it", unresolved)
        self._unresolved = unresolved
        found = tuple(dict.fromkeys(each for answer in answers if isinstance(answer, tuple) for each in answer))
        await self._keep(found)
        return found

    async def call(
        self, address: str, method: str, request: Message, answer: type[Response], timeout: float = CALL_TIMEOUT
    ) -> Response:
        """One unary call of `/package.Service/Method`. Raises ReplicaUnreachable (TimedOut) or CallFailed."""
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = aio.insecure_channel(address, options=_OPTIONS)
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

    async def _keep(self, addresses: tuple[str, ...]) -> None:
        for address in self._channels.keys() - set(addresses):
            await self._channels.pop(address).close()

    async def close(self) -> None:
        """Closes all channels."""
        await self._keep(())
