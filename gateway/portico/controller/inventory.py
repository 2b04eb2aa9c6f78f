"""What lies in the model repository, in two forms: as `scan` found it, and as `settle` has judged it for `plan`.
Frozen data only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from portico.controller.policy import Policy
from portico.controller.servable import Servable
from portico.routing import Server

NO_VERSION = "the folder holds no version: put a SavedModel in 1/, or an archive (.mar) in 1/"

FileStamp = tuple[str, int, int, int, int]
"""Name relative to the version, size in bytes, mtime and ctime in ns, inode: changes whenever a file may have."""


@dataclass(frozen=True, slots=True)
class FoundVersion:
    """A version as it lies there, not opened yet. `version` is empty where only the archive knows it.

    `path` is relative to the repository: the SavedModel's folder, or the archive. `newest` is the latest time stamp of
    its files in seconds since the epoch. A `problem` says why it cannot be a version, whatever its files hold. With
    `linked`, some of it lies behind a symbolic link: moving it in does not bring its files.
    """

    version: str
    server: Server
    path: str
    files: tuple[FileStamp, ...] = ()
    newest: float = 0.0
    problem: str = ""
    linked: bool = False


@dataclass(frozen=True, slots=True)
class FoundPolicy:
    """A model's policy file, not opened yet; the fields are those of FoundVersion."""

    path: str
    files: tuple[FileStamp, ...] = ()
    newest: float = 0.0
    problem: str = ""
    linked: bool = False


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A name in the repository with the versions below it. A `problem` concerns the name as a whole."""

    name: str
    versions: tuple[FoundVersion, ...] = ()
    problem: str = ""
    policy: FoundPolicy | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """All that one scan found, by model name."""

    models: Mapping[str, FoundModel] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class VersionFiles:
    """A judged version: a `servable` that can be loaded, or a `problem`, or neither while its files still
    change or its model's policy is not known.

    Of its times, all monotonic seconds, `since` is when the files were first seen like this, `settled` when they
    counted as settled, `judged` when their judgement ended; the last two are 0 before that.
    """

    version: str
    servable: Servable | None = None
    problem: str = ""
    since: float = field(default=0.0, compare=False)
    settled: float = field(default=0.0, compare=False)
    judged: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's judged versions, oldest first. With a `problem` none may be loaded anew, and what serves stays.

    `policy` is the last one that could be read. `since` is when the last change of anything in its folder was first
    seen, `settled` when something in it settled last, in monotonic seconds.
    """

    name: str
    server: Server | None
    versions: tuple[VersionFiles, ...] = ()
    problem: str = ""
    policy: Policy = Policy()
    since: float = field(default=0.0, compare=False)
    settled: float = field(default=0.0, compare=False)

    @property
    def is_empty(self) -> bool:
        """Whether all versions were deleted, and the folder was left: then what serves does not stay."""
        return self.problem == NO_VERSION


@dataclass(frozen=True, slots=True)
class Inventory:
    """What should be served, by model name: the plan's first input."""

    models: Mapping[str, ModelFiles] = field(default_factory=lambda: MappingProxyType({}))
