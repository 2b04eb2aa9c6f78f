"""Waiting for the models, with a gateway that is made up."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from portico.local.models import NoRoutes, wait_until_settled
from portico.models_table import Entry


class FakeGateway:
    """A gateway whose list and readiness are what a test says."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.lists: list[list[dict[str, Any]]] = []
        self.ready: tuple[int, dict[str, str]] = (200, {})

    def next_list(self) -> list[dict[str, Any]]:
        """The lists one after the other, the last for ever."""
        return self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    """The made-up gateway, answering on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, servers = fake.ready
            if self.path == "/v1/models":
                self.answer(200, {"models": [], "versions": fake.next_list()})
            else:
                self.answer(status, {"ready": status == 200, "model_servers": servers})

        def answer(self, status: int, body: Any) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it that
            """Nothing: the test's output is its own."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake = FakeGateway(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield fake
        server.shutdown()
        thread.join()


def entry(state: str, reason: str = "") -> dict[str, Any]:
    """One of the list's versions."""
    described = {"name": "iris", "version": "1", "server": "tf_serving", "state": state, "reason": reason}
    return {**described, "labels": [], "default": state == "READY"}


def test_loading_is_waited_for(gateway: FakeGateway) -> None:
    """A model that is loading, or whose server is not up yet, is waited for until it is ready."""
    gateway.lists = [[entry("LOADING")], [entry("UNAVAILABLE", "starting")], [entry("READY")]]
    seen: list[list[Entry]] = []
    found = wait_until_settled(gateway.port, 60, seen.append)
    assert [model.state for model in found] == ["READY"]
    assert [states[0].state for states in seen] == ["LOADING", "UNAVAILABLE", "READY"]


@pytest.mark.parametrize("state", ["FAILED", "QUARANTINED"])
def test_a_broken_model_is_shown_and_not_waited_for(gateway: FakeGateway, state: str) -> None:
    """What will not get better by waiting is returned with its reason."""
    gateway.lists = [[entry(state, "variables are missing")]]
    assert wait_until_settled(gateway.port, 60) == [
        Entry("iris", "1", "tf_serving", state, "variables are missing", (), False)
    ]


def test_an_empty_repository_is_settled(gateway: FakeGateway) -> None:
    """With routes received and no models in them there is nothing to wait for."""
    gateway.lists = [[]]
    assert wait_until_settled(gateway.port, 60) == []


def test_waiting_is_bounded(gateway: FakeGateway) -> None:
    """A model that never gets ready is returned as it is."""
    gateway.lists = [[entry("LOADING")]]
    assert [model.state for model in wait_until_settled(gateway.port, 0.3)] == ["LOADING"]


def test_a_server_out_of_reach_is_waited_for(gateway: FakeGateway) -> None:
    """Ready in the list is not enough: the gateway has to reach the model server, or the first call would fail."""
    gateway.lists = [[entry("READY")]]
    gateway.ready = (200, {"tf_serving": "no replica"})
    ticks: list[int] = []

    def tell(models: list[Entry]) -> None:
        ticks.append(len(models))
        if len(ticks) == 3:
            gateway.ready = (200, {"tf_serving": "ok"})

    wait_until_settled(gateway.port, 60, tell)
    assert len(ticks) >= 3


def test_a_controller_that_publishes_nothing_is_an_error(gateway: FakeGateway) -> None:
    """A gateway without routes is not taken for an empty repository."""
    gateway.lists = [[]]
    gateway.ready = (503, {})
    with pytest.raises(NoRoutes, match="no routes from the controller"):
        wait_until_settled(gateway.port, 0.3)
