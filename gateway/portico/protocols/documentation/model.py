"""The OpenAPI document of one model: the paths at which it answers, with its name in them, and its real inputs and
outputs as schemas and examples. Used by `endpoints`; everything it says is in the snapshot of routes.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from portico.errors import PorticoError
from portico.protocols.documentation import whole
from portico.protocols.documentation.handler import handler_components
from portico.protocols.documentation.signatures import signature_components
from portico.protocols.tf_serving_tasks import CLASSIFY, REGRESS
from portico.routing import DEFAULT_SIGNATURE, Model, Route, Server, Signature, Version

ONLY_FOR = "x-only-for"

Json = dict[str, Any]

_REFERENCE = "#/components/"
_EXAMPLES = _REFERENCE + "examples/"
_NOT_OF_ONE_MODEL = ("/v2/repository/",)


def model_document(model: Model, version: str = "") -> Json:
    """The document of a model, or of one version of it. Raises VersionNotFound.

    A version that was never ready is described as far as that goes: its paths, and the schemas that all models have.
    """
    status = model.status(version)
    general = whole.document()
    components = _components(model, status)
    document = {
        "openapi": general["openapi"],
        "info": {
            "title": model.name,
            "version": status.version or "none",
            "description": described(model, status),
        },
        "servers": general["servers"],
        "paths": {
            path: _copied(item, components) for path, item in _paths(model, version, _traits(model, status), components)
        },
    }
    used = _used(document["paths"], components)
    document["tags"] = [tag for tag in general["tags"] if tag["name"] in _tags(document["paths"])]
    return document | {"components": used}


def described(model: Model, status: Version) -> str:
    """What can be said of the model in a few sentences, for people."""
    if status.route is None:
        return "This version has not been ready yet, so nothing is known of its inputs and outputs."
    if model.server is Server.TORCHSERVE:
        return (
            "TorchServe runs this model. Its archive does not declare what goes in and what comes out: only its "
            "handler knows, and who wrote it. So the schemas below say no more than how each protocol carries it."
        )
    return "TF Serving runs this model. Its inputs and outputs are those that its SavedModel declares."


def client_signatures(route: Route | None) -> dict[str, Signature]:
    """The signatures that clients call, the default one first; none for a model that declares none."""
    if route is None:
        return {}
    names = sorted(route.signatures, key=lambda name: (name != DEFAULT_SIGNATURE, name))
    return {name: route.signatures[name] for name in names if not name.startswith("__")}


def _traits(model: Model, status: Version) -> frozenset[str]:
    """What paths may be only for: the model's server, the tasks that a signature of it fits, labels."""
    traits = {model.server.value} if model.server else set()
    for name, task in (("classify", CLASSIFY), ("regress", REGRESS)):
        if any(_fits(task.outputs, signature) for signature in client_signatures(status.route).values()):
            traits.add(name)
    return frozenset(traits | ({"labels"} if model.labels else set()))


def _fits(outputs: Any, signature: Signature) -> bool:
    try:
        outputs(signature)
    except PorticoError:
        return False
    return True


def _components(model: Model, status: Version) -> Json:
    """Those of the whole document, with the model's own in their places."""
    components = {kind: dict(entries) for kind, entries in whole.document()["components"].items()}
    callable_versions = [name for name, entry in model.versions.items() if entry.route and name] or [status.version]
    for name, known in (("version", callable_versions), ("label", sorted(model.labels))):
        parameter = components["parameters"][name]
        components["parameters"][name] = parameter | {"schema": {"type": "string", "enum": known}}
    own: Mapping[str, Json] = {}
    if status.route is not None and status.route.server is Server.TORCHSERVE:
        own = handler_components(status.route)
    elif status.route is not None:
        own = signature_components(status.route, client_signatures(status.route))
    else:
        components["examples"].clear()
    for kind, entries in own.items():
        components[kind] |= entries
    # An example that is None could not be made for this model.
    components["examples"] = {name: entry for name, entry in components["examples"].items() if entry is not None}
    return components


def _paths(model: Model, version: str, traits: frozenset[str], components: Json) -> Iterator[tuple[str, Json]]:
    filled = {"model": model.name} | ({"version": version} if version else {})
    for template, item in whole.document()["paths"].items():
        if "{model}" not in template or template.startswith(_NOT_OF_ONE_MODEL):
            continue
        if not traits.issuperset(_only_for(item)) or (version and "{version}" not in template):
            continue
        if "{version}" in template and not any(model.versions):
            continue
        path = template
        for name, value in filled.items():
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        left = [entry for entry in item["parameters"] if _target(entry["$ref"], components)["name"] not in filled]
        own = {key: value for key, value in item.items() if key not in ("parameters", ONLY_FOR)}
        yield path, ({"parameters": left} if left else {}) | own


def _only_for(item: Json) -> list[str]:
    found = item.get(ONLY_FOR, [])
    return [found] if isinstance(found, str) else found


def _target(reference: str, components: Json) -> Any:
    """The component that a reference names."""
    kind, name = reference.removeprefix(_REFERENCE).split("/")
    return components[kind][name]


def _copied(node: Any, components: Json) -> Any:
    """A copy without the references to examples that there are not."""
    if isinstance(node, list):
        return [_copied(entry, components) for entry in node]
    if not isinstance(node, dict):
        return node
    copied = {key: _copied(value, components) for key, value in node.items()}
    # There may be an input of that name as well, in what are schemas then.
    examples = copied.get("examples")
    if isinstance(examples, dict):
        copied["examples"] = {name: entry for name, entry in examples.items() if _is_there(entry, components)}
        if examples and not copied["examples"]:
            del copied["examples"]
    return copied


def _is_there(example: Any, components: Json) -> bool:
    reference = example.get("$ref") if isinstance(example, dict) else None
    if not isinstance(reference, str) or not reference.startswith(_EXAMPLES):
        return True
    return reference.removeprefix(_EXAMPLES) in components["examples"]


def _used(paths: Json, components: Json) -> Json:
    """The components that the paths refer to, and what those do."""
    used: Json = {}
    waiting = list(_references(paths))
    while waiting:
        reference = waiting.pop()
        kind, name = reference.removeprefix(_REFERENCE).split("/")
        if name in used.setdefault(kind, {}):
            continue
        used[kind][name] = _copied(components[kind][name], components)
        waiting += _references(used[kind][name])
    return {kind: dict(sorted(used[kind].items())) for kind in components if kind in used}


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        yield from _references(list(node.values()))
    elif isinstance(node, list):
        for entry in node:
            yield from _references(entry)


def _tags(paths: Json) -> set[str]:
    operations: Iterable[Any] = (entry for item in paths.values() for entry in item.values() if isinstance(entry, dict))
    return {tag for operation in operations for tag in operation["tags"]}
