"""`plan`, case by case. The properties that hold in every case are in test_plan_properties.py."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from fakes_controller import lying, servable
from portico.controller.fleet import Fleet
from portico.controller.inventory import NO_VERSION, Inventory, ModelFiles, VersionFiles
from portico.controller.loaders import LoadState, Report, Status
from portico.controller.plan import Load, Plan, Unload, plan
from portico.controller.policy import Policy
from portico.controller.servable import Servable
from portico.errors import ModelNotReady, NotFound
from portico.routing import CallPolicy, RouteTable, Server, Signature, State, TensorSpec, Version

TF = Server.TF_SERVING
READY, LOADING, FAILED = Status(LoadState.READY), Status(LoadState.LOADING), Status(LoadState.FAILED, "no weights")
UNLOADING = Status(LoadState.UNLOADING)
V1, V2 = servable("iris", "1"), servable("iris", "2")
V1_NEW = servable("iris", "1", "b")
V3 = servable("iris", "3")


def fleet(*reports: Mapping[Servable, Status] | None) -> dict[Server, Fleet]:
    """TF Serving with one replica per report, at r0, r1 and so on; None for one that cannot be reached."""
    replicas: dict[str, Report | None] = {
        f"r{number}": None if report is None else {one.name: status for one, status in report.items()}
        for number, report in enumerate(reports)
    }
    return {TF: Fleet(replicas, "" if any(report is not None for report in reports) else "tf_serving is gone")}


def served(*servables: Servable) -> RouteTable:
    """The table in force once these were ready."""
    return plan(lying(*servables), fleet(dict.fromkeys(servables, READY)), RouteTable(), ()).table


def with_policy(policy: Policy, *servables: Servable) -> Inventory:
    """A repository with these versions of iris, and a policy."""
    return Inventory({name: replace(files, policy=policy) for name, files in lying(*servables).models.items()})


def loads(decided: Plan) -> list[Load]:
    return [action for action in decided.actions if isinstance(action, Load)]


def iris(decided: Plan) -> dict[str, tuple[State, str]]:
    """Version → (state, the name it is routed to)."""
    versions = decided.table.models["iris"].versions.values()
    return {one.version: (one.state, one.route.servable if one.route else "") for one in versions}


def version(decided: Plan, name: str) -> Version:
    return decided.table.models["iris"].versions[name]


def test_a_new_model_is_loaded_into_every_replica() -> None:
    """Nothing routes to it yet; the listing says that it is being loaded."""
    decided = plan(lying(V1), fleet({}, {}), RouteTable(), ())
    assert decided.actions == (Load("r0", V1), Load("r1", V1))
    assert iris(decided) == {"1": (State.LOADING, "")}
    assert decided.table.models["iris"].default == ""


def test_a_route_waits_for_every_replica() -> None:
    """One replica that is ready is not enough while another one is still loading."""
    decided = plan(lying(V1), fleet({V1: READY}, {V1: LOADING}), RouteTable(), ())
    assert (decided.actions, iris(decided)) == ((), {"1": (State.LOADING, "")})
    decided = plan(lying(V1), fleet({V1: READY}, {V1: READY}), RouteTable(), ())
    assert iris(decided) == {"1": (State.READY, V1.name)}
    assert decided.table.models["iris"].default == "1"


def test_the_route_has_the_signatures_that_the_server_told() -> None:
    """What a client is told of a model comes from the model server."""
    signatures = {"serving_default": Signature((TensorSpec("x", "FP32", (-1, 4)),), ())}
    decided = plan(lying(V1), fleet({V1: replace(READY, signatures=signatures)}), RouteTable(), ())
    route = decided.table.resolve("iris")
    assert (route.signatures, route.servable_version, route.fingerprint) == (signatures, "1", "a")


def test_a_newer_version_takes_over_when_it_is_ready() -> None:
    """Loaded first, then flipped, then unloaded: never the other way round."""
    table = served(V1)
    loading = plan(lying(V1, V2), fleet({V1: READY}), table, {V1.name})
    assert loading.actions == (Load("r0", V2),)
    assert iris(loading) == {"1": (State.READY, V1.name), "2": (State.LOADING, "")}
    assert loading.table.models["iris"].default == "1"
    flipped = plan(lying(V1, V2), fleet({V1: READY, V2: READY}), table, {V1.name})
    assert flipped.actions == ()
    assert iris(flipped) == {"1": (State.DRAINING, ""), "2": (State.READY, V2.name)}
    waiting = plan(lying(V1, V2), fleet({V1: READY, V2: READY}), flipped.table, ())
    assert waiting.actions == ()
    done = plan(lying(V1, V2), fleet({V1: READY, V2: READY}), flipped.table, {V1.name})
    assert done.actions == (Unload("r0", TF, V1.name),)


def test_a_version_overwritten_in_place_is_loaded_beside_the_old_one() -> None:
    """The same version with another content is another servable, and the old one serves until it is ready."""
    table = served(V1)
    loading = plan(lying(V1_NEW), fleet({V1: READY}), table, ())
    assert loading.actions == (Load("r0", V1_NEW),)
    assert iris(loading) == {"1": (State.READY, V1.name)}
    assert iris(plan(lying(V1_NEW), fleet({V1: READY, V1_NEW: READY}), table, ())) == {"1": (State.READY, V1_NEW.name)}


def test_a_failed_load_keeps_the_old_route_and_says_why() -> None:
    """The version that failed is in the listing with its reason, the one before goes on."""
    decided = plan(lying(V1, V2), fleet({V1: READY, V2: FAILED}), served(V1), {V1.name})
    assert decided.actions == ()
    assert iris(decided) == {"1": (State.READY, V1.name), "2": (State.FAILED, "")}
    assert "no weights" in version(decided, "2").reason


def test_a_failed_load_in_place_keeps_the_old_content_and_says_why() -> None:
    """The version stays ready with what was loaded before, and its reason tells of the new files."""
    decided = plan(lying(V1_NEW), fleet({V1: READY, V1_NEW: FAILED}), served(V1), {V1.name})
    assert decided.actions == ()
    assert iris(decided) == {"1": (State.READY, V1.name)}
    assert "no weights" in version(decided, "1").reason


def test_a_failed_load_in_place_brings_no_older_version_back() -> None:
    """The version still serves, with what was loaded before; the one before it stays unloaded."""
    v2_new = servable("iris", "2", "b")
    decided = plan(lying(V1, v2_new), fleet({V2: READY, v2_new: FAILED}), served(V2), ())
    assert (decided.actions, iris(decided)) == ((), {"2": (State.READY, V2.name)})


def test_with_two_places_the_oldest_goes_when_all_wanted_are_ready() -> None:
    """Where several versions are served, each new one is ready before an old one goes."""
    two = Policy(latest=2)
    both = fleet({V1: READY, V2: READY})
    table = plan(with_policy(two, V1, V2), both, RouteTable(), ()).table
    loading = plan(with_policy(two, V1, V2, V3), fleet({V1: READY, V2: READY, V3: LOADING}), table, ())
    assert iris(loading) == {"1": (State.READY, V1.name), "2": (State.READY, V2.name), "3": (State.LOADING, "")}
    flipped = plan(with_policy(two, V1, V2, V3), fleet({V1: READY, V2: READY, V3: READY}), table, ())
    assert iris(flipped) == {"1": (State.DRAINING, ""), "2": (State.READY, V2.name), "3": (State.READY, V3.name)}
    assert flipped.table.models["iris"].default == "3"


def test_a_policy_says_which_versions_are_served() -> None:
    """All of them, or those it lists, or those that a label or the default names beside the newest."""

    def wanted(policy: Policy) -> set[str]:
        return {
            one.servable.version for one in loads(plan(with_policy(policy, V1, V2, V3), fleet({}), RouteTable(), ()))
        }

    assert wanted(Policy(latest=None)) == {"1", "2", "3"}
    assert wanted(Policy(only=frozenset({"1", "2"}))) == {"1", "2"}
    assert wanted(Policy(labels={"stable": "1"})) == {"1", "3"}
    assert wanted(Policy(default_version="2")) == {"2", "3"}


def test_the_default_and_the_labels_move_when_what_they_name_is_ready() -> None:
    """Until then they stay where they were, and what they stay at stays loaded, even if the new one fails."""
    before, after = (
        Policy(default_version="1", labels={"stable": "1"}),
        Policy(default_version="2", labels={"stable": "2"}),
    )
    table = plan(with_policy(before, V1, V3), fleet({V1: READY, V3: READY}), RouteTable(), ()).table
    assert (table.models["iris"].default, table.models["iris"].labels) == ("1", {"stable": "1"})
    for status in (LOADING, FAILED):
        same = plan(with_policy(after, V1, V2, V3), fleet({V1: READY, V2: status, V3: READY}), served(V1), ())
        assert same.table.resolve("iris").servable == V1.name
        moving = plan(with_policy(after, V1, V2, V3), fleet({V1: READY, V2: status, V3: READY}), table, ())
        assert (moving.table.models["iris"].default, moving.table.models["iris"].labels) == ("1", {"stable": "1"})
        assert moving.table.resolve("iris", label="stable").servable == V1.name
    moved = plan(with_policy(after, V1, V2, V3), fleet({V1: READY, V2: READY, V3: READY}), table, ()).table
    assert (moved.models["iris"].default, moved.models["iris"].labels) == ("2", {"stable": "2"})
    assert iris(plan(with_policy(after, V1, V2, V3), fleet({V1: READY, V2: READY, V3: READY}), moved, ()))["1"] == (
        State.DRAINING,
        "",
    )


def test_a_version_that_a_policy_names_and_is_not_there_is_listed_with_the_reason() -> None:
    """And calls that mean it get it; no other version answers in its place."""
    policy = Policy(default_version="9", labels={"stable": "8"})
    table = plan(with_policy(policy, V1), fleet({V1: READY}), RouteTable(), ()).table
    assert {name: one.state for name, one in table.models["iris"].versions.items()} == {
        "1": State.READY,
        "8": State.FAILED,
        "9": State.FAILED,
    }
    for label in ("", "stable"):
        with pytest.raises(ModelNotReady, match="policy names this version"):
            table.resolve("iris", label=label)


def test_a_policy_that_was_edited_holds_at_once_for_what_is_loaded() -> None:
    """Nothing is loaded again for how calls are treated."""
    policy = Policy(calls=CallPolicy(timeout=3.0, cache=False))
    decided = plan(with_policy(policy, V1), fleet({V1: READY}), served(V1), ())
    assert (decided.actions, decided.table.resolve("iris").policy) == ((), policy.calls)


def test_broken_files_or_a_broken_policy_leave_everything_as_it_was() -> None:
    """The old default, labels and call policy go on, and the reason is in the listing."""
    policy = Policy(default_version="1", labels={"stable": "1"}, calls=CallPolicy(timeout=3.0))
    table = plan(with_policy(policy, V1, V2), fleet({V1: READY, V2: READY}), RouteTable(), ()).table
    broken = ModelFiles("iris", TF, with_policy(policy, V1, V2).models["iris"].versions, "model.yaml: no YAML")
    decided = plan(Inventory({"iris": broken}), fleet({V1: READY, V2: READY}), table, {V1.name, V2.name})
    model, old = decided.table.models["iris"], table.models["iris"]
    assert (decided.actions, model.default, model.labels) == ((), old.default, old.labels)
    assert decided.table.resolve("iris").policy == policy.calls
    assert "model.yaml: no YAML" in model.versions["1"].reason


def test_a_replica_that_lost_something_is_out_of_the_rotation_until_it_has_it_all() -> None:
    """Calls go to the others, and no flip waits for it."""
    table = served(V1)
    behind = plan(lying(V1), fleet({V1: READY}, {}), table, ())
    assert (behind.rotation, behind.actions) == ({TF: ("r0",)}, (Load("r1", V1),))
    assert behind.table == table
    flips = plan(lying(V1, V2), fleet({V1: READY, V2: READY}, {V1: LOADING}), table, ())
    assert (flips.rotation, iris(flips)["2"]) == ({TF: ("r0",)}, (State.READY, V2.name))
    whole = plan(lying(V1), fleet({V1: READY}, {V1: READY}), table, ())
    assert whole.rotation == {TF: ("r0", "r1")}


def test_the_rotation_is_left_alone_when_nobody_answers_and_takes_all_when_none_is_whole() -> None:
    """A controller that is cut off must not take the servers from the gateways."""
    table = served(V1)
    assert plan(lying(V1), fleet(None, None), table, ()).rotation == {}
    assert plan(lying(V1), fleet(None, {}), table, ()).rotation == {TF: ("r1",)}
    assert plan(lying(V1), fleet({V1: LOADING}, {}), table, ()).rotation == {TF: ("r0", "r1")}


def test_a_load_that_fails_in_one_replica_does_not_flip() -> None:
    """Replicas serve the same, or the route stays; the reason names the replica."""
    decided = plan(lying(V1, V2), fleet({V1: READY, V2: READY}, {V1: READY, V2: FAILED}), served(V1), ())
    assert iris(decided) == {"1": (State.READY, V1.name), "2": (State.FAILED, "")}
    assert "in one of 2 replicas" in version(decided, "2").reason


def test_without_the_newest_the_one_before_is_loaded() -> None:
    """If the newest version cannot be loaded and nothing serves, the next older one is tried."""
    decided = plan(lying(V1, V2), fleet({V2: FAILED}), RouteTable(), ())
    assert decided.actions == (Load("r0", V1),)
    assert iris(plan(lying(V1, V2), fleet({V2: FAILED, V1: READY}), RouteTable(), ())) == {
        "1": (State.READY, V1.name),
        "2": (State.FAILED, ""),
    }


def test_deleting_the_newest_version_rolls_back() -> None:
    """The deleted version serves until the one before is ready."""
    table = served(V2)
    loading = plan(lying(V1), fleet({V2: READY}), table, {V2.name})
    assert loading.actions == (Load("r0", V1),)
    assert iris(loading) == {"1": (State.LOADING, ""), "2": (State.READY, V2.name)}
    assert loading.table.models["iris"].default == "2"
    rolled_back = plan(lying(V1), fleet({V1: READY, V2: READY}), table, ())
    assert iris(rolled_back) == {"1": (State.READY, V1.name), "2": (State.DRAINING, "")}
    assert iris(plan(lying(V1), fleet({V1: READY}), rolled_back.table, ())) == {"1": (State.READY, V1.name)}


def test_deleting_a_model_withdraws_its_route_before_it_is_unloaded() -> None:
    """Clients are told first; the server follows once no request can be using it."""
    table = served(V1)
    gone = plan(Inventory(), fleet({V1: READY}), table, {V1.name})
    assert (gone.actions, iris(gone)) == ((), {"1": (State.DRAINING, "")})
    with pytest.raises(NotFound):
        gone.table.resolve("iris")
    draining = plan(Inventory(), fleet({V1: READY}), gone.table, ())
    assert (draining.actions, draining.table) == ((), gone.table)
    assert plan(Inventory(), fleet({V1: READY}), gone.table, {V1.name}).actions == (Unload("r0", TF, V1.name),)
    assert plan(Inventory(), fleet({}), gone.table, ()).table.models == {}


def test_a_folder_left_without_versions_serves_nothing_and_says_why() -> None:
    """Deleting the last version is deleting the model; the folder that is left is listed."""
    empty = Inventory({"iris": ModelFiles("iris", None, (), NO_VERSION)})
    gone = plan(empty, fleet({V1: READY}), served(V1), ())
    assert iris(gone) == {"": (State.QUARANTINED, ""), "1": (State.DRAINING, "")}
    assert "holds no version" in version(gone, "").reason
    assert plan(empty, fleet({V1: READY}), gone.table, {V1.name}).actions == (Unload("r0", TF, V1.name),)


def test_nothing_is_done_twice() -> None:
    """What is being loaded or unloaded is left alone."""
    assert plan(lying(V1), fleet({V1: LOADING}), RouteTable(), ()).actions == ()
    assert plan(Inventory(), fleet({V1: UNLOADING}), RouteTable(), {V1.name}).actions == ()
    table = served(V1)
    assert plan(lying(V1), fleet({V1: READY}), table, ()) == Plan((), {TF: ("r0",)}, table, {TF: {}})


def test_a_replica_that_cannot_be_reached_blocks_nothing() -> None:
    """The others load and flip without it, and nothing is asked of it."""
    decided = plan(lying(V1), fleet({}, None), RouteTable(), ())
    assert decided.actions == (Load("r0", V1),)
    assert iris(plan(lying(V1), fleet({V1: READY}, None), RouteTable(), ())) == {"1": (State.READY, V1.name)}


def test_without_any_replica_routes_stay_and_say_so() -> None:
    """A server that is down leaves its routes as they are, marked unavailable with the reason."""
    decided = plan(lying(V1, V2), fleet(None), served(V1), {V1.name})
    assert decided.actions == ()
    assert iris(decided) == {"1": (State.UNAVAILABLE, V1.name), "2": (State.UNAVAILABLE, "")}
    assert version(decided, "2").reason == "tf_serving is gone"
    assert iris(plan(lying(V1), fleet({V1: READY}), decided.table, ())) == {"1": (State.READY, V1.name)}


def test_a_restarted_replica_gets_everything_again() -> None:
    """While the others serve, its loads do not disturb the route."""
    decided = plan(lying(V1), fleet({V1: READY}, {}), served(V1), ())
    assert decided.actions == (Load("r1", V1),)
    assert iris(decided) == {"1": (State.READY, V1.name)}


def test_if_all_replicas_were_restarted_the_route_is_withdrawn() -> None:
    """Nobody can answer; clients get a reason until the model is loaded again."""
    decided = plan(lying(V1), fleet({}), served(V1), ())
    assert decided.actions == (Load("r0", V1),)
    assert iris(decided) == {"1": (State.LOADING, "")}
    assert decided.table.models["iris"].default == ""


def test_a_worker_that_starts_again_keeps_its_route() -> None:
    """The model server holds requests for it meanwhile."""
    assert iris(plan(lying(V1), fleet({V1: LOADING}), served(V1), ())) == {"1": (State.LOADING, V1.name)}


def test_a_replica_restarted_during_a_swap_gets_the_old_version_too() -> None:
    """Until the new one has taken over, the version that lies there and is routed to belongs on every replica."""
    decided = plan(lying(V1, V2), fleet({V1: READY, V2: LOADING}, {}), served(V1), ())
    assert set(decided.actions) == {Load("r1", V1), Load("r1", V2)}


def files(*versions: VersionFiles, problem: str = "", server: Server | None = TF) -> Inventory:
    return Inventory({"iris": ModelFiles("iris", server, versions, problem)})


def test_broken_files_are_quarantined_alone() -> None:
    """The version before goes on as the one to serve, and the reason is in the listing."""
    decided = plan(files(VersionFiles("1", V1), VersionFiles("2", problem="cut off")), fleet({}), RouteTable(), ())
    assert decided.actions == (Load("r0", V1),)
    assert iris(decided) == {"1": (State.LOADING, ""), "2": (State.QUARANTINED, "")}
    assert version(decided, "2").reason == "cut off"


def test_broken_files_over_a_version_that_serves_change_nothing() -> None:
    """What was loaded goes on, no older version is brought back, and the reason is in the listing."""
    lying_there = files(VersionFiles("1", V1), VersionFiles("2", problem="cut off"))
    decided = plan(lying_there, fleet({V2: READY}), served(V2), {V2.name})
    assert decided.actions == ()
    assert iris(decided) == {"2": (State.READY, V2.name)}
    assert "cut off" in version(decided, "2").reason


def test_files_that_still_change_are_not_loaded() -> None:
    """They wait, and what was loaded before serves on."""
    decided = plan(files(VersionFiles("1", V1), VersionFiles("2")), fleet({V1: READY}), served(V1), ())
    assert decided.actions == ()
    assert iris(decided) == {"1": (State.READY, V1.name), "2": (State.LOADING, "")}
    decided = plan(files(VersionFiles("1")), fleet({V1: READY}), served(V1), {V1.name})
    assert (decided.actions, iris(decided)) == ((), {"1": (State.READY, V1.name)})


def test_an_archive_that_cannot_be_read_keeps_its_version() -> None:
    """Its version is in it; while it is being overwritten the one that serves is the one that it had."""
    for found in (VersionFiles(""), VersionFiles("", problem="cut off")):
        decided = plan(files(found), fleet({V1: READY}), served(V1), {V1.name})
        assert (decided.actions, iris(decided)) == ((), {"1": (State.READY, V1.name)})
    assert iris(plan(files(VersionFiles("", problem="cut off")), fleet({}), RouteTable(), ())) == {
        "": (State.QUARANTINED, "")
    }


def test_a_name_that_is_no_longer_clear_keeps_what_serves() -> None:
    """Two sources for one name: the listing says so, and nobody loses what was there before."""
    decided = plan(files(problem="two sources", server=None), fleet({V1: READY}), served(V1), {V1.name})
    assert (decided.actions, iris(decided)) == ((), {"1": (State.READY, V1.name)})
    assert "two sources" in version(decided, "1").reason
    decided = plan(files(problem="two sources", server=None), fleet({}), RouteTable(), ())
    assert iris(decided) == {"": (State.QUARANTINED, "")}


@pytest.mark.parametrize(
    ("found", "reports"),
    [
        (files(VersionFiles("1")), ({V1: READY}, {})),
        (files(VersionFiles("")), ({V1: READY}, {})),
        (lying(V1_NEW), ({V1: READY}, {})),
        (lying(V1_NEW), ({V1: READY, V1_NEW: LOADING}, {V1_NEW: LOADING})),
        (lying(V1_NEW), ({V1: READY, V1_NEW: READY}, {V1_NEW: LOADING})),
    ],
    ids=["files change", "an archive changes", "not begun", "loading", "loading longer"],
)
def test_a_replica_that_lost_what_is_being_replaced_waits_for_what_follows(
    found: Inventory, reports: tuple[Mapping[Servable, Status], ...]
) -> None:
    """It has neither the old content nor the new one: calls go to those that have, and no flip waits for it."""
    decided = plan(found, fleet(*reports), served(V1), ())
    assert decided.rotation == {TF: ("r0",)}
    flips = reports[0].get(V1_NEW) == READY
    assert iris(decided) == {"1": (State.READY, V1_NEW.name if flips else V1.name)}


def test_a_replica_that_waited_comes_in_with_what_follows() -> None:
    """With the new content it has what the new table routes to."""
    both = fleet({V1: READY, V1_NEW: READY}, {V1_NEW: READY})
    flipped = plan(lying(V1_NEW), both, served(V1), ())
    assert (flipped.rotation, iris(flipped)) == ({TF: ("r0",)}, {"1": (State.READY, V1_NEW.name)})
    assert plan(lying(V1_NEW), both, flipped.table, ()).rotation == {TF: ("r0", "r1")}


@pytest.mark.parametrize(
    ("waiting", "ended", "status"),
    [
        (files(VersionFiles("1")), files(VersionFiles("1", problem="cut off")), READY),
        (files(VersionFiles("")), files(VersionFiles("", problem="cut off")), READY),
        (files(VersionFiles("1")), files(VersionFiles("2")), READY),
        (files(VersionFiles("1")), Inventory(), READY),
        (lying(V1_NEW), lying(V1_NEW), FAILED),
    ],
    ids=["broken", "a broken archive", "its version was deleted", "its model was deleted", "cannot be loaded"],
)
def test_a_replica_does_not_wait_for_what_it_can_never_have_again(
    waiting: Inventory, ended: Inventory, status: Status
) -> None:
    """It takes calls for the others then, once it has all of these; those of the one it lacks go where that is."""
    other = servable("other")
    table, rest = served(V1, other), lying(other).models
    whole = {V1: READY, other: READY}

    def decided(found: Inventory, *reports: Mapping[Servable, Status]) -> Plan:
        return plan(Inventory({**found.models, **rest}), fleet(*reports), table, ())

    def rotation(found: Inventory, *reports: Mapping[Servable, Status]) -> tuple[str, ...]:
        return decided(found, *reports).rotation[TF]

    assert rotation(waiting, whole, {other: READY}) == ("r0",)
    whole |= {V1_NEW: status} if status is FAILED else {}
    assert rotation(ended, whole, {}) == ("r0",)
    assert rotation(ended, whole, {other: READY}) == ("r0", "r1")
    assert decided(ended, whole, {other: READY}).partial == {TF: {"r0": (V1.name,)}}


def test_a_model_that_moves_to_the_other_server_flips_there() -> None:
    """The route leads to the old server until the new one is ready."""
    torch = servable("iris", "1", "b", Server.TORCHSERVE)
    fleets = {**fleet({V1: READY}), Server.TORCHSERVE: Fleet({"t0": {}})}
    decided = plan(lying(torch), fleets, served(V1), ())
    assert decided.actions == (Load("t0", torch),)
    assert decided.table.resolve("iris").server is TF
    fleets[Server.TORCHSERVE] = Fleet({"t0": {torch.name: READY}})
    decided = plan(lying(torch), fleets, decided.table, ())
    assert decided.table.resolve("iris").server is Server.TORCHSERVE


def test_a_leftover_that_nothing_routes_to_is_unloaded() -> None:
    """What a controller left behind that died is cleared away by the next one."""
    decided = plan(lying(V1), fleet({V1: READY, V2: READY, V1_NEW: FAILED}), served(V1), {V2.name, V1_NEW.name})
    assert set(decided.actions) == {Unload("r0", TF, V2.name), Unload("r0", TF, V1_NEW.name)}


def test_the_revision_grows_with_each_change_and_only_then() -> None:
    """Gateways are told what is new, and nothing else."""
    table = served(V1)
    assert table.revision == 1
    assert plan(lying(V1), fleet({V1: READY}), table, ()).table.revision == 1
    assert plan(Inventory(), fleet({V1: READY}), table, ()).table.revision == 2
