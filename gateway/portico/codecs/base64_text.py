"""Base64 as clients write it → bytes. Used by every codec and protocol that reads {"b64": "…"}.

Source: absl::Base64Unescape, by which TF Serving reads it: white space counts for nothing, and padding may be left out.
"""

import re
from base64 import b64decode
from typing import Any

_SPACE = re.compile(r"[ \t\n\v\f\r]+")
_FOREIGN = re.compile(r"[^A-Za-z0-9+/=. \t\n\v\f\r]")
_PADDED = re.compile(r"([A-Za-z0-9+/]*)([=.]*)")


class NotBase64(ValueError):
    """The message says which character is wrong, and where; it begins with "not base64"."""


def decode(text: Any) -> bytes:
    """The bytes of a base64 text in the standard alphabet. Raises NotBase64, also for what is no text."""
    if not isinstance(text, str):
        raise NotBase64("not base64: it has to be a string")
    foreign = _FOREIGN.search(text)
    if foreign:
        raise NotBase64(f"not base64: {foreign.group()!a} at position {foreign.start()} is none of its characters")
    found = _PADDED.fullmatch(_SPACE.sub("", text))
    if found is None:
        raise NotBase64("not base64: characters follow its padding")
    digits, padding = found.groups()
    missing = -len(digits) % 4
    if missing == 3:
        raise NotBase64(f"not base64: {len(digits)} characters are one too many or too few, as if it were cut off")
    if padding and len(padding) != missing:
        raise NotBase64(f"not base64: {len(digits)} characters take {missing} of padding, or none, not {len(padding)}")
    return b64decode(digits + "=" * missing)
