"""The digest of a version's files: the identity of what is loaded, in the servable's name and in every cache key."""

import os
import stat
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from portico.controller.inventory import FileStamp
from portico.controller.rejected import Rejected, Stopped, StopSign, never

CHUNK = 1 << 20


def fingerprint(root: Path, files: Iterable[FileStamp], stopped: StopSign = never) -> str:
    """32 hexadecimal digits over names, sizes and contents of `files` below `root` (or of `root` itself, where the one
    name is empty). Raises OSError when a file cannot be read, Rejected when it is none any more, Stopped.
    """
    digest = blake2b(digest_size=16)
    for name, *_ in sorted(files):
        content, size = _content(root / name if name else root, stopped)
        encoded = os.fsencode(name)
        digest.update(b"%d:%s:%d:" % (len(encoded), encoded, size))
        digest.update(content)
    return digest.hexdigest()


def _content(path: Path, stopped: StopSign) -> tuple[bytes, int]:
    """The digest of one file and its length in bytes, read in chunks."""
    digest, size = blake2b(digest_size=16), 0
    with open_file(path) as file:
        while chunk := file.read(CHUNK):
            if stopped():
                raise Stopped
            digest.update(chunk)
            size += len(chunk)
    return digest.digest(), size


def open_file(path: Path) -> BinaryIO:
    """Opens a file to read. Raises OSError, and Rejected for what is no regular file."""
    # What was a file when it was scanned may be a pipe now: opening that would wait for somebody to write to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Rejected(f"'{path.name}' is no file")
    return os.fdopen(descriptor, "rb")
