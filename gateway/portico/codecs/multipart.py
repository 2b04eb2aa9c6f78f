"""Named parts → a form (`multipart/form-data`, RFC 7578) from which TorchServe reads the same parts again. Used by
`codecs.handler`.
"""

from collections.abc import Iterable
from secrets import token_hex

from portico.errors import InvalidRequest

_LOST = '":;,=\\'
"""Characters that Netty, TorchServe's HTTP library, drops from a part's name or puts a space for."""


def multipart(parts: Iterable[tuple[str, bytes]]) -> tuple[bytes, str]:
    """The (body, content type) of a form with these parts, none of which has a content type.

    Raises InvalidRequest for a name that would not reach the handler as it is.
    """
    # 128 random bits: no part holds them by chance.
    boundary = token_hex(16)
    chunks: list[bytes] = []
    for name, content in parts:
        if not name or name != name.strip() or not name.isprintable() or any(letter in name for letter in _LOST):
            raise InvalidRequest(
                f"Input '{name}': the name of a part is of printable characters, has no space at its ends, and none of "
                f"{' '.join(_LOST)} in it."
            )
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        chunks += (head.encode(), content, b"\r\n")
    chunks.append(f"--{boundary}--\r\n".encode())
    return b"".join(chunks), f"multipart/form-data; boundary={boundary}"
