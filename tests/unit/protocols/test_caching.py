"""What clients and the gateway tell each other about the cache, the same in every protocol."""

import pytest

from portico.dispatch import Answer, CacheStatus
from portico.edges.grpc import Call
from portico.edges.rest import Request
from portico.inference import InferenceResponse
from portico.protocols.caching import cache_header, cache_metadata, wants_fresh
from portico.routing import Route, Server


@pytest.mark.parametrize(
    ("control", "fresh"),
    [
        (None, False),
        (b"", False),
        (b"max-age=0", False),
        (b"no-cache", True),
        (b"no-store", True),
        (b"max-age=0, No-Cache", True),
    ],
)
def test_who_wants_a_fresh_answer(control: bytes | None, fresh: bool) -> None:
    """`no-cache` and `no-store` in `cache-control` ask for a fresh answer, over REST as over gRPC."""
    headers = [] if control is None else [(b"cache-control", control)]
    assert wants_fresh(Request("GET", {}, headers, b"", 0.0)) is fresh
    assert wants_fresh(Call("/a/b", headers, 0.0)) is fresh


@pytest.mark.parametrize("status", CacheStatus)
def test_x_cache(status: CacheStatus) -> None:
    """`x-cache` says HIT, MISS or BYPASS."""
    answer = Answer(Route("m", "1", Server.TF_SERVING, "s", "1", "f"), InferenceResponse(()), status)
    assert cache_header(answer) == (b"x-cache", status.name.encode())
    assert cache_metadata(answer) == ("x-cache", status.name)
