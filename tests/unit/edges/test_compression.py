"""Compressed bodies of REST calls, as clients send them; `test_framing.py` has those of gRPC."""

import bz2
import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from asgi_client import Answer, call
from fakes import no_memory
from portico.edges.compression import inflate
from portico.edges.rest import Endpoint, Request, Response, RestEdge
from portico.errors import TooLarge
from sample_gateway import nothing_here

LIMIT = 1000


async def echo(request: Request) -> Response:
    return Response(request.body, headers=[(b"content-type", b"text/plain")])


def render(status: int, message: str) -> bytes:
    return message.encode()


EDGE = RestEdge([Endpoint("POST", "/echo", echo, render)], nothing_here, no_memory(), LIMIT, 20.0)


async def post(body: Any, encoding: bytes) -> Answer:
    return await call(EDGE, "POST", "/echo", body, [(b"content-encoding", encoding)])


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        (b"gzip", gzip.compress),
        (b"x-gzip", gzip.compress),
        (b"GZIP", gzip.compress),
        (b"deflate", zlib.compress),
        (b"identity", bytes),
        (b"", bytes),
    ],
)
async def test_a_compressed_body(encoding: bytes, pack: Callable[[bytes], bytes]) -> None:
    """A handler reads what the client had compressed, up to the limit and of the limit itself."""
    for body in (b"", b"hello", bytes(range(250)) * 4):
        packed = pack(body)
        answer = await post([packed[:3], packed[3:]], encoding)
        assert (answer.status, answer.body) == (200, body)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
async def test_a_body_that_inflates_beyond_the_limit(pack: Callable[[bytes], bytes]) -> None:
    """A small body that inflates beyond the limit is 413, as one is that is too large as it comes."""
    encoding = b"gzip" if pack is gzip.compress else b"deflate"
    packed = pack(bytes(LIMIT + 1))
    assert len(packed) < 100
    assert (await post(packed, encoding)).status == 413
    assert (await post(bytes(LIMIT + 1), encoding)).status == 413


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_memory_of_a_bomb(encoding: str) -> None:
    """What inflates beyond the limit costs memory of about the limit, however large it would become."""
    limit, size = 1 << 20, 1 << 28
    packer = zlib.compressobj(9, wbits=31 if encoding == "gzip" else 15)
    bomb = b"".join([packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]) + packer.flush()
    assert len(bomb) < limit
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            inflate(bomb, encoding, limit, "body")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * limit


@pytest.mark.parametrize(
    ("body", "encoding", "says"),
    [
        (b"no gzip", b"gzip", "The body does not decompress as gzip"),
        (b"no zlib", b"deflate", "The body does not decompress as deflate"),
        (gzip.compress(b"whole")[:-1], b"gzip", "breaks off"),
        (b"", b"gzip", "breaks off"),
        (gzip.compress(b"one") + gzip.compress(b"two"), b"gzip", "send it as one stream"),
        (zlib.compress(b"one") + b"two", b"deflate", "send it as one stream"),
        (bz2.compress(b"one"), b"br", "encoded as br; send it as it is, or as gzip or deflate"),
        (gzip.compress(b"one"), b"gzip, gzip", "encoded as gzip, gzip"),
    ],
)
async def test_what_cannot_be_inflated(body: bytes, encoding: bytes, says: str) -> None:
    """A body that is not what its encoding says, or in one that is not read, is 400 with what is wrong."""
    answer = await post(body, encoding)
    assert answer.status == 400
    assert says in answer.body.decode()
