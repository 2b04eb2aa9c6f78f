"""File events: what wakes the loop, what counts as moved in, and what happens where there are none."""

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from portico.controller import file_events, watch
from portico.controller.file_events import Changes, FileEvents
from portico.controller.watch import Watch


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put(tmp_path / "models/iris/1/saved_model.pb")
    return tmp_path / "models"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "PAUSE", 0.001)
    monkeypatch.setattr(watch, "LAST_PAUSE", 0.002)


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


class Watched:
    """A running watch, and whether it woke."""

    def __init__(self, woken: asyncio.Event, running: Watch) -> None:
        self.woken = woken
        self.watch = running

    async def wakes(self, change: Callable[[], object]) -> frozenset[str]:
        """The paths that count as moved in after the change, which must wake."""
        self.woken.clear()
        change()
        await asyncio.wait_for(self.woken.wait(), 30)
        return frozenset(self.watch.take().arrived)


@asynccontextmanager
async def watching(root: Path) -> AsyncIterator[Watched]:
    woken = asyncio.Event()
    async with watch.watching(root, woken.set) as running:
        await asyncio.wait_for(woken.wait(), 30)
        yield Watched(woken, running)


def events(root: Path) -> FileEvents:
    """Events that are read by hand."""
    opened = FileEvents(root)
    opened.open()
    return opened


def after(opened: FileEvents, *changes: Callable[[], object]) -> Changes:
    for change in changes:
        change()
    return opened.read()


@pytest.mark.parametrize(
    "change",
    [
        lambda root: put(root / "digits.mar"),
        lambda root: put(root / "iris/1/saved_model.pb", b"y"),
        lambda root: put(root / "iris/1/variables/variables.index"),
        lambda root: (root / "iris/1/saved_model.pb").unlink(),
        lambda root: (root / "iris/1").rename(root / "iris/2"),
        lambda root: (root / "iris").rename(root.parent / "iris"),
        lambda root: (root / "iris/1").chmod(0o700),
        lambda root: put(root / "iris/model.yaml"),
    ],
)
async def test_each_kind_of_change_wakes(root: Path, change: Callable[[Path], object]) -> None:
    """Made, overwritten, deleted, renamed, moved away, made readable: the loop hears of it."""
    async with watching(root) as watched:
        await watched.wakes(lambda: change(root))


async def test_what_is_moved_in_has_arrived(root: Path) -> None:
    """A rename brings whole files: of an archive, a version, a model, a policy."""
    for name in ("a.mar", "2/saved_model.pb", "new/1/saved_model.pb", "new.yaml", "3/x.mar"):
        put(root.parent / name)
    moves = {"a.mar": "a.mar", "2": "iris/2", "new": "new", "new.yaml": "iris/model.yaml", "3": "faces/3"}
    (root / "faces").mkdir()
    async with watching(root) as watched:
        for source, target in moves.items():
            assert await watched.wakes(lambda s=source, t=target: (root.parent / s).rename(root / t)) == {target}
        assert await watched.wakes(lambda: put(root.parent / "y.mar").rename(root / "faces/3/y.mar")) == {
            "faces/3/y.mar"
        }


def test_a_file_moved_into_a_saved_model_proves_nothing(root: Path) -> None:
    """Copying programs rename each file when it is whole, and the next one is still missing."""
    opened = events(root)
    found = after(opened, lambda: put(root / "iris/1/.x").rename(root / "iris/1/saved_model.pb"))
    assert (found.any, found.arrived) == (True, set())
    opened.close()


@pytest.mark.parametrize(
    "change",
    [
        lambda root: put(root / "iris/2/more"),
        lambda root: (root / "iris/2/saved_model.pb").unlink(),
        lambda root: (root / "iris/2").rename(root / "iris/3x"),
        lambda root: (root / "iris/2/saved_model.pb").chmod(0o600),
    ],
)
def test_what_changes_after_it_was_moved_has_not_arrived(root: Path, change: Callable[[Path], object]) -> None:
    """A version that is moved in and then written to has to settle like any other; whatever moved it, and when."""
    put(root.parent / "2/saved_model.pb")
    opened = events(root)
    first = after(opened, lambda: (root.parent / "2").rename(root / "iris/2"))
    assert first.arrived == {"iris/2"}
    second = after(opened, lambda: change(root))
    assert "iris/2" in second.disturbed
    assert "iris/2" not in second.arrived
    opened.close()
    looked = Watch(root, lambda: None)
    looked._note(first)
    looked._note(second)
    assert "iris/2" not in looked.take().arrived


def test_a_symbolic_link_arrives_when_it_is_made(root: Path) -> None:
    """A link is there at once or not at all; whether what it leads to is whole is not for events to say."""
    opened = events(root)
    found = after(opened, lambda: (root / "iris/2").symlink_to("1"), lambda: put(root / "iris/3/saved_model.pb"))
    assert found.arrived == {"iris/2"}
    opened.close()


@pytest.mark.parametrize("name", [".digits.mar.k3j", "digits.mar.part", "iris/.2/saved_model.pb", "iris/1/.x", "a~"])
def test_hidden_and_temporary_files_tell_nothing(root: Path, name: str) -> None:
    """What the scan passes over wakes nobody."""
    opened = events(root)
    assert not after(opened, lambda: put(root / name)).any
    opened.close()


def test_writing_tells_nothing_until_the_file_is_closed(root: Path) -> None:
    """A large file that is being copied is one event when it begins and one when it ends, not one for each write."""
    opened = events(root)
    with (root / "digits.mar").open("wb") as file:
        assert after(opened).any
        for _ in range(100):
            file.write(b"x" * 100_000)
            file.flush()
        assert not after(opened).any
    assert after(opened).any
    opened.close()


def test_new_folders_are_watched_however_fast_they_come(root: Path) -> None:
    """Folders made inside of each other before anybody could watch the first are watched all the same."""
    opened = events(root)
    after(opened, lambda: put(root / "new/1/variables/variables.index"))
    assert after(opened, lambda: put(root / "new/1/variables/variables.index", b"y")).any
    opened.close()


def test_folders_that_go_take_their_watches_with_them(root: Path) -> None:
    """Nothing is heard of what was moved away, watches do not pile up, and a moved folder goes by its new name."""
    opened = events(root)
    for number in range(20):
        put(root / f"iris/{number + 2}/variables/x")
        after(opened, lambda number=number: (root / f"iris/{number + 2}").rename(root.parent / f"{number}"))
    after(opened)
    assert not after(opened, lambda: put(root.parent / "0/variables/x", b"y")).any
    after(opened, lambda: (root / "iris/1").rename(root / "iris/7"))
    assert sorted(opened._folders.values()) == ["", "iris/", "iris/7/"]
    found = after(opened, lambda: put(root / "iris/7/x"))
    assert found.disturbed == {"iris", "iris/7", "iris/7/x"}
    after(opened, lambda: (root / "iris/7/x").unlink(), lambda: (root / "iris/7/saved_model.pb").unlink())
    after(opened, lambda: (root / "iris/7").rmdir(), lambda: (root / "iris").rmdir())
    assert list(opened._folders.values()) == [""]
    opened.close()


def test_what_links_lead_to_is_watched_too(root: Path) -> None:
    """A hidden folder behind a link into the repository is heard of, one outside is not, and circles end."""
    put(root / ".builds/a/saved_model.pb")
    put(root.parent / "outside/saved_model.pb")
    (root / "iris/2").symlink_to("../.builds/a")
    (root / "iris/3").symlink_to("../../outside")
    (root / "iris/1/again").symlink_to("../..")
    opened = events(root)
    assert after(opened, lambda: put(root / ".builds/a/saved_model.pb", b"y")).any
    assert not after(opened, lambda: put(root.parent / "outside/saved_model.pb", b"y")).any
    after(opened, lambda: put(root / ".builds/b/x"), lambda: (root / "iris/4").symlink_to("../.builds/b"))
    assert after(opened, lambda: put(root / ".builds/b/x", b"y")).any
    opened.close()


@pytest.mark.parametrize("how", ["recreated", "replaced", "flipped"])
async def test_another_folder_in_the_repositorys_place_is_watched(root: Path, how: str, tmp_path: Path) -> None:
    """The repository may be removed and made again, replaced by a rename, or be a link that is flipped."""
    put(tmp_path / "other/iris/1/saved_model.pb")
    if how == "flipped":
        root.rename(tmp_path / "first")
        root.symlink_to("first")

    def replace() -> None:
        if how == "flipped":
            (tmp_path / "link").symlink_to("other")
            (tmp_path / "link").rename(root)
        else:
            root.rename(tmp_path / "away")
            if how == "replaced":
                (tmp_path / "other").rename(root)
            else:
                put(root / "iris/1/saved_model.pb")

    async with watching(root) as watched:
        await watched.wakes(replace)
        await watched.wakes(lambda: put(root / "iris/1/saved_model.pb", b"y"))


async def test_a_repository_that_comes_later_is_watched(tmp_path: Path) -> None:
    """It need not be there when the controller starts."""
    async with watching(tmp_path / "models") as watched:
        await watched.wakes((tmp_path / "models").mkdir)
        await watched.wakes(lambda: put(tmp_path / "models/digits.mar"))


def test_a_repository_that_was_replaced_unheard_is_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no event tells that the folder is another one, as with a mount or a link further up, a check does."""
    opened = events(root)
    assert not opened.check().any
    monkeypatch.setattr(opened, "_identity", (0, 0))
    assert opened.check().lost
    assert not opened.check().any
    opened.close()


def test_lost_events_begin_everything_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the queue ran over, nothing counts as moved in any more, and everything is watched again."""
    opened = events(root)
    overflow = [(-1, int(file_events.flags.Q_OVERFLOW), 0, "")]
    monkeypatch.setattr(opened._inotify, "read", lambda timeout: overflow)
    found = opened.read()
    assert (found.any, found.lost) == (True, True)
    assert after(opened, lambda: put(root / "iris/1/saved_model.pb", b"y")).any
    opened.close()
    looked = Watch(root, lambda: None)
    looked._note(Changes(any=True, arrived={"iris/2"}))
    looked._note(found)
    told = looked.take()
    assert (told.lost, told.arrived) == (True, set())


def test_what_nobody_asks_for_does_not_pile_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The paths that are kept are bounded; beyond that it is known only that something happened."""
    monkeypatch.setattr(watch, "MAX_PATHS", 10)
    looked = Watch(root, lambda: None)
    looked._changes, looked._reliable = Changes(), True
    for number in range(11):
        changes = Changes()
        changes.arrive(f"{number}.mar")
        looked._note(changes)
    told = looked.take()
    assert (told.lost, told.arrived, told.disturbed) == (True, set(), set())
    assert not looked.take().lost


async def test_without_inotify_the_log_says_so_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again from time to time, in silence."""
    tried = asyncio.Event()
    loop, count = asyncio.get_running_loop(), 0

    def refuse() -> None:
        nonlocal count
        count += 1
        if count == 3:
            loop.call_soon_threadsafe(tried.set)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(file_events, "INotify", refuse)
    monkeypatch.setattr(watch, "RETRY", 0.0)
    task = asyncio.create_task(Watch(root, lambda: None).run())
    with caplog.at_level(logging.WARNING, "portico.controller.watch"):
        await asyncio.wait_for(tried.wait(), 30)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [record.getMessage() for record in caplog.records] == [
        "changes in the model repository may be noticed by the timer only: there are no file events: "
        "Too many open files"
    ]


def test_running_out_of_watches_is_a_problem_and_no_more(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is watched already goes on, and the problem names the setting."""
    opened = events(root)
    real = opened._inotify.add_watch

    def refuse(path: str, mask: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(opened._inotify, "add_watch", refuse)
    assert after(opened, lambda: put(root / "new/1/saved_model.pb")).any
    assert "max_user_watches" in opened.problem
    monkeypatch.setattr(opened._inotify, "add_watch", real)
    assert after(opened, lambda: put(root / "iris/1/saved_model.pb", b"y")).any
    opened.close()


@pytest.mark.parametrize(("kind", "told"), [("nfs4", True), ("fuse.grpcfuse", True), ("ext4", False)])
def test_file_systems_that_do_not_tell_everything_are_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, kind: str, told: bool
) -> None:
    """A mount whose changes come from elsewhere is known by its kind."""
    device = root.stat().st_dev
    line = f"1 2 {os.major(device)}:{os.minor(device)} / /models rw,relatime shared:1 - {kind} source rw\n"
    monkeypatch.setattr(Path, "read_text", lambda self, **_: "9 2 0:1 / /x rw - nfs4 x rw\n" + line)
    opened = events(root)
    assert (kind in opened.problem) == told
    opened.close()


async def test_many_changes_wake_a_few_times(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens within one pause is one reason to look."""
    count = 0
    monkeypatch.setattr(watch, "PAUSE", 0.1)
    monkeypatch.setattr(watch, "LAST_PAUSE", 0.1)
    woken = asyncio.Event()

    def wake() -> None:
        nonlocal count
        count += 1
        woken.set()

    async with watch.watching(root, wake):
        await asyncio.wait_for(woken.wait(), 30)
        count = 0
        woken.clear()
        for number in range(500):
            put(root / f"iris/1/assets/{number}")
        await asyncio.wait_for(woken.wait(), 30)
        assert count == 1
