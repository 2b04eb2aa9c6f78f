"""Fakes of the ports: a model server and a response cache in memory, for tests that want no process beside them.
`tests/contract/` holds them to the behaviour of the real adapters.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from time import time

from portico.cache_key import CacheKey
from portico.codecs import stored
from portico.edges.memory import Memory
from portico.errors import DeadlineExceeded, PorticoError, ServableLost, Unavailable
from portico.freshness import Entry
from portico.inference import InferenceRequest, InferenceResponse, Tensor, pack_bytes, unpack_bytes
from portico.meters import MemoryMeter, PrometheusMeter
from portico.ports import Found, Lease
from portico.routing import LiveRoutes, Route

FakeModel = Callable[[InferenceRequest], InferenceResponse]
"""What a servable computes; it may raise any PorticoError."""


class FakeBackend:
    """Implements `ports.Backend`: servables that are functions, and faults on demand.

    `calls` holds what was asked, (route, request, timeout), whether or not it was answered; `cancelled` counts those
    whose caller did not wait for the answer.
    """

    def __init__(self, servables: Mapping[str, FakeModel] | None = None) -> None:
        self.servables = dict(servables or {})
        self.calls: list[tuple[Route, InferenceRequest, float]] = []
        self.cancelled = 0
        self._down = False
        self._answering = asyncio.Event()
        self._answering.set()

    def hang(self) -> None:
        """From now on nothing is answered."""
        self._answering.clear()

    def go_down(self) -> None:
        """From now on nothing is reached; what waits for an answer gets none."""
        self._down = True
        self._answering.set()

    def go_on(self) -> None:
        """Ends either; what waits is answered."""
        self._down = False
        self._answering.set()

    async def infer(self, route: Route, request: InferenceRequest, timeout: float) -> InferenceResponse:
        response = await self._asked(route, request, timeout)
        pieces = _pieces(response)
        return response if pieces is None else replace(_body(b"".join(pieces), response.content_type), joined=True)

    async def stream(
        self, route: Route, request: InferenceRequest, timeout: float
    ) -> AsyncGenerator[InferenceResponse]:
        """A model's output called "pieces", BYTES, is given element by element; anything else whole.

        Each further piece is waited for like an answer: `hang` and `go_down` hold between them.
        """
        response = await self._asked(route, request, timeout)
        pieces = _pieces(response)
        if pieces is None:
            yield response
            return
        for piece in pieces:
            await self._reached(timeout)
            yield replace(_body(piece, response.content_type), partial=True)

    async def _asked(self, route: Route, request: InferenceRequest, timeout: float) -> InferenceResponse:
        self.calls.append((route, request, timeout))
        await self._reached(timeout)
        model = self.servables.get(route.servable)
        if model is None:
            raise ServableLost("The fake model server was restarted. Try again in a few seconds.")
        return model(request)

    async def ping(self, timeout: float) -> None:
        try:
            await self._reached(timeout)
        except DeadlineExceeded as error:
            raise Unavailable(str(error)) from error

    async def _reached(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._answering.wait()
        except TimeoutError:
            raise DeadlineExceeded("The fake model server did not answer in time.") from None
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self._down:
            raise Unavailable("The fake model server cannot be reached now.")


def in_pieces(*pieces: bytes) -> InferenceResponse:
    """What a fake model returns to answer in these pieces."""
    return InferenceResponse((Tensor("pieces", "BYTES", (len(pieces),), pack_bytes(pieces)),))


def _pieces(response: InferenceResponse) -> list[bytes] | None:
    if [output.name for output in response.outputs] != ["pieces"]:
        return None
    return list(unpack_bytes(response.outputs[0].data))


def _body(body: bytes, content_type: str) -> InferenceResponse:
    return InferenceResponse((Tensor("body", "BYTES", (1,), pack_bytes([body])),), content_type)


class FakeCache:
    """Implements `ports.ResponseCache`: dictionaries, and misses while `gone`. Nobody dies who has a lease."""

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.leases: dict[bytes, FakeLease] = {}
        self.gone = False

    async def get(self, key: CacheKey) -> Entry | None:
        entry = self.entries.get(key.digest)
        return entry if entry and time() < entry.stamp.expires and not self.gone else None

    async def get_or_lease(self, key: CacheKey) -> Found | Lease:
        waited = False
        while True:
            if (entry := await self.get(key)) is not None:
                return Found(entry, waited)
            theirs = self.leases.get(key.digest)
            if theirs is None:
                ours = FakeLease(self, key)
                if not self.gone:
                    self.leases[key.digest] = ours
                return ours
            waited = True
            await theirs.ended.wait()
            if theirs.declined:
                return FakeLease(self, key)
            if theirs.error is not None:
                raise theirs.error

    def put(self, key: CacheKey, entry: Entry) -> None:
        if not self.gone:
            self.entries[key.digest] = entry


class FakeLease:
    """Implements `ports.Lease`; `error` is what those who wait are told."""

    def __init__(self, cache: FakeCache, key: CacheKey) -> None:
        self._cache, self._key = cache, key
        self.ended = asyncio.Event()
        self.error: PorticoError | None = None
        self.declined = False

    def fulfil(self, entry: Entry) -> None:
        self._cache.put(self._key, entry)
        self.release()

    def fail(self, error: PorticoError) -> None:
        # Not the error itself: its traceback has all that the call had.
        said = stored.dump_error(error)
        self.error = stored.load_error(said) if said else None
        self.release()

    def decline(self) -> None:
        self.declined = True
        self.release()

    def release(self) -> None:
        if self._cache.leases.get(self._key.digest) is self:
            del self._cache.leases[self._key.digest]
        self.ended.set()


class Saying:
    """Implements `dispatch.Caller`: a client with these headers."""

    def __init__(self, cache_control: str, headers: Mapping[bytes, str] | None = None) -> None:
        self._headers = {b"cache-control": cache_control, **(headers or {})}

    def header(self, name: bytes) -> str:
        return self._headers.get(name, "")


def no_memory() -> Memory:
    """The first level of a cache that remembers nothing."""
    return Memory(LiveRoutes(), 0, MemoryMeter(PrometheusMeter()))
