"""The dispatcher and identical requests: one calls the model, in all gateways together, and nobody can spoil it."""

import asyncio
from dataclasses import replace
from time import monotonic

import pytest

from fakes import FakeBackend, FakeCache, Saying, in_pieces
from portico.dispatch import Answer, Dispatcher, Limits
from portico.errors import DeadlineExceeded, InferenceFailed
from portico.freshness import CacheStatus
from portico.inference import InferenceRequest, InferenceResponse, Tensor
from portico.routing import CallPolicy, LiveRoutes, Route, RouteTable, Server

MODEL = Route("digits", "1", Server.TORCHSERVE, "digits--a", "1", "print")
REQUEST = InferenceRequest((Tensor("x", "INT8", (1,), b"\3"),))
ANSWER = InferenceResponse((Tensor("y", "INT8", (1,), b"\6"),))
HIT, MISS, COALESCED, BYPASS = CacheStatus.HIT, CacheStatus.MISS, CacheStatus.COALESCED, CacheStatus.BYPASS


class Gateways:
    """Two gateways over one cache and one model server, which answers when told."""

    def __init__(self) -> None:
        self.server = FakeBackend({"digits--a": lambda request: ANSWER})
        self.cache = FakeCache()
        self.routes = LiveRoutes(RouteTable())
        backends = {Server.TORCHSERVE: self.server}
        self.each = [Dispatcher(self.routes, backends, self.cache, Limits(timeout=30.0)) for _ in range(2)]

    def ask(
        self, count: int, gateway: int = 0, route: Route = MODEL, seconds: float = 60.0
    ) -> list[asyncio.Task[Answer]]:
        """So many identical calls."""
        deadline = monotonic() + seconds
        return [asyncio.create_task(self.each[gateway].infer(route, REQUEST, deadline)) for _ in range(count)]

    def stream(self, count: int, gateway: int = 0) -> list[asyncio.Task[list[Answer]]]:
        """So many identical calls whose answers may come in pieces."""

        async def all_of() -> list[Answer]:
            return [answer async for answer in self.each[gateway].stream(MODEL, REQUEST, monotonic() + 60)]

        return [asyncio.create_task(all_of()) for _ in range(count)]

    async def asked(self, calls: int) -> None:
        """Waits until the model server has got so many calls, and what follows from that has been done."""
        async with asyncio.timeout(20):
            while len(self.server.calls) < calls:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)


@pytest.fixture
def gateways() -> Gateways:
    return Gateways()


def counted(answers: list[Answer]) -> dict[str, int]:
    statuses = [answer.cache.value for answer in answers]
    return {status: statuses.count(status) for status in sorted(set(statuses))}


async def test_a_thousand_at_once(gateways: Gateways) -> None:
    """Over two gateways: the model is called once."""
    gateways.server.hang()
    tasks = [*gateways.ask(500), *gateways.ask(500, 1)]
    await gateways.asked(1)
    gateways.server.go_on()
    answers = await asyncio.gather(*tasks)
    assert {answer.response for answer in answers} == {ANSWER}
    assert counted(answers) == {"COALESCED": 999, "MISS": 1}
    assert len(gateways.server.calls) == 1
    assert counted(await asyncio.gather(*gateways.ask(5), *gateways.ask(5, 1))) == {"HIT": 10}


async def test_an_error_for_all_who_wait(gateways: Gateways) -> None:
    """In both gateways; it is not kept, and the next call asks the model again."""

    def fail(request: InferenceRequest) -> InferenceResponse:
        raise InferenceFailed("the model failed")

    gateways.server.servables["digits--a"] = fail
    gateways.server.hang()
    tasks = [*gateways.ask(5), *gateways.ask(5, 1)]
    await gateways.asked(1)
    gateways.server.go_on()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert {(type(error), str(error)) for error in errors} == {(InferenceFailed, "the model failed")}
    assert (len(gateways.server.calls), gateways.cache.entries, gateways.cache.leases) == (1, {}, {})
    gateways.server.servables["digits--a"] = lambda request: ANSWER
    assert (await gateways.ask(1)[0]).cache is MISS


async def test_the_first_one_goes(gateways: Gateways) -> None:
    """The client whose request called the model leaves, or its time is up: the others get the answer of that call."""
    gateways.server.hang()
    (leaver,) = gateways.ask(1)
    await gateways.asked(1)
    (late,) = gateways.ask(1, seconds=0.05)
    rest = [*gateways.ask(3), *gateways.ask(3, 1)]
    await asyncio.sleep(0.02)
    leaver.cancel()
    with pytest.raises(DeadlineExceeded):
        await late
    gateways.server.go_on()
    assert counted(await asyncio.gather(*rest)) == {"COALESCED": 6}
    assert (len(gateways.server.calls), gateways.server.cancelled) == (1, 0)


async def test_all_go(gateways: Gateways) -> None:
    """Nobody waits any more: the model server is told, and another gateway that waits asks the model itself."""
    gateways.server.hang()
    tasks = gateways.ask(3)
    await gateways.asked(1)
    (other,) = gateways.ask(1, 1)
    await asyncio.sleep(0.02)
    for task in tasks:
        task.cancel()
    await gateways.asked(2)
    assert gateways.server.cancelled == 1
    gateways.server.go_on()
    assert (await other).cache is MISS


@pytest.mark.parametrize("policy", [CallPolicy(stateful=True), CallPolicy(cache=False)])
async def test_models_that_are_not_cached_share_nothing(gateways: Gateways, policy: CallPolicy) -> None:
    """Each call of a random model, or one with state, is a call."""
    gateways.server.hang()
    tasks = gateways.ask(4, route=replace(MODEL, policy=policy))
    await gateways.asked(4)
    gateways.server.go_on()
    assert counted(await asyncio.gather(*tasks)) == {"BYPASS": 4}


async def test_who_wants_a_new_answer_shares_nothing(gateways: Gateways) -> None:
    """`no-cache` calls the model although such a call is under way."""
    gateways.server.hang()
    tasks = gateways.ask(2)
    await gateways.asked(1)
    fresh = asyncio.create_task(gateways.each[0].infer(MODEL, REQUEST, monotonic() + 60, Saying("no-cache")))
    await gateways.asked(2)
    gateways.server.go_on()
    assert counted([*await asyncio.gather(*tasks), await fresh]) == {"BYPASS": 1, "COALESCED": 1, "MISS": 1}


async def test_the_time_of_a_shared_call(gateways: Gateways) -> None:
    """It may take as long as any call: others may have more time than the first."""
    await gateways.ask(1, seconds=5.0)[0]
    (_, _, timeout) = gateways.server.calls[0]
    assert 5.0 < timeout <= 30.0


async def test_whole_answers_where_pieces_may_come(gateways: Gateways) -> None:
    """They are shared like any other, between those who take pieces and those who do not."""
    gateways.server.hang()
    streams = [*gateways.stream(3), *gateways.stream(3, 1)]
    await gateways.asked(1)
    calls = gateways.ask(2)
    await asyncio.sleep(0.02)
    gateways.server.go_on()
    answers = [answer for answers in await asyncio.gather(*streams) for answer in answers]
    assert counted([*answers, *await asyncio.gather(*calls)]) == {"COALESCED": 7, "MISS": 1}
    assert len(gateways.server.calls) == 1


async def test_pieces_are_not_shared(gateways: Gateways) -> None:
    """The first gets those of the call that was begun; each of the others asks for its own; nothing is kept."""
    gateways.server.servables["digits--a"] = lambda request: in_pieces(b"one", b"two")
    gateways.server.hang()
    streams = [*gateways.stream(3), *gateways.stream(1, 1)]
    await gateways.asked(1)
    (call,) = gateways.ask(1)
    await asyncio.sleep(0.02)
    gateways.server.go_on()
    found = await asyncio.gather(*streams)
    assert [[answer.response.outputs[0].data[4:] for answer in answers] for answers in found] == [[b"one", b"two"]] * 4
    assert counted([answer for answers in found for answer in answers]) == {"BYPASS": 8}
    assert (await call).response.outputs[0].data[4:] == b"onetwo"
    assert len(gateways.server.calls) == 5
    assert (gateways.cache.entries, gateways.cache.leases) == ({}, {})


async def test_pieces_that_nobody_takes(gateways: Gateways) -> None:
    """All leave before the first piece has come: the model server is told."""
    gateways.server.servables["digits--a"] = lambda request: in_pieces(b"one", b"two")
    gateways.server.hang()
    streams = gateways.stream(2)
    await gateways.asked(1)
    for stream in streams:
        stream.cancel()
    async with asyncio.timeout(20):
        while not gateways.server.cancelled:
            await asyncio.sleep(0.001)
    assert gateways.cache.leases == {}


async def test_pieces_whose_takers_leave(gateways: Gateways, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that wants the whole waits for the same model: it asks for itself, and the pieces are given up."""
    monkeypatch.setattr("portico.sharing.UNTAKEN", 0.05)
    gateways.server.servables["digits--a"] = lambda request: in_pieces(b"one", b"two")
    gateways.server.hang()
    streams = gateways.stream(1)
    await gateways.asked(1)
    (call,) = gateways.ask(1)
    await asyncio.sleep(0.02)
    streams[0].cancel()
    gateways.server.go_on()
    assert (await call).response.outputs[0].data[4:] == b"onetwo"
    async with asyncio.timeout(20):
        while asyncio.all_tasks() != {asyncio.current_task()}:
            await asyncio.sleep(0.01)
    assert gateways.routes.leftover() == frozenset()


async def test_pieces_are_not_waited_for_twice(gateways: Gateways) -> None:
    """Of a model that was seen to answer in pieces, each call is a call at once, whatever is under way."""
    gateways.server.servables["digits--a"] = lambda request: in_pieces(b"one", b"two")
    await asyncio.gather(*gateways.stream(1))
    gateways.server.hang()
    tasks = [*gateways.stream(2), *gateways.ask(2)]
    await gateways.asked(5)
    gateways.server.go_on()
    await asyncio.gather(*tasks)


async def test_a_failure_that_nobody_foresaw(gateways: Gateways) -> None:
    """It is raised to all who wait, at once, for streams as for calls; the key is free again."""

    def fail(request: InferenceRequest) -> InferenceResponse:
        raise ValueError("a bug")

    gateways.server.servables["digits--a"] = fail
    async with asyncio.timeout(20):
        found = await asyncio.gather(*gateways.ask(2), *gateways.stream(2), return_exceptions=True)
    assert [str(error) for error in found] == ["a bug"] * 4
    assert gateways.cache.leases == {}


async def test_kept_answers_that_are_too_old(gateways: Gateways) -> None:
    """Those who find the same one too old share one call for a newer."""
    (first,) = await asyncio.gather(*gateways.ask(1))
    assert first.entry is not None
    (digest,) = gateways.cache.entries
    gateways.cache.entries[digest] = replace(
        first.entry, stamp=replace(first.entry.stamp, stored_at=first.entry.stamp.stored_at - 60)
    )
    gateways.server.hang()
    deadline = monotonic() + 60
    young = Saying("max-age=5")
    tasks = [asyncio.create_task(gateways.each[0].infer(MODEL, REQUEST, deadline, young)) for _ in range(10)]
    await gateways.asked(2)
    gateways.server.go_on()
    assert counted(await asyncio.gather(*tasks)) == {"COALESCED": 9, "MISS": 1}
    assert len(gateways.server.calls) == 2


async def test_a_shorter_ttl_holds_at_once(gateways: Gateways) -> None:
    """Also for what was kept under a longer one."""
    (first,) = await asyncio.gather(*gateways.ask(1))
    assert first.entry is not None
    (digest,) = gateways.cache.entries
    gateways.cache.entries[digest] = replace(
        first.entry, stamp=replace(first.entry.stamp, stored_at=first.entry.stamp.stored_at - 60)
    )
    assert (await gateways.ask(1)[0]).cache is HIT
    assert (await gateways.ask(1, route=replace(MODEL, policy=CallPolicy(cache_ttl=30)))[0]).cache is MISS


async def test_closing(gateways: Gateways) -> None:
    """A gateway that stops leaves no call and no task behind."""
    gateways.server.hang()
    tasks = [*gateways.ask(2), *gateways.stream(1)]
    await gateways.asked(1)
    await gateways.each[0].aclose()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert asyncio.all_tasks() == {asyncio.current_task()}
