"""What the response cache holds in Redis, seen from outside: how much of which model, and how to drop it. Called for
operators; it does not know what an entry means, nor the requests that made it.
"""

import re
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import monotonic
from typing import Any

from redis.asyncio import RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from portico.backplane import BackplaneUnavailable
from portico.redis_connection import Client

NAMESPACE = "portico:cache:"
"""An entry's key goes on with its model's name, which holds no colon, and a colon."""
BATCH = 1000
"""Keys that Redis looks at at a time; it serves others in between."""
SECONDS = 5.0
"""For how long entries are counted; what comes after that is left out, and said to be."""
FAILURES = (RedisError, RedisClusterException, OSError)
"""Pipelines have the errors of redis-py's cluster that `open_redis` translates elsewhere."""


@dataclass(slots=True)
class Amount:
    """Entries, and the bytes of their values."""

    entries: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """A Redis's memory, or that of all primaries of a cluster: bytes (`maximum` is 0 for no bound), and keys evicted
    since it runs.
    """

    used: int
    maximum: int
    evicted: int


@dataclass(frozen=True, slots=True)
class Stats:
    """What there is of each model; `complete` says whether all entries were counted."""

    models: dict[str, Amount]
    complete: bool
    memory: Memory


class CacheEntries:
    """The entries in one Redis. Each method raises BackplaneUnavailable."""

    def __init__(self, redis: Client) -> None:
        # redis-py types an answer as everything that any protocol and decoding may give.
        self._redis: Any = redis

    async def stats(self) -> Stats:
        """Counts all entries, for SECONDS at most."""
        models: dict[str, Amount] = defaultdict(Amount)
        complete, until = True, monotonic() + SECONDS
        try:
            memory = await self._memory()
            async for keys in self._pages(f"{NAMESPACE}*"):
                for key, size in zip(keys, await self._each("STRLEN", keys), strict=True):
                    amount = models[key[len(NAMESPACE) :].split(b":", 1)[0].decode(errors="replace")]
                    amount.entries += 1
                    amount.bytes += size if isinstance(size, int) else 0  # somebody else put it there
                if monotonic() > until:
                    complete = False
                    break
        except FAILURES as error:
            raise BackplaneUnavailable(f"Redis cannot be asked: {error}") from error
        return Stats(dict(sorted(models.items())), complete, memory)

    async def purge(self, model: str | None) -> int:
        """Drops the entries of a model, or all for None; returns how many there were."""
        pattern = f"{NAMESPACE}*" if model is None else f"{NAMESPACE}{_literal(model)}:*"
        removed = 0
        try:
            async for keys in self._pages(pattern):
                for answer in await self._each("UNLINK", keys):
                    if isinstance(answer, Exception):
                        raise answer
                    removed += answer
        except FAILURES as error:
            raise BackplaneUnavailable(
                f"Redis failed after {removed} entries were removed, purge again: {error}"
            ) from error
        return removed

    async def _pages(self, pattern: str) -> AsyncIterator[list[bytes]]:
        """The keys of a pattern, from all primaries of a cluster; a page may be empty."""
        await self._redis.initialize()  # a cluster has no primaries before
        cluster = isinstance(self._redis, RedisCluster)
        for node in [{"target_nodes": one} for one in self._redis.get_primaries()] if cluster else [{}]:
            cursor, first = 0, True
            while cursor or first:
                found, keys = await self._redis.scan(cursor, pattern, BATCH, **node)
                (cursor,) = found.values() if cluster else (found,)
                first = False
                yield keys

    async def _each(self, command: str, keys: list[bytes]) -> list[int | Exception]:
        """One command for each key, in one message: in a cluster, each key has its own node. Gives each answer."""
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.execute_command(command, key)
        answers: list[int | Exception] = await pipeline.execute(raise_on_error=False) if keys else []
        return answers

    async def _memory(self) -> Memory:
        nodes = {"target_nodes": RedisCluster.PRIMARIES} if isinstance(self._redis, RedisCluster) else {}
        memory = _answers(await self._redis.info("memory", **nodes), "used_memory")
        evicted = _answers(await self._redis.info("stats", **nodes), "evicted_keys")
        bounds = [one["maxmemory"] for one in memory]
        return Memory(
            sum(one["used_memory"] for one in memory),
            sum(bounds) if all(bounds) else 0,
            sum(one["evicted_keys"] for one in evicted),
        )


def _answers(info: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A cluster of several nodes answers with one INFO for each."""
    return [info] if name in info else list(info.values())


def _literal(model: str) -> str:
    return re.sub(r"([\\*?\[\]])", r"\\\1", model)
