"""TF Serving's JSON ↔ tensors: requests and answers of `:predict` in row and in column form.

Source: TF Serving's docs/api_rest.md and util/json_tensor.cc.
"""

from typing import Any

from portico.codecs import json_values
from portico.codecs.json_numbers import Numbers
from portico.errors import InvalidRequest, NotRepresentable
from portico.inference import InferenceResponse, Tensor
from portico.routing import Signature, TensorSpec

ROWS, COLUMNS = "instances", "inputs"


def signature_name(body: dict[str, Any]) -> str:
    """The signature that a body names, empty if it names none. Raises InvalidRequest."""
    name = body.get("signature_name", "")
    if not isinstance(name, str):
        raise InvalidRequest("'signature_name' has to be a string.")
    return name


def inputs_of(body: dict[str, Any], signature: Signature) -> tuple[Tensor, ...]:
    """The inputs of either form. Raises InvalidRequest."""
    if (ROWS in body) == (COLUMNS in body):
        what = (
            "expecting only one of 'inputs' or 'instances' keys"
            if ROWS in body
            else "Missing 'inputs' or 'instances' key"
        )
        raise InvalidRequest(
            f"{what}: the body needs either 'instances' (row form) or 'inputs' (column form), and not both."
        )
    specs = {spec.name: spec for spec in signature.inputs}
    columns = _transposed(body[ROWS], specs) if ROWS in body else body[COLUMNS]
    if not _is_named(columns):
        if len(specs) != 1:
            raise InvalidRequest(f"The model takes the inputs {', '.join(specs)}: name each in a JSON object.")
        columns = {next(iter(specs)): columns}
    return tuple(_tensor(name, value, specs) for name, value in columns.items())


def _transposed(rows: Any, specs: dict[str, TensorSpec]) -> Any:
    """Row form → column form: a list of objects becomes an object of lists."""
    if isinstance(rows, Numbers):
        return rows
    if not isinstance(rows, list) or not rows:
        raise InvalidRequest("'instances' has to be a list with at least one instance.")
    if not any(map(_is_named, rows)):
        return rows
    names = rows[0].keys() if _is_named(rows[0]) else frozenset()
    if not all(_is_named(row) and row.keys() == names for row in rows):
        raise InvalidRequest("Each of 'instances' has to be an object with the same inputs as the first.")
    return {name: [row[name] for row in rows] for name in names}


def _is_named(value: Any) -> bool:
    """Whether a JSON value is an object of inputs, and not a base64 string's {"b64": …}."""
    return isinstance(value, dict) and value.keys() != {"b64"}


def _tensor(name: str, value: Any, specs: dict[str, TensorSpec]) -> Tensor:
    spec = specs.get(name)
    if spec is None:
        raise InvalidRequest(f"The model has no input '{name}'. Its inputs: {', '.join(specs)}.")
    value = json_values.from_base64(name, value) if spec.datatype == "BYTES" else value
    return json_values.tensor_from(name, value, spec.datatype)


def columns(response: InferenceResponse) -> dict[str, Any]:
    """{"outputs": …}: the one output, or an object of them. Raises NotRepresentable."""
    outputs = {tensor.name: _nested(tensor) for tensor in response.outputs}
    return {"outputs": next(iter(outputs.values())) if len(outputs) == 1 else outputs}


def rows(response: InferenceResponse) -> dict[str, Any]:
    """{"predictions": […]}, one entry per instance. Raises InvalidRequest where an output does not have them all."""
    outputs = response.outputs
    sizes = {tensor.shape[:1] for tensor in outputs}
    if len(sizes) != 1 or () in sizes:
        shapes = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in outputs)
        raise InvalidRequest(f"The outputs ({shapes}) have no common batch dimension: use the column form, 'inputs'.")
    if len(outputs) == 1:
        return {"predictions": _nested(outputs[0])}
    nested = {tensor.name: _nested(tensor) for tensor in outputs}
    names = list(nested)
    return {"predictions": [dict(zip(names, row, strict=True)) for row in zip(*nested.values(), strict=True)]}


def _nested(tensor: Tensor) -> Any:
    """A tensor as JSON: numbers as an array, strings nested, those of an output called `…_bytes` as base64."""
    if tensor.datatype == "BYTES" and tensor.name.endswith("_bytes"):
        return json_values.nested_base64(tensor)
    try:
        return json_values.nested(tensor)
    except NotRepresentable as error:
        if tensor.datatype != "BYTES":
            raise
        raise NotRepresentable(
            f"{error} Ask by a gRPC API, or by POST /v2/models/<name>/infer with 'binary_data': true in the "
            "'parameters' of the output; an output whose name ends in _bytes comes as base64 here."
        ) from error
