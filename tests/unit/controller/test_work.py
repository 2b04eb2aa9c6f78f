"""`Work`: what it makes of loads and unloads that do not go as they should."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from fakes_controller import FakeLoader, servable
from portico.controller.loaders import LoaderError, LoadState, Status
from portico.controller.memory import FIRST_RETRY, Failures
from portico.controller.plan import Load, Unload
from portico.controller.servable import Servable
from portico.controller.work import Work
from portico.routing import Server

IRIS = servable("iris")
COLD = replace(IRIS, warmup="iris/warm.jsonl")
LOAD, UNLOAD = Load("t0", IRIS), Unload("t0", Server.TF_SERVING, IRIS.name)
LOAD_RETRY = 3600.0


async def refuse(address: str, one: Servable, status: Status) -> None:
    """A warm-up that fails."""
    raise LoaderError("warm-up request 1: it does not fit")


@dataclass
class Site:
    """A model server, and the work that is done in it."""

    now: float = 0.0
    tf: FakeLoader = field(default_factory=lambda: FakeLoader(Server.TF_SERVING, "t0"))

    def __post_init__(self) -> None:
        self.replica = self.tf.fleet["t0"]
        failures = Failures(LOAD_RETRY, lambda: self.now)
        self.work = Work({Server.TF_SERVING: self.tf}, failures, lambda: None, refuse, lambda: self.now)

    async def does(self, *actions: Load | Unload) -> list[str]:
        """Starts these one after the other, with time for all to end; the verbs that the server was told since."""
        for action in (*actions, None):
            if action:
                self.work.start(action)
            for _ in range(10):
                await asyncio.sleep(0)
        verbs = [verb for verb, _, _ in self.tf.calls]
        self.tf.calls.clear()
        return verbs

    def states(self, *known: Servable) -> dict[str, LoadState]:
        """What is said of the replica."""
        report = self.work.complete("t0", self.replica.loaded, {one.name: one for one in known}, set())
        return {name: status.state for name, status in report.items()}


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.mark.parametrize(
    "meanwhile",
    [[{}], [{IRIS.name: 2.0}], [{}, {IRIS.name: 2.0}], [{}, {IRIS.name: 1.0}]],
    ids=["gone or other", "put there again", "and back", "and moved back"],
)
async def test_what_was_loaded_while_its_files_changed_is_unloaded_again(
    site: Site, meanwhile: list[Mapping[str, float]]
) -> None:
    """It may be a mixture, so it does not count as loaded; nor as failed: the next load begins at once, and counts."""
    hold = site.replica.hold[IRIS.name] = asyncio.Event()
    site.work.notice_files({IRIS.name: 1.0})
    assert await site.does(LOAD) == ["load"]
    for since in meanwhile:
        site.work.notice_files(since)
    hold.set()
    assert await site.does() == []
    assert site.states(IRIS) == {IRIS.name: LoadState.LOADING}
    site.work.notice_files(meanwhile[-1])
    assert await site.does() == ["unload"]
    assert (site.replica.loaded, site.work.loaded, site.states(IRIS)) == ({}, {}, {})
    assert await site.does(LOAD) == ["load"]
    assert (site.states(IRIS), list(site.work.loaded)) == ({IRIS.name: LoadState.READY}, [IRIS.name])


async def test_a_change_that_is_seen_after_the_load_spoils_it_too(site: Site) -> None:
    """The look at the files comes after the load has ended: the first of these looks still tells."""
    site.work.notice_files({IRIS.name: 1.0})
    assert await site.does(LOAD) == ["load"]
    assert site.work.notice_files({IRIS.name: 2.0})
    assert site.states(IRIS) == {IRIS.name: LoadState.UNLOADING}
    assert await site.does() == ["unload"]
    assert not site.work.notice_files({IRIS.name: 3.0})
    assert await site.does() == []


async def test_what_is_loaded_is_named_until_a_look_began_after_its_end(site: Site) -> None:
    """The look that went on as the load ended may have come too early to see what it read."""
    hold = site.replica.hold[IRIS.name] = asyncio.Event()
    await site.does(LOAD)
    assert site.work.loading() == {"iris"}
    hold.set()
    await site.does()
    for still in ({"iris"}, set()):
        site.work.notice_files({})
        assert site.work.loading() == still


async def test_a_spoiled_load_that_cannot_be_unloaded_stays_out(site: Site) -> None:
    """It is not called ready, and the unload is tried again."""
    site.work.notice_files({IRIS.name: 1.0})
    await site.does(LOAD)
    site.replica.stuck[IRIS.name] = "busy"
    site.work.notice_files({IRIS.name: 2.0})
    assert await site.does() == ["unload"]
    assert site.states(IRIS) == {IRIS.name: LoadState.LOADING}
    site.replica.stuck.clear()
    site.now += FIRST_RETRY
    site.work.notice_files({IRIS.name: 2.0})
    assert await site.does() == ["unload"]
    assert site.states(IRIS) == {}


async def test_a_load_counts_whatever_happens_to_other_files(site: Site) -> None:
    """Looks that find it as it was, and others beside it, spoil nothing."""
    hold = site.replica.hold[IRIS.name] = asyncio.Event()
    site.work.notice_files({IRIS.name: 1.0, "other": 1.0})
    await site.does(LOAD)
    site.work.notice_files({IRIS.name: 1.0, "new": 2.0})
    hold.set()
    assert await site.does() == []
    assert (site.states(IRIS), list(site.work.loaded)) == ({IRIS.name: LoadState.READY}, [IRIS.name])


async def test_what_could_not_be_warmed_up_can_be_unloaded(site: Site) -> None:
    """At once, when another version has taken its place; and be loaded again, if that one is taken back."""
    assert await site.does(Load("t0", COLD)) == ["load"]
    assert site.states(COLD) == {IRIS.name: LoadState.FAILED}
    assert await site.does(UNLOAD) == ["unload"]
    assert (site.replica.loaded, site.states(COLD)) == ({}, {})
    assert await site.does(Load("t0", COLD)) == ["load"]


async def test_an_unload_that_failed_is_tried_again_later(site: Site) -> None:
    """Not in every round, and later each time; how long loads wait has nothing to do with it."""
    await site.does(LOAD)
    site.replica.stuck[IRIS.name] = "busy"
    tries = []
    for seconds in (0.0, FIRST_RETRY - 1, 1.0, 2 * FIRST_RETRY - 1, 1.0):
        site.now += seconds
        tries.append(len(await site.does(UNLOAD, UNLOAD)))
    assert tries == [1, 0, 1, 0, 1]
    site.replica.stuck.clear()
    site.now += 4 * FIRST_RETRY
    assert await site.does(UNLOAD) == ["unload"]
    assert site.replica.loaded == {}


async def test_an_unload_that_failed_is_no_failed_load(site: Site) -> None:
    """When the replica was restarted and the version is wanted again, it is loaded at once."""
    site.replica.stuck[IRIS.name] = "busy"
    await site.does(LOAD, UNLOAD)
    site.replica.restart()
    assert site.states(IRIS) == {}
    assert await site.does(LOAD) == ["load"]
    assert site.states(IRIS) == {IRIS.name: LoadState.READY}
