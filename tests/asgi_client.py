"""A client that calls an ASGI application in-process, as a server would: for REST, and for gRPC to the letter of its
frames and trailers. It reads answers by itself, with none of the code under test.
"""

import asyncio
import base64
import json
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from portico.edges.asgi import App

Headers = Sequence[tuple[bytes, bytes]]
Event = MutableMapping[str, Any]


@dataclass
class Answer:
    """What came back, `events` in the order they were sent. Each property fails if it was not sent."""

    events: list[Event] = field(default_factory=list)

    @property
    def status(self) -> int:
        code: int = self._start["status"]
        return code

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return list(self._start["headers"])

    @property
    def trailers(self) -> list[tuple[bytes, bytes]]:
        """gRPC's status and trailing metadata; a Trailers-Only answer has them in its headers."""
        found = [event for event in self.events if event["type"] == "http.response.trailers"]
        assert len(found) == (1 if self._start.get("trailers") else 0)
        return list(found[0]["headers"]) if found else self.headers

    @property
    def body(self) -> bytes:
        chunks = [event for event in self.events if event["type"] == "http.response.body"]
        assert [bool(chunk.get("more_body")) for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
        return b"".join(chunk.get("body", b"") for chunk in chunks)

    @property
    def _start(self) -> Event:
        assert self.events, "the application sent nothing"
        assert self.events[0]["type"] == "http.response.start"
        return self.events[0]

    def header(self, name: bytes) -> str:
        """The one header of this name, empty if there is none."""
        (value,) = [value for key, value in self.headers if key == name] or [b""]
        return value.decode("latin-1")

    def json(self) -> Any:
        """The body, which has to be declared as JSON and be it to its last byte."""
        assert self.header(b"content-type") == "application/json"
        assert self.header(b"content-length") == str(len(self.body))
        return json.loads(self.body)

    def trailer(self, name: bytes) -> str:
        """The one trailer of this name, empty if there is none."""
        (value,) = [value for key, value in self.trailers if key == name] or [b""]
        return value.decode("latin-1")

    @property
    def grpc_status(self) -> tuple[int, str]:
        """(code, message as a gRPC client shows it)."""
        assert (self.status, self.header(b"content-type")) == (200, "application/grpc")
        return int(self.trailer(b"grpc-status")), unquote(self.trailer(b"grpc-message"), errors="strict")

    @property
    def messages(self) -> list[bytes]:
        """The messages of an answer that ended with OK."""
        assert self.grpc_status == (0, "")
        messages, rest = [], self.body
        while rest:
            size = int.from_bytes(rest[1:5], "big")
            assert rest[0] == 0
            assert len(rest) >= 5 + size
            messages.append(rest[5 : 5 + size])
            rest = rest[5 + size :]
        return messages


class Exchange:
    """One request and its answer.

    `eager` chooses what `receive` does once the body is read: wait until the client has gone, as ASGI says, or (True)
    give an empty `http.request` at once, as pyvoy does. `leave` makes the client go.
    """

    def __init__(self, method: str, path: str, body: bytes | Iterable[bytes], headers: Headers, eager: bool) -> None:
        chunks = [body] if isinstance(body, bytes) else list(body)
        self._chunks = [(chunk, index < len(chunks)) for index, chunk in enumerate(chunks, 1)]
        self._eager = eager
        self._gone = asyncio.Event()
        self.answer = Answer()
        path, _, query = path.partition("?")
        self.scope: Event = {
            "type": "http",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode("ascii"),
            "query_string": query.encode("ascii"),
            "headers": list(headers),
        }

    def leave(self) -> None:
        """The client closes the stream."""
        self._gone.set()

    async def run(self, app: App) -> Answer:
        """Lets the application answer, for half a minute at most."""
        async with asyncio.timeout(30):
            await app(self.scope, self.receive, self.send)
        return self.answer

    async def receive(self) -> Event:
        if self._chunks:
            chunk, more = self._chunks.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": more}
        if self._eager and not self._gone.is_set():
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: Event) -> None:
        if self._gone.is_set():
            raise OSError("the client has gone")
        self.answer.events.append(event)


async def call(
    app: App, method: str, path: str, body: Any = b"", headers: Headers = (), *, eager: bool = False
) -> Answer:
    """One REST call. `body` is bytes, chunks of them, or anything else to be sent as JSON."""
    raw = body if isinstance(body, bytes) or _is_chunks(body) else json.dumps(body).encode()
    return await Exchange(method, path, raw, headers, eager).run(app)


def _is_chunks(body: Any) -> bool:
    return isinstance(body, list) and bool(body) and all(isinstance(chunk, bytes) for chunk in body)


def grpc_exchange(
    method: str, message: bytes | Iterable[bytes], metadata: Headers = (), *, eager: bool = False
) -> Exchange:
    """A gRPC call of "/package.Service/Method" with one message or several, ready to run."""
    headers = [(b"content-type", b"application/grpc"), (b"te", b"trailers"), *metadata]
    messages = [message] if isinstance(message, bytes) else message
    return Exchange("POST", method, [b"\0" + len(one).to_bytes(4, "big") + one for one in messages], headers, eager)


async def grpc_call(app: App, method: str, message: bytes, metadata: Headers = ()) -> Answer:
    """One unary gRPC call."""
    return await grpc_exchange(method, message, metadata).run(app)


def decode_bin(value: bytes) -> bytes:
    """The bytes of a `-bin` header."""
    return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
