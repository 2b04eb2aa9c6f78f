"""The request's body under a limit."""

import pytest

from asgi_client import Exchange
from portico.edges.asgi import ClientGone, Message, Receive, read_body
from portico.errors import TooLarge


def sent(*chunks: bytes) -> Receive:
    return Exchange("POST", "/", chunks, (), eager=False).receive


@pytest.mark.parametrize("chunks", [[b""], [b"0123456789"], [b"01234", b"56789"], [b"", b"0", b"", b"123456789", b""]])
async def test_a_body(chunks: list[bytes]) -> None:
    """A body of up to the limit arrives whole, in however many pieces it comes."""
    assert await read_body(sent(*chunks), 10) == b"".join(chunks)


@pytest.mark.parametrize("chunks", [[b"0123456789+"], [b"01234", b"56789", b"+"], [b"01234567890", b""]])
async def test_a_body_over_the_limit(chunks: list[bytes]) -> None:
    """A body that is a byte over the limit is too large, in however many pieces it comes."""
    with pytest.raises(TooLarge, match="10 bytes"):
        await read_body(sent(*chunks), 10)
    assert len(await read_body(sent(*chunks), 9, overhead=2)) == 11


async def test_a_body_without_end() -> None:
    """An endless body is refused once it is over the limit, and not read on."""
    read = 0

    async def receive() -> Message:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"0123", "more_body": True}

    with pytest.raises(TooLarge):
        await read_body(receive, 10)
    assert read == 3


@pytest.mark.parametrize("before", [[], [{"type": "http.request", "body": b"x", "more_body": True}]])
async def test_a_body_that_breaks_off(before: list[Message]) -> None:
    """A client that goes before its body is whole has gone; what came is not taken for the body."""
    events = [*before, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return events.pop(0)

    with pytest.raises(ClientGone):
        await read_body(receive, 10)
