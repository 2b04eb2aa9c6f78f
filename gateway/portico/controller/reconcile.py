"""The controller's loop: ask, look, plan, act, publish, again. All decisions are in `plan`; this keeps the clocks, the
tasks and the log.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from portico.backplane import BackplaneUnavailable
from portico.controller.changes import changes
from portico.controller.inventory import Inventory
from portico.controller.loaders import Loader, LoaderError, LoadState, ReplicaUnreachable, Report, Status
from portico.controller.memory import FIRST_RETRY, Failures, Key, Troubles
from portico.controller.plan import Fleet, Load, Plan, Unload, plan, routes
from portico.controller.servable import Servable
from portico.routing import RouteTable, Server

DRAIN = 2.0
"""Seconds between a table that no longer routes to a servable and its unloading."""
REPORT_TIMEOUT = 10.0
"""Seconds that all questions to one replica may take in one round."""

_log = logging.getLogger(__name__)


class Publisher(Protocol):
    """Where route tables go; `backplane.Backplane` is one."""

    async def publish(self, table: RouteTable) -> str: ...

    async def newest(self, seen: str) -> tuple[str, RouteTable | None]: ...


class Repository(Protocol):
    """Where models lie; `repository.Repository` is one."""

    async def look(self) -> Inventory: ...


class Reconciler:
    """Makes what lies in the repository what is served.

    `interval`, `drain` and `retry` are seconds. `beat` is called once per round, setting `wake` starts the next one at
    once. `absent` says why there is no server of a kind.
    """

    def __init__(
        self,
        repository: Repository,
        loaders: Iterable[Loader],
        publisher: Publisher,
        *,
        interval: float,
        drain: float = DRAIN,
        retry: float = FIRST_RETRY,
        beat: Callable[[], None] = lambda: None,
        absent: Mapping[Server, str] | None = None,
        wake: asyncio.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repository = repository
        self._loaders = {loader.server: loader for loader in loaders}
        self._publisher = publisher
        self._interval = interval
        self._drain = drain
        self._beat = beat
        self._clock = clock
        self._absent = {server: Fleet({}, problem) for server, problem in (absent or {}).items()}
        self._published: RouteTable | None = None
        self._entry = ""
        self._inventory: Inventory | None = None
        self._tasks: dict[Key, tuple[asyncio.Task[None], LoadState]] = {}
        self._failures = Failures(retry, clock)
        self._unrouted: dict[str, float] = {}
        self._troubles = Troubles()
        self._wake = wake or asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Goes round until `stop` is set. What it started is cancelled then; servers finish what they are at."""
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._wake.clear()
                try:
                    await self.round()
                except Exception:
                    _log.exception("this round failed; the next one starts afresh")
                woken = asyncio.create_task(self._wake.wait())
                await asyncio.wait((stopped, woken), timeout=self._interval, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
        finally:
            stopped.cancel()
            tasks = [task for task, _ in self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def round(self) -> None:
        """One round. Trouble with a part of the stack is logged once, and the round goes as far as it can."""
        self._beat()
        published = await self._newest()
        # Whoever asks the servers has to know what may be there: what was published, and what lies here.
        lying = self._inventory or await self._look()
        if published is None or lying is None:
            return
        # Reports come before the look: what they call ready was read from the files that the look finds unchanged.
        fleets = await self._ask(published, lying)
        self._inventory = await self._look()
        if self._inventory is None:
            return
        self._failures.forget_old()
        decided = plan(self._inventory, fleets, published, self._drained(published, fleets))
        self._act(decided)
        await self._publish(published, decided.table)

    async def _look(self) -> Inventory | None:
        try:
            found = await self._repository.look()
        except OSError as error:
            self._troubles.tell("model repository", f"the model repository cannot be read: {error}")
            return None
        self._troubles.end("model repository")
        return found

    async def _newest(self) -> RouteTable | None:
        """The table that gateways have. None if that is not known: then nothing may be unloaded, and nothing is."""
        try:
            entry, table = await self._publisher.newest(self._entry)
        except BackplaneUnavailable as error:
            self._troubles.tell("Redis", str(error))
            return self._published
        self._troubles.end("Redis")
        if self._published is None:
            self._published = table or RouteTable()
            self._entry = entry if table else ""
        elif entry != self._entry:
            self._entry = ""
        return self._published

    async def _publish(self, published: RouteTable, table: RouteTable) -> None:
        """Puts `table` in force, also if Redis has lost the one before and nothing has changed."""
        if self._entry and table == published:
            return
        try:
            self._entry = await self._publisher.publish(table)
        except BackplaneUnavailable as error:
            self._troubles.tell("Redis", str(error))
            return
        for model, version, what in changes(published, table, self._ages()):
            _log.info("model %s version %s: %s", model, version or "?", what)
        self._published = table
        self._wake.set()

    def _ages(self) -> dict[str, float]:
        """Seconds since the files of each servable came."""
        now = self._clock()
        models = self._inventory.models.values() if self._inventory else ()
        found = (version for model in models for version in model.versions)
        return {version.servable.name: now - version.since for version in found if version.servable}

    async def _ask(self, published: RouteTable, lying: Inventory) -> dict[Server, Fleet]:
        known = _known(published, lying)
        fleets = await asyncio.gather(*(self._fleet(loader, known) for loader in self._loaders.values()))
        return {**self._absent, **dict(zip(self._loaders, fleets, strict=True))}

    async def _fleet(self, loader: Loader, known: Iterable[Servable]) -> Fleet:
        try:
            addresses = await loader.replicas()
        except ReplicaUnreachable as error:
            self._troubles.tell(loader.server.display_name, str(error))
            return Fleet({}, f"{loader.server.display_name} cannot be found")
        self._troubles.end(loader.server.display_name)
        known = [servable for servable in known if servable.server is loader.server]
        reports = await asyncio.gather(*(self._report(loader, address, known) for address in addresses))
        # Clients read it: the addresses stay in the log.
        reached = any(found is not None for found in reports)
        problem = "" if reached else f"{loader.server.display_name} cannot be reached"
        return Fleet(dict(zip(addresses, reports, strict=True)), problem)

    async def _report(self, loader: Loader, address: str, known: Iterable[Servable]) -> Report | None:
        """What a replica has, with what this controller knows besides: what it is doing there, and what failed."""
        try:
            async with asyncio.timeout(REPORT_TIMEOUT):
                found = dict(await loader.report(address, known))
        except (LoaderError, TimeoutError) as error:
            self._troubles.tell(address, f"{loader.server} at {address}: {error or 'no answer in time'}")
            self._failures.clear_replica(address)
            return None
        except Exception:
            _log.exception("%s at %s: its report cannot be read", loader.server, address)
            return None
        self._troubles.end(address)
        for name, reason in self._failures.at(address).items():
            found.setdefault(name, Status(LoadState.FAILED, reason))
        for (where, name), (_, state) in self._tasks.items():
            if where == address and (state is LoadState.UNLOADING or name not in found):
                found[name] = Status(state)
        return found

    def _drained(self, published: RouteTable, fleets: Mapping[Server, Fleet]) -> set[str]:
        """The loaded names that the table in force has not routed to for a while."""
        now = self._clock()
        routed = {route.servable for route in routes(published)}
        reports = (report for fleet in fleets.values() for report in fleet.reports().values())
        idle = {name for report in reports for name in report} - routed
        self._unrouted = {name: self._unrouted.get(name, now) for name in idle}
        return {name for name, since in self._unrouted.items() if now - since >= self._drain}

    def _act(self, decided: Plan) -> None:
        for action in decided.actions:
            name = action.servable.name if isinstance(action, Load) else action.name
            key = (action.address, name)
            if key in self._tasks or self._failures.waits(key):
                continue
            state = LoadState.LOADING if isinstance(action, Load) else LoadState.UNLOADING
            work = self._load(action, key) if isinstance(action, Load) else self._unload(action)
            task = asyncio.create_task(work, name=f"{state} {name}")
            self._tasks[key] = task, state
            task.add_done_callback(lambda _, key=key: self._done(key))  # type: ignore[misc]

    def _done(self, key: Key) -> None:
        del self._tasks[key]
        self._wake.set()

    async def _load(self, action: Load, key: Key) -> None:
        servable, started = action.servable, self._clock()
        where = f"model {servable.model} version {servable.version} in {servable.server} at {action.address}"
        try:
            await self._loaders[servable.server].load(action.address, servable)
        except ReplicaUnreachable as error:
            _log.warning("%s: not loaded: %s", where, error)
            return
        except LoaderError as error:
            self._failures.note(key, str(error))
            _log.error("%s: failed after %.2f s: %s", where, self._clock() - started, error)
            return
        except Exception as error:
            self._failures.note(key, "the controller could not load it; its log says why")
            _log.exception("%s: failed: %s", where, error)
            return
        self._failures.clear(key)
        _log.info("%s: loaded as %s in %.2f s", where, servable.name, self._clock() - started)

    async def _unload(self, action: Unload) -> None:
        started = self._clock()
        try:
            await self._loaders[action.server].unload(action.address, action.name)
        except LoaderError as error:
            self._failures.note((action.address, action.name), str(error))
            _log.error("%s in %s at %s: not unloaded: %s", action.name, action.server, action.address, error)
            return
        except Exception as error:
            self._failures.note((action.address, action.name), str(error))
            _log.exception("%s in %s at %s: not unloaded", action.name, action.server, action.address)
            return
        took = self._clock() - started
        _log.info("%s in %s at %s: unloaded in %.2f s", action.name, action.server, action.address, took)


def _known(published: RouteTable, lying: Inventory) -> list[Servable]:
    """Every servable that may be loaded somewhere."""
    known = {route.servable: Servable.of_route(route) for route in routes(published)}
    found = (version.servable for model in lying.models.values() for version in model.versions)
    return list((known | {servable.name: servable for servable in found if servable}).values())
