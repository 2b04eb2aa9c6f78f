"""`ports.ResponseCache`: one suite, held against the fake and the cache in a real Redis, as the bootstrap opens it."""

import asyncio
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from fakes import FakeCache
from portico.bootstrap import _open_cache
from portico.caching.redis import MAX_ENTRY, NAMESPACE, RedisCache
from portico.codecs import stored
from portico.inference import InferenceResponse, Tensor
from portico.local.layout import redis_server as redis_server_program
from portico.ports import ResponseCache
from portico.settings import GatewaySettings

PATIENCE = 60.0
"""Seconds in which whatever is waited for has to come."""
PATIENT, QUICK = PATIENCE, 0.05
"""Seconds that a cache waits for Redis: enough on any machine, and as many as in production."""


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Waits until the condition holds, with patience."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.02)


class RedisServer:
    """A Redis of the test's own, on loopback."""

    def __init__(self, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._log = log

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Returns when it listens."""
        self._launch()
        await eventually(self._listens)

    def _launch(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [redis_server_program(), *options], stdout=log, stderr=log, cwd=self._log.parent
            )

    def stop(self) -> None:
        self.go_on()
        self._process.kill()
        self._process.wait()

    def hang(self) -> None:
        """It keeps its connections, takes new ones, and answers nobody."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    async def _listens(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@dataclass
class Case:
    """A way to open caches over the same store, and what can be done to the store."""

    open: Callable[[int, float], Awaitable[ResponseCache]]
    hang: Callable[[], None]
    go_down: Callable[[], None]
    come_back: Callable[[], Awaitable[None]]


@pytest.fixture
async def redis_server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    server = RedisServer(tmp_path / "redis.log")
    await server.start()
    yield server
    server.stop()


@asynccontextmanager
async def fake_case() -> AsyncIterator[Case]:
    cache: FakeCache | None = None

    async def opened(ttl: int, timeout: float) -> ResponseCache:
        nonlocal cache
        cache = cache or FakeCache(ttl)
        return cache

    def gone(state: bool) -> None:
        assert cache is not None
        cache.gone = state

    async def come_back() -> None:
        gone(False)

    yield Case(opened, lambda: gone(True), lambda: gone(True), come_back)


@asynccontextmanager
async def redis_case(server: RedisServer) -> AsyncIterator[Case]:
    async with AsyncExitStack() as stack:

        async def opened(ttl: int, timeout: float) -> ResponseCache:
            return _open_cache(stack, GatewaySettings(redis_url=server.url, cache_ttl=ttl, redis_timeout=timeout))

        async def come_back() -> None:
            if server._process.poll() is None:
                server.go_on()
            else:
                await server.start()

        def go_down() -> None:
            server._process.kill()
            server._process.wait()

        yield Case(opened, server.hang, go_down, come_back)


@pytest.fixture(params=["fake", "Redis"])
async def case(request: pytest.FixtureRequest, redis_server: RedisServer) -> AsyncIterator[Case]:
    async with fake_case() if request.param == "fake" else redis_case(redis_server) as opened:
        yield opened


def answer(number: int) -> InferenceResponse:
    """An answer that tells which it is."""
    data = number.to_bytes(4, "little")
    return InferenceResponse((Tensor("y", "INT32", (1,), data),), "application/json")


def key(number: int) -> bytes:
    return bytes([number]) * 16


async def comes(cache: ResponseCache, number: int) -> None:
    """Waits until the answer is kept; puts it again as often as it is not, as requests do."""

    async def kept() -> bool:
        if await cache.get(key(number)) == answer(number):
            return True
        await cache.put(key(number), answer(number))
        return False

    await eventually(kept)


async def holds(cache: ResponseCache, number: int, expected: InferenceResponse | None) -> None:
    """Waits until exactly this is found under a key."""

    async def found() -> bool:
        return await cache.get(key(number)) == expected

    await eventually(found)


async def test_nothing_is_there(case: Case) -> None:
    """What nobody has put there is a miss."""
    assert await (await case.open(60, PATIENT)).get(key(1)) is None


async def test_an_answer_is_kept(case: Case) -> None:
    """What was put under a key is found under it, the same, and by another gateway as well; other keys stay empty."""
    cache = await case.open(60, PATIENT)
    await comes(cache, 1)
    assert await (await case.open(60, PATIENT)).get(key(1)) == answer(1)
    assert await cache.get(key(2)) is None


async def test_each_key_has_its_answer(case: Case) -> None:
    """Answers that are put and got at the same time are not mixed up."""
    cache = await case.open(60, PATIENT)
    await asyncio.gather(*(comes(cache, number) for number in range(100)))
    found = await asyncio.gather(*(cache.get(key(number)) for number in range(100)))
    assert found == [answer(number) for number in range(100)]


async def test_an_answer_is_replaced(case: Case) -> None:
    """What is put last under a key is what is found."""
    cache = await case.open(60, PATIENT)
    await comes(cache, 1)
    await cache.put(key(1), answer(2))
    await holds(cache, 1, answer(2))


async def test_an_answer_is_not_kept_for_ever(case: Case) -> None:
    """When its time is over, an answer is a miss."""
    cache = await case.open(1, PATIENT)
    await comes(cache, 1)
    await holds(cache, 1, None)


async def test_a_store_that_hangs(case: Case) -> None:
    """While the store hangs every get is a miss and no put raises; it heals, and each key then has its own answer."""
    cache = await case.open(600, QUICK)
    for number in range(50):
        await comes(cache, number)
    case.hang()
    async with asyncio.timeout(PATIENCE):
        for _ in range(3):
            assert await asyncio.gather(*(cache.get(key(number)) for number in range(50))) == [None] * 50
            await asyncio.gather(*(cache.put(key(number), answer(number)) for number in range(50)))
    await case.come_back()
    for number in range(50):
        await comes(cache, number)
    found = await asyncio.gather(*(cache.get(key(number)) for number in range(50)))
    assert set(found_numbers(found)) <= {(number, number) for number in range(50)}


def found_numbers(found: list[InferenceResponse | None]) -> list[tuple[int, int]]:
    """(place, number of the answer that was found there); misses are left out, as a busy machine may have some."""
    return [
        (place, int.from_bytes(response.outputs[0].data, "little"))
        for place, response in enumerate(found)
        if response is not None
    ]


async def test_a_store_that_is_gone(case: Case) -> None:
    """While the store is gone every get is a miss and no put raises; when it is back, answers are kept again."""
    cache = await case.open(600, QUICK)
    await comes(cache, 1)
    case.go_down()
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*(cache.get(key(1)) for _ in range(50))) == [None] * 50
        await cache.put(key(1), answer(1))
        await holds(cache, 1, None)
    await case.come_back()
    await comes(cache, 2)


async def test_a_store_that_was_never_there(redis_server: RedisServer) -> None:
    """A gateway that starts before its Redis misses, and finds it once it is there."""
    redis_server.stop()
    async with redis_case(redis_server) as case:
        cache = await case.open(600, QUICK)
        assert await cache.get(key(1)) is None
        await cache.put(key(1), answer(1))
        await redis_server.start()
        await comes(cache, 1)


@pytest.mark.parametrize(
    "value", [b"", b"garbage", stored.dump(answer(1))[:-1], b"\0" + stored.dump(answer(1)), b"\x01" * 1000]
)
async def test_a_value_that_is_no_answer(redis_server: RedisServer, value: bytes) -> None:
    """A value in Redis that is no whole answer is a miss, and is replaced by the next answer."""
    async with redis_case(redis_server) as case, Redis.from_url(redis_server.url) as redis:
        await redis.set(NAMESPACE + key(1), value)
        cache = await case.open(60, PATIENT)
        assert await cache.get(key(1)) is None
        await comes(cache, 1)


async def test_a_value_of_another_type(redis_server: RedisServer) -> None:
    """A key that holds no string is a miss, and not an error."""
    async with redis_case(redis_server) as case, Redis.from_url(redis_server.url) as redis:
        await redis.lpush(NAMESPACE + key(1), b"x")
        assert await (await case.open(60, PATIENT)).get(key(1)) is None


async def test_every_answer_expires(redis_server: RedisServer) -> None:
    """Redis is told for each answer when to forget it, so that it never fills up with what nobody asks for."""
    async with redis_case(redis_server) as case, Redis.from_url(redis_server.url) as redis:
        await comes(await case.open(60, PATIENT), 1)
        assert 0 < await redis.ttl(NAMESPACE + key(1)) <= 60


async def test_a_crowd(redis_server: RedisServer) -> None:
    """Five hundred requests at once share the connections there are, and each finds its answer."""
    async with redis_case(redis_server) as case:
        cache = await case.open(60, PATIENT)
        await comes(cache, 1)
        assert await asyncio.gather(*(cache.get(key(1)) for _ in range(500))) == [answer(1)] * 500


async def test_a_crowd_in_a_hurry(redis_server: RedisServer) -> None:
    """Some of five hundred requests at once may time out, and still a Redis that answers is asked by those after."""
    async with redis_case(redis_server) as case:
        cache = await case.open(60, QUICK)
        assert isinstance(cache, RedisCache)
        await comes(cache, 1)
        await asyncio.gather(*(cache.get(key(1)) for _ in range(500)))
        assert not cache._circuit.is_open
        await holds(cache, 1, answer(1))


async def test_answers_that_are_too_large_to_keep(redis_server: RedisServer) -> None:
    """An answer of the largest size is kept, and one that is a byte larger is not."""
    sizes = {1: MAX_ENTRY, 2: MAX_ENTRY + 1}
    async with redis_case(redis_server) as case:
        cache = await case.open(60, PATIENT)
        await comes(cache, 3)
        for number, size in sizes.items():
            await cache.put(key(number), InferenceResponse((Tensor("y", "INT8", (size,), bytes(size)),)))
    async with Redis.from_url(redis_server.url) as redis:
        assert [await redis.exists(NAMESPACE + key(number)) for number in sizes] == [1, 0]


async def test_what_is_being_written_when_the_gateway_stops(redis_server: RedisServer) -> None:
    """Answers on their way to Redis when the cache is closed arrive, and no task or connection is left behind."""
    before = asyncio.all_tasks()
    async with redis_case(redis_server) as case:
        cache = await case.open(60, PATIENT)
        assert await cache.get(key(0)) is None
        for number in range(20):
            await cache.put(key(number), answer(number))
    assert asyncio.all_tasks() == before
    async with redis_case(redis_server) as case:
        cache = await case.open(60, PATIENT)
        assert [await cache.get(key(number)) for number in range(20)] == [answer(number) for number in range(20)]


async def test_closing_while_redis_hangs(redis_server: RedisServer) -> None:
    """A Redis that hangs does not keep the gateway from stopping."""
    async with asyncio.timeout(PATIENCE):
        async with redis_case(redis_server) as case:
            cache = await case.open(60, QUICK)
            await comes(cache, 1)
            redis_server.hang()
            await cache.put(key(2), answer(2))
    assert redis_server._process.poll() is None
