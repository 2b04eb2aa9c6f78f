"""TensorFlow's wire forms ↔ ours: TensorProto, DataType and SignatureDef. Used by the TF Serving backend and protocols.

Source: tensorflow/core/framework/{tensor,types}.proto, and `Tensor::FromProto` for what a TensorProto may leave out.
"""

from collections.abc import Mapping
from math import prod

import numpy as np

from portico.errors import InvalidRequest, TooLarge
from portico.inference import ITEM_SIZE, Tensor, pack_bytes, unpack_bytes
from portico.routing import Signature, TensorSpec
from portico.wire import tensorflow_pb2 as tf

DATATYPE: Mapping[int, str] = {
    tf.DT_BOOL: "BOOL",
    tf.DT_UINT8: "UINT8",
    tf.DT_UINT16: "UINT16",
    tf.DT_UINT32: "UINT32",
    tf.DT_UINT64: "UINT64",
    tf.DT_INT8: "INT8",
    tf.DT_INT16: "INT16",
    tf.DT_INT32: "INT32",
    tf.DT_INT64: "INT64",
    tf.DT_HALF: "FP16",
    tf.DT_BFLOAT16: "BF16",
    tf.DT_FLOAT: "FP32",
    tf.DT_DOUBLE: "FP64",
    tf.DT_STRING: "BYTES",
}
"""TensorFlow's DataType → the Open Inference Protocol's name."""

DTYPE: Mapping[str, int] = {name: dtype for dtype, name in DATATYPE.items()}

_FIELD: Mapping[str, tuple[str, str]] = {
    "BOOL": ("bool_val", "?"),
    "UINT8": ("int_val", "<u1"),
    "UINT16": ("int_val", "<u2"),
    "UINT32": ("uint32_val", "<u4"),
    "UINT64": ("uint64_val", "<u8"),
    "INT8": ("int_val", "<i1"),
    "INT16": ("int_val", "<i2"),
    "INT32": ("int_val", "<i4"),
    "INT64": ("int64_val", "<i8"),
    "FP16": ("half_val", "<u2"),
    "BF16": ("half_val", "<u2"),
    "FP32": ("float_val", "<f4"),
    "FP64": ("double_val", "<f8"),
}
"""Datatype → the typed field of a TensorProto, and how its values lie in memory (16-bit floats as their bits)."""

_SHARED = frozenset({"int_val", "half_val"})
"""Fields of 32 bits that hold values of fewer."""

_SAME_BYTES = {
    name: tf.TensorProto.DESCRIPTOR.fields_by_name[_FIELD[name][0]].number << 3 | 2 for name in ("BOOL", "FP32", "FP64")
}
"""Datatypes whose packed field holds the very bytes of the tensor, and that field's tag."""


def decode_tensor(name: str, proto: tf.TensorProto, limit: int) -> Tensor:
    """Raises InvalidRequest for what is no dense tensor of a datatype we know, TooLarge beyond `limit` bytes."""
    datatype = DATATYPE.get(proto.dtype)
    if datatype is None:
        known = tf.DataType.Name(proto.dtype) if proto.dtype in tf.DataType.values() else str(proto.dtype)
        raise InvalidRequest(f"Input '{name}': tensors of dtype {known} are not supported.")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise InvalidRequest(f"Input '{name}': its tensor_shape {list(shape)} has to be fully known.")
    if datatype == "BYTES":
        return _strings(name, shape, proto, limit)
    count = prod(shape)
    if count * ITEM_SIZE[datatype] > limit:
        raise TooLarge(limit)
    if proto.tensor_content:
        return Tensor(name, datatype, shape, proto.tensor_content).check()
    field, memory = _FIELD[datatype]
    given = np.array(getattr(proto, field), "<i4" if field in _SHARED else memory)
    values = given.astype(memory, copy=False)
    if field in _SHARED and (values != given).any():
        raise InvalidRequest(f"Input '{name}': a value does not fit {datatype}.")
    if len(values) > count:
        raise InvalidRequest(f"Input '{name}': shape {list(shape)} holds {count} values, {len(values)} were given.")
    if len(values) < count:
        # TensorFlow repeats the last value, and takes zero where there is none.
        values = np.concatenate([values, np.full(count - len(values), values[-1] if len(values) else 0, memory)])
    return Tensor(name, datatype, shape, values.tobytes())


def _strings(name: str, shape: tuple[int, ...], proto: tf.TensorProto, limit: int) -> Tensor:
    count, values = prod(shape), list(proto.string_val)
    if count * 4 > limit:
        raise TooLarge(limit)
    if proto.tensor_content:
        raise InvalidRequest(f"Input '{name}': strings go into string_val, not into tensor_content.")
    if len(values) > count:
        raise InvalidRequest(f"Input '{name}': shape {list(shape)} holds {count} strings, {len(values)} were given.")
    missing = count - len(values)
    last = values[-1] if values else b""
    if missing * len(last) > limit:
        raise TooLarge(limit)
    return Tensor(name, "BYTES", shape, pack_bytes(values + [last] * missing))


def encode_tensor(tensor: Tensor, typed: bool = False) -> tf.TensorProto:
    """The TensorProto of a tensor.

    Its values go into `tensor_content`, or if `typed` into the field of their type (`float_val`, …) as TF Serving
    answers and clients read it.
    """
    shape = tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=size) for size in tensor.shape])
    proto = tf.TensorProto(dtype=DTYPE[tensor.datatype], tensor_shape=shape)  # type: ignore[arg-type]
    if tensor.datatype == "BYTES":
        proto.string_val.extend(unpack_bytes(tensor.data, tensor.name))
    elif not typed:
        proto.tensor_content = tensor.data
    elif tensor.datatype in _SAME_BYTES:
        proto.MergeFromString(_packed(_SAME_BYTES[tensor.datatype], tensor.data))
    else:
        field, memory = _FIELD[tensor.datatype]
        getattr(proto, field).extend(np.frombuffer(tensor.data, memory).tolist())
    return proto


def _packed(tag: int, data: bytes) -> bytes:
    """A length-delimited protobuf field (protobuf's encoding, "Message Structure")."""
    size, length = len(data), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([tag, *length, size]) + data


def signature_def(signature: Signature) -> tf.SignatureDef:
    """The SignatureDef that says what `signature` says."""
    return tf.SignatureDef(
        inputs={spec.name: _tensor_info(spec) for spec in signature.inputs},
        outputs={spec.name: _tensor_info(spec) for spec in signature.outputs},
        method_name=signature.method,
    )


def _tensor_info(spec: TensorSpec) -> tf.TensorInfo:
    if spec.shape is None:
        shape = tf.TensorShapeProto(unknown_rank=True)
    else:
        shape = tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=size) for size in spec.shape])
    return tf.TensorInfo(name=spec.tensor, dtype=DTYPE.get(spec.datatype, 0), tensor_shape=shape)  # type: ignore[arg-type]
