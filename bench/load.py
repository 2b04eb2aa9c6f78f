"""A load generator of our own, in a process of its own: for machines without wrk and h2load, and for what these cannot
do, gRPC requests each of which is another. Knows HTTP/1.1 with a content-length, HTTP/2 without TLS, and Redis' GET.

`python bench/load.py` reads a `Plan` as JSON from its standard input and writes what came of it as JSON.
"""

import asyncio
import json
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import uvloop

PATIENCE = 30.0
"""Seconds in which any answer has to come, once no more requests are sent."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
WINDOW = 1 << 30


@dataclass(frozen=True)
class Plan:
    """`http` is 1, 2, or 0 for Redis' protocol. `body` is a file; with a `mark` (offset, length, form) the request's
    number goes there, which `together` requests in a row have in common. Each answer's body has `size` bytes.
    """

    port: int
    http: int
    path: str
    headers: tuple[tuple[str, str], ...]
    body: str
    size: int
    in_flight: int
    connections: int
    seconds: float
    mark: tuple[int, int, str] | None
    first: int
    together: int

    def to_json(self) -> str:
        """For the process that does it."""
        return json.dumps(asdict(self))


class Load:
    """What all connections have in common: the next request, and what came of those before."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.until = time.perf_counter() + plan.seconds
        self.under_way = 0
        self.took: list[float] = []
        self.failures: list[str] = []
        self.over = asyncio.Event()
        self._sent = 0
        self._body = Path(plan.body).read_bytes()

    def body(self) -> bytes | None:
        """The next request's, None when there is to be none any more."""
        if time.perf_counter() >= self.until or self.failures:
            if not self.under_way:
                self.over.set()
            return None
        number = self.plan.first + self._sent // self.plan.together
        self._sent += 1
        self.under_way += 1
        if self.plan.mark is None:
            return self._body
        offset, length, form = self.plan.mark
        written = str(number).encode() if form == "text" else struct.pack("<f", number)
        return self._body[:offset] + written + self._body[offset + length :]

    def answered(self, began: float, failure: str = "") -> None:
        """An answer has come whole, or something else."""
        self.under_way -= 1
        if failure:
            self.failures.append(failure)
        else:
            self.took.append(time.perf_counter() - began)

    def lost(self) -> None:
        """A connection was closed."""
        if self.under_way:
            self.failures.append("the connection was closed")
            self.over.set()


class Http1(asyncio.Protocol):
    """One request after another. Redis' protocol is so much alike that it is done here, too."""

    def __init__(self, load: Load) -> None:
        plan = load.plan
        self._load = load
        self._gathered = bytearray()
        self._began = 0.0
        lines = "".join(f"{name}: {value}\r\n" for name, value in plan.headers)
        self._head = f"POST {plan.path} HTTP/1.1\r\nhost: bench\r\n{lines}content-length: ".encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        self._load.lost()

    def _send(self) -> None:
        body = self._load.body()
        if body is not None:
            self._began = time.perf_counter()
            self._transport.write(self._head + b"%d\r\n\r\n" % len(body) + body if self._load.plan.http else body)

    def data_received(self, data: bytes) -> None:
        self._gathered += data
        head, found, _ = bytes(self._gathered[:8192]).partition(b"\r\n\r\n" if self._load.plan.http else b"\r\n")
        if not found:
            return
        length = (
            int(_between(head.lower(), b"\r\ncontent-length: ") or 0) if self._load.plan.http else int(head[1:]) + 2
        )
        whole = len(head) + len(found) + length
        if len(self._gathered) < whole:
            return
        wrong = self._load.plan.http and (head.split(b" ", 2)[1] != b"200" or length != self._load.plan.size)
        self._load.answered(self._began, head.decode("latin-1")[:300] if wrong else "")
        del self._gathered[:whole]
        self._send()


class Http2(asyncio.Protocol):
    """So many requests at a time over one connection (RFC 9113). Of the answers only the length counts: what is wrong
    with a gRPC call is in its trailers, and then there is no message. Headers go out uncompressed (RFC 7541, 6.2.2).
    """

    def __init__(self, load: Load, streams: int) -> None:
        plan = load.plan
        self._load = load
        self._streams = streams
        self._next = 1
        self._began: dict[int, float] = {}
        self._got: dict[int, int] = {}
        self._gathered = bytearray()
        self._unsent: dict[int, bytes] = {}
        self._windows = {0: 65535}
        self._first_window = 65535
        own = [(":method", "POST"), (":scheme", "http"), (":path", plan.path), (":authority", "bench")]
        self._headers = b"".join(_literal(name, value) for name, value in (*own, *plan.headers))
        self._on: dict[int, Callable[[int, int, bytes], None]] = {
            DATA: self._data,
            HEADERS: self._ended,
            RST_STREAM: self._broken,
            SETTINGS: self._settings,
            PING: self._ping,
            GOAWAY: self._broken,
            WINDOW_UPDATE: self._window,
        }

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        settings = struct.pack(">HIHI", 4, WINDOW, 1, 0)  # no table of headers: they are not read
        opening = _frame(SETTINGS, 0, 0, settings) + _frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW))
        self._transport.write(PREFACE + opening)
        self._received = 0

    def connection_lost(self, error: Exception | None) -> None:
        self._load.lost()

    def data_received(self, data: bytes) -> None:
        self._gathered += data
        at, gathered = 0, self._gathered
        while len(gathered) - at >= 9:
            length = int.from_bytes(gathered[at : at + 3], "big")
            if len(gathered) - at < 9 + length:
                break
            kind, flags, stream = gathered[at + 3], gathered[at + 4], int.from_bytes(gathered[at + 5 : at + 9], "big")
            if kind in self._on:
                self._on[kind](flags, stream, bytes(gathered[at + 9 : at + 9 + length]))
            at += 9 + length
        del gathered[:at]

    def _send(self) -> None:
        body = self._load.body()
        if body is None:
            return
        stream, self._next = self._next, self._next + 2
        self._began[stream], self._got[stream] = time.perf_counter(), 0
        self._windows[stream] = self._first_window
        self._unsent[stream] = body
        self._flush(stream, _frame(HEADERS, END_HEADERS, stream, self._headers))

    def _flush(self, stream: int, before: bytes = b"") -> None:
        """As much of the body as the windows let through, in frames of 16 KiB."""
        body, out = self._unsent.get(stream, b""), [before]
        at = 0
        while at < len(body) and (room := min(self._windows[0], self._windows[stream], 16384, len(body) - at)) > 0:
            self._windows[0] -= room
            self._windows[stream] -= room
            out.append(_frame(DATA, END_STREAM if at + room == len(body) else 0, stream, body[at : at + room]))
            at += room
        if at == len(body):
            self._unsent.pop(stream, None)
        else:
            self._unsent[stream] = body[at:]
        self._transport.write(b"".join(out))

    def _data(self, flags: int, stream: int, payload: bytes) -> None:
        self._got[stream] += len(payload)
        self._received += len(payload)
        if self._received > WINDOW // 2:
            self._transport.write(_frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received)))
            self._received = 0
        self._ended(flags, stream, b"")

    def _ended(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & END_STREAM:
            got = self._got.pop(stream)
            self._windows.pop(stream)
            wrong = got != self._load.plan.size
            self._load.answered(
                self._began.pop(stream), f"{got} bytes in the answer; {payload[:200]!r}" if wrong else ""
            )
            self._send()

    def _broken(self, flags: int, stream: int, payload: bytes) -> None:
        self._load.answered(0.0, f"stream {stream} was broken off: {payload[:200]!r}")
        self._load.over.set()

    def _settings(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & ACK:
            return
        for at in range(0, len(payload), 6):
            name, value = struct.unpack_from(">HI", payload, at)
            if name == 4:
                self._first_window = value
        self._transport.write(_frame(SETTINGS, ACK, 0, b""))
        if self._next == 1:
            for _ in range(self._streams):
                self._send()

    def _ping(self, flags: int, stream: int, payload: bytes) -> None:
        if not flags & ACK:
            self._transport.write(_frame(PING, ACK, 0, payload))

    def _window(self, flags: int, stream: int, payload: bytes) -> None:
        if stream in self._windows:
            self._windows[stream] += int.from_bytes(payload, "big")
        for waiting in list(self._unsent) if stream == 0 else [stream] * (stream in self._unsent):
            self._flush(waiting)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def _literal(name: str, value: str) -> bytes:
    return b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))


def _between(head: bytes, name: bytes) -> bytes:
    _, found, rest = head.partition(name)
    return rest.partition(b"\r\n")[0] if found else b""


async def _run(plan: Plan) -> dict[str, object]:
    load = Load(plan)
    loop = asyncio.get_running_loop()
    streams = plan.in_flight // plan.connections
    began = time.perf_counter()
    for _ in range(plan.connections):
        await loop.create_connection(
            lambda: Http2(load, streams) if plan.http == 2 else Http1(load), "127.0.0.1", plan.port
        )
    async with asyncio.timeout(plan.seconds + PATIENCE):
        await load.over.wait()
    took, seconds = sorted(load.took) or [0.0], time.perf_counter() - began
    at = {f"p{part}": 1000 * took[int(len(took) * part / 100)] for part in (50, 99)}
    count = len(load.took)
    failures = {"failed": len(load.failures), "first": load.failures[:1]}
    return {"rate": count / seconds, "answers": count, "seconds": seconds, **at, **failures}


if __name__ == "__main__":
    given = json.load(sys.stdin)
    given["headers"] = tuple(map(tuple, given["headers"]))
    print(json.dumps(uvloop.run(_run(Plan(**given)))))
