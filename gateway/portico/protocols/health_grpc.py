"""gRPC's health checking: of the gateway, and of each model by its name.

Source: grpc/doc/health-checking.md and grpc/health/v1/health.proto.
"""

from collections.abc import AsyncGenerator, Iterable

from google.protobuf.message import DecodeError

from portico.edges.grpc import Abort, Call, Method
from portico.edges.status import GrpcCode
from portico.errors import InvalidRequest, NotFound
from portico.routing import LiveRoutes, State
from portico.wire import health_pb2 as health

_SERVICE = "/grpc.health.v1.Health/"
_Status = health.HealthCheckResponse.ServingStatus


class HealthGrpc:
    """One method per RPC. `services` are those of the gateway: they are as healthy as it is."""

    def __init__(self, routes: LiveRoutes, services: Iterable[str]) -> None:
        self._routes = routes
        self._services = frozenset(services)

    def methods(self) -> Iterable[Method]:
        yield Method(_SERVICE + "Check", self.check)
        yield Method(_SERVICE + "Watch", stream=self.watch, lasting=True)

    async def check(self, message: bytes, call: Call) -> bytes:
        """Fails with NOT_FOUND for a name that is neither a model's nor a service's."""
        service = _asked(message)
        status = self._status(service)
        if status == _Status.SERVICE_UNKNOWN:
            raise Abort(GrpcCode.NOT_FOUND, f"There is no model and no service named '{service}'.")
        return health.HealthCheckResponse(status=status).SerializeToString()

    async def watch(self, message: bytes, call: Call) -> AsyncGenerator[bytes]:
        """The status now, and whenever it changes; also of what is not there yet."""
        service, told = _asked(message), None
        while True:
            replaced = self._routes.replaced
            status = self._status(service)
            if status != told:
                yield health.HealthCheckResponse(status=status).SerializeToString()
                told = status
            await replaced.wait()

    def _status(self, service: str) -> health.HealthCheckResponse.ServingStatus:
        """A model is as healthy as the version that a call without one gets. A service's name never hides a model's."""
        try:
            ready = self._routes.table.model(service).status().state is State.READY
        except NotFound:
            if service and service not in self._services:
                return _Status.SERVICE_UNKNOWN if self._routes.received else _Status.NOT_SERVING
            ready = self._routes.received
        return _Status.SERVING if ready else _Status.NOT_SERVING


def _asked(message: bytes) -> str:
    try:
        return health.HealthCheckRequest.FromString(message).service
    except DecodeError as error:
        raise InvalidRequest(f"The message is no HealthCheckRequest: {error}.") from error
