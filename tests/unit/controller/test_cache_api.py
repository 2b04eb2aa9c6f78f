"""What operators ask the controller about the cache."""

import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from portico.backplane import BackplaneUnavailable
from portico.cache_entries import Amount, Memory, Stats
from portico.controller.cache_api import CacheApi
from portico.listener import listening
from portico.purges import ALL
from portico.routing import Model, RouteTable, Server


class FakeRedis:
    """Entries by model, the routes, and what was announced; `happened` is in its order."""

    def __init__(self) -> None:
        self.entries = {"iris": 3, "gone": 1}
        self.table: RouteTable | None = RouteTable(
            {name: Model(name, Server.TF_SERVING, "", {}) for name in ("iris", "new")}
        )
        self.happened: list[str] = []
        self.away = False

    def _check(self) -> None:
        if self.away:
            raise BackplaneUnavailable("Redis is away")

    async def stats(self) -> Stats:
        self._check()
        return Stats({"iris": Amount(3, 300), "zoo": Amount(1, 1)}, False, Memory(10, 20, 5))

    async def purge(self, model: str | None) -> int:
        self._check()
        self.happened.append(f"purge {model}")
        return sum(self.entries.values()) if model is None else self.entries.get(model, 0)

    async def newest(self) -> tuple[str, RouteTable | None]:
        return "1-0", self.table

    async def announce(self, model: str) -> None:
        self.happened.append(f"announce {model}")


@pytest.fixture
def redis() -> FakeRedis:
    return FakeRedis()


@pytest.fixture
async def client(redis: FakeRedis) -> AsyncIterator[aiohttp.ClientSession]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    routes = CacheApi(redis, redis, redis.announce).routes()
    async with listening(address, routes), aiohttp.ClientSession(f"http://{address}") as session:
        yield session


async def ask(client: aiohttp.ClientSession, method: str, path: str) -> tuple[int, Any]:
    async with client.request(method, path) as answer:
        return answer.status, await answer.json()


async def test_what_the_cache_holds(client: aiohttp.ClientSession) -> None:
    """Each model's entries and bytes, whether these are all, and how Redis is."""
    assert await ask(client, "GET", "/v1/cache") == (
        200,
        {
            "models": [{"model": "iris", "entries": 3, "bytes": 300}, {"model": "zoo", "entries": 1, "bytes": 1}],
            "complete": False,
            "redis": {"used_memory": 10, "maxmemory": 20, "evicted_keys": 5},
        },
    )


async def test_purging_a_model(client: aiohttp.ClientSession, redis: FakeRedis) -> None:
    """Redis forgets first and then the gateways: in the other order, they would fetch the old answers again."""
    assert await ask(client, "DELETE", "/v1/cache/iris") == (200, {"model": "iris", "removed": 3})
    assert redis.happened == ["purge iris", "announce iris"]


async def test_purging_all(client: aiohttp.ClientSession, redis: FakeRedis) -> None:
    """One announcement for all models."""
    assert await ask(client, "DELETE", "/v1/cache") == (200, {"model": None, "removed": 4})
    assert redis.happened == ["purge None", f"announce {ALL}"]


async def test_a_model_that_is_not_there(client: aiohttp.ClientSession, redis: FakeRedis) -> None:
    """Of a model that is gone, what is left can be purged; a name that nobody knows is a mistake, and said to be."""
    assert await ask(client, "DELETE", "/v1/cache/new") == (200, {"model": "new", "removed": 0})
    assert await ask(client, "DELETE", "/v1/cache/gone") == (200, {"model": "gone", "removed": 1})
    status, body = await ask(client, "DELETE", "/v1/cache/irsi")
    assert status == 404
    assert "There is no model irsi" in body["error"]
    redis.table = None
    assert (await ask(client, "DELETE", "/v1/cache/new"))[0] == 404


async def test_without_redis(client: aiohttp.ClientSession, redis: FakeRedis) -> None:
    """Nothing is made up, and nothing is announced."""
    redis.away = True
    for method, path in (("GET", "/v1/cache"), ("DELETE", "/v1/cache"), ("DELETE", "/v1/cache/iris")):
        assert await ask(client, method, path) == (503, {"error": "Redis is away"})
    assert redis.happened == []
