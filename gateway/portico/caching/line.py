"""One connection to one Redis, over which commands go as they come: all of one turn of the event loop in one write, and
their answers come back in the same order. redis-py opens it and logs in; what its pool, its pipelines and its streams
do for each command beyond that, which is most of the work, is left out. Used by the response cache's commands.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hiredis import Reader, pack_command
from redis._parsers import BaseParser  # the errors that Redis's answers stand for; there is no public name for it
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import ConnectionError as RedisGone
from redis.exceptions import InvalidResponse, ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeout

Command = tuple[Any, ...]
"""Of str, bytes and int."""
Asked = tuple[bytes, "asyncio.Future[Any]"]
"""A command as it is sent, and who waits for its answer."""

MOST_WAITING = 1024
"""Commands of one line without an answer; more are refused."""
MOST_LINES = 4
HELD_UP = 0.005
"""Seconds for which a line has given no whole answer, as when a large one is on its way, until others are taken."""
_INCOMPLETE = object()


class Lines:
    """One line as long as it moves, and others beside it while it does not. Close it, so that none is left open."""

    def __init__(self, pool: ConnectionPool, silence: float) -> None:
        self._lines = [Line(pool, silence) for _ in range(MOST_LINES)]
        self._line = self._lines[0]

    def send(self, command: Command, answer: "asyncio.Future[Any]") -> None:
        """See `Line.send`."""
        if not self._line.is_gathering:
            self._line = next((line for line in self._lines if not line.is_held_up), self._lines[0])
        self._line.send(command, answer)

    async def aclose(self) -> None:
        """Gives up what is under way."""
        for line in self._lines:
            await line.aclose()


class Line:
    """Connects when there is something to send. `pool` stays open; `silence` (s) is how long Redis may say nothing
    while an answer is waited for. Whoever gives up waiting ends nothing. Close it, so that no connection is left.
    """

    def __init__(self, pool: ConnectionPool, silence: float) -> None:
        self._pool = pool
        self._silence = silence
        self._unsent: list[Asked] = []
        self._talk: _Talk | None = None
        self._connection: AbstractConnection | None = None
        self._connecting: asyncio.Task[None] | None = None

    def send(self, command: Command, answer: "asyncio.Future[Any]") -> None:
        """`answer` gets what Redis says, or a RedisError, OSError or TimeoutError; the command may be sent twice.
        Raises RedisTimeout if too many wait already.
        """
        if len(self._unsent) + (len(self._talk.asked) if self._talk else 0) >= MOST_WAITING:
            raise RedisTimeout(f"{MOST_WAITING} commands wait for Redis already")
        packed = pack_command(command)
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append((packed, answer))

    @property
    def is_gathering(self) -> bool:
        """Whether there is something that goes out in the next write."""
        return bool(self._unsent)

    @property
    def is_held_up(self) -> bool:
        """Whether answers are waited for, and none has come for a while."""
        return self._talk is not None and self._talk.is_held_up

    async def aclose(self) -> None:
        """Gives up what is under way."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        for _, answer in (*self._unsent, *(self._talk.asked if self._talk else ())):
            answer.cancel()
        self._unsent.clear()
        await self._give_back()

    def _flush(self) -> None:
        self._unsent = [asked for asked in self._unsent if not asked[1].done()]
        if not self._unsent or self._connecting is not None:
            return
        if self._talk is None:
            self._connecting = asyncio.create_task(self._connect())
            return
        asked, self._unsent = self._unsent, []
        self._talk.say(asked)

    async def _connect(self) -> None:
        try:
            await self._give_back()
            self._connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
            named_by_sentinel = isinstance(self._pool, SentinelConnectionPool)
            self._talk = _Talk(self._connection, named_by_sentinel, self._silence, self._ended)
        except Exception as error:
            self._fail(error)
        finally:
            self._connecting = None
        self._flush()

    def _fail(self, error: Exception) -> None:
        asked, self._unsent = self._unsent, []
        for _, answer in asked:
            tell(answer, error)

    async def _give_back(self) -> None:
        connection, self._connection, self._talk = self._connection, None, None
        if connection is not None:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
            await self._pool.release(connection)

    def _ended(self, talk: "_Talk") -> None:
        """What has no answer is asked once more, unless nothing has ever been answered there."""
        if self._talk is not talk:
            return
        self._talk = None
        if not talk.has_answered:
            for _, answer in talk.asked:
                tell(answer, RedisGone("Connection closed by server."))
            return
        self._unsent = [*talk.asked, *self._unsent]
        self._flush()


class _Talk(asyncio.Protocol):
    """What is said over one connection, whose streams it takes the place of."""

    def __init__(
        self, connection: AbstractConnection, named_by_sentinel: bool, silence: float, ended: "Callable[[_Talk], None]"
    ) -> None:
        self.asked: deque[Asked] = deque()
        self.has_answered = False
        self._named_by_sentinel = named_by_sentinel
        self._silence = silence
        self._ended = ended
        self._reader = Reader(
            protocolError=InvalidResponse, replyError=BaseParser.parse_error, notEnoughData=_INCOMPLETE
        )
        self._loop = asyncio.get_running_loop()
        self._heard = self._moved = 0.0
        self._timer: asyncio.TimerHandle | None = None
        writer = connection._writer  # noqa: SLF001 - the one way to its transport
        if writer is None or writer.transport.is_closing():  # nobody would be told of its end
            raise RedisGone("Connection closed by server.")
        self._transport = writer.transport
        self._transport.set_protocol(self)

    @property
    def is_held_up(self) -> bool:
        return bool(self.asked) and self._loop.time() - self._moved > HELD_UP

    def say(self, asked: list[Asked]) -> None:
        """Sends commands."""
        if not self.asked:
            self._heard = self._moved = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._silence, self._look)
        self.asked.extend(asked)
        self._transport.writelines([packed for packed, _ in asked])

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        self._reader.feed(data)
        try:
            while (said := self._reader.gets()) is not _INCOMPLETE:
                if not self.asked:
                    raise InvalidResponse("Redis answered what nobody had asked.")
                self.has_answered = True
                self._moved = self._heard
                if self._named_by_sentinel and isinstance(said, ReadOnlyError):
                    said = RedisGone("The master has become a replica.")
                    self._transport.abort()
                tell(self.asked.popleft()[1], said)
        except InvalidResponse as error:
            self._give_up(error)

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._ended(self)

    def _look(self) -> None:
        self._timer = None
        left = self._heard + self._silence - self._loop.time()
        if self.asked and left <= 0:
            self._give_up(TimeoutError(f"Redis has said nothing for {self._silence:g} s."))
        elif self.asked:
            self._timer = self._loop.call_later(left, self._look)

    def _give_up(self, error: Exception) -> None:
        while self.asked:
            tell(self.asked.popleft()[1], error)
        self._transport.abort()
        self._ended(self)  # it may have been closed already, and then nobody is told


def tell(future: "asyncio.Future[Any]", answer: Any) -> None:
    """Unless nobody waits any more."""
    if future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
