"""Name, version or label → route."""

from dataclasses import replace

import pytest

from portico.errors import ModelNotFound, ModelNotReady, VersionNotFound
from portico.routing import LiveRoutes, Model, Route, RouteTable, Server, State, Version


def route(version: str) -> Route:
    return Route("iris", version, Server.TF_SERVING, f"iris--{version}", version, "print")


TABLE = RouteTable(
    {
        "iris": Model(
            "iris",
            Server.TF_SERVING,
            "2",
            {
                "1": Version("1", State.READY, route=route("1")),
                "2": Version("2", State.READY, route=route("2")),
                "3": Version("3", State.FAILED, "its graph is damaged"),
            },
            {"stable": "1", "lost": "9"},
        ),
        "loading": Model("loading", None, "", {"1": Version("1", State.LOADING), "2": Version("2", State.LOADING)}),
        "away": Model("away", Server.TF_SERVING, "", {"1": Version("1", State.UNAVAILABLE, "gone", route("1"))}),
        "empty": Model("empty", None, "", {}),
    }
)


@pytest.mark.parametrize(
    ("version", "label", "resolved"), [("", "", "2"), ("1", "", "1"), ("2", "", "2"), ("", "stable", "1")]
)
def test_resolving(version: str, label: str, resolved: str) -> None:
    """A call goes to the version or label it names, and without one to the default."""
    assert TABLE.resolve("iris", version, label) == route(resolved)


def test_unknown_model() -> None:
    """A model that is not there is not found, and the closest name is told."""
    with pytest.raises(ModelNotFound, match="Did you mean iris"):
        TABLE.resolve("iriss")


@pytest.mark.parametrize("version", ["4", "01", "latest"])
def test_unknown_version(version: str) -> None:
    """A version that is not there is not found, and those there are are told."""
    with pytest.raises(VersionNotFound, match=rf"Specific\(iris, {version}\).*: 1, 2, 3\."):
        TABLE.resolve("iris", version)


def test_unknown_label() -> None:
    """A label that is not there is not found, and those there are are told."""
    with pytest.raises(VersionNotFound, match=r"label: newest\..*: lost, stable\."):
        TABLE.resolve("iris", label="newest")


def test_label_of_a_version_that_is_gone() -> None:
    """A label whose version is not there is not found, rather than answered by another version."""
    with pytest.raises(VersionNotFound, match=r"Specific\(iris, 9\)"):
        TABLE.resolve("iris", label="lost")


def test_a_version_that_is_not_ready() -> None:
    """A version that cannot answer says its state and the reason, while the others answer."""
    with pytest.raises(ModelNotReady, match=r"'iris' version 3 is failed: its graph is damaged"):
        TABLE.resolve("iris", "3")


def test_a_model_that_is_loading() -> None:
    """Without any version ready, the newest is told to be loading."""
    with pytest.raises(ModelNotReady, match="'loading' version 2 is loading: it is being loaded"):
        TABLE.resolve("loading")


def test_a_server_that_is_away() -> None:
    """A version that was ready keeps its route, so that calls heal with its server and not with the next snapshot."""
    assert TABLE.resolve("away") == route("1")


def test_a_model_without_versions() -> None:
    """A model without any version is answered, and not with a failure of the look-up."""
    with pytest.raises(VersionNotFound, match="Versions of model 'empty': none"):
        TABLE.resolve("empty")


def test_replacing_the_snapshot() -> None:
    """Another snapshot is in force at once, and only then is it known that any has come."""
    live = LiveRoutes()
    assert (live.received, live.table.models) == (False, {})
    live.replace(TABLE)
    assert (live.received, live.table) == (True, TABLE)
    newer = replace(TABLE, revision=8)
    live.replace(newer)
    assert live.table == newer


def test_starting_with_a_snapshot() -> None:
    """Routes made from a snapshot have received it."""
    assert LiveRoutes(TABLE).received


def test_a_model_that_only_drains_is_not_found() -> None:
    """It was deleted; a version that drains beside others is not found either, and the others are."""
    draining = Version("1", State.DRAINING, "calls end", leaving="iris--a")
    gone = RouteTable({"iris": Model("iris", Server.TF_SERVING, "", {"1": draining})})
    with pytest.raises(ModelNotFound):
        gone.model("iris")
    ready = Version("2", State.READY, route=route("2"))
    both = RouteTable({"iris": Model("iris", Server.TF_SERVING, "2", {"1": draining, "2": ready})})
    assert both.resolve("iris") == route("2")
    with pytest.raises(VersionNotFound, match="being unloaded"):
        both.resolve("iris", "1")
