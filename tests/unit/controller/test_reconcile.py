"""`Reconciler`: the loop around the plan, with fakes for the repository, the model servers and Redis."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from fakes_controller import (
    FakeBackplane,
    FakeBalancer,
    FakeGateways,
    FakeLinks,
    FakeLoader,
    FakeReplica,
    FakeRepository,
    lying,
    servable,
)
from portico.acknowledgements import GOODBYE, Acknowledgement
from portico.controller.drain import Drain
from portico.controller.inventory import Inventory, ModelFiles, VersionFiles
from portico.controller.loaders import LoaderError, LoadState, ReplicaUnreachable, Status
from portico.controller.reconcile import Reconciler
from portico.controller.servable import Servable
from portico.controller.work import Warmer
from portico.routing import RouteTable, Server, State

V1, V2 = servable("iris", "1"), servable("iris", "2")
DIGITS = servable("digits", "1.0", server=Server.TORCHSERVE)


@dataclass
class Stack:
    """A reconciler and the fakes around it."""

    repository: FakeRepository
    tf: FakeLoader
    torch: FakeLoader
    backplane: FakeBackplane
    drain: float = 0.0
    listen: float = 0.0
    retry: float = 3600.0
    now: float = 0.0
    warm: Warmer | None = None
    beat: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.gateways, self.balancer, self.links = FakeGateways(), FakeBalancer(), FakeLinks()
        self.reconciler = self.another()

    def another(self) -> Reconciler:
        """A controller that has just started, in the same surroundings."""
        return Reconciler(
            self.repository,
            (self.tf, self.torch),
            self.backplane,
            self.gateways,
            self.balancer,
            self.links,
            interval=3600,
            drain=Drain(self.drain, silence=60, listen=self.listen),
            retry=self.retry,
            warm=self.warm,
            beat=self.beat,
            clock=lambda: self.now,
        )

    async def rounds(self, count: int = 8) -> RouteTable:
        """Goes round, with time for everything that was started to end."""
        for _ in range(count):
            await self.reconciler.round()
            for _ in range(10):
                await asyncio.sleep(0)
        return self.backplane.tables[-1] if self.backplane.tables else RouteTable()

    def calls(self) -> list[tuple[str, str]]:
        """What the servers were told since the last time, as (verb, servable's name)."""
        calls = [(verb, name) for loader in (self.tf, self.torch) for verb, _, name in loader.calls]
        self.tf.calls.clear()
        self.torch.calls.clear()
        return calls


@pytest.fixture
def stack() -> Stack:
    tf, torch = FakeLoader(Server.TF_SERVING, "t0"), FakeLoader(Server.TORCHSERVE, "p0")
    return Stack(FakeRepository(lying(V1, DIGITS)), tf, torch, FakeBackplane())


async def test_what_lies_there_is_loaded_and_published(stack: Stack) -> None:
    """Both servers get their models, gateways get the routes, and then nothing more is done."""
    table = await stack.rounds()
    assert table.resolve("iris").servable == V1.name
    assert table.resolve("digits").servable == DIGITS.name
    assert sorted(stack.calls()) == sorted([("load", V1.name), ("load", DIGITS.name)])
    published = len(stack.backplane.tables)
    await stack.rounds()
    assert (stack.calls(), len(stack.backplane.tables)) == ([], published)


async def test_a_swap_loads_publishes_and_then_unloads(stack: Stack) -> None:
    """In this order: the new version is loaded, the table flips, the old one goes."""
    await stack.rounds()
    stack.calls()
    stack.repository.inventory = lying(V1, V2, DIGITS)
    table = await stack.rounds()
    assert table.resolve("iris").servable == V2.name
    assert stack.calls() == [("load", V2.name), ("unload", V1.name)]


async def test_nothing_is_unloaded_before_it_is_drained() -> None:
    """Requests that took the old route have time to end, counted from when the route was flipped."""
    tf, torch = FakeLoader(Server.TF_SERVING, "t0"), FakeLoader(Server.TORCHSERVE)
    stack = Stack(FakeRepository(lying(V1)), tf, torch, FakeBackplane(), drain=60)
    await stack.rounds()
    stack.now += 1000
    stack.repository.inventory = lying(V2)
    assert (await stack.rounds()).resolve("iris").servable == V2.name
    stack.now += 59
    await stack.rounds()
    assert V1.name in tf.fleet["t0"].loaded
    stack.now += 1
    await stack.rounds()
    assert V1.name not in tf.fleet["t0"].loaded


async def test_what_a_call_still_uses_is_not_unloaded(stack: Stack) -> None:
    """It goes when every gateway has the new table and has ended its last call; one that says nothing is waited for."""
    stack.gateways.say = {"g": Acknowledgement(0, frozenset())}
    await stack.rounds()
    stack.repository.inventory = lying(V2, DIGITS)
    revision = (await stack.rounds()).revision
    loaded = stack.tf.fleet["t0"].loaded
    assert V1.name in loaded
    stack.gateways.say = {"g": Acknowledgement(revision, frozenset({V1.name}))}
    await stack.rounds()
    assert V1.name in loaded
    stack.gateways.say = {"g": Acknowledgement(revision, frozenset())}
    await stack.rounds()
    assert V1.name not in loaded


async def test_a_gateway_that_is_gone_is_forgotten_in_the_end() -> None:
    """Its calls cannot last longer than the stack allows; that Redis has lost what it said does not make it gone."""
    tf, torch = FakeLoader(Server.TF_SERVING, "t0"), FakeLoader(Server.TORCHSERVE)
    stack = Stack(FakeRepository(lying(V1)), tf, torch, FakeBackplane(), listen=10)
    stack.gateways.say = {"g": Acknowledgement(0, frozenset({V1.name}))}
    await stack.rounds()
    stack.gateways.say = {}
    stack.repository.inventory = lying(V2)
    for _ in range(6):
        await stack.rounds()
        assert V1.name in tf.fleet["t0"].loaded
        stack.now += 10
    await stack.rounds()
    assert V1.name not in tf.fleet["t0"].loaded


async def test_a_gateway_that_says_goodbye_is_forgotten_at_once(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is kept for it, also not in Redis, and nobody is warned of its silence."""
    stack.gateways.say = {"g": Acknowledgement(0, frozenset({V1.name}))}
    await stack.rounds()
    stack.repository.inventory = lying(V2, DIGITS)
    await stack.rounds()
    assert V1.name in stack.tf.fleet["t0"].loaded
    stack.gateways.say = {"g": GOODBYE}
    await stack.rounds()
    assert (V1.name in stack.tf.fleet["t0"].loaded, stack.gateways.say) == (False, {})
    stack.now += 60
    await stack.rounds()
    assert "silent" not in caplog.text


async def test_nothing_is_unloaded_before_every_gateway_could_be_heard() -> None:
    """Right after the start, or after Redis was away, a gateway may not have said yet what it uses."""
    tf, torch = FakeLoader(Server.TF_SERVING, "t0"), FakeLoader(Server.TORCHSERVE)
    stack = Stack(FakeRepository(lying(V2)), tf, torch, FakeBackplane(), listen=10)
    tf.fleet["t0"].loaded[V1.name] = Status(LoadState.READY)
    await stack.rounds()
    stack.now += 9
    await stack.rounds()
    assert V1.name in tf.fleet["t0"].loaded
    stack.now += 1
    await stack.rounds()
    assert V1.name not in tf.fleet["t0"].loaded


async def test_nothing_is_unloaded_while_the_gateways_cannot_be_heard(stack: Stack) -> None:
    """Nobody knows then what their calls use."""
    await stack.rounds()
    stack.gateways.reachable = False
    stack.repository.inventory = lying(V2, DIGITS)
    await stack.rounds()
    assert V1.name in stack.tf.fleet["t0"].loaded


async def test_calls_go_to_replicas_that_have_everything(stack: Stack) -> None:
    """One that restarts takes none until it has all that the table routes to; links are kept for what is loaded."""
    stack.tf.fleet["t1"] = FakeReplica()
    await stack.rounds()
    assert stack.balancer.rotation == {Server.TF_SERVING: ("t0", "t1"), Server.TORCHSERVE: ("p0",)}
    stack.tf.fleet["t1"].restart()
    stack.tf.fleet["t1"].hold[V1.name] = asyncio.Event()
    await stack.rounds()
    assert stack.balancer.rotation[Server.TF_SERVING] == ("t0",)
    stack.tf.fleet["t1"].hold[V1.name].set()
    await stack.rounds()
    assert stack.balancer.rotation[Server.TF_SERVING] == ("t0", "t1")
    assert stack.links.kept == {V1.name, DIGITS.name}


async def test_links_are_kept_while_a_replica_cannot_be_asked(stack: Stack) -> None:
    """It may have loaded what nobody else has."""
    await stack.rounds()
    stack.repository.inventory = lying(DIGITS)
    stack.tf.fleet["t0"].reachable = False
    await stack.rounds()
    assert V1.name in stack.links.kept
    stack.tf.fleet["t0"].reachable = True
    await stack.rounds()
    assert stack.links.kept == {DIGITS.name}


async def test_a_version_is_warmed_up_before_it_takes_calls() -> None:
    """In every replica, again after its restart, and not by a controller that finds it serving."""
    warmed: list[tuple[str, str]] = []
    broken: set[str] = set()

    async def warm(address: str, one: Servable, status: Status) -> None:
        warmed.append((address, one.name))
        if one.name in broken:
            raise LoaderError("warm-up request 1: it does not fit")

    cold, colder = replace(V1, warmup="iris/warm.jsonl"), replace(V2, warmup="iris/warm.jsonl")
    tf = FakeLoader(Server.TF_SERVING, "t0", "t1")
    stack = Stack(FakeRepository(lying(cold)), tf, FakeLoader(Server.TORCHSERVE), FakeBackplane(), warm=warm)
    table = await stack.rounds()
    assert (table.resolve("iris").version, sorted(warmed)) == ("1", [("t0", V1.name), ("t1", V1.name)])
    warmed.clear()
    stack.reconciler = stack.another()
    await stack.rounds()
    assert warmed == []
    tf.fleet["t1"].restart()
    await stack.rounds()
    assert warmed == [("t1", V1.name)]
    stack.tf.fleet["t1"].reachable = False
    await stack.rounds()
    stack.tf.fleet["t1"].reachable = True
    await stack.rounds()
    assert warmed == [("t1", V1.name)]
    broken.add(V2.name)
    stack.repository.inventory = lying(cold, colder)
    table = await stack.rounds()
    assert table.resolve("iris").version == "1"
    assert "it does not fit" in table.models["iris"].versions["2"].reason


async def test_a_warm_up_that_comes_later_takes_nothing_away() -> None:
    """What has answered calls without one goes on, also if the new one is broken."""

    async def warm(address: str, one: Servable, status: Status) -> None:
        raise LoaderError("it does not fit")

    tf = FakeLoader(Server.TF_SERVING, "t0")
    stack = Stack(FakeRepository(lying(V1)), tf, FakeLoader(Server.TORCHSERVE), FakeBackplane(), warm=warm)
    await stack.rounds()
    stack.repository.inventory = lying(replace(V1, warmup="iris/warm.jsonl"))
    assert (await stack.rounds()).resolve("iris").version == "1"


async def test_a_replica_that_refuses_connections_is_not_asked_in_a_loop() -> None:
    """What ends because nobody answers is tried again after a pause."""
    attempts: list[str] = []

    async def warm(address: str, one: Servable, status: Status) -> None:
        attempts.append(one.name)
        raise ReplicaUnreachable("nobody answers")

    tf = FakeLoader(Server.TF_SERVING, "t0")
    cold = lying(replace(V1, warmup="iris/warm.jsonl"))
    stack = Stack(FakeRepository(cold), tf, FakeLoader(Server.TORCHSERVE), FakeBackplane(), warm=warm)
    await stack.rounds()
    stack.now += 2.0
    await stack.rounds()
    assert len(attempts) == 2


async def test_files_that_came_anew_are_tried_at_once(stack: Stack) -> None:
    """The same content, put there again: a load that failed is not waited for any longer."""
    stack.tf.fleet["t0"].broken[V1.name] = "no memory"
    await stack.rounds()
    stack.calls()
    stack.tf.fleet["t0"].broken.clear()
    again = VersionFiles("1", V1, since=5.0)
    stack.repository.inventory = Inventory({"iris": ModelFiles("iris", Server.TF_SERVING, (again,))})
    assert (await stack.rounds()).resolve("iris").version == "1"


async def test_what_an_earlier_controller_loaded_and_did_not_warm_up_is_warmed_up() -> None:
    """It died between the two; nothing was routed there yet."""
    warmed: list[str] = []

    async def warm(address: str, one: Servable, status: Status) -> None:
        warmed.append(one.name)

    tf = FakeLoader(Server.TF_SERVING, "t0")
    tf.fleet["t0"].loaded[V1.name] = Status(LoadState.READY)
    cold = replace(V1, warmup="iris/warm.jsonl")
    stack = Stack(FakeRepository(lying(cold)), tf, FakeLoader(Server.TORCHSERVE), FakeBackplane(), warm=warm)
    assert ((await stack.rounds()).resolve("iris").version, warmed) == ("1", [V1.name])


async def test_nothing_is_unloaded_while_redis_is_gone(stack: Stack) -> None:
    """What gateways were not told of cannot be acted on: they still route to the old version."""
    await stack.rounds()
    stack.backplane.reachable = False
    stack.repository.inventory = lying(V2, DIGITS)
    stack.calls()
    await stack.rounds()
    assert stack.calls() == [("load", V2.name)]
    stack.backplane.reachable = True
    assert (await stack.rounds()).resolve("iris").servable == V2.name
    assert stack.calls() == [("unload", V1.name)]


async def test_a_controller_that_does_not_know_the_routes_does_nothing(stack: Stack) -> None:
    """Started while Redis is gone, it cannot know what gateways use, and waits."""
    stack.backplane.reachable = False
    await stack.rounds()
    assert stack.calls() == []


async def test_a_table_that_redis_lost_is_published_again(stack: Stack) -> None:
    """A flushed or restarted Redis has the routes again at the next round."""
    table = await stack.rounds()
    stack.backplane.stored = None
    await stack.rounds(1)
    assert stack.backplane.stored
    assert stack.backplane.stored[1] == table


async def test_a_table_that_somebody_else_wrote_is_replaced(stack: Stack) -> None:
    """A Redis restored from an old state does not bring back old routes."""
    table = await stack.rounds()
    stack.backplane.stored = "old", RouteTable()
    await stack.rounds(1)
    assert stack.backplane.stored[1] == table


async def test_a_new_controller_finishes_the_job(stack: Stack) -> None:
    """Whatever the one before was at, the next one goes on from what it finds, and does nothing again."""
    await stack.rounds()
    stack.repository.inventory = lying(V2, DIGITS)
    await stack.rounds(2)
    stack.calls()
    stack.reconciler = stack.another()
    assert (await stack.rounds()).resolve("iris").servable == V2.name
    assert stack.calls() == [("unload", V1.name)]
    assert stack.tf.fleet["t0"].loaded.keys() == {V2.name}


async def test_a_failed_load_is_not_repeated_at_once(stack: Stack) -> None:
    """The same files are tried again only after a pause; the reason is in the listing."""
    stack.tf.fleet["t0"].broken[V2.name] = "no weights"
    stack.repository.inventory = lying(V1, V2)
    table = await stack.rounds()
    assert stack.calls().count(("load", V2.name)) == 1
    assert table.models["iris"].versions["2"].state is State.FAILED
    assert "no weights" in table.models["iris"].versions["2"].reason
    assert table.resolve("iris").servable == V1.name


async def test_a_failed_load_is_tried_again_after_a_pause() -> None:
    """Some failures pass by themselves. Each pause is longer than the one before."""
    tf, torch = FakeLoader(Server.TF_SERVING, "t0"), FakeLoader(Server.TORCHSERVE)
    stack = Stack(FakeRepository(lying(V1)), tf, torch, FakeBackplane(), retry=30.0)
    tf.fleet["t0"].broken[V1.name] = "out of memory"
    tries = []
    for seconds in (0, 29, 1, 59, 1):
        stack.now += seconds
        await stack.rounds()
        tries.append(stack.calls().count(("load", V1.name)))
    assert tries == [1, 0, 1, 0, 1]
    tf.fleet["t0"].broken.clear()
    stack.now += 120
    assert (await stack.rounds()).resolve("iris").servable == V1.name


async def test_a_failed_load_is_tried_again_when_the_files_change(stack: Stack) -> None:
    """Other files are another servable, and owe nothing to the one that failed."""
    stack.tf.fleet["t0"].broken[V1.name] = "no weights"
    await stack.rounds()
    mended = servable("iris", "1", "mended")
    stack.repository.inventory = lying(mended)
    assert (await stack.rounds()).resolve("iris").servable == mended.name


async def test_a_failed_load_is_tried_again_in_a_replica_that_was_away(stack: Stack) -> None:
    """A server that was restarted may do better."""
    replica = stack.tf.fleet["t0"]
    replica.broken[V1.name] = "out of memory"
    await stack.rounds()
    replica.reachable = False
    await stack.rounds()
    replica.reachable, replica.broken = True, {}
    assert (await stack.rounds()).resolve("iris").servable == V1.name


async def test_a_server_that_is_down_leaves_the_other_alone_and_heals(stack: Stack) -> None:
    """Its models say that they are unavailable, and are loaded again when it is back with nothing loaded."""
    await stack.rounds()
    replica = stack.torch.fleet["p0"]
    replica.reachable = False
    table = await stack.rounds()
    assert table.models["digits"].versions["1.0"].state is State.UNAVAILABLE
    assert table.models["iris"].versions["1"].state is State.READY
    replica.reachable = True
    replica.restart()
    table = await stack.rounds()
    assert table.models["digits"].versions["1.0"].state is State.READY
    assert ("load", DIGITS.name) in stack.calls()


async def test_a_replica_that_joins_gets_everything(stack: Stack) -> None:
    """An address that DNS gives from now on is loaded as the others are."""
    await stack.rounds()
    stack.calls()
    stack.tf.fleet |= FakeLoader(Server.TF_SERVING, "t1").fleet
    await stack.rounds()
    assert stack.calls() == [("load", V1.name)]
    assert V1.name in stack.tf.fleet["t1"].loaded


async def test_a_slow_load_blocks_no_other(stack: Stack) -> None:
    """While one model takes its time, others are loaded and published."""
    stack.torch.fleet["p0"].hold[DIGITS.name] = asyncio.Event()
    table = await stack.rounds()
    assert table.resolve("iris").servable == V1.name
    assert table.models["digits"].versions["1.0"].state is State.LOADING
    assert stack.calls().count(("load", DIGITS.name)) == 1


async def test_a_repository_that_cannot_be_read_changes_nothing(stack: Stack) -> None:
    """A folder that has gone away is not a folder without models."""
    table = await stack.rounds()
    stack.repository.readable = False
    stack.repository.inventory = Inventory()
    await stack.rounds()
    assert (stack.backplane.tables[-1], V1.name in stack.tf.fleet["t0"].loaded) == (table, True)


async def test_replicas_come_and_go_while_the_repository_cannot_be_read(stack: Stack) -> None:
    """Calls go to those that have what lay there last; nothing is loaded or unloaded, and the round says so."""
    stack.tf.fleet["t1"] = FakeReplica()
    table = await stack.rounds()
    assert await stack.reconciler.round()
    stack.calls()
    stack.repository.readable = False
    stack.tf.fleet["t1"].restart()
    stack.tf.fleet["t0"].loaded[V2.name] = Status(LoadState.READY)
    await stack.rounds()
    assert not await stack.reconciler.round()
    assert (stack.balancer.rotation[Server.TF_SERVING], stack.calls()) == (("t0",), [])
    assert stack.backplane.tables[-1] == table
    stack.repository.readable = True
    await stack.rounds()
    assert stack.balancer.rotation[Server.TF_SERVING] == ("t0", "t1")
    assert sorted(stack.calls()) == sorted([("load", V1.name), ("unload", V2.name)])


async def test_a_repository_that_cannot_be_read_is_not_read_in_a_loop(stack: Stack) -> None:
    """It is read again after the interval, an hour here, whatever was about to settle when it went away."""
    stack.repository.readable, stack.repository.next_look = False, 0.0
    stop = asyncio.Event()
    running = asyncio.create_task(stack.reconciler.run(stop))
    await until(lambda: stack.repository.looks > 0)
    for _ in range(100):
        await asyncio.sleep(0)
    assert stack.repository.looks == 1
    stop.set()
    await running


async def test_a_heartbeat_that_cannot_be_written_stops_no_round(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, once; a full disk takes no model away and holds none up."""

    def beat() -> None:
        raise OSError("no space left on device")

    stack.beat = beat
    stack.reconciler = stack.another()
    assert (await stack.rounds()).resolve("iris").servable == V1.name
    assert sum("heartbeat cannot be written: no space left" in line for line in caplog.messages) == 1


async def test_a_swap_and_back_while_the_first_is_loaded_is_loaded_anew(stack: Stack) -> None:
    """A, B, and A again: what was read meanwhile may be both, so nothing routes there before it was read again."""
    hold = stack.tf.fleet["t0"].hold[V1.name] = asyncio.Event()
    await stack.rounds()
    for found in (VersionFiles("1"), VersionFiles("1", servable("iris", "1", "b")), VersionFiles("1", V1)):
        stack.repository.inventory = Inventory({"iris": ModelFiles("iris", Server.TF_SERVING, (found,))})
        await stack.rounds()
    stack.calls()
    hold.set()
    table = await stack.rounds()
    assert [call for call in stack.calls() if call[1] == V1.name] == [("unload", V1.name), ("load", V1.name)]
    assert table.resolve("iris").servable == V1.name


async def test_a_kind_of_server_that_is_not_there_says_so() -> None:
    """Models for it are listed with the reason."""
    backplane = FakeBackplane()
    repository = FakeRepository(lying(DIGITS))
    reconciler = Reconciler(
        repository,
        (),
        backplane,
        FakeGateways(),
        FakeBalancer(),
        FakeLinks(),
        interval=3600,
        absent={Server.TORCHSERVE: "there is no TorchServe"},
    )
    await reconciler.round()
    assert backplane.tables[-1].models["digits"].versions["1.0"].reason == "there is no TorchServe"


async def test_it_stops_with_all_its_tasks(stack: Stack) -> None:
    """Asked to stop in the middle of a load, it leaves no task behind."""
    stack.torch.fleet["p0"].hold[DIGITS.name] = asyncio.Event()
    stop = asyncio.Event()
    before = asyncio.all_tasks()
    running = asyncio.create_task(stack.reconciler.run(stop))
    await until(lambda: ("load", DIGITS.name) in stack.calls())
    stop.set()
    await running
    assert asyncio.all_tasks() == before


async def test_what_ends_starts_the_next_round_at_once(stack: Stack) -> None:
    """Nobody waits for the interval, an hour here, when a load has come to its end."""
    stop = asyncio.Event()
    running = asyncio.create_task(stack.reconciler.run(stop))
    await until(lambda: bool(stack.backplane.tables) and bool(stack.backplane.tables[-1].models["iris"].default))
    stop.set()
    await running


async def test_every_change_is_a_log_line(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    """What happened, why, and how long it took; and one line only for trouble that lasts."""
    caplog.set_level(logging.INFO)
    await stack.rounds()
    assert any("model iris version 1: ready" in line and "(settle 0.00 s, " in line for line in caplog.messages)
    assert any("loaded as" in line for line in caplog.messages)
    stack.tf.fleet["t0"].reachable = False
    caplog.clear()
    await stack.rounds()
    assert sum("does not answer" in line for line in caplog.messages) == 1
    stack.tf.fleet["t0"].reachable = True
    await stack.rounds()
    assert sum("well again" in line for line in caplog.messages) == 1


async def until(condition: Callable[[], bool]) -> None:
    """Waits for `condition`; the test's own time limit ends a wait in vain."""
    while not condition():  # looks at fakes, which signal nothing
        await asyncio.sleep(0.001)
