"""What identical requests share: an answer that is kept, or else one call of the model. Used by the dispatcher.

Whatever can be shared goes by a request's key; a request without one, or whose client wants it so, asks for itself.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from time import monotonic, time

from portico.cache_key import CacheKey, cache_key
from portico.calls import Calls
from portico.errors import NotCached, PorticoError
from portico.flights import Flights
from portico.freshness import CacheControl, CacheStatus, Entry, Stamp
from portico.inference import InferenceRequest, InferenceResponse
from portico.ports import Found, Lease, Meter, ResponseCache
from portico.routing import Route

UNTAKEN = 1.0
"""Seconds after which the rest of an answer in pieces is given up, if nobody has taken it."""
MOST_KNOWN = 4096
"""How many questions are remembered to be answered in pieces."""


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
class Question:
    """`key` is None if the cache is to be left out; `varied` are the values of the headers that count for it.
    `deadline` is on the clock of `time.monotonic`.
    """

    route: Route
    request: InferenceRequest
    deadline: float
    control: CacheControl
    key: CacheKey | None = None
    varied: tuple[str, ...] = ()


class InPieces:
    """An answer in pieces of which the first has come. One of those who wait for it may take it."""

    def __init__(
        self, first: tuple[Route, InferenceResponse], rest: AsyncGenerator[tuple[Route, InferenceResponse]]
    ) -> None:
        self._first = first
        self._rest = rest
        self._taken = False

    def take(self) -> bool:
        """Whether it is still to be had; who is told so has to take `pieces`, and close them."""
        taken, self._taken = self._taken, True
        return not taken

    async def pieces(self) -> AsyncGenerator[tuple[Route, InferenceResponse]]:
        try:
            yield self._first
            async for piece in self._rest:
                yield piece
        finally:
            await self._rest.aclose()

    async def drop(self) -> None:
        """Gives it up if nobody takes it; at once when cancelled."""
        try:
            await asyncio.sleep(UNTAKEN)
        finally:
            if self.take():
                await self._rest.aclose()


Led = Answer | InPieces
Ask = Callable[[Question], Awaitable[Led]]


class Sharing:
    """`cache` is None where nothing is kept, and nothing shared then. Close it, so that no call is left behind."""

    def __init__(self, calls: Calls, cache: ResponseCache | None, limits: Limits, meter: Meter) -> None:
        self._calls = calls
        self._cache = cache
        self._limits = limits
        self._meter = meter
        self._flights: Flights[Led] = Flights()
        self._in_pieces: set[bytes] = set()

    def is_shared(self, route: Route) -> bool:
        """Whether answers of this model may be kept at all."""
        return self._cache is not None and route.policy.cache and not route.policy.stateful

    async def answer(self, question: Question, ask: Ask) -> Led | None:
        """What is kept, or what `ask` gave to whoever was the first; None where this request has to ask for itself."""
        key, cache, control = question.key, self._cache, question.control
        if control.only_if_cached:
            return await self._only_kept(question)
        if key is None or cache is None or control.no_cache or key.digest in self._in_pieces:
            return None
        led, began = await self._flights.join(
            key.digest, lambda: self._lead(question, key, cache, ask), question.deadline
        )
        if isinstance(led, Answer) and led.cache is CacheStatus.HIT and not self._will_do(led, question):
            # All who find the same one too old share a call as well.
            led, began = await self._flights.join(
                (key.digest, "newer"), lambda: self._anew(question, ask), question.deadline
            )
        if isinstance(led, InPieces):
            return led
        return led if began or led.cache is not CacheStatus.MISS else replace(led, cache=CacheStatus.COALESCED)

    async def whole(self, question: Question) -> Answer:
        """Asks the model, for one answer."""
        asked, response = await self._calls.whole(question.route, question.request, question.deadline)
        return self.answered(question, asked, response)

    async def first(self, question: Question) -> Led:
        """Asks the model, for an answer that may come in pieces."""
        pieces = self._calls.pieces(question.route, question.request, question.deadline)
        asked, response = await anext(pieces)
        if not response.partial:
            await pieces.aclose()
            return self.answered(question, asked, response)
        led = InPieces((asked, response), pieces)
        self._flights.own(asyncio.create_task(led.drop()))
        self._remember(question)
        return led

    def answered(self, question: Question, asked: Route, response: InferenceResponse) -> Answer:
        """What the model said, with the entry to keep if it may be kept."""
        if response.joined:
            self._remember(question)
        key, policy = question.key, asked.policy
        missed = key is not None and not question.control.no_cache and not response.partial
        answer = Answer(asked, response, CacheStatus.MISS if missed else CacheStatus.BYPASS)
        most = policy.cache_max_entry_bytes or self._limits.max_entry_bytes
        # Another policy, which came while the model was at work, may know of no cache, or of other headers.
        if key is None or policy != question.route.policy or not response.may_be_kept or response.size > most:
            return answer
        try:
            return replace(answer, entry=Entry.of(key.digest, response, self._ttl(asked)))
        except PorticoError:  # tensors that nobody can read but the client of the server's own protocol
            return answer

    def keep(self, question: Question, answer: Answer, lease: Lease | None = None) -> None:
        """Stores an answer under the route that gave it, which may be another than the one in the key."""
        entry, key = answer.entry, question.key
        own = answer.route is question.route or answer.route == question.route
        if lease is not None and (entry is None or not own):
            lease.decline()
        if entry is None or key is None or self._cache is None:
            return
        self._meter.kept(answer.route.model, answer.response.size)
        if lease is not None and own:
            lease.fulfil(entry)
        else:
            self._cache.put(key if own else cache_key(answer.route, question.request, question.varied), entry)

    async def aclose(self) -> None:
        """Ends the calls that requests share."""
        await self._flights.aclose()

    async def _only_kept(self, question: Question) -> Answer:
        entry = await self._cache.get(question.key) if self._cache and question.key else None
        if entry is not None and not question.control.no_cache:
            answer = Answer(question.route, entry.response, CacheStatus.HIT, entry)
            if self._will_do(answer, question):
                return answer
        raise NotCached("No answer is kept that would do, and with 'cache-control: only-if-cached' no model is asked.")

    async def _lead(self, question: Question, key: CacheKey, cache: ResponseCache, ask: Ask) -> Led:
        """What the first of identical requests does, on behalf of all."""
        lease = await cache.get_or_lease(key)
        if isinstance(lease, Found):
            status = CacheStatus.COALESCED if lease.waited else CacheStatus.HIT
            entry = lease.entry.until(self._ttl(question.route))
            return Answer(question.route, entry.response, status, entry)
        return await self._anew(question, ask, lease)

    async def _anew(self, question: Question, ask: Ask, lease: Lease | None = None) -> Led:
        # Others may wait for longer than the first of them does.
        longest = self._limits.timeout
        latest = monotonic() + min(question.route.policy.timeout or longest, longest)
        try:
            led = await ask(replace(question, deadline=latest))
        except BaseException as error:
            if lease is not None and isinstance(error, PorticoError):
                lease.fail(error)
            elif lease is not None:
                lease.release()
            raise
        if isinstance(led, Answer):
            self.keep(question, led, lease)
        elif lease is not None:
            lease.decline()
        return led

    def _will_do(self, answer: Answer, question: Question) -> bool:
        """Whether a kept answer is young enough for the client, and for the policy, which may have been changed."""
        most, stamp = question.control.max_age, answer.stamp
        ttl = self._ttl(question.route)
        return stamp is None or stamp.age(time()) <= (ttl if most is None else min(most, ttl))

    def _ttl(self, route: Route) -> int:
        return route.policy.cache_ttl or self._limits.ttl

    def _remember(self, question: Question) -> None:
        """Answers in pieces are neither kept nor shared, so that nobody need wait to see whether the next one is."""
        if question.key is None:
            return
        if len(self._in_pieces) >= MOST_KNOWN:
            self._in_pieces.clear()
        self._in_pieces.add(question.key.digest)
