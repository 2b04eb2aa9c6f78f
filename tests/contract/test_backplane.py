"""The backplane: one suite for publishing on the fake and on a real Redis, and following it on the real one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from fakes_controller import FakeBackplane
from portico import backplane as module
from portico.backplane import STREAM, Backplane, BackplaneUnavailable
from portico.controller.reconcile import Publisher
from portico.redis_address import RedisAccess
from portico.redis_connection import open_redis
from portico.routing import Model, RouteTable, Server, State, Version
from redis_server import RedisServer

FIRST = RouteTable({"iris": Model("iris", Server.TF_SERVING, "1", {"1": Version("1", State.LOADING, "new")})}, 1)
SECOND = RouteTable({}, 2)


@asynccontextmanager
async def connected(server: RedisServer) -> AsyncIterator[Backplane]:
    async with open_redis(RedisAccess(server.url)) as client:
        yield Backplane(client)


@pytest.fixture(params=["fake", "Redis"])
async def publisher(request: pytest.FixtureRequest) -> AsyncIterator[Publisher]:
    if request.param == "fake":
        yield FakeBackplane()
        return
    server: RedisServer = request.getfixturevalue("redis")
    async with connected(server) as backplane:
        yield backplane


async def until(condition: Callable[[], bool]) -> None:
    """Waits for `condition`; the test's own time limit ends a wait in vain."""
    while not condition():  # what is waited for happens in another process
        await asyncio.sleep(0.01)


async def test_nothing_published_is_nothing(publisher: Publisher) -> None:
    """An empty Redis has no table and no id."""
    assert await publisher.newest() == ("", None)


async def test_the_newest_table_is_the_one_in_force(publisher: Publisher) -> None:
    """What was published last is what is read, under the id that publishing gave."""
    first = await publisher.publish(FIRST)
    assert await publisher.newest() == (first, FIRST)
    second = await publisher.publish(SECOND)
    assert second != first
    assert await publisher.newest() == (second, SECOND)


async def test_only_one_table_is_kept_and_for_ever(redis: RedisServer) -> None:
    """The stream does not grow, and does not expire: gateways that start find the table however old it is."""
    async with connected(redis) as backplane, Redis.from_url(redis.url) as client:
        for _ in range(5):
            await backplane.publish(FIRST)
        assert await client.xlen(STREAM) == 1
        assert await client.ttl(STREAM) == -1


async def test_a_follower_gets_the_table_in_force_and_each_that_follows(redis: RedisServer) -> None:
    """One mechanism for both: a gateway that starts late misses nothing."""
    async with connected(redis) as backplane:
        await backplane.publish(FIRST)
        seen: list[RouteTable] = []
        async with backplane.following(seen.append):
            await until(lambda: seen == [FIRST])
            await backplane.publish(SECOND)
            await until(lambda: seen == [FIRST, SECOND])


async def test_a_follower_waits_for_the_first_table(redis: RedisServer) -> None:
    """A gateway may be started before the controller; quiet times are no trouble."""
    async with connected(redis) as backplane:
        seen: list[RouteTable] = []
        async with backplane.following(seen.append):
            await asyncio.sleep(module.BLOCK * 1.5)
            await backplane.publish(FIRST)
            await until(lambda: seen == [FIRST])


async def test_a_follower_outlives_redis(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """While Redis is gone the last table stays; what is published when it is back arrives, and one line told of it."""
    async with connected(redis) as backplane:
        await backplane.publish(FIRST)
        seen: list[RouteTable] = []
        async with backplane.following(seen.append):
            await until(lambda: seen == [FIRST])
            redis.stop()
            with pytest.raises(BackplaneUnavailable):
                await backplane.publish(SECOND)
            with pytest.raises(BackplaneUnavailable):
                await backplane.newest()
            await until(lambda: "cannot be reached" in caplog.text)
            await asyncio.sleep(1)
            assert (seen, caplog.text.count("cannot be reached")) == ([FIRST], 1)
            redis.start()
            await backplane.publish(SECOND)
            await until(lambda: seen == [FIRST, SECOND])


async def test_a_follower_may_be_started_before_redis(redis: RedisServer) -> None:
    """The order in which processes start does not matter."""
    redis.stop()
    async with connected(redis) as backplane:
        seen: list[RouteTable] = []
        async with backplane.following(seen.append):
            await asyncio.sleep(0.3)
            redis.start()
            async with connected(redis) as controller:
                await controller.publish(FIRST)
            await until(lambda: seen == [FIRST])


async def test_a_table_of_another_release_is_passed_over(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """A follower keeps what it has and says which format it was given; a controller takes it for none."""
    async with connected(redis) as backplane, Redis.from_url(redis.url) as client:
        await client.xadd(STREAM, {"table": b'{"format": 99}'}, maxlen=1)
        entry, table = await backplane.newest()
        assert entry
        assert table is None
        seen: list[RouteTable] = []
        async with backplane.following(seen.append):
            await backplane.publish(FIRST)
            await until(lambda: seen == [FIRST])
        assert "format 99" in caplog.text


async def test_following_ends_with_its_context(redis: RedisServer) -> None:
    """No task is left behind, whatever it was at: connecting, sending, waiting."""
    before = asyncio.all_tasks()
    for milliseconds in range(20):
        async with connected(redis) as backplane, backplane.following(lambda table: None):
            await asyncio.sleep(milliseconds / 1000)
        assert asyncio.all_tasks() == before
