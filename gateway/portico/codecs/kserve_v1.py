"""KServe's V1 form of a call, {"instances": …} and {"predictions": …}, which TorchServe's envelopes `kserve` and `json`
have. Used by `handler`.

Source: KServe's V1 protocol, which is TF Serving's row form; TorchServe's ts/torch_handler/request_envelope.
"""

from typing import Any

from portico.codecs import json_values
from portico.errors import InvalidRequest, NotRepresentable
from portico.inference import Tensor

PREDICTIONS = "predictions"


def instances(inputs: tuple[Tensor, ...]) -> Any:
    """One entry for each row of the inputs, ready to be rendered: the row, or an object of several inputs' rows.

    Bytes that are no text become {"b64": "…"}. Raises InvalidRequest where the inputs have no rows in common.
    """
    shapes = ", ".join(f"'{tensor.name}' {list(tensor.shape)}" for tensor in inputs)
    if len({tensor.shape[:1] for tensor in inputs}) != 1 or not inputs[0].shape:
        raise InvalidRequest(
            f"The inputs ({shapes}) have no rows in common: the model takes 'instances' ('wire: kserve_v1' in its "
            "policy), so each input needs the same first dimension."
        )
    if len(inputs) == 1 and inputs[0].datatype != "BYTES":
        return json_values.array_of(inputs[0])  # an object for each row would take many times the memory
    columns = {tensor.name: _rows(tensor) for tensor in inputs}
    if len(columns) == 1:
        return next(iter(columns.values()))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _rows(tensor: Tensor) -> list[Any]:
    if tensor.datatype != "BYTES":
        return list(json_values.array_of(tensor))
    try:
        values = json_values.nested_text(tensor)
    except NotRepresentable:
        values = json_values.nested_base64(tensor)
    assert isinstance(values, list)
    return values


def columns(answer: Any) -> Any:
    """What an answer predicts: an object of lists where each prediction is an object with the same keys.

    Raises InvalidRequest if the answer has no predictions.
    """
    if not isinstance(answer, dict) or PREDICTIONS not in answer:
        raise InvalidRequest("it is no JSON object with 'predictions'.")
    predictions = answer[PREDICTIONS]
    if isinstance(predictions, dict):
        return predictions
    if not (isinstance(predictions, list) and predictions and all(isinstance(row, dict) for row in predictions)):
        return {PREDICTIONS: predictions}
    names = predictions[0].keys()
    if not names or any(row.keys() != names for row in predictions):
        return {PREDICTIONS: predictions}
    return {name: [row[name] for row in predictions] for name in names}
