"""gRPC's wire details, against independent readings of its protocol."""

import base64
import gzip
import math
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_client import decode_bin
from portico.edges.framing import (
    MESSAGE_LIMIT,
    decode_metadata,
    encode_metadata,
    frame,
    parse_timeout,
    status_message,
    supports,
    unframe,
)
from portico.errors import InvalidRequest, TooLarge

LIMIT = 1000
COMPRESSORS: Mapping[bytes, Callable[[bytes], bytes]] = {b"gzip": gzip.compress, b"deflate": zlib.compress}
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def compressed(message: bytes, encoding: bytes) -> bytes:
    packed = COMPRESSORS[encoding](message)
    return b"\1" + len(packed).to_bytes(4, "big") + packed


@given(st.binary(max_size=LIMIT))
def test_a_frame_comes_back(message: bytes) -> None:
    """A message is framed as gRPC says, a zero byte and its length first, and read back as it was."""
    framed = frame(message)
    assert framed == b"\0" + len(message).to_bytes(4, "big") + message
    assert unframe(framed, b"", LIMIT) == message
    assert unframe(framed, b"gzip", LIMIT) == message  # the header allows compression, the flag decides


@pytest.mark.parametrize("encoding", COMPRESSORS)
@given(message=st.binary(max_size=LIMIT))
@example(message=bytes(LIMIT))
def test_a_compressed_message(encoding: bytes, message: bytes) -> None:
    """A message that is marked as compressed is decompressed as the call's header says."""
    assert unframe(compressed(message, encoding), encoding, LIMIT) == message


def test_the_limit_is_of_the_message() -> None:
    """A message may be as large as the limit and no larger, plain or compressed, however small it was packed."""
    assert unframe(frame(bytes(LIMIT)), b"", LIMIT) == bytes(LIMIT)
    with pytest.raises(TooLarge, match=str(LIMIT)):
        unframe(frame(bytes(LIMIT + 1)), b"", LIMIT)
    for encoding in COMPRESSORS:
        assert len(compressed(bytes(LIMIT + 1), encoding)) < 100
        with pytest.raises(TooLarge):
            unframe(compressed(bytes(LIMIT + 1), encoding), encoding, LIMIT)


def test_a_length_over_the_limit() -> None:
    """A length that only the first of its four bytes makes too large is too large, however little follows."""
    with pytest.raises(TooLarge):
        unframe(b"\0\1\0\0\0", b"", LIMIT)


def test_a_bomb_is_not_unpacked() -> None:
    """What decompresses beyond the limit is refused at the limit, without the rest being unpacked."""
    packed = zlib.compress(bytes(1 << 24))[:-1] + b"?"  # damaged at its very end, which is never reached
    with pytest.raises(TooLarge):
        unframe(b"\1" + len(packed).to_bytes(4, "big") + packed, b"deflate", LIMIT)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "starts with 5 bytes of prefix, 0 came"),
        (b"\0\0\0", "starts with 5 bytes of prefix, 3 came"),
        (frame(b"ab")[:-1], "prefix says 2 bytes, 1 came"),
        (frame(b"ab") + b"c", "prefix says 2 bytes, 3 came"),
        (frame(b"ab") + frame(b"c"), "exactly one message"),
        (b"\2\0\0\0\0", "0 or 1, not 2"),
    ],
)
def test_what_is_no_frame(body: bytes, says: str) -> None:
    """A body that is not one whole frame is refused, and the text says what came."""
    with pytest.raises(InvalidRequest, match=says):
        unframe(body, b"", LIMIT)


@pytest.mark.parametrize("encoding", [b"", b"identity"])
def test_compressed_without_saying_how(encoding: bytes) -> None:
    """A message marked as compressed needs a header that says how."""
    with pytest.raises(InvalidRequest, match="no grpc-encoding header"):
        unframe(b"\1\0\0\0\1x", encoding, LIMIT)


@pytest.mark.parametrize("encoding", COMPRESSORS)
@given(data=st.data())
def test_damaged_compression(encoding: bytes, data: st.DataObject) -> None:
    """Compressed bytes that break off are refused and not taken for a shorter message."""
    packed = COMPRESSORS[encoding](b"portico" * 20)
    cut = packed[: data.draw(st.integers(0, len(packed) - 1))]
    with pytest.raises(InvalidRequest, match=r"breaks off|does not decompress"):
        unframe(b"\1" + len(cut).to_bytes(4, "big") + cut, encoding, LIMIT)


@given(st.binary(max_size=60), st.sampled_from([b"", b"identity", *COMPRESSORS]))
def test_any_body(body: bytes, encoding: bytes) -> None:
    """Whatever bytes come, they are a message within the limit or are refused."""
    with suppress(InvalidRequest, TooLarge):
        assert len(unframe(body, encoding, LIMIT)) <= LIMIT


def test_encodings() -> None:
    """Plain, gzip and deflate are read, and no others."""
    assert all(map(supports, (b"", b"identity", b"gzip", b"deflate")))
    assert not any(map(supports, (b"br", b"snappy", b"GZIP")))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (b"2H", 7200),
        (b"3M", 180),
        (b"10S", 10),
        (b"250m", 0.25),
        (b"99999999u", 99.999999),
        (b"1n", 1e-9),
        (b"0S", 0),
    ],
)
def test_timeouts(header: bytes, seconds: float) -> None:
    """Each unit of a timeout is as long as gRPC says."""
    assert math.isclose(parse_timeout(header), seconds)


@pytest.mark.parametrize("header", [b"", b"S", b"10", b"10s", b"-1S", b"1.5S", b"123456789S", b" 1S", b"\xb2S", b"1SS"])
def test_what_is_no_timeout(header: bytes) -> None:
    """A timeout in any other form is refused, with what one looks like."""
    with pytest.raises(InvalidRequest, match="up to eight digits and one of H, M, S, m, u, n"):
        parse_timeout(header)


@given(TEXT)
@example("вход «x»: 形状 [3] \U0001f600\n\r\t%25")
def test_a_status_message_in_any_language(text: str) -> None:
    """A status message is printable ASCII, and a client's decoder gives the text back, whatever its language."""
    encoded = status_message(text)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert unquote_to_bytes(encoded).decode() == text


def test_plain_text_stays_as_it_is() -> None:
    """Printable ASCII other than the percent sign is not escaped, as the protocol has it."""
    text = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
    assert status_message(text).decode() == text
    assert status_message("100%") == b"100%25"


@given(st.text("aé形\U0001f600", min_size=1, max_size=5))
def test_a_long_status_message(word: str) -> None:
    """A message too long for a header is cut, between two characters, to what clients accept."""
    text = word * MESSAGE_LIMIT
    encoded = status_message(text)
    assert len(encoded) < 8192
    decoded = unquote_to_bytes(encoded).decode()
    assert text.startswith(decoded)
    assert len(decoded.encode()) > MESSAGE_LIMIT - 4


def test_half_a_character() -> None:
    """Text that is not quite Unicode is sent as near as can be."""
    assert unquote_to_bytes(status_message("a\ud800b")) == b"a?b"


@given(st.lists(st.binary(max_size=40)))
def test_binary_metadata(values: list[bytes]) -> None:
    """Bytes under a `-bin` key travel as base64 without padding, which other implementations read, and come back."""
    encoded = encode_metadata([("x-bin", value) for value in values])
    assert [decode_bin(value) for _, value in encoded] == values
    assert not any(b"=" in value for _, value in encoded)
    assert decode_metadata(encoded) == [("x-bin", value) for value in values]


def test_binary_metadata_of_others() -> None:
    """Padding, and values that a proxy has joined with commas, are read as well."""
    joined = base64.b64encode(b"a") + b", " + base64.b64encode(b"\xff\xfe").rstrip(b"=")
    assert decode_metadata([(b"x-bin", joined)]) == [("x-bin", b"a"), ("x-bin", b"\xff\xfe")]


@pytest.mark.parametrize("value", [b"!", b"a", b"YQ-_", b"YQ==YQ=="])
def test_binary_metadata_that_is_none(value: bytes) -> None:
    """A `-bin` value that is not base64 is refused, and the key is named."""
    with pytest.raises(InvalidRequest, match="'x-bin' is not base64"):
        decode_metadata([(b"x-bin", value)])


def test_whose_metadata_it_is() -> None:
    """Handlers see what the caller set, and not what HTTP and gRPC set for themselves."""
    own = [(b"te", b"trailers"), (b"grpc-timeout", b"1S"), (b"content-type", b"application/grpc"), (b":path", b"/a/b")]
    assert decode_metadata([*own, (b"x-user", b"a b"), (b"x-user", b"c")]) == [("x-user", "a b"), ("x-user", "c")]


def test_text_metadata_is_sent_as_it_is() -> None:
    """Text metadata keeps its key, its value, and its order."""
    assert encode_metadata([("x-cache", "HIT"), ("x-b", "2")]) == [(b"x-cache", b"HIT"), (b"x-b", b"2")]
