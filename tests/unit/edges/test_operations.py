"""What operators and orchestrators ask the gateway."""

from typing import Any

import pytest

from asgi_client import call
from fakes import FakeBackend
from portico.edges.draining import Draining
from portico.edges.operations import operations
from portico.routing import LiveRoutes, Model, RouteTable, Server

TABLE = RouteTable(
    {
        "iris": Model("iris", Server.TF_SERVING, "", {}),
        "digits": Model("digits", Server.TORCHSERVE, "", {}),
        "damaged": Model("damaged", None, "", {}),
    },
    revision=4,
)


@pytest.fixture
def backends() -> dict[Server, FakeBackend]:
    return {server: FakeBackend() for server in Server}


async def ask(path: str, routes: LiveRoutes, backends: dict[Server, FakeBackend], method: str = "GET") -> Any:
    answer = await call(operations(routes, backends), method, path)
    return answer.status, answer.json()


async def test_alive(backends: dict[Server, FakeBackend]) -> None:
    """The process is alive whatever else there is."""
    for backend in backends.values():
        backend.go_down()
    assert await ask("/healthz", LiveRoutes(), backends) == (200, {"status": "ok"})


async def test_ready(backends: dict[Server, FakeBackend]) -> None:
    """With routes and all model servers in reach, the gateway is ready, and says of what."""
    status, body = await ask("/readyz", LiveRoutes(TABLE), backends)
    assert (status, body["ready"]) == (200, True)
    assert body["model_servers"] == {"tf_serving": "ok", "torchserve": "ok"}
    assert body["routes"] == "3 models, revision 4"


async def test_one_server_down(backends: dict[Server, FakeBackend]) -> None:
    """One model server down leaves the gateway ready for the models of the other, and is told."""
    backends[Server.TORCHSERVE].go_down()
    status, body = await ask("/readyz", LiveRoutes(TABLE), backends)
    assert (status, body["ready"], body["model_servers"]["tf_serving"]) == (200, True, "ok")
    assert "cannot be reached" in body["model_servers"]["torchserve"]


async def test_all_servers_down(backends: dict[Server, FakeBackend]) -> None:
    """With no model server in reach, the gateway is not ready."""
    for backend in backends.values():
        backend.go_down()
    status, body = await ask("/readyz", LiveRoutes(TABLE), backends)
    assert (status, body["ready"]) == (503, False)


async def test_a_server_that_hangs(backends: dict[Server, FakeBackend]) -> None:
    """A model server that does not answer is reported as that, and readiness is answered nevertheless."""
    backends[Server.TF_SERVING].hang()
    status, body = await ask("/readyz", LiveRoutes(TABLE), backends)
    assert (status, body["model_servers"]["torchserve"]) == (200, "ok")
    assert "did not answer" in body["model_servers"]["tf_serving"]


async def test_servers_that_nobody_needs(backends: dict[Server, FakeBackend]) -> None:
    """A model server that no model of the repository needs does not count."""
    backends[Server.TORCHSERVE].go_down()
    table = RouteTable({"iris": TABLE.models["iris"]})
    status, body = await ask("/readyz", LiveRoutes(table), backends)
    assert (status, body["model_servers"]) == (200, {"tf_serving": "ok"})
    assert (await ask("/readyz", LiveRoutes(RouteTable()), backends))[0] == 200


async def test_before_the_first_snapshot(backends: dict[Server, FakeBackend]) -> None:
    """Before any routes have come, the gateway is not ready and says why."""
    status, body = await ask("/readyz", LiveRoutes(), backends)
    assert (status, body["ready"]) == (503, False)
    assert "controller" in body["routes"]


async def test_an_unknown_path(backends: dict[Server, FakeBackend]) -> None:
    """A path that nobody knows is answered 404, naming it, where models are listed and where everything is shown."""
    status, body = await ask("/nothing/here", LiveRoutes(TABLE), backends)
    assert status == 404
    assert "/nothing/here" in body["error"]
    assert "/v2/repository/index" in body["error"]
    assert "/docs" in body["error"]


async def test_a_wrong_method(backends: dict[Server, FakeBackend]) -> None:
    """A method that an operation does not have is answered 405, in the form of other errors, with those that it has."""
    answer = await call(operations(LiveRoutes(), backends), "POST", "/readyz")
    assert (answer.status, answer.header(b"allow"), list(answer.json())) == (405, "GET", ["error"])


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_draining(backends: dict[Server, FakeBackend], path: str) -> None:
    """A gateway that is about to end says so, so that it gets no more requests."""
    draining = Draining()
    application = operations(LiveRoutes(TABLE), backends, draining)
    assert (await call(application, "GET", path)).status == 200
    draining.begun = True
    assert (await call(application, "GET", path)).status == 503
