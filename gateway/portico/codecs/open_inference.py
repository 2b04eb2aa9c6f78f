"""The Open Inference Protocol's JSON ↔ requests and tensors. Used by its REST protocol, for warm-up requests, and for
TorchServe handlers that speak it.

Source: the Open Inference Protocol's `specification/protocol/inference_rest.md`, section "Inference".
"""

from typing import Any

from portico.codecs import json_values
from portico.errors import InvalidRequest
from portico.inference import InferenceRequest, Tensor


def decode_request(body: dict[str, Any], signed: bool) -> InferenceRequest:
    """The request of a parsed `infer` body; `signed` is whether the model declares signatures. Raises InvalidRequest.

    Beyond the protocol, a BYTES element may be {"b64": "…"}, as TF Serving has it, since JSON holds only text.
    """
    outputs = body.get("outputs") or []
    if not isinstance(outputs, list) or not all(map(_has_name, outputs)):
        raise InvalidRequest("'outputs' has to be a list of objects with a 'name'.")
    parameters = body.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidRequest("'parameters' has to be an object.")
    return InferenceRequest(
        inputs=decode_tensors(body, "inputs"),
        outputs=tuple(output["name"] for output in outputs),
        signature=_text(parameters, "signature_name") if signed else "",
        content_type="" if signed else _text(parameters, "content_type"),
        id=_text(body, "id"),
    )


def decode_tensors(body: dict[str, Any], key: str) -> tuple[Tensor, ...]:
    """The tensors of a body's "inputs" or "outputs". Raises InvalidRequest."""
    entries = body.get(key)
    if not isinstance(entries, list):
        raise InvalidRequest(f"The body needs a list '{key}', of objects with name, shape, datatype and data.")
    return tuple(_tensor(entry, key) for entry in entries)


def _tensor(entry: Any, key: str) -> Tensor:
    if not _has_name(entry):
        raise InvalidRequest(f"Each of '{key}' has to be an object with a 'name'.")
    name = entry["name"]
    shape, datatype = entry.get("shape"), entry.get("datatype")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise InvalidRequest(f"Input '{name}': 'shape' has to be a list of sizes, none of them negative.")
    if not isinstance(datatype, str):
        raise InvalidRequest(f"Input '{name}' needs a 'datatype', such as FP32, INT64 or BYTES.")
    if "data" not in entry:
        raise InvalidRequest(f"Input '{name}' needs 'data': its values as JSON, flat or nested.")
    data = json_values.from_base64(name, entry["data"]) if datatype == "BYTES" else entry["data"]
    return json_values.tensor_from(name, data, datatype, tuple(shape))


def _text(values: dict[str, Any], name: str) -> str:
    value = values.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"'{name}' has to be a string.")
    return value or ""


def _has_name(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("name"), str)


def encode_tensor(tensor: Tensor) -> dict[str, Any]:
    """A tensor with flat data, row-major, ready to be rendered. Raises NotRepresentable for bytes that are no text."""
    data = json_values.text_of(tensor) if tensor.datatype == "BYTES" else json_values.array_of(tensor).ravel()
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape, "data": data}
