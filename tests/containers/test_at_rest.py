"""One command, and everything is served: `docker compose up`, asked from outside, through the one port."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace

from composed import PROJECT, ROOT, SERVICES, Composed
from door import Door, eventually
from engine import Engine

IMAGE_BYTES = 300_000_000


def test_it_answers_as_soon_as_it_is_up(stack: Composed, measured: list[str]) -> None:
    """After `up --wait` the demo models are predicted with, and what a first prediction takes is measured."""
    began, door = time.monotonic(), Door(stack.port)
    eventually(
        lambda: door.infer("iris", "measurements", "FP32", [5.1, 3.5, 1.4, 0.2], [1, 4]).status == 200, 60, "iris"
    )
    eventually(lambda: door.post("/predictions/digits", [[[0] * 8] * 8]).status == 200, 60, "digits")
    measured.append(f"| from there to the first prediction of both demo models | {time.monotonic() - began:.1f} s |")
    assert stack.unhealthy() == []


def test_every_protocol_predicts(stack: Composed) -> None:
    """The tests of the door pass from outside: every protocol, both servers."""
    every_protocol_predicts(stack)


def every_protocol_predicts(stack: Composed) -> None:
    """The same of any stack."""
    pytest_passes("tests/protocols", environment={**os.environ, "PORTICO_DOOR": f"127.0.0.1:{stack.port}"})


def test_compose_takes_every_combination_of_files(engine: Engine) -> None:
    """`docker compose config` finds docker-compose.yml valid, alone and with each set of overlays."""
    pytest_passes("tests/contract/test_overlays.py", "tests/contract/test_compose.py", environment=engine.environment)


def test_redis_needs_no_password(stack: Composed) -> None:
    """By default there is none, and Redis is healthy all the same."""
    where = ("--project-name", f"{PROJECT}-bare", "--env-file", os.devnull, "--file", str(ROOT / "docker-compose.yml"))
    environment = {name: value for name, value in stack.engine.environment.items() if name != "REDIS_PASSWORD_FILE"}
    bare = replace(stack.engine, environment=environment)
    try:
        bare.docker("compose", *where, "up", "--detach", "--wait", "redis", seconds=60)
        assert bare.docker("compose", *where, "exec", "--no-TTY", "redis", "redis-cli", "dbsize") == "0\n"
    finally:
        bare.docker("compose", *where, "down", "--volumes", "--timeout", "1", seconds=60)


def pytest_passes(*tests: str, environment: Mapping[str, str]) -> None:
    """Runs other tests, none of which may be left out."""
    command = [sys.executable, "-m", "pytest", *tests, "-q", "--timeout", "60", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout)
    assert "skipped" not in done.stdout


def test_the_image_is_small(stack: Composed, measured: list[str]) -> None:
    """The image of gateway and controller has less than 300 MB."""
    size = int(stack.engine.docker("image", "inspect", "--format", "{{.Size}}", "portico:local"))
    measured.append(f"| image `portico` | {size / 1e6:.0f} MB |")
    assert size < IMAGE_BYTES


def test_memory_at_rest(stack: Composed, measured: list[str]) -> None:
    """Each service, with two models and after a few requests, has most of its limit left."""
    for service in SERVICES:
        (found,) = stack.inspected(stack.containers(service)[0])
        told = stack.engine.docker("stats", "--no-stream", "--format", "{{.MemUsage}} {{.MemPerc}}", found["Id"])
        used, _, limit, share = told.split()
        measured.append(f"| memory of `{service}` at rest (limit) | {used} ({limit}) |")
        assert float(share.rstrip("%")) < 50, told
