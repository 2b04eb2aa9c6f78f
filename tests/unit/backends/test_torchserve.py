"""The TorchServe adapter, and what goes over the wire; `tests/contract/test_backends.py` asks the real one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import aiohttp
import grpc
import pytest

from portico.backends import torchserve as module
from portico.backends.torchserve import TorchServe
from portico.codecs.handler import body_of, raw_request
from portico.errors import DeadlineExceeded, HandlerAnswer, InvalidRequest, PorticoError, TooLarge, Unavailable
from portico.inference import Form, InferenceRequest, Tensor, pack_bytes
from portico.routing import CallPolicy, Route, Server, Wire
from portico.wire import torchserve_pb2 as ts
from sample_gateway import tensor

ROUTE = Route("digits", "1.0", Server.TORCHSERVE, "digits--0123456789ab", "1.0", "print")
RAW = raw_request(b"x", "image/png")
LIMIT = 1234


def part(name: str, content: bytes) -> Tensor:
    return Tensor(name, "BYTES", (1,), pack_bytes([content]))


PARTS = InferenceRequest((part("image", b"\x89PNG\r\n\0\xff"), part("größe", b"")), form=Form.PARTS)


@dataclass
class Handler(grpc.GenericRpcHandler):
    """A TorchServe whose REST API answers with these bytes, and whose gRPC streams `messages`. It keeps what it got."""

    answer: bytes
    messages: list[bytes] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    calls: list[ts.PredictionsRequest] = field(default_factory=list)
    closes: bool = True
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def rest(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        self.requests.append((first, headers, await reader.readexactly(int(headers["content-length"]))))
        writer.write(b"HTTP/1.1 " + self.answer)
        await writer.drain()
        if not self.closes:
            assert await reader.read() == b""
            self.left.set()
        writer.close()

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        assert call.method == "/org.pytorch.serve.grpc.inference.InferenceAPIsService/StreamPredictions"

        async def stream(request: ts.PredictionsRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
            self.calls.append(request)
            for message in self.messages:
                if message == b"wait":
                    context.add_done_callback(lambda _: self.left.set())
                    await asyncio.Event().wait()
                if message == b"fail":
                    await context.abort(grpc.StatusCode.ABORTED, "mine\norg.pytorch.serve.http.InternalServerException")
                yield ts.PredictionResponse(prediction=message).SerializeToString()

        return grpc.unary_stream_rpc_method_handler(stream, ts.PredictionsRequest.FromString)


def whole(status: bytes, body: bytes) -> bytes:
    """A whole answer, `status` with further headers, as it goes over the wire."""
    return b"%b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """An answer in pieces."""
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    head = b"200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\r\n"
    return head + chunks + end


@asynccontextmanager
async def adapter(handler: Handler) -> AsyncIterator[TorchServe]:
    """An adapter to this TorchServe."""
    server = grpc.aio.server(handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with (
        await asyncio.start_server(handler.rest, "127.0.0.1", 0) as rest,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        aiohttp.ClientSession() as http,
    ):
        yield TorchServe(channel, http, f"http://127.0.0.1:{rest.sockets[0].getsockname()[1]}", LIMIT)
    await server.stop(None)


async def pieces(torchserve: TorchServe, request: InferenceRequest, route: Route = ROUTE) -> list[tuple[bytes, bool]]:
    """(body, whether it is a piece) of all that `stream` gives."""
    return [(body_of(entry), entry.partial) async for entry in torchserve.stream(route, request, 30.0)]


def form(request: tuple[str, dict[str, str], bytes]) -> dict[str, bytes]:
    """The parts of a form by name."""
    _, headers, body = request
    assert headers["content-type"].startswith("multipart/form-data; boundary=")
    edge = b"--" + headers["content-type"].partition("=")[2].encode()
    first, *parts, last = body.split(edge)
    assert (first, last) == (b"", b"--\r\n")
    found = {}
    for part in parts:
        head, _, content = part.partition(b"\r\n\r\n")
        assert content.endswith(b"\r\n")
        found[head.partition(b'name="')[2].decode().rstrip('"')] = content[:-2]
    return found


async def test_a_body() -> None:
    """A body is sent as it is, with its content type, to the version that the route names."""
    handler = Handler(whole(b"200 OK", b"answer"))
    async with adapter(handler) as torchserve:
        response = await torchserve.infer(ROUTE, RAW, 30.0)
    assert (body_of(response), response.partial, response.status) == (b"answer", False, 200)
    ((first, headers, body),) = handler.requests
    assert first == "POST /predictions/digits--0123456789ab/1.0 HTTP/1.1"
    assert (headers["content-type"], body) == ("image/png", b"x")


async def test_an_explanation() -> None:
    """An explanation is asked for at TorchServe's endpoint for them, also of tensors and of parts."""
    handler = Handler(whole(b"200 OK", b"[]"))
    numbers = InferenceRequest((tensor("x", "FP32", "<f4", [1, 2]),))
    async with adapter(handler) as torchserve:
        for request in (RAW, PARTS, numbers):
            await torchserve.infer(ROUTE, replace(request, explain=True), 30.0)
    assert [first.split()[1] for first, _, _ in handler.requests] == ["/explanations/digits--0123456789ab/1.0"] * 3


async def test_what_follows_in_the_url() -> None:
    """What follows the version in a URL goes along, encoded again."""
    handler = Handler(whole(b"200 OK", b"[]"))
    async with adapter(handler) as torchserve:
        await torchserve.infer(ROUTE, replace(RAW, url_path="a/b c?d%"), 30.0)
    assert handler.requests[0][0].split()[1] == "/predictions/digits--0123456789ab/1.0/a/b%20c%3Fd%25"


@pytest.mark.parametrize("form_of", [Form.PARTS, Form.TENSORS])
async def test_named_parts(form_of: Form) -> None:
    """Named parts, and several inputs of one BYTES element each, go as a form, byte for byte and without types."""
    handler = Handler(whole(b"200 OK", b"answer"))
    async with adapter(handler) as torchserve:
        await torchserve.infer(ROUTE, replace(PARTS, form=form_of), 30.0)
    assert form(handler.requests[0]) == {"image": b"\x89PNG\r\n\0\xff", "größe": b""}
    assert handler.requests[0][2].count(b"Content-Type") == 0


@pytest.mark.parametrize(
    "wrong",
    [
        tensor("x", "FP32", "<f4", [1]),
        Tensor("x", "BYTES", (2,), pack_bytes([b"a", b"b"])),
        Tensor("x", "BYTES", (0,), b""),
    ],
)
async def test_parts_that_are_none(wrong: Tensor) -> None:
    """An input that is not one BYTES element is no part, and refused by its name before anybody is asked."""
    handler = Handler(b"")
    async with adapter(handler) as torchserve:
        with pytest.raises(InvalidRequest, match="'x': a part is one BYTES element"):
            await torchserve.infer(ROUTE, InferenceRequest((wrong,), form=Form.PARTS), 1.0)
    assert not handler.requests


@pytest.mark.parametrize("status", [200, 201, 202, 299])
async def test_statuses_of_success(status: int) -> None:
    """Whatever status of success a handler sets, its body is the answer, and its status is told."""
    handler = Handler(whole(b"%d Fine\r\nContent-Type: text/plain" % status, b"queued"))
    async with adapter(handler) as torchserve:
        response = await torchserve.infer(ROUTE, RAW, 30.0)
        ((streamed, partial),) = await pieces(torchserve, RAW)
    assert (body_of(response), response.content_type, response.status) == (b"queued", "text/plain", status)
    assert (streamed, partial) == (b"queued", False)


@pytest.mark.parametrize("content_type", ["größe/x".encode(), "größe/x".encode("latin-1"), b"\xff"])
async def test_a_handlers_content_type_that_is_none(content_type: bytes) -> None:
    """A content type that is no ASCII is left out, and the body is the answer all the same."""
    async with adapter(Handler(whole(b"200 OK\r\nContent-Type: " + content_type, b"body"))) as torchserve:
        response = await torchserve.infer(ROUTE, RAW, 30.0)
    assert (body_of(response), response.content_type) == (b"body", "")


async def test_a_redirect_of_a_handler() -> None:
    """A redirect is not followed, as it may lead anywhere; it is a failure of the request."""
    answer = whole(b"307 Temporary Redirect\r\nPragma: no-cache\r\nLocation: http://127.0.0.1:9/", b"there")
    async with adapter(Handler(answer)) as torchserve:
        with pytest.raises(InvalidRequest, match="there"):
            await torchserve.infer(ROUTE, RAW, 30.0)


async def test_a_handlers_own_answer() -> None:
    """What a handler says with a status of failure goes with the error, the servable's name in it replaced."""
    answer = whole(b"503 Mine\r\nPragma: no-cache\r\nContent-Type: text/mine", b"digits--0123456789ab is tired")
    async with adapter(Handler(answer)) as torchserve:
        for ask in (torchserve.infer(ROUTE, RAW, 30.0), pieces(torchserve, PARTS)):
            with pytest.raises(PorticoError) as caught:
                await ask
            assert caught.value.answer == HandlerAnswer(503, "text/mine", b"digits is tired")


async def test_an_answer_over_the_limit() -> None:
    """An answer larger than a message may be is refused, and not gathered."""
    async with adapter(Handler(whole(b"200 OK", bytes(LIMIT + 1)))) as torchserve:
        with pytest.raises(TooLarge):
            await torchserve.infer(ROUTE, RAW, 30.0)


async def test_an_answer_in_pieces() -> None:
    """A body's answer in pieces is given as they come by `stream`, and as one by `infer`."""
    handler = Handler(chunked(b"one ", b"two ", b"three"))
    async with adapter(handler) as torchserve:
        streamed = await pieces(torchserve, RAW)
        response = await torchserve.infer(ROUTE, RAW, 30.0)
    assert b"".join(body for body, _ in streamed) == body_of(response) == b"one two three"
    assert {partial for _, partial in streamed} == {True}
    assert (response.partial, response.content_type) == (False, "text/plain")
    assert not handler.calls


async def test_no_pieces_at_all() -> None:
    """An answer in pieces of which none comes is one piece of nothing."""
    async with adapter(Handler(chunked())) as torchserve:
        assert await pieces(torchserve, RAW) == [(b"", True)]


async def test_an_answer_that_breaks_off() -> None:
    """An answer in pieces that does not come to its end is a failure, and not a whole."""
    async with adapter(Handler(chunked(b"one ", end=b""))) as torchserve:
        with pytest.raises(Unavailable, match="broke off"):
            await torchserve.infer(ROUTE, RAW, 30.0)
        stream = torchserve.stream(ROUTE, RAW, 30.0)
        assert body_of(await anext(stream)) == b"one "
        with pytest.raises(Unavailable, match="broke off"):
            await anext(stream)


async def test_pieces_that_do_not_come_in_time() -> None:
    """The time allowed is for the whole answer, also when its first pieces have come."""
    async with adapter(Handler(chunked(b"one ", end=b""), closes=False)) as torchserve:
        with pytest.raises(DeadlineExceeded):
            async for _ in torchserve.stream(ROUTE, RAW, 0.2):
                pass


async def test_who_stops_reading_pieces_ends_the_call() -> None:
    """Who closes a stream closes the call to TorchServe."""
    handler = Handler(chunked(b"one ", end=b""), closes=False)
    async with adapter(handler) as torchserve:
        stream = torchserve.stream(ROUTE, RAW, 30.0)
        assert body_of(await anext(stream)) == b"one "
        await stream.aclose()
        async with asyncio.timeout(30):
            await handler.left.wait()


async def test_parts_whose_answer_is_whole() -> None:
    """Parts are streamed by REST as long as the model answers whole: gRPC would cost it its worker."""
    handler = Handler(whole(b"200 OK", b"answer"))
    async with adapter(handler) as torchserve:
        assert [await pieces(torchserve, PARTS) for _ in range(2)] == [[(b"answer", False)]] * 2
    assert (len(handler.requests), len(handler.calls)) == (2, 0)


@pytest.mark.parametrize("stateful", [False, True])
async def test_parts_whose_answer_is_in_pieces(stateful: bool) -> None:
    """Once a model is seen to answer in pieces, parts are streamed by gRPC, which keeps them apart; until then by REST.

    No call is made twice.
    """
    handler = Handler(chunked(b"joined", b"pieces"), [b"one", b"", b"two"])
    route = replace(ROUTE, policy=CallPolicy(stateful=stateful))
    async with adapter(handler) as torchserve:
        first = await pieces(torchserve, PARTS, route)
        assert (b"".join(body for body, _ in first), len(handler.calls)) == (b"joinedpieces", 0)
        for _ in range(2):
            assert await pieces(torchserve, PARTS, route) == [(b"one", True), (b"", True), (b"two", True)]
    assert (len(handler.requests), len(handler.calls)) == (1, 2)
    assert dict(handler.calls[0].input) == {"image": b"\x89PNG\r\n\0\xff", "größe": b""}
    assert (handler.calls[0].model_name, handler.calls[0].model_version) == (ROUTE.servable, "1.0")


async def test_what_teaches_that_a_model_answers_in_pieces() -> None:
    """Any answer by REST does; and what gRPC cannot ask goes by REST all the same."""
    handler = Handler(chunked(b"joined"), [b"one"])
    async with adapter(handler) as torchserve:
        await torchserve.infer(ROUTE, RAW, 30.0)
        assert await pieces(torchserve, PARTS) == [(b"one", True)]
        await torchserve.infer(ROUTE, PARTS, 30.0)
        assert await pieces(torchserve, replace(PARTS, explain=True)) == [(b"joined", True)]
        assert await pieces(torchserve, RAW) == [(b"joined", True)]
    assert (len(handler.requests), len(handler.calls)) == (4, 1)


async def test_a_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which models answer in pieces is remembered of so many only."""
    monkeypatch.setattr(module, "MOST_KNOWN", 2)
    handler = Handler(chunked(b"one"), [b"two"])
    async with adapter(handler) as torchserve:
        for number in range(5):
            await pieces(torchserve, PARTS, replace(ROUTE, servable=f"digits--{number}"))
            assert len(torchserve._in_pieces) <= 2


async def test_messages_that_end_in_a_failure() -> None:
    """A failure after the first messages is raised after them, with the handler's status."""
    handler = Handler(chunked(b"one"), [b"one", b"fail"])
    async with adapter(handler) as torchserve:
        await torchserve.infer(ROUTE, RAW, 30.0)
        stream = torchserve.stream(ROUTE, PARTS, 30.0)
        assert body_of(await anext(stream)) == b"one"
        with pytest.raises(InvalidRequest, match="mine") as caught:
            await anext(stream)
    assert caught.value.answer == HandlerAnswer(409)


async def test_who_stops_reading_messages_ends_the_call() -> None:
    """Who closes a stream of messages cancels the gRPC call."""
    handler = Handler(chunked(b"one"), [b"one", b"wait"])
    async with adapter(handler) as torchserve:
        await torchserve.infer(ROUTE, RAW, 30.0)
        stream = torchserve.stream(ROUTE, PARTS, 30.0)
        assert body_of(await anext(stream)) == b"one"
        await stream.aclose()
        async with asyncio.timeout(30):
            await handler.left.wait()


@pytest.mark.parametrize("wire", [Wire.JSON, Wire.KSERVE_V1, Wire.KSERVE_V2])
async def test_another_wire(wire: Wire) -> None:
    """Where the policy says another form, several BYTES inputs are not parts but what that form makes of them."""
    handler = Handler(whole(b"200 OK", b"[]"))
    request = InferenceRequest((part("a", b"x"), part("b", b"y")))
    async with adapter(handler) as torchserve:
        await torchserve.infer(replace(ROUTE, policy=CallPolicy(wire=wire)), request, 30.0)
    assert handler.requests[0][1]["content-type"] == "application/json"
