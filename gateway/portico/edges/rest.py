"""REST over plain ASGI: finds the endpoint, reads the body, calls the handler, renders errors in the form of the
endpoint's own protocol. Which endpoints there are is in `protocols/`.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from time import monotonic
from urllib.parse import unquote

from portico.dispatch import Answer
from portico.edges.asgi import App, ClientGone, Headers, Message, Receive, Scope, Send, read_body
from portico.edges.bounds import Watch
from portico.edges.cache_headers import IF_NONE_MATCH, cache_headers, is_known
from portico.edges.compression import inflate, inflates
from portico.edges.memory import Memory, Moment, Question
from portico.edges.status import http_status
from portico.errors import DeadlineExceeded, InvalidRequest, PorticoError

log = logging.getLogger(__name__)

JSON = (b"content-type", b"application/json")
_OK, _NOT_MODIFIED = 200, 304  # an enum's members take longer to look up
MOST_PATHS = 4096
"""How many paths are remembered to have been called, with what endpoint answers them."""
LONGEST_PATH = 512
"""Characters of the longest of them."""


@dataclass(slots=True)
class Request:
    """One REST call. `path` holds the pattern's named groups, `query` what follows the question mark, as it came;
    `deadline` is on the clock of `time.monotonic`. `read` are the headers that somebody has asked for.
    """

    method: str
    path: Mapping[str, str]
    raw_headers: Headers
    body: bytes
    deadline: float
    query: str = ""
    read: set[bytes] = field(default_factory=set)

    def header(self, name: bytes) -> str:
        """The header of this lower-case name, several joined by commas (RFC 9110, section 5.3), empty if none."""
        self.read.add(name)
        return b", ".join([value for key, value in self.raw_headers if key == name]).decode("latin-1")


@dataclass(slots=True)
class Response:
    """One answer. `more` gives the rest of a body that comes in pieces, whose length nobody knows. `answer` is the
    model's, where a model was called: the edge tells the client what the cache had to do with it.
    """

    body: bytes
    status: int = 200
    headers: Headers = field(default_factory=lambda: [JSON])
    more: AsyncGenerator[bytes] | None = None
    answer: Answer | None = None


class BrokenOff(Exception):
    """An answer that was begun cannot be ended. It goes up to the ASGI server, which breaks the stream off."""


Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """`pattern` is matched against the whole raw path; its named groups arrive percent-decoded.

    `render` puts an error into the form of the protocol: (status, message) → body.
    """

    method: str
    pattern: str
    handler: Handler
    render: Callable[[int, str], bytes]

    @cached_property
    def regex(self) -> re.Pattern[str]:
        return re.compile(self.pattern)

    @cached_property
    def root(self) -> str:
        """The first path segment, by which the edge narrows its search."""
        return self.pattern.split("/", 2)[1].split("(")[0].split(":")[0]


@dataclass(frozen=True, slots=True)
class _Called:
    """An endpoint as it is called by one path. `line` is that of the request, up to its query."""

    endpoint: Endpoint
    path: Mapping[str, str]
    line: str


class RestEdge:
    """The ASGI application for REST. What no endpoint matches goes to `fallback`."""

    def __init__(
        self, endpoints: Iterable[Endpoint], fallback: App, memory: Memory, max_bytes: int, timeout: float
    ) -> None:
        self._memory = memory
        self._watch = Watch()
        self._by_root: dict[str, list[Endpoint]] = {}
        for endpoint in endpoints:
            self._by_root.setdefault(endpoint.root, []).append(endpoint)
        self._called: dict[tuple[str, str], _Called] = {}
        self._fallback = fallback
        self._max_bytes = max_bytes
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method: str = scope["method"]
        path: str = scope["raw_path"].decode("latin-1") if scope.get("raw_path") else scope["path"]
        called = self._called.get((method, path)) or self._find(method, path)
        if called is not None:
            return await self._serve(called, scope, receive, send)
        if allowed := self._allowed(path):
            methods = [endpoint.method for endpoint in allowed]
            body = allowed[0].render(405, f"{method} is not allowed here, {' or '.join(methods)} is.")
            allow = (b"allow", ", ".join(methods).encode())
            response = Response(body, HTTPStatus.METHOD_NOT_ALLOWED, [JSON, allow])
            return await self._respond(send, response, method == "HEAD")
        if method == "HEAD":  # a body in answer to it breaks the connection
            scope, send = {**scope, "method": "GET"}, _without_body(send)
        await self._fallback(scope, receive, send)

    def _find(self, method: str, path: str) -> "_Called | None":
        """The endpoint for a path, and what its pattern makes of it; remembered, since few paths are called often."""
        for endpoint in self._by_root.get(_root(path), ()):
            if endpoint.method != method and (endpoint.method, method) != ("GET", "HEAD"):
                continue
            if (match := endpoint.regex.fullmatch(path)) is not None:
                groups = {name: unquote(value or "") for name, value in match.groupdict().items()}
                called = _Called(endpoint, groups, f"{method} {path}?")
                if len(self._called) >= MOST_PATHS:
                    self._called.clear()
                if len(path) <= LONGEST_PATH:
                    self._called[method, path] = called
                return called
        return None

    def _allowed(self, path: str) -> list[Endpoint]:
        """The endpoints for a path by other methods. What only describes it leaves the others to the fallback."""
        endpoints = self._by_root.get(_root(path), ())
        return [each for each in endpoints if each.method != "OPTIONS" and each.regex.fullmatch(path)]

    async def _serve(self, called: "_Called", scope: Scope, receive: Receive, send: Send) -> None:
        render = called.endpoint.render
        try:
            return await self._answer(called, scope, receive, send)
        except ClientGone:
            return
        except BrokenOff:
            raise
        except PorticoError as error:
            status = http_status(error)
            response = Response(render(status, str(error)), status)
        except Exception:
            log.exception("unexpected failure in %s %s", scope["method"], scope["path"])
            response = Response(render(500, "Portico failed on this request; its log says why."), 500)
        await self._respond(send, response, scope["method"] == "HEAD")

    async def _answer(self, called: "_Called", scope: Scope, receive: Receive, send: Send) -> None:
        begun = whole = False
        method, query = scope["method"], scope["query_string"].decode("latin-1")
        deadline = monotonic() + self._timeout
        try:
            with self._watch.bounds(receive, self._timeout) as bounds:
                body = await read_body(receive, self._max_bytes)
                bounds.is_read()
                question = Question(called.line + query, body)
                if (known := self._memory.recall(question, scope["headers"])) is not None:
                    whole = True
                    return await self._say(send, _OK, known.told(), known.body, method == "HEAD")
                moment = self._memory.moment()
                request = Request(method, called.path, scope["headers"], b"", deadline, query)
                request.body = self._decoded(body, request.header(b"content-encoding").lower())
                response = self._finished(request, await called.endpoint.handler(request), question, moment)
                if response.more is not None:
                    begun = True
                    return await self._pieces(send, response, response.more, method == "HEAD")
                whole = True
                await self._say(send, response.status, response.headers, response.body, method == "HEAD")
        except TimeoutError:
            if whole:  # one that does not read is gone for us
                raise ClientGone from None
            if begun:
                log.warning("an answer broke off: it took longer than %g s (PORTICO_REQUEST_TIMEOUT)", self._timeout)
                raise BrokenOff from None
            raise DeadlineExceeded(f"No answer within {self._timeout:g} s (PORTICO_REQUEST_TIMEOUT).") from None

    def _finished(self, request: Request, response: Response, question: Question, moment: Moment) -> Response:
        """With what is to be said of the cache; without a body for a client that has the answer already."""
        answer = response.answer
        if answer is None:
            return response
        told = cache_headers(answer.cache, answer.stamp)
        if is_known(answer.stamp, request.header(IF_NONE_MATCH)):
            return Response(b"", HTTPStatus.NOT_MODIFIED, told)
        encoded = response.headers, response.body
        self._memory.remember(moment, question, request.raw_headers, request.read, answer, encoded)
        response.headers = [*response.headers, *told]
        return response

    def _decoded(self, body: bytes, encoding: str) -> bytes:
        """The body as it was before it was compressed, if it was."""
        encoding = {"identity": "", "x-gzip": "gzip"}.get(encoding, encoding)
        if encoding and not inflates(encoding):
            raise InvalidRequest(f"The body is encoded as {encoding}; send it as it is, or as gzip or deflate.")
        return inflate(body, encoding, self._max_bytes, "body") if encoding else body

    async def _pieces(
        self, send: Send, response: Response, more: AsyncGenerator[bytes], only_headers: bool = False
    ) -> None:
        """Once the first piece is out nobody can be told of a failure but by breaking off, which the server does."""
        async with aclosing(more):
            try:
                await send({"type": "http.response.start", "status": response.status, "headers": response.headers})
                if not only_headers:
                    await send({"type": "http.response.body", "body": response.body, "more_body": True})
                    async for piece in more:
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            except OSError:
                raise ClientGone from None
            except PorticoError as error:
                log.warning("an answer broke off: %s", error)
                raise BrokenOff from error
            except Exception as error:
                log.exception("unexpected failure in an answer that was begun")
                raise BrokenOff from error

    async def _respond(self, send: Send, response: Response, only_headers: bool = False) -> None:
        # One that does not read is gone for us after the time of a request.
        with suppress(ClientGone, TimeoutError):
            async with asyncio.timeout(self._timeout):
                await self._say(send, response.status, response.headers, response.body, only_headers)

    async def _say(self, send: Send, status: int, headers: Headers, body: bytes, only_headers: bool) -> None:
        if status != _NOT_MODIFIED:  # whose length would be that of the body it does not have
            headers = [*headers, (b"content-length", b"%d" % len(body))]
        try:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if only_headers else body})
        except OSError:  # ASGI's word for a client that has gone
            raise ClientGone from None


def _root(path: str) -> str:
    return path.split("/", 2)[1] if "/" in path else ""


def _without_body(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head
