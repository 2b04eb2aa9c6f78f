"""What ends the work on a request before its time: its deadline, and a client that has gone. Used by the edges."""

import asyncio
from time import monotonic
from types import TracebackType
from typing import Self

from portico.edges.asgi import ClientGone, Receive

POLL = 0.05
"""Seconds between two looks whether the client is still there."""
LONGEST = 3600.0
"""Seconds between two looks at the clock; event loops take no infinity."""


class Bounds:
    """A context whose body is cancelled, and which then raises TimeoutError `timeout` seconds after it was made, or,
    as soon as the request has been read, ClientGone once the client has gone.

    A fast answer pays for one timer only. It polls, because pyvoy answers `receive` at once with an empty
    `http.request` where other servers wait for the disconnect.
    """

    __slots__ = ("_deadline", "_is_read", "_loop", "_outer", "_reason", "_receive", "_task", "_timer", "_watcher")

    def __init__(self, receive: Receive, timeout: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._loop, self._outer = task, task.get_loop(), task.cancelling()
        self._receive = receive
        self._deadline = monotonic() + timeout
        self._is_read = False
        self._reason: type[Exception] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(min(timeout, POLL), self._look)

    def is_read(self) -> None:
        """The request has been read: all that can still come of it is the client's leaving."""
        self._is_read = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._reason is None:
            return
        if self._task.uncancel() <= self._outer and kind is asyncio.CancelledError:
            raise self._reason from None  # the class: an instance would have a traceback, with this in it

    def _look(self) -> None:
        left = self._deadline - monotonic()
        if left <= 0:
            return self._end(TimeoutError)
        if self._is_read and self._watcher is None:
            self._watcher = self._loop.create_task(self._watch())
        self._timer = self._loop.call_later(min(left, LONGEST if self._watcher else POLL), self._look)

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":  # noqa: ASYNC110 - there is no event, see above
            await asyncio.sleep(POLL)
        self._end(ClientGone)

    def _end(self, reason: type[Exception]) -> None:
        if self._reason is None:
            self._reason = reason
            self._task.cancel()
