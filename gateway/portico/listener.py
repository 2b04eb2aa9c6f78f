"""What operators ask a process at an address of its own, never at the clients' port: Prometheus metrics, and what else
it is given. It runs in the event loop of the process; it knows nothing of models or caches.
"""

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import REGISTRY, disable_created_metrics
from prometheus_client.exposition import choose_encoder

METRICS = "/metrics"
DRAIN = 1.0
"""Seconds that an answer under way has at the end."""

_log = logging.getLogger(__name__)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class CannotListen(Exception):
    """Nobody can be answered at the address; the message says why, and which setting it is."""


@asynccontextmanager
async def listening(address: str, routes: Iterable[web.AbstractRouteDef] = ()) -> AsyncIterator[None]:
    """Answers `GET /metrics` and `routes` at host:port for as long as the context is open; at no address, nothing.

    Raises CannotListen.
    """
    if not address:
        yield
        return
    # When each series began would be a series too.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    application = web.Application(middlewares=[_json_errors])
    application.add_routes([web.get(METRICS, _metrics), *routes])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=DRAIN)
    await runner.setup()
    try:
        host, _, port = address.rpartition(":")
        try:
            await web.TCPSite(runner, host.strip("[]"), int(port)).start()
        except (OSError, OverflowError) as error:
            why = "the port is taken" if getattr(error, "errno", 0) == errno.EADDRINUSE else error
            raise CannotListen(f"PORTICO_METRICS_ADDRESS: nothing can listen on {address}: {why}") from error
        yield
    finally:
        await runner.cleanup()


async def _metrics(request: web.Request) -> web.Response:
    """In the format that is asked for; written in a thread, since a thousand models have many lines."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    text = await asyncio.to_thread(encode, REGISTRY)
    response = web.Response(body=text, headers={"content-type": content_type})
    response.enable_compression()
    return response


@web.middleware
async def _json_errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        text = f"{request.method} is not allowed here; allowed: {allowed}."
        return failure(text, error.status, {"allow": allowed})
    except web.HTTPException as error:
        return failure(f"{error.reason}: there is nothing at {request.path}.", error.status)
    except Exception:
        _log.exception("%s %s failed", request.method, request.path)
        return failure("It failed; the log says why.", 500)


def failure(text: str, status: int, headers: dict[str, str] | None = None) -> web.Response:
    """An answer that says what is wrong, as the gateway's do."""
    return web.json_response({"error": text}, status=status, headers=headers)
