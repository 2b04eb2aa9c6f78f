"""Every way to change a model by its files, as people do it: what is dropped, and which content answers then."""

import asyncio
import os
import random
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from probe_models import archive
from swap_load import Watched

SWAP_SECONDS = 180.0
STEP = 0.15
"""Seconds between two pieces of a slow copy: less than what counts as settled."""
UNCHANGED = 2.5
"""Seconds for which a change that must change nothing is watched."""

Files = dict[str, bytes]


@dataclass
class Model:
    """A model in the repository: `versions` maps the folders' numbers to their contents, the newest of which answers;
    or `whole` is the name of the one archive in `folder`. `counter` counts all contents of all models.
    """

    folder: Path
    watched: Watched
    content: Callable[[int], Files]
    counter: list[int]
    whole: str = ""
    versions: dict[int, int] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.watched.name

    def next_content(self) -> int:
        self.counter[0] += 1
        return self.counter[0]

    def path(self, version: int) -> Path:
        return self.folder / str(version)

    def answering(self) -> int:
        return self.versions[max(self.versions)]

    async def swapped(self, change: Awaitable[None], expected: int, kind: str) -> None:
        """Makes a change and waits until `expected` answers; from then on nothing else may."""
        self.watched.allow(*self.watched.allowed, expected)
        await change
        await self.watched.until(expected, SWAP_SECONDS)
        self.watched.allow(expected)
        self.done.append(kind)


async def slowly(folder: Path, files: Files) -> None:
    """Copies files one after another, the large ones in two pieces: half a model is there for a while."""
    for name, data in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as opened:
            opened.write(data[: len(data) // 2])
            opened.flush()
            await asyncio.sleep(STEP)
            opened.write(data[len(data) // 2 :])


def at_once(folder: Path, files: Files) -> None:
    """Copies files to a hidden folder and renames it."""
    staged = folder.with_name(f".{folder.name}.new")
    for name, data in files.items():
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).write_bytes(data)
    staged.rename(folder)


async def new_version_slowly(model: Model) -> None:
    """A higher number, copied file by file."""
    version, content = max(model.versions) + 1, model.next_content()
    model.versions[version] = content
    await model.swapped(slowly(model.path(version), model.content(content)), content, "new version, copied")


async def new_version_at_once(model: Model) -> None:
    """A higher number, moved into place."""
    version, content = max(model.versions) + 1, model.next_content()
    model.versions[version] = content

    async def move() -> None:
        at_once(model.path(version), model.content(content))

    await model.swapped(move(), content, "new version, renamed")


async def overwritten_in_place(model: Model) -> None:
    """The newest version's files, overwritten with others: same version, same names."""
    content = model.next_content()
    version = max(model.versions)
    if model.path(version).is_symlink():
        return await new_version_at_once(model)
    model.versions[version] = content
    await model.swapped(slowly(model.path(version), model.content(content)), content, "overwritten in place")


async def newest_deleted(model: Model) -> None:
    """Rollback to the version before."""
    if len(model.versions) < 2:
        return await new_version_at_once(model)
    version = max(model.versions)
    del model.versions[version]
    path = model.path(version)

    async def delete() -> None:
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)

    await model.swapped(delete(), model.answering(), "newest deleted")


async def symlink_flipped(model: Model) -> None:
    """A version that is a link to a folder elsewhere in the repository; the link is replaced by another one."""
    version, content = max(model.versions), model.next_content()
    if not model.path(version).is_symlink():
        version += 1
    store = model.folder.parent / ".releases" / f"{model.name}-{content}"
    for name, data in model.content(content).items():
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_bytes(data)
    model.versions[version] = content

    async def flip() -> None:
        link = model.folder / ".flip"
        link.symlink_to(os.path.relpath(store, model.folder))
        link.rename(model.path(version))

    await model.swapped(flip(), content, "symlink flipped")


async def renamed(model: Model) -> None:
    """The newest version gets another number; its content stays, and goes on answering."""
    version = max(model.versions)
    model.versions[version + 1] = content = model.versions.pop(version)

    async def rename() -> None:
        model.path(version).rename(model.path(version + 1))
        await asyncio.sleep(UNCHANGED)

    await model.swapped(rename(), content, "version renamed")


async def broken_then_mended(model: Model) -> None:
    """A higher number that is cut off changes nothing; once it is whole, it answers."""
    version, content = max(model.versions) + 1, model.next_content()
    files = model.content(content)
    name = next(reversed(files))

    async def cut() -> None:
        at_once(model.path(version), {**files, name: files[name][: len(files[name]) // 3]})
        await asyncio.sleep(UNCHANGED)

    await model.swapped(cut(), model.answering(), "broken version")
    model.versions[version] = content

    async def mend() -> None:
        (model.path(version) / name).write_bytes(files[name])

    await model.swapped(mend(), content, "broken version mended")


async def pinned_by_policy(model: Model) -> None:
    """The policy names the version of calls without one; then it is taken away again."""
    if len(model.versions) < 2:
        await new_version_at_once(model)
    older = sorted(model.versions)[-2]
    policy = model.folder / "model.yaml"

    async def write() -> None:
        policy.write_text(f"default_version: {older}\n")

    async def remove() -> None:
        policy.unlink()

    await model.swapped(write(), model.versions[older], "policy edited")
    await model.swapped(remove(), model.answering(), "policy removed")


async def archive_overwritten(model: Model) -> None:
    """The one archive, overwritten by another with the same version inside."""
    content = model.next_content()
    await model.swapped(slowly(model.folder, {model.whole: archive(content)}), content, "archive overwritten")


async def archive_replaced(model: Model) -> None:
    """The one archive, replaced by rename; the version inside may be the same or a higher one."""
    content = model.next_content()

    async def replace() -> None:
        new = model.folder / f".{model.whole}.new"
        new.write_bytes(archive(content, f"1.{content % 2}"))
        new.rename(model.folder / model.whole)

    await model.swapped(replace(), content, "archive replaced")


async def archive_cut_off(model: Model) -> None:
    """An archive that is cut off changes nothing; the whole one does."""
    content, (old,) = model.next_content(), model.watched.allowed
    data = archive(content)

    async def cut() -> None:
        (model.folder / model.whole).write_bytes(data[: len(data) // 2])
        await asyncio.sleep(UNCHANGED)

    await model.swapped(cut(), old, "archive cut off")
    await model.swapped(slowly(model.folder, {model.whole: data}), content, "archive mended")


async def archive_reloaded_by_policy(model: Model) -> None:
    """How it is loaded is edited: the same content is loaded once more, beside the one that serves."""
    (content,) = model.watched.allowed
    policy = (model.folder / model.whole).with_suffix(".yaml")

    async def edit() -> None:
        policy.write_text(f"batch_delay: {50 + len(model.done)}\ntimeout: 20\n")
        await asyncio.sleep(UNCHANGED)

    await model.swapped(edit(), content, "archive's policy edited")


OF_VERSIONS = (
    new_version_slowly,
    new_version_at_once,
    overwritten_in_place,
    newest_deleted,
    symlink_flipped,
    renamed,
    broken_then_mended,
    pinned_by_policy,
)
OF_ONE_ARCHIVE = (archive_overwritten, archive_replaced, archive_cut_off, archive_reloaded_by_policy)


async def change(model: Model, count: int, seed: int) -> None:
    """Makes at least `count` changes of all kinds that fit the model, in an order that the seed gives."""
    order = random.Random(seed)
    kinds = OF_ONE_ARCHIVE if model.whole else OF_VERSIONS
    while len(model.done) < count:
        for kind in order.sample(kinds, len(kinds)):
            if len(model.done) < count:
                await kind(model)
            forget_old(model)


def forget_old(model: Model) -> None:
    """Removes all versions but the newest three."""
    for version in sorted(model.versions)[:-3]:
        path = model.path(version)
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)
        del model.versions[version]


def torch_content(content: int) -> Files:
    """The one file of a version for TorchServe."""
    return {"model.mar": archive(content)}
