"""What to do next, as a pure function of what lies in the repository, what each replica reports and what the gateways
have been told. The reconcile loop calls it for each round and carries out what it says; it may be called at any moment,
by a controller that has just started, with the same result.

Theory of operation
-------------------
A *servable* is one version of a model with one content, and its name says so (`servable.py`). Names are never reused
for another content, so "is it loaded?" and "is it the right one?" are one question, and two contents of the same
version can be loaded side by side.

For each model (`model_plan.py`) the plan picks the servables it *wants*: as many of the newest versions as the model's
policy says, those that have failed left out, and besides those that a label or the policy names. A version whose files
are broken or still changing cannot be wanted, but where it is being served from what was loaded before, it fills the
place all the same: broken files never bring back an older version.

Then it moves in one direction only:

1. *Load* what is wanted wherever it is missing.
2. *Flip* a route once every replica in the rotation reports the wanted servable ready. Until then the route stays
   where it was, for as long as a replica can answer on it, and so do the default and the labels. A failed load leaves
   it there, its reason in the listing.
3. *Unload* what no table routes to: neither the one in force nor the one being made. The loop says which servables no
   request uses any more; until then they are *draining*.

A step is only taken on evidence from the one before: ready comes from the servers' reports, the table in force is what
was really published. So a controller may die between any two steps, and the next one goes on from there.

The *rotation* of a server are the replicas that take calls: those that have everything that the table in force routes
to. One that restarted, or was added, catches up outside of it, and no flip waits for it. What enters has what the next
table routes to as well, so it does not matter which of the two is published first. What can never be caught up with
(its files were deleted, broken ones took their place, or others that cannot be loaded) keeps no replica out; calls of
it go only to those replicas that still have it.

A replica that cannot be reached has no voice: it blocks nothing, and nothing is unloaded from it. If no replica of a
server can be reached, its routes stay and are marked unavailable, and the rotation stays as it is. If replicas answer,
and none of them has the servable (all were restarted), the route is withdrawn until it is loaded again, so that clients
get a reason and not a riddle.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from portico.controller.fleet import Fleet, is_ready
from portico.controller.inventory import Inventory, ModelFiles
from portico.controller.loaders import LoadState
from portico.controller.model_plan import remains
from portico.controller.servable import Servable
from portico.controller.shortcut import Shortcut
from portico.routing import Model, Route, RouteTable, Server


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
    """What to do now, in this order: start the actions, let calls go to the replicas in `rotation` (a server that is
    not in it stays as it is), publish the table if it is another one than that in force.

    `partial` are the servables in the table that not all of these replicas have, for each replica those that it has.
    """

    actions: tuple[Load | Unload, ...]
    rotation: Mapping[Server, tuple[str, ...]]
    table: RouteTable
    partial: Mapping[Server, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)


def plan(
    inventory: Inventory,
    fleets: Mapping[Server, Fleet],
    published: RouteTable,
    drained: Collection[str],
    shortcut: Shortcut | None = None,
) -> Plan:
    """The next steps. `published` is the table in force, `drained` the names that no request can be using any more.

    `shortcut`, if the same one is given each time, spares the work for models about which there is nothing new; the
    result is the same without it.
    """
    in_force = _required(published, inventory, fleets)
    able = {server: fleet.having(in_force.get(server, set())) for server, fleet in fleets.items()}
    steps = (shortcut or Shortcut()).steps(inventory, able, published)
    models = {name: step.model for name, step in steps.items()}
    needed = {servable.name: servable for step in steps.values() for servable in step.needed}
    models |= _deleted(inventory, published, fleets)
    table = RouteTable(dict(sorted(models.items())), published.revision)
    if table != published:
        table = RouteTable(table.models, published.revision + 1)
    routed = {route.servable for each in (published, table) for route in routes(each)}
    used = routed | needed.keys()
    actions: list[Load | Unload] = [*_loads(needed.values(), fleets), *_unloads(used, drained, fleets)]
    rotation = _rotation(able, _required(table, inventory, fleets))
    partial = {server: _partial(addresses, fleets[server], routed) for server, addresses in rotation.items()}
    return Plan(tuple(actions), rotation, table, partial)


def routes(table: RouteTable) -> Iterable[Route]:
    """All routes of a table."""
    return (version.route for model in table.models.values() for version in model.versions.values() if version.route)


def _required(table: RouteTable, inventory: Inventory, fleets: Mapping[Server, Fleet]) -> dict[Server, set[str]]:
    """The servables of each server that the table routes to, those of them that a replica can catch up with."""
    names: dict[Server, set[str]] = {server: set() for server in fleets}
    for route in routes(table):
        files = inventory.models.get(route.model)
        if files and route.server in names and _may_be_had(route, files, fleets[route.server]):
            names[route.server].add(route.servable)
    return names


def _may_be_had(route: Route, files: ModelFiles, fleet: Fleet) -> bool:
    """Whether a replica that lost what the route leads to may have it again, or what is to follow it."""
    for found in files.versions:
        if found.version and found.version != route.version:
            continue
        if found.servable is None:
            return not found.problem
        if found.servable.name == route.servable:
            return True
        named = {*files.policy.only, *files.policy.labels.values(), files.policy.default_version}
        if files.problem or (files.policy.only and found.version not in named):
            return False  # it is not loaded
        follows = (report.get(found.servable.name) for report in fleet.reports.values())
        return not any(status and status.state is LoadState.FAILED for status in follows)
    return False


def _deleted(inventory: Inventory, published: RouteTable, fleets: Mapping[Server, Fleet]) -> dict[str, Model]:
    """Models whose files are gone, for as long as some of them drains."""
    gone = (model for name, model in published.models.items() if name not in inventory.models)
    left = {model.name: remains(model.versions.values(), fleets) for model in gone}
    return {
        name: Model(name, published.models[name].server, "", versions) for name, versions in left.items() if versions
    }


def _loads(needed: Iterable[Servable], fleets: Mapping[Server, Fleet]) -> Iterable[Load]:
    for servable in needed:
        fleet = fleets.get(servable.server)
        for address, report in fleet.reports.items() if fleet else ():
            if servable.name not in report:
                yield Load(address, servable)


def _unloads(used: Collection[str], drained: Collection[str], fleets: Mapping[Server, Fleet]) -> Iterable[Unload]:
    for server, fleet in fleets.items():
        for address, report in fleet.reports.items():
            for name, status in report.items():
                if name not in used and name in drained and status.state is not LoadState.UNLOADING:
                    yield Unload(address, server, name)


def _rotation(able: Mapping[Server, Fleet], names: Mapping[Server, set[str]]) -> dict[Server, tuple[str, ...]]:
    rotation = {}
    for server, fleet in able.items():
        reports = fleet.reports
        ready = tuple(address for address, report in reports.items() if is_ready(report, names.get(server, ())))
        if reports:
            rotation[server] = ready or tuple(reports)
    return rotation


def _partial(addresses: Collection[str], fleet: Fleet, routed: Collection[str]) -> dict[str, tuple[str, ...]]:
    """What not all of these replicas have of the servables that calls go to, for each what it has."""
    ready = {
        address: {name for name, status in fleet.reports[address].items() if status.state is LoadState.READY}
        for address in addresses
    }
    somewhere = set[str]().union(*ready.values())
    partial = (somewhere - somewhere.intersection(*ready.values())).intersection(routed)
    return {address: tuple(sorted(names & partial)) for address, names in ready.items() if names & partial}
