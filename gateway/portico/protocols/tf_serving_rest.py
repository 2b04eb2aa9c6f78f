"""TF Serving over REST: `:predict`, `:classify`, `:regress`, model status, model metadata; and KServe V1, whose
`:predict` is TF Serving's, with its `:explain`.

Source: TF Serving's docs/api_rest.md and model_servers/http_rest_api_handler.cc; KServe's V1 data plane.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from portico.codecs import json_values
from portico.codecs.examples import examples_from_json
from portico.dispatch import Answer, Dispatcher
from portico.edges.rest import Endpoint, Request, Response
from portico.errors import InvalidRequest
from portico.inference import InferenceRequest
from portico.protocols import tf_serving_columns, tf_serving_json, tf_serving_kserve
from portico.protocols import tf_serving_models as models
from portico.protocols.tf_serving_kserve import EXPLANATIONS, PREDICTIONS
from portico.protocols.tf_serving_tasks import CLASSIFY, REGRESS, Result, Task, ask
from portico.routing import Route, Server
from portico.validation import check_explains

_MODEL = r"/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>[^/:]+)|/labels/(?P<label>[^/:]+))?"
_COLON = "(?::|%3[Aa])"
"""Some clients quote all of a path."""
_NO_SIGNATURE = 'Serving signature name: "{name}" not found in signature def'
"""Of model_servers/http_rest_api_handler.cc."""


class TFServingRest:
    """One method per endpoint."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def endpoints(self) -> Iterable[Endpoint]:
        verbs = {"predict": self.predict, "classify": self.classify, "regress": self.regress, "explain": self.explain}
        for verb, handler in verbs.items():
            yield Endpoint("POST", f"{_MODEL}{_COLON}{verb}", handler, json_values.error_object)
        yield Endpoint("GET", _MODEL + "/?", self.status, json_values.error_object)
        yield Endpoint("GET", _MODEL + "/metadata/?", self.metadata, json_values.error_object)

    async def predict(self, request: Request) -> Response:
        route = self._route(request)
        if route.server is Server.TORCHSERVE:
            return await self._ask_handler(route, request)
        body = json_values.parse_object(request.body, numbers=True)
        name = tf_serving_json.signature_name(body)
        signature = models.signature_named(route, name, _NO_SIGNATURE)
        if signature is None:
            raise InvalidRequest(
                f"Model '{route.model}' declares no signature, so JSON without datatypes cannot be read for it. "
                f"Use POST /v2/models/{route.model}/infer."
            )
        decoded = InferenceRequest(tf_serving_json.inputs_of(body, signature), signature=name)
        answer = await self._dispatcher.infer(route, decoded, request.deadline, request)
        form = tf_serving_json.rows if tf_serving_json.ROWS in body else tf_serving_json.columns
        return _answered(answer, json_values.render_numbers(form(answer.response)))

    async def explain(self, request: Request) -> Response:
        route = self._route(request)
        check_explains(route)
        return await self._ask_handler(route, request, explain=True)

    async def _ask_handler(self, route: Route, request: Request, explain: bool = False) -> Response:
        body = json_values.parse_object(request.body)
        models.signature_named(route, tf_serving_json.signature_name(body), _NO_SIGNATURE)
        if tf_serving_json.COLUMNS in body and not explain:
            decoded = tf_serving_columns.handler_request(route, body)
            answer = await self._dispatcher.infer(route, decoded, request.deadline, request)
            return _answered(answer, tf_serving_columns.answer_body(answer.route, answer.response))
        decoded, rows = tf_serving_kserve.handler_request(route, request.body, body, explain)
        answer = await self._dispatcher.infer(route, decoded, request.deadline, request)
        if explain:
            return _answered(answer, tf_serving_kserve.answer_body(route, answer.response, EXPLANATIONS))
        return _answered(answer, tf_serving_kserve.answer_body(route, answer.response, PREDICTIONS, rows))

    async def classify(self, request: Request) -> Response:
        answer, result = await self._ask(CLASSIFY, request)
        rows = [[[entry.label, np.float32(entry.score)] for entry in row.classes] for row in result.classifications]
        return _answered(answer, json_values.render_numbers({"results": rows}))

    async def regress(self, request: Request) -> Response:
        answer, result = await self._ask(REGRESS, request)
        values = np.array([entry.value for entry in result.regressions], np.float32)
        return _answered(answer, json_values.render_numbers({"results": values}))

    async def _ask(self, task: Task[Result], request: Request) -> tuple[Answer, Result]:
        route = self._route(request)
        body = json_values.parse_object(request.body)
        name, examples = tf_serving_json.signature_name(body), examples_from_json(body)
        return await ask(self._dispatcher, task, route, name, examples, request.deadline, request)

    def _route(self, request: Request) -> Route:
        return models.resolve(self._dispatcher.table, *_named(request))

    async def status(self, request: Request) -> Response:
        return _json(models.status(self._dispatcher.table, *_named(request)))

    async def metadata(self, request: Request) -> Response:
        route = self._route(request)
        spec = {"name": route.model, "signature_name": "", "version": route.version}
        signatures = _dict(models.signature_def_map(route))
        body = {"model_spec": spec, "metadata": {models.SIGNATURE_DEF: signatures}}
        return Response(json_values.render(body))


def _named(request: Request) -> tuple[str, str, str]:
    """(name, version, label) in the path."""
    return request.path["model"], request.path["version"], request.path["label"]


def _answered(answer: Answer, body: bytes) -> Response:
    return Response(body, answer=answer)


def _dict(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def _json(message: Message) -> Response:
    return Response(json_values.render(_dict(message)))
