"""What differs between two route tables, in words: one line per model and version. Called by the reconcile loop for
its log.
"""

from collections.abc import Iterator, Mapping

from portico.routing import Model, RouteTable, Version


def changes(old: RouteTable, new: RouteTable, ages: Mapping[str, float]) -> Iterator[tuple[str, str, str]]:
    """(model, version, what happened to it, how long that took, and why) for everything that is not as it was.

    `ages` says how many seconds ago the files of a servable came, by its name.
    """
    for name in sorted(old.models.keys() | new.models.keys()):
        before, after = old.models.get(name), new.models.get(name)
        versions = [*(before.versions if before else ()), *(after.versions if after else ())]
        for version in dict.fromkeys(versions):
            if not version and after and version not in after.versions:
                continue  # stood for files whose version was not known yet
            text = _change(_version(before, version), _version(after, version), ages)
            if text:
                yield name, version, text
        if before and after and after.default and before.default != after.default:
            yield name, after.default, f"is the default now, after {before.default or 'none'}"


def _version(model: Model | None, version: str) -> Version | None:
    return model.versions.get(version) if model else None


def _change(before: Version | None, after: Version | None, ages: Mapping[str, float]) -> str:
    if after is None:
        return "no longer served" if before and before.route else "no longer there"
    reason = f": {after.reason}" if after.reason else ""
    if before and (before.state, before.reason, before.route) == (after.state, after.reason, after.route):
        return ""
    old_route = before.route if before else None
    if after.route is None or (old_route and old_route.servable == after.route.servable):
        return f"{after.state.lower()}{reason}"
    replaced = " in place of what was loaded before" if old_route else ""
    age = ages.get(after.route.servable)
    took = f", {age:.2f} s after its files came" if age is not None else ""
    return f"{after.state.lower()}{replaced}{took}{reason}"
