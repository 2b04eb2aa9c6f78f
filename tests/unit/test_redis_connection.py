"""Finding Redis takes longer than a cache's call may: what the contract tests cannot time."""

import asyncio

import pytest

from portico.redis_connection import _Look


async def test_an_attempt_outlives_those_who_wait() -> None:
    """All join the one under way, and it ends although they have given up."""
    finish, attempts = asyncio.Event(), 0

    async def attempt() -> str:
        nonlocal attempts
        attempts += 1
        await finish.wait()
        return f"found {attempts}"

    look = _Look()
    impatient = [asyncio.create_task(look.join(attempt)) for _ in range(3)]
    await asyncio.sleep(0)
    for task in impatient:
        task.cancel()
    assert all(
        isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*impatient, return_exceptions=True)
    )
    patient = asyncio.create_task(look.join(attempt))
    await asyncio.sleep(0)
    finish.set()
    assert await patient == "found 1"
    assert await look.join(attempt) == "found 2"


async def test_a_failure_is_told_to_all_who_wait() -> None:
    """And the next attempt is a new one."""
    attempts = iter([OSError("away"), None])

    async def attempt() -> None:
        if error := next(attempts):
            raise error

    look = _Look()
    for answer in await asyncio.gather(*(look.join(attempt) for _ in range(3)), return_exceptions=True):
        assert isinstance(answer, OSError)
    await look.join(attempt)


async def test_none_is_left_under_way() -> None:
    """Also one that ends with an error, and none at all."""
    look = _Look()
    await look.stop()
    waiting = asyncio.create_task(look.join(asyncio.Event().wait))
    await asyncio.sleep(0)
    await look.stop()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert asyncio.all_tasks() == {asyncio.current_task()}
