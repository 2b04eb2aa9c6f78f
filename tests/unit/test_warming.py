"""Backends on single replicas, for warm-up requests: whom they call, and that nothing stays open."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from portico.codecs.handler import body_of
from portico.errors import Unavailable
from portico.inference import InferenceRequest
from portico.routing import CallPolicy, Route, Server, Wire
from portico.warming import Replicas
from portico.wire import tf_serving_pb2 as tfs
from sample_gateway import tensor

IRIS = Route("iris", "2", Server.TF_SERVING, "iris--0123456789ab", "2", "print")
DIGITS = Route(
    "digits", "1.0", Server.TORCHSERVE, "digits--0123456789ab", "1.0", "print", policy=CallPolicy(wire=Wire.JSON)
)
REQUEST = InferenceRequest((tensor("x", "FP32", "<f4", [1]),))


@asynccontextmanager
async def tf_serving() -> AsyncIterator[int]:
    """A server that answers a Predict of the servable with its inputs; yields its port."""

    async def predict(request: tfs.PredictRequest, _: object) -> tfs.PredictResponse:
        assert (request.model_spec.name, request.model_spec.version.value) == ("iris--0123456789ab", 2)
        return tfs.PredictResponse(outputs=request.inputs)

    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(
        predict,
        request_deserializer=tfs.PredictRequest.FromString,
        response_serializer=tfs.PredictResponse.SerializeToString,
    )
    service = grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", {"Predict": method})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@asynccontextmanager
async def torchserve(requests: list[bytes], closed: asyncio.Event) -> AsyncIterator[int]:
    """A server that answers any POST with its body; `closed` is set once the client has gone. Yields its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        body = await reader.readexactly(size)
        requests.append(head.split(b"\r\n")[0])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, body))
        await writer.drain()
        assert await reader.read() == b""
        closed.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_tf_serving() -> None:
    """A TF Serving replica is called at the address that its loader knows."""
    async with tf_serving() as port, Replicas(1, 2).connect(Server.TF_SERVING, f"127.0.0.1:{port}") as backend:
        assert (await backend.infer(IRIS, REQUEST, 20)).outputs == REQUEST.inputs


async def test_torchserve() -> None:
    """A TorchServe replica is called at its inference port, and no connection stays open."""
    requests: list[bytes] = []
    closed = asyncio.Event()
    async with torchserve(requests, closed) as port:
        async with Replicas(1, port).connect(Server.TORCHSERVE, "127.0.0.1:7071") as backend:
            assert body_of(await backend.infer(DIGITS, REQUEST, 20)) == b"[1.0]"
        async with asyncio.timeout(20):
            await closed.wait()
    assert requests == [b"POST /predictions/digits--0123456789ab/1.0 HTTP/1.1"]


@pytest.mark.parametrize(("server", "route"), [(Server.TF_SERVING, IRIS), (Server.TORCHSERVE, DIGITS)])
async def test_a_replica_that_is_gone(server: Server, route: Route) -> None:
    """A replica that nobody listens at is unavailable, and that is found when it is called."""
    async with Replicas(1, 1).connect(server, "127.0.0.1:1") as backend:
        with pytest.raises(Unavailable):
            await backend.infer(route, REQUEST, 20)
