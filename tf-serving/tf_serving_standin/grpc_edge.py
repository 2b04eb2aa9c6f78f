"""The gRPC edge: PredictionService, ModelService and, when asked for, the health service.

Parses nothing and decides nothing: it hands each request to the service and turns ServingError into a status.
"""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest, ReloadConfigResponse

from tf_serving_standin.errors import ServingError, from_exception, invalid_argument
from tf_serving_standin.service import Service

_log = logging.getLogger(__name__)
_MAX_MESSAGE_BYTES = 2**31 - 1
_MAX_CONCURRENT_CALLS = 4096
_MAX_DETAILS = 1024
_STATUS = {code.value[0]: code for code in grpc.StatusCode}

Request = TypeVar("Request")
Response = TypeVar("Response")


def _abort(context: Any, error: ServingError) -> None:
    details = error.message
    if len(details) > _MAX_DETAILS:
        details = details[:_MAX_DETAILS] + "...TRUNCATED"
    context.abort(_STATUS[int(error.code)], details)


def _unary(call: Callable[[Request], Response]) -> Callable[[Any, Request, Any], Response | None]:
    def handle(_: Any, request: Request, context: Any) -> Response | None:
        try:
            return call(request)
        except Exception as error:  # whatever goes wrong in a call is that call's answer, not the server's end
            _abort(context, from_exception(error))
            return None

    return handle


def prediction_servicer(service: Service) -> Any:
    """PredictionService over `service`."""
    methods = {
        "Predict": _unary(service.predict),
        "Classify": _unary(service.classify),
        "Regress": _unary(service.regress),
        "MultiInference": _unary(service.multi_inference),
        "GetModelMetadata": _unary(service.metadata),
    }
    return type("PredictionServicer", (prediction_service_pb2_grpc.PredictionServiceServicer,), methods)()


def model_servicer(service: Service) -> Any:
    """ModelService over `service` and its core."""

    def reload(_: Any, request: ReloadConfigRequest, context: Any) -> ReloadConfigResponse | None:
        return _reload(service, request, context)

    methods = {"GetModelStatus": _unary(service.status), "HandleReloadConfigRequest": reload}
    return type("ModelServicer", (model_service_pb2_grpc.ModelServiceServicer,), methods)()


def _reload(service: Service, request: ReloadConfigRequest, context: Any) -> ReloadConfigResponse | None:
    try:
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        service.core.reload(request.config, abandoned=lambda: not context.is_active())
    except Exception as caught:  # as in every call: the client is told, the server goes on
        error = from_exception(caught)
        _log.error("ReloadConfig failed: %s", error.message)
        _abort(context, error)
        return None
    response = ReloadConfigResponse()
    response.status.error_code = 0
    for name in sorted(set(request.metric_names)):
        response.metric.add(name=name, int64_value_increase=0)
    return response


def _health_handler(services: frozenset[bytes]) -> grpc.GenericRpcHandler:
    # The two messages have one field each; writing them here saves a package.
    def check(request: bytes, context: Any) -> bytes:
        name = request[2:] if request[:1] == b"\x0a" else b""
        if name not in services:
            context.abort(grpc.StatusCode.NOT_FOUND, "")
        return b"\x08\x01"

    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(check)
    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": method})


def build_grpc_server(
    service: Service, *, threads: int, channel_arguments: dict[str, int | str], health: bool
) -> grpc.Server:
    """A gRPC server that is not listening yet; messages up to 2 GiB, as model_servers/server.cc sets it."""
    options: dict[str, int | str] = {
        "grpc.max_receive_message_length": _MAX_MESSAGE_BYTES,
        "grpc.max_send_message_length": -1,
        # Two servers on one port would each get half of the calls.
        "grpc.so_reuseport": 0,
        **channel_arguments,
    }
    server = grpc.server(
        ThreadPoolExecutor(threads, thread_name_prefix="grpc"),
        options=list(options.items()),
        maximum_concurrent_rpcs=_MAX_CONCURRENT_CALLS,
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction_servicer(service), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(model_servicer(service), server)
    if health:
        server.add_generic_rpc_handlers((_health_handler(frozenset({b"", b"ModelService", b"PredictionService"})),))
    return server
