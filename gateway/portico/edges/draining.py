"""Ends the gateway without losing a request: told to stop, it says so to whoever checks its health, goes on answering
until that has been noticed and nothing is under way, and ends then. Opened by `bootstrap`; the edges tell it what is
under way.
"""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from portico.background import running

NOTICE = 2.0
"""Seconds until every Envoy has seen that the health check fails: it asks each second (envoy/envoy.yaml)."""
LONGEST = 25.0
"""Seconds until calls that are still under way are given up. Whoever stops the gateway has to wait for longer."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Draining:
    """Whether the gateway is about to end, and how many requests it has not answered yet."""

    begun: bool = False
    under_way: int = 0

    @asynccontextmanager
    async def on(self, number: signal.Signals, end: Callable[[], None]) -> AsyncIterator[None]:
        """For as long as the context is open, a signal makes the gateway drain; `end` is called after that.

        Only a signal that the process was started with blocked: the server, whose process this is, handles the others.
        """
        if number not in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
            yield
            return
        told = asyncio.Event()
        loop, closed = asyncio.get_running_loop(), threading.Event()

        def wait() -> None:
            while not closed.is_set():
                came = signal.sigtimedwait({number}, 0.2)
                # Who was stopped meanwhile, as by a debugger, is given one that never came (CPython 3.11).
                if came and came.si_signo == number:
                    with suppress(RuntimeError):  # the loop has just been closed
                        loop.call_soon_threadsafe(told.set)
                    return

        async def drain() -> None:
            await told.wait()
            await self._drain()
            end()

        thread = threading.Thread(target=wait, name="draining", daemon=True)
        thread.start()
        try:
            async with running(drain(), "draining"):
                yield
        finally:
            closed.set()
            await asyncio.to_thread(thread.join, 1.0)

    async def _drain(self) -> None:
        self.begun = True
        _log.info("told to stop: no more requests are asked for, %d are under way", self.under_way)
        await asyncio.sleep(NOTICE)
        try:
            async with asyncio.timeout(LONGEST - NOTICE):
                while self.under_way:  # noqa: ASYNC110 - setting an event would cost every request
                    await asyncio.sleep(0.05)
        except TimeoutError:
            _log.warning("%d requests were not answered after %.0f s and are given up", self.under_way, LONGEST)


def end_process() -> None:
    """Has the server of this process end, as Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)
