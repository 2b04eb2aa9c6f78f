"""The response cache in Redis. A request waits for it a few hundredths of a second at most, and not at all while Redis
is known to fail.
"""

import asyncio
import logging
from time import monotonic

from redis.asyncio import Redis
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from portico.caching.circuit import Circuit
from portico.codecs import stored
from portico.errors import PorticoError
from portico.inference import InferenceResponse

log = logging.getLogger(__name__)

NAMESPACE = b"portico:cache:"
MAX_ENTRY = 1 << 20
"""Bytes of an answer that is worth keeping; a larger one takes longer to fetch than many a model to compute."""
MAX_WRITES = 128
"""Answers on their way to Redis at a time; more are not kept."""


class RedisCache:
    """Implements `ports.ResponseCache`. `ttl` and `timeout` are seconds. Close it, so that no write is left behind."""

    def __init__(self, redis: Redis, ttl: int, timeout: float) -> None:
        self._redis = redis
        self._ttl = ttl
        self._timeout = timeout
        self._circuit = Circuit(timeout)
        self._writes: set[asyncio.Task[None]] = set()

    async def get(self, key: bytes) -> InferenceResponse | None:
        if not self._circuit.allows(monotonic()):
            return None
        try:
            async with asyncio.timeout(self._timeout):
                value = await self._redis.get(NAMESPACE + key)
        except (TimeoutError, RedisTimeout):
            self._circuit.timed_out(monotonic())
            return None
        except (RedisError, OSError) as error:
            log.warning("the cache is left out: %s", error)
            self._circuit.failed(monotonic())
            return None
        except asyncio.CancelledError:
            self._circuit.gave_up()
            raise
        self._circuit.succeeded(monotonic())
        return stored.load(value) if isinstance(value, bytes) else None

    async def put(self, key: bytes, response: InferenceResponse, ttl: int | None = None) -> None:
        """Returns at once; the write goes on beside the request. Nothing is written while Redis fails."""
        if self._circuit.is_open or response.size > MAX_ENTRY or len(self._writes) >= MAX_WRITES:
            return
        task = asyncio.create_task(self._write(key, response, ttl or self._ttl))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _write(self, key: bytes, response: InferenceResponse, ttl: int) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._redis.set(NAMESPACE + key, stored.dump(response), ex=ttl)
        except (RedisError, OSError, TimeoutError, PorticoError) as error:
            log.debug("an answer was not kept: %s", error)
        except Exception:
            log.exception("an answer could not be written to the cache")

    async def aclose(self) -> None:
        """Waits for the writes under way, each of which is bounded, and closes the connections."""
        await asyncio.gather(*self._writes)
        await self._redis.aclose()
