"""What gateways tell the controller, over a real Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from portico import acknowledgements as module
from portico.acknowledgements import GOODBYE, HASH, Acknowledgement, Acknowledgements
from portico.backplane import BackplaneUnavailable
from portico.redis_address import RedisAccess
from portico.redis_connection import open_redis
from portico.routing import LiveRoutes, RouteTable
from redis_server import RedisServer


@pytest.fixture
async def both(redis: RedisServer) -> AsyncIterator[Acknowledgements]:
    async with open_redis(RedisAccess(redis.url)) as opened:
        yield Acknowledgements(opened)


async def said(both: Acknowledgements, condition: Callable[[Acknowledgement], bool]) -> str:
    """The name of the one gateway, once what it says fulfils `condition`; the test's own limit ends a wait in vain."""
    while True:
        found = await both.all()
        if len(found) == 1 and condition(next(iter(found.values()))):
            return next(iter(found))
        await asyncio.sleep(0.01)


async def test_a_gateway_tells_its_table_and_what_its_calls_use(both: Acknowledgements) -> None:
    """Whenever it changes; and when the gateway ends, it says goodbye."""
    routes = LiveRoutes(RouteTable(revision=3))
    async with both.telling(routes):
        name = await said(both, lambda one: (one.revision, one.using) == (3, frozenset()))
        routes.enter("iris--a")
        routes.replace(RouteTable(revision=4))
        assert await said(both, lambda one: (one.revision, one.using) == (4, frozenset({"iris--a"}))) == name
        routes.leave("iris--a")
        await said(both, lambda one: one.using == frozenset())
    assert await both.all() == {name: GOODBYE}


async def test_a_gateway_without_routes_has_nothing_to_tell(both: Acknowledgements) -> None:
    """It takes no calls yet."""
    async with both.telling(LiveRoutes()):
        await asyncio.sleep(2 * module.LOOK)
        assert await both.all() == {}


async def test_a_gateway_shows_that_it_is_alive(both: Acknowledgements, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its field changes although nothing else does."""
    monkeypatch.setattr(module, "BEAT", 0.0)
    async with both.telling(LiveRoutes(RouteTable())):
        await said(both, lambda one: one.beat > 2)


async def test_one_that_is_forgotten_is_gone(both: Acknowledgements, redis: RedisServer) -> None:
    """What cannot be read is a gateway that has acknowledged nothing."""
    async with Redis.from_url(redis.url) as client:
        await client.hset(HASH, "old", b"?")
    assert await both.all() == {"old": Acknowledgement(-1, frozenset())}
    await both.forget("old")
    assert await both.all() == {}


async def test_without_redis_nothing_is_known_and_telling_goes_on(both: Acknowledgements, redis: RedisServer) -> None:
    """The reader gets an error and not an empty answer; the gateway tells again when Redis is back."""
    async with both.telling(LiveRoutes(RouteTable(revision=3))):
        await said(both, lambda one: one.revision == 3)
        redis.stop()
        with pytest.raises(BackplaneUnavailable):
            await both.all()
        redis.start()
        while True:
            try:
                await said(both, lambda one: one.revision == 3)
                break
            except BackplaneUnavailable:
                await asyncio.sleep(0.05)
