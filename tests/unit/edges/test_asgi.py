"""The request's body under a limit, and the end of a client that has gone."""

import asyncio

import pytest

from asgi_client import Exchange
from portico.edges.asgi import ClientGone, Message, Receive, cancelled_with_client, read_body
from portico.errors import TooLarge


def sent(*chunks: bytes) -> Receive:
    return Exchange("POST", "/", chunks, (), eager=False).receive


@pytest.mark.parametrize("chunks", [[b""], [b"0123456789"], [b"01234", b"56789"], [b"", b"0", b"", b"123456789", b""]])
async def test_a_body(chunks: list[bytes]) -> None:
    """A body of up to the limit arrives whole, in however many pieces it comes."""
    assert await read_body(sent(*chunks), 10) == b"".join(chunks)


@pytest.mark.parametrize("chunks", [[b"0123456789+"], [b"01234", b"56789", b"+"], [b"01234567890", b""]])
async def test_a_body_over_the_limit(chunks: list[bytes]) -> None:
    """A body that is a byte over the limit is too large, in however many pieces it comes."""
    with pytest.raises(TooLarge, match="10 bytes"):
        await read_body(sent(*chunks), 10)
    assert len(await read_body(sent(*chunks), 9, overhead=2)) == 11


async def test_a_body_without_end() -> None:
    """An endless body is refused once it is over the limit, and not read on."""
    read = 0

    async def receive() -> Message:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"0123", "more_body": True}

    with pytest.raises(TooLarge):
        await read_body(receive, 10)
    assert read == 3


@pytest.mark.parametrize("before", [[], [{"type": "http.request", "body": b"x", "more_body": True}]])
async def test_a_body_that_breaks_off(before: list[Message]) -> None:
    """A client that goes before its body is whole has gone; what came is not taken for the body."""
    events = [*before, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return events.pop(0)

    with pytest.raises(ClientGone):
        await read_body(receive, 10)


@pytest.mark.parametrize("eager", [False, True])
async def test_a_client_that_stays(eager: bool) -> None:
    """While the client is there, the body of the `with` runs to its end, however long it takes."""
    exchange = Exchange("POST", "/", b"", (), eager)
    await exchange.receive()
    with cancelled_with_client(exchange.receive):
        await asyncio.sleep(0.2)
    assert not current_task().cancelling()


@pytest.mark.parametrize("eager", [False, True])
async def test_a_client_that_goes(eager: bool) -> None:
    """When the client goes, the body of the `with` is cancelled and cleans up, and ClientGone is raised."""
    exchange = Exchange("POST", "/", b"", (), eager)
    await exchange.receive()
    cleaned_up = []

    async def wait() -> None:
        with cancelled_with_client(exchange.receive):
            try:
                await asyncio.Event().wait()
            finally:
                cleaned_up.append(True)

    asyncio.get_running_loop().call_later(0.1, exchange.leave)
    with pytest.raises(ClientGone):
        await wait()
    assert cleaned_up
    assert not current_task().cancelling()
    await asyncio.sleep(0)  # would raise if a cancellation were left over


@pytest.mark.parametrize("eager", [False, True])
async def test_nothing_is_left_behind(eager: bool) -> None:
    """Once the body of the `with` is done, nobody waits for the client any more."""
    exchange = Exchange("POST", "/", b"", (), eager)
    await exchange.receive()
    before = asyncio.all_tasks()
    with cancelled_with_client(exchange.receive):
        await asyncio.sleep(0.12)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_a_cancellation_from_elsewhere() -> None:
    """A task that is cancelled by its owner ends as cancelled, and not as if the client had gone."""
    exchange = Exchange("POST", "/", b"", (), eager=False)
    await exchange.receive()

    async def handle() -> None:
        with cancelled_with_client(exchange.receive):
            await asyncio.Event().wait()

    task = asyncio.create_task(handle())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_body() -> None:
    """What the body of the `with` raises is raised."""
    exchange = Exchange("POST", "/", b"", (), eager=False)
    await exchange.receive()

    async def fail() -> None:
        with cancelled_with_client(exchange.receive):
            await asyncio.sleep(0.1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()


def current_task() -> "asyncio.Task[None]":
    task = asyncio.current_task()
    assert task is not None
    return task
