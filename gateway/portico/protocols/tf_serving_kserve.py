"""KServe's V1 protocol to a TorchServe model: `instances` become what its handler reads, its JSON becomes the
predictions. For a model of TF Serving it is that server's own row form (`tf_serving_json`).

Source: KServe's V1 data plane; TorchServe's ts/torch_handler/request_envelope for what handlers read.
"""

from typing import Any

from portico.codecs import base64_text, json_values
from portico.codecs.handler import body_of, raw_request
from portico.errors import InferenceFailed, InvalidRequest, NotRepresentable
from portico.inference import InferenceRequest, InferenceResponse
from portico.routing import Route, Wire

PREDICTIONS, EXPLANATIONS = "predictions", "explanations"

_OR_COLUMNS = ", or with 'inputs', TF Serving's column form"
_JSON = "application/json"
_BYTES = "application/octet-stream"


def handler_request(
    route: Route, body: bytes, parsed: dict[str, Any], explain: bool = False
) -> tuple[InferenceRequest, int]:
    """What the handler of `route` is asked, in the form that the model's policy says (`wire`), and how many rows that
    is, 0 where it is not asked by rows. `parsed` is the JSON of `body`.

    A handler that was written for TorchServe alone reads one body: the JSON list of the instances, or the bytes of the
    one instance that is {"b64": …}. One behind TorchServe's envelope (`kserve_v1`) reads the whole body as it came.
    Raises InvalidRequest for what it has no form for.
    """
    wire = route.policy.wire
    if "instances" not in parsed:
        raise InvalidRequest(
            f"Model '{route.model}' declares no signature: it is asked with KServe V1's 'instances'"
            f"{'' if explain else _OR_COLUMNS}. {_elsewhere(route)}"
        )
    instances = parsed["instances"]
    if not isinstance(instances, list) or not instances:
        raise InvalidRequest("'instances' has to be a list with at least one instance.")
    if wire is Wire.KSERVE_V1:
        return raw_request(body, _JSON, explain=explain), 0
    if wire is Wire.KSERVE_V2:
        raise InvalidRequest(
            f"Model '{route.model}' takes tensors with names and datatypes ('wire: kserve_v2' in its policy), and "
            f"'instances' have none: use POST /v2/models/{route.model}/infer."
        )
    if wire is not Wire.JSON:
        element = _sole_element(instances)
        if element is not None and (wire is Wire.RAW or not isinstance(instances[0], str)):
            return raw_request(element, _BYTES, explain=explain), 0
        if wire is Wire.RAW:
            raise InvalidRequest(
                f"Model '{route.model}' takes one body ('wire: raw' in its policy): give one instance, a string or "
                '{"b64": …}.'
            )
        _check_no_base64(route, instances)
    try:
        return raw_request(json_values.render_numbers(instances), _JSON, explain=explain), len(instances)
    except NotRepresentable as error:
        raise InvalidRequest(f"'instances': {error}") from error


def _sole_element(instances: list[Any]) -> bytes | None:
    """The bytes of the one instance, if there is only one and it is a string or {"b64": …}."""
    (first, *more) = instances
    if more:
        return None
    if isinstance(first, str):
        return first.encode()
    if not _is_base64(first):
        return None
    try:
        return base64_text.decode(first["b64"])
    except base64_text.NotBase64 as error:
        raise InvalidRequest(f"The b64 of the instance is {error}.") from None


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _check_no_base64(route: Route, instances: list[Any]) -> None:
    """Raises InvalidRequest where an instance is, or has as one of its values, bytes, which a JSON list cannot hold."""
    for instance in instances:
        values = instance.values() if isinstance(instance, dict) and not _is_base64(instance) else (instance,)
        if any(map(_is_base64, values)):
            raise InvalidRequest(
                f"Model '{route.model}' reads JSON or one body of bytes, so {{\"b64\": …}} goes to it only as the one "
                "instance of a request. If its handler reads base64 itself, set 'wire: json' or 'wire: kserve_v1' in "
                f"its policy. {_elsewhere(route)}"
            )


def _elsewhere(route: Route) -> str:
    return f"See also POST /v2/models/{route.model}/infer and /predictions/{route.model}."


def answer_body(route: Route, response: InferenceResponse, key: str, rows: int = 0) -> bytes:
    """The handler's JSON under `key`, or as it is where it has that key already. Where it is an object of lists, all
    with an element for each of the `rows`, it becomes a list of as many objects, as TF Serving answers them.

    Raises NotRepresentable for an answer that is no JSON, and InferenceFailed for one that is not of the model's wire.
    """
    raw = body_of(response)
    try:
        value = json_values.parse(raw)
    except InvalidRequest as error:
        kind = f"'{response.content_type}'" if response.content_type else "no content type"
        raise NotRepresentable(
            f"The handler of model '{route.model}' answered with {kind} and not with JSON, which '{key}' are written "
            f"in: use POST /predictions/{route.model}."
        ) from error
    if isinstance(value, dict) and key in value:
        return raw
    if route.policy.wire is Wire.KSERVE_V1:
        raise InferenceFailed(
            f"The handler's answer is not of the form '{route.policy.wire}', as its policy says: it is no JSON object "
            f"with '{key}'."
        )
    if rows and isinstance(value, dict) and value and all(_has_rows(column, rows) for column in value.values()):
        objects = [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
        return json_values.render_numbers({key: objects})
    return b'{"' + key.encode() + b'":' + raw + b"}"


def _has_rows(column: Any, rows: int) -> bool:
    return isinstance(column, list) and len(column) == rows
