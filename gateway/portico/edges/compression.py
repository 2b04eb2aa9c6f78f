"""Compressed bodies and messages: unpacked under a limit, so that a small one cannot become a large one. Used by both
edges; knows no protocol.
"""

import zlib
from collections.abc import Mapping

from portico.errors import InvalidRequest, TooLarge

_WINDOW_BITS: Mapping[str, int] = {"gzip": 31, "deflate": 15}
"""zlib's `wbits` by the name of an encoding; "deflate" means zlib's format, in HTTP (RFC 9110, section 8.4.1) as in
gRPC.
"""


def inflates(encoding: str) -> bool:
    """Whether `inflate` reads this encoding."""
    return encoding in _WINDOW_BITS


def inflate(data: bytes, encoding: str, limit: int, what: str) -> bytes:
    """What was packed; no more than `limit` bytes are ever unpacked. `what` names the data in errors.

    Raises InvalidRequest for data that is not exactly one whole stream of `encoding`, TooLarge above the limit.
    """
    inflater = zlib.decompressobj(wbits=_WINDOW_BITS[encoding])
    try:
        unpacked = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise InvalidRequest(f"The {what} does not decompress as {encoding}: {error}.") from error
    if len(unpacked) > limit:
        raise TooLarge(limit)
    if not inflater.eof:
        raise InvalidRequest(f"The compressed {what} breaks off; it is not whole {encoding}.")
    if inflater.unused_data:
        raise InvalidRequest(f"The compressed {what} goes on behind the end of its {encoding}; send it as one stream.")
    return unpacked
