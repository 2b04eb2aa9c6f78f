"""Reads a whole file of the repository, under a limit. Called for policies and warm-up requests: both are untrusted."""

import os
import stat
from pathlib import Path

from portico.controller.rejected import Rejected


def read_file(path: Path, limit: int) -> bytes:
    """The content, up to `limit` bytes. Raises Rejected for more and for what is no regular file; OSError."""
    # Without O_NONBLOCK, opening a pipe waits until somebody writes to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Rejected("is no file")
        chunks, left = [], limit + 1
        while left > 0 and (chunk := os.read(descriptor, min(left, 1 << 20))):
            chunks.append(chunk)
            left -= len(chunk)
    finally:
        os.close(descriptor)
    if left <= 0:
        raise Rejected(f"is larger than {limit >> 10} KiB")
    return b"".join(chunks)
