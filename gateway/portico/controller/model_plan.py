"""The plan for one model: which of its versions are wanted, what the next table says of it, what has to be loaded.
Pure; `plan` calls it, and holds the theory.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from portico.controller.fleet import Fleet
from portico.controller.inventory import ModelFiles, VersionFiles
from portico.controller.servable import Servable, version_key
from portico.routing import Model, Route, Server, State, Version

_CHANGING = "its files are still changing"
_CHECKING = "its files are being checked"
_GONE = "its files are gone, and no other version is ready"
_STILL_SERVES = "what was loaded before still serves"
_NAMED = "the model's policy names this version, and it does not lie in the repository"
_DRAINING = "calls no longer go to it; it is unloaded when those under way have ended"
_STARTING = "the model server is starting it again"


@dataclass(slots=True)
class ModelPlan:
    """The plan for one model. `old` is what the table in force says of it, `fleets` the replicas that have a say."""

    files: ModelFiles
    old: Model | None
    fleets: Mapping[Server, Fleet]
    versions: tuple[VersionFiles, ...] = ()
    current: dict[str, Version] = field(default_factory=dict)
    wanted: dict[str, Servable] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    statuses: dict[str, Version] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for version in self.old.versions.values() if self.old else ():
            alive = self._alive(version.route) if version.route and not self.files.is_empty else None
            if alive:
                self.current[version.version] = alive
        # An archive that cannot be read now has the version that it had.
        self.versions = tuple(
            replace(found, version=version)
            for found in self.files.versions
            for version in ([found.version] if found.version or not self.current else self.current)
        )
        self._pick()

    def _pick(self) -> None:
        """Which servables are wanted, and which versions are kept as they were loaded, by version."""
        if self.files.problem:
            self.kept = set(self.current)
            return
        policy = self.files.policy
        named = {*policy.only, *policy.labels.values(), policy.default_version}
        places = 0 if policy.only else len(self.versions) if policy.latest is None else policy.latest
        for found in reversed(self.versions):
            if places <= 0 and found.version not in named:
                continue
            if found.servable:
                self.wanted[found.version] = found.servable
                failed = self._status(found.servable).state is State.FAILED
                places -= not failed or found.version in self.current
            elif found.version in self.current:
                self.kept.add(found.version)
                places -= 1
        self.kept |= self._held()

    def _held(self) -> set[str]:
        """Versions that the default and the labels have to stay at, since what they are to move to is not ready."""
        policy, held = self.files.policy, set()
        for version, before in [
            (policy.default_version, self.old.default if self.old else ""),
            *(
                (version, self.old.labels.get(label, "") if self.old else "")
                for label, version in policy.labels.items()
            ),
        ]:
            ready = version in self.wanted and self._status(self.wanted[version]).state is State.READY
            if version and before in self.current and not ready:
                held.add(before)
        return held

    def model(self) -> Model:
        """The model as the next table shows it."""
        versions = {name: self._with_policy(version) for name, version in self._versions().items()}
        if self.old:
            versions |= remains((one for one in self.old.versions.values() if one.version not in versions), self.fleets)
        ordered = versions
        if len(versions) > 1:
            ordered = {name: versions[name] for name in sorted(versions, key=version_key)}
        default = self._default(ordered)
        return Model(self.files.name, self._server(ordered.get(default)), default, ordered, self._labels(ordered))

    def _versions(self) -> dict[str, Version]:
        if self.files.problem:
            reason = f"{self.files.problem}; {_STILL_SERVES}"
            kept = {name: _explained(version, reason) for name, version in self.current.items()}
            return kept or {"": Version("", State.QUARANTINED, self.files.problem)}
        versions: dict[str, Version] = {}
        superseded = self._superseded()
        for found in self.versions:
            name = found.version
            trouble = found.problem or ("" if found.servable else _CHECKING if found.settled else _CHANGING)
            if name in self.wanted:
                versions[name] = self._wanted(self.wanted[name])
            elif name in self.current and (name in self.kept or not superseded):
                versions[name] = _explained(self.current[name], trouble and f"{trouble}; {_STILL_SERVES}")
            elif trouble:
                versions[name] = Version(name, State.QUARANTINED if found.problem else State.LOADING, trouble)
        lying = {found.version for found in self.versions}
        for name, version in self.current.items():
            if name not in lying and (name in self.kept or not superseded):
                versions[name] = _explained(version, f"{_GONE}; {_STILL_SERVES}")
        policy = self.files.policy
        for name in {*policy.only, *policy.labels.values(), policy.default_version} - {""} - versions.keys() - lying:
            versions[name] = Version(name, State.FAILED, _NAMED)
        return versions

    def _default(self, versions: Mapping[str, Version]) -> str:
        """The version of calls without one: what the policy says once that is ready, else the newest that is."""
        routed = [name for name, version in versions.items() if version.route]
        before = self.old.default if self.old else ""
        wanted = before if self.files.problem else self.files.policy.default_version
        if wanted not in versions:
            return routed[-1] if routed else ""
        return before if wanted not in routed and before in routed else wanted

    def _labels(self, versions: Mapping[str, Version]) -> dict[str, str]:
        before = dict(self.old.labels) if self.old else {}
        if self.files.problem:
            return {label: version for label, version in before.items() if version in versions}
        labels = {}
        for label, wanted in sorted(self.files.policy.labels.items()):
            there, old = versions.get(wanted), versions.get(before.get(label, ""))
            stays = old is not None and old.route and not (there and there.route)
            labels[label] = before[label] if stays else wanted
        return labels

    def needed(self, model: Model) -> Iterable[Servable]:
        """What has to be loaded everywhere: what is wanted, and what is routed to and still lies there."""
        routed = {version.route.servable for version in model.versions.values() if version.route}
        for found in self.versions:
            if found.servable and (found.version in self.wanted or found.servable.name in routed):
                yield found.servable

    def _superseded(self) -> bool:
        """Whether other routes can go: everything wanted came to its end, and some of it serves."""
        states = [self._status(servable).state for servable in self.wanted.values()]
        ended = all(state in (State.READY, State.FAILED) for state in states)
        return ended and State.READY in states

    def _wanted(self, servable: Servable) -> Version:
        status = self._status(servable)
        if status.state is State.READY:
            return status
        current = self.current.get(servable.version)
        if current is None:
            return status
        if current.route and current.route.servable == servable.name:
            return current
        return _explained(current, f"its new files: {status.reason}; {_STILL_SERVES}")

    def _status(self, servable: Servable) -> Version:
        """The version as all replicas that have a say report it: with a route if each of them is ready."""
        known = self.statuses.get(servable.name)
        if known is None:
            known = self.statuses[servable.name] = self._asked(servable)
        return known

    def _asked(self, servable: Servable) -> Version:
        fleet = self.fleets.get(servable.server, Fleet({}))
        state, reason, ready = fleet.status(servable)
        if ready is None:
            return Version(servable.version, state, reason)
        route = servable.route(ready.signatures)
        return Version(servable.version, state, "", route)

    def _alive(self, route: Route) -> Version | None:
        """The version that the table in force routes to, with its present state; None if nobody can answer on it."""
        fleet = self.fleets.get(route.server, Fleet({}))
        state = fleet.state(route.servable)
        if state is None:
            return None
        reason = {State.UNAVAILABLE: fleet.problem, State.LOADING: _STARTING}.get(state, "")
        return Version(route.version, state, reason, route)

    def _with_policy(self, version: Version) -> Version:
        """A policy that was edited holds for what was loaded before, too."""
        calls = self.files.policy.calls
        if self.files.problem or version.route is None or version.route.policy == calls:
            return version
        return replace(version, route=replace(version.route, policy=calls))

    def _server(self, default: Version | None) -> Server | None:
        return default.route.server if default and default.route else self.files.server


def remains(old: Iterable[Version], fleets: Mapping[Server, Fleet]) -> dict[str, Version]:
    """Those of the versions in force that drain, if they have no route in the next table, by version."""
    left = {}
    for version in old:
        name = version.route.servable if version.route else version.leaving
        if name and any(name in report for fleet in fleets.values() for report in fleet.reports.values()):
            left[version.version] = Version(version.version, State.DRAINING, _DRAINING, leaving=name)
    return left


def _explained(version: Version, reason: str) -> Version:
    return Version(version.version, version.state, version.reason or reason, version.route)
