"""The gateway's ASGI application: gRPC or REST by content type, on one port, and the lifespan that opens and closes
what both need.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from portico.edges.asgi import App, Receive, Scope, Send
from portico.edges.draining import Draining

log = logging.getLogger(__name__)

Open = Callable[[], AbstractAsyncContextManager[tuple[App, App]]]
"""Opens everything the edges stand on, and gives (gRPC edge, REST edge)."""


class Application:
    """`open_edges` is entered at start-up, in the server's event loop, and left at shutdown.

    `draining` is told how many requests are under way.
    """

    def __init__(self, open_edges: Open, draining: Draining | None = None) -> None:
        self._open = open_edges
        self._draining = draining or Draining()
        self._grpc: App | None = None
        self._rest: App | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._lifespan(receive, send)
        if scope["type"] != "http":
            return
        edge = self._grpc if _is_grpc(scope) else self._rest
        if edge is None:
            raise RuntimeError("The ASGI server has to run the lifespan before it serves requests.")
        self._draining.under_way += 1
        try:
            await edge(scope, receive, send)
        finally:
            self._draining.under_way -= 1

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with AsyncExitStack() as stack:
            try:
                self._grpc, self._rest = await stack.enter_async_context(self._open())
            except Exception as error:
                log.exception("the gateway could not start")
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


def _is_grpc(scope: Scope) -> bool:
    for key, value in scope["headers"]:
        if key == b"content-type":
            # Not application/grpc-web: Envoy turns that into gRPC before it comes here.
            return bool(value == b"application/grpc" or value.startswith((b"application/grpc+", b"application/grpc;")))
    return False
