"""The schemas and examples of a model that declares signatures: each dialect's requests and answers for each of them.
Used by `model`, in whose document they take the places of the general ones.
"""

from collections.abc import Callable, Mapping
from typing import Any

from portico.protocols.documentation.examples import columns_example, infer_example, rows_example
from portico.protocols.documentation.infer_schemas import infer_request, infer_response
from portico.protocols.documentation.predict_schemas import (
    columns_request,
    columns_response,
    predictions_request,
    predictions_response,
    rows_request,
    rows_response,
)
from portico.protocols.documentation.tensors import Schema
from portico.routing import DEFAULT_SIGNATURE, Route, Signature

Named = Mapping[str, Signature]

_SUMMARIES = {
    "Infer": "Ready to send",
    "PredictRows": "By rows, which is also KServe V1",
    "PredictColumns": "By columns",
    "Predictions": "Ready to send",
}


def signature_components(route: Route, signatures: Named) -> dict[str, dict[str, Any]]:
    """{"schemas": …, "examples": …} of a model with these signatures; an example that cannot be made is None."""
    schemas = {
        "InferRequest": _any_of(signatures, infer_request),
        "InferResponse": infer_response(route, signatures),
        "PredictRequest": _any_of(signatures, rows_request, columns_request),
        "PredictResponse": _any_of(signatures, rows_response, columns_response),
    }
    default = signatures.get(DEFAULT_SIGNATURE)
    if default is None:
        schemas |= {"PredictionsRequest": {"not": {}}, "PredictionsResponse": {"not": {}}}
        return {"schemas": schemas, "examples": dict.fromkeys(_SUMMARIES)}
    schemas["PredictionsRequest"] = predictions_request(default)
    schemas["PredictionsResponse"] = predictions_response(default)
    columns = columns_example(default.inputs)
    values = {
        "Infer": infer_example(default.inputs, default.outputs),
        "PredictRows": rows_example(default.inputs),
        "PredictColumns": columns,
        "Predictions": columns and columns["inputs"],
    }
    examples = {
        name: None if value is None else {"summary": _SUMMARIES[name], "value": value} for name, value in values.items()
    }
    return {"schemas": schemas, "examples": examples}


def _any_of(signatures: Named, *forms: Callable[[str, Signature], Schema | None]) -> Schema:
    """One of the forms with one of the signatures."""
    made = [form(name, signature) for name, signature in signatures.items() for form in forms]
    schemas = [schema for schema in made if schema is not None]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas or [{"not": {}}]}
