"""Work that identical requests share while it is under way. Used by the dispatcher; knows neither models nor caches."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from time import monotonic
from typing import Any, Generic, TypeVar

from portico.errors import DeadlineExceeded, Unavailable

T = TypeVar("T")

_LATE = "No answer by the deadline of the request."


class _Flight(Generic[T]):
    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.passengers = 0


class Flights(Generic[T]):
    """Each flight is a task of its own, so that nobody who waits for it can end it for the others: one whose deadline
    passes, or whose client goes, only leaves. When the last one has left it is cancelled.
    """

    def __init__(self) -> None:
        self._by_key: dict[Hashable, _Flight[T]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def join(self, key: Hashable, begin: Callable[[], Coroutine[Any, Any, T]], deadline: float) -> tuple[T, bool]:
        """(what the flight of this key gives, whether this call began it). `deadline` is on the clock of
        `time.monotonic`; raises DeadlineExceeded when it passes, and whatever the flight raises.
        """
        left = deadline - monotonic()
        if left <= 0:
            raise DeadlineExceeded(_LATE)
        flight = self._by_key.get(key)
        began = flight is None
        if flight is None:
            flight = self._depart(key, begin())
        flight.passengers += 1
        try:
            await _landing(flight.task, left)
        finally:
            flight.passengers -= 1
            if not flight.passengers and not flight.task.done():
                self._forget(key, flight)
                flight.task.cancel()
        if not flight.task.done():
            raise DeadlineExceeded(_LATE)
        if flight.task.cancelled():
            raise Unavailable("The call that this request shared was ended, as when a gateway stops. Send it again.")
        try:
            return flight.task.result(), began
        finally:
            del flight  # an error of its task has a traceback, which has this frame, which would have the task

    def _depart(self, key: Hashable, work: Coroutine[Any, Any, T]) -> _Flight[T]:
        flight = self._by_key[key] = _Flight(asyncio.create_task(work))
        self._tasks.add(flight.task)

        def landed(task: asyncio.Task[T]) -> None:
            self._tasks.discard(task)
            self._forget(key, flight)
            if not task.cancelled():
                task.exception()  # all who waited may have gone

        flight.task.add_done_callback(landed)
        return flight

    def _forget(self, key: Hashable, flight: _Flight[T]) -> None:
        if self._by_key.get(key) is flight:
            del self._by_key[key]

    def own(self, task: "asyncio.Task[Any]") -> None:
        """A task that a flight has begun and leaves behind: it is ended with the others."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Cancels what is still under way and waits for its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _landing(task: "asyncio.Task[Any]", longest: float) -> None:
    """Returns when the task has ended, or after `longest` seconds, without what `asyncio.wait` does for many."""
    if task.done():
        return
    loop = task.get_loop()
    landed = loop.create_future()

    def tell(_: object = None) -> None:
        if not landed.done():
            landed.set_result(None)

    task.add_done_callback(tell)
    late = loop.call_later(longest, tell)
    try:
        await landed
    finally:
        late.cancel()
        task.remove_done_callback(tell)
