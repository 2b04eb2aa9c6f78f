"""A gRPC service of our edge and nothing else, for `test_grpc_edge.py`. Served by pyvoy as `grpc_echo:app`."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

from portico import errors
from portico.edges.application import Application
from portico.edges.asgi import App
from portico.edges.framing import decode_metadata
from portico.edges.grpc import Call, GrpcEdge, Method
from portico.edges.memory import Memory
from portico.edges.pyvoy import ignore_late_answers
from portico.meters import MemoryMeter, PrometheusMeter
from portico.routing import LiveRoutes

LIMIT = 64 << 20
RUSSIAN = "не найдено: 100 % «модель»\nвторая строка ☃"


async def echo(message: bytes, call: Call) -> bytes:
    """The message itself; the caller's metadata come back, `x-…` as initial and `y-…` as trailing."""
    for key, value in decode_metadata(call.headers):
        if key.startswith("x-"):
            call.initial.append((key, value))
        if key.startswith("y-"):
            call.trailing.append((key, value))
    return message


async def remaining(message: bytes, call: Call) -> bytes:
    """Seconds until the deadline."""
    return repr(call.deadline - monotonic()).encode()


async def slow(message: bytes, call: Call) -> bytes:
    """Never answers; touches the file that the message names when it is cancelled."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        Path(message.decode()).touch()
        raise
    return b""


async def blocking(message: bytes, call: Call) -> bytes:
    """Holds up the event loop, so that what comes meanwhile has to be buffered."""
    time.sleep(float(message))  # noqa: ASYNC251 - on purpose
    return b""


async def fail(message: bytes, call: Call) -> bytes:
    """Raises the error that the message names."""
    call.trailing.append(("y-detail-bin", b"\x00\xff"))
    name = message.decode()
    if name == "TooLarge":
        raise errors.TooLarge(LIMIT)
    if name == "bug":
        raise RuntimeError("secret of the implementation")
    error: errors.PorticoError = getattr(errors, name)(RUSSIAN)
    raise error


async def count(message: bytes, call: Call) -> AsyncGenerator[bytes, None]:
    """As many messages as the request says, then fails if it says so."""
    number, _, then = message.decode().partition(" ")
    for index in range(int(number)):
        yield str(index).encode()
    if then:
        raise errors.InferenceFailed("broke off")


async def forever(message: bytes, call: Call) -> AsyncGenerator[bytes, None]:
    """A message every 10 ms until somebody stops it; touches the named file then."""
    try:
        while True:
            yield b"tick"
            await asyncio.sleep(0.01)
    finally:
        Path(message.decode()).touch()


async def converse(messages: AsyncIterator[bytes], call: Call) -> AsyncGenerator[bytes, None]:
    """Each message back as it comes; "fail" fails, and "stop" ends the call while its client still talks."""
    call.initial.append(("x-began", "yes"))
    async for message in messages:
        if message == b"fail":
            raise errors.InferenceFailed("broke off")
        if message == b"stop":
            return
        yield message
    call.trailing.append(("y-ended", "half-closed"))


async def dwell(messages: AsyncIterator[bytes], call: Call) -> AsyncGenerator[bytes, None]:
    """Touches the file `<message>.begun`, then works without an end, and touches the file when it is stopped."""
    async for message in messages:
        path = Path(message.decode())
        path.with_suffix(".begun").touch()
        try:
            await asyncio.sleep(60)
        finally:
            path.touch()
        yield b""


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[App, App]]:
    async def nothing(scope: object, receive: object, send: object) -> None:
        raise AssertionError("only gRPC is served here")

    unary = {"Echo": echo, "Remaining": remaining, "Slow": slow, "Fail": fail, "Blocking": blocking}
    methods = [Method(f"/test.Echo/{name}", unary=handler) for name, handler in unary.items()]
    methods += [Method("/test.Echo/Count", stream=count), Method("/test.Echo/Forever", stream=forever)]
    methods += [Method(f"/test.Echo/{name}", both=converse, lasting=name == "Lasting") for name in ("Both", "Lasting")]
    methods += [Method("/test.Echo/Dwell", both=dwell, lasting=True)]
    ignore_late_answers()
    memory = Memory(LiveRoutes(), 0, MemoryMeter(PrometheusMeter()))
    yield GrpcEdge(methods, memory, LIMIT, float(os.environ["ECHO_TIMEOUT"])), nothing


app = Application(opened)
