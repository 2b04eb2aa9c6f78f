"""Fakes that implement the controller's ports: a fleet of model servers, the backplane, the model repository."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from portico.acknowledgements import Acknowledgement
from portico.backplane import BackplaneUnavailable
from portico.controller.inventory import Inventory, ModelFiles, VersionFiles
from portico.controller.loaders import LoaderError, LoadState, ReplicaUnreachable, Report, Status
from portico.controller.servable import Servable
from portico.routing import RouteTable, Server


def servable(model: str, version: str = "1", content: str = "a", server: Server = Server.TF_SERVING) -> Servable:
    """The servable of a version with some content."""
    return Servable.of_files(model, version, server, version, f"{model}/{version}", content)


def lying(*servables: Servable) -> Inventory:
    """A repository in which exactly these lie, all settled."""
    models: dict[str, list[VersionFiles]] = {}
    for one in servables:
        models.setdefault(one.model, []).append(VersionFiles(one.version, one))
    server = {one.model: one.server for one in servables}
    return Inventory({name: ModelFiles(name, server[name], tuple(found)) for name, found in models.items()})


@dataclass
class FakeReplica:
    """One process of a model server. `broken` says why a servable cannot be loaded, `stuck` why it cannot be unloaded,
    `hold` what a load waits for.
    """

    loaded: dict[str, Status] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    stuck: dict[str, str] = field(default_factory=dict)
    reachable: bool = True
    hold: dict[str, asyncio.Event] = field(default_factory=dict)

    def restart(self) -> None:
        """Forgets everything that was loaded."""
        self.loaded.clear()


class FakeLoader:
    """Implements `Loader` in memory, and writes down what it was told."""

    def __init__(self, server: Server, *addresses: str) -> None:
        self._server = server
        self.fleet = {address: FakeReplica() for address in addresses}
        self.calls: list[tuple[str, str, str]] = []

    @property
    def server(self) -> Server:
        return self._server

    async def replicas(self) -> tuple[str, ...]:
        if not self.fleet:
            raise ReplicaUnreachable("no such host")
        return tuple(self.fleet)

    async def report(self, address: str, known: Iterable[Servable]) -> Report:
        return dict(self._replica(address).loaded)

    async def load(self, address: str, servable: Servable) -> None:
        replica = self._replica(address)
        self.calls.append(("load", address, servable.name))
        await asyncio.sleep(0)
        if servable.name in replica.hold:
            await replica.hold[servable.name].wait()
        if servable.name in replica.broken:
            raise LoaderError(replica.broken[servable.name])
        replica.loaded[servable.name] = Status(LoadState.READY)

    async def unload(self, address: str, name: str) -> None:
        self.calls.append(("unload", address, name))
        await asyncio.sleep(0)
        replica = self._replica(address)
        if name in replica.stuck:
            raise LoaderError(replica.stuck[name])
        replica.loaded.pop(name, None)

    async def close(self) -> None:
        return None

    def _replica(self, address: str) -> FakeReplica:
        replica = self.fleet[address]
        if not replica.reachable:
            raise ReplicaUnreachable(f"{address} does not answer")
        return replica


class FakeBackplane:
    """Implements the reconciler's `Publisher`; keeps every table that was published."""

    def __init__(self) -> None:
        self.tables: list[RouteTable] = []
        self.stored: tuple[str, RouteTable] | None = None
        self.reachable = True

    async def publish(self, table: RouteTable) -> str:
        self._check()
        self.tables.append(table)
        self.stored = str(len(self.tables)), table
        return self.stored[0]

    async def newest(self, seen: str = "") -> tuple[str, RouteTable | None]:
        self._check()
        return self.stored or ("", None)

    def _check(self) -> None:
        if not self.reachable:
            raise BackplaneUnavailable("no Redis")


class FakeGateways:
    """Implements the reconciler's `Gateways`: what they say is what the test says."""

    def __init__(self) -> None:
        self.say: dict[str, Acknowledgement] = {}
        self.reachable = True

    async def all(self) -> Mapping[str, Acknowledgement]:
        if not self.reachable:
            raise BackplaneUnavailable("no Redis")
        return dict(self.say)

    async def forget(self, name: str) -> None:
        self.say.pop(name, None)


class FakeBalancer:
    """Implements the reconciler's `Balancer`, and keeps what it was told last."""

    def __init__(self) -> None:
        self.rotation: dict[Server, tuple[str, ...]] = {}
        self.partial: dict[Server, dict[str, tuple[str, ...]]] = {}

    def write(self, server: Server, addresses: Iterable[str], partial: Mapping[str, Collection[str]]) -> None:
        self.rotation[server] = tuple(addresses)
        self.partial[server] = {address: tuple(names) for address, names in partial.items()}


class FakeLinks:
    """Implements the reconciler's `Links`, and keeps what it was told last."""

    def __init__(self) -> None:
        self.kept: set[str] = set()

    def keep(self, names: Collection[str]) -> None:
        self.kept = set(names)


class FakeRepository:
    """Implements the reconciler's `Repository`: what lies there is what the test says. Counts the looks."""

    next_look: float | None = None

    def __init__(self, inventory: Inventory | None = None) -> None:
        self.inventory = inventory or Inventory()
        self.readable = True
        self.looks = 0

    async def look(self, loading: Collection[str]) -> Inventory:
        self.looks += 1
        if not self.readable:
            raise OSError("no such folder")
        return self.inventory
