"""Hostile requests through the whole stack: whatever comes in, the gateway answers as one that works, stays the same
process, and keeps no memory of it. All that is drawn is drawn in the same way each time.
"""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import grpc
import pytest
from door import TIMEOUT, Door, eventually
from hypothesis import HealthCheck, given, settings

from asgi_client import Headers
from choices import Choices, made
from hostile_tensors import Known, hostile_message, kind_of, valid
from mutated_json import json_bodies, mutated_json
from mutations import body_with, bomb, frame
from portico.edges.grpc import Method
from portico.edges.status import GrpcCode
from portico.local.stack import Stack
from sample_gateway import SampleGateway
from verdicts import check_grpc, check_http

KNOWN = Known(inputs={"iris": ("measurements", "FP32", (1, 4))}, handlers=("digits",), examples=())
METHODS: dict[str, Method] = SampleGateway().grpc_edge._methods
INFER = "/inference.GRPCInferenceService/ModelInfer"
ROW = [5.1, 3.5, 1.4, 0.2]
LIMIT = 64 << 20
MOST_TAKEN, MOST_KEPT = 4 * LIMIT, LIMIT
"""Bytes that the gateway may grow by during all this, and be larger by after it. One call after the other is made, and
each may bring a message of `LIMIT`, which is unpacked and copied.
"""
INFLATED = 1 << 20
"""Bytes that a compressed message unpacks to, at most, but for `test_bomb`."""
DEADLINE = 0.06
"""Seconds, for calls that would not end by themselves."""


def fuzz(examples: int) -> settings:
    return settings(
        derandomize=True, deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow]
    )


@pytest.fixture(scope="module", autouse=True)
def unharmed(stack: Stack, door: Door) -> Iterator[None]:
    """All of this module leaves every process as it was, the gateway about as large, and no fault in its log."""
    pids = {name: stack.pid(name) for name in stack._processes}
    process = Path(f"/proc/{pids['gateway']}")
    for _ in range(50):
        good(door)
    logged = stack.log("gateway").stat().st_size
    (process / "clear_refs").write_text("5")  # sets VmHWM back to VmRSS, see proc(5)
    before = memory(process, "VmRSS")
    yield
    assert {name: stack.pid(name) for name in pids} == pids
    assert memory(process, "VmHWM") - before < MOST_TAKEN
    eventually(lambda: memory(process, "VmRSS") - before < MOST_KEPT, 20, "what hostile calls took is given back")
    assert "Traceback" not in stack.log("gateway").read_bytes()[logged:].decode(errors="replace")


def memory(process: Path, name: str) -> int:
    """Bytes, by a name of proc(5)."""
    lines = (process / "status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def good(door: Door) -> None:
    """A model of each server answers."""
    assert door.infer("iris", "measurements", "FP32", ROW, [1, 4], cache_control="no-cache").status == 200
    assert door.post("/predictions/digits", [[0] * 8] * 8, cache_control="no-cache").status == 200


def ends_by_itself(method: Method) -> bool:
    return not method.lasting or method.both is not None


def grpc_web(door: Door, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    """(code, message) that a gRPC-Web call ends with. It passes a body on as it is, where gRPC's libraries send no
    frame that lies.
    """
    answer = door.post(path, body, **headers, **{"content-type": "application/grpc-web+proto"})
    assert answer.status == 200
    told, rest = answer.headers, answer.body
    while rest:
        size = 5 + int.from_bytes(rest[1:5], "big")
        if rest[0] & 0x80:  # trailers, which are the last frame
            told = told | dict(line.split(":", 1) for line in rest[5:size].decode().splitlines())
        rest = rest[size:]
    return int(told["grpc-status"]), unquote(told.get("grpc-message", ""))


@pytest.mark.parametrize("path", METHODS)
def test_frames(door: Door, path: str) -> None:
    """Frames that lie, and messages that are wrong in them, end each method's call with a code that fits."""
    method, kind = METHODS[path], kind_of(path)
    seeds = valid(kind, KNOWN)

    def call(choices: Choices) -> tuple[bytes, dict[str, str]]:
        count = 1 if method.both is None else choices.upto(3)
        parts = [body_with(choices, hostile_message(choices, kind, seeds, KNOWN), INFLATED) for _ in range(count)]
        return b"".join(body for body, _ in parts), text_of([header for _, headers in parts for header in headers])

    @fuzz(100 if seeds != [b""] else 20)
    @given(made(call))
    def calls(call: tuple[bytes, dict[str, str]]) -> None:
        body, headers = call
        if not ends_by_itself(method):
            headers = headers | {"grpc-timeout": f"{DEADLINE * 1000:.0f}m"}
        check_grpc(*grpc_web(door, path, body, headers), timed="grpc-timeout" in headers)

    calls()
    good(door)


def text_of(headers: Headers) -> dict[str, str]:
    return {name.decode(): value.decode("latin-1") for name, value in headers}


@pytest.mark.parametrize("path", METHODS)
def test_messages(door: Door, path: str) -> None:
    """Messages that are wrong end each method's call with a code that fits, for a client of gRPC's own."""
    method, kind = METHODS[path], kind_of(path)
    seeds = valid(kind, KNOWN)
    timeout = TIMEOUT if ends_by_itself(method) else DEADLINE

    def messages(choices: Choices) -> list[bytes]:
        count = 1 if method.both is None else choices.upto(4)
        return [hostile_message(choices, kind, seeds, KNOWN) for _ in range(count)]

    with grpc.insecure_channel(door.address) as channel:

        @fuzz(30 if seeds != [b""] else 5)
        @given(made(messages))
        def calls(messages: list[bytes]) -> None:
            try:
                if method.unary is not None:
                    channel.unary_unary(path)(messages[0], timeout=timeout)
                elif method.stream is not None:
                    list(channel.unary_stream(path)(messages[0], timeout=timeout))
                else:
                    list(channel.stream_stream(path)(iter(messages), timeout=timeout))
            except grpc.RpcError as error:
                check_grpc(error.code().value[0], error.details(), timed=timeout == DEADLINE)

        calls()
    good(door)


def test_bomb(door: Door) -> None:
    """A message that unpacks to more than the limit is refused as too large, again and again."""
    for _ in range(5):
        code, text = grpc_web(door, INFER, frame(bomb(LIMIT + 1), flag=1), {"grpc-encoding": "gzip"})
        assert (code, str(LIMIT) in text) == (GrpcCode.RESOURCE_EXHAUSTED, True)
    good(door)


PATHS = (
    *("/v2/models/iris/infer", "/v2/models/digits/infer", "/v1/models/iris:predict", "/v1/models/digits:predict"),
    *("/v1/models/iris:classify", "/v2/repository/index", "/predictions/digits"),
)
LENGTHS = ("0", "-1", "5", "1e3", "9" * 30, "5, 5", "")


@pytest.mark.parametrize("path", PATHS)
def test_bodies(door: Door, path: str) -> None:
    """JSON that no parser likes, and lengths of JSON that are none, get an answer that is no 5xx."""
    seeds = json_bodies(KNOWN)

    def call(choices: Choices) -> tuple[bytes, dict[str, str]]:
        body = choices.binary(60) if choices.rarely(8) else mutated_json(choices, seeds, KNOWN.all_words)
        headers = {"content-type": "application/json"}
        if choices.rarely(4):
            headers["inference-header-content-length"] = choices.one((str(len(body)), str(len(body) - 4), *LENGTHS))
        if choices.rarely(8):
            headers["content-encoding"] = choices.one(("gzip", "br", "gzip, gzip", "identity"))
        return body, headers

    @fuzz(80)
    @given(made(call))
    def calls(call: tuple[bytes, dict[str, str]]) -> None:
        body, headers = call
        answer = door.post(path, body, **headers)
        check_http(answer.status, f"{answer.headers} {answer.body.decode(errors='replace')}")

    calls()
    good(door)
