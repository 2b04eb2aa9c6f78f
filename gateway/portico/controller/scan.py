"""A pure read of the model repository: names, versions and file stamps, without opening a file. Called in a thread for
each tick. What is wrong with one name is written beside it and touches no other.

    iris/1/saved_model.pb …      TF Serving, version 1
    digits.mar                   TorchServe; the version is the archive's
    faces/3/<anything>.mar       TorchServe, version 3
"""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from portico.controller.inventory import FileStamp, FoundModel, FoundVersion, Listing
from portico.controller.servable import version_key
from portico.routing import Server

ARCHIVE = ".mar"
SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
MAX_FILES = 100_000
MAX_DEPTH = 32
MAX_TF_VERSION = 2**63 - 1

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_]|-(?!-)|\.(?!\.)){0,126}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,62}")
_TEMPORARY = ("~", ".tmp", ".temp", ".part", ".partial", ".swp", ".filepart", ".crdownload", ".download")
_NAME_RULE = "allowed are up to 127 letters, digits, '_', single '-' and single '.', beginning with a letter or digit"


class Rejected(Exception):
    """Something in the repository cannot be what it seems to be; the message is the reason shown to the user."""


def is_version(name: str) -> bool:
    """Whether this may be a version's name."""
    return _VERSION.fullmatch(name) is not None


def scan(repository: Path) -> Listing:
    """Everything in `repository` that means to be a model. Raises OSError if the repository itself cannot be read."""
    root = os.path.realpath(repository)
    models: dict[str, FoundModel] = {}
    for entry in _entries(root):
        found = _top_level(root, entry)
        if found is None:
            continue
        other = models.get(found.name)
        if other is not None:
            reason = f"two sources for one name: the folder '{found.name}' and the archive '{found.name}{ARCHIVE}'"
            found = replace(found, versions=(), problem=f"{reason}; remove one of them")
        models[found.name] = found
    return Listing(models)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not _ignored(entry.name)), key=lambda entry: entry.name)


def _ignored(name: str) -> bool:
    return name.startswith(".") or name.endswith(_TEMPORARY) or name in {"lost+found", "__pycache__"}


def _top_level(root: str, entry: os.DirEntry[str]) -> FoundModel | None:
    is_archive = entry.name.endswith(ARCHIVE)
    name = _printable(entry.name.removesuffix(ARCHIVE))
    try:
        _stay_inside(root, entry)
        is_folder = entry.is_dir()
        if not is_archive and not is_folder:
            return None
        if not _NAME.fullmatch(name):
            raise Rejected(f"illegal name: {_NAME_RULE}")
        if not is_archive:
            return FoundModel(name, tuple(_versions(root, entry.path)))
        if is_folder:
            raise Rejected("a folder named like an archive: pack it with torch-model-archiver, or rename it")
        return FoundModel(name, (_found(root, "", Server.TORCHSERVE, entry.path),))
    except FileNotFoundError:
        return None
    except (OSError, Rejected) as error:
        return FoundModel(name, problem=reason(error))


def _versions(root: str, folder: str) -> Iterator[FoundVersion]:
    """The versions in a model's folder, oldest first. Raises Rejected if there are none or they are of two kinds."""
    versions: list[FoundVersion] = []
    for entry in _entries(folder):
        if entry.name in SAVED_MODEL or entry.name.endswith(ARCHIVE):
            raise Rejected(f"'{entry.name}' lies in the model's folder: move it into one for its version, such as 1/")
        version = _version(root, entry)
        if version is not None:
            versions.append(version)
    if not versions:
        raise Rejected("the folder holds no version: put a SavedModel in 1/, or an archive (.mar) in 1/")
    if len({version.server for version in versions if not version.problem}) > 1:
        raise Rejected("SavedModels and archives under one name: give each kind a name of its own")
    return iter(sorted(versions, key=lambda version: version_key(version.version)))


def _version(root: str, entry: os.DirEntry[str]) -> FoundVersion | None:
    """The version that a folder in a model's folder holds, None if it does not look like one."""
    server = Server.TF_SERVING
    try:
        _stay_inside(root, entry)
        if not entry.is_dir():
            return None
        names = [inner.name for inner in _entries(entry.path)]
        archives = [name for name in names if name.endswith(ARCHIVE)]
        if any(name in SAVED_MODEL for name in names):
            if archives:
                raise Rejected(f"holds a SavedModel and the archive '{archives[0]}': keep one of them")
            _check_number(entry.name)
            return _found(root, entry.name, server, entry.path)
        if archives:
            server = Server.TORCHSERVE
            if len(archives) > 1:
                raise Rejected(f"holds {len(archives)} archives: keep one of them")
            if not is_version(entry.name):
                raise Rejected("is no version: allowed are up to 63 letters, digits, '_', '.', '+' and '-'")
            return _found(root, entry.name, server, os.path.join(entry.path, archives[0]))
        if entry.name.isdecimal():
            raise Rejected("holds neither saved_model.pb nor an archive (.mar)")
        return None
    except FileNotFoundError:
        return None
    except (OSError, Rejected) as error:
        name, path = _printable(entry.name), _printable(os.path.relpath(entry.path, root))
        return FoundVersion(name, server, path, problem=reason(error))


def _check_number(name: str) -> None:
    """TF Serving knows versions by number; it reads 007 as 7, and so could have two folders for one version."""
    if not (name.isascii() and name.isdecimal() and not name.startswith("0") and int(name) <= MAX_TF_VERSION):
        raise Rejected("is no version of a SavedModel: name the folder with a number from 1 on, without leading zeros")


def _found(root: str, version: str, server: Server, path: str) -> FoundVersion:
    files = tuple(sorted(_stamps(root, path)))
    newest = max((max(mtime, ctime) for _, _, mtime, ctime, _ in files), default=0) / 1e9
    return FoundVersion(version, server, os.path.relpath(path, root), files, newest)


def _stamps(root: str, path: str) -> Iterator[FileStamp]:
    """The stamps of one file, or of all files below a folder."""
    if not os.path.isdir(path):
        yield _stamp("", os.stat(path))
        return
    pending = [("", path, 0)]
    count = 0
    while pending:
        prefix, folder, depth = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                count += 1
                if count > MAX_FILES or depth > MAX_DEPTH:
                    raise Rejected(f"holds more than {MAX_FILES} files or {MAX_DEPTH} levels of folders")
                _stay_inside(root, entry)
                name = prefix + entry.name
                if entry.is_dir():
                    pending.append((f"{name}/", entry.path, depth + 1))
                else:
                    yield _stamp(name, entry.stat())


def _stamp(name: str, stat: os.stat_result) -> FileStamp:
    return name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _stay_inside(root: str, entry: os.DirEntry[str]) -> None:
    if not entry.is_symlink():
        return
    target = os.path.realpath(entry.path)
    if os.path.commonpath((root, target)) != root:
        raise Rejected(f"the symbolic link '{entry.name}' leads out of the repository")
    if not os.path.exists(target):
        raise Rejected(f"the symbolic link '{entry.name}' leads nowhere")
    folder = os.path.realpath(os.path.dirname(entry.path))
    if os.path.commonpath((target, folder)) == target:
        raise Rejected(f"the symbolic link '{entry.name}' leads back to a folder that holds it")


def reason(error: OSError | Rejected) -> str:
    """What is shown to the user."""
    if isinstance(error, Rejected):
        return _printable(str(error))
    name = os.path.basename(str(error.filename or ""))
    return _printable(f"cannot be read: {error.strerror or error}{f': {name}' if name else ''}")


def _printable(text: str) -> str:
    """File names may be no text at all; JSON must be."""
    return text.encode(errors="backslashreplace").decode()
