"""One JSON value ↔ one dense tensor, and how TF Serving's error texts print JSON (util/json_tensor.cc).

Used by both directions of the REST edge; knows no requests and no signatures.
"""

import base64
import binascii
import json
from typing import Any

import numpy as np
from tensorflow.core.framework import types_pb2

from tf_serving_standin.errors import Code, ServingError, invalid_argument
from tf_serving_standin.tensors import Array, datatype_name, numpy_dtype

_MAX_DEBUG_CHARS = 256
_RANGES = {
    types_pb2.DT_INT32: (-(2**31), 2**31 - 1),
    types_pb2.DT_INT16: (-(2**31), 2**31 - 1),
    types_pb2.DT_INT8: (-(2**31), 2**31 - 1),
    types_pb2.DT_UINT8: (-(2**31), 2**31 - 1),
    types_pb2.DT_INT64: (-(2**63), 2**63 - 1),
    types_pb2.DT_UINT32: (0, 2**32 - 1),
    types_pb2.DT_UINT64: (0, 2**64 - 1),
}
_FLOATS = (types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE)


def type_name(value: Any) -> str:
    """The JSON type of a value, as rapidjson names it."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, dict):
        return "Object"
    if isinstance(value, list):
        return "Array"
    return "String" if isinstance(value, str) else "Number"


def debug_string(value: Any) -> str:
    """A value for an error text: JSON with four spaces of indent, arrays on one line, cut when long."""
    text = _debug(value, 0)
    return text if len(text) <= _MAX_DEBUG_CHARS else text[:_MAX_DEBUG_CHARS]


def _debug(value: Any, depth: int) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_debug(item, depth) for item in value[:_MAX_DEBUG_CHARS]) + "]"
    if isinstance(value, dict):
        if not value:
            return "{}"
        pad = "    " * (depth + 1)
        fields = (f"{pad}{json.dumps(k, ensure_ascii=False)}: {_debug(v, depth + 1)}" for k, v in value.items())
        return "{\n" + ",\n".join(fields) + "\n" + "    " * depth + "}"
    return json.dumps(value, ensure_ascii=False)


def is_base64_object(value: Any) -> bool:
    """Whether a value is `{"b64": "<text>"}` and nothing else."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def dense_tensor(value: Any, datatype: int) -> Array:
    """The array a JSON value stands for: nested lists of one shape, or a scalar.

    Raises INVALID_ARGUMENT for ragged lists and values of a wrong type, UNIMPLEMENTED for datatypes JSON cannot carry.
    """
    shape: list[int] = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        if not first:
            break
        first = first[0]
    flat: list[Any] = []
    _collect(value, 0, shape, datatype, flat)
    dtype = numpy_dtype(datatype)
    if dtype == np.object_:
        array: Array = np.empty(len(flat), dtype=np.object_)
        array[:] = flat
    elif datatype in _FLOATS or dtype is None:
        with np.errstate(over="ignore"):
            array = np.array(flat, dtype=np.float64).astype(dtype or np.float64)
    elif datatype == types_pb2.DT_UINT64:
        array = np.array(flat, dtype=np.uint64)
    else:
        array = np.array(flat, dtype=np.bool_ if datatype == types_pb2.DT_BOOL else np.int64).astype(dtype)
    return array.reshape(shape)


def _collect(value: Any, level: int, shape: list[int], datatype: int, flat: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid_argument(
                f"JSON Value: {debug_string(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        flat.append(_scalar(value, datatype))
        return
    if level >= len(shape):
        raise invalid_argument(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid_argument(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    if level + 1 == len(shape) and datatype in _FLOATS and set(map(type, value)) <= {float, int}:
        flat.extend(value)  # the same as below, at the speed that images need
        return
    for item in value:
        _collect(item, level + 1, shape, datatype, flat)


def _scalar(value: Any, datatype: int) -> Any:
    if datatype in _FLOATS:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
        # float() first, because an integer beyond 64 bits has no other way into an array
        return float(value) if fits else _refuse(value, datatype)
    if datatype in _RANGES:
        low, high = _RANGES[datatype]
        return value if type(value) is int and low <= value <= high else _refuse(value, datatype)
    if datatype == types_pb2.DT_BOOL:
        return value if isinstance(value, bool) else _refuse(value, datatype)
    if datatype == types_pb2.DT_STRING:
        return _text(value)
    if isinstance(value, dict):
        _refuse(value, datatype)
    raise ServingError(
        Code.UNIMPLEMENTED, f"Conversion of JSON Value: {debug_string(value)} to type: {datatype_name(datatype)}"
    )


def _text(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if not isinstance(value, dict):
        _refuse(value, types_pb2.DT_STRING)
    if not is_base64_object(value):
        raise invalid_argument(f"JSON Value: {debug_string(value)} not formatted correctly for base64 data")
    try:
        return base64.b64decode(value["b64"] + "=" * (-len(value["b64"]) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid_argument("Unable to base64 decode") from error


def _refuse(value: Any, datatype: int) -> Any:
    raise invalid_argument(
        f"JSON Value: {debug_string(value)} Type: {type_name(value)} is not of expected type: {datatype_name(datatype)}"
    )
