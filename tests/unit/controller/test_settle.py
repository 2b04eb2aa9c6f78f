"""`Settler`: which files have stopped changing."""

from dataclasses import replace

import pytest

from portico.controller.inventory import FoundModel, FoundPolicy, FoundVersion, Listing
from portico.controller.settle import SeenModel, Settler
from portico.routing import Server

OLD, FRESH = 0.0, 1000.0
SETTLE = 1.0


def version(name: str, size: int = 1, newest: float = FRESH, problem: str = "") -> FoundVersion:
    files = (("saved_model.pb", size, 0, 0, 0),)
    return FoundVersion(name, Server.TF_SERVING, f"iris/{name}", files, newest, problem)


def policy(size: int, newest: float = FRESH) -> FoundPolicy:
    return FoundPolicy("iris/model.yaml", (("", size, 0, 0, 0),), newest)


def listing(*versions: FoundVersion, problem: str = "") -> Listing:
    return Listing({"iris": FoundModel("iris", versions, problem)})


def settled(model: SeenModel) -> dict[str, bool]:
    return {seen.found.version: seen.settled for seen in model.versions}


def test_fresh_files_settle_when_they_stayed_the_same() -> None:
    """Files that were just written count once two scans a second apart found them the same."""
    settler = Settler(SETTLE)
    for now, expected in ((0.0, False), (0.5, False), (1.0, True), (9.0, True)):
        assert settled(settler.observe(listing(version("1")), now, FRESH)["iris"]) == {"1": expected}


def test_old_files_are_settled_at_first_sight() -> None:
    """A controller that starts does not wait for files that have lain there for long."""
    assert settled(Settler(SETTLE).observe(listing(version("1", newest=OLD)), 0.0, FRESH)["iris"]) == {"1": True}


def test_files_from_the_future_settle_too() -> None:
    """Time stamps after the present, as clocks that differ make them, are no reason to wait for ever."""
    settler = Settler(SETTLE)
    settler.observe(listing(version("1", newest=FRESH + 3600)), 0.0, FRESH)
    assert settled(settler.observe(listing(version("1", newest=FRESH + 3600)), 1.0, FRESH)["iris"]) == {"1": True}


def test_a_file_that_grows_does_not_settle() -> None:
    """As long as each scan finds something else, the version is not settled, and the one beside it is."""
    settler = Settler(SETTLE)
    for size in range(10):
        seen = settler.observe(listing(version("1", newest=OLD), version("2", size)), float(size), FRESH)["iris"]
        assert settled(seen) == {"1": True, "2": False}


def test_a_version_that_vanishes_lingers() -> None:
    """Files that are gone for less than the time to settle may be in the middle of being replaced."""
    settler = Settler(SETTLE)
    both = listing(version("1", newest=OLD), version("2", newest=OLD))
    one = listing(version("1", newest=OLD))
    settler.observe(both, 0.0, FRESH)
    assert settled(settler.observe(one, 5.0, FRESH)["iris"]) == {"1": True, "2": False}
    assert settled(settler.observe(one, 6.0, FRESH)["iris"]) == {"1": True}


def test_a_version_that_comes_back_unchanged_is_as_it_was() -> None:
    """A folder moved away and back needs no second judgement."""
    settler = Settler(SETTLE)
    settler.observe(listing(version("1", newest=OLD)), 0.0, FRESH)
    settler.observe(Listing(), 0.1, FRESH)
    assert settled(settler.observe(listing(version("1", newest=OLD)), 0.2, FRESH)["iris"]) == {"1": True}


def test_a_model_that_vanishes_is_gone_in_the_end() -> None:
    """A deleted model is still there for the time to settle, and not after it."""
    settler = Settler(SETTLE)
    settler.observe(listing(version("1", newest=OLD)), 0.0, FRESH)
    assert settled(settler.observe(Listing(), 3.0, FRESH)["iris"]) == {"1": False}
    assert settler.observe(Listing(), 4.0, FRESH) == {}
    assert settler.observe(Listing(), 5.0, FRESH) == {}


def test_a_problem_of_the_name_counts_once_it_settled() -> None:
    """While files are moved about, a name may be wrong for a moment; the versions it had linger on."""
    settler = Settler(SETTLE)
    settler.observe(listing(version("1", newest=OLD)), 0.0, FRESH)
    broken = listing(problem="holds no version")
    seen = settler.observe(broken, 1.0, FRESH)["iris"]
    assert (seen.problem, settled(seen)["1"]) == ("", False)
    seen = settler.observe(broken, 2.0, FRESH)["iris"]
    assert (seen.problem, seen.versions) == ("holds no version", ())


def test_a_problem_of_a_version_is_not_old_at_first_sight() -> None:
    """A folder that is being filled is not called broken because the files it has so far are old."""
    settler = Settler(SETTLE)
    bad = listing(version("1", newest=OLD, problem="holds neither"))
    assert settled(settler.observe(bad, 0.0, FRESH)["iris"]) == {"1": False}
    assert settled(settler.observe(bad, 1.0, FRESH)["iris"]) == {"1": True}


def test_a_clock_that_is_slow_elsewhere_does_not_make_fresh_files_old() -> None:
    """After the first scan, files settle by staying the same: a server's clock may be behind, a copy keep old times."""
    settler = Settler(SETTLE)
    settler.observe(Listing(), 0.0, FRESH)
    for now, size, expected in ((1.0, 1, False), (1.5, 2, False), (2.4, 2, False), (2.5, 2, True)):
        seen = settler.observe(listing(version("1", size, newest=OLD)), now, FRESH)["iris"]
        assert settled(seen) == {"1": expected}


def test_long_settling_makes_old_older() -> None:
    """Who sets a longer time does not want files taken for old before it."""
    assert settled(Settler(60.0).observe(listing(version("1", newest=FRESH - 30)), 0.0, FRESH)["iris"]) == {"1": False}
    assert settled(Settler(60.0).observe(listing(version("1", newest=FRESH - 61)), 0.0, FRESH)["iris"]) == {"1": True}


@pytest.mark.parametrize("arrived", ["iris/1", "iris"])
def test_what_was_moved_in_settles_at_once(arrived: str) -> None:
    """The version's folder, or the model's that holds it."""
    settler = Settler(SETTLE)
    settler.observe(Listing(), 0.0, FRESH)
    assert settled(settler.observe(listing(version("1")), 0.1, FRESH, {arrived})["iris"]) == {"1": True}


@pytest.mark.parametrize("arrived", ["iris/1/saved_model.pb", "iris/10", "ir", "iris/2", ""])
def test_what_was_moved_in_elsewhere_proves_nothing(arrived: str) -> None:
    """Neither a file inside the version nor a neighbour says that the version is whole."""
    settler = Settler(SETTLE)
    settler.observe(Listing(), 0.0, FRESH)
    assert settled(settler.observe(listing(version("1")), 0.1, FRESH, {arrived})["iris"]) == {"1": False}


def test_an_archive_moved_over_another_settles_at_once() -> None:
    """The new one counts in the scan that finds it; so it does when the scan was faster than the event."""
    for late in (False, True):
        settler = Settler(SETTLE)
        settler.observe(listing(version("1", newest=OLD)), 0.0, FRESH)
        if late:
            assert settled(settler.observe(listing(version("1", 2)), 5.0, FRESH)["iris"]) == {"1": False}
        assert settled(settler.observe(listing(version("1", 2)), 5.1, FRESH, {"iris/1"})["iris"]) == {"1": True}


def test_what_changes_after_it_was_moved_in_has_to_settle_again() -> None:
    """The move speaks for the files as they came, not for what is written later."""
    settler = Settler(SETTLE)
    settler.observe(Listing(), 0.0, FRESH)
    assert settled(settler.observe(listing(version("1")), 0.1, FRESH, {"iris/1"})["iris"]) == {"1": True}
    assert settled(settler.observe(listing(version("1", 2)), 0.2, FRESH)["iris"]) == {"1": False}
    assert settled(settler.observe(listing(version("1", 2)), 1.2, FRESH)["iris"]) == {"1": True}


def test_a_link_settles_at_once_only_if_its_files_are_old() -> None:
    """Making a link brings no files: what it leads to may still be copied."""
    for newest, expected in ((OLD, True), (FRESH - 1, False)):
        settler = Settler(SETTLE)
        settler.observe(Listing(), 0.0, FRESH)
        linked = replace(version("1", newest=newest), linked=True)
        assert settled(settler.observe(listing(linked), 0.1, FRESH, {"iris/1"})["iris"]) == {"1": expected}
        assert settled(settler.observe(listing(linked), 1.1, FRESH)["iris"]) == {"1": True}


def test_the_next_time_something_settles_is_known() -> None:
    """A change is due the time to settle after it, what vanished is gone then; where all is quiet nothing is due."""
    settler = Settler(SETTLE)
    settler.observe(listing(version("1", newest=OLD)), 0.0, FRESH)
    assert settler.due is None
    settler.observe(listing(version("1", newest=OLD), version("2")), 3.0, FRESH)
    assert settler.due == 4.0
    settler.observe(listing(version("2"), version("3")), 3.5, FRESH)
    assert settler.due == 4.0
    settler.observe(listing(version("2"), version("3")), 4.0, FRESH)
    assert settler.due == 4.5
    assert settled(settler.observe(listing(version("2"), version("3")), 4.5, FRESH)["iris"]) == {"2": True, "3": True}
    assert settler.due is None


def test_when_it_settled_is_kept() -> None:
    """For whoever measures how long a change took."""
    settler = Settler(SETTLE)
    settler.observe(listing(version("1")), 3.0, FRESH)
    for now in (4.2, 9.0):
        (seen,) = settler.observe(listing(version("1")), now, FRESH)["iris"].versions
        assert (seen.since, seen.settled_at) == (3.0, 4.2)


def test_a_policy_settles_like_a_version() -> None:
    """Edited in place it waits, moved in by an editor it counts at once, deleted it lingers; versions do not care."""
    one = version("1", newest=OLD)
    settler = Settler(SETTLE)
    settler.observe(Listing({"iris": FoundModel("iris", (one,), policy=policy(1, OLD))}), 0.0, FRESH)

    def after(now: float, found: FoundPolicy | None, *arrived: str) -> tuple[bool, bool]:
        listed = Listing({"iris": FoundModel("iris", (one,), policy=found)})
        seen = settler.observe(listed, now, FRESH, arrived)["iris"]
        assert settled(seen) == {"1": True}
        return seen.policy is not None, seen.policy_settled

    assert after(1.0, policy(1, OLD)) == (True, True)
    assert after(2.0, policy(2)) == (True, False)
    assert after(3.0, policy(2)) == (True, True)
    assert after(4.0, policy(3), "iris/model.yaml") == (True, True)
    assert after(5.0, None) == (True, False)
    assert after(6.0, None) == (False, False)


def test_a_model_without_news_is_the_same_object_again() -> None:
    """Whoever looks for changes need not look into it; while something may still settle it is a new one."""
    settler = Settler(SETTLE)
    fresh = listing(version("1"))
    first, second = settler.observe(fresh, 0.0, FRESH)["iris"], settler.observe(fresh, 0.5, FRESH)["iris"]
    third, fourth = settler.observe(fresh, 1.0, FRESH)["iris"], settler.observe(fresh, 2.0, FRESH)["iris"]
    assert first is not second
    assert settled(third) == {"1": True}
    assert third is fourth
