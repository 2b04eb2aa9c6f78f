"""`ports.ResponseCache`: one suite, held against the fake and the cache in a real Redis, as the bootstrap opens it."""

import asyncio
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pytest
from redis.asyncio import Redis

from fakes import FakeCache
from portico.bootstrap import _open_cache
from portico.cache_key import CacheKey
from portico.caching.redis import RedisCache, entry_key, lease_key
from portico.codecs import stored
from portico.errors import InferenceFailed, PorticoError
from portico.freshness import Entry
from portico.inference import InferenceResponse, Tensor
from portico.local.layout import redis_server as redis_server_program
from portico.ports import Found, Lease, ResponseCache
from portico.settings import GatewaySettings

PATIENCE = 60.0
"""Seconds in which whatever is waited for has to come."""
PATIENT, QUICK = PATIENCE, 0.05
"""Seconds that a cache waits for Redis: enough on any machine, and as many as in production."""
LEASE = 0.6
"""Seconds that a lease lasts, shorter than in production, so that tests of those that nobody ends are short."""


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

    open: Callable[[float], Awaitable[ResponseCache]]
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

    async def opened(timeout: float) -> ResponseCache:
        nonlocal cache
        cache = cache or FakeCache()
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

        async def opened(timeout: float) -> ResponseCache:
            cache = await _open_cache(stack, GatewaySettings(redis_url=server.url, redis_timeout=timeout))
            cache._lease = LEASE
            return cache

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


def answer(number: int, lifetime: float = 600.0) -> Entry:
    """An answer that tells which it is."""
    data = number.to_bytes(4, "little")
    response = InferenceResponse((Tensor("y", "INT32", (1,), data),), "application/json")
    return Entry.of(key(number).digest, response, lifetime)


def key(number: int) -> CacheKey:
    return CacheKey("iris", bytes([number]) * 16)


def said(entry: Entry | None) -> InferenceResponse | None:
    """The answer itself, whenever it was stored."""
    return entry.response if entry else None


async def comes(cache: ResponseCache, number: int, lifetime: float = 600.0) -> None:
    """Waits until the answer is kept; puts it again as often as it is not, as requests do."""

    async def kept() -> bool:
        if said(await cache.get(key(number))) == answer(number).response:
            return True
        cache.put(key(number), answer(number, lifetime))
        return False

    await eventually(kept)


async def holds(cache: ResponseCache, number: int, expected: Entry | None) -> None:
    """Waits until exactly this is found under a key."""

    async def found() -> bool:
        return said(await cache.get(key(number))) == said(expected)

    await eventually(found)


async def test_nothing_is_there(case: Case) -> None:
    """What nobody has put there is a miss."""
    assert await (await case.open(PATIENT)).get(key(1)) is None


async def test_an_answer_is_kept(case: Case) -> None:
    """What was put under a key is found under it, the same, and by another gateway as well; other keys stay empty."""
    cache = await case.open(PATIENT)
    await comes(cache, 1)
    assert said(await (await case.open(PATIENT)).get(key(1))) == answer(1).response
    assert await cache.get(key(2)) is None


async def test_each_key_has_its_answer(case: Case) -> None:
    """Answers that are put and got at the same time are not mixed up."""
    cache = await case.open(PATIENT)
    await asyncio.gather(*(comes(cache, number) for number in range(100)))
    found = await asyncio.gather(*(cache.get(key(number)) for number in range(100)))
    assert list(map(said, found)) == [answer(number).response for number in range(100)]


async def test_an_answer_is_replaced(case: Case) -> None:
    """What is put last under a key is what is found."""
    cache = await case.open(PATIENT)
    await comes(cache, 1)
    cache.put(key(1), answer(2))
    await holds(cache, 1, answer(2))


async def test_an_answer_is_not_kept_for_ever(case: Case) -> None:
    """When its time is over, an answer is a miss."""
    cache = await case.open(PATIENT)
    await comes(cache, 1, lifetime=1)
    await holds(cache, 1, None)


async def test_a_store_that_hangs(case: Case) -> None:
    """While the store hangs every get is a miss and no put raises; it heals, and each key then has its own answer."""
    cache = await case.open(QUICK)
    for number in range(50):
        await comes(cache, number)
    case.hang()
    async with asyncio.timeout(PATIENCE):
        for _ in range(3):
            assert await asyncio.gather(*(cache.get(key(number)) for number in range(50))) == [None] * 50
            for number in range(50):
                cache.put(key(number), answer(number))
    await case.come_back()
    for number in range(50):
        await comes(cache, number)
    found = await asyncio.gather(*(cache.get(key(number)) for number in range(50)))
    assert set(found_numbers(found)) <= {(number, number) for number in range(50)}


def found_numbers(found: list[Entry | None]) -> list[tuple[int, int]]:
    """(place, number of the answer that was found there); misses are left out, as a busy machine may have some."""
    return [
        (place, int.from_bytes(entry.response.outputs[0].data, "little"))
        for place, entry in enumerate(found)
        if entry is not None
    ]


async def test_a_store_that_is_gone(case: Case) -> None:
    """While the store is gone every get is a miss and no put raises; when it is back, answers are kept again."""
    cache = await case.open(QUICK)
    await comes(cache, 1)
    case.go_down()
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*(cache.get(key(1)) for _ in range(50))) == [None] * 50
        cache.put(key(1), answer(1))
        await holds(cache, 1, None)
    await case.come_back()
    await comes(cache, 2)


async def test_a_store_that_was_never_there(redis_server: RedisServer) -> None:
    """A gateway that starts before its Redis misses, and finds it once it is there."""
    redis_server.stop()
    async with redis_case(redis_server) as case:
        cache = await case.open(QUICK)
        assert await cache.get(key(1)) is None
        cache.put(key(1), answer(1))
        await redis_server.start()
        await comes(cache, 1)


@pytest.mark.parametrize(
    "value", [b"", b"garbage", stored.dump(answer(1))[:-1], b"\0" + stored.dump(answer(1)), b"\x01" * 1000]
)
async def test_a_value_that_is_no_answer(redis_server: RedisServer, value: bytes) -> None:
    """A value in Redis that is no whole answer is a miss, and is deleted."""
    async with redis_case(redis_server) as case, Redis.from_url(redis_server.url) as redis:
        await redis.set(entry_key(key(1)), value)
        cache = await case.open(PATIENT)
        assert await cache.get(key(1)) is None

        async def gone() -> bool:
            return not await redis.exists(entry_key(key(1)))

        await eventually(gone)
        await redis.set(entry_key(key(1)), value)
        assert not isinstance(await cache.get_or_lease(key(1)), Found)
        await comes(cache, 1)


async def test_a_value_of_another_type(redis_server: RedisServer) -> None:
    """A key that holds no string is a miss, and not an error."""
    async with redis_case(redis_server) as case, Redis.from_url(redis_server.url) as redis:
        await redis.lpush(entry_key(key(1)), b"x")
        cache = await case.open(PATIENT)
        assert await cache.get(key(1)) is None
        assert not isinstance(await cache.get_or_lease(key(1)), Found)


async def test_every_answer_expires(redis_server: RedisServer) -> None:
    """Redis is told for each answer when to forget it, so that it never fills up with what nobody asks for."""
    async with redis_case(redis_server) as case, Redis.from_url(redis_server.url) as redis:
        await comes(await case.open(PATIENT), 1, lifetime=60)
        assert 50 < await redis.ttl(entry_key(key(1))) <= 60


async def test_it_is_connected_before_the_first_request(redis_server: RedisServer) -> None:
    """Which would not wait for as long as that may take."""
    async with redis_case(redis_server) as case, Redis.from_url(redis_server.url) as redis:
        before = int((await redis.info("clients"))["connected_clients"])
        cache = await case.open(QUICK)
        assert isinstance(cache, RedisCache)
        assert not cache._circuit.is_open
        assert int((await redis.info("clients"))["connected_clients"]) > before


async def test_a_crowd(redis_server: RedisServer) -> None:
    """Five hundred requests at once share the connections there are, and each finds its answer."""
    async with redis_case(redis_server) as case:
        cache = await case.open(PATIENT)
        await comes(cache, 1)
        found = await asyncio.gather(*(cache.get(key(1)) for _ in range(500)))
    assert {said(entry) for entry in found} == {answer(1).response}


async def test_a_crowd_in_a_hurry(redis_server: RedisServer) -> None:
    """Some of five hundred requests at once may time out, and still a Redis that answers is asked by those after."""
    async with redis_case(redis_server) as case:
        cache = await case.open(QUICK)
        assert isinstance(cache, RedisCache)
        await comes(cache, 1)
        await asyncio.gather(*(cache.get(key(1)) for _ in range(500)))
        assert not cache._circuit.is_open
        await holds(cache, 1, answer(1))


async def test_only_one_asks_the_model(case: Case) -> None:
    """Of those that want an answer that nobody has, one in one gateway gets the lease; all others wait for it."""
    gateways = [await case.open(PATIENT) for _ in range(5)]
    await ready(gateways)
    lease = await leased(gateways[0], 1)
    waiting = [asyncio.create_task(gateway.get_or_lease(key(1))) for gateway in gateways[1:]]
    await asyncio.sleep(LEASE * 2)
    assert not any(task.done() for task in waiting), "the lease is renewed"
    lease.fulfil(answer(1))
    found = await asyncio.gather(*waiting)
    assert {(said(each.entry), each.waited) for each in found if isinstance(each, Found)} == {
        (answer(1).response, True)
    }
    assert len(found) == 4
    again = await gateways[1].get_or_lease(key(1))
    assert isinstance(again, Found)
    assert not again.waited


async def test_an_error_is_told_to_those_who_wait(case: Case) -> None:
    """They get what the leader ran into; whoever comes afterwards asks the model again."""
    gateways = [await case.open(PATIENT), await case.open(PATIENT)]
    await ready(gateways)
    lease = await leased(gateways[0], 1)
    waiting = asyncio.create_task(gateways[1].get_or_lease(key(1)))
    await asyncio.sleep(LEASE / 3)
    lease.fail(InferenceFailed("the model failed"))
    with pytest.raises(InferenceFailed, match="the model failed"):
        await waiting
    (await leased(gateways[1], 1)).release()


async def test_a_lease_that_is_given_back(case: Case) -> None:
    """One of those who wait gets it, and with it the duty to ask the model."""
    gateways = [await case.open(PATIENT) for _ in range(3)]
    await ready(gateways)
    lease = await leased(gateways[0], 1)
    waiting = [asyncio.create_task(gateway.get_or_lease(key(1))) for gateway in gateways[1:]]
    await asyncio.sleep(LEASE / 3)
    lease.release()
    done, (other,) = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    (heir,) = (task.result() for task in done)
    assert not isinstance(heir, Found)
    heir.fulfil(answer(1))
    assert isinstance(await other, Found)


async def test_an_error_that_is_nobody_else_s(case: Case) -> None:
    """What others had better run into themselves gives the lease back."""
    gateways = [await case.open(PATIENT), await case.open(PATIENT)]
    await ready(gateways)
    lease = await leased(gateways[0], 1)
    waiting = asyncio.create_task(gateways[1].get_or_lease(key(1)))
    await asyncio.sleep(LEASE / 3)
    lease.fail(PorticoError("nobody knows what this is"))
    assert not isinstance(await waiting, Found)


async def test_an_answer_that_is_none_to_share(case: Case) -> None:
    """All who wait for it ask for themselves, at the same time and not one after the other; so does who comes next."""
    gateways = [await case.open(PATIENT) for _ in range(4)]
    await ready(gateways)
    lease = await leased(gateways[0], 1)
    waiting = [asyncio.create_task(gateway.get_or_lease(key(1))) for gateway in gateways[1:]]
    await asyncio.sleep(LEASE / 3)
    lease.decline()
    async with asyncio.timeout(PATIENCE):
        found = await asyncio.gather(*waiting)
    assert not any(isinstance(each, Found) for each in found)
    assert await leased(gateways[0], 1)


async def test_keys_have_leases_of_their_own(case: Case) -> None:
    """Nobody waits for an answer to another question."""
    cache = await case.open(PATIENT)
    await ready([cache])
    for number in (1, 2):
        assert await leased(cache, number)


async def test_a_gateway_that_dies(redis_server: RedisServer) -> None:
    """Its lease is over after its time, and the next one asks the model; what it still writes ends no other's lease."""
    async with redis_case(redis_server) as case:
        dead, alive = await case.open(PATIENT), await case.open(PATIENT)
        await ready([dead, alive])
        lease = await leased(dead, 1)
        lease._timer.cancel()  # type: ignore[attr-defined] - as death would
        heir = await alive.get_or_lease(key(1))
        assert not isinstance(heir, Found)
        lease.release()
        async with Redis.from_url(redis_server.url) as redis:
            for _ in range(20):
                assert await redis.exists(lease_key(key(1)))
                await asyncio.sleep(0.01)
        heir.fulfil(answer(1))
        await holds(dead, 1, answer(1))


async def test_a_lease_that_nobody_knows_of(redis_server: RedisServer) -> None:
    """A client left while Redis granted it, or its answer came too late: the next request of that gateway gets it."""
    async with redis_case(redis_server) as case:
        cache = await case.open(QUICK)
        await ready([cache])
        redis_server.hang()
        with suppress(TimeoutError):
            async with asyncio.timeout(QUICK / 2):
                await cache.get_or_lease(key(1))
        late = await cache.get_or_lease(key(2))
        redis_server.go_on()
        await comes(cache, 100)
        assert not isinstance(late, Found)
        began = monotonic()
        for number in (1, 2):
            await leased(cache, number)
        assert monotonic() - began < LEASE, "nobody waits for a lease to end that nobody has"


async def test_an_answer_that_cannot_be_written(redis_server: RedisServer) -> None:
    """Its lease ends all the same, for those who wait in other gateways."""
    async with redis_case(redis_server) as case:
        leader, other = await case.open(PATIENT), await case.open(PATIENT)
        await ready([leader, other])
        lease = await leased(leader, 1)
        assert isinstance(leader, RedisCache)
        leader._bytes = 1 << 40
        lease.fulfil(answer(1))
        leader._bytes = 0
        async with asyncio.timeout(LEASE / 2):
            assert not isinstance(await other.get_or_lease(key(1)), Found)


async def test_a_redis_that_is_full(redis_server: RedisServer) -> None:
    """It takes neither entry nor lease: each gateway asks the model by itself, and what is there is read."""
    async with redis_case(redis_server) as case, Redis.from_url(redis_server.url) as redis:
        cache = await case.open(PATIENT)
        await comes(cache, 1)
        await redis.config_set("maxmemory-policy", "noeviction")
        await redis.config_set("maxmemory", 1)
        assert said(await cache.get(key(1))) == answer(1).response
        for _ in range(3):
            lease = await leased(cache, 2)
            lease.fulfil(answer(2))
        assert isinstance(cache, RedisCache)
        assert not cache._circuit.is_open
        await redis.config_set("maxmemory", 0)
        await comes(cache, 2)


async def ready(caches: list[ResponseCache]) -> None:
    """Waits until the caches have found their store, which they leave alone before."""
    for number, cache in enumerate(caches, 100):
        await comes(cache, number)


async def leased(cache: ResponseCache, number: int) -> Lease:
    found = await cache.get_or_lease(key(number))
    assert not isinstance(found, Found)
    return found


async def test_what_is_being_written_when_the_gateway_stops(redis_server: RedisServer) -> None:
    """Answers on their way to Redis when the cache is closed arrive, and no task or connection is left behind."""
    before = asyncio.all_tasks()
    async with redis_case(redis_server) as case:
        cache = await case.open(PATIENT)
        assert await cache.get(key(0)) is None
        for number in range(20):
            cache.put(key(number), answer(number))
    assert asyncio.all_tasks() == before
    async with redis_case(redis_server) as case:
        cache = await case.open(PATIENT)
        found = [said(await cache.get(key(number))) for number in range(20)]
    assert found == [answer(number).response for number in range(20)]


async def test_closing_while_redis_hangs(redis_server: RedisServer) -> None:
    """A Redis that hangs does not keep the gateway from stopping."""
    async with asyncio.timeout(PATIENCE):
        async with redis_case(redis_server) as case:
            cache = await case.open(QUICK)
            await comes(cache, 1)
            redis_server.hang()
            cache.put(key(2), answer(2))
    assert redis_server._process.poll() is None
