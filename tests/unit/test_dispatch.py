"""The path of a request, over fakes: validate, look into the cache, call the model server, store the answer."""

import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from time import monotonic, time

import pytest

from fakes import FakeBackend, FakeCache, Saying, in_pieces
from portico import calls as module
from portico.cache_key import cache_key
from portico.dispatch import Dispatcher, Limits
from portico.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    NotCached,
    ServableLost,
)
from portico.freshness import CacheStatus, Entry, Stamp
from portico.inference import InferenceRequest, InferenceResponse, Tensor, pack_bytes
from portico.routing import (
    CallPolicy,
    LiveRoutes,
    Model,
    Route,
    RouteTable,
    Server,
    Signature,
    State,
    TensorSpec,
    Version,
)

SIGNATURES = {"serving_default": Signature((TensorSpec("x", "INT8", (1,)),), (TensorSpec("y", "INT8", (1,)),))}
IRIS = Route("iris", "1", Server.TF_SERVING, "iris--a", "1", "print", SIGNATURES)
DIGITS = Route("digits", "1", Server.TORCHSERVE, "digits--a", "1", "print")
TABLE = RouteTable({"iris": Model("iris", Server.TF_SERVING, "1", {"1": Version("1", State.READY, route=IRIS)})})
REQUEST = InferenceRequest((Tensor("x", "INT8", (1,), b"\3"),))
OTHER = InferenceRequest((Tensor("x", "INT8", (1,), b"\4"),))
OLD = Entry(InferenceResponse(()), Stamp(time(), 3600, b"old tag"))


def answer(request: InferenceRequest) -> InferenceResponse:
    return InferenceResponse((Tensor("y", "INT8", (1,), request.inputs[0].data),))


def fail(request: InferenceRequest) -> InferenceResponse:
    raise InferenceFailed("the model failed")


@pytest.fixture
def tf_serving() -> FakeBackend:
    return FakeBackend({"iris--a": answer})


@pytest.fixture
def torchserve() -> FakeBackend:
    return FakeBackend({"digits--a": answer})


@pytest.fixture
def cache() -> FakeCache:
    return FakeCache()


@pytest.fixture
def dispatcher(tf_serving: FakeBackend, torchserve: FakeBackend, cache: FakeCache) -> Dispatcher:
    backends = {Server.TF_SERVING: tf_serving, Server.TORCHSERVE: torchserve}
    return Dispatcher(LiveRoutes(TABLE), backends, cache)


def soon() -> float:
    return monotonic() + 60


async def test_a_miss_and_then_a_hit(dispatcher: Dispatcher, tf_serving: FakeBackend) -> None:
    """The first call reaches the model server, the same call again is answered by the cache alone."""
    first = await dispatcher.infer(IRIS, REQUEST, soon())
    second = await dispatcher.infer(IRIS, REQUEST, soon())
    assert (first.cache, second.cache) == (CacheStatus.MISS, CacheStatus.HIT)
    assert first.response == second.response == answer(REQUEST)
    assert first.route is second.route is IRIS
    assert len(tf_serving.calls) == 1


async def test_another_request_is_another_answer(dispatcher: Dispatcher, tf_serving: FakeBackend) -> None:
    """A request that differs is not answered by what was kept for the first."""
    await dispatcher.infer(IRIS, REQUEST, soon())
    found = await dispatcher.infer(IRIS, OTHER, soon())
    assert (found.cache, found.response) == (CacheStatus.MISS, answer(OTHER))
    assert [request for _, request, _ in tf_serving.calls] == [REQUEST, OTHER]


async def test_answers_that_are_not_to_be_stored(
    dispatcher: Dispatcher, tf_serving: FakeBackend, cache: FakeCache
) -> None:
    """`no-store` gets an answer from the model server, whatever is kept, and it is not kept."""
    no_store = Saying("no-store")
    assert (await dispatcher.infer(IRIS, REQUEST, soon(), no_store)).cache is CacheStatus.BYPASS
    assert not cache.entries
    cache.put(cache_key(IRIS, REQUEST), OLD)
    found = await dispatcher.infer(IRIS, REQUEST, soon(), no_store)
    assert (found.cache, found.response, found.entry) == (CacheStatus.BYPASS, answer(REQUEST), None)
    assert len(tf_serving.calls) == 2
    assert list(cache.entries.values()) == [OLD]


async def test_fresh_answers(dispatcher: Dispatcher, tf_serving: FakeBackend, cache: FakeCache) -> None:
    """`no-cache` gets an answer from the model server, whatever is kept, and that is what is kept from then on."""
    cache.put(cache_key(IRIS, REQUEST), OLD)
    found = await dispatcher.infer(IRIS, REQUEST, soon(), Saying("no-cache"))
    assert (found.cache, found.response) == (CacheStatus.BYPASS, answer(REQUEST))
    again = await dispatcher.infer(IRIS, REQUEST, soon())
    assert (again.cache, again.response, len(tf_serving.calls)) == (CacheStatus.HIT, answer(REQUEST), 1)


@pytest.mark.parametrize(("seconds", "status"), [(5, CacheStatus.MISS), (3600, CacheStatus.HIT)])
async def test_answers_of_an_age(dispatcher: Dispatcher, cache: FakeCache, seconds: int, status: CacheStatus) -> None:
    """`max-age` takes a kept answer that is young enough; else the model is asked, and its answer kept."""
    old = replace(OLD, stamp=replace(OLD.stamp, stored_at=time() - 60))
    cache.put(cache_key(IRIS, REQUEST), old)
    found = await dispatcher.infer(IRIS, REQUEST, soon(), Saying(f"max-age={seconds}"))
    assert (found.cache, found.entry == old) == (status, status is CacheStatus.HIT)
    assert (await dispatcher.infer(IRIS, REQUEST, soon(), Saying("max-age=5"))).cache is (
        CacheStatus.HIT if status is CacheStatus.MISS else CacheStatus.MISS
    )


async def test_only_what_is_kept(dispatcher: Dispatcher, tf_serving: FakeBackend, cache: FakeCache) -> None:
    """`only-if-cached` gets what is kept, if it is young enough and may be used, and never calls a model."""
    for said in ("only-if-cached", "only-if-cached, no-cache", "only-if-cached, no-store"):
        with pytest.raises(NotCached):
            await dispatcher.infer(IRIS, REQUEST, soon(), Saying(said))
    cache.put(cache_key(IRIS, REQUEST), replace(OLD, stamp=replace(OLD.stamp, stored_at=time() - 60)))
    assert (await dispatcher.infer(IRIS, REQUEST, soon(), Saying("only-if-cached"))).cache is CacheStatus.HIT
    for said in ("only-if-cached, max-age=5", "only-if-cached, no-cache", "only-if-cached, no-store"):
        with pytest.raises(NotCached):
            await dispatcher.infer(IRIS, REQUEST, soon(), Saying(said))
    assert not tf_serving.calls


async def test_tenants(dispatcher: Dispatcher, tf_serving: FakeBackend) -> None:
    """Callers that differ in a header that the policy names do not share answers; other headers make no difference."""
    route = replace(IRIS, policy=CallPolicy(cache_vary=("x-tenant",)))
    callers = [Saying("", {b"x-tenant": tenant, b"x-other": str(n)}) for n, tenant in enumerate(["a", "b", "a", ""])]
    statuses = [(await dispatcher.infer(route, REQUEST, soon(), caller)).cache.value for caller in callers]
    assert (statuses, len(tf_serving.calls)) == (["MISS", "MISS", "HIT", "MISS"], 3)


async def test_tenants_when_the_header_changes(dispatcher: Dispatcher) -> None:
    """A value of the one header is not taken for the same value of another that the policy names later."""
    callers = {name: Saying("", {name.encode(): "alice"}) for name in ("x-tenant", "x-user")}
    for name, caller in callers.items():
        route = replace(IRIS, policy=CallPolicy(cache_vary=(name,)))
        assert (await dispatcher.infer(route, REQUEST, soon(), caller)).cache is CacheStatus.MISS


class Counts:
    """Implements `ports.Meter`."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def answered(self, model: str, status: CacheStatus, seconds: float) -> None:
        self.seen.append((model, status.value))

    def failed(self, model: str, error: Exception) -> None:
        self.seen.append((model, type(error).__name__))

    def kept(self, model: str, size: int) -> None:
        self.seen.append((model, f"{size} B"))


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_is_counted(torchserve: FakeBackend, cache: FakeCache, streamed: bool) -> None:
    """Each answer once, also if nobody takes more than its first piece; each error; each answer that is kept."""
    meter = Counts()
    dispatcher = Dispatcher(LiveRoutes(), {Server.TORCHSERVE: torchserve}, cache, meter=meter)

    async def ask(caller: Saying | None = None) -> None:
        if streamed:
            answers = dispatcher.stream(DIGITS, REQUEST, soon(), caller)
            await anext(answers)
            await answers.aclose()
        else:
            await dispatcher.infer(DIGITS, REQUEST, soon(), caller)

    for caller in (Saying("no-store"), None, None):
        await ask(caller)
    torchserve.servables["digits--a"] = fail
    with pytest.raises(InferenceFailed):
        await ask(Saying("no-store"))
    expected = ["BYPASS", "1 B", "MISS", "HIT", "InferenceFailed"]
    assert meter.seen == [("digits", what) for what in expected]


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("policy", [CallPolicy(stateful=True), CallPolicy(cache_vary=("x-tenant",))])
async def test_another_policy_while_the_model_works(
    tf_serving: FakeBackend, cache: FakeCache, policy: CallPolicy
) -> None:
    """What was asked under one policy is not kept under another."""
    newer = replace(IRIS, servable="iris--b", policy=policy)
    routes = LiveRoutes(TABLE)

    def lost(request: InferenceRequest) -> InferenceResponse:
        version = Version("1", State.READY, route=newer)
        routes.replace(RouteTable({"iris": Model("iris", Server.TF_SERVING, "1", {"1": version})}))
        raise ServableLost("restarted")

    tf_serving.servables = {"iris--a": lost, "iris--b": answer}
    await Dispatcher(routes, {Server.TF_SERVING: tf_serving}, cache).infer(IRIS, REQUEST, soon())
    assert cache.entries == {}


async def test_large_answers(dispatcher: Dispatcher, cache: FakeCache) -> None:
    """An answer larger than the policy allows is given and not kept."""
    for size, kept in ((1, 1), (0, 0)):
        cache.entries.clear()
        found = replace(IRIS, policy=CallPolicy(cache_max_entry_bytes=size))
        if not size:
            found = replace(IRIS, fingerprint="other")
            dispatcher._sharing._limits = Limits(max_entry_bytes=0)
        answered = await dispatcher.infer(found, REQUEST, soon())
        assert (answered.cache, answered.entry is not None, len(cache.entries)) == (CacheStatus.MISS, bool(kept), kept)


async def test_without_a_cache(tf_serving: FakeBackend) -> None:
    """Where answers are not kept, each call reaches the model server."""
    dispatcher = Dispatcher(LiveRoutes(TABLE), {Server.TF_SERVING: tf_serving}, None)
    statuses = [(await dispatcher.infer(IRIS, REQUEST, soon())).cache for _ in range(2)]
    assert statuses == [CacheStatus.BYPASS] * 2
    assert len(tf_serving.calls) == 2


async def test_a_cache_that_is_gone(dispatcher: Dispatcher, tf_serving: FakeBackend, cache: FakeCache) -> None:
    """While the cache does not answer, each call is a miss and is answered."""
    cache.gone = True
    statuses = [(await dispatcher.infer(IRIS, REQUEST, soon())).cache for _ in range(2)]
    assert statuses == [CacheStatus.MISS] * 2
    assert len(tf_serving.calls) == 2


async def test_each_model_goes_to_its_server(
    dispatcher: Dispatcher, tf_serving: FakeBackend, torchserve: FakeBackend
) -> None:
    """A call reaches the model server of its route, and no other."""
    await dispatcher.infer(DIGITS, REQUEST, soon())
    assert [route for route, _, _ in torchserve.calls] == [DIGITS]
    assert not tf_serving.calls


async def test_the_deadline_is_passed_on(dispatcher: Dispatcher, tf_serving: FakeBackend) -> None:
    """The model server gets the time that is left until the deadline, and not more."""
    before = monotonic()
    await dispatcher.infer(IRIS, REQUEST, before + 60)
    _, _, timeout = tf_serving.calls[0]
    assert 0 < timeout <= 60


async def test_a_deadline_that_has_passed(dispatcher: Dispatcher, tf_serving: FakeBackend, cache: FakeCache) -> None:
    """A model server is not called for a caller whose time is up."""
    with pytest.raises(DeadlineExceeded):
        await dispatcher.infer(IRIS, REQUEST, monotonic())
    assert not tf_serving.calls
    assert not cache.entries


async def test_a_deadline_that_is_near(dispatcher: Dispatcher, tf_serving: FakeBackend) -> None:
    """As long as there is any time left, the model server is asked."""
    await dispatcher.infer(IRIS, REQUEST, monotonic() + 0.9)
    assert len(tf_serving.calls) == 1


async def test_errors_are_not_kept(dispatcher: Dispatcher, tf_serving: FakeBackend, cache: FakeCache) -> None:
    """A failure is raised as it is and not kept: the next call reaches the model server again."""
    tf_serving.servables["iris--a"] = fail
    with pytest.raises(InferenceFailed, match="the model failed"):
        await dispatcher.infer(IRIS, REQUEST, soon())
    assert not cache.entries
    tf_serving.servables["iris--a"] = answer
    assert (await dispatcher.infer(IRIS, REQUEST, soon())).cache is CacheStatus.MISS


async def test_what_does_not_fit_is_refused_here(dispatcher: Dispatcher, tf_serving: FakeBackend) -> None:
    """A request that the signature refuses reaches neither the cache nor the model server, fresh or not."""
    for fresh in (False, True):
        with pytest.raises(InvalidRequest, match="'x'"):
            await dispatcher.infer(
                IRIS,
                InferenceRequest((Tensor("x", "INT8", (2,), b"ab"),)),
                soon(),
                Saying("no-cache") if fresh else None,
            )
    assert not tf_serving.calls


async def test_resolving(dispatcher: Dispatcher) -> None:
    """Names are resolved in the snapshot in force."""
    assert dispatcher.resolve("iris", "1") is IRIS
    assert dispatcher.table is TABLE
    with pytest.raises(ModelNotFound):
        dispatcher.resolve("digits")


async def test_before_the_first_snapshot() -> None:
    """Before any routes have come no model is unknown, the gateway is not ready; an empty snapshot does say it."""
    routes = LiveRoutes()
    dispatcher = Dispatcher(routes, {}, None)
    with pytest.raises(ModelNotReady, match="controller"):
        dispatcher.resolve("iris")
    routes.replace(RouteTable())
    with pytest.raises(ModelNotFound, match="repository is empty"):
        dispatcher.resolve("iris")


@pytest.mark.parametrize("policy", [CallPolicy(cache=False), CallPolicy(stateful=True)])
async def test_a_policy_keeps_a_model_out_of_the_cache(
    dispatcher: Dispatcher, tf_serving: FakeBackend, cache: FakeCache, policy: CallPolicy
) -> None:
    """Each call of a model that says so, or that keeps state, reaches the model server."""
    route = replace(IRIS, policy=policy)
    statuses = [(await dispatcher.infer(route, REQUEST, soon())).cache for _ in range(2)]
    assert (statuses, len(tf_serving.calls), cache.entries) == ([CacheStatus.BYPASS] * 2, 2, {})


async def test_a_policy_says_how_long_answers_are_kept(dispatcher: Dispatcher, cache: FakeCache) -> None:
    """In place of what the stack says."""
    await dispatcher.infer(replace(IRIS, policy=CallPolicy(cache_ttl=7)), REQUEST, soon())
    assert cache.entries[cache_key(IRIS, REQUEST).digest].stamp.lifetime == 7


async def test_a_policy_says_how_long_a_call_may_take(dispatcher: Dispatcher, tf_serving: FakeBackend) -> None:
    """The shorter of the client's deadline and the policy's timeout holds."""
    await dispatcher.infer(replace(IRIS, policy=CallPolicy(timeout=5.0)), REQUEST, soon())
    await dispatcher.infer(replace(IRIS, policy=CallPolicy(timeout=500.0)), OTHER, soon())
    (_, _, first), (_, _, second) = tf_serving.calls
    assert first <= 5 < second <= 60


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOST_PAUSES", (0.0,) * 3)


@pytest.mark.usefixtures("no_pauses")
async def test_a_model_that_a_replica_has_lost_is_asked_for_again(tf_serving: FakeBackend, cache: FakeCache) -> None:
    """By the route of that moment, whose answer is kept under that route's content alone."""
    newer = replace(IRIS, servable="iris--b", fingerprint="other print")
    routes = LiveRoutes(TABLE)
    tf_serving.servables = {"iris--b": answer}

    def lost(request: InferenceRequest) -> InferenceResponse:
        version = Version("1", State.READY, route=newer)
        routes.replace(RouteTable({"iris": Model("iris", Server.TF_SERVING, "1", {"1": version})}))
        raise ServableLost("restarted")

    tf_serving.servables["iris--a"] = lost
    found = await Dispatcher(routes, {Server.TF_SERVING: tf_serving}, cache).infer(IRIS, REQUEST, soon())
    assert (found.route, found.response) == (newer, answer(REQUEST))
    assert list(cache.entries) == [cache_key(newer, REQUEST).digest]


@pytest.mark.usefixtures("no_pauses")
async def test_a_model_that_stays_lost_is_an_error(tf_serving: FakeBackend, cache: FakeCache) -> None:
    """After a few attempts the client gets the reason; nothing is kept."""
    tf_serving.servables = {}
    dispatcher = Dispatcher(LiveRoutes(TABLE), {Server.TF_SERVING: tf_serving}, cache)
    with pytest.raises(ServableLost):
        await dispatcher.infer(IRIS, REQUEST, soon())
    assert (len(tf_serving.calls), cache.entries) == (4, {})


async def test_no_attempt_is_made_after_the_deadline(tf_serving: FakeBackend) -> None:
    """A client's deadline ends the attempts, however many are left."""
    tf_serving.servables = {}
    dispatcher = Dispatcher(LiveRoutes(TABLE), {Server.TF_SERVING: tf_serving}, None)
    with pytest.raises(ServableLost):
        await dispatcher.infer(IRIS, REQUEST, monotonic() + 0.02)
    assert len(tf_serving.calls) == 2


@pytest.mark.parametrize("model", [answer, fail])
async def test_what_calls_use_is_known(
    tf_serving: FakeBackend, model: Callable[[InferenceRequest], InferenceResponse]
) -> None:
    """While a call is under way its servable is in use, also when no route leads there any more; then it is not."""
    routes = LiveRoutes(TABLE)
    seen = []

    def look(request: InferenceRequest) -> InferenceResponse:
        seen.append(routes.leftover())
        routes.replace(RouteTable())
        seen.append(routes.leftover())
        return model(request)

    tf_serving.servables = {"iris--a": look}
    dispatcher = Dispatcher(routes, {Server.TF_SERVING: tf_serving}, None)
    with contextlib.suppress(InferenceFailed):
        await dispatcher.infer(IRIS, REQUEST, soon())
    assert [*seen, routes.leftover()] == [frozenset(), frozenset({"iris--a"}), frozenset()]


async def given(dispatcher: Dispatcher, route: Route = DIGITS, *, fresh: bool = False) -> list[tuple[bytes, str]]:
    """(bytes of the first output, what the cache had to do with it) of all that `stream` gives."""
    stream = dispatcher.stream(route, REQUEST, soon(), Saying("no-cache") if fresh else None)
    return [(entry.response.outputs[0].data, entry.cache.value) async for entry in stream]


async def test_a_stream_of_a_whole_answer(dispatcher: Dispatcher, torchserve: FakeBackend) -> None:
    """A model that answers whole is streamed as that one answer, which is kept for streams and calls alike."""
    assert [await given(dispatcher) for _ in range(2)] == [[(b"\3", "MISS")], [(b"\3", "HIT")]]
    assert (await dispatcher.infer(DIGITS, REQUEST, soon())).cache is CacheStatus.HIT
    assert await given(dispatcher, fresh=True) == [(b"\3", "BYPASS")]
    assert len(torchserve.calls) == 2


async def test_a_stream_of_pieces(dispatcher: Dispatcher, torchserve: FakeBackend, cache: FakeCache) -> None:
    """Pieces are given one by one, and none of them is kept."""
    torchserve.servables["digits--a"] = lambda request: in_pieces(b"one", b"two")
    pieces = [(pack_bytes([b"one"]), "BYPASS"), (pack_bytes([b"two"]), "BYPASS")]
    assert [await given(dispatcher) for _ in range(2)] == [pieces] * 2
    assert (len(torchserve.calls), cache.entries) == (2, {})


async def test_pieces_asked_for_as_one(dispatcher: Dispatcher, torchserve: FakeBackend) -> None:
    """A model that answers in pieces answers a call with all of them as one, which is not kept either."""
    torchserve.servables["digits--a"] = lambda request: in_pieces(b"one", b"two")
    answers = [await dispatcher.infer(DIGITS, REQUEST, soon()) for _ in range(2)]
    assert {entry.response.outputs[0].data for entry in answers} == {pack_bytes([b"onetwo"])}
    assert len(torchserve.calls) == 2


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_with_a_status_of_its_own(
    dispatcher: Dispatcher, torchserve: FakeBackend, cache: FakeCache, streamed: bool
) -> None:
    """An answer that is more than its outputs is not kept."""
    torchserve.servables["digits--a"] = lambda request: replace(answer(request), status=202)
    for _ in range(2):
        if streamed:
            await given(dispatcher)
        else:
            assert (await dispatcher.infer(DIGITS, REQUEST, soon())).response.status == 202
    assert (len(torchserve.calls), cache.entries) == (2, {})


async def test_a_stream_is_validated(dispatcher: Dispatcher, tf_serving: FakeBackend) -> None:
    """A stream that the signature refuses reaches no model server, and one whose time is up neither."""
    with pytest.raises(InvalidRequest, match="'x'"):
        await anext(dispatcher.stream(IRIS, InferenceRequest((Tensor("x", "INT8", (2,), b"ab"),)), soon()))
    with pytest.raises(DeadlineExceeded):
        await anext(dispatcher.stream(IRIS, REQUEST, monotonic()))
    assert not tf_serving.calls


@pytest.mark.parametrize("policy", [CallPolicy(cache=False), CallPolicy(stateful=True), CallPolicy(timeout=5.0)])
async def test_a_policy_holds_for_streams(dispatcher: Dispatcher, torchserve: FakeBackend, policy: CallPolicy) -> None:
    """What a policy says of the cache and of the time holds for streams, too."""
    route = replace(DIGITS, policy=policy)
    statuses = [(await given(dispatcher, route))[0][1] for _ in range(2)]
    assert statuses == (["MISS", "HIT"] if policy.timeout else ["BYPASS"] * 2)
    assert torchserve.calls[0][2] <= (policy.timeout or 60)


@pytest.mark.usefixtures("no_pauses")
async def test_a_lost_model_is_streamed_again(torchserve: FakeBackend, cache: FakeCache) -> None:
    """By the route of that moment, as long as no piece has come; its answer is kept under that route's content."""
    newer = replace(DIGITS, servable="digits--b", fingerprint="other print")
    routes = LiveRoutes()
    torchserve.servables = {"digits--b": answer}

    def lost(request: InferenceRequest) -> InferenceResponse:
        version = Version("1", State.READY, route=newer)
        routes.replace(RouteTable({"digits": Model("digits", Server.TORCHSERVE, "1", {"1": version})}))
        raise ServableLost("restarted")

    torchserve.servables["digits--a"] = lost
    assert await given(Dispatcher(routes, {Server.TORCHSERVE: torchserve}, cache)) == [(b"\3", "MISS")]
    assert list(cache.entries) == [cache_key(newer, REQUEST).digest]


@pytest.mark.usefixtures("no_pauses")
async def test_a_model_that_stays_lost_is_an_error_of_a_stream(torchserve: FakeBackend) -> None:
    """After a few attempts the reason is raised."""
    torchserve.servables = {}
    dispatcher = Dispatcher(LiveRoutes(TABLE), {Server.TORCHSERVE: torchserve}, None)
    with pytest.raises(ServableLost):
        await given(dispatcher)
    assert len(torchserve.calls) == 4


@pytest.mark.usefixtures("no_pauses")
async def test_a_stream_that_was_begun_is_not_begun_anew() -> None:
    """Once a piece has come, a model that is lost ends the stream: its beginning cannot be taken back."""

    class Losing(FakeBackend):
        async def stream(
            self, route: Route, request: InferenceRequest, timeout: float
        ) -> AsyncGenerator[InferenceResponse]:
            yield replace(await self.infer(route, request, timeout), partial=True)
            raise ServableLost("restarted")

    backend = Losing({"digits--a": answer})
    stream = Dispatcher(LiveRoutes(TABLE), {Server.TORCHSERVE: backend}, None).stream(DIGITS, REQUEST, soon())
    await anext(stream)
    with pytest.raises(ServableLost):
        await anext(stream)
    assert len(backend.calls) == 1


async def test_what_streams_use_is_known(torchserve: FakeBackend) -> None:
    """A servable is in use until its stream has ended, or was closed between two pieces."""
    routes = LiveRoutes(TABLE)
    dispatcher = Dispatcher(routes, {Server.TORCHSERVE: torchserve}, None)
    torchserve.servables["digits--a"] = lambda request: in_pieces(b"one", b"two")
    stream = dispatcher.stream(DIGITS, REQUEST, soon())
    await anext(stream)
    assert routes.leftover() == {"digits--a"}
    await stream.aclose()
    assert routes.leftover() == frozenset()
    assert len(await given(dispatcher)) == 2
    assert routes.leftover() == frozenset()
