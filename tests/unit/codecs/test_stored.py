"""An answer as it is kept in the cache: what was put in comes out, and nothing else ever does."""

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.codecs.stored import FORMAT, dump, load
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
RESPONSE = InferenceResponse(
    (Tensor("y", "FP32", (1, 2), bytes(range(8))), Tensor("z", "BYTES", (), b"\1\0\0\0a")),
    "application/json",
)


@given(RESPONSES)
def test_an_answer_comes_back(response: InferenceResponse) -> None:
    """Any answer comes back as it was, with its content type."""
    assert load(dump(response)) == response


def test_bytes_that_break_off() -> None:
    """An answer that breaks off anywhere is a miss, even where what is left is a message too."""
    stored = dump(RESPONSE)
    assert [load(stored[:size]) for size in range(len(stored))] == [None] * len(stored)
    assert load(stored + b"\0") is None


def test_a_byte_that_has_changed() -> None:
    """An answer of which any byte has changed is a miss."""
    stored = dump(RESPONSE)
    for position in range(len(stored)):
        damaged = bytearray(stored)
        damaged[position] ^= 1
        assert load(bytes(damaged)) is None


def test_another_release() -> None:
    """What another release has written in another form is a miss."""
    assert dump(RESPONSE)[:1] == FORMAT
    assert load(b"\x02" + dump(RESPONSE)[1:]) is None


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
    assert load(FORMAT + crc32(body).to_bytes(4, "little") + body) is None
