"""TensorProto ↔ numpy arrays, with the field layout and the padding rules of TensorFlow's C++ Tensor.

Used by the gRPC edge and by prediction; strings are object arrays of bytes (core/framework/tensor.cc).
"""

import math
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto

from tf_serving_standin.errors import invalid_argument

Array = NDArray[Any]

# DataType → (field of TensorProto that holds its values, numpy dtype, the name C++ error texts use)
_LAYOUT: dict[int, tuple[str, Any, str]] = {
    types_pb2.DT_FLOAT: ("float_val", np.float32, "float"),
    types_pb2.DT_DOUBLE: ("double_val", np.float64, "double"),
    types_pb2.DT_INT32: ("int_val", np.int32, "int32"),
    types_pb2.DT_UINT8: ("int_val", np.uint8, "uint8"),
    types_pb2.DT_INT16: ("int_val", np.int16, "int16"),
    types_pb2.DT_INT8: ("int_val", np.int8, "int8"),
    types_pb2.DT_UINT16: ("int_val", np.uint16, "uint16"),
    types_pb2.DT_STRING: ("string_val", np.object_, "string"),
    types_pb2.DT_COMPLEX64: ("scomplex_val", np.complex64, "complex64"),
    types_pb2.DT_INT64: ("int64_val", np.int64, "int64"),
    types_pb2.DT_BOOL: ("bool_val", np.bool_, "bool"),
    types_pb2.DT_COMPLEX128: ("dcomplex_val", np.complex128, "complex128"),
    types_pb2.DT_HALF: ("half_val", np.float16, "half"),
    types_pb2.DT_BFLOAT16: ("half_val", ml_dtypes.bfloat16, "bfloat16"),
    types_pb2.DT_UINT32: ("uint32_val", np.uint32, "uint32"),
    types_pb2.DT_UINT64: ("uint64_val", np.uint64, "uint64"),
}
_BY_NUMPY = {np.dtype(dtype): datatype for datatype, (_, dtype, _) in _LAYOUT.items()}
# Above this many elements the values must be there: a few bytes must not make the server allocate gigabytes.
_MAX_PADDED_ELEMENTS = 2**28


def numpy_dtype(datatype: int) -> np.dtype[Any] | None:
    """The numpy dtype for a DataType, None when this server cannot hold it."""
    layout = _LAYOUT.get(datatype)
    return None if layout is None else np.dtype(layout[1])


def datatype_of(array: Array) -> int:
    """The DataType of an array."""
    return _BY_NUMPY[array.dtype]


def datatype_name(datatype: int) -> str:
    """The name of a DataType as C++ prints it in errors: `float`, not `DT_FLOAT`."""
    layout = _LAYOUT.get(datatype)
    return layout[2] if layout else types_pb2.DataType.Name(datatype).removeprefix("DT_").lower()


def decode(alias: str, proto: TensorProto) -> Array:
    """The array in `proto`; missing trailing values repeat the last one, as TensorFlow has it.

    Raises INVALID_ARGUMENT `tensor parsing error: <alias>` when shape, datatype and content do not fit.
    """
    try:
        return _decode(proto)
    except (ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise invalid_argument(f"tensor parsing error: {alias}") from error


def _decode(proto: TensorProto) -> Array:
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise ValueError("a tensor needs a full shape")
    field, dtype, _ = _LAYOUT[proto.dtype]
    count = math.prod(shape)
    if proto.tensor_content:
        return np.frombuffer(proto.tensor_content, dtype=dtype).reshape(shape)
    values = getattr(proto, field)
    if count > max(len(values), _MAX_PADDED_ELEMENTS):
        raise ValueError("too many elements for the values given")
    return _pad(_values(field, dtype, values), count, dtype).reshape(shape)


def _values(field: str, dtype: Any, values: Any) -> Array:
    if field == "half_val":
        return np.array(values, dtype=np.uint16).view(dtype)
    if field in ("scomplex_val", "dcomplex_val"):
        parts = np.array(values, dtype=np.float32 if field == "scomplex_val" else np.float64)
        return parts.view(dtype)
    if field == "string_val":
        array = np.empty(len(values), dtype=np.object_)
        array[:] = list(values)
        return array
    if field == "int_val":
        # C++ casts what does not fit, it does not refuse it.
        return np.array(values, dtype=np.int32).astype(dtype)
    return np.array(values, dtype=dtype)


def _pad(values: Array, count: int, dtype: Any) -> Array:
    if len(values) >= count:
        return values[:count]
    empty: Any = b"" if dtype is np.object_ else 0
    filler = values[-1] if len(values) else empty
    padded = np.empty(count, dtype=dtype)
    padded[: len(values)] = values
    padded[len(values) :] = filler
    return padded


def shape_proto(array: Array) -> TensorShapeProto:
    """The shape of `array` as a message."""
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in array.shape])


def encode(array: Array, *, as_content: bool = False) -> TensorProto:
    """`array` as a TensorProto: values in the typed field (the real server's default), or in `tensor_content`."""
    datatype = datatype_of(array)
    proto = TensorProto(dtype=datatype, tensor_shape=shape_proto(array))
    field = _LAYOUT[datatype][0]
    if as_content and field != "string_val":
        proto.tensor_content = array.tobytes()
        return proto
    flat = array.ravel()
    if field == "half_val":
        values: list[Any] = flat.view(np.uint16).tolist()
    elif field in ("scomplex_val", "dcomplex_val"):
        values = flat.view(np.float32 if field == "scomplex_val" else np.float64).tolist()
    else:
        values = flat.tolist()
    getattr(proto, field).extend(values)
    return proto
