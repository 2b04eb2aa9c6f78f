"""What a model declares of its tensors, as JSON Schema. Used for the documents of single models."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from portico.codecs.json_values import NUMPY
from portico.routing import DEFAULT_SIGNATURE

Schema = dict[str, Any]

MOST_VALUES = 1024
"""Values that a schema counts out, and an example holds; a page of more helps nobody."""

_INFINITE = {"FP16": 65520.0, "BF16": (2 - 2**-8) * 2.0**127 - 2.0**103, "FP32": 2.0**128 - 2.0**103}
"""The least number that rounds to infinity: half a step above the largest. BF16 is rounded to FP32 first."""

_BASE64 = {"$ref": "#/components/schemas/Base64"}
_ANY_VALUE = {"$ref": "#/components/schemas/Value"}


def value_schema(datatype: str) -> Schema:
    """One element that goes into a tensor; nothing fits a datatype that the protocols have no name for."""
    if datatype == "BYTES":
        return {"anyOf": [{"type": "string"}, _BASE64]}
    if datatype == "BOOL":
        return {"type": "boolean"}
    if datatype in _INFINITE:
        return {"type": "number", "exclusiveMinimum": -_INFINITE[datatype], "exclusiveMaximum": _INFINITE[datatype]}
    if datatype not in NUMPY:
        return {"not": {}, "description": f"Portico has no form for {datatype}."}
    memory = np.dtype(NUMPY[datatype])
    limits: Any = np.iinfo(memory) if memory.kind in "ui" else np.finfo(memory)
    kind, number = ("integer", int) if memory.kind in "ui" else ("number", float)
    return {"type": kind, "minimum": number(limits.min), "maximum": number(limits.max)}


def answer_schema(datatype: str, *, base64: bool = False) -> Schema:
    """One element that comes out of a tensor; `base64` is for text that TF Serving writes so."""
    if datatype == "BYTES":
        return dict(_BASE64) if base64 else {"type": "string"}
    if datatype == "BOOL":
        return {"type": "boolean"}
    return {"type": "integer" if datatype.startswith(("INT", "UINT")) else "number"}


def shape_schema(shape: Sequence[int] | None) -> Schema:
    """The `shape` of the Open Inference Protocol."""
    if shape is None:
        return {"$ref": "#/components/schemas/Shape"}
    sizes = [{"type": "integer", "minimum": 0} if size < 0 else {"const": size} for size in shape]
    prefix = {"prefixItems": sizes} if sizes else {}
    return {"type": "array", **prefix, "minItems": len(sizes), "maxItems": len(sizes), "items": {"type": "integer"}}


def nested_schema(shape: Sequence[int] | None, value: Schema, *, empty: bool = False) -> Schema:
    """Lists nested to `shape`, with `value` for each element.

    A size that is open may be 0 only where no other follows: JSON would not show those. With `empty` every one may.
    """
    if shape is None:
        return dict(_ANY_VALUE)
    counted = prod(abs(size) for size in shape) <= MOST_VALUES
    schema = value
    for index in reversed(range(len(shape))):
        schema = {"type": "array", "items": schema} | _length(shape[index], counted, empty or index == len(shape) - 1)
    return schema


def _length(size: int, counted: bool, may_be_empty: bool) -> Schema:
    """A page makes a sample of a schema by itself, and would of one that counts out a picture's pixels."""
    if size < 0:
        return {} if may_be_empty else {"minItems": 1}
    return {"minItems": size, "maxItems": size} if counted else {"maxItems": size}


def shown_shape(shape: Sequence[int] | None) -> str:
    """A shape as people read it."""
    return "any shape" if shape is None else f"[{', '.join(map(str, shape))}]"


def titled(form: str, name: str) -> str:
    """A form's title, with the signature if it is another than the default one."""
    return form if name == DEFAULT_SIGNATURE else f"{form}, signature {name}"
