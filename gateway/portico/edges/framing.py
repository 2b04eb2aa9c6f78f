"""gRPC's wire details over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md): message frames, compression, timeouts, metadata and
status text. Pure functions on bytes; `edges/grpc.py` does the talking.
"""

from base64 import b64decode, b64encode
from urllib.parse import quote

from portico.edges.asgi import Headers
from portico.edges.compression import inflate, inflates
from portico.errors import InvalidRequest, TooLarge

PREFIX = 5
"""Bytes before each message: one flag (0 plain, 1 compressed) and the length, four bytes big-endian."""

MESSAGE_LIMIT = 2048
"""Bytes of UTF-8 in a status message; percent-encoded they may take three times as much."""

ACCEPTED_ENCODINGS = b"identity,gzip,deflate"
_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def frame(*parts: bytes) -> bytes:
    """One uncompressed message, put together from its parts, ready for the wire."""
    return b"".join((b"\x00", sum(map(len, parts)).to_bytes(4, "big"), *parts))


def frame_size(gathered: bytes | bytearray, limit: int) -> int | None:
    """Bytes of the first frame, prefix included; None as long as it has not come whole. Raises TooLarge."""
    if len(gathered) < PREFIX:
        return None
    size = PREFIX + int.from_bytes(gathered[1:PREFIX], "big")
    if size > PREFIX + limit:
        raise TooLarge(limit)
    return size if len(gathered) >= size else None


def unframe(body: bytes, encoding: bytes, limit: int) -> bytes:
    """The one message of a unary request's body, decompressed.

    `encoding` is the `grpc-encoding` header, `limit` the largest message in bytes. Raises InvalidRequest for a body
    that is not exactly one whole frame, TooLarge for a message over the limit, compressed or not.
    """
    if len(body) < PREFIX:
        raise InvalidRequest(f"A gRPC message starts with {PREFIX} bytes of prefix, {len(body)} came.")
    length = int.from_bytes(body[1:PREFIX], "big")
    if length > limit:
        raise TooLarge(limit)
    if len(body) != PREFIX + length:
        raise InvalidRequest(
            f"A unary call takes exactly one message: its prefix says {length} bytes, {len(body) - PREFIX} came."
        )
    if body[0] == 0:
        return body[PREFIX:]
    if body[0] != 1:
        raise InvalidRequest(f"A gRPC message's first byte is 0 or 1, not {body[0]}.")
    name = encoding.decode("latin-1")
    if not inflates(name):
        raise InvalidRequest("The message is marked as compressed, and no grpc-encoding header says how.")
    return inflate(body[PREFIX:], name, limit, "message")


def supports(encoding: bytes) -> bool:
    """Whether messages of this `grpc-encoding` can be read."""
    return encoding in (b"", b"identity") or inflates(encoding.decode("latin-1"))


def parse_timeout(value: bytes) -> float:
    """Seconds of a `grpc-timeout` header: up to eight digits and a unit of `HMSmun`. Raises InvalidRequest."""
    text = value.decode("latin-1")
    digits, unit = text[:-1], text[-1:]
    if unit not in _SECONDS or not (digits.isascii() and digits.isdigit()) or len(digits) > 8:
        raise InvalidRequest(f"grpc-timeout is up to eight digits and one of H, M, S, m, u, n; not '{text}'.")
    return int(digits) * _SECONDS[unit]


def status_message(text: str) -> bytes:
    """Text of any language as a `grpc-message` header: UTF-8, percent-encoded but for printable ASCII.

    Cut at `MESSAGE_LIMIT` bytes of UTF-8, because clients refuse answers whose headers are over 8 KiB.
    """
    text = text.encode(errors="replace")[:MESSAGE_LIMIT].decode(errors="ignore")
    return quote(text, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()


def decode_metadata(headers: Headers) -> list[tuple[str, str | bytes]]:
    """The caller's metadata: what is neither HTTP's nor gRPC's own. Values of `-bin` keys are decoded to bytes.

    Raises InvalidRequest for base64 that is none.
    """
    metadata: list[tuple[str, str | bytes]] = []
    for key, value in headers:
        if key.startswith((b":", b"grpc-")) or key in _RESERVED:
            continue
        name = key.decode("latin-1")
        if not name.endswith("-bin"):
            metadata.append((name, value.decode("latin-1")))
            continue
        # A proxy may join values of one key with commas; base64 has none.
        for part in value.split(b","):
            text = part.strip()
            try:
                metadata.append((name, b64decode(text + b"=" * (-len(text) % 4), validate=True)))
            except ValueError:
                raise InvalidRequest(f"The value of metadata '{name}' is not base64.") from None
    return metadata


_RESERVED = frozenset({b"host", b"content-type", b"te", b"user-agent", b"content-length", b"connection"})


def encode_metadata(metadata: list[tuple[str, str | bytes]]) -> Headers:
    """Metadata as headers or trailers; bytes go base64-encoded, under keys that end in `-bin`."""
    return [
        (key.encode("latin-1"), b64encode(value).rstrip(b"=") if isinstance(value, bytes) else value.encode("latin-1"))
        for key, value in metadata
    ]
