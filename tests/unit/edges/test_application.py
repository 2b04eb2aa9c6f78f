"""gRPC or REST by content type, and the lifespan that opens and closes what both need."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from asgi_client import Event, call
from portico.edges.application import Application
from portico.edges.asgi import App, Receive, Scope, Send
from portico.edges.draining import Draining


class Lifespan:
    """A server's half of the lifespan of an application."""

    def __init__(self, application: Application) -> None:
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._sent: asyncio.Queue[Event] = asyncio.Queue()
        self.running = asyncio.create_task(application({"type": "lifespan"}, self._events.get, self._sent.put))

    async def tell(self, event: str) -> Event:
        """Sends `lifespan.<event>`, and gives what the application answers."""
        await self._events.put({"type": f"lifespan.{event}"})
        async with asyncio.timeout(30):
            return await self._sent.get()


def named(name: str) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": name.encode()})

    return app


class Opened:
    """What an application stands on; it tells what happened to it."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[App, App]]:
        self.events.append("opened")
        try:
            yield named("grpc"), named("rest")
        finally:
            self.events.append("closed")


@asynccontextmanager
async def broken() -> AsyncIterator[tuple[App, App]]:
    if asyncio.current_task():
        raise ConnectionError("the port is taken")
    yield named("grpc"), named("rest")


async def test_the_lifespan() -> None:
    """What the edges stand on is opened at start-up, stays open, and is closed before shutdown is complete."""
    opened = Opened()
    lifespan = Lifespan(Application(opened.open))
    assert await lifespan.tell("startup") == {"type": "lifespan.startup.complete"}
    assert opened.events == ["opened"]
    assert await lifespan.tell("shutdown") == {"type": "lifespan.shutdown.complete"}
    assert opened.events == ["opened", "closed"]
    await lifespan.running


async def test_nothing_is_opened_before() -> None:
    """Making the application opens nothing: that belongs to the server's event loop."""
    opened = Opened()
    lifespan = Lifespan(Application(opened.open))
    await asyncio.sleep(0)
    assert opened.events == []
    await lifespan.tell("startup")
    await lifespan.tell("shutdown")


async def test_a_start_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A start that fails is told to the server with the reason, which is in the log too; the lifespan is over."""
    lifespan = Lifespan(Application(broken))
    assert await lifespan.tell("startup") == {"type": "lifespan.startup.failed", "message": "the port is taken"}
    await lifespan.running
    assert "the port is taken" in caplog.text


@pytest.mark.parametrize(
    ("content_type", "edge"),
    [
        (b"application/grpc", b"grpc"),
        (b"application/grpc+proto", b"grpc"),
        (b"application/grpc;charset=utf-8", b"grpc"),
        (b"application/json", b"rest"),
        (b"application/grpc-web", b"rest"),
        (b"application/grpcx", b"rest"),
        (None, b"rest"),
    ],
)
async def test_which_edge(content_type: bytes | None, edge: bytes) -> None:
    """The content type alone decides whether a request is gRPC."""
    application = Application(Opened().open)
    lifespan = Lifespan(application)
    await lifespan.tell("startup")
    headers = [(b"x-first", b"application/grpc")] + ([(b"content-type", content_type)] if content_type else [])
    assert (await call(application, "POST", "/x", headers=headers)).body == edge
    await lifespan.tell("shutdown")


async def test_a_server_without_lifespan() -> None:
    """A server that does not run the lifespan is told so at its first request."""
    with pytest.raises(RuntimeError, match="has to run the lifespan"):
        await call(Application(Opened().open), "GET", "/")


async def test_other_protocols() -> None:
    """What is neither HTTP nor the lifespan is not answered."""
    sent: asyncio.Queue[Event] = asyncio.Queue()
    await Application(Opened().open)({"type": "websocket"}, sent.get, sent.put)
    assert sent.empty()


async def test_requests_under_way_are_counted() -> None:
    """From a request's beginning to its end, however it ends."""
    draining, seen = Draining(), []

    async def edge(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(draining.under_way)
        raise ValueError("as edges do")

    @asynccontextmanager
    async def opened() -> AsyncIterator[tuple[App, App]]:
        yield edge, edge

    application = Application(opened, draining)
    lifespan = Lifespan(application)
    await lifespan.tell("startup")
    with pytest.raises(ValueError, match="as edges do"):
        await call(application, "GET", "/")
    await lifespan.tell("shutdown")
    assert (seen, draining.under_way) == ([1], 0)
