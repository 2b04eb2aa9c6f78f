"""Which calls Envoy may send again when the connection to a replica breaks: those of models that keep no state."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import grpc
import pytest

from portico.backends.tf_serving import TFServing
from portico.backends.torchserve import TorchServe
from portico.inference import Form, InferenceRequest, Tensor, pack_bytes
from portico.ports import Backend
from portico.routing import CallPolicy, Route, Server
from portico.wire import tf_serving_pb2 as tfs
from portico.wire import torchserve_pb2 as ts

ROUTE = Route("m", "1", Server.TF_SERVING, "m--0123456789ab", "1", "print")
BODY = Tensor("body", "BYTES", (1,), pack_bytes([b"1"]))
REQUESTS = {
    "TF Serving": InferenceRequest((Tensor("x", "INT8", (1,), b"\1"),)),
    "TorchServe by gRPC": InferenceRequest((BODY,), form=Form.PARTS),
    "TorchServe by REST": InferenceRequest((BODY,), form=Form.BODY),
}


class Listener(grpc.GenericRpcHandler):
    """Answers every RPC and every HTTP request with nothing, and keeps the headers that it got."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        self.headers.append({name: str(value) for name, value in call.invocation_metadata})
        answer = tfs.PredictResponse() if call.method.endswith("/Predict") else ts.PredictionResponse()

        async def handle(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            return answer.SerializeToString()

        return grpc.unary_unary_rpc_method_handler(handle)

    async def http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        self.headers.append(dict(line.split(": ", 1) for line in head.splitlines()[1:] if line))
        await reader.readexactly(int(self.headers[-1]["content-length"]))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


@asynccontextmanager
async def backend(name: str) -> AsyncIterator[tuple[Backend, Listener]]:
    heard = Listener()
    server = grpc.aio.server(handlers=[heard])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with (
        await asyncio.start_server(heard.http, "127.0.0.1", 0) as rest,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        aiohttp.ClientSession() as http,
    ):
        base = f"http://127.0.0.1:{rest.sockets[0].getsockname()[1]}"
        yield TFServing(channel, 1234) if name == "TF Serving" else TorchServe(channel, http, base, 1234), heard
    await server.stop(None)


@pytest.mark.parametrize("name", REQUESTS)
async def test_only_calls_of_models_without_state_may_be_sent_again(name: str) -> None:
    """The lost replica may have worked on the call already; a model that keeps state must not see it twice."""
    async with backend(name) as (one, heard):
        await one.infer(ROUTE, REQUESTS[name], 10.0)
        await one.infer(replace(ROUTE, policy=CallPolicy(stateful=True)), REQUESTS[name], 10.0)
    assert [headers.get("x-envoy-retry-on") for headers in heard.headers] == ["reset", None]
