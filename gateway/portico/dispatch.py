"""The path of a request, once decoded: resolve the route, look into the cache, call the model server, store the answer.

Every protocol ends up here and none is known here.
"""

from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from time import monotonic, time
from typing import Any, Protocol

from portico.cache_key import CacheKey, cache_key
from portico.calls import Calls
from portico.errors import ModelNotReady, NotCached, PorticoError
from portico.flights import Flights
from portico.freshness import ANY, CacheControl, CacheStatus, Entry, Stamp
from portico.inference import InferenceRequest, InferenceResponse
from portico.ports import Backend, Found, Lease, Meter, NoMeter, ResponseCache
from portico.relay import Relay
from portico.routing import LiveRoutes, Route, RouteTable, Server
from portico.validation import validate


class Caller(Protocol):
    """Who asks, as far as that matters here: a REST request or a gRPC call."""

    def header(self, name: bytes) -> str:
        """The header of this lower-case name, empty if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be kept where a model's policy says nothing, and how long a call may take: seconds, bytes, seconds."""

    ttl: int = 3600
    max_entry_bytes: int = 1 << 20
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer, how it came about, and what is kept of it, if it is kept."""

    route: Route
    response: InferenceResponse
    cache: CacheStatus
    entry: Entry | None = None

    @property
    def stamp(self) -> Stamp | None:
        """Since when it is kept, None if it is not."""
        return self.entry.stamp if self.entry else None


@dataclass(frozen=True, slots=True)
class _Question:
    """`key` is None if the cache is to be left out. `deadline` is on the clock of `time.monotonic`."""

    route: Route
    request: InferenceRequest
    deadline: float
    control: CacheControl
    key: CacheKey | None
    varied: tuple[str, ...] = ()


_Piece = tuple[Route, InferenceResponse]
_Led = Answer | Relay[_Piece]
_Lead = Callable[[_Question, CacheKey, ResponseCache], Coroutine[Any, Any, _Led]]


class Dispatcher:
    """What a protocol hands its requests to. Close it, so that no call is left behind."""

    def __init__(
        self,
        routes: LiveRoutes,
        backends: Mapping[Server, Backend],
        cache: ResponseCache | None,
        limits: Limits | None = None,
        meter: Meter | None = None,
    ) -> None:
        """`cache` is None where answers are not to be kept."""
        self._routes = routes
        self._calls = Calls(routes, backends)
        self._cache = cache
        self._limits = limits or Limits()
        self._meter = meter or NoMeter()
        self._flights: Flights[_Led] = Flights()

    @property
    def table(self) -> RouteTable:
        """The snapshot in force. Raises ModelNotReady before the first one has come."""
        if not self._routes.received:
            raise ModelNotReady("The gateway has not received its routes from the controller yet.")
        return self._routes.table

    def resolve(self, model: str, version: str = "", label: str = "") -> Route:
        """Raises ModelNotFound, VersionNotFound or ModelNotReady."""
        return self.table.resolve(model, version, label)

    async def infer(
        self, route: Route, request: InferenceRequest, deadline: float, caller: Caller | None = None
    ) -> Answer:
        """Answers from the cache, else from the model server, by `deadline` (on the clock of `time.monotonic`).

        What `caller` says in `cache-control` holds. Raises any PorticoError.
        """
        began = monotonic()
        question = self._question(route, request, deadline, caller)
        answer = await self._shared(question, self._lead)
        if not isinstance(answer, Answer):
            answer = await self._call(question)
            self._keep(question, answer)
        self._meter.answered(route.model, answer.cache, monotonic() - began)
        return answer

    async def stream(
        self, route: Route, request: InferenceRequest, deadline: float, caller: Caller | None = None
    ) -> AsyncGenerator[Answer]:
        """Like `infer`, but gives the pieces of an answer as they come. Only whole ones are kept, or shared."""
        began = monotonic()
        question = self._question(route, request, deadline, caller)
        found = await self._shared(question, self._lead_stream)
        if isinstance(found, Answer):
            self._meter.answered(route.model, found.cache, monotonic() - began)
            yield found
            return
        taken = found is not None and found.take()
        pieces = found.pieces() if found and taken else self._calls.pieces(route, request, question.deadline)
        async with aclosing(pieces):
            async for asked, response in pieces:
                answer = self._answer(question, asked, response)
                self._keep(question, answer)
                yield answer
        self._meter.answered(route.model, CacheStatus.BYPASS, monotonic() - began)

    async def aclose(self) -> None:
        """Ends the calls that identical requests share."""
        await self._flights.aclose()

    def _question(self, route: Route, request: InferenceRequest, deadline: float, caller: Caller | None) -> _Question:
        """Raises InvalidRequest."""
        validate(route, request)
        policy = route.policy
        if policy.timeout is not None:
            deadline = min(deadline, monotonic() + policy.timeout)
        said = caller.header(b"cache-control") if caller else ""
        control = CacheControl.parse(said) if said else ANY
        if control.no_store or self._cache is None or not policy.cache or policy.stateful:
            return _Question(route, request, deadline, control, None)
        varied = tuple(caller.header(name.encode()) for name in policy.cache_vary) if caller else ()
        return _Question(route, request, deadline, control, cache_key(route, request, varied), varied)

    async def _shared(self, question: _Question, lead: _Lead) -> _Led | None:
        """What is kept, or what a flight gives; None, or pieces, where this request has to call the model by itself."""
        key, cache, control = question.key, self._cache, question.control
        if control.only_if_cached:
            return await self._only_kept(question)
        if key is None or cache is None or control.no_cache:
            return None
        found, began = await self._flights.join(key.digest, lambda: lead(question, key, cache), question.deadline)
        if not isinstance(found, Answer):
            return found
        if found.cache is CacheStatus.MISS:
            return found if began else replace(found, cache=CacheStatus.COALESCED)
        return found if _young_enough(found, control) else None

    async def _only_kept(self, question: _Question) -> Answer:
        entry = await self._cache.get(question.key) if self._cache and question.key else None
        if entry is not None and not question.control.no_cache:
            answer = Answer(question.route, entry.response, CacheStatus.HIT, entry)
            if _young_enough(answer, question.control):
                return answer
        raise NotCached("No answer is kept that would do, and with 'cache-control: only-if-cached' no model is asked.")

    async def _lead(self, question: _Question, key: CacheKey, cache: ResponseCache) -> _Led:
        """What the first of identical requests does, on behalf of all."""
        return await self._kept_or(question, key, cache, self._call)

    async def _lead_stream(self, question: _Question, key: CacheKey, cache: ResponseCache) -> _Led:
        """The same where the answer may come in pieces, which cannot be shared."""
        return await self._kept_or(question, key, cache, self._first_piece)

    async def _kept_or(
        self,
        question: _Question,
        key: CacheKey,
        cache: ResponseCache,
        call: Callable[[_Question], Coroutine[Any, Any, _Led]],
    ) -> _Led:
        lease = await cache.get_or_lease(key)
        if isinstance(lease, Found):
            status = CacheStatus.COALESCED if lease.waited else CacheStatus.HIT
            return Answer(question.route, lease.entry.response, status, lease.entry)
        # Others may wait for longer than the first of them does.
        longest = self._limits.timeout
        latest = monotonic() + min(question.route.policy.timeout or longest, longest)
        try:
            led = await call(replace(question, deadline=latest))
        except PorticoError as error:
            lease.fail(error)
            raise
        except BaseException:
            lease.release()
            raise
        if isinstance(led, Relay):
            lease.release()
            return led
        self._keep(question, led, lease)
        return led

    async def _call(self, question: _Question) -> Answer:
        asked, response = await self._calls.whole(question.route, question.request, question.deadline)
        return self._answer(question, asked, response)

    async def _first_piece(self, question: _Question) -> _Led:
        source = self._calls.pieces(question.route, question.request, question.deadline)
        relay = Relay(source, question.deadline - monotonic(), self._flights.own)
        asked, response = await relay.first()
        if response.partial:
            return relay
        await relay.aclose()
        return self._answer(question, asked, response)

    def _answer(self, question: _Question, asked: Route, response: InferenceResponse) -> Answer:
        """What the model said, with the entry to keep if it may be kept."""
        key, policy = question.key, asked.policy
        missed = key is not None and not question.control.no_cache and not response.partial
        status = CacheStatus.MISS if missed else CacheStatus.BYPASS
        most = policy.cache_max_entry_bytes or self._limits.max_entry_bytes
        if key is None or not response.may_be_kept or response.size > most:
            return Answer(asked, response, status)
        return Answer(asked, response, status, Entry.of(key.digest, response, policy.cache_ttl or self._limits.ttl))

    def _keep(self, question: _Question, answer: Answer, lease: Lease | None = None) -> None:
        """Stores an answer under the route that gave it, which may be another than the one in the key."""
        entry, own = answer.entry, answer.route is question.route
        if lease is not None and (entry is None or not own):
            lease.release()
        if entry is None or question.key is None or self._cache is None:
            return
        if not own:
            self._cache.put(cache_key(answer.route, question.request, question.varied), entry)
        elif lease is not None:
            lease.fulfil(entry)
        else:
            self._cache.put(question.key, entry)


def _young_enough(answer: Answer, control: CacheControl) -> bool:
    return control.max_age is None or answer.entry is None or answer.entry.stamp.age(time()) <= control.max_age
