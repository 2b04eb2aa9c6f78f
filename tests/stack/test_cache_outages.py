"""Whatever becomes of Redis, no request fails of it, and none waits for it longer than it may."""

import asyncio
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from cache_load import Load, load
from cache_models import number
from door import Door
from redis import Redis
from second_gateway import second_gateway
from slow_redis import slow_redis

from portico.local.stack import Stack

CLIENTS = 8
MOST = 0.060
"""Seconds that a call may take longer while Redis does not answer."""
NOTHING = 0.010
"""Seconds that are none, on a busy machine."""
QUESTIONS = 100
ROUNDS = 8


@pytest.fixture(autouse=True)
async def restored(stack: Stack) -> AsyncIterator[None]:
    """Every test begins and ends with a Redis that keeps answers, and a gateway that knows."""
    async with load(stack.addresses.clients) as calls:
        await calls.until_it_keeps()
    yield
    async with load(stack.addresses.clients) as calls:
        await calls.until_it_keeps()


@contextmanager
def paused(stack: Stack) -> Iterator[None]:
    """Redis keeps its connections, takes new ones, and answers nobody."""
    pid = stack.pid("redis")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def full(stack: Stack) -> Iterator[None]:
    """Redis has no room, and makes none."""
    with Redis(port=stack.addresses.redis) as redis:
        names = ("maxmemory", "maxmemory-policy")
        before = {name: redis.config_get(name)[name] for name in names}
        redis.config_set("maxmemory-policy", "noeviction")
        redis.config_set("maxmemory", "1")
        try:
            yield
        finally:
            for name, value in before.items():
                redis.config_set(name, value)


@asynccontextmanager
async def gone(stack: Stack) -> AsyncIterator[None]:
    """There is no Redis; then there is an empty one."""
    await asyncio.to_thread(stack.stop, "redis")
    try:
        yield
    finally:
        await asyncio.to_thread(stack.start, "redis")


def timeouts(metrics: Door) -> float:
    """How often a gateway has waited in vain."""
    lines = metrics.get("/metrics").body.decode().splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith('portico_cache_errors_total{kind="timeout"')
    )


async def questions(calls: Load, count: int = QUESTIONS) -> float:
    """Asks so many, one after another; the median of the waits."""
    first = len(calls.waits)
    for _ in range(count):
        await calls.compare()
    return statistics.median(wait for _, wait in calls.waits[first:])


async def test_killed_under_load(stack: Stack) -> None:
    """SIGKILL, until another Redis, which is empty, takes its place."""
    async with load(stack.addresses.clients, CLIENTS) as calls:
        await asyncio.sleep(1)
        began, pid = time.monotonic(), stack.pid("redis")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while stack.pid("redis") in (None, pid):
                await asyncio.sleep(0.05)
        ended = time.monotonic()
        await calls.until_it_keeps()
    assert calls.added(began, ended) < MOST


async def test_paused_under_load(stack: Stack) -> None:
    """SIGSTOP for a while: clients notice nothing but that the models are asked, and it heals by itself."""
    async with load(stack.addresses.clients, CLIENTS) as calls:
        await asyncio.sleep(1)
        began = time.monotonic()
        with paused(stack):
            await asyncio.sleep(3)
            ended = time.monotonic()
        await calls.until_it_keeps()
    assert calls.added(began, ended) < MOST


async def test_what_a_pause_costs(stack: Stack) -> None:
    """At first each call waits for as long as it may; soon none does any more."""
    metrics, at_first = Door(stack.addresses.gateway_metrics), list[float]()
    async with load(stack.addresses.clients) as calls:
        for _ in range(ROUNDS):
            await calls.until_it_keeps()
            waited, first = timeouts(metrics), len(calls.waits)
            with paused(stack):
                await questions(calls, 4)
            assert timeouts(metrics) >= waited + 2  # the calls did wait
            at_first += [wait for _, wait in calls.waits[first:]]
        await calls.until_it_keeps()
        with paused(stack):
            await questions(calls, 10)
            assert await questions(calls) < NOTHING
    assert statistics.median(at_first) < MOST


async def test_without_redis(stack: Stack) -> None:
    """While there is none calls take as long as past the cache; what was kept is asked anew of the one that comes."""
    value = number()
    async with load(stack.addresses.clients) as calls:
        await calls.until_kept(value)
        async with gone(stack):
            await questions(calls, 10)
            assert await questions(calls) < NOTHING
        assert set(calls.seen) == {"MISS"}
        await calls.until_it_keeps()
        assert await calls.ask(value, "three") == "MISS"


async def test_restarted_empty_under_load(stack: Stack) -> None:
    """Stopped in order and started again."""
    async with load(stack.addresses.clients, CLIENTS) as calls:
        for _ in range(2):
            async with gone(stack):
                await asyncio.sleep(1)
            await calls.until_it_keeps()


async def test_full_under_load(stack: Stack) -> None:
    """Nothing more is kept and nobody waits; what was kept is still there, and afterwards more is."""
    value = number()
    async with load(stack.addresses.clients, CLIENTS) as calls:
        await calls.until_kept(value)
        with full(stack):
            new = number()
            assert [await calls.ask(new, name) for name in ("one", "two")] == ["MISS", "MISS"]
            await calls.until_kept(value)
            began = time.monotonic()
            await asyncio.sleep(2)
            assert calls.added(began, time.monotonic()) < MOST
        await calls.until_it_keeps()


@pytest.mark.parametrize("delay", [0.030, 0.200])
async def test_slow(stack: Stack, tmp_path: Path, delay: float) -> None:
    """Each answer of Redis takes so long, in seconds: a call waits for it once, and not at all if it takes too long."""
    with (
        slow_redis(stack.addresses.redis, 0.0) as far,
        second_gateway(stack, tmp_path, PORTICO_REDIS_URL=f"redis://127.0.0.1:{far.port}/0") as gateway,
    ):
        async with load(gateway.door.port) as calls:
            await calls.until_it_keeps()
            far.delay = delay
            assert await questions(calls, 5) < MOST
            await questions(calls, 10)
            assert await questions(calls, QUESTIONS // 2) < (MOST if delay < MOST else NOTHING)
        async with load(gateway.door.port, CLIENTS) as calls:
            await asyncio.sleep(2)
            far.delay = 0.0
            await calls.until_it_keeps()
