"""REST over plain ASGI: which endpoint, what it is given, and what the client reads when something fails."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any

import pytest

from asgi_client import Event, Exchange, call
from fakes import no_memory
from portico.edges.rest import BrokenOff, Endpoint, Request, Response, RestEdge
from portico.errors import InvalidRequest, PorticoError
from sample_gateway import nothing_here

LIMIT = 100
Handler = Callable[[Request], Awaitable[Response]]


async def told(request: Request) -> Response:
    """Answers what it was given."""
    told = {"method": request.method, "path": dict(request.path), "body": request.body.decode()}
    return Response(json.dumps(told).encode())


def render(status: int, message: str) -> bytes:
    return json.dumps({"status": status, "text": message}).encode()


def edge(*endpoints: tuple[str, str, Handler], timeout: float = 20.0) -> RestEdge:
    return RestEdge([Endpoint(*entry, render) for entry in endpoints], nothing_here, no_memory(), LIMIT, timeout)


class ReadsNothing(Exchange):
    """A client whose connection takes no more; `refused` holds the types of what it was sent."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.refused: list[str] = []

    async def send(self, event: Event) -> None:
        self.refused.append(event["type"])
        await asyncio.Event().wait()


ITEMS = edge(
    ("GET", r"/items/(?P<name>[^/]+)(?:/versions/(?P<version>\d+))?", told),
    ("POST", r"/items/(?P<name>[^/]+)", told),
    ("PUT", r"/items/(?P<name>[^/]+)", told),
    ("GET", "/items", told),
)


async def test_an_endpoint() -> None:
    """The endpoint that matches method and path gets the named parts of the path and the body."""
    answer = await call(ITEMS, "POST", "/items/a", [b"ha", b"llo"])
    assert answer.status == 200
    assert answer.json() == {"method": "POST", "path": {"name": "a"}, "body": "hallo"}


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/items/a", {"name": "a", "version": ""}),
        ("/items/a/versions/12", {"name": "a", "version": "12"}),
        ("/items/a%20b%2Fc%25", {"name": "a b/c%", "version": ""}),
        ("/items/%D0%B2%D1%85%D0%BE%D0%B4", {"name": "вход", "version": ""}),
        ("/items/%FF", {"name": "\N{REPLACEMENT CHARACTER}", "version": ""}),
        ("/items/a%3Apredict", {"name": "a:predict", "version": ""}),
    ],
)
async def test_parts_of_a_path(path: str, parts: dict[str, str]) -> None:
    """A name may hold any character: it is split off while percent-encoded, and then decoded."""
    assert (await call(ITEMS, "GET", path)).json()["path"] == parts


@pytest.mark.parametrize(
    "path", ["/", "/other", "/items/", "/items/a/", "/items/a/b", "/items/a/versions/x", "/itemsx"]
)
async def test_an_unknown_path(path: str) -> None:
    """A path that no endpoint has goes to the application behind."""
    answer = await call(ITEMS, "GET", path)
    assert (answer.status, answer.body) == (404, b"fallback")


async def test_a_server_without_raw_path() -> None:
    """A server that gives no raw path, which ASGI leaves open, is served by the decoded one."""
    exchange = Exchange("GET", "/items/a", b"", (), eager=False)
    del exchange.scope["raw_path"]
    assert (await exchange.run(ITEMS)).json()["path"] == {"name": "a", "version": ""}


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("DELETE", "/items/a", "GET, POST, PUT"), ("POST", "/items", "GET"), ("POST", "/items/a/versions/1", "GET")],
)
async def test_a_method_that_is_not_allowed(method: str, path: str, allow: str) -> None:
    """Another method is answered 405, with those that there are in `allow` and in words."""
    answer = await call(ITEMS, method, path)
    assert (answer.status, answer.header(b"allow")) == (405, allow)
    text = answer.json()["text"]
    assert method in text
    assert all(word in text for word in allow.split(", "))


async def test_headers_reach_the_handler() -> None:
    """A handler reads a header by its lower-case name, several joined by commas; one that is not there is empty."""

    async def handle(request: Request) -> Response:
        return Response(f"{request.header(b'x-a')}|{request.header(b'x-b')}".encode())

    answer = await call(edge(("GET", "/h", handle)), "GET", "/h", headers=[(b"x-a", b"1"), (b"x-a", b"2")])
    assert answer.body == b"1, 2|"


@pytest.mark.parametrize("body", [bytes(LIMIT + 1), [bytes(LIMIT), b"+"]], ids=["at once", "in pieces"])
async def test_a_body_over_the_limit(body: bytes | list[bytes]) -> None:
    """A body over the limit is answered 413 with the limit, and no handler sees it."""
    answer = await call(ITEMS, "POST", "/items/a", body)
    assert answer.status == 413
    assert answer.json()["status"] == 413
    assert f"{LIMIT} bytes" in answer.json()["text"]
    assert (await call(ITEMS, "POST", "/items/a", bytes(LIMIT))).status == 200


async def test_an_error_in_the_form_of_the_endpoint() -> None:
    """An error that a handler raises is answered with its status, rendered by the endpoint that failed."""

    async def refuse(request: Request) -> Response:
        raise InvalidRequest("вход 'x': nicht größer")

    answer = await call(edge(("GET", "/x", refuse)), "GET", "/x")
    assert (answer.status, answer.json()) == (400, {"status": 400, "text": "вход 'x': nicht größer"})


async def test_a_bug_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected exception is answered 500 without its text, which is in the log."""

    async def stumble(request: Request) -> Response:
        raise RuntimeError("the password is secret")

    with caplog.at_level(logging.ERROR):
        answer = await call(edge(("GET", "/x", stumble)), "GET", "/x")
    assert (answer.status, answer.json()["status"]) == (500, 500)
    assert b"secret" not in answer.body
    assert "the password is secret" in caplog.text


async def test_a_handler_that_takes_too_long() -> None:
    """A call that is not answered in time is cancelled and answered 504."""
    cancelled = []

    async def wait(request: Request) -> Response:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)
        return Response(b"")

    answer = await call(edge(("GET", "/x", wait), timeout=0.05), "GET", "/x")
    assert (answer.status, cancelled) == (504, [True])
    assert "0.05 s" in answer.json()["text"]


async def test_a_body_that_never_comes() -> None:
    """The time allowed includes the reading of the body: a client that sends none does not hold a call open."""
    exchange = Exchange("POST", "/items/a", [], (), eager=False)
    answer = await exchange.run(edge(("POST", "/items/a", told), timeout=0.05))
    assert answer.status == 504


async def test_the_deadline_of_a_handler() -> None:
    """A handler sees when its time is up, on the clock that the time-out is measured by."""
    seen = []

    async def look(request: Request) -> Response:
        seen.append(request.deadline - asyncio.get_running_loop().time())
        return Response(b"")

    await call(edge(("GET", "/x", look), timeout=20), "GET", "/x")
    assert 0 < seen[0] <= 20


@pytest.mark.parametrize("eager", [False, True], ids=["as ASGI says", "as pyvoy does"])
async def test_a_client_that_goes(eager: bool) -> None:
    """When the client goes, the handler is cancelled, and nothing is sent."""
    begun, cancelled = asyncio.Event(), []

    async def wait(request: Request) -> Response:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)
        return Response(b"")

    exchange = Exchange("GET", "/x", b"", (), eager)
    running = asyncio.create_task(exchange.run(edge(("GET", "/x", wait))))
    await begun.wait()
    exchange.leave()
    assert (await running).events == []
    assert cancelled == [True]


@pytest.mark.parametrize("error", [None, PorticoError, RuntimeError])
async def test_a_client_that_goes_before_the_answer(error: type[Exception] | None) -> None:
    """An answer that finds its client gone is dropped without a failure for the server to report."""

    async def answer(request: Request) -> Response:
        exchange.leave()
        if error:
            raise error
        return Response(b"")

    exchange = Exchange("GET", "/x", b"", (), eager=False)
    assert (await exchange.run(edge(("GET", "/x", answer)))).events == []


async def test_a_client_that_goes_while_it_sends() -> None:
    """A client that goes before its body is whole reaches no handler."""
    called: list[Request] = []

    async def handle(request: Request) -> Response:
        called.append(request)
        return Response(b"")

    exchange = Exchange("POST", "/x", [], (), eager=False)
    exchange.leave()
    assert (await exchange.run(edge(("POST", "/x", handle)))).events == []
    assert not called


async def test_a_client_that_does_not_read() -> None:
    """A client that takes no answer holds its call open for the time of a request, and no longer."""
    exchange = ReadsNothing("GET", "/items", b"", (), eager=False)
    gateway = edge(("GET", "/items", told), timeout=0.05)
    assert (await exchange.run(gateway)).events == []
    assert exchange.refused == ["http.response.start"]


def test_the_first_segment_of_a_pattern() -> None:
    """Endpoints are grouped by the literal first segment of their pattern, with or without more behind it."""
    patterns: Iterable[str] = ("/v2", r"/v2/models/(?P<model>[^/]+)", r"/v2:go", r"/v2(?P<x>:.*)?", "/v2/")
    assert {Endpoint("GET", pattern, told, render).root for pattern in patterns} == {"v2"}


async def test_the_query_reaches_the_handler() -> None:
    """A handler sees what follows the question mark as it came, and nothing where there is none."""

    async def handle(request: Request) -> Response:
        return Response(request.query.encode())

    gateway = edge(("GET", "/x", handle))
    assert [(await call(gateway, "GET", path)).body for path in ("/x?a=%20b&a", "/x?", "/x")] == [b"a=%20b&a", b"", b""]


async def test_the_head_of_an_answer() -> None:
    """HEAD is answered wherever GET is, with the same headers and no body."""
    whole, head = [await call(ITEMS, method, "/items/a") for method in ("GET", "HEAD")]
    assert (head.status, head.body) == (200, b"")
    assert head.headers == [*whole.headers[:-1], (b"content-length", b"%d" % len(whole.body.replace(b"GET", b"HEAD")))]
    assert (await call(ITEMS, "HEAD", "/items/a/b")).body == b""
    refused = await call(edge(("POST", "/x", told)), "HEAD", "/x")
    assert (refused.status, refused.body) == (405, b"")


async def test_a_description_claims_no_path() -> None:
    """An endpoint for OPTIONS alone leaves the path's other methods to the application behind."""
    gateway = edge(("OPTIONS", "/x", told))
    assert (await call(gateway, "OPTIONS", "/x")).status == 200
    assert (await call(gateway, "GET", "/x")).body == b"fallback"


class Pieces:
    """A handler that answers in the pieces of `rest`, in which an exception is raised; it tells whether it was closed.

    None waits for ever.
    """

    def __init__(self, *rest: bytes | Exception | None) -> None:
        self._rest = rest
        self.closed = False

    async def __call__(self, request: Request) -> Response:
        more = self._more()
        await anext(more)
        return Response(b"first ", 202, [(b"content-type", b"text/plain")], more)

    async def _more(self) -> AsyncGenerator[bytes]:
        try:
            yield b""
            for piece in self._rest:
                if piece is None:
                    await asyncio.Event().wait()
                if isinstance(piece, Exception):
                    raise piece
                yield piece or b""
        finally:
            self.closed = True


async def test_an_answer_in_pieces() -> None:
    """Each piece is sent as it comes; status and headers are the handler's, and there is no length."""
    handler = Pieces(b"second ", b"", b"third")
    answer = await call(edge(("POST", "/x", handler)), "POST", "/x")
    assert (answer.status, answer.headers) == (202, [(b"content-type", b"text/plain")])
    assert (answer.body, handler.closed) == (b"first second third", True)
    assert len(answer.events) == 6


async def test_the_head_of_an_answer_in_pieces() -> None:
    """HEAD of an answer in pieces is its headers, and the rest is closed unread."""
    handler = Pieces(None)
    answer = await call(edge(("GET", "/x", handler)), "HEAD", "/x")
    assert (answer.status, answer.body, handler.closed) == (202, b"", True)


@pytest.mark.parametrize("error", [PorticoError("the model broke"), RuntimeError("a bug")])
async def test_pieces_that_break_off(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """After the first piece nobody can be told of a failure: the answer is not ended, and the ASGI server breaks it."""
    exchange = Exchange("GET", "/x", b"", (), eager=False)
    handler = Pieces(b"second", error)
    with pytest.raises(BrokenOff):
        await exchange.run(edge(("GET", "/x", handler)))
    assert [event.get("body") for event in exchange.answer.events] == [None, b"first ", b"second"]
    assert exchange.answer.events[-1]["more_body"]
    assert str(error) in caplog.text
    assert handler.closed


async def test_pieces_that_do_not_come_in_time(caplog: pytest.LogCaptureFixture) -> None:
    """An answer that was begun and has not ended in the time of a request is broken off, not answered a second time."""
    exchange = Exchange("GET", "/x", b"", (), eager=False)
    handler = Pieces(None)
    with pytest.raises(BrokenOff):
        await exchange.run(edge(("GET", "/x", handler), timeout=0.05))
    assert [event["type"] for event in exchange.answer.events] == ["http.response.start", "http.response.body"]
    assert "0.05 s" in caplog.text
    assert handler.closed


@pytest.mark.parametrize("eager", [False, True], ids=["as ASGI says", "as pyvoy does"])
async def test_a_client_that_goes_between_pieces(eager: bool) -> None:
    """When the client goes, the pieces are closed, whether one is being sent or waited for; nothing is reported."""
    for rest in ((None,), [b"x"] * 100_000):
        handler = Pieces(*rest)
        exchange = Exchange("GET", "/x", b"", (), eager)
        running = asyncio.create_task(exchange.run(edge(("GET", "/x", handler))))
        while not exchange.answer.events:
            await asyncio.sleep(0)
        exchange.leave()
        await running
        assert handler.closed


async def test_a_client_that_does_not_read_pieces() -> None:
    """A client that takes no pieces holds its call open for the time of a request, and no longer."""
    handler = Pieces(b"second")
    exchange = ReadsNothing("GET", "/x", b"", (), eager=False)
    with pytest.raises(BrokenOff):
        await exchange.run(edge(("GET", "/x", handler), timeout=0.05))
    assert handler.closed
