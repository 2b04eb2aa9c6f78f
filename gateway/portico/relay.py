"""Takes pieces from where they come to who wants them, across tasks. Used by the dispatcher, for answers in pieces
whose first piece many may wait for, and whose rest only one gets.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Generic, TypeVar

from portico.errors import DeadlineExceeded, PorticoError

T = TypeVar("T")


class Relay(Generic[T]):
    """Runs a generator in a task of its own, for up to `timeout` seconds; each piece after the first when it is wanted.

    `own` is handed the task, so that it does not outlive who began it.
    """

    def __init__(self, source: AsyncGenerator[T], timeout: float, own: Callable[[asyncio.Task[None]], None]) -> None:
        self._ready: asyncio.Queue[T | PorticoError | None] = asyncio.Queue(maxsize=1)
        self._wanted = asyncio.Semaphore(0)
        self._timeout = timeout
        self._taken = False
        self._first: T | None = None
        self._task = asyncio.create_task(self._run(source))
        own(self._task)

    async def first(self) -> T:
        """The first piece, which `pieces` begins with. Raises what the generator raises."""
        try:
            item = await self._ready.get()
        except BaseException:
            self._task.cancel()
            raise
        if isinstance(item, PorticoError):
            raise item
        assert item is not None, "an answer has one piece at least"
        self._first = item
        return item

    def take(self) -> bool:
        """Whether the pieces are still to be had; who is told so has to take them."""
        taken, self._taken = self._taken, True
        return not taken

    async def pieces(self) -> AsyncGenerator[T]:
        """All pieces. Who closes this ends the generator."""
        assert self._first is not None
        try:
            yield self._first
            while True:
                self._wanted.release()
                item = await self._ready.get()
                if item is None:
                    return
                if isinstance(item, PorticoError):
                    raise item
                yield item
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Ends the generator."""
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def _run(self, source: AsyncGenerator[T]) -> None:
        end: PorticoError | None = None
        try:
            async with asyncio.timeout(self._timeout), aclosing(source):
                async for item in source:
                    await self._ready.put(item)
                    await self._wanted.acquire()
        except PorticoError as error:
            end = error
        except TimeoutError:
            end = DeadlineExceeded(f"No answer within {self._timeout:.3g} s.")
        await self._ready.put(end)
