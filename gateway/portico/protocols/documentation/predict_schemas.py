"""Requests and answers of TF Serving's `:predict` as JSON Schema, in row and in column form, for one signature of a
model. Used by `signatures`.
"""

from collections.abc import Iterable, Mapping

from portico.protocols.documentation.tensors import Schema, answer_schema, nested_schema, titled, value_schema
from portico.routing import DEFAULT_SIGNATURE, Signature, TensorSpec


def rows_request(name: str, signature: Signature) -> Schema | None:
    """What `:predict` takes in row form; None if an input has no rows."""
    rows = {spec.name: _row(spec, value_schema(spec.datatype)) for spec in signature.inputs}
    if not rows or None in rows.values():
        return None
    items = [next(iter(rows.values())), _object(rows)] if len(rows) == 1 else [_object(rows)]
    forms = [{"type": "array", "items": item} | _count(signature.inputs) for item in items]
    return _body("Row form", name, "instances", {"anyOf": forms} if len(forms) > 1 else forms[0], "inputs")


def _count(inputs: Iterable[TensorSpec]) -> Schema:
    """How many rows there may be."""
    sizes = {spec.shape[0] for spec in inputs if spec.shape and spec.shape[0] >= 0}
    return {"minItems": max(sizes), "maxItems": min(sizes)} if sizes else {"minItems": 1}


def columns_request(name: str, signature: Signature) -> Schema:
    """What `:predict` takes in column form."""
    columns = {spec.name: nested_schema(spec.shape, value_schema(spec.datatype)) for spec in signature.inputs}
    named = _object(columns)
    given = {"anyOf": [next(iter(columns.values())), named]} if len(columns) == 1 else named
    return _body("Column form", name, "inputs", given, "instances")


def predictions_request(signature: Signature) -> Schema:
    """What `/predictions` of TorchServe's API takes for a model with tensors: either form, or the columns alone."""
    rows, columns = rows_request(DEFAULT_SIGNATURE, signature), columns_request(DEFAULT_SIGNATURE, signature)
    wholes = [
        {name: part for name, part in whole.items() if name != "not"} for whole in (rows, columns) if whole is not None
    ]
    return {"anyOf": [columns["properties"]["inputs"] | {"title": "Columns alone"}, *wholes]}


def predictions_response(signature: Signature) -> Schema:
    """What `/predictions` answers: the columns alone."""
    columns: Schema = columns_response(DEFAULT_SIGNATURE, signature)["properties"]["outputs"]
    return columns


def _body(form: str, name: str, key: str, value: Schema, other: str) -> Schema:
    is_default = name == DEFAULT_SIGNATURE
    return {
        "title": titled(form, name),
        "type": "object",
        "required": [key] if is_default else [key, "signature_name"],
        "properties": {key: value, "signature_name": {"enum": [name, ""] if is_default else [name]}},
        "not": {"required": [other]},
    }


def _row(spec: TensorSpec, value: Schema) -> Schema | None:
    if spec.shape is None:
        return nested_schema(None, value)
    return nested_schema(spec.shape[1:], value) if spec.shape else None


def _object(properties: Mapping[str, Schema | None]) -> Schema:
    return {
        "type": "object",
        "required": list(properties),
        "properties": dict(properties),
        "additionalProperties": False,
    }


def rows_response(name: str, signature: Signature) -> Schema | None:
    """What it answers to rows; None if an output has none."""
    rows = {spec.name: _row(spec, _answer(spec)) for spec in signature.outputs}
    if not rows or None in rows.values():
        return None
    item = next(iter(rows.values())) if len(rows) == 1 else _object(rows)
    return _object({"predictions": {"type": "array", "items": item}}) | {"title": titled("Row form", name)}


def columns_response(name: str, signature: Signature) -> Schema:
    """What it answers to columns."""
    columns = {spec.name: nested_schema(spec.shape, _answer(spec), empty=True) for spec in signature.outputs}
    value = next(iter(columns.values())) if len(columns) == 1 else _object(columns)
    return _object({"outputs": value}) | {"title": titled("Column form", name)}


def _answer(spec: TensorSpec) -> Schema:
    return answer_schema(spec.datatype, base64=spec.name.endswith("_bytes"))
