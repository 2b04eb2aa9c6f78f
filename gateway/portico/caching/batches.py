"""Sends Redis what is asked of it together: all commands of one turn of the event loop, and those that come while
enough batches are under way, go as one, in which each costs a fifth of what it costs by itself. Used by the response
cache.
"""

import asyncio
from time import monotonic
from typing import Any

from redis.asyncio import RedisCluster
from redis.exceptions import TimeoutError as RedisTimeout

from portico.caching.connections import Asked, Connections, tell
from portico.redis_connection import Client

MOST_BATCHES = 4
"""How many are under way at a time; whatever comes meanwhile makes the next ones larger."""
MOST_IN_BATCH = 256
MOST_WAITING = 4096
"""Commands that wait for a batch; more are refused."""
LOOKS = 10
"""Parts that a wait consists of. Each counts once, however late its end is noticed."""
LONGEST = 10
"""How many timeouts long an answer is waited for at most, if this process is that late."""


class Batches:
    """`redis` stays open; `timeout` (s) is how long an answer is waited for, and `silence` (s) how long Redis may say
    nothing until its connection is given up. Close it, so that no batch is left behind.

    Whoever gives up waiting ends nothing: a connection is never left in the middle of an answer.
    """

    def __init__(self, redis: Client, timeout: float, silence: float) -> None:
        self._redis = redis
        self._timeout = timeout
        self._connections: Connections | None = None
        if isinstance(redis, RedisCluster):
            # The keys of a batch would lie on many nodes, and the slowest would hold up the others.
            self._size, self._most = 1, MOST_BATCHES * 16
        else:
            self._size, self._most = MOST_IN_BATCH, MOST_BATCHES
            self._connections = Connections(redis.connection_pool, silence)
        self._closed = False
        self._waiting: list[Asked] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def ask(self, *command: Any) -> Any:
        """Redis's answer. Raises a RedisError, OSError, or TimeoutError when it does not come in time."""
        if self._closed or len(self._waiting) >= MOST_WAITING:
            raise RedisTimeout(f"{MOST_WAITING} commands wait for Redis already")
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._send)
        self._waiting.append((command, answer))
        patience = _Patience(answer, self._timeout)
        try:
            return await answer
        finally:
            patience.end()
            del answer, patience  # its error has a traceback, which has this frame, which would have it

    async def aclose(self) -> None:
        """Gives up what is under way, and takes no more."""
        self._closed = True
        for _, future in self._waiting:
            future.cancel()
        self._waiting.clear()
        batches = list(self._under_way)
        for batch in batches:
            batch.cancel()
        await asyncio.gather(*batches, return_exceptions=True)
        if self._connections is not None:
            await self._connections.aclose()

    def _send(self) -> None:
        while self._waiting and len(self._under_way) < self._most:
            batch, self._waiting = self._waiting[: self._size], self._waiting[self._size :]
            if batch := [each for each in batch if not each[1].done()]:
                task = asyncio.create_task(self._exchange(batch))
                self._under_way.add(task)
                task.add_done_callback(self._sent)

    def _sent(self, task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        self._send()

    async def _exchange(self, batch: list[Asked]) -> None:
        try:
            if self._connections is None:
                ((command, future),) = batch
                tell(future, await self._redis.execute_command(*command))
            else:
                await self._connections.exchange(batch)
        except Exception as error:
            for _, future in batch:
                tell(future, error)
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise


class _Patience:
    """Ends a wait with TimeoutError. The time for which this process was too busy to look whether the answer had come,
    as when a crowd arrives, is not counted: many short timers tell it, each of which then fires late.
    """

    def __init__(self, answer: "asyncio.Future[Any]", timeout: float) -> None:
        self._answer = answer
        self._part = timeout / LOOKS
        self._left = LOOKS
        self._latest = monotonic() + LONGEST * timeout
        self._begin()

    def end(self) -> None:
        self._timer.cancel()

    def _begin(self) -> None:
        self._timer = self._answer.get_loop().call_later(self._part, self._look)

    def _look(self) -> None:
        self._left -= 1
        if self._left and monotonic() < self._latest:
            self._begin()
        elif not self._answer.done():
            self._answer.set_exception(TimeoutError())
