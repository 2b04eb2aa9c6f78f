"""What operators ask the controller about the response cache: `/v1/cache`, to look at it and to purge it. Called by
`portico.listener`; the command `portico cache` is a client of it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Protocol

from aiohttp import web

from portico.backplane import BackplaneUnavailable
from portico.cache_entries import Stats
from portico.listener import failure
from portico.purges import ALL
from portico.routing import RouteTable

PATH = "/v1/cache"

_log = logging.getLogger(__name__)


class Entries(Protocol):
    """The answers that are kept in Redis; see `cache_entries`."""

    async def stats(self) -> Stats: ...
    async def purge(self, model: str | None) -> int: ...


class Routes(Protocol):
    """The routes in force; see `backplane`."""

    async def newest(self) -> tuple[str, RouteTable | None]: ...


class CacheApi:
    """`announce` tells all gateways to drop what they keep of a model, or of `purges.ALL`."""

    def __init__(self, entries: Entries, routes: Routes, announce: Callable[[str], Awaitable[None]]) -> None:
        self._entries = entries
        self._routes = routes
        self._announce = announce
        self._one = asyncio.Lock()  # each goes through all keys: Redis has other things to do than that twice

    def routes(self) -> list[web.RouteDef]:
        """The endpoints."""
        return [
            web.get(PATH, self._stats),
            web.delete(PATH, self._purge_all),
            web.delete(PATH + "/{model}", self._purge),
        ]

    async def _stats(self, request: web.Request) -> web.Response:
        try:
            async with self._one:
                stats = await self._entries.stats()
        except BackplaneUnavailable as error:
            return failure(str(error), 503)
        memory = stats.memory
        body = {
            "models": [{"model": name, **asdict(amount)} for name, amount in stats.models.items()],
            "complete": stats.complete,
            "redis": {
                "used_memory": memory.used,
                "maxmemory": memory.maximum,
                "evicted_keys": memory.evicted,
            },
        }
        return web.json_response(body)

    async def _purge_all(self, request: web.Request) -> web.Response:
        return await self._purged(None)

    async def _purge(self, request: web.Request) -> web.Response:
        return await self._purged(request.match_info["model"])

    async def _purged(self, model: str | None) -> web.Response:
        try:
            async with self._one:
                removed = await self._entries.purge(model)
                # Afterwards: a gateway that drops its own sooner fetches the old ones again.
                await self._announce(ALL if model is None else model)
            if model is not None and not removed and not await self._known(model):
                text = f"There is no model {model}, and nothing was kept of it. `portico models` lists all."
                return failure(text, 404)
        except BackplaneUnavailable as error:
            return failure(str(error), 503)
        _log.info("purged %s: %d entries", "everything" if model is None else model, removed)
        return web.json_response({"model": model, "removed": removed})

    async def _known(self, model: str) -> bool:
        _, table = await self._routes.newest()
        return table is not None and model in table.models
