"""TorchServe's failures in our own terms; `tests/contract/test_backends.py` asks the real one."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import aiohttp
import grpc
import pytest

from portico.backends.torchserve import TorchServe
from portico.backends.torchserve_failures import of_grpc, of_rest
from portico.codecs.handler import body_of, raw_request
from portico.edges.status import STATUS
from portico.errors import (
    InferenceFailed,
    InvalidRequest,
    Overloaded,
    PorticoError,
    ServableLost,
    TooLarge,
    Unavailable,
)
from portico.inference import Form, InferenceRequest, Tensor, pack_bytes
from portico.routing import Route, Server
from sample_gateway import tensor

ROUTE = Route("digits", "1.0", Server.TORCHSERVE, "digits--0123456789ab", "1.0", "print")


@pytest.fixture
async def torchserve() -> AsyncIterator[TorchServe]:
    """An adapter that no test lets call anybody."""
    async with grpc.aio.insecure_channel("127.0.0.1:9") as channel:
        yield TorchServe(channel, None, "http://127.0.0.1:9", 1234)  # type: ignore[arg-type]


@asynccontextmanager
async def handler(head: bytes, body: bytes) -> AsyncIterator[TorchServe]:
    """An adapter to a server that gives each request this answer: status and headers as they go over the wire."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(sent.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
        await writer.drain()
        writer.close()

    async with (
        await asyncio.start_server(serve, "127.0.0.1", 0) as server,
        grpc.aio.insecure_channel("127.0.0.1:9") as channel,
        aiohttp.ClientSession() as http,
    ):
        yield TorchServe(channel, http, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", 1234)


def own(kind: str) -> bytes:
    """An answer in TorchServe's own form."""
    return json.dumps({"code": 1, "type": kind, "message": "why"}).encode()


@pytest.mark.parametrize("status", [entry for entry in HTTPStatus if entry >= 300], ids=lambda status: str(int(status)))
@pytest.mark.parametrize("answer", [b"", own("InternalServerException"), b"[1]", b"upstream error", b"\xff"])
def test_every_status_is_one_of_our_errors(status: int, answer: bytes) -> None:
    """No status of HTTP is left without an error of the tree, and none without a text."""
    error = of_rest(status, answer, 1234)
    assert type(error) in STATUS
    assert str(error)


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        (400, own("BadRequestException"), InvalidRequest),
        (404, own("ModelNotFoundException"), ServableLost),
        (404, own("ModelVersionNotFoundException"), ServableLost),
        (404, b"the handler found no such thing", InvalidRequest),
        (413, b"", TooLarge),
        (422, own("InternalServerException"), InvalidRequest),
        (429, b"slow down", Overloaded),
        (500, own("InternalServerException"), InferenceFailed),
        (503, own("InternalServerException"), InferenceFailed),
        (503, own("ServiceUnavailableException"), Unavailable),
        (502, b"", Unavailable),
        (503, b'{"error": "torchserve_rest did not answer"}', Unavailable),
        (504, b"upstream request timeout", Unavailable),
        (507, own("InternalServerException"), InferenceFailed),
    ],
)
def test_what_an_answer_means(status: int, answer: bytes, kind: type[PorticoError]) -> None:
    """Who can do something about a failure decides what it is: the client, the one who waits, or nobody."""
    assert type(of_rest(status, answer, 1234)) is kind


def test_a_handlers_own_words() -> None:
    """The body that a handler sends with an error status of its own is what the client reads."""
    assert str(of_rest(418, "kein Kaffee, nur Tee ☕".encode(), 1234)) == "kein Kaffee, nur Tee ☕"


@pytest.mark.parametrize(
    ("code", "details", "expected"),
    [
        (
            grpc.StatusCode.INTERNAL,
            "Model not found: m\norg.pytorch.serve.archive.model.ModelNotFoundException",
            (grpc.StatusCode.NOT_FOUND, "Model not found: m"),
        ),
        (
            grpc.StatusCode.INTERNAL,
            "Model version: 2 does not exist\norg.pytorch.serve.archive.model.ModelVersionNotFoundException",
            (grpc.StatusCode.NOT_FOUND, "Model version: 2 does not exist"),
        ),
        (
            grpc.StatusCode.INTERNAL,
            'Model "m" Version 1 has no worker to serve inference request.\nInternalServerException.()',
            (grpc.StatusCode.UNAVAILABLE, 'Model "m" Version 1 has no worker to serve inference request.'),
        ),
        (
            grpc.StatusCode.INVALID_ARGUMENT,
            "first\nsecond\norg.pytorch.serve.http.InternalServerException",
            (grpc.StatusCode.INVALID_ARGUMENT, "first\nsecond"),
        ),
        (
            grpc.StatusCode.UNAVAILABLE,
            "Prediction failed\norg.pytorch.serve.http.InternalServerException",
            (grpc.StatusCode.INTERNAL, "Prediction failed"),
        ),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "Worker died.\norg.pytorch.serve.http.InternalServerException",
            (grpc.StatusCode.INTERNAL, "Worker died."),
        ),
        (grpc.StatusCode.UNAVAILABLE, "first\nsecond", (grpc.StatusCode.UNAVAILABLE, "first\nsecond")),
        (grpc.StatusCode.INTERNAL, None, (grpc.StatusCode.INTERNAL, None)),
    ],
)
def test_failures_that_torchserve_calls_internal(
    code: grpc.StatusCode, details: str | None, expected: tuple[grpc.StatusCode, str | None]
) -> None:
    """What TorchServe's gRPC calls INTERNAL gets the code that fits, and no Java class is told to clients."""
    error = of_grpc(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details))
    assert (error.code(), error.details()) == expected


@pytest.mark.parametrize(
    "part",
    [
        tensor("x", "FP32", "<f4", [1]),
        Tensor("x", "BYTES", (2,), pack_bytes([b"a", b"b"])),
        Tensor("x", "BYTES", (0,), b""),
    ],
)
async def test_parts_that_are_none(torchserve: TorchServe, part: Tensor) -> None:
    """An input that is not one BYTES element is no part of a gRPC call, and refused by its name."""
    with pytest.raises(InvalidRequest, match="'x': a part is one BYTES element"):
        await torchserve.infer(ROUTE, InferenceRequest((part,), form=Form.PARTS), 1.0)


@pytest.mark.parametrize("status", [b"200 OK", b"201 Created", b"202 Accepted", b"299 Fine"])
async def test_statuses_of_success(status: bytes) -> None:
    """Whatever status of success a handler sets, its body is the answer."""
    async with handler(status + b"\r\nContent-Type: text/plain", b"queued") as torchserve:
        response = await torchserve.infer(ROUTE, raw_request(b"x", "image/png"), 30.0)
    assert (body_of(response), response.content_type) == (b"queued", "text/plain")


@pytest.mark.parametrize("content_type", ["größe/x".encode(), "größe/x".encode("latin-1"), b"\xff"])
async def test_a_handlers_content_type_that_is_none(content_type: bytes) -> None:
    """A content type that is no ASCII is left out, and the body is the answer all the same."""
    async with handler(b"200 OK\r\nContent-Type: " + content_type, b"body") as torchserve:
        response = await torchserve.infer(ROUTE, raw_request(b"x", "image/png"), 30.0)
    assert (body_of(response), response.content_type) == (b"body", "")


async def test_a_redirect_of_a_handler() -> None:
    """A redirect is not followed, as it may lead anywhere; it is a failure of the request."""
    async with handler(b"307 Temporary Redirect\r\nLocation: http://127.0.0.1:9/", b"there") as torchserve:
        with pytest.raises(InvalidRequest, match="there"):
            await torchserve.infer(ROUTE, raw_request(b"x", "image/png"), 30.0)
