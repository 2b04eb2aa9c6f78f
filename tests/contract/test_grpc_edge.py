"""Our gRPC edge, served by the real pyvoy, against the real `grpcio`: the protocol to the letter."""

import asyncio
import gzip
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_echo import LIMIT, RUSSIAN

from portico import errors
from portico.edges.framing import frame
from portico.edges.status import STATUS

HERE = Path(__file__).parent
CALL_LIMIT = 5.0
"""Seconds a call may take here when its client sets no deadline."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def server_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the server writes."""
    return tmp_path_factory.mktemp("echo") / "log"


@pytest.fixture(scope="module")
def address(server_log: Path) -> Iterator[str]:
    port, log = free_port(), server_log
    code = f"from portico.edges.pyvoy import serve; serve('grpc_echo:app', '127.0.0.1', {port}, {LIMIT})"
    environment = os.environ | {"PYTHONPATH": str(HERE), "ECHO_TIMEOUT": str(CALL_LIMIT)}
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=output, stderr=output)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        else:
            pytest.fail(f"the server did not start:\n{log.read_text()}")
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(10)


@pytest_asyncio.fixture
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(address, options) as opened:
        yield opened


async def call(channel: grpc.aio.Channel, method: str, message: bytes, **options: object) -> bytes:
    options.setdefault("timeout", 20)
    answer: bytes = await channel.unary_unary(f"/test.Echo/{method}")(message, **options)
    return answer


async def failure(channel: grpc.aio.Channel, method: str, message: bytes, **options: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, method, message, **options)
    return caught.value


@pytest.mark.parametrize("size", [0, 1, 5 << 20, LIMIT])
async def test_messages_of_all_sizes(channel: grpc.aio.Channel, size: int) -> None:
    """A unary call carries any message up to the limit, both ways, unchanged."""
    message = os.urandom(size)
    assert await call(channel, "Echo", message) == message


async def test_message_over_the_limit(channel: grpc.aio.Channel) -> None:
    """A message one byte over the limit is RESOURCE_EXHAUSTED, and the text names the limit."""
    error = await failure(channel, "Echo", bytes(LIMIT + 1))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(LIMIT) in (error.details() or "")


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_messages(channel: grpc.aio.Channel, compression: grpc.Compression) -> None:
    """A message that the client compressed arrives as it was."""
    message = b"portico " * 10_000
    assert await call(channel, "Echo", message, compression=compression) == message


async def test_a_decompression_bomb(channel: grpc.aio.Channel) -> None:
    """A small message that inflates beyond the limit is refused as too large."""
    error = await failure(channel, "Echo", bytes(LIMIT + 1), compression=grpc.Compression.Gzip)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_metadata_in_both_directions(channel: grpc.aio.Channel) -> None:
    """Text and `-bin` metadata, repeated keys included, arrive and come back as initial and as trailing metadata."""
    binary = bytes(range(256))
    sent = (("x-text", "a b"), ("x-bin", binary), ("x-bin", b""), ("y-text", "first"), ("y-text", "second"))
    sent += (("y-sum-bin", b"\x00"),)
    running = channel.unary_unary("/test.Echo/Echo")(b"", metadata=sent, timeout=5)
    initial, trailing = await running.initial_metadata(), await running.trailing_metadata()
    assert [value for key, value in initial if key == "x-text"] == ["a b"]
    assert [value for key, value in initial if key == "x-bin"] == [binary, b""]
    assert [value for key, value in trailing if key == "y-text"] == ["first", "second"]
    assert [value for key, value in trailing if key == "y-sum-bin"] == [b"\x00"]


async def test_deadline_is_passed_on(channel: grpc.aio.Channel) -> None:
    """The handler sees the client's deadline, less what has been spent."""
    left = float(await call(channel, "Remaining", b"", timeout=3))
    assert 0 < left <= 3.01  # grpcio rounds a deadline up


async def test_without_a_deadline_the_stack_sets_one(channel: grpc.aio.Channel) -> None:
    """A call without a deadline, or with a later one, gets the stack's."""
    for timeout in (None, 1000):
        assert 0 < float(await call(channel, "Remaining", b"", timeout=timeout)) <= CALL_LIMIT


async def test_deadline_exceeded_by_the_server(channel: grpc.aio.Channel, tmp_path: Path) -> None:
    """When the stack's time is up the call is DEADLINE_EXCEEDED, and its handler has been cancelled."""
    stopped = tmp_path / "stopped"
    error = await failure(channel, "Slow", str(stopped).encode())
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert stopped.exists()


async def appears(path: Path) -> bool:
    for _ in range(100):
        if path.exists():
            return True
        await asyncio.sleep(0.05)
    return False


async def test_deadline_exceeded_at_the_client(channel: grpc.aio.Channel, tmp_path: Path) -> None:
    """A client whose deadline passes gets DEADLINE_EXCEEDED, and the handler is cancelled."""
    stopped = tmp_path / "stopped"
    error = await failure(channel, "Slow", str(stopped).encode(), timeout=0.3)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await appears(stopped)


@pytest.mark.parametrize("how", ["cancel", "close"])
async def test_cancellation(address: str, tmp_path: Path, how: str) -> None:
    """A client that cancels, or closes its channel, cancels the handler."""
    stopped = tmp_path / "stopped"
    async with grpc.aio.insecure_channel(address) as channel:
        running = channel.unary_unary("/test.Echo/Slow")(str(stopped).encode())
        await asyncio.sleep(0.3)
        assert not stopped.exists()
        if how == "cancel":
            running.cancel()
            assert await appears(stopped)
    assert await appears(stopped)


async def test_server_streaming(channel: grpc.aio.Channel) -> None:
    """All messages of a stream arrive, in order, and then OK."""
    stream = channel.unary_stream("/test.Echo/Count")(b"1000", timeout=20)
    assert [message async for message in stream] == [str(index).encode() for index in range(1000)]
    assert await stream.code() is grpc.StatusCode.OK


async def test_an_empty_stream(channel: grpc.aio.Channel) -> None:
    """A stream of no messages is OK."""
    stream = channel.unary_stream("/test.Echo/Count")(b"0", timeout=5)
    assert [message async for message in stream] == []
    assert await stream.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("messages", [0, 3])
async def test_a_stream_that_fails(channel: grpc.aio.Channel, messages: int) -> None:
    """What was sent before a stream fails arrives, then the status does."""
    stream = channel.unary_stream("/test.Echo/Count")(f"{messages} fail".encode(), timeout=5)
    received = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for message in stream:
            received.append(message)  # noqa: PERF401 - a comprehension would lose them with the failure
    assert len(received) == messages
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "broke off")


async def test_cancelling_a_stream(channel: grpc.aio.Channel, tmp_path: Path) -> None:
    """A client that leaves a stream ends its handler."""
    stopped = tmp_path / "stopped"
    stream = channel.unary_stream("/test.Echo/Forever")(str(stopped).encode(), timeout=30)
    assert await stream.read() == b"tick"
    stream.cancel()
    assert await appears(stopped)


def conversation(channel: grpc.aio.Channel, method: str = "Lasting", timeout: float | None = 20) -> Any:
    return channel.stream_stream(f"/test.Echo/{method}")(timeout=timeout)


@pytest.mark.parametrize("method", ["Both", "Lasting"])
async def test_both_streams_at_once(channel: grpc.aio.Channel, method: str) -> None:
    """Each message is answered before the next is sent; half-closing ends the call with OK and trailing metadata."""
    stream = conversation(channel, method)
    for message in (b"one", b"", os.urandom(5 << 20), b"last"):
        await stream.write(message)
        assert await stream.read() == message
    assert ("x-began", "yes") in list(await stream.initial_metadata())
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK
    assert ("y-ended", "half-closed") in list(await stream.trailing_metadata())


async def test_many_messages_in_both_directions(channel: grpc.aio.Channel) -> None:
    """Thousands of messages, sent without waiting for answers, come back in their order on each of several streams."""
    sent = [str(index).encode() * (index % 50) for index in range(2000)]

    async def once() -> list[bytes]:
        stream = conversation(channel)

        async def write() -> None:
            for message in sent:
                await stream.write(message)
            await stream.done_writing()

        writing = asyncio.create_task(write())
        received = [message async for message in stream]
        await writing
        return received

    assert await asyncio.gather(*(once() for _ in range(5))) == [sent] * 5


async def test_half_closing_at_once(channel: grpc.aio.Channel) -> None:
    """A stream of nothing is answered with nothing and OK."""
    stream = conversation(channel)
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_a_handler_that_ends_the_conversation(channel: grpc.aio.Channel) -> None:
    """A handler may end the call while its client is still there to talk."""
    stream = conversation(channel)
    await stream.write(b"one")
    await stream.write(b"stop")
    assert [message async for message in stream] == [b"one"]
    assert await stream.code() is grpc.StatusCode.OK


async def test_a_conversation_that_fails(channel: grpc.aio.Channel) -> None:
    """What was answered before a failure arrives, then the status does."""
    stream = conversation(channel)
    await stream.write(b"one")
    assert await stream.read() == b"one"
    await stream.write(b"fail")
    assert (await stream.code(), await stream.details()) == (grpc.StatusCode.INTERNAL, "broke off")


async def test_compressed_messages_of_a_conversation(channel: grpc.aio.Channel) -> None:
    """Messages of a stream that the client compressed arrive as they were."""
    call = channel.stream_stream("/test.Echo/Lasting")(timeout=20, compression=grpc.Compression.Gzip)
    await call.write(b"portico " * 10_000)
    assert await call.read() == b"portico " * 10_000
    await call.done_writing()


async def test_a_conversation_lasts(channel: grpc.aio.Channel) -> None:
    """The stack's time for a call does not end a lasting stream, and ends another; the client's ends either."""
    lasting, other = conversation(channel, timeout=None), conversation(channel, "Both", None)
    hurried = conversation(channel, timeout=0.3)
    assert await hurried.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await other.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await lasting.write(b"still there")
    assert await lasting.read() == b"still there"
    await lasting.done_writing()
    assert await lasting.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("half_closed", [False, True])
@pytest.mark.parametrize("how", ["cancel", "close"])
async def test_a_client_that_leaves_a_conversation(address: str, tmp_path: Path, how: str, half_closed: bool) -> None:
    """A client that leaves ends the handler while that works on a message, half-closed or not."""
    stopped = tmp_path / "stopped"
    async with grpc.aio.insecure_channel(address) as channel:
        stream = conversation(channel, "Dwell")
        await stream.write(str(stopped).encode())
        if half_closed:
            await stream.done_writing()
        assert await appears(stopped.with_suffix(".begun"))
        assert not stopped.exists()
        if how == "cancel":
            stream.cancel()
            assert await appears(stopped)
    assert await appears(stopped)


def test_who_sends_too_far_ahead(address: str, tmp_path: Path) -> None:
    """A client that sends and sends while its first message is worked on is refused in time, and told what to do."""

    def talk() -> Iterator[bytes]:
        yield str(tmp_path / "stopped").encode()
        for _ in range(100):
            yield bytes(4 << 20)

    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
        next(channel.stream_stream("/test.Echo/Dwell")(talk(), timeout=20))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "Wait for answers before you send more" in caught.value.details()
    assert (tmp_path / "stopped").exists()


@pytest.mark.parametrize("error", [e for e in STATUS if e is not errors.TooLarge], ids=lambda e: e.__name__)
async def test_every_error_with_its_code(channel: grpc.aio.Channel, error: type[errors.PorticoError]) -> None:
    """Each error of the tree arrives with its code, its text in any language, and the trailing metadata."""
    found = await failure(channel, "Fail", error.__name__.encode())
    assert found.code().value[0] == STATUS[error][1].value
    assert found.details() == RUSSIAN
    assert ("y-detail-bin", b"\x00\xff") in list(found.trailing_metadata())


async def test_a_bug_is_internal_and_tells_nothing(channel: grpc.aio.Channel) -> None:
    """An unexpected exception is INTERNAL, without its text."""
    error = await failure(channel, "Fail", b"bug")
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in (error.details() or "")


async def test_wrong_method(channel: grpc.aio.Channel) -> None:
    """A method that is not there is UNIMPLEMENTED, and named."""
    error = await failure(channel, "Missing", b"")
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "/test.Echo/Missing" in (error.details() or "")


async def test_a_thousand_calls_at_once(channel: grpc.aio.Channel) -> None:
    """1,000 concurrent calls on one connection are all answered, each with its own answer."""
    messages = [str(index).encode() for index in range(1000)]
    assert await asyncio.gather(*(call(channel, "Echo", message) for message in messages)) == messages


async def test_large_messages_while_the_loop_is_busy(channel: grpc.aio.Channel) -> None:
    """Messages that come in while Python is busy are buffered, not refused."""
    busy = asyncio.create_task(call(channel, "Blocking", b"1.5"))
    await asyncio.sleep(0.1)
    message = bytes(32 << 20)
    answers = await asyncio.gather(*(call(channel, "Echo", message) for _ in range(2)))
    assert [len(answer) for answer in answers] == [len(message)] * 2
    await busy


def post(address: str, body: bytes, *headers: str, path: str = "/test.Echo/Echo") -> str:
    """The response headers of a hand-made HTTP/2 request.

    curl's exit code is left out, and it is asked again if it shows nothing: it drops, at times, an answer that comes
    before all of the request has gone, which HTTP/2 allows (RFC 9113, section 8.1).
    """
    sent = [
        argument
        for header in ("content-type: application/grpc", "te: trailers", *headers)
        for argument in ("-H", header)
    ]
    command = ["curl", "-s", "-m", "10", "--http2-prior-knowledge", "-D", "-", "-o", os.devnull, "--data-binary", "@-"]
    for _ in range(5):
        ran = subprocess.run([*command, *sent, f"http://{address}{path}"], input=body, capture_output=True)
        if ran.stdout:
            break
    return ran.stdout.decode()


MALFORMED = {
    "no prefix": (b"\x00\x00", (), 3),
    "cut off": (frame(b"0123456789")[:-3], (), 3),
    "two messages": (frame(b"a") + frame(b"b"), (), 3),
    "unknown flag": (b"\x07" + frame(b"a")[1:], (), 3),
    "length over the limit": (b"\x00\xff\xff\xff\xff", (), 8),
    "compressed without saying how": (b"\x01" + frame(b"a")[1:], (), 3),
    "compressed in vain": (b"\x01" + frame(b"no gzip")[1:], ("grpc-encoding: gzip",), 3),
    "gzip cut off": (b"\x01" + frame(gzip.compress(b"whole")[:-4])[1:], ("grpc-encoding: gzip",), 3),
    "unknown compression": (frame(b"a"), ("grpc-encoding: snappy",), 12),
    "bad timeout": (frame(b"a"), ("grpc-timeout: soon",), 3),
    "bad base64": (frame(b"a"), ("x-bin: @@@",), 3),
    "no time left": (frame(b"a"), ("grpc-timeout: 0n",), 4),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_calls(address: str, name: str) -> None:
    """What is no proper gRPC call gets a status that fits, and no hang."""
    body, headers, code = MALFORMED[name]
    answer = post(address, body, *headers)
    assert answer.startswith("HTTP/2 200")
    assert f"grpc-status: {code}" in answer.lower()


async def test_nothing_is_logged_of_clients_that_leave(
    address: str, channel: grpc.aio.Channel, server_log: Path
) -> None:
    """Calls that are cancelled or time out while their bodies come leave no error in the server's log."""
    before = server_log.read_text()
    for _ in range(200):
        running = channel.unary_unary("/test.Echo/Slow")(b"/dev/null", timeout=0.06)
        with pytest.raises(grpc.aio.AioRpcError):
            await running
    slow = socket.create_connection(address.split(":"))
    slow.sendall(b"POST /test.Echo/Echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\n")
    slow.sendall(b"te: trailers\r\ncontent-length: 10\r\n\r\nabc")
    await asyncio.sleep(CALL_LIMIT + 0.5)
    slow.sendall(b"defghij")
    await asyncio.sleep(0.5)
    slow.close()
    assert server_log.read_text().removeprefix(before) == ""
