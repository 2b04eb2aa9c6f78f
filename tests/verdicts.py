"""What a gateway that works may answer to a hostile request. Used by the fuzz tests, in-process and through the stack,
whose models never fail: no failure is a model server's own.
"""

import re

from portico.edges.status import GrpcCode

ALLOWED = frozenset(
    {
        GrpcCode.OK,
        GrpcCode.INVALID_ARGUMENT,
        GrpcCode.NOT_FOUND,
        GrpcCode.PERMISSION_DENIED,
        GrpcCode.RESOURCE_EXHAUSTED,
        GrpcCode.FAILED_PRECONDITION,
        GrpcCode.UNIMPLEMENTED,
    }
)
"""Neither INTERNAL nor UNKNOWN; and not UNAVAILABLE either, as which Envoy tells of a gateway that has crashed."""

_INSIDE = re.compile(r"Portico failed|--[0-9a-f]{12}|--loaded|Traceback")
"""What only the log should know: a fault, the name that a model is loaded under, code."""


def check_grpc(code: int, text: str, *, timed: bool) -> None:
    """`text` is all that the client reads; only a call that is `timed` by its client may be late."""
    assert code in ALLOWED or (timed and code == GrpcCode.DEADLINE_EXCEEDED), (code, text)
    assert not _INSIDE.search(text), text


def check_http(status: int, text: str) -> None:
    """`text` is all that the client reads."""
    assert 200 <= status < 500, (status, text)
    assert not _INSIDE.search(text), text
