"""ASGI as the edges use it: its types, the request's body under a limit, and the end of a client that has gone.

Knows no protocol and no server; works on any that implements ASGI 3 with `http.response.trailers`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from portico.errors import TooLarge

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

DISCONNECT_POLL = 0.05
"""Seconds between two looks whether the client is still there."""


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
        if not message.get("more_body"):
            return bytes(gathered + chunk) if gathered else chunk
        gathered += chunk


@contextmanager
def cancelled_with_client(receive: Receive) -> Iterator[None]:
    """Cancels the body of the `with`, which then raises ClientGone, once the client has gone.

    It starts to look after `DISCONNECT_POLL`, so that a fast answer pays for one timer only; and it polls, because
    pyvoy answers `receive` at once with an empty `http.request` where other servers wait for the disconnect.
    """
    task = asyncio.current_task()
    assert task is not None
    loop = task.get_loop()
    watcher: asyncio.Task[None] | None = None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":  # noqa: ASYNC110 - there is no event, see above
            await asyncio.sleep(DISCONNECT_POLL)
        gone = True
        task.cancel()

    def start() -> None:
        nonlocal watcher
        watcher = loop.create_task(watch())

    timer = loop.call_later(DISCONNECT_POLL, start)
    try:
        yield
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise ClientGone from None
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()
