"""What stands behind Envoy in test_envoy_config.py: a gateway and model servers that answer with what reached them.

Every gRPC service has the same methods here: Echo answers with the message, Stream with the message five times, Fail
with a status alone, Wait never, and Seen with how many calls of Wait were begun and ended, and how many of Fail there
were. After a Release the gateway answers Wait too, and a model server answers Slow, which counts as Wait, with the
message.
"""

import asyncio
import base64
import json
import sys
import threading
import urllib.parse
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc

# Each character class that grpc-message treats in its own way: quotes, percent, Latin-1, other scripts.
FAILURE = 'input "x" is 100% too größe: 形状'

Event = MutableMapping[str, Any]
Context = grpc.ServicerContext

seen: Counter[str] = Counter()
release = asyncio.Event()
released = threading.Event()


def fail(message: bytes, context: Context) -> bytes:
    """A status alone; CANCELLED, as from a server that ends, if the message says so."""
    seen["failed"] += 1
    context.abort(grpc.StatusCode.CANCELLED if message == b"cancelled" else grpc.StatusCode.INVALID_ARGUMENT, FAILURE)


def wait(message: bytes, context: Context) -> bytes:
    """Ends with the call."""
    seen["begun"] += 1
    ended = threading.Event()
    if context.add_callback(ended.set):
        ended.wait(30)
    seen["ended"] += 1
    return b""


def let_go(message: bytes, context: Context) -> bytes:
    """Ends all calls of Slow."""
    released.set()
    return message


def tell(message: bytes, context: Context) -> bytes:
    """What was begun and ended."""
    return json.dumps(seen).encode()


class ModelServer(grpc.GenericRpcHandler):
    """A gRPC server; the initial metadata of its answers holds its name, what metadata came, and the time left."""

    def __init__(self, name: str) -> None:
        self._name = name

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a method, whatever the service; None is UNIMPLEMENTED."""
        received = [[key, value] for key, value in handler_call_details.invocation_metadata if isinstance(value, str)]

        def greet(context: Context) -> None:
            left = context.time_remaining()
            metadata = json.dumps({"metadata": received, "seconds_left": left}).encode()
            context.send_initial_metadata((("x-server", self._name), ("x-received-bin", metadata)))

        def echo(message: bytes, context: Context) -> bytes:
            greet(context)
            return message

        def stream(message: bytes, context: Context) -> Iterator[bytes]:
            greet(context)
            yield from [message] * 5

        def slow(message: bytes, context: Context) -> bytes:
            greet(context)
            seen["begun"] += 1
            released.wait(30)
            seen["ended"] += 1
            return message

        method = handler_call_details.method.rpartition("/")[2]
        if method == "Stream":
            return grpc.unary_stream_rpc_method_handler(stream)
        unary = {"Echo": echo, "Fail": fail, "Wait": wait, "Seen": tell, "Slow": slow, "Release": let_go}
        return grpc.unary_unary_rpc_method_handler(unary[method]) if method in unary else None


async def gateway(
    scope: Event, receive: Callable[[], Awaitable[Event]], send: Callable[[Event], Awaitable[None]]
) -> None:
    """The gateway, as an ASGI application; REST is answered with the path and headers that came."""
    body = bytearray()
    more = True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    received = [[key.decode(), value.decode()] for key, value in scope["headers"]]
    if "application/grpc" not in dict(received).get("content-type", ""):
        answer = json.dumps({"path": scope["raw_path"].decode(), "headers": received, "size": len(body)}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": answer})
        return
    method = scope["path"].rpartition("/")[2]
    headers = [(b"content-type", b"application/grpc"), (b"x-server", b"gateway")]
    if method == "Wait":
        seen["begun"] += 1
        # pyvoy answers `receive` at once with an empty http.request as long as the client is there.
        while not release.is_set() and (await receive())["type"] != "http.disconnect":
            await asyncio.sleep(0.05)
        seen["ended"] += 1
    if method == "Release":
        release.set()
    if method == "Fail":
        headers += [(b"grpc-status", b"3"), (b"grpc-message", urllib.parse.quote(FAILURE, safe=" ").encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
    else:
        headers.append((b"x-received-bin", base64.b64encode(json.dumps({"metadata": received}).encode())))
        told = json.dumps(seen).encode()
        answers = {"Seen": b"\0" + len(told).to_bytes(4, "big") + told, "Stream": bytes(body) * 5}
        await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
        await send({"type": "http.response.body", "body": answers.get(method, bytes(body))})
        await send({"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]})


class RestServer(BaseHTTPRequestHandler):
    """TorchServe's REST API while one of its models is loading: /ping answers 500, predictions work."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answers with the path, as it came."""
        body = json.dumps({"path": self.path}).encode()
        self.send_response(500 if self.path == "/ping" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Says nothing."""


def main() -> None:
    """Serves until the standard input ends: `edge_servers.py NAME PORT`."""
    name, port = sys.argv[1], int(sys.argv[2])
    if name == "rest":
        rest = ThreadingHTTPServer(("127.0.0.1", port), RestServer)
        threading.Thread(target=rest.serve_forever, daemon=True).start()
    else:
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        server = grpc.server(ThreadPoolExecutor(16), handlers=[ModelServer(name)], options=unlimited)
        server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
