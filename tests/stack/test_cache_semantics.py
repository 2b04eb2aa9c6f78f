"""What HTTP says of caches: what clients may ask for, and what they are told. The same by gRPC's metadata."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cache_clients import MODEL_INFER, rpc
from cache_models import calls, counted, new_log, number, put_handler, remove, served
from door import Answer, Door, eventually
from second_gateway import PATIENT, second_gateway

from portico.local.stack import Stack
from portico.wire import open_inference_pb2 as oip

MODEL = "semantics"
REFUSED = 504
"""HTTP's status for `only-if-cached` without an answer (RFC 9111, section 5.2.1.7)."""


@pytest.fixture(scope="module")
def gateway(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A gateway that waits for Redis as long as it takes, so that what is kept is found; and a handler that counts, and
    so answers differently each time that it is called.
    """
    scratch = tmp_path_factory.mktemp("semantics")
    put_handler(stack, "counted", MODEL, scratch)
    with second_gateway(stack, scratch / "gateway", **PATIENT) as second, served(second.door, MODEL):
        yield second.door
        remove(stack.models, MODEL)


class Counter:
    """A question of a test's own."""

    def __init__(self, door: Door, log: Path) -> None:
        self.door = door
        self.log = log
        self.question = {"log": str(log)}

    def ask(self, cache_control: str = "", **headers: str) -> Answer:
        """By REST."""
        if cache_control:
            headers["cache_control"] = cache_control
        return counted(self.door, MODEL, self.question, **headers)

    def number(self, cache_control: str = "") -> tuple[int, str]:
        """Which call of the model the answer is of, and the x-cache."""
        answer = self.ask(cache_control)
        assert answer.status == 200, answer
        return int(answer.body.rsplit(b" ", 1)[1]), answer.headers["x-cache"]

    def kept(self) -> int:
        """The number of the answer that is kept."""
        eventually(lambda: self.number()[1] == "HIT", 30, "it is kept")
        return self.number()[0]


@pytest.fixture
def counter(gateway: Door, tmp_path: Path) -> Counter:
    """A question that nobody has asked."""
    return Counter(gateway, new_log(tmp_path))


def test_no_cache(counter: Counter) -> None:
    """`no-cache`: the model is called, and its new answer takes the place of the old one."""
    before = counter.kept()
    new, x_cache = counter.number("no-cache")
    assert (new > before, x_cache) == (True, "BYPASS")
    eventually(lambda: counter.number() == (new, "HIT"), 30, "the new answer is kept")


def test_no_store(counter: Counter) -> None:
    """`no-store`: the model is called, and its answer is not kept; the old one still is."""
    assert counter.number("no-store") == (1, "BYPASS")
    assert counter.number("no-store") == (2, "BYPASS")
    assert counter.number() == (3, "MISS")
    before = counter.kept()
    assert counter.number("no-store") == (before + 1, "BYPASS")
    assert counter.number() == (before, "HIT")


def test_max_age(counter: Counter) -> None:
    """`max-age`: an answer that is older is none, and a new one takes its place."""
    before = counter.kept()
    assert counter.number("max-age=600") == (before, "HIT")
    eventually(lambda: int(counter.ask().headers["age"]) >= 2, 30, "the answer is two seconds old")
    new, x_cache = counter.number("max-age=1")
    assert (new > before, x_cache) == (True, "MISS")
    eventually(lambda: counter.number("max-age=600") == (new, "HIT"), 30, "the new answer is kept")
    assert counter.ask("max-age=soon").status == 400


def test_only_if_cached(counter: Counter) -> None:
    """`only-if-cached`: 504 rather than a call of the model."""
    refused = counter.ask("only-if-cached")
    assert refused.status == REFUSED
    assert "only-if-cached" in refused.json["message"]
    assert calls(counter.log) == 0
    before = counter.kept()
    assert counter.number("only-if-cached") == (before, "HIT")
    assert counter.ask("only-if-cached, no-store").status == REFUSED
    assert calls(counter.log) == before


def test_age(counter: Counter) -> None:
    """`age` is told of a kept answer, in seconds, and grows; of a new one there is none."""
    assert "age" not in counter.ask().headers
    counter.kept()
    eventually(lambda: int(counter.ask().headers["age"]) in range(1, 60), 30, "it has an age")
    assert "age" not in counter.ask("no-cache").headers


def test_entity_tags(counter: Counter) -> None:
    """`etag` is weak and that of the answer; who has it is told so by 304, without a body."""
    counter.kept()
    answer = counter.ask()
    tag = answer.headers["etag"]
    assert tag.startswith('W/"')
    for said in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
        known = counter.ask(if_none_match=said)
        assert (known.status, known.body, known.headers["etag"], known.headers["x-cache"]) == (304, b"", tag, "HIT")
    other = counter.ask(if_none_match='W/"other"')
    assert (other.status, other.body) == (200, answer.body)
    new = counter.ask("no-cache", if_none_match=tag)
    assert (new.status, new.headers["etag"] != tag) == (200, True)


def test_equal_answers_have_one_tag_in_all_protocols(door: Door) -> None:
    """A client of the door that got the answer by one protocol has it, by whichever it asks."""
    row = [number(), 2.0, 3.0, 1.0]
    inputs = [{"name": "measurements", "datatype": "FP32", "shape": [1, 4], "data": row}]
    asked: list[tuple[str, Any]] = [
        ("/v2/models/iris/infer", {"inputs": inputs}),
        ("/v2/models/iris/infer", {"inputs": inputs, "id": "mine"}),
        ("/v1/models/iris:predict", {"instances": [row]}),
    ]
    assert [door.post(path, body, cache_control="only-if-cached").status for path, body in asked] == [REFUSED] * 3
    tags = [door.post(path, body).headers["etag"] for path, body in asked]
    assert len(set(tags)) == 1
    for path, body in asked:
        assert door.post(path, body, if_none_match=tags[0]).status == 304


def test_the_same_by_grpc(counter: Counter) -> None:
    """The directives and what is told are metadata there; `only-if-cached` fails with FAILED_PRECONDITION."""
    request = oip.ModelInferRequest(model_name=MODEL)
    text = json.dumps(counter.question).encode()
    request.inputs.add(name="x", datatype="BYTES", shape=[1]).contents.bytes_contents.append(text)

    def ask(cache_control: str = "") -> tuple[int, dict[str, str]]:
        metadata = (("cache-control", cache_control),) if cache_control else ()
        answer, told = rpc(counter.door, MODEL_INFER, request, oip.ModelInferResponse, metadata)
        raw = answer.raw_output_contents or answer.outputs[0].contents.bytes_contents
        return int(raw[0].rsplit(b" ", 1)[1]), told

    with pytest.raises(grpc.RpcError) as refused:
        ask("only-if-cached")
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert calls(counter.log) == 0
    assert ask("no-store")[1]["x-cache"] == "BYPASS"
    first, told = ask()
    assert (first, told["x-cache"], "age" in told) == (2, "MISS", False)
    eventually(lambda: ask()[1]["x-cache"] == "HIT", 30, "it is kept")
    kept, told_then = ask("only-if-cached")
    assert (told_then["x-cache"], told_then["etag"], int(told_then["age"]) >= 0) == ("HIT", ask()[1]["etag"], True)
    new, told = ask("no-cache")
    assert (new > kept, told["x-cache"], told["etag"] != told_then["etag"]) == (True, "BYPASS", True)
    eventually(lambda: ask()[0] == new, 30, "the new answer is kept")
    eventually(lambda: int(ask()[1]["age"]) >= 2, 30, "the answer is two seconds old")
    assert ask("max-age=1")[0] > new
    assert calls(counter.log) == new + 1
