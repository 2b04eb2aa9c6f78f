"""How long a change took, as the log line says it."""

import logging

import pytest

from fakes_controller import servable
from portico.controller.inventory import Inventory, ModelFiles, VersionFiles
from portico.controller.journal import Journal
from portico.controller.policy import Policy
from portico.routing import Model, Route, RouteTable, Server, State, Version

FIRST, SECOND = servable("iris", "1"), servable("iris", "2")


def route(one_version: str) -> Version:
    one = FIRST if one_version == "1" else SECOND
    return Version(one_version, State.READY, "", Route("iris", one_version, one.server, one.name, one_version, "x"))


def table(version: str) -> RouteTable:
    return RouteTable({"iris": Model("iris", Server.TF_SERVING, version, {version: route(version)})})


def lines(caplog: pytest.LogCaptureFixture, files: ModelFiles, loaded: dict[str, tuple[float, float]]) -> list[str]:
    """What is told at 20.0 s of the change from version 1 to version 2."""
    caplog.set_level(logging.INFO)
    Journal(lambda: 20.0).published(table("1"), table("2"), Inventory({"iris": files}), loaded)
    return [record.getMessage() for record in caplog.records]


def test_new_files_are_timed_from_when_they_were_seen(caplog: pytest.LogCaptureFixture) -> None:
    """All four phases are those of the version's own files."""
    version = VersionFiles("2", SECOND, since=10.0, settled=11.0, judged=11.5)
    files = ModelFiles("iris", Server.TF_SERVING, (version,), since=10.0, settled=11.0)
    told = lines(caplog, files, {SECOND.name: (11.5, 18.0)})
    took = "in 10.00 s (settle 1.00 s, judge 0.50 s, load 6.50 s, flip 2.00 s)"
    assert f"model iris version 2: ready {took}" in told
    assert f"model iris version 2: default {took}: after 1" in told


@pytest.mark.parametrize(("loaded", "load", "flip"), [((3.0, 4.0), "0.00", "3.00"), ((17.5, 19.0), "2.00", "1.00")])
def test_an_edited_policy_is_timed_from_its_own_change(
    caplog: pytest.LogCaptureFixture, loaded: tuple[float, float], load: str, flip: str
) -> None:
    """Files that lay there long before did not begin it, whether they were loaded all the time or are loaded again."""
    version = VersionFiles("2", SECOND, since=1.0, settled=2.0, judged=3.0)
    files = ModelFiles("iris", Server.TF_SERVING, (version,), policy=Policy(), since=16.0, settled=17.0)
    took = f"in 4.00 s (settle 1.00 s, judge 0.00 s, load {load} s, flip {flip} s)"
    assert f"model iris version 2: ready {took}" in lines(caplog, files, {SECOND.name: loaded})


def test_a_load_that_no_files_brought_about_is_timed_from_its_own_begin(caplog: pytest.LogCaptureFixture) -> None:
    """When a replica restarted, or a load is tried again, nothing began when the files were put there."""
    version = VersionFiles("2", SECOND, since=1.0, settled=2.0, judged=3.0)
    files = ModelFiles("iris", Server.TF_SERVING, (version,), since=1.0, settled=2.0)
    took = "in 2.00 s (settle 0.00 s, judge 0.00 s, load 1.50 s, flip 0.50 s)"
    assert f"model iris version 2: ready {took}" in lines(caplog, files, {SECOND.name: (18.0, 19.5)})


def test_a_swap_is_not_timed_from_what_is_copied_meanwhile(caplog: pytest.LogCaptureFixture) -> None:
    """While version 2 is loaded, version 3 is put there: the times are those of version 2, and none is negative."""
    version = VersionFiles("2", SECOND, since=10.0, settled=11.0, judged=11.5)
    files = ModelFiles("iris", Server.TF_SERVING, (version, VersionFiles("3", since=15.0)), since=15.0, settled=11.0)
    took = "in 10.00 s (settle 1.00 s, judge 0.50 s, load 6.50 s, flip 2.00 s)"
    assert f"model iris version 2: ready {took}" in lines(caplog, files, {SECOND.name: (11.5, 18.0)})
