"""A gRPC client that talks while it listens, for calls that stream both ways; in-process, like `asgi_client`."""

import asyncio

from asgi_client import Answer, Event, Exchange, Headers
from portico.edges.asgi import App

SECONDS = 20


class Conversation(Exchange):
    """One call. `eager` is how `receive` behaves once the client has half-closed, see `Exchange`."""

    def __init__(self, path: str, metadata: Headers = (), *, eager: bool = False) -> None:
        headers = [(b"content-type", b"application/grpc"), (b"te", b"trailers"), *metadata]
        super().__init__("POST", path, [], headers, eager)
        self._said: asyncio.Queue[Event] = asyncio.Queue()
        self._heard: asyncio.Queue[bytes] = asyncio.Queue()
        self._closed = False
        self._running: asyncio.Task[Answer] | None = None

    def start(self, app: App) -> "Conversation":
        """Lets the application answer in the background."""
        self._running = asyncio.create_task(self.run(app))
        return self

    def say(self, *messages: bytes) -> None:
        """Sends messages, each in an event of its own."""
        for message in messages:
            self.send_bytes(b"\0" + len(message).to_bytes(4, "big") + message)

    def send_bytes(self, body: bytes) -> None:
        """Sends bytes as they are."""
        self._said.put_nowait({"type": "http.request", "body": body, "more_body": True})

    def half_close(self) -> None:
        """Says that nothing more will be said."""
        self._said.put_nowait({"type": "http.request", "body": b"", "more_body": False})

    def leave(self) -> None:
        super().leave()
        self._said.put_nowait({"type": "http.disconnect"})

    async def hear(self) -> bytes:
        """The next message of the answer."""
        async with asyncio.timeout(SECONDS):
            return await self._heard.get()

    async def end(self) -> Answer:
        """All of the answer, once the application has ended it."""
        assert self._running
        return await self._running

    async def receive(self) -> Event:
        if self._closed and self._eager and self._said.empty():
            return {"type": "http.request", "body": b"", "more_body": False}
        event = await self._said.get()
        self._closed = self._closed or not event.get("more_body", False)
        return event

    async def send(self, event: Event) -> None:
        await super().send(event)
        if body := event.get("body", b""):
            assert len(body) == 5 + int.from_bytes(body[1:5], "big")
            self._heard.put_nowait(body[5:])
