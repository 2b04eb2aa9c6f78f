"""The response cache in Redis. A request waits for it a few hundredths of a second at most; when Redis fails, it is
left alone for a moment, so that a hanging one costs one request its wait and not each.
"""

import asyncio
import logging
from time import monotonic

from redis.asyncio import Redis
from redis.exceptions import RedisError

from portico.codecs import stored
from portico.inference import InferenceResponse

log = logging.getLogger(__name__)

NAMESPACE = b"portico:cache:"
PAUSE = 1.0
"""Seconds that Redis is left alone after it failed."""
MAX_WRITES = 256
"""Answers on their way to Redis at a time; more are not kept."""


class RedisCache:
    """Implements `ports.ResponseCache`. `ttl` and `timeout` are seconds. Close it, so that no write is left behind."""

    def __init__(self, redis: Redis, ttl: int, timeout: float) -> None:
        self._redis = redis
        self._ttl = ttl
        self._timeout = timeout
        self._paused_until = 0.0
        self._writes: set[asyncio.Task[None]] = set()

    async def get(self, key: bytes) -> InferenceResponse | None:
        if monotonic() < self._paused_until:
            return None
        try:
            async with asyncio.timeout(self._timeout):
                value = await self._redis.get(NAMESPACE + key)
        except (RedisError, OSError, TimeoutError) as error:
            self._pause(error)
            return None
        return stored.load(value) if isinstance(value, bytes) else None

    async def put(self, key: bytes, response: InferenceResponse) -> None:
        """Returns at once; the write goes on beside the request."""
        if monotonic() < self._paused_until or len(self._writes) >= MAX_WRITES:
            return
        task = asyncio.create_task(self._write(key, response))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _write(self, key: bytes, response: InferenceResponse) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._redis.set(NAMESPACE + key, stored.dump(response), ex=self._ttl)
        except (RedisError, OSError, TimeoutError) as error:
            self._pause(error)

    def _pause(self, error: Exception) -> None:
        if monotonic() >= self._paused_until:
            log.warning("the cache is left out for %g s: %s", PAUSE, str(error) or type(error).__name__)
        self._paused_until = monotonic() + PAUSE

    async def aclose(self) -> None:
        """Waits for the writes under way, each of which is bounded, and closes the connections."""
        await asyncio.gather(*self._writes)
        await self._redis.aclose()
