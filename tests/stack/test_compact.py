"""The shape of `make run` and compose.compact.yml: the gateway and the Envoy in front of it are one process."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cache_models import counted, number, put_handler
from door import Door, eventually

from portico.local import layout
from portico.local.readiness import accepts
from portico.local.stack import Stack

ROW = [5.1, 3.5, 1.4, 0.2]


@pytest.fixture(scope="module")
def compact(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of that shape, with the demo models."""
    models = tmp_path_factory.mktemp("compact") / "model-repository"
    shutil.copytree(layout.ROOT / "model-repository", models)
    with Stack(models, compact=True) as running:
        running.wait_for_models()
        yield running


@pytest.fixture(scope="module")
def door(compact: Stack) -> Door:
    return Door(compact.addresses.clients)


def test_every_protocol_predicts(compact: Stack) -> None:
    """Whatever a client speaks is answered as by a gateway behind an Envoy."""
    command = [sys.executable, "-m", "pytest", "tests/protocols", "-q", "--timeout", "60", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PORTICO_DOOR": f"127.0.0.1:{compact.addresses.clients}"}
    done = subprocess.run(
        command, cwd=layout.ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout)
    assert "skipped" not in done.stdout


def test_one_process_listens_for_clients_and_for_itself(compact: Stack) -> None:
    """There is no Envoy beside the gateway: that answers where the Envoy would."""
    with pytest.raises(KeyError):
        compact.pid("envoy")
    assert not accepts(compact.addresses.gateway)
    envoy = Door(compact.addresses.envoy_admin)
    assert envoy.get("/ready").body == b"LIVE\n"
    listening = re.findall(r"::127\.0\.0\.1:(\d+)", envoy.get("/listeners").body.decode())
    assert sorted(map(int, listening)) == sorted((compact.addresses.clients, compact.addresses.model_servers))
    assert Path(f"/proc/{compact.pid('gateway')}/exe").resolve().name == "envoy"


def test_what_the_edge_says_it_still_says(door: Door) -> None:
    """The routes that never reach the gateway, the request's id, and the name of no server."""
    refused = door.get("/v2/models/%E2%82%AC/ready")
    assert (refused.status, "ASCII" in refused.json["error"]) == (404, True)
    answer = door.infer("iris", "measurements", "FP32", ROW, [1, 4])
    assert answer.status == 200
    assert answer.headers["x-request-id"]
    assert "server" not in answer.headers


def test_large_messages_go_through(door: Door) -> None:
    """Up to the limit of the stack, there and to the model server; more is refused with the reason."""
    rows = 500_000
    assert door.infer("iris", "measurements", "FP32", [1.5] * (4 * rows), [rows, 4]).status == 200
    refused = door.post("/v2/models/iris/infer", bytes(65 << 20))
    assert (refused.status, "error" in refused.json) == (413, True)


def test_told_to_stop_it_answers_what_it_took(compact: Stack, door: Door, tmp_path: Path) -> None:
    """SIGTERM loses no call that is under way; then the process ends, and is started again."""
    asked = {"log": str(tmp_path / "log"), "sleep": 3.0, "number": number()}
    put_handler(compact, "counted", "counted", tmp_path)
    eventually(lambda: door.get("/v2/models/counted/ready").status == 200, 60, "the handler is ready")
    before = compact.pid("gateway")
    assert before
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(counted, door, "counted", asked)
        eventually((tmp_path / "log").exists, 30, "the model has begun")
        os.kill(before, signal.SIGTERM)
        time.sleep(0.5)
        assert door.get("/healthz").status == 503, "it says that it is about to end"
        assert slow.result(60).status == 200
    eventually(lambda: compact.pid("gateway") not in (None, before), 60, "it is started again")
    eventually(lambda: served_again(door), 60, "it answers again")


def test_killed_it_comes_back(compact: Stack, door: Door) -> None:
    """Nobody has to start it, and it has its routes and replicas at once."""
    before = compact.pid("gateway")
    assert before
    os.kill(before, signal.SIGKILL)
    eventually(lambda: compact.pid("gateway") not in (None, before), 60, "it is started again")
    eventually(lambda: served_again(door), 60, "it answers again")


def served_again(door: Door) -> bool:
    """Whether a model of each server answers anew."""
    if not accepts(door.port):
        return False
    iris = door.infer("iris", "measurements", "FP32", ROW, [1, 4], cache_control="no-cache")
    digits = door.infer("digits", "image", "FP32", [0.0] * 64, [1, 8, 8], cache_control="no-cache")
    return (iris.status, digits.status) == (200, 200)
