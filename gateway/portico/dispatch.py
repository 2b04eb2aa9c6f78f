"""The path of a request, once decoded: resolve the route, look into the cache, call the model server, store the answer.

Every protocol ends up here and none is known here.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic

from portico.cache_key import cache_key
from portico.errors import DeadlineExceeded, ModelNotReady, ServableLost
from portico.inference import InferenceRequest, InferenceResponse
from portico.ports import Backend, ResponseCache
from portico.routing import LiveRoutes, Route, RouteTable, Server
from portico.validation import validate

LOST_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between the attempts to call a model that a replica has lost, until the controller has seen to it."""


PLAIN = 200
"""Status of an answer of which there is nothing to tell but its outputs."""


class CacheStatus(StrEnum):
    """What the cache had to do with an answer, as the `x-cache` header says it."""

    HIT = "HIT"
    MISS = "MISS"
    BYPASS = "BYPASS"


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer, and how it came about."""

    route: Route
    response: InferenceResponse
    cache: CacheStatus


class Dispatcher:
    """What a protocol hands its requests to."""

    def __init__(self, routes: LiveRoutes, backends: Mapping[Server, Backend], cache: ResponseCache | None) -> None:
        """`cache` is None where answers are not to be kept."""
        self._routes = routes
        self._backends = backends
        self._cache = cache

    @property
    def table(self) -> RouteTable:
        """The snapshot in force. Raises ModelNotReady before the first one has come."""
        if not self._routes.received:
            raise ModelNotReady("The gateway has not received its routes from the controller yet.")
        return self._routes.table

    def resolve(self, model: str, version: str = "", label: str = "") -> Route:
        """Raises ModelNotFound, VersionNotFound or ModelNotReady."""
        return self.table.resolve(model, version, label)

    async def infer(self, route: Route, request: InferenceRequest, deadline: float, fresh: bool = False) -> Answer:
        """Answers from the cache, else from the model server, by `deadline` (on the clock of `time.monotonic`).

        `fresh` asks the model server whatever the cache holds, and stores nothing. Raises any PorticoError.
        """
        deadline, key = self._prepared(route, request, deadline, fresh)
        if self._cache is None or key is None:
            return Answer(*await self._call(route, request, deadline), CacheStatus.BYPASS)
        cached = await self._cache.get(key)
        if cached is not None:
            return Answer(route, cached, CacheStatus.HIT)
        asked, response = await self._call(route, request, deadline)
        await self._keep(key, route, asked, request, response)
        return Answer(asked, response, CacheStatus.MISS)

    async def stream(
        self, route: Route, request: InferenceRequest, deadline: float, fresh: bool = False
    ) -> AsyncGenerator[Answer]:
        """Like `infer`, but gives the pieces of an answer as they come. Only one that comes whole is kept."""
        deadline, key = self._prepared(route, request, deadline, fresh)
        cached = await self._cache.get(key) if self._cache is not None and key is not None else None
        if cached is not None:
            yield Answer(route, cached, CacheStatus.HIT)
            return
        status = CacheStatus.BYPASS if key is None else CacheStatus.MISS
        async with aclosing(self._pieces(route, request, deadline)) as pieces:
            async for asked, response in pieces:
                if key is not None:
                    await self._keep(key, route, asked, request, response)
                yield Answer(asked, response, CacheStatus.BYPASS if response.partial else status)

    def _prepared(
        self, route: Route, request: InferenceRequest, deadline: float, fresh: bool
    ) -> tuple[float, bytes | None]:
        """(deadline, key in the cache; None if the cache is to be left out). Raises InvalidRequest."""
        validate(route, request)
        policy = route.policy
        if policy.timeout is not None:
            deadline = min(deadline, monotonic() + policy.timeout)
        if fresh or self._cache is None or not policy.cache or policy.stateful:
            return deadline, None
        return deadline, cache_key(route, request)

    async def _keep(
        self, key: bytes, route: Route, asked: Route, request: InferenceRequest, response: InferenceResponse
    ) -> None:
        """Stores an answer under the route that gave it, which may be another than the one in the key."""
        assert self._cache is not None
        if response.partial or response.status != PLAIN:
            return
        if asked is not route:
            key = cache_key(asked, request)
        await self._cache.put(key, response, route.policy.cache_ttl)

    async def _call(self, route: Route, request: InferenceRequest, deadline: float) -> tuple[Route, InferenceResponse]:
        """Calls the model, and calls again where a replica has lost it: none has worked on it then.

        Meanwhile the version may have got another route, since its files were overwritten; that which answered is
        returned with the answer.
        """
        for pause in LOST_PAUSES:
            try:
                return route, await self._attempt(route, request, deadline)
            except ServableLost:
                if monotonic() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)
            route = self._again(route)
        return route, await self._attempt(route, request, deadline)

    async def _pieces(
        self, route: Route, request: InferenceRequest, deadline: float
    ) -> AsyncGenerator[tuple[Route, InferenceResponse]]:
        """The same for an answer in pieces: until the first has come, the call may begin anew."""
        for pause in (*LOST_PAUSES, None):
            begun = False
            try:
                async with aclosing(self._streamed(route, request, deadline)) as pieces:
                    async for response in pieces:
                        begun = True
                        yield route, response
                return
            except ServableLost:
                if begun or pause is None or monotonic() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)
            route = self._again(route)

    async def _streamed(
        self, route: Route, request: InferenceRequest, deadline: float
    ) -> AsyncGenerator[InferenceResponse]:
        timeout = _left(deadline)
        self._routes.enter(route.servable)
        try:
            async with aclosing(self._backends[route.server].stream(route, request, timeout)) as pieces:
                async for response in pieces:
                    yield response
        finally:
            self._routes.leave(route.servable)

    def _again(self, route: Route) -> Route:
        model = self._routes.table.models.get(route.model)
        version = model.versions.get(route.version) if model else None
        return version.route if version and version.route else route

    async def _attempt(self, route: Route, request: InferenceRequest, deadline: float) -> InferenceResponse:
        timeout = _left(deadline)
        self._routes.enter(route.servable)
        try:
            return await self._backends[route.server].infer(route, request, timeout)
        finally:
            self._routes.leave(route.servable)


def _left(deadline: float) -> float:
    """Seconds until the deadline. Raises DeadlineExceeded."""
    timeout = deadline - monotonic()
    if timeout <= 0:
        raise DeadlineExceeded("The deadline passed before the model server was called.")
    return timeout
