"""The seams to the outside world, as the core sees them. Real adapters are in `backends/` and `caching/`, fakes in
`tests/fakes.py`; `tests/contract/` holds both to the same behaviour.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from portico.cache_key import CacheKey
from portico.errors import PorticoError
from portico.freshness import CacheStatus, Entry
from portico.inference import InferenceRequest, InferenceResponse
from portico.routing import Route


class Backend(Protocol):
    """A model server, seen from the path of a request."""

    async def infer(self, route: Route, request: InferenceRequest, timeout: float) -> InferenceResponse:
        """Calls the model within `timeout` seconds.

        Raises InvalidRequest, InferenceFailed, Overloaded, Unavailable or DeadlineExceeded.
        """
        ...

    def stream(self, route: Route, request: InferenceRequest, timeout: float) -> AsyncGenerator[InferenceResponse]:
        """Like `infer`, for models that may answer in pieces: gives each, `partial`, as it comes; else the one answer.

        A model that answers in pieces can be asked by `infer` as well, which gives the pieces as one.
        """
        ...

    async def ping(self, timeout: float) -> None:
        """Returns if the server answers within `timeout` seconds, else raises Unavailable."""
        ...


class Lease(Protocol):
    """The right of one gateway to ask the model, while others that want the same answer wait for it.

    Exactly one of the methods ends it, and returns at once. A lease that nobody ends is over after a few seconds.
    """

    def fulfil(self, entry: Entry) -> None:
        """Keeps the answer, which those who wait get too."""
        ...

    def fail(self, error: PorticoError) -> None:
        """Those who wait get this error; nothing is kept."""
        ...

    def release(self) -> None:
        """Nobody asks the model any more: one of those who wait may."""
        ...

    def decline(self) -> None:
        """The answer is none to be shared: each of those who wait has to ask for itself."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """An entry, and whether another gateway's lease was waited for to get it."""

    entry: Entry
    waited: bool = False


class ResponseCache(Protocol):
    """Where answers are kept. A cache that cannot answer is a cache that misses; it raises no error of its own."""

    async def get(self, key: CacheKey) -> Entry | None:
        """What is kept, or None."""
        ...

    async def get_or_lease(self, key: CacheKey) -> Found | Lease:
        """What is kept, or else the lease to ask the model. While another gateway has that, this waits.

        One gateway asks for a key again only when what it was told last has come to its end.

        Raises the PorticoError that the other one ran into.
        """
        ...

    def put(self, key: CacheKey, entry: Entry) -> None:
        """Keeps an entry. Returns at once."""
        ...


class Meter(Protocol):
    """Counts what becomes of requests."""

    def answered(self, model: str, status: CacheStatus, seconds: float) -> None:
        """A call of a model was answered, by the cache or by the model server, in so many seconds."""
        ...

    def failed(self, model: str, error: PorticoError) -> None:
        """A call of a model ended in an error."""
        ...

    def kept(self, model: str, size: int) -> None:
        """An answer of so many bytes was stored."""
        ...


class NoMeter:
    """Implements `Meter`: counts nothing."""

    def answered(self, model: str, status: CacheStatus, seconds: float) -> None:
        pass

    def failed(self, model: str, error: PorticoError) -> None:
        pass

    def kept(self, model: str, size: int) -> None:
        pass
