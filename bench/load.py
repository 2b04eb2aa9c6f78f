"""A load generator: one request after another on each of some connections, in a process of its own, so that it shares
no event loop with what it measures. Knows HTTP/1.1 with a content-length, and Redis' GET.

`python bench/load.py` reads a `Plan` as JSON from its standard input and writes a `Result` as JSON.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field

import uvloop

PATIENCE = 30.0
"""Seconds in which any answer has to come."""
NUMBER = b"@"
"""What each request's number takes the place of."""


@dataclass(frozen=True)
class Plan:
    """`head` and `body` make an HTTP request; `body` may hold `@`, where the request's number goes, which `together`
    requests in a row have in common. Without a head, `body` is what Redis is sent. `seconds` after the last answer that
    was asked for, nothing is sent any more.
    """

    port: int
    head: str
    body: str
    connections: int
    seconds: float
    first: int = 0
    together: int = 1


@dataclass
class Result:
    """Answers per second, and latencies in ms; how many answers had which x-cache, and which status."""

    rate: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    answers: int = 0
    cache: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)


def run(plan: Plan) -> Result:
    """Puts the load on, from another process."""
    given = json.dumps(asdict(plan))
    done = subprocess.run(
        [sys.executable, __file__], input=given, capture_output=True, text=True, timeout=plan.seconds + 2 * PATIENCE
    )
    if done.returncode:
        raise SystemExit(f"the load generator failed:\n{done.stderr}")
    return Result(**json.loads(done.stdout))


class _Load:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.sent = plan.first * plan.together
        self.took: list[float] = []
        self.cache: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()

    def request(self) -> bytes:
        body = self.plan.body.encode().replace(NUMBER, str(self.sent // self.plan.together).encode())
        self.sent += 1
        if not self.plan.head:
            return body
        return self.plan.head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body

    async def drive(self, until: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.plan.port)
        read = self._http if self.plan.head else self._redis
        while time.perf_counter() < until:
            began = time.perf_counter()
            writer.write(self.request())
            async with asyncio.timeout(PATIENCE):
                await read(reader)
            self.took.append(time.perf_counter() - began)
        writer.close()

    async def _http(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(_between(head.lower(), b"content-length: ") or b"0"))
        self.statuses[head.split(b" ", 2)[1].decode()] += 1
        self.cache[_between(head, b"x-cache: ").decode() or "none"] += 1

    async def _redis(self, reader: asyncio.StreamReader) -> None:
        size = int((await reader.readuntil(b"\r\n"))[1:])
        await reader.readexactly(size + 2)


def _between(head: bytes, name: bytes) -> bytes:
    _, found, rest = head.partition(name)
    return rest.partition(b"\r\n")[0] if found else b""


async def _run(plan: Plan) -> Result:
    load = _Load(plan)
    began = time.perf_counter()
    await asyncio.gather(*(load.drive(began + plan.seconds) for _ in range(plan.connections)))
    took = sorted(load.took)
    at = [1000 * took[int(len(took) * part)] for part in (0.5, 0.99)]
    rate = len(took) / (time.perf_counter() - began)
    return Result(rate, *at, len(took), dict(load.cache), dict(load.statuses))


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(_run(Plan(**json.load(sys.stdin)))))))
