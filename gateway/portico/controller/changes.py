"""What differs between two route tables, in words: one line per model and version. Called by the reconcile loop for
its log.
"""

from collections.abc import Iterator

from portico.routing import Model, RouteTable, Version


def changes(old: RouteTable, new: RouteTable) -> Iterator[tuple[str, str, str]]:
    """(model, version, what happened to it and why) for everything that is not as it was."""
    for name in sorted(old.models.keys() | new.models.keys()):
        before, after = old.models.get(name), new.models.get(name)
        versions = [*(before.versions if before else ()), *(after.versions if after else ())]
        for version in dict.fromkeys(versions):
            if not version and after and version not in after.versions:
                continue  # stood for files whose version was not known yet
            text = _change(_version(before, version), _version(after, version))
            if text:
                yield name, version, text
        if before and after and after.default and before.default != after.default:
            yield name, after.default, f"is the default now, after {before.default or 'none'}"


def _version(model: Model | None, version: str) -> Version | None:
    return model.versions.get(version) if model else None


def _change(before: Version | None, after: Version | None) -> str:
    if after is None:
        return "no longer served" if before and before.route else "no longer there"
    reason = f": {after.reason}" if after.reason else ""
    old_route = before.route if before else None
    if after.route and old_route and after.route.servable != old_route.servable:
        return f"replaced by its new files, {after.state.lower()}{reason}"
    if before and (before.state, before.reason, before.route) == (after.state, after.reason, after.route):
        return ""
    return f"{after.state.lower()}{reason}"
