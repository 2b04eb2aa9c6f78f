"""The cache never gives an answer that the model would not give: what shares an entry, what does not, what is kept."""

import itertools
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cache_clients import CLIENTS, Client
from cache_models import (
    SECONDS,
    SHARED,
    calls,
    counted,
    entries,
    new_log,
    number,
    outputs,
    pair,
    poisoned,
    put_handler,
    put_pair,
    remove,
    served,
    truncated,
)
from door import Answer, Door, eventually
from probe_models import SavedModels
from redis import Redis
from second_gateway import PATIENT, second_gateway

from portico.local.stack import Stack

PAIRS = {
    "pair": ({1: 1, 2: 2}, "versions: all\n"),
    "pair-twin": ({1: 7}, ""),
    "pair-overwritten": ({1: 3}, ""),
    "pair-tenants": ({1: 1}, "cache: {vary: x-tenant}\n"),
    "pair-small": ({1: 1}, "cache: {max_entry_bytes: 64}\n"),
}
HANDLERS = {"counted": "", "counted-stateful": "stateful: true\n"}


@pytest.fixture(scope="module")
def made(tf_python: Path, tmp_path_factory: pytest.TempPathFactory) -> SavedModels:
    """SavedModels that tell their content."""
    return SavedModels(tf_python, tmp_path_factory.mktemp("pair"), "make_pair.py")


@pytest.fixture(scope="module")
def gateway(stack: Stack, made: SavedModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A gateway that waits for Redis as long as it takes, so that each HIT and MISS is sure; and the models."""
    scratch = tmp_path_factory.mktemp("cache-safety")
    for name, policy in HANDLERS.items():
        put_handler(stack, "counted", name, scratch, policy)
    for name, (contents, text) in PAIRS.items():
        put_pair(stack, made, name, contents, text)
    with second_gateway(stack, scratch / "gateway", **PATIENT) as second, served(second.door, *PAIRS, *HANDLERS):
        yield second.door
        for name in (*PAIRS, *HANDLERS):
            remove(stack.models, name)


@pytest.fixture(scope="module")
def redis(stack: Stack) -> Iterator["Redis[bytes]"]:
    """The stack's Redis."""
    with Redis(port=stack.addresses.redis) as client:
        yield client


def apart(one: Answer, other: Answer) -> None:
    """Each was asked of a model."""
    assert (one.headers["x-cache"], other.headers["x-cache"]) == ("MISS", "MISS")


def same(one: Answer, other: Answer) -> None:
    """The second was not."""
    assert one.headers["x-cache"] == "MISS"
    assert other.headers["x-cache"] in SHARED
    assert outputs(one) == outputs(other)


def test_two_models_with_the_same_input(gateway: Door) -> None:
    """Each answers for itself, first and from the cache."""
    values = [number()]
    one, other = (pair(gateway, name, values, values) for name in ("pair", "pair-twin"))
    apart(one, other)
    for name, content in (("pair", 2), ("pair-twin", 7)):
        kept = pair(gateway, name, values, values, more={"id": "again"})
        assert (kept.headers["x-cache"] in SHARED, outputs(kept)["content"]) == (True, [content])


def test_two_versions(gateway: Door) -> None:
    """So does each version. A call without a version is one of the newest."""
    values = [number()]
    one, other = (pair(gateway, "pair", values, values, path=f"/versions/{version}") for version in (1, 2))
    apart(one, other)
    assert (outputs(one)["content"], outputs(other)["content"]) == ([1], [2])
    same(other, pair(gateway, "pair", values, values))


def test_same_version_with_new_weights(gateway: Door, stack: Stack, made: SavedModels) -> None:
    """Once files that were overwritten answer, nothing that the old ones said is given, whatever was asked."""
    values = [number()]

    def answer(**more: Any) -> list[float]:
        return outputs(pair(gateway, "pair-overwritten", values, values, **more))["content"]

    assert [answer(), answer(), answer(more={"id": "another"})] == [[3]] * 3
    for name, data in made.files(4).items():
        (stack.models / "pair-overwritten" / "1" / name).write_bytes(data)
    eventually(lambda: answer(cache_control="no-store") == [4], SECONDS, "the new weights answer")
    assert [answer(), answer(), answer(more={"id": "another"})] == [[4]] * 3


@pytest.mark.parametrize("model", ["pair", "counted"])
def test_other_shape_with_equal_bytes(gateway: Door, model: str) -> None:
    """[2, 3] and [3, 2] are two questions."""
    values = [number() + index for index in range(6)]
    if model == "pair":
        answers = [pair(gateway, model, values, values, shape=shape) for shape in ([2, 3], [3, 2])]
        assert [answer.json["outputs"][0]["shape"] for answer in answers] == [[2, 3], [3, 2]]
    else:
        answers = [gateway.infer(model, "x", "FP32", values, shape) for shape in ([2, 3], [3, 2])]
        assert len({answer.body for answer in answers}) == 2
    apart(*answers)


def test_other_datatype_with_equal_bytes(gateway: Door) -> None:
    """int32 and float32 are two questions, though the bytes are the same; the handler says what it saw."""
    as_int, as_float = 1065353216, 1.0
    answers = [
        gateway.infer("counted", "x", datatype, [value], [1])
        for datatype, value in (("INT32", as_int), ("FP32", as_float))
    ]
    apart(*answers)
    assert [answer.json["outputs"][0]["data"][0].split(" ")[0] for answer in answers] == ["[1065353216]", "[1.0]"]


def test_subset_of_outputs(gateway: Door) -> None:
    """Who asks for one output gets that, who asks for another gets the other; all by name is as good as none."""
    values = [number()]
    total, content = (
        pair(gateway, "pair", values, values, more={"outputs": [{"name": name}]}) for name in ("total", "content")
    )
    apart(total, content)
    assert (list(outputs(total)), list(outputs(content))) == (["total"], ["content"])
    both = pair(gateway, "pair", values, values, more={"outputs": [{"name": "total"}, {"name": "content"}]})
    same(both, pair(gateway, "pair", values, values))


def test_other_signature(gateway: Door) -> None:
    """Each signature has answers of its own; the default one may be named."""
    values = [number()]
    one, other, named = (
        pair(gateway, "pair", values, values, more={"parameters": {"signature_name": name}})
        for name in ("", "negated", "serving_default")
    )
    apart(one, other)
    same(one, named)
    assert outputs(one)["total"] == [-value for value in outputs(other)["total"]] == [3 * values[0]]


def test_other_parameter(gateway: Door) -> None:
    """What a handler is told beside the body counts: the content type, and the rest of the path. The query does not
    reach it, and does not count.
    """
    body = str(number()).encode()
    asked = [
        gateway.post(f"/predictions/counted/1.0{path}", body, content_type=kind)
        for path, kind in (("", "text/plain"), ("", "text/csv"), ("/deep", "text/plain"), ("?q=1", "text/plain"))
    ]
    assert [answer.headers["x-cache"] for answer in asked[:3]] == ["MISS"] * 3
    assert len({answer.body for answer in asked[:3]}) == 3
    assert asked[3].headers["x-cache"] in SHARED
    assert asked[3].body == asked[0].body


def test_input_order_swapped(gateway: Door) -> None:
    """A model that knows its inputs by name is asked the same, in whichever order they come; not if the values are."""
    a, b = [number()], [number()]
    one = pair(gateway, "pair", a, b)
    same(one, pair(gateway, "pair", a, b, swapped=True))
    apart(one, other := pair(gateway, "pair", b, a))
    assert outputs(one)["total"] != outputs(other)["total"]


def test_request_id_differs(gateway: Door, redis: "Redis[bytes]") -> None:
    """Whoever asks, it is one entry, and each gets an answer with an id of its own."""
    values, before = [number()], len(entries(redis, "pair-twin"))
    answers = [pair(gateway, "pair-twin", values, values, more={"id": name}) for name in ("one", "two", "three")]
    assert [answer.json["id"] for answer in answers] == ["one", "two", "three"]
    for answer in answers[1:]:
        same(answers[0], answer)
    assert len(entries(redis, "pair-twin")) == before + 1


@pytest.mark.parametrize(
    ("first", "second"),
    list(itertools.permutations(CLIENTS, 2)),
    ids=lambda client: client.__name__,
)
def test_each_pair_of_protocols_shares_an_entry(gateway: Door, first: Client, second: Client) -> None:
    """The same tensors by another protocol, or in another encoding, are the same question."""
    a, b = [number(), 0.5, -1.0], [0.25, number(), math.pi]
    one, other = (client(gateway, "pair", a, b) for client in (first, second))
    assert one.x_cache == "MISS"
    assert other.x_cache in SHARED
    right = [x + 2 * y for x, y in zip(a, b, strict=True)]
    assert one.total == pytest.approx(right, rel=1e-6)
    assert other.total == pytest.approx(right, rel=1e-6)


def test_a_stateful_model_is_never_kept(gateway: Door, redis: "Redis[bytes]", tmp_path: Path) -> None:
    """A counter counts each call."""
    log = new_log(tmp_path)
    answers = [counted(gateway, "counted-stateful", {"log": str(log)}) for _ in range(3)]
    assert [answer.body for answer in answers] == [b"content 1, call %d" % call for call in (1, 2, 3)]
    assert {answer.headers["x-cache"] for answer in answers} == {"BYPASS"}
    assert entries(redis, "counted-stateful") == {}


def test_error_then_success(gateway: Door, tmp_path: Path) -> None:
    """An error is not kept: the same question is answered as soon as the model can, and that answer is kept."""
    log, fail = new_log(tmp_path), tmp_path / "fail"
    fail.touch()
    asked = {"log": str(log), "fail": str(fail)}
    assert [counted(gateway, "counted", asked).status >= 500 for _ in range(2)] == [True, True]
    assert calls(log) == 2
    fail.unlink()
    answers = [counted(gateway, "counted", asked) for _ in range(2)]
    assert [answer.body for answer in answers] == [b"content 1, call 3"] * 2
    assert answers[0].headers["x-cache"] == "MISS"
    assert answers[1].headers["x-cache"] in SHARED


def test_swap_during_a_flight(gateway: Door, stack: Stack, door: Door, tmp_path: Path) -> None:
    """The old files' answer to a call that began before the swap is given to that call, and never after the swap: not
    by the gateway that made the call, not by another, although the archive's version is the same.
    """
    log, gate = new_log(tmp_path), tmp_path / "gate"
    asked, told = {"log": str(log), "gate": str(gate)}, list[Answer]()
    flight = threading.Thread(target=lambda: told.append(counted(gateway, "counted", asked)))
    flight.start()
    try:
        eventually(lambda: calls(log) == 1, SECONDS, "the model is called")
        put_handler(stack, "counted", "counted", tmp_path, content=2)
        # A call would be stuck behind the one under way, where it still reached the old files.
        metrics, replaced = Door(stack.addresses.operators), 'change="replaced",model="counted"'
        eventually(lambda: replaced in metrics.get("/metrics").body.decode(), SECONDS, "the new archive answers")
        assert not told
    finally:
        gate.touch()
        flight.join(SECONDS)
    assert [answer.body for answer in told] == [b"content 1, call 1"]
    after = [counted(each, "counted", asked) for each in (gateway, gateway, door)]
    assert [answer.body for answer in after] == [b"content 2, call 2"] * 3
    assert after[0].headers["x-cache"] == "MISS"
    assert after[1].headers["x-cache"] in SHARED


@pytest.mark.parametrize("spoil", [truncated, poisoned])
def test_spoiled_values_in_redis(gateway: Door, redis: "Redis[bytes]", spoil: Any) -> None:
    """What is not whole is no answer: the model is asked, and its answer takes the place."""
    values, ids = [number()], map(str, itertools.count())
    before = entries(redis, "pair-twin").keys()

    def ask() -> tuple[str, dict[str, list[float]]]:
        # Each time with another id, so that the gateway does not remember the request itself.
        answer = pair(gateway, "pair-twin", values, values, more={"id": next(ids)})
        return answer.headers["x-cache"], outputs(answer)

    right = ask()[1]
    eventually(lambda: len(entries(redis, "pair-twin").keys() - before) == 1, 30, "it is kept")
    ((key, value),) = ((key, value) for key, value in entries(redis, "pair-twin").items() if key not in before)
    for bad in spoil(value):
        redis.set(key, bad, ex=600)
        assert ask() == ("MISS", right), bad
        eventually(lambda: ask() == ("HIT", right), 30, f"an answer in place of {bad!r}")
    redis.delete(key)
    redis.rpush(key, b"not even a string")
    assert ask() == ("MISS", right)
    eventually(lambda: ask() == ("HIT", right), 30, "an answer in place of a list")


def test_tenants_share_nothing(gateway: Door) -> None:
    """Where the policy varies answers by a header, those with another value, or none, are asked for anew."""
    values = [number()]
    for tenant in ("one", "two", ""):
        headers = {"x_tenant": tenant} if tenant else {}
        same(*(pair(gateway, "pair-tenants", values, values, **headers) for _ in range(2)))
        same_to_others = pair(gateway, "pair-tenants", values, values, more={"id": "x"}, x_other="y", **headers)
        assert same_to_others.headers["x-cache"] in SHARED
    values = [number()]
    same(*(pair(gateway, "pair", values, values, x_tenant=tenant) for tenant in ("one", "two")))


def test_large_answers_are_not_kept(gateway: Door, redis: "Redis[bytes]") -> None:
    """Of a model with `max_entry_bytes: 64`, two outputs of 8 numbers each are kept, and those of 9 are not."""
    for count, second in ((8, SHARED), (9, ("MISS",))):
        values = [number()] * count
        answers = [pair(gateway, "pair-small", values, values) for _ in range(2)]
        assert answers[0].headers["x-cache"] == "MISS"
        assert answers[1].headers["x-cache"] in second
    assert len(entries(redis, "pair-small")) == 1


def test_streams_are_never_kept(gateway: Door, redis: "Redis[bytes]", tmp_path: Path) -> None:
    """An answer in pieces is asked for each time, also by those who get it as one."""
    log, before = new_log(tmp_path), entries(redis, "counted").keys()
    asked = {"log": str(log), "pieces": True}
    for call in (1, 2):
        answer = counted(gateway, "counted", asked)
        assert (answer.body[:11], answer.body[-6:]) == (b"in pieces: ", b"call %d" % call)
        assert answer.headers.get("x-cache") in (None, "BYPASS", "MISS")
    text = f'{{"log": "{log}", "pieces": true}}'
    for call in (3, 4):
        whole = gateway.infer("counted", "x", "BYTES", [text], [1])
        assert f"call {call}" in whole.json["outputs"][0]["data"][0]
    assert entries(redis, "counted").keys() == before
