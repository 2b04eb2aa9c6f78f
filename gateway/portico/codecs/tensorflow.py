"""TensorFlow's wire forms ↔ ours: TensorProto, DataType and SignatureDef. Used by the TF Serving backend and protocols.

Source: tensorflow/core/framework/{tensor,types}.proto, and `Tensor::FromProto` for what a TensorProto may leave out.
"""

from collections.abc import Iterable, Mapping
from functools import partial

import numpy as np

from portico.codecs import protobuf_wire
from portico.errors import InvalidRequest
from portico.inference import ITEM_SIZE, Tensor, UnreadTensor, check_count, element_count, pack_bytes, unpack_bytes
from portico.routing import Signature, TensorSpec
from portico.wire import tensorflow_pb2 as tf
from portico.wire import tf_serving_pb2 as tfs

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
    "BYTES": ("string_val", ""),
}
"""Datatype → the typed field of a TensorProto, and how its values lie in memory (16-bit floats as their bits)."""

MOST_FILLED = 1 << 20
"""Bytes of values that a message may leave out."""

_SHARED = frozenset({"int_val", "half_val"})
"""Fields of 32 bits that hold values of fewer."""

_SAME_BYTES = {
    name: tf.TensorProto.DESCRIPTOR.fields_by_name[_FIELD[name][0]].number for name in ("BOOL", "FP32", "FP64")
}
"""Datatypes whose packed field holds the very bytes of the tensor, and that field's number."""


def decode_tensors(protos: Mapping[str, tf.TensorProto]) -> tuple[Tensor, ...]:
    """The tensors of a message, by name. Raises InvalidRequest for what is no dense tensor of a datatype we know.

    TensorFlow lets a message leave out values that repeat the last one. All tensors together may leave out
    `MOST_FILLED` bytes, because a few bytes could ask for any amount of memory otherwise.
    """
    check_count(len(protos), "inputs")
    left = MOST_FILLED
    tensors: list[Tensor] = []
    for name, proto in protos.items():
        datatype, shape, count = _header(name, proto)
        data, filled = _values(name, proto, datatype, shape, count, left)
        left -= filled
        tensors.append(Tensor(name, datatype, shape, data))
    return tuple(tensors)


def unread_tensors(protos: Mapping[str, tf.TensorProto], size: int) -> tuple[Tensor, ...]:
    """Like `decode_tensors`, for a message of `size` bytes that may be passed on as it is: values are read, and
    refused, when somebody asks for a tensor's data.

    What is passed on asks the next server for at most `size` and `MOST_FILLED` bytes more than it brings.
    """
    check_count(len(protos), "inputs")
    left = size + MOST_FILLED
    tensors: list[Tensor] = []
    for name, proto in protos.items():
        datatype, shape, count = _header(name, proto)
        absent = count - len(getattr(proto, _FIELD[datatype][0]))
        left -= max(absent, 0) * ITEM_SIZE.get(datatype, left + 1)
        if left < 0:
            return decode_tensors(protos)
        read = partial(_data, name, proto, datatype, shape, count)
        tensors.append(UnreadTensor(name, datatype, shape, read))
    return tuple(tensors)


def _data(name: str, proto: tf.TensorProto, datatype: str, shape: tuple[int, ...], count: int) -> bytes:
    return _values(name, proto, datatype, shape, count, MOST_FILLED)[0]


def _header(name: str, proto: tf.TensorProto) -> tuple[str, tuple[int, ...], int]:
    """(datatype, shape, number of elements)."""
    datatype = DATATYPE.get(proto.dtype)
    if datatype is None:
        known = tf.DataType.Name(proto.dtype) if proto.dtype in tf.DataType.values() else str(proto.dtype)
        raise InvalidRequest(f"Input '{name}': tensors of dtype {known} are not supported.")
    declared = proto.tensor_shape
    shape = tuple([dim.size for dim in declared.dim])
    if declared.unknown_rank or -1 in shape:
        raise InvalidRequest(f"Input '{name}': its tensor_shape {list(shape)} has to be fully known.")
    return datatype, shape, element_count(name, shape)


def _values(
    name: str, proto: tf.TensorProto, datatype: str, shape: tuple[int, ...], count: int, left: int
) -> tuple[bytes, int]:
    """(data, bytes of it that the message left out)."""
    if proto.tensor_content:
        if datatype == "BYTES":
            raise InvalidRequest(f"Input '{name}': strings go into string_val, not into tensor_content.")
        return Tensor(name, datatype, shape, proto.tensor_content).check().data, 0
    given, data, last = _given(name, datatype, proto)
    missing = count - given
    if missing < 0 or missing * len(last) > left:
        limit = f" A message may leave out {MOST_FILLED} bytes of repeated values." if missing > 0 else ""
        raise InvalidRequest(f"Input '{name}': shape {list(shape)} holds {count} values, {given} were given.{limit}")
    return data + last * missing, missing * len(last)


def _given(name: str, datatype: str, proto: tf.TensorProto) -> tuple[int, bytes, bytes]:
    """(number of values in the typed field, their data, that of the last of them or else of zero, to fill the rest)."""
    if datatype == "BYTES":
        strings = list(proto.string_val)
        return len(strings), pack_bytes(strings), pack_bytes(strings[-1:] or [b""])
    field, memory = _FIELD[datatype]
    numbers = np.array(getattr(proto, field), "<i4" if field in _SHARED else memory)
    values = numbers.astype(memory, copy=False)
    if field in _SHARED and (values != numbers).any():
        raise InvalidRequest(f"Input '{name}': a value does not fit {datatype}.")
    return len(values), values.tobytes(), values[-1:].tobytes() or bytes(ITEM_SIZE[datatype])


def encode_tensor(tensor: Tensor, typed: bool = False, into: tf.TensorProto | None = None) -> tf.TensorProto:
    """The TensorProto of a tensor: written to `into`, an empty one, if there is one; copying it costs more than that.

    Its values go into `tensor_content`, or if `typed` into the field of their type (`float_val`, …) as TF Serving
    answers and clients read it.
    """
    proto = tf.TensorProto() if into is None else into
    proto.dtype = DTYPE[tensor.datatype]  # type: ignore[assignment]
    proto.tensor_shape.SetInParent()
    for size in tensor.shape:
        proto.tensor_shape.dim.add(size=size)
    if tensor.datatype == "BYTES":
        proto.string_val.extend(unpack_bytes(tensor.data, tensor.name))
    elif not typed:
        proto.tensor_content = tensor.data
    elif tensor.datatype in _SAME_BYTES:
        proto.MergeFromString(protobuf_wire.field(_SAME_BYTES[tensor.datatype], tensor.data))
    else:
        field, memory = _FIELD[tensor.datatype]
        protobuf_wire.extend(getattr(proto, field), np.frombuffer(tensor.data, memory))
    return proto


def serialize_request(request: tfs.PredictRequest, inputs: Iterable[Tensor]) -> bytes:
    """The serialized request with these inputs. Large ones are written beside the message, which would copy them."""
    large: list[bytes] = []
    for tensor in inputs:
        if tensor.datatype == "BYTES" or len(tensor.data) < protobuf_wire.LARGE:
            encode_tensor(tensor, into=request.inputs[tensor.name])
        else:
            large += _entry(tfs.PredictRequest.INPUTS_FIELD_NUMBER, tensor), tensor.data
    return b"".join([request.SerializeToString(), *large])


def _entry(number: int, tensor: Tensor) -> bytes:
    """What stands before the tensor's bytes in a map of name to TensorProto, field `number` of a message."""
    proto = encode_tensor(Tensor(tensor.name, tensor.datatype, tensor.shape, b"")).SerializeToString()
    proto += protobuf_wire.prefix(tf.TensorProto.TENSOR_CONTENT_FIELD_NUMBER, len(tensor.data))
    name = protobuf_wire.field(1, tensor.name.encode())
    value = protobuf_wire.prefix(2, len(proto) + len(tensor.data)) + proto
    return protobuf_wire.prefix(number, len(name) + len(value) + len(tensor.data)) + name + value


def without_field(message: bytes, number: int) -> bytes:
    """A serialized message without one of its fields. Raises InvalidRequest for what is no message that
    `protobuf_wire` takes apart.
    """
    return protobuf_wire.split(message, number)[0]


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
