"""OpenAPI documents and their pages over REST: of everything at `/openapi.json` and `/docs`, and of each model beside
its metadata. The pages' scripts and styles come from here too, so that they work without the internet.
"""

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from portico.codecs import json_values
from portico.dispatch import Dispatcher
from portico.edges.asgi import Headers
from portico.edges.rest import Endpoint, Request, Response
from portico.errors import ModelNotReady, NotFound
from portico.protocols.documentation import whole
from portico.protocols.documentation.model import model_document
from portico.protocols.documentation.page import ASSETS, model_page, models_page

_MODEL = r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?"

_FILES = {
    "page.js": ("portico.protocols.documentation", "page.js", b"text/javascript; charset=utf-8"),
    "swagger-ui-bundle.js": ("fastapi_swagger", "resources/swagger-ui-bundle.js", b"text/javascript; charset=utf-8"),
    "swagger-ui.css": ("fastapi_swagger", "resources/swagger-ui.css", b"text/css; charset=utf-8"),
    "favicon-32x32.png": ("fastapi_swagger", "resources/favicon-32x32.png", b"image/png"),
}
"""Name of an asset → (package that holds it, file in it, content type)."""

_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The browser is told as well that nothing comes from elsewhere."""

_PAGE: Headers = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", _POLICY),
    (b"cache-control", b"no-cache"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]

_ADDRESS = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:]{2,45}\](:[0-9]{1,5})?")
_NO_ADDRESS = "127.0.0.1:8080"


class Documentation:
    """One method per endpoint."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def endpoints(self) -> Iterable[Endpoint]:
        for path, handler in (
            ("/openapi.json", self.document),
            ("/", self.page),
            ("/docs", self.page),
            (ASSETS + "/(?P<name>[^/]+)", self.asset),
            (_MODEL + r"/openapi\.json", self.model_document),
            (_MODEL + "/docs", self.model_page),
        ):
            yield Endpoint("GET", path, handler, json_values.error_object)

    async def document(self, request: Request) -> Response:
        return Response(whole.rendered())

    async def page(self, request: Request) -> Response:
        """Also before the first routes have come: what there is to read does not depend on them."""
        try:
            table = self._dispatcher.table
        except ModelNotReady:
            table = None
        return _page(models_page(table))

    async def model_document(self, request: Request) -> Response:
        model = self._dispatcher.table.model(request.path["model"])
        return Response(json_values.render(model_document(model, request.path["version"])))

    async def model_page(self, request: Request) -> Response:
        """With calls to the address that the page was asked for at."""
        model = self._dispatcher.table.model(request.path["model"])
        return _page(model_page(model, request.path["version"], _address(request), _scheme(request)))

    async def asset(self, request: Request) -> Response:
        name = request.path["name"]
        if name not in _FILES:
            raise NotFound(f"There is no asset '{name[:64]}'. There are {', '.join(_FILES)}.")
        headers = [(b"content-type", _FILES[name][2]), (b"cache-control", b"max-age=3600")]
        return Response(_content(name), headers=headers)


@cache
def _content(name: str) -> bytes:
    package, path, _ = _FILES[name]
    return (files(package) / path).read_bytes()


def _page(text: str) -> Response:
    return Response(text.encode(), headers=_PAGE)


def _address(request: Request) -> str:
    """The host, and port, of the door as the client knows it, if it is one."""
    host = request.header(b"host")
    return host if _ADDRESS.fullmatch(host) else _NO_ADDRESS


def _scheme(request: Request) -> str:
    return "https" if request.header(b"x-forwarded-proto") == "https" else "http"
