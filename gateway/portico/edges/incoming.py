"""The client's half of a gRPC call that streams both ways: read while its handler works, so that a client that has gone
is noticed then too.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

from portico.edges.asgi import ClientGone, Receive
from portico.edges.bounds import POLL
from portico.edges.framing import PREFIX, frame_size, unframe
from portico.errors import InvalidRequest, Overloaded

AHEAD = 2
"""How many messages of the largest size a client may send ahead of the answers to them."""


class Incoming:
    """Messages of up to `limit` bytes, compressed as `encoding` says.

    The server, pyvoy, cannot make a client wait: it takes whatever comes. So who sends too far ahead is refused.
    """

    def __init__(self, receive: Receive, encoding: bytes, limit: int) -> None:
        self._receive = receive
        self._encoding = encoding
        self._limit = limit
        self._most = AHEAD * (PREFIX + limit)
        self._gathered = bytearray()
        self._ended = False
        self._came = asyncio.Event()

    async def messages(self) -> AsyncGenerator[bytes]:
        """One after the other until the client half-closes. Raises what `unframe` raises."""
        while True:
            if (size := frame_size(self._gathered, self._limit)) is not None:
                message = unframe(bytes(self._gathered[:size]), self._encoding, self._limit)
                del self._gathered[:size]
                yield message
            elif not self._ended:
                self._came.clear()
                await self._came.wait()
            elif self._gathered:
                raise InvalidRequest("The stream ends within a message.")
            else:
                return

    @contextmanager
    def read(self) -> Iterator[None]:
        """Reads during the body of the `with`, which is cancelled, and raises ClientGone, once the client has gone.

        Raises Overloaded in the same way for a client that sends too far ahead.
        """
        task = asyncio.current_task()
        assert task is not None
        reader = asyncio.create_task(self._reason_to_end())
        ended = False

        def end(reader: "asyncio.Task[Exception]") -> None:
            nonlocal ended
            if not reader.cancelled():
                ended = True
                task.cancel()

        reader.add_done_callback(end)
        try:
            yield
        except asyncio.CancelledError:
            if not ended:
                raise
            task.uncancel()
            raise reader.result() from None
        finally:
            reader.remove_done_callback(end)
            reader.cancel()

    async def _reason_to_end(self) -> Exception:
        """Reads until there is a reason to end the handler, which is returned."""
        while (message := await self._receive())["type"] == "http.request":
            if self._ended:
                # pyvoy answers at once as long as the client is there, see `Bounds`.
                await asyncio.sleep(POLL)
                continue
            self._gathered += message.get("body", b"")
            self._ended = not message.get("more_body", False)
            self._came.set()
            if len(self._gathered) > self._most:
                return Overloaded(
                    f"{len(self._gathered)} bytes of requests wait for their answers on this stream; up to "
                    f"{self._most} may. Wait for answers before you send more."
                )
        return ClientGone()
