"""What clients and the gateway tell each other about the cache, the same in every protocol: as HTTP headers, or as gRPC
metadata.
"""

from portico.dispatch import Answer
from portico.edges.grpc import Call
from portico.edges.rest import Request


def wants_fresh(caller: Request | Call) -> bool:
    """Whether `cache-control` (RFC 9111, section 5.2.1) says that the answer shall not come from a cache."""
    control = caller.header(b"cache-control").lower()
    return "no-cache" in control or "no-store" in control


def cache_header(answer: Answer) -> tuple[bytes, bytes]:
    """`x-cache: HIT | MISS | BYPASS`."""
    return b"x-cache", answer.cache.value.encode()


def cache_metadata(answer: Answer) -> tuple[str, str | bytes]:
    """The same as gRPC metadata."""
    return "x-cache", answer.cache.value
