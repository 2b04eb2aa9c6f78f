"""gRPC over plain ASGI, in-process: what goes over the wire. `tests/contract/test_grpc_edge.py` asks the same of a real
server with `grpcio`.
"""

import asyncio
import gzip
import logging
from collections.abc import AsyncGenerator
from time import monotonic

import pytest

from asgi_client import Answer, Event, Exchange, decode_bin, grpc_call, grpc_exchange
from fakes import no_memory
from portico.edges.framing import decode_metadata
from portico.edges.grpc import Abort, Call, GrpcEdge, Method
from portico.edges.status import GrpcCode
from portico.errors import InvalidRequest, ModelNotFound

LIMIT = 100
GRPC = (b"content-type", b"application/grpc")


class Handlers:
    """Methods that are asked for by the tests, and what became of them."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended: list[str] = []

    async def echo(self, message: bytes, call: Call) -> bytes:
        call.initial += [("x-initial", "1"), ("x-initial-bin", b"\0\xff")]
        call.trailing.append(("x-trailing", "2"))
        return message

    async def tell(self, message: bytes, call: Call) -> bytes:
        return repr(
            (call.method, decode_metadata(call.headers), call.header(b"x-user"), call.header(b"x-none"))
        ).encode()

    async def remaining(self, message: bytes, call: Call) -> bytes:
        return str(call.deadline - monotonic()).encode()

    async def wait(self, message: bytes, call: Call) -> bytes:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.append("wait")
        return message

    async def refuse(self, message: bytes, call: Call) -> bytes:
        call.trailing.append(("x-detail-bin", b"\0\xff"))
        raise InvalidRequest("вход 'x': 100% wrong")

    async def abort(self, message: bytes, call: Call) -> bytes:
        raise Abort(GrpcCode.DATA_LOSS, "gone")

    async def stumble(self, message: bytes, call: Call) -> bytes:
        raise RuntimeError("the password is secret")

    async def count(self, message: bytes, call: Call) -> AsyncGenerator[bytes, None]:
        call.initial.append(("x-initial", "1"))
        try:
            for number in range(int(message)):
                yield str(number).encode()
            call.trailing.append(("x-trailing", "2"))
        finally:
            self.ended.append("count")

    async def break_off(self, message: bytes, call: Call) -> AsyncGenerator[bytes, None]:
        for number in range(int(message)):
            yield str(number).encode()
        raise ModelNotFound("gone")

    async def forever(self, message: bytes, call: Call) -> AsyncGenerator[bytes, None]:
        try:
            yield b"first"
            self.begun.set()
            await asyncio.Event().wait()
        finally:
            self.ended.append("forever")

    def edge(self, timeout: float = 20.0) -> GrpcEdge:
        unary = (self.echo, self.tell, self.remaining, self.wait, self.refuse, self.abort, self.stumble)
        streams = (self.count, self.break_off, self.forever)
        methods = [Method(f"/t.S/{handler.__name__}", handler) for handler in unary]
        methods += [Method(f"/t.S/{handler.__name__}", stream=handler) for handler in streams]
        return GrpcEdge(methods, no_memory(), LIMIT, timeout)


class LeavesAfterTwo(Exchange):
    """A client that has gone when the third event is sent to it."""

    async def send(self, event: Event) -> None:
        if len(self.answer.events) == 2:
            self.leave()
        await super().send(event)


class StopsAtTheTrailers(Exchange):
    """A client whose connection takes no trailers the first time it is sent some."""

    stopped = False

    async def send(self, event: Event) -> None:
        if event["type"] == "http.response.trailers" and not self.stopped:
            self.stopped = True
            await asyncio.Event().wait()
        await super().send(event)


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


async def raw(edge: GrpcEdge, body: bytes, *headers: tuple[bytes, bytes]) -> Answer:
    return await Exchange("POST", "/t.S/echo", body, [GRPC, *headers], eager=False).run(edge)


async def test_a_unary_call(handlers: Handlers) -> None:
    """Headers, one message and trailers go out, in this order, with the metadata where it belongs."""
    answer = await grpc_call(handlers.edge(), "/t.S/echo", b"message")
    assert [event["type"] for event in answer.events] == [
        "http.response.start",
        "http.response.body",
        "http.response.trailers",
    ]
    assert answer.messages == [b"message"]
    assert answer.header(b"grpc-accept-encoding") == "identity,gzip,deflate"
    assert answer.header(b"x-initial") == "1"
    assert decode_bin(answer.header(b"x-initial-bin").encode()) == b"\0\xff"
    assert answer.trailer(b"x-trailing") == "2"
    assert answer.header(b"grpc-status") == ""


async def test_what_a_handler_sees(handlers: Handlers) -> None:
    """A handler sees its method and the caller's metadata, of which it reads all of a key, joined by commas."""
    metadata = [(b"x-user", b"a"), (b"x-user", b"b"), (b"x-bin", b"AP8"), (b"grpc-timeout", b"1S")]
    (message,) = (await grpc_call(handlers.edge(), "/t.S/tell", b"", metadata)).messages
    expected = ("/t.S/tell", [("x-user", "a"), ("x-user", "b"), ("x-bin", b"\0\xff")], "a, b", "")
    assert message.decode() == repr(expected)


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_a_stream(handlers: Handlers, count: int) -> None:
    """A stream's messages go out in their order, then OK; one of none has headers and trailers too."""
    answer = await grpc_call(handlers.edge(), "/t.S/count", str(count).encode())
    assert answer.messages == [str(number).encode() for number in range(count)]
    assert (answer.header(b"x-initial"), answer.trailer(b"x-trailing")) == ("1", "2")
    assert handlers.ended == ["count"]


@pytest.mark.parametrize("count", [0, 2])
async def test_a_stream_that_fails(handlers: Handlers, count: int) -> None:
    """Messages before a failure are kept, and the status follows: in trailers, or in headers if nothing was sent."""
    answer = await grpc_call(handlers.edge(), "/t.S/break_off", str(count).encode())
    assert answer.grpc_status == (5, "gone")
    assert answer.body == b"".join(b"\0\0\0\0\1" + str(number).encode() for number in range(count))
    assert bool(answer.header(b"grpc-status")) == (count == 0)


async def test_an_error(handlers: Handlers) -> None:
    """An error is one block of headers with its code, its text in any language, and trailing metadata."""
    answer = await grpc_call(handlers.edge(), "/t.S/refuse", b"")
    assert answer.grpc_status == (3, "вход 'x': 100% wrong")
    assert decode_bin(answer.trailer(b"x-detail-bin").encode()) == b"\0\xff"
    assert answer.body == b""


async def test_a_code_of_the_protocol(handlers: Handlers) -> None:
    """A handler may end a call with any code that its protocol prescribes."""
    assert (await grpc_call(handlers.edge(), "/t.S/abort", b"")).grpc_status == (15, "gone")


async def test_a_bug_tells_nothing(handlers: Handlers, caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected exception is INTERNAL without its text, which is in the log."""
    with caplog.at_level(logging.ERROR):
        code, text = (await grpc_call(handlers.edge(), "/t.S/stumble", b"")).grpc_status
    assert code == 13
    assert "secret" not in text
    assert "the password is secret" in caplog.text


async def test_an_unknown_method(handlers: Handlers) -> None:
    """A method that is not there is UNIMPLEMENTED, and named."""
    code, text = (await grpc_call(handlers.edge(), "/t.S/Missing", b"")).grpc_status
    assert code == 12
    assert "/t.S/Missing" in text


async def test_a_compressed_message(handlers: Handlers) -> None:
    """A message that the client has compressed is read; the answer is plain, which every client reads."""
    packed = gzip.compress(b"message")
    body = b"\1" + len(packed).to_bytes(4, "big") + packed
    assert (await raw(handlers.edge(), body, (b"grpc-encoding", b"gzip"))).messages == [b"message"]


async def test_an_unknown_compression(handlers: Handlers) -> None:
    """A compression that is not read is UNIMPLEMENTED, with those that are in `grpc-accept-encoding`."""
    answer = await raw(handlers.edge(), b"\1\0\0\0\1x", (b"grpc-encoding", b"br"))
    code, text = answer.grpc_status
    assert (code, "br" in text) == (12, True)
    assert answer.header(b"grpc-accept-encoding") == "identity,gzip,deflate"


@pytest.mark.parametrize("body", [b"", b"\0\0", b"\0\0\0\0\2x", b"\0\0\0\0\0\0\0\0\0\0"])
async def test_a_body_that_is_no_message(handlers: Handlers, body: bytes) -> None:
    """A body that is not one whole message is INVALID_ARGUMENT."""
    assert (await raw(handlers.edge(), body)).grpc_status[0] == 3


async def test_the_limit(handlers: Handlers) -> None:
    """A message of the limit is read; a byte more is RESOURCE_EXHAUSTED, with the limit."""
    edge = handlers.edge()
    assert (await grpc_call(edge, "/t.S/echo", bytes(LIMIT))).messages == [bytes(LIMIT)]
    code, text = (await grpc_call(edge, "/t.S/echo", bytes(LIMIT + 1))).grpc_status
    assert (code, f"{LIMIT} bytes" in text) == (8, True)


@pytest.mark.parametrize(("header", "most"), [(b"3S", 3), (b"100H", 20), (None, 20)])
async def test_the_deadline_that_a_handler_sees(handlers: Handlers, header: bytes | None, most: float) -> None:
    """A call has the time its client gives it, and never more than the stack's."""
    metadata = [(b"grpc-timeout", header)] if header else []
    (message,) = (await grpc_call(handlers.edge(timeout=20), "/t.S/remaining", b"", metadata)).messages
    assert 0 < float(message) <= most


@pytest.mark.parametrize(("timeout", "header"), [(0.05, None), (20, b"50m")])
async def test_a_deadline_that_passes(handlers: Handlers, timeout: float, header: bytes | None) -> None:
    """When the client's time or the stack's is up, the handler is cancelled and the call is DEADLINE_EXCEEDED."""
    metadata = [(b"grpc-timeout", header)] if header else []
    answer = await grpc_call(handlers.edge(timeout), "/t.S/wait", b"", metadata)
    assert answer.grpc_status == (4, "No answer by the deadline of 0.05 s.")
    assert handlers.ended == ["wait"]


async def test_a_deadline_that_passes_in_a_stream(handlers: Handlers) -> None:
    """A stream whose time is up ends with DEADLINE_EXCEEDED behind the messages that were sent."""
    answer = await grpc_call(handlers.edge(0.05), "/t.S/forever", b"")
    assert (answer.grpc_status[0], answer.body[5:]) == (4, b"first")
    assert handlers.ended == ["forever"]


@pytest.mark.parametrize("method", ["echo", "count"])
async def test_a_deadline_that_passes_behind_the_body(handlers: Handlers, method: str) -> None:
    """A body has one end, even where the time is up between it and the trailers; the status still comes."""
    exchange = StopsAtTheTrailers("POST", f"/t.S/{method}", b"\0\0\0\0\x011", [GRPC], eager=False)
    answer = await exchange.run(handlers.edge(0.05))
    assert exchange.stopped
    assert (answer.body[5:], answer.grpc_status[0]) == (b"1" if method == "echo" else b"0", 4)


async def test_a_timeout_that_is_none(handlers: Handlers) -> None:
    """A grpc-timeout that cannot be read is INVALID_ARGUMENT, rather than no deadline."""
    code, text = (await grpc_call(handlers.edge(), "/t.S/echo", b"", [(b"grpc-timeout", b"soon")])).grpc_status
    assert (code, "soon" in text) == (3, True)


@pytest.mark.parametrize("eager", [False, True], ids=["as ASGI says", "as pyvoy does"])
@pytest.mark.parametrize("method", ["wait", "forever"])
async def test_a_client_that_goes(handlers: Handlers, eager: bool, method: str) -> None:
    """When the client goes, the handler of a unary call or of a stream is ended, and no status is sent."""
    exchange = grpc_exchange(f"/t.S/{method}", b"", eager=eager)
    running = asyncio.create_task(exchange.run(handlers.edge()))
    await handlers.begun.wait()
    exchange.leave()
    answer = await running
    assert handlers.ended == [method]
    assert "http.response.trailers" not in [event["type"] for event in answer.events]


async def test_a_client_that_goes_between_messages(handlers: Handlers) -> None:
    """A message that finds its client gone ends the stream's handler."""
    exchange = LeavesAfterTwo("POST", "/t.S/count", b"\0\0\0\0\x041000", [GRPC], eager=False)
    answer = await exchange.run(handlers.edge())
    assert len(answer.events) == 2
    assert handlers.ended == ["count"]
