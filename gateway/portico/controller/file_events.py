"""What inotify tells of the model repository: a watch for each folder, kept as folders come and go. Called by `watch`,
from one thread at a time; blocks for as long as it takes to list folders.
"""

import errno
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from inotify_simple import INotify, flags  # type: ignore[import-untyped]

from portico.controller.scan import ARCHIVE, is_ignored

CHANGES = flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO | flags.CLOSE_WRITE | flags.ATTRIB
"""Not MODIFY: a file that is being written would tell of each write."""
ROOT_GONE = flags.DELETE_SELF | flags.MOVE_SELF | flags.UNMOUNT
REMOTE = ("nfs", "cifs", "smb", "9p", "fuse", "virtiofs", "fakeowner", "vboxsf", "ceph", "glusterfs", "lustre", "afs")
"""Kinds of file systems that do not tell of what other machines, or a container's host, change (prefixes)."""


@dataclass(slots=True)
class Changes:
    """What has happened, if anything. Paths are relative to the repository, and those of models, versions, archives and
    policies alone.

    `arrived` were moved in, or are new symbolic links, and nothing has happened to them since; something has happened
    to those in `disturbed`, or to all with `lost`, when events were lost.
    """

    any: bool = False
    lost: bool = False
    arrived: set[str] = field(default_factory=set)
    disturbed: set[str] = field(default_factory=set)

    def arrive(self, path: str) -> None:
        """`path` was moved in."""
        self.any = True
        self.disturb(path)
        if path.count("/") < 2 or (path.count("/") == 2 and path.endswith(ARCHIVE)):
            self.arrived.add(path)

    def disturb(self, path: str) -> None:
        """Something else has happened to `path`."""
        self.any = True
        parts = path.split("/")[:3]
        above = {"/".join(parts[:length]) for length in range(1, len(parts) + 1)}
        self.disturbed |= above
        self.arrived -= above


class FileEvents:
    """The events of the repository at `root`, which need not be there. To be closed."""

    def __init__(self, root: Path) -> None:
        self._root = os.path.abspath(root)
        self._inotify: INotify | None = None
        self._folders: dict[int, str] = {}
        self._top = self._parent = -1
        self._identity: tuple[int, int] | None = None
        self.problem = ""
        """Why events cannot be relied on, empty if they can."""

    def open(self) -> None:
        """Watches everything afresh. Raises OSError if that cannot be begun at all."""
        self.close()
        self.problem = ""
        self._identity = _identity(self._root)
        try:
            self._inotify = INotify()
        except AttributeError:
            raise OSError(errno.ENOSYS, "this system has no inotify") from None
        above = flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO | flags.ONLYDIR
        self._parent = self._add(os.path.dirname(self._root), above)
        self._top = self._add(self._root, CHANGES | ROOT_GONE | flags.ONLYDIR | flags.MASK_ADD)
        if self._top >= 0:
            self._follow(self._root, "")
            self.problem = self.problem or _remote(self._root)

    def close(self) -> None:
        """Ends all watches."""
        if self._inotify is not None:
            self._inotify.close()
        self._inotify, self._folders, self._top, self._parent = None, {}, -1, -1

    def fileno(self) -> int:
        """What becomes readable when there are events; another one after events were lost."""
        assert self._inotify is not None
        return int(self._inotify.fileno())

    def check(self) -> Changes:
        """Looks whether the repository is still the folder that is watched, and mends what is not right."""
        if self._identity == _identity(self._root) and (self._top >= 0) == (self._identity is not None):
            return Changes()
        self.open()
        return Changes(any=True, lost=True)

    def read(self) -> Changes:
        """What has happened since the last time. Does not wait. Raises OSError if nothing can be watched any more."""
        assert self._inotify is not None
        changes = Changes()
        for wd, mask, _, name in self._inotify.read(timeout=0):
            is_root = wd == self._parent and name == os.path.basename(self._root)
            if mask & flags.Q_OVERFLOW or is_root or (wd == self._top and mask & (ROOT_GONE | flags.IGNORED)):
                self.open()
                return Changes(any=True, lost=True)
            folder = self._folders.get(wd)
            if mask & flags.IGNORED:
                self._folders.pop(wd, None)
            elif folder is not None and name and not is_ignored(name):
                self._note(changes, f"{folder}{name}", mask)
        return changes

    def _note(self, changes: Changes, path: str, mask: int) -> None:
        full = f"{self._root}/{path}"
        link = mask & (flags.CREATE | flags.MOVED_TO) and os.path.islink(full)
        if mask & flags.MOVED_TO or link:
            changes.arrive(path)
        else:
            changes.disturb(path)
        if mask & flags.MOVED_FROM and mask & flags.ISDIR:
            self._forget(f"{path}/")
        if mask & (flags.CREATE | flags.MOVED_TO) and (mask & flags.ISDIR or link):
            self._follow(full, f"{path}/")

    def _follow(self, folder: str, prefix: str) -> None:
        """Watches a folder and all below it. Those behind symbolic links come last, to be known by their own names."""
        pending, links, done = [(folder, prefix)], list[tuple[str, str]](), set[int]()
        if os.path.islink(folder) and prefix:
            pending, links = [], [(folder, prefix)]
        real = os.path.realpath(self._root)
        while pending or links:
            is_link = not pending
            path, prefix = links.pop() if is_link else pending.pop()
            if is_link and not f"{os.path.realpath(path)}/".startswith(f"{real}/"):
                continue
            wd = self._add(path, CHANGES | flags.ONLYDIR | flags.MASK_ADD)
            if wd < 0 or wd in done:
                continue
            done.add(wd)
            if wd not in self._folders or not is_link:
                self._folders[wd] = prefix
            for entry in _folders(path):
                (links if entry.is_symlink() else pending).append((entry.path, f"{prefix}{entry.name}/"))

    def _add(self, folder: str, mask: int) -> int:
        """The watch's number, -1 if the folder cannot be watched, as it is gone perhaps."""
        if self._inotify is None:
            return -1
        try:
            return int(self._inotify.add_watch(folder, mask))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                self.problem = "there are no file watches left (sysctl fs.inotify.max_user_watches)"
            return -1

    def _forget(self, prefix: str) -> None:
        """Ends the watches of a folder that was moved away, with all below it."""
        assert self._inotify is not None
        for wd in [wd for wd, path in self._folders.items() if path.startswith(prefix)]:
            del self._folders[wd]
            with suppress(OSError):
                self._inotify.rm_watch(wd)


def _folders(path: str) -> list[os.DirEntry[str]]:
    found = []
    with suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            with suppress(OSError):
                if not is_ignored(entry.name) and entry.is_dir():
                    found.append(entry)
    return found


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _remote(path: str) -> str:
    """What to say of a file system that does not tell of all changes, empty if this is none."""
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for _, _, mounted, *rest in (line.split(" ") for line in mounts):
        kind = rest[rest.index("-") + 1]
        if mounted == number and kind.startswith(REMOTE):
            return f"it lies on {kind}, which does not tell of changes made elsewhere"
    return ""
