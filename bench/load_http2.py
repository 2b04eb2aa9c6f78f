"""HTTP/2 without TLS for our own load generator, as much of it as one kind of request takes. Used by `load.py`."""

import asyncio
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from load import Load

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
WINDOW = 1 << 30


class Http2(asyncio.Protocol):
    """So many requests at a time over one connection (RFC 9113). Of the answers only the length counts: what is wrong
    with a gRPC call is in its trailers, and then there is no message. Headers go out uncompressed (RFC 7541, 6.2.2).
    """

    def __init__(self, load: "Load", streams: int) -> None:
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
