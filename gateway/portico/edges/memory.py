"""The first level of the cache: whole requests, byte for byte, and the encoded answers that they got. Used by the
edges, before anything is parsed.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from time import time
from typing import NamedTuple

from portico.dispatch import Answer
from portico.edges.asgi import Headers
from portico.edges.cache_headers import CACHE_CONTROL, IF_NONE_MATCH, age, cache_headers
from portico.freshness import CacheStatus, Stamp
from portico.meters import MemoryMeter
from portico.routing import LiveRoutes, Model, RouteTable

MAX_ENTRY = 1 << 20
"""Bytes of a request with its answer that are worth remembering."""
OVERHEAD = 1024
"""Bytes that an entry takes beside those of the request and the answer, about."""
MOST_VARIANTS = 32
"""Answers to the same body with different headers."""


class Moment(NamedTuple):
    """The routes when a request came, and how many purges there had been."""

    table: RouteTable
    purges: int


class Question(NamedTuple):
    """A request as it came: what it was called by (method, path and query), and its body."""

    line: str
    body: bytes


@dataclass(slots=True)
class Remembered:
    """An encoded answer with status 200. `headers` are all but its age, `count` is told that it was asked for."""

    model: Model
    stamp: Stamp
    headers: Headers
    body: bytes
    size: int
    expires: float
    count: Callable[[], None]
    _age: int = -1
    _told: Headers = field(default_factory=list)

    def told(self) -> Headers:
        """The headers, with the answer's age."""
        seconds = self.stamp.age(time())
        if seconds != self._age:
            self._age, self._told = seconds, [*self.headers, age(self.stamp)]
        return self._told


@dataclass(slots=True)
class _Variants:
    """The answers to one question, by the headers that count for it."""

    names: frozenset[bytes]
    by_headers: dict[tuple[tuple[bytes, bytes], ...], Remembered]


class Memory:
    """Up to `max_bytes` of answers, those asked for last.

    An answer is good for as long as its entry lives and its model is as it was when the request came: the table holds
    the same object then. Which headers count is not listed anywhere: those that were read while the answer was made.
    """

    def __init__(self, routes: LiveRoutes, max_bytes: int, meter: MemoryMeter) -> None:
        self._routes = routes
        self._max_bytes = max_bytes
        self._meter = meter
        self._known: OrderedDict[Question, _Variants] = OrderedDict()
        self._bytes = 0
        self._purges = 0

    def moment(self) -> Moment:
        """Now, which `remember` wants to know of the time before the request was looked at."""
        return Moment(self._routes.table, self._purges)

    def recall(self, question: Question, headers: Headers) -> Remembered | None:
        """The answer to the same question with the same headers, if it is still good."""
        if len(question.body) > MAX_ENTRY:  # which takes long to hash
            return None
        variants = self._known.get(question)
        if variants is None:
            return None
        headers_that_count = _counting(headers, variants.names)
        found = variants.by_headers.get(headers_that_count)
        if found is None:
            return None
        if self._routes.table.models.get(found.model.name) is not found.model or found.expires <= time():
            self._drop(question, headers_that_count)
            return None
        self._known.move_to_end(question)
        found.count()
        return found

    def remember(
        self,
        moment: Moment,
        question: Question,
        headers: Headers,
        read: Collection[bytes],
        answer: Answer,
        encoded: tuple[Headers, bytes],
    ) -> None:
        """Keeps an encoded answer (headers, body) if it is an entry of the cache. `read` are the headers that count."""
        entry, model = answer.entry, moment.table.models.get(answer.route.model)
        if entry is None or model is None or moment.purges != self._purges:
            return
        if any(name in (CACHE_CONTROL, IF_NONE_MATCH) for name, _ in headers):
            self._forget(question)  # it may be newer than what is remembered
            return
        names = frozenset((*read, CACHE_CONTROL, IF_NONE_MATCH))
        which = _counting(headers, names)
        size = len(question.line) + len(question.body) + len(encoded[1]) + OVERHEAD + _bytes_of(which)
        if size > min(MAX_ENTRY, self._max_bytes):
            return
        variants = self._known.get(question)
        if variants is None or variants.names != names or len(variants.by_headers) >= MOST_VARIANTS:
            self._forget(question)
            variants = self._known[question] = _Variants(names, {})
        self._known.move_to_end(question)
        self._drop_one(variants, which)
        told = cache_headers(CacheStatus.HIT, entry.stamp)[:-1]
        headers_told, count = [*encoded[0], *told], self._meter.remembered(model.name)
        variants.by_headers[which] = Remembered(
            model, entry.stamp, headers_told, encoded[1], size, entry.stamp.expires, count
        )
        self._grow(1, size)
        while self._bytes > self._max_bytes:
            self._forget(next(iter(self._known)))
            self._meter.evicted()

    def purge(self, model: str) -> None:
        """Forgets the answers of a model, all if the name is empty; also those that are being made just now."""
        self._purges += 1
        for question, variants in list(self._known.items()):
            if not model or any(found.model.name == model for found in variants.by_headers.values()):
                self._forget(question)

    def _forget(self, question: Question) -> None:
        variants = self._known.pop(question, None)
        if variants is not None:
            for which in list(variants.by_headers):
                self._drop_one(variants, which)

    def _drop(self, question: Question, which: tuple[tuple[bytes, bytes], ...]) -> None:
        variants = self._known[question]
        self._drop_one(variants, which)
        if not variants.by_headers:
            del self._known[question]

    def _drop_one(self, variants: _Variants, which: tuple[tuple[bytes, bytes], ...]) -> None:
        gone = variants.by_headers.pop(which, None)
        if gone is not None:
            self._grow(-1, -gone.size)

    def _grow(self, entries: int, size: int) -> None:
        self._bytes += size
        self._meter.grown(entries, size)


def _counting(headers: Headers, names: frozenset[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple([header for header in headers if header[0] in names])


def _bytes_of(headers: tuple[tuple[bytes, bytes], ...]) -> int:
    return sum(len(name) + len(value) for name, value in headers)
