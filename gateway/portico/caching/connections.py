"""Connections to one Redis that are kept between two exchanges: redis-py opens them and logs in, and what its pool and
its pipelines do for each command beyond that, which is most of the work, is left out. Used by the batches.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import ConnectionError as RedisGone
from redis.exceptions import ResponseError

Asked = tuple[tuple[Any, ...], "asyncio.Future[Any]"]
"""A command, and who waits for its answer."""


class Connections:
    """As many as exchanges are under way at a time. `pool` stays open; `silence` (s) is how long each answer may take.
    Close it when no exchange is under way.
    """

    def __init__(self, pool: ConnectionPool, silence: float) -> None:
        self._pool = pool
        self._silence = silence
        self._idle: list[AbstractConnection] = []

    async def exchange(self, batch: Sequence[Asked]) -> None:
        """Tells each answer as it comes; what Redis refuses is an exception. Commands may be sent twice. Raises a
        RedisError, OSError or TimeoutError, with some of the answers told.
        """
        while self._idle:
            with suppress(RedisGone):  # closed since it was used, as by a Redis that has been started again
                return await self._over(self._idle.pop(), [asked for asked in batch if not asked[1].done()])
        connection: AbstractConnection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        connection.socket_timeout = None  # it would be counted by a task for each command
        await self._over(connection, [asked for asked in batch if not asked[1].done()])

    async def aclose(self) -> None:
        """Closes those that are idle."""
        while self._idle:
            await self._give_back(self._idle.pop())

    async def _over(self, connection: AbstractConnection, batch: list[Asked]) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._silence) as limit:
                await connection.send_packed_command([pack_command(command) for command, _ in batch])
                for _, future in batch:
                    limit.reschedule(loop.time() + self._silence)
                    tell(future, await _answer(connection))
        except BaseException:  # in the middle of an answer, perhaps
            await self._give_back(connection)
            raise
        self._idle.append(connection)

    async def _give_back(self, connection: AbstractConnection) -> None:
        connection.socket_timeout = self._silence
        await connection.disconnect(nowait=True)
        await self._pool.release(connection)


def tell(future: "asyncio.Future[Any]", answer: Any) -> None:
    """Unless nobody waits any more."""
    if future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


async def _answer(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as refused:
        return refused
