"""Forms of HTTP → named parts: `multipart/form-data` (RFC 7578) and `application/x-www-form-urlencoded`. Used where a
form is for a model that takes tensors; TorchServe takes apart those for its own.
"""

from email.message import Message
from email.parser import HeaderParser
from urllib.parse import unquote_to_bytes

from portico.errors import InvalidRequest
from portico.inference import check_count

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"


def parts_of_form(body: bytes, content_type: str) -> dict[str, bytes]:
    """The parts by name, empty for what is no form. Raises InvalidRequest for two of one name, and for too many."""
    kind, boundary = _kind(content_type)
    found = _multipart(body, boundary) if kind == MULTIPART else _urlencoded(body) if kind == URLENCODED else []
    parts = dict(found)
    if len(parts) < len(found):
        raise InvalidRequest("The form has two parts of one name.")
    return parts


def _kind(content_type: str) -> tuple[str, bytes]:
    """(media type, boundary)."""
    message = Message()
    message["content-type"] = content_type
    boundary = message.get_param("boundary", "")
    return message.get_content_type(), boundary.encode() if isinstance(boundary, str) else b""


def _urlencoded(body: bytes) -> list[tuple[str, bytes]]:
    """Empty if any of it is not `name=value`."""
    check_count(body.count(b"&") + 1, "parts")
    pairs = [entry.partition(b"=") for entry in body.replace(b"+", b" ").split(b"&")]
    if not all(name and equals for name, equals, _ in pairs):
        return []
    return [(_name(unquote_to_bytes(name)), unquote_to_bytes(value)) for name, _, value in pairs]


def _multipart(body: bytes, boundary: bytes) -> list[tuple[str, bytes]]:
    """Empty if it has no such boundary, or no end."""
    if not boundary:
        return []
    delimiter = b"\r\n--" + boundary
    pieces = (b"\r\n" + body).split(delimiter)
    check_count(len(pieces), "parts")
    parts: list[tuple[str, bytes]] = []
    for piece in pieces[1:]:
        if piece.startswith(b"--"):
            return parts
        head, _, content = piece.partition(b"\r\n\r\n")
        # Names are UTF-8 as they are, which is no form of a header: as Latin-1 their bytes come through.
        name = HeaderParser().parsestr(head.lstrip().decode("latin-1")).get_param("name", "", "content-disposition")
        parts.append((_name(name.encode("latin-1") if isinstance(name, str) else b""), content))
    return []


def _name(raw: bytes) -> str:
    return raw.decode(errors="replace")
