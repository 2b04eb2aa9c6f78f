"""The REST edge: TF Serving's /v1/models API over HTTP, parsing and inference in a bounded pool of threads.

Hands each request to the service and turns ServingError into an HTTP code (model_servers/http_rest_api_handler.cc).
"""

import asyncio
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import unquote

from aiohttp import web
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.regression_pb2 import RegressionRequest

from tf_serving_standin import rest_format, rest_parse
from tf_serving_standin.errors import Code, from_exception, invalid_argument
from tf_serving_standin.predict import DEFAULT_SIGNATURE
from tf_serving_standin.service import SIGNATURE_DEF, Service

_VERSION = r"(?:/versions/([0-9]+)|/labels/([^/:]+))?"
_CALL = re.compile(rf"/v1/models/([^/:]+){_VERSION}:(classify|regress|predict)", re.IGNORECASE)
_LOOK = re.compile(rf"/v1/models(?:/([^/:]+))?{_VERSION}(?:/(metadata))?", re.IGNORECASE)
_MAX_WAITING = 4096
_HTTP_CODES = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}
_CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}


@dataclass(frozen=True)
class RestOptions:
    """Where to listen and how: `threads` answer requests, `timeout_ms` bounds one run of a model (0: no bound)."""

    host: str
    port: int
    threads: int
    timeout_ms: int
    cors: bool


class RestHandler:
    """Method, path and body in, body out: the API without its HTTP server."""

    def __init__(self, service: Service, timeout_ms: int) -> None:
        self._service = service
        self._timeout_ms = timeout_ms

    def handle(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """The HTTP code and the JSON body for a request; `path` is still percent-encoded and has no query."""
        try:
            return 200, self._dispatch(method, path, body)
        except Exception as error:  # whatever goes wrong in a request is that request's answer
            mapped = from_exception(error)
            return _HTTP_CODES.get(mapped.code, 500), rest_format.error(mapped.message)

    def _dispatch(self, method: str, path: str, body: bytes) -> bytes:
        call = _CALL.fullmatch(path) if method == "POST" else None
        if call:
            name, version, label, verb = call.groups()
            answers = {"predict": self._predict, "classify": self._classify, "regress": self._regress}
            answer = answers.get(verb)
            if answer is not None:
                return answer(_spec(name, version, label), body)
        look = _LOOK.fullmatch(path) if method == "GET" else None
        if look:
            name, version, label, resource = look.groups()
            spec = _spec(name or "", version, label)
            if not name:
                raise invalid_argument("Missing model name in request.")
            return self._metadata(spec) if resource == "metadata" else self._status(spec)
        raise invalid_argument(f"Malformed request: {method} {path}")

    def _predict(self, spec: ModelSpec, body: bytes) -> bytes:
        document = rest_parse.parse_object(body)
        spec.signature_name = rest_parse.signature_name(document)
        with self._service.core.servable(spec) as (_, model):
            name = spec.signature_name or DEFAULT_SIGNATURE
            signature = model.signatures.get(name)
            if signature is None:
                raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
            parsed = rest_parse.predict_inputs(document, spec.signature_name, signature.inputs)
        outputs = self._service.run(spec, parsed.inputs, self._timeout_ms)
        return rest_format.predictions(outputs, row=parsed.row)

    def _classify(self, spec: ModelSpec, body: bytes) -> bytes:
        document = rest_parse.parse_object(body)
        spec.signature_name = rest_parse.signature_name(document)
        request = ClassificationRequest(model_spec=spec, input=rest_parse.examples_input(document))
        return rest_format.classifications(self._service.classify(request, self._timeout_ms).result)

    def _regress(self, spec: ModelSpec, body: bytes) -> bytes:
        document = rest_parse.parse_object(body)
        spec.signature_name = rest_parse.signature_name(document)
        request = RegressionRequest(model_spec=spec, input=rest_parse.examples_input(document))
        return rest_format.regressions(self._service.regress(request, self._timeout_ms).result)

    def _status(self, spec: ModelSpec) -> bytes:
        return rest_format.status(self._service.status(GetModelStatusRequest(model_spec=spec)))

    def _metadata(self, spec: ModelSpec) -> bytes:
        request = GetModelMetadataRequest(model_spec=spec, metadata_field=[SIGNATURE_DEF])
        return rest_format.metadata(self._service.metadata(request))


def _spec(name: str, version: str | None, label: str | None) -> ModelSpec:
    spec = ModelSpec(name=unquote(name))
    if version:
        if int(version) >= 2**63:
            raise invalid_argument(f"Failed to convert version: {version} to numeric.")
        spec.version.value = int(version)
    elif label:
        spec.version_label = unquote(label)
    return spec


class RestServer:
    """Runs a RestHandler on a port, with an event loop in a thread of its own."""

    def __init__(self, handler: RestHandler, options: RestOptions) -> None:
        self._handler = handler
        self._options = options
        self._pool = ThreadPoolExecutor(options.threads, thread_name_prefix="rest")
        self._waiting = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rest", daemon=True)
        self._runner: web.AppRunner | None = None

    def start(self) -> None:
        """Listen; raises OSError when the port cannot be had."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(timeout=10)

    async def _listen(self) -> None:
        application = web.Application(client_max_size=0)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._options.host, self._options.port, reuse_address=True).start()

    def stop(self) -> None:
        """Close the port and the connections; requests under way have a second to end."""
        if self._runner is not None:
            asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(timeout=5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=2)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, request: web.Request) -> web.Response:
        path = request.rel_url.raw_path
        if not path.lower().startswith("/v1/"):
            return web.Response(status=404, text="<h1>Not Found</h1>", content_type="text/html")
        headers = _CORS_HEADERS if self._options.cors else {}
        if request.method == "OPTIONS":
            code, body = _preflight(request.headers.get("Origin", ""))
        elif self._waiting >= _MAX_WAITING:
            code, body = 503, rest_format.error("Too many requests are waiting; try again later.")
        else:
            code, body = await self._in_thread(request.method, path, await request.read())
        return web.Response(status=code, body=body, content_type="application/json", headers=headers)

    async def _in_thread(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        self._waiting += 1
        try:
            return await self._loop.run_in_executor(self._pool, self._handler.handle, method, path, body)
        finally:
            self._waiting -= 1


def _preflight(origin: str) -> tuple[int, bytes]:
    if re.search("https?://", origin):
        return 200, b""
    return 400, b""
