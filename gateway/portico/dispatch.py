"""The path of a request, once decoded: resolve the route, look into the cache, call the model server, store the answer.

Every protocol ends up here and none is known here. What identical requests share is in `sharing`, how a model is called
in `calls`.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from time import monotonic
from typing import Protocol

from portico.cache_key import cache_key
from portico.calls import Calls
from portico.errors import ModelNotReady, PorticoError
from portico.freshness import ANY, CacheControl
from portico.inference import InferenceRequest
from portico.ports import Backend, Meter, NoMeter, ResponseCache
from portico.routing import LiveRoutes, Route, RouteTable, Server
from portico.sharing import Answer, InPieces, Limits, Question, Sharing
from portico.validation import validate

__all__ = ["Answer", "Caller", "Dispatcher", "Limits"]

LARGE = 1 << 20
"""Bytes of tensors from which on their digest is made beside the event loop: it takes a third of a millisecond."""


class Caller(Protocol):
    """Who asks, as far as that matters here: a REST request or a gRPC call."""

    def header(self, name: bytes) -> str:
        """The header of this lower-case name, empty if there is none."""
        ...


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
        self._meter = meter or NoMeter()
        self._sharing = Sharing(self._calls, cache, limits or Limits(), self._meter)

    @property
    def table(self) -> RouteTable:
        """The snapshot in force. Raises ModelNotReady before the first one has come."""
        if not self._routes.received:
            raise ModelNotReady(
                "The gateway has not received its routes yet. They come from the controller by way of Redis: if this "
                "lasts, its log says whether that can be reached (PORTICO_REDIS_URL, the same for both)."
            )
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
        try:
            question = await self._question(route, request, deadline, caller)
            answer = await self._sharing.answer(question, self._sharing.whole)
            if not isinstance(answer, Answer):
                answer = await self._sharing.whole(question)
                self._sharing.keep(question, answer)
        except PorticoError as error:
            self._meter.failed(route.model, error)
            raise
        self._meter.answered(route.model, answer.cache, monotonic() - began)
        return answer

    async def stream(
        self, route: Route, request: InferenceRequest, deadline: float, caller: Caller | None = None
    ) -> AsyncGenerator[Answer]:
        """Like `infer`, but gives the pieces of an answer as they come. Only whole ones are kept, or shared."""
        began, counted = monotonic(), False
        try:
            question = await self._question(route, request, deadline, caller)
            async with aclosing(self._streamed(question)) as answers:
                async for answer in answers:
                    if not counted:
                        self._meter.answered(route.model, answer.cache, monotonic() - began)
                    counted = True
                    yield answer
        except PorticoError as error:
            self._meter.failed(route.model, error)
            raise

    async def aclose(self) -> None:
        """Ends the calls that identical requests share."""
        await self._sharing.aclose()

    async def _streamed(self, question: Question) -> AsyncGenerator[Answer]:
        found = await self._sharing.answer(question, self._sharing.first)
        if isinstance(found, Answer):
            yield found
            return
        if isinstance(found, InPieces) and found.take():
            pieces = found.pieces()
        else:
            pieces = self._calls.pieces(question.route, question.request, question.deadline)
        async with aclosing(pieces):
            async for asked, response in pieces:
                answer = self._sharing.answered(question, asked, response)
                self._sharing.keep(question, answer)
                yield answer

    async def _question(
        self, route: Route, request: InferenceRequest, deadline: float, caller: Caller | None
    ) -> Question:
        """Raises InvalidRequest."""
        validate(route, request)
        policy = route.policy
        if policy.timeout is not None:
            deadline = min(deadline, monotonic() + policy.timeout)
        said = caller.header(b"cache-control") if caller else ""
        control = CacheControl.parse(said) if said else ANY
        if control.no_store or not self._sharing.is_shared(route):
            return Question(route, request, deadline, control)
        varied = tuple(caller.header(name.encode()) for name in policy.cache_vary) if caller else ()
        small = sum(len(tensor.data) for tensor in request.inputs) < LARGE
        key = cache_key(route, request, varied) if small else await asyncio.to_thread(cache_key, route, request, varied)
        return Question(route, request, deadline, control, key, varied)
