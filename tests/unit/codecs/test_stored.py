"""An answer as it is kept in the cache: what was put in comes out, and nothing else ever does."""

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.codecs.stored import FORMAT, dump, load, read_parameters, write_parameter
from portico.inference import InferenceResponse, Parameter, Tensor
from portico.wire import open_inference_pb2 as oip

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
TENSORS = st.builds(
    Tensor,
    NAMES,
    st.sampled_from(["FP32", "INT64", "BYTES"]),
    st.lists(st.integers(0, 5), max_size=4).map(tuple),
    st.binary(max_size=20),
)
PARAMETERS = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | NAMES
RESPONSES = st.builds(
    InferenceResponse, st.lists(TENSORS, max_size=3).map(tuple), st.dictionaries(NAMES, PARAMETERS, max_size=3)
)
RESPONSE = InferenceResponse(
    (Tensor("y", "FP32", (1, 2), bytes(range(8))), Tensor("z", "BYTES", (), b"\1\0\0\0a")),
    {"content_type": "application/json"},
)


@given(RESPONSES)
def test_an_answer_comes_back(response: InferenceResponse) -> None:
    """Any answer comes back as it was, its parameters with their types."""
    loaded = load(dump(response))
    assert loaded == response
    assert loaded is not None
    assert {key: type(value) for key, value in loaded.parameters.items()} == {
        key: type(value) for key, value in response.parameters.items()
    }


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


@pytest.mark.parametrize(
    ("value", "field"), [(True, "bool_param"), (3, "int64_param"), (0.5, "double_param"), ("a", "string_param")]
)
def test_a_parameter_in_its_field(value: Parameter, field: str) -> None:
    """A parameter stands in the one field for its type; true is not 1."""
    message = oip.InferParameter()
    write_parameter(message, value)
    assert message.WhichOneof("parameter_choice") == field
    assert read_parameters({"p": message}) == {"p": value}


def test_a_parameter_without_a_value() -> None:
    """A parameter that has no value is none."""
    assert read_parameters({"p": oip.InferParameter(), "q": oip.InferParameter(uint64_param=2**64 - 1)}) == {
        "q": 2**64 - 1
    }
