"""Example requests for a model that declares its inputs, ready to send. Used for the documents and pages of single
models. Open sizes (-1) are 1 in them, and values are small: inside any vocabulary or scale.
"""

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import numpy as np

from portico.codecs.json_values import NUMPY
from portico.protocols.documentation.tensors import MOST_VALUES
from portico.routing import TensorSpec

TEXT = "text"
"""A BYTES element."""


def example_shape(spec: TensorSpec) -> list[int]:
    """The shape of `example`; one value where any rank goes."""
    return [1] if spec.shape is None else [1 if size < 0 else size for size in spec.shape]


def example(spec: TensorSpec) -> Any:
    """Values that fit, nested; None where they would be too many, or cannot be told."""
    shape = example_shape(spec)
    count = prod(shape)
    if count > MOST_VALUES or not (spec.datatype in NUMPY or spec.datatype in ("BF16", "BYTES")):
        return None
    values = np.empty(count, object)
    values[:] = [_example_value(spec.datatype, index) for index in range(count)]
    return values.reshape(shape).tolist()


def _example_value(datatype: str, index: int) -> Any:
    if datatype == "BYTES":
        return TEXT
    if datatype == "BOOL":
        return True
    return 1 if datatype.startswith(("INT", "UINT")) else (index % 10 + 1) / 10


def infer_example(inputs: Iterable[TensorSpec], outputs: Sequence[TensorSpec] = ()) -> Any:
    """A body of the Open Inference Protocol; None if a tensor has no example.

    It asks for all outputs but those that are bytes by TF Serving's convention, which JSON has no form for.
    """
    tensors = [
        {"name": spec.name, "shape": example_shape(spec), "datatype": spec.datatype, "data": example(spec)}
        for spec in inputs
    ]
    if any(tensor["data"] is None for tensor in tensors):
        return None
    wanted = [
        {"name": spec.name} for spec in outputs if not (spec.datatype == "BYTES" and spec.name.endswith("_bytes"))
    ]
    return {"inputs": tensors} | ({"outputs": wanted} if 0 < len(wanted) < len(outputs) else {})


def rows_example(inputs: Iterable[TensorSpec]) -> Any:
    """A body of TF Serving's row form; None if a tensor has no example, or no rows."""
    columns = {spec.name: example(spec) for spec in inputs}
    if not columns or not all(isinstance(column, list) and column for column in columns.values()):
        return None
    if len({len(column) for column in columns.values()}) > 1:
        return None
    if len(columns) == 1:
        return {"instances": next(iter(columns.values()))}
    return {"instances": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}


def columns_example(inputs: Iterable[TensorSpec]) -> Any:
    """A body of TF Serving's column form; None if a tensor has no example."""
    columns = {spec.name: example(spec) for spec in inputs}
    return None if None in columns.values() else {"inputs": columns}
