"""JSON ↔ tensors. Numbers go between text and numpy without a Python object each where that is possible; nothing is
guessed: a value that is not of the datatype wanted is refused.

NaN and the infinities are written as the words `NaN`, `Infinity` and `-Infinity`, and read as these, as TF Serving
does.
"""

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from itertools import chain
from math import prod
from typing import Any

import numpy as np
import orjson

from portico.codecs import base64_text, json_numbers
from portico.codecs.json_numbers import Numbers, plain
from portico.errors import InvalidRequest, NotRepresentable
from portico.inference import MAX_RANK, Tensor, element_count, pack_bytes, unpack_bytes

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

MOST_LISTS = 1 << 16
"""Lists that a tensor may be written in beyond two for each value: one of shape [1099511627776, 0] has no value at all.
Each takes up to 300 bytes of memory while it is written.
"""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

_ACCEPTED: Mapping[str, frozenset[type]] = {
    "b": frozenset({bool}),
    "u": frozenset({int}),
    "i": frozenset({int}),
    "f": frozenset({int, float}),
}
"""Kind of numpy type → types of JSON values that it takes."""

_KINDS: Mapping[type, tuple[str, str]] = {
    type(None): ("null", "nulls"),
    bool: ("a boolean", "booleans"),
    int: ("a number", "integers"),
    float: ("a number", "floating-point numbers"),
    str: ("a string", "strings"),
    list: ("a list", "lists"),
    Numbers: ("a list", "lists"),
    dict: ("an object", "objects"),
}
"""Type of a JSON value → what one of it is called, and several."""


def parse(body: bytes, numbers: bool = False) -> Any:
    """The value of a JSON text. With `numbers`, long lists of them may be `Numbers`, where they are all there is or the
    value of a member: `tensor_from` and `flatten` take both. Raises InvalidRequest that says where it breaks off.
    """
    if numbers and len(body) >= json_numbers.LONG:
        value = json_numbers.parse(body)
        if value is not None:
            return value
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if b"NaN" in body or b"Infinity" in body:
            with suppress(ValueError, RecursionError):
                return _parse_words(body)
        raise InvalidRequest(f"The body is not JSON: {error}.") from error


def _parse_words(body: bytes) -> Any:
    """By Python's own parser, which takes NaN and Infinity, as orjson does not. Raises ValueError, RecursionError."""
    value = json.loads(body.decode())
    if _SURROGATE.search(body):
        json.dumps(value, ensure_ascii=False).encode()  # raises for half a surrogate pair, which is no text
    return value


def parse_object(body: bytes, numbers: bool = False) -> dict[str, Any]:
    """The JSON object of a body, as by `parse`. Raises InvalidRequest if it is anything else."""
    value = parse(body, numbers)
    if not isinstance(value, dict):
        raise InvalidRequest(f"The body has to be a JSON object, it is {_kind(value)}.")
    return value


def render(value: Any) -> bytes:
    """JSON text; numpy arrays are written as nested lists."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        raise NotRepresentable(f"It cannot be written as JSON: {error}.") from error


def render_numbers(value: Any) -> bytes:
    """Like `render`, for values that may hold floats that JSON has no number for."""
    try:
        if _all_finite(value):
            return render(value)
        return json.dumps(value, default=lambda array: array.tolist(), separators=(",", ":")).encode()
    except RecursionError:
        raise NotRepresentable("It cannot be written as JSON: its lists are nested too deep.") from None


def error_object(status: int, message: str) -> bytes:
    """The error of TF Serving's and of the Open Inference Protocol's REST API."""
    return render({"error": message})


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
    numbers = json_numbers.of_rows(value)
    if numbers is not None and datatype not in ("BOOL", "BYTES"):
        nesting, given, data = numbers.shape, numbers.count, _numbers(name, numbers.kinds, numbers, datatype)
    else:
        try:
            nesting, kinds, values = flatten(value)
        except ValueError as error:
            raise InvalidRequest(f"Input '{name}': {error}.") from None
        given = len(values)
        data = _strings(name, kinds, values) if datatype == "BYTES" else _numbers(name, kinds, values, datatype)
    if shape is None:
        return Tensor(name, datatype, nesting, data)
    if nesting != shape and len(nesting) != 1:
        raise InvalidRequest(f"Input '{name}': its data is nested as {list(nesting)}, its shape is {list(shape)}.")
    count = element_count(name, shape)
    if given != count:
        raise InvalidRequest(f"Input '{name}': shape {list(shape)} holds {count} elements, {given} were given.")
    return Tensor(name, datatype, shape, data)


def flatten(value: Any) -> tuple[tuple[int, ...], frozenset[type], list[Any]]:
    """(shape, types of the values, values in row-major order) of nested lists. Raises ValueError for ragged ones.

    numpy would do it in one step, but it makes one type of several by itself, and pads strings to the longest of them.
    """
    shape: list[int] = []
    values, kinds = [value], frozenset({type(value)})
    while kinds == {list}:
        lengths = set(map(len, values))
        if len(lengths) > 1:
            raise ValueError("its lists are ragged; a tensor's rows have one length")
        if len(shape) == MAX_RANK:
            raise ValueError(f"its lists are nested deeper than {MAX_RANK}")
        shape += lengths
        values = list(chain.from_iterable(values))
        kinds = frozenset(map(type, values))
    if Numbers in kinds:
        return flatten(plain(value) if isinstance(value, Numbers) else list(map(plain, value)))
    if list in kinds:
        raise ValueError("its lists are ragged; values and lists lie side by side")
    return tuple(shape), kinds, values


def _numbers(name: str, kinds: frozenset[type], values: list[Any] | Numbers, datatype: str) -> bytes:
    memory = "<f4" if datatype == "BF16" else NUMPY.get(datatype)
    if memory is None:
        raise InvalidRequest(f"Input '{name}': datatype '{datatype}' is none of {', '.join(NUMPY)}, BF16, BYTES.")
    wanted = np.dtype(memory)
    refused = kinds - _ACCEPTED[wanted.kind]
    if refused:
        held = " and ".join(sorted(map(_kind_of_type, refused)))
        raise InvalidRequest(f"Input '{name}': the model takes {datatype}, its data holds {held}.")
    try:
        with np.errstate(over="raise"):
            if isinstance(values, list):
                array = np.array(values, wanted)
                return (_to_bfloat16(array) if datatype == "BF16" else array).tobytes()
            parts = values.cast(wanted)
            return b"".join(_to_bfloat16(part).data if datatype == "BF16" else part.data for part in parts)
    except (OverflowError, FloatingPointError):
        raise InvalidRequest(f"Input '{name}': a value does not fit {datatype} ({_range(datatype)}).") from None


def _to_bfloat16(array: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """The upper half of each FP32, rounded to nearest even; NaN stays NaN. Raises OverflowError."""
    bits = array.view("<u4")
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    if (np.isfinite(array) & (rounded & 0x7FFF == 0x7F80)).any():
        raise OverflowError
    return np.where(np.isnan(array), 0x7FC0, rounded).astype("<u2")


def _range(datatype: str) -> str:
    if datatype == "BF16":
        return "-3.3895314e+38 to 3.3895314e+38"
    memory = np.dtype(NUMPY[datatype])
    limits = np.iinfo(memory) if memory.kind in "ui" else np.finfo(memory)
    return f"{limits.min} to {limits.max}"


def _strings(name: str, kinds: frozenset[type], values: list[Any]) -> bytes:
    refused = kinds - {str, bytes}
    if refused:
        held = " and ".join(sorted(map(_kind_of_type, refused)))
        raise InvalidRequest(f"Input '{name}': the model takes BYTES, its data holds {held}.")
    return pack_bytes(value if isinstance(value, bytes) else value.encode() for value in values)


def from_base64(name: str, value: Any) -> Any:
    """The value of an input with each {"b64": "…"} in place replaced by the bytes it stands for, as TF Serving has it.

    Raises InvalidRequest for what is no base64.
    """
    try:
        return _from_base64(name, value)
    except RecursionError:
        raise InvalidRequest(f"Input '{name}': its lists are nested too deep.") from None


def _from_base64(name: str, value: Any) -> Any:
    if isinstance(value, list):
        if set(map(type, value)) == {str}:
            return value
        return [_from_base64(name, element) for element in value]
    if isinstance(value, dict) and value.keys() == {"b64"}:
        try:
            return base64_text.decode(value["b64"])
        except base64_text.NotBase64 as error:
            raise InvalidRequest(f"Input '{name}': its b64 is {error}.") from None
    return value


def array_of(tensor: Tensor) -> "np.ndarray[Any, Any]":
    """A tensor's numbers in its shape, without a copy; BF16 comes as FP32. Not for BYTES.

    Raises NotRepresentable for more dimensions than numpy has.
    """
    if tensor.datatype == "BF16":
        flat = (np.frombuffer(tensor.data, "<u2").astype("<u4") << 16).view("<f4")
    else:
        flat = np.frombuffer(tensor.data, NUMPY[tensor.datatype])
    return _shaped(flat, tensor)


def nested(tensor: Tensor) -> Any:
    """A tensor's values, nested as its shape says, ready to be rendered. Raises NotRepresentable."""
    if tensor.datatype == "BYTES":
        return nested_text(tensor)
    return array_of(tensor) if tensor.shape else array_of(tensor).item()


def nested_text(tensor: Tensor) -> Any:
    """A BYTES tensor's elements as text, nested as its shape says. Raises NotRepresentable."""
    return _nested(list(text_of(tensor)), tensor)


def nested_base64(tensor: Tensor) -> Any:
    """A BYTES tensor's elements as {"b64": "…"}, nested as its shape says. Raises NotRepresentable."""
    return _nested([{"b64": b64encode(element).decode()} for element in unpack_bytes(tensor.data)], tensor)


def _nested(elements: list[Any], tensor: Tensor) -> Any:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return _shaped(array, tensor).tolist()


def _shaped(flat: "np.ndarray[Any, Any]", tensor: Tensor) -> "np.ndarray[Any, Any]":
    lists = sum(prod(tensor.shape[:rank]) for rank in range(len(tensor.shape)))
    if lists > MOST_LISTS + 2 * flat.size:
        raise NotRepresentable(
            f"Tensor '{tensor.name}' cannot be written as JSON: {lists} lists for {flat.size} values are too many."
        )
    try:
        return flat.reshape(tensor.shape)
    except ValueError as error:
        raise NotRepresentable(f"Tensor '{tensor.name}' cannot be written as JSON: {error}.") from error


def text_of(tensor: Tensor) -> list[str]:
    """A BYTES tensor's elements as text, flat. Raises NotRepresentable where one is not UTF-8."""
    try:
        return [element.decode() for element in unpack_bytes(tensor.data, tensor.name)]
    except UnicodeDecodeError:
        raise NotRepresentable(f"Tensor '{tensor.name}' is not UTF-8 text, and JSON holds only text.") from None


def _kind_of_type(kind: type) -> str:
    return _KINDS[kind][1]


def _kind(value: Any) -> str:
    return _KINDS[type(value)][0]
