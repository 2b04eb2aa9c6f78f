"""ASGI as the edges use it: its types, and the request's body under a limit.

Knows no protocol and no server; works on any that implements ASGI 3 with `http.response.trailers`.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from portico.errors import TooLarge

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class ClientGone(Exception):
    """The client has closed the stream; nobody reads an answer."""


async def read_body(receive: Receive, limit: int, overhead: int = 0) -> bytes:
    """The whole request body: a message of up to `limit` bytes, and `overhead` bytes of framing around it.

    Raises TooLarge as soon as more has come, ClientGone if it breaks off.
    """
    gathered = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        chunk: bytes = message.get("body", b"")
        if len(gathered) + len(chunk) > limit + overhead:
            raise TooLarge(limit)
        if not (gathered or message.get("more_body")):
            return chunk
        # Not a list of chunks: the allocator cannot give back what thousands of small pieces took.
        gathered += chunk
        if not message.get("more_body"):
            return bytes(gathered)
