"""Tensors whose values are read when somebody asks for them are the tensors that are read at once."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.codecs.tensorflow import DTYPE, MOST_FILLED, decode_tensors, encode_tensor, unread_tensors
from portico.errors import InvalidRequest
from portico.inference import ITEM_SIZE, Tensor, UnreadTensor, pack_bytes
from portico.wire import tensorflow_pb2 as tf


def shown(tensors: tuple[Tensor, ...]) -> list[tuple[Any, ...]]:
    return [(tensor.name, tensor.datatype, tensor.shape, tensor.data) for tensor in tensors]


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """A tensor of any datatype with up to 24 elements."""
    datatype = draw(st.sampled_from(sorted(DTYPE)))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=2)))
    count = (shape[0] if shape else 1) * (shape[1] if len(shape) > 1 else 1)
    if datatype == "BYTES":
        data = pack_bytes(draw(st.lists(st.binary(max_size=4), min_size=count, max_size=count)))
    elif datatype == "BOOL":
        data = bytes(draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)))
    else:
        size = count * ITEM_SIZE[datatype]
        data = draw(st.binary(min_size=size, max_size=size))
    return Tensor("x", datatype, shape, data)


@given(tensors(), st.booleans(), st.integers(0, 3))
def test_they_are_the_same(tensor: Tensor, typed: bool, left_out: int) -> None:
    """In either form of a tensor, and where values are left out, the data is the same; nothing is read before."""
    proto = encode_tensor(tensor, typed=typed)
    for field in ("float_val", "int_val", "string_val", "int64_val"):
        values = getattr(proto, field)
        del values[max(0, len(values) - left_out) :]
    protos = {"x": proto}
    unread = unread_tensors(protos, proto.ByteSize())
    assert shown(unread) == shown(decode_tensors(protos))


def test_they_are_read_once_and_late() -> None:
    """Values are read when they are asked for, and once."""
    proto = tf.TensorProto(dtype=tf.DT_FLOAT, tensor_content=b"abcd")
    (tensor,) = unread_tensors({"x": proto}, 100)
    assert isinstance(tensor, UnreadTensor)
    proto.tensor_content = b"efgh"
    assert tensor.data == b"efgh"
    assert tensor.data is tensor.data


def test_values_are_refused_when_they_are_read() -> None:
    """Values that do not make the shape are refused when somebody asks for them; a shape that is none at once."""
    proto = tf.TensorProto(dtype=tf.DT_FLOAT, tensor_content=b"abc")
    (tensor,) = unread_tensors({"x": proto}, 100)
    with pytest.raises(InvalidRequest, match="takes 4 bytes, 3 were given"):
        assert tensor.data
    proto.tensor_shape.dim.add(size=-1)
    with pytest.raises(InvalidRequest, match="fully known"):
        unread_tensors({"x": proto}, 100)


@pytest.mark.parametrize(("elements", "goes"), [(MOST_FILLED // 4, True), (MOST_FILLED // 4 + 100, False)])
def test_what_may_be_left_out(elements: int, goes: bool) -> None:
    """All tensors together may ask for the message's own size and `MOST_FILLED` bytes more than they bring."""
    half = tf.TensorProto(dtype=tf.DT_FLOAT)
    half.tensor_shape.dim.add(size=elements // 2)
    protos = {"a": half, "b": half}
    if goes:
        assert [tensor.shape for tensor in unread_tensors(protos, 8)] == [(elements // 2,)] * 2
        return
    with pytest.raises(InvalidRequest, match="were given"):
        unread_tensors(protos, 8)
