"""How route tables get from the controller to the gateways: a Redis stream that holds the newest one. Reading it from
its beginning gives the table in force, reading on gives the next: one mechanism for both.

The stream has no expiry. Redis may lose it all the same; the controller notices and publishes again, and the gateways
keep what they have.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from redis.exceptions import RedisError

from portico.background import running
from portico.codecs.snapshot import Snapshots, UnreadableSnapshot
from portico.redis_connection import Client, cancelled
from portico.routing import RouteTable

STREAM = "portico:routes"
BLOCK = 1.0
"""Seconds that one read waits for what is next."""
FIRST_BACKOFF, LAST_BACKOFF = 0.1, 2.0
"""Seconds between two attempts to reach Redis."""

_FIELD = b"table"
_START = "0"

_log = logging.getLogger(__name__)


class BackplaneUnavailable(Exception):
    """Redis cannot be reached."""


class Backplane:
    """Both ends of the stream."""

    def __init__(self, redis: Client) -> None:
        # redis-py types an answer as everything that any protocol and decoding may give.
        self._redis: Any = redis
        self._snapshots = Snapshots()

    async def publish(self, table: RouteTable) -> str:
        """Puts `table` in force for all gateways; returns its id in the stream. Raises BackplaneUnavailable."""
        try:
            added = await self._redis.xadd(STREAM, {_FIELD: self._snapshots.dump(table)}, maxlen=1, approximate=False)
        except (RedisError, OSError) as error:
            raise BackplaneUnavailable(f"Redis does not take the route table: {error}") from error
        return str(added.decode())

    async def newest(self, seen: str = "") -> tuple[str, RouteTable | None]:
        """The id in the stream and the table last published; ("", None) if there is none.

        The table is None also where its id is `seen`, or its format that of another release. Raises
        BackplaneUnavailable.
        """
        try:
            entries = await self._redis.xrevrange(STREAM, count=1)
        except (RedisError, OSError) as error:
            raise BackplaneUnavailable(f"Redis cannot be reached: {error}") from error
        for entry, fields in entries:
            found = str(entry.decode())
            return found, None if found == seen else self._table(fields)
        return "", None

    @asynccontextmanager
    async def following(self, on_table: Callable[[RouteTable], None]) -> AsyncIterator[None]:
        """Runs `follow` for as long as the context is open."""
        async with running(self.follow(on_table), "follow routes"):
            yield

    async def follow(self, on_table: Callable[[RouteTable], None]) -> None:
        """Calls `on_table` with the table in force and with each that follows, until cancelled.

        It never gives up: while Redis is gone it tries again, and begins from the start of the stream then.
        """
        after, newest, backoff = _START, "", FIRST_BACKOFF
        while not cancelled():
            try:
                streams = await self._redis.xread({STREAM: after}, count=1, block=int(BLOCK * 1000))
            except Exception as error:  # whatever it is, the routes must not stop following
                if backoff == FIRST_BACKOFF:
                    _log.warning("routes stay as they are, Redis cannot be reached: %s", error)
                await asyncio.sleep(backoff)
                after, backoff = _START, min(backoff * 2, LAST_BACKOFF)
                continue
            if backoff != FIRST_BACKOFF:
                _log.info("Redis is back")
                backoff = FIRST_BACKOFF
            for entry, fields in (found for _, entries in streams for found in entries):
                after = entry.decode()
                if after == newest:
                    continue  # Redis was only away
                newest = after
                table = self._table(fields)
                if table is not None:
                    on_table(table)

    def _table(self, fields: dict[bytes, bytes]) -> RouteTable | None:
        try:
            return self._snapshots.load(fields.get(_FIELD, b""))
        except UnreadableSnapshot as error:
            _log.error("%s", error)
            return None
