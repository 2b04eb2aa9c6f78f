"""Decides which of the files that a scan found have stopped changing. Called for each scan by `repository`; reads no
file and no clock.

Files have settled when they stayed the same for a while; or at once when they came by a rename, which moves nothing
but whole files; or when the first scan of all finds them old, so that a controller that starts does not wait.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from portico.controller.inventory import FoundModel, FoundPolicy, FoundVersion, Listing
from portico.routing import Server

QUIET = 2.0
"""Files whose time stamps are older than this many seconds are old."""


@dataclass(frozen=True, slots=True)
class SeenVersion:
    """A version, whether it has settled, since when it is as it is, and when it settled (both monotonic seconds).

    One that has just vanished is still there, and not settled: files are often replaced by removing them first.
    """

    found: FoundVersion
    settled: bool
    since: float
    settled_at: float = 0.0


@dataclass(frozen=True, slots=True)
class SeenModel:
    """A model's versions and its policy file; or a `problem` of the name as a whole, once that has settled.

    `policy_settled` is meaningless without a policy. `since` is when its last change was first seen, of whichever part,
    and `settled_at` when some part settled last (both monotonic seconds).
    """

    name: str
    versions: tuple[SeenVersion, ...] = ()
    problem: str = ""
    policy: FoundPolicy | None = None
    policy_settled: bool = False
    since: float = 0.0
    settled_at: float = 0.0


@dataclass(slots=True)
class _Seen:
    found: FoundVersion | FoundPolicy
    since: float
    arrived: bool
    settled_at: float | None = None
    missing_since: float | None = None


@dataclass(slots=True)
class _Tracked:
    """What is remembered of one name: what the last scan found, and its parts by path. `quiet` is its view from when
    on it changes only if the next scan finds something else.
    """

    found: FoundModel | None = None
    seen: dict[str, _Seen] = field(default_factory=dict)
    quiet: SeenModel | None = None
    since: float = 0.0
    settled_at: float = 0.0


class Settler:
    """Remembers what earlier scans saw. `settle` is for how many seconds files must have stayed the same."""

    def __init__(self, settle: float) -> None:
        self._settle = settle
        self._quiet = max(QUIET, settle)
        self._tracked: dict[str, _Tracked] = {}
        self._first = True
        self._due: float | None = None

    @property
    def due(self) -> float | None:
        """When (monotonic seconds) the next thing settles, or is gone for good, if nothing changes; None for never."""
        return self._due

    @property
    def restless(self) -> set[str]:
        """The names of the models of which something has not settled yet."""
        return {name for name, tracked in self._tracked.items() if tracked.quiet is None}

    def observe(
        self, listing: Listing, monotonic: float, wall: float, arrived: Collection[str] = frozenset()
    ) -> Mapping[str, SeenModel]:
        """What `listing` looks like with the past in mind, by model name.

        `monotonic` (seconds) measures how long something stayed the same, `wall` (seconds since the epoch) how old
        time stamps are. `arrived` are paths, relative to the repository, that were moved in before the scan began.
        A model about which there is nothing new is the same object again.
        """
        self._due = None
        models: dict[str, SeenModel] = {}
        for name in sorted(self._tracked.keys() | listing.models.keys()):
            found = listing.models.get(name)
            tracked = self._tracked.setdefault(name, _Tracked())
            if tracked.quiet is None or tracked.found is not found:
                self._see(tracked, found, monotonic, arrived)
                if not tracked.seen:
                    del self._tracked[name]
                    continue
                models[name] = self._view(name, tracked, monotonic, wall)
            else:
                models[name] = tracked.quiet
        self._first = False
        return models

    def _see(self, tracked: _Tracked, model: FoundModel | None, now: float, arrived: Collection[str]) -> None:
        tracked.found, present = model, set()
        for found in _parts(model):
            present.add(found.path)
            seen = tracked.seen.get(found.path)
            moved = bool(arrived) and _has_arrived(found.path, arrived)
            if seen is None or (seen.found.files, seen.found.problem) != (found.files, found.problem):
                tracked.seen[found.path] = _Seen(found, now, moved)
                tracked.since = now
            else:
                seen.found, seen.missing_since, seen.arrived = found, None, seen.arrived or moved
        for path in tracked.seen.keys() - present:
            seen = tracked.seen[path]
            seen.missing_since = now if seen.missing_since is None else seen.missing_since
            if now - seen.missing_since >= self._settle:
                del tracked.seen[path]
                tracked.since, tracked.settled_at = max(tracked.since, seen.missing_since), now

    def _view(self, name: str, tracked: _Tracked, now: float, wall: float) -> SeenModel:
        versions: list[SeenVersion] = []
        problem, policy, policy_settled, quiet = "", None, False, True
        for seen in tracked.seen.values():
            settled = self._settled(seen, now, wall)
            quiet = quiet and settled
            tracked.settled_at = max(tracked.settled_at, seen.settled_at or 0.0)
            if isinstance(seen.found, FoundPolicy):
                policy, policy_settled = seen.found, settled
                continue
            if not seen.found.path and settled:
                problem = seen.found.problem
            versions.append(SeenVersion(seen.found, settled, seen.since, seen.settled_at or 0.0))
        shown = () if problem else tuple(versions)
        view = SeenModel(name, shown, problem, policy, policy_settled, tracked.since, tracked.settled_at)
        tracked.quiet = view if quiet else None
        return view

    def _settled(self, seen: _Seen, now: float, wall: float) -> bool:
        if seen.missing_since is None and seen.settled_at is None and self._has_settled(seen, now, wall):
            seen.settled_at = now
        if seen.missing_since is None and seen.settled_at is not None:
            return True
        due = self._settle + (seen.since if seen.missing_since is None else seen.missing_since)
        self._due = due if self._due is None else min(self._due, due)
        return False

    def _has_settled(self, seen: _Seen, now: float, wall: float) -> bool:
        if now - seen.since >= self._settle:
            return True
        # A copy may keep the age of its files, and another machine's clock may be slow: age counts where nothing else
        # can be known, and where a symbolic link came, which brings no files.
        old = not seen.found.problem and wall - seen.found.newest >= self._quiet
        return (seen.arrived and (old or not seen.found.linked)) or (self._first and old)


def _parts(model: FoundModel | None) -> list[FoundVersion | FoundPolicy]:
    """The versions and the policy; for a problem of the name as a whole, one without a path that stands for it."""
    if model is None:
        return []
    if model.problem:
        return [FoundVersion("", Server.TF_SERVING, "", problem=model.problem)]
    return [*model.versions, *([model.policy] if model.policy else [])]


def _has_arrived(path: str, arrived: Collection[str]) -> bool:
    """Whether the path, or a folder that holds it, was moved in."""
    parts = path.split("/")
    return any("/".join(parts[:length]) in arrived for length in range(1, len(parts) + 1))
