"""What differs between two route tables, in words: one line per model and version. Called by the journal."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import accumulate, pairwise

from portico.routing import Model, RouteTable, Version


@dataclass(frozen=True, slots=True)
class Swap:
    """How long each phase of a swap took, in seconds, from the first look that found the files as they are."""

    settle: float
    judge: float
    load: float
    flip: float

    @classmethod
    def of_times(cls, since: float, settled: float, judged: float, loaded: float, flipped: float) -> "Swap":
        """From points in time. What was loaded before it was judged again took no time to load."""
        ends = accumulate((since, settled, judged, loaded, flipped), max)
        return cls(*(later - earlier for earlier, later in pairwise(ends)))

    def phases(self) -> Iterable[tuple[str, float]]:
        """(phase, seconds) in their order."""
        return ((phase.name, getattr(self, phase.name)) for phase in fields(self))


@dataclass(frozen=True, slots=True)
class Change:
    """One model's version is not as it was. `what` is one word for it, `why` what is known besides."""

    model: str
    version: str
    what: str
    why: str = ""
    swap: Swap | None = None

    def __str__(self) -> str:
        text = f"model {self.model} version {self.version or '?'}: {self.what}"
        if self.swap:
            phases = list(self.swap.phases())
            total = sum(seconds for _, seconds in phases)
            text += f" in {total:.2f} s ({', '.join(f'{phase} {seconds:.2f} s' for phase, seconds in phases)})"
        return f"{text}: {self.why}" if self.why else text


Timed = Callable[[str, str], Swap | None]
"""(model, servable) → how long it took to get calls of the model to the servable, None where that is not known."""


def changes(old: RouteTable, new: RouteTable, timed: Timed) -> Iterator[Change]:
    """Everything that is not as it was."""
    for name in sorted(old.models.keys() | new.models.keys()):
        before, after = old.models.get(name), new.models.get(name)
        if before == after:
            continue
        versions = [*(before.versions if before else ()), *(after.versions if after else ())]
        for version in dict.fromkeys(versions):
            if not version and after and version not in after.versions:
                continue  # stood for files whose version was not known yet
            change = _change(name, version, _version(before, version), _version(after, version), timed)
            if change:
                yield change
        if before and after and after.default and before.default != after.default:
            swap = timed(name, _servable(after, after.default))
            yield Change(name, after.default, "default", f"after {before.default or 'none'}", swap)
        for label in sorted(after.labels if after else ()):
            assert after
            was = before.labels.get(label) if before else None
            if was != after.labels[label]:
                swap = timed(name, _servable(after, after.labels[label]))
                yield Change(name, after.labels[label], "labelled", f"{label}, after {was or 'none'}", swap)


def _version(model: Model | None, version: str) -> Version | None:
    return model.versions.get(version) if model else None


def _servable(model: Model, version: str) -> str:
    found = model.versions.get(version)
    return found.route.servable if found and found.route else ""


def _change(model: str, version: str, before: Version | None, after: Version | None, timed: Timed) -> Change | None:
    if after is None:
        return Change(model, version, "removed")
    if before and (before.state, before.reason, before.route) == (after.state, after.reason, after.route):
        return None
    old_route = before.route if before else None
    if after.route is None or (old_route and old_route.servable == after.route.servable):
        policy = old_route and after.route and old_route.policy != after.route.policy
        return Change(model, version, "policy" if policy else after.state.lower(), after.reason)
    what = "replaced" if old_route else after.state.lower()
    return Change(model, version, what, after.reason, timed(model, after.route.servable))
