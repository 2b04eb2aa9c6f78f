"""What to do next, as a pure function of what lies in the repository, what each replica reports and what the gateways
have been told. The reconcile loop calls it for each round and carries out what it says; it may be called at any moment,
by a controller that has just started, with the same result.

Theory of operation
-------------------
A *servable* is one version of a model with one content, and its name says so (`servable.py`). Names are never reused
for another content, so "is it loaded?" and "is it the right one?" are one question, and two contents of the same
version can be loaded side by side.

For each model the plan picks the servables it *wants*: newest version first, until one is found that has not failed. A
version whose files are broken or still changing cannot be wanted, but where it is being served from what was loaded
before, it fills the place all the same: broken files never bring back an older version.

Then it moves in one direction only:

1. *Load* what is wanted wherever it is missing.
2. *Flip* a route once every replica that can be reached reports the wanted servable ready. Until then the route stays
   where it was, for as long as a replica can answer on it. A failed load leaves it there, its reason in the listing.
3. *Unload* what no table routes to: neither the one in force nor the one being made. The loop says which servables
   have been without a route long enough to be drained.

A step is only taken on evidence from the one before: ready comes from the servers' reports, the table in force is what
was really published. So a controller may die between any two steps, and the next one goes on from there.

A replica that cannot be reached has no voice: it blocks nothing, and nothing is unloaded from it. If no replica of a
server can be reached, its routes stay and are marked unavailable. If replicas answer, and none of them has the servable
(all were restarted), the route is withdrawn until it is loaded again, so that clients get a reason and not a riddle.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from portico.controller.inventory import Inventory, ModelFiles, VersionFiles
from portico.controller.loaders import LoadState, Report, Status
from portico.controller.servable import Servable, version_key
from portico.routing import Model, Route, RouteTable, Server, State, Version

VERSIONS = 1
"""How many versions of a model are served, the newest first."""

_CHANGING = "its files are still changing"
_GONE = "its files are gone, and no other version is ready"
_STILL_SERVES = "what was loaded before still serves"


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the replicas of one kind of server report, by address; None for one that cannot be reached.

    `problem` says why, if there is no replica that can be reached.
    """

    replicas: Mapping[str, Report | None]
    problem: str = ""

    def reports(self) -> dict[str, Report]:
        """The reports of the replicas that can be reached."""
        return {address: report for address, report in self.replicas.items() if report is not None}


@dataclass(frozen=True, slots=True)
class Load:
    """Load a servable into one replica."""

    address: str
    servable: Servable


@dataclass(frozen=True, slots=True)
class Unload:
    """Unload a servable from one replica."""

    address: str
    server: Server
    name: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, in this order: start the actions, publish the table if it is another one than that in force."""

    actions: tuple[Load | Unload, ...]
    table: RouteTable


def plan(inventory: Inventory, fleets: Mapping[Server, Fleet], published: RouteTable, drained: Collection[str]) -> Plan:
    """The next steps. `published` is the table in force, `drained` the names that no request can be using any more."""
    steps = [_ModelPlan(files, published.models.get(name), fleets) for name, files in sorted(inventory.models.items())]
    models = {step.files.name: step.model() for step in steps}
    table = RouteTable(models, published.revision)
    if table != published:
        table = RouteTable(models, published.revision + 1)
    needed = {servable.name: servable for step in steps for servable in step.needed(models[step.files.name])}
    used = {route.servable for each in (published, table) for route in routes(each)} | needed.keys()
    actions: list[Load | Unload] = []
    for server, fleet in fleets.items():
        for address, report in fleet.reports().items():
            actions += [Load(address, s) for s in needed.values() if s.server is server and s.name not in report]
            actions += [
                Unload(address, server, name)
                for name, status in report.items()
                if name not in used and name in drained and status.state is not LoadState.UNLOADING
            ]
    return Plan(tuple(actions), table)


def routes(table: RouteTable) -> Iterable[Route]:
    """All routes of a table."""
    return (version.route for model in table.models.values() for version in model.versions.values() if version.route)


@dataclass(slots=True)
class _ModelPlan:
    """The plan for one model. `old` is what the table in force says of it."""

    files: ModelFiles
    old: Model | None
    fleets: Mapping[Server, Fleet]
    versions: tuple[VersionFiles, ...] = ()
    current: dict[str, Version] = field(default_factory=dict)
    wanted: dict[str, Servable] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for version in self.old.versions.values() if self.old else ():
            alive = self._alive(version.route) if version.route else None
            if alive:
                self.current[version.version] = alive
        # An archive that cannot be read now has the version that it had.
        self.versions = tuple(
            replace(found, version=version)
            for found in self.files.versions
            for version in ([found.version] if found.version or not self.current else self.current)
        )
        self._pick()

    def _pick(self) -> None:
        """Which servables are wanted, and which versions are kept as they were loaded, by version."""
        if self.files.problem:
            self.kept = set(self.current)
            return
        places = VERSIONS
        for found in reversed(self.versions):
            if found.servable:
                self.wanted[found.version] = found.servable
                failed = self._status(found.servable).state is State.FAILED
                places -= not failed or found.version in self.current
            elif found.version in self.current:
                self.kept.add(found.version)
                places -= 1
            if places <= 0:
                break

    def model(self) -> Model:
        """The model as the next table shows it."""
        versions: dict[str, Version] = {}
        superseded = self._superseded()
        for found in self.versions:
            name = found.version
            trouble = found.problem or ("" if found.servable else _CHANGING)
            if name in self.wanted:
                versions[name] = self._wanted(self.wanted[name])
            elif name in self.current and (name in self.kept or not superseded):
                versions[name] = _explained(self.current[name], trouble and f"{trouble}; {_STILL_SERVES}")
            elif trouble:
                versions[name] = Version(name, State.QUARANTINED if found.problem else State.LOADING, trouble)
        lying = {found.version for found in self.versions}
        for name, version in self.current.items():
            if name not in lying and (name in self.kept or not superseded):
                versions[name] = _explained(version, f"{self.files.problem or _GONE}; {_STILL_SERVES}")
        if self.files.problem and not versions:
            versions[""] = Version("", State.QUARANTINED, self.files.problem)
        ordered = {name: versions[name] for name in sorted(versions, key=version_key)}
        default = next((name for name in reversed(ordered) if ordered[name].route), "")
        return Model(self.files.name, self._server(ordered.get(default)), default, ordered)

    def needed(self, model: Model) -> Iterable[Servable]:
        """What has to be loaded everywhere: what is wanted, and what is routed to and still lies there."""
        routed = {version.route.servable for version in model.versions.values() if version.route}
        for found in self.versions:
            if found.servable and (found.version in self.wanted or found.servable.name in routed):
                yield found.servable

    def _superseded(self) -> bool:
        """Whether other routes can go: everything wanted came to its end, and some of it serves."""
        states = [self._status(servable).state for servable in self.wanted.values()]
        ended = all(state in (State.READY, State.FAILED) for state in states)
        return ended and State.READY in states

    def _wanted(self, servable: Servable) -> Version:
        status = self._status(servable)
        if status.state is State.READY:
            return status
        current = self.current.get(servable.version)
        if current is None:
            return status
        if current.route and current.route.servable == servable.name:
            return current
        return _explained(current, f"its new files: {status.reason}; {_STILL_SERVES}")

    def _status(self, servable: Servable) -> Version:
        """The version as all replicas together report it: with a route if each of them is ready."""
        fleet = self.fleets.get(servable.server, Fleet({}))
        reports = fleet.reports()
        if not reports:
            return Version(servable.version, State.UNAVAILABLE, fleet.problem)
        states = {address: report.get(servable.name) for address, report in reports.items()}
        for status in states.values():
            if status and status.state is LoadState.FAILED:
                where = f" (in one of {len(states)} replicas)" if len(states) > 1 else ""
                return Version(servable.version, State.FAILED, f"{status.reason}{where}")
        ready = [status for status in states.values() if status and status.state is LoadState.READY]
        if len(ready) < len(states):
            return Version(servable.version, State.LOADING, "the model server is loading it")
        return Version(servable.version, State.READY, "", _route(servable, ready[0]))

    def _alive(self, route: Route) -> Version | None:
        """The version that the table in force routes to, with its present state; None if nobody can answer on it."""
        fleet = self.fleets.get(route.server, Fleet({}))
        reports = fleet.reports()
        if not reports:
            return Version(route.version, State.UNAVAILABLE, fleet.problem, route)
        states = {status.state for report in reports.values() if (status := report.get(route.servable))}
        if LoadState.READY in states:
            return Version(route.version, State.READY, "", route)
        if LoadState.LOADING in states:
            return Version(route.version, State.LOADING, "the model server is starting it again", route)
        return None

    def _server(self, default: Version | None) -> Server | None:
        return default.route.server if default and default.route else self.files.server


def _route(servable: Servable, status: Status) -> Route:
    return Route(
        servable.model,
        servable.version,
        servable.server,
        servable.name,
        servable.servable_version,
        servable.fingerprint,
        status.signatures,
    )


def _explained(version: Version, reason: str) -> Version:
    return Version(version.version, version.state, version.reason or reason, version.route)
