"""`portico models`: what a person, a pipe and a program read."""

import io
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from portico import cli, models_command
from portico.asking import Unreachable
from portico.local.board import Paint
from portico.models_command import ask, main, watch
from portico.models_table import Entry, changes, table

IRIS = Entry("iris", "2", "tf_serving", "READY", "", ("stable",), True)
OLD = Entry("iris", "1", "tf_serving", "DRAINING", "calls no longer go to it", (), False)
BROKEN = Entry("broken-model", "", "", "QUARANTINED", "saved_model.pb is empty", (), False)
ENTRIES = [BROKEN, OLD, IRIS]


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.delenv("NO_COLOR", raising=False)


class Gateway:
    """A gateway that answers what a test says; `paths` are those it was asked for."""

    def __init__(self) -> None:
        self.status, self.body = 200, listed(ENTRIES)
        self.paths: list[str] = []
        self.url = ""


def listed(entries: list[Entry]) -> bytes:
    """The gateway's answer with these entries, and with fields that a later release may add."""
    versions = [{name: getattr(entry, name) for name in Entry.__slots__} | {"new": 1} for entry in entries]
    return json.dumps({"models": [], "versions": versions}).encode()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """A made-up gateway on loopback."""
    fake = Gateway()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fake.paths.append(self.path)
            self.send_response(fake.status)
            self.send_header("content-length", str(len(fake.body)))
            self.end_headers()
            self.wfile.write(fake.body)

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield fake
        server.shutdown()
        thread.join()


def test_a_table(gateway: Gateway) -> None:
    """Every version has its line, the columns stand below one another, and nothing is coloured off a terminal."""
    out = io.StringIO()
    assert main(["--url", gateway.url], out) == 0
    assert out.getvalue().splitlines() == [
        "MODEL         VERSION  SERVER      STATE        LABELS           REASON",
        "broken-model  -        -           QUARANTINED  -                saved_model.pb is empty",
        "iris          1        TF Serving  DRAINING     -                calls no longer go to it",
        "iris          2        TF Serving  READY        default, stable",
    ]
    assert gateway.paths == ["/v1/models"]


def test_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets states in colour, unless NO_COLOR says otherwise; the text is the same."""
    coloured = table(ENTRIES, Paint(Terminal()))
    assert "\033[32mREADY\033[0m" in coloured
    assert "\033[31mQUARANTINED\033[0m" in coloured
    assert re.sub(r"\033\[\d+m", "", coloured) == table(ENTRIES, Paint(io.StringIO()))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in table(ENTRIES, Paint(Terminal()))


def test_a_narrow_terminal() -> None:
    """Lines are cut at the terminal's edge, before, in and after the state."""
    for columns in range(10, 90):
        lines = re.sub(r"\033\[\d+m", "", table(ENTRIES, Paint(Terminal()), columns)).splitlines()
        assert max(map(len, lines)) <= columns
        assert len(lines) == 4


def test_a_reason_of_many_lines() -> None:
    """A model server's reason stays in its line, and sends no codes to the terminal."""
    shown = table([replace(BROKEN, reason="Traceback\n\033[2J  boom")], Paint(io.StringIO()))
    assert shown.splitlines()[1].endswith("Traceback  [2J  boom")


def test_no_models(gateway: Gateway) -> None:
    """An empty repository is said to be that."""
    gateway.body = listed([])
    out = io.StringIO()
    assert main(["--url", gateway.url], out) == 0
    assert out.getvalue() == "There are no models in the repository yet; they are served as soon as they lie there.\n"


def test_json(gateway: Gateway) -> None:
    """Programs get every field."""
    out = io.StringIO()
    assert main(["--url", gateway.url + "/", "--json"], out) == 0
    assert json.loads(out.getvalue())[2] == {
        "name": "iris",
        "version": "2",
        "server": "tf_serving",
        "state": "READY",
        "reason": "",
        "labels": ["stable"],
        "default": True,
    }
    assert gateway.paths == ["/v1/models"]


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (503, b'{"error": "no routes yet"}', "answered 503: no routes yet"),
        (404, b"not here", "answered 404, and not with a list of models: is it Portico?"),
        (200, b"{}", "answered 200, and not with a list of models"),
        (200, b"[]", "not with a list of models"),
        (200, b'{"versions": [{"name": "iris"}]}', "not with a list of models"),
        (200, b"\xff", "not with a list of models"),
    ],
)
def test_an_answer_that_is_none(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], status: int, body: bytes, says: str
) -> None:
    """What is no list of models is an error with the address, and exit code 1."""
    gateway.status, gateway.body = status, body
    assert main(["--url", gateway.url]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"{gateway.url} answered {status}")
    assert says in error


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:1", "refused"),
        ("127.0.0.1:1", "refused"),
        ("https://127.0.0.1:1", "refused"),
        ("ftp://127.0.0.1", "http://host:port"),
        ("http://", "http://host:port"),
        ("http://a:b", "Port"),
        ("http://127.0.0.1:1/a b", ""),
    ],
)
def test_an_address_that_nobody_answers_at(capsys: pytest.CaptureFixture[str], url: str, says: str) -> None:
    """A stack that does not run is an error that says how to name another, and exit code 1."""
    assert main(["--url", url]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"{url} cannot be reached: ")
    assert says in error
    assert "--url" in error


def test_changes() -> None:
    """Each version that comes, changes or goes is one line; what stays is none."""
    now = [replace(OLD, state="LOADING", reason=""), replace(IRIS, labels=()), BROKEN]
    assert not changes(now, now, as_json=False)
    lines = [line.split(maxsplit=1)[1] for line in changes([BROKEN, OLD], [IRIS, now[0]], as_json=False)]
    assert lines == [
        "iris 2  READY  default, stable\n",
        "iris 1  DRAINING → LOADING\n",
        "broken-model  QUARANTINED → -  gone\n",
    ]
    (relabelled,) = changes([IRIS], [now[1]], as_json=False)
    assert relabelled.endswith("iris 2  READY  default\n")


def test_changes_for_programs() -> None:
    """With --json each change is an object in a line, also that of a version that is gone."""
    come, gone = map(json.loads, changes([OLD], [IRIS], as_json=True))
    assert (come["version"], come["state"]) == ("2", "READY")
    assert gone == {"name": "iris", "version": "1", "state": "GONE"}


class Looks:
    """What the gateway lists, look by look; after the last, the watcher is interrupted as by Ctrl-C."""

    def __init__(self, *looks: list[Entry] | str) -> None:
        self.left = list(looks)

    def __call__(self) -> list[Entry]:
        found = self.left.pop(0)
        if isinstance(found, str):
            raise Unreachable(found)
        return found

    def pause(self, seconds: float) -> None:
        if not self.left:
            raise KeyboardInterrupt


def watched(out: io.StringIO, looks: Looks, **options: Any) -> str:
    with pytest.raises(KeyboardInterrupt):
        watch([OLD], looks, out, pause=looks.pause, **options)
    return out.getvalue()


def test_watching_through_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """Off a terminal, what there is comes first, then a line for each change; a gateway that is away is waited for."""
    looks = Looks([OLD], "away", "away", [OLD, IRIS], [IRIS])
    lines = watched(io.StringIO(), looks).splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == [
        "iris 1  DRAINING  calls no longer go to it",
        "iris 2  READY  default, stable",
        "iris 1  DRAINING → -  gone",
    ]
    assert capsys.readouterr().err == "away\nThe gateway answers again.\n"


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()])
def test_watching_for_programs(out: io.StringIO) -> None:
    """With --json every line is JSON, on a terminal too."""
    lines = watched(out, Looks([OLD], [IRIS]), as_json=True).splitlines()
    assert [json.loads(line)["state"] for line in lines] == ["DRAINING", "READY", "GONE"]


def test_watching_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal each picture is drawn over the last, also when it has fewer lines, and says when nobody answers."""
    drawn = watched(Terminal(), Looks([OLD, IRIS], "nobody there", [IRIS]))
    pictures = [re.sub(r"\033\[\d*[mK]", "", part) for part in drawn.split("\033[J")][:-1]
    assert [picture.count("\n") for picture in pictures] == [3, 4, 4, 3]
    assert [re.findall(r"\033\[(\d)A", picture) for picture in pictures] == [[], ["3"], ["4"], ["4"]]
    assert "nobody there" in pictures[2]
    assert "iris" in pictures[2]
    assert "DRAINING" not in pictures[3]


def test_more_models_than_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """More models than a terminal has lines are counted, since what has scrolled away cannot be drawn over."""
    monkeypatch.setenv("LINES", "10")
    many = [replace(IRIS, name=f"model{number}") for number in range(100)]
    drawn = watched(Terminal(), Looks(many))
    assert "… and 94 more" in drawn
    assert drawn.rpartition("\033[J")[0].rpartition("\033[J")[2].count("\n") == 9


def test_watching_is_ended_by_the_keyboard(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends watching, and that is no error."""
    monkeypatch.setattr(models_command, "watch", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["--url", gateway.url, "--watch"], io.StringIO()) == 0


def test_the_command_line(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    """`portico models` hands its options on, and `portico schema` prints the schema of policies."""
    assert cli.main(["models", "--url", gateway.url]) == 0
    assert "broken-model" in capsys.readouterr().out
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Portico model policy"
    with pytest.raises(SystemExit):
        cli.main(["schema", "--watch"])


def test_asking_again(gateway: Gateway) -> None:
    """What is asked anew is answered anew."""
    assert ask(gateway.url) == ENTRIES
    gateway.body = listed([IRIS])
    assert ask(gateway.url) == [IRIS]
