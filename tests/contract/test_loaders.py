"""The controller's adapters for model servers: one suite, held against fakes of both servers and the real ones."""

import asyncio
import json
import shutil
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from grpc import aio

from model_servers import (
    ROOT,
    FakeServer,
    FakeTFServing,
    FakeTorchServe,
    Process,
    free_port,
    tf_serving,
    torchserve,
)
from portico.controller.loaders import Loader, LoaderError, LoadState, ReplicaUnreachable
from portico.controller.loaders.rotation import SIZE
from portico.controller.loaders.tf_serving import TFServing
from portico.controller.loaders.torchserve import TorchServe
from portico.controller.servable import LoadOptions, Servable, is_generated
from portico.controller.stage import Stage
from portico.routing import Server
from portico.wire import torchserve_management_pb2 as ts

LOAD_SECONDS = 120.0
HANDLER = "def handle(data, context):\n    return ['fine'] * len(data or ())\n"


@dataclass
class Kind:
    """One kind of server: how it is started, and how models for it are made."""

    start: Callable[[Path, Path], Process | FakeServer]
    server: Server

    def run(self, folder: Path) -> "Running":
        """Starts a server that sees a stage in this folder."""
        (folder / "models").mkdir()
        scratch = folder / "ts"
        scratch.mkdir()
        process = self.start(folder / "stage" / "torchserve", scratch)
        process.start()
        return Running(self, process, folder / "models", folder / "stage")

    def adapter(self, running: "Running") -> Loader:
        """An adapter as a controller has it that has just started."""
        stage = Stage(running.stage, running.repository)
        if self.server is Server.TF_SERVING:
            return TFServing(running.address, stage, LOAD_SECONDS)
        return TorchServe(running.address, stage, LOAD_SECONDS)

    def put(self, repository: Path, model: str, content: str = "", broken: bool = False) -> Servable:
        """Puts version 1 of a model there; another `content` is another servable."""
        make = put_saved_model if self.server is Server.TF_SERVING else put_archive
        path = make(repository, model, content, broken)
        version = "1" if self.server is Server.TF_SERVING else "1.0"
        return Servable.of_files(model, version, self.server, version, path, f"{content}{broken}")


def put_saved_model(repository: Path, model: str, content: str, broken: bool) -> str:
    folder = repository / model / "1"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "model-repository/iris/1", folder)
    (folder / "content.txt").write_text(content)
    if broken:
        (folder / "saved_model.pb").write_bytes(b"broken")
    return f"{model}/1"


def delete(path: Path) -> None:
    """A file, or a folder with all that is in it."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def put_archive(
    repository: Path, model: str, content: str, broken: bool, own: dict[str, int] | None = None, path: str = ""
) -> str:
    """`own` are settings that the archive has itself."""
    described = {"modelName": model, "modelVersion": "1.0", "handler": "handler.py:handle"}
    archive = repository / (path or f"{model}.mar")
    archive.parent.mkdir(parents=True, exist_ok=True)
    if own:
        described["configFile"] = "config.yaml"
    with zipfile.ZipFile(repository / ".new", "w") as packed:
        packed.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": described}))
        packed.writestr("handler.py", "raise RuntimeError('broken')\n" if broken else HANDLER)
        packed.writestr("content.txt", content)
        if own:
            packed.writestr("config.yaml", json.dumps(own))
    (repository / ".new").replace(archive)
    return str(archive.relative_to(repository))


KINDS = {
    "fake TF Serving": Kind(FakeTFServing, Server.TF_SERVING),
    "fake TorchServe": Kind(FakeTorchServe, Server.TORCHSERVE),
    "TF Serving": Kind(tf_serving, Server.TF_SERVING),
    "TorchServe": Kind(torchserve, Server.TORCHSERVE),
}


@dataclass
class Running:
    """A server that runs, and the repository and the stage that it sees."""

    kind: Kind
    process: Process | FakeServer
    repository: Path
    stage: Path

    @property
    def address(self) -> str:
        return self.process.address

    def put(self, model: str, content: str = "", broken: bool = False) -> Servable:
        return self.kind.put(self.repository, model, content, broken)


@pytest.fixture(scope="module", params=KINDS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    one = KINDS[request.param].run(tmp_path_factory.mktemp("server"))
    try:
        yield one
    finally:
        one.process.stop()


@pytest.fixture
async def loader(running: Running) -> AsyncIterator[Loader]:
    """An adapter as a controller has it that has just started; leaves the server and the stage empty."""
    one = running.kind.adapter(running)
    yield one
    for name in await one.report(running.address, ()):
        await one.unload(running.address, name)
    await one.close()
    Stage(running.stage, running.repository).keep(())


async def states(loader: Loader, running: Running, *known: Servable) -> dict[str, LoadState]:
    """What the server has once nothing is on its way out: TF Serving says that a reload is done before the last of
    what it dropped is gone."""
    deadline = time.monotonic() + 30
    while True:
        report = await loader.report(running.address, known)
        found = {name: status.state for name, status in report.items()}
        if LoadState.UNLOADING not in found.values() or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.05)


async def test_a_server_with_nothing_reports_nothing(loader: Loader, running: Running) -> None:
    """A server that answers and has nothing loaded is not one that cannot be reached."""
    assert await loader.replicas() == (running.address,)
    assert await states(loader, running) == {}
    assert await states(loader, running, running.put("absent")) == {}


async def test_what_was_loaded_is_reported_ready(loader: Loader, running: Running) -> None:
    """And TF Serving tells its signatures with it."""
    one = running.put("a")
    await loader.load(running.address, one)
    report = await loader.report(running.address, [one])
    assert {name: status.state for name, status in report.items()} == {one.name: LoadState.READY}
    has_signatures = running.kind.server is Server.TF_SERVING
    assert ("serving_default" in report[one.name].signatures) == has_signatures


async def test_loading_what_is_loaded_does_nothing(loader: Loader, running: Running) -> None:
    """It stays as it is."""
    one = running.put("a")
    await loader.load(running.address, one)
    await loader.load(running.address, one)
    assert await states(loader, running) == {one.name: LoadState.READY}


async def test_two_contents_of_one_version_are_loaded_side_by_side(loader: Loader, running: Running) -> None:
    """The version was overwritten in place: the old one stays while the new one is loaded, and goes alone."""
    old = running.put("a", "old")
    await loader.load(running.address, old)
    new = running.put("a", "new")
    await loader.load(running.address, new)
    assert await states(loader, running) == {old.name: LoadState.READY, new.name: LoadState.READY}
    await loader.unload(running.address, old.name)
    assert await states(loader, running) == {new.name: LoadState.READY}


async def test_unloading_twice_does_nothing(loader: Loader, running: Running) -> None:
    """What is gone is gone, and what was never there too."""
    one = running.put("a")
    await loader.load(running.address, one)
    for _ in range(2):
        await loader.unload(running.address, one.name)
        assert one.name not in await states(loader, running, one)
    await loader.unload(running.address, running.put("never").name)


async def test_a_model_can_be_loaded_again(loader: Loader, running: Running) -> None:
    """After a rollback and back, say."""
    one = running.put("a")
    await loader.load(running.address, one)
    await loader.unload(running.address, one.name)
    await loader.load(running.address, one)
    assert await states(loader, running) == {one.name: LoadState.READY}


async def test_a_model_that_cannot_be_loaded_says_why(loader: Loader, running: Running) -> None:
    """The reason is for people, without the name that they never see; other models are not touched by it."""
    good = running.put("good")
    await loader.load(running.address, good)
    bad = running.put("bad", broken=True)
    with pytest.raises(LoaderError) as caught:
        await loader.load(running.address, bad)
    assert not isinstance(caught.value, ReplicaUnreachable)
    assert not any(is_generated(word.strip("{}:,'\"")) for word in str(caught.value).split())
    assert await states(loader, running, bad) == {good.name: LoadState.READY}
    after = running.put("after")
    await loader.load(running.address, after)
    assert await states(loader, running) == {good.name: LoadState.READY, after.name: LoadState.READY}


async def test_a_failed_load_can_be_tried_again(loader: Loader, running: Running) -> None:
    """What failed for a reason that has passed is loaded under the same name."""
    bad = running.put("a", broken=True)
    with pytest.raises(LoaderError):
        await loader.load(running.address, bad)
    running.put("a")
    await loader.load(running.address, bad)
    assert await states(loader, running) == {bad.name: LoadState.READY}


TORCHSERVES = pytest.mark.parametrize("running", ["fake TorchServe", "TorchServe"], indirect=True)


async def described(running: Running, servable: Servable) -> dict[str, int]:
    """What TorchServe says of a servable's batches and workers."""
    async with aio.insecure_channel(running.address) as channel:
        describe = channel.unary_unary(
            "/org.pytorch.serve.grpc.management.ManagementAPIsService/DescribeModel",
            request_serializer=ts.DescribeModelRequest.SerializeToString,
            response_deserializer=ts.ManagementResponse.FromString,
        )
        (model,) = json.loads((await describe(ts.DescribeModelRequest(model_name=servable.name))).msg)
    found = {name: model[name] for name in ("batchSize", "maxBatchDelay", "minWorkers", "maxWorkers")}
    return found | {"ready": [worker["status"] for worker in model["workers"]].count("READY")}


def archive_with(running: Running, own: dict[str, int], options: LoadOptions) -> Servable:
    """An archive that has settings of its own, beside those of the model's policy."""
    path = put_archive(running.repository, "own", "", False, own)
    return Servable.of_files("own", "1.0", Server.TORCHSERVE, "1.0", path, repr(own), options)


@TORCHSERVES
@pytest.mark.parametrize(
    ("own", "options", "batch", "delay", "workers"),
    [
        ({}, LoadOptions(), 1, 100, 1),
        ({}, LoadOptions(workers=2, max_batch_size=4, batch_delay=20), 4, 20, 2),
        ({"batchSize": 8, "maxBatchDelay": 30, "minWorkers": 2, "maxWorkers": 2}, LoadOptions(), 8, 30, 2),
        ({"minWorkers": 1, "maxWorkers": 1, "batchSize": 8}, LoadOptions(workers=2, max_batch_size=3), 3, 100, 2),
        ({"minWorkers": 2, "maxWorkers": 2, "batchSize": 8, "maxBatchDelay": 30}, LoadOptions(1, 1, 100), 1, 100, 1),
    ],
    ids=["neither", "policy", "archive", "both", "TorchServe's defaults"],
)
async def test_load_options_reach_torchserve(
    loader: Loader, running: Running, own: dict[str, int], options: LoadOptions, batch: int, delay: int, workers: int
) -> None:
    """The policy wins over the archive's own settings, those over TorchServe's; all workers are up at its end."""
    one = archive_with(running, own, options)
    await loader.load(running.address, one)
    assert await described(running, one) == {
        "batchSize": batch,
        "maxBatchDelay": delay,
        "minWorkers": workers,
        "maxWorkers": workers,
        "ready": workers,
    }


@TORCHSERVES
async def test_an_archive_in_a_version_s_folder_is_loaded(loader: Loader, running: Running) -> None:
    """TorchServe itself finds archives at the root of its store only."""
    path = put_archive(running.repository, "faces", "", False, path="faces/3/faces.mar")
    faces = Servable.of_files("faces", "3", Server.TORCHSERVE, "1.0", path, "a")
    await loader.load(running.address, faces)
    assert await states(loader, running) == {faces.name: LoadState.READY}


@TORCHSERVES
async def test_unloading_deletes_no_files(loader: Loader, running: Running) -> None:
    """Neither the archive nor the link to it, by which it may be loaded again."""
    one = running.put("a")
    await loader.load(running.address, one)
    await loader.unload(running.address, one.name)
    assert (running.repository / one.path).is_file()
    assert (running.stage / "torchserve" / f"{one.name}.mar").is_file()


@TORCHSERVES
async def test_an_archive_that_torchserve_cannot_see_says_so(loader: Loader, running: Running) -> None:
    """A repository that is mounted elsewhere in the server is the usual cause."""
    one = running.put("a")
    (running.repository / one.path).unlink()
    with pytest.raises(LoaderError, match="same model repository"):
        await loader.load(running.address, one)


async def test_the_next_controller_finds_what_is_loaded(loader: Loader, running: Running) -> None:
    """A new adapter takes up what the one before has loaded, and loads more beside it."""
    first, second = running.put("a"), running.put("b")
    await loader.load(running.address, first)
    successor = running.kind.adapter(running)
    assert await states(successor, running, first, second) == {first.name: LoadState.READY}
    await successor.load(running.address, second)
    assert await states(loader, running, second) == {first.name: LoadState.READY, second.name: LoadState.READY}
    await successor.close()


async def test_the_next_controller_finds_what_nobody_names(loader: Loader, running: Running) -> None:
    """What a controller loaded before it died, and no table and no file tells of, is reported and can be unloaded."""
    orphan = running.put("a", "orphan")
    await loader.load(running.address, orphan)
    successor, other = running.kind.adapter(running), running.put("b")
    assert await states(successor, running) == {orphan.name: LoadState.READY}
    await successor.load(running.address, other)
    assert await states(successor, running) == {orphan.name: LoadState.READY, other.name: LoadState.READY}
    await successor.unload(running.address, orphan.name)
    assert await states(successor, running) == {other.name: LoadState.READY}
    await successor.close()


async def test_what_was_deleted_stays_loaded(loader: Loader, running: Running) -> None:
    """When its files are gone a servable answers until it is unloaded, also with others coming and going beside it."""
    version, model = running.put("version"), running.put("model")
    for servable in (version, model):
        await loader.load(running.address, servable)
    delete(running.repository / version.path)
    delete(running.repository / model.path.partition("/")[0])
    other = running.put("other")
    await loader.load(running.address, other)  # TF Serving has looked at the files of all when this has ended
    ready = dict.fromkeys([version.name, model.name, other.name], LoadState.READY)
    assert await states(loader, running) == ready
    await loader.unload(running.address, other.name)
    again = running.put("again")
    await loader.load(running.address, again)
    await loader.unload(running.address, model.name)
    assert await states(loader, running) == dict.fromkeys([version.name, again.name], LoadState.READY)


async def test_a_stage_that_was_lost_holds_nothing_up(loader: Loader, running: Running) -> None:
    """What is loaded stays, and more can be loaded: a servable that only a route tells of has its place there too."""
    one, two = running.put("a"), running.put("b")
    await loader.load(running.address, one)
    shutil.rmtree(running.stage)
    routed = Servable(one.name, one.model, one.version, one.server, one.servable_version, "", one.fingerprint)
    successor = running.kind.adapter(running)
    assert await states(successor, running, routed) == {one.name: LoadState.READY}
    await successor.load(running.address, two)
    assert await states(successor, running, routed) == {one.name: LoadState.READY, two.name: LoadState.READY}
    await successor.close()


async def test_files_that_are_gone_are_no_model(loader: Loader, running: Running) -> None:
    """They vanished before they could be loaded: that load fails, and the next one does not."""
    gone, other = running.put("gone"), running.put("other")
    delete(running.repository / gone.path)
    with pytest.raises(LoaderError) as caught:
        await loader.load(running.address, gone)
    assert str(running.stage) not in str(caught.value)
    await loader.load(running.address, other)
    assert await states(loader, running, gone) == {other.name: LoadState.READY}


async def test_a_stage_that_cannot_be_written_is_the_reason(loader: Loader, running: Running) -> None:
    """The user reads what is wrong with it, and nothing is asked of the server."""
    one = running.put("a")
    broken = running.kind.adapter(replace(running, stage=running.repository / "file"))
    (running.repository / "file").write_text("")
    with pytest.raises(LoaderError, match="PORTICO_STAGE"):
        await broken.load(running.address, one)
    assert await states(loader, running, one) == {}
    await broken.close()


async def test_a_server_that_was_restarted_has_forgotten(loader: Loader, running: Running) -> None:
    """While it is away it cannot be reached; when it is back it has nothing, and can be given all again."""
    one, two = running.put("a"), running.put("b")
    for each in (one, two):
        await loader.load(running.address, each)
    await states(loader, running, one, two)
    running.process.stop()
    with pytest.raises(ReplicaUnreachable):
        await states(loader, running, one, two)
    with pytest.raises(ReplicaUnreachable):
        await loader.load(running.address, running.put("c"))
    running.process.start()
    while True:
        try:
            assert await states(loader, running, one, two) == {}
            break
        except ReplicaUnreachable:  # the channel waits a little before it tries again
            await asyncio.sleep(0.1)
    await loader.load(running.address, two)
    assert await states(loader, running, one, two) == {two.name: LoadState.READY}


async def test_an_address_where_nobody_is_cannot_be_reached(loader: Loader, running: Running) -> None:
    """It is told apart from a load that fails."""
    with pytest.raises(ReplicaUnreachable, match="does not answer"):
        await loader.report(f"127.0.0.1:{free_port()}", ())


async def test_many_models_are_listed(tmp_path: Path) -> None:
    """More models than a page of TorchServe's list, or a turn of questions, are all in the report, and stay in it."""
    for kind in (KINDS["fake TF Serving"], KINDS["fake TorchServe"]):
        folder = tmp_path / kind.server
        folder.mkdir()
        one = kind.run(folder)
        process, loader = one.process, kind.adapter(one)
        many = [one.put(f"m{number}") for number in range(205)]
        for servable in many:
            await loader.load(one.address, servable)
        for _ in range(205 // SIZE):
            assert await states(loader, one, *many) == dict.fromkeys([each.name for each in many], LoadState.READY)
        for servable in many[::50]:
            await loader.unload(one.address, servable.name)
            assert servable.name not in await states(loader, one, *many), "what is gone is not taken for ready"
        process.stop()
        process.start()
        await loader.close()
        loader = kind.adapter(one)
        assert await states(loader, one, *many) == {}
        await loader.close()
        process.stop()


async def test_what_a_dead_controller_left_behind_is_cleared(tmp_path: Path) -> None:
    """A model that is registered in TorchServe without a worker does not count, and is not in the way."""
    kind = KINDS["fake TorchServe"]
    one = kind.run(tmp_path)
    server = one.process
    assert isinstance(server, FakeTorchServe)
    servable = one.put("a", broken=True)
    loader = kind.adapter(one)
    with pytest.raises(LoaderError):
        await loader.load(server.address, servable)
    assert server.models == {}
    one.put("a")
    await loader.load(server.address, servable)
    server.models[servable.name].workers.clear()
    successor = kind.adapter(one)
    assert await states(successor, one) == {}
    await successor.load(server.address, servable)
    assert await states(successor, one) == {servable.name: LoadState.READY}
    await successor.close()
    await loader.close()
    server.stop()


async def test_a_worker_that_never_starts_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TorchServe lists it for ever: after the time that a load may take it is not loaded, and can be loaded anew."""
    kind = KINDS["fake TorchServe"]
    one = kind.run(tmp_path)
    server, now = one.process, [0.0]
    assert isinstance(server, FakeTorchServe)
    monkeypatch.setattr("portico.controller.loaders.torchserve.time", SimpleNamespace(monotonic=lambda: now[0]))
    loader, servable = kind.adapter(one), one.put("a")
    await loader.load(server.address, servable)
    crashed = server.models[servable.name]
    crashed.workers[0]["status"] = "UNLOADING"  # as DescribeModelResponse has it for all that do not run
    for waited in (0.0, LOAD_SECONDS):
        now[0] += waited
        assert await states(loader, one) == {servable.name: LoadState.LOADING}
        await loader.load(server.address, servable)
        assert server.models[servable.name] is crashed
    now[0] += 1.0
    assert await states(loader, one) == {}
    await loader.load(server.address, servable)
    assert server.models[servable.name] is not crashed
    assert await states(loader, one) == {servable.name: LoadState.READY}
    await loader.close()
    server.stop()


async def test_a_worker_that_starts_again_in_time_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time it starts is counted by itself."""
    kind = KINDS["fake TorchServe"]
    one = kind.run(tmp_path)
    server, now = one.process, [0.0]
    assert isinstance(server, FakeTorchServe)
    monkeypatch.setattr("portico.controller.loaders.torchserve.time", SimpleNamespace(monotonic=lambda: now[0]))
    loader, servable = kind.adapter(one), one.put("a")
    await loader.load(server.address, servable)
    for status, state in [("UNLOADING", LoadState.LOADING), ("READY", LoadState.READY)] * 3:
        server.models[servable.name].workers[0]["status"] = status
        assert await states(loader, one) == {servable.name: state}
        now[0] += LOAD_SECONDS - 1
    await loader.close()
    server.stop()


async def test_models_of_others_are_left_alone(tmp_path: Path) -> None:
    """A model that somebody else registered in TorchServe is none of ours."""
    kind = KINDS["fake TorchServe"]
    one = kind.run(tmp_path)
    server = one.process
    assert isinstance(server, FakeTorchServe)
    loader = kind.adapter(one)
    await loader.load(server.address, one.put("a"))
    (mine,) = server.models
    server.models["theirs"] = server.models[mine]
    assert await states(loader, one) == {mine: LoadState.READY}
    await loader.close()
    server.stop()


async def test_all_addresses_of_all_targets_are_replicas(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Several may be given; one that cannot be resolved hides no other, and is said once; each replica comes once."""
    loader = TFServing("127.0.0.2:8500, [::1]:8500,nonsense,,127.0.0.1:8500,127.0.0.2:8500", stage(tmp_path), 1)
    for _ in range(3):
        assert await loader.replicas() == ("127.0.0.2:8500", "[::1]:8500", "127.0.0.1:8500")
    (said,) = caplog.records
    assert "'nonsense' cannot be resolved" in said.getMessage()
    await loader.close()


@pytest.mark.parametrize("targets", ["nonsense,nonsense:x", ",", "host.invalid:8500"])
async def test_targets_without_an_address_cannot_be_reached(targets: str, tmp_path: Path) -> None:
    """The reason says which they are, and what is wrong with them."""
    loader = TorchServe(targets, stage(tmp_path), 1)
    with pytest.raises(ReplicaUnreachable, match=r"nonsense:x' cannot|host\.invalid|no address"):
        await loader.replicas()
    await loader.close()


def stage(folder: Path) -> Stage:
    """A stage of nothing."""
    return Stage(folder / "stage", folder)
