"""Which versions of a model should be served: pure functions of a directory listing and a version policy.

Called by the file system source; touches no files (tensorflow_serving/sources/storage_path).
"""

import logging
import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

# FileSystemStoragePathSourceConfig.ServableVersionPolicy, whose generated module has no types.
ServableVersionPolicy: TypeAlias = Any

_log = logging.getLogger(__name__)
_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)


def parse_version(child: str) -> int | None:
    """The version a directory name stands for (any 64-bit integer, leading zeros allowed), None when it is none."""
    if not _INTEGER.fullmatch(child):
        return None
    version = int(child)
    return version if -(2**63) <= version < 2**63 else None


def children_by_version(children: Iterable[str]) -> dict[int, str]:
    """Version → directory name, newest first; of two names for one version the last in order of name wins."""
    found: dict[int, str] = {}
    for child in sorted(children):
        version = parse_version(child)
        if version is None:
            continue
        if version in found:
            _log.warning("Duplicate directories for version %d: %s is used, %s is not", version, child, found[version])
        found[version] = child
    return dict(sorted(found.items(), reverse=True))


def aspired_versions(policy: ServableVersionPolicy, base_path: str, children: Iterable[str]) -> dict[int, str]:
    """Version → path of what `policy` (latest n, all, specific; unset means the latest one) wants served."""
    found = children_by_version(children)
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        wanted = found
    elif choice == "specific":
        wanted = {version: found[version] for version in policy.specific.versions if version in found}
    else:
        count = max(policy.latest.num_versions, 1)
        wanted = dict(list(found.items())[:count])
    return {version: posixpath.join(base_path, child) for version, child in wanted.items()}


def missing_specific_versions(policy: ServableVersionPolicy, aspired: Mapping[int, str]) -> list[int]:
    """Versions that a specific policy asks for and `aspired` does not have."""
    return [version for version in policy.specific.versions if version not in aspired]
