"""What clients are told of the cache, the same in every protocol: as HTTP headers, or as gRPC metadata."""

from time import time

from portico.edges.asgi import Headers
from portico.freshness import CacheStatus, Stamp, matches

CACHE_CONTROL, IF_NONE_MATCH = b"cache-control", b"if-none-match"


def cache_headers(status: CacheStatus, stamp: Stamp | None) -> Headers:
    """`x-cache: HIT | MISS | COALESCED | BYPASS`, the `etag` of what is kept, and its `age` (s) if it was before."""
    headers = [(b"x-cache", status.value.encode())]
    if stamp is not None:
        headers.append((b"etag", stamp.etag.encode()))
        if status is CacheStatus.HIT:
            headers.append(age(stamp))
    return headers


def age(stamp: Stamp) -> tuple[bytes, bytes]:
    """`age` of a kept answer, in seconds."""
    return b"age", str(stamp.age(time())).encode()


def is_known(stamp: Stamp | None, if_none_match: str) -> bool:
    """Whether the client that says `if-none-match` has this answer already."""
    return stamp is not None and bool(if_none_match) and matches(stamp.etag, if_none_match)
