"""Answers and errors as they lie in Redis: what was put in comes out, and nothing else ever does."""

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.codecs.stored import FORMAT, dump, dump_error, load, load_error
from portico.errors import (
    DeadlineExceeded,
    HandlerAnswer,
    InferenceFailed,
    InvalidRequest,
    Overloaded,
    PorticoError,
    TooLarge,
)
from portico.freshness import TAG_BYTES, Entry, Stamp
from portico.inference import InferenceResponse, Tensor
from portico.wire import open_inference_pb2 as oip

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
TENSORS = st.builds(
    Tensor,
    NAMES,
    st.sampled_from(["FP32", "INT64", "BYTES"]),
    st.lists(st.integers(0, 5), max_size=4).map(tuple),
    st.binary(max_size=20),
)
RESPONSES = st.builds(InferenceResponse, st.lists(TENSORS, max_size=3).map(tuple), NAMES)
STAMPS = st.builds(Stamp, st.floats(0, 1e10), st.floats(0, 1e8), st.binary(min_size=TAG_BYTES, max_size=TAG_BYTES))
ENTRY = Entry(
    InferenceResponse(
        (Tensor("y", "FP32", (1, 2), bytes(range(8))), Tensor("z", "BYTES", (), b"\1\0\0\0a")),
        "application/json",
    ),
    Stamp(1e9, 60.0, bytes(range(TAG_BYTES))),
)
HEAD = dump(ENTRY)[5 : 21 + TAG_BYTES]


@given(st.builds(Entry, RESPONSES, STAMPS))
def test_an_answer_comes_back(entry: Entry) -> None:
    """Any answer comes back as it was, with its content type, since when it is kept, for how long, and its tag."""
    assert load(dump(entry)) == entry


def test_bytes_that_break_off() -> None:
    """An answer that breaks off anywhere is a miss, even where what is left is a message too."""
    stored = dump(ENTRY)
    assert [load(stored[:size]) for size in range(len(stored))] == [None] * len(stored)
    assert load(stored + b"\0") is None


def test_a_byte_that_has_changed() -> None:
    """An answer of which any byte has changed is a miss."""
    stored = dump(ENTRY)
    for position in range(len(stored)):
        damaged = bytearray(stored)
        damaged[position] ^= 1
        assert load(bytes(damaged)) is None


def test_another_release() -> None:
    """What another release has written in another form is a miss."""
    assert dump(ENTRY)[:1] == FORMAT
    assert load(b"\x01" + dump(ENTRY)[1:]) is None


@given(st.binary(max_size=60))
def test_foreign_bytes(stored: bytes) -> None:
    """Bytes that are no answer are a miss, whatever they are, and never an error."""
    assert load(stored) is None
    assert load(FORMAT + stored) is None


@pytest.mark.parametrize(
    "body",
    [b"\xff", oip.ModelInferResponse(raw_output_contents=[b"a"]).SerializeToString()],
    ids=["no message", "contents of no output"],
)
def test_a_checksum_over_something_else(body: bytes) -> None:
    """A right checksum over what is no answer does not make it one."""
    rest = HEAD + body
    assert load(FORMAT + crc32(rest).to_bytes(4, "little") + rest) is None


def handled(status: int, body: bytes | None) -> PorticoError:
    """An error that a handler answered with."""
    error = InvalidRequest("the handler says no")
    error.answer = HandlerAnswer(status, "text/plain", body)
    return error


@pytest.mark.parametrize(
    "error",
    [
        InferenceFailed("wrong «input»"),
        DeadlineExceeded(""),
        Overloaded("x"),
        handled(404, b"\xff\0"),
        handled(418, None),
    ],
)
def test_an_error_comes_back(error: PorticoError) -> None:
    """What one gateway's call ended in is what those who wait in another are told, with a handler's own words."""
    dumped = dump_error(error)
    assert dumped is not None
    told = load_error(dumped)
    assert (type(told), str(told), told and told.answer) == (type(error), str(error), error.answer)


@pytest.mark.parametrize("error", [TooLarge(5), PorticoError("?"), handled(400, bytes(1 << 16))])
def test_errors_that_are_not_told(error: PorticoError) -> None:
    """What is more than its message, or too large, others run into themselves."""
    assert dump_error(error) is None


@given(st.binary(max_size=60) | st.sampled_from([b"[]", b"{}", b'{"error": "InvalidRequest"}', b'{"error": 5}']))
def test_foreign_errors(stored: bytes) -> None:
    """Bytes that tell of no error are none."""
    assert load_error(stored) is None
