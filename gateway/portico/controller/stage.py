"""The folder through which model servers find what they are to load: links into the model repository, one for each
servable. Written by the adapters in `loaders` and tidied by the reconcile loop, in threads; it knows no server's API.

    tf-serving/<servable>/<version>    a SavedModel's folder; `tf-serving/<servable>` is its base_path
    torchserve/<servable>.mar          an archive; `torchserve` is the model store

A link stays what it is when its files are deleted. So TF Serving unloads nothing by itself, TorchServe finds an archive
wherever it lies, and a controller that starts afresh sees here what TF Serving, which cannot list, may have loaded.
"""

import os
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from portico.controller.servable import SEPARATOR, Servable, is_generated
from portico.routing import Server

ARCHIVE = ".mar"

_FOLDERS = {Server.TF_SERVING: "tf-serving", Server.TORCHSERVE: "torchserve"}
_NEW = ".new"
_NOWHERE = "gone"
"""Where the link of a servable leads whose files are not known any more; nothing has that name."""


class Stage:
    """`folder` is at the same place for the controller and the model servers, and so is `repository`.

    One controller writes there. Methods may be called from several threads; all raise OSError, with a text that says
    what to do, if the folder cannot be used.
    """

    def __init__(self, folder: Path, repository: Path) -> None:
        self._folder = os.path.abspath(folder)
        self._repository = os.path.abspath(repository)
        self._roots = {server: os.path.join(self._folder, name) for server, name in _FOLDERS.items()}
        self._lock = threading.Lock()
        self._links: dict[str, Servable] | None = None
        self._swept = False

    def base_path(self, name: str) -> str:
        """The folder in which TF Serving finds this servable's version."""
        return os.path.join(self._roots[Server.TF_SERVING], name)

    def prepare(self) -> None:
        """Makes the folders, so that a stage that cannot be written to is found out at the start."""
        with self._lock, self._explained():
            for root in self._roots.values():
                make_folder(root)
                probe = os.path.join(root, _NEW)
                _link(_NOWHERE, probe)
                os.unlink(probe)

    def put(self, servable: Servable) -> None:
        """Links the servable to its files, in one step; does nothing if it is linked to them already.

        One without a path keeps the link that it has. TF Serving loads nothing while a base path is missing, so there
        it gets a link that leads nowhere if it has none.
        """
        with self._lock, self._explained():
            self._put(servable)

    def keep_whole(self, servables: Iterable[Servable]) -> None:
        """Puts those SavedModels again, of many that were put before, whose base path is gone."""
        with self._lock, self._explained():
            lying = {entry.name for entry in _entries(self._roots[Server.TF_SERVING])}
            for servable in servables:
                if servable.name not in lying:
                    self._put(servable)

    def _put(self, servable: Servable) -> None:
        link, target = self._place(servable), os.path.realpath(os.path.join(self._repository, servable.path))
        if not servable.path:
            if servable.server is not Server.TF_SERVING:
                return
            target = _target(link) or _NOWHERE
        if _target(link) != target:
            make_folder(os.path.dirname(link))
            new = os.path.join(self._roots[servable.server], f".{servable.name}{_NEW}")
            _link(target, new)
            os.replace(new, link)
        self._read()[servable.name] = _linked(servable.name, servable.server, servable.servable_version)

    def known(self) -> list[Servable]:
        """What is linked here, by whichever controller; without paths and fingerprints, which the names do not tell.

        The folder is listed once; later answers come from memory.
        """
        with self._lock, self._explained():
            return list(self._read().values())

    def keep(self, names: Collection[str]) -> None:
        """Removes all other links, and what an interrupted controller left behind.

        `names` are the servables that a server may have, or is about to have, in its list. Costs nothing when there is
        nothing to remove.
        """
        with self._lock, self._explained():
            links = self._read()
            for name in links.keys() - set(names):
                self._remove(links.pop(name))
            if not self._swept:
                self._sweep()
                self._swept = True

    def _place(self, servable: Servable) -> str:
        if servable.server is Server.TF_SERVING:
            return os.path.join(self.base_path(servable.name), servable.servable_version)
        return os.path.join(self._roots[servable.server], servable.name + ARCHIVE)

    def _read(self) -> dict[str, Servable]:
        if self._links is None:
            found = (servable for server, root in self._roots.items() for servable in _links(server, root))
            self._links = {servable.name: servable for servable in found}
        return self._links

    def _remove(self, servable: Servable) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._place(servable))
        if servable.server is Server.TF_SERVING:
            _remove_if_empty(self.base_path(servable.name))

    def _sweep(self) -> None:
        for root in self._roots.values():
            for entry in _entries(root):
                if entry.is_symlink() and entry.name.startswith(".") and entry.name.endswith(_NEW):
                    os.unlink(entry.path)
                elif is_generated(entry.name) and entry.is_dir(follow_symlinks=False):
                    _remove_if_empty(entry.path)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(
                f"the stage cannot be used: {error.strerror}: {error.filename}; the controller has to be able to write "
                f"to {self._folder} (PORTICO_STAGE)"
            ) from error


def make_folder(path: str) -> None:
    """Makes a folder, with those above it, readable for the other users that servers run as. Raises OSError."""
    if os.path.isdir(path):
        return
    make_folder(os.path.dirname(path))
    os.mkdir(path)
    os.chmod(path, 0o755)  # noqa: S103 - whatever the umask is


def _link(target: str, link: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(link)
    os.symlink(target, link)


def _target(link: str) -> str:
    """Where a link leads, empty if there is none."""
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""


def _remove_if_empty(folder: str) -> None:
    with suppress(OSError):
        os.rmdir(folder)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _links(server: Server, root: str) -> Iterator[Servable]:
    for entry in _entries(root):
        name = entry.name.removesuffix(ARCHIVE) if server is Server.TORCHSERVE else entry.name
        if not is_generated(name):
            continue
        if server is Server.TORCHSERVE and entry.is_symlink() and entry.name != name:
            yield _linked(name, server, "")
        elif server is Server.TF_SERVING and entry.is_dir(follow_symlinks=False):
            versions = (inner for inner in _entries(entry.path) if inner.is_symlink() and inner.name.isdecimal())
            yield from (_linked(name, server, version.name) for version in versions)


def _linked(name: str, server: Server, version: str) -> Servable:
    return Servable(name, name.rpartition(SEPARATOR)[0], version, server, version, "", "")
