"""The response cache in Redis. A request waits for it a few hundredths of a second at most, and not at all while Redis
is known to fail.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from time import monotonic
from typing import Any

from redis.exceptions import ConnectionError as RedisGone
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from portico.cache_entries import NAMESPACE
from portico.cache_key import CacheKey
from portico.caching import scripts
from portico.caching.circuit import Circuit
from portico.caching.commands import Commands
from portico.codecs import stored
from portico.errors import PorticoError
from portico.freshness import Entry
from portico.meters import errors
from portico.ports import Found, Lease
from portico.redis_connection import Client

log = logging.getLogger(__name__)

LEASES = "portico:lease:"
MAX_WRITES = 1024
"""Writes on their way to Redis at a time; more are left out."""
MAX_BYTES = 64 << 20
"""Bytes of the answers among them."""
SILENCE = 1.0
"""Seconds after which a connection that says nothing is given up, at least."""
WRITERS = 16
"""How many answers are sent to Redis at a time."""
LEASE = 3.0
"""Seconds that a gateway's silence makes others wait that want the same answer."""
FIRST_POLL, LAST_POLL = 0.002, 0.05
"""Seconds between two looks whether another gateway has the answer, which grow from one to the other."""
ERROR_TOLD = 2.0
"""Seconds for which an error is told to those who wait."""
JITTER = 0.1
"""Part of an entry's lifetime by which it may end sooner: what was stored at once is not asked for at once again."""


def entry_key(key: CacheKey) -> str:
    """Where an entry lies. The braces put it into one slot of a cluster with its lease."""
    return f"{NAMESPACE}{key.model}:{{{key.digest.hex()}}}"


def lease_key(key: CacheKey) -> str:
    return f"{LEASES}{{{key.digest.hex()}}}"


class RedisCache:
    """Implements `ports.ResponseCache`. `timeout` is seconds. Close it, so that no write is left behind."""

    def __init__(self, redis: Client, timeout: float, lease: float = LEASE) -> None:
        """`redis` is a client of one server or of a cluster, which it leaves open."""
        self._redis = redis
        # Answers may be large, and nobody waits for them to be written.
        silence = max(SILENCE, timeout)
        self._quick, self._large = Commands(redis, timeout, silence), Commands(redis, silence, silence)
        self._lease = lease
        # One leader per key and gateway, see `flights`: so a gateway never waits for a lease of its own.
        self._token = secrets.token_hex(8)
        self._circuit = Circuit(timeout)
        self._writes: set[asyncio.Task[None]] = set()
        self._writing = asyncio.Semaphore(WRITERS)
        self._bytes = 0
        self._refused = self._gone = False

    async def open(self) -> None:
        """Connects, which may take longer than a request waits. A Redis that is away is tried again by requests."""
        with suppress(RedisError, OSError):
            await self._redis.ping()
        await self._ask("PING")

    async def get(self, key: CacheKey) -> Entry | None:
        value = await self._ask("GET", entry_key(key))
        return self._read(key, value) if isinstance(value, bytes) else None

    async def get_or_lease(self, key: CacheKey) -> Found | Lease:
        pause, waited = FIRST_POLL, ""
        while True:
            try:
                found = await self._ask(*_eval(scripts.FIND, key, self._token, _ms(self._lease), waited))
            except BaseException:
                self.end(key)  # it may have been granted all the same
                raise
            match found:
                case [b"entry", bytes(value)]:
                    entry = self._read(key, value)
                    return Found(entry, bool(waited)) if entry is not None else _NoLease(self, key)
                case [b"ours"]:
                    return _RedisLease(self, key)
                case [b"theirs"]:
                    waited = "waited"
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.5, LAST_POLL)
                case [b"error", bytes(said)]:
                    if (error := stored.load_error(said)) is not None:
                        raise error
                    return _NoLease(self, key)
                case None if waited and not self._circuit.is_open:
                    await asyncio.sleep(pause)  # one look of many was not answered in time
                case _:
                    self.end(key)
                    return _NoLease(self, key)

    def put(self, key: CacheKey, entry: Entry) -> None:
        async def write() -> None:
            await self._large.ask("SET", entry_key(key), stored.dump(entry), "PX", _ms(_lifetime(entry)))

        self._write_entry(write, entry.response.size)

    def fulfil(self, key: CacheKey, entry: Entry) -> None:
        """Keeps an entry and ends the lease."""

        async def write() -> None:
            command = _eval(scripts.FULFIL, key, self._token, stored.dump(entry), _ms(_lifetime(entry)))
            if await self._large.ask(*command) != b"OK":
                errors.labels("full").inc()

        if not self._write_entry(write, entry.response.size):
            self.end(key)

    def end(self, key: CacheKey, told: bytes = b"") -> None:
        """Ends the lease without an entry."""
        self._tell(*_eval(scripts.END, key, self._token, told, _ms(ERROR_TOLD)))

    def renew(self, key: CacheKey) -> None:
        """The lease goes on."""
        self._tell(*_eval(scripts.RENEW, key, self._token, _ms(self._lease)))

    @property
    def renew_after(self) -> float:
        """Seconds after which a lease had better be renewed."""
        return self._lease / 3

    async def aclose(self) -> None:
        """Waits for the writes under way, each of which is bounded."""
        await asyncio.gather(*self._writes)
        await self._quick.aclose()
        await self._large.aclose()

    def _read(self, key: CacheKey, value: bytes) -> Entry | None:
        entry = stored.load(value)
        if entry is None:
            errors.labels("unreadable").inc()
            self._tell("UNLINK", entry_key(key))
        return entry

    async def _ask(self, *command: str | bytes | int) -> Any:
        """What Redis answers, None if it does not."""
        if not self._circuit.allows(monotonic()):
            return None
        try:
            answer = await self._quick.ask(*command)
        except (TimeoutError, RedisTimeout):
            errors.labels("timeout").inc()
            self._circuit.timed_out(monotonic())
            return None
        except (RedisGone, OSError) as error:
            log.log(logging.DEBUG if self._gone else logging.WARNING, "the cache is left out: %s", error)
            self._gone = True
            errors.labels("unreachable").inc()
            self._circuit.failed(monotonic())
            return None
        except RedisError as error:  # it answers, and that is what the circuit is about
            log.log(logging.DEBUG if self._refused else logging.WARNING, "Redis refuses to be a cache: %s", error)
            self._refused = True
            errors.labels("refused").inc()
            self._circuit.succeeded(monotonic())
            return None
        except asyncio.CancelledError:
            self._circuit.gave_up()
            raise
        except Exception:
            log.exception("the cache is left out")
            self._circuit.failed(monotonic())
            return None
        self._circuit.succeeded(monotonic())
        self._gone = False
        return answer

    def _tell(self, *command: str | bytes | int) -> None:
        """What ends a lease or renews it, which others wait for, does not stand behind entries."""
        if not self._circuit.is_open and len(self._writes) < 2 * MAX_WRITES:
            self._own(self._written(lambda: self._quick.ask(*command)), 0)

    def _write_entry(self, write: Callable[[], Awaitable[None]], size: int) -> bool:
        """Goes on beside the request. Nothing is written while Redis fails, or is too slow for what there is: whether
        it goes on.
        """
        if self._circuit.is_open or len(self._writes) >= MAX_WRITES or self._bytes + size > MAX_BYTES:
            return False

        async def in_line() -> None:
            async with self._writing:
                await write()

        self._own(self._written(in_line), size)
        return True

    def _own(self, write: Coroutine[Any, Any, None], size: int) -> None:
        self._bytes += size
        task = asyncio.create_task(write)
        self._writes.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._writes.discard(task)
            self._bytes -= size

        task.add_done_callback(done)

    async def _written(self, write: Callable[[], Awaitable[Any]]) -> None:
        try:
            await write()
        except (RedisError, OSError, TimeoutError, PorticoError) as error:
            errors.labels("not_written").inc()
            log.debug("an answer was not kept: %s", error)
        except Exception:
            log.exception("an answer could not be written to the cache")


class _RedisLease:
    """Implements `ports.Lease`: it is renewed until it is ended."""

    def __init__(self, cache: RedisCache, key: CacheKey) -> None:
        self._cache, self._key = cache, key
        self._timer = asyncio.get_running_loop().call_later(cache.renew_after, self._renew)

    def fulfil(self, entry: Entry) -> None:
        self._timer.cancel()
        self._cache.fulfil(self._key, entry)

    def fail(self, error: PorticoError) -> None:
        self._timer.cancel()
        said = stored.dump_error(error)
        self._cache.end(self._key, scripts.ERROR + said if said else b"")

    def release(self) -> None:
        self._timer.cancel()
        self._cache.end(self._key)

    def decline(self) -> None:
        self._timer.cancel()
        self._cache.end(self._key, scripts.NOTHING)

    def _renew(self) -> None:
        self._cache.renew(self._key)
        self._timer = asyncio.get_running_loop().call_later(self._cache.renew_after, self._renew)


class _NoLease:
    """Implements `ports.Lease` where there is no Redis to keep one: nobody else knows of it."""

    def __init__(self, cache: RedisCache, key: CacheKey) -> None:
        self._cache, self._key = cache, key

    def fulfil(self, entry: Entry) -> None:
        self._cache.put(self._key, entry)

    def fail(self, error: PorticoError) -> None:
        pass

    def release(self) -> None:
        pass

    def decline(self) -> None:
        pass


def _eval(script: str, key: CacheKey, *arguments: str | bytes | int) -> tuple[str | bytes | int, ...]:
    return ("EVAL", script, 2, entry_key(key), lease_key(key), *arguments)


def _lifetime(entry: Entry) -> float:
    """Seconds that Redis keeps it."""
    return entry.stamp.lifetime * (1 - JITTER * random.random())


def _ms(seconds: float) -> int:
    return max(int(seconds * 1000), 1)
