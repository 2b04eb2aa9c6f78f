"""Judges a TorchServe archive (`.mar`) without running or unpacking anything of it. Called by `repository` for files
that have settled.

The format is that of torch-model-archiver 0.12: a zip file with `MAR-INF/MANIFEST.json`.
"""

import json
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from portico.controller.fingerprint import open_file
from portico.controller.rejected import Rejected, Stopped, StopSign, never
from portico.controller.scan import is_version

MANIFEST = "MAR-INF/MANIFEST.json"
MAX_MANIFEST_BYTES = 1 << 20
MAX_MEMBERS = 100_000
MAX_DIRECTORY_BYTES = 64 << 20
MAX_UNPACKED_BYTES = 64 << 30
PLAUSIBLE_BYTES, MAX_RATIO = 1 << 30, 100
"""What unpacks to more than these bytes, and to more than so many times its size, is no model. Weights hardly shrink,
and what is small here would fill the disk of the model server.
"""
CHUNK = 1 << 20
_LONGEST_END = 56 + 20 + 22 + (1 << 16)
"""Bytes of the records at the end of a zip file, with the longest comment."""
_IN_LARGE = 0xFFFFFFFF
"""Says that the size stands in the larger record."""
DEFAULT_VERSION = "1.0"
"""TorchServe's version for an archive that names none (ModelManager.createModelArchive)."""


def archive_version(path: Path, stopped: StopSign = never) -> str:
    """The model version inside the archive at `path`, after everything that can be checked has been.

    Raises Rejected with the reason for what TorchServe could not load, or should not; OSError if it cannot be read;
    Stopped.
    """
    try:
        with open_file(path) as file:
            _check_directory(file)
            archive = zipfile.ZipFile(file)
            members = archive.infolist()
            _check_size(members, os.fstat(file.fileno()).st_size)
            for member in members:
                _check_name(member.filename)
            version = _check_manifest(_manifest(archive), {member.filename for member in members})
            for member in members:
                _check_content(archive, member, stopped)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise Rejected(f"the archive is cut off or broken: {error}") from error
    return version


def _check_content(archive: zipfile.ZipFile, member: zipfile.ZipInfo, stopped: StopSign) -> None:
    """Raises BadZipFile where the checksum is wrong."""
    with archive.open(member) as content:
        while content.read(CHUNK):
            if stopped():
                raise Stopped


def _check_directory(file: BinaryIO) -> None:
    """Raises Rejected for a list of files that would take too much memory to read, whatever is in it.

    Its size stands at the end of a zip file (APPNOTE.TXT 4.3.14 and 4.3.16); a file without an end is not checked.
    """
    file.seek(max(0, file.seek(0, os.SEEK_END) - _LONGEST_END))
    end = file.read(_LONGEST_END)
    large, small = end.rfind(b"PK\x06\x06"), end.rfind(b"PK\x05\x06")
    sizes = [
        struct.unpack_from(form, end, at + offset)
        for form, at, offset in (("<Q", large, 40), ("<I", small, 12))
        if at >= 0 and at + offset + 8 <= len(end)
    ]
    if any(size != _IN_LARGE and size > MAX_DIRECTORY_BYTES for (size,) in sizes):
        raise Rejected(f"the archive's list of files is larger than {MAX_DIRECTORY_BYTES} bytes")
    file.seek(0)


def _check_size(members: list[zipfile.ZipInfo], packed: int) -> None:
    if len(members) > MAX_MEMBERS:
        raise Rejected(f"the archive holds more than {MAX_MEMBERS} files")
    unpacked = sum(member.file_size for member in members)
    if unpacked > MAX_UNPACKED_BYTES:
        raise Rejected(f"the archive unpacks to {unpacked} bytes, and to more than {MAX_UNPACKED_BYTES} none may")
    if unpacked > PLAUSIBLE_BYTES and unpacked > MAX_RATIO * packed:
        raise Rejected(f"the archive unpacks to {unpacked} bytes, more than {MAX_RATIO} times its size: no model does")


def _check_name(name: str) -> None:
    if name.startswith("/") or "\\" in name or ".." in name.split("/"):
        raise Rejected(f"the archive names a path outside of itself: '{name}'")


def _manifest(archive: zipfile.ZipFile) -> dict[str, Any]:
    try:
        member = archive.getinfo(MANIFEST)
    except KeyError:
        raise Rejected(f"the archive has no {MANIFEST}: make it with torch-model-archiver") from None
    if member.file_size > MAX_MANIFEST_BYTES:
        raise Rejected(f"{MANIFEST} is larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        manifest = json.loads(archive.read(member))
    except (ValueError, RecursionError) as error:
        raise Rejected(f"{MANIFEST} is no JSON: {error}") from error
    model = manifest.get("model") if isinstance(manifest, dict) else None
    if not isinstance(model, dict):
        raise Rejected(f"{MANIFEST} has no object 'model'")
    return model


def _check_manifest(model: dict[str, Any], members: set[str]) -> str:
    version = model.get("modelVersion", DEFAULT_VERSION)
    if not isinstance(version, str) or not is_version(version):
        raise Rejected(f"{MANIFEST} has the model version {version!r}: allowed are letters, digits, '_', '.', '+', '-'")
    for key in ("modelFile", "serializedFile", "handler", "requirementsFile", "configFile"):
        name = model.get(key)
        if name is None:
            continue
        if not isinstance(name, str):
            raise Rejected(f"{MANIFEST} has no text as its '{key}'")
        # "handler" is a file, "file.py:function", or the name of one of TorchServe's own handlers.
        file = name.partition(":")[0] if key == "handler" else name
        if file not in members and (key != "handler" or file.endswith(".py") or "/" in file):
            raise Rejected(f"{MANIFEST} names the {key} '{file}', which is not in the archive")
    return version
