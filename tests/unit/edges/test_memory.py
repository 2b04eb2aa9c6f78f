"""The first level of the cache: which requests it answers by itself, for how long, and within which bounds."""

from collections.abc import Callable
from dataclasses import replace
from time import time
from typing import Any

import pytest

from portico.dispatch import Answer
from portico.edges.asgi import Headers
from portico.edges.memory import MAX_ENTRY, MOST_VARIANTS, OVERHEAD, Memory, Question
from portico.freshness import CacheStatus, Entry
from portico.inference import InferenceResponse
from portico.routing import LiveRoutes, Model, Route, RouteTable, Server, State, Version


class Meter:
    """Implements what `Memory` counts with."""

    def __init__(self) -> None:
        self.entries = self.bytes = self.evictions = 0
        self.hits: list[str] = []

    def remembered(self, model: str) -> Callable[[], None]:
        return lambda: self.hits.append(model)

    def evicted(self) -> None:
        self.evictions += 1

    def grown(self, entries: int, size: int) -> None:
        self.entries += entries
        self.bytes += size


def table(*names: str, fingerprint: str = "print", revision: int = 1) -> RouteTable:
    """One version of each of these models."""
    versions = {
        name: Version("1", State.READY, route=Route(name, "1", Server.TF_SERVING, f"{name}--a", "1", fingerprint))
        for name in names
    }
    return RouteTable({name: Model(name, None, "1", {"1": version}) for name, version in versions.items()}, revision)


class Case:
    """A memory with its routes and meter."""

    def __init__(self, size: int = 1 << 24) -> None:
        self.routes = LiveRoutes(table("iris", "wine"))
        self.meter = Meter()
        self.memory = Memory(self.routes, size, self.meter)

    def remember(
        self, body: bytes, headers: Headers = (), read: Any = (), model: str = "iris", lifetime: float = 60.0
    ) -> None:
        """A whole request: it comes, and is answered by an answer that tells which it is."""
        moment = self.memory.moment()
        self.put(moment, body, headers, read, model, lifetime)

    def put(self, moment: Any, body: bytes, headers: Headers, read: Any, model: str, lifetime: float) -> None:
        route = moment.table.models[model].versions["1"].route
        answer = Answer(route, RESPONSE, CacheStatus.MISS, Entry.of(b"key", RESPONSE, lifetime))
        encoded = [(b"x-own", b"yes")], b"answer to " + body
        self.memory.remember(moment, Question("POST /x?", body), list(headers), read, answer, encoded)

    def recall(self, body: bytes, headers: Headers = ()) -> bytes | None:
        found = self.memory.recall(Question("POST /x?", body), list(headers))
        return found.body if found else None


RESPONSE = InferenceResponse(())


@pytest.fixture
def case() -> Case:
    return Case()


def test_the_same_bytes_get_the_same_answer(case: Case) -> None:
    """To the byte: another body, path or method is another question."""
    case.remember(b"a")
    assert (case.recall(b"a"), case.recall(b"b")) == (b"answer to a", None)
    assert case.memory.recall(Question("PUT /x?", b"a"), []) is None
    found = case.memory.recall(Question("POST /x?", b"a"), [])
    assert found is not None
    told = [(b"x-own", b"yes"), (b"x-cache", b"HIT"), (b"etag", found.stamp.etag.encode())]
    assert (found.headers, found.stamp.lifetime) == (told, 60.0)
    assert case.meter.hits == ["iris", "iris"]


def test_a_new_answer_that_a_client_asked_for_takes_the_old_ones_place(case: Case) -> None:
    """Who sends `no-cache` has a new answer stored: what is remembered of the same request is older."""
    case.remember(b"a")
    case.remember(b"b")
    case.remember(b"a", [(b"cache-control", b"no-cache")])
    assert (case.recall(b"a"), case.recall(b"b")) == (None, b"answer to b")


def test_only_headers_that_were_read_count(case: Case) -> None:
    """Those that the answer was made with have to be the same, as many times and in the same order."""
    case.remember(b"a", [(b"accept", b"x"), (b"x-request-id", b"1")], {b"accept", b"content-type"})
    assert case.recall(b"a", [(b"x-request-id", b"2"), (b"accept", b"x")])
    for headers in ([], [(b"accept", b"y")], [(b"accept", b"x")] * 2, [(b"accept", b"x"), (b"content-type", b"z")]):
        assert case.recall(b"a", headers) is None
    case.remember(b"a", [(b"accept", b"y")], {b"accept", b"content-type"})
    assert case.recall(b"a", [(b"accept", b"x")])
    assert case.recall(b"a", [(b"accept", b"y")])


@pytest.mark.parametrize("header", [(b"cache-control", b"max-age=5"), (b"if-none-match", b"*")])
def test_who_has_a_say_in_caching_is_not_answered_here(case: Case, header: tuple[bytes, bytes]) -> None:
    """Such requests take the long way, which knows what they mean."""
    case.remember(b"a", [header])
    assert case.recall(b"a", [header]) is None
    case.remember(b"a")
    assert case.recall(b"a", [header]) is None
    assert case.recall(b"a")


def test_answers_end_with_their_entry(case: Case) -> None:
    """When the answer's time is over it is gone from here too."""
    case.remember(b"a", lifetime=0)
    assert case.recall(b"a") is None
    assert (case.meter.entries, case.meter.bytes) == (0, 0)


def test_answers_end_with_a_change_of_their_model(case: Case) -> None:
    """Another snapshot with the same model changes nothing; one in which the model differs does."""
    case.remember(b"a")
    case.remember(b"b", model="wine")
    case.routes.replace(table("iris", "wine", "more", revision=2))
    assert case.recall(b"a")
    newer = table("iris", "wine", fingerprint="other", revision=3)
    case.routes.replace(RouteTable({**case.routes.table.models, "iris": newer.models["iris"]}, 3))
    assert case.recall(b"a") is None
    assert case.recall(b"b")
    case.routes.replace(table("iris", "wine", revision=4))
    assert case.recall(b"a") is None
    case.routes.replace(RouteTable())
    assert case.recall(b"b") is None


def test_a_change_while_the_answer_is_made(case: Case) -> None:
    """What was asked of the model as it was is not remembered for the model as it is."""
    moment = case.memory.moment()
    case.routes.replace(table("iris", "wine", fingerprint="other", revision=2))
    case.put(moment, b"a", (), (), "iris", 60.0)
    assert case.recall(b"a") is None
    case.remember(b"a")
    assert case.recall(b"a")


def test_purging(case: Case) -> None:
    """The answers of one model go, or all; also those that are being made just then."""
    case.remember(b"a")
    case.remember(b"b", model="wine")
    moment = case.memory.moment()
    case.memory.purge("iris")
    case.put(moment, b"c", (), (), "iris", 60.0)
    assert [case.recall(body) for body in (b"a", b"b", b"c")] == [None, b"answer to b", None]
    case.memory.purge("")
    assert (case.recall(b"b"), case.meter.entries, case.meter.bytes) == (None, 0, 0)


def test_those_asked_for_last_stay() -> None:
    """When there is no more room, what nobody has asked for the longest makes room."""
    case = Case(size=3 * (OVERHEAD + 50))
    for body in (b"a", b"b", b"c"):
        case.remember(body)
    assert case.recall(b"a")
    case.remember(b"d")
    assert [bool(case.recall(body)) for body in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    assert (case.meter.entries, case.meter.evictions) == (3, 1)
    assert 0 < case.meter.bytes <= 3 * (OVERHEAD + 50)


def test_headers_take_room() -> None:
    """As much as they are long: a client cannot fill a gateway with them."""
    case = Case(size=1 << 20)
    for number in range(100):
        case.remember(b"%d" % number, [(b"x", bytes(50_000))], {b"x"})
    assert 1 < case.meter.entries < 21
    assert case.meter.bytes <= 1 << 20


def test_what_is_not_worth_remembering(case: Case) -> None:
    """Neither what is no entry of the cache, nor what is too large, nor anything in a memory of no size."""
    case.remember(bytes(MAX_ENTRY))
    assert case.recall(bytes(MAX_ENTRY)) is None
    moment = case.memory.moment()
    route = case.routes.table.models["iris"].versions["1"].route
    assert route is not None
    answer = Answer(route, RESPONSE, CacheStatus.BYPASS)
    case.memory.remember(moment, Question("POST /x?", b"a"), [], (), answer, ([], b"answer"))
    gone = replace(answer, route=replace(route, model="gone"), entry=Entry.of(b"key", RESPONSE, time()))
    case.memory.remember(moment, Question("POST /x?", b"a"), [], (), gone, ([], b"answer"))
    assert case.recall(b"a") is None
    none = Case(size=0)
    none.remember(b"a")
    assert none.recall(b"a") is None


def test_many_variants_of_one_request(case: Case) -> None:
    """A client that sends another header each time does not fill the memory with the same body."""
    for number in range(3 * MOST_VARIANTS + 1):
        case.remember(b"a", [(b"x", b"%d" % number)], {b"x"})
        assert case.recall(b"a", [(b"x", b"%d" % number)])
    assert case.meter.entries <= MOST_VARIANTS
    case.memory.purge("iris")
    assert (case.meter.entries, case.meter.bytes) == (0, 0)
