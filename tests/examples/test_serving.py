"""The digits archive in a real TorchServe, started by torchserve/serve.py with the repository's own configuration."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVE = ROOT / "torchserve" / "serve.py"
DIGITS = ROOT / "examples" / "digits"
START_SECONDS = 60.0
STOP_SECONDS = 30.0

IMAGE = json.loads((DIGITS / "request.json").read_text())
PNG = (DIGITS / "seven.png").read_bytes()
JSON = "application/json"


def torch_python() -> Path:
    """The Python of TorchServe's environment."""
    python = Path(os.environ.get("PORTICO_TORCH_PYTHON") or ROOT / ".venv" / "torchserve" / "bin" / "python")
    assert python.exists(), f"there is no {python}: run `make setup`, or set PORTICO_TORCH_PYTHON"
    return python


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def settings(temporary: Path) -> dict[str, str]:
    """The environment that puts one TorchServe on loopback ports of its own."""
    inference, management, metrics, grpc_inference, grpc_management = free_ports(5)
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("TS_")},
        "TEMP": str(temporary),
        "TS_MODEL_STORE": str(ROOT / "model-repository"),
        "TS_INFERENCE_ADDRESS": f"http://127.0.0.1:{inference}",
        "TS_MANAGEMENT_ADDRESS": f"http://127.0.0.1:{management}",
        "TS_METRICS_ADDRESS": f"http://127.0.0.1:{metrics}",
        "TS_GRPC_INFERENCE_ADDRESS": "127.0.0.1",
        "TS_GRPC_INFERENCE_PORT": str(grpc_inference),
        "TS_GRPC_MANAGEMENT_ADDRESS": "127.0.0.1",
        "TS_GRPC_MANAGEMENT_PORT": str(grpc_management),
    }


def call(url: str, body: bytes | None = None, content_type: str = JSON, method: str = "POST") -> tuple[int, Any]:
    """Status and parsed JSON of one REST call."""
    request = urllib.request.Request(url, body, {"Content-Type": content_type}, method=method)  # noqa: S310 - http only
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - http only
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@dataclass(frozen=True)
class TorchServe:
    """A running TorchServe that has `digits` loaded."""

    process: "subprocess.Popen[bytes]"
    environment: dict[str, str]

    def predict(self, body: bytes, content_type: str = JSON, model: str = "digits") -> tuple[int, Any]:
        return call(f"{self.environment['TS_INFERENCE_ADDRESS']}/predictions/{model}", body, content_type)

    def register(self, **what: str) -> tuple[int, Any]:
        body = json.dumps({"initial_workers": 1, "synchronous": True, **what}).encode()
        return call(f"{self.environment['TS_MANAGEMENT_ADDRESS']}/models", body)


def accepts(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/ping", timeout=1) as response:  # noqa: S310 - http only
            return bool(response.status == 200)
    except OSError:
        return False


@contextmanager
def running(temporary: Path) -> Iterator[TorchServe]:
    """Starts TorchServe, waits until it answers, and stops it; its log is in `<temporary>/log`."""
    environment = settings(temporary)
    with (
        (temporary / "log").open("wb") as log,
        subprocess.Popen([torch_python(), SERVE], env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            deadline = time.monotonic() + START_SECONDS
            while not accepts(environment["TS_INFERENCE_ADDRESS"]):
                assert process.poll() is None, (temporary / "log").read_text()
                assert time.monotonic() < deadline, (temporary / "log").read_text()
                time.sleep(0.1)
            yield TorchServe(process, environment)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module")
def torchserve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchServe]:
    temporary = tmp_path_factory.mktemp("ts")
    with running(temporary) as server:
        status, answer = server.register(url="digits.mar")
        assert status == 200, f"{answer}\n{(temporary / 'log').read_text()}"
        yield server


@pytest.mark.parametrize(
    "value",
    [IMAGE, [pixel for row in IMAGE for pixel in row], {"image": IMAGE}],
    ids=["nested", "flat", "object"],
)
def test_one_image(torchserve: TorchServe, value: Any) -> None:
    """An image in each of its JSON forms is answered with one digit and ten probabilities."""
    for content_type in (JSON, "application/octet-stream"):
        status, answer = torchserve.predict(json.dumps(value).encode(), content_type)
        assert (status, answer["digit"]) == (200, 4)
        assert len(answer["probabilities"]) == 10
        assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "value",
    [[IMAGE, IMAGE], [[IMAGE], [IMAGE]], {"images": [IMAGE, IMAGE]}],
    ids=["n x 8 x 8", "n x 1 x 8 x 8", "object"],
)
def test_batch(torchserve: TorchServe, value: Any) -> None:
    """A batch in each of its JSON forms is answered with a list of digits and one of probabilities."""
    status, answer = torchserve.predict(json.dumps(value).encode())
    assert (status, answer["digit"]) == (200, [4, 4])
    assert [len(row) for row in answer["probabilities"]] == [10, 10]


def test_png(torchserve: TorchServe) -> None:
    """The sample PNG is a seven, sent as a body or as a file of a form, whatever the field is called."""
    assert torchserve.predict(PNG, "image/png")[1]["digit"] == 7
    for field in ("data", "image", "picture"):
        head = f'Content-Disposition: form-data; name="{field}"; filename="seven.png"\r\nContent-Type: image/png'
        form = b"--edge\r\n" + head.encode() + b"\r\n\r\n" + PNG + b"\r\n--edge--\r\n"
        status, answer = torchserve.predict(form, "multipart/form-data; boundary=edge")
        assert (status, answer["digit"]) == (200, 7)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"hello", "neither JSON nor a PNG"),
        (b"", "neither JSON nor a PNG"),
        (b"[" * 5000 + b"]" * 5000, "neither JSON nor a PNG"),
        (PNG[:60], "the PNG is damaged"),
        (b"[[1, 2], [3, 4]]", "the list has the shape [2, 2]"),
        (b"[[1], [2, 3]]", "not a rectangular list"),
        (json.dumps([["1"] * 8] * 8).encode(), "not a list of numbers"),
        (json.dumps([[17] * 8] * 8).encode(), "a pixel is outside 0..16"),
        (b"[[NaN,0,0,0,0,0,0,0]" + b",[0,0,0,0,0,0,0,0]" * 7 + b"]", "a pixel is outside 0..16"),
        (b'{"pixels": []}', "needs one member 'image' or 'images'"),
        (b"null", "not a list of numbers"),
    ],
    ids=["text", "nothing", "deep", "cut png", "shape", "ragged", "strings", "too dark", "nan", "member", "null"],
)
def test_bad_input(torchserve: TorchServe, body: bytes, says: str) -> None:
    """What is no image gets HTTP 400 and a sentence that says what is wrong and what to send."""
    status, answer = torchserve.predict(body, "application/octet-stream")
    assert status == 400
    assert says in answer["message"]
    assert "send an 8x8 image" in answer["message"]


def test_archives_by_name_only(torchserve: TorchServe) -> None:
    """No URL can be registered: archives come from the model store, by their bare name."""
    url = (ROOT / "model-repository" / "digits.mar").as_uri()
    status, answer = torchserve.register(url=url, model_name="by-url")
    assert (status, answer["type"]) == (404, "ModelNotFoundException")
    assert "does not match any allowed URL" in answer["message"]


def test_one_instance_per_folder(torchserve: TorchServe) -> None:
    """A second TorchServe in the same TEMP refuses to start, and the first goes on."""
    second = subprocess.run(
        [torch_python(), SERVE], env=torchserve.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert second.returncode == 1
    assert "give this one a TEMP of its own" in second.stderr
    assert torchserve.predict(PNG, "image/png")[0] == 200


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"TEMP": ""}, "set TEMP to a folder"),
        ({"TEMP": "/nowhere/at/all"}, "TEMP must be a folder that can be written to"),
        ({"TEMP": "/" + "x" * 100}, "TEMP is too long"),
        ({"JAVA_HOME": "/nowhere"}, "JAVA_HOME is set, but there is no /nowhere/bin/java"),
    ],
    ids=["no temp", "no such temp", "long temp", "no java"],
)
def test_missing_needs(tmp_path: Path, changed: dict[str, str], says: str) -> None:
    """What is missing for a start is said in one line, without a traceback."""
    environment = settings(tmp_path) | changed
    started = subprocess.run(
        [torch_python(), SERVE], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert started.returncode == 1
    assert says in started.stderr
    assert "Traceback" not in started.stderr


def test_stops_with_its_workers(tmp_path: Path) -> None:
    """On SIGTERM the process that was started is TorchServe itself: it ends, and so do its workers."""
    with running(tmp_path) as server:
        assert server.register(url="digits.mar")[0] == 200
        described = call(f"{server.environment['TS_MANAGEMENT_ADDRESS']}/models/digits", method="GET")[1]
        worker: int = described[0]["workers"][0]["pid"]
        assert described[0]["workers"][0]["status"] == "READY"
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(STOP_SECONDS)
        deadline = time.monotonic() + STOP_SECONDS
        while Path(f"/proc/{worker}/cmdline").exists() and Path(f"/proc/{worker}/cmdline").read_bytes():
            assert time.monotonic() < deadline, f"worker {worker} outlived TorchServe"
            time.sleep(0.1)
