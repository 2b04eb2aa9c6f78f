"""The error for what lies in the repository and cannot be what it seems to be, and its words. Raised by whatever reads
files; `scan` and `repository` turn it into problems of models and versions.
"""

import os


class Rejected(Exception):
    """Something in the repository cannot be what it seems to be; the message is the reason shown to the user."""


def reason(error: OSError | Rejected) -> str:
    """What is shown to the user."""
    if isinstance(error, Rejected):
        return printable(str(error))
    name = os.path.basename(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else ""
    return printable(f"cannot be read: {error.strerror or error}{f': {name}' if name else ''}")


def printable(text: str) -> str:
    """File names may be no text at all; JSON must be."""
    return text.encode(errors="backslashreplace").decode()
