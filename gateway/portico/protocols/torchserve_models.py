"""TorchServe's management API over REST, to read: `/models`, and `/models/{model}[/{version}|/all]`. What would change
a model is refused: files deploy.

Of a model is told what the gateway knows: not the settings and processes inside the servers. `workers` has one entry
with a status alone where the version is ready, as at least one worker is then. Source: TorchServe's
docs/management_api.md and frontend/server's ManagementRequestHandler, ApiUtils and DescribeModelResponse.
"""

from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

from portico.codecs import json_values
from portico.dispatch import Dispatcher
from portico.edges.rest import JSON, Endpoint, Request, Response
from portico.protocols.torchserve_errors import NO_RESOURCE, answering, render_error
from portico.routing import Model, State, Version

MOST = 100
"""Models of one page, and how many there are if nobody says."""

_FILES = (
    "Models are deployed, changed and removed as files of the model repository; workers, batches and the default "
    "version are set by the file of a model's policy."
)
_MODEL = "/models/(?P<model>[^/]+)(?:/(?P<version>[^/]+))?"


class TorchServeModels:
    """One method per endpoint."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def endpoints(self) -> Iterable[Endpoint]:
        yield Endpoint("GET", "/models", answering(self.list_models), render_error)
        yield Endpoint("GET", _MODEL, answering(self.describe), render_error)
        yield Endpoint("GET", "/models/.*", self.nothing, render_error)
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            yield Endpoint(method, "/models(?:/.*)?", self.refuse, render_error)

    async def list_models(self, request: Request) -> Response:
        names = sorted(name for name, model in self._dispatcher.table.models.items() if not model.is_leaving)
        limit, start = _number(request.query, "limit", MOST), _number(request.query, "next_page_token", 0)
        end = max(start, 0) + (limit if 0 < limit <= MOST else MOST)
        page: dict[str, Any] = {"nextPageToken": str(end)} if end < len(names) else {}
        return _json({**page, "models": [{"modelName": name} for name in names[max(start, 0) : end]]})

    async def describe(self, request: Request) -> Response:
        model, version = self._dispatcher.table.model(request.path["model"]), request.path["version"]
        versions = model.versions.values() if version == "all" else [model.status(version)]
        return _json([_described(model, entry) for entry in versions])

    async def nothing(self, request: Request) -> Response:
        """What TorchServe says of any other path."""
        return Response(render_error(404, NO_RESOURCE), 404)

    async def refuse(self, request: Request) -> Response:
        return Response(render_error(405, _FILES), 405, [JSON, (b"allow", b"GET")])


def _number(query: str, name: str, default: int) -> int:
    """TorchServe takes the default for what is no number."""
    try:
        return int(parse_qs(query)[name][0])
    except (KeyError, ValueError):
        return default


def _described(model: Model, version: Version) -> dict[str, Any]:
    described: dict[str, Any] = {"modelName": model.name, "modelVersion": version.version}
    if version.route is not None:
        described["stateful"] = version.route.policy.stateful
    ready = version.state is State.READY
    reason = {"reason": version.reason} if version.reason else {}
    return {
        **described,
        "status": version.state.value,
        **reason,
        "loadedAtStartup": False,
        "workers": [{"status": "READY"}] if ready else [],
    }


def _json(value: Any) -> Response:
    return Response(json_values.render(value))
