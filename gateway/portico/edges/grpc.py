"""gRPC as an ASGI application: unary and streaming calls, deadlines, cancellation, status in trailers.

Handlers get and give serialized messages; which methods there are is in `protocols/`. Source:
grpc/doc/PROTOCOL-HTTP2.md and grpc/doc/statuscodes.md.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from math import inf
from time import monotonic

from portico.dispatch import Answer
from portico.edges.asgi import ClientGone, Headers, Message, Receive, Scope, Send, read_body
from portico.edges.bounds import Bounds, Watch
from portico.edges.cache_headers import cache_headers
from portico.edges.framing import (
    ACCEPTED_ENCODINGS,
    PREFIX,
    encode_metadata,
    frame,
    parse_timeout,
    status_message,
    supports,
    unframe,
)
from portico.edges.incoming import Incoming
from portico.edges.memory import MAX_ENTRY, Memory, Question
from portico.edges.status import GrpcCode, grpc_code
from portico.errors import DeadlineExceeded, MethodNotFound, PorticoError

log = logging.getLogger(__name__)

Metadata = list[tuple[str, str | bytes]]

_HEADERS: Headers = [(b"content-type", b"application/grpc"), (b"grpc-accept-encoding", ACCEPTED_ENCODINGS)]
_OK: Headers = [(b"grpc-status", b"0")]


@dataclass(slots=True)
class Call:
    """One RPC, as its handler sees it.

    `deadline` is on the clock of `time.monotonic`. What the handler appends to `initial` before its first message goes
    out as initial metadata, what it appends to `trailing` as trailing metadata. `answer` is the model's, where one was
    called: the edge tells the client what the cache had to do with it. `read` are the headers that somebody asked for.
    """

    method: str
    headers: Headers
    deadline: float
    initial: Metadata = field(default_factory=list)
    trailing: Metadata = field(default_factory=list)
    answer: Answer | None = None
    read: set[bytes] = field(default_factory=set)

    def header(self, name: bytes) -> str:
        """The value under this lower-case key, several joined by commas, empty if there is none."""
        self.read.add(name)
        return b", ".join([value for key, value in self.headers if key == name]).decode("latin-1")


UnaryHandler = Callable[[bytes, Call], Awaitable[bytes | tuple[bytes, ...]]]
"""A message → the answer, or the parts of it, which the edge puts together."""
StreamHandler = Callable[[bytes, Call], AsyncGenerator[bytes]]
BothHandler = Callable[[AsyncIterator[bytes], Call], AsyncGenerator[bytes]]


class Abort(Exception):
    """Ends a call with a code of the handler's choice, where the protocol prescribes one that no PorticoError has."""

    def __init__(self, code: GrpcCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Method:
    """`path` is "/package.Service/Method". Exactly one of the handlers is set: one message each way, one message and a
    stream of answers, or streams both ways.

    A `lasting` call takes as long as the client wants: only the client's deadline ends it, and its handler bounds what
    it does for each message.
    """

    path: str
    unary: UnaryHandler | None = None
    stream: StreamHandler | None = None
    both: BothHandler | None = None
    lasting: bool = False

    @property
    def service(self) -> str:
        """The full name of its service."""
        return self.path.split("/")[1]


class GrpcEdge:
    """The ASGI application for gRPC. `max_bytes` limits a message, `timeout` (s) each call."""

    def __init__(self, methods: Iterable[Method], memory: Memory, max_bytes: int, timeout: float) -> None:
        self._memory = memory
        self._watch = Watch()
        self._methods = {method.path: method for method in methods}
        self._max_bytes = max_bytes
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope["path"], scope["headers"], 0.0)
        reply = _Reply(send, call)
        try:
            await self._serve(call, receive, reply)
            return
        except ClientGone:
            return
        except Abort as abort:
            failure = abort.code, str(abort)
        except PorticoError as error:
            failure = grpc_code(error), str(error)
        except Exception:
            log.exception("unexpected failure in %s", call.method)
            failure = GrpcCode.INTERNAL, "Portico failed on this call; its log says why."
        with suppress(ClientGone, TimeoutError):
            async with asyncio.timeout(self._timeout):
                await reply.fail(*failure)

    async def _serve(self, call: Call, receive: Receive, reply: "_Reply") -> None:
        method = self._methods.get(call.method)
        if method is None:
            raise MethodNotFound(f"Method not found: there is no {call.method} here.")
        encoding, timeout = b"", inf if method.lasting else self._timeout
        for key, value in call.headers:
            if key == b"grpc-timeout":
                timeout = min(timeout, parse_timeout(value))
            elif key == b"grpc-encoding":
                encoding = value
        call.deadline = monotonic() + timeout
        if not supports(encoding):
            raise Abort(GrpcCode.UNIMPLEMENTED, f"Messages compressed with {encoding.decode('latin-1')} are not read.")
        try:
            if method.both is not None:
                async with asyncio.timeout(None if timeout == inf else timeout):
                    return await _converse(method.both, Incoming(receive, encoding, self._max_bytes), call, reply)
            with self._watch.bounds(receive, timeout) as bounds:
                if method.unary is not None:
                    await self._answer(method.unary, receive, bounds, encoding, call, reply)
                elif method.stream is not None:
                    body = await read_body(receive, self._max_bytes, PREFIX)
                    bounds.is_read()
                    async with aclosing(method.stream(unframe(body, encoding, self._max_bytes), call)) as messages:
                        await reply.stream(messages)
        except TimeoutError:
            raise DeadlineExceeded(f"No answer by the deadline of {timeout:g} s.") from None

    async def _answer(
        self, unary: UnaryHandler, receive: Receive, bounds: Bounds, encoding: bytes, call: Call, reply: "_Reply"
    ) -> None:
        body = await read_body(receive, self._max_bytes, PREFIX)
        bounds.is_read()
        question = Question(call.method, body)
        if (known := self._memory.recall(question, call.headers)) is not None:
            return await reply.whole(known.told(), known.body)
        moment = self._memory.moment()
        message = unframe(body, encoding, self._max_bytes)
        # What is larger cannot be remembered, and would only take memory while the model is at work.
        small = question if len(body) <= MAX_ENTRY else None
        del body, question
        answered = await unary(message, call)
        framed = frame(*answered) if isinstance(answered, tuple) else frame(answered)
        del answered, message
        if call.answer is not None and small is not None:
            read = (*call.read, b"grpc-encoding")
            self._memory.remember(moment, small, call.headers, read, call.answer, (_HEADERS, framed))
        await reply.framed(framed)


async def _converse(both: BothHandler, incoming: Incoming, call: Call, reply: "_Reply") -> None:
    with incoming.read():
        async with aclosing(incoming.messages()) as messages, aclosing(both(messages, call)) as answers:
            await reply.stream(answers)


class _Reply:
    """The answering half of one call: it knows whether headers are out, and so how a status has to be sent."""

    def __init__(self, send: Send, call: Call) -> None:
        self._send = send
        self._call = call
        self._started = False
        self._ended = False

    async def _start(self, extra: Headers, trailers: bool) -> None:
        self._started = True
        initial = encode_metadata(self._call.initial) if self._call.initial else []
        answer = self._call.answer
        told = cache_headers(answer.cache, answer.stamp) if answer is not None else []
        headers = [*_HEADERS, *told, *initial, *extra]
        await self._emit({"type": "http.response.start", "status": 200, "headers": headers, "trailers": trailers})

    async def _body(self, body: bytes, more: bool) -> None:
        self._ended = not more
        await self._emit({"type": "http.response.body", "body": body, "more_body": more})

    async def _emit(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:  # ASGI's word for a client that has gone
            raise ClientGone from None

    async def _finish(self, status: Headers) -> None:
        trailing = encode_metadata(self._call.trailing) if self._call.trailing else []
        await self._emit({"type": "http.response.trailers", "headers": [*status, *trailing], "more_trailers": False})

    async def whole(self, headers: Headers, message: bytes) -> None:
        """All of an answer that is known beforehand: its headers, and its message in its frame."""
        self._started = self._ended = True
        send = self._send
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
            await send({"type": "http.response.body", "body": message, "more_body": False})
            await send({"type": "http.response.trailers", "headers": _OK, "more_trailers": False})
        except OSError:  # ASGI's word for a client that has gone
            raise ClientGone from None

    async def framed(self, message: bytes) -> None:
        """The one message of an answer, in its frame."""
        await self._start([], trailers=True)
        await self._body(message, more=False)
        await self._finish(_OK)

    async def stream(self, messages: AsyncIterator[bytes]) -> None:
        async for message in messages:
            if not self._started:
                await self._start([], trailers=True)
            await self._body(frame(message), more=True)
        if not self._started:
            await self._start([], trailers=True)
        await self._body(b"", more=False)
        await self._finish(_OK)

    async def fail(self, code: GrpcCode, text: str) -> None:
        status: Headers = [(b"grpc-status", str(int(code)).encode()), (b"grpc-message", status_message(text))]
        if self._started:
            if not self._ended:
                await self._body(b"", more=False)
            await self._finish(status)
            return
        # Trailers-Only: status and trailing metadata in the one block of headers there is.
        await self._start([*status, *encode_metadata(self._call.trailing)], trailers=False)
        await self._body(b"", more=False)
