"""What gateways tell the controller: which route table each has put in force, and which servables its calls under way
still use. So a servable is unloaded when the last call has ended, and neither sooner nor much later.

One hash in Redis holds a field for each gateway. A field changes at least every `BEAT` seconds; the reader judges by
that whether a gateway is alive, and not by anybody's clock.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from redis.exceptions import RedisError

from portico.background import running
from portico.backplane import BackplaneUnavailable
from portico.redis_connection import TIMEOUT, Client, cancelled
from portico.routing import LiveRoutes

HASH = "portico:gateways"
LOOK = 0.2
"""Seconds between two looks of a gateway at itself; it writes only what has changed."""
BEAT = 2.0
"""Seconds after which it writes although nothing has changed."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """One gateway: the revision of its table, servables that it uses although no route leads to them, a counter."""

    revision: int
    using: frozenset[str]
    beat: int = 0


GOODBYE = Acknowledgement(-1, frozenset(), -1)
"""What a gateway says at its end; one that merely vanished may have been lost by Redis."""

_FIELD = TypeAdapter(Acknowledgement)


class Acknowledgements:
    """Both ends of the hash."""

    def __init__(self, redis: Client) -> None:
        # redis-py types an answer as everything that any protocol and decoding may give.
        self._redis: Any = redis

    @asynccontextmanager
    async def telling(self, routes: LiveRoutes) -> AsyncIterator[None]:
        """Tells of this gateway for as long as the context is open."""
        name = uuid.uuid4().hex
        try:
            async with running(self._tell(name, routes), "tell the controller"):
                yield
        finally:
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(TIMEOUT):
                    await self._redis.hset(HASH, name, _FIELD.dump_json(GOODBYE))

    async def _tell(self, name: str, routes: LiveRoutes) -> None:
        told, beat, looks = None, 0, 0
        while not cancelled():
            now = (routes.table.revision, routes.leftover()) if routes.received else None
            looks += 1
            if now and (now != told or looks * LOOK >= BEAT):
                beat, looks = beat + 1, 0
                try:
                    await self._redis.hset(HASH, name, _FIELD.dump_json(Acknowledgement(*now, beat)))
                    told = now
                except Exception as error:  # whatever it is, telling must go on
                    _log.debug("the controller is not told: %s", error)
            await asyncio.sleep(LOOK)

    async def all(self) -> Mapping[str, Acknowledgement]:
        """What each gateway last told, by its name. Raises BackplaneUnavailable."""
        try:
            fields = await self._redis.hgetall(HASH)
        except (RedisError, OSError) as error:
            raise BackplaneUnavailable(f"Redis cannot be reached: {error}") from error
        return {name.decode(): _read(value) for name, value in fields.items()}

    async def forget(self, name: str) -> None:
        """Drops a gateway that is gone. Raises BackplaneUnavailable."""
        try:
            await self._redis.hdel(HASH, name)
        except (RedisError, OSError) as error:
            raise BackplaneUnavailable(f"Redis cannot be reached: {error}") from error


def _read(value: bytes) -> Acknowledgement:
    """What cannot be read is a gateway of another release: it has acknowledged nothing."""
    try:
        return _FIELD.validate_json(value)
    except ValidationError:
        return Acknowledgement(-1, frozenset())
