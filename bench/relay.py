"""The least that an ASGI application can do about a call that it does not answer itself, on the server and with the
client that the gateway has: the message goes on as it came, and so does the answer. No Python is faster there with
grpc.aio. Started by `baselines.py` as `python relay.py PORT TO`, where TO is the port of the server that is called.
"""

import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

Message = dict[str, Any]
TO = "RELAY_TO"
PREFIX = 5


class Relay:
    """Unary gRPC calls without metadata."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._methods: dict[str, Callable[[bytes], Awaitable[bytes]]] = {}

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] == "lifespan":
            await receive()
            # The channel belongs to the event loop that it is made in.
            self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{self._port}")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            return await send({"type": "lifespan.shutdown.complete"})
        chunks, more = [], True
        while more:
            message = await receive()
            chunks.append(message["body"])
            more = message.get("more_body", False)
        method = self._methods.get(scope["path"])
        if method is None:
            method = self._methods[scope["path"]] = self._channel.unary_unary(scope["path"])
        answer = await method(b"".join(chunks)[PREFIX:])
        headers = [(b"content-type", b"application/grpc")]
        await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
        await send({"type": "http.response.body", "body": b"\x00" + len(answer).to_bytes(4, "big") + answer})
        await send({"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")], "more_trailers": False})


if __name__ == "__main__":
    from portico.edges.pyvoy import serve

    os.environ[TO] = sys.argv[2]
    serve("relay:app", "127.0.0.1", int(sys.argv[1]), 64 << 20)
elif TO in os.environ:
    app = Relay(int(os.environ[TO]))
