"""The path of a request, once decoded: resolve the route, look into the cache, call the model server, store the answer.

Every protocol ends up here and none is known here.
"""

import asyncio
from collections.abc import Mapping
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
        validate(route, request)
        policy = route.policy
        if policy.timeout is not None:
            deadline = min(deadline, monotonic() + policy.timeout)
        if fresh or self._cache is None or not policy.cache or policy.stateful:
            return Answer(*await self._call(route, request, deadline), CacheStatus.BYPASS)
        key = cache_key(route, request)
        cached = await self._cache.get(key)
        if cached is not None:
            return Answer(route, cached, CacheStatus.HIT)
        asked, response = await self._call(route, request, deadline)
        if asked is not route:
            key = cache_key(asked, request)
        await self._cache.put(key, response, policy.cache_ttl)
        return Answer(asked, response, CacheStatus.MISS)

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

    def _again(self, route: Route) -> Route:
        model = self._routes.table.models.get(route.model)
        version = model.versions.get(route.version) if model else None
        return version.route if version and version.route else route

    async def _attempt(self, route: Route, request: InferenceRequest, deadline: float) -> InferenceResponse:
        timeout = deadline - monotonic()
        if timeout <= 0:
            raise DeadlineExceeded("The deadline passed before the model server was called.")
        self._routes.enter(route.servable)
        try:
            return await self._backends[route.server].infer(route, request, timeout)
        finally:
            self._routes.leave(route.servable)
