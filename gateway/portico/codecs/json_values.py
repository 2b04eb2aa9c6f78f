"""JSON ↔ tensors. Numbers go between text and numpy without a Python object each where that is possible; nothing is
guessed: a value that is not of the datatype wanted is refused.

NaN and the infinities are written as the words `NaN`, `Infinity` and `-Infinity`, and read as these, as TF Serving
does.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from portico.errors import InvalidRequest
from portico.inference import Tensor, pack_bytes, unpack_bytes

NUMPY: Mapping[str, str] = {
    "BOOL": "?",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
"""Datatype → numpy's type string. BF16, which numpy does not have, and BYTES are handled apart."""

_ACCEPTED_KINDS = {"?": "b", "u": "ui", "i": "ui", "f": "fui"}


def parse(body: bytes) -> Any:
    """The value of a JSON text. Raises InvalidRequest that says where it breaks off."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        try:
            return json.loads(body)  # takes NaN and Infinity, which orjson does not
        except (ValueError, RecursionError):
            raise InvalidRequest(f"The body is not JSON: {error}.") from error


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises InvalidRequest if it is anything else."""
    value = parse(body)
    if not isinstance(value, dict):
        raise InvalidRequest(f"The body has to be a JSON object, it is {_kind(value)}.")
    return value


def render(value: Any) -> bytes:
    """JSON text; numpy arrays are written as nested lists."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        raise InvalidRequest(f"The answer cannot be written as JSON: {error}.") from error


def render_numbers(value: Any) -> bytes:
    """Like `render`, for values that may hold floats that JSON has no number for."""
    if _all_finite(value):
        return render(value)
    return json.dumps(value, default=lambda array: array.tolist(), separators=(",", ":")).encode()


def _all_finite(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
    if isinstance(value, dict):
        return all(map(_all_finite, value.values()))
    if isinstance(value, list):
        return all(map(_all_finite, value))
    return not isinstance(value, float | np.floating) or bool(np.isfinite(value))


def tensor_from(name: str, value: Any, datatype: str, shape: tuple[int, ...] | None = None) -> Tensor:
    """The tensor of nested lists, or of flat ones with `shape`.

    Raises InvalidRequest for ragged lists, for values that are not of `datatype`, and for a number of values that does
    not make the shape.
    """
    if datatype == "BYTES":
        array, data = _strings(name, value)
    else:
        array = _numbers(name, value, datatype)
        data = array.tobytes()
    if shape is None:
        return Tensor(name, datatype, array.shape, data)
    if array.shape != shape and array.ndim != 1:
        raise InvalidRequest(f"Input '{name}': its data is nested as {list(array.shape)}, its shape is {list(shape)}.")
    return Tensor(name, datatype, shape, data).check()


def _numbers(name: str, value: Any, datatype: str) -> "np.ndarray[Any, Any]":
    memory = "<f4" if datatype == "BF16" else NUMPY.get(datatype)
    if memory is None:
        raise InvalidRequest(f"Input '{name}': datatype '{datatype}' is none of {', '.join(NUMPY)}, BF16, BYTES.")
    try:
        array = np.array(value)
    except ValueError:
        raise InvalidRequest(f"Input '{name}': its lists are ragged; a tensor's rows have one length.") from None
    wanted = np.dtype(memory)
    if array.size and array.dtype.kind not in _ACCEPTED_KINDS["?" if wanted.kind == "b" else wanted.kind]:
        raise InvalidRequest(f"Input '{name}': the model takes {datatype}, its data holds {_kind_of(array)}.")
    if wanted.kind in "ui" and array.size:
        info = np.iinfo(wanted)
        if array.min() < info.min or array.max() > info.max:
            raise InvalidRequest(f"Input '{name}': a value does not fit {datatype} ({info.min} to {info.max}).")
    array = array.astype(wanted)
    return _to_bfloat16(array) if datatype == "BF16" else array


def _to_bfloat16(array: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """The upper half of each FP32, rounded to nearest even; NaN stays NaN."""
    bits = array.view("<u4")
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(array), 0x7FC0, rounded).astype("<u2")


def _strings(name: str, value: Any) -> tuple["np.ndarray[Any, Any]", bytes]:
    array = np.array(value, dtype=object)
    elements = [_bytes_of(name, element) for element in array.ravel()]
    return array, pack_bytes(elements)


def _bytes_of(name: str, element: Any) -> bytes:
    if isinstance(element, bytes):
        return element
    if isinstance(element, str):
        return element.encode()
    raise InvalidRequest(f"Input '{name}': the model takes BYTES, its data holds {_kind(element)}.")


def array_of(tensor: Tensor) -> "np.ndarray[Any, Any]":
    """A tensor's numbers in its shape, without a copy; BF16 comes as FP32. Not for BYTES."""
    if tensor.datatype == "BF16":
        return (np.frombuffer(tensor.data, "<u2").astype("<u4") << 16).view("<f4").reshape(tensor.shape)
    return np.frombuffer(tensor.data, NUMPY[tensor.datatype]).reshape(tensor.shape)


def text_of(tensor: Tensor) -> list[str]:
    """A BYTES tensor's elements as text, flat. Raises InvalidRequest where one is not UTF-8."""
    try:
        return [element.decode() for element in unpack_bytes(tensor.data, tensor.name)]
    except UnicodeDecodeError:
        raise InvalidRequest(f"Output '{tensor.name}' is not UTF-8 text, and JSON holds only text.") from None


def _kind_of(array: "np.ndarray[Any, Any]") -> str:
    names = {"b": "booleans", "f": "fractions", "i": "integers", "u": "integers", "U": "strings"}
    return names.get(array.dtype.kind, "values that are no numbers")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
