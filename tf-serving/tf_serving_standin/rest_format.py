"""Arrays, results and messages → REST response bodies, shaped and rounded as TF Serving writes them.

Used by the REST edge only (util/json_tensor.cc, model_servers/http_rest_api_util.cc); whitespace differs.
"""

import base64
import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from google.protobuf import json_format
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis.classification_pb2 import ClassificationResult
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse
from tensorflow_serving.apis.regression_pb2 import RegressionResult

from tf_serving_standin.errors import invalid_argument
from tf_serving_standin.tensors import Array, datatype_name, datatype_of

_INTEGERS = frozenset(
    getattr(types_pb2, f"DT_{name}") for name in ("INT32", "INT16", "INT8", "UINT8", "INT64", "UINT32", "UINT64")
)


def decimal(value: float, *, single: bool = True) -> str:
    """A float as JSON: six digits when they are exact, else nine (17 for a double), and never without `.` or `e`.

    NaN and infinities are written bare, which is not JSON, but what the real server sends.
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    text = f"{value:.6g}"
    back = float(np.float32(text)) if single else float(text)
    if back != value:
        text = f"{value:.9g}" if single else f"{value:.17g}"
    return text if "." in text or "e" in text else text + ".0"


def predictions(outputs: Mapping[str, Array], *, row: bool) -> bytes:
    """The body of a predict answer: {"predictions": [...]} for the row form, {"outputs": ...} for columns.

    Raises INVALID_ARGUMENT when an output has no batch dimension, batches differ, or JSON cannot carry a datatype.
    """
    if not outputs:
        raise invalid_argument("Cannot convert empty tensor map to JSON")
    writers = {name: _writer(name, datatype_of(array)) for name, array in outputs.items()}
    if not row:
        fields = {name: _nested(array.tolist(), writers[name]) for name, array in outputs.items()}
        body = _object(fields) if len(fields) > 1 else next(iter(fields.values()))
        return _bytes(f'{{\n    "outputs": {body}\n}}')
    _check_batch(outputs)
    columns = {name: [_nested(item, writers[name]) for item in array.tolist()] for name, array in outputs.items()}
    rows = zip(*columns.values(), strict=True)
    texts = [_object(dict(zip(columns, values, strict=True))) if len(columns) > 1 else values[0] for values in rows]
    return _bytes('{\n    "predictions": [' + ", ".join(texts) + "\n    ]\n}")


def _check_batch(outputs: Mapping[str, Array]) -> None:
    expected = -1
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        if expected not in (-1, len(array)):
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {expected}"
            )
        expected = len(array)


def _writer(name: str, datatype: int) -> Callable[[Any], str]:
    if datatype in (types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE):
        return partial(decimal, single=datatype == types_pb2.DT_FLOAT)
    if datatype in _INTEGERS:
        return str
    if datatype == types_pb2.DT_BOOL:
        return json.dumps
    if datatype == types_pb2.DT_STRING:
        return _base64 if name.endswith("_bytes") else _text
    raise invalid_argument(f"Failed to write JSON value for tensor type: {datatype_name(datatype)}")


def _nested(value: Any, write: Callable[[Any], str]) -> str:
    if isinstance(value, list):
        return "[" + ", ".join([_nested(item, write) for item in value]) + "]"
    return write(value)


def _base64(value: bytes) -> str:
    return '{ "b64": "' + base64.b64encode(value).decode() + '" }'


def _text(value: bytes) -> str:
    # Bytes that are no UTF-8 pass through as they are, as the real server passes them.
    return json.dumps(value.decode("utf-8", "surrogateescape"), ensure_ascii=False)


def _object(fields: Mapping[str, str]) -> str:
    return "{ " + ", ".join(f"{json.dumps(name)}: {text}" for name, text in fields.items()) + " }"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def classifications(result: ClassificationResult) -> bytes:
    """{"results": [[[label, score], ...], ...]}, one list for each example."""
    if not result.classifications:
        raise invalid_argument("Cannot convert empty ClassificationResults to JSON")
    rows = [
        "[" + ", ".join(f"[{_text(c.label.encode())}, {decimal(c.score)}]" for c in classes.classes) + "]"
        for classes in result.classifications
    ]
    return _bytes('{\n    "results": [' + ", ".join(rows) + "\n    ]\n}")


def regressions(result: RegressionResult) -> bytes:
    """{"results": [value, ...]}, one for each example."""
    if not result.regressions:
        raise invalid_argument("Cannot convert empty RegressionResults to JSON")
    return _bytes('{\n    "results": [' + ", ".join(decimal(r.value) for r in result.regressions) + "]\n}")


def status(response: GetModelStatusResponse) -> bytes:
    """{"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": {...}}]}."""
    text = json_format.MessageToJson(
        response, always_print_fields_with_no_presence=True, preserving_proto_field_name=True
    )
    return _bytes(text + "\n")


def metadata(response: GetModelMetadataResponse) -> bytes:
    """{"model_spec": ..., "metadata": {"signature_def": {"signature_def": ...}}}."""
    signatures = SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    document = {
        "model_spec": _as_dict(response.model_spec),
        "metadata": {"signature_def": _as_dict(signatures)},
    }
    return _bytes(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def _as_dict(message: Any) -> dict[str, Any]:
    fields: dict[str, Any] = json_format.MessageToDict(
        message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True
    )
    return fields


def error(message: str) -> bytes:
    """{"error": message}."""
    return _bytes(json.dumps({"error": message}, indent=4, ensure_ascii=False))
