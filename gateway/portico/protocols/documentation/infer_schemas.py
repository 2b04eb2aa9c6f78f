"""Requests and answers of the Open Inference Protocol as JSON Schema, for one signature of a model. Used by
`signatures`.
"""

from collections.abc import Mapping

from portico.protocols.documentation.tensors import (
    Schema,
    answer_schema,
    nested_schema,
    shape_schema,
    shown_shape,
    titled,
    value_schema,
)
from portico.routing import DEFAULT_SIGNATURE, Route, Signature, TensorSpec


def infer_request(name: str, signature: Signature) -> Schema:
    """What `infer` takes; another signature than the default one has to be named."""
    is_default = name == DEFAULT_SIGNATURE
    chosen = {"enum": [name, "", None] if is_default else [name]}
    parameters = {
        "type": ["object", "null"] if is_default else "object",
        "properties": {"signature_name": chosen},
        **({} if is_default else {"required": ["signature_name"]}),
    }
    wanted = {"enum": [spec.name for spec in signature.outputs]}
    output = {"type": "object", "required": ["name"], "properties": {"name": wanted}}
    return {
        "title": titled("Request", name),
        "type": "object",
        "required": ["inputs"] if is_default else ["inputs", "parameters"],
        "properties": {
            "id": {"type": ["string", "null"]},
            "parameters": {"allOf": [{"$ref": "#/components/schemas/RequestParameters"}, parameters]},
            "inputs": _tensors([_input(spec) for spec in signature.inputs], [spec.name for spec in signature.inputs]),
            "outputs": {"type": ["array", "null"], "items": output},
        },
    }


def _tensors(schemas: list[Schema], names: list[str]) -> Schema:
    """A list of them in any order, each once."""
    if len(schemas) == 1:
        return {"type": "array", "items": schemas[0], "minItems": 1, "maxItems": 1}
    each = [{"contains": {"properties": {"name": {"const": name}}}} for name in names]
    return {
        "type": "array",
        "items": {"anyOf": schemas} if schemas else {},
        "minItems": len(schemas),
        "maxItems": len(schemas),
        **({"allOf": each} if each else {}),
    }


def _input(spec: TensorSpec) -> Schema:
    value = value_schema(spec.datatype)
    nested = nested_schema(spec.shape, value, empty=True)
    return {
        "title": spec.name,
        "description": f"{spec.datatype} {shown_shape(spec.shape)}; flat in row-major order, or nested.",
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"const": spec.name},
            "shape": shape_schema(spec.shape),
            "datatype": {"const": spec.datatype},
            "data": {"anyOf": [{"type": "array", "items": value}, nested]},
            "parameters": {"$ref": "#/components/schemas/InputParameters"},
        },
    }


def infer_response(route: Route, signatures: Mapping[str, Signature]) -> Schema:
    """What `infer` answers, whatever the signature."""
    outputs = {spec: _output(spec) for signature in signatures.values() for spec in signature.outputs}
    return {
        "title": "Answer",
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"const": route.model},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": {"anyOf": list(outputs.values())}},
        },
        "additionalProperties": False,
    }


def _output(spec: TensorSpec) -> Schema:
    return {
        "title": spec.name,
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"const": spec.name},
            "shape": shape_schema(spec.shape),
            "datatype": {"const": spec.datatype},
            "data": {"type": "array", "items": answer_schema(spec.datatype)},
            "parameters": {"type": "object", "properties": {"binary_data_size": {"type": "integer", "minimum": 0}}},
        },
        "additionalProperties": False,
    }
