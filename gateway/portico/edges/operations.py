"""What operators and orchestrators ask the gateway, by FastAPI: is the process up, is it of use.

It is also where a path goes that no protocol knows. Its endpoints are described with all others, in
`protocols/documentation/openapi.yaml`.
"""

import asyncio
from collections.abc import Mapping

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

from portico.edges.draining import Draining
from portico.errors import PorticoError
from portico.ports import Backend
from portico.routing import LiveRoutes, Server

PING_TIMEOUT = 1.0
"""Seconds a model server has to answer a readiness check."""


def operations(routes: LiveRoutes, backends: Mapping[Server, Backend], draining: Draining | None = None) -> FastAPI:
    """The application with `/healthz` and `/readyz`, which answers 404 anywhere else.

    A gateway that drains says no to both, so that no new requests come.
    """
    app = FastAPI(openapi_url=None)
    draining = draining or Draining()

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        return JSONResponse({"status": "draining"}, 503) if draining.begun else JSONResponse({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        servers = await _reached(routes, backends)
        ready = routes.received and (not servers or "ok" in servers.values()) and not draining.begun
        body = {"ready": ready, "routes": _described(routes), "model_servers": servers}
        return JSONResponse(body, 200 if ready else 503)

    @app.exception_handler(404)
    async def unknown(request: Request, error: Exception) -> JSONResponse:
        text = (
            f"There is nothing at {request.url.path}. Models are listed by POST /v2/repository/index, GET /docs shows "
            "all that there is."
        )
        return JSONResponse({"error": text}, 404)

    @app.exception_handler(405)
    async def not_allowed(request: Request, error: HTTPException) -> JSONResponse:
        text = f"{request.method} is not allowed here, GET is."
        return JSONResponse({"error": text}, 405, error.headers)

    return app


async def _reached(routes: LiveRoutes, backends: Mapping[Server, Backend]) -> dict[str, str]:
    """For each server that a model of the repository needs: "ok", or why it is not.

    One that is down does not make the gateway useless: the other's models are still served.
    """
    needed = sorted({model.server for model in routes.table.models.values() if model.server})
    return dict(zip(needed, await asyncio.gather(*(_ping(backends[server]) for server in needed)), strict=True))


async def _ping(backend: Backend) -> str:
    try:
        await backend.ping(PING_TIMEOUT)
    except PorticoError as error:
        return str(error)
    return "ok"


def _described(routes: LiveRoutes) -> str:
    if not routes.received:
        return "none received from the controller yet"
    return f"{len(routes.table.models)} models, revision {routes.table.revision}"
