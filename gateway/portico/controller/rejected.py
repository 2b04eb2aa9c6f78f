"""The error for what lies in the repository and cannot be what it seems to be, and its words. Raised by whatever reads
files; `scan` and `repository` turn it into problems of models and versions.
"""

import os
from collections.abc import Callable


class Rejected(Exception):
    """Something in the repository cannot be what it seems to be; the message is the reason shown to the user."""


class Stopped(Exception):
    """Nobody wants to know any more what is read: the files have changed, or are gone."""


StopSign = Callable[[], bool]
"""Asked between two pieces of a file whether to stop."""


def never() -> bool:
    """The stop sign that lets everything be read to its end."""
    return False


def reason(error: OSError | Rejected) -> str:
    """What is shown to the user."""
    if isinstance(error, Rejected):
        return printable(str(error))
    name = os.path.basename(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else ""
    return printable(f"cannot be read: {error.strerror or error}{f': {name}' if name else ''}")


def printable(text: str) -> str:
    """File names may be no text at all, or hold line feeds and worse; JSON, logs and terminals must not."""
    text = text.encode(errors="backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
