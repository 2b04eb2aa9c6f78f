"""The controller's small parts: snapshot, signatures, the words for changes, heartbeat, rotation, addresses."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes_controller import servable
from portico.codecs.signatures import decode_signatures
from portico.codecs.snapshot import Snapshots, UnreadableSnapshot
from portico.controller import heartbeat
from portico.controller.changes import Swap, changes
from portico.controller.loaders.rotation import SIZE, Rotation
from portico.routing import CallPolicy, Model, Route, RouteTable, Server, Signature, State, TensorSpec, Version
from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as tfs

names = st.text(max_size=8)
specs = st.builds(
    TensorSpec, names, st.sampled_from(["FP32", "BYTES"]), st.none() | st.lists(st.integers(-1, 9)).map(tuple), names
)
signatures = st.builds(Signature, st.lists(specs).map(tuple), st.lists(specs).map(tuple), names)
routes = st.builds(
    Route, names, names, st.sampled_from(Server), names, names, names, st.dictionaries(names, signatures, max_size=2)
)
versions = st.builds(Version, names, st.sampled_from(State), names, st.none() | routes)
models = st.builds(
    Model,
    names,
    st.none() | st.sampled_from(Server),
    names,
    st.dictionaries(names, versions, max_size=3),
    st.dictionaries(names, names, max_size=2),
)
tables = st.builds(
    RouteTable,
    st.lists(models, max_size=3).map(lambda found: {model.name: model for model in found}),
    st.integers(0, 2**53),
)


@given(st.lists(tables, min_size=1, max_size=4))
def test_a_snapshot_brings_back_the_table(published: list[RouteTable]) -> None:
    """Every table comes back as it was, the order of versions included, whatever was written and read before it."""
    writer, reader = Snapshots(), Snapshots()
    for table in published:
        read = reader.load(writer.dump(table))
        assert read == table
        for name, model in table.models.items():
            assert list(read.models[name].versions) == list(model.versions)


def test_a_reader_may_miss_snapshots() -> None:
    """Each holds the whole table; what did not change is the same object again."""
    one, two = (Model(name, Server.TF_SERVING, "", {}) for name in ("one", "two"))
    writer, reader = Snapshots(), Snapshots()
    first = reader.load(writer.dump(RouteTable({"one": one, "two": two}, 1)))
    writer.dump(RouteTable({"two": two}, 2))
    changed = dataclasses.replace(two, default="1")
    last = writer.dump(RouteTable({"one": one, "two": changed}, 3))
    for fresh in (reader, Snapshots()):
        assert fresh.load(last) == RouteTable({"one": one, "two": changed}, 3)
    assert reader.load(last).models["one"] is first.models["one"]


def test_a_snapshot_with_fields_of_a_later_release_is_read() -> None:
    """What this release does not know is passed over, as long as the format is the same."""
    later = Snapshots().dump(RouteTable({}, 7)).replace(b'"revision":7', b'"revision":7,"weights":{}')
    assert Snapshots().load(later) == RouteTable({}, 7)


@pytest.mark.parametrize(
    ("snapshot", "reason"),
    [
        (b'{"format":1,"table":{"models":{}}}', "has format 1, this release reads 2"),
        (b'{"format":3,"revision":7}\n?', "has format 3, this release reads 2"),
        (b'{"format":2}\n', "cannot be read"),
        (b'{"format":2}\n{"name":1}', "cannot be read"),
        (b"{}", "cannot be read"),
        (b"", "cannot be read"),
        (b"\xff", "cannot be read"),
    ],
)
def test_a_snapshot_of_another_release_is_refused(snapshot: bytes, reason: str) -> None:
    """Another format, or none at all, is one error that says so."""
    with pytest.raises(UnreadableSnapshot, match=reason):
        Snapshots().load(snapshot)


def info(name: str, dtype: int, shape: tf.TensorShapeProto) -> tf.TensorInfo:
    return tf.TensorInfo(name=name, dtype=dtype, tensor_shape=shape)


def test_signatures_are_read_from_tf_serving() -> None:
    """Datatypes get the Open Inference Protocol's names; unknown dimensions are -1, an unknown rank is None."""
    shape = tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=-1), tf.TensorShapeProto.Dim(size=4)])
    definition = tf.SignatureDef(
        inputs={
            "x": info("x:0", tf.DT_FLOAT, shape),
            "a": info("a:0", tf.DT_STRING, tf.TensorShapeProto(unknown_rank=True)),
        },
        outputs={"y": info("y:0", tf.DT_COMPLEX64, tf.TensorShapeProto())},
        method_name="tensorflow/serving/predict",
    )
    others = {"__saved_model_init_op": tf.SignatureDef(), "alpha": tf.SignatureDef()}
    read = decode_signatures(tfs.SignatureDefMap(signature_def={**others, "serving_default": definition}))
    assert list(read) == ["serving_default", "alpha", "__saved_model_init_op"]
    assert read["serving_default"] == Signature(
        (TensorSpec("a", "BYTES", None, "a:0"), TensorSpec("x", "FP32", (-1, 4), "x:0")),
        (TensorSpec("y", "DT_COMPLEX64", (), "y:0"),),
        "tensorflow/serving/predict",
    )


def table(*versions: Version, default: str = "") -> RouteTable:
    return RouteTable({"iris": Model("iris", Server.TF_SERVING, default, {one.version: one for one in versions})})


def route(content: str = "a") -> Route:
    one = servable("iris", "1", content)
    return Route("iris", "1", one.server, one.name, "1", content)


def test_changes_are_told_in_words() -> None:
    """What became of each version, how long after its files came, and why."""
    loading, ready = Version("1", State.LOADING, "it is new"), Version("1", State.READY, "", route())
    swaps = {route("b").servable: Swap.of_times(10.0, 11.0, 11.25, 12.25, 12.5)}
    failed = Version("2", State.FAILED, "no weights")
    replaced = Version("1", State.READY, "", route("b"))
    leaving = Version("1", State.DRAINING, "calls end", leaving=route().servable)

    def told(before: RouteTable, after: RouteTable) -> list[str]:
        return [
            str(change).removeprefix("model iris version ")
            for change in changes(before, after, lambda model, servable: swaps.get(servable))
        ]

    assert told(RouteTable(), table(loading)) == ["1: loading: it is new"]
    assert told(table(loading), table(ready, default="1")) == ["1: ready", "1: default: after none"]
    assert told(table(ready), table(ready, failed)) == ["2: failed: no weights"]
    assert told(table(ready), table(replaced)) == [
        "1: replaced in 2.50 s (settle 1.00 s, judge 0.25 s, load 1.00 s, flip 0.25 s)"
    ]
    assert told(table(ready), table(leaving)) == ["1: draining: calls end"]
    assert told(table(leaving), RouteTable()) == ["1: removed"]
    assert told(table(Version("", State.LOADING, "it changes")), table(ready))[0].startswith("1: ready")
    assert told(table(ready, failed), table(ready, failed)) == []
    policy = Version("1", State.READY, "", dataclasses.replace(route(), policy=CallPolicy(timeout=1.0)))
    assert told(table(ready), table(policy)) == ["1: policy"]
    labelled = RouteTable({"iris": dataclasses.replace(table(ready).models["iris"], labels={"stable": "1"})})
    assert told(table(ready), labelled) == ["1: labelled: stable, after none"]


def test_a_heartbeat_shows_that_the_loop_goes_round(tmp_path: Path) -> None:
    """A beat makes it alive, and a beat that is too old, or none, makes it a problem with a reason."""
    path = tmp_path / "heartbeat"
    assert "no heartbeat" in heartbeat.problem(path)
    heartbeat.beat(path)
    assert heartbeat.problem(path) == ""
    os.utime(path, (1, 1))
    assert "s old" in heartbeat.problem(path)
    heartbeat.beat(path)
    assert heartbeat.problem(path) == ""


def test_a_health_check_is_a_command(tmp_path: Path) -> None:
    """It says why the controller does not count as alive, and nothing when it does."""
    command = [sys.executable, "-m", "portico.controller.heartbeat"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}

    def check() -> tuple[int, str]:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stderr

    code, reason = check()
    assert (code, "no heartbeat" in reason) == (1, True)
    heartbeat.beat(tmp_path / heartbeat.default_path().name)
    assert check() == (0, "")


@given(st.sets(st.text(min_size=1), max_size=3 * SIZE))
def test_a_rotation_comes_round_to_everything(names: set[str]) -> None:
    """Each name has its turn within as many rounds as it takes, and no turn is longer than the limit."""
    rotation = Rotation()
    turns = [rotation.next(names) for _ in range(len(names) // SIZE + 1)]
    assert {name for turn in turns for name in turn} == names
    assert all(len(turn) <= SIZE and len(set(turn)) == len(turn) for turn in turns)
