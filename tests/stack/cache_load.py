"""A load of questions that nobody has asked before, each through the cache and past it, and how much longer the first
took: what waiting for Redis costs.
"""

import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import aiohttp
from cache_models import number

SECONDS = 30.0


@dataclass
class Load:
    """Calls of iris at one port. `waits` is, for each question, how many seconds longer the call took that may have
    gone to Redis, and when it began (on the clock of `time.monotonic`).
    """

    http: aiohttp.ClientSession
    waits: list[tuple[float, float]] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    async def ask(self, value: float, name: str = "", **headers: str) -> str:
        """The x-cache of a call with this measurement. Each `name` is a request that no gateway remembers."""
        tensor = {"name": "measurements", "datatype": "FP32", "shape": [1, 4], "data": [value, 2.0, 3.0, 1.0]}
        body = json.dumps({"inputs": [tensor], "id": name})
        try:
            async with self.http.post("/v2/models/iris/infer", data=body, headers=headers) as answer:
                said = await answer.read()
                if answer.status != 200:
                    self.failures.append(f"{answer.status} {said[:200]!r}")
                return answer.headers.get("x-cache", "")
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failures.append(repr(error))
            return ""

    async def compare(self) -> None:
        """Asks a new question through the cache, then past it."""
        value, began = number(), time.monotonic()
        self.seen[await self.ask(value)] += 1
        between = time.monotonic()
        await self.ask(value, **{"cache-control": "no-store"})
        ended = time.monotonic()
        self.waits.append((began, (between - began) - (ended - between)))

    async def keeps(self) -> bool:
        """Whether the cache works: what was asked once is kept."""
        value = number()
        return [await self.ask(value, name) for name in ("one", "two")] == ["MISS", "HIT"]

    async def until_it_keeps(self) -> None:
        """Returns when the cache works."""
        async with asyncio.timeout(SECONDS):
            while not await self.keeps():
                await asyncio.sleep(0.1)

    async def until_kept(self, value: float) -> None:
        """Returns when the answer for this measurement comes from Redis."""
        async with asyncio.timeout(SECONDS):
            while await self.ask(value, f"{number()}") != "HIT":
                await asyncio.sleep(0.1)

    def added(self, since: float, until: float) -> float:
        """Median of the waits of questions that were asked in between."""
        return statistics.median(wait for began, wait in self.waits if since <= began < until)


@asynccontextmanager
async def load(port: int, clients: int = 0) -> AsyncIterator[Load]:
    """So many clients that go on asking until the context is left. No call may have failed."""
    timeout, over = aiohttp.ClientTimeout(SECONDS), asyncio.Event()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=timeout) as http:
        one = Load(http)

        async def drive() -> None:
            while not over.is_set():
                await one.compare()

        tasks = [asyncio.create_task(drive()) for _ in range(clients)]
        try:
            yield one
        finally:
            over.set()
            with suppress(Exception):
                await asyncio.gather(*tasks)
        assert one.failures == []
        assert clients == 0 or len(one.waits) > clients
