"""`portico cache`: what a person and a program read."""

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from portico import cli
from portico.cache_command import URL, main, size
from portico.local.addresses import USUAL
from portico.settings import ControllerSettings, GatewaySettings

STATS: dict[str, Any] = {
    "models": [
        {"model": "digits", "entries": 12345, "bytes": 5 << 20},
        {"model": "iris-with-a-long-name", "entries": 1, "bytes": 77},
    ],
    "complete": True,
    "redis": {"used_memory": 3 << 19, "maxmemory": 256 << 20, "evicted_keys": 1000},
}


class Controller:
    """A controller that answers what a test says; `asked` is what it was asked."""

    def __init__(self) -> None:
        self.status, self.answer = 200, dict(STATS)
        self.asked: list[str] = []
        self.url = ""


@pytest.fixture
def controller() -> Iterator[Controller]:
    """A made-up controller on loopback."""
    fake = Controller()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fake.asked.append(f"{self.command} {self.path}")
            body = json.dumps(fake.answer).encode()
            self.send_response(fake.status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_DELETE = do_GET  # noqa: N815 - the base class calls it that

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield fake
        server.shutdown()
        thread.join()


def printed(controller: Controller, *arguments: str) -> str:
    out = io.StringIO()
    assert main([*arguments, "--url", controller.url], out) == 0
    return out.getvalue()


def test_stats(controller: Controller) -> None:
    """A line for each model, the numbers below one another; then all of them, and Redis."""
    assert printed(controller, "stats").splitlines() == [
        "MODEL                  ANSWERS     SIZE",
        "digits                  12,345  5.0 MiB",
        "iris-with-a-long-name        1     77 B",
        "all                     12,346  5.0 MiB",
        "",
        "Redis uses 1.5 MiB of 256.0 MiB; it has evicted 1,000 keys.",
    ]
    assert controller.asked == ["GET /v1/cache"]


def test_stats_of_one_model(controller: Controller) -> None:
    """There is nothing to add up; what is not complete, or not bounded, is said to be so."""
    controller.answer |= {"models": STATS["models"][:1], "complete": False, "redis": STATS["redis"] | {"maxmemory": 0}}
    lines = printed(controller, "stats").splitlines()
    assert lines[1:] == [
        "digits   12,345  5.0 MiB",
        "There are more: counting them all would have taken too long.",
        "",
        "Redis uses 1.5 MiB without a bound; it has evicted 1,000 keys.",
    ]


def test_an_empty_cache(controller: Controller) -> None:
    """It is said to be that."""
    controller.answer["models"] = []
    assert printed(controller, "stats").splitlines()[0] == "The cache is empty."


def test_json(controller: Controller) -> None:
    """Programs get the controller's answer."""
    assert json.loads(printed(controller, "stats", "--json")) == STATS


def test_purge(controller: Controller) -> None:
    """Of one model or of all; a name is a name, whatever is in it."""
    controller.answer = {"model": "iris", "removed": 1234}
    assert printed(controller, "purge", "iris") == "1,234 answers of iris removed.\n"
    assert printed(controller, "purge", "--all") == "1,234 answers of all models removed.\n"
    controller.answer["removed"] = 1
    assert printed(controller, "purge", "a/b?") == "1 answer of a/b? removed.\n"
    assert controller.asked == ["DELETE /v1/cache/iris", "DELETE /v1/cache", "DELETE /v1/cache/a%2Fb%3F"]


@pytest.mark.parametrize("arguments", [[], ["purge"], ["purge", "iris", "--all"], ["stats", "iris"]])
def test_what_cannot_be_meant(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """To purge everything has to be said in so many words."""
    with pytest.raises(SystemExit):
        main(arguments)
    assert "usage: portico cache" in capsys.readouterr().err


def test_refusals(controller: Controller, capsys: pytest.CaptureFixture[str]) -> None:
    """The controller's own words, and exit code 1; also for what is no controller."""
    controller.status, controller.answer = 404, {"error": "There is no model irsi."}
    assert main(["purge", "irsi", "--url", controller.url]) == 1
    assert capsys.readouterr().err == f"{controller.url} answered 404: There is no model irsi.\n"
    controller.status, controller.answer = 200, {"models": []}
    for arguments, what in ((["stats"], "what the cache holds"), (["purge", "iris"], "what was removed")):
        assert main([*arguments, "--url", controller.url]) == 1
        assert capsys.readouterr().err == f"{controller.url} answered 200, and not with {what}: is it Portico?\n"
    assert main(["stats", "--url", "http://127.0.0.1:1"]) == 1
    assert "--url" in capsys.readouterr().err


def test_the_command_line(controller: Controller, capsys: pytest.CaptureFixture[str]) -> None:
    """`portico cache` hands its arguments on."""
    assert cli.main(["cache", "stats", "--url", controller.url]) == 0
    assert "digits" in capsys.readouterr().out


def test_the_usual_address() -> None:
    """The command looks where the controller listens, in containers and in `make run`."""
    assert ControllerSettings.model_fields["metrics_address"].default == f"0.0.0.0:{USUAL['operators']}"
    assert GatewaySettings.model_fields["metrics_address"].default == f"0.0.0.0:{USUAL['gateway_metrics']}"
    assert f"http://127.0.0.1:{USUAL['operators']}" == URL


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (1 << 20, "1.0 MiB"),
        ((1 << 30) - 1, "1.0 GiB"),
        (5000 << 30, "5,000.0 GiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    """Three or four digits and a unit."""
    assert size(count) == text
