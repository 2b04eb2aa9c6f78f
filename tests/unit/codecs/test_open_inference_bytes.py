"""Tensors behind JSON: what is written so can be read so, wherever the JSON ends."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.codecs import json_values
from portico.codecs.open_inference import decode_request, encode_response
from portico.codecs.open_inference_binary import BinaryData, BinaryOutputs, lone_input, split
from portico.errors import InvalidRequest
from portico.inference import ITEM_SIZE, Tensor, pack_bytes
from portico.routing import Signature, TensorSpec

TENSORS = st.one_of(
    st.lists(st.binary(max_size=4), max_size=4).map(
        lambda elements: Tensor("x", "BYTES", (len(elements),), pack_bytes(elements))
    ),
    st.tuples(st.sampled_from([name for name in ITEM_SIZE if name != "BOOL"]), st.integers(0, 3)).flatmap(
        lambda drawn: st.binary(min_size=ITEM_SIZE[drawn[0]] * drawn[1], max_size=ITEM_SIZE[drawn[0]] * drawn[1]).map(
            lambda data: Tensor("x", drawn[0], (drawn[1],), data)
        )
    ),
)


def named(tensors: list[Tensor]) -> list[Tensor]:
    return [Tensor(f"x{number}", tensor.datatype, tensor.shape, tensor.data) for number, tensor in enumerate(tensors)]


def read(body: bytes, length: int | None) -> tuple[Tensor, ...]:
    """The outputs of a written answer, read as the inputs of a request."""
    text, behind = split(body, "" if length is None else str(length))
    parsed: dict[str, Any] = json_values.parse_object(text)
    return decode_request({"inputs": parsed["outputs"]}, signed=True, binary=behind).inputs


@given(st.lists(TENSORS, min_size=1, max_size=4).map(named))
def test_tensors_come_back(tensors: list[Tensor]) -> None:
    """Tensors of every datatype and size are read as they were written, to the bit."""
    body, length = encode_response({"model_name": "größe"}, tensors, BinaryOutputs(default=True))
    assert length is not None
    assert len(body) == length + sum(len(tensor.data) for tensor in tensors)
    assert json.loads(body[:length])["model_name"] == "größe"
    assert read(body, length) == tuple(tensors)


@given(st.lists(st.tuples(st.binary(max_size=8), st.booleans()), min_size=1, max_size=5))
def test_json_and_bytes_mixed(drawn: list[tuple[bytes, bool]]) -> None:
    """Whichever of the tensors are JSON, all are read as they were written."""
    tensors = named([Tensor("x", "UINT8", (len(data),), data) for data, _ in drawn])
    binary = {tensor.name: chosen for tensor, (_, chosen) in zip(tensors, drawn, strict=True)}
    body, length = encode_response({}, tensors, BinaryOutputs(named=binary))
    assert (length is None) is not any(binary.values())
    assert read(body, length) == tuple(tensors)


@given(st.binary(max_size=30), st.integers(0, 40))
def test_where_the_json_ends(body: bytes, length: int) -> None:
    """A body is split where the header says, or refused where that is behind its end."""
    if length > len(body):
        with pytest.raises(InvalidRequest, match=f"says {length} bytes"):
            split(body, str(length))
        return
    text, behind = split(body, str(length))
    assert (text, behind.take("x", len(body) - length)) == (body[:length], body[length:])
    behind.finish()


def test_bytes_are_taken_once() -> None:
    """Each input takes the bytes behind those of the one before, and all have to be taken."""
    behind = BinaryData(b"abcdef")
    assert [behind.take("a", 2), behind.take("b", 0), behind.take("c", 3)] == [b"ab", b"", b"cde"]
    with pytest.raises(InvalidRequest, match="1 bytes behind the JSON"):
        behind.finish()
    with pytest.raises(InvalidRequest, match="'d': its binary_data_size is 2, and 1 bytes are left"):
        behind.take("d", 2)


@pytest.mark.parametrize(
    ("datatype", "shape", "length", "expected"),
    [
        ("FP32", (-1, 2), 24, (3, 2)),
        ("FP32", (2, -1), 24, (2, 3)),
        ("FP32", (2, 3), 24, (2, 3)),
        ("UINT8", (-1,), 0, (0,)),
        ("FP64", (), 8, ()),
        ("FP32", (-1, 2), 23, None),
        ("FP32", (2, 3), 23, None),
        ("FP32", (-1, 0), 4, None),
        ("FP32", (-1, -1), 24, None),
        ("FP32", None, 24, None),
        ("DT_COMPLEX64", (-1,), 8, None),
    ],
)
def test_the_shape_of_a_lone_input(
    datatype: str, shape: tuple[int, ...] | None, length: int, expected: tuple[int, ...] | None
) -> None:
    """A body without JSON has the shape of the model's one input, or is refused where its length gives none."""
    signature = Signature((TensorSpec("x", datatype, shape),), ())
    if expected is None:
        with pytest.raises(InvalidRequest, match="'x'"):
            lone_input("m", signature, bytes(length))
    else:
        assert lone_input("m", signature, bytes(length)) == Tensor("x", datatype, expected, bytes(length))
