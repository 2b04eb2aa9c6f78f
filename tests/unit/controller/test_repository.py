"""`Repository`: real files, from their scan to servables."""

import asyncio
import json
import os
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from portico.controller import repository as module
from portico.controller.inventory import FoundVersion, Inventory, VersionFiles
from portico.controller.repository import Repository
from portico.routing import Server

SETTLE = 0.05


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def repository(root: Path) -> Iterator[Repository]:
    looked_at = Repository(root, SETTLE, lambda: None)
    yield looked_at
    looked_at.close()


def put(path: Path, content: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def put_archive(path: Path, version: str = "1.0", content: bytes = b"x") -> None:
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": "a", "modelVersion": version}}))
        packed.writestr("weights.pt", content)


async def settled(repository: Repository, model: str) -> tuple[VersionFiles, ...]:
    """The model's versions once none of them changes any more."""
    while True:
        found = (await repository.look()).models.get(model)
        if found and all(version.servable or version.problem for version in found.versions):
            return found.versions
        await asyncio.sleep(SETTLE / 5)


async def test_files_become_servables(root: Path, repository: Repository) -> None:
    """A SavedModel is served by its number, an archive by the version inside it."""
    put(root / "iris/2/saved_model.pb")
    put_archive(root / "digits.mar", "1.4")
    (iris,) = await settled(repository, "iris")
    assert iris.servable
    assert (iris.version, iris.servable.servable_version, iris.servable.path) == ("2", "2", "iris/2")
    (digits,) = await settled(repository, "digits")
    assert digits.servable
    assert (digits.version, digits.servable.server, digits.servable.path) == ("1.4", Server.TORCHSERVE, "digits.mar")


async def test_an_archive_in_a_folder_has_the_folders_version(root: Path, repository: Repository) -> None:
    """Clients see the folder's name; the server goes by the version in the archive."""
    (root / "faces/3").mkdir(parents=True)
    put_archive(root / "faces/3/x.mar", "1.0")
    (faces,) = await settled(repository, "faces")
    assert faces.servable
    assert (faces.version, faces.servable.servable_version) == ("3", "1.0")


async def test_the_same_content_has_the_same_name(root: Path, repository: Repository) -> None:
    """Touching or copying files anew changes nothing; another content does."""
    put(root / "iris/1/saved_model.pb", b"a")
    (before,) = await settled(repository, "iris")
    put(root / "iris/1/saved_model.pb", b"a")
    (same,) = await settled(repository, "iris")
    put(root / "iris/1/saved_model.pb", b"b")
    (other,) = await settled(repository, "iris")
    assert before.servable == same.servable
    assert other.servable
    assert before.servable
    assert other.servable.name != before.servable.name


async def test_a_broken_archive_is_a_problem_of_its_own(root: Path, repository: Repository) -> None:
    """It is quarantined with the reason, and judged again when it changes."""
    put(root / "digits.mar", b"PK")
    put(root / "iris/1/saved_model.pb")
    (digits,) = await settled(repository, "digits")
    assert "cut off or broken" in digits.problem
    (iris,) = await settled(repository, "iris")
    assert iris.servable
    put_archive(root / "digits.mar")
    while not (await settled(repository, "digits"))[0].servable:  # noqa: ASYNC110  # files signal nothing
        await asyncio.sleep(SETTLE / 5)


async def test_a_file_that_cannot_be_opened_is_a_problem(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system says is what the listing says."""

    def refuse(path: Path, files: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(module, "fingerprint", refuse)
    put(root / "iris/1/saved_model.pb")
    repository = Repository(root, SETTLE, lambda: None)
    (iris,) = await settled(repository, "iris")
    assert iris.problem == "cannot be read: Permission denied: 1"
    repository.close()


async def test_files_that_take_long_to_read_hold_nothing_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look ends without them, and the loop is woken when they have been read. Each is read once."""
    gate, judged, woken = threading.Event(), [], asyncio.Event()

    def judge(root: Path, model: str, found: FoundVersion) -> VersionFiles:
        judged.append(model)
        if model == "big":
            gate.wait(60)
        return original(root, model, found)

    original = module.judge
    monkeypatch.setattr(module, "judge", judge)
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    for model in ("big", "small"):
        put(root / model / "1/saved_model.pb")
    repository = Repository(root, SETTLE, woken.set)
    (small,) = await settled(repository, "small")
    assert small.servable
    (big,) = (await repository.look()).models["big"].versions
    assert (big.servable, big.problem) == (None, "")
    woken.clear()
    gate.set()
    await woken.wait()
    (big,) = (await repository.look()).models["big"].versions
    assert big.servable
    assert sorted(judged) == ["big", "small"]
    repository.close()


async def test_an_unreadable_repository_raises(tmp_path: Path) -> None:
    """It is for the loop to say so, and to change nothing."""
    repository = Repository(tmp_path / "none", SETTLE, lambda: None)
    with pytest.raises(OSError, match="none"):
        await repository.look()
    repository.close()


async def test_files_that_are_there_for_long_are_served_at_the_first_look(root: Path, repository: Repository) -> None:
    """A controller that starts knows at once what lies there."""
    put(root / "iris/1/saved_model.pb")
    real = time.time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.time, "time", lambda: real() + 3600)
        look = await repository.look()
    assert isinstance(look, Inventory)
    assert look.models["iris"].versions[0].servable


@pytest.mark.parametrize("damage", ["a name that is no text", "bytes that are no archive's"])
async def test_odd_files_harm_nothing_else(root: Path, repository: Repository, damage: str) -> None:
    """A file that no library is prepared for becomes its model's problem, and the other models are served."""
    if damage == "a name that is no text":
        put(root / "odd/1/saved_model.pb")
        put(root / os.fsdecode(b"odd/1/caf\xe9.txt"))
    else:
        put_archive(root / "odd.mar")
        content = (root / "odd.mar").read_bytes()
        put(root / "odd.mar", content.replace(b"MANIFEST", b"MANI\xff\xfeST"))
    put(root / "good/1/saved_model.pb")
    (odd,) = await settled(repository, "odd")
    assert odd.servable or odd.problem
    assert odd.problem.encode().decode() == odd.problem
    (good,) = await settled(repository, "good")
    assert good.servable
