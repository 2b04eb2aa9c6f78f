"""TensorProtos ↔ tensors: nothing is lost, what may be left out is filled in, and what cannot be is refused."""

import math
import struct
import tracemalloc
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.codecs.tensorflow import (
    DATATYPE,
    DTYPE,
    MOST_FILLED,
    decode_tensors,
    encode_tensor,
    signature_def,
    without_field,
)
from portico.errors import InvalidRequest
from portico.inference import ITEM_SIZE, Tensor, pack_bytes, unpack_bytes
from portico.routing import Signature, TensorSpec
from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as tfs

# Datatype → TensorFlow's field for it, and how Python's struct writes one of its values (16-bit floats as their bits).
TYPED = {
    "BOOL": ("bool_val", "?"),
    "UINT8": ("int_val", "B"),
    "UINT16": ("int_val", "H"),
    "UINT32": ("uint32_val", "I"),
    "UINT64": ("uint64_val", "Q"),
    "INT8": ("int_val", "b"),
    "INT16": ("int_val", "h"),
    "INT32": ("int_val", "i"),
    "INT64": ("int64_val", "q"),
    "FP16": ("half_val", "H"),
    "BF16": ("half_val", "H"),
    "FP32": ("float_val", "f"),
    "FP64": ("double_val", "d"),
}


def proto_of(dtype: int, *shape: int, **values: Any) -> tf.TensorProto:
    dims = [tf.TensorShapeProto.Dim(size=size) for size in shape]
    return tf.TensorProto(dtype=dtype, tensor_shape=tf.TensorShapeProto(dim=dims), **values)  # type: ignore[arg-type]


def decode(proto: tf.TensorProto) -> Tensor:
    (tensor,) = decode_tensors({"x": proto})
    return tensor


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any tensor of up to four dimensions; BOOL is 0 and 1, and a NaN is one that survives being a Python float."""
    datatype = draw(st.sampled_from([*ITEM_SIZE, "BYTES"]))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=4)))
    count = prod(shape)
    if datatype == "BYTES":
        elements = draw(st.lists(st.binary(max_size=5), min_size=count, max_size=count))
        return Tensor("x", datatype, shape, pack_bytes(elements))
    if datatype in ("BOOL", "FP32", "FP64"):
        kind: st.SearchStrategy[float] = {"BOOL": st.booleans(), "FP32": st.floats(width=32)}.get(datatype, st.floats())
        values = draw(st.lists(kind, min_size=count, max_size=count))
        packed = (math.nan if math.isnan(value) else value for value in values)
        data = struct.pack(f"<{count}{TYPED[datatype][1]}", *packed)
    else:
        size = count * ITEM_SIZE[datatype]
        data = draw(st.binary(min_size=size, max_size=size))
    return Tensor("x", datatype, shape, data)


@given(tensors(), st.booleans())
def test_a_tensor_comes_back(tensor: Tensor, typed: bool) -> None:
    """Every tensor of every datatype and rank survives the way through a TensorProto, in bytes or in typed fields."""
    sent = tf.TensorProto.FromString(encode_tensor(tensor, typed).SerializeToString())
    assert sent.dtype == DTYPE[tensor.datatype]
    assert decode(sent) == tensor


@given(tensors())
def test_typed_values_are_in_their_field(tensor: Tensor) -> None:
    """In the typed form, each value stands in TensorFlow's field for its datatype, where clients look for it."""
    proto = encode_tensor(tensor, typed=True)
    if tensor.datatype == "BYTES":
        field, values = "string_val", list(unpack_bytes(tensor.data))
    else:
        field, code = TYPED[tensor.datatype]
        values = list(struct.unpack(f"<{prod(tensor.shape)}{code}", tensor.data))
    np.testing.assert_array_equal(list(getattr(proto, field)), values)
    filled = {name for name in (*dict(TYPED.values()), "string_val", "tensor_content") if getattr(proto, name)}
    assert filled == ({field} if values else set())


@given(tensors())
def test_packed_bytes_are_protobufs_own(tensor: Tensor) -> None:
    """The typed form, some of which is written as bytes, is what protobuf itself writes for the same values."""
    written = encode_tensor(tensor, typed=True).SerializeToString(deterministic=True)
    own = proto_of(DTYPE[tensor.datatype], *tensor.shape)
    if tensor.datatype == "BYTES":
        own.string_val.extend(unpack_bytes(tensor.data))
    else:
        field, code = TYPED[tensor.datatype]
        getattr(own, field).extend(struct.unpack(f"<{prod(tensor.shape)}{code}", tensor.data))
    assert written == own.SerializeToString(deterministic=True)


@pytest.mark.parametrize("count", [0, 1, 31, 32, 127, 128, 4095, 4096, 300_000])
@pytest.mark.parametrize("datatype", ["BOOL", "FP32", "FP64"])
def test_packed_bytes_of_all_lengths(datatype: str, count: int) -> None:
    """The length before packed bytes is right for one, two, three and four bytes of length."""
    data = bytes(index % 2 for index in range(count * ITEM_SIZE[datatype]))
    proto = encode_tensor(Tensor("x", datatype, (count,), data), typed=True)
    values = getattr(proto, TYPED[datatype][0])
    assert np.array(values, dtype={"BOOL": "?", "FP32": "<f4", "FP64": "<f8"}[datatype]).tobytes() == data


def test_content_is_the_bytes() -> None:
    """The untyped form holds the tensor's bytes as they are."""
    tensor = Tensor("x", "FP32", (2,), bytes(range(8)))
    assert encode_tensor(tensor).tensor_content == tensor.data


def test_every_datatype_is_known() -> None:
    """Each datatype of the neutral form has one DataType of TensorFlow, and each of those one datatype."""
    assert set(DATATYPE.values()) == {*ITEM_SIZE, "BYTES"}
    assert {DATATYPE[dtype]: dtype for dtype in DATATYPE} == DTYPE
    assert DTYPE["FP32"] == 1  # types.proto
    assert DTYPE["BYTES"] == 7
    assert DTYPE["FP16"] == 19


@pytest.mark.parametrize("datatype", TYPED)
def test_missing_values_repeat_the_last(datatype: str) -> None:
    """A proto with fewer values than its shape means the last one for the rest, and zero where there is none."""
    field, code = TYPED[datatype]
    proto = proto_of(DTYPE[datatype], 2, 2, **{field: [0, 1]})
    assert decode(proto).data == struct.pack(f"<4{code}", 0, 1, 1, 1)
    assert decode(proto_of(DTYPE[datatype], 3)).data == bytes(3 * ITEM_SIZE[datatype])
    assert decode(proto_of(DTYPE[datatype], 0)).data == b""


def test_missing_strings_repeat_the_last() -> None:
    """The same holds for strings, which are empty where there is none."""
    assert list(unpack_bytes(decode(proto_of(7, 3, string_val=[b"a", b"b"])).data)) == [
        b"a",
        b"b",
        b"b",
    ]
    assert list(unpack_bytes(decode(proto_of(7, 2)).data)) == [b"", b""]


@pytest.mark.parametrize("datatype", [*TYPED, "BYTES"])
def test_too_many_values(datatype: str) -> None:
    """More values than the shape holds are refused: which input, how many it holds, how many were given."""
    values: dict[str, Any] = {TYPED[datatype][0]: [0, 1, 1]} if datatype in TYPED else {"string_val": [b"", b"a", b"b"]}
    with pytest.raises(InvalidRequest, match=r"'x': shape \[2\] holds 2 values, 3 were given"):
        decode(proto_of(DTYPE[datatype], 2, **values))


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("UINT8", 256),
        ("UINT8", -1),
        ("INT8", 128),
        ("INT8", -129),
        ("UINT16", 65536),
        ("INT16", -32769),
        ("FP16", 65536),
        ("BF16", -1),
    ],
)
def test_values_that_do_not_fit(datatype: str, value: int) -> None:
    """A value beyond its datatype is refused with the input's name, and not cut to what fits."""
    with pytest.raises(InvalidRequest, match=f"'x': a value does not fit {datatype}"):
        decode(proto_of(DTYPE[datatype], 1, **{TYPED[datatype][0]: [value]}))


def test_content_of_another_size() -> None:
    """Bytes that do not make the shape are refused with both sizes."""
    with pytest.raises(InvalidRequest, match=r"'x': FP32 of shape \[3\] takes 12 bytes, 8 were given"):
        decode(proto_of(tf.DT_FLOAT, 3, tensor_content=bytes(8)))


def test_strings_as_content() -> None:
    """Strings in tensor_content, whose form TensorFlow does not define for clients, are refused."""
    with pytest.raises(InvalidRequest, match="'x': strings go into string_val"):
        decode(proto_of(7, 1, tensor_content=b"\1a"))


@pytest.mark.parametrize("dtype", [tf.DT_COMPLEX64, tf.DT_RESOURCE, tf.DT_VARIANT, tf.DT_INVALID, 77])
def test_unknown_dtypes(dtype: int) -> None:
    """A dtype that is not carried is refused by its name, one that there is not by its number."""
    name = tf.DataType.Name(dtype) if dtype != 77 else "77"
    with pytest.raises(InvalidRequest, match=f"'x': tensors of dtype {name} are not supported"):
        decode(proto_of(dtype, 1))


@pytest.mark.parametrize("shape", [(-1,), (2, -1), (-2, -1), (-2, -3)])
def test_negative_sizes(shape: tuple[int, ...]) -> None:
    """A shape with an open or a negative size is no tensor's, and refused."""
    for dtype in (tf.DT_FLOAT, tf.DT_STRING):
        with pytest.raises(InvalidRequest, match=r"'x': (its tensor_shape .* fully known|shape .* has a size below 0)"):
            decode(proto_of(dtype, *shape))


def test_unknown_rank() -> None:
    """A shape of unknown rank is no tensor's, and refused."""
    proto = tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=tf.TensorShapeProto(unknown_rank=True))
    with pytest.raises(InvalidRequest, match="fully known"):
        decode(proto)


@pytest.mark.parametrize(
    "protos",
    [
        [proto_of(tf.DT_FLOAT, 1 << 62, 1 << 62)],
        [proto_of(tf.DT_DOUBLE, 1 << 40, float_val=[1])],
        [proto_of(tf.DT_BOOL, MOST_FILLED + 1)],
        [proto_of(tf.DT_STRING, 1 << 62, 1 << 62)],
        [proto_of(tf.DT_STRING, MOST_FILLED // 4 + 1)],
        [proto_of(tf.DT_STRING, 2000, string_val=[bytes(1000)])],
        [proto_of(tf.DT_FLOAT, 1 << 40, tensor_content=bytes(4))],
        [proto_of(tf.DT_BOOL, MOST_FILLED // 8)] * 9,
        [proto_of(tf.DT_STRING, MOST_FILLED // 32)] * 9,
    ],
    ids=[
        "product",
        "typed",
        "a byte over",
        "strings",
        "empty strings",
        "long string",
        "content",
        "many",
        "many strings",
    ],
)
def test_huge_fills(protos: list[tf.TensorProto]) -> None:
    """A small message that asks for large tensors, one or many, is refused, and nothing of their size is allocated."""
    named = {f"x{number}": proto for number, proto in enumerate(protos)}
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match=r"(holds|takes)"):
            decode_tensors(named)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * MOST_FILLED


def test_the_largest_fills() -> None:
    """Values that are left out are filled in up to the budget, which is that of all tensors together."""
    assert len(decode(proto_of(tf.DT_BOOL, MOST_FILLED)).data) == MOST_FILLED
    assert len(decode(proto_of(tf.DT_STRING, MOST_FILLED // 4)).data) == MOST_FILLED
    halves = decode_tensors({name: proto_of(tf.DT_INT8, MOST_FILLED // 2, int_val=[1]) for name in "ab"})
    assert {tensor.name: tensor.data for tensor in halves} == dict.fromkeys("ab", b"\1" * (MOST_FILLED // 2))


def test_whole_tensors_are_no_fills() -> None:
    """Values that the message holds do not count against what it may leave out, however many they are."""
    size = 2 * MOST_FILLED
    assert len(decode(proto_of(tf.DT_UINT8, size, tensor_content=bytes(size))).data) == size
    assert len(decode(proto_of(tf.DT_BOOL, size, bool_val=bytes(size))).data) == size


def test_a_rank_that_no_tensor_has() -> None:
    """A shape of 40,000 dimensions is refused by their number, before any of them is multiplied."""
    for proto in (proto_of(tf.DT_FLOAT, *[1 << 62] * 40_000), proto_of(tf.DT_STRING, *[1] * 40_000)):
        with pytest.raises(InvalidRequest, match=r"'x': a shape has up to 64 dimensions, not 40000"):
            decode(proto)


def test_a_signature() -> None:
    """A signature's names, datatypes, shapes and method come out as TensorFlow's SignatureDef has them."""
    signature = Signature(
        (TensorSpec("x", "FP32", (-1, 4), "serving_default_x:0"),),
        (TensorSpec("y", "BYTES", None, "out:0"), TensorSpec("z", "INT64", (), "out:1")),
        "tensorflow/serving/predict",
    )
    definition = signature_def(signature)
    assert definition.method_name == "tensorflow/serving/predict"
    assert definition.inputs["x"] == tf.TensorInfo(
        name="serving_default_x:0", dtype=tf.DT_FLOAT, tensor_shape=proto_of(1, -1, 4).tensor_shape
    )
    assert definition.outputs["y"].tensor_shape.unknown_rank
    assert definition.outputs["y"].dtype == tf.DT_STRING
    assert definition.outputs["z"].tensor_shape == tf.TensorShapeProto()
    assert set(definition.outputs) == {"y", "z"}


def test_a_signature_of_a_datatype_that_is_not_carried() -> None:
    """An input of a datatype that we have no name for is DT_INVALID, and not taken for another."""
    signature = Signature((TensorSpec("x", "", (1,)),), ())
    assert signature_def(signature).inputs["x"].dtype == tf.DT_INVALID


def test_a_field_is_taken_out_of_a_message_that_is_not_read() -> None:
    """All else stays to the byte; what is no message is refused wherever it breaks off."""
    outputs = {"y": tf.TensorProto(dtype=tf.DT_FLOAT, float_val=[1.0] * 100)}
    answer = tfs.PredictResponse(model_spec=tfs.ModelSpec(name="inner"), outputs=outputs).SerializeToString()
    without = tfs.PredictResponse(outputs=outputs).SerializeToString()
    assert without_field(answer, 2) == without
    assert without_field(without, 2) == without
    assert without_field(b"", 2) == b""
    for length in range(1, len(without)):
        with pytest.raises(InvalidRequest):
            without_field(without[:length], 2)
    for broken in (b"\xff" * 12, b"\x08\x01", b"\x0a\xff\xff\xff\xff\x0f"):
        with pytest.raises(InvalidRequest):
            without_field(broken, 2)
