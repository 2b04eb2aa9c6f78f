"""`Recheck`: scans that look only at time stamps find what scans that list every folder find."""

import importlib
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from portico.controller import recheck as module
from portico.controller.inventory import Listing
from portico.controller.recheck import Recheck
from portico.controller.scan import scan

TICK = 0.03
"""Seconds, more than the time stamps of a local file system are coarse."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for file in ("iris/1/saved_model.pb", "iris/1/variables/variables.index", "iris/model.yaml", "faces/3/x.mar"):
        put(tmp_path / "models" / file)
    for folder in ("iris/1/assets", "iris/1/deep/empty", "faces/beta"):
        (tmp_path / "models" / folder).mkdir(parents=True)
    put(tmp_path / "models/linked/1/.keep")
    (tmp_path / "models/linked/1/linked.mar").symlink_to("../../faces/3/x.mar")
    time.sleep(TICK)
    return tmp_path / "models"


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were listed, relative to the repository."""
    folders: list[str] = []
    for where in ("scan", "tree"):
        original = importlib.import_module(f"portico.controller.{where}").entries

        def entries(folder: str, original: Callable[[str], object] = original) -> object:
            folders.append(folder.partition("/models/")[2])
            return original(folder)

        monkeypatch.setattr(f"portico.controller.{where}.entries", entries)
    return folders


def put(path: Path, content: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def aged(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(module.time, "time", lambda: real() + 3600)


def overwrite(root: Path) -> None:
    file = root / "iris/1/saved_model.pb"
    times = file.stat()
    file.write_bytes(b"y")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def replace(root: Path) -> None:
    put(root / ".new", b"z")
    (root / ".new").rename(root / "iris/1/variables/variables.index")


@pytest.mark.parametrize(
    "change",
    [
        overwrite,
        replace,
        lambda root: put(root / "iris/2/saved_model.pb"),
        lambda root: put(root / "iris/1/variables/variables.data-00000-of-00001"),
        lambda root: put(root / "iris/1/assets.extra/x"),
        lambda root: put(root / "iris/1/assets/x"),
        lambda root: put(root / "iris/1/deep/empty/x"),
        lambda root: put(root / "faces/beta/x.mar"),
        lambda root: (root / "iris/1/variables/variables.index").unlink(),
        lambda root: (root / "iris/1").rename(root / "iris/2"),
        lambda root: (root / "iris/model.yaml").write_text("longer"),
        lambda root: (root / "iris/model.yaml").unlink(),
        lambda root: put(root / "faces/model.yml"),
        lambda root: put(root / "faces/3/x.mar", b"longer"),
        lambda root: put(root / "faces/3/y.mar"),
        lambda root: (root / "iris").rename(root.parent / "iris"),
        lambda root: put(root / "iris.mar"),
        lambda root: (root / "faces/3/x.mar").unlink(),
    ],
)
def test_every_change_is_found_by_the_next_scan(
    root: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]
) -> None:
    """Whatever happens to files and folders, the listing is that of a scan that trusts nothing."""
    aged(monkeypatch)
    recheck, before = Recheck(), Listing()
    for _ in range(2):
        before = scan(root, before, recheck)
        assert before == scan(root)
    change(root)
    assert scan(root, before, recheck) == scan(root) != before


def test_folders_in_which_nothing_changed_are_not_listed(
    root: Path, monkeypatch: pytest.MonkeyPatch, listed: list[str]
) -> None:
    """Only where links may lead elsewhere, and where something changed."""
    aged(monkeypatch)
    recheck = Recheck()
    before = scan(root, Listing(), recheck)
    assert {"iris", "iris/1", "iris/1/variables", "faces", "faces/3"} <= set(listed)
    listed.clear()
    again = scan(root, before, recheck)
    assert set(listed) == {"linked", "linked/1"}
    assert all(again.models[name] is found for name, found in before.models.items())
    put(root / "faces/3/x.mar", b"longer")
    listed.clear()
    scan(root, before, recheck)
    assert set(listed) == {"faces", "faces/3", "faces/beta", "linked", "linked/1"}


def test_only_suspects_are_looked_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are what they were; what was found to be gone does not come back."""
    aged(monkeypatch)
    recheck = Recheck()
    before = scan(root, Listing(), recheck)
    overwrite(root)
    assert scan(root, before, recheck, ()) == before
    assert scan(root, before, recheck, {"iris"}) == scan(root) != before
    (root / "faces").rename(root / ".faces")
    put(root / "faces")
    for suspects in ({"faces"}, ()):
        before = scan(root, before, recheck, suspects)
        assert before == scan(root)


def test_folders_that_changed_just_now_are_listed_again(root: Path, listed: list[str]) -> None:
    """Two changes within one tick of a file system's clock leave the same time stamps."""
    recheck = Recheck()
    before = scan(root, Listing(), recheck)
    listed.clear()
    scan(root, before, recheck)
    assert {"iris", "iris/1", "iris/1/variables", "faces", "faces/3"} <= set(listed)


def test_each_model_is_listed_now_and_then(root: Path, monkeypatch: pytest.MonkeyPatch, listed: list[str]) -> None:
    """There are file systems whose folders do not tell that they changed; and no one scan has to list all of them."""
    aged(monkeypatch)
    recheck = Recheck()
    before = scan(root, Listing(), recheck)
    times: Counter[str] = Counter()
    for _ in range(3 * module.SCANS):
        listed.clear()
        before = scan(root, before, recheck)
        assert not {"iris/1", "faces/3"} <= set(listed)
        times.update(listed)
    assert times["iris/1"] == times["faces/3"] == 3
