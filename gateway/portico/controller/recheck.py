"""Spares `scan` from listing folders that nothing was put into or taken from. Called by `scan`; remembers what it read
before, and may forget at any time.

A folder's time stamps change with the names in it, so that asking for stamps alone tells whether a model is as it was:
half the work of listing its folders. File systems on which that does not hold are why each scan of everything forgets
some of the models, and all of them within SCANS such scans. Where file events tell what may have changed, not even the
stamps of the rest are asked for.
"""

import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice

from portico.controller.inventory import FoundModel, FoundPolicy, FoundVersion

SCANS = 100
RACY = 2.0
"""Seconds. Stamps may be as coarse as this: a folder that changed just now may keep them when it changes again."""

_Stamp = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Known:
    """`stamps` are those of its files, and of their folders."""

    model: FoundModel
    stamps: tuple[tuple[str, _Stamp], ...]


class Recheck:
    """What the last scans found in the folders of models, by name."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._scans = 0
        self._suspects: Collection[str] | None = None

    def begin(self, suspects: Collection[str] | None) -> None:
        """A scan begins. `suspects` are the models that may have changed, None for all."""
        self._suspects = suspects
        self._scans += suspects is None
        if suspects is None:
            known = len(self._known)
            due = self._scans * known // SCANS - (self._scans - 1) * known // SCANS
            for name in list(islice(self._known, due)):  # those that were read longest ago are in front
                del self._known[name]

    def same(self, name: str) -> FoundModel | None:
        """The model of that name if its folder is as it was, or not among the suspects; None if that is not known."""
        known = self._known.get(name)
        suspect = self._suspects is None or name in self._suspects
        if known and suspect and not _holds(known):
            del self._known[name]
            return None
        return known.model if known else None

    def note(self, root: str, model: FoundModel) -> None:
        """Remembers a model that was just read from its folder in `root`."""
        self._known.pop(model.name, None)
        parts: list[FoundVersion | FoundPolicy] = [*model.versions, *([model.policy] if model.policy else [])]
        if model.problem or any(part.problem or part.linked for part in parts):
            return
        top = f"{root}/{model.name}"
        folders, files = {top}, []
        for part in parts:
            for name, *stamp in part.files:
                path = f"{root}/{part.path}/{name}" if name else f"{root}/{part.path}"
                files.append((path, (stamp[0], stamp[1], stamp[2], stamp[3])))
                while (path := os.path.dirname(path)) not in folders:
                    folders.add(path)
        try:
            # Empty ones as well: files will be put there.
            with os.scandir(top) as entries:
                folders.update(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
            for part in model.versions:
                folders.update(path for path, *_ in os.walk(f"{root}/{part.path}"))
            stamped = tuple((path, _stamp(path)) for path in folders)
        except OSError:
            return
        if max(max(mtime, ctime) for _, (_, mtime, ctime, _) in stamped) / 1e9 < time.time() - RACY:
            self._known[model.name] = _Known(model, (*files, *stamped))


def _holds(known: _Known) -> bool:
    try:
        for path, stamp in known.stamps:
            if _stamp(path) != stamp:
                return False
    except OSError:
        return False
    return True


def _stamp(path: str) -> _Stamp:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
