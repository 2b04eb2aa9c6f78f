"""A load generator of our own, in a process of its own: for machines without wrk and h2load, and for what these cannot
do, such as gRPC requests each of which is another. Knows HTTP/1.1 with a content-length, HTTP/2 without TLS, and
Redis' GET.

`python bench/load.py` reads a `Plan` as JSON from its standard input and writes what came of it as JSON.
"""

import asyncio
import json
import struct
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import uvloop
from load_http2 import Http2

PATIENCE = 30.0
"""Seconds in which any answer has to come, once no more requests are sent."""


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
