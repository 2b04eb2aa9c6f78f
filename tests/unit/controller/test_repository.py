"""`Repository`: real files, from their scan to servables."""

import asyncio
import json
import os
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portico.controller import judge as judging
from portico.controller import repository as module
from portico.controller.file_events import Changes
from portico.controller.inventory import FoundPolicy, FoundVersion, Inventory, ModelFiles, VersionFiles
from portico.controller.judge import JudgedPolicy, Judgement
from portico.controller.policy import Policy
from portico.controller.rejected import Stopped
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
    # The one field that a SavedModel must have, with the content in it.
    path.write_bytes(b"\x12" + bytes([len(content)]) + content if path.name == "saved_model.pb" else content)


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
    while not (await settled(repository, "digits"))[0].servable:
        await asyncio.sleep(SETTLE / 5)


async def test_a_file_that_cannot_be_opened_is_a_problem(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system says is what the listing says."""

    def refuse(path: Path, files: object, stopped: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(judging, "fingerprint", refuse)
    put(root / "iris/1/saved_model.pb")
    repository = Repository(root, SETTLE, lambda: None)
    (iris,) = await settled(repository, "iris")
    assert iris.problem == "cannot be read: Permission denied: 1"
    repository.close()


async def test_files_that_take_long_to_read_hold_nothing_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look ends without them, and the loop is woken when they have been read. Each is read once."""
    gate, judged, woken = threading.Event(), [], asyncio.Event()

    def judge(root: Path, found: FoundVersion, stopped: Callable[[], bool]) -> Judgement:
        judged.append(found.path)
        if found.path == "big/1":
            gate.wait(60)
        return original(root, found, stopped)

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
    assert sorted(judged) == ["big/1", "small/1"]
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


async def look_until(repository: Repository, model: str, done: Callable[[ModelFiles], bool]) -> ModelFiles:
    while True:
        found = (await repository.look()).models.get(model)
        if found and done(found):
            return found
        await asyncio.sleep(SETTLE / 5)


def whole(found: ModelFiles) -> bool:
    return bool(found.versions) and all(version.servable for version in found.versions)


async def test_a_policys_options_are_part_of_a_servables_name(root: Path, repository: Repository) -> None:
    """Another number of workers is another generation; without them in the policy again it is the first one."""
    put_archive(root / "digits.mar")
    names = []
    for policy, workers in (("", None), ("workers: 2\nwarmup: warm.jsonl\n", 2), ("versions: latest 1\n", None)):
        put(root / "digits.yaml", policy.encode())
        put(root / "warm.jsonl")
        found = await look_until(
            repository,
            "digits",
            lambda f, w=workers: whole(f) and f.policy.options.workers == w,  # type: ignore[misc]
        )
        (servable,) = [version.servable for version in found.versions]
        assert servable
        assert (servable.options.workers, servable.warmup) == (workers, "warm.jsonl" if workers == 2 else "")
        names.append(servable.name)
    assert names[0] == names[2] != names[1]


async def test_a_policy_for_a_folder_lies_in_it(root: Path, repository: Repository) -> None:
    """Its warm-up requests, too; the version waits until the policy is known."""
    put(root / "iris/1/saved_model.pb")
    put(root / "iris/model.yaml", b"timeout: 7\nwarmup: requests/warm.jsonl\n")
    put(root / "iris/requests/warm.jsonl")
    found = await look_until(repository, "iris", whole)
    (version,) = found.versions
    assert version.servable
    assert (found.policy.calls.timeout, version.servable.warmup) == (7, "iris/requests/warm.jsonl")


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ("workers: 2\n", "model.yaml: 'workers' in its policy: only TorchServe has that"),
        ("no-such-key: 2\n", "model.yaml: "),
        ("{", "model.yaml: "),
        ("warmup: none.jsonl\n", "model.yaml: its 'warmup' is no file: none.jsonl"),
        ("warmup: out.jsonl\n", "model.yaml: its 'warmup' leads out of the repository: out.jsonl"),
    ],
)
async def test_a_policy_with_a_problem_keeps_the_one_before(
    root: Path, repository: Repository, policy: str, reason: str
) -> None:
    """The problem is the model's, so that nothing is loaded anew; what was said before holds until it is mended."""
    put(root / "iris/1/saved_model.pb")
    put(root / "iris/model.yaml", b"timeout: 7\n")
    (root / "iris/out.jsonl").symlink_to(__file__)
    before = await look_until(repository, "iris", whole)
    put(root / "iris/model.yaml", policy.encode())
    broken = await look_until(repository, "iris", lambda found: bool(found.problem))
    assert broken.problem.startswith(reason)
    assert broken.problem.count("model.yaml: ") == 1
    assert (broken.policy, broken.versions) == (before.policy, before.versions)
    put(root / "iris/model.yaml", b"timeout: 8\n")
    mended = await look_until(repository, "iris", lambda found: not found.problem and found.policy != before.policy)
    assert mended.policy.calls.timeout == 8


async def test_warm_up_requests_may_come_after_the_policy(root: Path, repository: Repository) -> None:
    """The problem ends when the file is there, although the policy is as it was."""
    put(root / "iris/1/saved_model.pb")
    put(root / "iris/model.yaml", b"warmup: warm.jsonl\n")
    await look_until(repository, "iris", lambda found: "is no file" in found.problem)
    put(root / "iris/warm.jsonl")
    assert whole(await look_until(repository, "iris", lambda found: not found.problem))


async def test_a_policy_that_waits_for_its_warm_up_file_stays_a_problem(
    root: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read again in every look, and what was wrong with it holds until the answer has come."""
    gate, original = threading.Event(), module.judge_policy
    asked: list[str] = []

    def judge_policy(root: Path, found: FoundPolicy) -> JudgedPolicy:
        asked.append(found.path)
        gate.wait(60)
        return original(root, found)

    monkeypatch.setattr(module, "judge_policy", judge_policy)
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    gate.set()
    put(root / "iris/1/saved_model.pb")
    put(root / "iris/model.yaml", b"warmup: warm.jsonl\n")
    before = await look_until(repository, "iris", lambda found: "is no file" in found.problem)
    gate.clear()
    asked.clear()
    try:
        for _ in range(3):
            assert (await repository.look()).models["iris"] == before
        assert asked == ["iris/model.yaml"]
        put(root / "iris/warm.jsonl")
    finally:
        gate.set()
    assert whole(await look_until(repository, "iris", lambda found: not found.problem))


async def test_a_policy_that_is_removed_no_longer_holds(root: Path, repository: Repository) -> None:
    """After the time to settle, since editors remove files before they write them."""
    put(root / "iris/1/saved_model.pb")
    put(root / "iris/model.yaml", b"timeout: 7\n")
    await look_until(repository, "iris", whole)
    (root / "iris/model.yaml").unlink()
    assert (await repository.look()).models["iris"].policy.calls.timeout == 7
    assert whole(await look_until(repository, "iris", lambda found: found.policy == Policy()))


async def test_a_controller_that_starts_beside_an_edit_takes_nothing_away(root: Path) -> None:
    """While the policy is not known, nothing is decided about a model that may serve already."""
    put(root / "iris/1/saved_model.pb")
    put(root / "iris/model.yaml", b"timeout: 7\n")
    repository = Repository(root, 3600.0, lambda: None)
    found = (await repository.look()).models["iris"]
    assert found.problem == "model.yaml: is still changing"
    put(root / "new/1/saved_model.pb")
    put(root / "new/model.yaml", b"timeout: 7\n")
    assert (await repository.look()).models["new"].problem == ""
    repository.close()


async def test_what_was_moved_in_is_served_at_the_next_look(root: Path) -> None:
    """However long others have to settle; and the look after it is due when they have."""
    arrived: set[str] = set()
    repository = Repository(root, 3600.0, lambda: None, lambda: Changes(arrived=arrived))
    assert repository.next_look is None
    await repository.look()
    put(root / "iris/1/saved_model.pb")
    arrived.add("iris/1")
    (version,) = (await repository.look()).models["iris"].versions
    assert version.servable
    assert repository.next_look is None
    put(root / "iris/2/saved_model.pb")
    one, two = (await repository.look()).models["iris"].versions
    assert (one.servable is None, two.servable) == (False, None)
    assert repository.next_look is not None
    assert 3500 < repository.next_look <= 3600
    repository.close()


async def test_the_times_of_a_version_are_told(root: Path, repository: Repository) -> None:
    """Seen, settled, judged, in this order, and none of them makes two versions differ."""
    started = time.monotonic()
    put(root / "iris/1/saved_model.pb")
    (version,) = await settled(repository, "iris")
    assert started <= version.since <= version.settled - SETTLE
    assert version.settled <= version.judged <= time.monotonic()
    assert version == VersionFiles("1", version.servable)


async def test_a_look_without_news_makes_nothing_new(root: Path, repository: Repository) -> None:
    """Of a thousand models, only those that changed cost more than their scan."""
    put(root / "iris/1/saved_model.pb")
    put_archive(root / "digits.mar")
    for model in ("iris", "digits"):
        await look_until(repository, model, whole)
    first, second = await repository.look(), await repository.look()
    assert all(second.models[name] is found for name, found in first.models.items())
    put_archive(root / "digits.mar", content=b"other")
    third = await repository.look()
    assert third.models["iris"] is first.models["iris"]
    assert third.models["digits"] is not first.models["digits"]


@pytest.fixture
def told(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Repository, Changes]]:
    """A repository with two settled models, long ago looked at, which learns of changes by what is put there."""
    for model in ("iris", "wine"):
        put(root / model / "1/saved_model.pb")
    later = time.time() + 3600
    monkeypatch.setattr("portico.controller.recheck.time.time", lambda: later)
    changes = Changes()
    looked_at = Repository(root, SETTLE, lambda: None, lambda: changes, 3600.0)
    yield looked_at, changes
    looked_at.close()


async def changed(repository: Repository, root: Path, *loading: str) -> set[str]:
    """The models that a look finds changed after all were."""
    for model in ("iris", "wine"):
        await look_until(repository, model, whole)
    await repository.look()
    for model in ("iris", "wine"):
        put(root / model / "1/saved_model.pb", b"other")
    return {name for name, files in (await repository.look(loading)).models.items() if not whole(files)}


async def test_only_what_events_told_of_is_looked_at(root: Path, told: tuple[Repository, Changes]) -> None:
    """Where they are known to tell everything, for as long as the interval."""
    repository, changes = told
    assert await changed(repository, root) == set()
    changes.disturb("wine/1/saved_model.pb")
    assert {name for name, files in (await repository.look()).models.items() if not whole(files)} == {"wine"}
    await look_until(repository, "wine", whole)
    put(root / "rose/1/saved_model.pb")
    assert set((await repository.look()).models) == {"iris", "rose", "wine"}


async def test_what_is_loaded_is_looked_at_in_any_case(root: Path, told: tuple[Repository, Changes]) -> None:
    """A file that is written in place tells of nothing before it is closed; a load must not have read half of it."""
    assert await changed(told[0], root, "iris") == {"iris"}


@pytest.mark.parametrize("why", ["lost", "interval", "failed"])
async def test_everything_is_looked_at(
    root: Path, told: tuple[Repository, Changes], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When events were lost, when the interval is over, and after a look that failed."""
    repository, changes = told
    assert await changed(repository, root) == set()
    if why == "lost":
        changes.lost = True
    if why == "interval":
        repository._interval = 0.0
    if why == "failed":
        root.rename(root.with_name("away"))
        with pytest.raises(OSError, match="No such file"):
            await repository.look()
        root.with_name("away").rename(root)
    assert not any(whole(files) for files in (await repository.look()).models.values())


async def test_large_files_do_not_hold_up_small_ones(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read by threads of their own, however many of them there are."""
    gate = threading.Event()
    original = module.judge

    def judge(root: Path, found: FoundVersion, stopped: Callable[[], bool]) -> Judgement:
        if found.path.startswith("large"):
            gate.wait(60)
        return original(root, found, stopped)

    monkeypatch.setattr(module, "judge", judge)
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    monkeypatch.setattr(module, "LARGE", 10)
    for number in range(4):
        put(root / f"large{number}/1/saved_model.pb", b"x" * 11)
    repository = Repository(root, SETTLE, lambda: None)
    await look_until(repository, "large3", lambda found: bool(found.versions))
    put(root / "small/1/saved_model.pb")
    assert whole(await look_until(repository, "small", whole))
    gate.set()
    assert whole(await look_until(repository, "large3", whole))
    repository.close()


async def test_what_is_deleted_is_not_read_on(
    root: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading a large file ends when the file is gone, so that it holds up no other."""
    begun, ended = threading.Event(), threading.Event()

    def read_for_ever(_: Path, found: FoundVersion, stopped: Callable[[], bool]) -> Judgement:
        begun.set()
        while not stopped():
            time.sleep(0.001)
        ended.set()
        raise Stopped

    monkeypatch.setattr(module, "judge", read_for_ever)
    put_archive(root / "digits.mar")
    while not begun.is_set():
        await repository.look()
    (root / "digits.mar").unlink()
    while not ended.is_set():
        await repository.look()


async def test_an_edited_warm_up_file_is_new(root: Path, repository: Repository) -> None:
    """What failed on its requests is tried again at once; its name stays, since the model is the same."""
    put(root / "iris/1/saved_model.pb")
    put(root / "iris/model.yaml", b"warmup: warm.jsonl\n")
    put(root / "iris/warm.jsonl", b"wrong")
    before = await look_until(repository, "iris", whole)
    assert (await look_until(repository, "iris", whole)).versions[0].since == before.versions[0].since
    put(root / "iris/warm.jsonl", b"right enough")
    after = await look_until(repository, "iris", lambda files: files.versions[0].since > before.versions[0].since)
    assert after.versions[0].servable == before.versions[0].servable


async def test_a_broken_policy_at_the_start_hides_no_files(root: Path) -> None:
    """A controller that finds a policy it cannot read still knows which files serve, to load them into a replica that
    has lost them.
    """
    put(root / "iris/1/saved_model.pb")
    put(root / "iris/model.yaml", b"lables: {}\n")
    repository = Repository(root, SETTLE, lambda: None)
    found = await look_until(repository, "iris", lambda files: bool(files.problem) and files.versions[0].servable)
    assert "did you mean 'labels'" in found.problem
    repository.close()
