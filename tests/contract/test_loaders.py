"""The controller's adapters for model servers: one suite, held against fakes of both servers and the real ones."""

import asyncio
import json
import shutil
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

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
from portico.controller.loaders import tf_serving as tf_serving_adapter
from portico.controller.loaders.rotation import SIZE
from portico.controller.loaders.tf_serving import TFServing
from portico.controller.loaders.torchserve import TorchServe
from portico.controller.servable import Servable, is_generated
from portico.routing import Server

LOAD_SECONDS = 120.0
HANDLER = "def handle(data, context):\n    return ['fine'] * len(data or ())\n"


@dataclass
class Kind:
    """One kind of server: how it is started, and how models for it are made."""

    start: Callable[[Path, Path], Process | FakeServer]
    server: Server

    def adapter(self, running: "Running") -> Loader:
        if self.server is Server.TF_SERVING:
            return TFServing(running.address, running.repository, str(running.repository), LOAD_SECONDS)
        return TorchServe(running.address, LOAD_SECONDS)

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


def put_archive(repository: Path, model: str, content: str, broken: bool) -> str:
    described = {"modelName": model, "modelVersion": "1.0", "handler": "handler.py:handle"}
    archive = repository / f"{model}.mar"
    with zipfile.ZipFile(repository / ".new", "w") as packed:
        packed.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": described}))
        packed.writestr("handler.py", "raise RuntimeError('broken')\n" if broken else HANDLER)
        packed.writestr("content.txt", content)
    (repository / ".new").replace(archive)
    return archive.name


KINDS = {
    "fake TF Serving": Kind(FakeTFServing, Server.TF_SERVING),
    "fake TorchServe": Kind(FakeTorchServe, Server.TORCHSERVE),
    "TF Serving": Kind(tf_serving, Server.TF_SERVING),
    "TorchServe": Kind(torchserve, Server.TORCHSERVE),
}


@dataclass
class Running:
    """A server that runs, and the repository that it sees."""

    kind: Kind
    process: Process | FakeServer
    repository: Path

    @property
    def address(self) -> str:
        return self.process.address

    def put(self, model: str, content: str = "", broken: bool = False) -> Servable:
        return self.kind.put(self.repository, model, content, broken)


@pytest.fixture(scope="module", params=KINDS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    kind = KINDS[request.param]
    repository, scratch = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("ts")
    process = kind.start(repository, scratch)
    process.start()
    try:
        yield Running(kind, process, repository)
    finally:
        process.stop()


@pytest.fixture
async def loader(running: Running) -> AsyncIterator[Loader]:
    """An adapter as a controller has it that has just started; leaves the server empty."""
    one = running.kind.adapter(running)
    yield one
    for name in await one.report(running.address, ()):
        await one.unload(running.address, name)
    await one.close()


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


@pytest.mark.parametrize("running", ["fake TorchServe", "TorchServe"], indirect=True)
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
        process = kind.start(tmp_path, tmp_path)
        process.start()
        one = Running(kind, process, tmp_path)
        loader = kind.adapter(one)
        many = [one.put(f"m{number}") for number in range(205)]
        for servable in many:
            await loader.load(one.address, servable)
        for _ in range(205 // SIZE):
            assert await states(loader, one, *many) == dict.fromkeys([each.name for each in many], LoadState.READY)
        process.stop()
        process.start()
        await loader.close()
        loader = kind.adapter(one)
        assert await states(loader, one, *many) == {}
        await loader.close()
        process.stop()


@pytest.mark.parametrize("start", [FakeTFServing, tf_serving])
async def test_a_model_without_a_folder_holds_nothing_up(
    start: Callable[[Path, Path], Process | FakeServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TF Serving loads nothing while a listed model has no folder: such a model is left out of the list in time."""
    monkeypatch.setattr(tf_serving_adapter, "MISSING_PATIENCE", 0.1)
    kind = Kind(start, Server.TF_SERVING)
    repository, scratch = tmp_path / "repository", tmp_path / "scratch"
    repository.mkdir()
    scratch.mkdir()
    process = start(repository, scratch)
    process.start()
    try:
        one = Running(kind, process, repository)
        loader = kind.adapter(one)
        gone, stays = one.put("gone"), one.put("stays")
        await loader.load(one.address, gone)
        shutil.rmtree(repository / "gone")
        await loader.load(one.address, stays)
        assert await states(loader, one, gone, stays) == {stays.name: LoadState.READY}
        await loader.close()
    finally:
        process.stop()


async def test_torchserve_takes_no_archive_in_a_folder(tmp_path: Path) -> None:
    """It would look for it at the root; the reason says where to put it."""
    loader = TorchServe("127.0.0.1:1", LOAD_SECONDS)
    faces = Servable.of_files("faces", "3", Server.TORCHSERVE, "1.0", "faces/3/faces.mar", "a")
    with pytest.raises(LoaderError, match="move it there"):
        await loader.load("127.0.0.1:1", faces)
    await loader.close()


async def test_what_a_dead_controller_left_behind_is_cleared(tmp_path: Path) -> None:
    """A model that is registered in TorchServe without a worker does not count, and is not in the way."""
    server = FakeTorchServe(tmp_path, tmp_path)
    server.start()
    kind = KINDS["fake TorchServe"]
    one = Running(kind, server, tmp_path)
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


async def test_models_of_others_are_left_alone(tmp_path: Path) -> None:
    """A model that somebody else registered in TorchServe is none of ours."""
    server = FakeTorchServe(tmp_path, tmp_path)
    server.start()
    kind = KINDS["fake TorchServe"]
    one = Running(kind, server, tmp_path)
    loader = kind.adapter(one)
    await loader.load(server.address, one.put("a"))
    (mine,) = server.models
    server.models["theirs"] = server.models[mine]
    assert await states(loader, one) == {mine: LoadState.READY}
    await loader.close()
    server.stop()
