"""Every model and version with its state, as the repository index and the list of models show it: one list for both."""

from collections.abc import Iterable, Iterator
from typing import Any

from portico.codecs import json_values
from portico.dispatch import Dispatcher
from portico.edges.rest import Endpoint, Request, Response
from portico.errors import InvalidRequest
from portico.routing import Model, RouteTable, State, Version


class Listing:
    """`POST /v2/repository/index` (Triton's model repository extension) and `GET /v1/models` (KServe's V1 protocol)."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def endpoints(self) -> Iterable[Endpoint]:
        yield Endpoint("POST", "/v2/repository/index/?", self.index, json_values.error_object)
        yield Endpoint("GET", "/v1/models/?", self.models, json_values.error_object)

    async def index(self, request: Request) -> Response:
        """A list of versions; with {"ready": true} only those that are ready."""
        only_ready = json_values.parse_object(request.body).get("ready", False) if request.body else False
        if not isinstance(only_ready, bool):
            raise InvalidRequest("'ready' has to be true or false.")
        listed = [
            {"name": model.name, "version": version.version, "state": version.state.value, "reason": version.reason}
            for model, version in versions(self._dispatcher.table, only_ready)
        ]
        return Response(json_values.render(listed))

    async def models(self, request: Request) -> Response:
        """{"models": names, "versions": …}: KServe's clients read the names, `portico models` the versions."""
        table = self._dispatcher.table
        described = [_described(model, version) for model, version in versions(table)]
        names = [name for name, model in table.models.items() if not model.is_leaving]
        return Response(json_values.render({"models": names, "versions": described}))


def versions(table: RouteTable, only_ready: bool = False) -> Iterator[tuple[Model, Version]]:
    """Every version of every model, or those that are ready."""
    for model in table.models.values():
        for version in model.versions.values():
            if version.state is State.READY or not only_ready:
                yield model, version


def _described(model: Model, version: Version) -> dict[str, Any]:
    return {
        "name": model.name,
        "version": version.version,
        "server": model.server.value if model.server else "",
        "state": version.state.value,
        "reason": version.reason,
        "labels": sorted(label for label, named in model.labels.items() if named == version.version),
        "default": bool(model.default) and version.version == model.default,
    }
