"""A pure read of the model repository: names, versions, policies and file stamps, without opening a file. Called in a
thread for each look. What is wrong with one name is written beside it and touches no other.

    iris/1/saved_model.pb …      TF Serving, version 1
    digits.mar                   TorchServe; the version is the archive's
    faces/3/<anything>.mar       TorchServe, version 3
    iris/model.yaml              the policy of iris; for digits.mar: digits.yaml
"""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from portico.controller.inventory import NO_VERSION, FileStamp, FoundModel, FoundPolicy, FoundVersion, Listing
from portico.controller.recheck import Recheck
from portico.controller.rejected import Rejected, printable, reason
from portico.controller.servable import version_key
from portico.controller.tree import entries, follow, newest, stamp, tree
from portico.routing import Server

ARCHIVE = ".mar"
SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
POLICY, POLICY_STEM = ".yaml", "model"
_POLICY_ENDINGS = (POLICY, ".yml")
_POLICIES = frozenset(POLICY_STEM + ending for ending in _POLICY_ENDINGS)
MAX_TF_VERSION = 2**63 - 1

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_]|-(?!-)|\.(?!\.)){0,126}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,62}")
_TEMPORARY = ("~", ".tmp", ".temp", ".part", ".partial", ".swp", ".filepart", ".crdownload", ".download")
_NAME_RULE = "allowed are up to 127 letters, digits, '_', single '-' and single '.', beginning with a letter or digit"

_HIDDEN = frozenset({"lost+found", "__pycache__"})
_NOTHING = Listing()

_Entry = os.DirEntry[str]


def is_version(name: str) -> bool:
    """Whether this may be a version's name."""
    return _VERSION.fullmatch(name) is not None


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden or temporary: a program's that copies or edits, and never a model."""
    return name.startswith(".") or name.endswith(_TEMPORARY) or name in _HIDDEN


def scan(
    repository: Path,
    before: Listing = _NOTHING,
    recheck: Recheck | None = None,
    suspects: Collection[str] | None = None,
) -> Listing:
    """Everything in `repository` that means to be a model. Raises OSError if the repository itself cannot be read.

    What is as it was in `before` is the same object again. `recheck` may know that without looking closely, or without
    looking at all at those that are not among the `suspects`.
    """
    if recheck:
        recheck.begin(suspects)
    root = os.path.realpath(repository)
    with os.scandir(root) as found:
        top = sorted((entry for entry in found if not is_ignored(entry.name)), key=lambda entry: entry.name)
    reading = _Scan(root, top, before)
    models: dict[str, FoundModel] = {}
    for entry in top:
        model = recheck.same(entry.name) if recheck else None
        if model is None:
            model = reading.model(entry)
            if model is None:
                continue
            if recheck and model.name == entry.name:
                recheck.note(root, model)
        name = model.name
        if name in models:
            why = f"two sources for one name: the folder '{name}' and the archive '{name}{ARCHIVE}'"
            where = f"the policy of the archive is '{name}.yaml', beside it"
            model = FoundModel(name, problem=f"{why}; remove one of them ({where})")
        old = before.models.get(name)
        models[name] = old if old is not None and (model is old or model == old) else model
    return Listing(models)


class _Scan:
    """One scan of `root`, a real path in which `top` lies."""

    def __init__(self, root: str, top: Iterable[_Entry], before: Listing) -> None:
        self._root = root
        self._cut = len(root.rstrip("/")) + 1
        self._policies = {entry.name: entry for entry in top if entry.name.endswith(_POLICY_ENDINGS)}
        self._known = {found.path: found for model in before.models.values() for found in model.versions}

    def model(self, entry: _Entry) -> FoundModel | None:
        """What lies at the top of the repository, None if it is no model."""
        is_archive = entry.name.endswith(ARCHIVE)
        name = entry.name.removesuffix(ARCHIVE)
        try:
            linked = self._is_link(entry)
            is_folder = entry.is_dir()
            if not is_archive and not is_folder:
                return None
            if not _NAME.fullmatch(name):
                raise Rejected(f"illegal name: {_NAME_RULE}")
            if not is_archive:
                return self._folder(name, entry, linked)
            if is_folder:
                raise Rejected("a folder named like an archive: pack it with torch-model-archiver, or rename it")
            version = self._found("", Server.TORCHSERVE, entry, (stamp("", entry),), linked)
            return FoundModel(name, (version,), policy=self._policy(self._policies, name, linked=False))
        except FileNotFoundError:
            return None
        except (OSError, Rejected) as error:
            return FoundModel(printable(name), problem=reason(error))

    def _folder(self, name: str, folder: _Entry, linked: bool) -> FoundModel:
        """A model with its versions, oldest first. Raises Rejected if there are none or they are of two kinds."""
        versions: list[FoundVersion] = []
        inside = {entry.name: entry for entry in entries(folder.path) if not is_ignored(entry.name)}
        for file, entry in inside.items():
            if file in SAVED_MODEL or file.endswith(ARCHIVE):
                raise Rejected(f"'{file}' lies in the model's folder: move it into one for its version, such as 1/")
            version = None if file in _POLICIES else self._version(entry, linked)
            if version is not None:
                versions.append(version)
        if not versions:
            raise Rejected(NO_VERSION)
        if len(versions) > 1:
            versions.sort(key=lambda version: version_key(version.version))
            if len({version.server for version in versions if not version.problem}) > 1:
                raise Rejected("SavedModels and archives under one name: give each kind a name of its own")
        return FoundModel(name, tuple(versions), policy=self._policy(inside, POLICY_STEM, linked))

    def _version(self, folder: _Entry, linked: bool) -> FoundVersion | None:
        """The version that a folder in a model's folder holds, None if it does not look like one."""
        server = Server.TF_SERVING
        try:
            if not _may_be_folder(folder):
                return None
            linked = self._is_link(folder) or linked
            inside = entries(folder.path)
            names = {entry.name: entry for entry in inside}
            archives = [name for name in names if name.endswith(ARCHIVE) and not is_ignored(name)]
            if not names.keys().isdisjoint(SAVED_MODEL):
                if archives:
                    raise Rejected(f"holds a SavedModel and the archive '{archives[0]}': keep one of them")
                _check_number(folder.name)
                files, behind = tree(self._root, inside)
                return self._found(folder.name, server, folder, files, linked or behind)
            if archives:
                server = Server.TORCHSERVE
                if len(archives) > 1:
                    raise Rejected(f"holds {len(archives)} archives: keep one of them")
                if not is_version(folder.name):
                    raise Rejected("is no version: allowed are up to 63 letters, digits, '_', '.', '+' and '-'")
                archive = names[archives[0]]
                linked = self._is_link(archive) or linked
                return self._found(folder.name, server, archive, (stamp("", archive),), linked)
            if folder.name.isdecimal():
                raise Rejected("holds neither saved_model.pb nor an archive (.mar)")
            return None
        except FileNotFoundError:
            return None
        except (OSError, Rejected) as error:
            path = printable(folder.path[self._cut :])
            return FoundVersion(printable(folder.name), server, path, problem=reason(error), linked=linked)

    def _found(
        self, version: str, server: Server, entry: _Entry, files: tuple[FileStamp, ...], linked: bool
    ) -> FoundVersion:
        path = entry.path[self._cut :]
        known = self._known.get(path)
        if known and known.files == files and known.server is server and known.linked is linked and not known.problem:
            return known
        return FoundVersion(version, server, path, files, newest(files), linked=linked)

    def _policy(self, lying: Mapping[str, _Entry], stem: str, linked: bool) -> FoundPolicy | None:
        entry = lying.get(stem + POLICY)
        if entry is None:
            entry = lying.get(f"{stem}.yml")
            return FoundPolicy(entry.path[self._cut :], problem=f"rename it to {stem}{POLICY}") if entry else None
        path = entry.path[self._cut :]
        try:
            linked = self._is_link(entry) or linked
            files = (stamp("", entry),)
        except FileNotFoundError:
            return None
        except (OSError, Rejected) as error:
            return FoundPolicy(path, problem=reason(error), linked=linked)
        return FoundPolicy(path, files, newest(files), linked=linked)

    def _is_link(self, entry: _Entry) -> bool:
        return entry.is_symlink() and follow(self._root, entry) != ""


def _may_be_folder(entry: _Entry) -> bool:
    """A link that leads nowhere, or nowhere good, may be meant as one."""
    return not os.path.isfile(entry.path) if entry.is_symlink() else entry.is_dir()


def _check_number(name: str) -> None:
    """TF Serving knows versions by number; it reads 007 as 7, and so could have two folders for one version."""
    if not (name.isascii() and name.isdecimal() and not name.startswith("0") and int(name) <= MAX_TF_VERSION):
        raise Rejected("is no version of a SavedModel: name the folder with a number from 1 on, without leading zeros")
