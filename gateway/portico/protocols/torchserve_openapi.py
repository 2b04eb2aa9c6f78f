"""TorchServe's API descriptions, OpenAPI 3.0 documents of the endpoints that its clients call. Looks nothing up."""

from typing import Any
from urllib.parse import quote

_ANYTHING = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
_VERSION = {"name": "model_version", "in": "path", "required": True, "schema": {"type": "string"}}
_MODEL = {**_VERSION, "name": "model_name"}
_PAGE = [
    {"name": "limit", "in": "query", "schema": {"type": "integer", "default": 100, "maximum": 100}},
    {"name": "next_page_token", "in": "query", "schema": {"type": "integer", "default": 0}},
]
_ERROR = {
    "type": "object",
    "properties": {"code": {"type": "integer"}, "type": {"type": "string"}, "message": {"type": "string"}},
    "required": ["code", "type", "message"],
}


def description(version: str) -> dict[str, Any]:
    """The document; `version` is Portico's."""
    paths: dict[str, Any] = {
        "/": {"options": _operation("apiDescription", "This description.", "object")},
        "/ping": {"get": _operation("ping", "Whether the door is open.", "object")},
        "/models": {"get": _operation("listModels", "The models there are, in pages.", "object", _PAGE)},
    }
    for suffix, parameters, which in (
        ("", [_MODEL], "default"),
        ("/{model_version}", [_MODEL, _VERSION], "named"),
    ):
        prefix = "version_" if suffix else ""
        for verb in ("predictions", "explanations"):
            about = f"The {verb} of the {which} version. What goes in and comes out is the handler's business."
            ask = {**_operation(prefix + verb, about, "", parameters), "requestBody": {"content": _ANYTHING}}
            paths[f"/{verb}/{{model_name}}{suffix}"] = {"post": ask}
        describe = _operation(f"{prefix}describeModel", f"The {which} version's state.", "array", parameters)
        paths[f"/models/{{model_name}}{suffix}"] = {"get": describe}
    return {"openapi": "3.0.1", "info": {"title": "TorchServe APIs", "version": version}, "paths": paths}


def model_description(model: str, version: str, explains: bool) -> dict[str, Any]:
    """The document of one version of a model, as `OPTIONS` of its path gives it."""
    about = "What goes in and comes out is the model's business."
    paths = {
        f"/{verb}/{quote(model, safe='')}": {
            "post": {**_operation(verb, about, ""), "requestBody": {"content": _ANYTHING}},
        }
        for verb in ("predictions", *(("explanations",) if explains else ()))
    }
    return {"openapi": "3.0.1", "info": {"title": f"RESTful API for: {model}", "version": version}, "paths": paths}


def _operation(name: str, about: str, answer: str, parameters: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """An operation that answers with JSON of this type, or, if that is empty, with anything."""
    items: dict[str, Any] = {"items": {"type": "object"}} if answer == "array" else {}
    content: dict[str, Any] = {"application/json": {"schema": {"type": answer, **items}}} if answer else _ANYTHING
    failed = {"description": "It failed.", "content": {"application/json": {"schema": _ERROR}}}
    return {
        "operationId": name,
        "summary": about,
        "parameters": parameters or [],
        "responses": {"200": {"description": "OK", "content": content}, "default": failed},
    }
