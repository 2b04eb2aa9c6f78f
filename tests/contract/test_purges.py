"""Purges over a real Redis: who announces, who follows, and what is counted and removed."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from portico import cache_entries as module
from portico.backplane import BackplaneUnavailable
from portico.cache_entries import Amount, CacheEntries
from portico.purges import ALL, KEPT, STREAM, Purges
from portico.redis_address import RedisAccess
from portico.redis_connection import Client, open_redis
from redis_server import RedisServer


@pytest.fixture
async def client(redis: RedisServer) -> AsyncIterator[Client]:
    async with open_redis(RedisAccess(redis.url)) as opened:
        yield opened


@pytest.fixture
async def raw(redis: RedisServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis.url, protocol=2) as opened:
        yield opened


async def until(condition: Callable[[], bool]) -> None:
    """Waits for `condition`; the test's own time limit ends a wait in vain."""
    while not condition():
        await asyncio.sleep(0.01)


async def reading(raw: Redis, count: int = 1) -> None:
    """Returns when so many follow: each waits in a read."""
    while (await raw.info("clients"))["blocked_clients"] < count:
        await asyncio.sleep(0.01)


async def test_all_gateways_hear_of_a_purge(client: Client, raw: Redis) -> None:
    """Each of them, of each purge, in its order."""
    purges = Purges(client)
    one: list[str] = []
    other: list[str] = []
    async with purges.following(one.append), purges.following(other.append):
        await reading(raw, 2)
        for model in ("iris", "digits", ALL):
            await purges.announce(model)
        await until(lambda: one == other == ["iris", "digits", ALL])


async def test_what_was_purged_before_is_past(client: Client, raw: Redis) -> None:
    """A gateway that starts has nothing to drop."""
    purges = Purges(client)
    await purges.announce("iris")
    seen: list[str] = []
    async with purges.following(seen.append):
        await reading(raw)
        await purges.announce("digits")
        await until(lambda: seen == ["digits"])


async def test_after_a_loss_of_redis_everything_is_dropped(client: Client, raw: Redis, redis: RedisServer) -> None:
    """Purges may have been missed; and those that follow are heard."""
    purges = Purges(client)
    seen: list[str] = []
    async with purges.following(seen.append):
        await reading(raw)
        redis.stop()
        with pytest.raises(BackplaneUnavailable):
            await purges.announce("iris")
        redis.start()
        await until(lambda: seen == [ALL])
        await purges.announce("digits")
        await until(lambda: seen == [ALL, "digits"])


async def test_a_gateway_may_start_before_redis(client: Client, redis: RedisServer) -> None:
    """It may have kept answers meanwhile, and missed purges."""
    redis.stop()
    purges = Purges(client)
    seen: list[str] = []
    async with purges.following(seen.append):
        with pytest.raises(BackplaneUnavailable):
            await purges.announce("iris")
        await asyncio.sleep(0.05)
        redis.start()
        await until(lambda: seen == [ALL])


async def test_a_drop_that_fails_is_made_up_for(client: Client, raw: Redis) -> None:
    """Following goes on, with everything."""
    seen: list[str] = []

    def drop(model: str) -> None:
        seen.append(model)
        if seen == ["iris"]:
            raise RuntimeError("cannot drop")

    purges = Purges(client)
    async with purges.following(drop):
        await reading(raw)
        await purges.announce("iris")
        await until(lambda: seen == ["iris", ALL])


async def test_the_stream_is_bounded_and_stays(client: Client, raw: Redis) -> None:
    """It does not grow with the purges, and is not evicted: it does not expire."""
    purges = Purges(client)
    for _ in range(KEPT * 2):
        await purges.announce("iris")
    assert await raw.xlen(STREAM) < KEPT * 1.5
    assert await raw.ttl(STREAM) == -1


async def test_following_ends_with_its_context(client: Client) -> None:
    """No task is left behind, whatever it was at."""
    before = asyncio.all_tasks()
    for milliseconds in range(10):
        async with Purges(client).following(lambda model: None):
            await asyncio.sleep(milliseconds / 1000)
        assert asyncio.all_tasks() == before


async def fill(raw: Redis, model: str, count: int) -> None:
    pipeline = raw.pipeline(transaction=False)
    for number in range(count):
        pipeline.set(f"portico:cache:{model}:{{{number:032x}}}", b"\x00" * 10, ex=600)
    await pipeline.execute()


async def test_entries_are_counted_by_model(client: Client, raw: Redis) -> None:
    """Entries and bytes of each, whatever else lies in Redis, and how full that is."""
    await fill(raw, "iris", 2500)
    await fill(raw, "digits-2", 1)
    await raw.set("portico:lease:{0}", b"x")
    await raw.config_set("maxmemory", "100mb")
    stats = await CacheEntries(client).stats()
    assert stats.models == {"digits-2": Amount(1, 10), "iris": Amount(2500, 25000)}
    assert stats.complete
    assert stats.memory.maximum == 100 << 20
    assert stats.memory.used > 25000
    assert stats.memory.evicted == 0


async def test_what_is_no_entry_is_counted_too(client: Client, raw: Redis) -> None:
    """A key of another type among the entries is one that a purge removes, and no reason to count nothing."""
    await fill(raw, "iris", 2)
    await raw.lpush("portico:cache:iris:{list}", b"x")
    assert (await CacheEntries(client).stats()).models == {"iris": Amount(3, 20)}
    assert await CacheEntries(client).purge("iris") == 3


async def test_counting_is_bounded(client: Client, raw: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting that takes too long ends with what it has."""
    await fill(raw, "iris", 100)
    monkeypatch.setattr(module, "SECONDS", 0.0)
    stats = await CacheEntries(client).stats()
    assert not stats.complete
    assert (await client.ping()) is True


@pytest.mark.parametrize("model", ["iris", "*", "ir?s", "i[r]is", "\\"])
async def test_one_model_s_entries_are_removed(client: Client, raw: Redis, model: str) -> None:
    """All of them and nothing else: a name is a name, and no pattern."""
    for name, count in (("iris", 2100), ("iris-2", 3), ("xiris", 3), (model, 2100)):
        await fill(raw, name, count)
    await raw.set("portico:routes", b"x")
    entries = CacheEntries(client)
    assert await entries.purge(model) == 2100
    assert await entries.purge(model) == 0
    left = sorted({re.sub(r":\{.*", "", key.decode()) for key in await raw.keys()})
    kept = {"iris", "iris-2", "xiris"} - {model}
    assert left == sorted(["portico:routes", *(f"portico:cache:{name}" for name in kept)])


async def test_everything_is_removed(client: Client, raw: Redis) -> None:
    """But only of the cache."""
    await fill(raw, "iris", 3)
    await fill(raw, "digits", 4)
    await raw.set("portico:routes", b"x")
    assert await CacheEntries(client).purge(None) == 7
    assert await raw.keys() == [b"portico:routes"]


async def test_without_redis_nothing_is_made_up(client: Client, redis: RedisServer) -> None:
    """An error, and not an empty cache."""
    redis.stop()
    entries = CacheEntries(client)
    with pytest.raises(BackplaneUnavailable):
        await entries.stats()
    with pytest.raises(BackplaneUnavailable, match="purge again"):
        await entries.purge("iris")
