"""The controller's loop: ask, look, plan, act, publish, again. All decisions are in `plan`; this keeps the clocks, the
order and the log.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from portico.acknowledgements import GOODBYE, Acknowledgement
from portico.backplane import BackplaneUnavailable
from portico.controller.drain import Drain
from portico.controller.fleet import Fleet
from portico.controller.inventory import Inventory
from portico.controller.journal import Journal
from portico.controller.loaders import Loader
from portico.controller.memory import FIRST_RETRY, Failures, Troubles
from portico.controller.plan import Plan, plan, routes
from portico.controller.shortcut import Shortcut
from portico.controller.survey import Survey, known_servables
from portico.controller.work import Warmer, Work
from portico.routing import RouteTable, Server

_log = logging.getLogger(__name__)


class Publisher(Protocol):
    """Where route tables go; `backplane.Backplane` is one."""

    async def publish(self, table: RouteTable) -> str: ...

    async def newest(self, seen: str) -> tuple[str, RouteTable | None]: ...


class Gateways(Protocol):
    """What the gateways say; `acknowledgements.Acknowledgements` is one."""

    async def all(self) -> Mapping[str, Acknowledgement]: ...

    async def forget(self, name: str) -> None: ...


class Repository(Protocol):
    """Where models lie; `repository.Repository` is one."""

    @property
    def next_look(self) -> float | None:
        """Seconds until files may have settled that still change, None if there are none."""
        ...

    async def look(self, loading: Collection[str]) -> Inventory: ...


class Balancer(Protocol):
    """What lets calls go to replicas; `endpoints.Endpoints` is one. Called in a thread."""

    def write(self, server: Server, addresses: Iterable[str], partial: Mapping[str, Collection[str]]) -> None: ...


class Links(Protocol):
    """What model servers load through; `stage.Stage` is one. Called in a thread."""

    def keep(self, names: Collection[str]) -> None: ...


class Reconciler:
    """Makes what lies in the repository what is served.

    `interval` and `retry` are seconds. `beat` is called once per round, setting `wake` starts the next one at once.
    `absent` says why there is no server of a kind.
    """

    def __init__(
        self,
        repository: Repository,
        loaders: Iterable[Loader],
        publisher: Publisher,
        gateways: Gateways,
        balancer: Balancer,
        links: Links,
        *,
        interval: float,
        drain: Drain | None = None,
        retry: float = FIRST_RETRY,
        beat: Callable[[], None] = lambda: None,
        absent: Mapping[Server, str] | None = None,
        wake: asyncio.Event | None = None,
        warm: Warmer | None = None,
        journal: Journal | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repository = repository
        self._publisher = publisher
        self._gateways = gateways
        self._balancer = balancer
        self._links = links
        self._interval = interval
        self._drain = drain or Drain()
        self._beat = beat
        self._clock = clock
        self._wake = wake or asyncio.Event()
        self._failures = Failures(retry, clock)
        by_server = {loader.server: loader for loader in loaders}
        self._work = Work(by_server, self._failures, self._wake.set, warm, clock)
        self._journal = journal or Journal(clock)
        self._shortcut = Shortcut()
        self._troubles = Troubles()
        self._survey = Survey(by_server, self._work, self._troubles, absent or {})
        self._published: RouteTable | None = None
        self._entry = ""
        self._kept: set[str] = set()
        self._since: dict[str, float] = {}
        self._inventory: Inventory | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Goes round until `stop` is set. What it started is cancelled then; servers finish what they are at."""
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._wake.clear()
                pause = self._interval
                try:
                    if await self.round():
                        pause = self._pause()
                except Exception:
                    _log.exception("this round failed; the next one starts afresh")
                woken = asyncio.create_task(self._wake.wait())
                await asyncio.wait((stopped, woken), timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
        finally:
            stopped.cancel()
            await self._work.close()

    def _pause(self) -> float:
        ends = (self._interval, self._repository.next_look, self._drain.next(self._clock()))
        return min(seconds for seconds in ends if seconds is not None)

    async def round(self) -> bool:
        """One round; whether it got to its end. Trouble with a part of the stack is logged once, and the round goes as
        far as it can: while the repository cannot be read, replicas that come and go are seen to, and nothing else.
        """
        self._sign_of_life()
        published = await self._newest()
        # Whoever asks the servers has to know what may be there: what was published, and what lies here.
        self._inventory = self._inventory or await self._look()
        if published is None or self._inventory is None:
            return False
        # Reports come before the look: what they call ready was read from the files that the look finds unchanged.
        fleets = await self._survey.ask(published, self._inventory)
        found = await self._look()
        if found is None:
            await self._rotate(plan(self._inventory, fleets, published, ()))
            return False
        self._inventory = found
        self._failures.forget_old()
        if self._notice_new_files():
            self._wake.set()  # what the reports call ready is not
            return True
        decided = plan(self._inventory, fleets, published, await self._drained(published, fleets), self._shortcut)
        for action in decided.actions:
            self._work.start(action)
        await self._rotate(decided)
        await self._publish(published, decided.table)
        await self._tidy(decided, fleets)
        return True

    def _sign_of_life(self) -> None:
        try:
            self._beat()
        except OSError as error:
            self._troubles.tell("heartbeat", f"the heartbeat cannot be written: {error}")
        else:
            self._troubles.end("heartbeat")

    async def _look(self) -> Inventory | None:
        try:
            found = await self._repository.look(self._work.loading())
        except OSError as error:
            self._troubles.tell("model repository", f"the model repository cannot be read: {error}")
            return None
        self._troubles.end("model repository")
        return found

    def _notice_new_files(self) -> bool:
        """What failed is tried again at once when its files were put there again. Whether some changed in mid-load."""
        assert self._inventory
        versions = (version for model in self._inventory.models.values() for version in model.versions)
        since = {version.servable.name: version.since for version in versions if version.servable}
        for name in [name for name, when in since.items() if self._since.get(name, when) != when]:
            self._failures.clear_name(name)
        self._since = since
        return self._work.notice_files(since)

    async def _newest(self) -> RouteTable | None:
        """The table that gateways have. None if that is not known: then nothing may be unloaded, and nothing is."""
        try:
            entry, table = await self._publisher.newest(self._entry)
        except BackplaneUnavailable as error:
            self._troubles.tell("Redis", str(error))
            return self._published
        self._troubles.end("Redis")
        if self._published is None:
            # Gateways may know a table that Redis has lost; none of theirs has a revision as high as this one.
            self._published = table or RouteTable(revision=int(time.time()))
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
            # It may have got there all the same, so its revision is spent.
            self._published = RouteTable(published.models, table.revision)
            return
        assert self._inventory
        self._journal.published(published, table, self._inventory, self._work.loaded)
        self._published = table
        if {route.servable for route in routes(published)} - {route.servable for route in routes(table)}:
            self._wake.set()  # what no route leads to any more begins to drain

    async def _rotate(self, decided: Plan) -> None:
        for server, addresses in decided.rotation.items():
            try:
                await asyncio.to_thread(self._balancer.write, server, addresses, decided.partial.get(server, {}))
            except OSError as error:
                self._troubles.tell(f"rotation of {server}", f"the replicas of {server} cannot be written: {error}")
            else:
                self._troubles.end(f"rotation of {server}")

    async def _tidy(self, decided: Plan, fleets: Mapping[Server, Fleet]) -> None:
        """Takes away links that nobody can need: every replica answered, and none has anything of that name."""
        if any(report is None for fleet in fleets.values() for report in fleet.replicas.values()):
            return
        if any(not fleet.replicas for server, fleet in fleets.items() if server in self._survey.servers):
            return
        assert self._inventory
        names = {name for fleet in fleets.values() for report in fleet.reports.values() for name in report}
        names |= {servable.name for servable in known_servables(decided.table, self._inventory)}
        if names == self._kept:
            return
        self._work.keep(names)
        try:
            await asyncio.to_thread(self._links.keep, names)
        except OSError as error:
            self._troubles.tell("stage", f"old links cannot be removed: {error}")
        else:
            self._kept = names
            self._troubles.end("stage")

    async def _drained(self, published: RouteTable, fleets: Mapping[Server, Fleet]) -> set[str]:
        """The loaded names that no request uses any more; none as long as the gateways cannot be heard."""
        routed = {route.servable for route in routes(published)}
        reports = (report for fleet in fleets.values() for report in fleet.reports.values())
        idle = {name for report in reports for name in report} - routed
        try:
            heard = await self._gateways.all()
            silent = self._drain.hear(heard, self._clock())
            for _ in silent:
                _log.warning("a gateway has been silent for too long: its calls are no longer waited for")
            for name in [*silent, *(name for name, said in heard.items() if said == GOODBYE)]:
                await self._gateways.forget(name)
        except BackplaneUnavailable as error:
            self._troubles.tell("Redis", str(error))
            return set()
        return self._drain.drained(idle, published.revision, self._clock())
