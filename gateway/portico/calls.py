"""Calls models, and calls again where a replica has lost one. Used by the dispatcher, which knows when to call."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from time import monotonic

from portico.errors import DeadlineExceeded, ServableLost
from portico.inference import InferenceRequest, InferenceResponse
from portico.ports import Backend
from portico.routing import LiveRoutes, Route, Server

LOST_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between the attempts to call a model that a replica has lost, until the controller has seen to it."""


class Calls:
    """Deadlines are on the clock of `time.monotonic`.

    While a call is under way, the version it was for may get another route, since its files were overwritten; each
    answer comes with the route that gave it.
    """

    def __init__(self, routes: LiveRoutes, backends: Mapping[Server, Backend]) -> None:
        self._routes = routes
        self._backends = backends

    async def whole(self, route: Route, request: InferenceRequest, deadline: float) -> tuple[Route, InferenceResponse]:
        """One answer. Raises any PorticoError."""
        for pause in LOST_PAUSES:
            try:
                return route, await self._attempt(route, request, deadline)
            except ServableLost:  # no model has worked on it
                if monotonic() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)
            route = self._again(route)
        return route, await self._attempt(route, request, deadline)

    async def pieces(
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

    async def _attempt(self, route: Route, request: InferenceRequest, deadline: float) -> InferenceResponse:
        timeout = _left(deadline)
        self._routes.enter(route.servable)
        try:
            return await self._backends[route.server].infer(route, request, timeout)
        finally:
            self._routes.leave(route.servable)

    def _again(self, route: Route) -> Route:
        model = self._routes.table.models.get(route.model)
        version = model.versions.get(route.version) if model else None
        return version.route if version and version.route else route


def _left(deadline: float) -> float:
    """Seconds until the deadline. Raises DeadlineExceeded."""
    timeout = deadline - monotonic()
    if timeout <= 0:
        raise DeadlineExceeded("The deadline passed before the model server was called.")
    return timeout
