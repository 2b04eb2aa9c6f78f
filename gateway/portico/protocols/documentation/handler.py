"""The schemas and examples of a TorchServe model, which declares nothing: how each dialect carries what its handler
reads and answers. Used by `model`, in whose document they take the places of the general ones.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from portico.codecs.handler import BODY
from portico.protocols.documentation import whole
from portico.routing import Route, Wire

PLACEHOLDER = "what the handler reads"
NUMBERS: Mapping[str, Any] = {"name": "input", "shape": [1, 3], "datatype": "FP32", "data": [0.1, 0.2, 0.3]}
WHOLE: Mapping[str, Any] = {"name": BODY, "shape": [1], "datatype": "BYTES", "data": [PLACEHOLDER]}

TAKES: Mapping[Wire, str] = MappingProxyType(
    {
        Wire.AUTO: (
            "One input BYTES [1] is the body that the handler reads, as it is; numbers become the JSON that their "
            "lists are, and several inputs a JSON object of them. JSON of numbers comes back as tensors, one for each "
            f"key of an object; anything else, or all of it if '{BODY}' alone is asked for, as one BYTES [1] called "
            f"'{BODY}'."
        ),
        Wire.RAW: (
            f"One input BYTES [1] is the body that the handler reads; its answer is one output '{BODY}', BYTES [1]. "
            "The policy of the model says so (`wire: raw`)."
        ),
        Wire.JSON: (
            "Inputs become the JSON that their lists are, text as well as numbers; the policy of the model says so "
            "(`wire: json`). JSON of numbers comes back as tensors."
        ),
        Wire.KSERVE_V1: (
            "The handler reads KServe's V1 form, as the policy of the model says (`wire: kserve_v1`): the rows of the "
            "inputs become the instances, and the predictions become tensors."
        ),
        Wire.KSERVE_V2: (
            "The handler reads the Open Inference Protocol's JSON, as the policy of the model says (`wire: kserve_v2`)."
        ),
    }
)
"""What becomes of tensors on their way to a handler, and of its answer."""

_INSTANCES = {"$ref": "#/components/schemas/InstancesRequest"}
_COLUMNS = {"$ref": "#/components/schemas/HandlerColumns"}
_SUMMARY = "The form. What stands in it is the handler's business."


def reads_bodies(route: Route) -> bool:
    """Whether an input of bytes is given to the handler as it is."""
    return route.policy.wire in (Wire.AUTO, Wire.RAW)


def handler_components(route: Route) -> dict[str, dict[str, Any]]:
    """{"schemas": …, "examples": …} of a model with this route; an example that cannot be made is None.

    The examples show the form. What has to stand in it only the handler's author knows.
    """
    wire = route.policy.wire
    general = whole.document()["components"]["schemas"]["InferRequest"]
    by_instances = wire is not Wire.KSERVE_V2
    schemas: dict[str, Any] = {
        "InferRequest": general | {"title": "Request", "description": TAKES[wire]},
        "PredictRequest": {"anyOf": [_INSTANCES, _COLUMNS]} if by_instances else {"not": {}},
        "PredictResponse": {
            "anyOf": [_answered("KServe V1", "predictions"), _answered("TF Serving's column form", "outputs")]
        },
    }
    return {
        "schemas": schemas,
        "examples": {
            "Infer": {"summary": _SUMMARY, "value": body_example(route)},
            "PredictRows": {"summary": _SUMMARY, "value": instances_example(route)} if by_instances else None,
            "PredictColumns": {"summary": _SUMMARY, "value": columns_example(route)} if by_instances else None,
            "Predictions": None,
        },
    }


def body_example(route: Route) -> dict[str, Any]:
    """A body of the Open Inference Protocol."""
    return {"inputs": [WHOLE if reads_bodies(route) else NUMBERS]}


def _answered(title: str, key: str) -> dict[str, Any]:
    description = "The JSON that the handler answers."
    return {
        "title": title,
        "description": description,
        "type": "object",
        "required": [key],
        "properties": {key: True},
    }


def columns_example(route: Route) -> dict[str, Any]:
    """A body of TF Serving's column form."""
    return {"inputs": PLACEHOLDER if route.policy.wire is Wire.RAW else NUMBERS["data"]}


def instances_example(route: Route) -> dict[str, Any]:
    """A body of KServe's V1 protocol."""
    return {"instances": [PLACEHOLDER if route.policy.wire is Wire.RAW else NUMBERS["data"]]}
