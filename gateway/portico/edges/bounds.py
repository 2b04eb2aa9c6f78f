"""What ends the work on a request before its time: its deadline, and a client that has gone. Used by the edges."""

import asyncio
from time import monotonic
from types import TracebackType
from typing import Self

from portico.edges.asgi import ClientGone, Receive

POLL = 0.05
"""Seconds between two looks whether the client is still there."""


class Watch:
    """Looks after all requests of an edge by one timer, which runs while there are any; to set one for each, and to
    cancel it, takes a microsecond.
    """

    def __init__(self) -> None:
        self._under_way: set[Bounds] = set()
        self._timer: asyncio.TimerHandle | None = None

    def bounds(self, receive: Receive, timeout: float) -> "Bounds":
        """Those of one request, from now on."""
        return Bounds(self, receive, timeout)

    def begin(self, bounds: "Bounds", loop: asyncio.AbstractEventLoop) -> None:
        """From now on, until `end`, it is looked at every `POLL` seconds."""
        self._under_way.add(bounds)
        if self._timer is None:
            self._timer = loop.call_later(POLL, self._look, loop)

    def end(self, bounds: "Bounds") -> None:
        self._under_way.discard(bounds)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(POLL, self._look, loop) if self._under_way else None
        now = monotonic()
        for bounds in list(self._under_way):
            bounds.look(now)


class Bounds:
    """A context whose body is cancelled, and which then raises TimeoutError `timeout` seconds after it was made, or,
    as soon as the request has been read, ClientGone once the client has gone.

    A timer of its own is set only when the deadline is near. It polls, because pyvoy answers `receive` at once with an
    empty `http.request` where other servers wait for the disconnect.
    """

    __slots__ = (
        "_deadline",
        "_is_read",
        "_loop",
        "_outer",
        "_reason",
        "_receive",
        "_seen",
        "_task",
        "_timer",
        "_watch",
        "_watcher",
    )

    def __init__(self, watch: Watch, receive: Receive, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        self._task, self._loop, self._outer = task, loop, task.cancelling()
        self._watch = watch
        self._receive = receive
        self._deadline = monotonic() + timeout
        self._is_read = self._seen = False
        self._reason: type[Exception] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._timer = loop.call_later(timeout, self._late) if timeout <= POLL else None

    def is_read(self) -> None:
        """The request has been read: all that can still come of it is the client's leaving."""
        self._is_read = True

    def look(self, now: float) -> None:
        """Sees to what is due before the next look. The client's leaving is waited for from the second one on: most
        requests are answered by then.
        """
        left = self._deadline - now
        if left <= POLL and self._timer is None:
            self._timer = self._loop.call_later(max(left, 0.0), self._late)
        if self._is_read and self._seen and self._watcher is None:
            self._watcher = self._loop.create_task(self._wait_for_leaving())
        self._seen = True

    def __enter__(self) -> Self:
        self._watch.begin(self, self._loop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watch.end(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._reason is None:
            return
        if self._task.uncancel() <= self._outer and kind is asyncio.CancelledError:
            raise self._reason from None  # the class: an instance would have a traceback, with this in it

    async def _wait_for_leaving(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":  # noqa: ASYNC110 - there is no event, see above
            await asyncio.sleep(POLL)
        self._finish(ClientGone)

    def _late(self) -> None:
        self._finish(TimeoutError)

    def _finish(self, reason: type[Exception]) -> None:
        if self._reason is None:
            self._reason = reason
            self._task.cancel()
