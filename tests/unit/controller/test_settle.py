"""`Settler`: which files have stopped changing."""

from portico.controller.inventory import FoundModel, FoundVersion, Listing
from portico.controller.settle import SeenModel, Settler
from portico.routing import Server

OLD, FRESH = 0.0, 1000.0
SETTLE = 1.0


def version(name: str, size: int = 1, newest: float = FRESH, problem: str = "") -> FoundVersion:
    files = (("saved_model.pb", size, 0, 0, 0),)
    return FoundVersion(name, Server.TF_SERVING, f"iris/{name}", files, newest, problem)


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
