"""The Open Inference Protocol's JSON ↔ requests and tensors. Used by its REST protocol, for warm-up requests, and for
TorchServe handlers that speak it.

Source: the Open Inference Protocol's `specification/protocol/inference_rest.md`, section "Inference".
"""

from collections.abc import Iterable, Mapping
from typing import Any

from portico.codecs import json_values
from portico.codecs import open_inference_parameters as parameters
from portico.codecs.json_numbers import plain
from portico.codecs.open_inference_binary import BinaryData, BinaryOutputs
from portico.codecs.open_inference_parameters import BINARY_SIZE, CONTENT_TYPE, SIGNATURE, Parameters
from portico.errors import InvalidRequest, NotRepresentable
from portico.inference import InferenceRequest, Tensor


def decode_request(body: dict[str, Any], signed: bool, binary: BinaryData | None = None) -> InferenceRequest:
    """The request of a parsed `infer` body; `signed` is whether the model declares signatures. Raises InvalidRequest.

    `binary` is what followed the JSON. Beyond the protocol, a BYTES element may be {"b64": "…"}, as TF Serving has it,
    since JSON holds only text.
    """
    asked = request_parameters(body)
    parameters.refuse_sequences(asked)
    binary = binary or BinaryData()
    inputs = tuple(_input(entry, binary) for entry in _entries(body, "inputs"))
    binary.finish()
    return InferenceRequest(
        inputs=inputs,
        outputs=tuple(requested_outputs(body)),
        signature=asked.get(SIGNATURE, ""),
        content_type="" if signed else asked.get(CONTENT_TYPE, ""),
        id=_id(body),
    )


def request_parameters(body: dict[str, Any]) -> Parameters:
    """The parameters of the request itself. Raises InvalidRequest."""
    return parameters.of_json(body, "")


def requested_outputs(body: dict[str, Any]) -> dict[str, Parameters]:
    """The names of the outputs asked for, with their parameters; empty for all outputs. Raises InvalidRequest."""
    outputs = body.get("outputs") or []
    if not isinstance(outputs, list) or not all(map(_has_name, outputs)):
        raise InvalidRequest("'outputs' has to be a list of objects with a 'name'.")
    asked: dict[str, Parameters] = {}
    for output in outputs:
        name, where = output["name"], f"Output '{output['name']}': "
        if name in asked:
            raise InvalidRequest(f"{where}it is asked for twice.")
        asked[name] = parameters.of_json(output, where)
        parameters.refuse_classification(asked[name], where)
        parameters.refuse_shared_memory(asked[name], where)
    return asked


def decode_tensors(body: dict[str, Any], key: str) -> tuple[Tensor, ...]:
    """The tensors of a body's "inputs" or "outputs". Raises InvalidRequest."""
    return tuple(_tensor(entry) for entry in _entries(body, key))


def _entries(body: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = body.get(key)
    if not isinstance(entries, list) and not isinstance(entries := plain(entries), list):
        raise InvalidRequest(f"The body needs a list '{key}', of objects with name, shape, datatype and data.")
    if not all(map(_has_name, entries)):
        raise InvalidRequest(f"Each of '{key}' has to be an object with a 'name'.")
    return entries


def _input(entry: dict[str, Any], binary: BinaryData) -> Tensor:
    where = f"Input '{entry['name']}': "
    given = parameters.of_json(entry, where)
    parameters.refuse_shared_memory(given, where)
    if BINARY_SIZE not in given:
        return _tensor(entry)
    if "data" in entry:
        raise InvalidRequest(f"{where}it has 'data' and '{BINARY_SIZE}'; its values are in one place only.")
    name, shape, datatype = _described(entry)
    return Tensor(name, datatype, shape, binary.take(name, given[BINARY_SIZE])).check()


def _tensor(entry: dict[str, Any]) -> Tensor:
    name, shape, datatype = _described(entry)
    if "data" not in entry:
        raise InvalidRequest(f"Input '{name}' needs 'data': its values as JSON, flat or nested.")
    data = json_values.from_base64(name, entry["data"]) if datatype == "BYTES" else entry["data"]
    return json_values.tensor_from(name, data, datatype, shape)


def _described(entry: dict[str, Any]) -> tuple[str, tuple[int, ...], str]:
    """(name, shape, datatype)."""
    name, shape, datatype = entry["name"], entry.get("shape"), entry.get("datatype")
    if not isinstance(shape, list):
        shape = plain(shape)
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise InvalidRequest(f"Input '{name}': 'shape' has to be a list of sizes, none of them negative.")
    if not isinstance(datatype, str):
        raise InvalidRequest(f"Input '{name}' needs a 'datatype', such as FP32, INT64 or BYTES.")
    return name, tuple(shape), datatype


def _id(body: dict[str, Any]) -> str:
    value = body.get("id")
    if value is not None and not isinstance(value, str):
        raise InvalidRequest("'id' has to be a string.")
    return value or ""


def _has_name(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("name"), str)


def encode_response(
    head: Mapping[str, Any], tensors: Iterable[Tensor], binary: BinaryOutputs
) -> tuple[bytes, int | None]:
    """(body, bytes of JSON in it; None if it is nothing else): `head` and the outputs, some of them behind the JSON.

    Raises NotRepresentable for values that JSON cannot hold.
    """
    entries: list[dict[str, Any]] = []
    behind: list[bytes] = []
    for tensor in tensors:
        if binary.holds(tensor.name):
            entries.append(_head(tensor) | {"parameters": {BINARY_SIZE: len(tensor.data)}})
            behind.append(tensor.data)
        else:
            entries.append(_in_json(tensor))
    text = json_values.render_numbers({**head, "outputs": entries})
    return (b"".join([text, *behind]), len(text)) if behind else (text, None)


def _in_json(tensor: Tensor) -> dict[str, Any]:
    try:
        return encode_tensor(tensor)
    except NotRepresentable as error:
        raise NotRepresentable(f"{error} Ask for the output with 'binary_data': true in its 'parameters'.") from error


def encode_tensor(tensor: Tensor) -> dict[str, Any]:
    """A tensor with flat data, row-major, ready to be rendered. Raises NotRepresentable for bytes that are no text."""
    data = json_values.text_of(tensor) if tensor.datatype == "BYTES" else json_values.array_of(tensor).ravel()
    return _head(tensor) | {"data": data}


def _head(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
