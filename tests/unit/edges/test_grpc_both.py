"""gRPC calls that stream both ways, in-process."""

import asyncio
import gzip
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from fakes import no_memory
from grpc_conversation import Conversation
from portico.edges.grpc import Call, GrpcEdge, Method
from portico.edges.incoming import AHEAD
from portico.errors import InvalidRequest

LIMIT = 100
BOTH_EAGER = pytest.mark.parametrize("eager", [False, True], ids=["as ASGI says", "as pyvoy does"])


class Handlers:
    """Methods that are asked for by the tests, and what became of them."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.ended: list[str] = []

    async def echo(self, messages: AsyncIterator[bytes], call: Call) -> AsyncGenerator[bytes]:
        call.initial.append(("x-initial", "1"))
        try:
            async for message in messages:
                if message == b"fail":
                    raise InvalidRequest("failed as asked")
                yield message
            call.trailing.append(("x-trailing", "2"))
        finally:
            self.ended.append("echo")

    async def greet(self, messages: AsyncIterator[bytes], call: Call) -> AsyncGenerator[bytes]:
        """Speaks first, and ends whatever the client still has to say."""
        yield b"hello"

    async def work(self, messages: AsyncIterator[bytes], call: Call) -> AsyncGenerator[bytes]:
        """Works on each message until `go_on`."""
        try:
            async for message in messages:
                self.begun.set()
                await self.go_on.wait()
                yield message
        finally:
            self.ended.append("work")

    async def stumble(self, messages: AsyncIterator[bytes], call: Call) -> AsyncGenerator[bytes]:
        """Fails without a word of ours."""
        async for _ in messages:
            raise RuntimeError("the password is secret")
        yield b""

    def edge(self, timeout: float = 20.0) -> GrpcEdge:
        lasting = [Method(f"/t.S/{handler.__name__}", both=handler, lasting=True) for handler in (self.echo, self.work)]
        brief = [Method(f"/t.S/{handler.__name__}", both=handler) for handler in (self.greet, self.stumble)]
        return GrpcEdge([*lasting, *brief, Method("/t.S/brief", both=self.work)], no_memory(), LIMIT, timeout)


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@BOTH_EAGER
async def test_a_conversation(handlers: Handlers, eager: bool) -> None:
    """Each message is answered as it comes; once the client half-closes the call ends with OK and its metadata."""
    client = Conversation("/t.S/echo", eager=eager).start(handlers.edge())
    for message in (b"one", b"", bytes(LIMIT)):
        client.say(message)
        assert await client.hear() == message
    client.half_close()
    answer = await client.end()
    assert answer.messages == [b"one", b"", bytes(LIMIT)]
    assert (answer.header(b"x-initial"), answer.trailer(b"x-trailing")) == ("1", "2")
    assert handlers.ended == ["echo"]


async def test_messages_cut_anywhere(handlers: Handlers) -> None:
    """However the client's bytes come in, one by one or all at once, they are the same messages."""
    said = b"\0\0\0\0\3one\0\0\0\0\0\0\0\0\0\3two"
    for pieces in ([said], [said[index : index + 1] for index in range(len(said))]):
        client = Conversation("/t.S/echo").start(handlers.edge())
        for piece in pieces:
            client.send_bytes(piece)
        client.half_close()
        assert (await client.end()).messages == [b"one", b"", b"two"]


async def test_a_stream_of_nothing(handlers: Handlers) -> None:
    """A client that half-closes at once gets OK."""
    client = Conversation("/t.S/echo").start(handlers.edge())
    client.half_close()
    assert (await client.end()).messages == []


async def test_compressed_messages(handlers: Handlers) -> None:
    """Messages that the client compressed are read, and those that it did not."""
    client = Conversation("/t.S/echo", [(b"grpc-encoding", b"gzip")]).start(handlers.edge())
    packed = gzip.compress(b"message")
    client.send_bytes(b"\1" + len(packed).to_bytes(4, "big") + packed)
    client.say(b"plain")
    client.half_close()
    assert (await client.end()).messages == [b"message", b"plain"]


async def test_a_handler_that_ends_first(handlers: Handlers) -> None:
    """A handler may end the call while its client still talks."""
    client = Conversation("/t.S/greet").start(handlers.edge())
    assert (await client.end()).messages == [b"hello"]


async def test_a_failure_in_between(handlers: Handlers) -> None:
    """What was answered before a failure is kept, and the status follows."""
    client = Conversation("/t.S/echo").start(handlers.edge())
    client.say(b"one", b"fail", b"two")
    answer = await client.end()
    assert (await client.hear(), answer.grpc_status) == (b"one", (3, "failed as asked"))


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        (b"\0\0\0\0\2x", 3, "ends within a message"),
        (b"\0", 3, "ends within a message"),
        (b"\7\0\0\0\1x", 3, "first byte is 0 or 1"),
        (b"\1\0\0\0\1x", 3, "no grpc-encoding"),
        (b"\0\0\0\0\x65", 8, "limit of 100 bytes"),
        (b"\0\xff\xff\xff\xff", 8, "limit of 100 bytes"),
    ],
)
async def test_what_is_no_message(handlers: Handlers, body: bytes, code: int, says: str) -> None:
    """Bytes that are no whole message, or one over the limit, end the call with what is wrong, behind the answers."""
    client = Conversation("/t.S/echo").start(handlers.edge())
    client.say(b"one")
    client.send_bytes(body)
    client.half_close()
    found, text = (await client.end()).grpc_status
    assert (await client.hear(), found) == (b"one", code)
    assert says in text


@BOTH_EAGER
@pytest.mark.parametrize("half_closed", [False, True])
async def test_a_client_that_goes_while_its_handler_works(handlers: Handlers, eager: bool, half_closed: bool) -> None:
    """A client that goes ends the handler at once, also while that works on a message, and no status is sent."""
    client = Conversation("/t.S/work", eager=eager).start(handlers.edge())
    client.say(b"one")
    if half_closed:
        client.half_close()
    await handlers.begun.wait()
    client.leave()
    assert (await client.end()).events == []
    assert handlers.ended == ["work"]


async def test_a_client_that_goes_between_messages(handlers: Handlers) -> None:
    """A client that goes while its handler waits for the next message ends it."""
    client = Conversation("/t.S/echo").start(handlers.edge())
    client.say(b"one")
    await client.hear()
    client.leave()
    await client.end()
    assert handlers.ended == ["echo"]


async def test_who_sends_too_far_ahead(handlers: Handlers) -> None:
    """Messages wait for their handler up to a limit; who sends on is RESOURCE_EXHAUSTED, and told what to do."""
    client = Conversation("/t.S/work").start(handlers.edge())
    client.say(bytes(LIMIT))
    await handlers.begun.wait()
    client.say(*[bytes(LIMIT)] * AHEAD)
    handlers.go_on.set()
    for _ in range(1 + AHEAD):
        assert await client.hear() == bytes(LIMIT)
    handlers.go_on.clear()
    client.say(*[bytes(LIMIT)] * (AHEAD + 2))
    code, text = (await client.end()).grpc_status
    assert (code, "Wait for answers before you send more" in text) == (8, True)
    assert handlers.ended == ["work"]


async def test_a_lasting_call_has_no_deadline_but_the_clients(handlers: Handlers) -> None:
    """The stack's time for a call does not end a lasting one; the client's own does."""
    client = Conversation("/t.S/work").start(handlers.edge(timeout=0.01))
    client.say(b"one")
    await asyncio.sleep(0.1)
    handlers.go_on.set()
    assert await client.hear() == b"one"
    client.half_close()
    assert (await client.end()).messages == [b"one"]
    handlers.go_on.clear()
    hurried = Conversation("/t.S/work", [(b"grpc-timeout", b"50m")]).start(handlers.edge())
    hurried.say(b"one")
    assert (await hurried.end()).grpc_status == (4, "No answer by the deadline of 0.05 s.")


async def test_a_call_that_does_not_last(handlers: Handlers) -> None:
    """A call that streams both ways, and is not declared to last, has the stack's time."""
    client = Conversation("/t.S/brief").start(handlers.edge(timeout=0.05))
    client.say(b"one")
    assert (await client.end()).grpc_status[0] == 4


async def test_a_bug_in_a_handler(handlers: Handlers) -> None:
    """An unexpected exception is INTERNAL without its text."""
    client = Conversation("/t.S/stumble").start(handlers.edge())
    client.say(b"one")
    code, text = (await client.end()).grpc_status
    assert (code, "secret" in text) == (13, False)
