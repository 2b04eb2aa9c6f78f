"""Parts that go away and come back: who notices, who does not, and that nothing else has to be restarted."""

import os
import signal

from door import Door, eventually

from portico.local.stack import Stack

ROW = [5.1, 3.5, 1.4, 0.2]
IMAGE = [0.0] * 64


def iris(door: Door, *measurements: float) -> str:
    """The x-cache of a good answer."""
    answer = door.infer("iris", "measurements", "FP32", list(measurements or ROW), [1, 4])
    assert answer.status == 200, answer.body
    return answer.headers["x-cache"]


def digits(door: Door) -> int:
    """The status of a call that no cache answers."""
    return door.infer("digits", "image", "FP32", IMAGE, [1, 8, 8], cache_control="no-cache").status


def test_torchserve_stops_and_starts(stack: Stack, door: Door) -> None:
    """Without TorchServe its model is 503 with a reason and not ready, the other server's goes on; then it heals."""
    others = {name: stack.pid(name) for name in ("redis", "tf-serving", "controller", "gateway", "envoy")}
    assert digits(door) == 200
    stack.stop("torchserve")
    try:
        answer = door.infer("digits", "image", "FP32", IMAGE, [1, 8, 8], cache_control="no-cache")
        assert (answer.status, "TorchServe" in answer.json["error"]) == (503, True)
        eventually(lambda: door.get("/v2/models/digits/ready").status == 503, 20, "digits is not ready")
        assert iris(door) in ("HIT", "MISS")
        assert door.get("/v2/models/iris/ready").status == 200
    finally:
        stack.start("torchserve")
    eventually(lambda: digits(door) == 200, 90, "digits answers again")
    eventually(lambda: door.get("/v2/models/digits/ready").status == 200, 20, "digits is ready again")
    assert {name: stack.pid(name) for name in others} == others


def test_tf_serving_stops_and_starts(stack: Stack, door: Door) -> None:
    """The same of TF Serving."""

    def fresh() -> int:
        return door.infer("iris", "measurements", "FP32", ROW, [1, 4], cache_control="no-cache").status

    stack.stop("tf-serving")
    try:
        assert fresh() == 503
        assert digits(door) == 200
    finally:
        stack.start("tf-serving")
    eventually(lambda: fresh() == 200, 60, "iris answers again")
    eventually(lambda: door.get("/v2/models/iris/ready").status == 200, 20, "iris is ready again")


def test_controller_stops(stack: Stack, door: Door) -> None:
    """Without the controller requests go on with the last routes."""
    stack.stop("controller")
    try:
        assert iris(door) in ("HIT", "MISS")
        assert digits(door) == 200
        assert door.get("/readyz").status == 200
    finally:
        stack.start("controller")


def test_cache_miss_then_hit_then_bypass(door: Door) -> None:
    """The first answer is a MISS, the second a HIT with the same bytes, one with no-cache a BYPASS."""
    row = [4.4, 2.9, 1.4, 0.3]
    first, second = (door.infer("iris", "measurements", "FP32", row, [1, 4]) for _ in range(2))
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("MISS", "HIT")
    assert first.body == second.body
    third = door.infer("iris", "measurements", "FP32", row, [1, 4], cache_control="no-cache")
    assert (third.headers["x-cache"], third.body) == ("BYPASS", first.body)
    rows = door.post("/v1/models/iris:predict", {"instances": [row]})
    assert rows.headers["x-cache"] == "HIT", "the same tensors share one entry, whatever the protocol"


def test_redis_hangs(stack: Stack, door: Door) -> None:
    """While Redis hangs, every request is answered by the model; afterwards the cache is used again."""
    pid = stack.pid("redis")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        assert [iris(door, 1.0, 1.0, 1.0, float(index)) for index in range(20)] == ["MISS"] * 20
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: iris(door, 2.0, 2.0, 2.0, 2.0) == "HIT", 15, "the cache is used again")


def test_redis_dies(stack: Stack, door: Door) -> None:
    """While Redis is gone, every request is answered; when it is back, empty, cache and routes are too."""
    stack.stop("redis")
    try:
        assert [iris(door, 3.0, 1.0, 1.0, float(index)) for index in range(20)] == ["MISS"] * 20
        assert door.get("/readyz").status == 200
    finally:
        stack.start("redis")
    eventually(lambda: iris(door, 4.0, 2.0, 2.0, 2.0) == "HIT", 15, "the cache is used again")
    stack.stop("gateway")
    stack.start("gateway")
    eventually(lambda: door.get("/v2/models/iris/ready").status == 200, 30, "a new gateway gets the routes")
