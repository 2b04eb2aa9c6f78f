"""What holds for `plan` from any state: it reaches what lies there, takes nothing away too early, and then rests.

The model servers are simulated: a load takes some rounds, and may fail for ever.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from fakes_controller import lying, servable
from portico.controller.fleet import Fleet
from portico.controller.inventory import Inventory, ModelFiles, VersionFiles
from portico.controller.loaders import LoadState, Status
from portico.controller.plan import Load, Unload, plan, routes
from portico.controller.policy import Policy
from portico.controller.servable import Servable
from portico.controller.shortcut import Shortcut
from portico.routing import RouteTable, Server, State

ENOUGH_ROUNDS = 60
READY = Status(LoadState.READY)


@dataclass
class World:
    """All replicas, what is in them, and what the gateways were told."""

    replicas: dict[Server, dict[str, dict[str, Status]]]
    broken: frozenset[str]
    inventory: Inventory
    table: RouteTable = field(default_factory=RouteTable)
    unreachable: frozenset[str] = frozenset()
    shortcut: Shortcut = field(default_factory=Shortcut)
    loads: list[tuple[str, str]] = field(default_factory=list)
    unloads: list[tuple[str, str]] = field(default_factory=list)

    def fleets(self) -> dict[Server, Fleet]:
        return {
            server: Fleet(
                {address: None if address in self.unreachable else dict(has) for address, has in replicas.items()},
                "nobody answers" if all(address in self.unreachable for address in replicas) else "",
            )
            for server, replicas in self.replicas.items()
        }

    def round(self) -> bool:
        """Plans, publishes, acts; lets every load that was under way end. Returns whether anything happened."""
        before = {address: dict(has) for replicas in self.replicas.values() for address, has in replicas.items()}
        unrouted = {name for has in before.values() for name in has} - {route.servable for route in routes(self.table)}
        decided = plan(self.inventory, self.fleets(), self.table, unrouted, self.shortcut)
        assert decided == plan(self.inventory, self.fleets(), self.table, unrouted), "the shortcut is none"
        ended = self.finish_loads()
        for action in decided.actions:
            if isinstance(action, Load):
                name = action.servable.name
                assert name not in before[action.address]
                self.loads.append((action.address, name))
                self.replicas[action.servable.server][action.address][name] = Status(LoadState.LOADING)
            else:
                self.check_unload(action, decided.table)
                self.unloads.append((action.address, action.name))
                del self.replicas[action.server][action.address][action.name]
        changed = decided.table != self.table or bool(decided.actions) or ended
        self.table = decided.table
        self.check_rotation(decided.rotation)
        return changed

    def check_rotation(self, rotation: Mapping[Server, tuple[str, ...]]) -> None:
        """Who takes calls has everything that the table routes to and that still lies there; or nobody has."""
        lying = {
            version.servable.name
            for files in self.inventory.models.values()
            for version in files.versions
            if version.servable
        }
        for server, addresses in rotation.items():
            names = {route.servable for route in routes(self.table) if route.server is server} & lying
            reach = {at: has for at, has in self.replicas[server].items() if at not in self.unreachable}
            whole = {at for at, has in reach.items() if all(has.get(name) == READY for name in names)}
            assert set(addresses) <= (whole or reach.keys())

    def finish_loads(self) -> bool:
        ended = False
        for replicas in self.replicas.values():
            for address, has in replicas.items():
                if address not in self.unreachable:
                    for name, status in has.items():
                        if status.state is LoadState.LOADING:
                            has[name] = Status(LoadState.FAILED, "broken") if name in self.broken else READY
                            ended = True
        return ended

    def check_unload(self, action: Unload, next_table: RouteTable) -> None:
        for table in (self.table, next_table):
            assert action.name not in {route.servable for route in routes(table)}

    def settle(self) -> None:
        for _ in range(ENOUGH_ROUNDS):
            if not self.round():
                return
        raise AssertionError("it never comes to rest")


MODELS = ("a", "b")
POOL = [
    servable(model, version, content, server)
    for model, server in zip(MODELS, (Server.TF_SERVING, Server.TORCHSERVE), strict=True)
    for version in ("1", "2")
    for content in ("x", "y")
]
ADDRESSES = {Server.TF_SERVING: ("t0", "t1"), Server.TORCHSERVE: ("p0", "p1")}
statuses = st.sampled_from([READY, Status(LoadState.LOADING), Status(LoadState.FAILED, "broken")])


def of_server(server: Server) -> list[str]:
    return [one.name for one in POOL if one.server is server]


numbers = st.sampled_from(["1", "2", "3"])
policies = st.builds(
    Policy,
    latest=st.sampled_from([1, 1, 2, None]),
    only=st.sampled_from([frozenset(), frozenset(), frozenset({"1"}), frozenset({"1", "3"})]),
    labels=st.dictionaries(st.sampled_from(["stable", "canary"]), numbers),
    default_version=st.sampled_from(["", "", "1", "2"]),
)


@st.composite
def inventories(draw: st.DrawFn) -> Inventory:
    """Any repository: some versions whole, some broken, some changing, some names unclear."""
    models = {}
    for model in draw(st.sets(st.sampled_from(MODELS))):
        problem = draw(st.sampled_from(["", "", "", "two sources"]))
        found: list[VersionFiles] = []
        for version in draw(st.lists(st.sampled_from(["1", "2"]), min_size=1, unique=True).map(sorted)):
            candidates = [one for one in POOL if (one.model, one.version) == (model, version)]
            whole = [VersionFiles(version, one) for one in candidates]
            found.append(draw(st.sampled_from([*whole, VersionFiles(version, problem="bad"), VersionFiles(version)])))
        server = found[0].servable.server if found[0].servable else None
        models[model] = ModelFiles(model, server, () if problem else tuple(found), problem, draw(policies))
    return Inventory(models)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Any state: anything loaded anywhere, after any history, with any of it broken or out of reach."""
    replicas = {
        server: {address: draw(st.dictionaries(st.sampled_from(of_server(server)), statuses)) for address in addresses}
        for server, addresses in ADDRESSES.items()
    }
    broken = draw(st.frozensets(st.sampled_from([one.name for one in POOL]), max_size=3))
    world = World(replicas, broken, draw(inventories()))
    for _ in range(draw(st.integers(0, 4))):
        world.round()
    world.inventory = draw(inventories())
    world.unreachable = draw(st.frozensets(st.sampled_from(["t0", "t1", "p0", "p1"]), max_size=2))
    return world


def whole(inventory: Inventory) -> Iterable[Servable]:
    return (found.servable for model in inventory.models.values() for found in model.versions if found.servable)


@given(worlds())
def test_it_comes_to_rest(world: World) -> None:
    """From any state, repeated application ends in one in which nothing is left to do."""
    world.settle()
    assert not world.round()


@given(worlds())
def test_what_lies_there_is_what_is_served(world: World) -> None:
    """At rest with all replicas in reach and good files, the newest version is routed to, and ready everywhere."""
    world.unreachable = world.broken = frozenset()
    world.inventory = lying(*whole(world.inventory))
    for has in (has for replicas in world.replicas.values() for has in replicas.values()):
        for name in [name for name, status in has.items() if status.state is LoadState.FAILED]:
            del has[name]  # what failed is tried again, after some time
    world.settle()
    assert world.table.models.keys() == world.inventory.models.keys()
    for name, model in world.inventory.models.items():
        newest = model.versions[-1].servable
        assert newest
        assert world.table.resolve(name).servable == newest.name
        assert [route.servable for route in routes(world.table) if route.model == name] == [newest.name]
        assert all(has[newest.name] == READY for has in world.replicas[newest.server].values())


@given(worlds())
def test_what_cannot_be_loaded_does_not_stop_what_can(world: World) -> None:
    """At rest with all replicas in reach, a model answers if any of its versions can be loaded everywhere."""
    world.unreachable = frozenset()
    world.inventory = lying(*whole(world.inventory))
    world.settle()
    for name, model in world.inventory.models.items():
        for found in model.versions:
            assert found.servable
            replicas = world.replicas[found.servable.server].values()
            if all(has.get(found.servable.name) == READY for has in replicas):
                assert world.table.resolve(name)


@given(worlds())
def test_nothing_is_left_over(world: World) -> None:
    """At rest, no replica in reach has anything that is neither routed to nor wanted."""
    world.settle()
    routed = {route.servable for route in routes(world.table)}
    useful = routed | {one.name for one in whole(world.inventory)}
    for replicas in world.replicas.values():
        for address, has in replicas.items():
            assert address in world.unreachable or has.keys() <= useful


@given(worlds(), inventories())
def test_a_model_that_answers_goes_on_answering(world: World, later: Inventory) -> None:
    """While its files are changed into anything at all, a model that stays in the repository never loses its route."""
    world.settle()
    answered = {name for name, model in world.table.models.items() if model.status().route}
    world.inventory = later
    for _ in range(ENOUGH_ROUNDS):
        changed = world.round()
        for model in answered & later.models.keys():
            route = world.table.resolve(model)
            reach = [has for at, has in world.replicas[route.server].items() if at not in world.unreachable]
            assert not reach or any(has.get(route.servable) == READY for has in reach)
        if not changed:
            break


@given(worlds())
def test_nothing_is_done_twice(world: World) -> None:
    """On the way to rest no replica loads or unloads a thing twice."""
    world.loads.clear()
    world.unloads.clear()
    world.settle()
    assert len(set(world.loads)) == len(world.loads)
    assert len(set(world.unloads)) == len(world.unloads)


@given(worlds(), st.sampled_from(["t0", "t1", "p0", "p1"]))
def test_a_restarted_replica_is_made_whole(world: World, address: str) -> None:
    """Whatever a replica forgets, it has again in the end, if it still lies there."""
    world.unreachable = frozenset()
    world.settle()
    replicas = next(replicas for replicas in world.replicas.values() if address in replicas)
    replicas[address].clear()
    world.settle()
    lying_there = {one.name for one in whole(world.inventory)}
    for route in routes(world.table):
        if route.servable in lying_there and address in world.replicas[route.server]:
            assert replicas[address].get(route.servable) is not None


@given(worlds())
def test_every_version_that_is_not_ready_says_why(world: World) -> None:
    """No state in the listing but READY comes without a reason, and READY never without a route."""
    for _ in range(3):
        world.round()
        for model in world.table.models.values():
            for version in model.versions.values():
                assert version.reason if version.state is not State.READY else version.route
