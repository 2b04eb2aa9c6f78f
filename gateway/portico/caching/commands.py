"""Commands to Redis, each of which is waited for a bounded time. Used by the response cache."""

import asyncio
from time import monotonic
from typing import Any

from redis.asyncio import RedisCluster
from redis.exceptions import TimeoutError as RedisTimeout

from portico.caching.line import MOST_LINES, MOST_WAITING, Command, Lines, tell
from portico.redis_connection import Client

MOST_AT_A_TIME = 64
"""Commands under way to a cluster; others wait for them."""
LOOKS = 10
"""Parts that a wait consists of. Each counts once, however late its end is noticed."""
LONGEST = 10
"""How many timeouts long an answer is waited for at most, if this process is that late."""


class Commands:
    """`redis` stays open; `timeout` (s) is how long an answer is waited for, and `silence` (s) how long Redis may say
    nothing until its connection is given up. Close it, so that nothing is left behind.
    """

    def __init__(self, redis: Client, timeout: float, silence: float) -> None:
        self._timeout = timeout
        self._line = _ByNode(redis) if isinstance(redis, RedisCluster) else Lines(redis.connection_pool, silence)
        self._closed = False

    async def ask(self, *command: str | bytes | int) -> Any:
        """Redis's answer. Raises a RedisError, OSError, or TimeoutError when it does not come in time."""
        if self._closed:
            raise RedisTimeout("the cache is closed")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._line.send(command, answer)
        patience = _Patience(answer, self._timeout)
        try:
            return await answer
        finally:
            patience.end()
            del answer, patience  # its error has a traceback, which has this frame, which would have it

    async def aclose(self) -> None:
        """Gives up what is under way, and takes no more."""
        self._closed = True
        await self._line.aclose()


class _ByNode:
    """The commands to a cluster, each by itself: what goes to one node does not wait for another."""

    def __init__(self, redis: RedisCluster) -> None:
        self._redis = redis
        self._under_way: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(MOST_AT_A_TIME)

    def send(self, command: Command, answer: "asyncio.Future[Any]") -> None:
        if len(self._under_way) >= MOST_WAITING * MOST_LINES:
            raise RedisTimeout(f"{len(self._under_way)} commands wait for Redis already")
        task = asyncio.create_task(self._exchange(command, answer))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def aclose(self) -> None:
        under_way = list(self._under_way)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    async def _exchange(self, command: Command, answer: "asyncio.Future[Any]") -> None:
        try:
            async with self._room:
                if not answer.done():  # by who gave up while there was no room
                    tell(answer, await self._redis.execute_command(*command))
        except Exception as error:
            tell(answer, error)
        except asyncio.CancelledError:
            answer.cancel()
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
