"""The files of one version: their stamps, symbolic links followed only where they may lead. Called by `scan`; opens no
file.
"""

import os
import stat
from collections.abc import Iterable
from itertools import islice

from portico.controller.inventory import FileStamp
from portico.controller.rejected import Rejected

MAX_FILES = 100_000
MAX_DEPTH = 32

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def entries(folder: str) -> list[os.DirEntry[str]]:
    """What lies in a folder, in no order. Raises OSError, and Rejected if it is more than anybody could mean."""
    with os.scandir(folder) as found:
        listed = list(islice(found, MAX_FILES + 1))
    if len(listed) > MAX_FILES:
        raise Rejected(f"holds more than {MAX_FILES} files")
    return listed


def tree(root: str, top: Iterable[os.DirEntry[str]]) -> tuple[tuple[FileStamp, ...], bool]:
    """The stamps of all files in and below `top`, sorted, and whether some lie behind symbolic links.

    `root` is the repository's real path, which no link may leave. Raises OSError and Rejected.
    """
    files: list[FileStamp] = []
    linked, count = False, 0
    pending: list[tuple[str, Iterable[os.DirEntry[str]] | str, int, tuple[str, ...]]] = [("", top, 0, ())]
    while pending:
        prefix, folder, depth, places = pending.pop()
        for entry in entries(folder) if isinstance(folder, str) else folder:
            count += 1
            if count > MAX_FILES or depth > MAX_DEPTH:
                raise Rejected(f"holds more than {MAX_FILES} files or {MAX_DEPTH} levels of folders")
            below = places
            if entry.is_symlink():
                linked = True
                below = (*places, follow(root, entry, places))
            if entry.is_dir():
                pending.append((f"{prefix}{entry.name}/", entry.path, depth + 1, below))
            else:
                files.append(stamp(prefix + entry.name, entry))
    files.sort()
    return tuple(files), linked


def stamp(name: str, entry: os.DirEntry[str]) -> FileStamp:
    """The stamp of one file, links followed. Raises OSError, and Rejected for what is no file."""
    found = entry.stat()
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise Rejected(f"'{entry.name}' is no file but {kind}")
    return name, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def newest(files: Iterable[FileStamp]) -> float:
    """The latest time stamp, in seconds since the epoch. A copy keeps the first of the two, never the second."""
    return max((max(mtime, ctime) for _, _, mtime, ctime, _ in files), default=0) / 1e9


def follow(root: str, entry: os.DirEntry[str], places: Iterable[str] = ()) -> str:
    """The real path of the folder that holds a symbolic link. `places` are those of the links followed to get here.

    Raises Rejected for a link out of the repository, to nothing, or to what holds it or one of those.
    """
    target, place = os.path.realpath(entry.path), os.path.realpath(os.path.dirname(entry.path))
    if not f"{target}/".startswith(f"{root.rstrip('/')}/"):
        raise Rejected(f"the symbolic link '{entry.name}' leads out of the repository")
    if not os.path.exists(target):
        raise Rejected(f"the symbolic link '{entry.name}' leads nowhere")
    if any(f"{held}/".startswith(f"{target.rstrip('/')}/") for held in (place, *places)):
        raise Rejected(f"the symbolic link '{entry.name}' leads back to a folder that holds it")
    return place
