"""The loads and unloads that are under way: started by the reconcile loop, each a task of its own, ended with it."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from portico.controller.loaders import Loader, LoaderError, LoadState, ReplicaUnreachable, Report, Status
from portico.controller.memory import FIRST_RETRY, Failures, Key
from portico.controller.plan import Load, Unload
from portico.controller.servable import Servable
from portico.routing import Server

PAUSE = 2.0
"""Seconds until a load is tried again whose replica could not be reached."""

_log = logging.getLogger(__name__)


class Warmer(Protocol):
    """Runs a servable's warm-up requests in one replica; `report` is what the replica says of it."""

    async def __call__(self, address: str, servable: Servable, status: Status) -> None:
        """Raises LoaderError if one of them fails."""
        ...


class Work:
    """`wake` is called whenever something has come to an end. `clock` is in seconds."""

    def __init__(
        self,
        loaders: Mapping[Server, Loader],
        failures: Failures,
        wake: Callable[[], None],
        warm: Warmer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loaders = loaders
        self._failures = failures
        self._unload_failures = Failures(FIRST_RETRY, clock)
        self._wake = wake
        self._warm = warm
        self._clock = clock
        self._tasks: dict[Key, tuple[asyncio.Task[None], LoadState]] = {}
        self._paused: dict[Key, float] = {}
        self._warmed: dict[str, set[str]] = {}
        self._since: Mapping[str, float] = {}
        self._files: dict[Key, tuple[Servable, float | None]] = {}
        self._ended: set[str] = set()
        self._spoiled: dict[Key, Server] = {}
        self.loaded: dict[str, tuple[float, float]] = {}
        """When the last load of each servable into a replica began and ended, by its name."""

    def start(self, action: Load | Unload) -> None:
        """Begins with it, unless it is under way, or failed a short while ago."""
        name = action.servable.name if isinstance(action, Load) else action.name
        key = (action.address, name)
        failures = self._failures if isinstance(action, Load) else self._unload_failures
        if key in self._tasks or failures.waits(key) or self._clock() < self._paused.get(key, 0.0):
            return
        self._paused.pop(key, None)
        state = LoadState.LOADING if isinstance(action, Load) else LoadState.UNLOADING
        work = self._load(action, key) if isinstance(action, Load) else self._unload(action, key)
        if isinstance(action, Load):
            self._files[key] = action.servable, self._since.get(name)
        task = asyncio.create_task(work, name=f"{state} {name}")
        self._tasks[key] = task, state
        task.add_done_callback(lambda _: self._done(key))

    def complete(self, address: str, report: Report, known: Mapping[str, Servable], routed: set[str]) -> Report:
        """A replica's report with what is known here besides: what is under way, what failed, what is not warm yet.

        `routed` is what the table in force routes to: at first sight of a replica, that was warmed by an earlier
        controller.
        """
        found = dict(report)
        if address not in self._warmed:
            self._warmed[address] = found.keys() & routed
        # What was ready before its policy named a warm-up stays: it has answered calls.
        cold = {name for name in found if self._warm and name in known and known[name].warmup}
        cold -= self._warmed[address]
        self._warmed[address] = found.keys() - cold
        for name in cold:
            del found[name]
        for where, name in self._spoiled:
            if where == address and name in found:
                found[name] = Status(LoadState.LOADING)
        for name, reason in self._failures.at(address).items():
            found.setdefault(name, Status(LoadState.FAILED, reason))
        # A load that has not ended is none, whatever the server says: it is not known yet whether its files stayed.
        for (where, name), (_, state) in self._tasks.items():
            if where == address:
                found[name] = Status(state)
        return found

    def forget(self, address: str) -> None:
        """The replica is gone: when it is back it may be another one, that does not fail."""
        self._failures.clear_replica(address)
        self._unload_failures.clear_replica(address)
        self._spoiled = {key: server for key, server in self._spoiled.items() if key[0] != address}

    def keep(self, names: set[str]) -> None:
        """Drops what is remembered of all other servables."""
        self.loaded = {name: when for name, when in self.loaded.items() if name in names}
        self._paused = {key: until for key, until in self._paused.items() if key[1] in names}

    async def close(self) -> None:
        """Ends what was started; servers finish what they are at."""
        tasks = [task for task, _ in self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def loading(self) -> set[str]:
        """The models of which files are being read, or were until the last look had begun."""
        return self._ended | {servable.model for servable, _ in self._files.values()}

    def notice_files(self, since: Mapping[str, float]) -> bool:
        """`since` is when the files of each servable that lies there were put there. What was loaded while they
        changed, and be they changed back, may be a mixture: it is unloaded again. Whether that was found just now.
        """
        self._since = since
        self._unload_failures.forget_old()
        found = False
        self._ended = set()
        for key, (servable, before) in list(self._files.items()):
            if since.get(key[1]) != before:
                found = found or key not in self._spoiled
                self._spoiled[key] = servable.server
            if key not in self._tasks:
                del self._files[key]
                self._ended.add(servable.model)
        for key, server in self._spoiled.items():
            if key not in self._tasks:
                self.start(Unload(key[0], server, key[1]))
        return found

    def _done(self, key: Key) -> None:
        del self._tasks[key]
        self._wake()

    async def _load(self, action: Load, key: Key) -> None:
        servable, started = action.servable, self._clock()
        where = f"model {servable.model} version {servable.version} in {servable.server} at {action.address}"
        try:
            await self._loaders[servable.server].load(action.address, servable)
            if key in self._spoiled:
                _log.warning("%s: loaded while its files changed: it is unloaded again", where)
                return
            if self._warm and servable.warmup:
                await self._warm_up(action)
        except ReplicaUnreachable as error:
            self._paused[key] = self._clock() + PAUSE
            _log.warning("%s: not loaded: %s", where, error)
            return
        except LoaderError as error:
            if self._spoiled.pop(key, None):
                return  # the files that it failed on are not those that lie there now
            self._failures.note(key, str(error))
            _log.error("%s: failed after %.2f s: %s", where, self._clock() - started, error)
            return
        except Exception as error:
            self._failures.note(key, "the controller could not load it; its log says why")
            _log.exception("%s: failed: %s", where, error)
            return
        self._failures.clear(key)
        self.loaded[servable.name] = started, self._clock()
        _log.info("%s: loaded as %s in %.2f s", where, servable.name, self._clock() - started)

    async def _warm_up(self, action: Load) -> None:
        servable = action.servable
        assert self._warm
        report = await self._loaders[servable.server].report(action.address, [servable])
        status = report.get(servable.name)
        if status is None or status.state is not LoadState.READY:
            raise LoaderError("it was gone before it could be warmed up")
        await self._warm(action.address, servable, status)
        self._warmed.setdefault(action.address, set()).add(servable.name)

    async def _unload(self, action: Unload, key: Key) -> None:
        started = self._clock()
        try:
            await self._loaders[action.server].unload(action.address, action.name)
        except LoaderError as error:
            self._unload_failures.note(key, str(error))
            _log.error("%s in %s at %s: not unloaded: %s", action.name, action.server, action.address, error)
            return
        except Exception as error:
            self._unload_failures.note(key, str(error))
            _log.exception("%s in %s at %s: not unloaded", action.name, action.server, action.address)
            return
        self._unload_failures.clear(key)
        self._failures.clear(key)
        self._spoiled.pop(key, None)
        took = self._clock() - started
        _log.info("%s in %s at %s: unloaded in %.2f s", action.name, action.server, action.address, took)
