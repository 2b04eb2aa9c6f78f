"""Work that identical requests share: one does it, all get what comes of it, and none can end it for the others."""

import asyncio
from time import monotonic

import pytest

from portico.errors import DeadlineExceeded, InferenceFailed, Unavailable
from portico.flights import Flights


class Work:
    """A flight under control: it lands when told, and counts."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.land = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        try:
            await self.land.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        return number


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def flights() -> Flights[int]:
    return Flights()


def soon() -> float:
    return monotonic() + 60


async def joined(
    flights: Flights[int], work: Work, count: int, key: str = "key"
) -> list[asyncio.Task[tuple[int, bool]]]:
    """So many that wait for the same flight."""
    tasks = [asyncio.create_task(flights.join(key, work, soon())) for _ in range(count)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_one_works_for_all(flights: Flights[int], work: Work) -> None:
    """All get what one flight gives, and one of them is told that it began it; later ones begin another."""
    tasks = await joined(flights, work, 100)
    work.land.set()
    found = await asyncio.gather(*tasks)
    assert sorted(found) == [(1, False)] * 99 + [(1, True)]
    assert await flights.join("key", work, soon()) == (2, True)


async def test_other_keys_fly_alone(flights: Flights[int], work: Work) -> None:
    """Only what has the same key is shared."""
    tasks = [*await joined(flights, work, 1, "a"), *await joined(flights, work, 1, "b")]
    work.land.set()
    assert sorted(await asyncio.gather(*tasks)) == [(1, True), (2, True)]


async def test_whoever_leaves_leaves_alone(flights: Flights[int], work: Work) -> None:
    """A client that goes, also the one whose request began the flight, takes nothing from the others."""
    tasks = await joined(flights, work, 3)
    for task in tasks[:2]:
        task.cancel()
    await asyncio.wait(tasks[:2])
    work.land.set()
    assert await tasks[2] == (1, False)
    assert work.cancelled == 0


async def test_whose_time_is_up_leaves_alone(flights: Flights[int], work: Work) -> None:
    """A deadline that passes is an error of that request, and of no other."""
    first = asyncio.create_task(flights.join("key", work, monotonic() + 0.02))
    (second,) = await joined(flights, work, 1)
    with pytest.raises(DeadlineExceeded):
        await first
    work.land.set()
    assert await second == (1, False)
    with pytest.raises(DeadlineExceeded):
        await flights.join("key", work, monotonic())
    assert work.begun == 1


async def test_a_flight_without_passengers_ends(flights: Flights[int], work: Work) -> None:
    """When the last one has gone nobody wants the answer; who comes then begins anew."""
    tasks = await joined(flights, work, 2)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    (again,) = await joined(flights, work, 1)
    work.land.set()
    assert (await again, work.cancelled) == ((2, True), 1)


async def test_an_error_is_everybody_s(flights: Flights[int], work: Work) -> None:
    """All who wait get the error; the next request tries again."""
    work.error = InferenceFailed("the model failed")
    tasks = await joined(flights, work, 3)
    work.land.set()
    assert {str(error) for error in await asyncio.gather(*tasks, return_exceptions=True)} == {"the model failed"}
    work.error = None
    assert await flights.join("key", work, soon()) == (2, True)


async def test_closing(flights: Flights[int], work: Work) -> None:
    """What is under way is ended, and those who wait learn why."""
    tasks = await joined(flights, work, 2)
    await flights.aclose()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [Unavailable] * 2
    assert work.cancelled == 1
