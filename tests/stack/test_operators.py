"""What operators ask the running stack, and clients may not."""

import json
import subprocess

import pytest
from door import Answer, Door, eventually

from portico.local import layout
from portico.local.stack import Stack

FLOWER = [[5.5, 3.25, 1.5, 0.25]]


@pytest.fixture(scope="module")
def controller(stack: Stack) -> Door:
    """The controller's address for operators."""
    return Door(stack.addresses.operators)


def classified(door: Door) -> Answer:
    """A prediction that no other test asks for."""
    answer = door.infer("iris", "measurements", "FP32", FLOWER, [1, 4])
    assert answer.status == 200, answer
    return answer


def command(stack: Stack, *arguments: str) -> str:
    """What `portico cache` prints."""
    url = f"http://127.0.0.1:{stack.addresses.operators}"
    full = [str(layout.GATEWAY_PYTHON), "-m", "portico", "cache", *arguments, "--url", url]
    return subprocess.run(
        full, cwd=layout.ROOT / "gateway", check=True, capture_output=True, text=True, timeout=60
    ).stdout


def kept(door: Door) -> None:
    """Returns when the prediction comes from the cache."""
    eventually(lambda: classified(door).headers["x-cache"] == "HIT", 30, "it is kept")


def test_a_purged_model_is_asked_anew(stack: Stack, door: Door) -> None:
    """`portico cache stats` tells what is kept, and after `portico cache purge` no gateway has it, nor Redis."""
    kept(door)
    stats = json.loads(command(stack, "stats", "--json"))
    (iris,) = [one for one in stats["models"] if one["model"] == "iris"]
    assert iris["entries"] >= 1
    assert iris["bytes"] > 0
    assert stats["complete"]
    assert 0 < stats["redis"]["used_memory"] < stats["redis"]["maxmemory"] == 256 << 20
    assert "iris" in command(stack, "stats")

    def missed() -> bool:
        assert command(stack, "purge", "iris").endswith(" of iris removed.\n")
        return classified(door).headers["x-cache"] == "MISS"

    eventually(missed, 30, "the gateway has heard of a purge before it was asked again")


def test_everything_can_be_purged(controller: Door, door: Door) -> None:
    """And nothing but the cache: predictions go on."""
    kept(door)
    assert controller.call("DELETE", "/v1/cache").json["removed"] >= 1
    classified(door)


def test_a_name_that_nobody_knows(controller: Door) -> None:
    """A typing error is no purge."""
    answer = controller.call("DELETE", "/v1/cache/irsi")
    assert answer.status == 404
    assert "no model irsi" in answer.json["error"]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("path", ["/v1/cache", "/v1/cache/iris", "/metrics"])
def test_clients_are_no_operators(stack: Stack, door: Door, method: str, path: str) -> None:
    """At the clients' port there is neither a look at the cache nor a purge, nor any metrics."""
    kept(door)
    for port in (stack.addresses.clients, stack.addresses.gateway):
        assert Door(port).call(method, path).status in (404, 405)
    assert classified(door).headers["x-cache"] == "HIT"


def test_gateways_are_no_place_to_purge(stack: Stack) -> None:
    """Their own address for operators has metrics, and those alone."""
    gateway = Door(stack.addresses.gateway_metrics)
    assert gateway.call("DELETE", "/v1/cache/iris").status == 404
    assert "process_cpu_seconds_total" in gateway.get("/metrics").body.decode()
