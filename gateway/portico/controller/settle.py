"""Decides which of the files that a scan found have stopped changing. Called for each scan by `repository`; reads no
file and no clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from portico.controller.inventory import FileStamp, FoundModel, FoundVersion, Listing
from portico.routing import Server

QUIET = 2.0
"""Files whose time stamps are older than this many seconds count as settled at first sight."""

_Key = tuple[str, str]
_Signature = tuple[tuple[FileStamp, ...], str]


@dataclass(frozen=True, slots=True)
class SeenVersion:
    """A version, whether it has settled, and since when (monotonic seconds) it is as it is.

    One that has just vanished is still there, and not settled: files are often replaced by removing them first.
    """

    found: FoundVersion
    settled: bool
    since: float


@dataclass(frozen=True, slots=True)
class SeenModel:
    """A model's versions; or a `problem` of the name as a whole, once that has settled."""

    name: str
    versions: tuple[SeenVersion, ...] = ()
    problem: str = ""


@dataclass(slots=True)
class _Seen:
    found: FoundVersion
    since: float
    missing_since: float | None = None

    @property
    def signature(self) -> _Signature:
        return self.found.files, self.found.problem


class Settler:
    """Remembers what earlier scans saw. `settle` is for how many seconds files must have stayed the same."""

    def __init__(self, settle: float) -> None:
        self._settle = settle
        self._seen: dict[_Key, _Seen] = {}

    def observe(self, listing: Listing, monotonic: float, wall: float) -> Mapping[str, SeenModel]:
        """What `listing` looks like with the past in mind, by model name.

        `monotonic` (seconds) measures how long something stayed the same, `wall` (seconds since the epoch) how old
        time stamps are.
        """
        present: set[_Key] = set()
        for name, model in listing.models.items():
            for found in _tracked(model):
                present.add((name, found.path))
                self._see((name, found.path), found, monotonic)
        for key in self._seen.keys() - present:
            self._miss(key, monotonic)
        models: dict[str, list[_Seen]] = {}
        for (name, _), seen in self._seen.items():
            models.setdefault(name, []).append(seen)
        return {name: self._settled(name, models[name], monotonic, wall) for name in sorted(models)}

    def _see(self, key: _Key, found: FoundVersion, now: float) -> None:
        seen = self._seen.get(key)
        if seen is None or seen.signature != (found.files, found.problem):
            self._seen[key] = _Seen(found, now)
        else:
            seen.found, seen.missing_since = found, None

    def _miss(self, key: _Key, now: float) -> None:
        seen = self._seen[key]
        if seen.missing_since is None:
            seen.missing_since = now
        if now - seen.missing_since >= self._settle:
            del self._seen[key]

    def _settled(self, name: str, seen: Iterable[_Seen], now: float, wall: float) -> SeenModel:
        versions: list[SeenVersion] = []
        problem = ""
        for one in seen:
            unchanged = now - one.since >= self._settle
            old = not one.found.problem and wall - one.found.newest >= QUIET
            settled = one.missing_since is None and (unchanged or old)
            if not one.found.path and settled:
                problem = one.found.problem
            versions.append(SeenVersion(one.found, settled, one.since))
        return SeenModel(name, () if problem else tuple(versions), problem)


def _tracked(model: FoundModel) -> Iterable[FoundVersion]:
    """The versions; for a problem of the name as a whole, one without a path that stands for it."""
    if not model.problem:
        return model.versions
    return (FoundVersion("", Server.TF_SERVING, "", problem=model.problem),)
