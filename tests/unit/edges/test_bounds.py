"""What ends the work on a request before its time: its deadline, and a client that has gone."""

import asyncio
from math import inf

import pytest

from asgi_client import Exchange
from portico.edges.asgi import ClientGone
from portico.edges.bounds import Bounds, Watch


def bounds(exchange: Exchange, timeout: float = 30) -> Bounds:
    """Those of a request that has been read."""
    made = Watch().bounds(exchange.receive, timeout)
    made.is_read()
    return made


@pytest.mark.parametrize("eager", [False, True])
async def test_a_client_that_stays(eager: bool) -> None:
    """While the client is there, the body of the `with` runs to its end, however long it takes."""
    exchange = Exchange("POST", "/", b"", (), eager)
    await exchange.receive()
    with bounds(exchange):
        await asyncio.sleep(0.2)
    assert not current_task().cancelling()


@pytest.mark.parametrize("eager", [False, True])
async def test_a_client_that_goes(eager: bool) -> None:
    """When the client goes, the body of the `with` is cancelled and cleans up, and ClientGone is raised."""
    exchange = Exchange("POST", "/", b"", (), eager)
    await exchange.receive()
    cleaned_up = []

    async def wait() -> None:
        with bounds(exchange):
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
    with bounds(exchange):
        await asyncio.sleep(0.12)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_a_cancellation_from_elsewhere() -> None:
    """A task that is cancelled by its owner ends as cancelled, and not as if the client had gone."""
    exchange = Exchange("POST", "/", b"", (), eager=False)
    await exchange.receive()

    async def handle() -> None:
        with bounds(exchange):
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
        with bounds(exchange):
            await asyncio.sleep(0.1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()


@pytest.mark.parametrize("is_read", [False, True])
@pytest.mark.parametrize("timeout", [0.01, 0.12])
async def test_a_deadline(is_read: bool, timeout: float) -> None:
    """At the deadline the body of the `with` is cancelled and TimeoutError raised, whether all has been read or not."""
    exchange = Exchange("POST", "/", b"", (), eager=True)
    with pytest.raises(TimeoutError), Watch().bounds(exchange.receive, timeout) as made:
        if is_read:
            made.is_read()
        await asyncio.sleep(20)
    assert not current_task().cancelling()
    await asyncio.sleep(0)  # would raise if a cancellation were left over


async def test_no_deadline() -> None:
    """A call that may last for ever still ends with its client."""
    exchange = Exchange("POST", "/", b"", (), eager=True)
    asyncio.get_running_loop().call_later(0.12, exchange.leave)
    with pytest.raises(ClientGone), bounds(exchange, inf):
        await asyncio.sleep(20)


async def test_one_watch_looks_after_many() -> None:
    """Several at a time, and those that come when there were none for a while."""
    watch = Watch()

    async def wait(seconds: float) -> None:
        exchange = Exchange("POST", "/", b"", (), eager=True)
        asyncio.get_running_loop().call_later(seconds, exchange.leave)
        with watch.bounds(exchange.receive, 30) as made:
            made.is_read()
            await asyncio.sleep(20)

    for _ in range(2):
        ended = await asyncio.gather(*(wait(seconds) for seconds in (0, 0.1, 0.2)), return_exceptions=True)
        assert [type(each) for each in ended] == [ClientGone] * 3
        await asyncio.sleep(0.12)


async def test_a_client_that_goes_before_all_has_been_read() -> None:
    """Whoever reads the request is told by `receive`, which two may not wait for at once."""
    exchange = Exchange("POST", "/", b"", (), eager=False)
    asyncio.get_running_loop().call_later(0.06, exchange.leave)
    with Watch().bounds(exchange.receive, 30):
        await asyncio.sleep(0.2)


async def test_what_a_body_makes_of_the_end() -> None:
    """An error that the body of the `with` raises as it is cancelled is not put in place of the reason."""
    with pytest.raises(ZeroDivisionError), bounds(Exchange("POST", "/", b"", (), eager=True), 0.01):
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            raise ZeroDivisionError from None
    assert not current_task().cancelling()


def current_task() -> "asyncio.Task[None]":
    task = asyncio.current_task()
    assert task is not None
    return task
