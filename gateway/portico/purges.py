"""How a purge of the response cache gets to the gateways, which keep answers in memory too: a Redis stream of the names
of models. The controller announces, each gateway follows.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from redis.exceptions import RedisError

from portico.background import running
from portico.backplane import BLOCK, FIRST_BACKOFF, LAST_BACKOFF, BackplaneUnavailable
from portico.redis_connection import Client, cancelled

STREAM = "portico:purges"
KEPT = 1000
"""About how many purges the stream holds; a gateway that is that far behind has lost Redis for long."""
ALL = ""
"""In place of a model's name: all of them. No model is called that."""

_FIELD = b"model"
_EMPTY = "0-0"

_log = logging.getLogger(__name__)


class Purges:
    """Both ends of the stream."""

    def __init__(self, redis: Client) -> None:
        # redis-py types an answer as everything that any protocol and decoding may give.
        self._redis: Any = redis

    async def announce(self, model: str) -> None:
        """Makes all gateways drop what they keep of `model`, or of ALL. Raises BackplaneUnavailable."""
        try:
            await self._redis.xadd(STREAM, {_FIELD: model}, maxlen=KEPT, approximate=True)
        except (RedisError, OSError) as error:
            raise BackplaneUnavailable(f"the gateways cannot be told of the purge: {error}") from error

    @asynccontextmanager
    async def following(self, on_purge: Callable[[str], None]) -> AsyncIterator[None]:
        """Runs `follow` for as long as the context is open."""
        async with running(self.follow(on_purge), "follow purges"):
            yield

    async def follow(self, on_purge: Callable[[str], None]) -> None:
        """Calls `on_purge` with the model of each purge from now on, until cancelled.

        After Redis was away, it begins with ALL: purges may have been missed.
        """
        after, missed, backoff = "", False, FIRST_BACKOFF
        while not cancelled():
            try:
                if not after:
                    after = await self._last()
                    if missed:  # whatever was announced up to `after`
                        on_purge(ALL)
                    missed, backoff = False, FIRST_BACKOFF
                streams = await self._redis.xread({STREAM: after}, block=int(BLOCK * 1000))
                for entry, fields in (found for _, entries in streams for found in entries):
                    on_purge(fields.get(_FIELD, b"").decode(errors="replace"))
                    after = entry.decode()
            except Exception as error:  # whatever it is, the purges must not stop being followed
                _log.debug("purges may be missed, Redis cannot be reached: %s", error)
                after, missed = "", True
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, LAST_BACKOFF)

    async def _last(self) -> str:
        entries = await self._redis.xrevrange(STREAM, count=1)
        return str(entries[0][0].decode()) if entries else _EMPTY
