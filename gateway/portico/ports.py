"""The seams to the outside world, as the core sees them. Real adapters are in `backends/` and `caching/`, fakes in
`tests/fakes.py`; `tests/contract/` holds both to the same behaviour.
"""

from collections.abc import AsyncGenerator
from typing import Protocol

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


class ResponseCache(Protocol):
    """Where answers are kept. It never raises: a cache that cannot answer is a cache that misses."""

    async def get(self, key: bytes) -> InferenceResponse | None:
        """The stored answer, or None."""
        ...

    async def put(self, key: bytes, response: InferenceResponse, ttl: int | None = None) -> None:
        """Keeps an answer for `ttl` seconds, or for as long as the stack keeps answers."""
        ...
