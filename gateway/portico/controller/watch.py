"""Wakes the reconcile loop when files of the model repository change, as far as the system tells. Owned by `service`;
the loop's own timer finds everything that this misses.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from portico.controller.file_events import Changes, FileEvents

PAUSE, LAST_PAUSE = 0.02, 0.25
"""Seconds to wait for what belongs together; longer the longer it goes on."""
CHECK = 5.0
"""Seconds between two looks whether the repository is still the folder that is watched."""
RETRY = 60.0
"""Seconds until events are tried again where there were none to be had."""
MAX_PATHS = 10_000
"""That are kept for one who asks; for one who does not, what happened is forgotten."""

_log = logging.getLogger(__name__)


@asynccontextmanager
async def watching(root: Path, wake: Callable[[], None]) -> AsyncIterator["Watch"]:
    """A watch that runs until the end of the context."""
    watch = Watch(root, wake)
    task = asyncio.create_task(watch.run(), name="file events")
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Watch:
    """Calls `wake`, in the running event loop, when something below `root` has changed."""

    def __init__(self, root: Path, wake: Callable[[], None]) -> None:
        self._root = root
        self._wake = wake
        self._changes = Changes(lost=True)
        self._reliable = False
        self._told = ""

    def take(self) -> Changes:
        """What has happened since this was called last; `lost` where there may be more than is told."""
        changes, self._changes = self._changes, Changes()
        changes.lost = changes.lost or not self._reliable
        return changes

    async def run(self) -> None:
        """Watches until it is cancelled. Where there are no events, one line in the log says so."""
        events = FileEvents(self._root)
        # One thread, so that watches are never changed by two, and are closed after their last use.
        thread = ThreadPoolExecutor(1, thread_name_prefix="file-events")
        try:
            while True:
                try:
                    await self._run(events, thread)
                except OSError as error:
                    self._tell(f"there are no file events: {error.strerror or error}")
                except Exception:
                    _log.exception("file events failed; the timer goes on")
                self._reliable = False
                await asyncio.sleep(RETRY)
        finally:
            thread.submit(events.close)
            thread.shutdown(wait=False)

    async def _run(self, events: FileEvents, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(thread, events.open)
        self._changes.lost = True
        self._wake()
        woken, pause = 0.0, PAUSE
        while True:
            self._tell(events.problem)
            self._reliable = not events.problem
            readable = await _readable(events.fileno(), CHECK)
            changes = await loop.run_in_executor(thread, events.read if readable else events.check)
            if not changes.any:
                continue
            self._note(changes)
            pause = min(2 * pause, LAST_PAUSE) if time.monotonic() - woken < 2 * LAST_PAUSE else PAUSE
            until = time.monotonic() + pause
            while not changes.arrived and time.monotonic() < until:
                await asyncio.sleep(PAUSE)
                changes = await loop.run_in_executor(thread, events.read)
                self._note(changes)
            self._wake()
            woken = time.monotonic()
            await asyncio.sleep(PAUSE)

    def _note(self, changes: Changes) -> None:
        kept = self._changes
        kept.arrived -= changes.disturbed
        kept.arrived |= changes.arrived
        kept.disturbed |= changes.disturbed
        if changes.lost or len(kept.disturbed) > MAX_PATHS:
            self._changes = Changes(lost=True)

    def _tell(self, problem: str) -> None:
        if problem and problem != self._told:
            _log.warning("changes in the model repository may be noticed by the timer only: %s", problem)
        self._told = problem


async def _readable(descriptor: int, timeout: float) -> bool:
    """Waits until there is something to read, for at most `timeout` seconds; whether there is."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        async with asyncio.timeout(timeout):
            await ready.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
    return True
