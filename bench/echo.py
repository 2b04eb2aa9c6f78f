"""The least that an ASGI application can do, on the server that the gateway runs on: read the body, and answer with the
same bytes each time. No Python is faster there. Started by `baselines.py` as `python echo.py PORT FOLDER`, where FOLDER
holds the answers, as the files `json` and `grpc`.
"""

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Message = dict[str, Any]
FOLDER = "ECHO_ANSWERS"


class Echo:
    """REST and gRPC alike."""

    def __init__(self, folder: Path) -> None:
        self._json, self._grpc = (folder / "json").read_bytes(), (folder / "grpc").read_bytes()
        self._headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(self._json))]

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] == "lifespan":
            for state in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{state}.complete"})
            return
        while (await receive()).get("more_body"):
            pass
        if (b"content-type", b"application/grpc") not in scope["headers"]:
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            await send({"type": "http.response.body", "body": self._json})
            return
        headers = [(b"content-type", b"application/grpc")]
        await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
        await send({"type": "http.response.body", "body": self._grpc})
        await send({"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")], "more_trailers": False})


if __name__ == "__main__":
    from portico.edges.pyvoy import serve

    os.environ[FOLDER] = sys.argv[2]
    serve("echo:app", "127.0.0.1", int(sys.argv[1]), 64 << 20)
elif FOLDER in os.environ:
    app = Echo(Path(os.environ[FOLDER]))
